//! One look at one GPU through NVIDIA's library.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::signs::{Look, Sign};
use crate::inventory::nvlink;

/// Error counters of a link that tell of a bad cable or connector.
const LINK_ERRORS: [ErrorCounter; 4] = [
    ErrorCounter::DlReplay,
    ErrorCounter::DlRecovery,
    ErrorCounter::DlCrcFlit,
    ErrorCounter::DlCrcData,
];

/// What a GPU was like when the watch began.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    known: bool,
    ecc: u64,
    /// Links that were up, by number.
    links: Vec<u32>,
    link_errors: u64,
}

/// What a GPU does now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Percent; `None` where the driver does not say (GPUs that are cut).
    pub(super) utilization: Option<u32>,
    pub(super) memory_used_mib: u64,
    pub(super) watts: u32,
    pub(super) celsius: u32,
    /// Since the driver was loaded, millijoules.
    pub(super) energy_mj: Option<u64>,
    pub(super) pids: Vec<u32>,
}

/// Looks at a GPU. Without an answer only that is told.
pub(super) fn look(nvml: &Nvml, index: u32, baseline: &mut Baseline) -> (Look, Option<Reading>) {
    let read = nvml.device_by_index(index).and_then(|device| reading(&device).map(|r| (device, r)));
    match read {
        Ok((device, reading)) => (
            Look { signs: signs(&device, baseline).into_iter().collect(), answered: true },
            Some(reading),
        ),
        Err(fault) => {
            let sign = match fault {
                NvmlError::GpuLost => (Sign::Lost, "it fell off the bus (GPU is lost)".to_owned()),
                fault => (Sign::Mute, format!("it does not answer: {fault}")),
            };
            (Look { signs: [sign].into(), answered: false }, None)
        }
    }
}

/// What a GPU does.
pub(super) fn reading(device: &Device<'_>) -> Result<Reading, NvmlError> {
    let pids = device.running_compute_processes().map(|all| all.iter().map(|p| p.pid).collect());
    Ok(Reading {
        utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
        memory_used_mib: device.memory_info()?.used >> 20,
        watts: device.power_usage().map_or(0, |milliwatts| milliwatts / 1000),
        celsius: device.temperature(TemperatureSensor::Gpu).unwrap_or(0),
        energy_mj: device.total_energy_consumption().ok(),
        pids: pids.unwrap_or_default(),
    })
}

fn signs(device: &Device<'_>, baseline: &mut Baseline) -> Vec<(Sign, String)> {
    let mut out = Vec::new();
    let ecc = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap_or(0);
    let links = nvlink::links(device);
    let up: Vec<u32> = (0u32..).zip(&links).filter(|(_, link)| link.up).map(|(at, _)| at).collect();
    let errors = link_errors(device, &up);
    if !baseline.known {
        *baseline = Baseline { known: true, ecc, links: up.clone(), link_errors: errors };
    }
    if ecc > baseline.ecc {
        let count = ecc - baseline.ecc;
        out.push((Sign::Ecc, format!("{count} uncorrected memory (ECC) errors")));
    }
    if let Some((pending, failed)) = nvlink::remapped_rows(device) {
        if failed {
            out.push((Sign::RemapFailed, "a broken memory row could not be remapped".to_owned()));
        }
        if pending {
            let words = "a broken memory row waits to be remapped: reset the GPU";
            out.push((Sign::RemapPending, words.to_owned()));
        }
    }
    let down: Vec<String> =
        baseline.links.iter().filter(|at| !up.contains(at)).map(ToString::to_string).collect();
    if !down.is_empty() {
        out.push((Sign::LinkDown, format!("NVLink {} is down", down.join(","))));
    }
    if errors > baseline.link_errors {
        let count = errors - baseline.link_errors;
        out.push((Sign::LinkErrors, format!("{count} NVLink errors since the last look")));
    }
    baseline.link_errors = errors;
    let hot = ThrottleReasons::HW_THERMAL_SLOWDOWN;
    if device.current_throttle_reasons().is_ok_and(|reasons| reasons.contains(hot)) {
        let celsius = device.temperature(TemperatureSensor::Gpu).unwrap_or(0);
        out.push((Sign::Hot, format!("it is slowed down by heat ({celsius} C)")));
    }
    out
}

fn link_errors(device: &Device<'_>, up: &[u32]) -> u64 {
    let of = |link: &u32| -> u64 {
        let wrapper = device.link_wrapper_for(*link);
        LINK_ERRORS.iter().filter_map(|c| wrapper.error_counter(*c).ok()).sum()
    };
    up.iter().map(of).sum()
}

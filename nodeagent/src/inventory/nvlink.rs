//! How GPUs hang together: NVLinks first, then PCIe. Calls that the wrapper lacks, or gets wrong
//! (`remote_device_type` always answers Unknown in 0.13), go to the library directly.

use muster_model::{GpuLinks, LinkClass};
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as nv;

use super::gpu::Unit;

/// Versioned structs carry their size and version in the first word (`NVML_STRUCT_VERSION`).
const FABRIC_INFO_VERSION: u32 = 3;

type OneNumber = unsafe extern "C" fn(nv::nvmlDevice_t, *mut std::ffi::c_uint) -> nv::nvmlReturn_t;

/// Calls a function of one device that answers with one number.
pub(super) fn number(
    device: &Device<'_>,
    pick: impl FnOnce(&nv::NvmlLib) -> Option<&OneNumber>,
) -> Result<u32, NvmlError> {
    let call = pick(device.nvml().lib()).ok_or(NvmlError::FunctionNotFound)?;
    let mut value = 0;
    // SAFETY: the handle is alive as long as `device`, and the library writes one number.
    let code = unsafe { call(device.handle(), &raw mut value) };
    nvml_wrapper::error::nvml_try(code)?;
    Ok(value)
}

/// A GPU's NVLink fabric as the driver tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FabricInfo {
    pub(super) cluster: [u8; 16],
    pub(super) clique: u32,
    /// The GPU has joined it; before, the rest means nothing.
    pub(super) complete: bool,
}

/// Room for so many cliques of a GPU (`NVML_GPU_FABRIC_CLIQUE_MAX`).
const CLIQUES: usize = 64;

/// One clique: GPUs that reach each other in one way.
#[repr(C)]
#[derive(Clone, Copy)]
struct Clique {
    /// 0: by plain loads and stores, what older drivers call the clique.
    kind: u8,
    id: u32,
}

/// `nvmlGpuFabricInfo_v4_t`, which the binding does not know yet. It carries no version.
#[repr(C)]
struct FabricInfoV4 {
    cluster: [u8; 16],
    status: nv::nvmlReturn_t,
    cliques: [Clique; CLIQUES],
    count: u32,
    state: nv::nvmlGpuFabricState_t,
    health_mask: u32,
    health_summary: u8,
}

type GetFabricInfoV4 =
    unsafe extern "C" fn(nv::nvmlDevice_t, *mut FabricInfoV4) -> nv::nvmlReturn_t;

fn is_complete(state: nv::nvmlGpuFabricState_t, status: nv::nvmlReturn_t) -> bool {
    state == nv::NVML_GPU_FABRIC_STATE_COMPLETED as nv::nvmlGpuFabricState_t
        && status == nv::nvmlReturn_enum_NVML_SUCCESS
}

/// What the driver says of a GPU's NVLink fabric; `None` where it knows of none. Drivers that know
/// several cliques of a GPU are asked for those, older ones for the only one.
pub(super) fn fabric_info(device: &Device<'_>) -> Option<FabricInfo> {
    fabric_info_v4(device).or_else(|| fabric_info_v3(device))
}

/// Cliques come by kind and number: the first is the one that older drivers would name.
fn fabric_info_v4(device: &Device<'_>) -> Option<FabricInfo> {
    let library = &device.nvml().lib().__library;
    // SAFETY: the symbol is NVIDIA's, with the type that its header declares.
    let call =
        unsafe { library.get::<GetFabricInfoV4>(b"nvmlDeviceGetGpuFabricInfo_v4\0") }.ok()?;
    // SAFETY: numbers and bytes: all zeroes are a value of it.
    let mut info: FabricInfoV4 = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is alive as long as `device`, and the library writes the struct.
    let code = unsafe { call(device.handle(), &raw mut info) };
    let told = code == nv::nvmlReturn_enum_NVML_SUCCESS;
    let first = info.cliques.iter().take(info.count as usize).next().filter(|_| told)?;
    Some(FabricInfo {
        cluster: info.cluster,
        clique: first.id,
        complete: is_complete(info.state, info.status),
    })
}

fn fabric_info_v3(device: &Device<'_>) -> Option<FabricInfo> {
    let call = device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref().ok()?;
    let size = u32::try_from(size_of::<nv::nvmlGpuFabricInfoV_t>()).ok()?;
    // SAFETY: numbers and bytes: all zeroes are a value of it.
    let mut info: nv::nvmlGpuFabricInfoV_t = unsafe { std::mem::zeroed() };
    info.version = size | FABRIC_INFO_VERSION << 24;
    // SAFETY: the handle is alive as long as `device`; the version tells the library the size.
    let code = unsafe { call(device.handle(), &raw mut info) };
    (code == nv::nvmlReturn_enum_NVML_SUCCESS).then_some(FabricInfo {
        cluster: info.clusterUuid,
        clique: info.cliqueId,
        complete: is_complete(info.state, info.status),
    })
}

/// What one link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Far {
    /// Every GPU on the same switches is a peer.
    Switch,
    /// The PCI address of the GPU at the other end.
    Gpu(String),
    Other,
}

/// One NVLink of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) up: bool,
    /// `None`: down, or it does not say.
    pub(crate) far: Option<Far>,
}

/// A GPU's NVLinks by number; none where it has none.
pub(crate) fn links(device: &Device<'_>) -> Vec<Link> {
    let mut out = Vec::new();
    for at in 0..nv::NVML_NVLINK_MAX_LINKS {
        let link = device.link_wrapper_for(at);
        // There is no call for the number of links: past the last one they are refused.
        let Ok(up) = link.is_active() else { break };
        let far = match remote_type(device, at).filter(|_| up) {
            Some(nv::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH) => {
                Some(Far::Switch)
            }
            Some(nv::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU) => {
                link.remote_pci_info().ok().map(|pci| Far::Gpu(pci.bus_id))
            }
            Some(_) => Some(Far::Other),
            None => None,
        };
        out.push(Link { up, far });
    }
    out
}

fn remote_type(device: &Device<'_>, link: u32) -> Option<nv::nvmlIntNvLinkDeviceType_t> {
    let call = device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref().ok()?;
    let mut kind = 0;
    // SAFETY: the handle is alive as long as `device`, and the library writes one number.
    let code = unsafe { call(device.handle(), link, &raw mut kind) };
    (code == nv::nvmlReturn_enum_NVML_SUCCESS).then_some(kind)
}

/// The links among units. Instances that a GPU was cut into have no NVLink: peer access is not
/// given to them.
pub(super) fn matrix(nvml: &Nvml, units: &[Unit]) -> GpuLinks {
    let device = |unit: &Unit| nvml.device_by_index(unit.index?).ok();
    let devices: Vec<Option<Device<'_>>> = units.iter().map(device).collect();
    let of = |at: usize| match (&devices[at], &units[at].gpu.mig) {
        (Some(device), None) => links(device),
        _ => Vec::new(),
    };
    let all: Vec<Vec<Link>> = (0..units.len()).map(of).collect();
    let (mut pairs, mut peers) = (Vec::new(), Vec::new());
    for one in 0..units.len() {
        for other in one + 1..units.len() {
            if let (Some(a), Some(b)) = (&devices[one], &devices[other])
                && units[one].gpu.mig.is_none()
                && units[other].gpu.mig.is_none()
                && are_peers(a, b)
            {
                peers.push((small(one), small(other)));
            }
            let class = nvlink(&all, units, one, other)
                .or_else(|| {
                    pcie(devices[one].as_ref()?, devices[other].as_ref()?, units, one, other)
                })
                .unwrap_or(LinkClass::Unknown);
            pairs.push((small(one), small(other), class));
        }
    }
    let numa = |unit: &Unit| unit.gpu.numa.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let numa: Vec<u8> = units.iter().map(numa).collect();
    GpuLinks::from_pairs(&numa, LinkClass::Unknown, &pairs).with_peers(&peers)
}

/// Whether each of two GPUs may read the other's memory; a driver that does not say so says no.
fn are_peers(one: &Device<'_>, other: &Device<'_>) -> bool {
    let read = |a: &Device<'_>, b| a.p2p_status(b, P2pCapabilitiesIndex::Read);
    matches!((read(one, other), read(other, one)), (Ok(P2pStatus::Ok), Ok(P2pStatus::Ok)))
}

fn small(at: usize) -> u8 {
    u8::try_from(at).unwrap_or(u8::MAX)
}

fn nvlink(all: &[Vec<Link>], units: &[Unit], one: usize, other: usize) -> Option<LinkClass> {
    let to = |from: usize, far: &Far| {
        all[from].iter().filter(|link| link.up && link.far.as_ref() == Some(far)).count()
    };
    let direct = to(one, &Far::Gpu(units[other].gpu.pci.to_string()));
    let switched = to(one, &Far::Switch).min(to(other, &Far::Switch));
    let width = direct.max(switched);
    (width > 0).then(|| LinkClass::NvLink(small(width)))
}

fn pcie(
    one: &Device<'_>,
    other: &Device<'_>,
    units: &[Unit],
    i: usize,
    j: usize,
) -> Option<LinkClass> {
    if units[i].index == units[j].index {
        return Some(LinkClass::PciSwitch);
    }
    let far = one.nvml().device_by_index(units[j].index?).ok()?;
    debug_assert_eq!(far.index().ok(), other.index().ok());
    Some(match one.topology_common_ancestor(far).ok()? {
        TopologyLevel::Internal | TopologyLevel::Single | TopologyLevel::Multiple => {
            LinkClass::PciSwitch
        }
        TopologyLevel::HostBridge => LinkClass::HostBridge,
        TopologyLevel::Node => LinkClass::Numa,
        TopologyLevel::System => LinkClass::System,
    })
}

/// The links among some of the units, in another order; a unit that is not there has none.
pub(super) fn picked(links: &GpuLinks, order: &[Option<usize>]) -> GpuLinks {
    let at = |place: &Option<usize>| place.and_then(|at| u8::try_from(at).ok());
    let numa = |place| at(place).and_then(|at| links.numa_of(at)).unwrap_or(0);
    let numa: Vec<u8> = order.iter().map(numa).collect();
    let (mut pairs, mut peers) = (Vec::new(), Vec::new());
    for (i, one) in order.iter().enumerate() {
        for (j, other) in order.iter().enumerate().skip(i + 1) {
            if let (Some(one), Some(other)) = (at(one), at(other)) {
                pairs.push((small(i), small(j), links.class_of(one, other)));
                peers.extend(links.are_peers(one, other).then_some((small(i), small(j))));
            }
        }
    }
    GpuLinks::from_pairs(&numa, LinkClass::Unknown, &pairs).with_peers(&peers)
}

/// Whether a GPU's memory rows wait to be remapped, and whether that failed; `None`: it has no
/// remapping.
pub(crate) fn remapped_rows(device: &Device<'_>) -> Option<(bool, bool)> {
    let call = device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref().ok()?;
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: the handle is alive as long as `device`, and the library writes four numbers.
    let code = unsafe {
        call(
            device.handle(),
            &raw mut corrected,
            &raw mut uncorrected,
            &raw mut pending,
            &raw mut failed,
        )
    };
    (code == nv::nvmlReturn_enum_NVML_SUCCESS).then_some((pending != 0, failed != 0))
}

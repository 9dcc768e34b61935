//! GPUs as NVIDIA's library tells of them. The library is found at run time; a host without it is
//! a host without GPUs of that make, and nothing is wrong.
//!
//! The units of a node's `gpu` are counted as the ledger counts them: type by type in the order of
//! their names, within a type in the order of the library (by PCI bus). An instance that a GPU was
//! cut into (MIG) is a unit of a type of its own; a GPU that is cut is none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_config::NvmlLibrary;
use muster_model::{CpuSet, Fabric, Gpu, GpuLinks, GresKind, MigInstance, NodeConfig};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use nvml_wrapper_sys::bindings as nv;

use super::{Roots, nvlink};

/// Where the driver's packages put the library; the plain name is there on some hosts only.
const LIBRARY_NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// CPU sets are asked for with room for so many words of 64.
const CPU_WORDS: usize = 128;
/// The most NUMA nodes that are asked about, in words of 64.
const NUMA_WORDS: usize = 16;

/// NVIDIA's library, or why there is none.
#[derive(Debug, Clone)]
pub enum Driver {
    /// It is not to be asked, or not installed.
    Absent,
    /// It is there and cannot be used: the reason.
    Broken(String),
    Loaded(Arc<Nvml>),
}

impl Driver {
    /// Loads the library.
    #[must_use]
    pub fn load(library: &NvmlLibrary) -> Driver {
        let paths: Vec<PathBuf> = match library {
            NvmlLibrary::None => return Driver::Absent,
            NvmlLibrary::System => LIBRARY_NAMES.iter().map(PathBuf::from).collect(),
            NvmlLibrary::Path(path) => vec![path.clone()],
        };
        let mut why = None;
        for path in &paths {
            match Nvml::builder().lib_path(path.as_os_str()).init() {
                Ok(nvml) => return Driver::Loaded(Arc::new(nvml)),
                Err(NvmlError::LibloadingError(fault)) => {
                    why = why.or(Some(format!("load {}: {fault}", path.display())));
                }
                Err(fault) => return Driver::Broken(format!("start {}: {fault}", path.display())),
            }
        }
        match (library, why) {
            (NvmlLibrary::Path(_), Some(why)) => Driver::Broken(why),
            _ => Driver::Absent,
        }
    }
}

/// What a driver calls itself; empty where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    pub driver: String,
    pub library: String,
    /// The newest CUDA that it serves, as `12.8`.
    pub cuda: String,
}

impl Driver {
    /// `None`: there is none. `Err`: it cannot be used, for this reason.
    #[must_use]
    pub fn versions(&self) -> Option<Result<Versions, &str>> {
        match self {
            Driver::Absent => None,
            Driver::Broken(why) => Some(Err(why)),
            Driver::Loaded(nvml) => {
                let cuda = |version| {
                    let major = cuda_driver_version_major(version);
                    format!("{major}.{}", cuda_driver_version_minor(version))
                };
                Some(Ok(Versions {
                    driver: nvml.sys_driver_version().unwrap_or_default(),
                    library: nvml.sys_nvml_version().unwrap_or_default(),
                    cuda: nvml.sys_cuda_driver_version().map(cuda).unwrap_or_default(),
                }))
            }
        }
    }
}

/// A unit, and which device of the library it is (of).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub gpu: Gpu,
    /// `None`: it is expected and the library does not show it.
    pub index: Option<u32>,
}

/// What the library told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The library was asked and answered.
    pub asked: bool,
    /// Why it did not.
    pub broken: Option<String>,
    /// In the library's order.
    pub units: Vec<Unit>,
    /// Between them.
    pub links: GpuLinks,
}

impl Found {
    /// Asks the library. What a device does not tell is left out; a device that is lost counts as
    /// one of the type that the others have.
    #[must_use]
    pub fn look(driver: &Driver, roots: &Roots) -> Found {
        let nvml = match driver {
            Driver::Absent => return Found::default(),
            Driver::Broken(why) => return Found { broken: Some(why.clone()), ..Found::default() },
            Driver::Loaded(nvml) => nvml,
        };
        let count = match nvml.device_count() {
            Ok(count) => count,
            Err(fault) => {
                let broken = Some(format!("count the GPUs: {fault}"));
                return Found { broken, ..Found::default() };
            }
        };
        let mut units = Vec::new();
        for index in 0..count {
            match nvml.device_by_index(index).and_then(|device| of_device(&device, index, roots)) {
                Ok(mut some) => units.append(&mut some),
                Err(fault) => {
                    tracing::warn!("GPU {index} does not tell what it is: {fault}");
                    units.push(Unit { gpu: Gpu::default(), index: Some(index) });
                }
            }
        }
        let usual = units.iter().map(|u| u.gpu.of.clone()).find(|of| !of.is_empty());
        for unit in units.iter_mut().filter(|u| u.gpu.of.is_empty()) {
            unit.gpu.of = usual.clone().unwrap_or_else(|| "unknown".into());
        }
        units.truncate(GpuLinks::MAX_GPUS.into());
        let links = nvlink::matrix(nvml, &units);
        Found { asked: true, broken: None, units, links }
    }

    /// The units in the order in which the ledger counts them, with the links between them.
    #[must_use]
    pub fn assigned(&self, node: &NodeConfig) -> (Vec<Unit>, GpuLinks) {
        let mut order: Vec<Option<usize>> = Vec::new();
        if node.auto_gpus {
            order.extend((0..self.units.len()).map(Some));
            order.sort_by_key(|at| at.map(|at| self.units[at].gpu.of.clone()));
        }
        let mut kinds = Vec::new();
        for (kind, count) in declared(node) {
            let mut of_kind = (0..self.units.len())
                .filter(|at| kind.of.as_ref().is_none_or(|of| **of == *self.units[*at].gpu.of));
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(GpuLinks::MAX_GPUS.into());
            // What is declared and not there keeps its place, or later ones would move up.
            let places = (0..count).map(|_| of_kind.next()).collect::<Vec<_>>();
            kinds.extend(places.iter().map(|_| kind.of.clone()));
            order.extend(places);
        }
        let pick = |(place, at): (usize, &Option<usize>)| match at {
            Some(at) => self.units[*at].clone(),
            None => {
                let of = kinds.get(place).cloned().flatten().unwrap_or_default();
                Unit { gpu: Gpu { of: (*of).into(), ..Gpu::default() }, index: None }
            }
        };
        let units: Vec<Unit> = order.iter().enumerate().map(pick).collect();
        (units, nvlink::picked(&self.links, &order))
    }

    /// What is there of the name `gpu`, counted as it is declared.
    #[must_use]
    pub fn counted(&self, node: &NodeConfig) -> BTreeMap<GresKind, u64> {
        let mut out = BTreeMap::new();
        let untyped = declared(node).any(|(kind, _)| kind.of.is_none());
        for unit in &self.units {
            let of = (!untyped).then_some(&*unit.gpu.of);
            *out.entry(GresKind::new("gpu", of)).or_default() += 1;
        }
        out
    }
}

fn declared(node: &NodeConfig) -> impl Iterator<Item = (&GresKind, u64)> {
    let gpus = node.capacity.gres.iter().filter(|(kind, _)| &*kind.name == "gpu");
    gpus.filter(|_| !node.auto_gpus).map(|(kind, count)| (kind, *count))
}

/// The units that one device is: itself, or its instances.
fn of_device(device: &Device<'_>, index: u32, roots: &Roots) -> Result<Vec<Unit>, NvmlError> {
    let whole = whole(device)?;
    if !device.mig_mode().is_ok_and(|mode| mode.current == 1) {
        return Ok(vec![Unit { gpu: whole, index: Some(index) }]);
    }
    let mut units = Vec::new();
    for place in 0..device.mig_device_count()? {
        // Places are handed out with gaps.
        let Ok(part) = device.mig_device_by_index(place) else { continue };
        units.push(Unit { gpu: instance(&part, &whole, roots)?, index: Some(index) });
    }
    Ok(units)
}

fn whole(device: &Device<'_>) -> Result<Gpu, NvmlError> {
    Ok(Gpu {
        uuid: device.uuid()?.into(),
        of: type_name(&device.name()?).into(),
        memory_mib: device.memory_info()?.total >> 20,
        minor: device.minor_number().ok(),
        pci: device.pci_info().map(|pci| pci.bus_id.into()).unwrap_or_default(),
        numa: numa(device),
        cpus: cpus(device),
        mig: None,
        fabric: fabric(device),
    })
}

fn instance(part: &Device<'_>, whole: &Gpu, roots: &Roots) -> Result<Gpu, NvmlError> {
    let gpu_instance = nvlink::number(part, |lib| lib.nvmlDeviceGetGpuInstanceId.as_ref().ok())?;
    let compute_instance =
        nvlink::number(part, |lib| lib.nvmlDeviceGetComputeInstanceId.as_ref().ok())?;
    let minors = std::fs::read_to_string(roots.proc.join("driver/nvidia-caps/mig-minors"));
    let caps = minors.map(|text| {
        cap_minors(&text, whole.minor.unwrap_or_default(), gpu_instance, compute_instance)
    });
    Ok(Gpu {
        uuid: part.uuid()?.into(),
        of: type_name(&part.name()?).into(),
        memory_mib: part.memory_info()?.total >> 20,
        mig: Some(MigInstance {
            parent: whole.uuid.clone(),
            gpu_instance,
            compute_instance,
            cap_minors: caps.unwrap_or_default(),
        }),
        ..whole.clone()
    })
}

/// The access files of an instance in the driver's list (`gpu0/gi1/access 30`).
fn cap_minors(list: &str, gpu: u32, instance: u32, compute: u32) -> Vec<u32> {
    let names = [
        format!("gpu{gpu}/gi{instance}/access"),
        format!("gpu{gpu}/gi{instance}/ci{compute}/access"),
    ];
    let lines = list.lines().filter_map(|line| line.split_once(' '));
    let wanted = lines.filter(|(name, _)| names.iter().any(|n| n == name));
    wanted.filter_map(|(_, minor)| minor.trim().parse().ok()).collect()
}

fn numa(device: &Device<'_>) -> Option<u32> {
    let nodes = device.memory_affinity(NUMA_WORDS, nv::NVML_AFFINITY_SCOPE_NODE).ok();
    let first = nodes.and_then(|words| bits(&words).next());
    first.or_else(|| device.numa_node_id().ok())
}

fn cpus(device: &Device<'_>) -> CpuSet {
    let words = device.cpu_affinity_within_scope(CPU_WORDS, nv::NVML_AFFINITY_SCOPE_NODE);
    words.map(|words| bits(&words).collect()).unwrap_or_default()
}

fn bits(words: &[std::ffi::c_ulong]) -> impl Iterator<Item = u32> + '_ {
    (0u32..).zip(words).flat_map(|(at, word)| {
        (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
    })
}

/// The fabric that a GPU has joined; while it is joining, or where there is none, nothing.
fn fabric(device: &Device<'_>) -> Option<Fabric> {
    let info = nvlink::fabric_info(device)?;
    let cluster = info.cluster.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // A node whose NVLink ends in its own switches joins a fabric without a name.
    let named = info.cluster.iter().any(|byte| *byte != 0);
    (info.complete && named).then(|| Fabric { cluster: cluster.into(), clique: info.clique })
}

/// The type that jobs ask for, from a product name: `NVIDIA H100 80GB HBM3` is `h100`,
/// `NVIDIA GeForce RTX 4090` is `rtx4090`, an instance of an A100 is `a100_3g.20gb`.
#[must_use]
pub fn type_name(product: &str) -> String {
    const BRANDS: [&str; 6] = ["nvidia", "tesla", "geforce", "quadro", "graphics", "device"];
    const FAMILIES: [&str; 3] = ["rtx", "gtx", "titan"];
    const VARIANTS: [&str; 3] = ["ti", "super", "ada"];
    let lower = product.to_ascii_lowercase();
    let (name, profile) = match lower.split_once(" mig ") {
        Some((name, profile)) => (name, Some(profile.trim())),
        None => (lower.as_str(), None),
    };
    let words = name.split([' ', '-']).filter(|word| !word.is_empty());
    let mut words = words.skip_while(|word| BRANDS.contains(word)).peekable();
    let mut of = words.next().unwrap_or("unknown").to_owned();
    if FAMILIES.contains(&of.as_str()) {
        of.extend(words.next());
        while let Some(variant) = words.next_if(|word| VARIANTS.contains(word)) {
            of.push_str(variant);
        }
    }
    of.retain(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
    match profile {
        Some(profile) => {
            let profile: String = profile.chars().filter(|c| *c != ' ').collect();
            format!("{of}_{profile}")
        }
        None => of,
    }
}

/// NVIDIA GPUs on the PCI bus, with or without a driver.
#[must_use]
pub fn on_pci(sys: &Path) -> u64 {
    const NVIDIA: &str = "0x10de";
    // Display controllers: VGA (0x0300) and 3D (0x0302).
    const DISPLAY: &str = "0x03";
    let Ok(entries) = std::fs::read_dir(sys.join("bus/pci/devices")) else { return 0 };
    let line = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let is_gpu = |path: &PathBuf| {
        line(path.join("vendor")).trim() == NVIDIA && line(path.join("class")).starts_with(DISPLAY)
    };
    let gpus = entries.flatten().map(|entry| entry.path()).filter(is_gpu);
    gpus.count().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_have_the_types_that_jobs_ask_for() {
        for (product, of) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA A100-SXM4-40GB", "a100"),
            ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "a100_3g.20gb"),
            ("NVIDIA H100 80GB HBM3 MIG 1c.2g.20gb", "h100_1c.2g.20gb"),
            ("Tesla V100-SXM2-16GB", "v100"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA GB200", "gb200"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("NVIDIA GeForce RTX 3080 Ti", "rtx3080ti"),
            ("NVIDIA RTX A6000", "rtxa6000"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
            ("", "unknown"),
        ] {
            assert_eq!(type_name(product), of, "{product}");
        }
    }

    #[test]
    fn an_instances_access_files_are_found_in_the_drivers_list() {
        let list = "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n\
                    gpu0/gi11/access 99\ngpu1/gi1/access 147\n";
        assert_eq!(cap_minors(list, 0, 1, 0), [12, 13]);
        assert_eq!(cap_minors(list, 1, 1, 0), [147]);
        assert_eq!(cap_minors(list, 0, 2, 0), [] as [u32; 0]);
    }
}

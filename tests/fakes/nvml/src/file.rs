//! The file that says which machine it is and what is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scene {
    /// One of [`crate::machine::LAYOUTS`].
    pub layout: String,
    /// `nvmlInit` fails with this NVML return code; 0: it does not.
    pub init_fails: u32,
    /// `nvmlInit` takes so long, in milliseconds.
    pub init_slow_ms: u64,
    /// The driver is of before its fabric had several cliques (`nvmlDeviceGetGpuFabricInfo_v4`).
    pub one_clique: bool,
    /// Every call on a device takes so long, in milliseconds.
    pub slow_ms: u64,
    /// What is different about a GPU, by its index.
    pub gpu: BTreeMap<String, Trouble>,
    /// Delivered one after another to every event set, those that a set was there for.
    pub event: Vec<Happening>,
}

/// What is different about one GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trouble {
    /// It fell off the bus.
    pub lost: bool,
    /// Every call on it fails for another reason (`NVML_ERROR_UNKNOWN`).
    pub mute: bool,
    /// Uncorrected ECC errors since the driver was loaded.
    pub ecc_uncorrected: u64,
    pub remap_pending: bool,
    pub remap_failed: bool,
    /// Links that are down, by number.
    pub links_down: Vec<u32>,
    /// CRC errors that its first link counted.
    pub link_errors: u64,
    /// It slows down because it is too hot.
    pub overheated: bool,
    pub temperature: Option<u32>,
    pub processes: Vec<Process>,
    /// Beyond what the processes use.
    pub memory_used_mib: u64,
    pub utilization: u32,
    pub memory_utilization: u32,
    pub watts: Option<u32>,
    /// Since the driver was loaded, in millijoules.
    pub energy_mj: Option<u64>,
    /// Another product name.
    pub name: Option<String>,
}

/// A process on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    pub memory_mib: u64,
}

/// An event of one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    pub gpu: usize,
    pub xid: u64,
}

impl Scene {
    /// A machine that is well.
    #[must_use]
    pub fn of(layout: &str) -> Self {
        Scene { layout: layout.to_owned(), ..Scene::default() }
    }

    /// What is different about a GPU.
    #[must_use]
    pub fn trouble(&self, gpu: usize) -> Trouble {
        self.gpu.get(&gpu.to_string()).cloned().unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn trouble_mut(&mut self, gpu: usize) -> &mut Trouble {
        self.gpu.entry(gpu.to_string()).or_default()
    }

    /// Writes the file so that no reader sees half of it.
    ///
    /// # Panics
    /// When the file cannot be written: the test cannot go on.
    pub fn write(&self, path: &Path) {
        let text = toml::to_string(self).expect("a scene is plain values");
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).expect("the scene's folder takes a file");
        std::fs::rename(&beside, path).expect("the scene's folder takes a file");
    }
}

/// The file, and what it said when it was last looked at.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    seen: Option<(SystemTime, u64, u64)>,
    scene: Scene,
}

impl Reader {
    pub(crate) fn new(path: PathBuf) -> Self {
        Reader { path, seen: None, scene: Scene::of("none") }
    }

    /// What the file says now. A file that cannot be read is a machine without GPUs, said loudly.
    pub(crate) fn look(&mut self) -> &Scene {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(&self.path).ok();
        let stamp = found.and_then(|m| Some((m.modified().ok()?, m.len(), m.ino())));
        if stamp.is_none() || stamp != self.seen {
            self.seen = stamp;
            let read = std::fs::read_to_string(&self.path).map_err(|fault| fault.to_string());
            let scene = read.and_then(|text| toml::from_str(&text).map_err(|f| f.to_string()));
            self.scene = scene.unwrap_or_else(|fault| {
                eprintln!("fake NVML: {}: {fault}", self.path.display());
                Scene::of("none")
            });
        }
        &self.scene
    }
}

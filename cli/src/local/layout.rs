//! The directory of a local cluster and the config written into it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use muster_config::Config;

/// The kernel's bound on the path of a unix socket, its closing NUL included.
const SOCKET_PATH: usize = 108;

/// The longest path below the directory that a socket may have: a shim's in a node's spool.
const LONGEST_BELOW: usize = "/spool/node123456/jobs/67043328.9999/shim.sock.new".len();

/// Nodes at most: each is a process of its own on this machine.
const MAX_NODES: u32 = 512;

/// What every node of the cluster declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) nodes: u32,
    pub(super) cpus: u32,
    pub(super) memory_mib: u64,
    pub(super) gpus: u32,
    pub(super) gpu_type: Option<String>,
}

/// Paths of a local cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    /// The same directory under a name short enough for sockets.
    short: PathBuf,
}

impl Layout {
    /// The layout of `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made or resolved, or its short name belongs to somebody else.
    pub fn create(dir: &Path) -> anyhow::Result<Layout> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let layout = Layout::find(dir)?;
        for (name, mode) in [("run", 0o755), ("log", 0o755), ("state", 0o700), ("spool", 0o755)] {
            let path = layout.dir.join(name);
            if !path.is_dir() {
                fs::DirBuilder::new()
                    .mode(mode)
                    .create(&path)
                    .with_context(|| format!("create {}", path.display()))?;
            }
        }
        layout.shorten()?;
        Ok(layout)
    }

    /// The layout of an existing directory.
    ///
    /// # Errors
    /// The directory is not there.
    pub fn find(dir: &Path) -> anyhow::Result<Layout> {
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let name = dir.as_os_str().len();
        let short = if name + LONGEST_BELOW < SOCKET_PATH {
            dir.clone()
        } else {
            let uid = nix::unistd::getuid();
            let digest = digest(&dir);
            PathBuf::from(format!("/tmp/.muster-{uid}-{digest:016x}"))
        };
        Ok(Layout { dir, short })
    }

    /// Sockets need short paths: a long directory gets a link in /tmp that only its owner can
    /// have made. Everything still lies in the directory itself.
    fn shorten(&self) -> anyhow::Result<()> {
        if self.short == self.dir {
            return Ok(());
        }
        let link = &self.short;
        match fs::symlink_metadata(link) {
            Ok(found) => {
                let ours = found.uid() == nix::unistd::getuid().as_raw();
                let same = fs::read_link(link).is_ok_and(|target| target == self.dir);
                ensure!(
                    ours && same,
                    "{} is in the way: it should be this user's link to {}",
                    link.display(),
                    self.dir.display()
                );
                Ok(())
            }
            Err(_) => symlink(&self.dir, link)
                .with_context(|| format!("link {} to {}", link.display(), self.dir.display())),
        }
    }

    /// Takes the short name away; the directory stays. Only once no shim needs its socket.
    pub(super) fn unshorten(&self) {
        if self.short != self.dir {
            // Without it nothing is lost: the next start makes it anew.
            let _ = fs::remove_file(&self.short);
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The config file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("muster.toml")
    }

    /// Slurm's names, as links to this program.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Where a daemon (`controller` or a node's name) leaves its pid.
    #[must_use]
    pub fn pid_file(&self, daemon: &str) -> PathBuf {
        self.dir.join("run").join(format!("{daemon}.pid"))
    }

    /// Where a daemon's output goes.
    #[must_use]
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join("log").join(format!("{daemon}.log"))
    }

    fn key(&self) -> PathBuf {
        self.dir.join("cluster.key")
    }

    /// Writes config and key for a cluster of this shape.
    pub(super) fn write(&self, shape: &Shape) -> anyhow::Result<Config> {
        ensure!(
            (1..=MAX_NODES).contains(&shape.nodes),
            "--nodes {}: use 1 to {MAX_NODES}",
            shape.nodes
        );
        self.write_key()?;
        let text = self.text(shape)?;
        let path = self.config();
        let config = Config::parse(&path, &text)?;
        write_whole(&path, text.as_bytes())?;
        Ok(config)
    }

    fn write_key(&self) -> anyhow::Result<()> {
        let path = self.key();
        if path.exists() {
            return Ok(());
        }
        let mut key = [0u8; 48];
        fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut key))
            .context("read /dev/urandom for the cluster key")?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        std::io::Write::write_all(&mut file, &key)
            .with_context(|| format!("write {}", path.display()))
    }

    fn text(&self, shape: &Shape) -> anyhow::Result<String> {
        let quoted = |path: PathBuf| -> anyhow::Result<String> {
            let Some(text) = path.to_str() else {
                bail!("{} is not UTF-8: a config cannot name it", path.display())
            };
            Ok(toml::Value::String(text.to_owned()).to_string())
        };
        let user = user_name();
        let root = nix::unistd::getuid().is_root();
        let names = if shape.nodes == 1 { "n1".into() } else { format!("n[1-{}]", shape.nodes) };
        let gres = match (shape.gpus, &shape.gpu_type) {
            (0, _) => String::new(),
            (count, None) => format!("gres = [\"gpu:{count}\"]\n"),
            (count, Some(of)) => {
                format!("gres = [{}]\n", toml::Value::String(format!("gpu:{of}:{count}")))
            }
        };
        Ok(format!(
            "# A cluster on one machine, made by `muster up`. Edit it while the cluster is down, or\n\
             # run `scontrol reconfigure` afterwards.\n\
             cluster = \"local\"\n\
             state_dir = {state}\n\
             run_dir = {run}\n\
             \n\
             [security]\n\
             cluster_key = {key}\n\
             admins = [{admin}]\n\
             # Whoever started this cluster may run jobs on it, root included.\n\
             allow_root_jobs = {root}\n\
             \n\
             [scheduler]\n\
             # Everything is near: look often, and give ended jobs little time to go.\n\
             heartbeat_seconds = 2\n\
             node_timeout_seconds = 120\n\
             kill_wait_seconds = 10\n\
             sample_seconds = 5\n\
             \n\
             [agent]\n\
             spool_dir = {spool}\n\
             # GPUs are as declared: several nodes of this host would each find its own.\n\
             nvml_library = \"none\"\n\
             \n\
             [[node]]\n\
             name = \"{names}\"\n\
             cpus = {cpus}\n\
             memory = {memory}\n\
             {gres}\
             \n\
             [[partition]]\n\
             name = \"main\"\n\
             nodes = \"ALL\"\n\
             default = true\n\
             # A job that asks for no memory gets its CPUs' share, not the whole node's.\n\
             default_memory_per_cpu = {share}\n",
            share = (shape.memory_mib / u64::from(shape.cpus.max(1))).max(1),
            state = quoted(self.dir.join("state"))?,
            run = quoted(self.short.join("run"))?,
            key = quoted(self.key())?,
            admin = toml::Value::String(user),
            spool = quoted(self.short.join("spool/%n"))?,
            cpus = shape.cpus,
            memory = shape.memory_mib,
        ))
    }
}

/// The caller's name, or number where the number has no name.
fn user_name() -> String {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// FNV-1a of a path: the same directory has the same short name in every version.
fn digest(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Writes beside and renames, so that nobody reads half a file.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, content).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("rename to {}", path.display()))
}

impl Shape {
    /// Every node declares the whole machine: its parts are shared.
    pub(super) fn of_machine(nodes: u32) -> Shape {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Shape {
            nodes,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_mib: machine_mib(),
            gpus: 0,
            gpu_type: None,
        }
    }
}

fn machine_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(1024, |kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { nodes: 4, cpus: 64, memory_mib: 1024, gpus: 8, gpu_type: Some("h100".into()) }
    }

    #[test]
    fn the_config_written_is_the_config_read() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let written = layout.write(&shape()).unwrap();
        let read = Config::load(&layout.config()).unwrap();
        assert_eq!(written, read);
        assert_eq!(read.nodes.len(), 4);
        assert_eq!(read.nodes[3].capacity.cpus, 64);
        assert_eq!(read.partitions[0].nodes.len(), 4);
    }

    #[test]
    fn the_key_is_for_its_owner_alone_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        layout.write(&shape()).unwrap();
        let key = fs::read(layout.key()).unwrap();
        assert!(key.len() >= 32);
        assert_eq!(fs::metadata(layout.key()).unwrap().mode() & 0o777, 0o600);
        layout.write(&shape()).unwrap();
        assert_eq!(fs::read(layout.key()).unwrap(), key);
    }

    #[test]
    fn sockets_of_a_long_directory_lie_behind_a_short_link() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("a".repeat(120));
        let layout = Layout::create(&long).unwrap();
        let config = layout.write(&shape()).unwrap();
        assert!(config.controller.socket.as_os_str().len() < SOCKET_PATH);
        assert!(config.controller.socket.parent().unwrap().is_dir());
        layout.unshorten();
        assert!(!layout.short.exists());
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        for nodes in [0, MAX_NODES + 1] {
            let fault = layout.write(&Shape { nodes, ..shape() }).unwrap_err();
            assert!(fault.to_string().contains("--nodes"), "{fault}");
        }
    }
}

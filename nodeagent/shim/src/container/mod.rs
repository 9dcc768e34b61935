//! A task or a batch script in a root of its own, by bubblewrap: as the user, with no rights that the
//! user has not.
//!
//! The command line is made in the task itself, after it has become the user, so that no path of the
//! user's is looked at as root.
//!
//! - `image`: the root file system

mod image;

use std::fs;
use std::path::Path;

use muster_proto::v1::{Container, GresMask};

use image::Root;

/// Where the runtime is looked for: the node's own, whatever the job's PATH says.
const PLACES: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// Devices of the GPUs' driver that belong to no GPU.
const DRIVER: [&str; 4] =
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];
/// Files of the node by which names are resolved, where the root has a place for them.
const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Where the user's files go that nobody keeps, unless the environment says.
const TMP: &str = "/tmp";

/// What a root that many share has of its own for each task.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/run"];

/// What a container is put into.
pub(crate) struct Around<'a> {
    pub(crate) node: &'a str,
    /// Of the task's environment: see [`Around::at_home`].
    pub(crate) home: Option<&'a str>,
    pub(crate) tmp: &'a str,
    /// Where it would begin without a container.
    pub(crate) workdir: &'a str,
    pub(crate) gres: &'a [GresMask],
    /// The kernel lets through what is the job's, and nothing else.
    pub(crate) devices_held: bool,
    /// A file of the node that is to be executed, and where.
    pub(crate) script: Option<(&'a str, &'a str)>,
}

impl<'a> Around<'a> {
    /// With what the environment says of the user's places.
    pub(crate) fn at_home(mut self, env: &'a [Vec<u8>]) -> Self {
        let text = |name: &[u8]| {
            let value = env.iter().find_map(|pair| pair.strip_prefix(name))?;
            std::str::from_utf8(value).ok()
        };
        self.home = text(b"HOME=");
        self.tmp = text(b"TMPDIR=").filter(|dir| dir.starts_with('/')).unwrap_or(TMP);
        self
    }
}

/// The runtime and its words, to be followed by the command.
pub(crate) fn words(container: &Container, around: &Around<'_>) -> Result<Vec<String>, String> {
    let runtime = PLACES.iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
        format!("node {} has no container runtime: install bubblewrap there", around.node)
    })?;
    let Root { path: root, shared } =
        image::root(Path::new(&container.image), around.node, Path::new(around.tmp))?;
    let kept = |home: &&str| container.mount_home && *home != "/" && Path::new(home).is_dir();
    let home = around.home.filter(kept);
    if shared {
        let own = home.map(|home| (home, home));
        let mounts = container.mounts.iter().map(|m| (m.source.as_str(), m.target.as_str()));
        for (source, target) in own.into_iter().chain(mounts) {
            image::make_place(&root, target, Path::new(source).is_dir())
                .map_err(|e| format!("container image {}: {target}: {e}", container.image))?;
        }
    }
    let mut words = vec![(*runtime).to_owned()];
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    let kind = if container.read_only || shared { "--ro-bind" } else { "--bind" };
    add(&[kind, &root.to_string_lossy(), "/", "--dev", "/dev", "--proc", "/proc"]);
    if root.join("sys").is_dir() {
        add(&["--ro-bind", "/sys", "/sys"]);
    }
    for dir in SCRATCH.iter().filter(|dir| shared && root.join(&dir[1..]).is_dir()) {
        add(&["--tmpfs", dir]);
    }
    for name in NAMES {
        if root.join(&name[1..]).is_file() {
            add(&["--ro-bind-try", name, name]);
        }
    }
    for device in devices(around, Path::new("/dev")) {
        add(&["--dev-bind-try", &device, &device]);
    }
    if let Some((file, place)) = around.script {
        add(&["--ro-bind", file, place]);
    }
    if let Some(home) = home {
        add(&["--bind", home, home]);
    }
    for mount in &container.mounts {
        let kind = if mount.read_only { "--ro-bind" } else { "--bind" };
        add(&[kind, &mount.source, &mount.target]);
    }
    // Without a word: the step's own directory where the root has it, as it has with a mount.
    let inside = |dir: &str| {
        let under = |place: &str| Path::new(dir).starts_with(place);
        root.join(dir.trim_start_matches('/')).is_dir()
            || container.mounts.iter().any(|mount| under(&mount.target))
            || home.is_some_and(under)
    };
    let workdir = match container.workdir.as_str() {
        "" if inside(around.workdir) => around.workdir,
        "" => "/",
        given => given,
    };
    add(&["--chdir", workdir, "--"]);
    Ok(words)
}

/// The GPUs' devices that were granted.
fn devices(around: &Around<'_>, dev: &Path) -> Vec<String> {
    let mask = around
        .gres
        .iter()
        .filter(|g| g.kind.as_ref().is_some_and(|kind| kind.name == "gpu"))
        .fold(0u64, |mask, g| mask | g.mask);
    if mask == 0 {
        return Vec::new();
    }
    let number = |name: &str| name.strip_prefix("nvidia")?.parse::<u32>().ok();
    // Under a device filter the kernel lets through what is the job's; elsewhere the numbers say it.
    let granted = |unit: u32| around.devices_held || mask.checked_shr(unit).unwrap_or(0) & 1 == 1;
    let mut found: Vec<String> = fs::read_dir(dev)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().and_then(number).is_some_and(granted))
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    found.sort_unstable();
    found.extend(DRIVER.map(str::to_owned));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::GresKind;

    #[test]
    fn the_devices_of_granted_gpus_alone_are_there() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidia2", "nvidiactl", "null"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let kind = Some(GresKind { name: "gpu".into(), ..GresKind::default() });
        let gres = vec![GresMask { kind, mask: 0b101, ..GresMask::default() }];
        let shown = |gres: &[GresMask]| -> Vec<String> {
            let around = Around {
                node: "n1",
                home: None,
                tmp: TMP,
                workdir: "/",
                gres,
                devices_held: false,
                script: None,
            };
            let all = devices(&around, dev.path());
            all.iter().filter_map(|d| d.rsplit('/').next()).map(str::to_owned).collect()
        };
        assert_eq!(shown(&gres)[..3], ["nvidia0", "nvidia2", "nvidiactl"]);
        assert!(shown(&[]).is_empty());
    }
}

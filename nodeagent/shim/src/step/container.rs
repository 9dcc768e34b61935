//! A task in a root of its own, by bubblewrap: as the user, with no rights that the user has not.
//!
//! The command line is made in the task itself, after it has become the user, so that no path of the
//! user's is looked at as root.

use std::fs;
use std::path::Path;

use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{Container, StartStep};

use super::image::{self, Root};

/// Where the runtime is looked for: the node's own, whatever the job's PATH says.
const PLACES: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// Devices of the GPUs' driver that belong to no GPU.
const DRIVER: [&str; 4] =
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];
/// Files of the node by which names are resolved, where the root has a place for them.
const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What a root that many share has of its own for each task.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/run"];

/// Of the task's environment.
pub(super) struct Around<'a> {
    pub(super) home: Option<&'a str>,
    pub(super) tmp: &'a str,
}

/// The runtime and its words, to be followed by the command.
pub(super) fn words(
    order: &StepOrder,
    start: &StartStep,
    container: &Container,
    around: &Around<'_>,
) -> Result<Vec<String>, String> {
    let runtime = PLACES.iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
        format!("node {} has no container runtime: install bubblewrap there", order.node)
    })?;
    let Root { path: root, shared } =
        image::root(Path::new(&container.image), &order.node, Path::new(around.tmp))?;
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
    for device in devices(order, start, Path::new("/dev")) {
        add(&["--dev-bind-try", &device, &device]);
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
        "" if inside(&start.workdir) => start.workdir.as_str(),
        "" => "/",
        given => given,
    };
    add(&["--chdir", workdir, "--"]);
    Ok(words)
}

/// The GPUs' devices that the step has.
fn devices(order: &StepOrder, start: &StartStep, dev: &Path) -> Vec<String> {
    let gres = start.part.iter().flat_map(|part| part.gres.iter());
    let mask = gres
        .filter(|g| g.kind.as_ref().is_some_and(|kind| kind.name == "gpu"))
        .fold(0u64, |mask, g| mask | g.mask);
    if mask == 0 {
        return Vec::new();
    }
    let number = |name: &str| name.strip_prefix("nvidia")?.parse::<u32>().ok();
    // Under a device filter the kernel lets through what is the job's; elsewhere the numbers say it.
    let granted = |unit: u32| order.devices_held || mask.checked_shr(unit).unwrap_or(0) & 1 == 1;
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
    use muster_proto::v1::{GresKind, GresMask, NodePart};

    #[test]
    fn the_devices_of_granted_gpus_alone_are_there() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidia2", "nvidiactl", "null"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let kind = Some(GresKind { name: "gpu".into(), ..GresKind::default() });
        let gres = vec![GresMask { kind, mask: 0b101, ..GresMask::default() }];
        let part = Some(NodePart { gres, ..NodePart::default() });
        let start = StartStep { part, ..StartStep::default() };
        let shown = |order: &StepOrder, start: &StartStep| -> Vec<String> {
            let all = devices(order, start, dev.path());
            all.iter().filter_map(|d| d.rsplit('/').next()).map(str::to_owned).collect()
        };
        let order = StepOrder::default();
        assert_eq!(shown(&order, &start)[..3], ["nvidia0", "nvidia2", "nvidiactl"]);
        assert!(shown(&order, &StartStep::default()).is_empty());
    }
}

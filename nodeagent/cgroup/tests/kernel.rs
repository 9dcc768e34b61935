//! What the kernel really does with our groups: real child processes in real control groups. Each
//! story says what it lacks (root, a controller) and is skipped then.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use muster_cgroup::{Cgroups, DEFAULT_ROOT, DeviceRule, DeviceRules, Group, Limits, Mode};
use nix::sys::stat::{Mode as FileMode, SFlag, makedev, mknod};
use nix::unistd::{Pid, geteuid};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Some hierarchies of this machine, as if it had no others.
struct World {
    root: tempfile::TempDir,
    cgroups: Cgroups,
}

/// The world with these hierarchies, or `None` (said) where they are not to be had.
fn world(story: &str, hierarchies: &[&str]) -> Option<World> {
    let skip = |why: &str| {
        println!("skipped: {story}: {why}");
        None
    };
    if !geteuid().is_root() {
        return skip("needs root");
    }
    let root = tempfile::tempdir().expect("a directory");
    for name in hierarchies {
        let mount = Path::new(DEFAULT_ROOT).join(name);
        if !mount.join("cgroup.procs").exists() {
            return skip(&format!("no {name} hierarchy"));
        }
        symlink(mount, root.path().join(name)).expect("a link");
    }
    let name = root.path().file_name().expect("a name").to_string_lossy().replace('.', "");
    let parent = format!("muster-test-{name}");
    match Cgroups::detect(Mode::Auto, root.path(), &parent).expect("detection") {
        Cgroups::None(reason) => skip(&reason),
        cgroups => Some(World { root, cgroups }),
    }
}

impl World {
    fn group(&self, limits: Limits) -> Group {
        self.cgroups.create("1.1", &limits).expect("a group").expect("control groups")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.cgroups.list() {
            if let Ok(Some(group)) = self.cgroups.open(&name) {
                let _ = group.kill_all();
                let _ = group.wait_empty(PATIENCE);
                let _ = group.remove();
            }
        }
        self.cgroups.remove_tree();
    }
}

/// A shell that runs `script` as a member of the group, from its first command on.
fn spawn(group: &Group, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    group.join(Pid::from_raw(child.id().cast_signed())).expect("joined");
    child.stdin.take().expect("piped").write_all(b"go\n").expect("told");
    child
}

fn run(group: &Group, script: &str) -> Output {
    spawn(group, script).wait_with_output().expect("an end")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ALL: &[&str] = &["cpuset", "memory", "pids", "devices", "freezer", "cpuacct", "unified"];

#[test]
fn a_group_has_only_its_cpus() {
    let Some(world) = world("cpuset", ALL) else { return };
    let group = world.group(Limits { cpus: Some("0".to_owned()), ..Limits::default() });
    assert_eq!(text(&run(&group, "nproc").stdout), "1\n");
}

#[test]
fn a_group_past_its_memory_is_killed_and_counted() {
    let Some(world) = world("memory", ALL) else { return };
    let group = world.group(Limits { memory_bytes: Some(32 << 20), ..Limits::default() });
    assert_eq!(group.oom_kills().expect("counted"), 0);
    // tail keeps its last line, which is all of it.
    let output = run(&group, "head -c 200M /dev/zero | tail -n 1 >/dev/null; echo end");
    assert_eq!(text(&output.stdout), "end\n");
    assert!(group.oom_kills().expect("counted") >= 1);
    assert!(group.peak_bytes().is_none_or(|bytes| bytes > 30 << 20), "it came to its bound");
}

#[test]
fn a_group_cannot_fork_past_its_bound() {
    let Some(world) = world("pids", ALL) else { return };
    let group = world.group(Limits { pids_max: Some(4), ..Limits::default() });
    let output = run(&group, "for i in 1 2 3 4 5 6; do sleep 1 & done; kill $(jobs -p)");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("Cannot fork"), "{output:?}");
}

#[test]
fn what_a_group_used_is_known_after_its_end() {
    let Some(world) = world("usage", ALL) else { return };
    let group = world.group(Limits { memory_bytes: Some(1 << 30), ..Limits::default() });
    run(&group, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    let usage = group.usage().expect("readable").expect("counted");
    assert!(usage.user + usage.system > Duration::ZERO, "{usage:?}");
}

#[test]
fn a_denied_device_is_refused_and_a_granted_one_reaches_the_driver() {
    for hierarchies in [&["devices", "freezer"][..], &["unified"]] {
        let Some(world) = world("devices", hierarchies) else { continue };
        let mut rules = DeviceRules::of_this_machine().expect("a list");
        rules.allow.push(DeviceRule::nvidia_gpu(1));
        let group = world.group(Limits { devices: Some(rules), ..Limits::default() });
        for minor in [0, 1] {
            let path = world.root.path().join(format!("gpu{minor}"));
            let kind = SFlag::S_IFCHR;
            mknod(&path, kind, FileMode::from_bits_truncate(0o600), makedev(195, minor))
                .expect("a device file");
        }
        let dir = world.root.path().display();
        let open =
            |minor: u32| text(&run(&group, &format!("exec 2>&1; : <{dir}/gpu{minor}")).stdout);
        assert!(open(0).contains("Operation not permitted"), "{hierarchies:?}: {}", open(0));
        // ENXIO: allowed, and there is no driver here. With a driver it would open.
        assert!(!open(1).contains("not permitted"), "{hierarchies:?}: {}", open(1));
        let output = run(&group, "head -c 1 /dev/urandom >/dev/null && mknod d c 1 3; rm -f d");
        assert!(text(&output.stderr).contains("not permitted"), "{hierarchies:?}: mknod");
        assert!(!text(&output.stderr).contains("urandom"), "{hierarchies:?}: {output:?}");
    }
}

#[test]
fn nothing_survives_a_kill_of_the_group_however_it_detached() {
    for hierarchies in [ALL, &["freezer"], &["unified"]] {
        let Some(world) = world("kill", hierarchies) else { continue };
        let group = world.group(Limits::default());
        let mut shell = spawn(
            &group,
            "for i in 1 2 3 4 5 6 7 8; do \
             setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 100 & wait; done' & done; \
             echo ready; wait",
        );
        while group.procs().expect("a list").len() < 16 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!group.wait_empty(Duration::from_millis(1)).expect("a look"));
        group.kill_all().expect("a kill");
        assert!(group.wait_empty(PATIENCE).expect("a look"), "{hierarchies:?}");
        shell.wait().expect("an end");
        group.remove().expect("removed");
        assert_eq!(world.cgroups.open("1.1").expect("a look"), None, "{hierarchies:?}");
        assert_eq!(world.cgroups.list(), Vec::<String>::new());
    }
}

#[test]
fn a_frozen_group_stands_still_and_can_be_killed() {
    for hierarchies in [&["freezer"][..], &["unified"]] {
        let Some(world) = world("freeze", hierarchies) else { continue };
        let group = world.group(Limits::default());
        let mut shell = spawn(&group, "while :; do :; done");
        group.freeze().expect("asked");
        while !group.is_frozen().expect("a look") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", shell.id())).expect("there");
            stat.rsplit_once(") ").expect("a name").1.split(' ').nth(11).map(str::to_owned)
        };
        let before = ticks();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ticks(), before, "{hierarchies:?}");
        group.kill_all().expect("a kill");
        assert!(group.wait_empty(PATIENCE).expect("a look"), "{hierarchies:?}");
        shell.wait().expect("an end");
    }
}

const V1: &[&str] = &["cpuset", "memory", "pids", "devices", "freezer", "cpuacct"];

#[test]
fn a_part_of_a_slice_is_held_and_counted_apart_and_goes_with_the_whole() {
    for hierarchies in [ALL, V1] {
        let Some(world) = world("inner groups", hierarchies) else { continue };
        let whole = Limits {
            cpus: Some("0-1".to_owned()),
            memory_bytes: Some(1 << 30),
            pids_max: Some(100),
            ..Limits::default()
        };
        let slice = world.group(whole);
        let mut first = spawn(&slice, "setsid sleep 100 & echo ready; wait");
        while slice.procs().expect("a list").len() < 2 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!world.cgroups.has_room(&slice, Some("batch")));
        let batch = world.cgroups.make_room(&slice, Some("batch")).expect("room").expect("batch");
        assert!(world.cgroups.has_room(&slice, Some("batch")));
        assert_eq!(batch.procs().expect("a list").len(), 2, "all have moved");
        let part = Limits {
            cpus: Some("1".to_owned()),
            memory_bytes: Some(32 << 20),
            ..Limits::default()
        };
        let step = world.cgroups.create_inside(&slice, "step_0", &part).expect("a group");
        assert_eq!(text(&run(&step, "nproc").stdout), "1\n", "{hierarchies:?}");
        let again = world.cgroups.open_inside(&slice, "step_0").expect("a look").expect("it");
        let none = world.cgroups.open_inside(&slice, "step_1").expect("a look");
        assert_eq!((again.name(), none), (step.name(), None));
        run(&step, "head -c 200M /dev/zero | tail -n 1 >/dev/null; echo end");
        assert!(step.oom_kills().expect("counted") >= 1);
        assert_eq!(batch.oom_kills().expect("counted"), 0, "it minds its own part alone");
        let usage = step.usage().expect("readable").expect("counted");
        assert!(usage.user + usage.system > Duration::ZERO, "{usage:?}");
        let mut task = spawn(&step, "setsid sleep 100 & wait");
        while step.procs().expect("a list").len() < 2 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(slice.procs().expect("a list").len(), 4, "the whole has all of them");
        slice.freeze().expect("asked");
        while !step.is_frozen().expect("a look") || !slice.is_frozen().expect("a look") {
            std::thread::sleep(Duration::from_millis(1));
        }
        slice.kill_all().expect("a kill");
        slice.thaw().expect("asked");
        assert!(slice.wait_empty(PATIENCE).expect("a look"), "{hierarchies:?}");
        first.wait().expect("an end");
        task.wait().expect("an end");
        slice.remove().expect("removed");
        assert_eq!(world.cgroups.open("1.1").expect("a look"), None, "{hierarchies:?}");
        let late = world.cgroups.create_inside(&slice, "step_1", &Limits::default());
        assert!(late.is_err(), "a slice that is over takes no more parts");
    }
}

#[test]
fn a_part_opens_the_devices_that_it_was_given_and_no_other_of_the_slices() {
    for hierarchies in [&["devices", "freezer"][..], &["unified"]] {
        let Some(world) = world("devices inside", hierarchies) else { continue };
        let rules = |minors: &[u32]| {
            let mut rules = DeviceRules::of_this_machine().expect("a list");
            rules.allow.extend(minors.iter().map(|minor| DeviceRule::nvidia_gpu(*minor)));
            Limits { devices: Some(rules), ..Limits::default() }
        };
        let slice = world.group(rules(&[0, 1]));
        world.cgroups.make_room(&slice, Some("batch")).expect("room");
        let step = world.cgroups.create_inside(&slice, "step_0", &rules(&[1])).expect("a group");
        for minor in 0..3 {
            let path = world.root.path().join(format!("gpu{minor}"));
            let mode = FileMode::from_bits_truncate(0o600);
            mknod(&path, SFlag::S_IFCHR, mode, makedev(195, minor)).expect("a device file");
        }
        let dir = world.root.path().display();
        let denied = |group: &Group, minor: u32| {
            let said = text(&run(group, &format!("exec 2>&1; : <{dir}/gpu{minor}")).stdout);
            said.contains("Operation not permitted")
        };
        assert_eq!([0, 1, 2].map(|minor| denied(&slice, minor)), [false, false, true]);
        assert_eq!([0, 1, 2].map(|minor| denied(&step, minor)), [true, false, true]);
    }
}

#[test]
fn a_group_is_found_again_by_its_name() {
    let Some(world) = world("open", ALL) else { return };
    let limits = Limits { pids_max: Some(10), ..Limits::default() };
    let group = world.group(limits.clone());
    assert_eq!(world.cgroups.open("1.1").expect("a look"), Some(group.clone()));
    assert_eq!(world.group(limits), group, "made twice is the same");
    assert_eq!(world.cgroups.list(), ["1.1"]);
    for name in ["", "..", "a/b", ".hidden"] {
        assert!(world.cgroups.create(name, &Limits::default()).is_err(), "{name:?}");
    }
}

#[test]
fn without_control_groups_there_is_a_reason_and_nothing_else() {
    let nowhere = tempfile::tempdir().expect("a directory");
    let found = Cgroups::detect(Mode::Auto, nowhere.path(), "muster/n1").expect("never fails");
    assert!(matches!(found, Cgroups::None(_)));
    assert_eq!(found.create("1.1", &Limits::default()).expect("no group"), None);
    assert_eq!(found.what_cannot_be_enforced().len(), 1);
    assert!(Cgroups::detect(Mode::V2, nowhere.path(), "muster/n1").is_err());
    assert!(Cgroups::detect(Mode::V1, nowhere.path(), "muster/n1").is_err());
    assert!(Cgroups::detect(Mode::Auto, nowhere.path(), "../n1").is_err());
}

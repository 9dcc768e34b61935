//! Whole slices: a real launcher, real shims, real processes, as root and as an ordinary user.
//! What needs root says so and is skipped without it.

mod series;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_cgroup::{Cgroups, Mode};
use muster_proto::v1::{LaunchSpec, Rlimit, SignalRequest, User};
use muster_shim::{
    Adopted, ExitRecord, Launch, Launcher, LauncherConfig, Notice, NoticeKind, ShimClient,
    SliceDir, SliceLimits, StopCause, adopt, decode_notice, is_alive, notice_socket, sweep,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Longer than anything here takes, so that only a hang fails by it.
const PATIENCE: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65534;

/// A node without an agent: the test is one.
struct World {
    home: tempfile::TempDir,
    /// Where control groups are mounted, or links to some of the mounts.
    root: PathBuf,
    parent: String,
    notices: UnixDatagram,
    launcher: Launcher,
    next: Cell<u32>,
}

impl World {
    fn new(mode: Mode) -> Self {
        Self::among(mode, muster_cgroup::DEFAULT_ROOT.into())
    }

    fn among(mode: Mode, root: PathBuf) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::create_dir(home.path().join("work")).expect("a directory");
        fs::set_permissions(home.path().join("work"), fs::Permissions::from_mode(0o777))
            .expect("a mode");
        let spool = home.path().join("spool");
        SliceDir::prepare_spool(&spool).expect("a spool");
        let notices = UnixDatagram::bind(notice_socket(&spool)).expect("a socket");
        notices.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let name = home.path().file_name().expect("a name").to_string_lossy().into_owned();
        let parent = format!("muster-shim-test/{}", name.trim_start_matches('.'));
        let mut config = config(&spool, mode, &parent);
        config.cgroup_root.clone_from(&root);
        let launcher = Launcher::start(config).expect("a launcher");
        Self { home, root, parent, notices, launcher, next: Cell::new(1) }
    }

    fn spool(&self) -> PathBuf {
        self.home.path().join("spool")
    }

    fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    fn cgroups(&self) -> Cgroups {
        Cgroups::detect(Mode::Auto, &self.root, &self.parent).expect("detection")
    }

    /// Spools a slice of the series 7 and launches it; its shim.
    fn begin_in_series(&self, launch: &Launch) -> (u32, SliceDir) {
        let dir = SliceDir::of(&self.spool(), launch.job, launch.attempt);
        dir.write_launch(launch).expect("a launch record");
        (self.launcher.launch_in_series(&dir, "7").expect("a shim"), dir)
    }

    /// A launch of `script` as the caller, to be changed by the story.
    fn launch(&self, script: &str) -> Launch {
        let job = self.next.replace(self.next.get() + 1);
        let user = User {
            uid: geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            name: String::new(),
        };
        Launch {
            job,
            attempt: 1,
            user: Some(user),
            node: "n1".to_owned(),
            batch: true,
            script: format!("#!/bin/sh\n{script}\n").into(),
            environment: "PATH=/usr/bin:/bin\0HOME=/tmp\0".into(),
            spec: Some(LaunchSpec {
                workdir: self.work().to_string_lossy().into_owned(),
                umask: 0o022,
                ..LaunchSpec::default()
            }),
            job_name: "test".to_owned(),
            kill_wait_seconds: 1,
            unkillable_seconds: 20,
            ..Launch::default()
        }
    }

    fn start(&self, launch: &Launch) -> SliceDir {
        let dir = SliceDir::of(&self.spool(), launch.job, launch.attempt);
        dir.write_launch(launch).expect("a launch record");
        self.launcher.launch(&dir).expect("a shim");
        dir
    }

    /// The next notice that the story waits for.
    fn notice(&self, wanted: impl Fn(&NoticeKind) -> bool) -> Notice {
        let mut datagram = vec![0; 65536];
        loop {
            let length = self.notices.recv(&mut datagram).expect("a notice in time");
            let notice = decode_notice(&datagram[..length]).expect("a notice");
            if notice.kind.as_ref().is_some_and(&wanted) {
                return notice;
            }
        }
    }

    fn exit(&self) -> ExitRecord {
        match self.notice(|k| matches!(k, NoticeKind::Exited(_))).kind {
            Some(NoticeKind::Exited(exit)) => exit,
            other => panic!("not an exit: {other:?}"),
        }
    }

    fn run(&self, launch: &Launch) -> ExitRecord {
        let dir = self.start(launch);
        let exit = self.exit();
        assert_eq!(dir.read_exit().expect("readable"), Some(exit.clone()), "told as recorded");
        exit
    }

    /// Waits until a shim of a series has said that it is idle, which it does after the end, and
    /// the launcher, which answers in order, has heard it.
    fn until_idle(&self, shim: u32) {
        let asleep = |pid: u32| {
            let waits = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            waits.starts_with(&format!("{} ", nix::libc::SYS_poll))
        };
        wait_for(|| asleep(shim) && asleep(self.launcher.pid()));
    }

    fn output(&self, name: &str) -> String {
        fs::read_to_string(self.work().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Waits until the job has written `text`: it is where the story wants it.
    fn until(&self, name: &str, text: &str) {
        let path = self.work().join(name);
        wait_for(|| fs::read_to_string(&path).is_ok_and(|t| t.contains(text)));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let cgroups = self.cgroups();
        for name in cgroups.list() {
            if let Ok(Some(group)) = cgroups.open(&name) {
                let _ = group.kill_all();
                let _ = group.wait_empty(PATIENCE);
                let _ = group.remove();
            }
        }
        cgroups.remove_tree();
    }
}

fn config(spool: &Path, mode: Mode, parent: &str) -> LauncherConfig {
    LauncherConfig {
        exe: binary(),
        spool: spool.to_owned(),
        cgroup: mode,
        cgroup_root: muster_cgroup::DEFAULT_ROOT.into(),
        cgroup_parent: parent.to_owned(),
    }
}

/// The example that stands in for the muster binary lies beside the tests.
fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a path");
    let profile = me.parent().and_then(Path::parent).expect("target/<profile>/deps");
    profile.join("examples/launch_rate")
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < until, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970");
    i64::try_from(since.as_millis()).expect("fits")
}

fn spec(launch: &mut Launch) -> &mut LaunchSpec {
    launch.spec.as_mut().expect("given above")
}

fn status(exit: &ExitRecord) -> (u32, u32) {
    exit.status.as_ref().map(|s| (s.code, s.signal)).expect("a status")
}

fn root(story: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: {story}: needs root");
    }
    root
}

/// Both ways of following processes, or the one that an ordinary user has.
fn modes() -> Vec<Mode> {
    if geteuid().is_root() { vec![Mode::Auto, Mode::None] } else { vec![Mode::None] }
}

fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|s| s != 'Z' && s != 'X')
}

#[test]
fn a_script_runs_and_its_exit_code_is_recorded_before_it_is_told() {
    for mode in modes() {
        let world = World::new(mode);
        let launch = world.launch("echo out; echo err >&2; exit 7");
        let exit = world.run(&launch);
        assert_eq!((status(&exit), exit.launch_error.as_str()), ((7, 0), ""), "{mode}");
        assert_eq!(world.output("slurm-1.out"), "out\nerr\n");
        assert!(exit.ended_at >= exit.started_at && exit.started_at > 0);
        let dir = SliceDir::of(&world.spool(), 1, 1);
        assert!(!dir.socket_path().exists(), "nobody listens any more");
    }
}

#[test]
fn a_job_is_its_user_with_its_groups_umask_directory_and_environment() {
    if !root("becoming the user") {
        return;
    }
    let world = World::new(Mode::Auto);
    let mut launch = world.launch(
        "id -u; id -g; id -G; umask; pwd; test \"$SLURM_TASK_PID\" = $$ && echo pid\n\
         echo $TMPDIR $FOO ${HOSTNAME:+host}; cat; grep -E '^(SigIgn|SigBlk)' /proc/self/status\n\
         grep -c . /proc/self/cgroup >&2; ls /proc/self/fd | wc -l",
    );
    launch.user = Some(User { uid: NOBODY, gid: NOBODY, name: "nobody".to_owned() });
    launch.environment = "PATH=/usr/bin:/bin\0FOO=bar baz\0".into();
    spec(&mut launch).umask = 0o027;
    spec(&mut launch).stderr = Some("%x-%4j.%u.err".to_owned());
    let exit = world.run(&launch);
    assert_eq!(status(&exit), (0, 0), "{exit:?}");
    let work = fs::canonicalize(world.work()).expect("a path");
    let expected = format!(
        "{NOBODY}\n{NOBODY}\n{NOBODY}\n0027\n{}\npid\n/tmp bar baz host\n\
         SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n4\n",
        work.display()
    );
    assert_eq!(world.output("slurm-1.out"), expected);
    world.output("test-0001.nobody.err");
    let file = fs::metadata(world.work().join("slurm-1.out")).expect("the output");
    assert_eq!((file.uid(), file.mode() & 0o777), (NOBODY, 0o640));
}

#[test]
fn an_array_task_has_its_own_output_and_append_appends() {
    let world = World::new(Mode::None);
    for _ in 0..2 {
        let mut launch = world.launch("echo $1-$2");
        (launch.array_job, launch.array_task) = (40, Some(3));
        spec(&mut launch).args = vec!["a b".to_owned(), "c".to_owned()];
        spec(&mut launch).append = true;
        assert_eq!(status(&world.run(&launch)), (0, 0));
    }
    assert_eq!(world.output("slurm-40_3.out"), "a b-c\na b-c\n");
}

#[test]
fn at_the_time_limit_comes_sigterm_and_after_the_wait_sigkill() {
    for mode in modes() {
        let world = World::new(mode);
        let mut launch = world.launch("trap '' TERM; echo ready; sleep 1000");
        launch.end_at = now_ms() + 200;
        let exit = world.run(&launch);
        assert_eq!(status(&exit), (0, 9), "{mode}");
        assert!(exit.timed_out && exit.stopped() == StopCause::TimeLimit);
        let output = world.output("slurm-1.out");
        assert!(output.contains("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2"), "{output}");
        assert!(output.ends_with(" DUE TO TIME LIMIT ***\n"), "{output}");
    }
}

#[test]
fn the_warning_comes_before_the_limit_to_the_batch_shell_alone() {
    let world = World::new(modes()[0]);
    let mut launch = world.launch(
        "sh -c \"trap 'echo child' USR1; while :; do sleep 0.1; done\" &\n\
         trap 'echo warned; exit 3' USR1; echo ready; while :; do sleep 0.05; done",
    );
    launch.end_at = now_ms() + 60_500;
    let signal = Signal::SIGUSR1 as i32;
    spec(&mut launch).signal = Some(SignalRequest { signal, before_seconds: 60, batch_only: true });
    let exit = world.run(&launch);
    assert_eq!((status(&exit), exit.timed_out), ((3, 0), false));
    assert_eq!(world.output("slurm-1.out"), "ready\nwarned\n");
}

#[test]
fn a_stop_ends_the_job_with_its_line_and_a_later_limit_does_not_count() {
    for mode in modes() {
        let world = World::new(mode);
        let dir = world.start(&world.launch("echo ready; sleep 1000"));
        world.until("slurm-1.out", "ready");
        let mut shim = ShimClient::connect(&dir).expect("a shim");
        shim.stop(StopCause::Cancelled, Duration::from_secs(20)).expect("an answer");
        let exit = world.exit();
        assert_eq!((status(&exit), exit.stopped()), ((0, 15), StopCause::Cancelled), "{mode}");
        assert!(!exit.timed_out);
        let output = world.output("slurm-1.out");
        assert!(output.ends_with(" ***\n") && !output.contains("DUE"), "{output}");
    }
}

#[test]
fn signals_reach_the_shell_alone_all_but_the_shell_or_all() {
    for mode in modes() {
        let world = World::new(mode);
        let dir = world.start(&world.launch(
            "trap 'echo shell' USR1; trap 'echo over; exit 0' USR2\n\
             sh -c \"trap 'echo child' USR1; echo ready; while :; do sleep 0.1; done\" &\n\
             while :; do wait; done",
        ));
        world.until("slurm-1.out", "ready");
        let mut shim = ShimClient::connect(&dir).expect("a shim");
        let usr1 = Signal::SIGUSR1 as i32;
        shim.signal(usr1, true, false).expect("an answer");
        world.until("slurm-1.out", "shell");
        assert!(!world.output("slurm-1.out").contains("child"), "{mode}");
        shim.signal(usr1, false, false).expect("an answer");
        world.until("slurm-1.out", "child");
        assert_eq!(world.output("slurm-1.out").matches("shell").count(), 1, "{mode}");
        shim.signal(Signal::SIGUSR2 as i32, true, false).expect("an answer");
        assert_eq!(status(&world.exit()), (0, 0), "{mode}");
    }
}

#[test]
fn what_the_script_leaves_behind_is_killed_however_it_detached() {
    for mode in modes() {
        let world = World::new(mode);
        let launch = world.launch(
            "setsid sh -c 'trap \"\" TERM HUP; (sh -c \"echo \\$\\$ >pid; exec sleep 1000\") & sleep 1000' &\n\
             while ! test -s pid; do sleep 0.01; done",
        );
        let exit = world.run(&launch);
        assert_eq!((status(&exit), exit.unkillable), ((0, 0), 0), "{mode}");
        let pid = world.output("pid").trim().parse().expect("a pid");
        assert!(!alive(pid), "{mode}: process {pid} is left");
        assert!(world.cgroups().open("1.1").expect("readable").is_none(), "the group is gone");
    }
}

#[test]
fn a_suspended_job_stands_still_and_its_limit_rests() {
    for mode in modes() {
        let world = World::new(mode);
        let mut launch = world.launch("echo ready; sleep 1000");
        launch.end_at = now_ms() + 600_000;
        let dir = world.start(&launch);
        world.until("slurm-1.out", "ready");
        let mut shim = ShimClient::connect(&dir).expect("a shim");
        let reply = shim.suspend(true).expect("an answer");
        assert!(reply.suspended && reply.running && reply.pids >= 1, "{mode}");
        shim.set_end(now_ms() - 1000).expect("an answer");
        assert!(shim.status().expect("an answer").running, "{mode}: the limit rests");
        shim.suspend(false).expect("an answer");
        let exit = world.exit();
        assert!(exit.timed_out && status(&exit) == (0, 15), "{mode}: {exit:?}");
    }
}

#[test]
fn shims_outlive_launcher_and_agent_and_are_adopted() {
    for mode in modes() {
        let world = World::new(mode);
        let dir = world.start(&world.launch("echo ready; sleep 1000"));
        world.until("slurm-1.out", "ready");
        let launcher = i32::try_from(world.launcher.pid()).expect("a pid");
        kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("a kill");
        let Ok(Adopted::Alive(mut shim)) = adopt(&dir) else { panic!("{mode}: not alive") };
        assert!(shim.status().expect("an answer").running);
        // The next launch finds the launcher dead and starts another.
        assert_eq!(status(&world.run(&world.launch("exit 4"))), (4, 0));
        shim.stop(StopCause::Cancelled, Duration::ZERO).expect("an answer");
        assert_eq!(world.exit().job, 1);
        let Ok(Adopted::Exited(exit)) = adopt(&dir) else { panic!("{mode}: not exited") };
        assert_eq!(exit.stopped(), StopCause::Cancelled);
    }
}

#[test]
fn a_killed_shim_is_told_of_and_what_it_leaves_is_swept() {
    for mode in modes() {
        let world = World::new(mode);
        let dir = world.start(&world.launch("echo $$ >pid; echo ready; sleep 1000"));
        world.until("slurm-1.out", "ready");
        let record = dir.read_record().expect("readable").expect("a record");
        assert!(is_alive(&record));
        kill(Pid::from_raw(record.pid.cast_signed()), Signal::SIGKILL).expect("a kill");
        world.notice(|k| matches!(k, NoticeKind::Gone(_)));
        assert!(!is_alive(&record));
        assert!(matches!(adopt(&dir), Ok(Adopted::Gone(_))), "{mode}");
        let cgroups =
            if mode == Mode::None { Cgroups::None(String::new()) } else { world.cgroups() };
        assert_eq!(sweep(&dir, &cgroups).expect("a sweep"), 0);
        let pid = world.output("pid").trim().parse().expect("a pid");
        wait_for(|| !alive(pid));
    }
}

#[test]
fn a_slice_is_run_once_however_often_it_is_launched() {
    let world = World::new(Mode::None);
    let launch = world.launch("echo once");
    let dir = world.start(&launch);
    world.launcher.launch(&dir).expect("a second shim");
    world.exit();
    assert_eq!(status(&world.run(&world.launch("true"))), (0, 0));
    assert_eq!(world.output("slurm-1.out"), "once\n");

    let given_up = world.launch("echo never");
    let dir = SliceDir::of(&world.spool(), given_up.job, 1);
    dir.write_launch(&given_up).expect("a record");
    assert!(matches!(adopt(&dir), Ok(Adopted::NotStarted)));
    assert!(dir.abandon().expect("a claim"));
    assert!(!dir.abandon().expect("a claim"), "once");
    world.launcher.launch(&dir).expect("a shim");
    assert_eq!(status(&world.run(&world.launch("true"))), (0, 0));
    assert!(matches!(adopt(&dir), Ok(Adopted::Gone(_))));
    assert!(!world.work().join(format!("slurm-{}.out", given_up.job)).exists());
}

#[test]
fn a_shared_script_is_the_same_text_or_none() {
    let world = World::new(Mode::None);
    let first = world.launch("echo a");
    let dir = SliceDir::of(&world.spool(), first.job, 1);
    dir.write_launch(&first).expect("a record");
    let check = |script: &str, shared: bool| {
        let launch = world.launch(script);
        let other = SliceDir::of(&world.spool(), launch.job, 1);
        other.write_launch_beside(&launch, Some(&dir)).expect("a record");
        let inode = |dir: &SliceDir| fs::metadata(dir.script_path()).expect("a script").ino();
        assert_eq!(inode(&other) == inode(&dir), shared, "{script}");
        assert_eq!(fs::read(other.script_path()).expect("readable"), &launch.script[..]);
    };
    check("echo a", true);
    check("echo b", false);
    fs::set_permissions(dir.script_path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(dir.script_path(), "#!/bin/sh\necho x\n").expect("a change by the user");
    check("echo a", false);
}

#[test]
fn a_script_that_cannot_run_says_why_with_slurms_exit_code() {
    let world = World::new(Mode::None);
    let check = |change: &dyn Fn(&mut Launch), expected: (u32, u32), why: &str| {
        let mut launch = world.launch("echo never");
        change(&mut launch);
        let exit = world.run(&launch);
        assert_eq!(status(&exit), expected, "{exit:?}");
        assert!(exit.launch_error.contains(why), "{:?} has no {why:?}", exit.launch_error);
        exit
    };
    let out = |path: &'static str| move |l: &mut Launch| spec(l).stdout = Some(path.to_owned());
    check(&out("/tmp"), (0, 53), "Could not open stdout file /tmp: Is a directory");
    check(&out("/nowhere/x"), (0, 53), "stdout file /nowhere/x: No such file or directory");
    let stdin = |l: &mut Launch| spec(l).stdin = Some("/nowhere/in".to_owned());
    check(&stdin, (0, 53), "Could not open stdin file /nowhere/in");
    let interpreter = |l: &mut Launch| l.script = "#!/nowhere/sh\n".into();
    check(&interpreter, (2, 0), "No such file or directory");
    check(&|l: &mut Launch| l.script = "echo no\n".into(), (8, 0), "execve()");
    let stranger = |l: &mut Launch| {
        l.user = Some(User { uid: 4_000_000, gid: 4_000_000, name: "ghost".to_owned() });
    };
    let exit = check(&stranger, (1, 0), "uid");
    assert_eq!(exit.node_fault, !geteuid().is_root());
}

#[test]
fn a_missing_directory_and_a_limit_out_of_reach_are_noted_and_not_fatal() {
    let world = World::new(Mode::None);
    let mut launch = world.launch("pwd; ulimit -n");
    let output = world.work().join("out").to_string_lossy().into_owned();
    spec(&mut launch).workdir = "/nowhere".to_owned();
    spec(&mut launch).stdout = Some(output);
    spec(&mut launch).rlimits = vec![
        Rlimit { name: "nofile".to_owned(), soft: 77 },
        Rlimit { name: "frobs".to_owned(), soft: 1 },
    ];
    assert_eq!(status(&world.run(&launch)), (0, 0));
    assert_eq!(
        world.output("out"),
        "slurmstepd: error: RLIMIT_FROBS is not known here\n\
         slurmstepd: error: couldn't chdir to `/nowhere': No such file or directory: \
         going to /tmp instead\n/tmp\n77\n"
    );
}

#[test]
fn a_job_past_its_memory_is_recorded_as_such() {
    if !root("memory") {
        return;
    }
    let world = World::new(Mode::Auto);
    if world.cgroups().what_cannot_be_enforced().iter().any(|w| w.contains("memory")) {
        println!("skipped: memory: no such controller");
        return;
    }
    let mut launch = world.launch("head -c 300M /dev/zero | tail -n 1 | wc -c");
    launch.limits = Some(SliceLimits { memory_bytes: 48 << 20, ..SliceLimits::default() });
    let exit = world.run(&launch);
    assert!(exit.oom, "{exit:?}");
    let output = world.output("slurm-1.out");
    let line = "oom_kill event in StepId=1.batch. Some of the step tasks have been OOM Killed.\n";
    assert!(output.contains(line), "{output}");
    assert!(exit.usage.is_some_and(|u| u.max_rss_kib > 10_000));
}

#[test]
fn an_ordinary_users_agent_serves_that_user_without_control_groups() {
    if !root("switching to an ordinary user") {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    // The build directory may be closed to others.
    let exe = home.path().join("launch_rate");
    fs::copy(binary(), &exe).expect("a copy");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&exe)
        .args(["12", "4", "auto"])
        .arg(home.path().join("spool"))
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("12 jobs"), "{text}{errors}");
}

/// Programs that filter the devices of a v2 group, by their numbers.
fn device_programs(group: &Path) -> Vec<u32> {
    #[repr(C)]
    struct Query {
        group: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
    }
    const BPF_PROG_QUERY: nix::libc::c_int = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    use std::os::fd::AsRawFd as _;
    let directory = fs::File::open(group).expect("the group is there");
    let mut ids = [0u32; 8];
    let mut query = Query {
        group: u32::try_from(directory.as_raw_fd()).expect("open"),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 8,
    };
    let size = size_of::<Query>();
    // SAFETY: the kernel reads the struct and writes as many numbers as it says there is room for.
    let code =
        unsafe { nix::libc::syscall(nix::libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    ids[..query.count as usize].to_vec()
}

fn program_is_loaded(id: u32) -> bool {
    const BPF_PROG_GET_FD_BY_ID: nix::libc::c_int = 13;
    let mut request = [id, 0, 0];
    // SAFETY: the kernel reads these three numbers.
    let fd = unsafe {
        let size = size_of_val(&request);
        nix::libc::syscall(nix::libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, request.as_mut_ptr(), size)
    };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: it was opened a moment ago and nobody else knows of it.
        unsafe { nix::libc::close(fd) };
        return true;
    }
    false
}

#[test]
fn a_job_opens_its_own_gpu_alone_and_nothing_of_the_filter_is_left_after_it() {
    use nix::sys::stat::{Mode as FileMode, SFlag, makedev, mknod};
    if !root("device files") {
        return;
    }
    for hierarchies in [&["devices", "freezer"][..], &["unified"]] {
        let mounts = tempfile::tempdir().expect("a directory");
        let mount = |name: &str| Path::new(muster_cgroup::DEFAULT_ROOT).join(name);
        if !hierarchies.iter().all(|name| mount(name).join("cgroup.procs").exists()) {
            println!("skipped: no {hierarchies:?} here");
            continue;
        }
        for name in hierarchies {
            std::os::unix::fs::symlink(mount(name), mounts.path().join(name)).expect("a link");
        }
        let world = World::among(Mode::Auto, mounts.path().to_owned());
        for minor in [0, 5, 7] {
            let path = world.work().join(format!("gpu{minor}"));
            let mode = FileMode::from_bits_truncate(0o666);
            mknod(&path, SFlag::S_IFCHR, mode, makedev(195, minor)).expect("a device file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        }
        let mut launch = world.launch(
            "for gpu in 0 5 7; do head -c 1 gpu$gpu; done 2>&1 | sed 's/.*: //'\n\
             echo opened; while [ ! -e go ]; do sleep 0.02; done",
        );
        launch.user = Some(User { uid: NOBODY, gid: NOBODY, name: "nobody".to_owned() });
        let mut rules = muster_cgroup::DeviceRules::of_this_machine().expect("a list").allow;
        rules.push(muster_cgroup::DeviceRule::nvidia_gpu(5));
        launch.limits = Some(SliceLimits {
            hold_devices: true,
            devices: rules.iter().map(ToString::to_string).collect(),
            ..SliceLimits::default()
        });
        let dir = world.start(&launch);
        world.until("slurm-1.out", "opened");
        // ENXIO: it may be opened, and there is no driver behind it.
        assert_eq!(
            world.output("slurm-1.out"),
            "Operation not permitted\nNo such device or address\nOperation not permitted\nopened\n",
            "{hierarchies:?}"
        );
        let group = |name: &str| mount(name).join(&world.parent).join("1.1");
        let programs = match hierarchies {
            ["unified"] => device_programs(&group("unified")),
            _ => Vec::new(),
        };
        assert_eq!(programs.is_empty(), hierarchies[0] != "unified", "{hierarchies:?}");
        assert!(programs.iter().all(|id| program_is_loaded(*id)));
        fs::write(world.work().join("go"), "").expect("a file");
        assert_eq!(status(&world.exit()), (0, 0));
        sweep(&dir, &world.cgroups()).expect("swept");
        if let Ok(Some(group)) = world.cgroups().open("1.1") {
            assert!(group.wait_empty(PATIENCE).expect("a look"));
            group.remove().expect("removed");
        }
        assert!(hierarchies.iter().all(|name| !group(name).exists()), "{hierarchies:?}");
        // The kernel lets go of it a moment after the group.
        wait_for(|| !programs.iter().any(|id| program_is_loaded(*id)));
    }
}

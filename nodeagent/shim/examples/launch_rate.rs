//! How many `true` jobs a second go through launcher, shim and exit record:
//! `launch_rate [JOBS] [AT_ONCE] [auto|v1|v2|none] [SPOOL] [SERIES]`, as root for control groups.
//!
//! It is the agent and, re-executed with `shim`, the launcher; so tests use it as the binary, too.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use muster_cgroup::{Cgroups, Mode};
use muster_proto::v1::{LaunchSpec, User};
use muster_shim::{
    Launch, Launcher, LauncherConfig, NoticeKind, SliceDir, SliceLimits, decode_notice,
    notice_socket,
};

/// The node's tree in the control groups.
const TREE: &str = "muster-launch-rate";

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "shim") {
        return ExitCode::from(u8::try_from(muster_shim::main(&args.split_off(1))).unwrap_or(1));
    }
    let text = |at: usize, default: &str| {
        args.get(at).map_or(default.to_owned(), |a| a.to_string_lossy().into_owned())
    };
    let jobs: u32 = text(0, "1000").parse().expect("a number of jobs");
    let at_once: u32 = text(1, "8").parse().expect("a number of jobs at once");
    let mode: Mode = text(2, "auto").parse().expect("a control group mode");
    let spool = PathBuf::from(text(3, "/tmp/muster-launch-rate"));
    measure(jobs, at_once, mode, &spool, text(4, ""));
    ExitCode::SUCCESS
}

fn measure(jobs: u32, at_once: u32, mode: Mode, spool: &std::path::Path, series: String) {
    let _ = std::fs::remove_dir_all(spool);
    SliceDir::prepare_spool(spool).expect("a spool");
    let notices = UnixDatagram::bind(notice_socket(spool)).expect("a notice socket");
    notices.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let launcher = Launcher::start(LauncherConfig {
        exe: std::env::current_exe().expect("a binary"),
        spool: spool.to_owned(),
        cgroup: mode,
        cgroup_root: muster_cgroup::DEFAULT_ROOT.into(),
        cgroup_parent: TREE.to_owned(),
    })
    .expect("a launcher");

    let begun = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut ended = 0;
    let mut spool_time = Duration::ZERO;
    let mut launch_time = Duration::ZERO;
    let mut datagram = vec![0; 65536];
    while ended < jobs {
        while next.load(Ordering::Relaxed) < jobs.min(ended + at_once) {
            let job = next.fetch_add(1, Ordering::Relaxed) + 1;
            let dir = SliceDir::of(spool, job, 1);
            let at = Instant::now();
            let before = (!series.is_empty()).then(|| SliceDir::of(spool, job.max(2) - 1, 1));
            dir.write_launch_beside(&launch(job, spool), before.as_ref()).expect("a launch record");
            spool_time += at.elapsed();
            let at = Instant::now();
            launcher.launch_in_series(&dir, &series).expect("a shim");
            launch_time += at.elapsed();
        }
        let length = notices.recv(&mut datagram).expect("a notice in time");
        let notice = decode_notice(&datagram[..length]).expect("a notice");
        match notice.kind {
            Some(NoticeKind::Exited(exit)) => {
                assert_eq!(exit.launch_error, "");
                assert_eq!(exit.status.expect("a status").code, 0);
                SliceDir::of(spool, exit.job, 1).remove().expect("an entry to remove");
                ended += 1;
            }
            Some(NoticeKind::Gone(why)) => panic!("job {}: {why}", notice.job),
            Some(_) | None => {}
        }
    }
    let took = begun.elapsed();
    let per = |t: Duration| t.as_micros() / u128::from(jobs);
    println!(
        "{jobs} jobs, {at_once} at once, {mode}: {:.0} jobs/s; per job in the agent: spool {} us, \
         launcher {} us",
        f64::from(jobs) / took.as_secs_f64(),
        per(spool_time),
        per(launch_time)
    );
    drop(launcher);
    let ended = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let spent = ended.expect("own usage");
    let ms = |t: nix::sys::time::TimeVal| t.tv_sec() * 1000 + t.tv_usec() / 1000;
    println!(
        "CPU per job in launcher, shim and script: {} us user, {} us system",
        ms(spent.user_time()) * 1000 / i64::from(jobs),
        ms(spent.system_time()) * 1000 / i64::from(jobs)
    );
    remove_tree(mode);
    let _ = std::fs::remove_dir_all(spool);
}

fn remove_tree(mode: Mode) {
    let root = std::path::Path::new(muster_cgroup::DEFAULT_ROOT);
    let cgroups = Cgroups::detect(mode, root, TREE).expect("as the launcher did");
    if let Ok(Some(shims)) = cgroups.open(muster_shim::SHIMS_GROUP) {
        let _ = shims.wait_empty(Duration::from_secs(5));
        let _ = shims.remove();
    }
    cgroups.remove_tree();
}

fn launch(job: u32, spool: &std::path::Path) -> Launch {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Launch {
        job,
        attempt: 1,
        user: Some(User { uid, gid, name: "root".to_owned() }),
        node: "n1".to_owned(),
        batch: true,
        script: "#!/bin/sh\ntrue\n".into(),
        environment: "PATH=/usr/bin:/bin\0HOME=/tmp\0SLURM_JOB_ID=1\0".into(),
        spec: Some(LaunchSpec {
            workdir: spool.to_string_lossy().into_owned(),
            stdout: Some("/dev/null".to_owned()),
            umask: 0o022,
            ..LaunchSpec::default()
        }),
        limits: Some(SliceLimits {
            cpus: "0".to_owned(),
            memory_bytes: 1 << 30,
            pids_max: 1000,
            ..SliceLimits::default()
        }),
        kill_wait_seconds: 30,
        unkillable_seconds: 60,
        ..Launch::default()
    }
}

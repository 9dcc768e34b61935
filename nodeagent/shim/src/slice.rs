//! The shim's own course, from the fork by the launcher to its exit code:
//! read the launch record, claim the slice, make the group, listen, start the batch script,
//! supervise it, and leave the exit record before anybody is told.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_cgroup::{Cgroups, DeviceRules, Group, Limits};
use muster_proto::shim::v1::{ExitRecord, Launch, ShimRecord, SliceLimits};
use muster_proto::v1::{ExitStatus, Usage};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::TimeVal;
use nix::unistd::{gethostname, setsid};

use crate::adopt::{boot_id, stat};
use crate::contain::Containment;
use crate::control::Control;
use crate::spool::{SliceDir, SpoolError};
use crate::supervise::{Outcome, Supervision};
use crate::{NoticeKind, child, notice};

/// What a shim knows of its machine; the launcher looks once for all.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) spool: PathBuf,
    pub(crate) cgroups: Cgroups,
    pub(crate) boot_id: String,
    pub(crate) hostname: String,
    /// The agent is protected from (or exposed to) the kernel's killer, which jobs must not be.
    pub(crate) reset_oom_score: bool,
}

impl Host {
    pub(crate) fn here(spool: PathBuf, cgroups: Cgroups) -> io::Result<Self> {
        let score = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
        Ok(Self {
            spool,
            cgroups,
            boot_id: boot_id()?,
            hostname: gethostname()?.to_string_lossy().into_owned(),
            reset_oom_score: !matches!(score.trim(), "" | "0"),
        })
    }
}

/// Where a process's standing with the out-of-memory killer is kept.
pub(crate) const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// Exit codes of a shim: its record is written, or it is not.
const RECORDED: i32 = 0;
const UNRECORDED: i32 = 1;
/// How long the removal of an empty group may take; a group that stays is swept by the agent.
const EMPTY_WAIT: Duration = Duration::from_millis(500);

/// The script could not be run, with the exit status that Slurm would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
    pub(crate) node_fault: bool,
}

impl Refusal {
    /// The job's fault, with an exit code.
    pub(crate) fn code(code: u32, text: String) -> Self {
        Self { status: ExitStatus { code, signal: 0 }, text, node_fault: false }
    }

    /// This node's fault.
    pub(crate) fn node(text: String) -> Self {
        Self { status: ExitStatus { code: 1, signal: 0 }, text, node_fault: true }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Runs the slice; the answer is the shim's exit code.
pub(crate) fn run(host: &Host, dir: &SliceDir) -> i32 {
    match supervise(host, dir) {
        Ok(()) => RECORDED,
        Err(e) => {
            eprintln!("muster shim: {}: {}", dir.path().display(), chain(&e));
            UNRECORDED
        }
    }
}

/// The shim itself failed; the slice is left to whoever finds it.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("there is no launch record")]
    NoLaunch,
    #[error("cannot {what}")]
    Kernel { what: &'static str, source: io::Error },
}

fn kernel(what: &'static str) -> impl FnOnce(nix::Error) -> ShimError {
    move |e| ShimError::Kernel { what, source: e.into() }
}

fn supervise(host: &Host, dir: &SliceDir) -> Result<(), ShimError> {
    let launch = dir.read_launch()?.ok_or(ShimError::NoLaunch)?;
    become_shim()?;
    let mut record = record_of(host, &launch)?;
    if !dir.claim(&record)? {
        return Ok(());
    }
    let (outcome, containment) = match begin(host, dir, &launch, &mut record) {
        Ok((batch, control, containment)) => {
            let started = NoticeKind::Started(record.clone());
            // The files say it too; an agent that cannot be told looks there.
            let _ = notice::send(&host.spool, launch.job, launch.attempt, started);
            let supervision = Supervision::new(&launch, batch, &containment, control);
            (supervision.run().map_err(kernel("supervise"))?, Some(containment))
        }
        Err(refusal) => (Outcome::refused(refusal), None),
    };
    finish(host, dir, &launch, record.started_at, outcome, containment)
}

/// Leaves the launcher's session, stdin and leniency; orphans of the job come to this process.
fn become_shim() -> Result<(), ShimError> {
    setsid().map_err(kernel("start a session"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(kernel("become the subreaper"))?;
    umask(Mode::from_bits_truncate(0o077));
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|source| ShimError::Kernel { what: "open /dev/null", source })?;
    // The launcher's socket must not outlive it here, or the agent would take it for alive.
    // SAFETY: both descriptors are open, and nothing in this process reads stdin any more.
    match unsafe { libc::dup2(null.as_raw_fd(), 0) } {
        -1 => Err(ShimError::Kernel { what: "close stdin", source: io::Error::last_os_error() }),
        _ => Ok(()),
    }
}

fn record_of(host: &Host, launch: &Launch) -> Result<ShimRecord, ShimError> {
    let pid = std::process::id();
    let source = || io::Error::other("/proc/self/stat makes no sense");
    let stat = stat(pid)
        .ok_or_else(|| ShimError::Kernel { what: "read the own start time", source: source() })?;
    let cgroup = match &host.cgroups {
        Cgroups::None(_) => String::new(),
        Cgroups::V1(_) | Cgroups::V2(_) => group_name(launch),
    };
    Ok(ShimRecord {
        pid,
        start_ticks: stat.start_ticks,
        boot_id: host.boot_id.clone(),
        cgroup,
        started_at: now_ms(),
        session: 0,
    })
}

fn group_name(launch: &Launch) -> String {
    format!("{}.{}", launch.job, launch.attempt)
}

/// Makes the group and begins in it; what could not begin leaves no group.
fn begin(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    record: &mut ShimRecord,
) -> Result<(child::Batch, Control, Containment), Refusal> {
    let limits = limits_of(launch.limits.as_ref()).map_err(Refusal::node)?;
    let group = host.cgroups.create(&group_name(launch), &limits);
    let containment = Containment::new(group.map_err(|e| Refusal::node(chain(&e)))?);
    match begin_in(&containment, host, dir, launch) {
        Ok((batch, control)) => {
            if containment.group().is_none() {
                record.session = batch.pid.as_raw().cast_unsigned();
                // Missing it costs a later agent the sweep of a killed shim's leftovers alone.
                let _ = dir.update_record(record);
            }
            Ok((batch, control, containment))
        }
        Err(refusal) => {
            // The refusal is the news; an empty group that stays is the agent's to sweep.
            let _ = containment.group().map(Group::remove);
            Err(refusal)
        }
    }
}

/// Listens, and starts the batch script.
fn begin_in(
    containment: &Containment,
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
) -> Result<(child::Batch, Control), Refusal> {
    let control = Control::listen(&dir.socket_path())
        .map_err(|e| Refusal::node(format!("cannot listen in the spool: {e}")))?;
    let batch = child::start(host, dir, launch, containment.group())
        .map_err(|e| Refusal::node(format!("cannot fork: {e}")))?;
    Ok((batch, control))
}

fn limits_of(limits: Option<&SliceLimits>) -> Result<Limits, String> {
    let Some(limits) = limits else { return Ok(Limits::default()) };
    let text = |t: &String| (!t.is_empty()).then(|| t.clone());
    let number = |n: u64| (n != 0).then_some(n);
    let rules: Result<Vec<_>, _> = limits.devices.iter().map(|d| d.parse()).collect();
    let allow = rules.map_err(|e: muster_cgroup::ParseRuleError| e.to_string())?;
    Ok(Limits {
        cpus: text(&limits.cpus),
        mems: text(&limits.mems),
        memory_bytes: number(limits.memory_bytes),
        pids_max: number(limits.pids_max),
        devices: limits.hold_devices.then_some(DeviceRules { allow }),
    })
}

/// Writes the exit record, removes the group, and tells.
fn finish(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    started_at: i64,
    outcome: Outcome,
    containment: Option<Containment>,
) -> Result<(), ShimError> {
    let refusal = outcome.refusal;
    let record = ExitRecord {
        job: launch.job,
        attempt: launch.attempt,
        status: Some(refusal.as_ref().map_or(outcome.status, |r| r.status)),
        oom: outcome.oom_kills > 0,
        timed_out: outcome.stopped == crate::StopCause::TimeLimit,
        stopped: outcome.stopped.into(),
        started_at,
        ended_at: now_ms(),
        usage: Some(outcome.usage),
        unkillable: outcome.unkillable,
        node_fault: refusal.as_ref().is_some_and(|r| r.node_fault),
        launch_error: refusal.map(|r| r.text).unwrap_or_default(),
    };
    dir.write_exit(&record)?;
    if let Some(group) = containment.as_ref().and_then(Containment::group)
        && record.unkillable == 0
        && group.wait_empty(EMPTY_WAIT).unwrap_or(false)
        && let Err(e) = group.remove()
    {
        eprintln!("muster shim: {}", chain(&e));
    }
    let _ = std::fs::remove_file(dir.socket_path());
    let exited = NoticeKind::Exited(record);
    // Durable already: an agent that cannot be told now reads the record later.
    let _ = notice::send(&host.spool, launch.job, launch.attempt, exited);
    Ok(())
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("milliseconds fit for ages")
}

/// What the ended children (and theirs) of this process have used.
pub(crate) fn usage_of_children() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
    let ms = |t: TimeVal| (t.tv_sec() * 1000 + t.tv_usec() / 1000).cast_unsigned();
    Usage {
        user_cpu_ms: ms(usage.user_time()),
        system_cpu_ms: ms(usage.system_time()),
        max_rss_kib: usage.max_rss().cast_unsigned(),
    }
}

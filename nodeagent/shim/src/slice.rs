//! The shim's own course, from the fork by the launcher to its exit code:
//! read the launch record, claim the slice, make the group, listen, start the batch script,
//! supervise it, and leave the exit record before anybody is told. A shim of an array's tasks goes
//! on with the next one, and keeps its socket and, where nothing has touched it, the group.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_cgroup::{Cgroups, DeviceRules, Group, Limits};
use muster_proto::shim::v1::{ExitRecord, Launch, ShimRecord, SliceLimits};
use muster_proto::v1::ExitStatus;
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{gethostname, setsid};

use crate::adopt::{boot_id, stat};
use crate::contain::Containment;
use crate::control::Control;
use crate::frames::{Kind, SliceFile};
use crate::identity::Groups;
use crate::series::Orders;
use crate::spool::{SliceDir, SpoolError, shims};
use crate::supervise::{Outcome, Supervision, watch_children};
use crate::usage::Counted;
use crate::{NoticeKind, child, notice};

/// What a shim knows of its machine; the launcher looks once for all.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) spool: PathBuf,
    pub(crate) cgroups: Cgroups,
    pub(crate) boot_id: String,
    pub(crate) hostname: String,
    /// The agent is protected from (or exposed to) the kernel's killer, which jobs must not be.
    pub(crate) oom_score: Option<String>,
}

impl Host {
    pub(crate) fn here(spool: PathBuf, cgroups: Cgroups) -> io::Result<Self> {
        let score = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
        Ok(Self {
            spool,
            cgroups,
            boot_id: boot_id()?,
            hostname: gethostname()?.to_string_lossy().into_owned(),
            oom_score: Some(score.trim().to_owned()).filter(|s| !matches!(s.as_str(), "" | "0")),
        })
    }
}

/// Where a process's standing with the out-of-memory killer is kept.
pub(crate) const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The group of the batch script's processes, once there are steps beside them.
pub const BATCH_GROUP: &str = "batch";
/// Exit codes of a shim: its record is written, or it is not.
const RECORDED: i32 = 0;
const UNRECORDED: i32 = 1;
/// Who is in which group may change while an array runs: a look holds for this long.
const GROUPS_LAST: Duration = Duration::from_secs(5);
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

/// Runs one slice; the answer is the shim's exit code.
pub(crate) fn run(host: &Host, dir: &SliceDir) -> i32 {
    report(dir, Shim::begin(host, false).and_then(|mut shim| shim.supervise(dir)))
}

/// Runs one slice after another, as they are ordered, until there is no more to do.
pub(crate) fn run_series(host: &Host, first: SliceDir, orders: &Orders) -> i32 {
    let mut dir = first;
    let mut shim = match Shim::begin(host, true) {
        Ok(shim) => shim,
        failed => return report(&dir, failed.map(drop)),
    };
    loop {
        let code = report(&dir, shim.supervise(&dir));
        if code != RECORDED || shim.is_spent() {
            return code;
        }
        match orders.next(&mut shim.control) {
            Some(next) => dir = next,
            None => return RECORDED,
        }
    }
}

fn report(dir: &SliceDir, done: Result<(), ShimError>) -> i32 {
    match done {
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

/// A shim process, and what it keeps from one slice for the next.
struct Shim<'a> {
    host: &'a Host,
    pid: u32,
    start_ticks: u64,
    /// Serves more than one slice.
    series: bool,
    children: SignalFd,
    control: Option<Control>,
    kept: Option<Kept>,
    groups: Option<(Groups, Instant)>,
    unkillable: bool,
}

/// A group that is as new, what it holds to, and what it has counted.
struct Kept {
    group: Group,
    limits: Limits,
    counted: Counted,
}

/// What a slice begins with.
struct Begun {
    batch: child::Batch,
    containment: Containment,
    counted: Counted,
}

impl<'a> Shim<'a> {
    fn begin(host: &'a Host, series: bool) -> Result<Self, ShimError> {
        become_shim()?;
        let pid = std::process::id();
        let source = || io::Error::other("/proc/self/stat makes no sense");
        let stat = stat(pid).ok_or_else(|| ShimError::Kernel {
            what: "read the own start time",
            source: source(),
        })?;
        let start_ticks = stat.start_ticks;
        let children = watch_children().map_err(kernel("watch for the ends of children"))?;
        Ok(Self {
            host,
            pid,
            start_ticks,
            series,
            children,
            control: None,
            kept: None,
            groups: None,
            unkillable: false,
        })
    }

    /// Processes are left that would be taken for the next slice's.
    fn is_spent(&self) -> bool {
        self.unkillable
    }

    fn supervise(&mut self, dir: &SliceDir) -> Result<(), ShimError> {
        let mut file = SliceFile::open(dir)?.ok_or(ShimError::NoLaunch)?;
        let (job, attempt) = dir.ids().ok_or(ShimError::NoLaunch)?;
        let mut record = self.record_of(job, attempt);
        if !file.claim_launch(&record)? {
            return Ok(());
        }
        // Read with the claim: nobody changes it from here on.
        let launch: Launch = file.read(Kind::Launch)?.ok_or(ShimError::NoLaunch)?;
        let (outcome, containment) = match self.start(dir, &mut file, &launch, &mut record) {
            Ok(Begun { batch, containment, counted }) => {
                let started = NoticeKind::Started(record.clone());
                // The files say it too; an agent that cannot be told looks there.
                let _ = notice::send(&self.host.spool, job, attempt, started);
                let control = self.control.as_mut().expect("listens since the start");
                let ears = (control, &self.children);
                let supervision =
                    Supervision::new(self.host, &launch, batch, &containment, ears, counted);
                let mut outcome = supervision.run().map_err(kernel("supervise"))?;
                if let (Some(gids), Some(user)) = (outcome.groups.take(), &launch.user) {
                    self.groups = Some((Groups::new(user.clone(), gids), Instant::now()));
                }
                (outcome, Some(containment))
            }
            Err(refusal) => (Outcome::refused(refusal), None),
        };
        self.finish(dir, &mut file, &launch, record.started_at, outcome, containment)
    }

    fn record_of(&self, job: u32, attempt: u32) -> ShimRecord {
        let cgroup = match &self.host.cgroups {
            Cgroups::None(_) => String::new(),
            Cgroups::V1(_) | Cgroups::V2(_) => self.group_name(job, attempt),
        };
        ShimRecord {
            pid: self.pid,
            start_ticks: self.start_ticks,
            boot_id: self.host.boot_id.clone(),
            cgroup,
            started_at: now_ms(),
            session: 0,
            shared: self.series,
        }
    }

    fn group_name(&self, job: u32, attempt: u32) -> String {
        match self.series {
            true => shared_group_name(self.pid),
            false => format!("{job}.{attempt}"),
        }
    }

    /// Makes the group and begins in it; what could not begin leaves no group.
    fn start(
        &mut self,
        dir: &SliceDir,
        file: &mut SliceFile,
        launch: &Launch,
        record: &mut ShimRecord,
    ) -> Result<Begun, Refusal> {
        let (containment, counted) = self.contain(launch)?;
        match self.start_in(&containment, dir, launch) {
            Ok(batch) => {
                if containment.group().is_none() {
                    record.session = batch.pid.as_raw().cast_unsigned();
                    // Missing it costs a later agent the sweep of a killed shim's leftovers alone.
                    let _ = file.update_record(record);
                }
                Ok(Begun { batch, containment, counted })
            }
            Err(refusal) => {
                // The refusal is the news; an empty group that stays is the agent's to sweep.
                let _ = containment.group().map(Group::remove);
                Err(refusal)
            }
        }
    }

    /// The group that was kept, where it holds to the same, or a new one.
    fn contain(&mut self, launch: &Launch) -> Result<(Containment, Counted), Refusal> {
        let limits = limits_of(launch.limits.as_ref()).map_err(Refusal::node)?;
        match self.kept.take() {
            Some(kept) if kept.limits == limits => {
                return Ok((Containment::new(Some(kept.group)), kept.counted));
            }
            Some(kept) => kept.group.remove().map_err(|e| Refusal::node(chain(&e)))?,
            None => {}
        }
        let name = self.group_name(launch.job, launch.attempt);
        let group = self.host.cgroups.create(&name, &limits);
        let mut group = group.map_err(|e| Refusal::node(chain(&e)))?;
        if let Some(group) = group.as_mut().filter(|_| self.series) {
            group.keep_open();
        }
        Ok((Containment::new(group), Counted::default()))
    }

    /// Listens, and starts the batch script.
    fn start_in(
        &mut self,
        containment: &Containment,
        dir: &SliceDir,
        launch: &Launch,
    ) -> Result<child::Batch, Refusal> {
        if self.control.is_none() {
            let path = match self.series {
                true => dir.shared_socket_path(self.pid),
                false => dir.socket_path(),
            };
            let control = Control::listen(&path)
                .map_err(|e| Refusal::node(format!("cannot listen in the spool: {e}")))?;
            self.control = Some(control);
        }
        let known = self.groups.as_ref().filter(|(_, since)| since.elapsed() < GROUPS_LAST);
        let known = known.map(|(groups, _)| groups);
        child::start(self.host, dir, launch, containment.group(), known)
            .map_err(|e| Refusal::node(format!("cannot fork: {e}")))
    }

    /// Writes the exit record, removes the group or keeps it, and tells.
    fn finish(
        &mut self,
        dir: &SliceDir,
        file: &mut SliceFile,
        launch: &Launch,
        started_at: i64,
        outcome: Outcome,
        containment: Option<Containment>,
    ) -> Result<(), ShimError> {
        let undisturbed = outcome.undisturbed;
        let record = exit_record(launch, started_at, outcome);
        let keep = undisturbed.filter(|_| self.series);
        file.write_exit(&record)?;
        self.unkillable = record.unkillable > 0;
        if let Some(Containment::Group(group)) = containment
            && !self.unkillable
        {
            match (keep, limits_of(launch.limits.as_ref())) {
                (Some(counted), Ok(limits)) if group.is_as_new().unwrap_or(false) => {
                    self.kept = Some(Kept { group: *group, limits, counted });
                }
                _ => remove(&group),
            }
        }
        if !self.series {
            let _ = std::fs::remove_file(dir.socket_path());
        }
        let exited = NoticeKind::Exited(record);
        // Durable already: an agent that cannot be told now reads the record later.
        let _ = notice::send(&self.host.spool, launch.job, launch.attempt, exited);
        Ok(())
    }
}

impl Drop for Shim<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            remove(&kept.group);
        }
        if self.series {
            let _ = std::fs::remove_file(shims(&self.host.spool).join(self.pid.to_string()));
        }
    }
}

/// The group of a shim that serves one slice after another.
pub(crate) fn shared_group_name(pid: u32) -> String {
    format!("shim.{pid}")
}

/// Removes an empty group; one that stays is swept by the agent.
fn remove(group: &Group) {
    if group.wait_empty(EMPTY_WAIT).unwrap_or(false)
        && let Err(e) = group.remove()
    {
        eprintln!("muster shim: {}", chain(&e));
    }
}

fn exit_record(launch: &Launch, started_at: i64, outcome: Outcome) -> ExitRecord {
    let refusal = outcome.refusal;
    ExitRecord {
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
    }
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

pub(crate) fn limits_of(limits: Option<&SliceLimits>) -> Result<Limits, String> {
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

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("milliseconds fit for ages")
}

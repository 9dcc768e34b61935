//! What is done for a slice outside: spool, control group, site scripts, shim. Everything here
//! may block or fail; every way out is an [`Event`] of the slice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use muster_cgroup::{Cgroups, DeviceRules, Limits};
use muster_proto::shim::v1::{Launch, ShimRecord, SliceLimits, StopCause};
use muster_proto::token::ClusterKey;
use muster_proto::v1::NodePart;
use muster_shim::{Launcher, SliceDir, Spares};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Input;
use super::gpus;
use super::job::{End, Event, Key};
use super::series::Series;
use super::spool;
use crate::clock::now_ms;
use crate::health::Gpus;
use crate::prolog::{self, Stage};

/// Slices that are written, launched, cleaned or forgotten at once. Each is some ten file
/// operations: more of them at once only wait for each other, and a hung disk must not take every
/// thread. Fewer would let some hung ones hold up the rest.
pub const PARALLEL: usize = 16;
/// Slices that are begun in one go. More would start the last of them late.
pub(super) const TOGETHER: usize = 8;
/// Processes and threads of one slice: a fork bomb ends here instead of at the node's pid_max.
const PIDS_MAX: u64 = 32_768;
/// Between looks at a group that does not empty.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// The same, once the controller knows that it does not.
const STUCK_PAUSE: Duration = Duration::from_secs(5);
/// A shim that was told to stop and is still there after all its own waits gets this much more.
const OVERDUE_SLACK: Duration = Duration::from_secs(15);

/// How long ends are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between SIGTERM and SIGKILL.
    pub kill_wait: Duration,
    /// After SIGKILL, until the node counts as unfit.
    pub unkillable: Duration,
}

impl Patience {
    /// When a shim that was told to stop counts as stuck itself.
    #[must_use]
    pub fn overdue(self) -> Duration {
        self.kill_wait + self.unkillable + OVERDUE_SLACK
    }
}

/// What binding jobs on this host needs to know.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    /// The controller's CPU numbers are this host's.
    pub cpus: bool,
    /// Devices that every job may open; `None`: devices are not held.
    pub devices: Option<DeviceRules>,
    /// Major number of the files that open MIG instances, where the driver has them.
    pub caps_major: Option<u32>,
    /// CUDA_VISIBLE_DEVICES names GPUs as the driver does.
    pub by_uuid: bool,
}

/// The outside of one agent.
#[derive(Debug)]
pub struct Edge {
    pub node: String,
    pub spool: PathBuf,
    /// Directories in it that wait for slices.
    pub spares: Spares,
    /// For site scripts, which may call commands.
    pub config: PathBuf,
    pub prolog: Option<PathBuf>,
    pub epilog: Option<PathBuf>,
    /// Of prolog and epilog each.
    pub script_timeout: Duration,
    pub cgroups: Cgroups,
    /// The node's tree in them.
    pub cgroup_parent: String,
    pub binding: Binding,
    /// What hosts PMIx for steps: a file, or a name for the dynamic linker.
    pub pmix_library: String,
    /// Where the node is in the network, and what each part of that is.
    pub topology: (String, String),
    pub launcher: Launcher,
    /// `None`: a cluster of one host, where the socket's peer vouches.
    pub key: Option<ClusterKey>,
    /// Who this agent runs as.
    pub uid: u32,
    pub boot_id: String,
    /// Until a welcome says otherwise.
    pub patience: Patience,
    pub sample_every: Duration,
    pub slots: Arc<Semaphore>,
    pub series: Series,
    /// The GPUs of this node.
    pub gpus: Gpus,
    /// A round of looking after shims is under way.
    pub looking: AtomicBool,
}

impl Edge {
    /// The spool entry of a slice.
    #[must_use]
    pub fn dir(&self, key: Key) -> SliceDir {
        SliceDir::of(&self.spool, key.job, key.attempt)
    }

    pub(super) fn is_looking(&self) -> bool {
        self.looking.load(Ordering::Acquire)
    }

    pub(super) fn set_looking(&self, looking: bool) {
        self.looking.store(looking, Ordering::Release);
    }

    /// Whether the controller stands by this launch, for this slice of this node, and whether this
    /// agent can serve its user.
    ///
    /// # Errors
    /// The refusal, in a sentence for the job's owner.
    pub fn admit(&self, key: Key, launch: &Launch, credential: &str) -> Result<(), String> {
        if (launch.job, launch.attempt) != (key.job, key.attempt) {
            return Err(format!(
                "the launch is of slice {}.{}, the wish of {key}",
                launch.job, launch.attempt
            ));
        }
        if launch.node != self.node {
            return Err(format!(
                "the launch is for node {:?}, this is {:?}",
                launch.node, self.node
            ));
        }
        if let Some(key) = &self.key {
            key.check_launch(credential, launch, &self.node).map_err(|fault| {
                format!("node {}: launch credential refused: {fault}", self.node)
            })?;
        }
        let user = launch.user.as_ref().ok_or("the launch names no user")?;
        if self.uid != 0 && user.uid != self.uid {
            return Err(format!(
                "the agent of node {} runs as uid {} and serves that user alone, not uid {} ({})",
                self.node, self.uid, user.uid, user.name
            ));
        }
        Ok(())
    }

    /// Spools and confines a slice and runs the prolog. `launch` is unset for a slice that an
    /// earlier agent spooled.
    pub(super) async fn prepare(
        self: Arc<Self>,
        key: Key,
        launch: Option<Launch>,
        patience: Patience,
        cancel: CancellationToken,
    ) -> Option<Event> {
        let at_fault = |reason| Event::Failed(End::LaunchFailed { reason, node_fault: true });
        let edge = self.clone();
        let spooled = self.blocking(move || edge.spool_in(key, launch, patience)).await;
        let launch = match spooled {
            Ok(launch) => launch,
            Err(reason) => return Some(at_fault(format!("node {}: {reason}", self.node))),
        };
        let dir = self.dir(key);
        if let Some(script) = self.prolog.as_deref().filter(|_| !spool::is_prepared(&dir)) {
            let run =
                prolog::run(script, Stage::Prolog, &launch, &self.config, self.script_timeout);
            tokio::select! {
                () = cancel.cancelled() => {
                    return Some(Event::Failed(End::bare()));
                }
                done = run => if let Err(reason) = done {
                    return Some(at_fault(format!("node {}: {reason}", self.node)));
                }
            }
            if let Err(fault) = spool::note_prepared(&dir) {
                return Some(at_fault(format!(
                    "node {}: note the prolog's end: {fault}",
                    self.node
                )));
            }
        }
        Some(Event::Prepared)
    }

    /// Spools slices that have no prolog and starts their shims, whose notices say that they run; the
    /// answer are those that could not be started.
    pub(super) async fn begin(
        self: Arc<Self>,
        slices: Vec<(Key, Option<Launch>)>,
        patience: Patience,
    ) -> Vec<(Key, End)> {
        let edge = self.clone();
        self.blocking(move || edge.begin_now(slices, patience)).await
    }

    fn begin_now(&self, slices: Vec<(Key, Option<Launch>)>, patience: Patience) -> Vec<(Key, End)> {
        let (mut spooled, mut failed) = (Vec::new(), Vec::new());
        for (key, launch) in slices {
            match self.spool_in(key, launch, patience) {
                Ok(_) => spooled.push(key),
                Err(reason) => failed.push((key, reason)),
            }
        }
        let orders: Vec<_> =
            spooled.iter().map(|key| (self.dir(*key), self.series.launch(*key))).collect();
        for (key, launched) in spooled.into_iter().zip(self.launcher.launch_all(&orders)) {
            if let Err(fault) = launched {
                failed.push((key, chain(&fault)));
            }
        }
        let end = |reason| End::LaunchFailed {
            reason: format!("node {}: {reason}", self.node),
            node_fault: true,
        };
        failed.into_iter().map(|(key, reason)| (key, end(reason))).collect()
    }

    /// Writes a launch with what this host holds it to, and makes the group of a slice that has no
    /// shim to make it.
    fn spool_in(
        &self,
        key: Key,
        launch: Option<Launch>,
        patience: Patience,
    ) -> Result<Launch, String> {
        let dir = self.dir(key);
        let Some(mut launch) = launch else {
            let found = dir.read_launch().map_err(|fault| chain(&fault))?;
            return found.ok_or_else(|| format!("slice {key} is not in the spool any more"));
        };
        let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        launch.kill_wait_seconds = seconds(patience.kill_wait);
        launch.unkillable_seconds = seconds(patience.unkillable);
        launch.limits = Some(self.limits(&launch));
        let gpus = gpus::mask_of(&launch.gres);
        self.gpus.hold(key, gpus);
        let environment = match self.binding.by_uuid {
            true => gpus::by_uuid(&launch.environment, self.gpus.units(), gpus),
            false => None,
        };
        if let Some(environment) = environment {
            launch.environment = environment.into();
        } else if self.binding.devices.is_some() {
            launch.environment = gpus::numbered_within(&launch.environment).into();
        }
        let batch = launch.batch;
        let like = self.series.begin(key, &launch, &dir);
        self.spares.write_launch(&dir, &launch, like.as_ref()).map_err(|fault| {
            // Half an entry is none: the disk that refused it may take nothing at all.
            let _ = dir.remove();
            chain(&fault)
        })?;
        if !batch {
            let limits = group_limits(launch.limits.as_ref().expect("set above"));
            self.cgroups.create(&key.to_string(), &limits).map_err(|fault| chain(&fault))?;
        }
        launch.script = Default::default();
        Ok(launch)
    }

    fn limits(&self, launch: &Launch) -> SliceLimits {
        SliceLimits {
            cpus: if self.binding.cpus { launch.cpus.clone() } else { String::new() },
            mems: String::new(),
            memory_bytes: launch.memory_mib.saturating_mul(1 << 20),
            pids_max: PIDS_MAX,
            hold_devices: self.binding.devices.is_some(),
            devices: self.devices(gpus::mask_of(&launch.gres)),
        }
    }

    /// The devices that a holder of these GPUs may open; empty where devices are not held.
    fn devices(&self, mask: u64) -> Vec<String> {
        let base = self.binding.devices.as_ref();
        let units = gpus::device_rules(self.gpus.units(), mask, self.binding.caps_major);
        let rules = base.into_iter().flat_map(|b| b.allow.iter().copied().chain(units.clone()));
        rules.map(|rule| rule.to_string()).collect()
    }

    /// What a step's part is held to inside the slice: what the slice holds to anyway is left out.
    pub(crate) fn limits_of_step(&self, launch: &Launch, part: &NodePart) -> SliceLimits {
        let whole = launch.limits.clone().unwrap_or_default();
        let (mine, all) = (gpus::mask_of(&part.gres), gpus::mask_of(&launch.gres));
        let devices = self.binding.devices.is_some() && mine != all;
        SliceLimits {
            cpus: if whole.cpus.is_empty() || whole.cpus == part.cpus {
                String::new()
            } else {
                part.cpus.clone()
            },
            mems: String::new(),
            memory_bytes: part.memory_mib.saturating_mul(1 << 20),
            pids_max: 0,
            hold_devices: devices,
            devices: if devices { self.devices(mine) } else { Vec::new() },
        }
    }

    /// Freezes or thaws what steps have here: by the group of a slice that has no shim to do it, and
    /// without groups by the shims of the steps.
    pub(super) fn suspend_steps(&self, key: Key, batch: bool, suspended: bool) {
        let group = match self.cgroups.open(&key.to_string()) {
            Ok(group) => group.filter(|_| !batch),
            Err(fault) => return tracing::warn!(slice = %key, "suspend: {}", chain(&fault)),
        };
        if let Some(group) = group {
            let done = if suspended { group.freeze() } else { group.thaw() };
            if let Err(fault) = done {
                tracing::warn!(slice = %key, "suspend: {}", chain(&fault));
            }
        } else if matches!(self.cgroups, Cgroups::None(_)) {
            let signal = if suspended { libc::SIGSTOP } else { libc::SIGCONT };
            muster_shim::signal_steps(&self.spool, key.job, key.attempt, None, signal);
        }
    }

    /// Whether the group of a slice without a shim stands still.
    pub(super) fn is_frozen(&self, key: Key) -> bool {
        let group = self.cgroups.open(&key.to_string()).ok().flatten();
        group.is_some_and(|group| group.is_frozen().unwrap_or(false))
    }

    /// Starts the shim, whose notice says that it runs; a slice without a process is noted.
    pub(super) async fn launch(self: Arc<Self>, key: Key, batch: bool) -> Option<Event> {
        let edge = self.clone();
        let launched = self.blocking(move || edge.launch_now(key, batch)).await;
        match launched {
            Ok(None) => None,
            Ok(Some(started_at)) => Some(Event::Launched { started_at }),
            Err(reason) => {
                let reason = format!("node {}: {reason}", self.node);
                Some(Event::Failed(End::LaunchFailed { reason, node_fault: true }))
            }
        }
    }

    fn launch_now(&self, key: Key, batch: bool) -> Result<Option<i64>, String> {
        let dir = self.dir(key);
        if batch {
            let launched = self.launcher.launch_in_series(&dir, &self.series.launch(key));
            return launched.map(|_| None).map_err(|fault| chain(&fault));
        }
        let started_at = now_ms();
        let note = ShimRecord {
            boot_id: self.boot_id.clone(),
            cgroup: key.to_string(),
            started_at,
            ..ShimRecord::default()
        };
        dir.claim(&note).map_err(|fault| chain(&fault))?;
        Ok(Some(started_at))
    }

    /// Ends a shim that does not end by itself; what it leaves is cleaned as after a loss.
    pub(super) async fn kill_shim(self: Arc<Self>, key: Key) -> Option<Event> {
        let edge = self.clone();
        self.blocking(move || {
            let dir = edge.dir(key);
            if let Err(fault) = muster_shim::sweep(&dir, &edge.cgroups) {
                tracing::warn!(slice = %key, "kill a shim that does not end: {}", chain(&fault));
            }
            let end = match dir.read_exit().ok().flatten() {
                Some(exit) => End::of(exit),
                None => End::Lost { reason: "its shim did not end it and was killed".to_owned() },
            };
            Some(Event::Ended(end))
        })
        .await
    }

    /// Kills what is left of a slice, waits until nothing is, and runs the epilog. Processes that
    /// cannot be killed are told after `unkillable` and waited for all the same: what the slice
    /// holds is free when its group is empty and not before.
    pub(super) async fn clean(
        self: Arc<Self>,
        key: Key,
        end: End,
        cause: StopCause,
        unkillable: Duration,
        inputs: mpsc::Sender<Input>,
    ) -> Option<Event> {
        if cause != StopCause::None || !self.left_nothing(key, &end) {
            muster_shim::end_steps(&self.spool, key.job, key.attempt, cause);
        }
        let begun = Instant::now();
        let mut told = false;
        while !self.is_clean(key, &end) {
            let (edge, of) = (self.clone(), end.clone());
            let reason = match self.blocking(move || edge.sweep(key, &of)).await {
                Ok(0) => break,
                Ok(left) => format!("{left} processes of job {} cannot be killed", key.job),
                Err(fault) => format!("job {} cannot be cleaned up: {fault}", key.job),
            };
            if !told && begun.elapsed() >= unkillable {
                told = true;
                tracing::error!(slice = %key, "{reason}");
                let _ = inputs.send(Input::Fault(Some(key), reason)).await;
            }
            tokio::time::sleep(if told { STUCK_PAUSE } else { SWEEP_PAUSE }).await;
        }
        if let Some(report) = self.gpus.hand_over(key).await {
            let _ = inputs.send(Input::Gpus(report)).await;
        }
        let epilog_fault = self.epilogue(key, &end).await.err().unwrap_or_default();
        self.note_end(key, end, &epilog_fault).await;
        Some(Event::Cleaned { epilog_fault })
    }

    /// Whether nothing of an ended slice is left, not even something to be looked at.
    pub(super) fn needs_no_cleaning(&self, key: Key, end: &End) -> bool {
        self.left_nothing(key, end) && self.epilog.is_none() && !self.gpus.has_to_hand_over(key)
    }

    /// Whether the slice's shim, which had it in a group with all its steps, has ended that.
    fn left_nothing(&self, key: Key, end: &End) -> bool {
        !matches!(self.cgroups, Cgroups::None(_))
            && self.series.has_launched(key)
            && self.is_clean(key, end)
    }

    /// A shim that wrote the end has ended everything first and takes its leave by itself. A look
    /// at control groups waits for no disk.
    fn is_clean(&self, key: Key, end: &End) -> bool {
        let ended = matches!(end, End::Finished { exit: Some(e), .. } if e.unkillable == 0);
        let no_group = || matches!(self.cgroups.open(&key.to_string()), Ok(None));
        ended && (self.series.has_launched(key) || no_group())
    }

    /// One round of killing; how many processes are left.
    fn sweep(&self, key: Key, end: &End) -> Result<usize, String> {
        let dir = self.dir(key);
        let group = self.cgroups.open(&key.to_string()).map_err(|fault| chain(&fault))?;
        let Some(group) = group else {
            return if self.is_clean(key, end) {
                Ok(0)
            } else {
                muster_shim::sweep(&dir, &self.cgroups).map_err(|fault| chain(&fault))
            };
        };
        // The shim first, or it would see its job end and call that an end of its own.
        let left = muster_shim::sweep(&dir, &self.cgroups).map_err(|fault| chain(&fault))?;
        if left > 0 {
            return Ok(left);
        }
        // The group of a slice without a shim, or of one whose shim never claimed it.
        let swept = group.kill_all().and_then(|()| group.wait_empty(SWEEP_PAUSE));
        if swept.map_err(|fault| chain(&fault))? {
            group.remove().map_err(|fault| chain(&fault))?;
            return Ok(0);
        }
        Ok(group.procs().map_err(|fault| chain(&fault))?.len())
    }

    /// Runs the epilog of a slice that was spooled: it undoes what a prolog, even one that failed,
    /// has done.
    async fn epilogue(&self, key: Key, end: &End) -> Result<(), String> {
        let Some(script) = &self.epilog else { return Ok(()) };
        let Ok(Some(launch)) = self.dir(key).read_launch() else { return Ok(()) };
        let exit = match end {
            End::Finished { exit: Some(exit), .. } => exit.status,
            _ => None,
        };
        let stage = Stage::Epilog(exit);
        prolog::run(script, stage, &launch, &self.config, self.script_timeout)
            .await
            .map_err(|fault| format!("node {}: {fault}", self.node))
    }

    /// Writes down an end that the exit record alone would not tell a later agent.
    async fn note_end(&self, key: Key, end: End, epilog_fault: &str) {
        let end = match end {
            End::Finished { exit, .. } => {
                End::Finished { exit, epilog_fault: epilog_fault.to_owned() }
            }
            other => other,
        };
        if self.epilog.is_none() && matches!(end, End::Finished { exit: Some(_), .. }) {
            return;
        }
        let dir = self.dir(key);
        let noted = self.blocking(move || spool::write_end(&dir, key, &end)).await;
        if let Err(fault) = noted {
            tracing::warn!(slice = %key, "note its end: {fault}");
        }
    }

    /// Removes slices from the spool when there is a slot for it.
    pub(super) async fn erase(self: Arc<Self>, keys: Vec<Key>) {
        let edge = self.clone();
        self.blocking(move || keys.into_iter().for_each(|key| edge.forget(key))).await;
    }

    /// Removes a slice from the spool.
    pub(super) fn forget(&self, key: Key) {
        // Its shim has told its end and serves others, or has gone.
        let ended = self.series.has_launched(key);
        self.series.forget(key);
        self.gpus.forget(key);
        if let Err(fault) = self.spares.take_back(&self.dir(key), ended) {
            tracing::warn!(slice = %key, "forget it: {}", chain(&fault));
        }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _slot = self.slots.acquire().await.expect("the slots are never closed");
        tokio::task::spawn_blocking(work).await.expect("work on a slice does not panic")
    }
}

fn group_limits(limits: &SliceLimits) -> Limits {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Limits {
        cpus: text(&limits.cpus),
        mems: text(&limits.mems),
        memory_bytes: (limits.memory_bytes > 0).then_some(limits.memory_bytes),
        pids_max: (limits.pids_max > 0).then_some(limits.pids_max),
        devices: limits.hold_devices.then(|| DeviceRules {
            allow: limits.devices.iter().filter_map(|rule| rule.parse().ok()).collect(),
        }),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

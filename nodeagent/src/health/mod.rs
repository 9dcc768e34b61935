//! The health of this node's GPUs: what they do, what is wrong with them, and what jobs use of
//! them.
//!
//! Two threads: one waits for what the driver tells by itself, one looks at every GPU each few
//! seconds. Neither touches a job: a GPU that is found bad is told to the controller, which gives
//! it to nobody any more; what runs on it goes on. A library that hangs holds up these threads
//! alone.
//!
//! - `signs`: what speaks against a GPU and when it is believed
//! - `probe`: one look through NVIDIA's library

mod probe;
pub mod signs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use muster_proto::agent::v1::slice_report::Phase;
use muster_proto::agent::v1::{Finished, GpuFault, GpuReading, GpuReport, SliceReport};
use muster_proto::v1::GpuUsage;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use tokio::sync::{mpsc, oneshot};

use crate::clock::now_ms;
use crate::inventory::gpu::{Driver, Unit};
use crate::jobs::Input;
use crate::jobs::job::Key;
use probe::{Baseline, Reading};
use signs::{Record, Sign, fatal_xid};

/// The driver is asked for events in turns of so many milliseconds.
const EVENT_TURN_MS: u32 = 1000;
/// After an error of the event call, before it is tried again.
const EVENT_PAUSE: Duration = Duration::from_secs(5);
/// A job's memory is gone from the GPU some time after its last process: so long it is waited for.
const HAND_OVER: Duration = Duration::from_secs(3);
/// The driver is given so long in all to tell what a job left: one that hangs holds up no end.
const HAND_OVER_ANSWER: Duration = Duration::from_secs(15);
/// Between two looks while it is waited for.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(100);
/// An idle GPU on which the driver keeps itself ready uses less than this, MiB.
const IDLE_MEMORY_MIB: u64 = 1024;

/// The GPUs of this node under watch. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Gpus(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    nvml: Option<Arc<Nvml>>,
    /// Units as the ledger counts them.
    units: Vec<Unit>,
    state: Mutex<State>,
    /// The thread that looks.
    looker: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct State {
    baselines: BTreeMap<u32, Baseline>,
    /// By unit.
    records: BTreeMap<usize, Record>,
    readings: BTreeMap<usize, Reading>,
    /// Units of jobs that have not ended here, as masks.
    held: BTreeMap<Key, u64>,
    used: BTreeMap<Key, GpuUsage>,
    /// The driver tells of errors by itself.
    listening: bool,
    /// Energy counter by unit, and when it was read.
    energy: BTreeMap<usize, (Option<u64>, Instant)>,
}

impl Gpus {
    /// The units of this node, watched from [`Gpus::watch`] on.
    #[must_use]
    pub fn new(driver: &Driver, units: Vec<Unit>) -> Self {
        let nvml = match driver {
            Driver::Loaded(nvml) => Some(nvml.clone()),
            Driver::Absent | Driver::Broken(_) => None,
        };
        Gpus(Arc::new(Watched { nvml, units, ..Watched::default() }))
    }

    /// Units as the ledger counts them.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.0.units
    }

    /// Starts the threads. They tell the jobs, and end with them.
    pub fn watch(&self, every: Duration, jobs: mpsc::Sender<Input>) {
        if self.0.nvml.is_none() || self.0.units.iter().all(|unit| unit.index.is_none()) {
            return;
        }
        let (gpus, tell) = (self.clone(), jobs.clone());
        let looker = std::thread::spawn(move || {
            while tell.blocking_send(Input::Gpus(gpus.look())).is_ok() {
                gpus.rest(every);
            }
        });
        let _ = self.0.looker.set(looker.thread().clone());
        let gpus = self.clone();
        std::thread::spawn(move || gpus.listen(&jobs));
    }

    /// Until the next look. Counters of a job's GPUs are read when it gets them, for they go on from
    /// job to job.
    fn rest(&self, every: Duration) {
        let until = Instant::now() + every;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
            if let Some(nvml) = self.0.nvml.as_ref().filter(|_| Instant::now() < until) {
                self.account(nvml);
            }
        }
    }

    /// A job holds these units from now on.
    pub fn hold(&self, key: Key, units: u64) {
        if units != 0 {
            let mut state = self.state();
            state.held.insert(key, units);
            state.used.entry(key).or_default();
            drop(state);
            if let Some(looker) = self.0.looker.get() {
                looker.unpark();
            }
        }
    }

    /// What a job used of its GPUs so far; `None`: it has none, or nobody looks.
    #[must_use]
    pub fn usage(&self, key: Key) -> Option<GpuUsage> {
        self.0.nvml.as_ref()?;
        self.state().used.get(&key).copied()
    }

    /// A report of an end with what the job used of its GPUs, which its shim does not know.
    #[must_use]
    pub fn with_usage(&self, key: Key, mut report: SliceReport) -> SliceReport {
        if let Some(Phase::Finished(Finished { exit: Some(exit), .. })) = &mut report.phase
            && let Some(usage) = &mut exit.usage
            && usage.gpu.is_none()
        {
            usage.gpu = self.usage(key);
        }
        report
    }

    /// Nobody asks for this job any more.
    pub fn forget(&self, key: Key) {
        let mut state = self.state();
        state.held.remove(&key);
        state.used.remove(&key);
    }

    /// Whether a slice holds GPUs that are to be looked at when its processes are gone.
    #[must_use]
    pub fn has_to_hand_over(&self, key: Key) -> bool {
        self.0.nvml.is_some() && self.state().held.contains_key(&key)
    }

    /// A job's processes are gone: waits until its GPUs are clean. What is not clean then, or not
    /// known to be, is kept from others until it is; the report tells. Seconds at most.
    pub async fn hand_over(&self, key: Key) -> Option<GpuReport> {
        let nvml = self.0.nvml.clone()?;
        let mask = *self.state().held.get(&key)?;
        let (tell, told) = oneshot::channel();
        let gpus = self.clone();
        // A thread of its own: one that a library holds up for good is nobody else's.
        std::thread::spawn(move || tell.send(gpus.left_by(&nvml, mask)));
        let dirty = match tokio::time::timeout(HAND_OVER_ANSWER, told).await {
            Ok(Ok(dirty)) => {
                let said = |(unit, words)| (unit, format!("job {} left {words}", key.job));
                dirty.into_iter().map(said).collect()
            }
            Ok(Err(_)) | Err(_) => self.unanswered(key, mask),
        };
        let mut state = self.state();
        state.held.remove(&key);
        if dirty.is_empty() {
            return None;
        }
        for (unit, words) in dirty {
            tracing::warn!(unit, "{words}");
            state.records.entry(unit).or_default().shows(Sign::Left, &words, now_ms());
        }
        Some(Self::report(&state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics with the GPUs locked")
    }

    /// Waits until some units are clean; what is left on them then.
    fn left_by(&self, nvml: &Nvml, mask: u64) -> Vec<(usize, String)> {
        self.account(nvml);
        let until = Instant::now() + HAND_OVER;
        let mut dirty = self.dirty(nvml, mask);
        while !dirty.is_empty() && Instant::now() < until {
            std::thread::sleep(HAND_OVER_PAUSE);
            dirty = self.dirty(nvml, mask);
        }
        dirty
    }

    /// What is said of the units of a job of which nobody can tell whether they are clean.
    fn unanswered(&self, key: Key, mask: u64) -> Vec<(usize, String)> {
        let seconds = HAND_OVER_ANSWER.as_secs();
        let job = key.job;
        let words =
            format!("job {job} ended, and the driver did not say within {seconds} s what is left");
        let held = self.0.units.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
        held.filter(|(_, unit)| unit.index.is_some()).map(|(at, _)| (at, words.clone())).collect()
    }

    /// What is left on some units.
    fn dirty(&self, nvml: &Nvml, mask: u64) -> Vec<(usize, String)> {
        let of = |(at, unit): (usize, &Unit)| {
            // Of an instance only its GPU's processes are known, and those may be another job's.
            let whole = mask >> at & 1 == 1 && unit.gpu.mig.is_none();
            let index = unit.index.filter(|_| whole)?;
            let device = nvml.device_by_index(index).ok()?;
            left(&probe::reading(&device).ok()?).map(|words| (at, words))
        };
        self.0.units.iter().enumerate().filter_map(of).collect()
    }

    /// One look at everything.
    fn look(&self) -> GpuReport {
        let Some(nvml) = &self.0.nvml else { return GpuReport::default() };
        let mut looks = BTreeMap::new();
        for index in self.0.units.iter().filter_map(|unit| unit.index) {
            looks.entry(index).or_insert_with(|| {
                let mut baseline = self.state().baselines.remove(&index).unwrap_or_default();
                // Without the lock: a slow library must not hold up those who ask.
                let look = probe::look(nvml, index, &mut baseline);
                self.state().baselines.insert(index, baseline);
                look
            });
        }
        self.account(nvml);
        let mut state = self.state();
        let now = now_ms();
        let held = state.held.values().fold(0, |all, mask| all | mask);
        for (at, unit) in self.0.units.iter().enumerate() {
            let Some((look, reading)) = unit.index.and_then(|index| looks.get(&index)) else {
                continue;
            };
            let (mut look, free) = (look.clone(), held >> at & 1 == 0);
            if let Some(reading) = reading {
                let record = state.records.entry(at).or_default();
                let words = left(reading).filter(|_| free && unit.gpu.mig.is_none());
                if let Some(words) = words {
                    let sign = if record.counts(Sign::Left) { Sign::Left } else { Sign::Foreign };
                    look.signs.insert(sign, format!("no job holds it, and there is {words}"));
                }
                state.readings.insert(at, reading.clone());
            } else {
                state.readings.remove(&at);
            }
            state.records.entry(at).or_default().take(&look, now);
        }
        Self::report(&state)
    }

    /// Adds what jobs used since the last time.
    fn account(&self, nvml: &Nvml) {
        let now = Instant::now();
        let held = self.state().held.clone();
        for (key, mask) in held {
            let mut memory_mib = 0;
            for (at, unit) in self.0.units.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1)
            {
                let device = unit.index.and_then(|index| nvml.device_by_index(index).ok());
                let Some(reading) = device.and_then(|d| probe::reading(&d).ok()) else { continue };
                memory_mib += reading.memory_used_mib;
                let mut state = self.state();
                let before = state.energy.insert(at, (reading.energy_mj, now));
                let Some((energy, then)) = before else { continue };
                let ms = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
                let Some(used) = state.used.get_mut(&key) else { continue };
                used.seen_ms += ms;
                used.busy_ms += ms * u64::from(reading.utilization.unwrap_or(0)) / 100;
                if let (Some(energy), Some(total)) = (energy, reading.energy_mj) {
                    used.energy_mj += total.saturating_sub(energy);
                }
            }
            if let Some(used) = self.state().used.get_mut(&key) {
                used.memory_mib = used.memory_mib.max(memory_mib);
            }
        }
        // The time of units that nobody holds is nobody's.
        let mut state = self.state();
        let held = state.held.values().fold(0, |all, mask| all | mask);
        state.energy.retain(|at, _| held >> at & 1 == 1);
    }

    fn report(state: &State) -> GpuReport {
        let fault = |(at, record): (&usize, &Record)| {
            let fault = record.fault()?;
            let gpu = u32::try_from(*at).ok()?;
            Some(GpuFault { gpu, reason: fault.reason, stays: fault.stays, at: fault.at })
        };
        let reading = |(at, reading): (&usize, &Reading)| GpuReading {
            gpu: u32::try_from(*at).unwrap_or(u32::MAX),
            utilization: reading.utilization.unwrap_or(0),
            memory_used_mib: reading.memory_used_mib,
            watts: reading.watts,
            celsius: reading.celsius,
            processes: u32::try_from(reading.pids.len()).unwrap_or(u32::MAX),
        };
        GpuReport {
            faults: state.records.iter().filter_map(fault).collect(),
            readings: state.readings.iter().map(reading).collect(),
        }
    }

    /// Waits for what the driver tells by itself, for as long as somebody wants to know.
    fn listen(&self, jobs: &mpsc::Sender<Input>) {
        let Some(nvml) = &self.0.nvml else { return };
        while !jobs.is_closed() {
            match self.events(nvml, jobs) {
                Ok(()) => return,
                Err(NvmlError::NotSupported) => return,
                Err(fault) => {
                    tracing::warn!("events of GPUs: {fault}");
                    std::thread::sleep(EVENT_PAUSE);
                }
            }
        }
    }

    fn events(&self, nvml: &Nvml, jobs: &mpsc::Sender<Input>) -> Result<(), NvmlError> {
        let mut indices: Vec<u32> = self.0.units.iter().filter_map(|unit| unit.index).collect();
        indices.dedup();
        // A GPU that cannot be registered takes the whole set with it: the others start anew.
        let set = loop {
            match indices.iter().try_fold(nvml.create_event_set()?, |set, index| {
                let registered = nvml.device_by_index(*index).and_then(|device| {
                    device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|e| e.error)
                });
                registered.map_err(|fault| (*index, fault))
            }) {
                Ok(set) => break set,
                Err((index, fault)) => {
                    tracing::warn!(gpu = index, "it tells of no errors by itself: {fault}");
                    indices.retain(|other| *other != index);
                }
            }
        };
        self.state().listening = true;
        while !jobs.is_closed() {
            match set.wait(EVENT_TURN_MS) {
                Ok(event) => {
                    let Some(XidError::Value(xid)) = event.event_data else { continue };
                    let index = event.device.index()?;
                    if let Some(report) = self.xid(index, xid) {
                        // Jobs that are gone want no report.
                        let _ = jobs.blocking_send(Input::Gpus(report));
                    }
                }
                Err(NvmlError::Timeout) => (),
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// The driver told of an error of a GPU; `None`: it does not count against it.
    fn xid(&self, index: u32, xid: u64) -> Option<GpuReport> {
        let Some(words) = fatal_xid(xid) else {
            tracing::warn!(gpu = index, xid, "the driver tells of an error of a program");
            return None;
        };
        tracing::error!(gpu = index, xid, "{words}");
        let mut state = self.state();
        for at in (0..self.0.units.len()).filter(|at| self.0.units[*at].index == Some(index)) {
            let words = format!("Xid {xid} ({words})");
            state.records.entry(at).or_default().shows(Sign::Xid(xid), &words, now_ms());
        }
        Some(Self::report(&state))
    }
}

/// What is on a GPU that should be empty; `None`: nothing.
fn left(reading: &Reading) -> Option<String> {
    let pids: Vec<String> = reading.pids.iter().map(ToString::to_string).collect();
    let memory = reading.memory_used_mib;
    match (pids.as_slice(), memory >= IDLE_MEMORY_MIB) {
        ([], false) => None,
        ([], true) => Some(format!("{memory} MiB in use")),
        (pids, _) => Some(format!("process {} on it ({memory} MiB)", pids.join(","))),
    }
}

#[cfg(test)]
mod tests;

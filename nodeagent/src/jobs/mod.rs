//! The jobs of this node: one task owns every slice, takes in what happens to them, and starts
//! what follows.
//!
//! It never waits for a disk, a script or a process: that is done by tasks and comes back as an
//! [`Input`]. What it tells the controller is state, sent in batches and repeated until the
//! controller says FORGET, so that a lost message costs time and nothing else.
//!
//! - `job`, `reconcile`: what follows from what, without touching anything
//! - `edge`: the touching: spool, groups, scripts, shims; `tell`: requests to one shim, in order
//! - `series`: what the tasks of one array share
//! - `look`: shims watched for an end that nobody told, and their usage
//! - `adopt`: what an agent finds of its predecessor's slices
//! - `spool`: the agent's own files beside the shim's records

pub mod adopt;
pub mod edge;
pub(crate) mod gpus;
pub mod job;
mod look;
pub mod reconcile;
pub mod series;
pub mod spool;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::agent::v1::{
    AgentMessage, Desired, DesiredSlice, GpuReport, Hello, NodeFault, Reports, Sample, Samples,
    Signals, Want, Welcome, agent_message,
};
use muster_proto::shim::v1::{Launch, Notice, StopCause, notice};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use edge::{Edge, Patience, TOGETHER};
use job::{Action, End, Event, Key, Phase, Wish};
use reconcile::{Desire, Held, Launchable};
use tell::{Teller, Word};

use crate::steps::Steps;

/// Inputs that wait to be taken in: a burst of a thousand slices that end at once, and the stream
/// beside them. Who sends more waits, which slows the stream and not the shims.
pub const INPUTS: usize = 4096;
/// Inputs taken in at once, so that a burst is answered in one message.
const INPUT_BATCH: usize = 256;
/// Reports wait this long for others that go with them.
const FLUSH: Duration = Duration::from_millis(3);
/// Reports in one message, so that none outgrows what a receiver takes (4 MiB).
const REPORT_BATCH: usize = 1000;
/// An end that the controller has not acknowledged is told again this often.
const REPEAT: Duration = Duration::from_secs(5);
/// Shims are looked after this often: an end whose notice was lost is seen this late.
const LOOK: Duration = Duration::from_secs(2);

/// What the jobs take in.
#[derive(Debug)]
pub enum Input {
    /// A stream is about to be opened: its first message is to be put into it.
    Linked(Link),
    Unlinked,
    Welcome(Welcome),
    Desired(Desired),
    Signals(Signals),
    /// A shim's datagram.
    Notice(Notice),
    Happened(Key, Event),
    /// The node is not fit for new work. Of a slice: until that is over.
    Fault(Option<Key>, String),
    Samples(Vec<Sample>),
    /// What GPUs do, and all that is wrong with them.
    Gpus(GpuReport),
}

/// The way to the controller while a stream lasts.
#[derive(Debug)]
pub struct Link {
    pub outbox: mpsc::Sender<AgentMessage>,
    /// Without slices.
    pub hello: Box<Hello>,
}

/// The slices of this node and what is under way about them.
#[derive(Debug)]
pub struct Jobs {
    held: Held,
    edge: Arc<Edge>,
    inputs: mpsc::Sender<Input>,
    link: Option<mpsc::Sender<AgentMessage>>,
    /// Launches that were accepted and are not spooled yet.
    launches: HashMap<Key, Launch>,
    /// Preparations under way.
    preparing: HashMap<Key, CancellationToken>,
    launching: HashMap<Key, Instant>,
    tellers: HashMap<Key, Teller>,
    /// Slices whose state is to be told.
    dirty: BTreeSet<Key>,
    /// Faults to be told once.
    faults: Vec<String>,
    /// Faults that last: told in every session.
    standing: BTreeMap<Key, String>,
    patience: Patience,
    sample_every: Duration,
    sampling: bool,
    /// As last reported.
    gpus: GpuReport,
    /// It was not told yet.
    gpu_news: bool,
    /// Told of too, where there are any.
    steps: Option<Steps>,
}

impl Jobs {
    /// With what the spool held.
    #[must_use]
    pub fn new(edge: Arc<Edge>, held: Held, inputs: mpsc::Sender<Input>) -> Self {
        Jobs {
            held,
            patience: edge.patience,
            sample_every: edge.sample_every,
            edge,
            inputs,
            link: None,
            launches: HashMap::new(),
            preparing: HashMap::new(),
            launching: HashMap::new(),
            tellers: HashMap::new(),
            dirty: BTreeSet::new(),
            faults: Vec::new(),
            standing: BTreeMap::new(),
            sampling: false,
            gpus: GpuReport::default(),
            gpu_news: false,
            steps: None,
        }
    }

    /// Tells of these steps too, each before the end of its job.
    #[must_use]
    pub fn with_steps(self, steps: Steps) -> Self {
        Jobs { steps: Some(steps), ..self }
    }

    /// Takes in and acts until every sender is gone or `stop` fires. Jobs go on without it.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(INPUT_BATCH);
        let mut look = every(LOOK);
        let mut repeat = every(REPEAT);
        let mut sample = every(self.sample_every);
        let mut flush_at: Option<tokio::time::Instant> = None;
        self.resume();
        loop {
            let flush = flush_at.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                () = stop.cancelled() => return,
                taken = inputs.recv_many(&mut batch, INPUT_BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|input| self.take(input));
                }
                () = tokio::time::sleep_until(flush), if flush_at.is_some() => {
                    flush_at = None;
                    self.flush();
                }
                _ = look.tick() => self.look(),
                _ = repeat.tick() => self.repeat(),
                _ = sample.tick() => self.sample(),
            }
            if sample.period() != self.sample_every {
                sample = every(self.sample_every);
            }
            if flush_at.is_none() && self.has_news() {
                flush_at = Some(tokio::time::Instant::now() + FLUSH);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Linked(link) => self.greet(link),
            Input::Unlinked => self.link = None,
            Input::Welcome(welcome) => self.settle(&welcome),
            Input::Desired(desired) => self.desired(desired),
            Input::Signals(signals) => self.signals(&signals),
            Input::Notice(notice) => self.notice(notice),
            Input::Happened(key, event) => self.happened(key, event),
            Input::Fault(None, reason) => self.faults.push(reason),
            Input::Fault(Some(key), reason) => {
                self.faults.push(reason.clone());
                self.standing.insert(key, reason);
            }
            Input::Gpus(report) => (self.gpus, self.gpu_news) = (report, true),
            Input::Samples(samples) => {
                self.sampling = false;
                if !samples.is_empty() {
                    self.send(agent_message::Kind::Samples(Samples { samples }));
                }
            }
        }
    }

    /// What an earlier agent left half done goes on.
    fn resume(&mut self) {
        let left: Vec<(Key, Action)> = self
            .held
            .iter()
            .filter(|(_, job)| matches!(job.phase, Phase::Cleaning(_)))
            .map(|(key, _)| (key, Action::Clean))
            .collect();
        self.act(left);
    }

    /// The first message of a stream: everything that is here.
    fn greet(&mut self, link: Link) {
        let hello_of =
            |(key, job): (Key, &job::Job)| self.edge.gpus.with_usage(key, job.hello(key));
        let slices = self.held.iter().map(hello_of).collect();
        let hello = Hello { slices, ..*link.hello };
        self.link = Some(link.outbox);
        self.dirty.clear();
        self.send(agent_message::Kind::Hello(hello));
        if let Some(steps) = &self.steps {
            steps.tell_again();
        }
        self.gpu_news = self.gpus != GpuReport::default();
        self.faults.extend(self.standing.values().cloned());
    }

    fn settle(&mut self, welcome: &Welcome) {
        let seconds = |n: u32| Duration::from_secs(n.into());
        self.patience.kill_wait = seconds(welcome.kill_wait_seconds);
        if welcome.unkillable_seconds > 0 {
            self.patience.unkillable = seconds(welcome.unkillable_seconds);
        }
        if welcome.sample_seconds > 0 {
            self.sample_every = seconds(welcome.sample_seconds);
        }
    }

    fn desired(&mut self, desired: Desired) {
        let mut desires = Vec::with_capacity(desired.slices.len());
        for slice in desired.slices {
            match self.desire(slice) {
                Ok(desire) => desires.push(desire),
                Err(fault) => tracing::warn!("a wish that makes no sense: {fault}"),
            }
        }
        let actions = self.held.desire(desires, desired.full);
        self.act(actions);
        // Of a stale attempt nothing was begun.
        self.launches.retain(|key, _| self.held.get(*key).is_some());
    }

    /// Reads a wish. A launch is accepted, before anything is written, only when the controller
    /// signed it for this very slice.
    fn desire(&mut self, slice: DesiredSlice) -> Result<Desire, String> {
        let key = Key { job: slice.job, attempt: slice.attempt };
        let want = Want::try_from(slice.want).map_err(|f| format!("slice {key}: {f}"))?;
        // A cause that this version does not know stops a job as well as any other.
        let cause = StopCause::try_from(slice.stop_cause).unwrap_or_default();
        let wish = Wish { want, suspended: slice.suspended, cause, end_at: slice.end_at };
        let starts = matches!(want, Want::Prepare | Want::Run) && self.held.get(key).is_none();
        let launchable = match slice.launch {
            _ if !starts => Launchable::No { reason: "it is here already".to_owned() },
            None => Launchable::No { reason: format!("no launch came for slice {key}") },
            Some(launch) => match self.edge.admit(key, &launch, &slice.credential) {
                Err(reason) => Launchable::No { reason },
                Ok(()) => {
                    let launchable = Launchable::Yes {
                        batch: launch.batch,
                        straight: launch.batch && self.edge.prolog.is_none(),
                        end_at: slice.end_at,
                    };
                    // The wish's limit is the one in force: it may have been changed since the start.
                    self.launches.insert(key, Launch { end_at: slice.end_at, ..launch });
                    launchable
                }
            },
        };
        Ok(Desire { key, wish, launchable })
    }

    fn signals(&mut self, signals: &Signals) {
        for signal in &signals.signals {
            let key = Key { job: signal.job, attempt: signal.attempt };
            let runs = |phase: &Phase| matches!(phase, Phase::Running { .. } | Phase::Stopping);
            let Some(job) = self.held.get(key).filter(|job| runs(&job.phase)) else { continue };
            if job.batch {
                let word = Word::Signal(signal.signal, signal.batch_only, signal.full);
                self.tell(key, word);
            }
            // A component of a heterogeneous job may have steps and no script.
            if !signal.batch_only {
                self.signal_steps(key, signal.signal);
            }
        }
    }

    /// By their askers, each of which passes it on to all nodes of its step.
    fn signal_steps(&self, key: Key, signal: i32) {
        if let Some(steps) = &self.steps {
            steps.signal_all(key, signal);
        }
    }

    fn suspend(&mut self, key: Key, suspended: bool) {
        if self.held.get(key).is_some_and(|job| job.batch) {
            self.tell(key, Word::Suspend(suspended));
        }
        let edge = self.edge.clone();
        let batch = self.held.get(key).is_some_and(|job| job.batch);
        tokio::task::spawn_blocking(move || edge.suspend_steps(key, batch, suspended));
    }

    fn notice(&mut self, notice: Notice) {
        let key = Key { job: notice.job, attempt: notice.attempt };
        let event = match notice.kind {
            Some(notice::Kind::Started(record)) => {
                Event::Launched { started_at: record.started_at }
            }
            Some(notice::Kind::Exited(exit)) => Event::Ended(End::of(exit)),
            Some(notice::Kind::Gone(reason)) => Event::Ended(self.gone(key, reason)),
            Some(notice::Kind::Signal(signal)) => return self.signal_steps(key, signal.signal),
            Some(notice::Kind::StepEnded(end)) => {
                if let (Some(steps), Some(_)) = (&self.steps, self.held.get(key)) {
                    steps.orphan_ended(key, end);
                }
                return;
            }
            None => return,
        };
        self.happened(key, event);
    }

    /// A shim that is gone before anything ran is a start that failed; later, a job that is lost.
    fn gone(&self, key: Key, reason: String) -> End {
        match self.held.get(key).map(|job| &job.phase) {
            Some(Phase::Launching) => End::LaunchFailed { reason, node_fault: true },
            _ => End::Lost { reason },
        }
    }

    fn happened(&mut self, key: Key, event: Event) {
        match &event {
            Event::Prepared => _ = self.preparing.remove(&key),
            Event::Failed(_) => {
                self.preparing.remove(&key);
                self.launching.remove(&key);
            }
            Event::Ended(_) => _ = self.launching.remove(&key),
            Event::Cleaned { epilog_fault } => {
                self.tellers.remove(&key);
                self.standing.remove(&key);
                if !epilog_fault.is_empty() {
                    self.faults.push(epilog_fault.clone());
                }
            }
            Event::Launched { .. } => _ = self.launching.remove(&key),
            Event::Wished(_) | Event::Overdue => (),
        }
        let actions = self.held.step(key, event);
        self.act(actions.into_iter().map(|action| (key, action)).collect());
    }

    fn act(&mut self, actions: Vec<(Key, Action)>) {
        let (mut begun, mut erased) = (Vec::new(), Vec::new());
        for (key, action) in actions {
            match action {
                Action::Begin => begun.push(key),
                Action::Report => _ = self.dirty.insert(key),
                Action::Prepare => {
                    let (launch, cancel) = (self.launches.remove(&key), CancellationToken::new());
                    self.preparing.insert(key, cancel.clone());
                    self.follow(key, self.edge.clone().prepare(key, launch, self.patience, cancel));
                }
                Action::CancelPrepare => {
                    if let Some(cancel) = self.preparing.get(&key) {
                        cancel.cancel();
                    }
                }
                Action::Launch => {
                    self.launching.insert(key, Instant::now());
                    let batch = self.held.get(key).is_some_and(|job| job.batch);
                    self.follow(key, self.edge.clone().launch(key, batch));
                }
                Action::Stop(cause) => {
                    let patience = self.patience;
                    self.tell(key, Word::Stop(cause, patience.kill_wait));
                    self.follow(key, async move {
                        tokio::time::sleep(patience.overdue()).await;
                        Some(Event::Overdue)
                    });
                }
                Action::Suspend(suspended) => self.suspend(key, suspended),
                Action::SetEnd(end_at) => self.tell(key, Word::SetEnd(end_at)),
                Action::KillShim => self.follow(key, self.edge.clone().kill_shim(key)),
                Action::Clean => self.clean(key),
                Action::Erase => erased.push(key),
            }
        }
        if !begun.is_empty() {
            self.begin(&begun);
        }
        if !erased.is_empty() {
            self.erase(erased);
        }
    }

    /// Starts slices that need nothing but their spool and their shim, several in one go: a thread's
    /// wake costs as much as half of what it does for a short job.
    fn begin(&mut self, keys: &[Key]) {
        let now = Instant::now();
        for some in keys.chunks(TOGETHER) {
            self.launching.extend(some.iter().map(|key| (*key, now)));
            let slices = some.iter().map(|key| (*key, self.launches.remove(key))).collect();
            let begun = self.edge.clone().begin(slices, self.patience);
            let inputs = self.inputs.clone();
            tokio::spawn(async move {
                for (key, end) in begun.await {
                    // Jobs that are gone take nothing in; the spool tells their successors.
                    let _ = inputs.send(Input::Happened(key, Event::Failed(end))).await;
                }
            });
        }
    }

    fn clean(&mut self, key: Key) {
        let Some(job) = self.held.get(key) else { return };
        let Phase::Cleaning(end) = &job.phase else { return };
        let cause = job.cause();
        // Steps are told why they end.
        if cause == StopCause::None && self.edge.needs_no_cleaning(key, end) {
            return self.happened(key, Event::Cleaned { epilog_fault: String::new() });
        }
        let (edge, end) = (self.edge.clone(), end.clone());
        let unkillable = self.patience.unkillable;
        self.follow(key, edge.clean(key, end, cause, unkillable, self.inputs.clone()));
    }

    fn erase(&mut self, keys: Vec<Key>) {
        for key in &keys {
            self.held.erase(*key);
            self.dirty.remove(key);
            self.launches.remove(key);
            self.tellers.remove(key);
        }
        tokio::spawn(self.edge.clone().erase(keys));
    }

    /// Lets something run whose end is an event of the slice.
    fn follow(&self, key: Key, task: impl Future<Output = Option<Event>> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Some(event) = task.await {
                // Jobs that are gone take nothing in; the spool tells their successors.
                let _ = inputs.send(Input::Happened(key, event)).await;
            }
        });
    }

    fn tell(&mut self, key: Key, word: Word) {
        let edge = &self.edge;
        self.tellers.entry(key).or_insert_with(|| Teller::new(edge.dir(key))).say(word);
    }

    fn has_news(&self) -> bool {
        self.link.is_some()
            && (self.gpu_news
                || !self.dirty.is_empty()
                || !self.faults.is_empty()
                || self.steps.as_ref().is_some_and(Steps::has_news))
    }

    /// Tells what is new. What the outbox does not take stays news.
    fn flush(&mut self) {
        // Before the ends: a GPU that was left dirty must not be given away with its job's end.
        if self.gpu_news {
            if !self.send(agent_message::Kind::Gpus(self.gpus.clone())) {
                return;
            }
            self.gpu_news = false;
        }
        while let Some(reason) = self.faults.last().cloned() {
            if !self.send(agent_message::Kind::Fault(NodeFault { reason })) {
                return;
            }
            self.faults.pop();
        }
        while let Some(told) = self.steps.as_ref().and_then(|s| s.news(REPORT_BATCH)) {
            if !self.send(agent_message::Kind::Steps(told.clone())) {
                self.steps.iter().for_each(|s| s.give_back(told.clone()));
                return;
            }
        }
        while !self.dirty.is_empty() {
            let keys: Vec<Key> = self.dirty.iter().take(REPORT_BATCH).copied().collect();
            let report = |key: &Key| {
                let report = self.held.get(*key).and_then(|job| job.report(*key))?;
                Some(self.edge.gpus.with_usage(*key, report))
            };
            let slices: Vec<_> = keys.iter().filter_map(report).collect();
            if !slices.is_empty() && !self.send(agent_message::Kind::Reports(Reports { slices })) {
                return;
            }
            keys.iter().for_each(|key| _ = self.dirty.remove(key));
        }
    }

    fn send(&self, kind: agent_message::Kind) -> bool {
        let message = AgentMessage { kind: Some(kind) };
        self.link.as_ref().is_some_and(|link| link.try_send(message).is_ok())
    }

    /// Ends that the controller has not let go of are told again.
    fn repeat(&mut self) {
        let over = self.held.iter().filter(|(_, job)| matches!(job.phase, Phase::Over(_)));
        let keys: Vec<Key> = over.map(|(key, _)| key).collect();
        self.dirty.extend(keys);
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

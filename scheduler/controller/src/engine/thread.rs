//! The thread that owns the state, and the handle by which others reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use muster_core::command::Command;
use muster_core::effect::Effect;
use muster_core::effects::outstanding;
use muster_core::event::Event;
use muster_core::rejection::Rejection;
use muster_core::state::State;
use muster_model::{Outcome, Timestamp};
use muster_store::{Blobs, Log, LogError};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::batch::{JobBlobs, MAX_WISHES, Reply, Wish, step};
use super::recover::{RecoverError, Recovery, recover};
use super::snapshot;

/// Messages that wait for the engine at most: some seconds of work at the rate of a slow disk.
const INBOX: usize = 8192;
/// This much of the inbox is kept free of client calls, for agents' reports and the pass.
const INBOX_RESERVE: usize = INBOX / 4;
/// Batches of effects that a subscriber may fall behind before it must look at the state anew.
const EFFECT_BATCHES: usize = 1024;
/// A snapshot is due when the tail has so many frames: they are read one by one at a restart.
const SNAPSHOT_FRAMES: u64 = 20_000;
/// ... or so many bytes, or half the last snapshot's size where that is more: replaying a byte
/// costs a few times what loading it from a snapshot does.
const SNAPSHOT_BYTES: u64 = 8 << 20;

/// How long the engine waits for company when nobody but the controller itself waits for the commit.
/// Reports of agents come in trickles, and a commit (about 0.5 ms of CPU time in sled's threads and
/// the kernel) costs the same for one as for a hundred. Long enough to gather them when the last
/// commit shows that there is a stream of them, hardly noticeable for a single job otherwise. Not so
/// long that the nodes run out of work meanwhile: with 8 ms an array of short tasks left the CPUs
/// idle for a tenth of the time, with 2 ms the commits cost what that had won.
const COMPANY: Duration = Duration::from_millis(1);
const COMPANY_IN_A_STREAM: Duration = Duration::from_millis(3);
/// Wishes in one commit that make a stream.
const STREAM: usize = 6;
/// ... and how often it looks whether a client came meanwhile.
const GLANCE: Duration = Duration::from_micros(500);

/// Why a call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("the controller is busy, try again")]
    Busy,
    #[error("the controller is stopping")]
    Stopped,
}

type Answer = oneshot::Sender<Result<Reply, Rejection>>;
type Question = Box<dyn FnOnce(&State) + Send>;

/// Whether somebody at a terminal waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    Client,
    Own,
}

enum Message {
    Wish(Box<Wish>, Answer, Haste),
    Read(Question),
}

/// Counters of the engine's work; they only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// The last frame's index in the log.
    pub index: AtomicU64,
    pub commits: AtomicU64,
    pub events: AtomicU64,
    pub bytes: AtomicU64,
    /// Microseconds that commits spent deciding, and making durable.
    pub decide_us: AtomicU64,
    pub append_us: AtomicU64,
    pub snapshots: AtomicU64,
    /// Microseconds that the last snapshot kept commits waiting.
    pub snapshot_pause_us: AtomicU64,
    /// Calls refused because the inbox was full.
    pub shed: AtomicU64,
    /// Jobs since the start; tasks of arrays count one by one.
    pub submitted: AtomicU64,
    pub started: AtomicU64,
    pub completed: AtomicU64,
    pub cancelled: AtomicU64,
    pub failed: AtomicU64,
}

impl Stats {
    fn count(&self, event: &Event) {
        let ended = |outcome: &Outcome| match outcome {
            Outcome::Completed => &self.completed,
            Outcome::Cancelled { .. } => &self.cancelled,
            Outcome::Failed(_)
            | Outcome::Timeout
            | Outcome::OutOfMemory
            | Outcome::NodeFail { .. }
            | Outcome::Deadline
            | Outcome::Preempted
            | Outcome::BootFail => &self.failed,
        };
        let (counter, jobs) = match event {
            Event::Submitted { spec, .. } => {
                (&self.submitted, spec.array.as_ref().map_or(1, |array| array.indices.len()))
            }
            Event::Started { .. } => (&self.started, 1),
            Event::Ended { outcome, .. } => (ended(outcome), 1),
            Event::TasksEnded { tasks, outcome, .. } => (ended(outcome), tasks.len()),
            _ => return,
        };
        counter.fetch_add(jobs, Relaxed);
    }
}

/// How others reach the engine. It stops when the last handle is gone.
#[derive(Clone)]
pub struct EngineHandle {
    inbox: mpsc::Sender<Message>,
    effects: broadcast::Sender<Arc<[Effect]>>,
    blobs: Arc<dyn Blobs>,
    stats: Arc<Stats>,
}

/// A subscriber fell too far behind: `outstanding` on the state names all that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} batches of effects were missed")]
pub struct Lagged {
    pub missed: u64,
}

/// Duties as they become durable.
pub struct Effects(broadcast::Receiver<Arc<[Effect]>>);

impl Effects {
    /// The next commit's duties; `None`: the engine stopped.
    ///
    /// # Errors
    /// Too many were missed; later ones follow.
    pub async fn next(&mut self) -> Option<Result<Arc<[Effect]>, Lagged>> {
        match self.0.recv().await {
            Ok(batch) => Some(Ok(batch)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl EngineHandle {
    /// A client's wish. Answered once it is durable; refused at once when too many wait.
    ///
    /// # Errors
    /// The core's refusal, `Busy` (the call had no effect), or `Stopped` (it may have had one).
    pub async fn submit(
        &self,
        command: Command,
        blobs: Option<JobBlobs>,
    ) -> Result<Reply, EngineError> {
        let (answer, reply) = oneshot::channel();
        self.offer(Message::Wish(Box::new(Wish { command, blobs }), answer, Haste::Client))?;
        Ok(reply.await.map_err(|_| EngineError::Stopped)??)
    }

    /// A wish of the controller itself (an agent's report, the pass, a tick): waits for a place in
    /// the inbox instead of being refused.
    ///
    /// # Errors
    /// The core's refusal, or `Stopped`.
    pub async fn tell(&self, command: Command) -> Result<Reply, EngineError> {
        let (answer, reply) = oneshot::channel();
        let message = Message::Wish(Box::new(command.into()), answer, Haste::Own);
        self.inbox.send(message).await.map_err(|_| EngineError::Stopped)?;
        Ok(reply.await.map_err(|_| EngineError::Stopped)??)
    }

    /// As [`EngineHandle::tell`], for threads outside of tokio.
    ///
    /// # Errors
    /// The core's refusal, or `Stopped`.
    pub fn tell_blocking(&self, command: Command) -> Result<Reply, EngineError> {
        let (answer, reply) = oneshot::channel();
        let message = Message::Wish(Box::new(command.into()), answer, Haste::Own);
        self.inbox.blocking_send(message).map_err(|_| EngineError::Stopped)?;
        Ok(reply.blocking_recv().map_err(|_| EngineError::Stopped)??)
    }

    /// Looks at the state between two commits. Commits wait meanwhile: at most some thousand rows.
    ///
    /// # Errors
    /// `Busy` or `Stopped`.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (message, seen) = question(look);
        self.offer(message)?;
        seen.await.map_err(|_| EngineError::Stopped)
    }

    /// As [`EngineHandle::read`], for the controller itself: waits for a place in the inbox instead
    /// of being refused.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (message, seen) = question(look);
        self.inbox.send(message).await.map_err(|_| EngineError::Stopped)?;
        seen.await.map_err(|_| EngineError::Stopped)
    }

    /// As [`EngineHandle::read`], for threads outside of tokio; waits for a place in the inbox.
    ///
    /// # Errors
    /// `Stopped`.
    pub fn read_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (message, seen) = question(look);
        self.inbox.blocking_send(message).map_err(|_| EngineError::Stopped)?;
        seen.blocking_recv().map_err(|_| EngineError::Stopped)
    }

    /// Duties from now on. Subscribe first and then ask the state for what is outstanding: so
    /// nothing falls between.
    #[must_use]
    pub fn subscribe(&self) -> Effects {
        Effects(self.effects.subscribe())
    }

    /// Scripts and environments.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn offer(&self, message: Message) -> Result<(), EngineError> {
        if self.inbox.capacity() <= INBOX_RESERVE && !self.inbox.is_closed() {
            self.stats.shed.fetch_add(1, Relaxed);
            return Err(EngineError::Busy);
        }
        self.inbox.try_send(message).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                self.stats.shed.fetch_add(1, Relaxed);
                EngineError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopped,
        })
    }
}

fn question<T: Send + 'static>(
    look: impl FnOnce(&State) -> T + Send + 'static,
) -> (Message, oneshot::Receiver<T>) {
    let (answer, seen) = oneshot::channel();
    // Nobody may be waiting any more: a caller that went away is no fault.
    let look = move |state: &State| drop(answer.send(look(state)));
    (Message::Read(Box::new(look)), seen)
}

/// Tells the time; asked once per commit.
pub type Clock = Box<dyn Fn() -> Timestamp + Send>;

/// Told of duties on the engine's own thread before anybody sees the state they come from: at the
/// start of all that are outstanding, then of each commit's. For what must never lag behind the
/// state; it must not wait.
pub type Witness = Box<dyn Fn(&[Effect]) + Send>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Box::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    })
}

/// The owner of the state, as long as its thread runs.
pub struct Engine {
    log: Box<dyn Log>,
    clock: Clock,
    witness: Witness,
    state: State,
    index: u64,
    inbox: mpsc::Receiver<Message>,
    effects: broadcast::Sender<Arc<[Effect]>>,
    stats: Arc<Stats>,
    tail_frames: u64,
    tail_bytes: u64,
    snapshot_bytes: u64,
    /// The snapshot that is being written, if one is.
    writing: Option<std_mpsc::Receiver<Written>>,
}

/// What one turn of the engine took from its inbox.
#[derive(Default)]
struct Drained {
    wishes: Vec<Wish>,
    answers: Vec<Answer>,
    questions: Vec<Question>,
    /// A client waits for the commit.
    hasty: bool,
}

impl Drained {
    fn take(&mut self, message: Message) {
        match message {
            Message::Wish(wish, answer, haste) => {
                self.wishes.push(*wish);
                self.answers.push(answer);
                self.hasty |= haste == Haste::Client;
            }
            Message::Read(question) => self.questions.push(question),
        }
    }

    fn take_waiting(&mut self, inbox: &mut mpsc::Receiver<Message>) {
        while self.wishes.len() + self.questions.len() < MAX_WISHES {
            let Ok(message) = inbox.try_recv() else { return };
            self.take(message);
        }
    }

    fn answer(&mut self, state: &State) {
        for question in self.questions.drain(..) {
            question(state);
        }
    }

    fn may_wait(&self) -> bool {
        !self.hasty && !self.wishes.is_empty() && self.wishes.len() < MAX_WISHES
    }
}

/// A snapshot's end: its index and size, or why there is none.
type Written = Result<(u64, u64), LogError>;

impl Engine {
    /// Recovers the state and starts the thread. When a commit fails the process aborts: what is
    /// on the disk is unknown then, and only a restart can tell.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn start(
        log: Box<dyn Log>,
        clock: Clock,
        witness: Witness,
    ) -> Result<EngineHandle, RecoverError> {
        let (engine, handle) = Engine::new(log, clock, witness)?;
        let run = move || {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.run()));
            match ran {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "commit failed, aborting"
                    );
                }
                Err(_) => tracing::error!("the engine panicked, aborting"),
            }
            std::process::abort();
        };
        let spawned = std::thread::Builder::new().name("muster-engine".into()).spawn(run);
        spawned.expect("a process that starts can start one thread");
        Ok(handle)
    }

    pub(super) fn new(
        mut log: Box<dyn Log>,
        clock: Clock,
        witness: Witness,
    ) -> Result<(Engine, EngineHandle), RecoverError> {
        let began = Instant::now();
        let Recovery { state, index, tail_frames, tail_bytes, snapshot_bytes } =
            recover(&mut *log)?;
        let took = began.elapsed();
        tracing::info!(index, tail_frames, tail_bytes, snapshot_bytes, ?took, "state recovered");
        witness(&outstanding(&state));
        let (send, inbox) = mpsc::channel(INBOX);
        let (effects, _) = broadcast::channel(EFFECT_BATCHES);
        let stats = Arc::<Stats>::default();
        stats.index.store(index, Relaxed);
        let (blobs, handle_stats) = (log.blobs(), Arc::clone(&stats));
        let handle =
            EngineHandle { inbox: send, effects: effects.clone(), blobs, stats: handle_stats };
        let engine = Engine {
            log,
            clock,
            witness,
            state,
            index,
            inbox,
            effects,
            stats,
            tail_frames,
            tail_bytes,
            snapshot_bytes,
            writing: None,
        };
        Ok((engine, handle))
    }

    /// Until the last handle is gone.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        let mut company = COMPANY;
        while let Some(first) = self.inbox.blocking_recv() {
            let mut drained = Drained::default();
            drained.take(first);
            drained.take_waiting(&mut self.inbox);
            // Nothing waits for a commit to see what is durable already.
            drained.answer(&self.state);
            let mut slept = Duration::ZERO;
            while drained.may_wait() && slept < company {
                std::thread::sleep(GLANCE);
                slept += GLANCE;
                drained.take_waiting(&mut self.inbox);
                drained.answer(&self.state);
            }
            let Drained { wishes, answers, questions: _, hasty: _ } = drained;
            company = if wishes.len() >= STREAM { COMPANY_IN_A_STREAM } else { COMPANY };
            if !wishes.is_empty() {
                self.commit(wishes, answers)?;
            }
            self.tend_snapshot()?;
        }
        if let Some(writing) = self.writing.take() {
            self.finish_snapshot(writing.recv().ok())?;
        }
        Ok(())
    }

    fn commit(&mut self, wishes: Vec<Wish>, answers: Vec<Answer>) -> Result<(), LogError> {
        let began = Instant::now();
        let step = step(&mut self.state, wishes, (self.clock)());
        let decided = Instant::now();
        if let Some(batch) = step.commit {
            let facts = step.replies.iter().flatten().flat_map(|reply| &reply.events);
            facts.for_each(|event| self.stats.count(event));
            let events = step.replies.iter().flatten().map(|r| r.events.len() as u64).sum();
            let bytes = batch.payload.len() as u64;
            self.index = self.log.append(batch)?;
            self.stats.index.store(self.index, Relaxed);
            self.tail_frames += 1;
            self.tail_bytes += bytes;
            self.stats.commits.fetch_add(1, Relaxed);
            self.stats.events.fetch_add(events, Relaxed);
            self.stats.bytes.fetch_add(bytes, Relaxed);
            self.stats.append_us.fetch_add(micros(decided.elapsed()), Relaxed);
        }
        self.stats.decide_us.fetch_add(micros(decided - began), Relaxed);
        if !step.effects.is_empty() {
            (self.witness)(&step.effects);
            // Without a subscriber nobody is to be told: it will ask for what is outstanding.
            let _ = self.effects.send(step.effects.into());
        }
        for (answer, reply) in answers.into_iter().zip(step.replies) {
            // A caller that went away is no fault.
            let _ = answer.send(reply);
        }
        Ok(())
    }

    /// Begins a snapshot when one is due, and takes note of one that is written.
    fn tend_snapshot(&mut self) -> Result<(), LogError> {
        if let Some(writing) = &self.writing {
            match writing.try_recv() {
                Ok(written) => self.finish_snapshot(Some(written))?,
                Err(std_mpsc::TryRecvError::Disconnected) => self.finish_snapshot(None)?,
                Err(std_mpsc::TryRecvError::Empty) => {}
            }
            return Ok(());
        }
        let enough = SNAPSHOT_BYTES.max(self.snapshot_bytes / 2);
        if self.tail_frames >= SNAPSHOT_FRAMES || self.tail_bytes >= enough {
            self.begin_snapshot();
        }
        Ok(())
    }

    fn begin_snapshot(&mut self) {
        let began = Instant::now();
        let parts = self.state.parts();
        self.stats.snapshot_pause_us.store(micros(began.elapsed()), Relaxed);
        let (index, snapshots) = (self.index, self.log.snapshots());
        let (done, writing) = std_mpsc::channel();
        let write = move || {
            let bytes = snapshot::encode(&parts);
            drop(parts);
            let written = snapshots.write(index, &bytes).map(|()| (index, bytes.len() as u64));
            // The engine may have stopped: then nobody forgets the frames, which is harmless.
            let _ = done.send(written);
        };
        let spawned = std::thread::Builder::new().name("muster-snapshot".into()).spawn(write);
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a snapshot; trying again later");
        }
        self.writing = Some(writing);
        (self.tail_frames, self.tail_bytes) = (0, 0);
    }

    fn finish_snapshot(&mut self, written: Option<Written>) -> Result<(), LogError> {
        self.writing = None;
        match written {
            Some(Ok((index, bytes))) => {
                self.log.forget(index)?;
                self.snapshot_bytes = bytes;
                self.stats.snapshots.fetch_add(1, Relaxed);
                let pause_us = self.stats.snapshot_pause_us.load(Relaxed);
                tracing::info!(index, bytes, pause_us, "snapshot written");
            }
            // The log is whole without it: the tail grows until the next one succeeds.
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no snapshot written");
            }
            None => tracing::warn!("a snapshot's thread ended without one"),
        }
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

//! The state of a running step and what follows from what happens to it.
//!
//! - `links`: the streams to the nodes; `order`: what each is told first
//! - `output`, `input`: what tasks print and are fed with
//! - `between`: what the nodes tell each other
//! - `end`: signals, limits and faults, which end a step before its tasks do

mod between;
mod end;
mod input;
mod links;
mod order;
mod output;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use muster_proto::shim::v1::StopCause;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::step_news::Kind as News;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{
    CloseStepRequest, ExitStatus, NodePart, Over, StartStep, StepGrant, StepInput, StepNews,
    StepOutput, TaskExit, TaskSignal,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::agents::Agents;
use super::exchange;
use super::names::Names;
use super::report::{Report, ranges};
use super::sinks::{Of, Place, Written};
use super::tally::Tally;
use super::wish::Wish;
use crate::exit;

/// Messages that wait to be taken in, from all nodes: the nodes' windows bound what is behind them.
pub(in crate::step) const QUEUE: usize = 256;
/// Ends of tasks within this time are told in one line.
const GATHER: Duration = Duration::from_millis(40);

/// What comes in.
pub(in crate::step) enum Event {
    Out(usize, Result<StepOutput, Status>),
    /// The node's stream has ended without a word.
    End(usize),
    /// It is time to try a node again.
    Again(usize),
    Written(Written),
    Input(Option<Bytes>),
    Signal(i32),
    News(StepNews),
}

/// A node of the step.
struct Node {
    part: NodePart,
    ask: mpsc::Sender<StepInput>,
    /// What it is to run, until it is heard that it does.
    order: Option<Box<StartStep>>,
    /// The node has said that no task is left there.
    over: bool,
    stdin_taken: u64,
    stdin_closed: bool,
    away_since: Option<Instant>,
    /// The user knows that it is away.
    away_told: bool,
}

/// How far an output stream is, in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    received: u64,
    written: u64,
    told: u64,
    end: bool,
}

pub(in crate::step) struct Course {
    agents: Agents,
    grant: StepGrant,
    wish: Wish,
    kill_wait: Duration,
    nodes: Vec<Node>,
    events: mpsc::Sender<Event>,
    progress: HashMap<Of, Progress>,
    /// Place of each stream.
    places: HashMap<u32, usize>,
    sinks: Vec<Place>,
    /// Streams of which only this task's is wanted.
    only: HashMap<u32, u32>,
    report: Report,
    tally: Tally,
    /// In what the nodes tell each other.
    place: exchange::Place,
    cancelled: bool,
    /// Why srun itself ends the tasks, where there is more to say than that.
    cause: StopCause,
    terminating: bool,
    tell_at: Option<Instant>,
    wait_until: Option<Instant>,
    limit_at: Option<Instant>,
    /// After a termination, when srun gives up.
    give_up_at: Option<Instant>,
    interrupted_at: Option<Instant>,
    stdin_sent: u64,
    stdin_end: bool,
    /// What was sent and not every node has taken: said again to a node that comes back. Bounded by
    /// the window.
    stdin_kept: VecDeque<Bytes>,
    /// Permission for the reader to read once more.
    input: Option<std::sync::mpsc::Sender<()>>,
    reading: bool,
}

impl Course {
    pub(in crate::step) fn new(
        agents: Agents,
        grant: &StepGrant,
        wish: &Wish,
        place: exchange::Place,
        events: mpsc::Sender<Event>,
    ) -> Course {
        let kill_wait = grant.about.as_ref().map_or(30, |about| about.kill_wait_seconds);
        Course {
            agents,
            grant: grant.clone(),
            wish: wish.clone(),
            kill_wait: Duration::from_secs(kill_wait.into()),
            nodes: Vec::new(),
            events,
            progress: HashMap::new(),
            places: HashMap::new(),
            sinks: Vec::new(),
            only: HashMap::new(),
            report: Report::default(),
            tally: Tally::default(),
            place,
            cancelled: false,
            cause: StopCause::None,
            terminating: false,
            tell_at: None,
            wait_until: None,
            limit_at: wish.time_limit.map(|limit| Instant::now() + limit),
            give_up_at: None,
            interrupted_at: None,
            stdin_sent: 0,
            stdin_end: false,
            stdin_kept: VecDeque::new(),
            input: None,
            reading: false,
        }
    }

    fn id(&self) -> String {
        format!("{}.{}", self.grant.job, self.grant.step)
    }

    fn say(&self, text: &str) {
        if !self.wish.quiet {
            exit::say("srun", text);
        }
    }

    fn names(&self) -> Names {
        let about = self.grant.about.clone().unwrap_or_default();
        Names {
            job: self.grant.job,
            step: self.grant.step,
            array: about.array_task.map(|task| (about.array_job, task)),
            restarts: about.restarts,
            user: about.user,
            job_name: about.job_name,
        }
    }

    /// Takes in what happened.
    pub(in crate::step) async fn take(&mut self, event: Event) {
        match event {
            Event::Out(at, Ok(message)) => self.said(at, message).await,
            Event::Out(at, Err(status)) => self.broken(at, &status).await,
            Event::End(at) => {
                let status = Status::unavailable("the stream has ended");
                self.broken(at, &status).await;
            }
            Event::Again(at) => self.resume(at).await,
            Event::Written(done) => self.written(done).await,
            Event::Input(data) => self.feed(data).await,
            Event::Signal(signal) => self.signal(signal).await,
            Event::News(StepNews { kind: Some(News::Signal(0)) }) => {
                self.cancelled = true;
                self.terminate(self.kill_wait).await;
            }
            Event::News(StepNews { kind: Some(News::Signal(signal)) }) => {
                self.ask_all(&Ask::Signal(TaskSignal { signal, ..TaskSignal::default() })).await;
            }
            Event::News(_) => {}
        }
    }

    async fn said(&mut self, at: usize, message: StepOutput) {
        self.answers(at);
        self.nodes[at].order = None;
        match message.kind {
            Some(Said::Started(started)) if self.wish.verbose => {
                let node = &self.nodes[at].part.node;
                let tasks = ranges(started.tasks);
                exit::say(
                    "srun",
                    &format!("launching StepId={} on {node}, tasks {tasks}", self.id()),
                );
            }
            Some(Said::Started(_)) => {}
            Some(Said::Data(data)) => self.data(at, data),
            Some(Said::StdinTaken(taken)) => {
                let node = &mut self.nodes[at];
                node.stdin_closed |= taken.closed;
                node.stdin_taken = node.stdin_taken.max(taken.offset);
                self.read_on();
            }
            Some(Said::Exit(exit)) => self.exited(at, exit).await,
            Some(Said::Failed(failed)) => {
                let node = self.nodes[at].part.node.clone();
                exit::error("srun", &format!("{node}: {}", failed.text));
                self.lose(at).await;
            }
            Some(Said::Over(over)) => {
                self.tally.over(&self.nodes[at].part.tasks, &over);
                self.report.oom_kills(over.oom_kills);
                self.nodes[at].over = true;
                if over.unkillable > 0 {
                    let node = &self.nodes[at].part.node;
                    let text = format!("{node}: {} processes cannot be killed", over.unkillable);
                    exit::error("srun", &text);
                }
                for task in self.nodes[at].part.tasks.clone() {
                    if !self.report.has_ended(task) {
                        let status = Some(ExitStatus { code: 0, signal: 9 });
                        self.exited(at, TaskExit { task, status, ..TaskExit::default() }).await;
                    }
                }
                self.no_more_from(at).await;
            }
            // Such a line says by itself who says it.
            Some(Said::Note(note)) if note.contains("slurmstepd: ") => exit::note(&note),
            Some(Said::Note(note)) => exit::say("srun", &note),
            Some(Said::Figures(_)) | None => {}
            Some(other) => self.between(at, other).await,
        }
    }

    async fn exited(&mut self, at: usize, exit: TaskExit) {
        let node = self.nodes[at].part.node.clone();
        let was_bad = self.report.is_bad();
        self.tally.end(&node, &exit);
        self.report.end(&node, exit);
        self.tell_at = self.tell_at.or(Some(Instant::now() + GATHER));
        let all = self.report.ended() == self.grant.tasks as usize;
        if self.report.is_bad() && !was_bad && self.wish.kill_on_bad_exit && !all {
            self.tell();
            self.say(&format!("Terminating StepId={}", self.id()));
            self.terminate(self.kill_wait).await;
        }
        if let Some(wait) = self.wish.wait
            && self.wait_until.is_none()
        {
            self.wait_until = Some(Instant::now() + wait);
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        for line in self.report.lines() {
            exit::error("srun", &line);
        }
    }

    /// Nothing more will come, and all that came is where it belongs.
    pub(in crate::step) fn is_done(&self) -> bool {
        self.nodes.iter().all(|n| n.over)
            && self.progress.values().all(|p| p.end && p.written >= p.received)
    }

    /// Lets the nodes go.
    pub(in crate::step) async fn finish(&mut self) {
        for node in &self.nodes {
            let over = StepInput { kind: Some(Ask::Over(Over {})) };
            let _ = tokio::time::timeout(Duration::from_secs(1), node.ask.send(over)).await;
        }
        self.sinks.drain(..).for_each(Place::finish);
        self.tell();
    }

    pub(in crate::step) fn code(&self) -> i32 {
        self.report.code()
    }

    /// What the head is to know.
    pub(in crate::step) fn closing(&self) -> CloseStepRequest {
        CloseStepRequest {
            job: self.grant.job,
            step: self.grant.step,
            status: Some(self.report.status()),
            oom: self.report.oom(),
            cancelled: self.cancelled,
            usage: Some(self.tally.usage()),
            figures: self.tally.figures(),
        }
    }
}

//! The state of a running step and what follows from what happens to it.

use std::collections::HashMap;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::step_news::Kind as News;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{
    AttachStep, CloseStepRequest, ExitStatus, NodePart, Over, Program, StartStep, Stdin, StepGrant,
    StepInput, StepNews, StepOutput, Taken, TaskData, TaskExit, TaskSignal, Usage,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::agents::{Agents, PATIENCE, PAUSE, is_passing};
use super::names::{self, Names};
use super::report::{Report, ranges};
use super::sinks::{Manner, Of, Place, Written};
use super::terminal;
use super::wish::{Sink, Source, Wish};
use crate::exit;

/// Input under way, in bytes: what a node keeps at most for its slowest task.
const STDIN_WINDOW: u64 = 256 * 1024;
const STDIN_CHUNK: usize = 32 * 1024;
/// Messages that wait to be taken in, from all nodes: the nodes' windows bound what is behind them.
pub(super) const QUEUE: usize = 256;
/// Ends of tasks within this time are told in one line.
const GATHER: Duration = Duration::from_millis(40);
/// Between the two interrupts that end a step.
const TWICE: Duration = Duration::from_secs(1);
/// Beyond the tasks' grace, until srun stops waiting for a node.
const SLACK: Duration = Duration::from_secs(75);
/// Bytes of a stream that are written before the node hears of it: a word for every line would
/// cost more than the line.
const TAKEN_STEP: u64 = 8 * 1024;

/// What comes in.
pub(super) enum Event {
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
    /// The node has said that no task is left there.
    over: bool,
    stdin_taken: u64,
    stdin_closed: bool,
    away_since: Option<Instant>,
}

/// How far an output stream is, in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    received: u64,
    written: u64,
    told: u64,
    end: bool,
}

pub(super) struct Course {
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
    usage: Usage,
    cancelled: bool,
    terminating: bool,
    tell_at: Option<Instant>,
    wait_until: Option<Instant>,
    limit_at: Option<Instant>,
    /// After a termination, when srun gives up.
    give_up_at: Option<Instant>,
    interrupted_at: Option<Instant>,
    stdin_sent: u64,
    stdin_end: bool,
    /// Permission for the reader to read once more.
    input: Option<std::sync::mpsc::Sender<()>>,
    reading: bool,
}

impl Course {
    pub(super) fn new(
        agents: Agents,
        grant: &StepGrant,
        wish: &Wish,
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
            usage: Usage::default(),
            cancelled: false,
            terminating: false,
            tell_at: None,
            wait_until: None,
            limit_at: wish.time_limit.map(|limit| Instant::now() + limit),
            give_up_at: None,
            interrupted_at: None,
            stdin_sent: 0,
            stdin_end: false,
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

    /// Sends each node its order.
    pub(super) fn start(
        &mut self,
        programs: &[Vec<String>],
        environment: Vec<u8>,
        grant: &StepGrant,
    ) {
        let environment = Bytes::from(environment);
        let wish = self.wish.clone();
        for (at, part) in grant.nodes.iter().enumerate() {
            let program = |argv: &Vec<String>| Program { argv: argv.clone() };
            let programs = match wish.multi_prog {
                false => programs.iter().map(program).collect(),
                true => part.tasks.iter().map(|t| program(&programs[*t as usize])).collect(),
            };
            let order = order(&wish, grant, part, programs, environment.clone());
            let ask = self.dial(at, &part.node, Ask::Start(order));
            self.nodes.push(Node {
                part: part.clone(),
                ask,
                over: false,
                stdin_taken: 0,
                stdin_closed: false,
                away_since: None,
            });
            for task in &part.tasks {
                for stream in [1, 2] {
                    let of = Of { node: at, task: *task, stream };
                    self.progress.insert(of, Progress::default());
                }
            }
        }
    }

    /// Opens a stream to a node, with this first message.
    fn dial(&self, at: usize, node: &str, first: Ask) -> mpsc::Sender<StepInput> {
        let (ask, asked) = mpsc::channel(QUEUE);
        ask.try_send(StepInput { kind: Some(first) }).expect("a new queue has room");
        let (agents, events, node) = (self.agents.clone(), self.events.clone(), node.to_owned());
        tokio::spawn(async move {
            let opened = match agents.of(&node) {
                Ok(mut client) => client.run(ReceiverStream::new(asked)).await,
                Err(fault) => Err(Status::not_found(fault.to_string())),
            };
            let mut stream = match opened {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(events.send(Event::Out(at, Err(status))).await),
            };
            loop {
                let event = match stream.message().await {
                    Ok(Some(message)) => Event::Out(at, Ok(message)),
                    Ok(None) => return drop(events.send(Event::End(at)).await),
                    Err(status) => return drop(events.send(Event::Out(at, Err(status))).await),
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        ask
    }

    /// Opens what output goes to.
    pub(super) fn open_places(&mut self, tell: mpsc::UnboundedSender<Written>) {
        let wish = self.wish.clone();
        let digits = self.grant.tasks.saturating_sub(1).max(1).ilog10() as usize + 1;
        let manner = Manner { label: wish.label, unbuffered: wish.unbuffered || wish.pty, digits };
        let names = self.names();
        let mut files: HashMap<String, usize> = HashMap::new();
        let err = wish.stderr.clone().unwrap_or_else(|| match &wish.stdout {
            // Errors go where output goes, unless that is srun's own.
            Sink::File(path) => Sink::File(path.clone()),
            Sink::Task(task) => Sink::Task(*task),
            _ => Sink::Own,
        });
        for (stream, sink) in [(1, wish.stdout.clone()), (2, err)] {
            let place = match sink {
                Sink::Nowhere | Sink::There(_) => continue,
                Sink::Own => Place::own(stream, manner, tell.clone()).map_err(|e| e.to_string()),
                Sink::Task(task) => {
                    self.only.insert(stream, task);
                    Place::own(stream, manner, tell.clone()).map_err(|e| e.to_string())
                }
                Sink::File(pattern) => {
                    let path = wish.workdir.join(names::expand(&pattern, &names));
                    let key = path.to_string_lossy().into_owned();
                    if let Some(at) = files.get(&key) {
                        self.places.insert(stream, *at);
                        continue;
                    }
                    files.insert(key, self.sinks.len());
                    Place::file(&path, wish.append, manner, tell.clone())
                        .map_err(|e| format!("Could not open file {}: {e}", path.display()))
                }
            };
            match place {
                Ok(place) => {
                    self.places.insert(stream, self.sinks.len());
                    self.sinks.push(place);
                }
                Err(fault) => self.fail(&fault),
            }
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

    /// Starts reading what the tasks are to be fed with.
    pub(super) fn open_input(&mut self) {
        let mut from: Box<dyn std::io::Read + Send> = match &self.wish.stdin {
            Source::Nowhere | Source::There(_) => {
                self.stdin_end = true;
                return;
            }
            Source::Own | Source::Task(_) => Box::new(std::io::stdin()),
            Source::File(pattern) => {
                let path = self.wish.workdir.join(names::expand(pattern, &self.names()));
                match std::fs::File::open(&path) {
                    Ok(file) => Box::new(file),
                    Err(e) => {
                        let text = format!("Could not open stdin file {}: {e}", path.display());
                        return self.fail(&text);
                    }
                }
            }
        };
        let (permit, permits) = std::sync::mpsc::channel();
        let events = self.events.clone();
        // A thread of its own: a read of a terminal cannot be given up.
        std::thread::spawn(move || {
            let mut chunk = vec![0u8; STDIN_CHUNK];
            while permits.recv().is_ok() {
                let data = match from.read(&mut chunk) {
                    Ok(0) => None,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Some(Bytes::new()),
                    Err(_) => None,
                    Ok(length) => Some(Bytes::copy_from_slice(&chunk[..length])),
                };
                let end = data.is_none();
                if events.blocking_send(Event::Input(data)).is_err() || end {
                    return;
                }
            }
        });
        self.input = Some(permit);
        self.read_on();
    }

    /// Lets more input be read, if the nodes have room for it.
    fn read_on(&mut self) {
        if self.reading || self.stdin_end {
            return;
        }
        let mut open = self.nodes.iter().filter(|n| !n.stdin_closed && !n.over).peekable();
        if open.peek().is_none() {
            return;
        }
        let taken = open.map(|n| n.stdin_taken).min().unwrap_or(0);
        if self.stdin_sent.saturating_sub(taken) < STDIN_WINDOW
            && let Some(permit) = &self.input
        {
            self.reading = permit.send(()).is_ok();
        }
    }

    async fn feed(&mut self, data: Option<Bytes>) {
        self.reading = false;
        let end = data.is_none();
        let data = data.unwrap_or_default();
        let input = Stdin { offset: self.stdin_sent, data: data.clone(), end };
        self.stdin_sent += data.len() as u64;
        self.stdin_end |= end;
        for at in 0..self.nodes.len() {
            if !self.nodes[at].stdin_closed && !self.nodes[at].over {
                self.ask(at, Ask::Stdin(input.clone())).await;
            }
        }
        self.read_on();
    }

    async fn ask(&self, at: usize, kind: Ask) {
        // A node that is away hears it when it is back, or needs it no more.
        let _ = self.nodes[at].ask.send(StepInput { kind: Some(kind) }).await;
    }

    async fn ask_all(&self, kind: &Ask) {
        for at in 0..self.nodes.len() {
            if !self.nodes[at].over {
                self.ask(at, kind.clone()).await;
            }
        }
    }

    /// Takes in what happened.
    pub(super) async fn take(&mut self, event: Event) {
        match event {
            Event::Out(at, Ok(message)) => self.said(at, message).await,
            Event::Out(at, Err(status)) => self.broken(at, &status).await,
            Event::End(at) => {
                let status = Status::unavailable("the stream has ended");
                self.broken(at, &status).await;
            }
            Event::Again(at) => self.resume(at),
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
        self.nodes[at].away_since = None;
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
                let used = over.usage.unwrap_or_default();
                self.usage.user_cpu_ms += used.user_cpu_ms;
                self.usage.system_cpu_ms += used.system_cpu_ms;
                self.usage.max_rss_kib = self.usage.max_rss_kib.max(used.max_rss_kib);
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
            }
            Some(Said::Note(note)) => exit::say("srun", &note),
            None => {}
        }
    }

    fn data(&mut self, at: usize, data: TaskData) {
        let of = Of { node: at, task: data.task, stream: data.stream };
        let Some(progress) = self.progress.get_mut(&of) else { return };
        // After a break some comes twice.
        let known = progress.received.saturating_sub(data.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.data.len());
        let fresh = data.data.slice(known..);
        if progress.end || (fresh.is_empty() && !data.end) {
            return;
        }
        progress.received += fresh.len() as u64;
        progress.end |= data.end;
        let end = progress.received;
        let wanted = self.only.get(&data.stream).is_none_or(|only| *only == data.task);
        match self.places.get(&data.stream).filter(|_| wanted) {
            Some(place) => self.sinks[*place].write(of, end, fresh, data.end),
            None => {
                progress.written = end;
                let taken = Taken { task: of.task, stream: of.stream, offset: end };
                let _ = self.nodes[at].ask.try_send(StepInput { kind: Some(Ask::Taken(taken)) });
            }
        }
    }

    async fn written(&mut self, done: Written) {
        let Some(progress) = self.progress.get_mut(&done.of) else { return };
        progress.written = progress.written.max(done.offset);
        let whole = progress.written == progress.received;
        if progress.written - progress.told >= TAKEN_STEP
            || (whole && progress.written > progress.told)
        {
            progress.told = progress.written;
            let Of { node, task, stream } = done.of;
            let taken = Taken { task, stream, offset: progress.written };
            if !self.nodes[node].over {
                self.ask(node, Ask::Taken(taken)).await;
            }
        }
        if done.broken && !self.terminating {
            exit::error("srun", "write: Broken pipe");
            self.terminate(self.kill_wait).await;
        }
    }

    async fn exited(&mut self, at: usize, exit: TaskExit) {
        let node = self.nodes[at].part.node.clone();
        let was_bad = self.report.is_bad();
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

    /// A stream to a node broke: it is taken up again, or the node is given up.
    async fn broken(&mut self, at: usize, status: &Status) {
        if self.nodes[at].over {
            return;
        }
        let now = Instant::now();
        let since = *self.nodes[at].away_since.get_or_insert(now);
        if is_passing(status) && now - since < PATIENCE {
            let events = self.events.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let _ = events.send(Event::Again(at)).await;
            });
            return;
        }
        let node = self.nodes[at].part.node.clone();
        let text = match status.code() {
            tonic::Code::Unavailable => format!("Node failure on {node}"),
            _ => format!("{node}: {}", status.message()),
        };
        exit::error("srun", &text);
        self.lose(at).await;
    }

    fn resume(&mut self, at: usize) {
        if self.nodes[at].over {
            return;
        }
        let of_node = self.progress.iter().filter(|(of, _)| of.node == at);
        let taken = of_node
            .map(|(of, p)| Taken { task: of.task, stream: of.stream, offset: p.written })
            .collect();
        let attach = AttachStep {
            job: self.grant.job,
            step: self.grant.step,
            resume: true,
            taken,
            stdin_sent: self.stdin_sent,
        };
        let node = self.nodes[at].part.node.clone();
        self.nodes[at].ask = self.dial(at, &node, Ask::Attach(attach));
    }

    /// The tasks of a node are none of ours any more.
    async fn lose(&mut self, at: usize) {
        self.report.fault();
        self.nodes[at].over = true;
        for (of, progress) in &mut self.progress {
            if of.node == at {
                progress.end = true;
            }
        }
        if !self.wish.no_kill {
            self.terminate(self.kill_wait).await;
        }
    }

    fn fail(&mut self, text: &str) {
        exit::error("srun", text);
        self.report.fault();
        let now = Instant::now();
        // Due at once: the loop ends the tasks.
        self.limit_at = Some(now);
        self.cancelled = true;
    }

    async fn terminate(&mut self, grace: Duration) {
        self.terminating = true;
        let kill_after_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let signal =
            TaskSignal { terminate: true, kill_after_ms, signal: 15, ..TaskSignal::default() };
        self.ask_all(&Ask::Signal(signal)).await;
        self.give_up_at = self.give_up_at.or(Some(Instant::now() + grace + SLACK));
    }

    async fn signal(&mut self, signal: i32) {
        use nix::libc::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
        match signal {
            SIGWINCH => {
                if let Some(size) = terminal::size().filter(|_| self.wish.pty) {
                    self.ask_all(&Ask::Window(size)).await;
                }
            }
            SIGINT => self.interrupt().await,
            SIGTERM | SIGHUP if self.terminating => self.terminate(Duration::ZERO).await,
            SIGTERM | SIGHUP => {
                self.say(&format!("forcing termination of StepId={}", self.id()));
                self.cancelled = true;
                self.terminate(self.kill_wait).await;
            }
            signal => {
                self.ask_all(&Ask::Signal(TaskSignal { signal, ..TaskSignal::default() })).await;
            }
        }
    }

    /// One asks, two end, three kill.
    async fn interrupt(&mut self) {
        let now = Instant::now();
        let again = self.interrupted_at.is_some_and(|at| now - at < TWICE);
        self.interrupted_at = Some(now);
        if self.terminating {
            self.terminate(Duration::ZERO).await;
            return;
        }
        if again || self.wish.quit_on_interrupt || self.wish.silent_on_interrupt {
            self.say(&format!("sending Ctrl-C to StepId={}", self.id()));
            let signal = nix::libc::SIGINT;
            self.ask_all(&Ask::Signal(TaskSignal { signal, ..TaskSignal::default() })).await;
            self.say(&format!(
                "Job step aborted: Waiting up to {} seconds for job step to finish.",
                self.kill_wait.as_secs() + 2
            ));
            self.cancelled = true;
            self.terminate(self.kill_wait).await;
            return;
        }
        exit::say("srun", "interrupt (one more within 1 sec to abort)");
        self.say_states();
    }

    fn say_states(&self) {
        let id = self.id();
        let all = || self.nodes.iter().flat_map(|n| n.part.tasks.iter().copied());
        let running: Vec<u32> = all().filter(|t| !self.report.has_ended(*t)).collect();
        let ended: Vec<u32> = all().filter(|t| self.report.has_ended(*t)).collect();
        for (tasks, word) in [(running, "running"), (ended, "exited")] {
            if !tasks.is_empty() {
                let noun = if tasks.len() == 1 { "task" } else { "tasks" };
                exit::say("srun", &format!("StepId={id} {noun} {}: {word}", ranges(tasks)));
            }
        }
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.tell_at, self.wait_until, self.limit_at, self.give_up_at].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) async fn due(&mut self) {
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.tell_at) {
            self.tell();
        }
        if passed(self.wait_until) {
            // Far off instead of unset: the first end is told once.
            self.wait_until = Some(now + Duration::from_secs(86_400 * 365));
            if self.report.ended() < self.grant.tasks as usize {
                let seconds = self.wish.wait.unwrap_or_default().as_secs();
                self.say(&format!("First task exited {seconds}s ago"));
                self.say_states();
                self.say(&format!("Terminating StepId={}", self.id()));
                self.terminate(self.kill_wait).await;
            }
        }
        if passed(self.limit_at) {
            self.limit_at = None;
            if !self.cancelled {
                let text = format!("StepId={} exceeded its time limit", self.id());
                exit::error("srun", &text);
            }
            self.cancelled = true;
            self.terminate(self.kill_wait).await;
        }
        if passed(self.give_up_at) {
            self.give_up_at = None;
            for at in 0..self.nodes.len() {
                if !self.nodes[at].over {
                    let node = self.nodes[at].part.node.clone();
                    exit::error("srun", &format!("{node}: the tasks do not end; given up"));
                    self.report.fault();
                    self.nodes[at].over = true;
                }
            }
            self.progress.values_mut().for_each(|p| {
                p.end = true;
                p.written = p.received;
            });
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        for line in self.report.lines() {
            exit::error("srun", &line);
        }
    }

    /// Nothing more will come, and all that came is where it belongs.
    pub(super) fn is_done(&self) -> bool {
        self.nodes.iter().all(|n| n.over)
            && self.progress.values().all(|p| p.end && p.written >= p.received)
    }

    /// Lets the nodes go.
    pub(super) async fn finish(&mut self) {
        for node in &self.nodes {
            let over = StepInput { kind: Some(Ask::Over(Over {})) };
            let _ = tokio::time::timeout(Duration::from_secs(1), node.ask.send(over)).await;
        }
        self.sinks.drain(..).for_each(Place::finish);
        self.tell();
    }

    pub(super) fn code(&self) -> i32 {
        self.report.code()
    }

    /// What the head is to know.
    pub(super) fn closing(&self) -> CloseStepRequest {
        CloseStepRequest {
            job: self.grant.job,
            step: self.grant.step,
            status: Some(self.report.status()),
            oom: self.report.oom(),
            cancelled: self.cancelled,
            usage: Some(self.usage),
        }
    }
}

fn order(
    wish: &Wish,
    grant: &StepGrant,
    part: &NodePart,
    programs: Vec<Program>,
    environment: Bytes,
) -> StartStep {
    let there = |sink: Option<&Sink>| match sink {
        Some(Sink::There(pattern)) => Some(pattern.clone()),
        Some(Sink::Nowhere) => Some("/dev/null".to_owned()),
        _ => None,
    };
    StartStep {
        job: grant.job,
        attempt: grant.attempt,
        step: grant.step,
        part: Some(part.clone()),
        programs,
        environment,
        workdir: wish.workdir.to_string_lossy().into_owned(),
        umask: crate::submit::env::umask(),
        rlimits: wish.rlimits.clone(),
        stdin: match &wish.stdin {
            Source::There(pattern) => Some(pattern.clone()),
            _ => None,
        },
        stdout: there(Some(&wish.stdout)),
        stderr: there(wish.stderr.as_ref()),
        append: wish.append,
        stdin_task: match wish.stdin {
            Source::Task(task) => Some(task),
            _ if wish.pty => Some(0),
            _ => None,
        },
        no_stdin: wish.stdin == Source::Nowhere,
        terminal: wish.pty.then(|| terminal::size().unwrap_or_default()),
        cpu_bind: wish.cpu_bind.into(),
        cpu_lists: wish.cpu_lists.clone(),
        cpu_bind_verbose: wish.cpu_bind_verbose,
        cpus_per_task: wish.shape.cpus_per_task,
        gpus_per_task: wish.gpus_per_task,
        join_stderr: wish.stderr.is_none() && matches!(wish.stdout, Sink::There(_) | Sink::Nowhere),
        total_tasks: grant.tasks,
        name: wish.name.clone(),
    }
}

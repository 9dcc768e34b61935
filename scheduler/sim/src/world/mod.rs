//! A cluster in simulated time: one controller, some nodes, users, a network and a disk, all from
//! one seed.
//!
//! A happening is taken from the queue, may cause others, and then every promise is looked at.
//! Within a stream messages keep their order, as in reality; a lost one breaks the stream, of
//! which the two ends learn at different times. Messages may also come late or twice.
//!
//! - `controller`, `agent`, `client`: who is there; `gpus`: how theirs fail; `config`: the cluster and the jobs of a seed
//! - `wire`: streams between them; `model`: the promises; `tally`: what went on

mod agent;
mod client;
mod config;
mod controller;
mod gpus;
mod model;
mod tally;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use muster_core::command::{Command, SliceReport, StartWish};
use muster_core::effect::{Desired, Effect};
use muster_core::event::Event;
use muster_core::plan::{self, DEFAULT_FUEL, Policy};
use muster_core::state::State;
use muster_model::{Attempt, JobId, NodeId, Timestamp};
use muster_store::{FaultKind, MemDisk};

use crate::dice::Dice;
use agent::{Agent, Orders, SliceId};
use client::Client;
use controller::{Committed, Controller};
use gpus::Gpus;
use model::Model;
pub use tally::{Broken, Tally};

/// A node that is silent so long is given up; the controller's default is longer.
const NODE_TIMEOUT_MS: i64 = 60_000;
const HEARTBEAT_MS: i64 = 10_000;
/// Without faults and new jobs everything has ended by then, or something is stuck.
const PATIENCE_SECONDS: i64 = 6 * 3600;
/// After this an operator cancels what still waits for others.
const HOPELESS_SECONDS: i64 = 2 * 3600;
/// How much of the past is told when a promise is broken.
const TRACE: usize = 30;

/// A wish for one slice, on its way to an agent.
#[derive(Debug, Clone)]
struct Want {
    id: SliceId,
    desired: Desired,
    orders: Option<Orders>,
}

/// What an agent says.
#[derive(Debug, Clone)]
enum Said {
    Hello { boot: u64, slices: Vec<(SliceId, Option<SliceReport>)> },
    Reports(Vec<(SliceId, SliceReport)>),
    Heartbeat,
}

/// What may come next.
#[derive(Debug, Clone)]
enum Happening {
    Users,
    AskAgain,
    Pass,
    /// A plan arrives that was made in this life of the controller.
    Planned {
        starts: Vec<StartWish>,
        life: u64,
    },
    ToAgent {
        node: NodeId,
        session: u64,
        wants: Vec<Want>,
    },
    ToController {
        node: NodeId,
        session: u64,
        said: Said,
    },
    Heartbeat {
        node: NodeId,
    },
    SliceTurns {
        node: NodeId,
    },
    /// The controller closed it.
    StreamEnds {
        node: NodeId,
        session: u64,
    },
    Dial {
        node: NodeId,
    },
    AgentDies {
        node: NodeId,
    },
    Reboot {
        node: NodeId,
    },
    AgentStarts {
        node: NodeId,
    },
    ControllerDies,
    ControllerStarts,
    Misfortune,
    Gpus,
    Tick,
    Liveness,
    Purge,
    Tidy,
}

/// A simulated cluster.
pub struct World {
    seed: u64,
    dice: Dice,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    queued: u64,
    disk: MemDisk,
    controller: Option<Controller>,
    life: u64,
    /// What the disk must tell while no controller runs.
    promised: State,
    agents: Vec<Agent>,
    sessions: u64,
    /// Per node and direction: when the last message arrives.
    lanes: BTreeMap<(NodeId, bool), Timestamp>,
    client: Client,
    gpus: Gpus,
    model: Model,
    recorded: BTreeSet<(JobId, Attempt)>,
    pass_due: bool,
    /// How many facts there were when the state was last looked at.
    looked_at: u64,
    /// When slices turn, as far as that is in the queue.
    turns: BTreeSet<(NodeId, Timestamp)>,
    faults: bool,
    /// When the faults stopped.
    calm_since: Timestamp,
    trace: VecDeque<String>,
    tally: Tally,
}

impl World {
    /// The world of a seed, before anything happened.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let cluster = config::cluster(&mut dice);
        let agents: Vec<Agent> = cluster.nodes.iter().cloned().map(Agent::new).collect();
        let mut world = World {
            seed,
            dice,
            now: Timestamp(1_000_000_000),
            queue: BTreeMap::new(),
            queued: 0,
            disk: MemDisk::default(),
            controller: None,
            life: 0,
            promised: State::new(),
            agents,
            sessions: 0,
            lanes: BTreeMap::new(),
            client: Client::default(),
            gpus: Gpus::default(),
            model: Model::default(),
            recorded: BTreeSet::new(),
            pass_due: false,
            looked_at: 0,
            turns: BTreeSet::new(),
            faults: true,
            calm_since: Timestamp(0),
            trace: VecDeque::new(),
            tally: Tally::default(),
        };
        for happening in [
            Happening::ControllerStarts,
            Happening::Users,
            Happening::AskAgain,
            Happening::Misfortune,
            Happening::Gpus,
            Happening::Tick,
            Happening::Liveness,
            Happening::Purge,
        ] {
            world.after(1, happening);
        }
        for node in world.nodes() {
            world.after(10, Happening::Dial { node });
            world.after(HEARTBEAT_MS, Happening::Heartbeat { node });
        }
        world
    }

    /// Runs so many happenings with faults, and then without until everything has ended.
    ///
    /// # Errors
    /// A promise that was not kept.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.happen()?;
        }
        self.faults = false;
        self.calm_since = self.now;
        self.note("the faults stop".into());
        self.after(1, Happening::Tidy);
        while !self.is_over() {
            self.happen()?;
            if self.now > self.calm_since.plus_seconds(PATIENCE_SECONDS) {
                let open = self.controller.as_ref().map(|c| model::open_jobs(&c.state));
                return Err(format!("it never ends: {open:?}"));
            }
        }
        self.last_look()
    }

    /// What went on so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { seconds: self.now.since(Timestamp(1_000_000_000)) / 1000, ..self.tally }
    }

    /// The report of a broken promise.
    #[must_use]
    pub fn broken(&self, what: String) -> Broken {
        Broken { seed: self.seed, what, trace: self.trace.iter().cloned().collect() }
    }

    fn nodes(&self) -> Vec<NodeId> {
        (0u32..).map(NodeId).take(self.agents.len()).collect()
    }

    fn after(&mut self, ms: i64, happening: Happening) {
        self.at(Timestamp(self.now.0 + ms), happening);
    }

    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), happening);
    }

    fn note(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9.3} {line}", self.now.0 as f64 / 1000.0 - 1e6));
    }

    fn agent(&mut self, node: NodeId) -> &mut Agent {
        &mut self.agents[node.0 as usize]
    }

    fn is_over(&self) -> bool {
        let Some(controller) = &self.controller else { return false };
        let quiet =
            |agent: &Agent| agent.session != 0 && !agent.slices.values().any(|s| s.occupies());
        let state = &controller.state;
        self.client.open.is_empty()
            && state.jobs.values().all(|job| job.phase.is_ended())
            && state.arrays.values().all(|array| array.pending.is_empty())
            && self.agents.iter().all(quiet)
    }

    fn last_look(&self) -> Result<(), String> {
        let controller = self.controller.as_ref().expect("it is over only with a controller");
        for node in &controller.state.nodes {
            if *node.free != node.facts.whole || !node.jobs.is_empty() {
                return Err(format!("{} is not free at the end", node.config.name));
            }
        }
        Ok(())
    }

    fn happen(&mut self) -> Result<(), String> {
        let ((at, _), happening) = self.queue.pop_first().expect("ticks never end");
        self.now = at;
        self.tally.steps += 1;
        self.tell(&happening);
        self.dispatch(happening)?;
        if let Some(controller) = &self.controller {
            // Between facts the state stays as it was looked at.
            let changed = std::mem::replace(&mut self.looked_at, self.tally.events);
            if changed != self.tally.events {
                self.model.look(&controller.state)?;
            }
        }
        self.model.watch(&self.agents)
    }

    fn tell(&mut self, happening: &Happening) {
        match happening {
            Happening::Tick | Happening::Liveness | Happening::Purge | Happening::Misfortune => {}
            Happening::Heartbeat { .. } | Happening::AskAgain | Happening::Users => {}
            Happening::ToController { said: Said::Heartbeat, .. } => {}
            Happening::ToAgent { node, wants, session } => {
                let wants: Vec<String> = wants.iter().map(Want::show).collect();
                self.note(format!("to {node:?} in {session}: {}", wants.join(", ")));
            }
            Happening::Planned { starts, .. } => {
                let show = |s: &StartWish| {
                    format!("{} on {:?}", s.job, s.placement.nodes().collect::<Vec<_>>())
                };
                let starts: Vec<String> = starts.iter().map(show).collect();
                self.note(format!("planned: {}", starts.join(", ")));
            }
            other => self.note(format!("{other:?}")),
        }
    }

    fn dispatch(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Users => self.users(),
            Happening::AskAgain => self.ask_again(),
            Happening::Pass => {
                self.pass_due = false;
                self.pass();
                Ok(())
            }
            Happening::Planned { starts, life } if life == self.life => {
                self.commit(vec![Command::Commit(starts)]).map(drop)
            }
            Happening::Planned { .. } => Ok(()),
            Happening::ToAgent { node, session, wants } => {
                self.agent_hears(node, session, wants);
                Ok(())
            }
            Happening::ToController { node, session, said } => {
                self.controller_hears(node, session, said)
            }
            Happening::Heartbeat { node } => {
                self.say(node, Said::Heartbeat);
                self.after(HEARTBEAT_MS, Happening::Heartbeat { node });
                Ok(())
            }
            Happening::SliceTurns { node } => {
                self.turns.remove(&(node, self.now));
                self.slices_turn(node);
                Ok(())
            }
            Happening::StreamEnds { node, session } => {
                if self.agent(node).session == session {
                    self.agent(node).session = 0;
                    self.after(100, Happening::Dial { node });
                }
                Ok(())
            }
            Happening::Dial { node } => {
                self.dial(node);
                Ok(())
            }
            Happening::AgentDies { node } => {
                self.agent_dies(node, false);
                Ok(())
            }
            Happening::Reboot { node } => {
                self.agent_dies(node, true);
                Ok(())
            }
            Happening::AgentStarts { node } => {
                self.agent(node).up = true;
                self.slices_turn(node);
                self.after(10, Happening::Dial { node });
                Ok(())
            }
            Happening::ControllerDies => {
                if let Some(controller) = self.controller.take() {
                    self.controller_died(controller.state);
                }
                Ok(())
            }
            Happening::ControllerStarts => self.start_controller(),
            Happening::Misfortune => {
                self.misfortune();
                Ok(())
            }
            Happening::Gpus => self.gpus(),
            Happening::Tick => {
                self.after(5000, Happening::Tick);
                self.wake_pass();
                self.commit(vec![Command::Tick]).map(drop)
            }
            Happening::Liveness => self.liveness(),
            Happening::Purge => self.purge(),
            Happening::Tidy => self.tidy(),
        }
    }

    // ---- the controller

    /// Commits wishes; the answers, unless the controller is down or went down over it.
    fn commit(&mut self, commands: Vec<Command>) -> Result<Option<Answers>, String> {
        let fault = (self.faults && self.dice.permille(12)).then(|| match self.dice.below(3) {
            0 => FaultKind::Refuse,
            1 => FaultKind::Tear { keep: self.dice.below(40) as usize },
            _ => FaultKind::LoseReply,
        });
        let Some(controller) = &mut self.controller else { return Ok(None) };
        let committed = controller.commit(commands, self.now, fault, &mut self.dice)?;
        match committed {
            Committed::Dead { expected, durable } => {
                self.facts(&durable)?;
                self.controller = None;
                self.note(format!("the controller dies over a commit: {fault:?}"));
                self.controller_died(*expected);
                Ok(None)
            }
            Committed::Done { replies, effects } => {
                for reply in replies.iter().flatten() {
                    self.facts(&reply.events)?;
                }
                self.act(effects);
                Ok(Some(replies))
            }
        }
    }

    fn facts(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            self.note(format!("  {}", tally::brief(event)));
            self.tally.count(event);
            self.model.fact(event)?;
        }
        Ok(())
    }

    fn act(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Desire { node, job, attempt } => self.want(node, &[(job, attempt)]),
                Effect::Record { job, attempt } => {
                    self.recorded.insert((job, attempt));
                }
                Effect::Notify { .. } => {}
                Effect::WakePass => self.wake_pass(),
            }
        }
    }

    fn wake_pass(&mut self) {
        if !self.pass_due {
            self.pass_due = true;
            let ms = self.dice.between(0, 200);
            self.after(ms, Happening::Pass);
        }
    }

    fn pass(&mut self) {
        let Some(controller) = &self.controller else { return };
        let mut view = plan::view(&controller.state, self.now, &Policy::default());
        for (id, node) in (0u32..).map(NodeId).zip(&mut view.nodes) {
            node.usable &= controller.sessions.contains_key(&id);
        }
        let starts = plan::plan(&view, &Policy::default(), self.now, DEFAULT_FUEL).starts;
        if !starts.is_empty() {
            // Much may change before a plan arrives.
            let slow = self.faults && self.dice.permille(100);
            let ms = if slow { self.dice.between(100, 5000) } else { self.dice.between(0, 20) };
            self.after(ms, Happening::Planned { starts, life: self.life });
        }
    }

    fn controller_died(&mut self, promised: State) {
        self.promised = promised;
        self.tally.controller_kills += 1;
        let ms = self.dice.between(100, 20_000);
        self.after(ms, Happening::ControllerStarts);
        // Its streams break; each agent notices in its own time.
        for node in self.nodes() {
            self.agent(node).session = 0;
            let ms = self.dice.between(1, 5000);
            self.after(ms, Happening::Dial { node });
        }
    }

    fn start_controller(&mut self) -> Result<(), String> {
        if self.controller.is_some() {
            return Ok(());
        }
        let (controller, effects) = Controller::start(&self.disk, &self.promised, self.now)?;
        self.controller = Some(controller);
        self.life += 1;
        self.act(effects);
        let cluster = config::cluster(&mut Dice::new(self.seed));
        self.commit(vec![Command::Configure(Box::new(cluster))]).map(drop)
    }

    fn liveness(&mut self) -> Result<(), String> {
        self.after(HEARTBEAT_MS, Happening::Liveness);
        let Some(controller) = &self.controller else { return Ok(()) };
        for node in controller.silent(self.now, NODE_TIMEOUT_MS) {
            let Some(controller) = &mut self.controller else { break };
            let evicted = controller.sessions.remove(&node);
            let held = controller.state.jobs_on(node).map(|job| (node, job.id, job.attempt));
            let held: Vec<_> = held.collect();
            self.note(format!("{node:?} is silent and given up"));
            // Noted before the commit: it may be durable though nobody is told.
            self.model.given_up.extend(held);
            self.tally.lost_nodes += 1;
            if let Some(session) = evicted {
                let ms = self.dice.between(1, 5000);
                self.after(ms, Happening::StreamEnds { node, session });
            }
            self.commit(vec![Command::NodeLost { node }])?;
        }
        Ok(())
    }

    fn purge(&mut self) -> Result<(), String> {
        self.after(20_000, Happening::Purge);
        let Some(controller) = &self.controller else { return Ok(()) };
        let state = &controller.state;
        let mut old = state.purgeable(self.now, 5);
        old.retain(|id| match state.jobs.get(id) {
            Some(job) => self.recorded.contains(&(*id, job.attempt)),
            None => true,
        });
        if old.is_empty() {
            return Ok(());
        }
        self.commit(vec![Command::Purge(old)]).map(drop)
    }

    fn tidy(&mut self) -> Result<(), String> {
        self.after(30_000, Happening::Tidy);
        let Some(controller) = &self.controller else { return Ok(()) };
        let hopeless = self.now > self.calm_since.plus_seconds(HOPELESS_SECONDS);
        let commands = client::tidy(&controller.state, hopeless);
        if commands.is_empty() {
            return Ok(());
        }
        self.commit(commands).map(drop)
    }

    // ---- agents' eyes

    fn gpus(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let ms = self.dice.between(2000, 30_000);
        self.after(ms, Happening::Gpus);
        let nodes = self.nodes();
        let node = *self.dice.pick(&nodes).expect("a cluster has nodes");
        let Some(controller) = &self.controller else { return Ok(()) };
        if !controller.sessions.contains_key(&node) {
            return Ok(());
        }
        let commands = self.gpus.turn(&controller.state, node, self.now, &mut self.dice);
        self.commit(commands).map(drop)
    }

    // ---- users

    fn users(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let ms = self.dice.between(50, 4000);
        self.after(ms, Happening::Users);
        let nodes = u32::try_from(self.agents.len()).expect("few nodes");
        let commands = self.client.wishes(nodes, self.now, &mut self.dice);
        self.ask(commands)
    }

    fn ask_again(&mut self) -> Result<(), String> {
        self.after(15_000, Happening::AskAgain);
        let again = self.client.open.values().cloned();
        let again: Vec<Command> = again.map(|s| Command::Submit(Box::new(s))).collect();
        if again.is_empty() { Ok(()) } else { self.ask(again) }
    }

    fn ask(&mut self, commands: Vec<Command>) -> Result<(), String> {
        let requests: Vec<Option<[u8; 16]>> = commands
            .iter()
            .map(|command| match command {
                Command::Submit(submit) => Some(submit.request_id),
                _ => None,
            })
            .collect();
        let Some(replies) = self.commit(commands)? else { return Ok(()) };
        for (request, reply) in requests.into_iter().zip(replies) {
            let Some(request) = request else { continue };
            let job = reply.ok().and_then(|reply| reply.job);
            // The job of an old request may be purged: then the request is a new one.
            let forgotten = |first: &JobId| !self.model.remembers(*first);
            if self.model.answered.get(&request).is_some_and(forgotten) {
                self.model.answered.remove(&request);
            }
            if let Some(job) = job {
                self.model.acknowledge(request, job)?;
                self.tally.jobs += 1;
            }
            self.client.answered(request, job);
        }
        Ok(())
    }
}

type Answers = Vec<Result<muster_controller::engine::Reply, muster_core::rejection::Rejection>>;

impl Want {
    fn show(&self) -> String {
        format!("{}.{} {:?}", self.id.0, self.id.1, self.desired)
    }
}

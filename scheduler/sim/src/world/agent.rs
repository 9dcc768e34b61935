//! A node's agent, as far as the controller can tell: slices, how far each is, and what it says.
//!
//! The spool and the processes outlive the agent; a reboot takes the processes and leaves the
//! spool. All times of what a slice does are in it, so that an agent that was down finds out when
//! it comes back.

use std::collections::BTreeMap;

use muster_core::command::{SliceExit, SliceReport};
use muster_core::effect::{Desired, StopCause};
use muster_model::{Attempt, ExitStatus, JobId, NodeConfig, Slice, Timestamp, Usage};

use crate::dice::Dice;

pub(super) type SliceId = (JobId, Attempt);

/// What the controller attaches to a wish, so that the agent can launch.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub slice: Slice,
    /// The first node runs the batch script.
    pub batch: bool,
    /// Milliseconds; `None`: unlimited.
    pub limit_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// Spool, cgroup, prolog.
    Preparing,
    Ready,
    /// Processes are there (on the batch node) or may come.
    Running {
        started_at: Timestamp,
    },
    /// Told to end; it takes a while until nothing is left.
    Stopping {
        started_at: Option<Timestamp>,
        cause: StopCause,
    },
    /// Nothing is left.
    Over(SliceReport),
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub orders: Orders,
    pub stage: Stage,
    /// When the stage ends by itself.
    pub until: Option<Timestamp>,
    pub run: bool,
    pub suspended: bool,
    /// Goes as soon as nothing is left.
    pub forget: bool,
}

impl Held {
    /// Whether it has processes of the user's.
    pub(super) fn alive(&self) -> bool {
        let started = match self.stage {
            Stage::Running { .. } => true,
            Stage::Stopping { started_at, .. } => started_at.is_some(),
            Stage::Preparing | Stage::Ready | Stage::Over(_) => false,
        };
        started && self.orders.batch
    }

    /// Whether it occupies what its slice names.
    pub(super) fn occupies(&self) -> bool {
        !matches!(self.stage, Stage::Over(_))
    }

    fn report(&self) -> Option<SliceReport> {
        match &self.stage {
            Stage::Preparing | Stage::Stopping { .. } => None,
            Stage::Ready => Some(SliceReport::Ready),
            Stage::Running { started_at } if self.orders.batch => {
                Some(SliceReport::Running { started_at: *started_at })
            }
            Stage::Running { .. } => Some(SliceReport::Ready),
            Stage::Over(report) => Some(report.clone()),
        }
    }
}

/// One node: what is on its disk, what runs on it, and its agent if that runs.
#[derive(Debug)]
pub(super) struct Agent {
    pub config: NodeConfig,
    /// Whether the agent's process runs.
    pub up: bool,
    pub boot: u64,
    /// The stream in use; messages of others are void. 0: none is open.
    pub session: u64,
    pub slices: BTreeMap<SliceId, Held>,
}

impl Agent {
    pub(super) fn new(config: NodeConfig) -> Self {
        Agent { config, up: true, boot: 1, session: 0, slices: BTreeMap::new() }
    }

    /// Everything in the spool, for the first message of a stream.
    pub(super) fn listed(&self) -> Vec<(SliceId, Option<SliceReport>)> {
        self.slices.iter().map(|(id, held)| (*id, held.report())).collect()
    }

    /// How far one slice is, if that is worth telling.
    pub(super) fn report(&self, id: SliceId) -> Option<SliceReport> {
        self.slices.get(&id).and_then(Held::report)
    }

    /// What the controller wants of a slice. Returns what to report at once.
    pub(super) fn want(
        &mut self,
        id: SliceId,
        desired: Desired,
        orders: Option<Orders>,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Option<SliceReport> {
        match desired {
            Desired::Prepare | Desired::Run { .. } => {
                let run = matches!(desired, Desired::Run { .. });
                let newer = |(job, attempt): &SliceId| *job == id.0 && *attempt > id.1;
                if !self.slices.contains_key(&id) {
                    if self.slices.keys().any(newer) {
                        return None;
                    }
                    let until = Some(Timestamp(now.0 + dice.between(10, 3000)));
                    let (stage, suspended, forget) = (Stage::Preparing, false, false);
                    let held = Held { orders: orders?, stage, until, run, suspended, forget };
                    self.slices.insert(id, held);
                    return None;
                }
                let held = self.slices.get_mut(&id).expect("it was just looked for");
                held.run |= run;
                held.suspended = matches!(desired, Desired::Run { suspended: true });
                if held.run && held.stage == Stage::Ready {
                    launch(held, now, dice);
                }
                held.report()
            }
            Desired::Stop(cause) => {
                let Some(held) = self.slices.get_mut(&id) else {
                    return Some(SliceReport::Finished { exit: None });
                };
                stop(held, cause, now, dice);
                held.report()
            }
            Desired::Forget => {
                let held = self.slices.get_mut(&id)?;
                held.forget = true;
                if held.occupies() {
                    stop(held, StopCause::Unknown, now, dice);
                } else {
                    self.slices.remove(&id);
                }
                None
            }
        }
    }

    /// Lets time pass: stages that are over go on to the next. Returns whose report is new.
    pub(super) fn advance(&mut self, now: Timestamp, dice: &mut Dice) -> Vec<SliceId> {
        let mut news = Vec::new();
        for (id, held) in &mut self.slices {
            while held.until.is_some_and(|until| until <= now) {
                held.until = None;
                step(held, now, dice);
                news.push(*id);
            }
        }
        self.slices.retain(|_, held| !held.forget || held.occupies());
        news
    }

    /// When the next stage ends.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.slices.values().filter_map(|held| held.until).min()
    }

    /// The processes are gone; the spool is not. Exit records that were written stay.
    pub(super) fn reboot(&mut self) {
        self.up = false;
        self.session = 0;
        self.boot += 1;
        for held in self.slices.values_mut().filter(|held| held.occupies()) {
            let reason = "the node was rebooted".into();
            held.stage = Stage::Over(SliceReport::Lost { reason });
            held.until = None;
        }
    }
}

fn launch(held: &mut Held, now: Timestamp, dice: &mut Dice) {
    held.stage = Stage::Running { started_at: now };
    // A node without the batch script has nothing that could end.
    held.until = held.orders.batch.then(|| {
        let ends = dice.between(100, 200_000);
        let enforced = held.orders.limit_ms.map_or(ends, |limit| ends.min(limit + 500));
        Timestamp(now.0 + enforced)
    });
}

fn stop(held: &mut Held, cause: StopCause, now: Timestamp, dice: &mut Dice) {
    let started_at = match held.stage {
        Stage::Running { started_at } => Some(started_at),
        Stage::Preparing | Stage::Ready => None,
        Stage::Stopping { .. } | Stage::Over(_) => return,
    };
    held.stage = Stage::Stopping { started_at, cause };
    held.until = Some(Timestamp(now.0 + dice.between(10, 40_000)));
}

/// A stage that ended by itself.
fn step(held: &mut Held, now: Timestamp, dice: &mut Dice) {
    let failed =
        |reason: &str, node_fault| SliceReport::LaunchFailed { reason: reason.into(), node_fault };
    match held.stage.clone() {
        Stage::Preparing if dice.permille(30) => {
            let node_fault = dice.permille(300);
            held.stage = Stage::Over(failed("the prolog failed", node_fault));
        }
        Stage::Preparing => {
            held.stage = Stage::Ready;
            if held.run {
                launch(held, now, dice);
            }
        }
        Stage::Running { .. } if held.suspended => {
            held.until = Some(now.plus_seconds(5));
        }
        Stage::Running { started_at } => {
            let ran = now.since(started_at);
            let timed_out = held.orders.limit_ms.is_some_and(|limit| ran > limit);
            let code = if dice.permille(200) { 1 } else { 0 };
            let exit = exit(started_at, now, ExitStatus { code, signal: 0 }, timed_out);
            held.stage = Stage::Over(SliceReport::Finished { exit: Some(exit) });
        }
        Stage::Stopping { started_at, cause } => {
            let killed = ExitStatus { code: 0, signal: 15 };
            let timed_out = cause == StopCause::TimeLimit;
            let began = started_at.filter(|_| held.orders.batch);
            let exit = began.map(|began| exit(began, now, killed, timed_out));
            held.stage = Stage::Over(SliceReport::Finished { exit });
        }
        Stage::Ready | Stage::Over(_) => {}
    }
}

fn exit(started_at: Timestamp, now: Timestamp, status: ExitStatus, timed_out: bool) -> SliceExit {
    let usage = Usage::default();
    SliceExit { status, oom: false, timed_out, started_at, ended_at: now, usage }
}

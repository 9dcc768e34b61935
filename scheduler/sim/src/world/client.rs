//! Users and operators: what they wish next, and what they ask for again until it is answered.

use std::collections::BTreeMap;

use muster_core::command::{Command, JobChange, NodeChange, NodeVerb, Submit, Target, TimeChange};
use muster_core::config::{Actor, Role};
use muster_core::state::State;
use muster_model::{Dependency, JobId, NodeId, TimeLimit, Timestamp, Uid};

use super::config::spec;
use crate::dice::Dice;

pub(super) const OPERATOR: Actor = Actor { uid: Uid(0), role: Role::Admin };

/// Everybody who asks.
#[derive(Debug, Default)]
pub(super) struct Client {
    requests: u64,
    /// Not answered yet; asked again until they are.
    pub open: BTreeMap<[u8; 16], Submit>,
    /// Answered before; a user may ask again all the same.
    answered: Vec<Submit>,
    /// Jobs that were acknowledged, to be named in verbs and dependencies.
    pub known: Vec<JobId>,
}

impl Client {
    /// The next wishes, which arrive together.
    pub(super) fn wishes(&mut self, nodes: u32, now: Timestamp, dice: &mut Dice) -> Vec<Command> {
        let many = 1 + if dice.permille(300) { dice.below(4) } else { 0 };
        (0..many).map(|_| self.wish(nodes, now, dice)).collect()
    }

    fn wish(&mut self, nodes: u32, now: Timestamp, dice: &mut Dice) -> Command {
        let roll = dice.below(100);
        let job = match dice.pick(&self.known) {
            Some(job) if roll >= 50 => JobId(job.0 + if dice.permille(200) { 1 } else { 0 }),
            _ => return self.submission(now, dice),
        };
        let (actor, target) = (OPERATOR, Target::Job(job));
        match roll {
            50..=57 => Command::Cancel { actor, target },
            58..=64 => Command::Hold { actor, target, by_user: dice.permille(500) },
            65..=73 => Command::Release { actor, target },
            74..=79 => Command::Requeue { actor, target, hold: dice.permille(200) },
            80..=83 => Command::Suspend { actor, target },
            84..=88 => Command::Resume { actor, target },
            89..=95 => Command::Update { actor, target, change: Box::new(self.change(now, dice)) },
            96..=97 => {
                let verb = match dice.below(3) {
                    0 => NodeVerb::Drain { reason: "looks odd".into() },
                    1 => NodeVerb::Undrain,
                    _ => NodeVerb::Resume,
                };
                let change = NodeChange { verb: Some(verb), ..NodeChange::default() };
                let nodes = vec![NodeId(dice.below(nodes.into()) as u32)];
                Command::UpdateNodes { actor, nodes, change }
            }
            // A user who did not trust the answer.
            _ => match dice.pick(&self.answered) {
                Some(submit) => Command::Submit(Box::new(submit.clone())),
                None => self.submission(now, dice),
            },
        }
    }

    fn submission(&mut self, now: Timestamp, dice: &mut Dice) -> Command {
        self.requests += 1;
        let mut request_id = [7; 16];
        request_id[..8].copy_from_slice(&self.requests.to_be_bytes());
        let spec = spec(dice, &self.known, now);
        let actor = Actor { uid: spec.user.uid, role: Role::User };
        let submit = Submit { actor, groups: Vec::new(), request_id, spec, components: Vec::new() };
        self.open.insert(request_id, submit.clone());
        Command::Submit(Box::new(submit))
    }

    fn change(&self, now: Timestamp, dice: &mut Dice) -> JobChange {
        let mut change = JobChange::default();
        match dice.below(6) {
            0 => change.nice = Some(dice.between(-10, 10) as i32),
            1 => change.name = Some("renamed".into()),
            2 => {
                let limit = TimeLimit::minutes(1 + dice.below(5) as u32);
                change.time_limit = Some(TimeChange::To(limit));
            }
            3 => change.begin = Some(now.plus_seconds(dice.between(0, 60))),
            4 => change.dependency = Some(Dependency::default()),
            _ => change.array_throttle = Some(dice.below(4) as u32),
        }
        change
    }

    /// An answer came.
    pub(super) fn answered(&mut self, request: [u8; 16], job: Option<JobId>) {
        if let Some(submit) = self.open.remove(&request) {
            self.answered.extend(job.map(|_| submit));
        }
        if let Some(job) = job.filter(|job| !self.known.contains(job)) {
            self.known.push(job);
        }
    }
}

/// What an operator does so that everything can end: nothing stays held, suspended or drained,
/// and what waits for something that cannot happen is cancelled.
pub(super) fn tidy(state: &State, hopeless: bool) -> Vec<Command> {
    let actor = OPERATOR;
    let change = || NodeChange { verb: Some(NodeVerb::Resume), ..NodeChange::default() };
    let drained = state.nodes.iter().filter(|node| !node.health.takes_work());
    let mut out: Vec<Command> = drained
        .filter(|node| node.health.down.as_ref().is_none_or(|mark| mark.by.is_some()))
        .map(|node| Command::UpdateNodes { actor, nodes: vec![node.id], change: change() })
        .collect();
    out.extend(super::gpus::tidy(state));
    let jobs = state.jobs.values().filter(|job| !job.phase.is_ended()).map(|job| job.id);
    let arrays = state.arrays.values().filter(|a| !a.pending.is_empty()).map(|a| a.id);
    for job in jobs.chain(arrays) {
        out.push(Command::Release { actor, target: Target::Job(job) });
        out.push(Command::Resume { actor, target: Target::Job(job) });
    }
    if hopeless {
        let doomed = state
            .jobs
            .values()
            .filter(|job| job.phase.is_pending() && !job.spec.dependency.is_empty());
        let arrays = state.arrays.values().filter(|array| !array.spec.dependency.is_empty());
        for job in doomed.map(|job| job.id).chain(arrays.map(|array| array.id)) {
            out.push(Command::Cancel { actor, target: Target::Job(job) });
        }
    }
    out
}

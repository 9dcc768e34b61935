//! Turns wishes into facts, or refuses them. Looks only; nothing changes until the facts are
//! applied.
//!
//! - `target`: which jobs a verb is about, and who may
//! - `submit` (with `admit`: what a spec must keep to, `fit`: whether it could ever run)
//! - `cancel`, `hold`, `requeue`, `suspend`, `update`: verbs on jobs
//! - `start`: a plan's choices, validated anew; `slice`: what agents report
//! - `het`: what the components of a heterogeneous job have in common
//! - `gpu`: GPUs that are found, fail, and come back
//! - `node`: registration, loss, faults; `admin`: operators' wishes; `tick`: what time brings
//! - `reservation`: nodes kept for some jobs: made, changed, deleted, over

mod admin;
mod admit;
mod cancel;
mod fit;
mod gpu;
mod het;
mod hold;
mod node;
mod requeue;
mod reservation;
mod slice;
mod start;
mod submit;
mod suspend;
mod target;
mod tick;
mod update;

use muster_model::{IndexSet, JobId, Timestamp};

use crate::command::Command;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::State;

/// What a wish comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be applied and logged together; may be none.
    pub events: Vec<Event>,
    pub reply: Reply,
}

/// What the caller is told once the facts are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Done,
    /// `repeated`: the request was answered before, and this is the first answer.
    Submitted {
        job: JobId,
        repeated: bool,
    },
    /// One per job, or per group of tasks that fared alike.
    Jobs(Vec<JobResult>),
    /// The reservation that was made.
    Reservation(Box<str>),
    /// Of a plan: what could not be started any more.
    Starts {
        accepted: usize,
        refused: Vec<(JobId, Rejection)>,
    },
}

/// How a verb went for one job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// The array's id where `tasks` is set.
    pub job: JobId,
    pub tasks: Option<IndexSet>,
    pub result: Result<(), Rejection>,
}

impl Decision {
    fn done(events: Vec<Event>) -> Self {
        Decision { events, reply: Reply::Done }
    }
}

/// Decides.
///
/// # Errors
/// The wish as a whole is refused: unknown job, not permitted, impossible. Verbs on several jobs
/// are answered one by one in the reply.
pub fn decide(state: &State, command: &Command, now: Timestamp) -> Result<Decision, Rejection> {
    let now = now.max(state.clock);
    let Decision { events, reply } = alone(state, command, now)?;
    Ok(Decision { events: het::shared_fate(state, events, now), reply })
}

/// As if no job had others to share its fate.
fn alone(state: &State, command: &Command, now: Timestamp) -> Result<Decision, Rejection> {
    match command {
        Command::Configure(config) => admin::configure(state, config, now),
        Command::Submit(submit) => submit::submit(state, submit, now),
        Command::Cancel { actor, target } => cancel::cancel(state, *actor, target, now),
        Command::Update { actor, target, change } => {
            update::update(state, *actor, target, change, now)
        }
        Command::Hold { actor, target, by_user } => hold::hold(state, *actor, target, *by_user),
        Command::Release { actor, target } => hold::release(state, *actor, target, now),
        Command::Requeue { actor, target, hold } => {
            requeue::requeue(state, *actor, target, *hold, now)
        }
        Command::Suspend { actor, target } => suspend::suspend(state, *actor, target, now),
        Command::Resume { actor, target } => suspend::resume(state, *actor, target, now),
        Command::Commit(wishes) => Ok(start::commit(state, wishes, now)),
        Command::UpdateNodes { actor, nodes, change } => {
            admin::update_nodes(state, *actor, nodes, change, now)
        }
        Command::UpdatePartition { actor, name, change } => {
            admin::update_partition(state, *actor, name, change)
        }
        Command::CreateReservation { actor, wish } => reservation::create(state, *actor, wish, now),
        Command::UpdateReservation { actor, name, change } => {
            reservation::update(state, *actor, name, change, now)
        }
        Command::DeleteReservation { actor, name } => reservation::delete(state, *actor, name, now),
        Command::Register { node, inventory } => node::register(state, *node, inventory, now),
        Command::NodeLost { node } => node::lost(state, *node, now),
        Command::NodeFault { node, reason } => node::fault(state, *node, reason, now),
        Command::GpuReport { node, faults } => gpu::report(state, *node, faults, now),
        Command::UpdateGpus { actor, nodes, gpus, verb } => {
            gpu::update(state, *actor, nodes, gpus, verb, now)
        }
        Command::Slice { job, attempt, node, report } => {
            Ok(slice::report(state, *job, *attempt, *node, report, now))
        }
        Command::Tick => Ok(tick::tick(state, now)),
        Command::Purge(jobs) => Ok(admin::purge(state, jobs)),
    }
}

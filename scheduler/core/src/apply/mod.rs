//! Makes facts true. Cannot fail: what may not be was refused before it became a fact, and a fact
//! that contradicts the state is a fault of ours and stops the process.
//!
//! - `job`: a job's life; `array`: tasks that are not jobs yet; `update`: changes to a spec
//! - `node`: nodes, partitions, the config

mod array;
mod job;
mod node;
pub(crate) mod update;

pub(crate) use node::GPU;

use crate::event::Event;
use crate::lifecycle::Step;
use crate::state::State;

/// Makes a fact true.
pub fn apply(state: &mut State, event: &Event) {
    match event {
        Event::Configured { config, at } => {
            state.advance_clock(*at);
            node::configured(state, config);
        }
        Event::Submitted { job, request_id, spec, expected, at } => {
            state.advance_clock(*at);
            job::submitted(state, *job, *request_id, (spec, *expected), *at);
        }
        Event::Started { job, attempt, partition, placement, end_at, time_limit, at } => {
            state.advance_clock(*at);
            let ends = (*end_at, *time_limit);
            job::started(state, *job, *attempt, partition, placement, ends, *at);
        }
        Event::SliceReady { job, node, .. } => job::step(state, *job, Step::Ready(*node)),
        Event::Running { job, started_at, end_at, .. } => {
            job::running(state, *job, *started_at, *end_at);
        }
        Event::Completing { job, outcome, then, at, .. } => {
            state.advance_clock(*at);
            let step = Step::Complete { outcome: outcome.clone(), then: *then, at: *at };
            job::step(state, *job, step);
        }
        Event::SliceCleared { job, node, exit, .. } => {
            job::slice_cleared(state, *job, *node, *exit);
        }
        Event::Ended { job, outcome, at, .. } => {
            state.advance_clock(*at);
            job::ended(state, *job, outcome, *at);
        }
        Event::Requeued { job, outcome, hold, eligible_at, at, .. } => {
            state.advance_clock(*at);
            job::requeued(state, *job, outcome, *hold, *eligible_at);
        }
        Event::Held { job, tasks, hold } => array::held(state, *job, tasks.as_ref(), *hold),
        Event::Released { job, tasks, at } => {
            state.advance_clock(*at);
            array::released(state, *job, tasks.as_ref(), *at);
        }
        Event::TasksEnded { job, tasks, outcome, at } => {
            state.advance_clock(*at);
            array::tasks_ended(state, *job, tasks, outcome, *at);
        }
        Event::Updated { job, tasks, change, at } => {
            state.advance_clock(*at);
            update::updated(state, *job, tasks.as_ref(), change);
        }
        Event::Suspended { job, at, .. } => {
            state.advance_clock(*at);
            job::step(state, *job, Step::Suspend { at: *at });
        }
        Event::Resumed { job, end_at, at, .. } => {
            state.advance_clock(*at);
            job::step(state, *job, Step::Resume { end_at: *end_at, at: *at });
        }
        Event::Registered { node, inventory, at } => {
            state.advance_clock(*at);
            node::registered(state, *node, inventory);
        }
        Event::NodeDrain { node, mark } => {
            node::of(state, *node).health.drain.clone_from(mark);
        }
        Event::NodeDown { node, mark } => {
            node::of(state, *node).health.down.clone_from(mark);
        }
        Event::GpuDrain { node, gpu, mark, at } => {
            state.advance_clock(*at);
            node::gpu_drained(state, *node, *gpu, mark.as_ref(), *at);
        }
        Event::GpusFound { node, gpus } => node::gpus_found(state, *node, gpus),
        Event::NodeChanged { node, change } => node::changed(state, *node, change),
        Event::PartitionChanged { name, change } => node::partition_changed(state, name, change),
        Event::Purged { jobs } => job::purged(state, jobs),
        Event::ReservationSet { reservation, at } => {
            state.advance_clock(*at);
            let name = reservation.name.clone();
            state.reservations.insert(name.clone(), (**reservation).clone());
            state.replace_reserving(&name);
        }
        Event::ReservationGone { name, at } => {
            state.advance_clock(*at);
            state.reservations.remove(name);
            state.replace_reserving(name);
        }
    }
}

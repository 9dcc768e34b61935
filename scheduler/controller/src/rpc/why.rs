//! `muster why`: what is known about one waiting job.

use muster_core::state::{JobView, State};
use muster_model::JobId;
use muster_proto::v1;
use tonic::Status;

use super::query::opinions;
use super::status::unknown_job;
use crate::show::job::{Depth, Line, Shown, job};
use crate::show::why::reply;
use crate::{Controller, estimates};

/// Why it waits; of an array its first task that may start.
///
/// # Errors
/// NOT_FOUND, or the engine's.
pub async fn why(controller: &Controller, wire: v1::WhyRequest) -> Result<v1::WhyReply, Status> {
    let looked = estimates::why(controller, move |state| find(state, wire).map(id)).await?;
    let view = opinions(controller);
    let shown = Shown { now: view.now, depth: Depth::Details };
    let answer = controller.engine.look(move |state| {
        let line = Line::of(find(state, wire)?).next()?;
        let mut out = looked.as_ref().map(|why| reply(state, why)).unwrap_or_default();
        out.job = Some(job(state, &line, view.of(state, &line), shown));
        Some(out)
    });
    answer.await?.ok_or_else(|| unknown_job(wire.job))
}

fn find(state: &State, wire: v1::WhyRequest) -> Option<JobView<'_>> {
    match wire.array_task {
        Some(task) => state.find_task(JobId(wire.job), task),
        None => {
            let array = state.arrays.get(&JobId(wire.job)).filter(|a| !a.pending.is_empty());
            array.map(JobView::ArrayRest).or_else(|| state.find(JobId(wire.job)))
        }
    }
}

fn id(view: JobView<'_>) -> JobId {
    match view {
        JobView::Single(job) | JobView::Task(job) => job.id,
        // Of a task that waits: its own number may be that of a task that has started.
        JobView::ArrayRest(array) => {
            let first = array.pending.first().and_then(|task| array.task_id(task));
            first.unwrap_or(array.id)
        }
    }
}

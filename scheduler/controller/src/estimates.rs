//! Looking further ahead than a pass does: expected starts of jobs behind those that have a promised
//! one, and why one job waits. Planned off the engine's thread, one at a time, so that questions
//! never slow the passes down by more than one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_core::plan::why::{self, Start, Survey, Why};
use muster_core::plan::{self, Policy};
use muster_core::state::State;
use muster_model::{JobId, Timestamp};
use tokio::sync::Mutex;

use crate::Controller;
use crate::engine::EngineError;
use crate::pass;

/// Expected starts by job.
pub type Starts = Arc<BTreeMap<JobId, Start>>;

/// How long estimates are good for: whoever watches the queue asks every few seconds.
const FRESH: Duration = Duration::from_secs(5);

/// Estimates that were made. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Estimates {
    /// Held while planning.
    last: Arc<Mutex<Option<(Instant, Starts)>>>,
}

/// Expected starts of all jobs that a wide plan promises one.
///
/// # Errors
/// The engine's.
pub async fn starts(controller: &Controller) -> Result<Starts, EngineError> {
    let mut last = controller.estimates.last.lock().await;
    if let Some((at, starts)) = &*last
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(starts));
    }
    let now = crate::now();
    let policy = why::estimating(&pass::policy(&controller.config().scheduler));
    let mut view = controller.engine.look(move |state| plan::view(state, now, &policy)).await?;
    pass::leave_out_silent(controller, &mut view);
    let fuel = controller.config().scheduler.pass_fuel;
    let planned = tokio::task::spawn_blocking(move || {
        let plan = plan::plan(&view, &policy, now, fuel);
        why::starts(&view, &plan, now)
    });
    let starts = Arc::new(planned.await.expect("plan does not panic"));
    *last = Some((Instant::now(), Arc::clone(&starts)));
    Ok(starts)
}

/// Looks into one waiting job, which `find` names; `None`: it does not wait.
///
/// # Errors
/// The engine's.
pub async fn why(
    controller: &Controller,
    find: impl FnOnce(&State) -> Option<JobId> + Send + 'static,
) -> Result<Option<Why>, EngineError> {
    let _alone = controller.estimates.last.lock().await;
    let now = crate::now();
    let policy = pass::policy(&controller.config().scheduler);
    let survey = controller.engine.look(move |state| surveyed(state, now, &policy, find)).await?;
    let Some(mut survey) = survey else { return Ok(None) };
    pass::leave_out_silent(controller, &mut survey.view);
    let fuel = controller.config().scheduler.pass_fuel;
    let looked = tokio::task::spawn_blocking(move || why::why(&survey, &policy, now, fuel));
    Ok(Some(looked.await.expect("an explanation does not panic")))
}

fn surveyed(
    state: &State,
    now: Timestamp,
    policy: &Policy,
    find: impl FnOnce(&State) -> Option<JobId>,
) -> Option<Survey> {
    why::survey(state, now, policy, find(state)?)
}

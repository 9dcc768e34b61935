//! What time alone brings: ticks for deadlines and limits, and the end of ended jobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_core::command::Command;
use muster_model::JobId;
use tokio::time::MissedTickBehavior;

use crate::Controller;
use crate::engine::EngineError;

/// Between ticks: limits are kept by the nodes, so a second is fine.
const TICK: Duration = Duration::from_secs(1);
/// Between looks for jobs to purge.
const PURGE: Duration = Duration::from_secs(5);
/// Jobs of one purge: its commit must stay short.
const PURGED_AT_ONCE: usize = 2000;

/// Ticks and purges, for ever.
pub async fn run(controller: Arc<Controller>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purge = tokio::time::interval(PURGE);
    purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = tick.tick() => controller.engine.tell(Command::Tick).await.map(drop),
            _ = purge.tick() => purge_old(&controller).await,
        };
        match done {
            Ok(()) => {}
            Err(EngineError::Stopped) => return,
            Err(fault) => tracing::error!(%fault, "upkeep refused"),
        }
    }
}

async fn purge_old(controller: &Controller) -> Result<(), EngineError> {
    let runs: BTreeSet<JobId> = {
        let known = controller.usage.jobs();
        let look = controller.engine.look(move |state| {
            let active = |id: &JobId| state.jobs.get(id).is_some_and(|job| job.phase.is_active());
            known.into_iter().filter(active).collect()
        });
        look.await?
    };
    controller.usage.keep(&runs);
    let known = controller.steps.jobs();
    let look = controller.engine.look(move |state| {
        let there = |id: &JobId| state.jobs.contains_key(id);
        known.into_iter().filter(there).collect::<BTreeSet<JobId>>()
    });
    let there = look.await?;
    controller.steps.keep(|job| there.contains(job));
    loop {
        let now = crate::now();
        let old = controller.engine.look(move |state| state.purgeable(now, PURGED_AT_ONCE)).await?;
        let found = old.len();
        let written: Vec<JobId> =
            old.into_iter().filter(|job| !controller.recorder.waits_for(*job)).collect();
        let none_waits = written.len() == found;
        if !written.is_empty() {
            controller.engine.tell(Command::Purge(written)).await?;
        }
        if found < PURGED_AT_ONCE || !none_waits {
            return Ok(());
        }
    }
}

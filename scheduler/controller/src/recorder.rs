//! Ended attempts on their way into the history.
//!
//! Holds names only; the rows are made from the state when they are written. Owns nothing that
//! could be lost: after a start every ended job still in the state is named again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_core::effect::Effect;
use muster_model::{Attempt, JobId, Timestamp};
use tokio::sync::Notify;

use crate::Controller;
use crate::engine::Witness;
use crate::history::HistoryEntry;
use crate::show::job::{Depth, Shown};

/// Attempts of one transaction.
const BATCH: usize = 1000;
/// Ends come in bursts: a moment's wait lets one transaction carry many.
const GATHER: Duration = Duration::from_millis(50);
/// How often one who waits for rows looks whether they are written.
const GLANCE: Duration = Duration::from_millis(10);
/// After a failure of the database.
const RETRY: Duration = Duration::from_secs(5);

/// Names of attempts that are not written yet. Clones share them. Bounded by the jobs of the
/// state, for no job is purged before its rows are written.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    open: Arc<Mutex<BTreeSet<(JobId, Attempt)>>>,
    wake: Arc<Notify>,
}

impl Recorder {
    /// Takes note of attempts that are over on the engine's own thread: whoever sees one ended in
    /// the state finds it named here or its rows in the database.
    #[must_use]
    pub fn witness(&self) -> Witness {
        let recorder = self.clone();
        Box::new(move |effects| {
            let ended = effects.iter().filter_map(|effect| match effect {
                Effect::Record { job, attempt } => Some((*job, *attempt)),
                Effect::Desire { .. } | Effect::Notify { .. } | Effect::WakePass => None,
            });
            let mut open = recorder.open();
            let before = open.len();
            open.extend(ended);
            if open.len() > before {
                recorder.wake.notify_one();
            }
        })
    }

    /// Whether rows of this job are still to be written.
    #[must_use]
    pub fn waits_for(&self, job: JobId) -> bool {
        self.open().range((job, Attempt(0))..=(job, Attempt(u32::MAX))).next().is_some()
    }

    /// Waits until everything that is open now is written, `patience` at most: who asks for every
    /// attempt should find those that ended a moment ago.
    pub async fn settle(&self, patience: Duration) {
        let open = self.open().clone();
        let given_up = tokio::time::Instant::now() + patience;
        while !self.open().is_disjoint(&open) && tokio::time::Instant::now() < given_up {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Attempts to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().len()
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeSet<(JobId, Attempt)>> {
        self.open.lock().expect("nobody panics with the names locked")
    }
}

/// Writes rows, for ever.
pub async fn run(controller: Arc<Controller>) {
    loop {
        if controller.recorder.is_empty() {
            controller.recorder.wake.notified().await;
            tokio::time::sleep(GATHER).await;
        }
        match flush(&controller).await {
            Ok(()) => {}
            Err(fault) => {
                tracing::error!(%fault, waiting = controller.recorder.len(), "history not written");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Writes one batch.
///
/// # Errors
/// The database's or the engine's; the names are kept.
pub async fn flush(controller: &Controller) -> anyhow::Result<()> {
    let batch: Vec<(JobId, Attempt)> =
        controller.recorder.open().iter().take(BATCH).copied().collect();
    let names = batch.clone();
    let rows = controller
        .engine
        .look(move |state| {
            let shown = Shown { now: Timestamp(0), depth: Depth::Details };
            let rows = names.iter().flat_map(|(job, attempt)| {
                crate::show::history::rows(state, *job, *attempt, shown)
            });
            rows.collect::<Vec<_>>()
        })
        .await?;
    let entry = |mut row| {
        controller.steps.add_to(&mut row);
        HistoryEntry { row }
    };
    let entries: Vec<HistoryEntry> = rows.into_iter().map(entry).collect();
    controller.history.record(&entries).await?;
    let mut open = controller.recorder.open();
    for name in &batch {
        open.remove(name);
    }
    Ok(())
}

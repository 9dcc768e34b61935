//! Ended attempts on their way into the history.
//!
//! Holds names only; the rows are made from the state when they are written. Owns nothing that
//! could be lost: after a start every ended job still in the state is named again.

use std::collections::BTreeMap;
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
    open: Arc<Mutex<Names>>,
    wake: Arc<Notify>,
}

/// With how often each was named: what is named again while it is being written, as the rest of an
/// array is when more of it ends, is to be written again.
type Names = BTreeMap<(JobId, Attempt), u64>;

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
            ended.for_each(|name| *open.entry(name).or_default() += 1);
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
        let waits = || open.keys().any(|name| self.open().contains_key(name));
        while waits() && tokio::time::Instant::now() < given_up {
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

    /// The next ones to be written.
    fn batch(&self) -> Vec<((JobId, Attempt), u64)> {
        self.open().iter().take(BATCH).map(|(name, times)| (*name, *times)).collect()
    }

    /// They are written as they were when they had been named so often.
    fn are_written(&self, batch: &[((JobId, Attempt), u64)]) {
        let mut open = self.open();
        for (name, times) in batch {
            if open.get(name) == Some(times) {
                open.remove(name);
            }
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Names> {
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
    let batch = controller.recorder.batch();
    let names: Vec<(JobId, Attempt)> = batch.iter().map(|(name, _)| *name).collect();
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
    controller.recorder.are_written(&batch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_again_while_it_is_written_is_written_again() {
        let recorder = Recorder::default();
        let witness = recorder.witness();
        let names = |jobs: &[u32]| {
            let record = |job: &u32| Effect::Record { job: JobId(*job), attempt: Attempt(0) };
            witness(&jobs.iter().map(record).collect::<Vec<_>>());
        };
        names(&[1, 2]);
        let batch = recorder.batch();
        // More of the array ends after its row was made.
        names(&[1]);
        recorder.are_written(&batch);
        assert!(recorder.waits_for(JobId(1)) && !recorder.waits_for(JobId(2)));
        recorder.are_written(&recorder.batch());
        assert!(recorder.is_empty());
    }
}

//! Changes of jobs for those who watch. Told after the change is durable, and only if somebody
//! watches at all.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use muster_core::state::{Entry, State};
use muster_model::JobId;
use muster_proto::v1;
use tokio::sync::{Notify, broadcast};

use crate::Controller;
use crate::rpc::query::opinions;
use crate::show::job::{self, Depth, Line, Shown};

/// Events a watcher may lag behind before it must look at the state again: a burst of a big
/// array's tasks, at about a kilobyte each.
const EVENTS_KEPT: usize = 4096;
/// Jobs looked up in one read.
const PER_READ: usize = 1000;

/// The feed. Clones share it.
#[derive(Debug, Clone)]
pub struct Changes {
    changed: Arc<Mutex<BTreeSet<JobId>>>,
    wake: Arc<Notify>,
    feed: broadcast::Sender<Arc<v1::Job>>,
}

impl Default for Changes {
    fn default() -> Self {
        let (feed, _) = broadcast::channel(EVENTS_KEPT);
        Changes { changed: Arc::default(), wake: Arc::default(), feed }
    }
}

impl Changes {
    /// This job changed.
    pub fn note(&self, job: JobId) {
        if self.feed.receiver_count() > 0 {
            self.changed().insert(job);
            self.wake.notify_one();
        }
    }

    /// A watcher's end of the feed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<v1::Job>> {
        self.feed.subscribe()
    }

    fn changed(&self) -> std::sync::MutexGuard<'_, BTreeSet<JobId>> {
        self.changed.lock().expect("nobody panics with the names locked")
    }
}

/// Tells watchers, for ever.
pub async fn run(controller: Arc<Controller>) {
    let changes = controller.changes.clone();
    loop {
        let some: Vec<JobId> = {
            let mut changed = changes.changed();
            std::iter::from_fn(|| changed.pop_first()).take(PER_READ).collect()
        };
        if some.is_empty() {
            changes.wake.notified().await;
            continue;
        }
        let opinions = opinions(&controller);
        let read = controller.engine.look(move |state| {
            let shown = Shown { now: opinions.now, depth: Depth::Plain };
            let mut jobs = Vec::new();
            for id in some {
                for line in lines_of(state, id) {
                    jobs.push(job::job(state, &line, opinions.of(state, &line), shown));
                }
            }
            jobs
        });
        let Ok(jobs) = read.await else { return };
        for job in jobs {
            // Without a receiver the event is nobody's.
            _ = changes.feed.send(Arc::new(job));
        }
    }
}

/// The lines that show a job, and those of the array of the same number.
fn lines_of(state: &State, id: JobId) -> impl Iterator<Item = Line<'_>> {
    let views = state.views_from(Entry::rest(id));
    views.take(2).flat_map(Line::of).filter(move |line| match line {
        Line::Job(job) => job.id == id,
        Line::Pending(array) | Line::Unstarted(array, _) => array.id == id,
    })
}

//! Why those wait that a pass did not start.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use muster_model::{JobId, Reason, Timestamp};

use crate::state::{JobView, Shape, State};

use super::view;

/// The last pass's opinion of what waits. Kept beside the state, never in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reasons {
    /// Of jobs that were looked at and stand first.
    pub jobs: BTreeMap<JobId, Reason>,
    /// Of everybody behind them, by partition name and shape.
    pub shapes: BTreeMap<Box<str>, ShapeReasons>,
}

impl Reasons {
    /// Why this waits: what the job itself says first, then the last pass's opinion.
    #[must_use]
    pub fn of(&self, state: &State, job: JobView<'_>, now: Timestamp) -> Reason {
        let job = match job {
            // What a component waits for is its leader's to say.
            JobView::Single(one) => JobView::Single(state.leader_of(one)),
            JobView::Task(_) | JobView::ArrayRest(_) => job,
        };
        if let Some(reason) = state.static_reason(job, now) {
            return reason;
        }
        let own = match job {
            JobView::Single(job) | JobView::Task(job) if !job.phase.is_pending() => {
                return Reason::None;
            }
            JobView::Single(job) | JobView::Task(job) => self.jobs.get(&job.id),
            JobView::ArrayRest(array) => {
                let first = view::startable(array, 1);
                first.first().and_then(|id| self.jobs.get(id))
            }
        };
        if let Some(reason) = own {
            return *reason;
        }
        let shape = Arc::new(Shape::of(job.spec()));
        let mut names = job.spec().partitions.iter();
        let of = |name| self.shapes.get(name)?.get(&shape);
        names.find_map(of).unwrap_or(Reason::None)
    }
}

/// Reasons by shape. Comparing shapes is dear and most passes are never asked about, so they are
/// put in order when somebody asks first.
#[derive(Debug, Clone, Default)]
pub struct ShapeReasons {
    /// Of equal shapes the last one counts.
    told: Vec<(Arc<Shape>, Reason)>,
    known: OnceLock<BTreeMap<Arc<Shape>, Reason>>,
}

impl ShapeReasons {
    #[must_use]
    pub fn get(&self, shape: &Arc<Shape>) -> Option<Reason> {
        self.known.get_or_init(|| self.told.iter().cloned().collect()).get(shape).copied()
    }

    /// In the order of the pass's groups.
    #[must_use]
    pub fn told(&self) -> &[(Arc<Shape>, Reason)] {
        &self.told
    }
}

impl From<Vec<(Arc<Shape>, Reason)>> for ShapeReasons {
    fn from(told: Vec<(Arc<Shape>, Reason)>) -> Self {
        ShapeReasons { told, known: OnceLock::new() }
    }
}

impl PartialEq for ShapeReasons {
    fn eq(&self, other: &ShapeReasons) -> bool {
        self.told == other.told
    }
}

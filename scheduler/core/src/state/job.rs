//! A job (single, or a materialised array task) and an array's record.
//!
//! An array is one record until its tasks start: a task becomes a job of its own when it is
//! started or singled out by an update, with the id `array + rank of its index`.

use std::sync::Arc;

use muster_model::{Attempt, IndexSet, JobId, JobSpec, Outcome, Timestamp, Uid};

use crate::lifecycle::{Finished, Phase};

use super::dependency::TermState;
use super::queue::Place;

/// A single job or a task of an array.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: JobId,
    /// The array's id and the task's index.
    pub array: Option<(JobId, u32)>,
    /// Shared with the array's other tasks until one is changed.
    pub spec: Arc<JobSpec>,
    /// All zero: none.
    pub request_id: [u8; 16],
    pub submitted_at: Timestamp,
    /// How long it was expected to run when it was submitted, seconds; 0: as long as it may.
    pub expected: u32,
    /// The current or last attempt; 0: never started.
    pub attempt: Attempt,
    /// Launch failures in a row.
    pub failures: u32,
    pub phase: Phase,
    /// One per term of the dependency.
    pub terms: Box<[TermState]>,
    /// The last attempt that is over.
    pub last: Option<Box<Finished>>,
    /// Derived: where in the queue it stands.
    pub place: Place,
}

impl Job {
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.spec.user.uid
    }

    /// Whether it is a component of a heterogeneous job other than the one with the script.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.spec.het.is_some_and(|het| het.index > 0)
    }

    /// When the current or last attempt began to run.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        match self.phase.allocation() {
            Some(held) => held.started_at,
            None => self.last.as_ref().and_then(|last| last.started_at),
        }
    }

    /// How often it was started again.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        let waits_again = u32::from(self.phase.is_pending());
        (self.attempt.0 + waits_again).saturating_sub(1)
    }
}

/// A job array: what is common to its tasks, and those that are not jobs of their own yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    pub request_id: [u8; 16],
    pub submitted_at: Timestamp,
    /// Of each task, as in [`Job`].
    pub expected: u32,
    pub eligible_at: Timestamp,
    /// All indices, as submitted: a task's id follows from its rank here.
    pub full: IndexSet,
    /// Tasks at once at most; `None`: no bound.
    pub throttle: Option<u32>,
    /// Not started, not singled out.
    pub pending: IndexSet,
    /// Subsets of `pending` that are held.
    pub held_user: IndexSet,
    pub held_admin: IndexSet,
    /// Tasks that ended with exit code 0, and otherwise.
    pub ok: IndexSet,
    pub bad: IndexSet,
    /// Tasks that ended before they ever started, by group.
    pub unstarted: Vec<Unstarted>,
    pub terms: Box<[TermState]>,
    /// When its latest task started and ended; 0: none did.
    pub last_start: Timestamp,
    pub last_end: Timestamp,
    /// Derived: where in the queue its pending tasks stand.
    pub place: Place,
}

/// Tasks that ended together without ever starting.
#[derive(Debug, Clone, PartialEq)]
pub struct Unstarted {
    pub tasks: IndexSet,
    pub outcome: Outcome,
    pub at: Timestamp,
}

impl Array {
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.spec.user.uid
    }

    /// How many ids it owns: `id .. id + count`.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.full.len()).expect("an array is smaller than the id space")
    }

    /// The job id of the task with this index.
    #[must_use]
    pub fn task_id(&self, index: u32) -> Option<JobId> {
        self.full.rank(index).map(|rank| JobId(self.id.0 + rank))
    }

    /// The index of the task with this job id.
    #[must_use]
    pub fn index_of(&self, id: JobId) -> Option<u32> {
        self.full.nth(id.0.checked_sub(self.id.0)?)
    }

    /// Whether every task has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pending.is_empty() && self.ok.len() + self.bad.len() == self.full.len()
    }

    /// Pending tasks that nobody holds.
    #[must_use]
    pub fn unheld(&self) -> IndexSet {
        if self.held_user.is_empty() && self.held_admin.is_empty() {
            return self.pending.clone();
        }
        self.pending.difference(&self.held_user).difference(&self.held_admin)
    }
}

/// One line of a queue listing.
#[derive(Debug, Clone, Copy)]
pub enum JobView<'a> {
    Single(&'a Job),
    Task(&'a Job),
    /// The tasks of an array that are not jobs of their own (yet).
    ArrayRest(&'a Array),
}

impl JobView<'_> {
    #[must_use]
    pub fn spec(&self) -> &Arc<JobSpec> {
        match self {
            JobView::Single(job) | JobView::Task(job) => &job.spec,
            JobView::ArrayRest(array) => &array.spec,
        }
    }

    #[must_use]
    pub fn uid(&self) -> Uid {
        self.spec().user.uid
    }

    #[must_use]
    pub fn entry(&self) -> Entry {
        match self {
            JobView::Single(job) | JobView::Task(job) => Entry::job(job.id),
            JobView::ArrayRest(array) => Entry::rest(array.id),
        }
    }
}

/// Names a job or an array's rest; an array and its first task share a number. An array's rest
/// comes before the job of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub id: JobId,
    pub is_job: bool,
}

impl Entry {
    #[must_use]
    pub fn job(id: JobId) -> Self {
        Entry { id, is_job: true }
    }

    #[must_use]
    pub fn rest(id: JobId) -> Self {
        Entry { id, is_job: false }
    }
}

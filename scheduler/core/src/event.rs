//! Facts. They are logged, never refused and kept for ever: a kind's meaning may not change.
//! Exact ids, placements and times are inside; nothing is looked up anew on replay.

use std::sync::Arc;

use muster_model::node::{GpuMark, Mark};
use muster_model::{
    Attempt, ExitStatus, GresKind, Hold, IndexSet, Inventory, JobId, JobSpec, NodeId, Outcome,
    Placement, Reservation, Seconds, Timestamp, Usage,
};

use crate::command::{JobChange, NodeChange, PartitionChange};
use crate::config::ClusterConfig;

/// A fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The config as resolved. Node ids are given here: known names keep theirs, new names get
    /// the next ones in the order of the config.
    Configured {
        config: Arc<ClusterConfig>,
        at: Timestamp,
    },
    /// `job` is the first of `spec.array`'s ids, or the job itself.
    Submitted {
        job: JobId,
        request_id: [u8; 16],
        spec: Arc<JobSpec>,
        /// How long it is expected to run, seconds; 0: as long as it may.
        expected: u32,
        at: Timestamp,
    },
    /// The job holds its placement from here on.
    Started {
        job: JobId,
        attempt: Attempt,
        partition: Box<str>,
        placement: Placement,
        /// When its time limit ends, counted from `at`; `None`: unlimited. Moved to the true
        /// start by `Running`.
        end_at: Option<Timestamp>,
        /// The limit chosen for this attempt, if it is shorter than the job's.
        time_limit: Option<Seconds>,
        at: Timestamp,
    },
    /// A gang's slice is prepared.
    SliceReady {
        job: JobId,
        attempt: Attempt,
        node: NodeId,
    },
    /// The batch process runs.
    Running {
        job: JobId,
        attempt: Attempt,
        started_at: Timestamp,
        end_at: Option<Timestamp>,
    },
    /// The attempt is over; its slices are being cleared. `outcome` is what the job will show.
    Completing {
        job: JobId,
        attempt: Attempt,
        outcome: Outcome,
        then: AfterCompleting,
        at: Timestamp,
    },
    /// One slice is clear: its part of the ledger is free.
    SliceCleared {
        job: JobId,
        attempt: Attempt,
        node: NodeId,
        exit: Option<ClearedExit>,
    },
    /// The job ended for good. `attempt` 0: it never started.
    Ended {
        job: JobId,
        attempt: Attempt,
        outcome: Outcome,
        at: Timestamp,
    },
    /// The attempt ended and the job waits again.
    Requeued {
        job: JobId,
        attempt: Attempt,
        outcome: Outcome,
        hold: Option<Hold>,
        eligible_at: Timestamp,
        at: Timestamp,
    },
    /// These pending tasks of an array (or the job, with `tasks` `None`) are held.
    Held {
        job: JobId,
        tasks: Option<IndexSet>,
        hold: Hold,
    },
    Released {
        job: JobId,
        tasks: Option<IndexSet>,
        at: Timestamp,
    },
    /// Pending tasks of an array ended without ever starting.
    TasksEnded {
        job: JobId,
        tasks: IndexSet,
        outcome: Outcome,
        at: Timestamp,
    },
    Updated {
        job: JobId,
        tasks: Option<IndexSet>,
        change: Box<JobChange>,
        at: Timestamp,
    },
    Suspended {
        job: JobId,
        attempt: Attempt,
        at: Timestamp,
    },
    Resumed {
        job: JobId,
        attempt: Attempt,
        end_at: Option<Timestamp>,
        at: Timestamp,
    },
    Registered {
        node: NodeId,
        inventory: Arc<Inventory>,
        at: Timestamp,
    },
    /// `None` takes the mark away.
    NodeDrain {
        node: NodeId,
        mark: Option<Mark>,
    },
    NodeDown {
        node: NodeId,
        mark: Option<Mark>,
    },
    /// One GPU of a node takes no new work; `None` takes the mark away.
    GpuDrain {
        node: NodeId,
        gpu: u8,
        mark: Option<GpuMark>,
        at: Timestamp,
    },
    /// The GPUs of a node that declares none itself, by kind.
    GpusFound {
        node: NodeId,
        gpus: Vec<(GresKind, u64)>,
    },
    NodeChanged {
        node: NodeId,
        change: NodeChange,
    },
    PartitionChanged {
        name: Box<str>,
        change: PartitionChange,
    },
    Purged {
        jobs: Vec<JobId>,
    },
    /// The reservation of this name is so from here on: new, changed, or moved to its next window.
    ReservationSet {
        reservation: Arc<Reservation>,
        at: Timestamp,
    },
    /// It was deleted, or its time is over.
    ReservationGone {
        name: Box<str>,
        at: Timestamp,
    },
}

/// Where an attempt goes from Completing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCompleting {
    End,
    Requeue { hold: Option<Hold>, eligible_at: Timestamp },
}

/// The batch process's end, as far as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearedExit {
    pub status: ExitStatus,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub usage: Usage,
}

//! Wishes. Any of them may be refused; none is ever logged.

use muster_model::{
    Access, Attempt, Constraint, Dependency, ExitStatus, Inventory, JobId, JobSpec, MemoryRequest,
    NodeId, PartitionState, Placement, ReservationFlags, Seconds, SwitchWish, TimeLimit, Timestamp,
    Usage,
};

use crate::config::{Actor, ClusterConfig};

/// A wish.
#[derive(Debug, Clone)]
pub enum Command {
    /// The config was read (at start, or by `scontrol reconfigure`).
    Configure(Box<ClusterConfig>),
    Submit(Box<Submit>),
    Cancel {
        actor: Actor,
        target: Target,
    },
    Update {
        actor: Actor,
        target: Target,
        change: Box<JobChange>,
    },
    Hold {
        actor: Actor,
        target: Target,
        by_user: bool,
    },
    Release {
        actor: Actor,
        target: Target,
    },
    Requeue {
        actor: Actor,
        target: Target,
        hold: bool,
    },
    Suspend {
        actor: Actor,
        target: Target,
    },
    Resume {
        actor: Actor,
        target: Target,
    },
    /// The pass's choices. Each start is validated anew; those that no longer fit are left out.
    Commit(Vec<StartWish>),
    UpdateNodes {
        actor: Actor,
        nodes: Vec<NodeId>,
        change: NodeChange,
    },
    UpdatePartition {
        actor: Actor,
        name: Box<str>,
        change: PartitionChange,
    },
    CreateReservation {
        actor: Actor,
        wish: Box<ReservationWish>,
    },
    UpdateReservation {
        actor: Actor,
        name: Box<str>,
        change: Box<ReservationChange>,
    },
    DeleteReservation {
        actor: Actor,
        name: Box<str>,
    },
    /// An agent registered.
    Register {
        node: NodeId,
        inventory: Box<Inventory>,
    },
    /// An agent was silent too long.
    NodeLost {
        node: NodeId,
    },
    /// An agent says its node is not fit for new work.
    NodeFault {
        node: NodeId,
        reason: Box<str>,
    },
    /// All that an agent finds wrong with its GPUs now.
    GpuReport {
        node: NodeId,
        faults: Vec<GpuFault>,
    },
    /// An operator takes GPUs out, or gives them back.
    UpdateGpus {
        actor: Actor,
        nodes: Vec<NodeId>,
        gpus: Vec<u8>,
        verb: GpuVerb,
    },
    /// A slice's progress on a node.
    Slice {
        job: JobId,
        attempt: Attempt,
        node: NodeId,
        report: SliceReport,
    },
    /// Time passed: deadlines, dead dependencies, limits of nodes that do not answer.
    Tick,
    /// These ended jobs are in the history and old enough: forget them.
    Purge(Vec<JobId>),
}

/// Which jobs a verb is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One job, or every task of an array.
    Job(JobId),
    /// These tasks (by array index) of an array.
    Tasks(JobId, muster_model::IndexSet),
}

/// A submission: everything is resolved and the user is the authenticated caller.
#[derive(Debug, Clone)]
pub struct Submit {
    pub actor: Actor,
    /// Groups of the caller, by name, for partitions that ask.
    pub groups: Vec<Box<str>>,
    /// The caller's id for this request: a repetition is answered with the first job.
    pub request_id: [u8; 16],
    pub spec: JobSpec,
    /// The further components of a heterogeneous job; `spec` is the one with the script.
    pub components: Vec<JobSpec>,
}

/// One choice of the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartWish {
    pub job: JobId,
    pub partition: Box<str>,
    pub placement: Placement,
    /// Shorter than asked for, down to the job's `time_min`; `None`: as asked.
    pub time_limit: Option<Seconds>,
}

/// `scontrol update job`; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobChange {
    pub name: Option<Box<str>>,
    pub comment: Option<Box<str>>,
    pub time_limit: Option<TimeChange>,
    pub partitions: Option<Vec<Box<str>>>,
    pub account: Option<Box<str>>,
    pub qos: Option<Box<str>>,
    pub nice: Option<i32>,
    pub priority: Option<u32>,
    pub dependency: Option<Dependency>,
    /// `Timestamp(0)`: none.
    pub begin: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    pub requeue: Option<bool>,
    pub min_nodes: Option<u32>,
    pub max_nodes: Option<u32>,
    pub tasks: Option<u32>,
    pub cpus_per_task: Option<u32>,
    pub memory: Option<MemoryRequest>,
    /// `Some(None)`: no constraint.
    pub constraint: Option<Option<muster_model::Constraint>>,
    pub gres: Option<Vec<muster_model::GresRequest>>,
    pub required_nodes: Option<Vec<Box<str>>>,
    pub excluded_nodes: Option<Vec<Box<str>>>,
    /// 0: none.
    pub array_throttle: Option<u32>,
    pub stdout: Option<Box<str>>,
    pub stderr: Option<Box<str>>,
    pub workdir: Option<Box<str>>,
    pub mail_type: Option<Box<str>>,
    pub mail_user: Option<Box<str>>,
    pub wckey: Option<Box<str>>,
    pub licenses: Option<Vec<(Box<str>, u32)>>,
    pub reservation: Option<Box<str>>,
    pub admin_comment: Option<Box<str>>,
    pub contiguous: Option<bool>,
    /// A count of 0: any.
    pub switches: Option<SwitchWish>,
}

/// A new limit, or a step from the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeChange {
    To(TimeLimit),
    ByMinutes(i32),
    /// The limit with which a running job ends then.
    EndAt(Timestamp),
}

/// What an operator wants of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub verb: Option<NodeVerb>,
    pub weight: Option<u32>,
    pub features: Option<Vec<Box<str>>>,
    pub comment: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeVerb {
    Drain { reason: Box<str> },
    Down { reason: Box<str> },
    Resume,
    Undrain,
}

/// What is wrong with one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFault {
    pub gpu: u8,
    pub reason: Box<str>,
    /// It counts until an operator says otherwise, even when it is seen no more.
    pub stays: bool,
    /// When it was first seen.
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuVerb {
    Drain { reason: Box<str> },
    Resume,
}

/// What an admin wants of a partition until the next reconfigure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionChange {
    pub state: Option<PartitionState>,
    pub max_time: Option<TimeLimit>,
    pub default_time: Option<TimeLimit>,
    pub max_nodes: Option<u32>,
    pub priority_tier: Option<u16>,
}

/// `scontrol create reservation`. What is left open is chosen when it is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationWish {
    /// `None`: made from the first user or account.
    pub name: Option<Box<str>>,
    pub nodes: NodesWish,
    /// Where counted nodes are looked for; `None`: the default partition.
    pub partition: Option<Box<str>>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub users: Access,
    pub accounts: Access,
    pub flags: ReservationFlags,
    pub features: Option<Constraint>,
    pub licenses: Vec<(Box<str>, u32)>,
    pub comment: Box<str>,
}

/// Which nodes a reservation is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodesWish {
    /// None: licences only.
    #[default]
    Nothing,
    Named(Vec<Box<str>>),
    /// All of the cluster, or of the partition with PART_NODES.
    All,
    Count(u32),
    /// As many whole nodes as have this many cores.
    Cores(u32),
}

/// `scontrol update reservation`; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservationChange {
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub duration: Option<DurationChange>,
    pub nodes: Option<NodesChange>,
    pub users: Option<AccessChange>,
    pub accounts: Option<AccessChange>,
    /// Flags put on, and flags taken off.
    pub flags: ReservationFlags,
    pub no_flags: ReservationFlags,
    pub partition: Option<Box<str>>,
    pub features: Option<Option<Constraint>>,
    pub licenses: Option<Vec<(Box<str>, u32)>>,
    pub comment: Option<Box<str>>,
}

/// A new length, or a step from the present one; seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationChange {
    To(i64),
    By(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodesChange {
    To(NodesWish),
    Add(Vec<Box<str>>),
    Remove(Vec<Box<str>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    To(Access),
    Add(Vec<Box<str>>),
    Remove(Vec<Box<str>>),
}

/// How far a slice is, as its agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceReport {
    /// Spooled, confined, prolog done: waits for Go.
    Ready,
    /// The batch process runs.
    Running { started_at: Timestamp },
    /// Nothing of it is left and the epilog is done.
    Finished { exit: Option<SliceExit> },
    /// Could not be started; nothing of it is left.
    LaunchFailed { reason: Box<str>, node_fault: bool },
    /// Its processes vanished without an exit record.
    Lost { reason: Box<str> },
}

/// How the batch process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceExit {
    pub status: ExitStatus,
    pub oom: bool,
    pub timed_out: bool,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub usage: Usage,
}

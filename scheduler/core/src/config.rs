//! What the admin configured, as far as decisions depend on it. It enters the state as an event,
//! or a replay would decide otherwise than the original did.

use muster_model::{NodeConfig, Partition, TopologyConfig, Uid};

/// Cluster-wide settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    pub cluster: Box<str>,
    pub nodes: Vec<NodeConfig>,
    pub partitions: Vec<Partition>,
    /// (name, count) of licences.
    pub licenses: Vec<(Box<str>, u32)>,
    pub limits: Limits,
    pub priority: PriorityWeights,
    /// Checked before it is recorded ([`TopologyConfig::graph`]).
    pub topology: TopologyConfig,
}

/// Bounds that submissions and lifecycles are held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Pending and running jobs at most (array tasks each count), Slurm's MaxJobCount.
    pub max_jobs: u32,
    /// Array indices lie below this, Slurm's MaxArraySize.
    pub max_array_size: u32,
    /// Finished jobs stay visible this long, seconds (MinJobAge).
    pub min_job_age_seconds: u32,
    /// Whether jobs are requeued by default when their node fails (JobRequeue).
    pub requeue_by_default: bool,
    /// Launch failures after which a job is held (Slurm: 5).
    pub max_requeues: u32,
    /// Jobs that no dependency can release any more are ended instead of kept.
    pub kill_on_invalid_dependency: bool,
    /// Job numbers start here (FirstJobId).
    pub first_job_id: u32,
    /// uids allowed to run as root: false refuses uid 0.
    pub root_jobs: bool,
    /// A job too long for its partition is refused (true) or waits with PartitionTimeLimit.
    pub enforce_partition_limits: bool,
    /// Seconds a requeued job waits before it is eligible again.
    pub requeue_delay_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_jobs: 2_000_000,
            max_array_size: 100_001,
            min_job_age_seconds: 300,
            requeue_by_default: true,
            max_requeues: 5,
            kill_on_invalid_dependency: false,
            first_job_id: 1,
            root_jobs: false,
            enforce_partition_limits: true,
            requeue_delay_seconds: 0,
        }
    }
}

/// Weights of the priority's parts; each part is a factor of 0..=1000 thousandths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriorityWeights {
    pub age: u32,
    /// Waiting longer than this counts no more, seconds.
    pub max_age_seconds: u32,
    pub size: u32,
    pub partition: u32,
}

/// What a caller may do beyond their own jobs. Set by the edge from the authenticated uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    User,
    /// May see and touch everybody's jobs, drain and resume nodes.
    Operator,
    /// May do everything.
    Admin,
}

/// Who wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    pub uid: Uid,
    pub role: Role,
}

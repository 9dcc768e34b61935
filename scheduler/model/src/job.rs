//! Jobs: what a user asked for, and how a job ends.

use std::sync::Arc;

use crate::array::ArraySpec;
use crate::constraint::Constraint;
use crate::dependency::Dependency;
use crate::ids::{JobId, Uid, User};
use crate::resources::GresRequest;
use crate::time::{TimeLimit, Timestamp};

/// `-N min-max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeCount {
    pub min: u32,
    /// `None`: as many as the tasks need, at least `min`.
    pub max: Option<u32>,
}

/// How memory was asked for; MiB. 0 means all of the node's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryRequest {
    /// Nothing was asked: the partition's default.
    Default,
    PerNode(u64),
    PerCpu(u64),
    PerGpu(u64),
}

/// The part of a wish that decides where a job fits: two jobs with equal requests (and partition)
/// fit in the same places, so requests are shared and compared by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub nodes: NodeCount,
    /// Tasks over all nodes, at least 1.
    pub tasks: u32,
    /// Whether `-n` was given (else it follows from the nodes).
    pub tasks_given: bool,
    pub tasks_per_node: Option<u32>,
    pub cpus_per_task: u32,
    /// `--mincpus`.
    pub min_cpus_per_node: u32,
    pub memory: MemoryRequest,
    pub gres: Vec<GresRequest>,
    pub cpus_per_gpu: Option<u32>,
    pub constraint: Option<Constraint>,
    /// `--nodelist`: these nodes must be part.
    pub required_nodes: Vec<Box<str>>,
    pub excluded_nodes: Vec<Box<str>>,
    /// Whole nodes (`--exclusive`).
    pub exclusive: bool,
    pub contiguous: bool,
    pub threads_per_core: Option<u32>,
    pub sockets_per_node: Option<u32>,
    pub topology: TopologyWish,
}

impl Default for Request {
    /// What a submission comes to that says nothing: one task with one CPU.
    fn default() -> Self {
        Request {
            nodes: NodeCount { min: 1, max: None },
            tasks: 1,
            tasks_given: false,
            tasks_per_node: None,
            cpus_per_task: 1,
            min_cpus_per_node: 0,
            memory: MemoryRequest::Default,
            gres: Vec::new(),
            cpus_per_gpu: None,
            constraint: None,
            required_nodes: Vec::new(),
            excluded_nodes: Vec::new(),
            exclusive: false,
            contiguous: false,
            threads_per_core: None,
            sockets_per_node: None,
            topology: TopologyWish::default(),
        }
    }
}

/// How near to each other a job's nodes should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopologyWish {
    pub switches: Option<SwitchWish>,
    /// `--segment`: nodes in groups of this many, each inside one block.
    pub segment: Option<u32>,
    /// `--exclusive=topo`: no other job in the blocks (without blocks: leaf switches) it gets.
    pub alone: bool,
    /// `--nvlink=required`: its GPUs on a node are joined by NVLink, directly or over one another.
    pub nvlink: bool,
    pub binding: CpuBinding,
}

/// Whether a job's CPUs on a node are near its GPUs there (`--gres-flags`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuBinding {
    /// While these have any free.
    #[default]
    Preferred,
    /// Or it waits.
    Enforced,
    /// Any CPUs.
    Disabled,
}

/// `--switches=COUNT@TIME`: on at most so many leaf switches; the wish lapses with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchWish {
    pub count: u32,
    /// A job that has been eligible this long takes what it can get.
    pub max_wait_seconds: u32,
}

impl SwitchWish {
    /// The wait where the user names none, seconds; Slurm's default of `max_switch_wait`.
    pub const DEFAULT_WAIT_SECONDS: u32 = 300;
}

/// Warn the job before its end: `--signal=B:USR1@60`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignalRequest {
    pub signal: i32,
    /// Seconds before the time limit.
    pub before_seconds: u32,
    /// `B:`: the batch shell alone; otherwise everything but it.
    pub batch_only: bool,
}

/// `--open-mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenMode {
    #[default]
    Truncate,
    Append,
}

/// How to launch: of no interest to the planner. Script and environment are not here: they are
/// blobs beside the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaunchSpec {
    pub workdir: Box<str>,
    /// Patterns (`%j` ...) as written; `None`: the default name.
    pub stdout: Option<Box<str>>,
    pub stderr: Option<Box<str>>,
    pub stdin: Option<Box<str>>,
    pub open_mode: OpenMode,
    pub umask: u32,
    /// Soft limits of the submitter, by name (`nofile`, ...); `u64::MAX`: unlimited. Most jobs of a
    /// user have the same, so they are shared.
    pub rlimits: Arc<[(Box<str>, u64)]>,
    /// The script's path as submitted (shown as Command).
    pub command: Box<str>,
    pub submit_dir: Box<str>,
    pub submit_host: Box<str>,
    pub signal: Option<SignalRequest>,
    /// Keep the job when one of its nodes is lost (`--no-kill`).
    pub no_kill: bool,
    pub overcommit: bool,
    /// `--mail-type` and `--mail-user` as written.
    pub mail_type: Box<str>,
    pub mail_user: Box<str>,
    /// An operator's word about the job.
    pub admin_comment: Box<str>,
    /// Options that only tasks and frameworks read back (`--hint`, `--distribution`, ...), as
    /// (option, value).
    pub extras: Vec<(Box<str>, Box<str>)>,
}

/// One component of a heterogeneous job: jobs with numbers in a row that are asked for together,
/// start together and end together. The first of them, the leader, runs the batch script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HetPart {
    /// 0: the leader.
    pub index: u16,
    /// How many there are.
    pub count: u16,
}

impl HetPart {
    /// Slurm's bound as well.
    pub const MAX_COMPONENTS: usize = 128;

    /// The number of the component that runs the script; `id`: this component's.
    #[must_use]
    pub fn leader(self, id: JobId) -> JobId {
        JobId(id.0 - u32::from(self.index))
    }

    /// The numbers of all components; `id`: this component's.
    pub fn all(self, id: JobId) -> impl Iterator<Item = JobId> {
        let first = self.leader(id).0;
        (first..first + u32::from(self.count)).map(JobId)
    }
}

/// Everything a user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    pub name: Box<str>,
    pub user: User,
    pub account: Box<str>,
    pub qos: Box<str>,
    /// In order of preference; resolved to at least one name at submission.
    pub partitions: Vec<Box<str>>,
    pub request: Arc<Request>,
    /// `None`: the partition's default.
    pub time_limit: Option<TimeLimit>,
    pub time_min: Option<TimeLimit>,
    pub begin: Option<Timestamp>,
    /// Must have ended by then, or it is removed.
    pub deadline: Option<Timestamp>,
    pub dependency: Dependency,
    pub kill_on_invalid_dependency: bool,
    pub array: Option<ArraySpec>,
    /// Set when the job gets its number; of a component only.
    pub het: Option<HetPart>,
    pub held: bool,
    pub nice: i32,
    /// A fixed priority, by an operator.
    pub priority: Option<u32>,
    /// `None`: the cluster's default.
    pub requeue: Option<bool>,
    pub licenses: Vec<(Box<str>, u32)>,
    pub reservation: Option<Box<str>>,
    pub comment: Box<str>,
    pub wckey: Box<str>,
    /// Words after the script: `$1..`. Here and not in the launch, since they are what jobs of a
    /// loop differ in.
    pub args: Box<[Box<str>]>,
    pub submit_line: Box<str>,
    /// Shared: jobs that a loop submits are mostly alike in it.
    pub launch: Arc<LaunchSpec>,
    /// Sizes of the blobs, for quotas and display; bytes.
    pub script_bytes: u32,
    pub env_bytes: u32,
}

impl JobSpec {
    /// The plainest job of a user: everything that a request does not say is unset.
    #[must_use]
    pub fn plain(user: User, request: Arc<Request>) -> Self {
        JobSpec {
            name: "job".into(),
            user,
            account: Box::default(),
            qos: Box::default(),
            partitions: Vec::new(),
            request,
            time_limit: None,
            time_min: None,
            begin: None,
            deadline: None,
            dependency: Dependency::default(),
            kill_on_invalid_dependency: false,
            array: None,
            het: None,
            held: false,
            nice: 0,
            priority: None,
            requeue: None,
            licenses: Vec::new(),
            reservation: None,
            comment: Box::default(),
            wckey: Box::default(),
            args: Box::default(),
            submit_line: Box::default(),
            launch: Arc::default(),
            script_bytes: 0,
            env_bytes: 0,
        }
    }
}

/// Who holds a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    User,
    Admin,
    /// Its launches failed too often.
    MaxRequeue,
    /// A prolog failed for it.
    LaunchFailed,
}

/// How a process ended, as `wait` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExitStatus {
    pub code: u8,
    /// 0: none.
    pub signal: u8,
}

/// How a job (or one attempt of it) ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Failed(ExitStatus),
    /// By whom.
    Cancelled {
        by: Uid,
    },
    Timeout,
    OutOfMemory,
    NodeFail {
        node: Box<str>,
    },
    Deadline,
    Preempted,
    /// It could not be launched, after all retries.
    BootFail,
}

/// What a job used, summed over its nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub user_cpu_ms: u64,
    pub system_cpu_ms: u64,
    /// Peak resident memory, KiB, of the node where it was highest.
    pub max_rss_kib: u64,
    /// `None`: nobody measured.
    pub gpu: Option<GpuUsage>,
}

/// What a job used of its GPUs, summed over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuUsage {
    /// Utilisation over time: one GPU fully busy for a second is 1000.
    pub busy_ms: u64,
    /// GPU time that was looked at, in the same way.
    pub seen_ms: u64,
    /// The most memory it used at once.
    pub memory_mib: u64,
    /// Millijoules.
    pub energy_mj: u64,
}

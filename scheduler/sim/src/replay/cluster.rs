//! The cluster that a trace is replayed on: the trace's own, one of equal nodes, or the one of a
//! config file; and what a job of the trace asks of it.

use std::path::PathBuf;
use std::sync::Arc;

use muster_core::config::{ClusterConfig, Limits, PriorityWeights};
use muster_model::{
    Capacity, Constraint, GresKind, GresRequest, GresScope, JobSpec, MemoryRequest, NodeConfig,
    NodeCount, Partition, PartitionState, Request, Seconds, TimeLimit, Uid, User,
};

use super::network::{self, Leaves};
use super::trace::{Entry, Machine, NodeKind, Trace, Unit, Wish};

/// Which cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// One pool of N processors (default: the size in the trace's header)
    #[arg(long, value_name = "N", conflicts_with_all = ["config", "nodes"])]
    pub procs: Option<u32>,
    /// The nodes and partitions of this muster.toml
    #[arg(long, value_name = "FILE", conflicts_with = "nodes")]
    pub config: Option<PathBuf>,
    /// N equal nodes
    #[arg(long, value_name = "N", requires = "cpus_per_node")]
    pub nodes: Option<u32>,
    /// CPUs of each node
    #[arg(long, value_name = "C", requires = "nodes")]
    pub cpus_per_node: Option<u32>,
    /// GPUs of each node
    #[arg(long, value_name = "G", requires = "nodes")]
    pub gpus_per_node: Option<u32>,
    /// What a processor of an SWF trace stands for on nodes: a CPU, or a GPU with a CPU
    #[arg(long, value_enum, default_value_t)]
    pub size_is: SizeIs,
    /// Leaf switches of N nodes each below the nodes, in a fat tree
    #[arg(long, value_name = "N", conflicts_with = "config")]
    pub leaf_nodes: Option<u32>,
    /// Place gangs as if there were no switches, and count the leaves all the same
    #[arg(long)]
    pub blind: bool,
}

/// What a processor of an SWF trace is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SizeIs {
    #[default]
    Cpus,
    Gpus,
}

/// A cluster ready for a replay.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub config: ClusterConfig,
    pub cpus: u64,
    pub gpus: u64,
    /// CPUs and GPUs of the largest node, for jobs that say no number of nodes.
    widest: (u32, u32),
    size_is: SizeIs,
    /// Where its nodes hang, whether or not the planner is told.
    pub leaves: Leaves,
}

const PARTITION: &str = "main";
const GPU: &str = "gpu";

impl Cluster {
    /// The cluster that the flags and the trace name.
    ///
    /// # Errors
    /// In words: no cluster is named, or the config file has a fault.
    pub fn new(flags: &Flags, trace: &Trace, machine: Option<&Machine>) -> anyhow::Result<Self> {
        let of_nodes = flags.nodes.map(|count| {
            let (cpus, gpus) = (flags.cpus_per_node.unwrap_or(1), flags.gpus_per_node.unwrap_or(0));
            Machine { nodes: vec![(count, NodeKind { cpus, gpus, ..NodeKind::default() })] }
        });
        let named = of_nodes.or_else(|| flags.procs.map(Machine::pool));
        let mut config = if let Some(path) = &flags.config {
            let config = muster_config::Config::load(path)?;
            muster_controller::cluster::cluster_config(&config)
        } else {
            let machine = named.as_ref().or(trace.machine.as_ref()).or(machine);
            let machine = machine.ok_or_else(|| {
                anyhow::anyhow!(
                    "{}: it does not say how large its machine is: give --procs N, --nodes N \
                     --cpus-per-node C, --config FILE, or a node list beside it",
                    trace.file
                )
            })?;
            config_of(machine)
        };
        if let Some(per_leaf) = flags.leaf_nodes {
            anyhow::ensure!(per_leaf > 0, "--leaf-nodes 0: at least 1");
            config.topology = network::fat_tree(&config.nodes, per_leaf as usize);
        }
        let leaves = Leaves::new(&config.topology, &config.nodes);
        if flags.blind {
            config.topology = muster_model::TopologyConfig::default();
        }
        let wide = |node: &NodeConfig| (node.capacity.cpus, gpus_of(node));
        let widest =
            config.nodes.iter().map(wide).fold((1, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        Ok(Cluster {
            cpus: config.nodes.iter().map(|n| u64::from(n.capacity.cpus)).sum(),
            gpus: config.nodes.iter().map(|n| u64::from(gpus_of(n))).sum(),
            widest,
            size_is: flags.size_is,
            leaves,
            config,
        })
    }

    /// What "size" counts in a trace on this cluster: of the cluster, then of a job.
    #[must_use]
    pub fn capacity(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Gpus => self.gpus,
            Unit::Processors => self.cpus,
        }
    }

    /// CPUs and GPUs that a job of a trace takes here.
    #[must_use]
    pub fn takes(&self, job: &Entry) -> (u64, u64) {
        let gpus = match self.counts_gpus(&job.wish) {
            true => u64::from(job.wish.tasks),
            false => job.gpus(),
        };
        (job.cpus(), gpus)
    }

    fn counts_gpus(&self, wish: &Wish) -> bool {
        self.size_is == SizeIs::Gpus && wish.nodes == 0 && wish.gpus_per_task == 0
    }

    /// The job as its user would have submitted it.
    #[must_use]
    pub fn spec(&self, job: &Entry) -> JobSpec {
        let uid = 1000u32.saturating_add(job.user);
        JobSpec {
            // Limits above u32 were clipped when the trace was read.
            time_limit: Some(TimeLimit::Limited(Seconds(
                u32::try_from(job.limit).unwrap_or(u32::MAX),
            ))),
            ..JobSpec::plain(
                User { uid: Uid(uid), gid: uid, name: format!("u{}", job.user).into() },
                Arc::new(self.request(&job.wish)),
            )
        }
    }

    fn request(&self, wish: &Wish) -> Request {
        let gpus_per_task = if self.counts_gpus(wish) { 1 } else { wish.gpus_per_task };
        let nodes = match wish.nodes {
            0 => {
                let by_cpus = (self.widest.0 / wish.cpus_per_task).max(1);
                let by_gpus =
                    self.widest.1.checked_div(gpus_per_task).map_or(u32::MAX, |n| n.max(1));
                let min = wish.tasks.div_ceil(by_cpus.min(by_gpus));
                NodeCount { min, max: (min == 1 && self.config.nodes.len() == 1).then_some(1) }
            }
            exact => NodeCount { min: exact, max: Some(exact) },
        };
        let kind = GresKind::new(GPU, None);
        let count = u64::from(gpus_per_task);
        let gpus = (count > 0).then_some(GresRequest { kind, count, scope: GresScope::Task });
        let mut groups: Vec<Constraint> = wish.features.iter().map(|any| any_of(any)).collect();
        Request {
            nodes,
            tasks: wish.tasks,
            tasks_given: true,
            cpus_per_task: wish.cpus_per_task,
            memory: match wish.memory_mib {
                0 => MemoryRequest::PerCpu(1),
                mib => MemoryRequest::PerNode(mib),
            },
            gres: gpus.into_iter().collect(),
            constraint: match groups.len() {
                0 => None,
                1 => groups.pop(),
                _ => Some(Constraint::And(groups)),
            },
            exclusive: wish.exclusive,
            ..Request::default()
        }
    }
}

fn any_of(features: &[Box<str>]) -> Constraint {
    match features {
        [one] => Constraint::Feature(one.clone()),
        many => Constraint::Or(many.iter().cloned().map(Constraint::Feature).collect()),
    }
}

pub(super) fn gpus_of(node: &NodeConfig) -> u32 {
    let gpus = node.capacity.gres.iter().filter(|(kind, _)| &*kind.name == GPU);
    u32::try_from(gpus.map(|(_, n)| *n).sum::<u64>()).unwrap_or(u32::MAX)
}

fn config_of(machine: &Machine) -> ClusterConfig {
    let kinds = machine.nodes.iter();
    let each = kinds.flat_map(|(count, kind)| std::iter::repeat_n(kind, *count as usize));
    let nodes: Vec<NodeConfig> = (1..).zip(each).map(|(n, kind)| node(n, kind)).collect();
    let partition = Partition {
        name: PARTITION.into(),
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        default: true,
        state: PartitionState::Up,
        max_time: TimeLimit::Unlimited,
        default_time: None,
        min_nodes: 0,
        max_nodes: None,
        priority_tier: 1,
        priority_factor: 1,
        default_memory_per_node_mib: None,
        default_memory_per_cpu_mib: Some(1),
        max_memory_per_node_mib: None,
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        exclusive: false,
    };
    ClusterConfig {
        cluster: "replay".into(),
        nodes,
        partitions: vec![partition],
        licenses: Vec::new(),
        limits: Limits { max_jobs: u32::MAX, ..Limits::default() },
        priority: PriorityWeights::default(),
        topology: muster_model::TopologyConfig::default(),
    }
}

fn node(number: u32, kind: &NodeKind) -> NodeConfig {
    let gpu = GresKind { name: GPU.into(), of: kind.gpu_type.as_deref().map(Into::into) };
    let gpus = (kind.gpus > 0).then_some((gpu, u64::from(kind.gpus)));
    // A MiB for each CPU is as much as jobs without a memory wish take.
    let memory_mib = if kind.memory_mib > 0 { kind.memory_mib } else { u64::from(kind.cpus) };
    NodeConfig {
        name: format!("n{number}").into(),
        capacity: Capacity { cpus: kind.cpus, memory_mib, gres: gpus.into_iter().collect() },
        sockets: 1,
        cores_per_socket: kind.cpus,
        threads_per_core: 1,
        features: kind.features.clone(),
        auto_gpus: false,
        weight: 1,
    }
}

/// So many nodes of so many CPUs.
#[cfg(test)]
pub(super) fn equal_nodes(count: u32, cpus: u32) -> Vec<NodeConfig> {
    config_of(&Machine { nodes: vec![(count, NodeKind { cpus, ..NodeKind::default() })] }).nodes
}

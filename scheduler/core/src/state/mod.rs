//! The state: everything the cluster was promised.
//!
//! Primary fields are what the log says: `clock`, `config`, `nodes` (but for the ledger in them),
//! `partitions` (but for the members), `reservations`, `jobs` and `arrays` (but for `place`),
//! `next_id`, `habits`. A snapshot holds those, as [`Parts`]. Everything else, and all of [`Derived`], follows from them
//! and is built by [`State::rebuild_indices`]; `apply` keeps it up to date step by step, and the
//! tests hold the two against each other.
//!
//! - `job`: jobs, arrays, views of them; `node`: nodes and their ledger
//! - `queue`: ready jobs by group; `dependency`: terms and what settles them
//! - `habits`: what finished jobs taught; `topology`: the network between nodes, compiled
//! - `reserved`: what reservations close, and to whom
//! - `endings`: what running jobs will give back; `mix`: what jobs hold of single nodes
//! - `index`: what is derived from one job, put in and taken out; `interned`: shared parts of specs
//! - `read`: questions that queries ask

pub mod dependency;
pub mod endings;
pub mod habits;
pub(crate) mod index;
pub mod interned;
pub mod job;
pub mod mix;
pub mod node;
pub mod queue;
mod read;
pub mod reserved;
pub mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::{
    Inventory, JobId, JobSpec, NodeConfig, NodeHealth, NodeId, Partition, Request, Reservation,
    Timestamp, TopologyConfig, Uid,
};

use crate::config::{ClusterConfig, Limits, PriorityWeights};
use crate::plan::axes::Axes;

pub use dependency::{Standing, TermState};
pub use endings::{Endings, Release};
pub use habits::{Asked, Habit, Habits, Past};
pub use interned::Interned;
pub use job::{Array, Entry, Job, JobView, Unstarted};
pub use mix::Portion;
pub use node::{Facts, GresSlot, Node, Row, Units, Wiring};
pub use queue::{GroupKey, Place, Queue, Shape, Verdict};
pub use topology::Topology;

/// Everything that decisions are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The latest time any fact named. Never runs backwards.
    pub clock: Timestamp,
    /// As last configured; changes by operators are in `nodes` and `partitions`.
    pub config: Arc<ClusterConfig>,
    /// By `NodeId`.
    pub nodes: Vec<Node>,
    /// In the order of the config.
    pub partitions: Vec<PartitionRow>,
    /// By name; those whose time is over go at the next tick.
    pub reservations: BTreeMap<Box<str>, Reservation>,
    pub jobs: BTreeMap<JobId, Job>,
    pub arrays: BTreeMap<JobId, Array>,
    /// Where the search for a free job number begins.
    pub next_id: u32,
    pub habits: Habits,
    pub derived: Derived,
}

/// A partition in force.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionRow {
    /// As configured, with an admin's changes since.
    pub partition: Partition,
    /// Derived: member nodes, ascending.
    pub members: Vec<NodeId>,
}

/// What follows from the primary fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    pub node_names: BTreeMap<Box<str>, NodeId>,
    pub queue: Queue,
    /// Who waits for a job or array, by the id they name.
    pub dependents: BTreeMap<JobId, BTreeSet<Entry>>,
    pub names: queue::Names,
    /// First answers to requests. An id lives as long as its job is visible.
    pub requests: BTreeMap<(Uid, [u8; 16]), JobId>,
    /// Running and not suspended, by the end of their time limit.
    pub ends: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that hold resources.
    pub holding: BTreeSet<JobId>,
    /// What they hold, by when they must give it back; jobs without an end are not in it.
    pub endings: Endings,
    /// GPUs that are drained, of nodes that have such: who holds one gives it back to nobody.
    pub kept_back: BTreeMap<NodeId, u64>,
    /// What the planner counts on nodes.
    pub axes: Arc<Axes>,
    /// Ended and still visible, oldest first; arrays without a task of their own too.
    pub ended: BTreeSet<(Timestamp, JobId)>,
    /// Pending jobs by the time from which they cannot end before their deadline.
    pub deadlines: BTreeSet<(Timestamp, Entry)>,
    /// Pending jobs whose dependency can never hold and who wish to end then.
    pub doomed: BTreeSet<Entry>,
    /// Jobs and arrays that have not ended, by the reservation they name.
    pub reserving: BTreeMap<Box<str>, BTreeSet<Entry>>,
    /// Per array: tasks that are jobs, and those of them that hold resources.
    pub tasks: BTreeMap<JobId, TaskCounts>,
    pub licenses_used: BTreeMap<Box<str>, u32>,
    /// What jobs hold of single nodes, and how often, as far as there are GPUs in it.
    pub mix: BTreeMap<Portion, u32>,
    /// What `config.topology` says; shared with every view.
    pub topology: Arc<Topology>,
    /// Pending heterogeneous jobs, by the component with the script.
    pub leaders: BTreeSet<JobId>,
    /// Pending and active jobs; array tasks count each.
    pub live: u64,
    /// Jobs that hold resources.
    pub active: u64,
    pub interned: Interned,
}

/// Counts of an array's materialised tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    pub jobs: u32,
    pub active: u32,
}

/// The primary fields of a state: what a snapshot keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    pub clock: Timestamp,
    pub config: Arc<ClusterConfig>,
    /// By `NodeId`.
    pub nodes: Vec<NodeParts>,
    pub partitions: Vec<Partition>,
    pub reservations: Vec<Reservation>,
    /// `place` is of no importance.
    pub jobs: Vec<Job>,
    pub arrays: Vec<Array>,
    pub next_id: u32,
    pub habits: Habits,
}

/// The primary fields of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeParts {
    pub config: NodeConfig,
    pub configured: bool,
    pub inventory: Option<Arc<Inventory>>,
    pub health: NodeHealth,
    pub comment: Box<str>,
}

impl Default for State {
    fn default() -> Self {
        State::new()
    }
}

impl State {
    /// Before the first fact.
    #[must_use]
    pub fn new() -> Self {
        let config = ClusterConfig {
            cluster: Box::default(),
            nodes: Vec::new(),
            partitions: Vec::new(),
            licenses: Vec::new(),
            limits: Limits::default(),
            priority: PriorityWeights::default(),
            topology: TopologyConfig::default(),
        };
        State {
            clock: Timestamp(0),
            next_id: config.limits.first_job_id,
            config: Arc::new(config),
            nodes: Vec::new(),
            partitions: Vec::new(),
            reservations: BTreeMap::new(),
            jobs: BTreeMap::new(),
            arrays: BTreeMap::new(),
            habits: Habits::default(),
            derived: Derived::default(),
        }
    }

    /// The primary fields.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let node = |n: &Node| NodeParts {
            config: n.config.clone(),
            configured: n.configured,
            inventory: n.inventory.clone(),
            health: n.health.clone(),
            comment: n.comment.clone(),
        };
        Parts {
            clock: self.clock,
            config: Arc::clone(&self.config),
            nodes: self.nodes.iter().map(node).collect(),
            partitions: self.partitions.iter().map(|r| r.partition.clone()).collect(),
            reservations: self.reservations.values().cloned().collect(),
            jobs: self.jobs.values().cloned().collect(),
            arrays: self.arrays.values().cloned().collect(),
            next_id: self.next_id,
            habits: self.habits.clone(),
        }
    }

    /// The state with these primary fields.
    #[must_use]
    pub fn from_parts(parts: Parts) -> Self {
        let node = |(id, n): (u32, NodeParts)| Node {
            configured: n.configured,
            inventory: n.inventory,
            health: n.health,
            comment: n.comment,
            ..Node::new(NodeId(id), n.config)
        };
        let row = |partition| PartitionRow { partition, members: Vec::new() };
        let mut state = State {
            clock: parts.clock,
            config: parts.config,
            nodes: (0u32..).zip(parts.nodes).map(node).collect(),
            partitions: parts.partitions.into_iter().map(row).collect(),
            reservations: parts.reservations.into_iter().map(|r| (r.name.clone(), r)).collect(),
            jobs: parts.jobs.into_iter().map(|job| (job.id, job)).collect(),
            arrays: parts.arrays.into_iter().map(|array| (array.id, array)).collect(),
            next_id: parts.next_id,
            habits: parts.habits,
            derived: Derived::default(),
        };
        state.rebuild_indices();
        state
    }

    /// Takes from a spec what an earlier one had just so.
    pub fn share(&self, spec: &mut JobSpec) {
        self.derived.interned.share(spec);
    }

    /// An equal request that is kept already.
    #[must_use]
    pub fn interned(&self, request: &Arc<Request>) -> Option<Arc<Request>> {
        self.derived.interned.request(request)
    }
}

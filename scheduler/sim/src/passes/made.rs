//! Clusters and queues that are made up for the measurement.

use std::sync::Arc;

use muster_core::apply::apply;
use muster_core::command::{Command, Submit};
use muster_core::config::{Actor, ClusterConfig, Limits, PriorityWeights, Role};
use muster_core::decide::decide;
use muster_core::plan::{Policy, plan, view};
use muster_core::state::State;
use muster_model::{
    Capacity, CpuBinding, Gpu, GresKind, GresRequest, GresScope, Inventory, JobSpec, MemoryRequest,
    MigInstance, NodeConfig, NodeCount, NodeId, Partition, PartitionState, Request, Seconds,
    TimeLimit, Timestamp, TopologyWish, Uid, User,
};

use super::units;
use crate::dice::Dice;

/// What is special about nodes and jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Eight whole GPUs on every node.
    Plain,
    /// On every fourth node two of the GPUs are cut into seven instances each.
    Cut,
    /// Every job's CPUs must be near its GPUs (`--gres-flags=enforce-binding`).
    Bound,
}

/// A cluster that is full to 99 %, with jobs of so many shapes before it.
pub(super) fn full((nodes, kind): (u32, Kind), jobs: u32, shapes: u32) -> anyhow::Result<State> {
    let mut state = cluster(nodes, kind)?;
    fill(&mut state, kind)?;
    submit(&mut state, (jobs, kind), shapes)?;
    Ok(state)
}

/// An empty cluster with jobs before it that can all start.
pub(super) fn burst(nodes: u32, jobs: u32) -> anyhow::Result<State> {
    let mut state = cluster(nodes, Kind::Plain)?;
    submit_small(&mut state, jobs)?;
    Ok(state)
}

fn wish(state: &mut State, command: &Command) -> anyhow::Result<()> {
    let now = state.clock;
    let decision = decide(state, command, now).map_err(|why| anyhow::anyhow!("{why}"))?;
    decision.events.iter().for_each(|event| apply(state, event));
    Ok(())
}

/// Of every fourth node of a cluster with cut GPUs: whole ones, and instances of the two others.
const WHOLE: usize = 6;
const INSTANCES: usize = 14;

fn capacity(kind: Kind, node: u32) -> Capacity {
    let gpus = |of: &str, count: usize| (GresKind::new("gpu", Some(of)), count as u64);
    let gres = match is_cut(kind, node) {
        true => [gpus("h100", WHOLE), gpus("h100_1g.10gb", INSTANCES)].into(),
        false => [gpus("h100", 8)].into(),
    };
    Capacity { cpus: 64, memory_mib: 512 << 10, gres }
}

fn units_of(kind: Kind, node: u32) -> u32 {
    let all: u64 = capacity(kind, node).gres.values().sum();
    u32::try_from(all).expect("at most 20")
}

fn is_cut(kind: Kind, node: u32) -> bool {
    kind == Kind::Cut && node.is_multiple_of(4)
}

/// The GPUs of a node some of which are cut; of others there is nothing to be said.
fn gpus(kind: Kind, node: u32) -> Vec<Gpu> {
    let whole = Gpu { of: "h100".into(), ..Gpu::default() };
    let mig = Some(MigInstance::default());
    let part = Gpu { of: "h100_1g.10gb".into(), mig, ..Gpu::default() };
    match is_cut(kind, node) {
        true => [vec![whole; WHOLE], vec![part; INSTANCES]].concat(),
        false => Vec::new(),
    }
}

fn cluster(count: u32, kind: Kind) -> anyhow::Result<State> {
    let node = |i: u32| NodeConfig {
        name: format!("n{i}").into(),
        capacity: capacity(kind, i),
        sockets: 2,
        cores_per_socket: 32,
        threads_per_core: 1,
        features: if i.is_multiple_of(4) { vec!["ib".into()] } else { Vec::new() },
        weight: 1,
        auto_gpus: false,
    };
    let nodes: Vec<NodeConfig> = (1..=count).map(node).collect();
    let mut state = State::new();
    state.clock = Timestamp::from_seconds(1_700_000_000);
    let config = ClusterConfig {
        cluster: "bench".into(),
        partitions: vec![Partition {
            name: "main".into(),
            nodes: nodes.iter().map(|n| n.name.clone()).collect(),
            default: true,
            state: PartitionState::Up,
            max_time: TimeLimit::Unlimited,
            default_time: None,
            min_nodes: 1,
            max_nodes: None,
            priority_tier: 1,
            priority_factor: 1,
            default_memory_per_node_mib: None,
            default_memory_per_cpu_mib: None,
            max_memory_per_node_mib: None,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            exclusive: false,
        }],
        nodes,
        licenses: Vec::new(),
        limits: Limits { max_jobs: 10_000_000, ..Limits::default() },
        priority: PriorityWeights::default(),
        topology: muster_model::TopologyConfig::default(),
    };
    wish(&mut state, &Command::Configure(Box::new(config)))?;
    let links = Arc::new(units::nvswitch());
    for node in 0..count {
        let inventory = Box::new(Inventory {
            capacity: capacity(kind, node + 1),
            sockets: 2,
            cores_per_socket: 32,
            threads_per_core: 1,
            numa: units::numa(64),
            gpus: gpus(kind, node + 1),
            links: (!is_cut(kind, node + 1)).then(|| Arc::clone(&links)),
            ..Inventory::default()
        });
        wish(&mut state, &Command::Register { node: NodeId(node), inventory })?;
    }
    Ok(state)
}

/// Gives 99 % of the GPUs to jobs of mixed sizes.
fn fill(state: &mut State, kind: Kind) -> anyhow::Result<()> {
    let mut dice = Dice::new(1);
    let nodes = u32::try_from(state.nodes.len()).unwrap_or(u32::MAX);
    let gpus: u32 = (1..=nodes).map(|node| units_of(kind, node)).sum();
    // A node with cut GPUs has 20 units, and no more CPUs and memory than the others.
    let (cpus, memory) = if kind == Kind::Cut { (3, 20 << 10) } else { (6, 40 << 10) };
    let (mut held, goal) = (0, gpus / 100 * 99);
    while held < goal {
        let size = [1, 1, 1, 2, 2, 4, 8][dice.below(7) as usize].min(goal - held);
        let limit = u32::try_from(600 + dice.below(72) * 3600 + dice.below(3600))
            .expect("three days in seconds");
        let shape = Shape { nodes: 1, gpus: size, cpus: size * cpus, memory, limit };
        offer(state, &shape, (held, kind))?;
        held += size;
    }
    let policy =
        Policy { shadows: 0, max_starts: usize::MAX, max_heads: usize::MAX, ..Policy::default() };
    let now = state.clock;
    let planned = plan(&view(state, now, &policy), &policy, now, u64::MAX);
    wish(state, &Command::Commit(planned.starts))
}

/// Puts jobs of so many shapes into the queue.
fn submit(state: &mut State, (jobs, kind): (u32, Kind), shapes: u32) -> anyhow::Result<()> {
    let mut dice = Dice::new(2);
    let shapes: Vec<Shape> = (0..shapes).map(|n| Shape::rolled(&mut dice, n)).collect();
    for job in 0..jobs {
        // Popular shapes are asked for more often than others: the lesser of two throws.
        let (a, b) = (dice.below(shapes.len() as u64), dice.below(shapes.len() as u64));
        offer(state, &shapes[a.min(b) as usize], (job, kind))?;
    }
    Ok(())
}

/// Puts so many jobs into the queue, of which each takes two nodes at most.
fn submit_small(state: &mut State, jobs: u32) -> anyhow::Result<()> {
    let mut dice = Dice::new(3);
    let shapes: Vec<Shape> = (0..BURST_SHAPES).map(|n| Shape::small(&mut dice, n)).collect();
    for job in 0..jobs {
        offer(state, &shapes[dice.below(shapes.len() as u64) as usize], (job, Kind::Plain))?;
    }
    Ok(())
}

/// Shapes in a burst of starts.
pub(super) const BURST_SHAPES: u32 = 200;

struct Shape {
    nodes: u32,
    gpus: u32,
    cpus: u32,
    memory: u64,
    limit: u32,
}

impl Shape {
    fn rolled(dice: &mut Dice, number: u32) -> Self {
        let nodes = [1, 1, 1, 1, 2, 2, 4, 8, 16][dice.below(9) as usize];
        Self::of(dice, nodes, number)
    }

    /// At most two nodes, so that half as many jobs as nodes can run at once.
    fn small(dice: &mut Dice, number: u32) -> Self {
        let nodes = [1, 1, 1, 2][dice.below(4) as usize];
        Self::of(dice, nodes, number)
    }

    fn of(dice: &mut Dice, nodes: u32, number: u32) -> Self {
        let gpus = if nodes > 1 { 8 } else { [1, 1, 2, 4, 8][dice.below(5) as usize] };
        Shape {
            nodes,
            gpus,
            cpus: gpus * u32::try_from(1 + dice.below(8)).expect("at most 8"),
            memory: (u64::from(gpus) * (8 + u64::from(number % 56))) << 10,
            limit: 600 * u32::try_from(1 + dice.below(432)).expect("at most 432"),
        }
    }
}

fn offer(state: &mut State, shape: &Shape, (salt, kind): (u32, Kind)) -> anyhow::Result<()> {
    let uid = 1000 + salt % 97;
    let request = Request {
        nodes: NodeCount { min: shape.nodes, max: Some(shape.nodes) },
        tasks: shape.nodes,
        tasks_per_node: Some(1),
        cpus_per_task: shape.cpus.clamp(1, 64),
        memory: MemoryRequest::PerNode(shape.memory.min(512 << 10)),
        gres: vec![GresRequest {
            kind: GresKind::new("gpu", None),
            count: u64::from(shape.gpus),
            scope: GresScope::Node,
        }],
        topology: TopologyWish {
            binding: match kind {
                Kind::Bound => CpuBinding::Enforced,
                Kind::Plain | Kind::Cut => CpuBinding::Preferred,
            },
            ..TopologyWish::default()
        },
        ..Request::default()
    };
    let request = Arc::new(request);
    let spec = JobSpec {
        time_limit: Some(TimeLimit::Limited(Seconds(shape.limit))),
        ..JobSpec::plain(
            User { uid: Uid(uid), gid: uid, name: "u".into() },
            state.interned(&request).unwrap_or(request),
        )
    };
    let actor = Actor { uid: Uid(uid), role: Role::User };
    let submit =
        Submit { actor, groups: Vec::new(), request_id: [0; 16], spec, components: Vec::new() };
    wish(state, &Command::Submit(Box::new(submit)))
}

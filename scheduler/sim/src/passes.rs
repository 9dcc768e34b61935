//! `muster bench pass`: what a scheduling pass costs, in CPU time, on clusters made up for it.
//!
//! A cluster of equal 8-GPU nodes is filled to 99 % by the planner itself with jobs of mixed sizes
//! that end at mixed times, and a queue of jobs of so many distinct shapes is put before it. Then
//! the copy of the view and the plan are timed on this thread, several times over; the least is
//! shown, since whatever is above it is other work of the machine.
//!
//! - `passes/units`: what choosing GPUs inside a node costs

mod units;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use muster_core::apply::apply;
use muster_core::command::{Command, Submit};
use muster_core::config::{Actor, ClusterConfig, Limits, PriorityWeights, Role};
use muster_core::decide::decide;
use muster_core::plan::{Plan, Policy, plan, view};
use muster_core::state::State;
use muster_model::{
    Capacity, GresKind, GresRequest, GresScope, Inventory, JobSpec, MemoryRequest, NodeConfig,
    NodeCount, NodeId, Partition, PartitionState, Request, Seconds, TimeLimit, Timestamp,
    TopologyWish, Uid, User,
};
use nix::time::{ClockId, clock_gettime};

use crate::dice::Dice;

#[derive(Debug, Parser)]
#[command(name = "muster bench pass", about = "Measures scheduling passes")]
struct Args {
    /// Nodes of 8 GPUs and 64 CPUs
    #[arg(long, default_value_t = 10_000)]
    nodes: u32,
    /// Pending jobs
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
    /// Distinct shapes among them (default: 200 and 5,000)
    #[arg(long)]
    shapes: Option<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Small amounts, to see that everything works: the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Only passes whose name begins so: start-now, default, 1,000, conservative, burst
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Times each pass is measured
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Instead of passes, the choice of GPUs inside nodes of several kinds
    #[arg(long)]
    units: bool,
}

/// One kind of pass.
struct Case {
    name: &'static str,
    policy: Policy,
    aim_ms: f64,
}

/// One measurement.
#[derive(Debug, serde::Serialize)]
struct Row {
    pass: &'static str,
    nodes: u32,
    jobs: u32,
    shapes: u32,
    groups: usize,
    starts: usize,
    shadows: usize,
    view_ms: f64,
    plan_ms: f64,
    aim_ms: f64,
}

/// `muster bench pass`: the exit code.
#[must_use]
pub fn main(words: &[String]) -> i32 {
    let words = std::iter::once("muster bench pass".to_owned()).chain(words.iter().cloned());
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(shown) => {
            // Help goes to stdout and is no failure. A closed pipe is no reason to say more.
            let _ = shown.print();
            return shown.exit_code();
        }
    };
    match run(&args) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("muster bench: error: {why:#}");
            1
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (nodes, jobs) = if args.quick { (200, 2_000) } else { (args.nodes, args.jobs) };
    if nodes == 0 || jobs == 0 || args.repeat == 0 {
        bail!("--nodes, --jobs and --repeat must be at least 1");
    }
    if args.units {
        return units::run(args.json);
    }
    if !args.json {
        println!(
            "CPU time of one pass, ms, the least of {}; aims are for 10,000 nodes",
            args.repeat
        );
        println!(
            "{:<22} {:>7} {:>9} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9}",
            "pass", "nodes", "jobs", "shapes", "starts", "shadows", "view", "plan", "aim"
        );
    }
    let mut rows = Vec::new();
    let mut show = |row: Row| {
        if !args.json {
            println!(
                "{:<22} {:>7} {:>9} {:>7} {:>7} {:>8} {:>9.2} {:>9.2} {:>9}",
                row.pass,
                row.nodes,
                row.jobs,
                row.shapes,
                row.starts,
                row.shadows,
                row.view_ms,
                row.plan_ms,
                row.aim_ms
            );
        }
        rows.push(row);
    };
    let shapes = args.shapes.map_or_else(|| vec![200, 5_000], |n| vec![n]);
    for shapes in shapes {
        let mut state = cluster(nodes)?;
        fill(&mut state)?;
        submit(&mut state, jobs, shapes)?;
        let starts = Policy { shadows: 0, ..Policy::default() };
        for case in [
            Case { name: "start-now", policy: starts, aim_ms: 5.0 },
            Case { name: "default", policy: Policy::default(), aim_ms: 150.0 },
            Case {
                name: "1,000 shadows",
                policy: Policy { shadows: 1_000, ..Policy::default() },
                aim_ms: 150.0,
            },
            Case { name: "conservative", policy: Policy::conservative(), aim_ms: 1_000.0 },
        ] {
            if case.name.starts_with(&args.only) {
                show(measure(&state, &case, args.repeat, (nodes, jobs, shapes)));
            }
        }
    }
    let mut state = cluster(nodes)?;
    let burst = (nodes / 2).max(1);
    submit_small(&mut state, burst)?;
    let case = Case { name: "burst of starts", policy: Policy::default(), aim_ms: 20.0 };
    if case.name.starts_with(&args.only) {
        show(measure(&state, &case, args.repeat, (nodes, burst, BURST_SHAPES)));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).context("rows are plain data")?);
    }
    Ok(())
}

fn measure(state: &State, case: &Case, repeat: u32, (nodes, jobs, shapes): (u32, u32, u32)) -> Row {
    let now = state.clock;
    let mut best = (Duration::MAX, Duration::MAX);
    let mut last = (0, Plan::default());
    for _ in 0..repeat {
        let began = cpu();
        let view = view(state, now, &case.policy);
        let copied = cpu();
        let planned = plan(&view, &case.policy, now, u64::MAX);
        let done = cpu();
        best = (best.0.min(copied - began), best.1.min(done - copied));
        last = (view.groups.len(), planned);
    }
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    Row {
        pass: case.name,
        nodes,
        jobs,
        shapes,
        groups: last.0,
        starts: last.1.starts.len(),
        shadows: last.1.shadows.len(),
        view_ms: ms(best.0),
        plan_ms: ms(best.1),
        aim_ms: case.aim_ms,
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

fn wish(state: &mut State, command: &Command) -> anyhow::Result<()> {
    let now = state.clock;
    let decision = decide(state, command, now).map_err(|why| anyhow::anyhow!("{why}"))?;
    decision.events.iter().for_each(|event| apply(state, event));
    Ok(())
}

fn cluster(count: u32) -> anyhow::Result<State> {
    let capacity = Capacity {
        cpus: 64,
        memory_mib: 512 << 10,
        gres: [(GresKind::new("gpu", Some("h100")), 8)].into(),
    };
    let node = |i: u32| NodeConfig {
        name: format!("n{i}").into(),
        capacity: capacity.clone(),
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
            capacity: capacity.clone(),
            sockets: 2,
            cores_per_socket: 32,
            threads_per_core: 1,
            numa: units::numa(64),
            links: Some(Arc::clone(&links)),
            ..Inventory::default()
        });
        wish(&mut state, &Command::Register { node: NodeId(node), inventory })?;
    }
    Ok(state)
}

/// Gives 99 % of the GPUs to jobs of mixed sizes.
fn fill(state: &mut State) -> anyhow::Result<()> {
    let mut dice = Dice::new(1);
    let gpus = u32::try_from(state.nodes.len()).unwrap_or(u32::MAX) * 8;
    let (mut held, goal) = (0, gpus / 100 * 99);
    while held < goal {
        let size = [1, 1, 1, 2, 2, 4, 8][dice.below(7) as usize].min(goal - held);
        let limit = u32::try_from(600 + dice.below(72) * 3600 + dice.below(3600))
            .expect("three days in seconds");
        let shape = Shape { nodes: 1, gpus: size, cpus: size * 6, memory: 40 << 10, limit };
        offer(state, &shape, held)?;
        held += size;
    }
    let policy =
        Policy { shadows: 0, max_starts: usize::MAX, max_heads: usize::MAX, ..Policy::default() };
    let now = state.clock;
    let planned = plan(&view(state, now, &policy), &policy, now, u64::MAX);
    wish(state, &Command::Commit(planned.starts))
}

/// Puts jobs of so many shapes into the queue.
fn submit(state: &mut State, jobs: u32, shapes: u32) -> anyhow::Result<()> {
    let mut dice = Dice::new(2);
    let shapes: Vec<Shape> = (0..shapes).map(|n| Shape::rolled(&mut dice, n)).collect();
    for job in 0..jobs {
        // Popular shapes are asked for more often than others: the lesser of two throws.
        let (a, b) = (dice.below(shapes.len() as u64), dice.below(shapes.len() as u64));
        offer(state, &shapes[a.min(b) as usize], job)?;
    }
    Ok(())
}

/// Puts so many jobs into the queue, of which each takes two nodes at most.
fn submit_small(state: &mut State, jobs: u32) -> anyhow::Result<()> {
    let mut dice = Dice::new(3);
    let shapes: Vec<Shape> = (0..BURST_SHAPES).map(|n| Shape::small(&mut dice, n)).collect();
    for job in 0..jobs {
        offer(state, &shapes[dice.below(shapes.len() as u64) as usize], job)?;
    }
    Ok(())
}

/// Shapes in a burst of starts.
const BURST_SHAPES: u32 = 200;

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

fn offer(state: &mut State, shape: &Shape, salt: u32) -> anyhow::Result<()> {
    let uid = 1000 + salt % 97;
    let request = Request {
        nodes: NodeCount { min: shape.nodes, max: Some(shape.nodes) },
        tasks: shape.nodes,
        tasks_given: false,
        tasks_per_node: Some(1),
        cpus_per_task: shape.cpus.clamp(1, 64),
        min_cpus_per_node: 0,
        memory: MemoryRequest::PerNode(shape.memory.min(512 << 10)),
        gres: vec![GresRequest {
            kind: GresKind::new("gpu", None),
            count: u64::from(shape.gpus),
            scope: GresScope::Node,
        }],
        cpus_per_gpu: None,
        constraint: None,
        required_nodes: Vec::new(),
        excluded_nodes: Vec::new(),
        exclusive: false,
        contiguous: false,
        threads_per_core: None,
        sockets_per_node: None,
        topology: TopologyWish::default(),
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

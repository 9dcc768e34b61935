//! `muster bench pass`: what a scheduling pass costs, in CPU time, on clusters made up for it.
//!
//! A cluster of equal 8-GPU nodes is filled to 99 % by the planner itself with jobs of mixed sizes
//! that end at mixed times, and a queue of jobs of so many distinct shapes is put before it. Then
//! the copy of the view and the plan are timed on this thread, several times over; the least is
//! shown, since whatever is above it is other work of the machine.
//!
//! - `passes/made`: those clusters and queues; `passes/units`: what choosing GPUs inside a node costs

mod made;
mod units;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use muster_core::plan::{Plan, Policy, plan, view};
use muster_core::state::State;
use nix::time::{ClockId, clock_gettime};

use made::{BURST_SHAPES, Kind};

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
    /// Only passes whose name begins so: start-now, default, 1,000, conservative, cut, bound, burst
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
            "{:<24} {:>7} {:>9} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9}",
            "pass", "nodes", "jobs", "shapes", "starts", "shadows", "view", "plan", "aim"
        );
    }
    let mut rows = Vec::new();
    let mut show = |row: Row| {
        if !args.json {
            println!(
                "{:<24} {:>7} {:>9} {:>7} {:>7} {:>8} {:>9.2} {:>9.2} {:>9}",
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
    let plain = shapes.iter().map(|shapes| (Kind::Plain, *shapes));
    let special = [Kind::Cut, Kind::Bound].map(|kind| (kind, shapes[0]));
    for (kind, shapes) in plain.chain(special) {
        let wanted = |case: &Case| case.name.starts_with(&args.only);
        let cases: Vec<Case> = cases(kind).into_iter().filter(wanted).collect();
        if cases.is_empty() {
            continue;
        }
        let state = made::full((nodes, kind), jobs, shapes)?;
        for case in cases {
            show(measure(&state, &case, args.repeat, (nodes, jobs, shapes)));
        }
    }
    let burst = (nodes / 2).max(1);
    let case = Case { name: "burst of starts", policy: Policy::default(), aim_ms: 20.0 };
    if case.name.starts_with(&args.only) {
        let state = made::burst(nodes, burst)?;
        show(measure(&state, &case, args.repeat, (nodes, burst, BURST_SHAPES)));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).context("rows are plain data")?);
    }
    Ok(())
}

/// The passes that are measured on a kind of cluster.
fn cases(kind: Kind) -> Vec<Case> {
    let case = |name, shadows, aim_ms| Case {
        name,
        policy: Policy { shadows, ..Policy::default() },
        aim_ms,
    };
    match kind {
        Kind::Plain => vec![
            case("start-now", 0, 5.0),
            Case { name: "default", policy: Policy::default(), aim_ms: 150.0 },
            case("1,000 shadows", 1_000, 150.0),
            Case { name: "conservative", policy: Policy::conservative(), aim_ms: 1_000.0 },
        ],
        Kind::Cut => {
            vec![case("cut GPUs, start-now", 0, 5.0), case("cut GPUs, 1,000 shadows", 1_000, 150.0)]
        }
        Kind::Bound => {
            vec![case("bound, start-now", 0, 5.0), case("bound, 1,000 shadows", 1_000, 150.0)]
        }
    }
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

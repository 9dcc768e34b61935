//! `muster sim plan`: a pass that a controller dumped, run again.

use std::path::PathBuf;

use muster_controller::dump::Dump;
use muster_core::plan::listing::lines;
use serde::Serialize;

use crate::replay::{output, print};

/// What to run again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A dump of a pass: muster dump-pass writes one, and the controller by itself into
    /// state_dir/passes
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Of the pass, milliseconds since 1970.
    now_ms: i64,
    cause: String,
    version: String,
    took_ms: f64,
    refused: u32,
    nodes: usize,
    silent_nodes: usize,
    groups: usize,
    running: usize,
    starts: usize,
    shadows: usize,
    fuel_used: u64,
    /// A choice each.
    plan: Vec<String>,
    equal: bool,
    /// What was dumped, where it is not the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dumped: Vec<String>,
}

/// Different choices end so: scripts can tell them from faults.
const DIFFERENT: i32 = 3;

/// The exit code: 0 if the plan is the same, 3 if it is another, 1 if there is none.
pub(crate) fn run(args: &Args) -> i32 {
    let equal = report(args).and_then(|report| {
        print(&if args.json { output::json(&report) } else { text(&report) })?;
        Ok(report.equal)
    });
    match equal {
        Ok(true) => 0,
        Ok(false) => DIFFERENT,
        Err(why) => {
            eprintln!("muster sim: error: {why:#}");
            1
        }
    }
}

fn report(args: &Args) -> anyhow::Result<Report> {
    let dump = Dump::read(&args.file)?;
    let file = args.file.display();
    let planned = dump.plan();
    let (view, plan) = planned.map_err(|why| anyhow::anyhow!("{file}: its state: {why}"))?;
    let again = lines(&view, &plan);
    let equal = again == dump.chosen;
    Ok(Report {
        now_ms: dump.now.0,
        took_ms: dump.took.as_secs_f64() * 1000.0,
        refused: dump.refused,
        nodes: view.nodes.len(),
        silent_nodes: dump.silent.len(),
        groups: view.groups.len(),
        running: view.running.len(),
        starts: plan.starts.len(),
        shadows: plan.shadows.len(),
        fuel_used: plan.fuel_used,
        plan: again,
        equal,
        dumped: if equal { Vec::new() } else { dump.chosen },
        cause: dump.cause,
        version: dump.version,
    })
}

fn text(r: &Report) -> String {
    let mut out = format!(
        "pass of {} ms ({}, version {}): {} nodes ({} silent), {} groups of jobs, {} jobs that run\n\
         it took {:.1} ms and {} of its starts were turned down\n",
        r.now_ms,
        r.cause,
        r.version,
        r.nodes,
        r.silent_nodes,
        r.groups,
        r.running,
        r.took_ms,
        r.refused
    );
    for line in &r.plan {
        out += &format!("  {line}\n");
    }
    if r.equal {
        return out + "equal: the same plan as was dumped\n";
    }
    let differ = r.plan.iter().zip(&r.dumped).position(|(again, before)| again != before);
    let at = differ.unwrap_or(r.plan.len().min(r.dumped.len()));
    let line = |lines: &[String]| lines.get(at).map_or_else(|| "nothing".to_owned(), Clone::clone);
    out + &format!(
        "different from line {} on\n  dumped: {}\n  now:    {}\n",
        at + 1,
        line(&r.dumped),
        line(&r.plan)
    )
}

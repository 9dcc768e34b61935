//! `muster sim replay` and `muster sim compare`: traces through the real planner.
//!
//! - `trace/`: files of jobs; `cluster`: nodes for them; `policy`: names for ways to choose
//! - `drive`: the replay; `promises`: what it carries from pass to pass
//! - `metrics`: what a schedule is worth; `network`: the leaf switches that it is measured on;
//!   `output`: that as text
//! - `resample`: whether a difference is more than chance
//! - `fill`: how much of a cluster can be given away at all; `shares`: the same of GPUs that are shared

pub mod cluster;
pub mod drive;
pub mod fill;
pub mod metrics;
pub mod network;
pub mod output;
pub mod policy;
mod promises;
pub mod resample;
pub mod shares;
pub mod trace;

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use cluster::Cluster;
use drive::{Schedule, Semantics, replay};
use metrics::metrics;
use trace::{File, Machine, Trace};

/// Refused jobs that are named; the others are counted.
const NAMED: usize = 5;

/// What to replay, and what to write.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trace: SWF, or a table of philly, openb, cerit or muster; .gz too. A node list may stand
    /// beside it
    #[arg(required = true, value_name = "TRACE")]
    pub files: Vec<PathBuf>,
    /// How to choose: default, config (what --config says), priority, fcfs, easy, easy-sjbf,
    /// conservative, sjf, f1, wfp3
    #[arg(long, default_value = "default")]
    pub policy: String,
    #[command(flatten)]
    pub change: policy::Flags,
    #[command(flatten)]
    pub cluster: cluster::Flags,
    /// When a pass runs
    #[arg(long, value_enum, default_value_t)]
    pub semantics: Semantics,
    /// Print the numbers as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the schedule: job,submit,start,end,procs
    #[arg(long, value_name = "OUT.csv")]
    pub schedule: Option<PathBuf>,
    /// Write plots of the schedule: one HTML file without anything from outside
    #[arg(long, value_name = "OUT.html")]
    pub report: Option<PathBuf>,
}

/// What to compare.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// Traces; a node list belongs to the traces that name no machine
    #[arg(required = true, value_name = "TRACE")]
    pub files: Vec<PathBuf>,
    /// Policies, the first of which the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "easy,default")]
    pub policy: Vec<String>,
    #[command(flatten)]
    pub change: policy::Flags,
    #[command(flatten)]
    pub cluster: cluster::Flags,
    /// When a pass runs
    #[arg(long, value_enum, default_value_t)]
    pub semantics: Semantics,
    /// Print the numbers as JSON
    #[arg(long)]
    pub json: bool,
    /// Replay N draws of each trace instead, all with other jobs left out by chance, and say how often
    /// each policy did better than the first: whether a difference is more than luck
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "json")]
    pub resample: Option<u32>,
    /// Of 100 jobs, those that a draw leaves out
    #[arg(long, value_name = "PERCENT", default_value_t = 3, requires = "resample",
        value_parser = clap::value_parser!(u32).range(1..100))]
    pub leave_out: u32,
}

/// `muster sim replay`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (traces, machine) = open(&args.files)?;
    let [trace] = &traces[..] else {
        anyhow::bail!("{} traces: one is replayed at a time, compare takes many", traces.len());
    };
    let policy = policy::policy(&args.policy, &args.change, args.cluster.config.as_deref())
        .map_err(anyhow::Error::msg)?;
    let cluster = Cluster::new(&args.cluster, trace, machine.as_ref())?;
    let schedule = watched(trace, &cluster, policy, args.semantics, &args.policy)?;
    complain(trace, &schedule);
    let numbers = metrics(trace, &cluster, &schedule);
    if let Some(path) = &args.schedule {
        write(path, &output::csv(trace, &cluster, &schedule))?;
    }
    if let Some(path) = &args.report {
        let page = crate::report::page(trace, &cluster, &schedule, &numbers, &args.policy);
        write(path, &page)?;
    }
    print(&if args.json { output::json(&numbers) } else { output::table(&numbers) })
}

/// `muster sim compare`.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let (traces, machine) = open(&args.files)?;
    let policies: Vec<_> = args
        .policy
        .iter()
        .map(|name| {
            Ok((&**name, policy::policy(name, &args.change, args.cluster.config.as_deref())?))
        })
        .collect::<Result<_, String>>()
        .map_err(anyhow::Error::msg)?;
    let mut all = Vec::new();
    for trace in &traces {
        let cluster = Cluster::new(&args.cluster, trace, machine.as_ref())?;
        if let Some(draws) = args.resample {
            let asked =
                resample::Asked { draws, leave_out: args.leave_out, semantics: args.semantics };
            let text = resample::compare(trace, &cluster, &policies, &asked)?;
            print(&format!("{text}\n"))?;
            continue;
        }
        let mut results = Vec::new();
        for (name, policy) in &policies {
            let schedule = watched(trace, &cluster, *policy, args.semantics, name)?;
            if results.is_empty() {
                complain(trace, &schedule);
            }
            results.push(output::Result {
                trace: name_of(&trace.file),
                policy: (*name).to_owned(),
                metrics: metrics(trace, &cluster, &schedule),
            });
        }
        if !args.json {
            print(&format!("{}\n", output::side_by_side(&results)))?;
        }
        all.extend(results);
    }
    if args.json {
        print(&output::json(&all))?;
    }
    Ok(())
}

/// Reads the files: traces, and at most one list of nodes.
fn open(files: &[PathBuf]) -> anyhow::Result<(Vec<Trace>, Option<Machine>)> {
    let (mut traces, mut machine) = (Vec::new(), None);
    for path in files {
        match trace::open(path)? {
            File::Jobs(trace) => traces.push(trace),
            File::Nodes(nodes) if machine.is_none() => machine = Some(nodes),
            File::Nodes(_) => anyhow::bail!("{}: a second list of nodes", path.display()),
        }
    }
    anyhow::ensure!(!traces.is_empty(), "only a list of nodes: a trace is missing");
    Ok((traces, machine))
}

fn name_of(file: &str) -> String {
    let name = Path::new(file).file_name().map_or(file.into(), |n| n.to_string_lossy());
    name.trim_end_matches(".gz").trim_end_matches(".swf").trim_end_matches(".csv").to_owned()
}

/// Replays with a progress bar, where somebody looks.
fn watched(
    trace: &Trace,
    cluster: &Cluster,
    policy: muster_core::plan::Policy,
    semantics: Semantics,
    name: &str,
) -> anyhow::Result<Schedule> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(trace.jobs.len() as u64),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} jobs, {eta} left");
    bar.set_style(style.expect("the template is sound"));
    bar.set_message(format!("{} {name}", name_of(&trace.file)));
    let done = replay(trace, cluster, policy, semantics, &mut |jobs| bar.set_position(jobs as u64));
    bar.finish_and_clear();
    done.with_context(|| format!("{}: replay with {name}", trace.file))
}

/// Names the jobs that the cluster did not take.
fn complain(trace: &Trace, schedule: &Schedule) {
    let Schedule { refused, .. } = schedule;
    for (at, why) in refused.iter().take(NAMED) {
        let job = &trace.jobs[*at];
        eprintln!("{}, line {}: job {} is left out: {why}", trace.file, job.line, job.id);
    }
    if refused.len() > NAMED {
        eprintln!("{}: {} more jobs are left out", trace.file, refused.len() - NAMED);
    }
}

/// To stdout. Whoever closed it has read enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(fault) if fault.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(fault).context("write to stdout")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

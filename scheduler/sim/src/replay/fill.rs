//! `muster sim fill`: how much of a GPU cluster is given away when as many GPUs are wanted as it
//! has, the measure of fragmentation of Weng et al. (ATC'23).
//!
//! Tasks are drawn from a trace, with replacement, until all that were drawn ask for every GPU.
//! None ends. One that finds no place waits for ever and keeps nobody from starting.

use serde::Serialize;

use super::cluster::Cluster;
use super::drive::{Semantics, replay};
use super::trace::{Entry, Trace};
use super::{cluster, open, output, policy};
use crate::dice::Dice;

/// Long enough that none ends while others come, seconds.
const FOR_EVER: i64 = 1_000_000_000;

/// What to fill.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trace of GPU jobs; a node list may stand beside it
    #[arg(required = true, value_name = "TRACE")]
    pub files: Vec<std::path::PathBuf>,
    /// The policies whose choice of nodes is measured
    #[arg(long, value_delimiter = ',', default_value = "default")]
    pub policy: Vec<String>,
    #[command(flatten)]
    pub change: policy::Flags,
    #[command(flatten)]
    pub cluster: cluster::Flags,
    /// How many draws; the result is their mean
    #[arg(long, default_value_t = 10)]
    pub seeds: u64,
    /// Print the numbers as JSON
    #[arg(long)]
    pub json: bool,
}

/// Shares of all GPUs.
#[derive(Debug, Clone, Serialize)]
pub struct Filled {
    pub policy: String,
    pub seeds: u64,
    pub mean_allocated: f64,
    pub least_allocated: f64,
    pub most_allocated: f64,
}

/// `muster sim fill`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (traces, machine) = open(&args.files)?;
    let [trace] = &traces[..] else { anyhow::bail!("one trace at a time") };
    let cluster = Cluster::new(&args.cluster, trace, machine.as_ref())?;
    let wanted = trace.jobs.iter().any(|job| cluster.takes(job).1 > 0);
    anyhow::ensure!(wanted && cluster.gpus > 0, "{}: no GPUs to fill", trace.file);
    anyhow::ensure!(args.seeds > 0, "--seeds 0: at least 1");
    let mut all = Vec::new();
    for name in &args.policy {
        let mut policy = policy::policy(name, &args.change, args.cluster.config.as_deref())
            .map_err(anyhow::Error::msg)?;
        // Nobody is kept waiting for somebody who never starts.
        policy = muster_core::plan::Policy { packing: policy.packing, ..first_fit() };
        let mut shares = Vec::new();
        for seed in 1..=args.seeds {
            let drawn = draw(trace, &cluster, seed);
            let done = replay(&drawn, &cluster, policy, Semantics::PerStamp, &mut |_| {})?;
            let last = drawn.jobs.last().map_or(0, |job| job.submit);
            let there = done.runs.iter().filter(|run| run.start <= last);
            let given: u64 = there.map(|run| cluster.takes(&drawn.jobs[run.job]).1).sum();
            shares.push(given as f64 / cluster.gpus as f64);
        }
        let round = |share: f64| (share * 1e6).round() / 1e6;
        all.push(Filled {
            policy: name.clone(),
            seeds: args.seeds,
            mean_allocated: round(shares.iter().sum::<f64>() / shares.len() as f64),
            least_allocated: round(shares.iter().copied().fold(f64::INFINITY, f64::min)),
            most_allocated: round(shares.iter().copied().fold(0.0, f64::max)),
        });
    }
    if args.json {
        return super::print(&output::json(&all));
    }
    let line = |f: &Filled| {
        let percent = |share: f64| share * 100.0;
        format!(
            "{:<14} {:6.2} % of the GPUs given (from {:.2} to {:.2} % in {} draws)\n",
            f.policy,
            percent(f.mean_allocated),
            percent(f.least_allocated),
            percent(f.most_allocated),
            f.seeds
        )
    };
    super::print(&all.iter().map(line).collect::<String>())
}

/// Whoever fits starts; nobody is promised anything.
fn first_fit() -> muster_core::plan::Policy {
    let policy = muster_core::plan::Policy { shadows: 0, ..muster_core::plan::Policy::easy() };
    muster_core::plan::Policy { max_starts: usize::MAX, max_heads: usize::MAX, ..policy }
}

/// Tasks by chance until they ask for as many GPUs as there are, one a second.
fn draw(trace: &Trace, cluster: &Cluster, seed: u64) -> Trace {
    let mut dice = Dice::new(seed);
    let (mut jobs, mut demand): (Vec<Entry>, u64) = (Vec::new(), 0);
    while demand < cluster.gpus {
        let task = dice.pick(&trace.jobs).expect("a trace has jobs");
        demand += cluster.takes(task).1;
        let (id, submit) = (jobs.len() as u64 + 1, jobs.len() as i64);
        jobs.push(Entry { id, submit, run: FOR_EVER, limit: FOR_EVER, ..task.clone() });
    }
    Trace { jobs, ..trace.clone() }
}

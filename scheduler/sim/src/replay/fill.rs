//! `muster sim fill`: how much of a GPU cluster is given away when as many GPUs are wanted as it
//! has, the experiment of Weng et al. (ATC'23).
//!
//! Tasks are drawn from a trace, with replacement, until all that were drawn ask for every GPU.
//! None ends. One that finds no place waits for ever and keeps nobody from starting. Three ways to
//! do it: `shares` gives shares of GPUs as the trace asks for them, which is what was published;
//! `whole` rounds them up to whole GPUs, by the same rules; `planner` lets the real pass place
//! whole GPUs, which knows no more of the tasks than what runs and waits.

use muster_core::plan::{Packing, Policy};
use serde::Serialize;

use super::cluster::Cluster;
use super::drive::{Semantics, replay};
use super::shares::{Field, Way, wanted};
use super::trace::{Entry, Trace};
use super::{cluster, open, output};
use crate::dice::Dice;

/// Long enough that none ends while others come, seconds.
const FOR_EVER: i64 = 1_000_000_000;

/// What to fill.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trace of GPU jobs; a node list may stand beside it
    #[arg(required = true, value_name = "TRACE")]
    pub files: Vec<std::path::PathBuf>,
    /// Ways to choose a node
    #[arg(long, value_enum, value_delimiter = ',', default_values_t =
        [PackingName::Random, PackingName::BestFit, PackingName::Fgd, PackingName::LeastFragments])]
    pub packing: Vec<PackingName>,
    /// Who places: a model that shares GPUs, the same with whole ones, the real planner
    #[arg(long, value_enum, value_delimiter = ',', default_values_t =
        [Placer::Shares, Placer::Whole, Placer::Planner])]
    pub by: Vec<Placer>,
    #[command(flatten)]
    pub cluster: cluster::Flags,
    /// How many draws; the result is their mean
    #[arg(long, default_value_t = 10)]
    pub seeds: u64,
    /// Print the numbers as JSON
    #[arg(long)]
    pub json: bool,
}

/// Who places the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placer {
    Shares,
    Whole,
    Planner,
}

/// Words for ways to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackingName {
    Random,
    BestFit,
    FirstFit,
    Spread,
    Fgd,
    LeastFragments,
}

impl PackingName {
    fn way(self) -> Way {
        match self {
            PackingName::Random => Way::Random,
            PackingName::BestFit => Way::Packed(Packing::BestFit),
            PackingName::FirstFit => Way::Packed(Packing::FirstFit),
            PackingName::Spread => Way::Packed(Packing::Spread),
            PackingName::Fgd => Way::Packed(Packing::Fgd),
            PackingName::LeastFragments => Way::Packed(Packing::LeastFragments),
        }
    }
}

/// Shares of all GPUs, over the draws; fragments are shares of the idle ones.
#[derive(Debug, Clone, Serialize)]
pub struct Filled {
    pub packing: PackingName,
    pub by: Placer,
    pub seeds: u64,
    pub mean_allocated: f64,
    pub least_allocated: f64,
    pub most_allocated: f64,
    /// When nine tenths of the GPUs were asked for, and all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_fragmented_at_90: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_fragmented_at_100: Option<f64>,
}

/// What one draw came to.
struct Draw {
    allocated: f64,
    fragmented: Option<(f64, f64)>,
}

/// `muster sim fill`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (traces, machine) = open(&args.files)?;
    let [trace] = &traces[..] else { anyhow::bail!("one trace at a time") };
    let cluster = Cluster::new(&args.cluster, trace, machine.as_ref())?;
    let wanted = trace.jobs.iter().any(|job| cluster.takes(job).1 > 0);
    anyhow::ensure!(wanted && cluster.gpus > 0, "{}: no GPUs to fill", trace.file);
    anyhow::ensure!(args.seeds > 0, "--seeds 0: at least 1");
    let models = args.by.iter().any(|by| *by != Placer::Planner);
    let one_node = trace.jobs.iter().all(|job| job.wish.nodes <= 1 && job.wish.tasks == 1);
    anyhow::ensure!(
        one_node || !models,
        "{}: it has jobs on several nodes, which only the planner places: --by planner",
        trace.file
    );
    let mut all = Vec::new();
    for by in &args.by {
        for packing in &args.packing {
            if let Some(filled) = fill(trace, &cluster, *packing, *by, args.seeds)? {
                all.push(filled);
            }
        }
    }
    if args.json {
        return super::print(&output::json(&all));
    }
    super::print(&table(&all))
}

/// `None`: the planner does not roll dice.
fn fill(
    trace: &Trace,
    cluster: &Cluster,
    packing: PackingName,
    by: Placer,
    seeds: u64,
) -> anyhow::Result<Option<Filled>> {
    let mut draws = Vec::new();
    for seed in 1..=seeds {
        draws.push(match (by, packing.way()) {
            (Placer::Planner, Way::Random) => return Ok(None),
            (Placer::Planner, Way::Packed(packing)) => planned(trace, cluster, packing, seed)?,
            (Placer::Whole, way) => modelled(trace, cluster, way, false, seed),
            (Placer::Shares, way) => modelled(trace, cluster, way, true, seed),
        });
    }
    let round = |share: f64| (share * 1e6).round() / 1e6;
    let mean = |of: &dyn Fn(&Draw) -> f64| round(draws.iter().map(of).sum::<f64>() / seeds as f64);
    let shares = || draws.iter().map(|draw| draw.allocated);
    let measured = draws.iter().all(|draw| draw.fragmented.is_some());
    let broken = |at: fn((f64, f64)) -> f64| {
        measured.then(|| mean(&|draw: &Draw| draw.fragmented.map_or(0.0, at)))
    };
    Ok(Some(Filled {
        packing,
        by,
        seeds,
        mean_allocated: mean(&|draw| draw.allocated),
        least_allocated: round(shares().fold(f64::INFINITY, f64::min)),
        most_allocated: round(shares().fold(0.0, f64::max)),
        mean_fragmented_at_90: broken(|(at_90, _)| at_90),
        mean_fragmented_at_100: broken(|(_, at_100)| at_100),
    }))
}

fn table(all: &[Filled]) -> String {
    let mut out = format!(
        "{:<8} {:<16} {:>8} {:>8} {:>8} {:>16} {:>8}\n",
        "by", "packing", "given %", "least", "most", "fragments at 90%", "at 100%"
    );
    for f in all {
        let percent = |share: f64| format!("{:.2}", share * 100.0);
        let maybe = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
        out += &format!(
            "{:<8} {:<16} {:>8} {:>8} {:>8} {:>16} {:>8}\n",
            word(f.by),
            word(f.packing),
            percent(f.mean_allocated),
            percent(f.least_allocated),
            percent(f.most_allocated),
            maybe(f.mean_fragmented_at_90),
            maybe(f.mean_fragmented_at_100)
        );
    }
    out
}

/// As it is typed.
fn word(of: impl clap::ValueEnum) -> String {
    of.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Tasks placed by the model of nodes with shared GPUs.
fn modelled(trace: &Trace, cluster: &Cluster, way: Way, shared: bool, seed: u64) -> Draw {
    let mut field = Field::new(&cluster.config.nodes, trace, shared, way);
    let all = cluster.gpus * 1000;
    let of = |job: &Entry| wanted(job, shared);
    let (mut given, mut asked, mut at_90) = (0, 0, None);
    // The draw is the same for every way; chance of its own decides where tasks go.
    let mut dice = Dice::new(!seed);
    for job in draw(trace, all, &of, seed) {
        asked += of(&job);
        if field.put(&job, shared, &mut dice) {
            given += of(&job);
        }
        if at_90.is_none() && asked * 10 >= all * 9 {
            at_90 = Some(field.fragmented());
        }
    }
    let at_100 = field.fragmented();
    Draw {
        allocated: given as f64 / all as f64,
        fragmented: Some((at_90.unwrap_or(at_100), at_100)),
    }
}

/// Tasks placed by the real pass.
fn planned(trace: &Trace, cluster: &Cluster, packing: Packing, seed: u64) -> anyhow::Result<Draw> {
    let policy = Policy { packing, ..whoever_fits() };
    let of = |job: &Entry| cluster.takes(job).1;
    let drawn = Trace { jobs: draw(trace, cluster.gpus, &of, seed), ..trace.clone() };
    let done = replay(&drawn, cluster, policy, Semantics::PerStamp, &mut |_| {})?;
    let last = drawn.jobs.last().map_or(0, |job| job.submit);
    let there = done.runs.iter().filter(|run| run.start <= last);
    let given: u64 = there.map(|run| of(&drawn.jobs[run.job])).sum();
    Ok(Draw { allocated: given as f64 / cluster.gpus as f64, fragmented: None })
}

/// Whoever fits starts; nobody is promised anything.
fn whoever_fits() -> Policy {
    let policy = Policy { shadows: 0, ..Policy::easy() };
    Policy { max_starts: usize::MAX, max_heads: usize::MAX, ..policy }
}

/// Tasks by chance until they ask for all that there is, one a second.
fn draw(trace: &Trace, all: u64, of: &dyn Fn(&Entry) -> u64, seed: u64) -> Vec<Entry> {
    let mut dice = Dice::new(seed);
    let (mut jobs, mut demand): (Vec<Entry>, u64) = (Vec::new(), 0);
    while demand < all {
        let task = dice.pick(&trace.jobs).expect("a trace has jobs");
        demand += of(task);
        let (id, submit) = (jobs.len() as u64 + 1, jobs.len() as i64);
        jobs.push(Entry { id, submit, run: FOR_EVER, limit: FOR_EVER, ..task.clone() });
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::trace::{File, Machine, parse};

    const TASKS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,\
                         deletion_time,scheduled_time\n\
                         a,4000,8192,1,1000,,0,100,0\nb,2000,4096,1,460,,0,100,0\n\
                         c,1000,4096,1,300,,0,100,0\nd,30000,65536,4,1000,,0,100,0\n\
                         e,8000,8192,1,1000,T4,0,100,0\nf,4000,8192,0,0,,0,100,0\n\
                         g,90000,300000,8,1000,G2,0,100,0\n";
    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\n";

    fn world() -> (Trace, Cluster) {
        let mut nodes = NODES.to_owned();
        for n in 0..12 {
            nodes += &format!("g{n},96000,393216,8,G2\nt{n},32000,131072,2,T4\n");
        }
        let jobs = |text: &str| match parse("t", text.as_bytes()).expect("a table") {
            File::Jobs(trace) => trace,
            File::Nodes(_) => unreachable!("tasks"),
        };
        let machine: Machine = match parse("n", nodes.as_bytes()).expect("a table") {
            File::Nodes(machine) => machine,
            File::Jobs(_) => unreachable!("nodes"),
        };
        let trace = jobs(TASKS);
        let cluster = Cluster::new(&cluster::Flags::default(), &trace, Some(&machine));
        (trace, cluster.expect("a cluster"))
    }

    fn given(packing: PackingName, by: Placer) -> f64 {
        let (trace, cluster) = world();
        let filled = fill(&trace, &cluster, packing, by, 4).expect("it fills");
        filled.expect("a packing").mean_allocated
    }

    #[test]
    fn packing_by_fragments_gives_more_away_than_chance() {
        for by in [Placer::Shares, Placer::Whole] {
            let random = given(PackingName::Random, by);
            for packing in [PackingName::BestFit, PackingName::Fgd, PackingName::LeastFragments] {
                let packed = given(packing, by);
                assert!(packed > random, "{packing:?} {packed}, random {random}");
                assert!(packed <= 1.0 + 1e-9);
            }
        }
        assert!(
            given(PackingName::Spread, Placer::Whole) < given(PackingName::BestFit, Placer::Whole)
        );
    }

    #[test]
    fn the_model_of_whole_gpus_and_the_planner_agree() {
        // Best fit needs to know nothing of the tasks, so both do the same; what the planner
        // knows of them less makes little difference to the others.
        let both = |packing| (given(packing, Placer::Whole), given(packing, Placer::Planner));
        let (model, planner) = both(PackingName::BestFit);
        assert!((model - planner).abs() < 0.02, "{model} {planner}");
        let (model, planner) = both(PackingName::Fgd);
        assert!((model - planner).abs() < 0.05, "{model} {planner}");
    }

    #[test]
    fn shares_fill_what_whole_gpus_leave() {
        let (trace, cluster) = world();
        let mut field =
            Field::new(&cluster.config.nodes, &trace, true, Way::Packed(Packing::BestFit));
        let half = trace.jobs.iter().find(|job| job.wish.gpu_share == 460).expect("task b");
        let mut dice = Dice::new(1);
        let mut put = 0;
        while field.put(half, true, &mut dice) {
            put += 1;
        }
        // Two on each of 120 GPUs; the T4 nodes have 16 CPUs for each.
        assert_eq!(put, 240);
    }
}

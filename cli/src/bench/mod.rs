//! `muster bench`: what this machine does with Muster, beside what the machine can do at all.
//!
//! Each benchmark starts a cluster of its own in a temporary directory, measures from outside (as
//! a client, or by running the commands) and takes it down. Nothing is known of how the daemons
//! work; a number that needs a look inside (memory, CPU time) comes from /proc.
//!
//! - `machine`: the machine's limits; `report`: tables and JSON; `load`: clients that submit
//! - `submit`, `throughput`, `startup`, `restart`, `launch`, `output`: the benchmarks

mod launch;
mod load;
mod machine;
mod output;
mod report;
mod restart;
mod startup;
mod submit;
mod throughput;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use crate::exit;
use crate::local::Cluster;

use report::Report;

/// Measure Muster on this machine
#[derive(Debug, Parser)]
#[command(name = "muster bench")]
struct BenchOptions {
    /// What to measure
    benchmark: Benchmark,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Small amounts, to see that everything works: the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Where the clusters' directories go: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Benchmark {
    /// Submissions by API and by sbatch, squeue with 100,000 jobs, memory of a pending job
    Submit,
    /// Jobs from submission to their end
    Throughput,
    /// From nothing to a ready cluster, and from sbatch to a running job
    Startup,
    /// kill -9 of the controller with 100,000 jobs pending
    Restart,
    /// Steps: srun inside an allocation, and steps that wait for each other
    Launch,
    /// Output of a step: 1 GB through one srun, and what memory grows by
    Output,
}

/// How much is done, and where.
struct Plan {
    quick: bool,
    dir: PathBuf,
}

impl Plan {
    /// `full`, or `quick` where the numbers do not matter.
    fn amount<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A cluster of a benchmark; its directory lies on the disk that is measured.
    fn cluster(&self, options: &[&str]) -> anyhow::Result<Stand> {
        let name = format!("muster-bench-{}-{}", std::process::id(), next());
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let cluster = Cluster::start(&dir, options)?;
        Ok(Stand { cluster: Some(cluster), dir })
    }
}

fn next() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A cluster and its directory; both go when it is dropped.
struct Stand {
    cluster: Option<Cluster>,
    dir: PathBuf,
}

impl Stand {
    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("taken by drop alone")
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn controller(&self) -> anyhow::Result<i32> {
        self.cluster().controller().context("the controller does not run")
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        drop(self.cluster.take());
        // What is left is in the directory that the user chose and named in a message.
        if let Err(fault) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("muster bench: remove {}: {fault}", self.dir.display());
        }
    }
}

/// The command.
#[must_use]
pub fn bench(words: &[String]) -> i32 {
    let line = std::iter::once("muster bench".to_owned()).chain(words.iter().cloned());
    let options = match BenchOptions::try_parse_from(line) {
        Ok(options) => options,
        Err(fault) => {
            let code = if fault.use_stderr() { exit::FAILED } else { exit::OK };
            // A closed stream leaves nobody to tell.
            let _ = fault.print();
            return code;
        }
    };
    match run(&options) {
        Ok(()) => exit::OK,
        Err(fault) => {
            exit::error("muster bench", &format!("{fault:#}").replace('\n', " "));
            exit::FAILED
        }
    }
}

fn run(options: &BenchOptions) -> anyhow::Result<()> {
    let dir = options
        .dir
        .canonicalize()
        .with_context(|| format!("find --dir {}", options.dir.display()))?;
    let plan = Plan { quick: options.quick, dir };
    let (name, measure): (_, fn(&Plan, &mut Report) -> anyhow::Result<()>) = match options.benchmark
    {
        Benchmark::Submit => ("submit", submit::measure),
        Benchmark::Throughput => ("throughput", throughput::measure),
        Benchmark::Startup => ("startup", startup::measure),
        Benchmark::Restart => ("restart", restart::measure),
        Benchmark::Launch => ("launch", launch::measure),
        Benchmark::Output => ("output", output::measure),
    };
    let mut report = Report::new(name, options.json, options.quick);
    machine::measure(&plan, &mut report)?;
    measure(&plan, &mut report)?;
    report.end();
    Ok(())
}

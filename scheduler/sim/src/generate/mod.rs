//! `muster sim generate`: traces for those who have none. Equal seeds give equal files.
//!
//! - `lublin`: the Lublin-Feitelson model of rigid parallel jobs, as SWF
//! - `gpu_mix`: a GPU cluster's day, as our own table
//! - `chance`: distributions over the simulator's dice

mod chance;
mod gpu_mix;
mod lublin;

use std::path::PathBuf;

use anyhow::Context as _;

/// What to make up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// lublin: rigid parallel jobs (SWF); gpu-mix: jobs of a GPU cluster (CSV)
    #[arg(value_enum)]
    pub model: Model,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many jobs
    #[arg(long, default_value_t = 10_000)]
    pub jobs: u32,
    /// Processors (lublin; default 128) or nodes of 8 GPUs (gpu-mix; default 64) of the machine
    #[arg(long)]
    pub size: Option<u32>,
    /// Stretch the arrivals so that this share of the machine is asked for (default: lublin as the
    /// model has it, gpu-mix 0.9)
    #[arg(long)]
    pub load: Option<f64>,
    /// Write here, not to stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    Lublin,
    GpuMix,
}

/// `muster sim generate`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let text = trace(args)?;
    match &args.output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
        }
        None => crate::replay::print(&text),
    }
}

/// The text of the trace.
///
/// # Errors
/// When a number is out of its range.
pub fn trace(args: &Args) -> anyhow::Result<String> {
    let size = args.size.unwrap_or(match args.model {
        Model::Lublin => 128,
        Model::GpuMix => 64,
    });
    anyhow::ensure!((1..=1 << 20).contains(&size), "--size {size}: from 1 to {}", 1 << 20);
    anyhow::ensure!(args.jobs > 0, "--jobs 0: at least 1");
    if let Some(load) = args.load {
        anyhow::ensure!(load > 0.0 && load <= 100.0, "--load {load}: above 0, at most 100");
    }
    Ok(match args.model {
        Model::Lublin => lublin::trace(args.seed, args.jobs, size, args.load),
        Model::GpuMix => gpu_mix::trace(args.seed, args.jobs, size, args.load.unwrap_or(0.9)),
    })
}

/// A job that was made up. Times are seconds, `submit` still with its fraction.
#[derive(Debug, Clone, Copy)]
struct Made {
    submit: f64,
    run: i64,
    size: u32,
    limit: i64,
    user: u32,
}

/// Stretches the arrivals so that the jobs ask for this share of `processors` until the last one
/// comes.
fn stretch(jobs: &mut [Made], processors: f64, load: f64) {
    let (Some(first), Some(last)) = (jobs.first(), jobs.last()) else { return };
    let (first, span) = (first.submit, last.submit - first.submit);
    let work: f64 = jobs.iter().map(|job| job.run as f64 * f64::from(job.size)).sum();
    if span <= 0.0 || work <= 0.0 {
        return;
    }
    let factor = work / (processors * load) / span;
    jobs.iter_mut().for_each(|job| job.submit = (job.submit - first) * factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::trace::{File, parse};

    fn made(model: Model, seed: u64, load: Option<f64>) -> String {
        let args = Args { model, seed, jobs: 3000, size: None, load, output: None };
        trace(&args).expect("sound numbers")
    }

    #[test]
    fn what_is_made_up_can_be_read_and_is_the_same_every_time() {
        for model in [Model::Lublin, Model::GpuMix] {
            let text = made(model, 7, None);
            assert_eq!(text, made(model, 7, None));
            assert_ne!(text, made(model, 8, None));
            let File::Jobs(read) = parse("made", text.as_bytes()).expect("sound") else {
                panic!("a trace is a list of jobs");
            };
            assert_eq!((read.jobs.len(), read.dropped), (3000, 0));
            assert!(read.jobs.iter().all(|job| job.run <= job.limit));
            assert!(read.machine.is_some());
        }
    }

    #[test]
    fn the_load_is_what_was_asked_for() {
        let text = made(Model::Lublin, 3, Some(0.8));
        let File::Jobs(read) = parse("made", text.as_bytes()).expect("sound") else {
            panic!("a trace is a list of jobs");
        };
        let work: f64 = read.jobs.iter().map(|job| (job.run as u64 * job.cpus()) as f64).sum();
        let span = (read.jobs[2999].submit - read.jobs[0].submit) as f64;
        let load = work / (span * 128.0);
        assert!((load - 0.8).abs() < 0.01, "{load}");
    }
}

//! `muster sim fuzz`: seeds in a row, and what to print when one fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::parsers::{self, READERS, torment};
use crate::world::{Broken, Tally, World};

/// Which worlds to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Events with faults in each run; then the faults stop and everything has to end
    #[arg(long, default_value_t = 2000)]
    pub steps: u64,
    /// Damaged text for the readers of traces, configs and options instead: so many thousand pieces
    /// a seed for each of them
    #[arg(long, value_name = "THOUSANDS", num_args = 0..=1, default_missing_value = "10")]
    pub parsers: Option<u64>,
}

/// Runs one seed.
///
/// # Errors
/// What was promised and not kept, with the last events before it.
pub fn one(seed: u64, steps: u64) -> Result<Tally, Broken> {
    let mut world = World::new(seed);
    // A fact that contradicts the state is a panic of the core: as much a find as any.
    let ran = catch_unwind(AssertUnwindSafe(|| world.run(steps)));
    match ran {
        Ok(Ok(())) => Ok(world.tally()),
        Ok(Err(what)) => Err(world.broken(what)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(world.broken(format!("panicked: {}", text.unwrap_or("without a word"))))
        }
    }
}

/// Runs what the words ask for; the exit code.
pub(crate) fn run(args: &Args) -> i32 {
    if let Some(thousands) = args.parsers {
        return readers(args, thousands.saturating_mul(1000));
    }
    let mut sum = Tally::default();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        match one(seed, args.steps) {
            Ok(tally) => sum.add(&tally),
            Err(broken) => {
                println!("{broken}");
                println!("again: muster sim fuzz --seed {seed} --seeds 1 --steps {}", args.steps);
                return 1;
            }
        }
    }
    println!("{} seeds kept every promise: {sum}", args.seeds);
    0
}

/// Damaged text for every reader; the exit code.
fn readers(args: &Args, tries: u64) -> i32 {
    for reader in READERS {
        let mut sum = parsers::Tally::default();
        for seed in args.seed..args.seed.saturating_add(args.seeds) {
            match torment(reader, seed, tries) {
                Ok(tally) => {
                    sum.tried += tally.tried;
                    sum.taken += tally.taken;
                }
                Err(text) => {
                    println!("{}: seed {seed}: it panicked at {text:?}", reader.name);
                    return 1;
                }
            }
        }
        let parsers::Tally { tried, taken } = sum;
        println!(
            "{:<20} {tried:>10} damaged texts, {taken:>9} of them right all the same",
            reader.name
        );
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_clusters_keep_their_promises() {
        let mut sum = Tally::default();
        for seed in 1..=12 {
            match one(seed, 1500) {
                Ok(tally) => sum.add(&tally),
                Err(broken) => panic!("{broken}"),
            }
        }
        // A run in which nothing happens would keep every promise too.
        assert!(sum.jobs > 200 && sum.ended > 200, "{sum}");
        assert!(sum.controller_kills > 20 && sum.agent_kills > 20 && sum.reboots > 5, "{sum}");
        assert!(sum.gangs > 10 && sum.requeues > 10 && sum.lost_nodes > 0, "{sum}");
        assert!(sum.bad_gpus > 20, "{sum}");
    }

    #[test]
    fn a_seed_gives_the_same_run_every_time() {
        let once = one(77, 800).unwrap_or_else(|broken| panic!("{broken}"));
        let again = one(77, 800).unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(once, again);
    }
}

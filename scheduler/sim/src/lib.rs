//! The simulator: whole clusters in one thread, in simulated time, from one seed.
//!
//! It runs the very `engine::step`, `recover` and `plan` that production runs, and the session's
//! own judgement of what an agent lacks; the agents, the disk, the network and the users around
//! them are simulated. Equal seeds give equal runs, so that whatever goes wrong can be looked at
//! again.
//!
//! Knows nothing of threads, sockets or real time. Speaks the core's words, not Slurm's.
//!
//! - `dice`: the one source of chance
//! - `replay/`: traces through the real planner; `report/`: plots of a schedule
//! - `generate/`: traces for those who have none
//! - `world/`: the cluster: `controller`, `agent`, `client`, the `config` of each seed, and `model`,
//!   which knows what was promised and notices when it is not kept
//! - `passes`: what a pass costs (`muster bench pass`); `passes/units`: choosing GPUs inside a node;
//!   `again`: a pass of a real cluster run again
//! - `fuzz`: seeds in a row, and what to print when one fails; `parsers`: damaged text for readers

pub mod again;
mod dice;
pub mod fuzz;
pub mod generate;
pub mod parsers;
pub mod passes;
pub mod replay;
pub mod report;
pub mod world;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "muster sim", about = "Simulates clusters")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs random clusters with faults and checks every promise after every event
    Fuzz(fuzz::Args),
    /// Replays a trace of jobs and says how well they were served
    Replay(replay::Args),
    /// Replays traces with several policies and prints them side by side
    Compare(replay::CompareArgs),
    /// Draws GPU jobs until they ask for every GPU and says how many GPUs they got
    Fill(replay::fill::Args),
    /// Runs a scheduling pass again that a controller dumped, and says whether it chooses the same
    Plan(again::Args),
    /// Writes a trace of made-up jobs
    Generate(generate::Args),
}

/// `muster sim`: runs the words after it; the exit code.
#[must_use]
pub fn main(args: Vec<OsString>) -> i32 {
    let words = std::iter::once(OsString::from("muster sim")).chain(args);
    let parsed = match Args::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(shown) => {
            // Help goes to stdout and is no failure; clap knows which it is. A closed pipe is no
            // reason to say more.
            let _ = shown.print();
            return shown.exit_code();
        }
    };
    match parsed.command {
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Replay(args) => told(replay::run(&args)),
        Command::Compare(args) => told(replay::compare(&args)),
        Command::Fill(args) => told(replay::fill::run(&args)),
        Command::Plan(args) => again::run(&args),
        Command::Generate(args) => told(generate::run(&args)),
    }
}

/// The exit code; what went wrong goes to stderr.
fn told(done: anyhow::Result<()>) -> i32 {
    match done {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("muster sim: error: {why:#}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        super::Args::command().debug_assert();
    }
}

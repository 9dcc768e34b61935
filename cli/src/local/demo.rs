//! `muster demo`: a story on a cluster of this machine, told as it happens.
//!
//! Everything in it is real: the daemons, the commands (Slurm's names, run as a user would), the
//! processes of the jobs. Each promise of the story is checked against what the jobs left behind
//! and what the history says; the exit code is 0 only if all were kept.

mod stage;
mod story;

use std::fs;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;

use stage::Stage;

use crate::exit;

/// Show a cluster at work on this machine, and take it down again
#[derive(Debug, Parser)]
#[command(name = "muster demo")]
struct DemoOptions {
    /// Leave the directory of the cluster for a look at it
    #[arg(long)]
    keep: bool,
}

/// The command.
#[must_use]
pub fn demo(words: &[String]) -> i32 {
    let options: DemoOptions = match super::read("demo", words) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match run(&options) {
        Ok(true) => exit::OK,
        Ok(false) => exit::FAILED,
        Err(fault) => super::finish("demo", Err(fault)),
    }
}

/// Tells the story; true if every promise was kept.
fn run(options: &DemoOptions) -> anyhow::Result<bool> {
    let start = Instant::now();
    let dir = std::env::temp_dir().join(format!("muster-demo-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    let stage = Stage::build(&dir)?;
    let told = story::tell(&stage);
    // However the story went, nothing of it stays behind.
    let struck = stage.strike();
    let kept = match &told {
        Ok(promises) => promises.iter().all(|promise| promise.kept),
        Err(_) => false,
    };
    if options.keep || !kept || struck.is_err() {
        println!("\nThe cluster's directory stays: {}", dir.display());
    } else {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    let promises = told?;
    struck?;
    println!();
    for promise in &promises {
        println!("  {} {}", if promise.kept { "ok    " } else { "BROKEN" }, promise.text);
        if !promise.kept {
            println!("         {}", promise.found);
        }
    }
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    let took = start.elapsed().as_secs_f64();
    match broken {
        0 => println!("\nAll {} promises were kept, in {took:.1} s.", promises.len()),
        n => println!("\n{n} of {} promises were broken.", promises.len()),
    }
    Ok(broken == 0)
}

//! `muster down`: stops the daemons; queue and history stay in the directory.
//!
//! Jobs that run go on: their shims need no daemon, and the next `muster up` finds them. With
//! `--kill-jobs` all jobs end first.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use muster_config::Config;
use muster_proto::v1::JobState;

use super::ask::Ask;
use super::daemons::{self, Daemon};
use super::layout::Layout;
use super::up::all_daemons;

/// Beyond the kill wait: what the last SIGKILL and the epilogs may take.
const AFTER_KILL: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Stop the daemons of a cluster started with `muster up`
#[derive(Debug, Parser)]
#[command(name = "muster down")]
struct DownOptions {
    /// The cluster's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End all jobs first; without it running jobs go on and are found again by `muster up`
    #[arg(long)]
    kill_jobs: bool,
}

/// The command.
#[must_use]
pub fn down(words: &[String]) -> i32 {
    match super::read::<DownOptions>("down", words) {
        Ok(options) => super::finish("down", run(&options)),
        Err(code) => code,
    }
}

fn run(options: &DownOptions) -> anyhow::Result<()> {
    let layout = Layout::find(&options.dir)?;
    if !layout.config().exists() {
        bail!("there is no cluster in {}: muster.toml is missing", layout.dir().display());
    }
    let config = Config::load(&layout.config())?;
    let stopped = stop_cluster(&layout, &config, options.kill_jobs)?;
    match stopped {
        0 => println!("The cluster in {} was not running.", layout.dir().display()),
        n => println!("The cluster in {} is stopped ({n} daemons).", layout.dir().display()),
    }
    Ok(())
}

/// Stops every daemon; returns how many ran. Whatever became of the jobs, the daemons are stopped.
pub(super) fn stop_cluster(
    layout: &Layout,
    config: &Config,
    kill_jobs: bool,
) -> anyhow::Result<usize> {
    let killed = if kill_jobs { end_jobs(layout, config) } else { Ok(()) };
    let daemons = all_daemons(config);
    // Agents first: the controller then hears of no half-told end.
    let stopped = daemons::stop(layout, &daemons[1..]) + daemons::stop(layout, &daemons[..1]);
    killed?;
    if kill_jobs {
        layout.unshorten();
    }
    Ok(stopped)
}

fn end_jobs(layout: &Layout, config: &Config) -> anyhow::Result<()> {
    if daemons::running(layout, &Daemon::Controller).is_none() {
        bail!(
            "--kill-jobs: the controller does not run, so nothing can end the jobs; \
             `muster up --dir {}` and try again",
            layout.dir().display()
        );
    }
    let ask = Ask::new(config)?;
    ask.cancel_all().context("--kill-jobs")?;
    let wait = Duration::from_secs(u64::from(config.scheduler.kill_wait_seconds)) + AFTER_KILL;
    let deadline = Instant::now() + wait;
    loop {
        let left = ask.jobs(false)?;
        let on_nodes = |state| {
            matches!(
                state,
                JobState::Configuring
                    | JobState::Running
                    | JobState::Suspended
                    | JobState::Completing
            )
        };
        let names: Vec<String> =
            left.iter().filter(|job| on_nodes(job.state())).map(|job| job.id.to_string()).collect();
        if names.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("--kill-jobs: still there after {} s: job {}", wait.as_secs(), names.join(", "));
        }
        std::thread::sleep(PAUSE);
    }
}

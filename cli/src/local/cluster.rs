//! A cluster that a command starts for its own use: the demo and the benchmarks.

use std::path::Path;

use clap::Parser as _;
use muster_config::Config;

use super::daemons::{self, Daemon};
use super::layout::Layout;
use super::{down, up};

/// A running cluster. It is stopped by [`Cluster::stop`]; dropped, its daemons are stopped too.
pub(crate) struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) config: Config,
    stopped: bool,
}

impl Cluster {
    /// Starts a cluster in `dir` as `muster up` does with these options.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> anyhow::Result<Cluster> {
        let place = dir.display().to_string();
        let line = ["up", "--dir", &place].into_iter().chain(options.iter().copied());
        let options = up::UpOptions::try_parse_from(line)?;
        let layout = Layout::create(dir)?;
        match up::start_cluster(&layout, &options) {
            Ok((config, _)) => Ok(Cluster { layout, config, stopped: false }),
            Err(fault) => {
                if let Ok(config) = Config::load(&layout.config()) {
                    daemons::stop(&layout, &up::all_daemons(&config));
                }
                Err(fault)
            }
        }
    }

    /// The controller's pid; `None` when it does not run.
    pub(crate) fn controller(&self) -> Option<i32> {
        daemons::running(&self.layout, &Daemon::Controller).map(nix::unistd::Pid::as_raw)
    }

    /// Pids of the agents that run.
    pub(crate) fn agents(&self) -> Vec<i32> {
        up::all_daemons(&self.config)[1..]
            .iter()
            .filter_map(|daemon| daemons::running(&self.layout, daemon))
            .map(nix::unistd::Pid::as_raw)
            .collect()
    }

    /// Kills the controller without warning.
    pub(crate) fn crash_controller(&self) -> anyhow::Result<()> {
        daemons::crash(&self.layout, &Daemon::Controller)
    }

    /// Starts the controller again, without waiting for it.
    pub(crate) fn start_controller(&self) -> anyhow::Result<()> {
        daemons::start(&self.layout, &Daemon::Controller, None).map(drop)
    }

    /// Waits until the controller answers and every node is back.
    pub(crate) fn wait_until_ready(&self) -> anyhow::Result<()> {
        up::wait_until_ready(&self.layout, &self.config)
    }

    /// Ends all jobs, then all daemons.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        down::stop_cluster(&self.layout, &self.config, true).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.stopped {
            // The command failed and says why; the daemons must not outlive it for that.
            let _ = down::stop_cluster(&self.layout, &self.config, true);
        }
    }
}

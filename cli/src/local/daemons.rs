//! Starts, recognises and stops the daemons of a local cluster.
//!
//! A pid file holds a number and nothing else. Numbers are given again, so that a process is
//! taken for the daemon only while its command line is the one the daemon was started with.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hosts::Hosts;
use super::layout::{Layout, write_whole};

/// How long a daemon may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// A daemon of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Daemon {
    Controller,
    Agent(String),
}

impl Daemon {
    /// The name of its pid file and log.
    pub(super) fn name(&self) -> &str {
        match self {
            Daemon::Controller => "controller",
            Daemon::Agent(node) => node,
        }
    }

    /// Its command line after the program's name.
    fn words(&self, config: &Path) -> Vec<String> {
        let mut words = match self {
            Daemon::Controller => vec!["controller".to_owned()],
            Daemon::Agent(_) => vec!["agent".to_owned()],
        };
        words.extend(["--config".to_owned(), config.display().to_string()]);
        if let Daemon::Agent(node) = self {
            words.extend(["--node".to_owned(), node.clone()]);
        }
        words
    }
}

/// This program, to be started again as a daemon.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find the path of this program")
}

/// Starts a daemon in a session of its own, so that a terminal's end or ^C does not reach it.
pub(super) fn start(
    layout: &Layout,
    daemon: &Daemon,
    hosts: Option<&Hosts>,
) -> anyhow::Result<Pid> {
    let log_path = layout.log(daemon.name());
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("open {}", log_path.display()))?;
    let second = log.try_clone().with_context(|| format!("open {}", log_path.display()))?;
    let mut command = Command::new(program()?);
    command
        .arg0("muster")
        .args(daemon.words(&layout.config()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second);
    // Started from inside a job of another cluster, a daemon must not take itself for its part.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SLURM_") || text == muster_config::CONFIG_VARIABLE {
            command.env_remove(&name);
        }
    }
    let hosts = hosts.filter(|_| matches!(daemon, Daemon::Agent(_))).cloned();
    // SAFETY: both are system calls alone, and touch no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid().map(drop).map_err(std::io::Error::from)?;
            hosts.iter().for_each(Hosts::lay);
            Ok(())
        });
    }
    let child = command.spawn().with_context(|| format!("start the {}", daemon.name()))?;
    let pid = i32::try_from(child.id()).context("a pid beyond the kernel's range")?;
    write_whole(&layout.pid_file(daemon.name()), format!("{pid}\n").as_bytes())?;
    Ok(Pid::from_raw(pid))
}

/// The daemon's pid, while it runs.
pub(super) fn running(layout: &Layout, daemon: &Daemon) -> Option<Pid> {
    let text = fs::read_to_string(layout.pid_file(daemon.name())).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).skip(1).collect();
    let own = daemon.words(&layout.config());
    let same = own.iter().zip(&words).all(|(own, word)| own.as_bytes() == *word);
    (words.len() > own.len() && same).then_some(Pid::from_raw(pid))
}

/// Ends daemons: all are asked, then all are awaited, then what is left is killed.
pub(super) fn stop(layout: &Layout, daemons: &[Daemon]) -> usize {
    let signal_all = |signal| {
        for pid in daemons.iter().filter_map(|daemon| running(layout, daemon)) {
            // One that has ended meanwhile is what is wanted.
            let _ = kill(pid, signal);
        }
    };
    let any = || daemons.iter().any(|daemon| running(layout, daemon).is_some());
    let pids: Vec<Pid> = daemons.iter().filter_map(|daemon| running(layout, daemon)).collect();
    signal_all(Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while any() && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
    signal_all(Signal::SIGKILL);
    while !pids.iter().all(|pid| gone(*pid)) {
        std::thread::sleep(PAUSE);
    }
    for daemon in daemons {
        let _ = fs::remove_file(layout.pid_file(daemon.name()));
    }
    pids.len()
}

/// Kills a daemon without warning, as a crash would.
pub(super) fn crash(layout: &Layout, daemon: &Daemon) -> anyhow::Result<()> {
    let pid = running(layout, daemon)
        .with_context(|| format!("the {} does not run: it cannot be killed", daemon.name()))?;
    kill(pid, Signal::SIGKILL).with_context(|| format!("kill the {}", daemon.name()))?;
    while !gone(pid) {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether nothing of a process is left that could hold a file or a lock. Its command line is empty
/// long before that: the kernel takes the memory first and closes files after.
fn gone(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    zombie && threads <= 1
}

/// The last lines of a daemon's log, for a message about its end.
pub(super) fn last_words(layout: &Layout, daemon: &Daemon) -> String {
    let text = fs::read_to_string(layout.log(daemon.name())).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

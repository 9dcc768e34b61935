//! `salloc`: an allocation for a command or a shell on this host.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use muster_proto::v1::JobState;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::agents::Agents;
use super::alloc::{self, Allocation};
use super::options::Asked;
use super::srun::{Stop, asked, config, step, with_limits};
use super::{het, job, signals, ssh, variables};
use crate::connect::{Api, Client};
use crate::exit;

const PROGRAM: &str = "salloc";
/// Between looks whether the job is still there.
const LOOK: Duration = Duration::from_secs(2);
/// A command that outlives its job has this long after SIGHUP.
const GRACE: Duration = Duration::from_secs(5);

/// The command.
#[must_use]
pub fn salloc(words: &[String]) -> i32 {
    match begin(words) {
        Ok(code) => code,
        Err(stop) => stop.say(PROGRAM),
    }
}

fn begin(words: &[String]) -> Result<i32, Stop> {
    // All but the last component are options alone; the command stands behind the last.
    let components = het::split(words);
    let mut every =
        components.iter().map(|words| asked(PROGRAM, words)).collect::<Result<Vec<_>, _>>()?;
    let last = every.last_mut().expect("there is a first");
    let typed = std::mem::take(&mut last.operands);
    if let Some(word) = every.iter().find_map(|asked| asked.operands.first()) {
        let text =
            format!("\"{word}\" stands before a ':'; the command comes after the last component");
        return Err(Stop::Fault(crate::submit::Fault::Refused(text)));
    }
    every[0].operands = typed;
    let asked = every[0].clone();
    let config = config()?;
    let mut client = Client::open(&config, PROGRAM).map_err(|e| {
        let text = format!("Job submit/allocate failed: {}", e.slurm_text());
        Stop::refused(e.detail(), text)
    })?;
    let patience = match asked.value("immediate") {
        Some(text) => {
            let seconds = text.parse().map_err(|_| crate::submit::values::invalid("immediate"))?;
            Some(Duration::from_secs(seconds))
        }
        None => asked.said("immediate").then_some(Duration::ZERO),
    };
    let quiet = asked.said("quiet");
    let name = match asked.operands.first() {
        Some(command) => command.rsplit('/').next().unwrap_or_default().to_owned(),
        None => "interactive".to_owned(),
    };
    let job = alloc::submit(&mut client, &config, PROGRAM, &every, &name, words)?;
    let on_node = asked.operands.is_empty() && config.scheduler.interactive_step;
    let agents = Agents::new(config);
    let api = client.api();
    client.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let held =
            alloc::wait(api.clone(), &agents, PROGRAM, job, quiet, patience, &mut signals).await?;
        let say = |text: String| {
            if !quiet {
                exit::say(PROGRAM, &text);
            }
        };
        say(format!("Granted job allocation {job}"));
        say(format!("Nodes {} are ready for job", held.about.nodes));
        if asked.said("no-shell") {
            return Ok(exit::OK);
        }
        let ran = match on_node {
            true => {
                let about = &held.about.environment;
                let mut wish = with_limits(ssh::shell(&[], held.head.clone(), about, true));
                wish.name = "interactive".to_owned();
                step(&agents, job, &held.head, wish, words, &mut signals).await
            }
            false => command(api.clone(), &asked, &held, &mut signals).await,
        };
        say(format!("Relinquishing job allocation {job}"));
        let code = match &ran {
            Ok(code) => *code,
            Err(_) => exit::FAILED,
        };
        alloc::release(api, &agents, &held, code).await;
        ran
    })
}

/// Runs the command until it or its job ends.
async fn command(
    api: Api,
    asked: &Asked,
    held: &Allocation,
    signals: &mut mpsc::UnboundedReceiver<i32>,
) -> Result<i32, Stop> {
    let shell = || std::env::var("SHELL").ok().filter(|s| !s.is_empty());
    let words = match asked.operands.as_slice() {
        [] => vec![shell().unwrap_or_else(|| "/bin/sh".to_owned())],
        words => words.to_vec(),
    };
    let mut child = Command::new(&words[0]);
    child.args(&words[1..]);
    let mut env = Vec::new();
    variables::describe(&mut env, &held.about.environment);
    // These are a process's own, and this one is none of the job's.
    let of_a_task = ["PROCID", "LOCALID", "NODEID", "GTIDS", "TASK_PID"];
    for (name, value) in env {
        let (Ok(name), Ok(value)) = (String::from_utf8(name), String::from_utf8(value)) else {
            continue;
        };
        if !of_a_task.iter().any(|own| name == format!("SLURM_{own}")) && name != "SLURMD_NODENAME"
        {
            child.env(name, value);
        }
    }
    let mut child = child.spawn().map_err(|e| {
        Stop::refused(None, format!("Unable to exec command \"{}\": {e}", words[0]))
    })?;
    let pid = child.id();
    let mut look = tokio::time::interval(LOOK);
    let mut revoked = false;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.map_err(|e| Stop::refused(None, format!("wait: {e}")))?;
                return Ok(code(status));
            }
            Some(signal) = signals.recv() => pass_on(pid, signal),
            _ = look.tick() => {
                if revoked {
                    pass_on(pid, nix::libc::SIGKILL);
                    continue;
                }
                let Ok(found) = job::find(api.clone(), held.job).await else { continue };
                if let Some(text) = over(held.job, found.map(|j| j.state())) {
                    revoked = true;
                    exit::say(PROGRAM, &text);
                    pass_on(pid, nix::libc::SIGHUP);
                    pass_on(pid, nix::libc::SIGTERM);
                    look.reset_after(GRACE);
                }
            }
        }
    }
}

/// Terminals send theirs to the command themselves.
fn pass_on(pid: Option<u32>, signal: i32) {
    use nix::libc::{SIGCONT, SIGINT, SIGQUIT, SIGWINCH};
    if matches!(signal, SIGINT | SIGQUIT | SIGCONT | SIGWINCH) {
        return;
    }
    if let (Some(pid), Ok(signal)) = (pid, nix::sys::signal::Signal::try_from(signal)) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// What is said of a job that is over.
fn over(job: u32, state: Option<JobState>) -> Option<String> {
    match state? {
        JobState::Pending
        | JobState::Configuring
        | JobState::Running
        | JobState::Suspended
        | JobState::Requeued => None,
        JobState::Timeout => Some(format!(
            "Job {job} has exceeded its time limit and its allocation has been revoked."
        )),
        _ => Some(format!("Job allocation {job} has been revoked.")),
    }
}

/// As Slurm's: the command's own, and of signals those that people send are no failure.
fn code(status: std::process::ExitStatus) -> i32 {
    use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT};
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(SIGHUP | SIGINT | SIGQUIT | SIGKILL)) => exit::OK,
        (None, _) => exit::FAILED,
    }
}

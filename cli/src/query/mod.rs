//! What users ask: `squeue`, `sinfo`, `sacct`, `sstat`, `seff`, `sacctmgr`, `sshare`.
//!
//! Each command reads its options, asks a `source::Source` for wire messages and renders them
//! to text. The clock, the time zone, the caller and the environment come in as
//! `surroundings::Surroundings`, so a command is a function of its inputs and tests need no
//! controller.
//!
//! - `source`: where the messages come from
//! - `surroundings`: clock, zone, users, environment
//! - `layout`: column layouts of `-o` and `-O`
//! - `columns`: column tables of `sacct` and `sstat`
//! - `times`, `sizes`, `states`, `tres`, `shown`: how values are written
//! - `pick`: lists of ids, users and states that narrow what is shown
//! - `squeue`, `sinfo`, `sacct`, `sstat`, `seff`: the commands
//! - `accounts`: `sacctmgr` and `sshare`, which have little to say here
//! - `sdiag`: what the controller did since its start
//! - `gpu`: every GPU of the cluster (`muster gpu`)
//! - `json`: the documents of `--json`

mod accounts;
mod columns;
mod gpu;
pub(crate) mod json;
pub(crate) mod layout;
pub(crate) mod pick;
mod sacct;
mod sdiag;
mod seff;
pub(crate) mod shown;
mod sinfo;
pub(crate) mod sizes;
pub(crate) mod source;
mod squeue;
mod sstat;
pub(crate) mod states;
pub(crate) mod surroundings;
pub(crate) mod times;
pub(crate) mod tres;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::time::Duration;

use crate::getopt::{self, BadUsage, Parsed, Spec};

/// What `--version` prints after the name of the system whose commands these are.
pub const VERSION: &str = concat!("slurm 26.05.0 (muster ", env!("CARGO_PKG_VERSION"), ")");

/// What a command prints and how it exits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
    /// Print again after this many seconds (`-i`).
    pub(crate) again: Option<u64>,
}

/// Reads a command line; `Err`: what is said to one that is wrong, or that asks for help or the
/// version.
fn opened(spec: &Spec, help: &str, args: &[String]) -> Result<Parsed, Output> {
    let parsed = getopt::parse(spec, args).map_err(|fault| Output::usage(&fault))?;
    if parsed.has("help") {
        return Err(Output::text(help));
    }
    if parsed.has("version") {
        return Err(Output::text(format!("{VERSION}\n")));
    }
    Ok(parsed)
}

impl Output {
    pub(crate) fn text(out: impl Into<String>) -> Output {
        Output { out: out.into(), ..Output::default() }
    }

    /// `program: error: text` and exit code 1.
    pub(crate) fn error(program: &str, text: &str) -> Output {
        Output { err: format!("{program}: error: {text}\n"), code: 1, ..Output::default() }
    }

    pub(crate) fn usage(fault: &BadUsage) -> Output {
        Output { err: format!("{fault}\n"), code: 1, ..Output::default() }
    }

    /// A failed call: Slurm's text after `lead`, and our own sentence where it says more.
    pub(crate) fn failed(program: &str, lead: &str, fault: &crate::connect::CallError) -> Output {
        let mut err = format!("{lead}{}\n", fault.slurm_text());
        if let Some(detail) = fault.detail() {
            err.push_str(&format!("{program}: {detail}\n"));
        }
        Output { err, code: 1, ..Output::default() }
    }
}

type Command = fn(&[String], &mut dyn source::Source, &surroundings::Surroundings) -> Output;

fn run(program: &'static str, command: Command, args: &[String]) -> i32 {
    let mut source = source::Live::new(program);
    loop {
        let output = command(args, &mut source, &surroundings::Surroundings::here());
        let mut err = std::io::stderr().lock();
        // A reader that has gone away (`squeue | head`) is no failure of ours.
        let _ = err.write_all(output.err.as_bytes());
        let mut out = std::io::stdout().lock();
        let written = out.write_all(output.out.as_bytes()).and_then(|()| out.flush());
        drop((out, err));
        match output.again {
            Some(seconds) if written.is_ok() && output.code == 0 => {
                std::thread::sleep(Duration::from_secs(seconds));
            }
            _ => return output.code,
        }
    }
}

/// The queue.
#[must_use]
pub fn squeue(args: &[String]) -> i32 {
    run("squeue", squeue::command, args)
}

/// Nodes and partitions.
#[must_use]
pub fn sinfo(args: &[String]) -> i32 {
    run("sinfo", sinfo::command, args)
}

/// Jobs past and present, with what they used.
#[must_use]
pub fn sacct(args: &[String]) -> i32 {
    run("sacct", sacct::command, args)
}

/// What running jobs use.
#[must_use]
pub fn sstat(args: &[String]) -> i32 {
    run("sstat", sstat::command, args)
}

/// How well a job used what it held.
#[must_use]
pub fn seff(args: &[String]) -> i32 {
    run("seff", seff::command, args)
}

/// Accounts, of which there are none.
#[must_use]
pub fn sacctmgr(args: &[String]) -> i32 {
    run("sacctmgr", accounts::manage, args)
}

/// Shares, of which there are none.
#[must_use]
pub fn sshare(args: &[String]) -> i32 {
    run("sshare", accounts::shares, args)
}

/// What the controller did since its start.
#[must_use]
pub fn sdiag(args: &[String]) -> i32 {
    run("sdiag", sdiag::command, args)
}

/// Every GPU of the cluster.
#[must_use]
pub fn gpu(args: &[String]) -> i32 {
    run("muster gpu", gpu::command, args)
}

/// What is said of a cluster that is not this one.
fn unknown_cluster(name: &str) -> String {
    format!(
        "'{name}' can't be reached now, or it is an invalid entry for --cluster.  \
         Use 'sacctmgr list clusters' to see available clusters."
    )
}

//! `scontrol`: show and change jobs, nodes and partitions.
//!
//! - `show`: `show ENTITY`; `job`, `node`, `partition`: the layouts of their records
//! - `reservation`: all about reservations
//! - `act`: verbs on jobs and the cluster; `update`: `update KEY=VALUE...`

mod act;
mod job;
#[cfg(test)]
mod layouts;
mod node;
mod partition;
mod reservation;
mod show;
mod update;

use crate::connect::CallError;
use crate::exit;
use crate::getopt::{self, Opt, Spec, Takes, both, long};
use crate::query::surroundings::Surroundings;

const PROGRAM: &str = "scontrol";

const OPTIONS: &[Opt] = &[
    both("all", 'a', Takes::Nothing),
    both("details", 'd', Takes::Nothing),
    both("future", 'F', Takes::Nothing),
    both("help", 'h', Takes::Nothing),
    long("hide", Takes::Nothing),
    long("json", Takes::MaybeValue),
    long("local", Takes::Nothing),
    both("clusters", 'M', Takes::Value),
    both("oneliner", 'o', Takes::Nothing),
    both("quiet", 'Q', Takes::Nothing),
    long("sibling", Takes::Nothing),
    both("uid", 'u', Takes::Value),
    long("usage", Takes::Nothing),
    both("verbose", 'v', Takes::Nothing),
    both("version", 'V', Takes::Nothing),
    long("yaml", Takes::MaybeValue),
];

const SPEC: Spec = Spec { program: PROGRAM, options: OPTIONS, stop_at_operand: false };

/// Verbs that are carried out.
const VERBS: &[&str] = &[
    "create",
    "delete",
    "details",
    "help",
    "hold",
    "oneliner",
    "ping",
    "reconfigure",
    "release",
    "requeue",
    "requeuehold",
    "resume",
    "show",
    "shutdown",
    "suspend",
    "token",
    "uhold",
    "update",
    "version",
    "write",
];

/// Slurm's other verbs, each with the reason why not.
const REFUSED: &[(&str, &str)] = &[
    ("abort", "send the controller SIGABRT"),
    ("cancel_reboot", "nodes are not rebooted by the scheduler"),
    ("cluster", "one command speaks to one cluster: set MUSTER_CONF"),
    ("completing", "use squeue -t CG"),
    ("errnumstr", "errors carry their text"),
    ("fsdampeningfactor", "there is no fair-share tree"),
    ("getaddrs", "use scontrol show node"),
    ("getent", "users come from the system's own database"),
    ("listjobs", "use squeue -w NODE"),
    ("listpids", "use the job's cgroup on its node"),
    ("liststeps", "use scontrol show step"),
    ("notify", "there is no channel to a job's terminal"),
    ("pidinfo", "use the job's cgroup on its node"),
    ("power", "nodes are not powered by the scheduler"),
    ("reboot", "nodes are not rebooted by the scheduler"),
    ("schedloglevel", "set MUSTER_LOG and restart the controller"),
    ("setdebug", "set MUSTER_LOG and restart the controller"),
    ("setdebugflags", "set MUSTER_LOG and restart the controller"),
    ("takeover", "there is no backup controller"),
    ("top", "use scontrol update JobId=... Nice=..."),
    ("wait_job", "jobs start when all their nodes are ready"),
];

const HELP: &str = "\
usage: scontrol [-d] [-o] [--json] COMMAND ...

  show job|node|partition|reservation|config|step|licenses|topology|hostnames|hostlist|
       hostlistsorted [NAME]
  update JobId=... | NodeName=... | PartitionName=... | ReservationName=...  KEY=VALUE...
  create reservation KEY=VALUE... ; delete ReservationName=NAME
  hold, uhold, release, suspend, resume, requeue, requeuehold  JOB...
  write batch_script JOB [FILE|-]
  ping, reconfigure, shutdown, token, version
";

/// How records are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// One line a record.
    pub(crate) oneliner: bool,
    pub(crate) details: bool,
    pub(crate) json: bool,
}

/// The command.
#[must_use]
pub fn scontrol(args: &[String]) -> i32 {
    let parsed = match getopt::parse(&SPEC, args) {
        Ok(parsed) => parsed,
        Err(usage) => {
            eprintln!("{usage}");
            return exit::FAILED;
        }
    };
    if parsed.has("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return exit::OK;
    }
    if parsed.has("help") || parsed.has("usage") {
        exit::print(HELP);
        return exit::OK;
    }
    for (id, why) in [("yaml", "use --json"), ("uid", "changes are made in your own name")] {
        if parsed.has(id) {
            exit::error(PROGRAM, &format!("--{id} is not supported: {why}"));
            return exit::FAILED;
        }
    }
    let manner = Manner {
        oneliner: parsed.has("oneliner"),
        details: parsed.has("details"),
        json: parsed.has("json"),
    };
    run(&parsed.operands, manner)
}

fn run(words: &[String], manner: Manner) -> i32 {
    let Some((word, rest)) = words.split_first() else {
        exit::error(PROGRAM, "no command given (there is no interactive mode)");
        eprint!("{HELP}");
        return exit::FAILED;
    };
    let verb = match find(word) {
        Ok(verb) => verb,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    match verb {
        // These two words may stand before another verb.
        "oneliner" => run(rest, Manner { oneliner: true, ..manner }),
        "details" => run(rest, Manner { details: true, ..manner }),
        "show" => show::show(rest, manner, &Surroundings::here()),
        "update" => update::update(rest, &Surroundings::here()),
        "create" => reservation::create(rest, &Surroundings::here()),
        "delete" => reservation::delete(rest),
        "hold" | "uhold" | "release" | "suspend" | "resume" | "requeue" | "requeuehold" => {
            act::on_jobs(verb, rest)
        }
        "ping" => act::ping(),
        "reconfigure" => act::reconfigure(),
        "shutdown" => act::shutdown(rest),
        "token" => act::token(rest),
        "write" => act::write(rest),
        "version" => {
            exit::print(&format!("{}\n", crate::query::VERSION));
            exit::OK
        }
        _ => {
            exit::print(HELP);
            exit::OK
        }
    }
}

/// A verb by its name or a unique prefix, in any case.
fn find(word: &str) -> Result<&'static str, String> {
    let lower = word.to_ascii_lowercase();
    let all = || VERBS.iter().copied().chain(REFUSED.iter().map(|(name, _)| *name));
    let name = all().find(|name| *name == lower).or_else(|| {
        let mut starting = all().filter(|name| !lower.is_empty() && name.starts_with(&lower));
        starting.next().filter(|first| {
            // `requeue` and `requeuehold`: the shorter word is meant.
            starting.all(|other| other.starts_with(first))
        })
    });
    let name = name.ok_or_else(|| format!("invalid keyword: {word}"))?;
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, why)) => Err(format!("{PROGRAM}: error: {name} is not supported: {why}")),
        None => Ok(name),
    }
}

/// One record: its lines joined by the layout.
fn record(lines: &[String], oneliner: bool) -> String {
    if oneliner {
        let words: Vec<&str> = lines.iter().map(|l| l.trim()).collect();
        return format!("{}\n", words.join(" "));
    }
    format!("{}\n\n", lines.join("\n   "))
}

/// `LEAD error: TEXT`, the exit code.
fn failed(lead: &str, error: &CallError) -> i32 {
    super::failed(PROGRAM, lead, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_may_be_shortened_while_they_are_clear() {
        assert_eq!(find("show"), Ok("show"));
        assert_eq!(find("SHO"), Ok("show"));
        assert_eq!(find("upd"), Ok("update"));
        assert_eq!(find("reque"), Ok("requeue"));
        assert_eq!(find("rele"), Ok("release"));
        assert_eq!(find("reconfig"), Ok("reconfigure"));
        assert_eq!(find("foo"), Err("invalid keyword: foo".to_owned()));
        assert_eq!(find("s"), Err("invalid keyword: s".to_owned()));
        assert_eq!(find(""), Err("invalid keyword: ".to_owned()));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (name, why) in REFUSED {
            let text = format!("scontrol: error: {name} is not supported: {why}");
            assert_eq!(find(name), Err(text));
        }
    }
}

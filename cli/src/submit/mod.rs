//! `sbatch`: from what a user typed to a submitted job.
//!
//! The command line, `SBATCH_*` variables and `#SBATCH` lines are read by one table into settings
//! that remember where they came from; the stronger source wins. Nothing but `run` touches the
//! outside: everything else works on [`Surroundings`] and is tested on made-up ones.
//!
//! - `options`: the table of every option, with its variable and how far it is supported
//! - `args`: settings with their sources, and which of them wins
//! - `directives`: `#SBATCH` lines; `script`: finding and checking the script
//! - `env`: `SBATCH_*` and the environment that travels with the job
//! - `values`: the grammars of single options; `gpus`: GPUs and their many spellings;
//!   `gpu_bind`: which of them a task sees
//! - `topology`: how near the nodes are to each other, and how alone
//! - `resolve`: settings to a job
//! - `wait`: `--wait`; `test_only`: `--test-only`

pub mod args;
pub mod directives;
pub mod env;
pub mod gpu_bind;
pub mod gpus;
pub mod options;
pub mod resolve;
pub mod script;
mod test_only;
pub mod topology;
pub mod values;
mod wait;

use std::io::Read as _;
use std::path::PathBuf;

use muster_proto::v1;
use tonic::Response;

use crate::connect::{CallError, Client};
use crate::exit;
use crate::getopt::BadUsage;
use args::Settings;

const PROGRAM: &str = "sbatch";

/// What is wrong with a submission before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The command line or a directive cannot be read.
    Usage(BadUsage),
    /// An option's value is wrong.
    Option(String),
    /// The script or the job as a whole is wrong.
    Refused(String),
    /// The script cannot be read on at all.
    Fatal(String),
}

impl Fault {
    /// What is written to stderr.
    #[must_use]
    pub fn text(&self) -> String {
        let lead = |word: &str, text: &str| -> String {
            text.lines().map(|line| format!("{PROGRAM}: {word}: {line}\n")).collect()
        };
        match self {
            Fault::Usage(usage) => format!("{usage}\n"),
            Fault::Option(text) | Fault::Refused(text) => lead("error", text),
            Fault::Fatal(text) => lead("fatal", text),
        }
    }

    /// The exit code. Faults of the command line are not subject to `SLURM_EXIT_ERROR`.
    #[must_use]
    pub fn code(&self, chosen: i32) -> i32 {
        match self {
            Fault::Usage(_) | Fault::Option(_) => exit::USAGE,
            Fault::Refused(_) => chosen,
            Fault::Fatal(_) => exit::FAILED,
        }
    }
}

impl From<BadUsage> for Fault {
    fn from(usage: BadUsage) -> Fault {
        Fault::Usage(usage)
    }
}

/// Everything outside the command line that a submission depends on.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `NAME`, `VALUE`, as bytes: names and values need not be UTF-8.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub cwd: PathBuf,
    pub hostname: String,
    pub umask: u32,
    /// Soft limits by their short names; `u64::MAX`: none.
    pub rlimits: Vec<(&'static str, u64)>,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    pub zone: Option<jiff::tz::TimeZone>,
    /// The cluster's name, and the most bytes of script and environment that it takes.
    pub cluster: String,
    pub max_script_bytes: usize,
    pub max_environment_bytes: usize,
    /// The whole command line, for display.
    pub submit_line: String,
}

impl Surroundings {
    /// The value of a variable, if it is UTF-8.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(n, _)| n == name.as_bytes());
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// A submission that is ready to be sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Submission {
    pub spec: v1::JobSpec,
    /// The further ones of a heterogeneous job.
    pub components: Vec<v1::JobSpec>,
    pub script: Vec<u8>,
    /// NUL-separated `NAME=VALUE`.
    pub environment: Vec<u8>,
    /// How to go about it.
    pub manner: Manner,
    /// Said on stderr unless `--quiet`.
    pub notices: Vec<String>,
}

/// What `sbatch` itself does, apart from what the job is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manner {
    pub parsable: bool,
    pub quiet: bool,
    pub wait: bool,
    pub test_only: bool,
    /// `--clusters`: then the answer names the cluster.
    pub cluster: Option<String>,
    /// `-v`: each setting and where it came from.
    pub verbose: Vec<String>,
}

/// The command.
#[must_use]
pub fn sbatch(words: &[String]) -> i32 {
    match run(words) {
        Ok(code) => code,
        Err(Stop::Fault(fault)) => {
            eprint!("{}", fault.text());
            fault.code(exit::failed())
        }
        Err(Stop::Call(error)) => {
            refused("Batch job submission failed", &error);
            exit::failed()
        }
        Err(Stop::Said(code)) => code,
    }
}

enum Stop {
    Fault(Fault),
    Call(CallError),
    /// Everything has been said.
    Said(i32),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Stop {
        Stop::Call(error)
    }
}

/// Our sentence first, then the line that tools match on.
fn refused(what: &str, error: &CallError) {
    if let Some(detail) = error.detail() {
        exit::error(PROGRAM, &detail);
    }
    exit::error(PROGRAM, &format!("{what}: {}", error.slurm_text()));
}

fn run(words: &[String]) -> Result<i32, Stop> {
    let (mut components, operands) = components(words)?;
    let settings = &components[0];
    if settings.has("help") || settings.has("usage") {
        exit::print(&options::usage());
        return Ok(exit::OK);
    }
    if settings.has("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return Ok(exit::OK);
    }
    let around = surroundings(words);
    for settings in &mut components {
        settings.add_environment(&around)?;
    }
    let script = read_script(&components[0], &operands, &around)?;
    read_directives(&mut components, &script)?;
    let config = muster_config::Config::find()
        .and_then(|path| muster_config::Config::load(&path))
        .map_err(CallError::from)?;
    let around = Surroundings {
        cluster: config.cluster.clone(),
        max_script_bytes: config.scheduler.max_script_bytes as usize,
        max_environment_bytes: config.scheduler.max_environment_bytes as usize,
        ..around
    };
    let submission = resolve::all(&components, &script, &around)?;
    say_beforehand(&submission);
    let mut client = Client::open(&config, PROGRAM)?;
    if submission.manner.test_only {
        return Ok(test_only::run(&mut client, &submission, around.zone()));
    }
    submit(&mut client, &submission)
}

/// The settings of each component on the command line, and the script with its arguments.
fn components(words: &[String]) -> Result<(Vec<Settings>, Vec<String>), Fault> {
    let mut out = Vec::new();
    let mut words = words.to_vec();
    loop {
        let mut settings = Settings::default();
        let mut operands = settings.add_command_line(&words)?;
        out.push(settings);
        if operands.first().is_none_or(|word| word != ":") {
            return Ok((out, operands));
        }
        words = operands.split_off(1);
    }
}

/// Reads the `#SBATCH` lines, each for its component.
fn read_directives(components: &mut Vec<Settings>, script: &script::Script) -> Result<(), Fault> {
    if script.wrapped {
        return Ok(());
    }
    let found = directives::scan(&script.content, &script.shown)?;
    components.resize_with(components.len().max(found.components.len()), Settings::default);
    components[0].foreign_directives = found.foreign;
    for (settings, lines) in components.iter_mut().zip(found.components) {
        settings.add_directives(lines)?;
    }
    Ok(())
}

fn say_beforehand(submission: &Submission) {
    for line in &submission.manner.verbose {
        exit::say(PROGRAM, line);
    }
    if !submission.manner.quiet {
        for line in &submission.notices {
            exit::say(PROGRAM, line);
        }
    }
}

/// The wire's form. The id is drawn once, so that a repeated call is known as such.
pub(crate) fn request(submission: &Submission) -> v1::SubmitRequest {
    let mut id = [0u8; 16];
    // Without randomness a clash is possible in theory only: pid and clock differ.
    if std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut id)).is_err() {
        let now = jiff::Timestamp::now().as_nanosecond();
        id = (now ^ (i128::from(std::process::id()) << 96)).to_le_bytes();
    }
    v1::SubmitRequest {
        request_id: id.to_vec().into(),
        spec: Some(submission.spec.clone()),
        script: submission.script.clone().into(),
        environment: submission.environment.clone().into(),
        components: submission.components.clone(),
    }
}

fn submit(client: &mut Client, submission: &Submission) -> Result<i32, Stop> {
    let request = request(submission);
    let reply = client
        .call(async |mut api| api.jobs.submit(request.clone()).await.map(Response::into_inner))?;
    if let Some(detail) = reply.error {
        refused("Batch job submission failed", &CallError::Refused(detail));
        return Err(Stop::Said(exit::failed()));
    }
    let manner = &submission.manner;
    if !manner.quiet {
        for warning in &reply.warnings {
            exit::say(PROGRAM, &format!("warning: {warning}"));
        }
    }
    let job = reply.job;
    let line = match (&manner.cluster, manner.parsable) {
        (None, true) => format!("{job}\n"),
        (Some(cluster), true) => format!("{job};{cluster}\n"),
        (None, false) => format!("Submitted batch job {job}\n"),
        (Some(cluster), false) => format!("Submitted batch job {job} on cluster {cluster}\n"),
    };
    if manner.parsable || !manner.quiet {
        exit::print(&line);
    }
    if manner.wait {
        return Ok(wait::until_ended(client, job));
    }
    Ok(exit::OK)
}

fn read_script(
    settings: &Settings,
    operands: &[String],
    around: &Surroundings,
) -> Result<script::Script, Fault> {
    if let Some(command) = settings.value("wrap") {
        if !operands.is_empty() {
            let text = "Script arguments not permitted with --wrap option";
            return Err(Fault::Refused(text.to_owned()));
        }
        return Ok(script::Script::wrap(command));
    }
    match operands.split_first() {
        Some((name, args)) => script::Script::open(name, args, settings.value("chdir"), around),
        None => script::Script::stdin(&mut std::io::stdin().lock()),
    }
}

/// Looks at this process, once.
pub(crate) fn surroundings(words: &[String]) -> Surroundings {
    use std::os::unix::ffi::OsStringExt as _;
    let environment =
        std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let line: Vec<&str> =
        std::iter::once(PROGRAM).chain(words.iter().map(String::as_str)).collect();
    Surroundings {
        environment,
        // A directory that is gone has no name; the job then starts in the root.
        cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        hostname: nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default(),
        umask: env::umask(),
        rlimits: env::soft_limits(),
        now_ms: jiff::Timestamp::now().as_millisecond(),
        zone: None,
        submit_line: line.join(" "),
        ..Surroundings::default()
    }
}

impl Surroundings {
    /// The local time zone. Looked up only where a time is read or shown: it costs a file.
    #[must_use]
    pub fn zone(&self) -> jiff::tz::TimeZone {
        self.zone.clone().unwrap_or_else(jiff::tz::TimeZone::system)
    }
}

#[cfg(test)]
mod tests;

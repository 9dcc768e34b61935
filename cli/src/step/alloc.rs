//! An allocation for a command that waits: a job whose script only holds it, and that ends with the
//! command's own exit code.

use std::path::Path;
use std::time::Duration;

use muster_config::Config;
use muster_proto::v1::{CancelRequest, DescribeReply, Job, JobRef, JobState, ReleaseRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::agents::Agents;
use super::options::Asked;
use super::srun::{self, Stop, described, ending, first};
use super::wish::{self, Around};
use super::{het, job, signals};
use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::submit::args::Settings;
use crate::submit::script::Script;
use crate::submit::{self, Surroundings, resolve};

/// What the job runs: nothing, until it is told to end.
const HOLDER: &str = "exec sleep infinity";
/// Between looks at a job that waits; they double from the first to the last.
const LOOK_MIN: Duration = Duration::from_millis(4);
const LOOK_MAX: Duration = Duration::from_millis(500);
/// A wait shorter than this is not worth a line.
const SILENT: Duration = Duration::from_millis(400);

/// A job that runs and waits for its command.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) job: u32,
    pub(crate) head: String,
    pub(crate) about: DescribeReply,
}

impl Allocation {
    /// A variable of the job's script.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.about.environment).ok()?;
        let pair = |p: &str| Some(p.split_once('=').filter(|(n, _)| *n == name)?.1.to_owned());
        text.split('\0').find_map(pair)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    /// The job's sizes, for a step that takes all of it.
    pub(crate) fn around(&self) -> Around {
        Around {
            nodes: self.number("SLURM_NNODES"),
            tasks: self.number("SLURM_NTASKS"),
            tasks_per_node: self.number("SLURM_NTASKS_PER_NODE"),
        }
    }
}

/// Submits the job; its number. Several that are asked for are the components of one.
pub(crate) fn submit(
    client: &mut Client,
    config: &Config,
    program: &'static str,
    asked: &[Asked],
    name: &str,
    words: &[String],
) -> Result<u32, Stop> {
    let around = submit::surroundings(words);
    let mut all = Vec::new();
    for asked in asked {
        let mut line = asked.for_allocation();
        if !asked.said("job-name") {
            line.push(format!("--job-name={name}"));
        }
        let quiet = ["--output=/dev/null", "--error=/dev/null", "--no-requeue"];
        line.extend(quiet.map(str::to_owned));
        let mut settings = Settings::default();
        settings.add_command_line(&line)?;
        settings.add_environment(&renamed(&around, program))?;
        all.push(settings);
    }
    let typed: Vec<&str> =
        std::iter::once(program).chain(words.iter().map(String::as_str)).collect();
    let around = Surroundings {
        cluster: config.cluster.clone(),
        max_script_bytes: config.scheduler.max_script_bytes as usize,
        max_environment_bytes: config.scheduler.max_environment_bytes as usize,
        submit_line: typed.join(" "),
        ..around
    };
    let submission = resolve::all(&all, &Script::wrap(HOLDER), &around)?;
    let quiet = asked.iter().any(|asked| asked.said("quiet"));
    for notice in submission.notices.iter().filter(|_| !quiet) {
        exit::say(program, notice);
    }
    let request = submit::request(&submission);
    let refused = |error: &CallError| refusal(program, error);
    let reply = client
        .call(async |mut api| {
            api.jobs.submit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .map_err(|error| refused(&error))?;
    match reply.error {
        Some(detail) => Err(refused(&CallError::Refused(detail))),
        None => Ok(reply.job),
    }
}

pub(super) fn refusal(program: &str, error: &CallError) -> Stop {
    let what = match program {
        "salloc" => "Job submit/allocate failed",
        _ => "Unable to allocate resources",
    };
    Stop::refused(error.detail(), format!("{what}: {}", error.slurm_text()))
}

/// `SALLOC_PARTITION` and `SLURM_PARTITION` as the table knows them.
fn renamed(around: &Surroundings, program: &str) -> Surroundings {
    let prefix: &[u8] = if program == "salloc" { b"SALLOC_" } else { b"SLURM_" };
    let rename = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let rest = name.strip_prefix(prefix)?;
        Some(([b"SBATCH_", rest].concat(), value.clone()))
    };
    Surroundings {
        environment: around.environment.iter().filter_map(rename).collect(),
        ..around.clone()
    }
}

/// Waits until the job runs.
pub(crate) async fn wait(
    api: Api,
    agents: &Agents,
    program: &'static str,
    job: u32,
    quiet: bool,
    patience: Option<Duration>,
    signals: &mut mpsc::UnboundedReceiver<i32>,
) -> Result<Allocation, Stop> {
    let waited = tokio::select! {
        started = until_started(api.clone(), program, job, quiet, patience) => started,
        _ = ending(signals) => {
            cancel(api, job).await;
            exit::say(program, &format!("Job allocation {job} has been revoked."));
            return Err(Stop::Said(exit::failed()));
        }
    };
    let found = match waited {
        Ok(Some(found)) => found,
        Ok(None) => {
            cancel(api, job).await;
            let code = std::env::var("SLURM_EXIT_IMMEDIATE").ok().and_then(|c| c.parse().ok());
            let text = "Unable to allocate resources: Requested nodes are busy";
            exit::error(program, text);
            return Err(Stop::Said(code.unwrap_or(exit::FAILED)));
        }
        Err(stop) => return Err(stop),
    };
    let head = first(&found.nodes).unwrap_or(found.batch_host);
    match described(agents, &head, job).await {
        Ok(about) => Ok(Allocation { job, head, about }),
        Err(error) => {
            cancel(api, job).await;
            Err(Stop::refused(error.detail(), error.slurm_text()))
        }
    }
}

/// `None`: not within the bound.
async fn until_started(
    api: Api,
    program: &'static str,
    job: u32,
    quiet: bool,
    patience: Option<Duration>,
) -> Result<Option<Job>, Stop> {
    let begun = Instant::now();
    // What is free is given within moments; zero asks for no more than that.
    let bound = patience.map(|p| p.max(Duration::from_secs(1)));
    let (mut pause, mut told) = (LOOK_MIN, false);
    loop {
        // A controller that restarts is asked again.
        let found = job::find(api.clone(), job).await.unwrap_or_default();
        match found.as_ref().map(Job::state) {
            Some(JobState::Running) => {
                if told {
                    exit::say(program, &format!("job {job} has been allocated resources"));
                }
                return Ok(found);
            }
            Some(
                JobState::Pending
                | JobState::Configuring
                | JobState::Suspended
                | JobState::Requeued,
            )
            | None => {}
            Some(_) => {
                let text = format!("Job allocation {job} has been revoked");
                return Err(Stop::refused(None, text));
            }
        }
        if bound.is_some_and(|bound| begun.elapsed() >= bound) {
            return Ok(None);
        }
        if !told && begun.elapsed() > SILENT && !quiet {
            told = true;
            if program == "salloc" {
                exit::say(program, &format!("Pending job allocation {job}"));
            }
            exit::say(program, &format!("job {job} queued and waiting for resources"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// Takes the job back.
pub(crate) async fn cancel(mut api: Api, job: u32) {
    let jobs = vec![JobRef { job, tasks: String::new() }];
    let request = CancelRequest { jobs, ..CancelRequest::default() };
    let _ = tokio::time::timeout(Duration::from_secs(10), api.jobs.cancel(request)).await;
}

/// The command is done: the job ends with its code.
pub(crate) async fn release(api: Api, agents: &Agents, held: &Allocation, code: i32) {
    let request = ReleaseRequest { job: held.job, code: code.rem_euclid(256).cast_unsigned() };
    let released = agents.call(&held.head, async |mut client| client.release(request).await);
    let bound = Duration::from_secs(10);
    if !matches!(tokio::time::timeout(bound, released).await, Ok(Ok(_))) {
        cancel(api, held.job).await;
    }
}

/// `srun` outside of any job.
pub(crate) fn srun(config: Config, asked: &Asked, words: &[String]) -> Result<i32, Stop> {
    const PROGRAM: &str = "srun";
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    // What is wrong with the step is said before there is a job.
    let wish = wish::read(asked, Around::default(), &cwd)?;
    let mut client = Client::open(&config, PROGRAM).map_err(|e| refusal(PROGRAM, &e))?;
    let asked_alone = std::slice::from_ref(asked);
    let job = submit(&mut client, &config, PROGRAM, asked_alone, &wish.name, words)?;
    let agents = Agents::new(config.clone());
    let api = client.api();
    client.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let quiet = wish.quiet;
        let patience = wish.immediate;
        let held = wait(api.clone(), &agents, PROGRAM, job, quiet, patience, &mut signals).await?;
        let wish = het::of_all(wish::read(asked, held.around(), &cwd)?, asked);
        let wish = srun::settled(wish, &config);
        let ended = srun::step(&agents, job, &held.head, wish, words, &mut signals).await;
        let code = match &ended {
            Ok(code) => *code,
            Err(_) => exit::FAILED,
        };
        release(api, &agents, &held, code).await;
        ended
    })
}

//! `srun`: tasks in a job, or in one that it makes.

use std::path::Path;
use std::time::Duration;

use muster_config::Config;
use muster_model::Hostlist;
use muster_proto::v1::{DescribeRequest, OpenStepRequest};
use tokio::sync::mpsc;

use super::agents::{AgentError, Agents};
use super::options::{self, Asked, Bad};
use super::wish::{self, Around, Wish};
use super::{alloc, bcast, het, job, mpi, run, signals, terminal, variables};
use crate::exit;
use crate::submit::Fault;

const PROGRAM: &str = "srun";

/// The command.
#[must_use]
pub fn srun(words: &[String]) -> i32 {
    match begin(words) {
        Ok(code) => code,
        Err(stop) => stop.say(PROGRAM),
    }
}

/// Why there is no step.
#[derive(Debug)]
pub(crate) enum Stop {
    Bad(Bad),
    Fault(Fault),
    /// Our sentence, and the line that tools match on.
    Refused(Option<String>, String),
    Said(i32),
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Stop {
        Stop::Bad(bad)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl Stop {
    pub(crate) fn refused(detail: Option<String>, text: impl Into<String>) -> Stop {
        Stop::Refused(detail, text.into())
    }

    pub(crate) fn say(self, program: &str) -> i32 {
        match self {
            Stop::Bad(Bad::Usage(usage)) => {
                eprintln!("{usage}");
                exit::USAGE
            }
            Stop::Bad(Bad::Refused(text)) => {
                exit::error(program, &text);
                exit::USAGE
            }
            Stop::Fault(fault) => {
                let (text, code) = match fault {
                    Fault::Usage(usage) => return Stop::Bad(Bad::Usage(usage)).say(program),
                    Fault::Option(text) => (text, exit::USAGE),
                    Fault::Refused(text) | Fault::Fatal(text) => (text, exit::failed()),
                };
                exit::error(program, &text);
                code
            }
            Stop::Refused(detail, text) => {
                if let Some(detail) = detail {
                    exit::error(program, &detail);
                }
                exit::error(program, &text);
                exit::failed()
            }
            Stop::Said(code) => code,
        }
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Stop::refused(None, format!("cannot start the runtime: {e}")))
}

/// The common beginning: the table, `--help` and its kin, what variables say.
pub(crate) fn asked(program: &str, words: &[String]) -> Result<Asked, Stop> {
    let asked = Asked::read(program, words)?;
    if asked.said("help") || asked.said("usage") {
        exit::print(&options::usage(program));
        return Err(Stop::Said(exit::OK));
    }
    if asked.said("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return Err(Stop::Said(exit::OK));
    }
    if asked.said_value("mpi") == Some("list") {
        eprintln!("{}", mpi::LIST);
        return Err(Stop::Said(exit::OK));
    }
    if !asked.said("quiet") {
        for name in asked.noted().into_iter().filter(|n| *n != "interactive") {
            if asked.said("verbose") {
                exit::say(program, &format!("--{name} changes nothing here"));
            }
        }
    }
    Ok(asked)
}

pub(crate) fn config() -> Result<Config, Stop> {
    Config::find().and_then(|path| Config::load(&path)).map_err(|fault| {
        Stop::refused(
            Some(fault.to_string()),
            format!("Unable to allocate resources: {}", crate::connect::UNREACHABLE),
        )
    })
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|text| text.trim().parse().ok())
}

fn begin(words: &[String]) -> Result<i32, Stop> {
    let components = het::split(words);
    let mut asked = asked(PROGRAM, &components[0])?;
    let inside = match asked.said_value("jobid") {
        Some(text) => Some(text.to_owned()),
        None => std::env::var("SLURM_JOB_ID").or_else(|_| std::env::var("SLURM_JOBID")).ok(),
    };
    let config = config()?;
    // The cluster's word for all sruns, in a job or not.
    let variable = |name: &str| std::env::var(name).ok().filter(|_| name.ends_with("_MPI_TYPE"));
    asked.add_variables(variable);
    let Some(id) = inside.filter(|id| !id.is_empty()) else {
        return match components.len() {
            1 => alloc::srun(config, &asked, words),
            _ => het::outside(config, words, &components),
        };
    };
    if components.len() > 1 || het::is_meant(&asked) {
        return het::inside(config, words, &components);
    }
    asked.add_variables(|name| std::env::var(name).ok());
    let pick = job::named(&id)
        .ok_or_else(|| Stop::refused(None, format!("Invalid job id specified: {id}")))?;
    let mine = std::env::var("SLURM_JOB_ID").is_ok_and(|own| own == id);
    let around = match mine {
        true => Around {
            nodes: number("SLURM_NNODES").or_else(|| number("SLURM_JOB_NUM_NODES")),
            tasks: number("SLURM_NTASKS"),
            tasks_per_node: number("SLURM_NTASKS_PER_NODE"),
        },
        false => Around::default(),
    };
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let wish = wish::read(&asked, around, &cwd)?;
    let wish = settled(wish, &config);
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let home = job::home(&config, &pick, mine).await?;
        let agents = Agents::new(config);
        step(&agents, home.job, &home.head, wish, words, &mut signals).await
    });
    // A thread may still wait for the terminal.
    runtime.shutdown_background();
    code
}

/// What the cluster says where the step does not, and the limits.
pub(crate) fn settled(mut wish: Wish, config: &Config) -> Wish {
    wish.mpi = wish.mpi.or(Some(mpi::usual(config.scheduler.mpi_default)));
    with_limits(wish)
}

/// The limits of this process for its tasks.
pub(crate) fn with_limits(mut wish: Wish) -> Wish {
    let rlimit = |(name, soft): (&'static str, u64)| muster_proto::v1::Rlimit {
        name: name.to_owned(),
        soft,
    };
    wish.rlimits = crate::submit::env::soft_limits().into_iter().map(rlimit).collect();
    wish
}

/// Opens and runs one step in a job that runs.
pub(crate) async fn step(
    agents: &Agents,
    job: u32,
    head: &str,
    wish: Wish,
    words: &[String],
    signals: &mut mpsc::UnboundedReceiver<i32>,
) -> Result<i32, Stop> {
    let opened = tokio::select! {
        opened = open_step(agents, job, head, &wish, words) => opened?,
        signal = ending(signals) => return Err(Stop::Said(128 + signal)),
    };
    ended_step(agents, opened, &wish, signals, run::alone()).await
}

/// Opens a step; waits for what it needs.
pub(crate) async fn open_step(
    agents: &Agents,
    job: u32,
    head: &str,
    wish: &Wish,
    words: &[String],
) -> Result<run::Step, Stop> {
    if let Some(name) = wish.shape.nodes.iter().find(|name| !agents.knows(name)) {
        let detail = format!("node {name} is not in the config");
        let text = format!("Unable to create step for job {job}: Invalid node name specified");
        return Err(Stop::refused(Some(detail), text));
    }
    let line: Vec<&str> =
        std::iter::once(PROGRAM).chain(words.iter().map(String::as_str)).collect();
    let request = OpenStepRequest {
        job,
        shape: Some(wish.shape.clone()),
        name: wish.name.clone(),
        immediate: wish.immediate.is_some_and(|wait| wait.is_zero()),
        resume: None,
        submit_line: line.join(" "),
        host: nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default(),
    };
    let opened = run::open(agents, head, request, wish.quiet, wish.immediate).await;
    opened.map_err(|error| unable(job, &error))
}

/// Runs an open step; its exit code.
pub(crate) async fn ended_step(
    agents: &Agents,
    step: run::Step,
    wish: &Wish,
    signals: &mut mpsc::UnboundedReceiver<i32>,
    company: run::Company,
) -> Result<i32, Stop> {
    let mut wish = wish.clone();
    let request = step.request.clone();
    let sent = bcast::send(agents, &step.head, &step.grant, &mut wish, &request, signals).await;
    if let Err(stop) = sent {
        run::give_up(agents, &step).await;
        return Err(stop);
    }
    let raw = wish.pty.then(terminal::Raw::begin).flatten();
    if wish.pty && wish.shape.tasks == 0 {
        wish.shape.tasks = step.grant.tasks;
    }
    let environment = variables::of_step(&variables::own(), &wish, &step.grant);
    let ended = run::run(agents, step, &wish, environment, signals, company).await;
    drop(raw);
    match ended {
        Ok(ended) => Ok(ended.code),
        Err(text) => Err(Stop::refused(None, text)),
    }
}

/// A signal that ends srun while it only waits.
pub(crate) async fn ending(signals: &mut mpsc::UnboundedReceiver<i32>) -> i32 {
    use nix::libc::{SIGCONT, SIGWINCH};
    loop {
        match signals.recv().await {
            Some(SIGCONT | SIGWINCH) => {}
            Some(signal) => return signal,
            None => std::future::pending().await,
        }
    }
}

pub(crate) fn unable(job: u32, error: &AgentError) -> Stop {
    let text = error.slurm_text();
    Stop::refused(error.detail(), format!("Unable to create step for job {job}: {text}"))
}

/// Waits until the agent of the job's first node has it running.
pub(crate) async fn described(
    agents: &Agents,
    head: &str,
    job: u32,
) -> Result<muster_proto::v1::DescribeReply, AgentError> {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = agents
            .call(head, async |mut client| {
                client.describe(DescribeRequest { job }).await.map(tonic::Response::into_inner)
            })
            .await;
        match answer {
            Err(AgentError::NotThere(_)) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answer => return answer,
        }
    }
}

/// The first of a hostlist.
pub(crate) fn first(nodes: &str) -> Option<String> {
    Hostlist::parse(nodes).ok()?.0.into_iter().next()
}

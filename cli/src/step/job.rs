//! Which job a step belongs to, and where that job begins.

use muster_config::Config;
use muster_proto::v1::{Job, JobState, ListJobsRequest};

use super::srun::{Stop, first};
use crate::connect::{Api, CallError, Client};
use crate::query::pick::Pick;

/// One job as users name it: `12`, `12_4` (an array's task), `12+1` (a component of a heterogeneous
/// job).
pub(crate) fn named(text: &str) -> Option<Pick> {
    let pick = Pick::parse(text.trim()).ok().filter(|pick| pick.step.is_none())?;
    pick.tasks.as_ref().is_none_or(|tasks| tasks.len() == 1).then_some(pick)
}

/// One step of a job: `12.0`, `12_4.0`, `12+1.0`.
pub(crate) fn step(text: &str) -> Option<(Pick, u32)> {
    let (job, step) = text.split_once('.')?;
    Some((named(job)?, step.parse().ok()?))
}

/// Where steps of a job begin.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) job: u32,
    /// The agent of this node, the job's first, keeps them.
    pub(crate) head: String,
}

/// A job's number and its first node: by the environment of a command inside it, or by the controller.
pub(crate) async fn home(config: &Config, pick: &Pick, inside: bool) -> Result<Home, Stop> {
    if inside
        && let Some(head) = std::env::var("SLURM_JOB_NODELIST").ok().and_then(|list| first(&list))
    {
        return Ok(Home { job: pick.job, head });
    }
    let (config, wanted) = (config.clone(), pick.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::open(&config, "srun")?;
        client.call(async |api| look_up(api, &wanted).await)
    });
    let found = asked.await.expect("a question does not panic").map_err(|e| refuse(pick, &e))?;
    let name = pick.text();
    match found {
        Some(found) if matches!(found.state(), JobState::Running | JobState::Completing) => {
            Ok(Home { job: found.id, head: first(&found.nodes).unwrap_or(found.batch_host) })
        }
        Some(found) if matches!(found.state(), JobState::Pending | JobState::Configuring) => {
            Err(unable(pick, format!("job {name} has not started"), "Job is pending execution"))
        }
        Some(found) if found.state() == JobState::Suspended => {
            Err(unable(pick, format!("job {name} is suspended"), "Job is suspended"))
        }
        Some(_) => Err(unable(
            pick,
            format!("job {name} has ended"),
            "Job/step already completing or completed",
        )),
        None => Err(unable(pick, format!("job {name} is not known"), "Invalid job id specified")),
    }
}

fn unable(pick: &Pick, detail: String, text: &str) -> Stop {
    Stop::refused(Some(detail), format!("Unable to create step for job {}: {text}", pick.text()))
}

fn refuse(pick: &Pick, error: &CallError) -> Stop {
    let text = format!("Unable to create step for job {}: {}", pick.text(), error.slurm_text());
    Stop::refused(error.detail(), text)
}

/// A job of this number as the controller shows it.
pub(crate) async fn find(api: Api, job: u32) -> Result<Option<Job>, tonic::Status> {
    look_up(api, &Pick { job, leader: None, tasks: None, step: None }).await
}

async fn look_up(mut api: Api, pick: &Pick) -> Result<Option<Job>, tonic::Status> {
    let jobs = vec![pick.reference()];
    let request = ListJobsRequest { jobs, all_states: true, ..ListJobsRequest::default() };
    let mut pages = match api.query.list_jobs(request).await {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        Err(status) => return Err(status),
    };
    let mut found = None;
    loop {
        match pages.message().await {
            Ok(Some(page)) => found = page.jobs.into_iter().find(|job| is(pick, job)).or(found),
            Ok(None) => return Ok(found),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status),
        }
    }
}

/// Whether a job is the one that is named, and not another of its array or another component.
fn is(pick: &Pick, job: &Job) -> bool {
    match &pick.tasks {
        None => job.id == pick.job && pick.may_be(job),
        Some(_) => pick.names(job),
    }
}

//! Which job a step belongs to, and where that job begins.

use muster_config::Config;
use muster_proto::v1::{Job, JobRef, JobState, ListJobsRequest};

use super::srun::{Stop, first};
use crate::connect::{Api, CallError, Client};

/// A job's number: `12`, or the number of an array's task; `12+1`: a component of a heterogeneous job,
/// whose numbers are in a row.
pub(crate) fn id(text: &str) -> Option<u32> {
    let (leader, place) = text.trim().split_once('+').unwrap_or((text.trim(), "0"));
    let leader: u32 = leader.parse().ok().filter(|id| *id > 0)?;
    leader.checked_add(place.parse().ok()?)
}

/// The first node of a job: by the environment of a command inside it, or by the controller.
pub(crate) async fn head(config: &Config, job: u32, inside: bool) -> Result<String, Stop> {
    if inside
        && let Some(node) = std::env::var("SLURM_JOB_NODELIST").ok().and_then(|list| first(&list))
    {
        return Ok(node);
    }
    let config = config.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut client = Client::open(&config, "srun")?;
        client.call(async |api| find(api, job).await)
    });
    let job_found =
        found.await.expect("a question does not panic").map_err(|error| refuse(job, &error))?;
    match job_found {
        Some(found) if matches!(found.state(), JobState::Running | JobState::Completing) => {
            Ok(first(&found.nodes).unwrap_or(found.batch_host))
        }
        Some(found) if matches!(found.state(), JobState::Pending | JobState::Configuring) => {
            Err(unable(job, format!("job {job} has not started"), "Job is pending execution"))
        }
        Some(found) if found.state() == JobState::Suspended => {
            Err(unable(job, format!("job {job} is suspended"), "Job is suspended"))
        }
        Some(_) => Err(unable(
            job,
            format!("job {job} has ended"),
            "Job/step already completing or completed",
        )),
        None => Err(unable(job, format!("job {job} is not known"), "Invalid job id specified")),
    }
}

fn unable(job: u32, detail: String, text: &str) -> Stop {
    Stop::refused(Some(detail), format!("Unable to create step for job {job}: {text}"))
}

fn refuse(job: u32, error: &CallError) -> Stop {
    let text = format!("Unable to create step for job {job}: {}", error.slurm_text());
    Stop::refused(error.detail(), text)
}

/// A job as the controller shows it.
pub(crate) async fn find(mut api: Api, job: u32) -> Result<Option<Job>, tonic::Status> {
    let jobs = vec![JobRef { job, tasks: String::new() }];
    let request = ListJobsRequest { jobs, all_states: true, ..ListJobsRequest::default() };
    let mut pages = match api.query.list_jobs(request).await {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        Err(status) => return Err(status),
    };
    let mut found = None;
    loop {
        match pages.message().await {
            Ok(Some(page)) => found = page.jobs.into_iter().find(|j| j.id == job).or(found),
            Ok(None) => return Ok(found),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status),
        }
    }
}

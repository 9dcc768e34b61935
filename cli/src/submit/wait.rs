//! `--wait`: until the job has ended, over restarts of the controller.

use muster_proto::v1::{self, JobState};
use tonic::{Response, Status};

use super::PROGRAM;
use crate::connect::{Api, CallError, Client};
use crate::exit;

/// Waits for a job or a whole array; its exit code: the highest of the array's tasks, 1 for one
/// that did not end by itself.
pub(super) fn until_ended(client: &mut Client, job: u32) -> i32 {
    let jobs = vec![v1::JobRef { job, tasks: String::new() }];
    loop {
        let answer = client.call(async |api| ended(api, jobs.clone()).await);
        match answer {
            Ok(Some(code)) => return code,
            Ok(None) => {}
            Err(error) => return gave_up(job, &error),
        }
        // The stream ends with the last of the jobs, or with the controller: the list decides.
        let watched = client.call(async |mut api| {
            let request = v1::WatchRequest { jobs: jobs.clone() };
            let mut changes = api.query.watch(request).await?.into_inner();
            while changes.message().await?.is_some() {}
            Ok(())
        });
        if let Err(error) = watched {
            return gave_up(job, &error);
        }
    }
}

fn gave_up(job: u32, error: &CallError) -> i32 {
    exit::error(PROGRAM, &format!("cannot wait for job {job}: {error}"));
    exit::failed()
}

/// The exit code, once all have ended. Jobs that the controller has forgotten are looked up in the
/// history.
async fn ended(mut api: Api, jobs: Vec<v1::JobRef>) -> Result<Option<i32>, Status> {
    let request =
        v1::ListJobsRequest { jobs: jobs.clone(), all_states: true, ..Default::default() };
    let mut found = Vec::new();
    match api.query.list_jobs(request).await.map(Response::into_inner) {
        Ok(mut pages) => loop {
            match pages.message().await {
                Ok(Some(page)) => found.extend(page.jobs),
                Ok(None) => break,
                Err(status) if is_unknown(&status) => break,
                Err(status) => return Err(status),
            }
        },
        Err(status) if is_unknown(&status) => {}
        Err(status) => return Err(status),
    }
    if found.is_empty() {
        let request = v1::HistoryRequest { jobs, ..Default::default() };
        let mut pages = api.query.list_history(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            found.extend(page.rows.into_iter().filter_map(|row| row.job));
        }
        if found.is_empty() {
            return Err(Status::not_found("neither the queue nor the history knows it"));
        }
    }
    Ok(found
        .iter()
        .map(code)
        .collect::<Option<Vec<i32>>>()
        .map(|codes| codes.into_iter().max().unwrap_or(exit::OK)))
}

fn is_unknown(status: &Status) -> bool {
    status.code() == tonic::Code::NotFound
}

/// One job's part; `None` while it has not ended.
fn code(job: &v1::Job) -> Option<i32> {
    let exit = job.exit.unwrap_or_default();
    match job.state() {
        JobState::Pending
        | JobState::Configuring
        | JobState::Running
        | JobState::Suspended
        | JobState::Completing
        | JobState::Requeued => None,
        JobState::Completed => Some(exit::OK),
        // Killed, cancelled, timed out: there is no code of its own.
        _ if exit.signal != 0 || exit.code == 0 => Some(1),
        _ => Some(exit.code as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(state: JobState, exit_code: u32, signal: u32, expected: Option<i32>) {
        let exit = Some(v1::ExitStatus { code: exit_code, signal });
        let job = v1::Job { state: state as i32, exit, ..v1::Job::default() };
        assert_eq!(code(&job), expected, "{state:?}");
    }

    #[test]
    fn a_jobs_end_is_sbatchs_exit_code() {
        check(JobState::Running, 0, 0, None);
        check(JobState::Completing, 3, 0, None);
        check(JobState::Completed, 0, 0, Some(0));
        check(JobState::Failed, 3, 0, Some(3));
        check(JobState::Failed, 0, 9, Some(1));
        check(JobState::Cancelled, 0, 0, Some(1));
        check(JobState::Timeout, 0, 0, Some(1));
    }
}

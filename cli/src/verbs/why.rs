//! `muster why JOB`: why it waits, in sentences.

use muster_proto::v1::{self, JobState};

use crate::exit;
use crate::query::pick::Pick;
use crate::query::surroundings::Surroundings;
use crate::query::{shown, states};

const PROGRAM: &str = "muster why";

/// The command.
#[must_use]
pub fn why(args: &[String]) -> i32 {
    let picks = match args {
        [id] if id != "--help" && id != "-h" => Pick::list(id),
        _ => {
            exit::print("usage: muster why JOB[_TASK]\n");
            return if args.is_empty() { exit::FAILED } else { exit::OK };
        }
    };
    let picks = match picks {
        Ok(picks) if !picks.is_empty() => picks,
        Ok(_) => return exit::FAILED,
        Err(text) => {
            exit::error(PROGRAM, &format!("Invalid job id: {text}"));
            return exit::FAILED;
        }
    };
    let request = v1::ListJobsRequest {
        jobs: picks.iter().map(Pick::reference).collect(),
        all_states: true,
        with_details: true,
        ..v1::ListJobsRequest::default()
    };
    let mut client = match super::open(PROGRAM, "slurm_load_jobs") {
        Ok(client) => client,
        Err(code) => return code,
    };
    match super::list_jobs(&mut client, &request) {
        Ok(jobs) if jobs.is_empty() => {
            exit::error(PROGRAM, "Invalid job id specified");
            exit::FAILED
        }
        Ok(jobs) => {
            let here = Surroundings::here();
            exit::print(&jobs.iter().map(|job| explain(job, &here)).collect::<String>());
            exit::OK
        }
        Err(error) => super::failed(PROGRAM, "slurm_load_jobs", &error),
    }
}

fn explain(job: &v1::Job, here: &Surroundings) -> String {
    let id = shown::id(job);
    let state = states::long(job.state());
    match job.state() {
        JobState::Pending => {
            let mut text = format!("job {id} waits: {}", waits(job, here));
            if !job.reason_detail.is_empty() {
                text.push_str(&format!(" ({})", job.reason_detail));
            }
            text.push_str(&format!(" [{}]\n", shown::reason(job)));
            if job.started_at > here.now {
                let start = here.time(job.started_at, "");
                text.push_str(&format!("  expected to start at {start}"));
                if !job.scheduled_nodes.is_empty() {
                    text.push_str(&format!(" on {}", job.scheduled_nodes.join(",")));
                }
                text.push('\n');
            }
            text
        }
        JobState::Configuring | JobState::Running | JobState::Completing => {
            let since = here.time(job.started_at, "Unknown");
            format!("job {id} is {state} on {} since {since}\n", job.nodes)
        }
        _ => {
            let end = here.time(job.ended_at, "Unknown");
            format!(
                "job {id} is {state} ({}, exit {}) since {end}\n",
                shown::reason(job),
                shown::exit(job)
            )
        }
    }
}

/// The reason code as a sentence with what would help.
fn waits(job: &v1::Job, here: &Surroundings) -> String {
    let spec = shown::spec(job);
    let partition = shown::partition(job);
    match shown::reason(job) {
        "None" => "no scheduling pass has looked at it yet".to_owned(),
        "Priority" => "jobs of higher priority come first".to_owned(),
        "Resources" => format!(
            "partition {partition} has not enough free: it asks for {} node(s), {} CPU(s)",
            job.node_count, job.cpu_count
        ),
        "Dependency" => format!("its dependency is not met yet: {}", job.dependency),
        "DependencyNeverSatisfied" => format!(
            "its dependency can never be met: {}; cancel it or change the dependency",
            job.dependency
        ),
        "BeginTime" => format!("it may not start before {}", here.time(spec.begin, "its time")),
        "JobHeldUser" => format!("it is held; 'scontrol release {}' lets it go", job.id),
        "JobHeldAdmin" => "an operator holds it".to_owned(),
        "JobHoldMaxRequeue" => "its launches failed too often; look at system_comment, then \
             release it"
            .to_owned(),
        "JobArrayTaskLimit" => format!(
            "{} tasks of the array run already, its own limit (%{})",
            job.array_throttle, job.array_throttle
        ),
        "PartitionDown" | "PartitionInactive" => format!("partition {partition} starts no jobs"),
        "PartitionTimeLimit" => format!("its time limit is beyond that of {partition}"),
        "PartitionNodeLimit" => format!("it asks for more nodes than {partition} allows"),
        "ReqNodeNotAvail" => "a node that it needs is down, drained or reserved".to_owned(),
        "NodeDown" => "a node that it needs is down".to_owned(),
        "BadConstraints" => "no node can satisfy its constraints as things are".to_owned(),
        "Licenses" => "its licences are in use".to_owned(),
        "Reservation" => "its reservation is not open".to_owned(),
        other => format!("the scheduler says {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_says_what_would_help() {
        let job = v1::Job { id: 12, reason: "JobHeldUser".into(), ..v1::Job::default() };
        let text = explain(&job, &Surroundings::here());
        assert_eq!(
            text,
            "job 12 waits: it is held; 'scontrol release 12' lets it go [JobHeldUser]\n"
        );
    }

    #[test]
    fn every_reason_code_has_a_sentence() {
        for reason in muster_model::Reason::ALL {
            let job = v1::Job { reason: reason.text().into(), ..v1::Job::default() };
            assert!(!waits(&job, &Surroundings::here()).is_empty(), "{reason}");
        }
    }
}

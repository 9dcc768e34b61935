//! Verbs on jobs (`hold`, `release`, `requeue`, ...) and on the cluster (`ping`, `reconfigure`).

use std::time::Duration;

use muster_proto::v1;
use tonic::Response;

use super::{PROGRAM, failed};
use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::query::pick::Pick;

/// A ping asks whether the controller is there now, not whether it will be.
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// `hold 12 13`, `release 12,13`, `requeue JobId=12`, `hold name=train`.
pub(super) fn on_jobs(verb: &'static str, words: &[String]) -> i32 {
    let lead = lead(verb);
    let (refs, names) = match targets(words) {
        Ok(targets) => targets,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    let mut client = match super::super::open(PROGRAM, lead) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let refs = match with_names(&mut client, refs, names) {
        Ok(refs) => refs,
        Err(error) => return failed("slurm_load_jobs", &error),
    };
    if refs.is_empty() {
        eprintln!("Invalid job id specified\n{lead} error: Invalid job id specified");
        return exit::FAILED;
    }
    let mut code = exit::OK;
    // One call for each word, so that one unknown id does not hide the others.
    for reference in refs {
        match call(&mut client, verb, &reference) {
            Ok(reply) => {
                for result in reply.results {
                    if let Some(detail) = result.error {
                        code = say(lead, &result.shown, &CallError::Refused(detail));
                    }
                }
            }
            Err(error @ CallError::Refused(_)) => {
                code = say(lead, &shown(&reference), &error);
            }
            Err(error) => return failed(lead, &error),
        }
    }
    code
}

/// The word before `error:` in Slurm's second line.
fn lead(verb: &str) -> &'static str {
    match verb {
        "requeue" | "requeuehold" => "slurm_requeue",
        // Holding is an update in Slurm, and says so under this name.
        _ => "slurm_suspend",
    }
}

fn say(lead: &str, shown: &str, error: &CallError) -> i32 {
    let text = error.slurm_text();
    if let Some(detail) = error.detail() {
        exit::say(PROGRAM, &detail);
    }
    eprintln!("{text} for job {shown}\n{lead} error: {text}");
    exit::FAILED
}

pub(super) fn shown(reference: &v1::JobRef) -> String {
    match reference.tasks.as_str() {
        "" => reference.job.to_string(),
        tasks if tasks.contains([',', '-']) => format!("{}_[{tasks}]", reference.job),
        task => format!("{}_{task}", reference.job),
    }
}

/// References, and names of jobs still to be looked up.
type Targets = (Vec<v1::JobRef>, Vec<String>);

fn targets(words: &[String]) -> Result<Targets, String> {
    if words.is_empty() {
        return Err("too few arguments for keyword: give a job id".to_owned());
    }
    let (mut refs, mut names) = (Vec::new(), Vec::new());
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), value),
            None => ("jobid".to_owned(), word.as_str()),
        };
        match key.as_str() {
            "jobid" | "job" | "jobs" => {
                let bad = |_| format!("Invalid job id specified for job {value}");
                refs.extend(Pick::list(value).map_err(bad)?.iter().map(Pick::reference));
            }
            "name" | "jobname" => names.push(value.to_owned()),
            _ => return Err(format!("{PROGRAM}: error: {word} is not supported here")),
        }
    }
    Ok((refs, names))
}

fn with_names(
    client: &mut Client,
    mut refs: Vec<v1::JobRef>,
    names: Vec<String>,
) -> Result<Vec<v1::JobRef>, CallError> {
    if names.is_empty() {
        return Ok(refs);
    }
    let filter = v1::JobFilter { names, ..v1::JobFilter::default() };
    let request = v1::ListJobsRequest { filter: Some(filter), ..v1::ListJobsRequest::default() };
    for job in super::super::list_jobs(client, &request)? {
        refs.push(v1::JobRef { job: job.id, tasks: String::new() });
    }
    Ok(refs)
}

fn call(
    client: &mut Client,
    verb: &'static str,
    job: &v1::JobRef,
) -> Result<v1::VerbReply, CallError> {
    client.call(async |mut api: Api| {
        let jobs = vec![job.clone()];
        let plain = v1::JobsRequest { jobs: jobs.clone() };
        let reply = match verb {
            "hold" => api.jobs.hold(v1::HoldRequest { jobs, by_user: false }).await,
            "uhold" => api.jobs.hold(v1::HoldRequest { jobs, by_user: true }).await,
            "release" => api.jobs.release(plain).await,
            "suspend" => api.jobs.suspend(plain).await,
            "resume" => api.jobs.resume(plain).await,
            "requeue" => api.jobs.requeue(v1::RequeueRequest { jobs, hold: false }).await,
            _ => api.jobs.requeue(v1::RequeueRequest { jobs, hold: true }).await,
        };
        reply.map(Response::into_inner)
    })
}

/// `Slurmctld(primary) at HOST is UP`.
pub(super) fn ping() -> i32 {
    let found = Client::find(PROGRAM).map(|client| client.patient(PING_PATIENCE));
    match found.and_then(|mut client| super::super::ping(&mut client)) {
        Ok(reply) => {
            exit::print(&format!("Slurmctld(primary) at {} is UP\n", reply.hostname));
            exit::OK
        }
        Err(error) => {
            exit::print("Slurmctld(primary) at (unknown) is DOWN\n");
            if let Some(detail) = error.detail() {
                exit::say(PROGRAM, &detail);
            }
            exit::FAILED
        }
    }
}

/// Has the controller read its config again; says what changed.
pub(super) fn reconfigure() -> i32 {
    let answer = Client::find(PROGRAM).and_then(|mut client| {
        client.call(async |mut api: Api| {
            api.admin.reconfigure(v1::ReconfigureRequest {}).await.map(Response::into_inner)
        })
    });
    match answer {
        Ok(reply) => {
            exit::print(&reply.changes.iter().map(|c| format!("{c}\n")).collect::<String>());
            exit::OK
        }
        Err(error) => failed("slurm_reconfigure", &error),
    }
}

/// Stops the controller; jobs go on.
pub(super) fn shutdown(args: &[String]) -> i32 {
    if let Some(word) =
        args.iter().find(|word| !matches!(word.as_str(), "slurmctld" | "controller"))
    {
        eprintln!("invalid shutdown argument:{word}");
        return exit::FAILED;
    }
    let answer = Client::find(PROGRAM).and_then(|client| {
        // Repeated, it would stop the next controller too.
        client
            .patient(Duration::ZERO)
            .call(async |mut api: Api| api.admin.shutdown(v1::ShutdownRequest {}).await.map(|_| ()))
    });
    match answer {
        Ok(()) => exit::OK,
        Err(error) => failed("slurm_shutdown", &error),
    }
}

/// `SLURM_JWT=...`: a short-lived token in the caller's own name.
pub(super) fn token(words: &[String]) -> i32 {
    if let Some(word) = words.first() {
        let text = format!("token {word} is not supported: tokens are short-lived and your own");
        exit::error(PROGRAM, &text);
        return exit::FAILED;
    }
    let answer = Client::find(PROGRAM).and_then(|mut client| {
        client.call(async |mut api: Api| {
            api.query.issue_token(v1::IssueTokenRequest {}).await.map(Response::into_inner)
        })
    });
    match answer {
        Ok(reply) => {
            exit::print(&format!("SLURM_JWT={}\n", reply.token));
            exit::OK
        }
        Err(error) => failed("slurm_fetch_token", &error),
    }
}

/// `write batch_script JOB [FILE|-]`.
pub(super) fn write(words: &[String]) -> i32 {
    let (what, job, file) = match words {
        [what, job] => (what, job, None),
        [what, job, file] => (what, job, Some(file.as_str())),
        _ => {
            exit::error(PROGRAM, "usage: scontrol write batch_script JOB [FILE|-]");
            return exit::FAILED;
        }
    };
    if what.is_empty() || !"batch_script".starts_with(&what.to_ascii_lowercase()) {
        exit::error(PROGRAM, &format!("write {what} is not supported: write batch_script is"));
        return exit::FAILED;
    }
    let Some(id) = Pick::parse(job).ok().filter(|p| p.tasks.is_none() && p.step.is_none()) else {
        eprintln!("Invalid job id specified for job {job}");
        return exit::FAILED;
    };
    let answer = Client::find(PROGRAM).and_then(|mut client| {
        client.call(async |mut api: Api| {
            let request = v1::GetScriptRequest { job: id.job, environment: false };
            api.query.get_script(request).await.map(Response::into_inner)
        })
    });
    match answer {
        Ok(reply) => store(&reply.content, id.job, file),
        Err(error) => failed("slurm_job_batch_script", &error),
    }
}

fn store(script: &[u8], job: u32, file: Option<&str>) -> i32 {
    if file == Some("-") {
        exit::print(&String::from_utf8_lossy(script));
        return exit::OK;
    }
    let path = file.map_or_else(|| format!("slurm-{job}.sh"), str::to_owned);
    match std::fs::write(&path, script) {
        Ok(()) => {
            exit::print(&format!("batch script for job {job} written to {path}\n"));
            exit::OK
        }
        Err(fault) => {
            exit::error(PROGRAM, &format!("cannot write {path}: {fault}"));
            exit::FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, refs: &[&str], names: &[&str]) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (got, by_name) = targets(&words).expect(line);
        assert_eq!(got.iter().map(shown).collect::<Vec<_>>(), refs, "{line}");
        assert_eq!(by_name, names, "{line}");
    }

    #[test]
    fn jobs_are_named_in_every_form() {
        check("12 13,14", &["12", "13", "14"], &[]);
        check("JobId=12_4", &["12_4"], &[]);
        check("12_[1-5]", &["12_[1-5]"], &[]);
        check("name=train", &[], &["train"]);
    }

    #[test]
    fn nonsense_is_named() {
        let fault = |word: &str| targets(&[word.to_owned()]).expect_err(word);
        assert_eq!(fault("abc"), "Invalid job id specified for job abc");
        assert!(fault("State=SpecialExit").contains("not supported"));
        assert!(targets(&[]).is_err());
    }
}

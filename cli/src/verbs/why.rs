//! `muster why JOB`: why it waits, in sentences; what it waits for, and what would start it now.
//!
//! - `nodes`: what became of the nodes of a partition; `json`: the same for programs

mod json;
mod nodes;

use std::fmt::Write as _;

use muster_proto::v1::why_reply::{Change, Ending};
use muster_proto::v1::{self, JobState, WhyReply};
use tonic::Response;

use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::query::pick::Pick;
use crate::query::surroundings::Surroundings;
use crate::query::{shown, states};

const PROGRAM: &str = "muster why";

const USAGE: &str = "\
usage: muster why [--json] JOB[_TASK]...

Why a job waits: which filter takes how many nodes out, which jobs it waits for, when and where it
is expected to start, and with which changes it would start now.
";

/// The command.
#[must_use]
pub fn why(args: &[String]) -> i32 {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        exit::print(USAGE);
        return exit::OK;
    }
    let as_json = args.iter().any(|arg| arg == "--json");
    let mut picks = Vec::new();
    for arg in args.iter().filter(|arg| *arg != "--json") {
        match Pick::list(arg) {
            Ok(some) => picks.extend(some),
            Err(text) => {
                exit::error(PROGRAM, &format!("Invalid job id: {text}"));
                return exit::FAILED;
            }
        }
    }
    if picks.is_empty() {
        eprint!("{USAGE}");
        return exit::FAILED;
    }
    let mut client = match super::open(PROGRAM, "slurm_load_jobs") {
        Ok(client) => client,
        Err(code) => return code,
    };
    let mut replies = Vec::new();
    for pick in &picks {
        match ask_all(&mut client, pick) {
            Ok(some) => replies.extend(some),
            Err(error) => return super::failed(PROGRAM, "slurm_load_jobs", &error),
        }
    }
    let here = Surroundings::here();
    exit::print(&match as_json {
        true => json::document(&replies),
        false => replies.iter().map(|reply| told(reply, &here)).collect(),
    });
    exit::OK
}

/// One job, or every component of the one that is led by the one asked for.
fn ask_all(client: &mut Client, pick: &Pick) -> Result<Vec<WhyReply>, CallError> {
    let first = ask(client, pick)?;
    let part = first.job.as_ref().and_then(|job| shown::spec(job).het);
    let mut replies = vec![first];
    for place in 1..part.filter(|part| part.index == 0).map_or(1, |part| part.count) {
        replies.push(ask(client, &Pick { job: pick.job + place, ..pick.clone() })?);
    }
    Ok(replies)
}

fn ask(client: &mut Client, pick: &Pick) -> Result<WhyReply, CallError> {
    let array_task = pick.tasks.as_ref().and_then(|tasks| tasks.first());
    let request = v1::WhyRequest { job: pick.job, array_task };
    client.call(async |mut api: Api| api.query.why(request).await.map(Response::into_inner))
}

/// Everything about one job.
fn told(reply: &WhyReply, here: &Surroundings) -> String {
    let default = v1::Job::default();
    let job = reply.job.as_ref().unwrap_or(&default);
    let mut out = explain(job, reply, here);
    for funnel in &reply.funnels {
        out.push_str(&nodes::told(funnel));
    }
    if let [first, ..] = &reply.waits_for[..]
        && first.end == 0
    {
        let held = ids(reply.waits_for.iter().map(|job| &*job.shown), reply.waits_for_more);
        writeln!(out, "  no start can be promised: {held} runs there without a limit").ok();
    } else if !reply.waits_for.is_empty() {
        writeln!(out, "  must end first: {}", endings(reply, here)).ok();
    }
    if !reply.ahead.is_empty() {
        let jobs: Vec<String> = reply.ahead.iter().map(u32::to_string).collect();
        let jobs = ids(jobs.iter().map(String::as_str), reply.ahead_more);
        writeln!(out, "  waits behind: {jobs}").ok();
    }
    if reply.start > here.now {
        let start = here.time(reply.start, "");
        let (nodes, partition) = (&reply.nodes, &reply.partition);
        writeln!(out, "  expected to start: {start} on {nodes} ({partition})").ok();
    }
    if !reply.changes.is_empty() {
        out.push_str("  would start now with\n");
    }
    let width = reply.changes.iter().map(|c| c.option.len()).max().unwrap_or(0);
    for change in &reply.changes {
        out.push_str(&told_change(job, change, width));
    }
    out
}

fn told_change(job: &v1::Job, change: &Change, width: usize) -> String {
    let Change { option, update, nodes, .. } = change;
    let id = shown::id(job);
    match update.is_empty() {
        true => format!("    {option:width$}  on {nodes}: submit it so\n"),
        false => format!("    {option:width$}  on {nodes}: scontrol update JobId={id} {update}\n"),
    }
}

fn endings(reply: &WhyReply, here: &Surroundings) -> String {
    let ending = |Ending { shown, end, .. }: &Ending| {
        format!("{shown} (at its limit {})", here.time(*end, "never"))
    };
    let list: Vec<String> = reply.waits_for.iter().map(ending).collect();
    ids(list.iter().map(String::as_str), reply.waits_for_more)
}

fn ids<'a>(jobs: impl Iterator<Item = &'a str>, more: u32) -> String {
    let mut list = jobs.collect::<Vec<_>>().join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

fn explain(job: &v1::Job, reply: &WhyReply, here: &Surroundings) -> String {
    let id = shown::id(job);
    let state = states::long(job.state());
    match job.state() {
        JobState::Pending => {
            // What was worked out just now is truer than what the last pass thought.
            let worked_out = v1::Job { reason: reply.reason.clone(), ..job.clone() };
            let job = if reply.reason.is_empty() { job } else { &worked_out };
            let mut text = format!("job {id} waits: {}", waits(job, here));
            if !job.reason_detail.is_empty() {
                text.push_str(&format!(" ({})", job.reason_detail));
            }
            text.push_str(&format!(" [{}]\n", shown::reason(job)));
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
        "None" => "nothing keeps it: the next scheduling pass starts it".to_owned(),
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
        "Reservation" => format!(
            "reservation {} is not open to it: it has not begun, would end before the job does, \
             or does not admit {}",
            spec.reservation,
            shown::user(job)
        ),
        "ReservationDeleted" => format!(
            "reservation {} is no more; 'scontrol update JobId={} Reservation=' lets it go",
            spec.reservation, job.id
        ),
        other => format!("the scheduler says {other}"),
    }
}

#[cfg(test)]
#[path = "why/tests.rs"]
mod tests;

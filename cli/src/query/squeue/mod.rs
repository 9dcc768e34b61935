//! `squeue`: the queue.
//!
//! - `options`: what was asked, from arguments and `SQUEUE_*`
//! - `fields`: the columns of jobs
//! - `steps`: the columns of steps (`-s`)

mod fields;
mod options;
mod steps;

use std::cmp::Ordering;

use muster_model::hostlist::Hostlist;
use muster_proto::v1::{self, Job, JobState};

use self::fields::{FIELDS, Key};
use self::options::{Ask, Options, Shape};
use super::layout::Layout;
use super::pick::{self, Pick};
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, json, shown, states, times};

const PROGRAM: &str = "squeue";

/// Slurm's number for an unknown job.
const INVALID_JOB_ID: u32 = 2017;

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let options = match options::read(args, here) {
        Ok(Ask::Text(text)) => return Output::text(text),
        Ok(Ask::Queue(options)) => options,
        Err(output) => return output,
    };
    let mut output = show(&options, source, here).unwrap_or_else(|output| output);
    output.err.insert_str(0, &options.notices);
    output.again = options.every;
    output
}

fn show(options: &Options, source: &mut dyn Source, here: &Surroundings) -> Result<Output, Output> {
    let failed = |fault| Output::failed(PROGRAM, "slurm_load_jobs error: ", &fault);
    check_cluster(options, source)?;
    let cluster =
        if options.needs_cluster() { source.cluster().map_err(failed)? } else { String::new() };
    let jobs = load(options, source)?;
    if options.json {
        let document =
            json::jobs(&jobs, &json::About { command: PROGRAM, cluster: &cluster, here });
        return Ok(Output::text(document));
    }
    let mut out = String::new();
    if options.clusters.is_some() && !options.no_header {
        out.push_str(&format!("CLUSTER: {cluster}\n"));
    }
    if options.dated && !options.no_header {
        out.push_str(&times::headline(here.now, &here.zone));
        out.push('\n');
    }
    match &options.shape {
        Shape::Jobs(layout) => table(options, layout, jobs, &cluster, here, &mut out),
        Shape::Steps(layout) => {
            let picks = options.jobs.iter().flatten().map(Pick::reference).collect();
            let running = source.steps(&v1::StepsRequest { jobs: picks }).map_err(failed)?;
            steps::table(options, layout, &jobs, &running, here, &mut out);
        }
    }
    Ok(Output::text(out))
}

/// Only the cluster itself, or all of one.
fn check_cluster(options: &Options, source: &mut dyn Source) -> Result<(), Output> {
    let Some(names) = &options.clusters else { return Ok(()) };
    let own = source
        .cluster()
        .map_err(|fault| Output::failed(PROGRAM, "slurm_load_jobs error: ", &fault))?;
    match names.iter().find(|n| **n != own && !n.eq_ignore_ascii_case("all")) {
        Some(other) => Err(Output::error(PROGRAM, &super::unknown_cluster(other))),
        None => Ok(()),
    }
}

fn load(options: &Options, source: &mut dyn Source) -> Result<Vec<Job>, Output> {
    let request = v1::ListJobsRequest {
        jobs: options.jobs.iter().flatten().map(Pick::reference).collect(),
        filter: options.users.as_ref().map(|uids| v1::JobFilter {
            users: uids.iter().map(u32::to_string).collect(),
            ..v1::JobFilter::default()
        }),
        // A finished job that is asked for by its id must be told from one nobody knows.
        all_states: options.jobs.is_some()
            || options.states.as_ref().is_some_and(states::Wanted::ended),
        with_details: options.needs_details(),
        brief: options.is_brief(),
        with_estimates: options.estimates,
    };
    // Users that nobody has leave nothing to ask for.
    if options.users.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let known = std::cell::Cell::new(false);
    let keep = |job: &Job| {
        known.set(true);
        options.keeps(job)
    };
    let picks = options.jobs.as_deref().unwrap_or_default();
    let mut jobs = match source.jobs(&request, &keep) {
        Ok(jobs) => jobs,
        // One unknown among several is no fault: what is known is shown.
        Err(fault) if fault.errno() == INVALID_JOB_ID && picks.len() > 1 => Vec::new(),
        Err(fault) => {
            return Err(Output::failed(PROGRAM, "slurm_load_jobs error: ", &fault));
        }
    };
    if picks.len() == 1 && !known.get() && options.users.is_none() {
        let err = "slurm_load_jobs error: Invalid job id specified\n".to_owned();
        return Err(Output { err, code: 1, ..Output::default() });
    }
    for job in &mut jobs {
        pick::narrow(job, picks);
    }
    Ok(jobs)
}

fn table(
    options: &Options,
    layout: &Layout,
    jobs: Vec<Job>,
    cluster: &str,
    here: &Surroundings,
    out: &mut String,
) {
    if !options.no_header {
        out.push_str(&layout.line(|field| FIELDS[field].header.to_owned()));
        out.push('\n');
    }
    let jobs = if options.one_line_per_task { spread(jobs) } else { jobs };
    let view = fields::View { here, units: options.units, cluster };
    for job in sorted(&jobs, &options.sort, here) {
        out.push_str(&layout.line(|field| (FIELDS[field].value)(job, &view)));
        out.push('\n');
    }
    // The process ends soon: taking a hundred thousand jobs apart would only make its user wait.
    std::mem::forget(jobs);
}

/// One job per array task, started or not.
fn spread(jobs: Vec<Job>) -> Vec<Job> {
    let mut out = Vec::with_capacity(jobs.len());
    for job in jobs {
        if job.array_tasks.is_empty() {
            out.push(job);
            continue;
        }
        for index in pick::waiting(&job).iter() {
            out.push(Job { array_task: Some(index), array_tasks: String::new(), ..job.clone() });
        }
    }
    out
}

/// Sorted by letters, each with an optional sign; what is equal stays in the order of ids.
fn sorted<'a>(jobs: &'a [Job], order: &[(char, bool)], here: &Surroundings) -> Vec<&'a Job> {
    let keys = |job| order.iter().map(|(code, _)| fields::key(*code, job, here)).collect();
    let mut keyed: Vec<(Vec<Key>, &Job)> = jobs.iter().map(|job| (keys(job), job)).collect();
    keyed.sort_by(|(a, _), (b, _)| {
        for ((x, y), (_, down)) in a.iter().zip(b).zip(order) {
            let by = if *down { y.cmp(x) } else { x.cmp(y) };
            if by != Ordering::Equal {
                return by;
            }
        }
        Ordering::Equal
    });
    keyed.into_iter().map(|(_, job)| job).collect()
}

impl Options {
    /// Whether the job passes every filter.
    fn keeps(&self, job: &Job) -> bool {
        let among = |list: &Option<Vec<String>>, value: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|v| v == value))
        };
        let spec = shown::spec(job);
        let state = job.state();
        let state_fits = match &self.states {
            Some(wanted) => wanted.takes(state),
            None => !states::ended(state),
        };
        state_fits
            && self.jobs.as_ref().is_none_or(|picks| picks.iter().any(|p| p.names(job)))
            && self.users.as_ref().is_none_or(|uids| uids.contains(&shown::uid(job)))
            && among(&self.names, &spec.name)
            && among(&self.accounts, &spec.account)
            && among(&self.qos, &spec.qos)
            && among(&self.reservations, &spec.reservation)
            && self.partitions.as_ref().is_none_or(|wanted| in_partition(job, wanted))
            && self.nodes.as_ref().is_none_or(|wanted| shown::on_nodes(job, wanted))
            && self
                .licenses
                .as_ref()
                .is_none_or(|wanted| spec.licenses.iter().any(|l| wanted.contains(&l.name)))
    }
}

fn in_partition(job: &Job, wanted: &[String]) -> bool {
    shown::partition(job).split(',').any(|p| wanted.iter().any(|w| w == p))
}

/// Nodes of a comma list with ranges.
///
/// # Errors
/// What is wrong with the text.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    Hostlist::parse(text).map(|list| list.0).map_err(|fault| fault.to_string())
}

/// Whether its batch script runs now.
fn runs_script(job: &Job) -> bool {
    matches!(job.state(), JobState::Running | JobState::Suspended | JobState::Completing)
}

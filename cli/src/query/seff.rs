//! `seff`: how well a job used the CPUs and the memory it held.

use muster_model::time::Clock;
use muster_proto::v1::{HistoryRequest, HistoryRow, Job, JobFilter, JobState, Usage};

use super::pick::Pick;
use super::sizes::rounded_kib;
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, shown, states};
use crate::getopt::{Spec, Takes, both};

const PROGRAM: &str = "seff";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("help", 'h', Takes::Nothing),
        both("version", 'v', Takes::Nothing),
        both("clusters", 'M', Takes::Value),
    ],
};

const HELP: &str = "\
Usage: seff [OPTIONS] JOBID
  -h, --help      this text
  -v, --version   the version
JOBID is 12 or 12_4.
";

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let parsed = match super::opened(&SPEC, HELP, args) {
        Ok(parsed) => parsed,
        Err(said) => return said,
    };
    let [id] = parsed.operands.as_slice() else {
        return Output { err: HELP.to_owned(), code: 1, ..Output::default() };
    };
    match Pick::parse(id) {
        Ok(pick) => show(id, &pick, source, here),
        Err(text) => Output::error(PROGRAM, &format!("Invalid job id: {text}")),
    }
}

fn show(id: &str, pick: &Pick, source: &mut dyn Source, here: &Surroundings) -> Output {
    let request = HistoryRequest {
        jobs: vec![pick.reference()],
        filter: Some(JobFilter { users: vec!["*".to_owned()], ..JobFilter::default() }),
        ..HistoryRequest::default()
    };
    let keep = |row: &HistoryRow| row.job.as_ref().is_some_and(|job| pick.names(job));
    let answers = source.history(&request, &keep).and_then(|rows| Ok((rows, source.cluster()?)));
    let (rows, cluster) = match answers {
        Ok(answers) => answers,
        Err(fault) => return Output::failed(PROGRAM, "seff: error: ", &fault),
    };
    // Of an array without an index, the record of the array itself.
    let exact = rows.iter().find(|row| row.job.as_ref().is_some_and(|j| j.id == pick.job));
    match exact.or(rows.first()).and_then(|row| Some((row, row.job.as_ref()?))) {
        Some((row, job)) => Output::text(report(row, job, &cluster, here)),
        None => Output { err: format!("Job not found: {id}\n"), code: 1, ..Output::default() },
    }
}

fn report(row: &HistoryRow, job: &Job, cluster: &str, here: &Surroundings) -> String {
    let mut out = format!("Job ID: {}\n", job.id);
    if job.array_id > 0 {
        out.push_str(&format!("Array Job ID: {}\n", shown::id(job)));
    }
    let (user, group) = (shown::user(job), here.group(shown::gid(job)));
    out.push_str(&format!("Cluster: {cluster}\nUser/Group: {user}/{group}\n"));
    let state = job.state();
    if state == JobState::Pending {
        out.push_str("State: PENDING\n");
        out.push_str("Efficiency not available for jobs in the PENDING state.\n");
        return out;
    }
    let code = job.exit.map_or(0, |e| e.code);
    out.push_str(&format!("State: {} (exit code {code})\n", states::long(state)));
    let (nodes, cpus) = (job.node_count.max(1), job.cpu_count.max(1));
    if cpus == 1 {
        out.push_str("Cores: 1\n");
    } else {
        out.push_str(&format!("Nodes: {nodes}\nCores per node: {}\n", cpus / nodes));
    }
    let used = usage(row, job);
    let wall = shown::used_seconds(job, here.now);
    let held = wall * i64::from(cpus);
    let cpu_seconds = (used.user_cpu_ms + used.system_cpu_ms) as f64 / 1000.0;
    out.push_str(&format!("CPU Utilized: {}\n", Clock(cpu_seconds as i64)));
    let share = percent(cpu_seconds, held as f64);
    out.push_str(&format!("CPU Efficiency: {share} of {} core-walltime\n", Clock(held)));
    out.push_str(&format!("Job Wall-clock time: {}\n", Clock(wall)));
    let rss = used.max_rss_kib as f64;
    out.push_str(&format!("Memory Utilized: {}\n", rounded_kib(rss)));
    let granted = job.memory_mib as f64 * 1024.0;
    let share = percent(rss, granted);
    out.push_str(&format!("Memory Efficiency: {share} of {}\n", rounded_kib(granted)));
    if !states::ended(state) {
        let state = states::long(state);
        let text = format!("WARNING: Efficiency statistics may be misleading for {state} jobs.\n");
        out.push_str(&text);
    }
    out
}

/// CPU time of all steps, and the largest memory of one.
fn usage(row: &HistoryRow, job: &Job) -> Usage {
    if row.steps.is_empty() {
        return job.usage.unwrap_or_default();
    }
    row.steps.iter().filter_map(|s| s.usage).fold(Usage::default(), |sum, u| Usage {
        user_cpu_ms: sum.user_cpu_ms + u.user_cpu_ms,
        system_cpu_ms: sum.system_cpu_ms + u.system_cpu_ms,
        max_rss_kib: sum.max_rss_kib.max(u.max_rss_kib),
        gpu: sum.gpu.or(u.gpu),
    })
}

fn percent(part: f64, whole: f64) -> String {
    format!("{:.2}%", if whole > 0.0 { part / whole * 100.0 } else { 0.0 })
}

//! Rows of finished attempts, and of jobs that still live, in the form of the history.

use muster_core::lifecycle::Phase;
use muster_core::state::{Job, State};
use muster_model::{Attempt, JobId};
use muster_proto::v1;

use super::job::{self, Line, Opinion, Shown};

/// The rows that an attempt's end leaves. None: the state has forgotten it, which it does only
/// after its rows were written.
#[must_use]
pub fn rows(state: &State, id: JobId, attempt: Attempt, shown: Shown) -> Vec<v1::HistoryRow> {
    let mut rows = Vec::new();
    if let Some(job) = state.jobs.get(&id) {
        rows.extend(of_job(state, job, attempt, shown));
    }
    if attempt == Attempt(0)
        && let Some(array) = state.arrays.get(&id)
    {
        let groups = array.unstarted.iter().map(|group| Line::Unstarted(array, group));
        rows.extend(groups.map(|line| row(job::job(state, &line, Opinion::default(), shown))));
    }
    rows
}

fn of_job(state: &State, job: &Job, attempt: Attempt, shown: Shown) -> Option<v1::HistoryRow> {
    let mut kept = job.last.iter().flat_map(|last| last.chain());
    if let Some(ended) = kept.find(|ended| ended.attempt == attempt) {
        let mut past = job::past(state, job, ended, shown);
        let will_run_again = !(job.phase.is_ended() && job.attempt == attempt);
        if will_run_again && past.state == v1::JobState::Cancelled as i32 {
            past.state = v1::JobState::Requeued as i32;
        }
        return Some(row(past));
    }
    let never_started = job.phase.is_ended() && job.attempt == attempt;
    never_started.then(|| {
        let mut out = job::job(state, &Line::Job(job), Opinion::default(), shown);
        out.started_at = if out.started_at == 0 { out.ended_at } else { out.started_at };
        row(out)
    })
}

/// A job that lives, as the history shows it.
#[must_use]
pub fn live(job: v1::Job) -> v1::HistoryRow {
    row(job)
}

/// Whether an attempt has left rows yet: its end is a fact.
#[must_use]
pub fn is_over(job: &Job) -> bool {
    matches!(job.phase, Phase::Ended { .. })
}

fn row(job: v1::Job) -> v1::HistoryRow {
    let scripted = job.spec.as_ref().and_then(|spec| spec.het).is_none_or(|het| het.index == 0);
    let mut steps = Vec::new();
    if job.attempt > 0 && !job.nodes.is_empty() {
        steps.extend(scripted.then(|| batch_step(&job)));
        steps.push(extern_step(&job));
    }
    v1::HistoryRow { job: Some(job), steps }
}

fn batch_step(job: &v1::Job) -> v1::StepRow {
    let state = v1::JobState::try_from(job.state).unwrap_or(v1::JobState::Completed);
    // The limit ends the job; the batch script itself was killed for it.
    let (state, exit) = match state {
        v1::JobState::Timeout => {
            (v1::JobState::Cancelled, Some(v1::ExitStatus { code: 0, signal: 15 }))
        }
        state => (state, job.exit),
    };
    let over = !matches!(
        state,
        v1::JobState::Running
            | v1::JobState::Configuring
            | v1::JobState::Suspended
            | v1::JobState::Completing
    );
    v1::StepRow {
        id: "batch".into(),
        name: "batch".into(),
        state: state as i32,
        exit,
        started_at: job.started_at,
        ended_at: if over { job.ended_at } else { 0 },
        usage: job.usage,
        nodes: job.batch_host.clone(),
        tasks: 1,
        cpu_count: job.cpu_count / job.node_count.max(1),
        gres: gres_of(job, 1),
        layout: "Unknown".into(),
        ..v1::StepRow::default()
    }
}

/// What a job has beside its steps: in Slurm the step that holds it together. It ends with the job,
/// and well.
fn extern_step(job: &v1::Job) -> v1::StepRow {
    let batch = batch_step(job);
    let over = batch.ended_at > 0;
    let state = if over { v1::JobState::Completed as i32 } else { job.state };
    v1::StepRow {
        id: "extern".into(),
        name: "extern".into(),
        state,
        exit: over.then(v1::ExitStatus::default),
        usage: over.then(v1::Usage::default),
        nodes: job.nodes.clone(),
        tasks: job.node_count,
        cpu_count: job.cpu_count,
        gres: gres_of(job, job.node_count),
        ..batch
    }
}

/// What the job has on so many of its nodes, which have the same each.
fn gres_of(job: &v1::Job, nodes: u32) -> Vec<v1::GresCount> {
    let all = u64::from(job.node_count.max(1));
    let share = |g: &v1::GresCount| v1::GresCount {
        kind: g.kind.clone(),
        count: g.count * u64::from(nodes) / all,
    };
    job.gres.iter().map(share).collect()
}

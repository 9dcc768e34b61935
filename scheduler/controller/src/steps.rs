//! The steps of jobs, as the agents of their first nodes tell of them. Not part of the state: the
//! agents' journals have them while a job runs, and its history row when it has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use muster_model::JobId;
use muster_proto::v1;

/// Steps that are kept of one job; more make its row too large to be read by anybody.
const KEPT: usize = 1000;

/// What is known. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct StepBook {
    jobs: Arc<Mutex<HashMap<JobId, Steps>>>,
}

#[derive(Debug, Default)]
struct Steps {
    attempt: u32,
    steps: BTreeMap<u32, v1::Step>,
}

impl StepBook {
    fn open(&self) -> MutexGuard<'_, HashMap<JobId, Steps>> {
        self.jobs.lock().expect("nobody panics with the book open")
    }

    /// Notes what an agent tells.
    pub fn note(&self, steps: Vec<v1::Step>) {
        let mut book = self.open();
        for step in steps {
            let entry = book.entry(JobId(step.job)).or_default();
            if step.attempt < entry.attempt {
                continue;
            }
            if step.attempt > entry.attempt {
                *entry = Steps { attempt: step.attempt, ..Steps::default() };
            }
            if entry.steps.len() == KEPT && !entry.steps.contains_key(&step.step) {
                // The first tells what the job did; of the rest the oldest goes.
                let second = entry.steps.keys().nth(1).copied();
                second.map(|second| entry.steps.remove(&second));
            }
            entry.steps.insert(step.step, step);
        }
    }

    /// Steps of a job's attempt, by number.
    #[must_use]
    pub fn of(&self, job: JobId, attempt: u32) -> Vec<v1::Step> {
        let book = self.open();
        let known = book.get(&job).filter(|known| known.attempt == attempt);
        known.map(|known| known.steps.values().cloned().collect()).unwrap_or_default()
    }

    /// Adds its steps to a row. Those of an attempt that has ended have ended with it.
    pub fn add_to(&self, row: &mut v1::HistoryRow) {
        let Some(job) = &row.job else { return };
        let over = job.ended_at > 0 && job.state > v1::JobState::Completing as i32;
        let steps = self.of(JobId(job.id), job.attempt);
        let ended_at = job.ended_at;
        row.steps.extend(steps.into_iter().map(|step| shown(step, over.then_some(ended_at))));
    }

    /// All jobs with steps.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobId> {
        self.open().keys().copied().collect()
    }

    /// Forgets jobs that are in nobody's hands any more.
    pub fn keep(&self, wanted: impl Fn(&JobId) -> bool) {
        self.open().retain(|job, _| wanted(job));
    }
}

/// As Slurm shows the end of what was killed for memory.
const OOM: u32 = 125;

fn shown(step: v1::Step, job_ended_at: Option<i64>) -> v1::StepRow {
    let (mut state, mut ended_at) = (
        match step.state() {
            v1::StepState::Running => v1::JobState::Running,
            v1::StepState::Completed => v1::JobState::Completed,
            v1::StepState::Failed => v1::JobState::Failed,
            v1::StepState::Cancelled => v1::JobState::Cancelled,
            v1::StepState::OutOfMemory => v1::JobState::OutOfMemory,
        },
        step.ended_at,
    );
    let mut exit = step.exit;
    if let (v1::JobState::Running, Some(at)) = (state, job_ended_at) {
        (state, ended_at) = (v1::JobState::Cancelled, at);
        exit = exit.or(Some(v1::ExitStatus { code: 0, signal: 9 }));
    }
    let layout = match step.distribution() {
        v1::Distribution::Block => "Block",
        v1::Distribution::Cyclic => "Cyclic",
        v1::Distribution::Plane => "Plane",
    };
    if state == v1::JobState::OutOfMemory {
        exit = Some(v1::ExitStatus { code: 0, signal: OOM });
    }
    v1::StepRow {
        layout: layout.to_owned(),
        id: step.step.to_string(),
        name: step.name,
        state: state.into(),
        exit,
        started_at: step.started_at,
        ended_at,
        usage: step.usage,
        nodes: step.nodes,
        tasks: step.tasks,
        cpu_count: step.cpus,
        figures: step.figures,
        gres: step.gres,
        memory_mib: step.memory_mib,
        submit_line: step.submit_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(attempt: u32, step: u32, state: v1::StepState) -> v1::Step {
        v1::Step { job: 7, attempt, step, state: state.into(), ..v1::Step::default() }
    }

    #[test]
    fn a_later_attempt_forgets_the_steps_of_the_earlier() {
        let book = StepBook::default();
        book.note(vec![step(1, 0, v1::StepState::Completed), step(2, 0, v1::StepState::Running)]);
        book.note(vec![step(1, 5, v1::StepState::Completed)]);
        assert!(book.of(JobId(7), 1).is_empty());
        assert_eq!(book.of(JobId(7), 2).len(), 1);
    }

    #[test]
    fn steps_that_were_alive_when_their_job_ended_ended_with_it() {
        let book = StepBook::default();
        book.note(vec![step(1, 0, v1::StepState::Running)]);
        let job = |state: v1::JobState, ended_at| v1::Job {
            id: 7,
            attempt: 1,
            state: state.into(),
            ended_at,
            ..v1::Job::default()
        };
        let rows = |job| {
            let mut row = v1::HistoryRow { job: Some(job), ..v1::HistoryRow::default() };
            book.add_to(&mut row);
            row.steps
        };
        assert_eq!(rows(job(v1::JobState::Running, 0))[0].state(), v1::JobState::Running);
        let over = rows(job(v1::JobState::Timeout, 99));
        assert_eq!((over[0].state(), over[0].ended_at), (v1::JobState::Cancelled, 99));
    }

    #[test]
    fn ten_thousand_steps_take_no_more_room_than_a_thousand() {
        let book = StepBook::default();
        for number in 0..10_000 {
            book.note(vec![step(1, number, v1::StepState::Completed)]);
        }
        let kept = book.of(JobId(7), 1);
        assert_eq!((kept.len(), kept[0].step, kept[999].step), (1000, 0, 9999));
    }
}

//! The steps of jobs, as the agents of their first nodes tell of them. Not part of the state: the
//! agents' journals have them while a job runs, and its history row when it has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use muster_model::{JobId, NodeId};
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
    /// What steps whose srun was killed used on other nodes than the job's first, by node: a node that
    /// says it again, since it does not know whether it was heard, says nothing new.
    parts: HashMap<u32, BTreeMap<NodeId, v1::PartEnd>>,
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
                if let Some(second) = entry.steps.keys().nth(1).copied() {
                    entry.steps.remove(&second);
                    entry.parts.remove(&second);
                }
            }
            entry.steps.insert(step.step, step);
        }
    }

    /// Notes a node's parts of steps that nobody was there to add up. One of a step that is not known
    /// is of a job that is over.
    pub fn note_parts(&self, node: NodeId, parts: Vec<v1::PartEnd>) {
        let mut book = self.open();
        for part in parts {
            let entry = book.get_mut(&JobId(part.job)).filter(|e| e.attempt == part.attempt);
            if let Some(entry) = entry.filter(|entry| entry.steps.contains_key(&part.step)) {
                entry.parts.entry(part.step).or_default().insert(node, part);
            }
        }
    }

    /// Steps of a job's attempt, by number.
    #[must_use]
    pub fn of(&self, job: JobId, attempt: u32) -> Vec<v1::Step> {
        let book = self.open();
        let Some(known) = book.get(&job).filter(|known| known.attempt == attempt) else {
            return Vec::new();
        };
        let whole = |(number, step): (&u32, &v1::Step)| {
            let parts = known.parts.get(number).into_iter().flat_map(BTreeMap::values);
            parts.fold(step.clone(), with_part)
        };
        known.steps.iter().map(whole).collect()
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

/// A step with what one more node tells of it.
fn with_part(mut step: v1::Step, part: &v1::PartEnd) -> v1::Step {
    let used = part.figures.as_ref().and_then(|figures| figures.usage).unwrap_or_default();
    let sum = step.usage.get_or_insert_default();
    sum.user_cpu_ms += used.user_cpu_ms;
    sum.system_cpu_ms += used.system_cpu_ms;
    sum.max_rss_kib = sum.max_rss_kib.max(used.max_rss_kib);
    if let Some(tasks) = part.figures.as_ref().and_then(|figures| figures.tasks.as_ref()) {
        step.figures = Some(match step.figures.take() {
            None => tasks.clone(),
            Some(known) => joined(known, tasks),
        });
    }
    step
}

fn joined(known: v1::TaskFigures, more: &v1::TaskFigures) -> v1::TaskFigures {
    let (count, sum) = (known.tasks + more.tasks, known.sum_rss_kib + more.sum_rss_kib);
    let largest = if more.max_rss_kib > known.max_rss_kib { more } else { &known };
    let smallest = if more.min_cpu_ms < known.min_cpu_ms { more } else { &known };
    v1::TaskFigures {
        tasks: count,
        sum_rss_kib: sum,
        min_cpu_ms: smallest.min_cpu_ms,
        min_cpu_node: smallest.min_cpu_node.clone(),
        min_cpu_task: smallest.min_cpu_task,
        ..largest.clone()
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
    fn a_step_without_an_srun_is_the_sum_of_what_its_nodes_tell() {
        let book = StepBook::default();
        let usage = |cpu: u64| Some(v1::Usage { user_cpu_ms: cpu, ..v1::Usage::default() });
        let tasks = |cpu: u64, rss: u64, rank: u32| v1::TaskFigures {
            tasks: 1,
            max_rss_kib: rss,
            max_rss_task: rank,
            min_cpu_ms: cpu,
            min_cpu_task: rank,
            sum_rss_kib: rss,
            ..v1::TaskFigures::default()
        };
        let part = |step: u32| {
            let figures = v1::PartFigures {
                usage: usage(30),
                tasks: Some(tasks(30, 50, 1)),
                ..v1::PartFigures::default()
            };
            let figures = Some(figures);
            v1::PartEnd { job: 7, attempt: 1, step, figures, ..v1::PartEnd::default() }
        };
        let (second, third) = (NodeId(1), NodeId(2));
        book.note_parts(second, vec![part(0)]);
        assert!(book.jobs().is_empty(), "a part makes no job");
        book.note(vec![step(1, 0, v1::StepState::Running)]);
        book.note_parts(second, vec![part(0), part(9)]);
        // The first node lets go later, with its own part.
        let own = v1::Step {
            usage: usage(20),
            figures: Some(tasks(20, 10, 0)),
            ..step(1, 0, v1::StepState::Cancelled)
        };
        book.note(vec![own]);
        let whole = &book.of(JobId(7), 1)[0];
        let figures = whole.figures.clone().unwrap();
        assert_eq!(whole.usage.unwrap().user_cpu_ms, 50);
        assert_eq!((figures.tasks, figures.sum_rss_kib), (2, 60));
        assert_eq!((figures.max_rss_task, figures.min_cpu_task), (1, 0));
        let cpu = || book.of(JobId(7), 1)[0].usage.unwrap().user_cpu_ms;
        book.note_parts(second, vec![part(0)]);
        assert_eq!(cpu(), 50, "said again, counted once");
        book.note_parts(third, vec![part(0)]);
        assert_eq!(cpu(), 80);
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

//! What finished jobs taught: how long the jobs of a user run, and how long jobs wait here.
//!
//! Learned from facts alone, when they are applied, so that a replay learns the same. Nothing
//! here promises anything: it only says who is looked at first.

use std::collections::{BTreeMap, VecDeque};

use muster_model::{GresScope, JobSpec, Outcome, Request, TimeLimit, Timestamp, Uid};

use crate::lifecycle::Finished;
use crate::octaves::{OCTAVE, exp2, log2, quarter};

/// Jobs of a user that are remembered: enough to know each of the few kinds of jobs that a user has
/// in turn; a user costs at most 700 bytes.
pub const JOBS_KEPT: usize = 40;

/// Users remembered: 14 MB at most, and more than any cluster has. Beyond, whoever has not
/// finished a job for longest is forgotten, and is judged by limits again.
pub const USERS_KEPT: usize = 20_000;

/// Jobs without a limit by a user without a past are expected to run this long, seconds.
const UNLIMITED_SECONDS: u32 = 365 * 86_400;

/// Nothing is told apart below a minute, seconds.
const LEAST_SECONDS: u32 = 60;

/// Waits are counted in eighths of an octave, from a second to 136 years.
const WAIT_STEPS: usize = 8 * 32 + 1;

/// All counts of waits are halved at this many: the past fades, and what counts is the last ten
/// to twenty thousand starts.
const WAITS_KEPT: u64 = 20_000;

/// What finished jobs taught.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Habits {
    pub users: BTreeMap<Uid, Habit>,
    /// How many jobs waited so long, by eighths of an octave from a second; as long as needed.
    pub waits: Vec<u32>,
}

/// What one user's finished jobs taught.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Habit {
    /// When the last of them ended.
    pub last: Timestamp,
    /// The last one first.
    pub past: VecDeque<Past>,
}

/// A job that ran to an end of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    pub run_seconds: u32,
    pub asked: Asked,
    /// Seconds; `u32::MAX`: unlimited.
    pub limit: u32,
}

impl Past {
    /// How long it would have run with this limit, had it used the same share of it.
    fn scaled(&self, limit: u32) -> u32 {
        if limit == u32::MAX || self.limit == u32::MAX {
            return self.run_seconds;
        }
        let run = u64::from(self.run_seconds) * u64::from(limit) / u64::from(self.limit.max(1));
        u32::try_from(run).unwrap_or(u32::MAX)
    }
}

/// How much a request asks for, in all, as far as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub cpus: u32,
    pub gpus: u32,
}

impl Asked {
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let nodes = u64::from(request.nodes.min.max(1));
        let tasks = match request.tasks_given {
            true => u64::from(request.tasks),
            false => u64::from(request.tasks_per_node.unwrap_or(1).max(1)).saturating_mul(nodes),
        };
        let sockets = u64::from(request.sockets_per_node.unwrap_or(1));
        let gpus = request.gres.iter().filter(|gres| &*gres.kind.name == "gpu");
        let gpus = gpus.fold(0u64, |sum, gres| {
            let times = match gres.scope {
                GresScope::Job => 1,
                GresScope::Node => nodes,
                GresScope::Task => tasks,
                GresScope::Socket => nodes.saturating_mul(sockets),
            };
            sum.saturating_add(gres.count.saturating_mul(times))
        });
        let by_tasks = tasks.saturating_mul(u64::from(request.cpus_per_task));
        let by_gpus = gpus.saturating_mul(u64::from(request.cpus_per_gpu.unwrap_or(0)));
        let by_nodes = nodes.saturating_mul(u64::from(request.min_cpus_per_node));
        let cpus = by_tasks.max(by_gpus).max(by_nodes).max(nodes);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Asked { cpus: narrow(cpus), gpus: narrow(gpus) }
    }
}

/// A limit as it is kept in [`Past`].
fn limit_of(spec: &JobSpec) -> u32 {
    let seconds = spec.time_limit.and_then(TimeLimit::seconds);
    seconds.map_or(u32::MAX, |s| u32::try_from(s.max(1)).unwrap_or(u32::MAX))
}

impl Habits {
    /// How long a job submitted now is expected to run, seconds, to the quarter of an octave: so
    /// jobs of one kind share a group of the queue.
    ///
    /// The middle of what its user's jobs alike ran, the longer of two: the longest of all would
    /// be too long for most. Jobs alike have the same limit and size, else the same limit; else all
    /// are, by the share of their limits that they used.
    #[must_use]
    pub fn expected(&self, spec: &JobSpec) -> u32 {
        let (limit, asked) = (limit_of(spec), Asked::of(&spec.request));
        let middle = self.users.get(&spec.user.uid).and_then(|habit| {
            let of = |alike: &dyn Fn(&Past) -> Option<u32>| {
                let mut runs: Vec<u32> = habit.past.iter().filter_map(alike).collect();
                runs.sort_unstable();
                runs.get(runs.len() / 2).copied()
            };
            let run = |past: &Past, alike: bool| alike.then_some(past.run_seconds);
            let known = (limit < u32::MAX)
                .then(|| {
                    of(&|past| run(past, past.limit == limit && past.asked == asked))
                        .or_else(|| of(&|past| run(past, past.limit == limit)))
                })
                .flatten();
            known.or_else(|| of(&|past| Some(past.scaled(limit))))
        });
        let otherwise = if limit == u32::MAX { UNLIMITED_SECONDS } else { limit };
        let seconds = middle.unwrap_or(otherwise).min(limit).max(LEAST_SECONDS);
        u32::try_from(quarter(u64::from(seconds))).unwrap_or(u32::MAX)
    }

    /// A job ended for good.
    pub(crate) fn ended(&mut self, spec: &JobSpec, attempt: &Finished) {
        let own = match attempt.outcome {
            Outcome::Completed
            | Outcome::Failed(_)
            | Outcome::Cancelled { .. }
            | Outcome::Timeout
            | Outcome::OutOfMemory => true,
            // The cluster's doing says nothing about the job.
            Outcome::NodeFail { .. }
            | Outcome::Deadline
            | Outcome::Preempted
            | Outcome::BootFail => false,
        };
        let Some(started_at) = attempt.started_at.filter(|_| own) else { return };
        let run = attempt.ended_at.since(started_at).saturating_sub(attempt.suspended_ms) / 1000;
        let run_seconds = u32::try_from(run.max(0)).unwrap_or(u32::MAX);
        let uid = spec.user.uid;
        if !self.users.contains_key(&uid) && self.users.len() >= USERS_KEPT {
            let oldest = self.users.iter().min_by_key(|(uid, habit)| (habit.last, **uid));
            let oldest = oldest.map(|(uid, _)| *uid).expect("there are users to forget");
            self.users.remove(&oldest);
        }
        let habit = self.users.entry(uid).or_default();
        habit.last = habit.last.max(attempt.ended_at);
        habit.past.truncate(JOBS_KEPT - 1);
        let past = Past { run_seconds, asked: Asked::of(&spec.request), limit: limit_of(spec) };
        habit.past.push_front(past);
    }

    /// A job started after it had waited so long for its turn, milliseconds.
    pub(crate) fn waited(&mut self, ms: i64) {
        let seconds = u64::try_from(ms / 1000).unwrap_or(0);
        let step = usize::try_from(8 * log2(seconds) / OCTAVE).unwrap_or(usize::MAX);
        let step = step.min(WAIT_STEPS - 1);
        if self.waits.len() <= step {
            self.waits.resize(step + 1, 0);
        }
        self.waits[step] += 1;
        if self.waits.iter().map(|n| u64::from(*n)).sum::<u64>() >= WAITS_KEPT {
            self.waits.iter_mut().for_each(|n| *n /= 2);
        }
    }

    /// The wait that all but one in a hundred of recent starts stayed below, seconds: the middle
    /// of its step, which is right to 5 %. 0: nobody waited yet.
    #[must_use]
    pub fn long_wait(&self) -> u64 {
        let total: u64 = self.waits.iter().map(|n| u64::from(*n)).sum();
        let rank = (total * 99).div_ceil(100);
        let mut below = 0;
        for (step, count) in (0u64..).zip(&self.waits) {
            below += u64::from(*count);
            if *count > 0 && below >= rank {
                return u64::midpoint(exp2(step), exp2(step + 1));
            }
        }
        0
    }
}

#[cfg(test)]
#[path = "habits/tests.rs"]
mod tests;

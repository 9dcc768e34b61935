//! The replay itself: a trace's submissions and exits go through the real `decide` and `apply`,
//! and after them the real pass chooses what starts.
//!
//! Time jumps from event to event; a second of the trace is a second of the state's clock. Jobs
//! that ended are purged, so that the state stays as small as the queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use muster_core::apply::apply;
use muster_core::command::{Command, SliceExit, SliceReport, Submit};
use muster_core::config::{Actor, Role};
use muster_core::decide::{Reply, decide};
use muster_core::plan::{Policy, plan, view};
use muster_core::state::State;
use muster_model::{Attempt, ExitStatus, Inventory, JobId, NodeId, Timestamp, Usage};

use super::cluster::Cluster;
use super::promises::Promises;
use super::trace::{Entry, Trace};

/// When a pass runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Semantics {
    /// Once a second in which something happened, after its completions and then its arrivals
    #[default]
    PerStamp,
    /// After every single event, arrivals before completions
    PerEvent,
}

/// One job's run. Seconds of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which entry of the trace.
    pub job: usize,
    pub start: i64,
    pub end: i64,
    /// Nodes that it ran on, and the leaf switches above them; 0: there are none.
    pub nodes: u32,
    pub leaves: u32,
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// In the order of the trace's entries.
    pub runs: Vec<Run>,
    /// Entries that the cluster did not take, and why.
    pub refused: Vec<(usize, String)>,
    pub passes: u64,
}

/// A replay that went wrong: a fault of the scheduler, not of the trace.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("at {at} s the state refused what the planner chose for job {job}: {why}")]
    Refused { at: i64, job: u64, why: String },
    #[error("{count} jobs never started, the first of them job {job}")]
    Stuck { count: usize, job: u64 },
    #[error("the cluster cannot be configured: {0}")]
    Cluster(String),
}

/// Ended jobs that are kept until they are purged together: forgetting costs a walk over the
/// requests in use.
const KEPT: usize = 256;

struct Replay<'a> {
    trace: &'a Trace,
    cluster: &'a Cluster,
    policy: Policy,
    state: State,
    now: Timestamp,
    /// (end, start number, job): jobs that run.
    ends: BinaryHeap<Reverse<(i64, u64, JobId)>>,
    /// The entry of every job, by its number.
    entries: Vec<usize>,
    ended: Vec<JobId>,
    waiting: usize,
    promises: Promises,
    schedule: Schedule,
}

/// Replays a trace. `seen` is called now and then with the number of jobs that came.
///
/// # Errors
/// When the scheduler contradicts itself.
pub fn replay(
    trace: &Trace,
    cluster: &Cluster,
    policy: Policy,
    semantics: Semantics,
    seen: &mut dyn FnMut(usize),
) -> Result<Schedule, Broken> {
    let mut replay = Replay {
        trace,
        cluster,
        policy,
        state: State::new(),
        now: Timestamp(0),
        ends: BinaryHeap::new(),
        entries: Vec::new(),
        ended: Vec::new(),
        waiting: 0,
        promises: Promises::new(policy),
        schedule: Schedule::default(),
    };
    replay.set_up()?;
    let mut next = 0;
    loop {
        let arrival = trace.jobs.get(next).map(|job| job.submit);
        let end = replay.ends.peek().map(|Reverse((end, _, _))| *end);
        let Some(at) = arrival.into_iter().chain(end).min() else { break };
        replay.now = Timestamp::from_seconds(at);
        match semantics {
            Semantics::PerStamp => {
                while let Some(due) = replay.due(at) {
                    replay.end(due);
                    replay.promises.released();
                }
                while trace.jobs.get(next).is_some_and(|job| job.submit == at) {
                    replay.submit(next);
                    next += 1;
                }
                replay.pass()?;
            }
            Semantics::PerEvent => {
                let due: Vec<JobId> = std::iter::from_fn(|| replay.due(at)).collect();
                // Whoever reached the limit is gone in this second, whenever its turn comes.
                for job in due.iter().copied() {
                    if replay.at_limit(job) {
                        replay.end(job);
                    }
                }
                while trace.jobs.get(next).is_some_and(|job| job.submit == at) {
                    replay.submit(next);
                    next += 1;
                    replay.pass()?;
                }
                for job in due {
                    replay.end(job);
                    replay.promises.released();
                    replay.pass()?;
                }
            }
        }
        replay.forget();
        seen(next);
    }
    replay.done()
}

impl Replay<'_> {
    fn wish(&mut self, command: &Command) -> Result<Reply, String> {
        let decision = decide(&self.state, command, self.now).map_err(|why| why.to_string())?;
        for event in &decision.events {
            apply(&mut self.state, event);
        }
        Ok(decision.reply)
    }

    fn set_up(&mut self) -> Result<(), Broken> {
        let config = self.cluster.config.clone();
        let nodes = config.nodes.clone();
        self.wish(&Command::Configure(Box::new(config))).map_err(Broken::Cluster)?;
        for (node, config) in (0u32..).map(NodeId).zip(nodes) {
            let inventory = Inventory {
                capacity: config.capacity,
                sockets: config.sockets,
                cores_per_socket: config.cores_per_socket,
                threads_per_core: config.threads_per_core,
                ..Inventory::default()
            };
            let command = Command::Register { node, inventory: Box::new(inventory) };
            self.wish(&command).map_err(Broken::Cluster)?;
        }
        Ok(())
    }

    fn submit(&mut self, entry: usize) {
        let job = &self.trace.jobs[entry];
        if let Err(why) = self.try_submit(entry, job) {
            self.schedule.refused.push((entry, why));
        }
    }

    fn try_submit(&mut self, entry: usize, job: &Entry) -> Result<(), String> {
        let ((cpus, gpus), all) = (self.cluster.takes(job), self.cluster);
        for (wants, has, what) in [(cpus, all.cpus, "CPUs"), (gpus, all.gpus, "GPUs")] {
            if wants > has {
                return Err(format!("it wants {wants} {what} and the cluster has {has}"));
            }
        }
        let spec = self.cluster.spec(job);
        let actor = Actor { uid: spec.user.uid, role: Role::User };
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&(entry as u64 + 1).to_le_bytes());
        let submit = Submit { actor, groups: Vec::new(), request_id, spec, components: Vec::new() };
        match self.wish(&Command::Submit(Box::new(submit)))? {
            Reply::Submitted { job, .. } => {
                let at = job.0 as usize;
                self.entries.resize(self.entries.len().max(at + 1), usize::MAX);
                self.entries[at] = entry;
                self.waiting += 1;
                Ok(())
            }
            other => Err(format!("it was answered with {other:?}")),
        }
    }

    /// The next job that is to end, if that is now; of several the first started.
    fn due(&mut self, at: i64) -> Option<JobId> {
        let next = self.ends.peek_mut().filter(|next| next.0.0 == at)?;
        let Reverse((_, _, job)) = PeekMut::pop(next);
        Some(job)
    }

    /// Whether a job that ends now is killed at its limit.
    fn at_limit(&self, job: JobId) -> bool {
        let entry = self.entry(job);
        entry.is_some_and(|entry| entry.run == entry.limit)
    }

    /// The agents of a job say that it ended. Nothing, if they said so.
    fn end(&mut self, job: JobId) {
        let held = self.state.jobs.get(&job).and_then(|job| job.phase.allocation());
        let Some(held) = held else { return };
        let nodes: Vec<NodeId> = held.placement.nodes().collect();
        let started_at = held.started_at.unwrap_or(self.now);
        let attempt = Attempt(0).next();
        let exit = SliceExit {
            status: ExitStatus::default(),
            oom: false,
            timed_out: false,
            started_at,
            ended_at: self.now,
            usage: Usage::default(),
        };
        for (at, node) in nodes.into_iter().enumerate() {
            let report = SliceReport::Finished { exit: (at == 0).then_some(exit) };
            // A report is never refused.
            let _ = self.wish(&Command::Slice { job, attempt, node, report });
        }
        self.ended.push(job);
    }

    fn forget(&mut self) {
        if self.ended.len() >= KEPT {
            let ended = std::mem::take(&mut self.ended);
            let _ = self.wish(&Command::Purge(ended));
        }
    }

    /// Passes until one finds nothing more.
    fn pass(&mut self) -> Result<(), Broken> {
        while self.waiting > 0 {
            let mut view = view(&self.state, self.now, &self.policy);
            self.promises.put(&mut view);
            // Fuel bounds a pass's time in production; a replay has all the time.
            let plan = plan(&view, &self.policy, self.now, u64::MAX);
            self.schedule.passes += 1;
            self.promises.take(&plan);
            let (more, any) = (plan.more, !plan.starts.is_empty());
            let jobs: Vec<(JobId, Vec<NodeId>)> =
                plan.starts.iter().map(|s| (s.job, s.placement.nodes().collect())).collect();
            let broken = |at: Timestamp, job: u64, why: String| Broken::Refused {
                at: at.seconds(),
                job,
                why,
            };
            match self.wish(&Command::Commit(plan.starts)) {
                Ok(Reply::Starts { refused, .. }) if refused.is_empty() => {}
                Ok(Reply::Starts { refused, .. }) => {
                    let (job, why) = &refused[0];
                    return Err(broken(self.now, self.number(*job), why.to_string()));
                }
                Ok(other) => return Err(broken(self.now, 0, format!("{other:?}"))),
                Err(why) => return Err(broken(self.now, 0, why)),
            }
            for (job, nodes) in jobs {
                self.launch(job, &nodes)?;
            }
            if !(more && any) {
                break;
            }
        }
        Ok(())
    }

    fn entry(&self, job: JobId) -> Option<&Entry> {
        self.entries.get(job.0 as usize).and_then(|at| self.trace.jobs.get(*at))
    }

    fn number(&self, job: JobId) -> u64 {
        self.entry(job).map_or(0, |entry| entry.id)
    }

    /// The agents of a job that was just started say that it runs.
    fn launch(&mut self, job: JobId, nodes: &[NodeId]) -> Result<(), Broken> {
        let attempt = Attempt(0).next();
        if nodes.len() > 1 {
            for node in nodes {
                let report = SliceReport::Ready;
                let _ = self.wish(&Command::Slice { job, attempt, node: *node, report });
            }
        }
        let report = SliceReport::Running { started_at: self.now };
        let _ = self.wish(&Command::Slice { job, attempt, node: nodes[0], report });
        let (entry, start) = (self.entries[job.0 as usize], self.now.seconds());
        let end = start + self.trace.jobs[entry].run;
        let count = self.schedule.runs.len() as u64;
        self.ends.push(Reverse((end, count, job)));
        let leaves = self.cluster.leaves.touched(nodes);
        let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        self.schedule.runs.push(Run { job: entry, start, end, nodes, leaves });
        self.waiting -= 1;
        Ok(())
    }

    fn done(mut self) -> Result<Schedule, Broken> {
        if self.waiting > 0 {
            let first = self.state.jobs.values().find(|job| job.phase.is_pending());
            let job = first.map_or(0, |job| self.number(job.id));
            return Err(Broken::Stuck { count: self.waiting, job });
        }
        self.schedule.runs.sort_unstable_by_key(|run| run.job);
        Ok(self.schedule)
    }
}

//! What was promised, kept apart from the state, and held against it after every event.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::check::check;
use muster_core::event::Event;
use muster_core::lifecycle::Phase;
use muster_core::state::State;
use muster_model::{Attempt, IndexSet, JobId, NodeId};

use super::agent::Agent;

/// The promises.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// By request: the job that was answered.
    pub answered: BTreeMap<[u8; 16], JobId>,
    /// Jobs (or arrays) that were acknowledged and are not purged.
    acknowledged: BTreeSet<JobId>,
    /// Per array: its indices, and the tasks that have not ended.
    arrays: BTreeMap<JobId, (IndexSet, BTreeSet<JobId>)>,
    attempts: BTreeMap<JobId, Attempt>,
    /// GPUs that take no new work.
    drained: BTreeSet<(NodeId, u8)>,
    ended: BTreeSet<JobId>,
    /// Slices that the controller gave up because their node was silent: they may run on until
    /// the node is back and has ended them.
    pub given_up: BTreeSet<(NodeId, JobId, Attempt)>,
}

impl Model {
    /// A submission was answered.
    pub(super) fn acknowledge(&mut self, request: [u8; 16], job: JobId) -> Result<(), String> {
        match self.answered.insert(request, job) {
            Some(first) if first != job => {
                Err(format!("one request was answered with the jobs {first} and {job}"))
            }
            Some(_) => Ok(()),
            None => {
                self.acknowledged.insert(job);
                Ok(())
            }
        }
    }

    /// Whether the job is acknowledged and was not purged since.
    pub(super) fn remembers(&self, job: JobId) -> bool {
        self.acknowledged.contains(&job)
    }

    /// A fact became durable.
    pub(super) fn fact(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::GpuDrain { node, gpu, mark: Some(_), .. } => {
                self.drained.insert((*node, *gpu));
            }
            Event::GpuDrain { node, gpu, mark: None, .. } => {
                self.drained.remove(&(*node, *gpu));
            }
            Event::Started { job, attempt, placement, .. } => {
                let bad = placement.slices.iter().find_map(|slice| {
                    let gpus = slice.gres.iter().fold(0, |all, gres| all | gres.mask);
                    let of_node = self.drained.iter().filter(|(node, _)| *node == slice.node);
                    of_node.copied().find(|(_, gpu)| gpus >> gpu & 1 == 1)
                });
                if let Some((node, gpu)) = bad {
                    return Err(format!("job {job} got GPU {gpu} of {node:?}, which is drained"));
                }
                let last = self.attempts.insert(*job, *attempt).unwrap_or_default();
                if *attempt <= last {
                    return Err(format!("job {job} started attempt {attempt} after {last}"));
                }
                if self.ended.contains(job) {
                    return Err(format!("job {job} started after its end"));
                }
            }
            Event::Submitted { job, spec, .. } => {
                if let Some(array) = &spec.array {
                    let tasks = array.indices.iter().zip(job.0..).map(|(_, id)| JobId(id));
                    self.arrays.insert(*job, (array.indices.clone(), tasks.collect()));
                }
            }
            Event::Ended { job, .. } => self.end(*job)?,
            Event::TasksEnded { job, tasks, .. } => {
                let (indices, _) = self.arrays.get(job).ok_or("tasks of no array ended")?;
                let rank = |index| indices.rank(index).map(|rank| JobId(job.0 + rank));
                let ids: Vec<Option<JobId>> = tasks.iter().map(rank).collect();
                for id in ids {
                    self.end(id.ok_or_else(|| format!("a task that {job} has not ended"))?)?;
                }
            }
            Event::Purged { jobs } => jobs.iter().for_each(|job| self.purge(*job)),
            _ => {}
        }
        Ok(())
    }

    fn array_of(&self, job: JobId) -> Option<JobId> {
        let (array, (indices, _)) = self.arrays.range(..=job).next_back()?;
        (u64::from(job.0 - array.0) < indices.len()).then_some(*array)
    }

    fn end(&mut self, job: JobId) -> Result<(), String> {
        if !self.ended.insert(job) {
            return Err(format!("job {job} ended twice"));
        }
        if let Some((_, open)) = self.array_of(job).and_then(|a| self.arrays.get_mut(&a)) {
            open.remove(&job);
        }
        Ok(())
    }

    /// An array may go with the last of its tasks, when all of them have ended.
    fn purge(&mut self, job: JobId) {
        match self.array_of(job) {
            Some(array) if self.arrays[&array].1.is_empty() => {
                self.acknowledged.remove(&array);
            }
            Some(_) => {}
            None => {
                self.acknowledged.remove(&job);
            }
        }
    }

    /// Looks at the state.
    pub(super) fn look(&self, state: &State) -> Result<(), String> {
        if let Some(violation) = check(state).first() {
            return Err(format!("{:?}: {}", violation.invariant, violation.what));
        }
        let lost = |job: &&JobId| state.find(**job).is_none() && !state.arrays.contains_key(job);
        if let Some(job) = self.acknowledged.iter().find(lost) {
            return Err(format!("job {job} was acknowledged and is not there"));
        }
        Ok(())
    }

    /// Looks at the nodes.
    pub(super) fn watch(&mut self, agents: &[Agent]) -> Result<(), String> {
        self.given_up.retain(|(node, job, attempt)| {
            let held = agents[node.0 as usize].slices.get(&(*job, *attempt));
            held.is_some_and(super::agent::Held::occupies)
        });
        self.once(agents)?;
        self.apart(agents)
    }

    /// No job runs twice at once, nodes that were given up for lost left aside.
    fn once(&self, agents: &[Agent]) -> Result<(), String> {
        let mut running: BTreeMap<JobId, (NodeId, Attempt)> = BTreeMap::new();
        for (node, agent) in (0u32..).map(NodeId).zip(agents) {
            for ((job, attempt), held) in &agent.slices {
                if !held.alive() || self.given_up.contains(&(node, *job, *attempt)) {
                    continue;
                }
                if let Some(other) = running.insert(*job, (node, *attempt)) {
                    return Err(format!("job {job} runs twice: {other:?}, {node:?} {attempt}"));
                }
            }
        }
        Ok(())
    }

    /// No GPU and no CPU of a node is held by two slices.
    fn apart(&self, agents: &[Agent]) -> Result<(), String> {
        for (node, agent) in (0u32..).map(NodeId).zip(agents) {
            let here = agent.slices.iter().filter(|((job, attempt), held)| {
                held.occupies() && !self.given_up.contains(&(node, *job, *attempt))
            });
            let here: Vec<_> = here.collect();
            for (n, (id, a)) in here.iter().enumerate() {
                for (other, b) in &here[n + 1..] {
                    let (a, b) = (&a.orders.slice, &b.orders.slice);
                    let same = a.gres.iter().any(|x| {
                        b.gres.iter().any(|y| x.kind.name == y.kind.name && x.mask & y.mask != 0)
                    });
                    if same || a.cpus.overlaps(&b.cpus) {
                        return Err(format!("{node:?} is shared by {id:?} and {other:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Jobs that have not ended, in words.
pub(super) fn open_jobs(state: &State) -> Vec<String> {
    let jobs = state.jobs.values().filter(|job| !job.phase.is_ended()).map(|job| {
        let waits = match &job.phase {
            Phase::Pending { .. } => "pending",
            Phase::Launching { .. } => "launching",
            Phase::Running { .. } => "running",
            Phase::Completing { .. } => "completing",
            Phase::Ended { .. } => "ended",
        };
        format!("{} {waits} {:?}", job.id, job.terms)
    });
    let arrays = state.arrays.values().filter(|array| !array.pending.is_empty());
    jobs.chain(arrays.map(|a| format!("{}_[{}] pending {:?}", a.id, a.pending, a.terms))).collect()
}

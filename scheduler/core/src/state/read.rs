//! Questions that queries ask. All are bounded by what they return.

use std::collections::BTreeSet;

use muster_model::{Capacity, JobId, NodeId, Reason, Timestamp};

use crate::priority::{self, Base, Parts};

use super::job::{Array, Entry, Job, JobView};
use super::queue::{Surroundings, Verdict};
use super::{Node, PartitionRow, State};

impl State {
    /// The record of a raw id: a job of its own; or else the array that the id belongs to, as
    /// long as that task is pending or the id is the array's own.
    #[must_use]
    pub fn find(&self, id: JobId) -> Option<JobView<'_>> {
        if let Some(job) = self.jobs.get(&id) {
            return Some(view(job));
        }
        let array = self.array_owning(id)?;
        let own = array.id == id;
        let pending = array.index_of(id).is_some_and(|index| array.pending.contains(index));
        (own || pending).then_some(JobView::ArrayRest(array))
    }

    /// An array's task: a job of its own, or the array while it is none or is no more.
    #[must_use]
    pub fn find_task(&self, array: JobId, index: u32) -> Option<JobView<'_>> {
        let array = self.arrays.get(&array)?;
        let id = array.task_id(index)?;
        Some(self.jobs.get(&id).map_or(JobView::ArrayRest(array), view))
    }

    /// The array whose ids this one is among.
    #[must_use]
    pub fn array_owning(&self, id: JobId) -> Option<&Array> {
        let (_, array) = self.arrays.range(..=id).next_back()?;
        array.index_of(id).is_some().then_some(array)
    }

    /// The tasks of an array that are jobs of their own, ascending.
    pub fn tasks_of(&self, array: &Array) -> impl Iterator<Item = &Job> + '_ {
        let end = JobId(array.id.0.saturating_add(array.count()));
        self.jobs.range(array.id..end).map(|(_, job)| job)
    }

    /// The other components of a heterogeneous job, ascending.
    pub fn mates_of(&self, job: &Job) -> impl Iterator<Item = &Job> + '_ {
        let id = job.id;
        let all = job.spec.het.into_iter().flat_map(move |het| het.all(id));
        all.filter(move |other| *other != id).filter_map(|other| self.jobs.get(&other))
    }

    /// The component with the script; any other job itself.
    #[must_use]
    pub fn leader_of<'a>(&'a self, job: &'a Job) -> &'a Job {
        let leader = job.spec.het.map(|het| het.leader(job.id));
        leader.and_then(|id| self.jobs.get(&id)).unwrap_or(job)
    }

    /// Everything a listing shows, ascending, beginning at `from` itself. Arrays without pending
    /// tasks are left out while tasks of theirs are there to be shown.
    pub fn views_from(&self, from: Entry) -> impl Iterator<Item = JobView<'_>> + '_ {
        let mut jobs = self.jobs.range(from.id..).map(|(_, job)| job).peekable();
        let mut arrays = self
            .arrays
            .range(from.id..)
            .map(|(_, array)| array)
            .filter(move |array| Entry::rest(array.id) >= from)
            .filter(|array| self.shows_rest(array))
            .peekable();
        std::iter::from_fn(move || match (jobs.peek(), arrays.peek()) {
            (Some(job), Some(array)) if array.id <= job.id => arrays.next().map(JobView::ArrayRest),
            (Some(_), _) => jobs.next().map(view),
            (None, _) => arrays.next().map(JobView::ArrayRest),
        })
    }

    /// Whether an array has something to show beside its tasks that are jobs.
    #[must_use]
    pub fn shows_rest(&self, array: &Array) -> bool {
        !array.pending.is_empty() || !array.unstarted.is_empty()
    }

    #[must_use]
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.derived.node_names.get(name).copied().filter(|id| self.nodes[id.0 as usize].configured)
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.node(self.node_id(name)?)
    }

    /// Jobs that hold something on a node, ascending.
    pub fn jobs_on(&self, node: NodeId) -> impl Iterator<Item = &Job> + '_ {
        let ids = self.node(node).map(|n| &n.jobs);
        ids.into_iter().flatten().filter_map(|id| self.jobs.get(id))
    }

    /// What jobs hold on a node.
    #[must_use]
    pub fn allocated_on(&self, node: NodeId) -> Capacity {
        self.node(node).map(Node::allocated).unwrap_or_default()
    }

    #[must_use]
    pub fn partition(&self, name: &str) -> Option<&PartitionRow> {
        self.partitions.iter().find(|row| *row.partition.name == *name)
    }

    /// The partitions that a node is in.
    pub fn partitions_of(&self, node: NodeId) -> impl Iterator<Item = &PartitionRow> + '_ {
        self.partitions.iter().filter(move |row| row.members.binary_search(&node).is_ok())
    }

    /// Why a pending job cannot start whatever is free; `None`: it is up to the pass.
    #[must_use]
    pub fn static_reason(&self, view: JobView<'_>, now: Timestamp) -> Option<Reason> {
        let surroundings = self.surroundings();
        let verdict = match view {
            JobView::Single(job) | JobView::Task(job) => {
                if !job.phase.is_pending() {
                    return None;
                }
                surroundings.job(job)
            }
            JobView::ArrayRest(array) => surroundings.array(array),
        };
        match verdict {
            Verdict::Blocked(reason) => Some(reason),
            Verdict::From { at, why_not_yet } if at > now => Some(why_not_yet),
            Verdict::From { .. } => {
                let array = match view {
                    JobView::Single(_) => return None,
                    JobView::Task(job) => self.arrays.get(&job.array?.0)?,
                    JobView::ArrayRest(array) => array,
                };
                (self.throttle_left(array) == 0).then_some(Reason::JobArrayTaskLimit)
            }
        }
    }

    /// What verdicts on pending jobs are made from.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        let State { partitions, reservations, derived, .. } = self;
        Surroundings { partitions, reservations, derived }
    }

    /// How many more tasks of an array may run at once.
    #[must_use]
    pub fn throttle_left(&self, array: &Array) -> u32 {
        let singleton = array.spec.dependency.singleton.then_some(1);
        let Some(limit) = singleton.or(array.throttle) else { return u32::MAX };
        let active = self.derived.tasks.get(&array.id).map_or(0, |c| c.active);
        limit.saturating_sub(active)
    }

    /// A pending job's priority, in the best of its partitions; 0 while it is held.
    #[must_use]
    pub fn priority(&self, view: JobView<'_>, now: Timestamp) -> u32 {
        use crate::lifecycle::Phase;
        let eligible_at = match view {
            JobView::Single(job) | JobView::Task(job) => match &job.phase {
                Phase::Pending { hold: Some(_), .. } => return 0,
                Phase::Pending { eligible_at, hold: None } => *eligible_at,
                Phase::Launching { held, .. }
                | Phase::Running { held, .. }
                | Phase::Completing { held, .. } => held.allocated_at,
                Phase::Ended { at, .. } => *at,
            },
            JobView::ArrayRest(array) => {
                if array.unheld().is_empty() && !array.pending.is_empty() {
                    return 0;
                }
                array.eligible_at
            }
        };
        let spec = view.spec();
        let of = |row: &PartitionRow| {
            let parts = Parts {
                base: Base::of(spec),
                eligible_at,
                min_nodes: spec.request.nodes.min,
                cluster_nodes: u32::try_from(self.config.nodes.len()).unwrap_or(u32::MAX),
                partition: &row.partition,
            };
            priority::priority(&parts, &self.config.priority, now)
        };
        let rows = self.partitions.iter().filter(|r| spec.partitions.contains(&r.partition.name));
        rows.map(of).max().unwrap_or(1)
    }

    /// Ended jobs that were visible for MinJobAge, oldest first.
    #[must_use]
    pub fn purgeable(&self, now: Timestamp, limit: usize) -> Vec<JobId> {
        let age = i64::from(self.config.limits.min_job_age_seconds);
        let before = now.plus_seconds(-age);
        let old = self.derived.ended.iter().take_while(|(at, _)| *at <= before);
        let mut ids: Vec<JobId> = old.take(limit).map(|(_, id)| *id).collect();
        let mut seen = BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        ids
    }

    /// Pending and active jobs; array tasks count each.
    #[must_use]
    pub fn live_jobs(&self) -> u64 {
        self.derived.live
    }
}

fn view(job: &Job) -> JobView<'_> {
    if job.array.is_some() { JobView::Task(job) } else { JobView::Single(job) }
}

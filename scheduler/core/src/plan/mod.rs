//! The pass: chooses what starts where.
//!
//! Pure: a view, a policy, a time and an amount of fuel give a plan, the same one every time. Fuel
//! is counted in nodes looked at, so a plan never depends on how fast the machine is.
//!
//! Order: partition tier, then priority, then how long a job has been eligible, then its number.
//! A job takes the first nodes that fit, a gang all of its nodes or none. Within a pass free only
//! shrinks, so the first failure settles a whole shape in its partition.
//!
//! Jobs that fit may pass a blocked one. So that a large job is not passed for ever, one that has
//! been blocked longer than `Policy::patience_seconds` closes every node that it could use to all
//! that come after it, until it starts: as its nodes empty, nobody else gets them.
//!
//! - `view`: what a pass sees; `ask`: a request in a partition; `place`: nodes for one job

pub mod ask;
pub mod place;
pub mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use muster_model::{JobId, NodeId, Reason, Timestamp};

use crate::command::StartWish;
use crate::priority::{Parts, priority};
use crate::state::{Facts, JobView, Row, Shape, State};

pub use view::{Group, Head, View, view};

use ask::Ask;
use place::{Pool, Search};

/// How a pass chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Others may pass a blocked job for this long.
    pub patience_seconds: u32,
    /// Jobs started by one pass at most: a plan is validated and logged as one commit.
    pub max_starts: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { patience_seconds: 600, max_starts: 10_000 }
    }
}

/// Fuel for a pass over any cluster we aim at: about a second of work.
pub const DEFAULT_FUEL: u64 = 20_000_000;

/// What a pass chose and why the rest waits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub starts: Vec<StartWish>,
    pub reasons: Reasons,
    pub fuel_used: u64,
    /// Another pass at once would find more to start: fuel, starts or copied heads ran out.
    pub more: bool,
}

/// The last pass's opinion of what waits. Kept beside the state, never in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reasons {
    /// Of jobs that were looked at and stand first.
    pub jobs: BTreeMap<JobId, Reason>,
    /// Of everybody behind them, by partition name and shape.
    pub shapes: BTreeMap<(Box<str>, Arc<Shape>), Reason>,
}

impl Reasons {
    /// Why this waits: what the job itself says first, then the last pass's opinion.
    #[must_use]
    pub fn of(&self, state: &State, job: JobView<'_>, now: Timestamp) -> Reason {
        if let Some(reason) = state.static_reason(job, now) {
            return reason;
        }
        let own = match job {
            JobView::Single(job) | JobView::Task(job) if !job.phase.is_pending() => {
                return Reason::None;
            }
            JobView::Single(job) | JobView::Task(job) => self.jobs.get(&job.id),
            JobView::ArrayRest(array) => {
                let first = view::startable(array, 1);
                first.first().and_then(|id| self.jobs.get(id))
            }
        };
        if let Some(reason) = own {
            return *reason;
        }
        let shape = Arc::new(Shape::of(job.spec()));
        let mut names = job.spec().partitions.iter();
        let of = |name| self.shapes.get(&(Box::clone(name), Arc::clone(&shape))).copied();
        names.find_map(of).unwrap_or(Reason::None)
    }
}

/// The head of a group in the merge; the greatest is next.
type Turn = (u16, u32, Reverse<(Timestamp, JobId)>, Reverse<usize>);

struct Free<'a> {
    view: &'a View,
    rows: Vec<Row>,
    /// Nodes that an impatient job waits for.
    closed: Vec<bool>,
}

impl Pool for Free<'_> {
    fn free(&self, node: NodeId) -> &Row {
        &self.rows[node.0 as usize]
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.view.nodes[node.0 as usize].facts
    }
    fn open(&self, node: NodeId) -> bool {
        !self.closed[node.0 as usize]
    }
}

/// The nodes as if nobody ran anything.
struct Empty<'a>(&'a View);

impl Pool for Empty<'_> {
    fn free(&self, node: NodeId) -> &Row {
        &self.0.nodes[node.0 as usize].facts.whole
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.0.nodes[node.0 as usize].facts
    }
    fn open(&self, _: NodeId) -> bool {
        true
    }
}

struct Pass<'a> {
    view: &'a View,
    free: Free<'a>,
    licenses: BTreeMap<Box<str>, u32>,
    throttles: BTreeMap<JobId, u32>,
    searches: BTreeMap<(u32, Arc<Shape>), Search>,
    settled: BTreeMap<(u32, Arc<Shape>), Reason>,
    /// Partitions in which somebody was blocked for want of resources.
    blocked: BTreeSet<u32>,
    started: BTreeSet<JobId>,
    plan: Plan,
    fuel: u64,
}

/// Chooses starts.
#[must_use]
pub fn plan(view: &View, policy: &Policy, now: Timestamp, fuel: u64) -> Plan {
    let mut pass = Pass {
        view,
        free: Free {
            view,
            rows: view.nodes.iter().map(|n| n.free.clone()).collect(),
            closed: vec![false; view.nodes.len()],
        },
        licenses: view.licenses.clone(),
        throttles: view.throttles.clone(),
        searches: BTreeMap::new(),
        settled: BTreeMap::new(),
        blocked: BTreeSet::new(),
        started: BTreeSet::new(),
        plan: Plan::default(),
        fuel,
    };
    let mut cursors = vec![0usize; view.groups.len()];
    let mut turns: BinaryHeap<Turn> =
        (0..view.groups.len()).filter_map(|at| turn(view, at, 0, now)).collect();
    while let Some((_, _, _, Reverse(at))) = turns.pop() {
        if pass.fuel == 0 || pass.plan.starts.len() >= policy.max_starts {
            pass.plan.more = true;
            break;
        }
        let group = &view.groups[at];
        let head = group.heads[cursors[at]];
        if pass.passes_over(head) || pass.start(group, head, policy, now) {
            cursors[at] += 1;
            match turn(view, at, cursors[at], now) {
                Some(next) => turns.push(next),
                None => pass.plan.more |= group.more,
            }
        }
    }
    pass.plan.fuel_used = fuel - pass.fuel;
    pass.explain(&cursors);
    pass.plan
}

fn turn(view: &View, at: usize, cursor: usize, now: Timestamp) -> Option<Turn> {
    let group = &view.groups[at];
    let head = group.heads.get(cursor)?;
    let partition = &view.partitions[group.partition as usize].partition;
    let parts = Parts {
        base: group.base,
        eligible_at: head.eligible_at,
        min_nodes: group.shape.request.nodes.min,
        cluster_nodes: view.cluster_nodes,
        partition,
    };
    let tier = partition.priority_tier;
    let first = Reverse((head.eligible_at, head.job));
    Some((tier, priority(&parts, &view.weights, now), first, Reverse(at)))
}

impl Pass<'_> {
    /// Whether it is no use to look at this head: started in another partition, or its array has
    /// as many tasks as it may have.
    fn passes_over(&self, head: Head) -> bool {
        let full = head.throttled_by.is_some_and(|array| self.throttles.get(&array) == Some(&0));
        full || self.started.contains(&head.job)
    }

    /// Starts a head if it can be; otherwise its group is done with.
    fn start(&mut self, group: &Group, head: Head, policy: &Policy, now: Timestamp) -> bool {
        let key = (group.partition, Arc::clone(&group.shape));
        if self.settled.contains_key(&key) {
            return false;
        }
        let partition = &self.view.partitions[group.partition as usize];
        let reason = if !partition.starts() {
            match partition.partition.state {
                muster_model::PartitionState::Inactive => Reason::PartitionInactive,
                muster_model::PartitionState::Up
                | muster_model::PartitionState::Down
                | muster_model::PartitionState::Drain => Reason::PartitionDown,
            }
        } else if !self.licensed(&group.shape) {
            Reason::Licenses
        } else if let Some(placement) = self.place(&key) {
            for slice in &placement.slices {
                let facts = &self.view.nodes[slice.node.0 as usize].facts;
                self.free.rows[slice.node.0 as usize].take(facts, slice);
            }
            for (name, n) in &group.shape.licenses {
                if let Some(left) = self.licenses.get_mut(name) {
                    *left = left.saturating_sub(*n);
                }
            }
            if let Some(left) = head.throttled_by.and_then(|a| self.throttles.get_mut(&a)) {
                *left = left.saturating_sub(1);
            }
            self.started.insert(head.job);
            let partition = partition.partition.name.clone();
            self.plan.starts.push(StartWish { job: head.job, partition, placement });
            return true;
        } else if self.fuel == 0 {
            // Unfinished, so nothing is known.
            self.plan.more = true;
            return false;
        } else {
            self.blocked_reason(&key, head, policy, now)
        };
        let first = reason != Reason::Resources || self.blocked.insert(group.partition);
        let own = if first { reason } else { Reason::Priority };
        self.plan.reasons.jobs.insert(head.job, own);
        self.settled.insert(key, reason);
        false
    }

    fn licensed(&self, shape: &Shape) -> bool {
        shape.licenses.iter().all(|(name, n)| self.licenses.get(name).is_some_and(|left| left >= n))
    }

    fn place(&mut self, key: &(u32, Arc<Shape>)) -> Option<muster_model::Placement> {
        let Pass { view, free, searches, fuel, .. } = self;
        let search = searches.entry(key.clone()).or_insert_with(|| {
            let row = &view.partitions[key.0 as usize];
            let ask = Ask::new(&key.1.request, &row.partition);
            let usable = row.members.iter().filter(|id| view.nodes[id.0 as usize].usable);
            Search::new(ask, usable.copied(), free)
        });
        search.place(free, fuel)
    }

    /// Why a shape that found no place is blocked; an impatient one closes its nodes.
    fn blocked_reason(
        &mut self,
        key: &(u32, Arc<Shape>),
        head: Head,
        policy: &Policy,
        now: Timestamp,
    ) -> Reason {
        let Some(search) = self.searches.get(key) else { return Reason::Resources };
        let mut empty = search.clone_afresh();
        if empty.place(&Empty(self.view), &mut self.fuel).is_none() {
            // Not even if everybody left: nodes that it needs are out of service.
            return Reason::ReqNodeNotAvail;
        }
        if now.since(head.eligible_at) > i64::from(policy.patience_seconds) * 1000 {
            for node in search.candidates() {
                self.free.closed[node.0 as usize] = true;
            }
        }
        Reason::Resources
    }

    /// Reasons for everybody behind the heads that were looked at.
    fn explain(&mut self, cursors: &[usize]) {
        let waiting = self.view.groups.iter().zip(cursors);
        let waiting = waiting.filter(|(g, cursor)| **cursor < g.heads.len() || g.more);
        for (group, _) in waiting {
            let key = (group.partition, Arc::clone(&group.shape));
            let reason = match self.settled.get(&key) {
                Some(Reason::Resources) | None => Reason::Priority,
                Some(reason) => *reason,
            };
            let name = self.view.partitions[group.partition as usize].partition.name.clone();
            self.plan.reasons.shapes.insert((name, key.1), reason);
        }
    }
}

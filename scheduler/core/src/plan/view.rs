//! The view: what a pass needs of the state, copied, so that it plans without a lock.
//!
//! Nodes are copied with their free rows (what does not change is shared), queues as the heads of
//! each group. A pass can start no more jobs than there are free CPUs, so a group gives no more
//! heads than that, nor more than its part of `Policy::max_heads`; `more` says that it has others.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{JobId, NodeId, Partition, PartitionState, Slice, Timestamp};

use crate::config::PriorityWeights;
use crate::priority::Base;
use crate::state::dependency::array_standing;
use crate::state::reserved::{ReservedView, reserved_view};
use crate::state::{
    Array, Endings, Entry, Facts, GroupKey, Job, Node, PartitionRow, Portion, Row, Shape, State,
    Topology, Wiring,
};

use super::Shadow;
use super::axes::Axes;
use super::calendar::{Ending, LicenseEnding};
use super::nodeset::NodeSet;
use super::order::fold_ms;
use super::packing::{self, Class};
use super::policy::{Backfill, Packing, Policy};

/// Heads of one group at least, however many groups there are.
const MIN_GROUP_HEADS: usize = 4;

/// What a pass sees.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub now: Timestamp,
    pub axes: Arc<Axes>,
    /// By `NodeId`.
    pub nodes: Vec<ViewNode>,
    pub partitions: Vec<ViewPartition>,
    pub groups: Vec<Group>,
    /// What must start with a head, in the order of their numbers: the further components of a
    /// heterogeneous job. Empty: one of them is not back yet.
    pub hets: BTreeMap<JobId, Vec<Mate>>,
    /// Of arrays with a bound on their tasks at once: how many more may start.
    pub throttles: BTreeMap<JobId, u32>,
    pub licenses: Vec<ViewLicense>,
    /// What jobs hold and when they must give it back; empty if the policy promises nothing.
    pub running: Endings,
    pub topology: Arc<Topology>,
    /// Nodes that running jobs keep everybody else out of (`--exclusive=topo`), and until when; `None`: without end.
    pub kept: Vec<(NodeId, Option<Timestamp>)>,
    pub reservations: Vec<ReservedView>,
    /// Starts promised by the last pass; those that are still good are kept or bettered. Empty:
    /// nothing was promised, or every pass promises anew.
    pub promised: Vec<Shadow>,
    /// Something was given back since those promises were made.
    pub released: bool,
    pub weights: PriorityWeights,
    pub cluster_nodes: u32,
    pub cluster_cpus: u32,
    pub cluster_gpus: u32,
    /// For `Order::Balanced`: how much waiting weighs as much as being expected to run e times as
    /// long, milliseconds.
    pub fold_ms: i64,
    /// What jobs ask of single nodes, for packings that ask who could use what is left.
    pub classes: Vec<Class>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ViewNode {
    pub usable: bool,
    pub facts: Arc<Facts>,
    pub free: Arc<Row>,
    /// How many jobs hold something here.
    pub jobs: u32,
    pub wiring: Option<Arc<Wiring>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ViewPartition {
    pub partition: Partition,
    pub members: Vec<NodeId>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ViewLicense {
    pub name: Box<str>,
    pub total: u32,
    /// Nobody holds them.
    pub free: u32,
}

/// Jobs of one partition, shape, base priority and expected run time, first come first.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub partition: u32,
    pub shape: Arc<Shape>,
    pub base: Base,
    /// How long its jobs are expected to run, seconds; 0: as long as they may.
    pub expected: u32,
    pub heads: Vec<Head>,
    /// The group has more jobs than were copied.
    pub more: bool,
}

/// A component that starts with its leader: a group of one in each partition that would take it.
pub type Mate = Vec<Group>;

/// One job or array task that may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub job: JobId,
    /// The array it is a task of, if that has a bound on its tasks at once.
    pub throttled_by: Option<JobId>,
    pub eligible_at: Timestamp,
}

impl ViewPartition {
    /// Whether jobs may be started.
    #[must_use]
    pub fn starts(&self) -> bool {
        match self.partition.state {
            PartitionState::Up | PartitionState::Drain => true,
            PartitionState::Down | PartitionState::Inactive => false,
        }
    }
}

impl View {
    /// What running jobs give back, as a calendar at `now` takes it.
    #[must_use]
    pub fn endings(&self, now: Timestamp) -> (Vec<Ending<'_>>, Vec<LicenseEnding>) {
        let later = Timestamp(now.0 + OVERDUE_MS);
        let mut nodes = Vec::with_capacity(self.running.len());
        let mut licenses = Vec::new();
        for release in self.running.iter() {
            let end = release.end.max(later);
            for (node, amounts) in &release.nodes {
                nodes.push(Ending { end, node: *node, amounts });
            }
            for (name, count) in &release.licenses {
                if let Some(license) = self.licenses.iter().position(|l| l.name == *name) {
                    licenses.push(LicenseEnding { end, license, count: *count });
                }
            }
        }
        (nodes, licenses)
    }

    /// What running jobs give back and when, to the unit, by `NodeId`.
    #[must_use]
    pub fn given_back(&self) -> Vec<Vec<(Timestamp, &Slice)>> {
        let mut out = vec![Vec::new(); self.nodes.len()];
        for release in self.running.iter() {
            for slice in &release.slices {
                out[slice.node.0 as usize].push((release.end, slice));
            }
        }
        out
    }
}

/// Copies what a pass at `now` under this policy needs.
#[must_use]
pub fn view(state: &State, now: Timestamp, policy: &Policy) -> View {
    let nodes: Vec<ViewNode> = state.nodes.iter().map(node).collect();
    let free_cpus = |row: &PartitionRow| -> usize {
        let usable = row.members.iter().map(|id| &nodes[id.0 as usize]).filter(|n| n.usable);
        usable.map(|n| n.free.cpus.len() as usize).sum()
    };
    let room: Vec<usize> = state.partitions.iter().map(free_cpus).collect();
    let due = due(state, now, policy.max_heads);
    let share = policy.max_heads / (state.derived.queue.groups.len() + due.len()).max(1);
    let share = share.max(MIN_GROUP_HEADS);
    // A pass starts no more jobs than there are free CPUs, and promises so many starts; at least
    // one head, so that the group gets a reason.
    let most = |partition: u32| -> usize {
        let room = room[partition as usize].saturating_add(policy.shadows as usize);
        room.clamp(1, share)
    };
    let mut groups: Vec<Group> = Vec::new();
    for (key, entries) in &state.derived.queue.groups {
        groups.push(group(state, key, entries.iter().copied(), most(key.partition)));
    }
    for (key, entries) in &due {
        groups.push(group(state, key, entries.iter().copied(), most(key.partition)));
    }
    groups.retain(|group| !group.heads.is_empty());
    let bounded = groups.iter().flat_map(|g| &g.heads).filter_map(|head| head.throttled_by);
    let left = |id: JobId| (id, state.arrays.get(&id).map_or(0, |a| state.throttle_left(a)));
    let throttles = bounded.map(left).collect();
    let license = |(name, total): &(Box<str>, u32)| {
        let used = state.derived.licenses_used.get(name).copied().unwrap_or(0);
        ViewLicense { name: name.clone(), total: *total, free: total.saturating_sub(used) }
    };
    let licenses = state.config.licenses.iter().map(license).collect();
    let promises = policy.shadows > 0 && policy.backfill != Backfill::Off;
    let (cluster_cpus, cluster_gpus) = totals(state);
    let classes = match policy.packing {
        Packing::Fgd | Packing::LeastFragments => classes(state, &groups),
        Packing::BestFit | Packing::FirstFit | Packing::Spread => Vec::new(),
    };
    View {
        now,
        axes: Arc::clone(&state.derived.axes),
        nodes,
        hets: hets(state),
        throttles,
        partitions: state
            .partitions
            .iter()
            .map(|row| ViewPartition {
                partition: row.partition.clone(),
                members: row.members.clone(),
            })
            .collect(),
        groups,
        licenses,
        running: if promises { state.derived.endings.clone() } else { Endings::default() },
        topology: Arc::clone(&state.derived.topology),
        kept: kept(state),
        reservations: reserved_view(state, now),
        promised: Vec::new(),
        released: true,
        weights: state.config.priority.clone(),
        cluster_nodes: u32::try_from(state.config.nodes.len()).unwrap_or(u32::MAX),
        cluster_cpus,
        cluster_gpus,
        fold_ms: fold_ms(state.habits.long_wait()),
        classes,
    }
}

/// What the leaders that wait have with them.
fn hets(state: &State) -> BTreeMap<JobId, Vec<Mate>> {
    let mate = |job: &Job| -> Mate {
        let head = Head { job: job.id, throttled_by: None, eligible_at: job.submitted_at };
        let group = |key: GroupKey| Group {
            partition: key.partition,
            shape: key.shape,
            base: key.base,
            expected: key.expected,
            heads: vec![head],
            more: false,
        };
        let keys = GroupKey::all_of(&state.partitions, &job.spec, job.expected);
        keys.into_iter().map(group).collect()
    };
    let of = |id: &JobId| {
        let leader = state.jobs.get(id)?;
        let others: Vec<&Job> = state.mates_of(leader).collect();
        let back = others.iter().all(|job| job.phase.is_pending());
        let whole = leader.spec.het.is_some_and(|het| usize::from(het.count) == others.len() + 1);
        let mates = if back && whole { others.into_iter().map(mate).collect() } else { Vec::new() };
        Some((*id, mates))
    };
    state.derived.leaders.iter().filter_map(of).collect()
}

/// What jobs hold of single nodes, and what those that wait would.
fn classes(state: &State, groups: &[Group]) -> Vec<Class> {
    let held = state.derived.mix.iter().map(|(portion, count)| (*portion, u64::from(*count)));
    let waiting = |group: &Group| {
        let (portion, nodes) = Portion::asked(&group.shape.request);
        (portion, group.heads.len() as u64 * u64::from(nodes))
    };
    packing::classes(held.chain(groups.iter().map(waiting)), &state.derived.axes)
}

/// CPUs and GPUs of all nodes, in service or not.
fn totals(state: &State) -> (u32, u32) {
    let facts = state.nodes.iter().filter(|node| node.configured).map(|node| &node.facts);
    facts.fold((0, 0), |(cpus, gpus), facts| {
        let slots = facts.slots.iter().zip(&facts.whole.gres);
        let own = slots.filter(|(slot, _)| &*slot.kind.name == "gpu").map(|(_, units)| units.count);
        let own = u32::try_from(own.sum::<u64>()).unwrap_or(u32::MAX);
        (facts.whole.cpus.len().saturating_add(cpus), own.saturating_add(gpus))
    })
}

fn node(n: &Node) -> ViewNode {
    ViewNode {
        usable: n.usable(),
        facts: Arc::clone(&n.facts),
        free: n.open(),
        jobs: u32::try_from(n.jobs.len()).unwrap_or(u32::MAX),
        wiring: n.wiring.clone(),
    }
}

/// The parts of the network that running jobs want alone.
fn kept(state: &State) -> Vec<(NodeId, Option<Timestamp>)> {
    let mut out = Vec::new();
    if state.derived.topology.is_empty() {
        return out;
    }
    let jobs = state.derived.holding.iter().filter_map(|id| state.jobs.get(id));
    for job in jobs.filter(|job| job.spec.request.topology.alone) {
        let Some(held) = job.phase.allocation() else { continue };
        let own = NodeSet::of(state.nodes.len(), held.placement.nodes());
        let mates = state.derived.topology.unit_mates(&own);
        out.extend(mates.iter().map(|node| (node, held.end_at)));
    }
    out
}

/// A job past its end is on its way out: it is expected to be gone so much later.
pub(super) const OVERDUE_MS: i64 = 1000;

/// Jobs whose time came since the last fact: the queue itself moves on with facts only.
fn due(state: &State, now: Timestamp, most: usize) -> BTreeMap<GroupKey, Vec<(Timestamp, Entry)>> {
    let mut out: BTreeMap<GroupKey, Vec<(Timestamp, Entry)>> = BTreeMap::new();
    let due = state.derived.queue.until.iter().take_while(|(at, _)| *at <= now);
    for (at, entry) in due.take(most) {
        let of = match entry.is_job {
            true => state.jobs.get(&entry.id).map(|job| (&job.spec, job.expected)),
            false => state.arrays.get(&entry.id).map(|array| (&array.spec, array.expected)),
        };
        let Some((spec, expected)) = of else { continue };
        for key in GroupKey::all_of(&state.partitions, spec, expected) {
            out.entry(key).or_default().push((*at, *entry));
        }
    }
    out
}

fn group(
    state: &State,
    key: &GroupKey,
    entries: impl Iterator<Item = (Timestamp, Entry)>,
    most: usize,
) -> Group {
    let mut heads: Vec<Head> = Vec::new();
    let mut more = false;
    // How many tasks of each array are among the heads already.
    let mut throttled: BTreeMap<JobId, u32> = BTreeMap::new();
    for (eligible_at, entry) in entries {
        if heads.len() >= most {
            more = true;
            break;
        }
        if entry.is_job {
            let array = state.array_owning(entry.id).filter(|array| bounded(array));
            if let Some(array) = array {
                let used = throttled.entry(array.id).or_default();
                if *used >= state.throttle_left(array) {
                    continue;
                }
                *used += 1;
            }
            let throttled_by = array.map(|array| array.id);
            heads.push(Head { job: entry.id, throttled_by, eligible_at });
        } else if let Some(array) = state.arrays.get(&entry.id) {
            let used = throttled.entry(array.id).or_default();
            let left = state.throttle_left(array).saturating_sub(*used) as usize;
            let room = most - heads.len();
            let tasks = startable(array, left.min(room + 1));
            more |= tasks.len() > room;
            *used += u32::try_from(tasks.len().min(room)).unwrap_or(u32::MAX);
            let throttled_by = bounded(array).then_some(array.id);
            let head = |job| Head { job, throttled_by, eligible_at };
            heads.extend(tasks.into_iter().take(room).map(head));
        }
    }
    let GroupKey { partition, base, expected, .. } = *key;
    Group { partition, shape: Arc::clone(&key.shape), base, expected, heads, more }
}

fn bounded(array: &Array) -> bool {
    array.throttle.is_some() || array.spec.dependency.singleton
}

/// The first tasks of an array that may start as far as holds and dependencies go, by their ids.
#[must_use]
pub fn startable(array: &Array, most: usize) -> Vec<JobId> {
    let unheld;
    let standing = array_standing(&array.spec.dependency, &array.terms);
    let plain =
        array.held_user.is_empty() && array.held_admin.is_empty() && standing.only.is_none();
    let tasks = if plain {
        &array.pending
    } else {
        let free = array.unheld();
        unheld = standing.only.map_or(free.clone(), |only| free.intersection(&only));
        &unheld
    };
    // Ranks are counted along: looking each one up would cost the number of ranges every time.
    let mut out = Vec::new();
    let (mut before, mut ranges) = (0u32, array.full.ranges().iter().peekable());
    for index in tasks.iter().take(most) {
        while let Some((from, to)) = ranges.peek() {
            if index <= *to {
                out.push(JobId(array.id.0 + before + (index - from)));
                break;
            }
            before += to - from + 1;
            ranges.next();
        }
    }
    out
}

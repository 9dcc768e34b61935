//! The view: what a pass needs of the state, copied, so that it plans without a lock.
//!
//! Nodes are copied with their free rows (what does not change is shared), queues as the heads of
//! each group. A pass can start no more jobs than there are free CPUs, so a group gives no more
//! heads than that, nor more than its part of [`MAX_HEADS`]; `more` says that it has others.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{JobId, NodeId, Partition, PartitionState, Timestamp};

use crate::config::PriorityWeights;
use crate::priority::Base;
use crate::state::dependency::array_standing;
use crate::state::{Array, Entry, Facts, GroupKey, PartitionRow, Row, Shape, State};

/// Heads copied in all: a view of a long queue stays around a megabyte.
pub const MAX_HEADS: usize = 32_768;
/// Heads of one group at most.
const MAX_GROUP_HEADS: usize = 16_384;
/// Heads of one group at least, however many groups there are.
const MIN_GROUP_HEADS: usize = 32;

/// What a pass sees.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub now: Timestamp,
    /// By `NodeId`.
    pub nodes: Vec<ViewNode>,
    pub partitions: Vec<ViewPartition>,
    pub groups: Vec<Group>,
    /// Of arrays with a bound on their tasks at once: how many more may start.
    pub throttles: BTreeMap<JobId, u32>,
    /// Licences that nobody holds.
    pub licenses: BTreeMap<Box<str>, u32>,
    pub weights: PriorityWeights,
    pub cluster_nodes: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ViewNode {
    pub usable: bool,
    pub facts: Arc<Facts>,
    pub free: Row,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ViewPartition {
    pub partition: Partition,
    pub members: Vec<NodeId>,
}

/// Jobs of one partition, shape and base priority, first come first.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub partition: u32,
    pub shape: Arc<Shape>,
    pub base: Base,
    pub heads: Vec<Head>,
    /// The group has more jobs than were copied.
    pub more: bool,
}

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

/// Copies what a pass at `now` needs.
#[must_use]
pub fn view(state: &State, now: Timestamp) -> View {
    let nodes: Vec<ViewNode> = state
        .nodes
        .iter()
        .map(|n| ViewNode { usable: n.usable(), facts: Arc::clone(&n.facts), free: n.free.clone() })
        .collect();
    let free_cpus = |row: &PartitionRow| -> usize {
        let usable = row.members.iter().map(|id| &nodes[id.0 as usize]).filter(|n| n.usable);
        usable.map(|n| n.free.cpus.len() as usize).sum()
    };
    let room: Vec<usize> = state.partitions.iter().map(free_cpus).collect();
    let due = due(state, now);
    let share = MAX_HEADS / (state.derived.queue.groups.len() + due.len()).max(1);
    let share = share.clamp(MIN_GROUP_HEADS, MAX_GROUP_HEADS);
    let mut groups: Vec<Group> = Vec::new();
    for (key, entries) in &state.derived.queue.groups {
        // At least one head, so that the group gets a reason.
        let most = room[key.partition as usize].clamp(1, share);
        groups.push(group(state, key, entries.iter().copied(), most));
    }
    for (key, entries) in &due {
        let most = room[key.partition as usize].clamp(1, share);
        groups.push(group(state, key, entries.iter().copied(), most));
    }
    groups.retain(|group| !group.heads.is_empty());
    let bounded = groups.iter().flat_map(|g| &g.heads).filter_map(|head| head.throttled_by);
    let left = |id: JobId| (id, state.arrays.get(&id).map_or(0, |a| state.throttle_left(a)));
    let throttles = bounded.map(left).collect();
    let unused = |(name, all): &(Box<str>, u32)| {
        let used = state.derived.licenses_used.get(name).copied().unwrap_or(0);
        (name.clone(), all.saturating_sub(used))
    };
    View {
        now,
        nodes,
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
        licenses: state.config.licenses.iter().map(unused).collect(),
        weights: state.config.priority.clone(),
        cluster_nodes: u32::try_from(state.config.nodes.len()).unwrap_or(u32::MAX),
    }
}

/// Jobs whose time came since the last fact: the queue itself moves on with facts only.
fn due(state: &State, now: Timestamp) -> BTreeMap<GroupKey, Vec<(Timestamp, Entry)>> {
    let mut out: BTreeMap<GroupKey, Vec<(Timestamp, Entry)>> = BTreeMap::new();
    let due = state.derived.queue.until.iter().take_while(|(at, _)| *at <= now);
    for (at, entry) in due.take(MAX_HEADS) {
        let spec = match entry.is_job {
            true => state.jobs.get(&entry.id).map(|job| &job.spec),
            false => state.arrays.get(&entry.id).map(|array| &array.spec),
        };
        let Some(spec) = spec else { continue };
        for key in GroupKey::all_of(&state.partitions, spec) {
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
    Group { partition: key.partition, shape: Arc::clone(&key.shape), base: key.base, heads, more }
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

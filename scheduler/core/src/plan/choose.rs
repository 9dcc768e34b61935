//! Which of the nodes that fit: for a job on one node the one where it breaks up least, for a
//! gang those that lie together.

use muster_model::NodeId;

use super::axes::{Amounts, CPUS, MEMORY, amount_on};
use super::calendar::Calendar;
use super::ground::Ground;
use super::nodeset::NodeSet;
use super::packing::{Idle, grade};
use super::policy::Packing;
use super::topology;

/// So many nodes with this much each, from a slot on.
#[derive(Debug, Clone)]
pub(super) struct Wish<'a> {
    pub(super) nodes: usize,
    pub(super) need: &'a Amounts,
    pub(super) slot: usize,
    /// What the job wants of the network; `None`: nothing, and there is none to speak of.
    pub(super) network: Option<topology::Wish<'a>>,
    /// GPUs of any type will do, and some are instances of GPUs that were cut: these nodes serve it
    /// with whole ones and come first, whatever they weigh.
    pub(super) whole: Option<NodeSet>,
}

/// Nodes compared one by one at most, when many have equally many GPUs left.
const COMPARED: usize = 64;
/// ... and so many unlike ones are graded by what is broken there, which costs more.
const GRADED: usize = 12;

/// Chooses among nodes that are likely to fit, those that do. In rank order.
#[must_use]
pub(super) fn nodes(
    ground: &Ground<'_>,
    calendar: &Calendar,
    wish: &Wish<'_>,
    likely: NodeSet,
    fits: &mut dyn FnMut(NodeId) -> bool,
) -> Option<Vec<NodeId>> {
    if let Some(whole) = &wish.whole {
        let found = among(ground, calendar, wish, whole.clone(), fits);
        if found.is_some() {
            return found;
        }
    }
    among(ground, calendar, wish, likely, fits)
}

fn among(
    ground: &Ground<'_>,
    calendar: &Calendar,
    wish: &Wish<'_>,
    mut likely: NodeSet,
    fits: &mut dyn FnMut(NodeId) -> bool,
) -> Option<Vec<NodeId>> {
    if let Some(network) = &wish.network {
        let unfit: Vec<NodeId> = likely.iter().filter(|node| !fits(*node)).collect();
        unfit.into_iter().for_each(|node| likely.remove(node));
        return topology::choose(&ground.view.topology, &likely, wish.nodes, network).ok();
    }
    let mut chosen: Vec<NodeId> = Vec::with_capacity(wish.nodes);
    for class in &ground.classes {
        let mut nodes = likely.clone();
        if ground.classes.len() > 1 {
            nodes.and_with(class);
        }
        take(ground, calendar, wish, nodes, fits, &mut chosen);
        if chosen.len() >= wish.nodes {
            chosen.sort_unstable();
            return Some(chosen);
        }
    }
    None
}

/// Adds nodes of one weight class, the best first, until there are enough.
fn take(
    ground: &Ground<'_>,
    calendar: &Calendar,
    wish: &Wish<'_>,
    nodes: NodeSet,
    fits: &mut dyn FnMut(NodeId) -> bool,
    chosen: &mut Vec<NodeId>,
) {
    let wanted = wish.nodes - chosen.len();
    let packing = ground.packing;
    let gpu = ground.axes.name("gpu").filter(|_| packing != Packing::FirstFit);
    let Some(gpu) = gpu else {
        return best(calendar, wish.slot, packing, &nodes, wanted, fits, chosen);
    };
    // Buckets of nodes with equally many GPUs free, the tightest (or the emptiest) first.
    let least = amount_on(wish.need, gpu);
    let levels: Vec<u32> = match packing {
        Packing::Spread => (least..=ground.most[gpu]).rev().collect(),
        Packing::BestFit | Packing::FirstFit | Packing::Fgd | Packing::LeastFragments => {
            (least..=ground.most[gpu]).collect()
        }
    };
    let goal = chosen.len() + wanted;
    let mut bucket = NodeSet::default();
    let graded = matches!(packing, Packing::Fgd | Packing::LeastFragments) && wish.nodes == 1;
    let mut best_grade = None;
    for level in levels {
        // Mostly the calendar's counts say that no node has just so many.
        if !calendar.keep_just(wish.slot, gpu, level, &nodes, &mut bucket) {
            continue;
        }
        if graded {
            let found = least_broken(ground, calendar, wish, gpu, &bucket, fits);
            best_grade = best_grade.into_iter().chain(found).min();
            continue;
        }
        best(calendar, wish.slot, packing, &bucket, goal - chosen.len(), fits, chosen);
        if chosen.len() >= goal {
            return;
        }
    }
    chosen.extend(best_grade.map(|(_, node)| node));
}

/// The node of a bucket on which a job breaks up least, with its grade. Nodes with as much idle as
/// one before are not graded again.
fn least_broken(
    ground: &Ground<'_>,
    calendar: &Calendar,
    wish: &Wish<'_>,
    gpu: usize,
    bucket: &NodeSet,
    fits: &mut dyn FnMut(NodeId) -> bool,
) -> Option<((i64, u64, u64), NodeId)> {
    let need = |axis| amount_on(wish.need, axis);
    let mut seen: Vec<(u32, u32)> = Vec::with_capacity(GRADED);
    let mut best = None;
    for node in bucket.iter().take(COMPARED) {
        let free = calendar.free(wish.slot, node);
        let size = (free[CPUS], free[MEMORY]);
        if seen.contains(&size) || !fits(node) {
            continue;
        }
        seen.push(size);
        let left = |axis: usize| free[axis].saturating_sub(need(axis));
        let of = |cpus: u32, memory: u32, whole: u32| Idle {
            cpus: cpus.into(),
            memory: memory.into(),
            whole,
            parts: &[],
        };
        let before = of(free[CPUS], free[MEMORY], free[gpu]);
        let after = of(left(CPUS), left(MEMORY), left(gpu));
        let graded = (grade(ground.packing, &ground.view.classes, &before, &after), node);
        best = best.into_iter().chain([graded]).min();
        if seen.len() == GRADED {
            break;
        }
    }
    best
}

/// Up to `wanted` nodes of a set that fit; of a single one, where it leaves the fewest CPUs (or,
/// to spread, the most).
fn best(
    calendar: &Calendar,
    slot: usize,
    packing: Packing,
    nodes: &NodeSet,
    wanted: usize,
    fits: &mut dyn FnMut(NodeId) -> bool,
    chosen: &mut Vec<NodeId>,
) {
    let spreads = match packing {
        Packing::BestFit | Packing::Fgd | Packing::LeastFragments => false,
        Packing::Spread => true,
        Packing::FirstFit => return chosen.extend(nodes.iter().filter(|n| fits(*n)).take(wanted)),
    };
    if wanted > 1 {
        return chosen.extend(nodes.iter().filter(|node| fits(*node)).take(wanted));
    }
    // Whether a node fits costs more to know than how much it has.
    let mut left = nodes.iter();
    loop {
        let key = |node: NodeId| {
            let cpus = calendar.free(slot, node)[CPUS];
            (if spreads { u32::MAX - cpus } else { cpus }, node)
        };
        let mut some: Vec<(u32, NodeId)> = left.by_ref().take(COMPARED).map(key).collect();
        if some.is_empty() {
            return;
        }
        some.sort_unstable();
        if let Some((_, node)) = some.into_iter().find(|(_, node)| fits(*node)) {
            return chosen.push(node);
        }
    }
}

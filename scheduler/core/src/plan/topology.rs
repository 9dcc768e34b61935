//! Chooses nodes for a gang by the network: as near to each other as can be, so that what is left
//! stays whole.
//!
//! Best fit, level by level: the lowest switch (or block) that holds the gang; among those the one
//! where it touches the fewest leaves, then the one with the fewest fitting nodes left over, then
//! the lightest nodes, then the order of the config. Inside a switch whole leaves are taken, the
//! largest first, and the rest from the tightest leaf that holds it: no set of fewer leaves would
//! do. A job never spans nodes without a common switch above them.
//!
//! Cost: a look at every word of the set of fitting nodes, and a sort of leaf counts on each level
//! that is tried.

use std::collections::BTreeSet;
use std::ops::Range;

use muster_model::NodeId;

use crate::state::Topology;
use crate::state::topology::{Cells, NOWHERE};

use super::nodeset::NodeSet;

/// What is wished besides a number of nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Leaf switches at most, while the wish has not lapsed.
    pub switches: Option<u32>,
    /// Nodes in groups of this many, each inside one block (without blocks: one leaf).
    pub segment: Option<u32>,
    /// Whole blocks (without blocks: leaves) that nobody else is in: the nodes that are idle now.
    pub alone: Option<&'a NodeSet>,
    /// These must be part. They count as fitting only if they are in the fitting set.
    pub required: &'a [NodeId],
    /// Lighter nodes are taken first; by `NodeId`. Empty: all are alike.
    pub weights: &'a [u32],
}

/// Which level of the network turned a gang away, though nodes may fit one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("{fit} nodes fit and {wanted} are needed")]
    Nodes { fit: usize, wanted: usize },
    #[error("a node that it must have does not fit")]
    Required,
    #[error(
        "{fit} fitting nodes are in blocks or leaf switches without other jobs and {wanted} are needed"
    )]
    Alone { fit: usize, wanted: usize },
    #[error("no switch has {wanted} fitting nodes below it: the best has {most}")]
    Switch { most: usize, wanted: usize },
    #[error("{wanted} fitting nodes take {least} leaf switches and at most {limit} are asked for")]
    Leaves { least: usize, limit: u32, wanted: usize },
    #[error("{wanted} nodes cannot be cut into segments of {segment}")]
    Uneven { segment: u32, wanted: usize },
    #[error(
        "the blocks below one switch hold {most} segments of {segment} nodes and {wanted} are needed"
    )]
    Segments { segment: u32, most: usize, wanted: usize },
}

impl Rejected {
    /// The level in a word, for tables of reasons.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self {
            Rejected::Nodes { .. } | Rejected::Required => "node",
            Rejected::Leaves { .. } => "leaf",
            Rejected::Alone { .. } | Rejected::Uneven { .. } | Rejected::Segments { .. } => "block",
            Rejected::Switch { .. } => "switch",
        }
    }
}

/// `wanted` of the fitting nodes, in rank order (that of the topology).
///
/// # Errors
/// The level at which the gang does not fit.
pub fn choose(
    topology: &Topology,
    fits: &NodeSet,
    wanted: usize,
    wish: &Wish<'_>,
) -> Result<Vec<NodeId>, Rejected> {
    let whole;
    let fits = match wish.alone {
        None => fits,
        Some(idle) => {
            let mut set = topology.whole_units(idle);
            set.and_with(fits);
            let (all, fit) = (fits.count(), set.count());
            if all >= wanted && fit < wanted {
                return Err(Rejected::Alone { fit, wanted });
            }
            whole = set;
            &whole
        }
    };
    let fit = fits.count();
    if fit < wanted {
        return Err(Rejected::Nodes { fit, wanted });
    }
    if wish.required.len() > wanted || wish.required.iter().any(|node| !fits.contains(*node)) {
        return Err(Rejected::Required);
    }
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let search = Search { topology, fits, wanted, wish };
    if topology.is_empty() {
        let mut nodes = search.lightest(fits.iter().collect(), wanted);
        nodes.sort_unstable();
        return Ok(nodes);
    }
    match wish.segment {
        Some(segment) => search.segments(segment),
        None => search.gang(),
    }
}

struct Search<'a> {
    topology: &'a Topology,
    fits: &'a NodeSet,
    wanted: usize,
    wish: &'a Wish<'a>,
}

/// Groups (leaves or blocks) and how many nodes to take of each.
type Shares = Vec<(u32, usize)>;

/// How good a place is; the least is best.
type Grade = (usize, usize, u64);

impl Search<'_> {
    fn gang(&self) -> Result<Vec<NodeId>, Rejected> {
        let leaves = self.counts(self.topology.leaf_cells(), &self.topology.leaf_of);
        if let Some(nodes) = self.in_one_block() {
            return Ok(self.ranked(nodes));
        }
        let mut least = usize::MAX;
        for level in &self.topology.levels {
            let mut best: Option<(Grade, Shares)> = None;
            for switch in level {
                let Some(total) = self.total_below(&leaves, &switch.leaves) else { continue };
                let left = total - self.wanted;
                // No switch touches less than one leaf.
                if best.as_ref().is_some_and(|(known, _)| self.beats((1, left), *known)) {
                    continue;
                }
                let Some(shares) = self.shares(&leaves, &switch.leaves) else { continue };
                least = least.min(shares.len());
                let rough = (shares.len(), left);
                if self.wish.switches.is_some_and(|most| rough.0 > most as usize)
                    || best.as_ref().is_some_and(|(known, _)| self.beats(rough, *known))
                {
                    continue;
                }
                let grade = (rough.0, rough.1, self.weight_of(&switch.leaves));
                if best.as_ref().is_none_or(|(known, _)| grade < *known) {
                    best = Some((grade, shares));
                }
            }
            if let Some((_, shares)) = best {
                return Ok(self.ranked(self.leaf_nodes(&shares)));
            }
        }
        let wanted = self.wanted;
        match self.wish.switches {
            Some(limit) if least < usize::MAX => Err(Rejected::Leaves { least, limit, wanted }),
            _ => Err(self.no_switch(&leaves)),
        }
    }

    /// Fitting and required nodes by group.
    fn counts(&self, cells: &Cells, of: &[u32]) -> Vec<Count> {
        let sets = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let mut out: Vec<Count> = (0..sets)
            .map(|at| Count { fit: cells.count(at, self.fits) as usize, required: 0 })
            .collect();
        for node in self.wish.required {
            let group = of.get(node.0 as usize).copied().unwrap_or(NOWHERE);
            if let Some(count) = out.get_mut(group as usize) {
                count.required += 1;
            }
        }
        out
    }

    fn no_switch(&self, leaves: &[Count]) -> Rejected {
        let below = |range: &Range<u32>| -> usize {
            leaves[range.start as usize..range.end as usize].iter().map(|c| c.fit).sum()
        };
        let all = self.topology.levels.iter().flatten();
        let most = all.map(|switch| below(&switch.leaves)).max().unwrap_or(0);
        Rejected::Switch { most, wanted: self.wanted }
    }

    /// Whether a known place is at least as good as one of this many leaves and nodes left over,
    /// whatever that one's nodes weigh.
    fn beats(&self, rough: (usize, usize), known: Grade) -> bool {
        let known = (known.0, known.1);
        known < rough || (known == rough && self.wish.weights.is_empty())
    }

    /// How many nodes fit below a switch, if they are enough and the required ones among them.
    fn total_below(&self, leaves: &[Count], range: &Range<u32>) -> Option<usize> {
        let counts = &leaves[range.start as usize..range.end as usize];
        let total = counts.iter().map(|c| c.fit).sum::<usize>();
        let required = counts.iter().map(|c| c.required).sum::<usize>();
        (total >= self.wanted && required >= self.wish.required.len()).then_some(total)
    }

    /// The fewest leaves below a switch that hold the gang.
    fn shares(&self, leaves: &[Count], range: &Range<u32>) -> Option<Shares> {
        if range.len() == 1 {
            return Some(vec![(range.start, self.wanted)]);
        }
        let counts = &leaves[range.start as usize..range.end as usize];
        fewest((range.start..).zip(counts.iter().copied()), self.wanted)
    }

    /// The block with the fewest nodes left over, if one holds the gang.
    fn in_one_block(&self) -> Option<Vec<NodeId>> {
        if self.topology.blocks_only || self.topology.blocks.is_empty() {
            return None;
        }
        let blocks = self.counts(self.topology.block_cells(), &self.topology.block_of);
        let mut best: Option<(Grade, Vec<NodeId>)> = None;
        for (at, count) in (0u32..).zip(&blocks) {
            if count.fit < self.wanted || count.required < self.wish.required.len() {
                continue;
            }
            let left = count.fit - self.wanted;
            if best.as_ref().is_some_and(|(known, _)| self.beats((1, left), *known)) {
                continue;
            }
            let nodes: Vec<NodeId> = self.topology.block_cells().common(at, self.fits).collect();
            let chosen = self.nearest(nodes, self.wanted, &self.topology.leaf_of);
            let leaves = self.topology.leaves_of(chosen.iter().copied());
            if self.wish.switches.is_some_and(|most| leaves > most as usize) {
                continue;
            }
            let weight = chosen.iter().map(|n| self.weight(*n)).sum();
            let grade = (leaves, left, weight);
            if best.as_ref().is_none_or(|(known, _)| grade < *known) {
                best = Some((grade, chosen));
            }
        }
        best.map(|(_, nodes)| nodes)
    }

    /// The nodes of the leaves' shares; inside a leaf in as few blocks as can be.
    fn leaf_nodes(&self, shares: &[(u32, usize)]) -> Vec<NodeId> {
        let mut out = Vec::with_capacity(self.wanted);
        for (leaf, share) in shares {
            let nodes: Vec<NodeId> = self.topology.leaf_cells().common(*leaf, self.fits).collect();
            out.extend(self.nearest(nodes, *share, &self.topology.block_of));
        }
        out
    }

    /// `share` of these nodes, out of as few groups as can be, required ones first, then light
    /// ones. Nodes in no group are a group together.
    fn nearest(&self, nodes: Vec<NodeId>, share: usize, of: &[u32]) -> Vec<NodeId> {
        if nodes.len() <= share {
            return nodes;
        }
        let group = |n: NodeId| of.get(n.0 as usize).copied().unwrap_or(NOWHERE);
        let first = group(nodes[0]);
        if nodes.iter().all(|n| group(*n) == first) {
            return self.lightest(nodes, share);
        }
        let mut groups: std::collections::BTreeMap<u32, (Count, Vec<NodeId>)> =
            std::collections::BTreeMap::new();
        for node in nodes {
            let (count, list) = groups.entry(group(node)).or_default();
            count.fit += 1;
            count.required += usize::from(self.wish.required.contains(&node));
            list.push(node);
        }
        let counts = groups.iter().map(|(at, (count, _))| (*at, *count));
        let shares = fewest(counts, share).unwrap_or_default();
        let mut out = Vec::with_capacity(share);
        for (at, share) in shares {
            if let Some((_, list)) = groups.remove(&at) {
                out.extend(self.lightest(list, share));
            }
        }
        out
    }

    /// The lightest of these nodes, required ones before all.
    fn lightest(&self, mut nodes: Vec<NodeId>, share: usize) -> Vec<NodeId> {
        if nodes.len() > share && (!self.wish.weights.is_empty() || !self.wish.required.is_empty())
        {
            nodes.sort_by_key(|n| (!self.wish.required.contains(n), self.weight(*n), *n));
        }
        nodes.truncate(share);
        nodes
    }

    fn weight(&self, node: NodeId) -> u64 {
        self.wish.weights.get(node.0 as usize).map_or(0, |weight| u64::from(*weight))
    }

    /// The mean weight of the fitting nodes below a switch, in thousandths.
    fn weight_of(&self, leaves: &Range<u32>) -> u64 {
        if self.wish.weights.is_empty() {
            return 0;
        }
        let cells = self.topology.leaf_cells();
        let nodes = leaves.clone().flat_map(|leaf| cells.common(leaf, self.fits));
        let (sum, count) =
            nodes.fold((0u64, 0u64), |(sum, count), n| (sum + self.weight(n), count + 1));
        sum.saturating_mul(1000) / count.max(1)
    }

    fn ranked(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        nodes.sort_unstable_by_key(|n| self.topology.rank.get(n.0 as usize).copied());
        nodes
    }

    /// The lowest switch below which there are enough segments, in as few blocks as can be.
    fn segments(&self, segment: u32) -> Result<Vec<NodeId>, Rejected> {
        let size = segment as usize;
        if size == 0 || !self.wanted.is_multiple_of(size) {
            return Err(Rejected::Uneven { segment, wanted: self.wanted });
        }
        let needed = self.wanted / size;
        let leaves = self.counts(self.topology.leaf_cells(), &self.topology.leaf_of);
        let (mut most, mut least) = (0, usize::MAX);
        for level in &self.topology.levels {
            let mut best: Option<(Grade, Vec<NodeId>)> = None;
            for switch in level {
                let range = switch.leaves.start as usize..switch.leaves.end as usize;
                let fit: usize = leaves[range].iter().map(|c| c.fit).sum();
                let (found, shares) = self.blocks_below(&switch.leaves, size);
                most = most.max(found);
                let Some(shares) = shares else { continue };
                let nodes = self.block_nodes(&switch.leaves, &shares);
                let touched = self.topology.leaves_of(nodes.iter().copied());
                least = least.min(touched);
                if self.wish.switches.is_some_and(|limit| touched > limit as usize) {
                    continue;
                }
                let grade = (shares.len(), fit - self.wanted, self.weight_of(&switch.leaves));
                if best.as_ref().is_none_or(|(known, _)| grade < *known) {
                    best = Some((grade, nodes));
                }
            }
            if let Some((_, mut nodes)) = best {
                let (of, rank) = (self.groups(), &self.topology.rank);
                nodes.sort_unstable_by_key(|n| (of[n.0 as usize], rank[n.0 as usize]));
                return Ok(nodes);
            }
        }
        let wanted = self.wanted;
        match self.wish.switches {
            Some(limit) if least < usize::MAX => Err(Rejected::Leaves { least, limit, wanted }),
            _ => Err(Rejected::Segments { segment, most, wanted: needed }),
        }
    }

    /// What segments lie in: blocks, or leaves where there are no blocks.
    fn groups(&self) -> &[u32] {
        match self.topology.blocks.is_empty() {
            true => &self.topology.leaf_of,
            false => &self.topology.block_of,
        }
    }

    /// How many segments the blocks below a switch hold, and, if that is enough, how many nodes to
    /// take of which.
    fn blocks_below(&self, leaves: &Range<u32>, size: usize) -> (usize, Option<Shares>) {
        let of = self.groups();
        let mut counts: std::collections::BTreeMap<u32, Count> = std::collections::BTreeMap::new();
        for node in leaves.clone().flat_map(|l| self.topology.leaf_cells().common(l, self.fits)) {
            let group = of[node.0 as usize];
            if group != NOWHERE {
                counts.entry(group).or_default().fit += 1;
            }
        }
        for node in self.wish.required {
            match counts.get_mut(&of[node.0 as usize]) {
                Some(count) if leaves.contains(&self.topology.leaf_of[node.0 as usize]) => {
                    count.required += 1;
                }
                Some(_) | None => return (0, None),
            }
        }
        // In segments from here on; required nodes need their share of them.
        let units = counts.into_iter().map(|(at, count)| {
            let (fit, required) = (count.fit / size, count.required.div_ceil(size));
            (at, Count { fit, required })
        });
        let units: Vec<(u32, Count)> = units.collect();
        let found = units.iter().map(|(_, count)| count.fit).sum();
        if units.iter().any(|(_, count)| count.required > count.fit) {
            return (found, None);
        }
        let shares = fewest(units.into_iter(), self.wanted / size);
        (found, shares.map(|list| list.into_iter().map(|(at, n)| (at, n * size)).collect()))
    }

    fn block_nodes(&self, leaves: &Range<u32>, shares: &[(u32, usize)]) -> Vec<NodeId> {
        let of = self.groups();
        let cells = match self.topology.blocks.is_empty() {
            true => self.topology.leaf_cells(),
            false => self.topology.block_cells(),
        };
        debug_assert_eq!(of.len(), self.topology.leaf_of.len());
        let mut out = Vec::with_capacity(self.wanted);
        for (block, share) in shares {
            let here = |n: &NodeId| leaves.contains(&self.topology.leaf_of[n.0 as usize]);
            let nodes: Vec<NodeId> = cells.common(*block, self.fits).filter(here).collect();
            out.extend(self.nearest(nodes, *share, &self.topology.leaf_of));
        }
        out
    }
}

/// What one group has.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    fit: usize,
    required: usize,
}

/// The fewest groups that together hold `wanted`, those with required nodes among them: whole
/// groups, the largest first, and the last one the tightest that holds the rest. `None`: all
/// together do not hold so many.
fn fewest(groups: impl Iterator<Item = (u32, Count)>, wanted: usize) -> Option<Shares> {
    let (mut must, mut free): (Vec<_>, Vec<_>) =
        groups.filter(|(_, count)| count.fit > 0).partition(|(_, count)| count.required > 0);
    let held: usize = must.iter().map(|(_, count)| count.fit).sum();
    if held >= wanted {
        return trim(must, wanted);
    }
    let mut left = wanted - held;
    // The largest first, of equals the first in the order of the config.
    free.sort_by_key(|(at, count)| (std::cmp::Reverse(count.fit), *at));
    for (taken, (_, count)) in free.iter().enumerate() {
        if count.fit < left {
            left -= count.fit;
            continue;
        }
        let rest = &free[taken..];
        let holding = rest.partition_point(|(_, count)| count.fit >= left);
        let tight = rest[holding - 1].1.fit;
        let last = rest.iter().find(|(_, count)| count.fit == tight)?;
        must.extend_from_slice(&free[..taken]);
        must.push((last.0, Count { fit: left, required: 0 }));
        return Some(must.into_iter().map(|(at, count)| (at, count.fit)).collect());
    }
    None
}

/// Groups that all must be part and hold `wanted` or more: the surplus is left where most of it is
/// free, so that the rest stays together.
fn trim(mut groups: Vec<(u32, Count)>, wanted: usize) -> Option<Shares> {
    let mut surplus = groups.iter().map(|(_, c)| c.fit).sum::<usize>().checked_sub(wanted)?;
    groups.sort_by_key(|(at, c)| (std::cmp::Reverse(c.fit - c.required), *at));
    for (_, count) in &mut groups {
        let give = surplus.min(count.fit - count.required);
        count.fit -= give;
        surplus -= give;
    }
    let shares: BTreeSet<(u32, usize)> = groups.into_iter().map(|(at, c)| (at, c.fit)).collect();
    (surplus == 0).then(|| shares.into_iter().collect())
}

#[cfg(test)]
mod tests;

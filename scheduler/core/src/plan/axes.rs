//! Axes: what a pass counts on every node, as one small vector of numbers.
//!
//! Axis 0 counts seats: every slice takes one of [`ALL_SEATS`], a slice that wants the node for
//! itself takes all. Then come CPUs, memory (MiB), and one axis for each GRES name. Where some
//! node has several types of one name, each of those types has an axis too; everywhere else a
//! node's type is a fact about it and needs no count.
//!
//! Exact units (which CPUs, which GPUs) are chosen from rows when a job starts; until then, and
//! for all that lies in the future, counts decide.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::{GresKind, GresMask, NodeId, Slice};
use smallvec::{SmallVec, smallvec};

use crate::state::{Facts, GresSlot, Row};

use super::build::whole_first;
use super::nodeset::NodeSet;

pub const SEATS: usize = 0;
pub const CPUS: usize = 1;
pub const MEMORY: usize = 2;
const FIRST_GRES: usize = 3;

/// Seats of one node: more than any node has jobs.
pub const ALL_SEATS: u32 = 1 << 20;

/// Amounts on some axes; the rest is 0. Seats, CPUs, memory and GPUs need no memory of their own:
/// every pass makes thousands.
pub type Amounts = SmallVec<[(usize, u32); 4]>;

/// What of a node's GPUs is cut.
#[derive(Debug, Clone, PartialEq)]
enum Off {
    /// All of them, or there are none.
    All,
    /// What is counted on these axes, of all that is on the first.
    Some { all: usize, cut: Vec<usize> },
}

/// The axes of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Axes {
    names: Vec<Arc<str>>,
    /// Kinds with an axis of their own, after the names.
    typed: Vec<GresKind>,
    /// Kinds whose units are instances of GPUs that were cut.
    cut: BTreeSet<GresKind>,
    /// Which axes each slot of a node counts on; nodes with the same slots share a layout.
    layouts: Vec<Vec<Vec<usize>>>,
    layout_of: Vec<u32>,
    /// A node of each layout.
    layout_like: Vec<NodeId>,
    /// For each layout, what is to be taken off its GPUs to have those that are not cut.
    off_whole: Vec<Off>,
    /// Nodes that have GPUs that are not cut; of these, those that have others too.
    uncut: NodeSet,
    mixed: NodeSet,
    /// What every node has when empty: as many numbers for each as there are axes.
    whole: Vec<u32>,
    /// Nodes that have the same when empty.
    sizes: Vec<(Vec<u32>, NodeSet)>,
}

impl Axes {
    /// The axes of these nodes.
    #[must_use]
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Facts> + Clone) -> Self {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut mixed: BTreeSet<Arc<str>> = BTreeSet::new();
        for facts in nodes.clone() {
            for (i, slot) in facts.slots.iter().enumerate() {
                if !names.contains(&slot.kind.name) {
                    names.insert(slot.kind.name.clone());
                }
                if facts.slots[..i].iter().any(|s| s.kind.name == slot.kind.name) {
                    mixed.insert(slot.kind.name.clone());
                }
            }
        }
        let mut typed: BTreeSet<GresKind> = BTreeSet::new();
        if !mixed.is_empty() {
            let kinds = nodes.clone().flat_map(|f| &f.slots).map(|slot| &slot.kind);
            typed.extend(kinds.filter(|kind| mixed.contains(&kind.name)).cloned());
        }
        let cut = nodes.clone().flat_map(|f| &f.slots).filter(|slot| slot.cut);
        let mut axes = Axes {
            names: names.into_iter().collect(),
            typed: typed.into_iter().collect(),
            cut: cut.map(|slot| slot.kind.clone()).collect(),
            ..Axes::default()
        };
        let mut known: Vec<&[GresSlot]> = Vec::new();
        let count = nodes.clone().count();
        (axes.uncut, axes.mixed) = (NodeSet::new(count), NodeSet::new(count));
        for facts in nodes {
            let layout = known.iter().position(|slots| **slots == *facts.slots);
            let layout = layout.unwrap_or_else(|| {
                let of_slot = |slot: &GresSlot| axes.axes_of(&slot.kind).collect();
                let made = facts.slots.iter().map(of_slot).collect();
                known.push(&facts.slots);
                axes.layouts.push(made);
                let node = u32::try_from(axes.layout_of.len()).expect("32 bits number nodes");
                axes.layout_like.push(NodeId(node));
                axes.off_whole.push(axes.off_whole(&facts.slots));
                axes.layouts.len() - 1
            });
            axes.layout_of.push(u32::try_from(layout).expect("no more layouts than nodes"));
            let mut row = vec![0; axes.len()];
            axes.count(axes.layout_of.len() - 1, &facts.whole, 0, &mut row);
            axes.whole.extend(&row);
            let node =
                NodeId(u32::try_from(axes.layout_of.len() - 1).expect("32 bits number nodes"));
            match &axes.off_whole[axes.layout(node)] {
                Off::All => {}
                Off::Some { cut, .. } => {
                    if !cut.is_empty() {
                        axes.mixed.insert(node);
                    }
                    axes.uncut.insert(node);
                }
            }
            match axes.sizes.iter_mut().find(|(size, _)| *size == row) {
                Some((_, nodes)) => nodes.insert(node),
                None => {
                    let mut nodes = NodeSet::new(count);
                    nodes.insert(node);
                    axes.sizes.push((row, nodes));
                }
            }
        }
        axes
    }

    /// For each layout of slots, a node that has it.
    #[must_use]
    pub fn layouts(&self) -> &[NodeId] {
        &self.layout_like
    }

    /// Which of the layouts a node has.
    #[must_use]
    pub fn layout(&self, node: NodeId) -> usize {
        self.layout_of[node.0 as usize] as usize
    }

    /// What a node has when empty, by axis.
    #[must_use]
    pub fn whole(&self, node: NodeId) -> &[u32] {
        let (at, axes) = (node.0 as usize, self.len());
        &self.whole[at * axes..(at + 1) * axes]
    }

    /// Distinct sizes of empty nodes, each with the nodes that have it.
    #[must_use]
    pub fn sizes(&self) -> &[(Vec<u32>, NodeSet)] {
        &self.sizes
    }

    #[must_use]
    pub fn len(&self) -> usize {
        FIRST_GRES + self.names.len() + self.typed.len()
    }

    /// Never: seats, CPUs and memory are always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The axis of a GRES name.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|n| (**n).cmp(name)).ok().map(|i| FIRST_GRES + i)
    }

    /// Whether some GPUs are instances of GPUs that were cut.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether the units of this kind are instances of GPUs that were cut.
    #[must_use]
    pub fn is_cut(&self, kind: &GresKind) -> bool {
        self.cut.contains(kind)
    }

    /// Nodes that have GPUs that are not cut, and of these, those that have others too.
    #[must_use]
    pub fn with_whole_gpus(&self) -> (&NodeSet, &NodeSet) {
        (&self.uncut, &self.mixed)
    }

    /// Of the GPUs in some numbers of a node, by axis, those that are not cut.
    #[must_use]
    pub fn uncut(&self, node: NodeId, numbers: impl Fn(usize) -> u32) -> u32 {
        match &self.off_whole[self.layout(node)] {
            Off::Some { all, cut } => {
                let cut: u32 = cut.iter().map(|axis| numbers(*axis)).sum();
                numbers(*all).saturating_sub(cut)
            }
            Off::All => 0,
        }
    }

    fn off_whole(&self, slots: &[GresSlot]) -> Off {
        // A node all of whose GPUs are of one type needs no axis for it.
        let whole = slots.iter().any(|slot| &*slot.kind.name == "gpu" && !slot.cut);
        let cut = slots.iter().filter(|slot| self.cut.contains(&slot.kind));
        match self.name("gpu").filter(|_| whole) {
            Some(all) => {
                let cut = cut.filter_map(|slot| self.kind(&slot.kind)).collect();
                Off::Some { all, cut }
            }
            None => Off::All,
        }
    }

    fn kind(&self, kind: &GresKind) -> Option<usize> {
        let at = self.typed.binary_search(kind).ok()?;
        Some(FIRST_GRES + self.names.len() + at)
    }

    /// What a row of this node comes to, with `jobs` slices on it: one number an axis.
    pub fn count(&self, node: usize, free: &Row, jobs: u32, out: &mut [u32]) {
        out.fill(0);
        out[SEATS] = ALL_SEATS.saturating_sub(jobs);
        out[CPUS] = free.cpus.len();
        out[MEMORY] = amount(free.memory_mib);
        let layout = &self.layouts[self.layout_of[node] as usize];
        for (axes, units) in layout.iter().zip(&free.gres) {
            for axis in axes {
                out[*axis] = out[*axis].saturating_add(amount(units.count));
            }
        }
    }

    fn axes_of<'a>(&'a self, kind: &'a GresKind) -> impl Iterator<Item = usize> + 'a {
        self.name(&kind.name).into_iter().chain(self.kind(kind))
    }

    /// The axes that a wish for this kind counts on; `None`: no node has anything of it.
    #[must_use]
    pub fn of_kind(&self, kind: &GresKind) -> Option<Vec<usize>> {
        Some(std::iter::once(self.name(&kind.name)?).chain(self.kind(kind)).collect())
    }

    /// What a slice takes of its node.
    #[must_use]
    pub fn taken(&self, slice: &Slice) -> Amounts {
        let mut out: Amounts =
            smallvec![(SEATS, 1), (CPUS, slice.cpus.len()), (MEMORY, amount(slice.memory_mib))];
        for GresMask { kind, count, .. } in &slice.gres {
            for axis in self.axes_of(kind) {
                add(&mut out, axis, amount(*count));
            }
        }
        out
    }

    /// What a need comes to on a node with this much free: where a name was asked for without a
    /// type and has axes by type, whole GPUs give before instances of GPUs that were cut, then the
    /// types with the most left.
    #[must_use]
    pub fn on_node(&self, need: &Amounts, free: &[u32]) -> Amounts {
        let mut out = need.clone();
        if self.typed.is_empty() {
            return out;
        }
        let first_typed = FIRST_GRES + self.names.len();
        for (axis, count) in
            need.iter().filter(|(axis, _)| (FIRST_GRES..first_typed).contains(axis))
        {
            let of_name = |(i, kind): (usize, &GresKind)| {
                (kind.name == self.names[axis - FIRST_GRES]).then_some(first_typed + i)
            };
            let mut types: Vec<usize> = self.typed.iter().enumerate().filter_map(of_name).collect();
            let named: u32 = types.iter().map(|t| amount_on(need, *t)).sum();
            let mut left = count.saturating_sub(named);
            types.sort_by_key(|t| std::cmp::Reverse(free[*t]));
            let left_of = |t: usize| free[t].saturating_sub(amount_on(need, t));
            let is =
                |t: usize| (self.cut.contains(&self.typed[t - first_typed]), left_of(t).into());
            for axis in whole_first(types, is, left.into()) {
                let take = left.min(free[axis].saturating_sub(amount_on(&out, axis)));
                if take > 0 {
                    add(&mut out, axis, take);
                    left -= take;
                }
            }
        }
        out
    }
}

/// The amount on one axis.
#[must_use]
pub fn amount_on(amounts: &Amounts, axis: usize) -> u32 {
    amounts.iter().find(|(a, _)| *a == axis).map_or(0, |(_, n)| *n)
}

fn add(amounts: &mut Amounts, axis: usize, count: u32) {
    match amounts.iter_mut().find(|(a, _)| *a == axis) {
        Some((_, n)) => *n = n.saturating_add(count),
        None => amounts.push((axis, count)),
    }
}

fn amount(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

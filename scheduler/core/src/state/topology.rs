//! The network as the planner reads it: the config's graph compiled to arrays.
//!
//! Leaves are numbered in the order in which a walk down the tree meets them, so that every switch
//! holds a range of leaves and counts of a switch are a difference of two sums. The nodes of a leaf
//! are pairs of (word, mask) over a [`NodeSet`]: counting 10,000 nodes by leaf reads each word of
//! the set about once.

use std::collections::BTreeMap;
use std::ops::Range;

use muster_model::{NodeId, TopologyConfig, TopologyGraph};

use crate::plan::nodeset::NodeSet;

/// In no leaf, in no block.
pub const NOWHERE: u32 = u32::MAX;

/// The compiled network. Default: none, every node is as near as any other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// `levels[0]` are the leaves; a switch stands one above the highest below it. Within a level
    /// in the order of the tree.
    pub levels: Vec<Vec<Switch>>,
    /// The leaf of each node by `NodeId`, or [`NOWHERE`].
    pub leaf_of: Vec<u32>,
    /// The block of each node by `NodeId`, or [`NOWHERE`].
    pub block_of: Vec<u32>,
    /// Names of the blocks, in the order of the config.
    pub blocks: Vec<Box<str>>,
    /// Ranks of a job follow this: by leaf, block and `NodeId`. By `NodeId`.
    pub rank: Vec<u32>,
    /// Whether the leaves are the blocks, since there are no switches.
    pub blocks_only: bool,
    leaf_cells: Cells,
    block_cells: Cells,
}

/// A switch. Names are of the config; where there are only blocks, the one above them has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub name: Box<str>,
    /// Leaves below it; a leaf holds itself.
    pub leaves: Range<u32>,
    /// Switches side by side that it stands for.
    pub rails: u32,
}

/// Sets of nodes, each as pairs of (word, mask).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cells {
    /// Where each set begins; one more at the end.
    starts: Vec<u32>,
    parts: Vec<(u32, u64)>,
}

impl Cells {
    fn new(sets: &[Vec<NodeId>]) -> Self {
        let mut out = Cells { starts: vec![0], parts: Vec::new() };
        for set in sets {
            let mut words: BTreeMap<u32, u64> = BTreeMap::new();
            for node in set {
                *words.entry(node.0 / 64).or_default() |= 1 << (node.0 % 64);
            }
            out.parts.extend(words);
            out.starts.push(u32::try_from(out.parts.len()).unwrap_or(u32::MAX));
        }
        out
    }

    fn parts(&self, at: u32) -> &[(u32, u64)] {
        let (from, to) = (self.starts[at as usize], self.starts[at as usize + 1]);
        &self.parts[from as usize..to as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many nodes of the set number `at` are in `nodes`.
    pub(crate) fn count(&self, at: u32, nodes: &NodeSet) -> u32 {
        let words = nodes.words();
        let ones = |(word, mask): &(u32, u64)| {
            words.get(*word as usize).map_or(0, |bits| (bits & mask).count_ones())
        };
        self.parts(at).iter().map(ones).sum()
    }

    /// The nodes of the set number `at` that are in `nodes`, ascending.
    pub(crate) fn common<'a>(
        &'a self,
        at: u32,
        nodes: &'a NodeSet,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let words = nodes.words();
        self.parts(at).iter().flat_map(move |(word, mask)| {
            let mut bits = words.get(*word as usize).copied().unwrap_or(0) & mask;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(NodeId(word * 64 + bit))
            })
        })
    }

    /// Whether all of the set number `at` is in `nodes`.
    fn all_in(&self, at: u32, nodes: &NodeSet) -> bool {
        let words = nodes.words();
        self.parts(at)
            .iter()
            .all(|(word, mask)| words.get(*word as usize).is_some_and(|bits| bits & mask == *mask))
    }

    /// Adds the set number `at` to `nodes`.
    fn add_to(&self, at: u32, nodes: &mut NodeSet) {
        let words = nodes.words_mut();
        for (word, mask) in self.parts(at) {
            if let Some(bits) = words.get_mut(*word as usize) {
                *bits |= mask;
            }
        }
    }
}

impl Topology {
    /// Compiles a config for the nodes `0..nodes`. Names that nobody has are passed over; a config
    /// that is not sound gives none, since the edge refuses such before it is recorded.
    #[must_use]
    pub fn new(
        config: &TopologyConfig,
        nodes: usize,
        known: &BTreeMap<Box<str>, NodeId>,
    ) -> Topology {
        let named = |list: &[Box<str>]| -> Vec<NodeId> {
            let ids = list.iter().filter_map(|name| known.get(name).copied());
            ids.filter(|id| (id.0 as usize) < nodes).collect()
        };
        // Nodes of former configs are known too, so only those that the topology names are checked.
        let mut names: Vec<&str> = Vec::new();
        names.extend(config.switches.iter().flat_map(|s| s.nodes.iter().map(|n| &**n)));
        if config.switches.is_empty() {
            names.extend(config.blocks.iter().flat_map(|b| b.nodes.iter().map(|n| &**n)));
        }
        let Ok(graph) = config.graph(names) else { return Topology::default() };
        let blocks: Vec<Vec<NodeId>> = config.blocks.iter().map(|b| named(&b.nodes)).collect();
        let (levels, leaves) = match (config.switches.is_empty(), blocks.is_empty()) {
            (true, true) => return Topology::default(),
            (false, _) => tree(config, &graph, named),
            (true, false) => flat(config, &blocks),
        };
        let blocks_only = config.switches.is_empty();
        let leaf_of = homes(&leaves, nodes);
        let block_of = homes(&blocks, nodes);
        let mut order: Vec<u32> = (0..u32::try_from(nodes).unwrap_or(u32::MAX)).collect();
        order.sort_by_key(|n| (leaf_of[*n as usize], block_of[*n as usize], *n));
        let mut rank = vec![0; nodes];
        for (at, node) in (0u32..).zip(&order) {
            rank[*node as usize] = at;
        }
        Topology {
            leaf_cells: Cells::new(&leaves),
            block_cells: Cells::new(&blocks),
            blocks: config.blocks.iter().map(|b| b.name.clone()).collect(),
            levels,
            leaf_of,
            block_of,
            rank,
            blocks_only,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub(crate) fn leaf_cells(&self) -> &Cells {
        &self.leaf_cells
    }

    pub(crate) fn block_cells(&self) -> &Cells {
        &self.block_cells
    }

    /// The sets that `--exclusive=topo` keeps to one job: blocks where there are any, else leaves.
    fn units(&self) -> (&Cells, &[u32]) {
        if self.blocks.is_empty() {
            (&self.leaf_cells, &self.leaf_of)
        } else {
            (&self.block_cells, &self.block_of)
        }
    }

    /// The nodes of those blocks (without blocks: leaves) that lie in `idle` as a whole. Without a
    /// topology, and for nodes outside of every block: those nodes that are idle themselves.
    #[must_use]
    pub fn whole_units(&self, idle: &NodeSet) -> NodeSet {
        let (cells, of) = self.units();
        let mut out = idle.clone();
        for at in (0u32..).take(cells.len()).filter(|at| !cells.all_in(*at, idle)) {
            for node in cells.common(at, idle) {
                out.remove(node);
            }
        }
        debug_assert!(out.iter().all(|n| of.is_empty() || idle.contains(n)));
        out
    }

    /// Every node of the blocks (without blocks: leaves) that these nodes are in, themselves
    /// included: what a job that wants its part of the network alone closes to others.
    #[must_use]
    pub fn unit_mates(&self, nodes: &NodeSet) -> NodeSet {
        let (cells, of) = self.units();
        let mut out = nodes.clone();
        let mut last = NOWHERE;
        for node in nodes.iter() {
            let unit = of.get(node.0 as usize).copied().unwrap_or(NOWHERE);
            if unit != NOWHERE && unit != last {
                cells.add_to(unit, &mut out);
                last = unit;
            }
        }
        out
    }

    /// The name of a leaf.
    #[must_use]
    pub fn leaf_name(&self, leaf: u32) -> Option<&str> {
        self.levels.first()?.get(leaf as usize).map(|switch| &*switch.name)
    }

    /// How many leaves these nodes lie in; nodes outside of every leaf count one together.
    #[must_use]
    pub fn leaves_of(&self, nodes: impl IntoIterator<Item = NodeId>) -> usize {
        let leaf = |n: NodeId| self.leaf_of.get(n.0 as usize).copied().unwrap_or(NOWHERE);
        nodes.into_iter().map(leaf).collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// The set of each node; [`NOWHERE`] for those in none.
fn homes(sets: &[Vec<NodeId>], nodes: usize) -> Vec<u32> {
    let mut out = vec![NOWHERE; nodes];
    for (at, set) in (0u32..).zip(sets) {
        for node in set {
            out[node.0 as usize] = at;
        }
    }
    out
}

/// Levels and leaves of a tree of switches.
fn tree(
    config: &TopologyConfig,
    graph: &TopologyGraph,
    named: impl Fn(&[Box<str>]) -> Vec<NodeId>,
) -> (Vec<Vec<Switch>>, Vec<Vec<NodeId>>) {
    enum Step {
        Enter(usize),
        /// The switch, the first leaf below it, and its depth in `heights`.
        Leave(usize, u32),
    }
    let mut levels: Vec<Vec<Switch>> = Vec::new();
    let mut leaves: Vec<Vec<NodeId>> = Vec::new();
    let mut heights: Vec<usize> = vec![0; config.switches.len()];
    let mut steps: Vec<Step> = graph.roots().into_iter().rev().map(Step::Enter).collect();
    while let Some(step) = steps.pop() {
        let next = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let (at, from, height) = match step {
            Step::Enter(at) if config.switches[at].switches.is_empty() => {
                leaves.push(named(&config.switches[at].nodes));
                (at, next, 0)
            }
            Step::Enter(at) => {
                steps.push(Step::Leave(at, next));
                steps.extend(graph.below(at).into_iter().rev().map(Step::Enter));
                continue;
            }
            Step::Leave(at, from) => {
                let highest = graph.below(at).into_iter().map(|below| heights[below]).max();
                (at, from, highest.unwrap_or(0) + 1)
            }
        };
        heights[at] = height;
        if levels.len() <= height {
            levels.resize_with(height + 1, Vec::new);
        }
        let to = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let switch = &config.switches[at];
        levels[height].push(Switch {
            name: switch.name.clone(),
            leaves: from..to,
            rails: switch.rails,
        });
    }
    (levels, leaves)
}

/// Blocks as leaves below one switch: there is a network between them, though nobody described it.
fn flat(config: &TopologyConfig, blocks: &[Vec<NodeId>]) -> (Vec<Vec<Switch>>, Vec<Vec<NodeId>>) {
    let leaf = |(at, block): (u32, &muster_model::BlockConfig)| Switch {
        name: block.name.clone(),
        leaves: at..at + 1,
        rails: 1,
    };
    let leaves: Vec<Switch> = (0u32..).zip(&config.blocks).map(leaf).collect();
    let all = 0..u32::try_from(leaves.len()).unwrap_or(u32::MAX);
    let root = Switch { name: Box::default(), leaves: all, rails: 1 };
    (vec![leaves, vec![root]], blocks.to_vec())
}

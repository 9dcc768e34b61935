//! The network between nodes as configured: a tree of switches, NVLink blocks, or both.
//!
//! A switch has nodes (a leaf) or other switches below it. A block is a set of nodes that NVLink
//! joins, such as the 18 of an NVL72. [`TopologyConfig::graph`] checks that it is a forest that
//! holds every node once, as one directed graph from switches down to nodes, which also answers
//! for distances and draws itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::hostlist::Hostlist;

/// What the admin wrote. Empty: every node is as near as any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopologyConfig {
    pub switches: Vec<SwitchConfig>,
    pub blocks: Vec<BlockConfig>,
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchConfig {
    pub name: Box<str>,
    /// Nodes that hang on it; then it is a leaf.
    pub nodes: Vec<Box<str>>,
    /// Switches below it.
    pub switches: Vec<Box<str>>,
    /// Switches side by side that this entry stands for, one for each network card of a node
    /// (rail-optimised); 1: a single one.
    pub rails: u32,
}

/// Nodes of one NVLink domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockConfig {
    pub name: Box<str>,
    pub nodes: Vec<Box<str>>,
}

/// Why a topology is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTopology {
    #[error("{kind} {name:?} is configured twice")]
    Duplicate { kind: &'static str, name: Box<str> },
    #[error("switch {switch:?} has neither nodes nor switches")]
    Bare { switch: Box<str> },
    #[error(
        "switch {switch:?} has both nodes and switches: put the nodes on a switch of their own"
    )]
    Mixed { switch: Box<str> },
    #[error("{kind} {of:?}: node {node:?} is not configured")]
    UnknownNode { kind: &'static str, of: Box<str>, node: Box<str> },
    #[error("switch {of:?}: switch {switch:?} is not configured")]
    UnknownSwitch { of: Box<str>, switch: Box<str> },
    #[error("node {node:?} is in two {kind}, {first:?} and {second:?}")]
    TwoHomes { kind: &'static str, node: Box<str>, first: Box<str>, second: Box<str> },
    #[error("switch {switch:?} hangs on two switches, {first:?} and {second:?}")]
    TwoParents { switch: Box<str>, first: Box<str>, second: Box<str> },
    #[error("the switches form a loop: {}", path.join(" > "))]
    Loop { path: Vec<String> },
    #[error("node {node:?} is in no switch, though switches are configured")]
    Orphan { node: Box<str> },
}

/// What a vertex of the graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vertex {
    /// A place in `TopologyConfig::switches`.
    Switch(usize),
    /// A place in the list of nodes that the graph was made for.
    Node,
}

/// A sound topology as a graph, edges leading downwards.
#[derive(Debug, Clone, Default)]
pub struct TopologyGraph {
    graph: DiGraph<Vertex, ()>,
    switches: Vec<NodeIndex>,
    nodes: BTreeMap<Box<str>, NodeIndex>,
}

impl TopologyConfig {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.switches.is_empty() && self.blocks.is_empty()
    }

    /// Checks the whole against the nodes of the cluster.
    ///
    /// # Errors
    /// The first fault: names given twice or not at all, a node in two leaves or two blocks, a
    /// switch below two, a loop, and a node in no leaf where there are switches.
    pub fn graph<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a str>,
    ) -> Result<TopologyGraph, BadTopology> {
        let mut out =
            TopologyGraph { graph: DiGraph::new(), switches: Vec::new(), nodes: BTreeMap::new() };
        let mut order = Vec::new();
        for name in nodes {
            let at = out.graph.add_node(Vertex::Node);
            out.nodes.insert(name.into(), at);
            order.push(name);
        }
        self.add_switches(&mut out)?;
        self.add_leaves(&mut out)?;
        self.check_loops(&out)?;
        self.check_blocks(&out)?;
        if !self.switches.is_empty()
            && let Some(name) = order.into_iter().find(|name| out.leaf(name).is_none())
        {
            return Err(BadTopology::Orphan { node: name.into() });
        }
        Ok(out)
    }

    fn add_switches(&self, out: &mut TopologyGraph) -> Result<(), BadTopology> {
        let mut by_name: BTreeMap<&str, NodeIndex> = BTreeMap::new();
        for (place, switch) in self.switches.iter().enumerate() {
            let at = out.graph.add_node(Vertex::Switch(place));
            out.switches.push(at);
            if by_name.insert(&switch.name, at).is_some() {
                let name = switch.name.clone();
                return Err(BadTopology::Duplicate { kind: "switch", name });
            }
            match (switch.nodes.is_empty(), switch.switches.is_empty()) {
                (true, true) => return Err(BadTopology::Bare { switch: switch.name.clone() }),
                (false, false) => return Err(BadTopology::Mixed { switch: switch.name.clone() }),
                (true, false) | (false, true) => {}
            }
        }
        for (switch, at) in self.switches.iter().zip(out.switches.clone()) {
            for below in &switch.switches {
                let Some(child) = by_name.get(&**below).copied() else {
                    let of = switch.name.clone();
                    return Err(BadTopology::UnknownSwitch { of, switch: below.clone() });
                };
                if let Some(above) = out.above(child) {
                    return Err(BadTopology::TwoParents {
                        switch: below.clone(),
                        first: self.switches[above].name.clone(),
                        second: switch.name.clone(),
                    });
                }
                out.graph.add_edge(at, child, ());
            }
        }
        Ok(())
    }

    fn add_leaves(&self, out: &mut TopologyGraph) -> Result<(), BadTopology> {
        for (switch, at) in self.switches.iter().zip(out.switches.clone()) {
            for node in &switch.nodes {
                let Some(child) = out.nodes.get(node).copied() else {
                    let (of, node) = (switch.name.clone(), node.clone());
                    return Err(BadTopology::UnknownNode { kind: "switch", of, node });
                };
                if let Some(above) = out.above(child) {
                    return Err(BadTopology::TwoHomes {
                        kind: "switches",
                        node: node.clone(),
                        first: self.switches[above].name.clone(),
                        second: switch.name.clone(),
                    });
                }
                out.graph.add_edge(at, child, ());
            }
        }
        Ok(())
    }

    fn check_loops(&self, out: &TopologyGraph) -> Result<(), BadTopology> {
        let Err(cycle) = toposort(&out.graph, None) else { return Ok(()) };
        // Every switch has one parent at most, so upwards there is one way, and it comes back.
        let (mut path, mut at) = (Vec::new(), cycle.node_id());
        while let Some(above) = out.above(at) {
            path.push(self.switches[above].name.to_string());
            at = out.switches[above];
            if at == cycle.node_id() {
                break;
            }
        }
        path.reverse();
        path.extend(path.first().cloned());
        Err(BadTopology::Loop { path })
    }

    fn check_blocks(&self, out: &TopologyGraph) -> Result<(), BadTopology> {
        let mut names = BTreeMap::new();
        let mut homes: BTreeMap<&str, &str> = BTreeMap::new();
        for block in &self.blocks {
            if names.insert(&*block.name, ()).is_some() {
                return Err(BadTopology::Duplicate { kind: "block", name: block.name.clone() });
            }
            for node in &block.nodes {
                if !out.nodes.contains_key(node) {
                    let (of, node) = (block.name.clone(), node.clone());
                    return Err(BadTopology::UnknownNode { kind: "block", of, node });
                }
                if let Some(first) = homes.insert(node, &block.name) {
                    return Err(BadTopology::TwoHomes {
                        kind: "blocks",
                        node: node.clone(),
                        first: first.into(),
                        second: block.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Where a node is: names from the top switch down to the node (without switches: its block
    /// and the node), and what each of them is; joined by dots, as `SLURM_TOPOLOGY_ADDR` and
    /// `SLURM_TOPOLOGY_ADDR_PATTERN` have it. Walks the lists of the config itself.
    #[must_use]
    pub fn address(&self, node: &str) -> (String, String) {
        let mut names: Vec<&str> = vec![node];
        let mut kinds = vec!["node"];
        let mut at = self.switches.iter().find(|s| s.nodes.iter().any(|n| **n == *node));
        // A way longer than there are switches would be a loop.
        while let Some(switch) = at.filter(|_| names.len() <= self.switches.len()) {
            names.push(&switch.name);
            kinds.push("switch");
            at = self.switches.iter().find(|above| above.switches.contains(&switch.name));
        }
        if self.switches.is_empty()
            && let Some(block) =
                self.blocks.iter().find(|block| block.nodes.iter().any(|n| **n == *node))
        {
            names.push(&block.name);
            kinds.push("block");
        }
        names.reverse();
        kinds.reverse();
        (names.join("."), kinds.join("."))
    }

    /// Every node below a switch, in the order of the tree. The topology must be sound.
    #[must_use]
    pub fn nodes_below(&self, graph: &TopologyGraph, switch: usize) -> Vec<Box<str>> {
        let mut out = Vec::new();
        let mut todo = vec![switch];
        while let Some(at) = todo.pop() {
            out.extend(self.switches[at].nodes.iter().cloned());
            todo.extend(graph.below(at).into_iter().rev());
        }
        out
    }

    /// The tree in Graphviz's language: switches, and below each leaf its nodes as one box for each
    /// block, so that a large cluster stays readable.
    #[must_use]
    pub fn dot(&self, graph: &TopologyGraph) -> String {
        let block_of: BTreeMap<&str, usize> = (0..)
            .zip(&self.blocks)
            .flat_map(|(at, block)| block.nodes.iter().map(move |node| (&**node, at)))
            .collect();
        // (leaf, block, nodes)
        let mut boxes: Vec<(Option<usize>, Option<usize>, Vec<&str>)> = Vec::new();
        for (leaf, switch) in self.switches.iter().enumerate() {
            let mut parts: BTreeMap<Option<usize>, Vec<&str>> = BTreeMap::new();
            for node in &switch.nodes {
                parts.entry(block_of.get(&**node).copied()).or_default().push(node);
            }
            boxes.extend(parts.into_iter().map(|(block, nodes)| (Some(leaf), block, nodes)));
        }
        if self.switches.is_empty() {
            for (at, block) in self.blocks.iter().enumerate() {
                boxes.push((None, Some(at), block.nodes.iter().map(|node| &**node).collect()));
            }
            let rest = graph.nodes.keys().map(|name| &**name);
            let rest: Vec<&str> = rest.filter(|name| !block_of.contains_key(name)).collect();
            if !rest.is_empty() {
                boxes.push((None, None, rest));
            }
        }
        let mut out = String::from("digraph topology {\n  node [shape=box];\n");
        for (at, switch) in self.switches.iter().enumerate() {
            let rails =
                if switch.rails > 1 { format!("\\n{} rails", switch.rails) } else { String::new() };
            let _ = writeln!(
                out,
                "  s{at} [label=\"{}{rails}\", style=filled, fillcolor=lightgrey];",
                switch.name
            );
        }
        let show = |out: &mut String, indent: &str, at: usize, nodes: &[&str]| {
            let list = Hostlist::from_iter(nodes.iter().copied()).to_string();
            let _ = writeln!(out, "{indent}h{at} [label=\"{list}\"];");
        };
        for (at, block) in self.blocks.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster_{at} {{\n    label=\"{}\";", block.name);
            for (id, (_, _, nodes)) in boxes.iter().enumerate().filter(|(_, b)| b.1 == Some(at)) {
                show(&mut out, "    ", id, nodes);
            }
            out.push_str("  }\n");
        }
        for (id, (_, _, nodes)) in boxes.iter().enumerate().filter(|(_, b)| b.1.is_none()) {
            show(&mut out, "  ", id, nodes);
        }
        for at in 0..self.switches.len() {
            for below in graph.below(at) {
                let _ = writeln!(out, "  s{at} -> s{below};");
            }
        }
        for (id, (leaf, _, _)) in boxes.iter().enumerate() {
            if let Some(leaf) = leaf {
                let _ = writeln!(out, "  s{leaf} -> h{id};");
            }
        }
        out.push_str("}\n");
        out
    }
}

impl TopologyGraph {
    /// The switch above a vertex.
    fn above(&self, at: NodeIndex) -> Option<usize> {
        let mut above = self.graph.neighbors_directed(at, Direction::Incoming);
        above.find_map(|at| match self.graph[at] {
            Vertex::Switch(place) => Some(place),
            Vertex::Node => None,
        })
    }

    /// The leaf switch of a node, by its place in the config.
    #[must_use]
    pub fn leaf(&self, node: &str) -> Option<usize> {
        self.above(*self.nodes.get(node)?)
    }

    /// The switch above a switch, both by place in the config.
    #[must_use]
    pub fn parent(&self, switch: usize) -> Option<usize> {
        self.above(*self.switches.get(switch)?)
    }

    /// Switches right below a switch, in the order written.
    #[must_use]
    pub fn below(&self, switch: usize) -> Vec<usize> {
        let Some(at) = self.switches.get(switch) else { return Vec::new() };
        let mut below: Vec<usize> = self
            .graph
            .neighbors_directed(*at, Direction::Outgoing)
            .filter_map(|at| match self.graph[at] {
                Vertex::Switch(place) => Some(place),
                Vertex::Node => None,
            })
            .collect();
        // The graph gives the newest edge first.
        below.reverse();
        below
    }

    /// How far a switch stands above its lowest leaf; a leaf: 0.
    #[must_use]
    pub fn height(&self, switch: usize) -> usize {
        self.below(switch).into_iter().map(|below| self.height(below) + 1).max().unwrap_or(0)
    }

    /// Switches that hang on none, in the order of the config.
    #[must_use]
    pub fn roots(&self) -> Vec<usize> {
        (0..self.switches.len()).filter(|at| self.parent(*at).is_none()).collect()
    }

    /// Names of the switches above a node, from the top down to its leaf.
    #[must_use]
    pub fn path(&self, config: &TopologyConfig, node: &str) -> Vec<Box<str>> {
        let mut out = Vec::new();
        let mut at = self.leaf(node);
        while let Some(switch) = at {
            out.push(config.switches[switch].name.clone());
            at = self.parent(switch);
        }
        out.reverse();
        out
    }

    /// Switches that a message between two nodes passes: 0 for one and the same, 1 inside a leaf;
    /// `None` when no switch stands above both.
    #[must_use]
    pub fn distance(&self, a: &str, b: &str) -> Option<usize> {
        if a == b {
            return self.nodes.contains_key(a).then_some(0);
        }
        let up = |node: &str| -> Vec<usize> {
            std::iter::successors(self.leaf(node), |at| self.parent(*at)).collect()
        };
        let (mine, theirs) = (up(a), up(b));
        let (i, meeting) = mine.iter().enumerate().find(|(_, at)| theirs.contains(at))?;
        let j = theirs.iter().position(|at| at == meeting)?;
        Some(i + j + 1)
    }
}

#[cfg(test)]
mod tests;

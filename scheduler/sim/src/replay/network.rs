//! The network that a schedule is measured on: which leaf switch every node hangs on, and how few
//! leaves a gang could do with.

use std::collections::BTreeMap;

use muster_model::{NodeConfig, NodeId, SwitchConfig, TopologyConfig};

/// Leaves below one spine of a made-up tree.
const LEAVES_PER_SPINE: usize = 8;

/// Leaves by node.
#[derive(Debug, Clone, Default)]
pub struct Leaves {
    /// By `NodeId`; empty: there is no network.
    of: Vec<usize>,
    /// How many nodes the leaves have, the largest first.
    sizes: Vec<usize>,
}

impl Leaves {
    /// The leaf switches of a config, or its blocks where it has no switches.
    #[must_use]
    pub fn new(topology: &TopologyConfig, nodes: &[NodeConfig]) -> Self {
        let ids: BTreeMap<&str, usize> =
            nodes.iter().enumerate().map(|(id, node)| (&*node.name, id)).collect();
        let switches = topology.switches.iter().map(|s| &s.nodes).filter(|nodes| !nodes.is_empty());
        let blocks = topology.blocks.iter().map(|b| &b.nodes);
        let groups: Vec<&Vec<Box<str>>> = match topology.switches.is_empty() {
            true => blocks.collect(),
            false => switches.collect(),
        };
        if groups.is_empty() {
            return Leaves::default();
        }
        let mut of = vec![usize::MAX; nodes.len()];
        for (leaf, names) in groups.iter().enumerate() {
            for id in names.iter().filter_map(|name| ids.get(&**name)) {
                of[*id] = leaf;
            }
        }
        let mut sizes: Vec<usize> = groups.iter().map(|names| names.len()).collect();
        sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
        Leaves { of, sizes }
    }

    /// Leaves that these nodes hang on; 0: there is no network.
    #[must_use]
    pub fn touched(&self, nodes: &[NodeId]) -> u32 {
        let mut leaves: Vec<usize> =
            nodes.iter().filter_map(|node| self.of.get(node.0 as usize).copied()).collect();
        leaves.sort_unstable();
        leaves.dedup();
        u32::try_from(leaves.len()).unwrap_or(u32::MAX)
    }

    /// Leaves that so many nodes would take if nobody else were there.
    #[must_use]
    pub fn least(&self, nodes: u32) -> u32 {
        let mut left = nodes as usize;
        let full = self.sizes.iter().take_while(|size| {
            let goes_on = left > 0;
            left = left.saturating_sub(**size);
            goes_on
        });
        u32::try_from(full.count()).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// A fat tree: leaves of so many nodes, spines of eight leaves, one switch above them.
#[must_use]
pub fn fat_tree(nodes: &[NodeConfig], per_leaf: usize) -> TopologyConfig {
    let switch = |name: String, nodes: Vec<Box<str>>, switches: Vec<Box<str>>| SwitchConfig {
        name: name.into(),
        nodes,
        switches,
        rails: 1,
    };
    let leaves = nodes.chunks(per_leaf.max(1)).enumerate().map(|(at, nodes)| {
        switch(format!("leaf{at}"), nodes.iter().map(|n| n.name.clone()).collect(), Vec::new())
    });
    let mut switches: Vec<SwitchConfig> = leaves.collect();
    let names: Vec<Box<str>> = switches.iter().map(|s| s.name.clone()).collect();
    let spines = names.chunks(LEAVES_PER_SPINE).enumerate();
    let spines: Vec<SwitchConfig> = spines
        .map(|(at, below)| switch(format!("spine{at}"), Vec::new(), below.to_vec()))
        .collect();
    let below: Vec<Box<str>> = spines.iter().map(|s| s.name.clone()).collect();
    switches.extend(spines);
    if below.len() > 1 {
        switches.push(switch("core".to_owned(), Vec::new(), below));
    }
    TopologyConfig { switches, blocks: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::cluster::equal_nodes;

    #[test]
    fn leaves_are_counted_as_they_hang() {
        let nodes = equal_nodes(70, 8);
        let tree = fat_tree(&nodes, 4);
        let of_kind =
            |prefix: &str| tree.switches.iter().filter(|s| s.name.starts_with(prefix)).count();
        assert_eq!((of_kind("leaf"), of_kind("spine"), of_kind("core")), (18, 3, 1));
        let names = nodes.iter().map(|node| &*node.name);
        tree.graph(names).expect("it is a sound tree");
        let leaves = Leaves::new(&tree, &nodes);
        assert_eq!(leaves.touched(&[0, 1, 3].map(NodeId)), 1);
        assert_eq!(leaves.touched(&[3, 4, 69].map(NodeId)), 3);
        assert_eq!([1, 4, 5, 8, 9].map(|n| leaves.least(n)), [1, 1, 2, 2, 3]);
        assert!(Leaves::new(&TopologyConfig::default(), &nodes).is_empty());
    }
}

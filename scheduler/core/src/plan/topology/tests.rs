//! Gangs in networks: stories, and every choice against a search through all sets of nodes.

use std::collections::BTreeMap;

use muster_model::{BlockConfig, SwitchConfig, TopologyConfig};
use proptest::prelude::*;

use super::*;

fn name(node: u32) -> Box<str> {
    format!("n{node}").into()
}

fn compile(config: &TopologyConfig, nodes: u32) -> Topology {
    let known: BTreeMap<Box<str>, NodeId> = (0..nodes).map(|n| (name(n), NodeId(n))).collect();
    Topology::new(config, nodes as usize, &known)
}

fn leaf(at: usize, nodes: impl IntoIterator<Item = u32>) -> SwitchConfig {
    let nodes = nodes.into_iter().map(name).collect();
    SwitchConfig { name: format!("leaf{at}").into(), nodes, switches: Vec::new(), rails: 1 }
}

fn above(at: usize, below: impl IntoIterator<Item = String>) -> SwitchConfig {
    let switches = below.into_iter().map(Into::into).collect();
    SwitchConfig { name: format!("top{at}").into(), nodes: Vec::new(), switches, rails: 1 }
}

fn block(at: usize, nodes: impl IntoIterator<Item = u32>) -> BlockConfig {
    BlockConfig { name: format!("b{at}").into(), nodes: nodes.into_iter().map(name).collect() }
}

/// Leaves of four nodes: 0-3, 4-7 below one spine, 8-11, 12-15 below another, both below a core.
fn sixteen() -> TopologyConfig {
    let leaves = (0..4).map(|at| leaf(at, at as u32 * 4..at as u32 * 4 + 4));
    let names = |range: Range<usize>| range.map(|at| format!("leaf{at}"));
    let mut switches = vec![above(9, ["top0".into(), "top1".into()])];
    switches.extend([above(0, names(0..2)), above(1, names(2..4))]);
    switches.extend(leaves);
    TopologyConfig { switches, blocks: Vec::new() }
}

fn set(nodes: u32, members: &[u32]) -> NodeSet {
    NodeSet::of(nodes as usize, members.iter().map(|n| NodeId(*n)))
}

#[track_caller]
fn check(
    config: &TopologyConfig,
    fits: &[u32],
    wanted: usize,
    wish: &Wish<'_>,
    expected: Result<&[u32], Rejected>,
) {
    let topology = compile(config, 16);
    let chosen = choose(&topology, &set(16, fits), wanted, wish);
    let numbers = chosen.map(|nodes| nodes.iter().map(|n| n.0).collect::<Vec<_>>());
    assert_eq!(numbers.as_deref().map_err(|fault| *fault), expected);
}

#[test]
fn a_gang_goes_to_the_leaf_where_least_is_left_over() {
    let wish = Wish::default();
    check(&sixteen(), &[0, 1, 2, 3, 5, 6, 8, 9, 10], 2, &wish, Ok(&[5, 6]));
    check(&sixteen(), &[0, 1, 2, 3, 5, 6, 8, 9, 10], 3, &wish, Ok(&[8, 9, 10]));
    check(&sixteen(), &[0, 1, 2, 3, 5, 6, 8, 9, 10], 4, &wish, Ok(&[0, 1, 2, 3]));
}

#[test]
fn a_gang_too_large_for_a_leaf_stays_below_one_spine_on_few_leaves() {
    let wish = Wish::default();
    let all: Vec<u32> = (0..16).collect();
    check(&sixteen(), &all, 6, &wish, Ok(&[0, 1, 2, 3, 4, 5]));
    check(&sixteen(), &[0, 4, 5, 6, 8, 9, 10, 12, 13], 5, &wish, Ok(&[8, 9, 10, 12, 13]));
    // Whole leaves, and the rest from the tightest that holds it.
    check(&sixteen(), &[0, 1, 2, 4, 8, 9, 10, 11, 12, 13], 7, &wish, Ok(&[0, 1, 2, 8, 9, 10, 11]));
}

#[test]
fn the_number_of_leaf_switches_can_be_bounded() {
    let wish = Wish { switches: Some(1), ..Wish::default() };
    let fits = [0, 1, 4, 5, 8, 12];
    check(&sixteen(), &fits, 2, &wish, Ok(&[0, 1]));
    let fault = Rejected::Leaves { least: 2, limit: 1, wanted: 3 };
    check(&sixteen(), &fits, 3, &wish, Err(fault));
    assert_eq!(fault.level(), "leaf");
    assert_eq!(
        fault.to_string(),
        "3 fitting nodes take 2 leaf switches and at most 1 are asked for"
    );
    check(&sixteen(), &fits, 3, &Wish { switches: Some(2), ..wish }, Ok(&[0, 1, 4]));
}

#[test]
fn nodes_without_a_common_switch_share_no_job() {
    let mut config = sixteen();
    config.switches.remove(0);
    let fault = Rejected::Switch { most: 3, wanted: 4 };
    check(&config, &[0, 1, 4, 8, 9], 4, &Wish::default(), Err(fault));
    check(&config, &[0, 1, 4, 8, 9], 3, &Wish::default(), Ok(&[0, 1, 4]));
    let fault = Rejected::Nodes { fit: 5, wanted: 6 };
    check(&config, &[0, 1, 4, 8, 9], 6, &Wish::default(), Err(fault));
}

#[test]
fn segments_lie_inside_blocks_and_follow_each_other_in_ranks() {
    let mut config = sixteen();
    config.blocks = vec![block(0, [0, 1, 2, 4, 5, 6]), block(1, 8..14)];
    let wish = Wish { segment: Some(2), ..Wish::default() };
    check(&config, &[0, 1, 2, 4, 8, 9, 10, 3], 4, &wish, Ok(&[0, 1, 2, 4]));
    check(&config, &[0, 2, 8, 9, 10, 11, 15], 4, &wish, Ok(&[8, 9, 10, 11]));
    check(&config, &[0, 4, 5, 8, 9, 14, 15], 4, &wish, Ok(&[4, 5, 8, 9]));
    let fault = Rejected::Segments { segment: 2, most: 1, wanted: 2 };
    check(&config, &[0, 4, 8, 3, 7, 15], 4, &wish, Err(fault));
    let fault = Rejected::Uneven { segment: 2, wanted: 3 };
    check(&config, &[0, 1, 2], 3, &wish, Err(fault));
    // Without blocks a segment lies in one leaf.
    check(&sixteen(), &[0, 4, 5, 8, 9], 4, &wish, Ok(&[4, 5, 8, 9]));
}

#[test]
fn a_gang_takes_one_block_before_one_leaf() {
    let mut config = sixteen();
    config.blocks = vec![block(0, [0, 1]), block(1, [4, 5, 8, 9])];
    let all: Vec<u32> = (0..16).collect();
    check(&config, &all, 2, &Wish::default(), Ok(&[0, 1]));
    check(&config, &all, 4, &Wish::default(), Ok(&[4, 5, 8, 9]));
    check(&config, &all, 4, &Wish { switches: Some(1), ..Wish::default() }, Ok(&[0, 1, 2, 3]));
    config.switches.clear();
    check(&config, &all, 6, &Wish::default(), Ok(&[0, 1, 4, 5, 8, 9]));
    let fault = Rejected::Switch { most: 6, wanted: 7 };
    check(&config, &all, 7, &Wish::default(), Err(fault));
}

#[test]
fn a_job_alone_gets_leaves_that_nobody_is_in() {
    let topology = compile(&sixteen(), 16);
    let idle = set(16, &[0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 14]);
    let whole: Vec<u32> = topology.whole_units(&idle).iter().map(|n| n.0).collect();
    assert_eq!(whole, [0, 1, 2, 3, 8, 9, 10, 11]);
    let mates: Vec<u32> = topology.unit_mates(&set(16, &[5, 13])).iter().map(|n| n.0).collect();
    assert_eq!(mates, [4, 5, 6, 7, 12, 13, 14, 15]);
    let wish = Wish { alone: Some(&idle), ..Wish::default() };
    check(&sixteen(), &[1, 2, 4, 5, 8, 9, 10], 2, &wish, Ok(&[1, 2]));
    let fault = Rejected::Alone { fit: 5, wanted: 6 };
    check(&sixteen(), &[1, 2, 4, 5, 8, 9, 10], 6, &wish, Err(fault));
}

#[test]
fn required_nodes_are_part_and_light_nodes_come_first() {
    let all: Vec<u32> = (0..16).collect();
    let required = [NodeId(6), NodeId(9)];
    let wish = Wish { required: &required, ..Wish::default() };
    check(&sixteen(), &all, 3, &wish, Ok(&[6, 8, 9]));
    check(&sixteen(), &all[..8], 3, &wish, Err(Rejected::Required));
    let mut weights = [5u32; 16];
    weights[9] = 1;
    weights[11] = 1;
    let wish = Wish { weights: &weights, ..Wish::default() };
    check(&sixteen(), &all, 2, &wish, Ok(&[9, 11]));
    check(&TopologyConfig::default(), &[3, 9, 10, 11], 3, &wish, Ok(&[3, 9, 11]));
    check(&TopologyConfig::default(), &[3, 9, 10], 2, &Wish::default(), Ok(&[3, 9]));
}

/// Twelve nodes on random leaves below random spines, perhaps a core, perhaps blocks.
fn any_network() -> impl Strategy<Value = TopologyConfig> {
    let homes = prop::collection::vec(0usize..5, 12);
    let spines = prop::collection::vec(0usize..3, 5);
    let blocks = prop::collection::vec(0usize..4, 12);
    (homes, spines, any::<bool>(), blocks, any::<bool>()).prop_map(
        |(homes, spines, core, in_block, with_blocks)| {
            let of = |at: usize, homes: &[usize]| -> Vec<u32> {
                (0u32..).zip(homes).filter(|(_, home)| **home == at).map(|(n, _)| n).collect()
            };
            let mut config = TopologyConfig::default();
            for spine in 0..3 {
                let below: Vec<String> = (0..5)
                    .filter(|at| spines[*at] == spine && homes.contains(at))
                    .map(|at| format!("leaf{at}"))
                    .collect();
                if !below.is_empty() {
                    config.switches.push(above(spine, below));
                }
            }
            if core {
                let tops: Vec<String> =
                    config.switches.iter().map(|s| s.name.to_string()).collect();
                config.switches.push(above(9, tops));
            }
            let leaves = (0..5).map(|at| leaf(at, of(at, &homes)));
            config.switches.extend(leaves.filter(|leaf| !leaf.nodes.is_empty()));
            if with_blocks {
                // Nodes of the fourth group are in no block.
                let blocks = (0..3).map(|at| block(at, of(at, &in_block)));
                config.blocks.extend(blocks.filter(|block| !block.nodes.is_empty()));
            }
            config
        },
    )
}

/// The lowest switch above all of these nodes: its level, and the fitting nodes below it.
fn over(topology: &Topology, nodes: &[NodeId], fits: &NodeSet) -> Option<(usize, usize)> {
    let holds = |range: &Range<u32>, n: NodeId| range.contains(&topology.leaf_of[n.0 as usize]);
    for (height, level) in topology.levels.iter().enumerate() {
        for switch in level {
            if nodes.iter().all(|n| holds(&switch.leaves, *n)) {
                let below = fits.iter().filter(|n| holds(&switch.leaves, *n)).count();
                return Some((height, below));
            }
        }
    }
    None
}

/// Whether NVLink joins these nodes, whatever switches they hang on.
fn in_one_block(topology: &Topology, nodes: &[NodeId]) -> bool {
    let of: BTreeSet<u32> = nodes.iter().map(|n| topology.block_of[n.0 as usize]).collect();
    of.len() == 1 && !of.contains(&NOWHERE)
}

/// Every set of `wanted` of the fitting nodes that the wish admits.
fn admitted(
    topology: &Topology,
    fits: &NodeSet,
    wanted: usize,
    wish: &Wish<'_>,
) -> Vec<Vec<NodeId>> {
    let of = |n: &NodeId| match topology.blocks.is_empty() {
        true => topology.leaf_of[n.0 as usize],
        false => topology.block_of[n.0 as usize],
    };
    let sound = |nodes: &Vec<NodeId>| {
        let mut groups: BTreeMap<u32, usize> = BTreeMap::new();
        nodes.iter().for_each(|n| *groups.entry(of(n)).or_default() += 1);
        let cut = |segment: u32| {
            !groups.contains_key(&NOWHERE)
                && groups.values().all(|count| count.is_multiple_of(segment as usize))
        };
        nodes.len() == wanted
            && (over(topology, nodes, fits).is_some()
                || (wish.segment.is_none() && in_one_block(topology, nodes)))
            && wish.required.iter().all(|n| nodes.contains(n))
            && wish.switches.is_none_or(|m| topology.leaves_of(nodes.iter().copied()) <= m as usize)
            && wish.segment.is_none_or(cut)
    };
    let words: Vec<u32> = fits.iter().map(|n| n.0).collect();
    (0u32..1 << words.len())
        .filter(|mask| mask.count_ones() as usize == wanted)
        .map(|mask| {
            let members = (0..words.len()).filter(|at| mask >> at & 1 == 1);
            members.map(|at| NodeId(words[at])).collect()
        })
        .filter(sound)
        .collect()
}

proptest! {
    #[test]
    fn the_nearest_nodes_are_found_if_there_are_any(
        config in any_network(),
        mask in any::<u16>(),
        wanted in 1usize..9,
        switches in prop::option::of(1u32..4),
        segment in prop::option::of(1u32..4),
        required in prop::collection::btree_set(0u32..12, 0..3),
    ) {
        let topology = compile(&config, 12);
        prop_assert!(!topology.is_empty());
        let members: Vec<u32> = (0..12).filter(|n| mask >> n & 1 == 1).collect();
        let fits = set(12, &members);
        let required: Vec<NodeId> =
            required.into_iter().map(NodeId).filter(|n| fits.contains(*n)).collect();
        let wish = Wish { switches, segment, required: &required, ..Wish::default() };
        let all = admitted(&topology, &fits, wanted, &wish);
        let in_one = |nodes: &[NodeId]| in_one_block(&topology, nodes);
        match choose(&topology, &fits, wanted, &wish) {
            Ok(nodes) => {
                let mut sorted = nodes.clone();
                sorted.sort_unstable();
                prop_assert!(all.contains(&sorted), "{:?} is not admitted", nodes);
                let leaves = |nodes: &[NodeId]| topology.leaves_of(nodes.iter().copied());
                if segment.is_none() {
                    let ranks: Vec<u32> = nodes.iter().map(|n| topology.rank[n.0 as usize]).collect();
                    prop_assert!(ranks.is_sorted());
                    let one = in_one(&nodes);
                    prop_assert_eq!(one, all.iter().any(|nodes| in_one(nodes)) , "one block");
                    let grade = |nodes: &[NodeId]| {
                        let (height, below) = over(&topology, nodes, &fits).unwrap();
                        (height, leaves(nodes), below - wanted)
                    };
                    if !one {
                        let best = all.iter().map(|nodes| grade(nodes)).min();
                        prop_assert_eq!(Some(grade(&nodes)), best);
                    }
                } else if switches.is_none() {
                    let height = |nodes: &[NodeId]| over(&topology, nodes, &fits).unwrap().0;
                    let best = all.iter().map(|nodes| height(nodes)).min();
                    prop_assert_eq!(Some(height(&nodes)), best);
                }
                prop_assert_eq!(choose(&topology, &fits, wanted, &wish), Ok(nodes));
            }
            // Segments on few leaves are sought among those on few blocks only.
            Err(_) if segment.is_some() && switches.is_some() => {}
            Err(fault) => prop_assert!(all.is_empty(), "{fault} though {:?} would do", all[0]),
        }
    }
}

#[test]
fn a_config_that_is_not_sound_compiles_to_none() {
    let twice = TopologyConfig { switches: vec![leaf(0, 0..2), leaf(0, 2..4)], blocks: Vec::new() };
    assert!(compile(&twice, 4).is_empty());
    let mut loops = sixteen();
    loops.switches[1].switches = vec!["top9".into()];
    assert!(compile(&loops, 16).is_empty());
}

#[test]
fn levels_count_from_the_leaves_however_uneven_the_tree_is() {
    let mut config = sixteen();
    config.switches.push(leaf(7, [16, 17]));
    config.switches[0].switches.push("leaf7".into());
    let topology = compile(&config, 18);
    let names = |level: usize| -> Vec<&str> {
        topology.levels[level].iter().map(|switch| &*switch.name).collect()
    };
    assert_eq!(names(0), ["leaf0", "leaf1", "leaf2", "leaf3", "leaf7"]);
    assert_eq!(names(1), ["top0", "top1"]);
    assert_eq!(names(2), ["top9"]);
    assert_eq!(topology.levels[2][0].leaves, 0..5);
    assert_eq!(topology.leaf_name(topology.leaf_of[17]), Some("leaf7"));
}

//! Topologies that are sound, and those that are refused and why.

use super::*;

fn names(list: &str) -> Vec<Box<str>> {
    Hostlist::parse(list).unwrap().0.into_iter().map(Into::into).collect()
}

fn switch(name: &str, nodes: &str, switches: &str) -> SwitchConfig {
    SwitchConfig { name: name.into(), nodes: names(nodes), switches: names(switches), rails: 1 }
}

fn block(name: &str, nodes: &str) -> BlockConfig {
    BlockConfig { name: name.into(), nodes: names(nodes) }
}

/// Eight nodes on four leaves below two spines below a core; two blocks.
fn tree() -> TopologyConfig {
    TopologyConfig {
        switches: vec![
            switch("core", "", "spine[1-2]"),
            switch("spine1", "", "leaf[1-2]"),
            switch("spine2", "", "leaf[3-4]"),
            switch("leaf1", "n[1-2]", ""),
            switch("leaf2", "n[3-4]", ""),
            switch("leaf3", "n[5-6]", ""),
            switch("leaf4", "n[7-8]", ""),
        ],
        blocks: vec![block("b1", "n[1-4]"), block("b2", "n[5-8]")],
    }
}

fn graph(config: &TopologyConfig, nodes: &str) -> Result<TopologyGraph, BadTopology> {
    config.graph(names(nodes).iter().map(|n| &**n))
}

#[track_caller]
fn check(change: impl FnOnce(&mut TopologyConfig), fault: &str) {
    let mut config = tree();
    change(&mut config);
    let said = graph(&config, "n[1-8]").expect_err("the topology is faulty").to_string();
    assert_eq!(said, fault);
}

#[test]
fn a_tree_tells_who_hangs_where_and_how_far_nodes_are_apart() {
    let config = tree();
    let graph = graph(&config, "n[1-8]").unwrap();
    assert_eq!(graph.roots(), [0]);
    assert_eq!(graph.below(0), [1, 2]);
    let path: Vec<_> = graph.path(&config, "n5").iter().map(ToString::to_string).collect();
    assert_eq!(path, ["core", "spine2", "leaf3"]);
    assert_eq!(config.nodes_below(&graph, 2), names("n[5-8]"));
    let distances = ["n1", "n2", "n3", "n5"].map(|n| graph.distance("n1", n));
    assert_eq!(distances, [Some(0), Some(1), Some(3), Some(5)]);
    assert_eq!(graph.distance("n1", "n9"), None);
}

#[test]
fn nodes_without_a_common_switch_have_no_distance() {
    let mut config = tree();
    config.switches.remove(0);
    let graph = graph(&config, "n[1-8]").unwrap();
    assert_eq!(graph.roots(), [0, 1]);
    assert_eq!((graph.distance("n1", "n3"), graph.distance("n1", "n5")), (Some(3), None));
}

#[test]
fn every_fault_names_what_is_wrong() {
    check(|c| c.switches.push(switch("leaf1", "n1", "")), "switch \"leaf1\" is configured twice");
    check(|c| c.blocks.push(block("b1", "")), "block \"b1\" is configured twice");
    check(|c| c.switches[3].nodes.clear(), "switch \"leaf1\" has neither nodes nor switches");
    check(
        |c| c.switches[1].nodes = names("n1"),
        "switch \"spine1\" has both nodes and switches: put the nodes on a switch of their own",
    );
    check(
        |c| c.switches[3].nodes = names("n[1-2],x"),
        "switch \"leaf1\": node \"x\" is not configured",
    );
    check(|c| c.blocks[1].nodes = names("y"), "block \"b2\": node \"y\" is not configured");
    check(
        |c| c.switches[0].switches = names("spine[1-3]"),
        "switch \"core\": switch \"spine3\" is not configured",
    );
    check(
        |c| c.switches[4].nodes = names("n[2-4]"),
        "node \"n2\" is in two switches, \"leaf1\" and \"leaf2\"",
    );
    check(
        |c| c.blocks[1].nodes = names("n[4-8]"),
        "node \"n4\" is in two blocks, \"b1\" and \"b2\"",
    );
    check(
        |c| c.switches[2].switches = names("leaf[2-4]"),
        "switch \"leaf2\" hangs on two switches, \"spine1\" and \"spine2\"",
    );
    check(
        |c| c.switches[3].nodes = names("n1"),
        "node \"n2\" is in no switch, though switches are configured",
    );
}

#[test]
fn a_loop_is_named_all_the_way_round() {
    let mut config = tree();
    config.switches[1].switches = names("spine2");
    config.switches[2].switches = names("spine3");
    config.switches[0].switches = names("leaf[1-4]");
    config.switches.push(switch("spine3", "", "spine1"));
    let said = graph(&config, "n[1-8]").expect_err("a loop").to_string();
    let ways = ["spine1 > spine2 > spine3", "spine2 > spine3 > spine1", "spine3 > spine1 > spine2"];
    let loops = ways.map(|way| format!("the switches form a loop: {way} > {}", &way[..6]));
    assert!(loops.contains(&said), "{said}");
    let own = TopologyConfig { switches: vec![switch("a", "", "a")], blocks: Vec::new() };
    let said = graph(&own, "").expect_err("a loop").to_string();
    assert_eq!(said, "the switches form a loop: a > a");
}

#[test]
fn blocks_alone_may_leave_nodes_out() {
    let mut config = tree();
    config.switches.clear();
    let graph = graph(&config, "n[1-9]").unwrap();
    assert_eq!(graph.leaf("n1"), None);
    let dot = config.dot(&graph);
    assert!(dot.contains("subgraph cluster_1") && dot.contains("label=\"n9\""), "{dot}");
}

#[test]
fn the_drawing_has_a_box_for_each_leaf_and_block() {
    let mut config = tree();
    config.blocks = vec![block("b1", "n[1-3]")];
    config.switches[3].rails = 8;
    let dot = config.dot(&graph(&config, "n[1-8]").unwrap());
    for part in [
        "digraph topology {",
        "s3 [label=\"leaf1\\n8 rails\"",
        "label=\"b1\"",
        "[label=\"n[1-2]\"]",
        "[label=\"n3\"]",
        "[label=\"n4\"]",
        "s0 -> s1;",
        "s2 -> s6;",
    ] {
        assert!(dot.contains(part), "{part} in\n{dot}");
    }
    assert_eq!(dot.matches("-> h").count(), 5);
}

#[test]
fn an_address_leads_from_the_top_to_the_node() {
    let both = |config: &TopologyConfig, node: &str| {
        let (address, pattern) = config.address(node);
        format!("{address} {pattern}")
    };
    let mut config = tree();
    assert_eq!(both(&config, "n5"), "core.spine2.leaf3.n5 switch.switch.switch.node");
    config.switches.clear();
    assert_eq!(both(&config, "n5"), "b2.n5 block.node");
    assert_eq!(both(&config, "n9"), "n9 node");
}

//! Nodes that come, fall silent, disagree, and are looked after.

use super::*;
use crate::command::{NodeChange, NodeVerb, PartitionChange};

fn lose(w: &mut World, name: &str) {
    let node = w.node(name);
    w.wish(Command::NodeLost { node }).expect("lost");
}

fn verb(w: &mut World, actor: Actor, name: &str, verb: NodeVerb) -> Result<Reply, Rejection> {
    let nodes = vec![w.node(name)];
    let change = NodeChange { verb: Some(verb), ..NodeChange::default() };
    w.wish(Command::UpdateNodes { actor, nodes, change })
}

fn usable(w: &World) -> Vec<&str> {
    let nodes = w.state.nodes.iter().filter(|n| n.usable());
    nodes.map(|n| &*n.config.name).collect()
}

fn half_inventory(w: &World, name: &str) -> Inventory {
    let mut capacity = w.state.node_named(name).expect("known").config.capacity.clone();
    capacity.cpus /= 2;
    Inventory { capacity, boot_id: "b1".into(), ..Inventory::default() }
}

#[test]
fn a_lost_node_gives_its_jobs_back_to_the_queue() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.submit(|spec, _| spec.requeue = Some(false));
            w.pass();
            w.run_all();
            lose(w, "n1");
            assert_eq!(usable(w), ["n2", "n3", "n4"]);
            assert_eq!(w.describe(), "1 waits None\n2 ended NodeFail(n1)");
            w.pass();
        },
        &["1 launches on n2", "2 ended NodeFail(n1)"],
    );
}

#[test]
fn a_silent_node_that_returns_is_usable_again_but_an_admins_down_stays() {
    check(
        World::new(),
        |w| {
            lose(w, "n1");
            w.register("n1");
            assert_eq!(usable(w).len(), 4);
            let down = NodeVerb::Down { reason: "smoke".into() };
            verb(w, OP, "n1", down).expect("taken down");
            lose(w, "n1");
            w.register("n1");
            assert_eq!(usable(w).len(), 3);
            verb(w, OP, "n1", NodeVerb::Resume).expect("resumed");
            assert_eq!(usable(w).len(), 4);
        },
        &[],
    );
}

#[test]
fn a_node_with_less_than_configured_is_drained_until_it_agrees() {
    check(
        World::new(),
        |w| {
            let node = w.node("n1");
            let half = Box::new(half_inventory(w, "n1"));
            w.wish(Command::Register { node, inventory: half }).expect("registers");
            let reason = |w: &World| {
                w.state.node_named("n1").and_then(|n| n.health.drain.clone()).map(|m| m.reason)
            };
            assert!(reason(w).expect("drained").contains("4 CPUs of 8"));
            w.register("n1");
            assert_eq!(reason(w), None);
            verb(w, OP, "n1", NodeVerb::Drain { reason: "disk".into() }).expect("drained");
            w.register("n1");
            assert_eq!(reason(w).as_deref(), Some("disk"), "an operator's drain is not lifted");
        },
        &[],
    );
}

#[test]
fn a_drained_node_keeps_its_jobs_and_takes_no_more() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            refused(verb(w, ALICE, "n1", NodeVerb::Drain { reason: "x".into() }), "operator");
            refused(verb(w, OP, "n1", NodeVerb::Drain { reason: " ".into() }), "reason");
            verb(w, OP, "n1", NodeVerb::Drain { reason: "disk".into() }).expect("drained");
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 launches on n1", "2 launches on n2"],
    );
}

#[test]
fn taking_a_node_down_stops_what_runs_there() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            verb(w, OP, "n1", NodeVerb::Down { reason: "smoke".into() }).expect("down");
            assert!(w.describe().contains("completes NodeFail"));
            w.clear();
            w.pass();
        },
        &["1 launches on n2"],
    );
}

#[test]
fn a_job_whose_nodes_are_out_says_so() {
    check(
        World::new(),
        |w| {
            w.submit(|_, request| request.required_nodes = vec!["n4".into()]);
            lose(w, "n4");
            w.pass();
        },
        &["1 waits ReqNodeNotAvail"],
    );
}

#[test]
fn closed_partitions_take_or_start_nothing() {
    let to = |state| PartitionChange { state: Some(state), ..PartitionChange::default() };
    let change = |w: &mut World, actor, state| {
        w.wish(Command::UpdatePartition { actor, name: "main".into(), change: to(state) })
    };
    check(
        World::new(),
        |w| {
            refused(change(w, OP, PartitionState::Down), "admin");
            change(w, ADMIN, PartitionState::Down).expect("changed");
            w.submit(|_, _| {});
            assert_eq!(w.pass(), 0);
        },
        &["1 waits PartitionDown"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            change(w, ADMIN, PartitionState::Drain).expect("changed");
            refused(w.try_submit(|_, _| {}), "takes no new jobs (state drain)");
            assert_eq!(w.pass(), 1);
        },
        &["1 launches on n1"],
    );
}

#[test]
fn a_reconfigure_keeps_ids_and_jobs() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            let facts = w.log.len();
            w.wish(Command::Configure(Box::new(config()))).expect("the same");
            assert_eq!(w.log.len(), facts, "nothing new is no fact");
            let mut new = config();
            new.nodes.remove(1);
            new.nodes.insert(0, node("n0", 2, 0, &[]));
            new.partitions[0].nodes = ["n0", "n1", "n3", "n4"].map(Into::into).to_vec();
            w.wish(Command::Configure(Box::new(new))).expect("configured");
            assert_eq!((w.node("n1"), w.node("n0")), (NodeId(0), NodeId(4)));
            assert_eq!(w.state.node_id("n2"), None);
            let mut bad = config();
            bad.partitions[0].nodes.push("n99".into());
            refused(w.wish(Command::Configure(Box::new(bad))), "n99");
        },
        &["1 runs on n1"],
    );
}

//! GPUs that are found, fail, are taken out and come back.

use super::*;
use crate::command::{GpuFault, GpuVerb, NodeChange, NodeVerb};
use crate::config::ClusterConfig;
use muster_model::GresScope;

fn fault(gpu: u8, reason: &str, stays: bool, at: Timestamp) -> GpuFault {
    GpuFault { gpu, reason: reason.into(), stays, at }
}

fn report(w: &mut World, faults: &[GpuFault]) {
    let node = w.node("n1");
    w.wish(Command::GpuReport { node, faults: faults.to_vec() }).expect("told");
}

fn gpus_of_n1(w: &mut World, verb: GpuVerb, gpus: &[u8]) -> Result<Reply, Rejection> {
    let nodes = vec![w.node("n1")];
    w.wish(Command::UpdateGpus { actor: OP, nodes, gpus: gpus.to_vec(), verb })
}

/// Units of n1 that take no work, with the reason.
fn out(w: &World) -> Vec<String> {
    let node = w.state.node_named("n1").expect("known");
    node.health.gpus.iter().map(|(unit, m)| format!("{unit} {}", m.mark.reason)).collect()
}

fn ask_for(w: &mut World, gpus: u64) -> JobId {
    w.submit(|_, request| {
        request.required_nodes = vec!["n1".into()];
        let kind = GresKind::new("gpu", None);
        request.gres = vec![GresRequest { kind, count: gpus, scope: GresScope::Node }];
    })
}

/// A world whose n1 has eight GPUs.
fn eight() -> World {
    let mut w = World::new();
    let mut config = config();
    config.nodes[0] = node("n1", 16, 8, &[]);
    w.wish(Command::Configure(Box::new(config))).expect("configured");
    w.register("n1");
    w
}

#[test]
fn a_bad_gpu_takes_no_work_and_the_others_do() {
    check(
        eight(),
        |w| {
            let now = w.now;
            report(w, &[fault(3, "Xid 79", true, now)]);
            report(w, &[fault(3, "Xid 79", true, now)]);
            assert_eq!(out(w), ["3 Xid 79"]);
            ask_for(w, 8);
            ask_for(w, 7);
            w.pass();
            let held = w.job(2).phase.allocation().expect("started").placement.slices[0].clone();
            assert_eq!(held.gres[0].mask, 0b1111_0111);
        },
        &["1 waits Resources", "2 launches on n1"],
    );
}

#[test]
fn what_passes_lifts_its_own_mark_and_what_stays_does_not() {
    check(
        eight(),
        |w| {
            let now = w.now;
            report(w, &[fault(1, "hot", false, now), fault(2, "Xid 48", true, now)]);
            report(w, &[]);
            assert_eq!(out(w), ["2 Xid 48"]);
            report(w, &[fault(2, "hot", false, now)]);
            assert_eq!(out(w), ["2 Xid 48"], "a lesser fault changes nothing");
            gpus_of_n1(w, GpuVerb::Resume, &[2]).expect("resumed");
            report(w, &[fault(2, "Xid 48", true, now)]);
            assert!(out(w).is_empty(), "the operator knew of it");
            w.wait(60);
            let later = w.now;
            report(w, &[fault(2, "Xid 48", true, later)]);
            assert_eq!(out(w), ["2 Xid 48"], "it happened again");
        },
        &[],
    );
}

#[test]
fn two_gpus_that_fail_for_good_drain_the_node_and_jobs_go_on() {
    check(
        eight(),
        |w| {
            ask_for(w, 8);
            w.pass();
            w.run(1);
            let now = w.now;
            report(w, &[fault(0, "Xid 79", true, now), fault(1, "hot", false, now)]);
            assert!(w.state.node_named("n1").expect("known").usable());
            report(w, &[fault(0, "Xid 79", true, now), fault(5, "lost", true, now)]);
            let drain = w.state.node_named("n1").and_then(|n| n.health.drain.clone());
            let reason = drain.expect("drained").reason;
            assert_eq!(&*reason, "2 GPUs failed: gpu 0: Xid 79; gpu 5: lost");
        },
        &["1 runs on n1"],
    );
}

#[test]
fn an_operators_mark_is_the_operators() {
    check(
        eight(),
        |w| {
            let drain = |reason: &str| GpuVerb::Drain { reason: reason.into() };
            refused(gpus_of_n1(w, drain(" "), &[1]), "reason");
            refused(gpus_of_n1(w, drain("fan"), &[8]), "has no GPU 8: it has 8");
            gpus_of_n1(w, drain("fan"), &[1]).expect("drained");
            report(w, &[]);
            let now = w.now;
            report(w, &[fault(1, "Xid 79", true, now)]);
            assert_eq!(out(w), ["1 fan"]);
            let nodes = vec![w.node("n1")];
            let resume =
                Command::UpdateGpus { actor: ALICE, nodes, gpus: vec![1], verb: GpuVerb::Resume };
            refused(w.wish(resume), "operator");
        },
        &[],
    );
}

fn found(w: &World, gpus: u64) -> Inventory {
    let mut capacity = w.state.node_named("n1").expect("known").config.capacity.clone();
    capacity.gres = [(GresKind::new("gpu", Some("a100")), gpus)].into_iter().collect();
    Inventory { capacity, boot_id: "b2".into(), ..Inventory::default() }
}

fn auto() -> ClusterConfig {
    let mut config = config();
    config.nodes[0] = node("n1", 16, 0, &[]);
    config.nodes[0].auto_gpus = true;
    config
}

#[test]
fn a_node_that_declares_none_has_the_gpus_that_are_found() {
    check(
        World::new(),
        |w| {
            let n1 = w.node("n1");
            let register = |w: &mut World, gpus| {
                let inventory = Box::new(found(w, gpus));
                w.wish(Command::Register { node: n1, inventory }).expect("registers");
            };
            let state = |w: &World| {
                let node = w.state.node_named("n1").expect("known");
                let gpus: u64 = node.config.capacity.gres.values().sum();
                (gpus, node.health.drain.as_ref().map(|mark| mark.reason.to_string()))
            };
            w.wish(Command::Configure(Box::new(auto()))).expect("configured");
            assert_eq!(state(w), (4, None), "it had registered as what was declared");
            let (actor, nodes) = (OP, vec![n1]);
            register(w, 4);
            assert!(state(w).1.expect("drained").contains("0 gpu:h100 of 4 (found: 4 gpu:a100)"));
            let change = NodeChange { verb: Some(NodeVerb::Resume), ..NodeChange::default() };
            w.wish(Command::UpdateNodes { actor, nodes, change }).expect("resumed");
            assert_eq!(state(w), (4, None));
            ask_for(w, 2);
            w.pass();
            let mut other = auto();
            other.limits.max_jobs = 77;
            w.wish(Command::Configure(Box::new(other))).expect("configured");
            assert_eq!(state(w), (4, None), "what was found stays found");
            register(w, 3);
            let (gpus, reason) = state(w);
            assert!(gpus == 4 && reason.expect("drained").contains("3 gpu:a100 of 4"));
            let (actor, nodes) = (OP, vec![n1]);
            let change = NodeChange { verb: Some(NodeVerb::Resume), ..NodeChange::default() };
            w.wish(Command::UpdateNodes { actor, nodes, change }).expect("resumed");
            assert_eq!(state(w), (3, None), "the operator takes it as it is");
        },
        &["1 launches on n1"],
    );
}

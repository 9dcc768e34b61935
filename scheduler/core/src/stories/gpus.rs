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
fn a_bad_gpu_of_a_running_job_is_promised_to_nobody() {
    check(
        eight(),
        |w| {
            let running = w.submit(|spec, request| {
                spec.time_limit = Some(TimeLimit::Limited(Seconds(600)));
                request.required_nodes = vec!["n1".into()];
                let kind = GresKind::new("gpu", None);
                request.gres = vec![GresRequest { kind, count: 6, scope: GresScope::Node }];
            });
            w.pass();
            w.run(running.0);
            let promised = |w: &World| {
                let policy = Policy { shadows: 10, ..Policy::easy() };
                let view = view(&w.state, w.now, &policy);
                let planned = plan(&view, &policy, w.now, DEFAULT_FUEL);
                planned.shadows.iter().map(|shadow| shadow.job.0).collect::<Vec<_>>()
            };
            ask_for(w, 8);
            ask_for(w, 7);
            assert_eq!(promised(w), [2, 3]);
            gpus_of_n1(w, GpuVerb::Drain { reason: "fan".into() }, &[1]).expect("drained");
            assert_eq!(promised(w), [3], "seven come back, of eight");
            gpus_of_n1(w, GpuVerb::Resume, &[1]).expect("resumed");
            assert_eq!(promised(w), [2, 3]);
        },
        &["1 runs on n1", "2 waits None", "3 waits None"],
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

/// A job on GPU `unit` of n1 that runs, and may run again.
fn on_n1(w: &mut World, requeue: Option<bool>) -> u32 {
    let job = w.submit(|spec, request| {
        spec.requeue = requeue;
        request.gres = vec![gpus(1, GresScope::Node)];
    });
    w.pass();
    w.run(job.0);
    assert_eq!(w.nodes_of(job.0), ["n1"]);
    job.0
}

#[test]
fn a_job_that_asks_for_it_runs_elsewhere_when_its_gpu_fails() {
    check(
        World::new(),
        |w| {
            on_n1(w, Some(true));
            on_n1(w, None);
            let now = w.now;
            report(w, &[fault(0, "hot", false, now)]);
            report(w, &[fault(0, "Xid 79", true, now), fault(1, "Xid 79", true, now)]);
            assert_eq!(w.job(1).spec.request.excluded_nodes, ["n1".into()]);
            w.clear();
            w.pass();
        },
        &["1 launches on n2", "2 runs on n1"],
    );
}

#[test]
fn a_program_that_dies_of_its_gpu_counts_as_hit_by_it() {
    check(
        World::new(),
        |w| {
            on_n1(w, None);
            on_n1(w, Some(true));
            let now = w.now;
            // The first holds GPU 0, which is well; what may pass is no excuse.
            report(w, &[fault(1, "hot", false, now)]);
            w.exit(2, 3);
            assert!(w.job(2).phase.is_ended(), "its own fault");
            on_n1(w, Some(true));
            let gpus_of = |w: &World| w.job(3).phase.allocation().map(|h| h.placement.clone());
            let held = gpus_of(w).expect("runs").slices[0].gres[0].mask.trailing_zeros();
            let node = w.node("n1");
            let at = w.now;
            let mark = muster_model::node::GpuMark {
                mark: muster_model::node::Mark { reason: "Xid 48".into(), by: None, at },
                lifts: false,
            };
            let gpu = u8::try_from(held).expect("few GPUs");
            let event = Event::GpuDrain { node, gpu, mark: Some(mark), at };
            apply(&mut w.state, &event);
            w.log.push(event);
            w.exit(3, 1);
            w.pass();
        },
        &["1 runs on n1", "2 ended Failed(3)", "3 launches on n2"],
    );
}

#[test]
fn a_job_that_only_one_node_can_serve_comes_back_to_it() {
    check(
        World::new(),
        |w| {
            let job = w.submit(|spec, request| {
                spec.requeue = Some(true);
                request.required_nodes = vec!["n1".into()];
                request.gres = vec![gpus(3, GresScope::Node)];
            });
            w.pass();
            w.run(job.0);
            let now = w.now;
            report(w, &[fault(2, "Xid 79", true, now)]);
            w.clear();
            w.pass();
            let held = w.job(job.0).phase.allocation().expect("again").placement.slices[0].clone();
            assert_eq!(held.gres[0].mask, 0b1011, "not with the GPU that failed");
        },
        &["1 launches on n1"],
    );
}

/// Registers a node's GPUs with these links, each of so many MiB.
fn tell(w: &mut World, name: &str, links: muster_model::GpuLinks, memory_mib: u64) {
    let node = w.node(name);
    let capacity = w.state.node(node).expect("known").config.capacity.clone();
    let gpu = muster_model::Gpu { of: "h100".into(), memory_mib, ..muster_model::Gpu::default() };
    let gpus = vec![gpu; usize::from(links.count)];
    let links = Some(std::sync::Arc::new(links));
    let inventory =
        Inventory { capacity, boot_id: "b1".into(), gpus, links, ..Inventory::default() };
    w.wish(Command::Register { node, inventory: Box::new(inventory) }).expect("registers");
}

/// Two pairs of bridged GPUs.
fn bridged() -> muster_model::GpuLinks {
    use muster_model::LinkClass::{NvLink, System};
    let pairs = [(0, 1, NvLink(4)), (2, 3, NvLink(4))];
    muster_model::GpuLinks::from_pairs(&[0, 0, 1, 1], System, &pairs)
}

fn constrained(request: &mut Request, text: &str, count: u64) {
    request.constraint = Some(muster_model::Constraint::parse(text).expect("valid"));
    request.gres = vec![gpus(count, GresScope::Node)];
}

#[test]
fn the_memory_of_gpus_chooses_nodes_and_what_no_node_has_is_refused() {
    check(
        World::new(),
        |w| {
            tell(w, "n1", bridged(), 46_068);
            tell(w, "n2", bridged(), 81_559);
            w.submit(|_, r| constrained(r, "gpu_mem>=80G&gpu", 1));
            w.submit(|_, r| constrained(r, "gpu_mem>=48G", 1));
            w.pass();
            refused(w.try_submit(|_, r| constrained(r, "gpu_mem>=141G", 1)), "gpu_mem>=141G");
            refused(w.try_submit(|_, r| constrained(r, "gpu_mem>=80G&ib", 1)), "none of its");
        },
        &["1 launches on n2", "2 launches on n1"],
    );
}

#[test]
fn joined_gpus_are_waited_for_and_refused_where_there_are_none() {
    let joined = |count| {
        move |_: &mut muster_model::JobSpec, r: &mut Request| {
            r.gres = vec![gpus(count, GresScope::Node)];
            r.topology.nvlink = true;
        }
    };
    check(
        World::new(),
        |w| {
            refused(w.try_submit(joined(2)), "2 GPUs joined by NVLink on a node and at most 1");
            tell(w, "n1", bridged(), 81_559);
            refused(w.try_submit(joined(3)), "3 GPUs joined by NVLink on a node and at most 2");
            // One of each pair is free: two, but not joined.
            let now = w.now;
            report(w, &[fault(0, "hot", false, now), fault(2, "hot", false, now)]);
            w.submit(|_, r| r.required_nodes = vec!["n2".into()]);
            w.submit(joined(2));
            w.pass();
            assert!(w.job(2).phase.is_pending(), "two are free and no two are joined");
            report(w, &[fault(0, "hot", false, now)]);
            w.pass();
            let held = w.job(2).phase.allocation().expect("started").placement.slices[0].clone();
            assert_eq!(held.gres[0].mask, 0b1100);
        },
        &["1 launches on n2", "2 launches on n1"],
    );
}

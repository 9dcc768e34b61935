//! Whole GPUs and instances of GPUs that were cut, in one cluster.

use super::*;
use muster_model::{Gpu, GresScope, MigInstance};

const INSTANCE: &str = "a100_3g.20gb";

/// n1 has `whole` A100 and `cut` instances of another, n2 four H100.
fn cluster(whole: u64, cut: u64) -> World {
    let mut w = World::new();
    let mut config = config();
    let kinds = [("a100", whole), (INSTANCE, cut)].into_iter().filter(|(_, count)| *count > 0);
    let gres = kinds.map(|(of, count)| (GresKind::new("gpu", Some(of)), count));
    config.nodes[0] = node("n1", 16, 0, &[]);
    config.nodes[0].capacity.gres = gres.collect();
    w.wish(Command::Configure(Box::new(config))).expect("configured");
    let capacity = w.state.node_named("n1").expect("known").config.capacity.clone();
    let of = |of: &str| Gpu { of: of.into(), ..Gpu::default() };
    let part = Gpu { mig: Some(MigInstance::default()), ..of(INSTANCE) };
    let gpus = std::iter::repeat_n(of("a100"), whole as usize)
        .chain(std::iter::repeat_n(part, cut as usize));
    let (boot_id, gpus) = ("b1".into(), gpus.collect());
    let inventory = Box::new(Inventory { capacity, boot_id, gpus, ..Inventory::default() });
    let node = w.node("n1");
    w.wish(Command::Register { node, inventory }).expect("registers");
    w.register("n2");
    w
}

/// A job of so many GPUs of any type.
fn any(w: &mut World, count: u64) -> JobId {
    let job = w.submit(|_, r| r.gres = vec![gpus(count, GresScope::Node)]);
    w.pass();
    job
}

/// Node, type and number of what a job holds, type after type.
fn held(w: &World, job: JobId) -> String {
    let allocation = w.job(job.0).phase.allocation().expect("started");
    let slice = &allocation.placement.slices[0];
    let node = &w.state.node(slice.node).expect("known").config.name;
    let kinds: Vec<String> = { slice.gres.iter() }
        .map(|gres| format!("{} {}", gres.kind.of.as_deref().unwrap_or("?"), gres.count))
        .collect();
    format!("{node} {}", kinds.join(" + "))
}

#[test]
fn a_job_that_names_no_type_gets_whole_gpus_while_there_are_any() {
    check(
        cluster(1, 1),
        |w| {
            // The first node that fits is n1, whose instance would do by number.
            let jobs: Vec<JobId> = [1, 1, 3].map(|count| any(w, count)).into();
            let of: Vec<String> = jobs.iter().map(|job| held(w, *job)).collect();
            assert_eq!(of, ["n1 a100 1", "n2 h100 1", "n2 h100 3"]);
            // Nothing else is left.
            let last = any(w, 1);
            assert_eq!(held(w, last), format!("n1 {INSTANCE} 1"));
        },
        &["1 launches on n1", "2 launches on n2", "3 launches on n2", "4 launches on n1"],
    );
}

#[test]
fn a_node_that_is_all_cut_comes_last_whatever_it_weighs() {
    check(
        cluster(0, 4),
        |w| {
            let spread = w.submit(|_, r| {
                r.nodes = NodeCount { min: 1, max: None };
                r.gres = vec![gpus(3, GresScope::Job)];
            });
            w.pass();
            assert_eq!(held(w, spread), "n2 h100 3");
            let named = w.submit(|_, r| {
                let kind = GresKind::new("gpu", Some(INSTANCE));
                r.gres = vec![GresRequest { kind, count: 1, scope: GresScope::Node }];
            });
            w.pass();
            assert_eq!(held(w, named), format!("n1 {INSTANCE} 1"));
            let (two, one) = (any(w, 2), any(w, 1));
            assert_eq!(held(w, two), format!("n1 {INSTANCE} 2"));
            assert_eq!(held(w, one), "n2 h100 1");
        },
        &["1 launches on n2", "2 launches on n1", "3 launches on n1", "4 launches on n2"],
    );
}

#[test]
fn instances_are_mixed_with_whole_gpus_where_neither_alone_would_do() {
    for (count, expected) in [
        (1, "n1 a100 1".to_owned()),
        (2, format!("n1 {INSTANCE} 2")),
        (4, format!("n1 a100 1 + {INSTANCE} 3")),
    ] {
        check(
            cluster(1, 3),
            |w| {
                w.submit(|_, r| {
                    r.required_nodes = vec!["n1".into()];
                    r.gres = vec![gpus(count, GresScope::Node)];
                });
                w.pass();
                assert_eq!(held(w, JobId(1)), expected);
            },
            &["1 launches on n1"],
        );
    }
}

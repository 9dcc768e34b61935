//! CPUs that must be near a job's GPUs.

use super::*;
use crate::config::ClusterConfig;
use muster_model::{CpuBinding, CpuSet, GpuLinks, GresScope, LinkClass};

/// One node of 16 CPUs and four GPUs: two NUMA nodes with half of both each.
fn two_halves() -> World {
    let mut w = World::new();
    let mut config: ClusterConfig = config();
    config.nodes[0] = node("n1", 16, 4, &[]);
    config.partitions.iter_mut().for_each(|p| p.nodes = vec!["n1".into()]);
    w.wish(Command::Configure(Box::new(config))).expect("configured");
    let id = w.node("n1");
    let capacity = w.state.node(id).expect("known").config.capacity.clone();
    let links = GpuLinks::from_pairs(&[0, 0, 1, 1], LinkClass::System, &[]);
    let halves = [0..8, 8..16].map(CpuSet::from_iter);
    let inventory = Inventory {
        capacity,
        boot_id: "b1".into(),
        gpus: vec![muster_model::Gpu { of: "h100".into(), ..muster_model::Gpu::default() }; 4],
        links: Some(Arc::new(links)),
        numa: halves.to_vec(),
        ..Inventory::default()
    };
    w.wish(Command::Register { node: id, inventory: Box::new(inventory) }).expect("registers");
    w
}

fn wanting(gpu_count: u64, cpus: u32, binding: CpuBinding) -> impl Fn(&mut JobSpec, &mut Request) {
    move |spec, r| {
        spec.time_limit = Some(TimeLimit::minutes(10));
        r.nodes.max = Some(1);
        r.cpus_per_task = cpus;
        r.topology.binding = binding;
        if gpu_count > 0 {
            r.gres = vec![gpus(gpu_count, GresScope::Node)];
        }
    }
}

/// CPUs and units of GPUs that a job has.
fn held(w: &World, job: u32) -> (String, u64) {
    let slice = &w.job(job).phase.allocation().expect("started").placement.slices[0];
    (slice.cpus.to_string(), slice.gres.iter().fold(0, |all, g| all | g.mask))
}

#[test]
fn a_job_waits_for_cpus_near_a_gpu_and_passes_over_gpus_that_have_none() {
    check(
        two_halves(),
        |w| {
            // CPUs 0 to 5 are taken, and then two GPUs of the other half.
            w.submit(wanting(0, 6, CpuBinding::Preferred));
            w.submit(wanting(1, 4, CpuBinding::Enforced));
            w.submit(wanting(1, 4, CpuBinding::Enforced));
            w.pass();
            assert_eq!(held(w, 2), ("8-11".to_owned(), 0b0100));
            assert_eq!(held(w, 3), ("12-15".to_owned(), 0b1000));
            w.submit(wanting(1, 4, CpuBinding::Enforced));
            w.pass();
            assert!(w.job(4).phase.is_pending(), "two CPUs near GPU 0 are free, and it needs 4");
            w.run(1);
            w.exit(1, 0);
            w.clear();
            w.pass();
            assert_eq!(held(w, 4).1, 0b0001);
        },
        &["1 ended Completed", "2 launches on n1", "3 launches on n1", "4 launches on n1"],
    );
}

#[test]
fn more_cpus_than_a_numa_node_has_need_a_gpu_of_each() {
    check(
        two_halves(),
        |w| {
            refused(
                w.try_submit(wanting(1, 12, CpuBinding::Enforced)),
                "it needs 12 CPUs near its 1 GPUs on a node and no node has them",
            );
            w.submit(wanting(2, 12, CpuBinding::Enforced));
            w.pass();
            assert_eq!(held(w, 1).1.count_ones(), 2);
            assert!(held(w, 1).1 & 0b0011 != 0 && held(w, 1).1 & 0b1100 != 0);
        },
        &["1 launches on n1"],
    );
}

#[test]
fn near_cpus_are_a_preference_unless_something_is_said() {
    check(
        two_halves(),
        |w| {
            w.submit(wanting(1, 12, CpuBinding::Preferred));
            w.pass();
            assert_eq!(held(w, 1), ("0-11".to_owned(), 0b0001));
            w.submit(wanting(1, 2, CpuBinding::Disabled));
            w.pass();
            assert_eq!(held(w, 2), ("12-13".to_owned(), 0b0010));
        },
        &["1 launches on n1", "2 launches on n1"],
    );
}

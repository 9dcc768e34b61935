//! CPUs that must be near a job's GPUs.

use super::*;
use crate::config::ClusterConfig;
use muster_model::{CpuBinding, CpuSet, GpuLinks, GresScope, LinkClass};

/// Nodes of 16 CPUs and four GPUs: two NUMA nodes with half of both each.
fn halved(names: &[&str]) -> World {
    let mut w = World::new();
    let mut config: ClusterConfig = config();
    for (known, name) in config.nodes.iter_mut().zip(names) {
        *known = node(name, 16, 4, &[]);
    }
    let all: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
    config.partitions.iter_mut().for_each(|p| p.nodes.clone_from(&all));
    w.wish(Command::Configure(Box::new(config))).expect("configured");
    for name in names {
        let id = w.node(name);
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
    }
    w
}

fn two_halves() -> World {
    halved(&["n1"])
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

#[test]
fn a_job_over_two_nodes_has_its_tasks_where_its_gpus_let_it() {
    check(
        halved(&["n1", "n2"]),
        |w| {
            let over_both = |gpu_count, tasks| {
                move |spec: &mut JobSpec, r: &mut Request| {
                    spec.time_limit = Some(TimeLimit::minutes(10));
                    r.nodes = NodeCount { min: 2, max: Some(2) };
                    (r.tasks, r.tasks_given) = (tasks, true);
                    r.topology.binding = CpuBinding::Enforced;
                    r.gres = vec![gpus(gpu_count, GresScope::Job)];
                }
            };
            // Two GPUs have 16 CPUs near them where they lie apart, the third has 8.
            w.submit(over_both(3, 24));
            refused(w.try_submit(over_both(3, 25)), "no 2 nodes have all that it needs at once");
            w.pass();
            let slices = &w.job(1).phase.allocation().expect("started").placement.slices;
            let mut held: Vec<(u64, u32, u32)> = slices
                .iter()
                .map(|s| (s.gres.iter().map(|g| g.count).sum(), s.tasks, s.cpus.len()))
                .collect();
            held.sort_unstable();
            assert_eq!(held, [(1, 8, 8), (2, 16, 16)]);
        },
        &["1 launches on n1,n2"],
    );
}

#[test]
fn a_promised_start_waits_for_the_very_cpus_near_the_gpus_that_will_be_free() {
    let lasting = |minutes: u32, wish: fn(&mut JobSpec, &mut Request)| {
        move |spec: &mut JobSpec, r: &mut Request| {
            wish(spec, r);
            spec.time_limit = Some(TimeLimit::minutes(minutes));
        }
    };
    check(
        two_halves(),
        |w| {
            // The CPUs of the first half for half an hour, the GPUs of the second for an hour, and the
            // other CPUs of the second for ten minutes.
            w.submit(lasting(30, |s, r| wanting(0, 8, CpuBinding::Preferred)(s, r)));
            w.pass();
            w.submit(lasting(60, |s, r| wanting(2, 1, CpuBinding::Enforced)(s, r)));
            w.pass();
            w.submit(lasting(10, |s, r| wanting(0, 7, CpuBinding::Preferred)(s, r)));
            w.pass();
            assert_eq!(held(w, 1).0, "0-7");
            assert_eq!(held(w, 2), ("8".to_owned(), 0b1100));
            assert_eq!(held(w, 3).0, "9-15");
            (1..=3).for_each(|job| w.run(job));
            let begun = w.now;
            let promised = |w: &World| {
                let policy = Policy { shadows: 10, ..Policy::easy() };
                let view = view(&w.state, w.now, &policy);
                let shadows = plan(&view, &policy, w.now, DEFAULT_FUEL).shadows;
                let minutes = |at: Timestamp| (at.0 - begun.0) / 60_000;
                shadows.iter().map(|s| (s.job.0, minutes(s.start))).collect::<Vec<_>>()
            };
            w.submit(wanting(1, 6, CpuBinding::Enforced));
            assert_eq!(
                promised(w),
                [(4, 30)],
                "not when there are CPUs, but when there are near ones"
            );
            w.submit(wanting(1, 6, CpuBinding::Preferred));
            assert_eq!(promised(w), [(4, 30), (5, 10)]);
        },
        &["1 runs on n1", "2 runs on n1", "3 runs on n1", "4 waits None", "5 waits None"],
    );
}

//! Against the demand that the request comes to.

use muster_model::{GresRequest, NodeCount, TopologyWish};
use proptest::prelude::*;

use super::*;
use crate::plan::ask::Ask;
use crate::plan::axes::Axes;
use crate::plan::demand::Demand;
use crate::state::Facts;
use crate::stories;

fn partition(min_nodes: u32, max_nodes: Option<u32>, exclusive: bool) -> Partition {
    let default_memory_per_node_mib = Some(7);
    let plain = stories::partition("main", &[], true);
    Partition { min_nodes, max_nodes, exclusive, default_memory_per_node_mib, ..plain }
}

/// A node with GPUs of two types and one other kind, so that a type has an axis of its own.
fn node() -> Facts {
    let kinds = [("gpu", Some("a100")), ("gpu", Some("h100")), ("fpga", None)];
    let gres = kinds.map(|(name, of)| (GresKind::new(name, of), 4)).into_iter().collect();
    let mut config = stories::node("n1", 64, 0, &[]);
    config.capacity.gres = gres;
    Facts::new(&config, None)
}

prop_compose! {
    fn wishes()(
        (name, of) in prop::sample::select(vec![
            ("gpu", None), ("gpu", Some("h100")), ("fpga", None),
        ]),
        count in 0u64..6,
        scope in prop::sample::select(vec![
            GresScope::Node, GresScope::Task, GresScope::Job, GresScope::Socket,
        ]),
    ) -> GresRequest {
        GresRequest { kind: GresKind::new(name, of), count, scope }
    }
}

prop_compose! {
    fn requests()(
        (min, max) in (0u32..5, prop::option::of(1u32..5)),
        (tasks, tasks_given) in (0u32..9, any::<bool>()),
        tasks_per_node in prop::option::of(0u32..4),
        (cpus_per_task, min_cpus_per_node) in (0u32..5, 0u32..5),
        memory in prop_oneof![
            Just(MemoryRequest::Default),
            (0u64..9).prop_map(MemoryRequest::PerNode),
            (0u64..9).prop_map(MemoryRequest::PerCpu),
            (0u64..9).prop_map(MemoryRequest::PerGpu),
        ],
        gres in prop::collection::vec(wishes(), 0..=2),
        cpus_per_gpu in prop::option::of(0u32..5),
        exclusive in prop::bool::weighted(0.1),
        contiguous in prop::bool::weighted(0.1),
        alone in prop::bool::weighted(0.1),
        sockets_per_node in prop::option::weighted(0.1, 1u32..3),
    ) -> Request {
        Request {
            nodes: NodeCount { min, max: max.or(Some(min)) },
            tasks,
            tasks_given,
            tasks_per_node,
            cpus_per_task,
            min_cpus_per_node,
            memory,
            gres,
            cpus_per_gpu,
            exclusive,
            contiguous,
            sockets_per_node,
            topology: TopologyWish { alone, ..TopologyWish::default() },
            ..stories::request()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_a_glance_sees_is_all_that_the_request_comes_to(
        request in requests(),
        min_nodes in 0u32..3,
        max_nodes in prop::option::of(1u32..5),
        exclusive in prop::bool::weighted(0.1),
    ) {
        let partition = partition(min_nodes, max_nodes, exclusive);
        let Some(plain) = Plain::of(&request, &partition) else { return Ok(()) };
        let facts = node();
        let axes = Axes::of([&facts].into_iter());
        let demand = Demand::new(Ask::new(&request, &partition), &axes).expect("known kinds");
        let uniform = demand.uniform().expect("even parts");
        prop_assert!(uniform.only && !demand.ask.looks_inside() && !demand.follows_node());
        prop_assert!(demand.takes_any_nature());
        prop_assert_eq!(uniform.nodes, plain.nodes);
        let whole = vec![1000; axes.len()];
        let mut wanted = Amounts::new();
        demand.amounts(uniform.tasks, &uniform.shares, &whole, &mut wanted);
        let of_kind = plain.kind.map(|kind| axes.of_kind(kind).expect("a known kind"));
        let mut seen = plain.amounts(&of_kind.unwrap_or_default());
        seen.retain(|(_, n)| *n > 0);
        prop_assert_eq!(seen, wanted);
    }
}

#[test]
fn plain_requests_are_seen_as_such() {
    let partition = partition(1, None, false);
    let of = |nodes: u32, gpus: u64| Request {
        nodes: NodeCount { min: nodes, max: Some(nodes) },
        tasks: nodes,
        tasks_given: true,
        memory: MemoryRequest::PerGpu(1024),
        gres: vec![GresRequest {
            kind: GresKind::new("gpu", None),
            count: gpus,
            scope: GresScope::Node,
        }],
        cpus_per_gpu: Some(6),
        ..stories::request()
    };
    let request = of(4, 8);
    let kind = Some(&request.gres[0].kind);
    let plain = Plain { nodes: 4, cpus: 48, memory_mib: 8192, kind, units: 8 };
    assert_eq!(Plain::of(&request, &partition), Some(plain));
    let alone = Request { exclusive: true, ..of(4, 8) };
    assert_eq!(Plain::of(&alone, &partition), None);
}

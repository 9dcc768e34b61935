//! Against every way to spread a job over some nodes.

use std::sync::Arc;

use muster_model::{Capacity, CpuSet, GpuLinks, GresKind, LinkClass, NodeConfig};
use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::plan::axes::Axes;
use crate::plan::fits::could_serve;
use crate::plan::units::UnitTable;
use crate::state::{Node, Wiring};

/// GPUs and CPUs of each of two NUMA nodes.
type Halves = [(u8, u32); 2];

fn node(at: u32, halves: Halves) -> Node {
    let cpus = halves.iter().map(|(_, cpus)| cpus).sum();
    let gpus = halves.iter().map(|(gpus, _)| u64::from(*gpus)).sum();
    let gres = [(GresKind::new("gpu", Some("h100")), gpus)].into_iter().collect();
    let config = NodeConfig {
        name: format!("n{at}").into(),
        capacity: Capacity { cpus, memory_mib: 1, gres },
        sockets: 1,
        cores_per_socket: cpus,
        threads_per_core: 1,
        features: Vec::new(),
        auto_gpus: false,
        weight: 1,
    };
    let numa: Vec<u8> =
        (0..2).flat_map(|half| vec![half; usize::from(halves[usize::from(half)].0)]).collect();
    let first = halves[0].1;
    let wiring = Wiring {
        table: UnitTable::new(GpuLinks::from_pairs(&numa, LinkClass::System, &[])),
        numa: [0..first, first..cpus].map(CpuSet::from_iter).to_vec(),
    };
    Node { wiring: Some(Arc::new(wiring)), ..Node::new(NodeId(at), config) }
}

fn ask(nodes: (u32, u32), tasks: u32, cpus: u32, gpus: u64, binding: CpuBinding) -> Ask {
    Ask {
        min_nodes: nodes.0,
        max_nodes: Some(nodes.1),
        cpus_per_task: cpus,
        binding,
        job_gres: smallvec![(GresKind::new("gpu", None), gpus)],
        ..Ask::of_tasks(tasks)
    }
}

/// Whether some of these nodes can have the rest of a job: so many nodes, units and tasks.
fn any(holds: &[Vec<(u64, u32)>], nodes: (u32, u32), units: u64, tasks: u32) -> bool {
    let Some((here, rest)) = holds.split_first() else {
        return nodes.0 == 0 && units == 0 && tasks == 0;
    };
    let less = |n: u32| n.saturating_sub(1);
    any(rest, nodes, units, tasks)
        || nodes.1 > 0
            && here.iter().any(|(s, t)| {
                *s <= units
                    && *t <= tasks
                    && any(rest, (less(nodes.0), nodes.1 - 1), units - s, tasks - t)
            })
}

#[track_caller]
fn agrees(kinds: &[Halves], ask: Ask) -> bool {
    let nodes: Vec<Node> = (0..).zip(kinds).map(|(at, halves)| node(at, *halves)).collect();
    let members: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    let axes = Axes::of(nodes.iter().map(|node| &*node.facts));
    let demand = Demand::new(ask, &axes).expect("there are GPUs");
    let (tasks, units) = (demand.ask.tasks.unwrap_or(0), demand.ask.job_gres[0].1);
    let holds = |node: &Node| -> Vec<(u64, u32)> {
        let all = (1..=units).flat_map(|s| (1..=tasks).map(move |t| (s, t)));
        let (whole, mut amounts) = (axes.whole(node.id), Amounts::new());
        let mut fits = |(s, t): &(u64, u32)| {
            demand.amounts(*t, &[*s], whole, &mut amounts);
            amounts.iter().all(|(axis, n)| whole[*axis] >= *n)
                && demand.binds((*t, &[*s]), &node.facts, &node.free, node.wiring.as_deref())
        };
        all.filter(|part| fits(part)).collect()
    };
    let holds: Vec<Vec<(u64, u32)>> = nodes.iter().map(holds).collect();
    let range = (demand.ask.min_nodes, demand.ask.max_nodes.unwrap_or(u32::MAX));
    let expected = any(&holds, range, units, tasks);
    assert_eq!(
        could_serve(&demand, &axes, &nodes, &members),
        expected,
        "{kinds:?} {:?}",
        demand.ask
    );
    expected
}

#[test]
fn more_gpus_on_one_node_may_be_what_lets_its_tasks_have_near_cpus() {
    let halves = [(1, 8), (1, 8)];
    let bound = |tasks| ask((2, 2), tasks, 1, 3, CpuBinding::Enforced);
    assert!(agrees(&[halves; 2], bound(24)), "16 tasks with two GPUs, and 8 with one");
    assert!(!agrees(&[halves; 2], bound(25)));
    // One node has the GPUs, the other the CPUs: the two with most GPUs are not the two to take.
    let unlike = [[(4, 4), (0, 0)], [(4, 4), (0, 0)], [(2, 16), (0, 0)]];
    assert!(agrees(&unlike, ask((2, 2), 20, 1, 5, CpuBinding::Preferred)));
}

proptest! {
    #[test]
    fn whatever_can_be_spread_is_spread(
        kinds in prop::collection::vec([(0u8..3, 0u32..6), (1u8..3, 1u32..6)], 1..4),
        (least, more) in (1u32..4, 0u32..2),
        (tasks, cpus, gpus) in (0u32..16, 1u32..4, 1u64..9),
        enforced in prop::bool::ANY,
    ) {
        let binding = if enforced { CpuBinding::Enforced } else { CpuBinding::Preferred };
        let tasks = tasks + least + more;
        agrees(&kinds, ask((least, least + more), tasks, cpus, gpus, binding));
    }
}

#[test]
fn weighing_is_paid_for_and_says_nothing_where_the_fuel_does_not_reach() {
    let cap = |at: u32| Cap { node: NodeId(at), tasks: 4, shares: vec![4], near: Vec::new() };
    let (ask, caps) = (ask((2, 2), 8, 1, 5, CpuBinding::Preferred), [0, 1, 2].map(cap));
    let with = |mut fuel: u64| {
        let found = weigh::nodes(&ask, &[], &caps, &mut fuel);
        (found.map(|caps| caps.len()), fuel)
    };
    let (found, left) = with(1_000);
    let cost = 1_000 - left;
    assert_eq!((found, cost > 0), (Some(2), true));
    assert_eq!(with(cost), (Some(2), 0));
    assert_eq!(with(cost - 1), (None, 0));
}

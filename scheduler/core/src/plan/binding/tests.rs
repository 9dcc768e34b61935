//! Against every set of GPUs that there is.

use muster_model::{Capacity, GpuLinks, LinkClass, NodeConfig};
use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::plan::ask::Ask;
use crate::plan::axes::Axes;
use crate::plan::units::UnitTable;

/// Four GPUs of each of two types.
fn facts() -> Facts {
    let kind = |of| GresKind::new("gpu", Some(of));
    let gres = [(kind("a100"), 4), (kind("h100"), 4)].into_iter().collect();
    let config = NodeConfig {
        name: "n1".into(),
        capacity: Capacity { cpus: 24, memory_mib: 1, gres },
        sockets: 1,
        cores_per_socket: 24,
        threads_per_core: 1,
        features: Vec::new(),
        auto_gpus: false,
        weight: 1,
    };
    Facts::new(&config, None)
}

#[test]
fn nodes_that_are_alike_inside_are_asked_once() {
    let mut answers = Answers::default();
    let facts = facts();
    let links = GpuLinks::from_pairs(&[0; 8], LinkClass::System, &[]);
    let wiring = Arc::new(Wiring {
        table: UnitTable::new(links),
        numa: vec![CpuSet::from_iter(0..8), CpuSet::from_iter(8..24)],
    });
    let request = Ask {
        binding: CpuBinding::Enforced,
        node_gres: smallvec![(GresKind::new("gpu", None), 1)],
        ..Ask::of_tasks(4)
    };
    let axes = Axes::of([&facts].into_iter());
    let demand = Demand::new(request, &axes).expect("there are GPUs");
    for (tasks, binds) in [(8, true), (9, false)] {
        for _ in 0..1000 {
            let said = answers.binds(&demand, (tasks, &[]), (&facts, &facts.whole, Some(&wiring)));
            assert_eq!(said, binds);
        }
    }
    let kinds: Vec<usize> = answers.0.iter().map(|kind| kind.said.len()).collect();
    assert_eq!(kinds, [2]);
}

proptest! {
    #[test]
    fn what_some_gpus_can_do_is_found(
        numa in prop::collection::vec(0u8..3, 8),
        (free_gpus, free_cpus) in (any::<u8>(), 0u32..1 << 24),
        (typed, any, cpus) in (0u64..4, 0u64..4, 1u32..20),
    ) {
        prop_assume!(typed + any > 0);
        let facts = facts();
        let wiring = Wiring {
            table: UnitTable::new(GpuLinks::from_pairs(&numa, LinkClass::System, &[])),
            numa: [0..8, 8..16, 16..24].map(CpuSet::from_iter).to_vec(),
        };
        let mut free = within(&facts.whole, &facts, free_gpus.into());
        free.cpus = (0..24).filter(|cpu| free_cpus >> cpu & 1 == 1).collect();
        let wants = [(Some("h100"), typed), (None, any)];
        let gres = wants.map(|(of, n)| (GresKind::new("gpu", of), n)).into_iter().collect();
        let need = Need { cpus, memory_mib: 0, gres };
        let serves = |set: u64| {
            set & !u64::from(free_gpus) == 0
                && u64::from(set.count_ones()) == typed + any
                && u64::from((set & 0xf0).count_ones()) >= typed
                && near_free(&free.cpus, set, Some(&wiring)).len() >= cpus
        };
        match choose(false, &need, &free, &facts, Some(&wiring)) {
            Some(chosen) => prop_assert!(serves(gpus_of(&chosen)), "{chosen:?}"),
            None => prop_assert!(!(0..256).any(serves)),
        }
    }
}

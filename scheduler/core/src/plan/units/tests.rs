//! GPUs and CPUs chosen inside a node, on machines that exist and against a plain search.

use muster_model::LinkClass;
use proptest::prelude::*;

use super::*;

fn bits(gpus: &[u32]) -> u64 {
    gpus.iter().fold(0, |mask, gpu| mask | 1 << gpu)
}

/// The hybrid cube mesh of a DGX-1 with V100s, as `nvidia-smi topo -m` shows it.
fn cube_mesh() -> GpuLinks {
    let (one, two) = (LinkClass::NvLink(1), LinkClass::NvLink(2));
    let pairs = [
        (0, 1, one),
        (0, 2, one),
        (0, 3, two),
        (0, 4, two),
        (1, 2, two),
        (1, 3, one),
        (1, 5, two),
        (2, 3, two),
        (2, 6, one),
        (3, 7, one),
        (4, 5, one),
        (4, 6, one),
        (4, 7, two),
        (5, 6, two),
        (5, 7, one),
        (6, 7, two),
    ];
    GpuLinks::from_pairs(&[0, 0, 0, 0, 1, 1, 1, 1], LinkClass::System, &pairs)
}

/// Eight PCIe GPUs on two NUMA nodes, each with two switches of two.
fn pcie() -> GpuLinks {
    let mut pairs = Vec::new();
    for a in 0..8u8 {
        for b in 0..a {
            if a / 2 == b / 2 {
                pairs.push((a, b, LinkClass::PciSwitch));
            } else if a / 4 == b / 4 {
                pairs.push((a, b, LinkClass::Numa));
            }
        }
    }
    GpuLinks::from_pairs(&[0, 0, 0, 0, 1, 1, 1, 1], LinkClass::System, &pairs)
}

#[track_caller]
fn check(links: &GpuLinks, free: &[u32], count: u32, expected: &[u32]) {
    let table = UnitTable::new(links.clone());
    let chosen = table.choose(bits(free), count).map(|mask| Ones(mask).collect::<Vec<_>>());
    assert_eq!(chosen.as_deref(), Some(expected));
}

#[test]
fn pairs_of_a_cube_mesh_get_double_links() {
    let links = cube_mesh();
    let table = UnitTable::new(links.clone());
    let mut free = 0xff;
    for _ in 0..4 {
        let pair = table.choose(free, 2).unwrap();
        let gpus: Vec<u8> = Ones(pair).map(|gpu| gpu as u8).collect();
        assert_eq!(links.class_of(gpus[0], gpus[1]), LinkClass::NvLink(2), "{gpus:?}");
        free &= !pair;
    }
    assert_eq!(free, 0);
    check(&links, &[0, 1, 2, 3, 4, 5, 6, 7], 4, &[0, 1, 2, 3]);
}

#[test]
fn four_of_two_numa_nodes_stay_on_one() {
    check(&pcie(), &[0, 1, 2, 3, 4, 5, 6, 7], 4, &[0, 1, 2, 3]);
    check(&pcie(), &[1, 2, 3, 4, 5, 6, 7], 4, &[4, 5, 6, 7]);
    let switched = GpuLinks { numa: vec![0, 1, 0, 1, 0, 1, 0, 1], ..GpuLinks::full(8) };
    check(&switched, &[0, 1, 2, 3, 4, 5, 6, 7], 4, &[0, 2, 4, 6]);
}

#[test]
fn what_is_broken_already_is_used_before_what_is_whole() {
    check(&pcie(), &[0, 1, 2, 3, 4, 5, 6], 1, &[6]);
    check(&pcie(), &[0, 1, 3, 4, 5, 6, 7], 2, &[0, 1]);
    check(&pcie(), &[1, 2, 3, 4, 5, 6, 7], 2, &[2, 3]);
    let islands = GpuLinks::from_pairs(
        &[0; 6],
        LinkClass::System,
        &[(0, 1, LinkClass::NvLink(4)), (2, 3, LinkClass::NvLink(4)), (4, 5, LinkClass::NvLink(4))],
    );
    check(&islands, &[0, 1, 2, 4, 5], 1, &[2]);
    check(&islands, &[0, 1, 2, 4, 5], 3, &[0, 1, 2]);
}

#[test]
fn without_links_the_lowest_are_taken() {
    assert_eq!(choose(None, 0b1011_0110, 3), Some(0b0001_0110));
    assert_eq!(choose(None, 0b11, 3), None);
    assert_eq!(choose(Some(&UnitTable::new(pcie())), 0b11, 3), None);
    assert_eq!(choose(Some(&UnitTable::new(pcie())), 0b11, 0), Some(0));
}

#[test]
fn sixteen_switched_gpus_fill_one_half_first() {
    let numa = (0..16).map(|gpu| gpu / 8).collect();
    let links = GpuLinks { numa, ..GpuLinks::full(16) };
    check(&links, &(0..16).collect::<Vec<_>>(), 8, &[0, 1, 2, 3, 4, 5, 6, 7]);
    check(&links, &(3..16).collect::<Vec<_>>(), 8, &[8, 9, 10, 11, 12, 13, 14, 15]);
    check(&links, &(3..16).collect::<Vec<_>>(), 5, &[3, 4, 5, 6, 7]);
}

/// The first of all subsets in the order that the module's head names, counted anew for each.
fn plainly(links: &GpuLinks, free: u64, count: u32) -> u64 {
    let measure = |set: u64| {
        let (mut weakest, mut sum, mut numa) = (u8::MAX, 0i64, 0i64);
        for a in Ones(set) {
            for b in Ones(set).filter(|b| *b < a) {
                let (a, b) = (a as u8, b as u8);
                weakest = weakest.min(links.score(a, b));
                sum += i64::from(links.score(a, b));
                numa +=
                    i64::from(links.numa_of(a).is_some() && links.numa_of(a) == links.numa_of(b));
            }
        }
        (weakest, sum, numa)
    };
    let top = 64 - free.leading_zeros();
    let subsets = (0..1u64 << top).filter(|set| set & !free == 0 && set.count_ones() == count);
    subsets
        .max_by_key(|set| {
            let (weakest, sum, numa) = measure(*set);
            let (_, rest, rest_numa) = measure(free & !set);
            (weakest, sum, numa, rest, rest_numa, Reverse(*set))
        })
        .unwrap()
}

fn any_links(most: u8) -> impl Strategy<Value = GpuLinks> {
    let classes = [
        LinkClass::System,
        LinkClass::Numa,
        LinkClass::PciSwitch,
        LinkClass::NvLink(1),
        LinkClass::NvLink(4),
    ];
    (1..=most).prop_flat_map(move |n| {
        let pairs = usize::from(n) * usize::from(n);
        let scores = prop::collection::vec(0..classes.len(), pairs);
        (prop::collection::vec(0u8..2, usize::from(n)), scores, any::<bool>()).prop_map(
            move |(numa, scores, few)| {
                let n = numa.len();
                let mut pairs = Vec::new();
                for a in 0..n {
                    for b in 0..a {
                        // Half of the machines have many GPUs that are alike.
                        let at =
                            if few { scores[(a / 3) * n + b / 3] % 2 } else { scores[a * n + b] };
                        pairs.push((a as u8, b as u8, classes[at]));
                    }
                }
                GpuLinks::from_pairs(&numa, LinkClass::System, &pairs)
            },
        )
    })
}

proptest! {
    #[test]
    fn the_best_subset_is_found(links in any_links(11), free in any::<u64>(), count in 0u32..12) {
        let free = free & ((1 << links.count) - 1);
        let table = UnitTable::new(links.clone());
        match table.choose(free, count) {
            None => prop_assert!(count > free.count_ones()),
            Some(chosen) => {
                prop_assert_eq!(chosen & !free, 0);
                prop_assert_eq!(chosen.count_ones(), count);
                prop_assert_eq!(chosen, plainly(&links, free, count));
            }
        }
    }

    #[test]
    fn large_nodes_get_what_is_free_and_the_same_every_time(
        links in any_links(40),
        free in any::<u64>(),
        count in 0u32..40,
    ) {
        // Units that the links do not describe can be chosen too.
        let table = UnitTable::new(links);
        let chosen = table.choose(free, count);
        prop_assert_eq!(chosen.is_some(), count <= free.count_ones());
        let mask = chosen.unwrap_or(0);
        prop_assert_eq!(mask & !free, 0);
        prop_assert!(chosen.is_none() || mask.count_ones() == count);
        prop_assert_eq!(table.choose(free, count), chosen);
    }

    #[test]
    fn cpus_are_free_ones_and_as_many_as_there_are(
        free in prop::collection::btree_set(0u32..96, 0..96),
        count in 0u32..100,
        threads in 1u32..4,
        near in prop::collection::vec(prop::collection::btree_set(0u32..96, 0..50), 0..3),
    ) {
        let set: CpuSet = free.iter().copied().collect();
        let near: Vec<CpuSet> = near.into_iter().map(|s| s.into_iter().collect()).collect();
        let chosen = pick_cpus(&set, count, &near, threads);
        prop_assert_eq!(chosen.len(), count.min(set.len()));
        prop_assert!(chosen.iter().all(|cpu| free.contains(&cpu)));
        // Strangers only when no near CPU is left.
        let mut close = CpuSet::default();
        near.iter().for_each(|s| close.add(s));
        let is_near = |cpu: &u32| close.contains(*cpu);
        let strangers = chosen.iter().filter(|cpu| !is_near(cpu)).count();
        let left = free.iter().filter(|cpu| is_near(cpu) && !chosen.contains(**cpu)).count();
        prop_assert!(near.is_empty() || strangers == 0 || left == 0);
    }
}

fn cpus(text: &str) -> CpuSet {
    let part = |p: &str| {
        let (a, b) = p.split_once('-').unwrap_or((p, p));
        a.parse::<u32>().unwrap()..=b.parse::<u32>().unwrap()
    };
    text.split(',').filter(|p| !p.is_empty()).flat_map(part).collect()
}

#[track_caller]
fn check_cpus(free: &str, count: u32, near: &[&str], threads: u32, expected: &str) {
    let near: Vec<CpuSet> = near.iter().map(|set| cpus(set)).collect();
    assert_eq!(pick_cpus(&cpus(free), count, &near, threads).to_string(), expected);
}

#[test]
fn cpus_come_from_the_numa_nodes_of_the_gpus() {
    check_cpus("0-15", 4, &["8-15"], 1, "8-11");
    check_cpus("0-15", 4, &["0-7", "8-15"], 1, "0-1,8-9");
    check_cpus("0-11", 6, &["8-15"], 1, "0-1,8-11");
    check_cpus("0-8", 6, &["0-7", "8-15"], 1, "0-4,8");
    check_cpus("0-15", 3, &[], 1, "0-2");
}

#[test]
fn cores_are_taken_whole_and_side_by_side() {
    check_cpus("1-15", 4, &[], 2, "2-5");
    check_cpus("1-15", 3, &[], 2, "1-3");
    check_cpus("0-3,6-7,10-15", 2, &[], 2, "6-7");
    check_cpus("0-3,6-9,12-19", 4, &[], 1, "0-3");
    check_cpus("0,2,4,6", 3, &[], 2, "0,2,4");
    check_cpus("0-1,4-5,8-9", 4, &[], 2, "0-1,4-5");
    check_cpus("0-7", 3, &[], 2, "0-2");
}

#[test]
fn the_cpus_near_some_gpus_are_those_of_their_numa_nodes() {
    let numa = [cpus("0-7"), cpus("8-15")];
    assert_eq!(near(&pcie(), bits(&[4, 5]), &numa), [cpus("8-15")]);
    assert_eq!(near(&pcie(), bits(&[0, 5]), &numa), [cpus("0-7"), cpus("8-15")]);
    assert!(near(&pcie(), bits(&[40]), &numa).is_empty());
}

#[track_caller]
fn check_joined(links: &GpuLinks, free: &[u32], count: u32, expected: Option<&[u32]>) {
    let table = UnitTable::new(links.clone());
    let chosen = choose_joined(Some(&table), bits(free), count);
    assert_eq!(chosen, expected.map(bits), "{count} of {free:?}");
}

#[test]
fn joined_gpus_are_joined_whatever_else_is_free() {
    let mesh = cube_mesh();
    check_joined(&mesh, &[0, 1, 2, 3, 4, 5, 6, 7], 8, Some(&[0, 1, 2, 3, 4, 5, 6, 7]));
    // 0 reaches 5, 6 and 7 over 4 alone.
    check_joined(&mesh, &[0, 5], 2, None);
    check_joined(&mesh, &[0, 5, 6], 2, Some(&[5, 6]));
    check_joined(&mesh, &[0, 4, 7], 3, Some(&[0, 4, 7]));
    check_joined(&pcie(), &[0, 1], 2, None);
    check_joined(&pcie(), &[3], 1, Some(&[3]));
    assert_eq!(choose_joined(None, 0b11, 2), None, "nobody told how they are joined");
    // Two bridges: the pair on NUMA node 0 is broken up already.
    let bridges = [(0, 1, LinkClass::NvLink(4)), (2, 3, LinkClass::NvLink(4))];
    let bridged = GpuLinks::from_pairs(&[0, 0, 1, 1], LinkClass::System, &bridges);
    check_joined(&bridged, &[1, 2, 3], 2, Some(&[2, 3]));
    check_joined(&bridged, &[0, 1, 2, 3], 3, None);
    assert_eq!(islands(&bridged, u64::MAX), [0b11, 0b1100]);
}

proptest! {
    #[test]
    fn a_joined_choice_is_there_exactly_when_an_island_is_large_enough(
        scores in prop::collection::vec(prop::sample::select(vec![0u8, 10, 108, 116]), 36),
        free in 0u64..512,
        count in 1u32..9,
    ) {
        let mut pairs = Vec::new();
        let mut next = scores.iter();
        for a in 0..9u8 {
            for b in 0..a {
                pairs.push((a, b, LinkClass::of_score(*next.next().expect("36 pairs"))));
            }
        }
        let links = GpuLinks::from_pairs(&[0; 9], LinkClass::Unknown, &pairs);
        let table = UnitTable::new(links.clone());
        let chosen = choose_joined(Some(&table), free, count);
        let there = if count == 1 {
            free != 0
        } else {
            islands(&links, free).iter().any(|set| set.count_ones() >= count)
        };
        prop_assert_eq!(chosen.is_some(), there);
        if let Some(chosen) = chosen {
            prop_assert_eq!(chosen.count_ones(), count);
            prop_assert_eq!(chosen & !free, 0);
            prop_assert!(count == 1 || islands(&links, chosen) == [chosen]);
        }
    }
}

//! The calendar against a plain list of who takes what when.

use proptest::prelude::*;

use super::super::axes::ALL_SEATS;
use super::super::nodeset::NodeSet;
use super::extend::cuts;
use super::*;

const NODES: usize = 5;
const AXES: usize = 5;
/// Seats, CPUs, memory, and two kinds: few units, and many.
const MOST: [u32; AXES] = [ALL_SEATS, 24, 64 << 10, 8, 100];

/// Amounts of one node, from one time to another.
#[derive(Debug, Clone)]
struct Hold {
    node: u32,
    amounts: Vec<(usize, u32)>,
    from: i64,
    until: i64,
}

fn amounts() -> impl Strategy<Value = Vec<(usize, u32)>> {
    (0u32..3, 0u32..9, 0u32..20_000, 0u32..3, 0u32..40).prop_map(
        |(seats, cpus, memory, few, many)| {
            vec![(0, seats), (1, cpus), (2, memory), (3, few), (4, many)]
        },
    )
}

fn holds() -> impl Strategy<Value = Vec<Hold>> {
    let hold = (0..NODES as u32, amounts(), 1i64..50, 1i64..50);
    let hold = hold.prop_map(|(node, amounts, from, length)| Hold {
        node,
        amounts,
        from,
        until: from + length,
    });
    prop::collection::vec(hold, 0..12)
}

/// What the holds leave of a node at a time; `None`: they are too many.
fn left(running: &[Hold], later: &[Hold], node: u32, at: i64) -> Option<Vec<u32>> {
    let mut free: Vec<i64> = MOST.iter().map(|n| i64::from(*n)).collect();
    let now = |hold: &&Hold| hold.node == node && at < hold.until;
    let then = |hold: &&Hold| hold.node == node && hold.from <= at && at < hold.until;
    for hold in running.iter().filter(now).chain(later.iter().filter(then)) {
        hold.amounts.iter().for_each(|(axis, n)| free[*axis] -= i64::from(*n));
    }
    free.into_iter().map(|n| u32::try_from(n).ok()).collect()
}

fn ending(hold: &Hold) -> Ending<'_> {
    Ending { end: Timestamp(hold.until), node: NodeId(hold.node), amounts: &hold.amounts }
}

fn promise(hold: &Hold) -> Taken<'_> {
    Taken {
        start: Timestamp(hold.from),
        until: Some(Timestamp(hold.until)),
        nodes: vec![(NodeId(hold.node), &hold.amounts)],
        licenses: &[],
    }
}

proptest! {
    #[test]
    fn it_knows_what_a_plain_list_knows(
        running in holds(),
        later in holds(),
        need in amounts(),
        windows in prop::collection::vec((0usize..40, 1i64..60), 1..10),
    ) {
        let running: Vec<Hold> = running.into_iter().map(|h| Hold { from: 0, ..h }).collect();
        let fits = |all: &[Hold], later: &[Hold]| {
            (0..NODES as u32).all(|n| (0..120).all(|at| left(all, later, n, at).is_some()))
        };
        prop_assume!(fits(&running, &[]));
        let start = |node| left(&running, &[], node, 0).expect("checked");
        let free: Vec<u32> = (0..NODES as u32).flat_map(start).collect();
        let mut calendar = Calendar::new(Timestamp(0), AXES, free, &MOST, Vec::new());
        let mut told = calendar.clone();
        let endings: Vec<Ending<'_>> = running.iter().map(ending).collect();
        calendar.extend(endings.clone(), Vec::new());
        let mut taken: Vec<Hold> = Vec::new();
        for hold in &later {
            let mut more = taken.clone();
            more.push(hold.clone());
            if !fits(&running, &more) {
                continue;
            }
            taken = more;
            let from = calendar.cut(Timestamp(hold.from));
            let to = calendar.cut(Timestamp(hold.until));
            calendar.take(NodeId(hold.node), &hold.amounts, from, to);
        }
        told.extend_with(endings, Vec::new(), &taken.iter().map(promise).collect::<Vec<_>>());
        prop_assert!(told.holds() && calendar.holds());
        prop_assert_eq!(told.slots(), calendar.slots());
        for slot in 0..told.slots() {
            prop_assert_eq!(told.start(slot), calendar.start(slot));
            for node in (0..NODES as u32).map(NodeId) {
                prop_assert_eq!(told.free(slot, node), calendar.free(slot, node));
            }
        }
        // What is given back leaves no trace but a cut.
        if let Some(hold) = taken.pop() {
            let from = calendar.cut(Timestamp(hold.from));
            let to = calendar.cut(Timestamp(hold.until));
            calendar.give(NodeId(hold.node), &hold.amounts, from, to);
        }
        for (slot, length) in windows {
            let slot = slot % calendar.slots();
            let start = calendar.start(slot).0;
            let to = calendar.end_slot(slot, Some(Timestamp(start + length)));
            let holds = |node: u32| {
                (start..start + length).all(|at| {
                    let free = left(&running, &taken, node, at).expect("checked");
                    need.iter().all(|(axis, n)| free[*axis] >= *n)
                })
            };
            let mut nodes = NodeSet::full(NODES);
            let want = calendar.want(need.clone().into());
            let kept = calendar.keep_fitting(&want, slot, to, 0, &mut nodes, &mut 1_000_000);
            let exact = kept.expect("no number of nodes was asked for");
            let slots: Vec<usize> = calendar.window(slot, to).collect();
            for node in 0..NODES as u32 {
                let told = calendar.has_throughout(&slots, NodeId(node), &need);
                prop_assert_eq!(told, holds(node), "node {} from {} for {}", node, start, length);
                let likely = nodes.contains(NodeId(node));
                prop_assert!(likely >= told, "a node that fits is likely");
                prop_assert!(!exact || likely == told, "an exact answer is exact");
            }
            let fitting = (0..NODES as u32).filter(|node| holds(*node)).count();
            let short = calendar.last_too_few(&want, slot, to, fitting, &mut 1_000_000);
            prop_assert_eq!(short, None, "so many fit throughout");
            let mut same = NodeSet::default();
            for (axis, most) in MOST.into_iter().enumerate() {
                let amount = calendar.free(slot, NodeId(0))[axis];
                for amount in [0, amount, (amount + 1).min(most)] {
                    let has = |node: &NodeId| calendar.free(slot, *node)[axis] == amount;
                    let equal = NodeSet::of(NODES, (0..NODES as u32).map(NodeId).filter(has));
                    let all = NodeSet::full(NODES);
                    let found = calendar.keep_just(slot, axis, amount, &all, &mut same);
                    prop_assert_eq!(found, !equal.is_empty());
                    prop_assert!(!found || same == equal, "{} on axis {}", amount, axis);
                }
            }
        }
    }
}

#[test]
fn with_many_ends_cuts_are_finer_near_now_and_never_early() {
    let ends: Vec<Timestamp> = (1..5000).map(|n| Timestamp(n * 1000)).collect();
    let made = cuts(&ends, Timestamp(0), 50);
    assert!(made.len() <= 50 && made.len() > 20, "{}", made.len());
    assert_eq!(made.last(), ends.last());
    let gaps: Vec<i64> = made.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.first() < gaps.last());
    assert_eq!(cuts(&ends[..40], Timestamp(0), 50), &ends[..40], "few are exact");
}

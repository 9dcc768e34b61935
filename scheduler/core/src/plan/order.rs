//! Who comes first: the keys by which a pass merges the heads of its groups.
//!
//! A group's jobs have the same shape, base priority and expected run time, so every order ranks
//! them as they became eligible; only their group's heads have to be compared.
//!
//! `Order::Balanced` ranks by when a job became eligible, moved back for jobs expected to run long
//! and forth for wide ones: `eligible + fold * (ln(expected) - 0.6 ln(size))`, least first. What
//! waits does not move, so whoever comes so much later that the difference of the offsets is made
//! up for is behind, for ever: nobody starves. `fold` follows the waits that the cluster has, for
//! what is a long wait here is none elsewhere. The rank is a time; a quarter of a fold later the
//! job is due, and gives way to nobody any more if it is the first that cannot start.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use muster_model::{JobId, TimeLimit, Timestamp};

use crate::octaves::{OCTAVE, log2};
use crate::priority::{Parts, priority};
use crate::state::Shape;

use super::policy::Order;
use super::view::{Group, Head, View};

/// The head of a group in the merge; the greatest is next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    tier: u16,
    priority: u32,
    score: Score,
    first: Reverse<(Timestamp, JobId)>,
    pub(super) group: Reverse<usize>,
}

/// Heads in the order in which a pass looks at them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The next one last.
    sorted: Vec<Turn>,
    /// Heads behind those that had their turn: few.
    further: BinaryHeap<Turn>,
}

impl Turns {
    pub(super) fn push(&mut self, turn: Turn) {
        self.further.push(turn);
    }

    pub(super) fn pop(&mut self) -> Option<Turn> {
        match self.further.peek() > self.sorted.last() {
            true => self.further.pop(),
            false => self.sorted.pop(),
        }
    }
}

impl FromIterator<Turn> for Turns {
    fn from_iter<I: IntoIterator<Item = Turn>>(turns: I) -> Self {
        let mut sorted: Vec<Turn> = turns.into_iter().collect();
        sorted.sort_unstable();
        Turns { sorted, further: BinaryHeap::new() }
    }
}

/// A finite number that is at least 0, ordered. Made of products and quotients only, which are the
/// same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score(u64);

impl Score {
    fn of(value: f64) -> Self {
        // The bits of numbers that are not negative are ordered as the numbers are.
        Score(value.max(0.0).to_bits())
    }
}

/// Waiting jobs without a limit are ranked as if they had this one, seconds.
const UNLIMITED_SECONDS: i64 = 365 * 86_400;

/// The fold is so much of the long waits, percent. This and the numbers below were chosen on four
/// public logs and halves of them; the result changes little around them.
const FOLD_PERCENT: u64 = 20;

/// Long waits are taken to be between these, seconds: the fold is 80 minutes at least and 400 at
/// most.
const LONG_WAIT: (u64, u64) = (24_000, 120_000);

/// The exponent of the size, tenths: wide jobs wait for more to come free at once.
const SIZE_TENTHS: i128 = 6;

/// A job is due so much later than its rank, percent of the fold.
const DUE_PERCENT: i64 = 25;

/// Shorter runs are not told apart, nor longer ones, seconds: to those behind it a run of a month
/// is no worse than one of a day, and the month is no reason to wait for days.
const RUNS: (u64, u64) = (60, 86_400);

/// The natural logarithm of 2, in 65536ths.
const LN_2: i128 = 45_426;

/// No time is so far from the epoch, milliseconds.
const FAR: i64 = 1 << 62;

/// The turn of a group's head at this place.
#[must_use]
pub(super) fn turn(
    view: &View,
    order: Order,
    at: usize,
    cursor: usize,
    now: Timestamp,
) -> Option<Turn> {
    let group = &view.groups[at];
    let head = group.heads.get(cursor)?;
    let partition = &view.partitions[group.partition as usize].partition;
    let parts = Parts {
        base: group.base,
        eligible_at: head.eligible_at,
        min_nodes: group.shape.min_nodes,
        cluster_nodes: view.cluster_nodes,
        partition,
    };
    // Age is a part of the priority in that order only: the others weigh it in their own way.
    let priority_at = if order == Order::Priority { now } else { head.eligible_at };
    Some(Turn {
        tier: partition.priority_tier,
        priority: priority(&parts, &view.weights, priority_at),
        score: score(view, order, group, *head, now),
        first: Reverse((head.eligible_at, head.job)),
        group: Reverse(at),
    })
}

#[allow(clippy::cast_precision_loss)]
fn score(view: &View, order: Order, group: &Group, head: Head, now: Timestamp) -> Score {
    let limit = || limit(&group.shape);
    let size = || u64::from(group.shape.asked.cpus);
    match order {
        Order::Priority | Order::Fcfs => Score(0),
        Order::Sjf => Score(u64::MAX - limit().unsigned_abs()),
        Order::F1 => {
            // log2 for log10 scales both terms alike.
            let submitted = head.eligible_at.seconds().max(1).unsigned_abs();
            let (limit, submitted) = (log2(limit().unsigned_abs()), log2(submitted));
            let cost = u128::from(limit) * u128::from(size()) + 870 * u128::from(submitted);
            Score(u64::MAX - u64::try_from(cost).unwrap_or(u64::MAX))
        }
        Order::Balanced => {
            let rank = rank(view, group, head).0;
            // Times are some 2^41 milliseconds: the least rank becomes the greatest score.
            Score((1u64 << 63).wrapping_add_signed(-rank.clamp(-FAR, FAR)))
        }
        Order::Wfp3 => {
            let wait = now.since(head.eligible_at).max(0) as f64 / 1000.0;
            let waits = wait / limit() as f64;
            Score::of(waits * waits * waits * size() as f64)
        }
    }
}

/// What a cluster whose long waits are so many seconds takes for [`View::fold_ms`]. The bounds
/// keep the order useful where nobody waits, and the promise to long jobs where all do.
pub(super) fn fold_ms(long_wait: u64) -> i64 {
    let seconds = long_wait.clamp(LONG_WAIT.0, LONG_WAIT.1);
    i64::try_from(seconds * FOLD_PERCENT * 10).expect("hours in milliseconds")
}

/// The place of a job in `Order::Balanced`.
fn rank(view: &View, group: &Group, head: Head) -> Timestamp {
    Timestamp(head.eligible_at.0.saturating_add(offset_ms(view, group)))
}

/// Until when a job that is first in `Order::Balanced` gives way to others.
#[must_use]
pub(super) fn due(view: &View, group: &Group, head: Head) -> Timestamp {
    Timestamp(rank(view, group, head).0.saturating_add(view.fold_ms / 100 * DUE_PERCENT))
}

/// How long a group's jobs are expected to run, seconds.
#[must_use]
pub(super) fn expected(group: &Group) -> u64 {
    let limit = limit(&group.shape).unsigned_abs();
    if group.expected == 0 { limit } else { limit.min(group.expected.into()) }
}

/// How much later than it became eligible a group's job is ranked, milliseconds.
fn offset_ms(view: &View, group: &Group) -> i64 {
    let expected = i128::from(log2(expected(group).clamp(RUNS.0, RUNS.1)));
    let size = i128::from(log2(size(view, &group.shape)));
    let octaves = 10 * expected - SIZE_TENTHS * size;
    let natural = octaves * LN_2 / i128::from(OCTAVE);
    let ms = i128::from(view.fold_ms) * natural / i128::from(10 * OCTAVE);
    i64::try_from(ms).expect("hours times a logarithm of a u64")
}

/// The largest share that a request takes of all CPUs, GPUs or nodes, in CPUs (Ghodsi et al.
/// 2011: the dominant one).
fn size(view: &View, shape: &Shape) -> u64 {
    let asked = shape.asked;
    let cpus = u64::from(view.cluster_cpus);
    let share = |of: u32, all: u32| u64::from(of) * cpus / u64::from(all.max(1));
    let nodes = if shape.request.exclusive { shape.request.nodes.min } else { 0 };
    let by_gpus = share(asked.gpus, view.cluster_gpus);
    u64::from(asked.cpus).max(by_gpus).max(share(nodes, view.cluster_nodes)).max(1)
}

/// Seconds.
fn limit(shape: &Shape) -> i64 {
    shape.limit.and_then(TimeLimit::seconds).unwrap_or(UNLIMITED_SECONDS).max(1)
}

#[cfg(test)]
#[path = "order/tests.rs"]
mod tests;

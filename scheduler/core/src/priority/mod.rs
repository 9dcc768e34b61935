//! A job's priority: who comes first within a partition tier.
//!
//! `PRIORITY_BASE - nice + age + size + partition`, never below 1; a priority fixed by an
//! operator replaces all of it. Each part is its weight times a factor of 0..=1000 thousandths:
//!
//! - age: time since the job became eligible, over `max_age_seconds`, at most 1
//! - size: the least number of nodes it asks for, over the nodes of the cluster
//! - partition: the partition's `priority_factor`, as thousandths
//!
//! Only age changes with time, and it changes alike for all: so it is computed when read, and
//! never stored or logged.

use muster_model::{JobSpec, Partition, Timestamp};

use crate::config::PriorityWeights;

/// Room below for `nice`.
pub const PRIORITY_BASE: i64 = 1_000_000;

/// The part of a priority that the job itself brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    Fixed(u32),
    Nice(i32),
}

impl Base {
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        spec.priority.map_or(Base::Nice(spec.nice), Base::Fixed)
    }
}

/// The parts of a job that its priority depends on.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub base: Base,
    pub eligible_at: Timestamp,
    pub min_nodes: u32,
    pub cluster_nodes: u32,
    pub partition: &'a Partition,
}

/// The priority at `now`.
#[must_use]
pub fn priority(parts: &Parts<'_>, weights: &PriorityWeights, now: Timestamp) -> u32 {
    let nice = match parts.base {
        Base::Fixed(priority) => return priority,
        Base::Nice(nice) => i64::from(nice),
    };
    let thousandths = |part: i64, of: i64| (part.max(0).saturating_mul(1000) / of.max(1)).min(1000);
    let waited = now.since(parts.eligible_at) / 1000;
    let age = thousandths(waited, i64::from(weights.max_age_seconds));
    let size = thousandths(i64::from(parts.min_nodes), i64::from(parts.cluster_nodes));
    let partition = i64::from(parts.partition.priority_factor).min(1000);
    let weigh = |weight: u32, factor: i64| i64::from(weight) * factor / 1000;
    let sum = PRIORITY_BASE - nice
        + weigh(weights.age, age)
        + weigh(weights.size, size)
        + weigh(weights.partition, partition);
    u32::try_from(sum.clamp(1, i64::from(u32::MAX))).expect("clamped to the range of u32")
}

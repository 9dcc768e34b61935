//! How a pass chooses: the order of the queue, who may overtake, and how many starts it promises.

/// The order in which waiting jobs are looked at. Partition tiers, priorities fixed by an operator
/// and differences of nice, size and partition weight come first in every order but the study
/// ones; the orders differ in what decides among equals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// The weighted priority, age among its parts; equals in the order of becoming eligible.
    Priority,
    /// Eligible first, first.
    Fcfs,
    /// Shortest time limit first. For study: long jobs starve.
    Sjf,
    /// F1 of Carastan-Santos and de Camargo (SC'17): `log10(limit) * size + 870 * log10(submit)`,
    /// least first. For study: wide jobs starve.
    F1,
    /// WFP3 of Tang et al. (Cluster'09): `(wait / limit)^3 * size`, greatest first.
    Wfp3,
    /// The default: as eligible, but that short and wide jobs come earlier and long ones later, by
    /// hours and no more: `eligible + fold * (ln(expected run time) - 0.6 ln(size))`, least first.
    #[default]
    Balanced,
}

/// Who may start before a job that is ahead of it in the queue and cannot start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backfill {
    /// Nobody.
    Off,
    /// Whoever delays no shadow, in the order of the queue.
    #[default]
    InOrder,
    /// Whoever delays no shadow, the shortest time limit first.
    ShortestFirst,
}

/// Which node a single-node job goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    /// Where it leaves the fewest GPUs (then CPUs) free: keeps whole nodes for gangs.
    #[default]
    BestFit,
    /// The first node that fits, in the order of weights and the config.
    FirstFit,
    /// Where it leaves the most free.
    Spread,
    /// Where the idle GPUs that other jobs cannot use grow least (Weng et al., ATC'23).
    Fgd,
    /// Where the fewest such GPUs are left.
    LeastFragments,
}

/// How a pass chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub order: Order,
    pub backfill: Backfill,
    /// Jobs of each partition that get a promised start if they cannot start now: 1 is EASY,
    /// [`ALL`] conservative backfill. 0 protects nobody.
    pub shadows: u32,
    pub packing: Packing,
    /// Jobs started by one pass at most: a plan is validated and logged as one commit.
    pub max_starts: usize,
    /// Jobs copied into a view at most.
    pub max_heads: usize,
}

/// Every waiting job gets a shadow.
pub const ALL: u32 = u32::MAX;

/// Heads copied in all: a view of a long queue stays around a megabyte.
pub const MAX_HEADS: usize = 32_768;

impl Default for Policy {
    fn default() -> Self {
        Policy::DEFAULT
    }
}

impl Policy {
    /// What a cluster does unless its config says otherwise.
    pub const DEFAULT: Policy = Policy {
        order: Order::Balanced,
        backfill: Backfill::InOrder,
        shadows: 1,
        packing: Packing::BestFit,
        max_starts: 10_000,
        max_heads: MAX_HEADS,
    };

    /// Whether the first job that cannot start lets others pass until it is due. With more
    /// promises than one for each partition none of them gives way.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        self.order == Order::Balanced && self.backfill == Backfill::InOrder && self.shadows == 1
    }

    /// First come, first served: nobody overtakes.
    #[must_use]
    pub fn fcfs() -> Self {
        Policy { order: Order::Fcfs, backfill: Backfill::Off, shadows: 0, ..Policy::default() }
    }

    /// EASY backfilling (Lifka 1995): the first blocked job has a shadow.
    #[must_use]
    pub fn easy() -> Self {
        Policy { order: Order::Fcfs, shadows: 1, ..Policy::default() }
    }

    /// EASY, the shortest candidate first.
    #[must_use]
    pub fn easy_sjbf() -> Self {
        Policy { backfill: Backfill::ShortestFirst, ..Policy::easy() }
    }

    /// Every job has a shadow (Mu'alem and Feitelson 2001).
    #[must_use]
    pub fn conservative() -> Self {
        Policy { order: Order::Fcfs, shadows: ALL, max_heads: usize::MAX, ..Policy::default() }
    }
}

//! The levels of an axis: which amounts the calendar tells apart by looking at bits alone.

use super::super::axes::{ALL_SEATS, MEMORY, SEATS};

/// The levels of one axis: level `l` holds the nodes with at least so much.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// Where the axis' sets begin among a slot's sets.
    pub(super) first: usize,
    /// Ascending, at least 1 each. Amounts below the first are in no set.
    thresholds: Vec<u32>,
    steps: Steps,
    /// No node can have more.
    most: u32,
}

/// How the thresholds follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// One, and all.
    Seats,
    /// 1, 2, 3 and so on.
    Ones,
    /// 1, 2, 3, then four an octave, times two to this power.
    Quarters(u32),
}

/// MiB of memory are told apart by GiB.
const GIB: u32 = 10;

impl Scale {
    /// Levels lie everywhere for a few units; else at four amounts an octave, which are those that
    /// people ask for.
    pub(super) fn new(axis: usize, most: u32, first: usize) -> Self {
        let steps = match axis {
            SEATS => Steps::Seats,
            MEMORY => Steps::Quarters(GIB),
            _ if most <= 16 => Steps::Ones,
            _ => Steps::Quarters(0),
        };
        let thresholds = match steps {
            Steps::Seats => vec![1, ALL_SEATS],
            Steps::Ones => (1..=most).collect(),
            Steps::Quarters(shift) => {
                let octave = |base: u32| (4..8u32).map(move |n| n.saturating_mul(base));
                let rest = (0..30).map(|n| 1u32 << n).flat_map(octave);
                let all = (1..=3).chain(rest).map(|t| t.saturating_mul(1 << shift));
                all.take_while(|t| *t <= most).collect()
            }
        };
        Scale { first, thresholds, steps, most }
    }

    pub(super) fn levels(&self) -> usize {
        self.thresholds.len()
    }

    /// How many levels an amount reaches.
    pub(super) fn reached(&self, amount: u32) -> usize {
        let reached = match self.steps {
            Steps::Seats => usize::from(amount >= 1) + usize::from(amount >= ALL_SEATS),
            Steps::Ones => amount as usize,
            Steps::Quarters(shift) => {
                let n = amount >> shift;
                // 4 to 7 are levels 4 to 7; each octave above has four more.
                let octave = n.checked_ilog2().map_or(0, |log| log.saturating_sub(2));
                (4 * octave + (n >> octave)) as usize
            }
        };
        reached.min(self.thresholds.len())
    }

    /// Whether a node may have more than this.
    pub(super) fn goes_beyond(&self, amount: u32) -> bool {
        amount < self.most
    }

    /// Whether reaching this many levels is the same as having this amount.
    pub(super) fn is_exact(&self, reached: usize, amount: u32) -> bool {
        reached > 0 && self.thresholds[reached - 1] == amount
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::axes::CPUS;
    use super::*;

    #[test]
    fn as_many_levels_are_reached_as_thresholds_lie_below() {
        for (axis, most) in [(SEATS, ALL_SEATS), (MEMORY, 3 << 20), (CPUS, 7), (CPUS, 2490)] {
            let scale = Scale::new(axis, most, 0);
            let near = scale.thresholds.iter().flat_map(|t| [t - 1, *t, t + 1]);
            for amount in near.chain(0..100).chain([most, u32::MAX]) {
                let below = scale.thresholds.iter().filter(|t| **t <= amount).count();
                assert_eq!(scale.reached(amount), below, "{amount} of {most} on axis {axis}");
            }
        }
    }
}

//! Which node is broken up least: the measure of fragmentation of Weng et al. (USENIX ATC'23), and
//! the ways to pack that are compared by it.
//!
//! For a class of jobs all idle GPUs of a node are fragments if a job of the class cannot run
//! there; otherwise only those that have less left than the job needs of one. The fragments of a
//! node are the mean over the classes, weighted by how often such jobs come. GPUs count in
//! thousandths: a pass gives whole ones, the simulator shares of them by the same rules.
//!
//! Which classes there are follows from what jobs hold and wait for at the time ([`classes`]); which type
//! of GPU they want does not count.

use std::collections::BTreeMap;

use super::axes::Axes;
use super::policy::Packing;
use crate::state::Portion;

/// Classes that are told apart at most: a grade costs so many looks.
const MOST_CLASSES: usize = 24;

/// Jobs of 1, 2, 4, ... GPUs that ask for half of the CPUs and memory that would be their part of a
/// node are a hundredth of all, whether there are any or not: wide jobs are rare, and must find
/// whole nodes when they come.
const EXPECTED_PERCENT: u64 = 1;

/// One whole GPU.
pub const WHOLE: u32 = 1000;

/// What jobs of one kind ask of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// In the unit of [`Idle::cpus`].
    pub cpus: u64,
    pub memory: u64,
    /// GPUs; 0: it can use none.
    pub gpus: u32,
    /// Thousandths of each: [`WHOLE`], or less of one GPU.
    pub share: u32,
    /// How often such jobs come, compared with the other classes.
    pub weight: u64,
}

/// What a node has idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Idle<'a> {
    pub cpus: u64,
    pub memory: u64,
    /// GPUs that nobody has anything of.
    pub whole: u32,
    /// Thousandths left on the others.
    pub parts: &'a [u32],
}

impl Idle<'_> {
    /// Thousandths of GPUs.
    #[must_use]
    pub fn gpus(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| u64::from(*part)).sum();
        u64::from(self.whole) * u64::from(WHOLE) + parts
    }
}

impl Class {
    /// Whether a job of the class could run there.
    #[must_use]
    pub fn fits(&self, idle: &Idle<'_>) -> bool {
        let gpus = match self.share {
            WHOLE.. => idle.whole >= self.gpus,
            share => self.gpus == 0 || idle.whole > 0 || idle.parts.iter().any(|p| *p >= share),
        };
        gpus && self.cpus <= idle.cpus && self.memory <= idle.memory
    }
}

/// The fragments of a node, in thousandths of a GPU times the weights of the classes.
#[must_use]
pub fn fragments(classes: &[Class], idle: &Idle<'_>) -> u64 {
    let all = idle.gpus();
    if all == 0 {
        return 0;
    }
    let of = |class: &Class| -> u64 {
        let broken = match class.gpus {
            0 => all,
            _ if !class.fits(idle) => all,
            _ => {
                let small = idle.parts.iter().filter(|part| **part < class.share);
                small.map(|part| u64::from(*part)).sum()
            }
        };
        broken * class.weight
    };
    classes.iter().map(of).sum()
}

/// How well a job goes with a node, by what is idle there before and after; the least is best.
#[must_use]
pub fn grade(
    packing: Packing,
    classes: &[Class],
    before: &Idle<'_>,
    after: &Idle<'_>,
) -> (i64, u64, u64) {
    let broken = |idle: &Idle<'_>| i64::try_from(fragments(classes, idle)).unwrap_or(i64::MAX);
    let (gpus, cpus) = (after.gpus(), after.cpus);
    match packing {
        Packing::FirstFit => (0, 0, 0),
        Packing::BestFit => (0, gpus, cpus),
        Packing::Spread => (0, u64::MAX - gpus, u64::MAX - cpus),
        Packing::Fgd => (broken(after) - broken(before), gpus, cpus),
        Packing::LeastFragments => (broken(after), gpus, cpus),
    }
}

/// The classes of these portions, each with how often it occurs, on nodes of these sizes.
#[must_use]
pub fn classes(portions: impl Iterator<Item = (Portion, u64)>, axes: &Axes) -> Vec<Class> {
    let mut seen: BTreeMap<Portion, u64> = BTreeMap::new();
    for (portion, count) in portions.filter(|(portion, _)| portion.gpus > 0) {
        *seen.entry(portion).or_default() += count;
    }
    // Those with the most GPUs in all: rare wide ones among them.
    let mut all: Vec<(Portion, u64)> = seen.into_iter().collect();
    all.sort_by_key(|(p, count)| (std::cmp::Reverse(count * u64::from(p.gpus)), *p));
    all.truncate(MOST_CLASSES);
    // Weights are parts of about a million, so that sums of fragments stay far from 64 bits.
    let total = all.iter().map(|(_, count)| *count).sum::<u64>().max(1);
    let part = |count: u64| (count.saturating_mul(1 << 20) / total).max(1);
    let class = |(p, count): (Portion, u64)| Class {
        cpus: p.cpus.into(),
        memory: p.memory_mib,
        gpus: p.gpus,
        share: WHOLE,
        weight: part(count),
    };
    let mut out: Vec<Class> = all.into_iter().map(class).collect();
    let expected = expected(axes);
    let each = (1 << 20) * EXPECTED_PERCENT / 100 / (expected.len().max(1) as u64);
    out.extend(expected.into_iter().map(|class| Class { weight: each.max(1), ..class }));
    out
}

/// Jobs of 1, 2, 4, ... GPUs on the node with the most of them.
fn expected(axes: &Axes) -> Vec<Class> {
    let Some(gpu) = axes.name("gpu") else { return Vec::new() };
    let Some((size, _)) = axes.sizes().iter().max_by_key(|(size, _)| size[gpu]) else {
        return Vec::new();
    };
    let half =
        |amount: u32, gpus: u32| u64::from(amount) * u64::from(gpus) / (2 * u64::from(size[gpu]));
    let widths = (0..32).map(|n| 1u32 << n).take_while(|gpus| *gpus <= size[gpu]);
    let class = |gpus: u32| Class {
        cpus: half(size[super::axes::CPUS], gpus),
        memory: half(size[super::axes::MEMORY], gpus),
        gpus,
        share: WHOLE,
        weight: 1,
    };
    widths.map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(cpus: u64, gpus: u32, share: u32, weight: u64) -> Class {
        Class { cpus, memory: 0, gpus, share, weight }
    }

    fn idle(cpus: u64, whole: u32, parts: &[u32]) -> Idle<'_> {
        Idle { cpus, memory: 0, whole, parts }
    }

    #[test]
    fn what_a_class_cannot_use_is_a_fragment() {
        let one = [class(4, 1, WHOLE, 1)];
        assert_eq!(fragments(&one, &idle(4, 3, &[])), 0);
        assert_eq!(fragments(&one, &idle(3, 3, &[])), 3000, "no CPUs for it: all GPUs are lost");
        assert_eq!(fragments(&one, &idle(4, 3, &[400, 200])), 600, "shares are no whole GPU");
        let four = [class(4, 4, WHOLE, 1)];
        assert_eq!(fragments(&four, &idle(64, 3, &[])), 3000);
        let half = [class(1, 1, 500, 2)];
        assert_eq!(fragments(&half, &idle(4, 1, &[600, 400])), 800, "400 twice");
        assert_eq!(fragments(&half, &idle(4, 0, &[400])), 800, "and where none fits, all");
    }

    #[test]
    fn classes_without_gpus_can_use_none() {
        // As in the paper: it is the same on every node, so it decides nothing.
        assert_eq!(fragments(&[class(1, 0, WHOLE, 3)], &idle(4, 2, &[])), 6000);
        assert_eq!(fragments(&[class(1, 0, WHOLE, 3)], &idle(4, 0, &[])), 0);
    }

    #[test]
    fn the_ways_to_pack_differ_in_what_they_look_at() {
        // One GPU and 8 CPUs: of a node with 2 GPUs and the CPUs for both, or of one with 4 GPUs and
        // the CPUs for one.
        let classes = [class(8, 1, WHOLE, 1)];
        let of = |packing, cpus, whole| {
            grade(packing, &classes, &idle(cpus, whole, &[]), &idle(cpus - 8, whole - 1, &[]))
        };
        assert!(of(Packing::BestFit, 16, 2) < of(Packing::BestFit, 8, 4));
        assert!(of(Packing::Spread, 16, 2) > of(Packing::Spread, 8, 4));
        // The last CPUs of the second go, and three GPUs are lost.
        assert!(of(Packing::Fgd, 16, 2) < of(Packing::Fgd, 8, 4));
        // A node that is lost already loses nothing more.
        let pair = [class(1, 2, WHOLE, 1)];
        let lost = grade(Packing::Fgd, &pair, &idle(9, 1, &[]), &idle(8, 0, &[]));
        let whole = grade(Packing::Fgd, &pair, &idle(9, 2, &[]), &idle(8, 1, &[]));
        assert!(lost < whole);
    }
}

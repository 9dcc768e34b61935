//! What nodes have and what jobs hold.
//!
//! Units: memory in MiB, CPUs as logical CPUs numbered from 0 within a node, generic resources
//! (GRES) as units numbered from 0 within a node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::NodeId;

/// A set of logical CPUs of one node, as words of 64.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet(Vec<u64>);

impl CpuSet {
    /// The CPUs `0..count`.
    #[must_use]
    pub fn first(count: u32) -> Self {
        (0..count).collect()
    }

    /// From words of 64 CPUs, lowest first; trailing zero words are dropped, so that equal sets
    /// are equal values.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>) -> Self {
        while words.last() == Some(&0) {
            words.pop();
        }
        CpuSet(words)
    }

    /// The words of 64, lowest first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.get(cpu as usize / 64).is_some_and(|w| w >> (cpu % 64) & 1 == 1)
    }

    /// The `count` lowest, or all where there are fewer.
    #[must_use]
    pub fn lowest(&self, count: u32) -> CpuSet {
        let mut missing = count;
        let mut take = |word: &u64| {
            let mut taken = *word;
            while taken.count_ones() > missing {
                taken &= !(1 << (63 - taken.leading_zeros()));
            }
            missing -= taken.count_ones();
            taken
        };
        CpuSet::from_words(self.0.iter().map(&mut take).collect())
    }

    /// Adds the CPUs `from..to`.
    pub fn insert_range(&mut self, from: u32, to: u32) {
        if from >= to {
            return;
        }
        self.insert(to - 1);
        for (i, word) in (0u32..).zip(&mut self.0) {
            let (low, high) = (from.saturating_sub(i * 64), to.saturating_sub(i * 64).min(64));
            if low < high {
                *word |= (u64::MAX >> (64 - (high - low))) << low;
            }
        }
    }

    /// Runs of CPUs side by side, ascending: the first and how many.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.next_from(from, true)?;
            let end = self
                .next_from(first, false)
                .unwrap_or_else(|| u32::try_from(self.0.len() * 64).unwrap_or(u32::MAX));
            from = end;
            Some((first, end - first))
        })
    }

    /// The first number from `at` on that is in the set, or that is not, within its words.
    fn next_from(&self, at: u32, member: bool) -> Option<u32> {
        let word = |i: usize| if member { self.0[i] } else { !self.0[i] };
        let first = at as usize / 64;
        let cut = |i: usize| if i == first { word(i) & (u64::MAX << (at % 64)) } else { word(i) };
        let found = (first..self.0.len()).find(|i| cut(*i) != 0)?;
        Some(u32::try_from(found * 64).ok()? + cut(found).trailing_zeros())
    }

    pub fn insert(&mut self, cpu: u32) {
        let word = cpu as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (cpu % 64);
    }

    /// Adds every CPU of `other`.
    pub fn add(&mut self, other: &CpuSet) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Takes away every CPU of `other`.
    pub fn remove(&mut self, other: &CpuSet) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine &= !theirs;
        }
        *self = CpuSet::from_words(std::mem::take(&mut self.0));
    }

    /// The CPUs that both have.
    #[must_use]
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        CpuSet::from_words(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// Whether every CPU of `other` is one of these.
    #[must_use]
    pub fn covers(&self, other: &CpuSet) -> bool {
        let mine = |i: usize| self.0.get(i).copied().unwrap_or(0);
        other.0.iter().enumerate().all(|(i, theirs)| theirs & !mine(i) == 0)
    }

    /// Whether the two share a CPU.
    #[must_use]
    pub fn overlaps(&self, other: &CpuSet) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// CPU numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(i, word)| {
            // Each step takes the lowest one away.
            let next = |rest: &u64| Some(rest & (rest - 1)).filter(|rest| *rest != 0);
            let ones = std::iter::successors(Some(*word).filter(|word| *word != 0), next);
            ones.map(move |rest| i * 64 + rest.trailing_zeros())
        })
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<T: IntoIterator<Item = u32>>(cpus: T) -> Self {
        let mut set = CpuSet::default();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

/// The kernel's list form: `0-3,8`.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ranges(f, self.iter())
    }
}

/// Writes ascending numbers as `0-3,8`.
pub(crate) fn write_ranges(
    f: &mut fmt::Formatter<'_>,
    numbers: impl Iterator<Item = u32>,
) -> fmt::Result {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    for (i, (from, to)) in ranges.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        if from == to {
            write!(f, "{comma}{from}")?;
        } else {
            write!(f, "{comma}{from}-{to}")?;
        }
    }
    Ok(())
}

/// A kind of generic resource: `gpu`, or `gpu` of type `h100`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GresKind {
    /// Shared, as the type is: passes copy kinds by the thousand.
    pub name: Arc<str>,
    /// The type; `None` in a request means "any type", on a node "untyped".
    pub of: Option<Arc<str>>,
}

impl GresKind {
    #[must_use]
    pub fn new(name: &str, of: Option<&str>) -> Self {
        GresKind { name: name.into(), of: of.map(Into::into) }
    }

    /// Whether a unit of kind `self` on a node satisfies a request for `wanted`.
    #[must_use]
    pub fn satisfies(&self, wanted: &GresKind) -> bool {
        self.name == wanted.name && (wanted.of.is_none() || wanted.of == self.of)
    }
}

impl fmt::Display for GresKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(of) => write!(f, "{}:{of}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// What a count of generic resources is counted per.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GresScope {
    /// `--gpus`: over the whole job, at least one on every node.
    Job,
    /// `--gres`, `--gpus-per-node`.
    Node,
    /// `--gpus-per-task`.
    Task,
    /// `--gpus-per-socket` (with `--sockets-per-node`).
    Socket,
}

/// One wish for generic resources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GresRequest {
    pub kind: GresKind,
    pub count: u64,
    pub scope: GresScope,
}

/// Units of one kind held on one node. Kinds with more than 64 units (or without device
/// identity, like `shard`) are counted, not named: then `mask` is 0 and only `count` speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GresMask {
    /// The node's own kind (with its type, if it has one).
    pub kind: GresKind,
    /// Bit `i` is unit `i` of this *name* on the node (indices run over all types of a name).
    pub mask: u64,
    pub count: u64,
}

/// What a node has to give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    pub cpus: u32,
    pub memory_mib: u64,
    /// Units of each kind. Indices of one name run on through its types in this order.
    pub gres: BTreeMap<GresKind, u64>,
}

/// A job's part on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    pub node: NodeId,
    pub cpus: CpuSet,
    pub memory_mib: u64,
    pub gres: Vec<GresMask>,
    /// Tasks that the job may start here.
    pub tasks: u32,
}

/// A job's slices, in rank order; the first node runs the batch script.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placement {
    pub slices: Vec<Slice>,
}

impl Placement {
    /// The nodes, in rank order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.slices.iter().map(|s| s.node)
    }

    #[must_use]
    pub fn slice(&self, node: NodeId) -> Option<&Slice> {
        self.slices.iter().find(|s| s.node == node)
    }

    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.slices.iter().map(|s| s.cpus.len()).sum()
    }

    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        self.slices.iter().map(|s| s.memory_mib).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets of random words, against the plain list of their numbers.
    #[test]
    fn ranges_and_runs_are_those_of_the_numbers() {
        let mut seed = 7u64;
        let mut word = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            [seed, seed | seed >> 9 | seed << 13, 0, u64::MAX][(seed >> 61) as usize % 4]
        };
        for round in 0..400u32 {
            let set = CpuSet::from_words(vec![word(), word(), word()]);
            let numbers: Vec<u32> = set.iter().collect();
            let runs = numbers.chunk_by(|a, b| a + 1 == *b);
            let runs: Vec<(u32, u32)> =
                runs.map(|run| (run[0], run.len().try_into().expect("few"))).collect();
            assert_eq!(set.runs().collect::<Vec<_>>(), runs, "{set}");
            let count = round % 200;
            let lowest: CpuSet = numbers.iter().copied().take(count as usize).collect();
            assert_eq!(set.lowest(count), lowest, "{count} of {set}");
            let (from, to) = (round % 150, round % 150 + round % 67);
            let mut with = set.clone();
            with.insert_range(from, to);
            assert_eq!(with, numbers.iter().copied().chain(from..to).collect(), "{from}-{to}");
        }
    }

    #[test]
    fn sets_print_as_the_kernel_reads_them() {
        let set: CpuSet = [0, 1, 2, 3, 8, 64, 65].into_iter().collect();
        assert_eq!(set.to_string(), "0-3,8,64-65");
        assert_eq!(set.len(), 7);
    }

    #[test]
    fn what_was_added_can_be_taken_away() {
        let mut set = CpuSet::first(70);
        set.remove(&CpuSet::first(70));
        assert_eq!(set, CpuSet::default());
        set.add(&[65].into_iter().collect());
        assert!(set.contains(65) && !set.contains(1));
        assert!(!set.overlaps(&CpuSet::first(64)));
        assert!(set.covers(&set) && !set.covers(&CpuSet::first(1)));
        assert_eq!(set.intersection(&CpuSet::first(64)), CpuSet::default());
        assert_eq!([63, 64, 127].into_iter().collect::<CpuSet>().iter().sum::<u32>(), 254);
    }

    #[test]
    fn an_untyped_wish_takes_any_type() {
        let h100 = GresKind::new("gpu", Some("h100"));
        assert!(h100.satisfies(&GresKind::new("gpu", None)));
        assert!(h100.satisfies(&h100));
        assert!(!h100.satisfies(&GresKind::new("gpu", Some("a100"))));
    }
}

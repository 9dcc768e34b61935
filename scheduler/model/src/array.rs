//! Job arrays: the spec a user writes and the set of tasks still to start.

use std::fmt;

/// A set of task indices as ascending, disjoint, non-adjacent inclusive ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexSet(Vec<(u32, u32)>);

impl IndexSet {
    /// From ranges in any order; overlaps are merged.
    #[must_use]
    pub fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.retain(|(from, to)| from <= to);
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = (*last).max(to),
                _ => merged.push((from, to)),
            }
        }
        IndexSet(merged)
    }

    /// The ranges, ascending, ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(a, b)| u64::from(b - a) + 1).sum()
    }

    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < index);
        self.0.get(at).is_some_and(|(from, _)| *from <= index)
    }

    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|r| r.0)
    }

    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.0.last().map(|r| r.1)
    }

    /// Takes one index out; `false` if it was not in.
    pub fn remove(&mut self, index: u32) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < index);
        let Some(&(from, to)) = self.0.get(at).filter(|(from, _)| *from <= index) else {
            return false;
        };
        match (from == index, to == index) {
            (true, true) => {
                self.0.remove(at);
            }
            (true, false) => self.0[at].0 = index + 1,
            (false, true) => self.0[at].1 = index - 1,
            (false, false) => {
                self.0[at].1 = index - 1;
                self.0.insert(at + 1, (index + 1, to));
            }
        }
        true
    }

    /// Puts one index in; `false` if it was there already.
    pub fn insert(&mut self, index: u32) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < index);
        if self.0.get(at).is_some_and(|(from, _)| *from <= index) {
            return false;
        }
        let joins_left = at > 0 && self.0[at - 1].1 + 1 == index;
        let joins_right = self.0.get(at).is_some_and(|(from, _)| index + 1 == *from);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = index,
            (false, true) => self.0[at].0 = index,
            (false, false) => self.0.insert(at, (index, index)),
        }
        true
    }

    /// One index alone.
    #[must_use]
    pub fn one(index: u32) -> Self {
        IndexSet(vec![(index, index)])
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &IndexSet) -> IndexSet {
        IndexSet::from_ranges(self.0.iter().chain(&other.0).copied().collect())
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &IndexSet) -> IndexSet {
        let (mut out, mut i, mut j) = (Vec::new(), 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (from, to) = (a.0.max(b.0), a.1.min(b.1));
            if from <= to {
                out.push((from, to));
            }
            if a.1 < b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        IndexSet::from_ranges(out)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &IndexSet) -> IndexSet {
        let (mut out, mut j) = (Vec::new(), 0);
        for &(from, to) in &self.0 {
            let mut next = Some(from);
            while let Some(&(a, b)) = other.0.get(j) {
                if b < from {
                    j += 1;
                    continue;
                }
                if a > to {
                    break;
                }
                if let Some(start) = next.filter(|start| *start < a) {
                    out.push((start, a - 1));
                }
                next = b.checked_add(1);
                if b > to {
                    break;
                }
                j += 1;
            }
            if let Some(start) = next.filter(|start| *start <= to) {
                out.push((start, to));
            }
        }
        IndexSet::from_ranges(out)
    }

    /// Indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(a, b)| *a..=*b)
    }

    /// Position of `index` among the set's members (0 is the first).
    #[must_use]
    pub fn rank(&self, index: u32) -> Option<u32> {
        let mut before = 0;
        for (from, to) in &self.0 {
            if (*from..=*to).contains(&index) {
                return Some(before + (index - from));
            }
            before += to - from + 1;
        }
        None
    }

    /// The member at position `rank`: the inverse of [`IndexSet::rank`].
    #[must_use]
    pub fn nth(&self, mut rank: u32) -> Option<u32> {
        for (from, to) in &self.0 {
            let len = to - from + 1;
            if rank < len {
                return Some(from + rank);
            }
            rank -= len;
        }
        None
    }
}

/// `0-3,7`: as squeue shows the tasks that are left.
impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (from, to)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        Ok(())
    }
}

/// `--array=0-15:4%2,20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArraySpec {
    pub indices: IndexSet,
    /// At most this many tasks at once (`%2`); `None`: no bound.
    pub throttle: Option<u32>,
}

/// Why an array spec could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid job array {text:?}: {fault}")]
pub struct BadArray {
    pub text: String,
    pub fault: &'static str,
}

impl ArraySpec {
    /// Reads `--array`. Indices must lie below `max_size` (Slurm's MaxArraySize).
    ///
    /// # Errors
    /// Anything that is no list of `N`, `N-M` or `N-M:STEP`, a range that runs backwards, a step
    /// or throttle of 0, or an index of `max_size` and more.
    pub fn parse(text: &str, max_size: u32) -> Result<Self, BadArray> {
        let bad = |fault| BadArray { text: text.to_owned(), fault };
        let (list, throttle) = match text.split_once('%') {
            Some((list, limit)) => {
                let limit = limit.parse().ok().filter(|n| *n > 0);
                (list, Some(limit.ok_or_else(|| bad("the throttle after '%' must be 1 or more"))?))
            }
            None => (text, None),
        };
        let mut ranges = Vec::new();
        for item in list.split(',') {
            let (span, step) = match item.split_once(':') {
                Some((span, step)) => (span, read(step).filter(|s| *s > 0)),
                None => (item, Some(1)),
            };
            let step = step.ok_or_else(|| bad("the step after ':' must be 1 or more"))?;
            let (from, to) = match span.split_once('-') {
                Some((from, to)) => (read(from), read(to)),
                None => (read(span), read(span)),
            };
            let (Some(from), Some(to)) = (from, to) else {
                return Err(bad("use a list like 0-15:4,20%2"));
            };
            if from > to {
                return Err(bad("a range runs backwards"));
            }
            if to >= max_size {
                return Err(bad("an index reaches the cluster's max_array_size"));
            }
            if step == 1 {
                ranges.push((from, to));
            } else {
                ranges.extend((from..=to).step_by(step as usize).map(|i| (i, i)));
            }
        }
        Ok(ArraySpec { indices: IndexSet::from_ranges(ranges), throttle })
    }
}

fn read(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn specs_are_read() {
        let spec = ArraySpec::parse("0-15:4%2,20", 1001);
        assert!(spec.is_err(), "a throttle comes last");
        let spec = ArraySpec::parse("0-15:4,20%2", 1001).unwrap();
        assert_eq!(spec.indices.iter().collect::<Vec<_>>(), [0, 4, 8, 12, 20]);
        assert_eq!(spec.throttle, Some(2));
        assert_eq!(ArraySpec::parse("1-4", 1001).unwrap().indices.to_string(), "1-4");
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "5-1", "x", "1-", "0-99999999", "1:0", "1-3:0", "1%0", "1%", "-1", "1,,2"]
        {
            assert!(ArraySpec::parse(text, 1001).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sets_combine_as_sets_do(
            a in proptest::collection::btree_set(0u32..40, 0..20),
            b in proptest::collection::btree_set(0u32..40, 0..20),
        ) {
            let set = |s: &BTreeSet<u32>| IndexSet::from_ranges(s.iter().map(|i| (*i, *i)).collect());
            prop_assert_eq!(set(&a).union(&set(&b)), set(&(&a | &b)));
            prop_assert_eq!(set(&a).intersection(&set(&b)), set(&(&a & &b)));
            prop_assert_eq!(set(&a).difference(&set(&b)), set(&(&a - &b)));
        }

        #[test]
        fn an_index_set_is_a_set(ops in proptest::collection::vec((any::<bool>(), 0u32..64), 0..80)) {
            let (mut ours, mut model) = (IndexSet::default(), BTreeSet::new());
            for (put, i) in ops {
                if put {
                    prop_assert_eq!(ours.insert(i), model.insert(i));
                } else {
                    prop_assert_eq!(ours.remove(i), model.remove(&i));
                }
                prop_assert_eq!(ours.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                for (rank, index) in (0..).zip(&model) {
                    prop_assert_eq!(ours.rank(*index), Some(rank));
                    prop_assert_eq!(ours.nth(rank), Some(*index));
                }
            }
        }
    }
}

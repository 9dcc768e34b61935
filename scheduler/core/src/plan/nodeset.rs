//! A set of nodes as words of 64: what the pass and the topology count and intersect.

use muster_model::NodeId;

/// A set of nodes out of `0..capacity`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    /// Empty, with room for the nodes `0..nodes`.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        NodeSet { words: vec![0; nodes.div_ceil(64)] }
    }

    /// The nodes `0..nodes`.
    #[must_use]
    pub fn full(nodes: usize) -> Self {
        let mut words = vec![u64::MAX; nodes.div_ceil(64)];
        if let Some(last) = words.last_mut().filter(|_| !nodes.is_multiple_of(64)) {
            *last = (1 << (nodes % 64)) - 1;
        }
        NodeSet { words }
    }

    /// With room for the nodes `0..nodes`; others among `members` are left out.
    #[must_use]
    pub fn of(nodes: usize, members: impl IntoIterator<Item = NodeId>) -> Self {
        let mut set = NodeSet::new(nodes);
        for node in members.into_iter().filter(|node| (node.0 as usize) < nodes) {
            set.insert(node);
        }
        set
    }

    /// # Panics
    /// When the node lies outside the room made by [`NodeSet::new`].
    pub fn insert(&mut self, node: NodeId) {
        self.words[node.0 as usize / 64] |= 1 << (node.0 % 64);
    }

    pub fn remove(&mut self, node: NodeId) {
        if let Some(word) = self.words.get_mut(node.0 as usize / 64) {
            *word &= !(1 << (node.0 % 64));
        }
    }

    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.words.get(node.0 as usize / 64).is_some_and(|word| word >> (node.0 % 64) & 1 == 1)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether it has fewer than so many; looks no further than it must.
    #[must_use]
    pub fn fewer_than(&self, enough: usize) -> bool {
        let mut found = 0;
        for word in &self.words {
            found += word.count_ones() as usize;
            if found >= enough {
                return false;
            }
        }
        found < enough
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Becomes equal to another, in the memory that it has.
    pub fn copy_from(&mut self, other: &NodeSet) {
        self.words.clear();
        self.words.extend_from_slice(&other.words);
    }

    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The lowest node.
    #[must_use]
    pub fn first(&self) -> Option<NodeId> {
        self.iter().next()
    }

    /// The nodes, ascending; empty words cost one look.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0u32..)
            .zip(&self.words)
            .flat_map(|(at, word)| Ones(*word).map(move |bit| at * 64 + bit))
            .map(NodeId)
    }

    /// The words, lowest nodes first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words; bits beyond the last node must stay 0.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Keeps what is in `other` too.
    pub fn and_with(&mut self, other: &NodeSet) {
        let missing = other.words.len().min(self.words.len());
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= theirs;
        }
        self.words[missing..].fill(0);
    }

    /// Adds what is in `other`; nodes beyond the own room are left out.
    pub fn or_with(&mut self, other: &NodeSet) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Takes away what is in `other`.
    pub fn and_not_with(&mut self, other: &NodeSet) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
    }

    /// Whether the two share a node.
    #[must_use]
    pub fn intersects(&self, other: &NodeSet) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// How many nodes the two share; looks no further than it must to find so many.
    #[must_use]
    pub fn up_to_common(&self, other: &NodeSet, enough: usize) -> usize {
        let mut found = 0;
        for (a, b) in self.words.iter().zip(&other.words) {
            found += (a & b).count_ones() as usize;
            if found >= enough {
                break;
            }
        }
        found
    }
}

/// The positions of the ones of a word, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Ones(pub(crate) u64);

impl Iterator for Ones {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(members: &BTreeSet<u32>) -> NodeSet {
        NodeSet::of(200, members.iter().map(|n| NodeId(*n)))
    }

    #[test]
    fn a_full_set_has_every_node_and_no_other() {
        for n in [0, 1, 63, 64, 65, 128, 130] {
            let full = NodeSet::full(n);
            assert_eq!(full.count(), n);
            assert!(!full.contains(NodeId(u32::try_from(n).unwrap())));
        }
        assert_eq!(NodeSet::of(2, [NodeId(1), NodeId(2)]).iter().collect::<Vec<_>>(), [NodeId(1)]);
    }

    #[test]
    fn a_smaller_set_takes_nothing_of_what_it_has_no_room_for() {
        let mut big = NodeSet::full(130);
        big.and_with(&NodeSet::full(3));
        assert_eq!(big.count(), 3);
        let mut small = NodeSet::new(64);
        small.or_with(&NodeSet::full(130));
        assert_eq!(small.count(), 64);
    }

    proptest! {
        #[test]
        fn a_set_of_words_is_a_set(
            a in prop::collection::btree_set(0u32..200, 0..60),
            b in prop::collection::btree_set(0u32..200, 0..60),
        ) {
            let numbers = |set: &NodeSet| set.iter().map(|n| n.0).collect::<BTreeSet<_>>();
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(numbers(&x), a.clone());
            prop_assert_eq!(x.count(), a.len());
            prop_assert_eq!(x.first().map(|n| n.0), a.first().copied());
            let common = a.intersection(&b).count();
            prop_assert!(x.up_to_common(&y, 3) >= common.min(3) && x.up_to_common(&y, 3) <= common);
            prop_assert_eq!(x.intersects(&y), a.intersection(&b).next().is_some());
            let (mut and, mut or, mut not) = (x.clone(), x.clone(), x.clone());
            and.and_with(&y);
            or.or_with(&y);
            not.and_not_with(&y);
            prop_assert_eq!(numbers(&and), &a & &b);
            prop_assert_eq!(numbers(&or), &a | &b);
            prop_assert_eq!(numbers(&not), &a - &b);
            let mut gone = x;
            a.iter().for_each(|n| gone.remove(NodeId(*n)));
            prop_assert!(gone.is_empty());
        }
    }
}

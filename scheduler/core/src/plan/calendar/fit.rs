//! What the calendar is asked: which nodes have so much, in a slot and throughout a window.

use muster_model::NodeId;
use smallvec::SmallVec;

use super::super::axes::Amounts;
use super::super::nodeset::NodeSet;
use super::{Calendar, Fuel};

/// Amounts that a node must have, with the sets to look into.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// By axis.
    pub amounts: Amounts,
    /// Places among a slot's sets.
    sets: SmallVec<[usize; 4]>,
    /// Being in all of the sets is having all of the amounts.
    exact: bool,
}

impl Calendar {
    /// Amounts, ready for questions.
    #[must_use]
    pub fn want(&self, amounts: Amounts) -> Want {
        let mut want = Want { sets: SmallVec::new(), exact: true, amounts };
        for (axis, amount) in want.amounts.iter().filter(|(_, amount)| *amount > 0) {
            let scale = &self.scales[*axis];
            let reached = scale.reached(*amount);
            want.exact &= scale.is_exact(reached, *amount);
            // Below the first level only a look at the node can tell.
            want.sets.extend(reached.checked_sub(1).map(|level| scale.first + level));
        }
        // GPUs, the last of the axes, are what is short most often.
        want.sets.reverse();
        want
    }

    /// The first slot of a window in which licences are short, if any is.
    #[must_use]
    pub fn short_of_licenses(
        &self,
        licenses: &[(usize, u32)],
        from: usize,
        to: usize,
    ) -> Option<usize> {
        if licenses.is_empty() {
            return None;
        }
        let left = |slot: usize, license: usize| {
            self.licenses[self.slots[slot].row * self.kinds_of_licenses + license]
        };
        let short = |slot: &usize| licenses.iter().any(|(license, n)| left(*slot, *license) < *n);
        self.window(from, to).find(short)
    }

    /// Whether a node has these amounts in a slot.
    #[must_use]
    pub fn has(&self, slot: usize, node: NodeId, need: &[(usize, u32)]) -> bool {
        let free = self.free(slot, node);
        need.iter().all(|(axis, amount)| free[*axis] >= *amount)
    }

    /// How many nodes have so much in a slot at most, as far as counts say.
    #[must_use]
    pub fn counted(&self, slot: usize, axis: usize, amount: u32) -> usize {
        let scale = &self.scales[axis];
        let row = self.slots[slot].row * self.levels + scale.first;
        match scale.reached(amount).checked_sub(1) {
            Some(level) => self.counts[row + level] as usize,
            None => self.nodes,
        }
    }

    /// Whether fewer nodes than `enough` have these amounts in a slot, as far as counts say.
    #[must_use]
    pub fn too_few(&self, slot: usize, want: &Want, enough: usize) -> bool {
        let row = self.slots[slot].row * self.levels;
        want.sets.iter().any(|set| (self.counts[row + set] as usize) < enough)
    }

    /// The last slot of a window in which, by counts alone, fewer than `enough` nodes have these
    /// amounts: no window that has it will do.
    #[must_use]
    pub fn last_too_few(
        &self,
        want: &Want,
        from: usize,
        to: usize,
        enough: usize,
        fuel: &mut Fuel,
    ) -> Option<usize> {
        let mut looked = 0;
        let found = self.window(from, to).rev().find(|slot| {
            looked += 1;
            self.too_few(*slot, want, enough)
        });
        *fuel = fuel.saturating_sub(looked / 16);
        found
    }

    /// Keeps of a set the nodes that may have these amounts in a slot: all that have, and where
    /// an amount lies between two levels some that have not. Says whether the answer is exact.
    pub fn keep_likely(&self, slot: usize, want: &Want, nodes: &mut NodeSet) -> bool {
        let row = self.slots[slot].row * self.levels;
        for set in &want.sets {
            let first = (row + set) * self.words;
            let set = &self.sets[first..first + self.words];
            nodes.words_mut().iter_mut().zip(set).for_each(|(mine, theirs)| *mine &= theirs);
        }
        want.exact || self.few_enough(slot, want, nodes)
    }

    /// On clusters of one word every node is looked at: that is as quick as looking into sets.
    fn few_enough(&self, slot: usize, want: &Want, nodes: &mut NodeSet) -> bool {
        if self.words == 1 {
            let lacking = |node: &NodeId| !self.has(slot, *node, &want.amounts);
            let out = nodes.iter().filter(lacking).fold(0, |out, node| out | 1 << node.0);
            nodes.words_mut()[0] &= !out;
        }
        self.words == 1
    }

    /// Keeps of a set the nodes that may have these amounts throughout a window, and says whether
    /// all of them have. If fewer than `enough` are left, returns the slot that was short.
    ///
    /// # Errors
    /// The slot in which too few were left.
    pub fn keep_fitting(
        &self,
        want: &Want,
        from: usize,
        to: usize,
        enough: usize,
        nodes: &mut NodeSet,
        fuel: &mut Fuel,
    ) -> Result<bool, usize> {
        let slots = self.window(from, to);
        self.keep_in(want, slots, enough, nodes, fuel)
    }

    /// The same for any slots, in the order in which they are given.
    ///
    /// # Errors
    /// The slot in which too few were left.
    pub fn keep_in(
        &self,
        want: &Want,
        slots: impl Iterator<Item = usize>,
        enough: usize,
        nodes: &mut NodeSet,
        fuel: &mut Fuel,
    ) -> Result<bool, usize> {
        let mut exact = true;
        // Words that still have a node, once they are few.
        let mut live: Option<Vec<usize>> = None;
        for slot in slots {
            if self.too_few(slot, want, enough) {
                *fuel = fuel.saturating_sub(1);
                return Err(slot);
            }
            let words = live.as_ref().map_or(self.words, Vec::len);
            *fuel = fuel.saturating_sub((words * want.sets.len()) as u64 / 16 + 1);
            let short = match &mut live {
                Some(live) => {
                    self.keep_live(slot, want, live, nodes);
                    exact &= want.exact;
                    // Every live word has a node at least.
                    live.len() < enough && few(nodes.words(), live) < enough
                }
                None => {
                    exact &= self.keep_likely(slot, want, nodes);
                    nodes.fewer_than(enough)
                }
            };
            if short {
                return Err(slot);
            }
            if live.is_none() && self.words > 4 {
                let words = nodes.words();
                let full = words.iter().filter(|word| **word != 0).count();
                if full * 2 < words.len() {
                    let is_full = |at: &usize| words[*at] != 0;
                    live = Some((0..words.len()).filter(is_full).collect());
                }
            }
        }
        Ok(exact)
    }

    fn keep_live(&self, slot: usize, want: &Want, live: &mut Vec<usize>, nodes: &mut NodeSet) {
        let row = self.slots[slot].row * self.levels;
        let words = nodes.words_mut();
        let set = |set: &usize| &self.sets[(row + set) * self.words..][..self.words];
        let sets: SmallVec<[&[u64]; 4]> = want.sets.iter().map(set).collect();
        let sets = sets.as_slice();
        live.retain(|at| {
            let mut word = words[*at];
            for set in sets {
                word &= set[*at];
                if word == 0 {
                    break;
                }
            }
            words[*at] = word;
            word != 0
        });
    }

    /// Whether a node has these amounts in all of these slots.
    #[must_use]
    pub fn has_throughout(&self, slots: &[usize], node: NodeId, need: &[(usize, u32)]) -> bool {
        slots.iter().all(|slot| self.has(*slot, node, need))
    }

    /// Puts into `out` the nodes of a set with just this amount on an axis in a slot. `false`: there
    /// is none.
    pub fn keep_just(
        &self,
        slot: usize,
        axis: usize,
        amount: u32,
        nodes: &NodeSet,
        out: &mut NodeSet,
    ) -> bool {
        let scale = &self.scales[axis];
        let row = self.slots[slot].row * self.levels + scale.first;
        let (level, above) = (scale.reached(amount), scale.reached(amount.saturating_add(1)));
        let count = |level: usize| match level.checked_sub(1) {
            Some(at) => self.counts[row + at] as usize,
            None => self.nodes,
        };
        let exact = scale.is_exact(level, amount) || amount == 0;
        if exact && above > level && count(above) == count(level) {
            return false;
        }
        out.copy_from(nodes);
        let set = |at: usize| &self.sets[(row + at) * self.words..][..self.words];
        if let Some(at) = level.checked_sub(1) {
            out.words_mut().iter_mut().zip(set(at)).for_each(|(mine, theirs)| *mine &= theirs);
        }
        if above > level {
            let above = set(above - 1);
            out.words_mut().iter_mut().zip(above).for_each(|(mine, theirs)| *mine &= !theirs);
        }
        if !exact || (above == level && scale.goes_beyond(amount)) {
            let other = |node: &NodeId| self.free(slot, *node)[axis] != amount;
            let others: Vec<NodeId> = out.iter().filter(other).collect();
            others.into_iter().for_each(|node| out.remove(node));
        }
        !out.is_empty()
    }

    /// The least that a node has free over a window, by axis, into `out`.
    pub fn least(&self, node: NodeId, from: usize, to: usize, out: &mut Vec<u32>) {
        out.clear();
        out.extend_from_slice(self.free(from, node));
        for slot in self.window(from, to).skip(1) {
            for (least, free) in out.iter_mut().zip(self.free(slot, node)) {
                *least = (*least).min(*free);
            }
        }
    }
}

fn few(words: &[u64], live: &[usize]) -> usize {
    live.iter().map(|at| words[*at].count_ones() as usize).sum()
}

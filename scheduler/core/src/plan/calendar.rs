//! The calendar: how much of every node is free, now and at every later time.
//!
//! Time is cut into slots where something changes; the last slot goes on for ever. Running jobs
//! give back what they hold at the end of their limits, so without promised starts the free
//! amounts only grow from slot to slot. A shadow takes from the slots that it covers; a slot in
//! which less may be free than in the one before it is marked as a dip. A job that wants to run
//! through a window therefore fits if it fits in the window's first slot and in its dips.
//!
//! For every slot and axis the nodes stand in sets by level (how much they have at least), so
//! that nodes that have enough are found by intersecting a few bitsets. How many nodes stand in
//! each set is counted along: mostly that alone says that a slot has too few.
//!
//! Slots are cut exactly while there is room for more of them ([`room_for_slots`]); beyond that
//! ends are rounded up to the next cut, so a promise may be later than it could be, never
//! earlier.
//!
//! - `scale`: the levels of an axis; `extend`: the future, told at once; `fit`: questions

mod extend;
mod fit;
mod scale;

use muster_model::{NodeId, Timestamp};

use scale::Scale;

pub use extend::{Ending, LicenseEnding, Taken};
pub use fit::Want;

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: Timestamp,
    /// Less than in the slot before may be free.
    dips: bool,
    /// Its place in the calendar's lists.
    row: usize,
}

/// Free amounts over time.
#[derive(Debug, Clone)]
pub struct Calendar {
    axes: usize,
    nodes: usize,
    words: usize,
    scales: Vec<Scale>,
    /// Sets of all axes together.
    levels: usize,
    slots: Vec<Slot>,
    /// By row, node and axis.
    free: Vec<u32>,
    /// By row, set and word.
    sets: Vec<u64>,
    /// By row and set: how many nodes it has.
    counts: Vec<u32>,
    /// By row and license.
    licenses: Vec<u32>,
    kinds_of_licenses: usize,
    most: usize,
    /// More was taken of something than there was.
    overtaken: bool,
}

/// Units of work done so far; a search stops when it has none left.
pub type Fuel = u64;

/// Slots that a calendar may have: memory of about 64 MiB at 10,000 nodes, and enough to be exact
/// on small clusters.
#[must_use]
pub fn room_for_slots(nodes: usize, axes: usize) -> usize {
    ((1 << 22) / (nodes * axes).max(1)).clamp(128, 8192)
}

impl Calendar {
    /// Whether every promise can be kept as it is: no more was taken than there was.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.overtaken
    }

    /// One slot from `now` on. `free`: as many numbers for every node as there are `axes`;
    /// `most`: the most that any node could have, by axis.
    #[must_use]
    pub fn new(
        now: Timestamp,
        axes: usize,
        free: Vec<u32>,
        most: &[u32],
        licenses: Vec<u32>,
    ) -> Self {
        let nodes = free.len() / axes;
        let mut scales: Vec<Scale> = Vec::with_capacity(axes);
        let mut levels = 0;
        for (axis, most) in most.iter().enumerate() {
            let scale = Scale::new(axis, *most, levels);
            levels += scale.levels();
            scales.push(scale);
        }
        let mut calendar = Calendar {
            axes,
            nodes,
            words: nodes.div_ceil(64),
            levels,
            slots: vec![Slot { start: now, dips: false, row: 0 }],
            sets: vec![0; levels * nodes.div_ceil(64)],
            counts: vec![0; levels],
            kinds_of_licenses: licenses.len(),
            licenses,
            free,
            scales,
            most: room_for_slots(nodes, axes),
            overtaken: false,
        };
        calendar.fill();
        calendar
    }

    /// The first row's sets: every node into that of its highest level, then every set into the one
    /// below it.
    fn fill(&mut self) {
        let words = self.words;
        for (node, row) in self.free.chunks_exact(self.axes).enumerate() {
            for (scale, amount) in self.scales.iter().zip(row) {
                if let Some(top) = scale.reached(*amount).checked_sub(1) {
                    self.sets[(scale.first + top) * words + node / 64] |= 1 << (node % 64);
                    self.counts[scale.first + top] += 1;
                }
            }
        }
        for scale in &self.scales {
            for set in (scale.first + 1..scale.first + scale.levels()).rev() {
                let (below, above) = self.sets.split_at_mut(set * words);
                let below = &mut below[(set - 1) * words..];
                below.iter_mut().zip(&*above).for_each(|(mine, theirs)| *mine |= theirs);
                self.counts[set - 1] += self.counts[set];
            }
        }
    }

    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn start(&self, slot: usize) -> Timestamp {
        self.slots[slot].start
    }

    /// What a node has free in a slot, by axis.
    #[must_use]
    pub fn free(&self, slot: usize, node: NodeId) -> &[u32] {
        let at = (self.slots[slot].row * self.nodes + node.0 as usize) * self.axes;
        &self.free[at..at + self.axes]
    }

    /// The first slot that starts at or after a time; the number of slots if none does.
    #[must_use]
    pub fn at_or_after(&self, time: Timestamp) -> usize {
        self.slots.partition_point(|slot| slot.start < time)
    }

    /// The slot after the last of a window that begins with slot `from` and ends at `until`
    /// (`None`: never).
    #[must_use]
    pub fn end_slot(&self, from: usize, until: Option<Timestamp>) -> usize {
        until.map_or(self.slots.len(), |until| self.at_or_after(until).max(from + 1))
    }

    /// The slots of a window that have to be looked at: its first, and its dips.
    pub fn window(
        &self,
        from: usize,
        to: usize,
    ) -> impl DoubleEndedIterator<Item = usize> + Clone + '_ {
        let dips = (from + 1..to).filter(|slot| self.slots[*slot].dips);
        std::iter::once(from).chain(dips)
    }

    /// A row with as much free as another; its place.
    fn copy_row(&mut self, row: usize) -> usize {
        fn copy<T: Copy>(list: &mut Vec<T>, row: usize, len: usize) {
            list.extend_from_within(row * len..(row + 1) * len);
        }
        let made = self.slots.len();
        copy(&mut self.free, row, self.nodes * self.axes);
        copy(&mut self.sets, row, self.levels * self.words);
        copy(&mut self.counts, row, self.levels);
        copy(&mut self.licenses, row, self.kinds_of_licenses);
        made
    }

    /// Makes a slot begin at this time, if there is room for one more; otherwise the next slot
    /// that does begin, or none if all begin before. Returns the slot.
    pub fn cut(&mut self, time: Timestamp) -> usize {
        let at = self.at_or_after(time);
        let exact = self.slots.get(at).is_some_and(|slot| slot.start == time);
        if exact || at == 0 || self.slots.len() >= self.most {
            return at;
        }
        let row = self.copy_row(self.slots[at - 1].row);
        self.slots.insert(at, Slot { start: time, dips: false, row });
        at
    }

    /// Takes amounts of a node from a window of slots.
    pub fn take(&mut self, node: NodeId, amounts: &[(usize, u32)], from: usize, to: usize) {
        (from..to).for_each(|slot| self.shift_slot(slot, node, amounts, -1));
        if from > 0 && from < self.slots.len() {
            self.slots[from].dips = true;
        }
    }

    /// Gives back what was taken.
    pub fn give(&mut self, node: NodeId, amounts: &[(usize, u32)], from: usize, to: usize) {
        (from..to).for_each(|slot| self.shift_slot(slot, node, amounts, 1));
        if to < self.slots.len() {
            self.slots[to].dips = true;
        }
    }

    fn shift_slot(&mut self, slot: usize, node: NodeId, amounts: &[(usize, u32)], sign: i64) {
        let row = self.slots[slot].row;
        let (word, bit) = (node.0 as usize / 64, 1u64 << (node.0 % 64));
        let place = (row * self.nodes + node.0 as usize) * self.axes;
        let free = &mut self.free[place..place + self.axes];
        let sets = &mut self.sets[row * self.levels * self.words..];
        let counts = &mut self.counts[row * self.levels..];
        for (axis, amount) in amounts {
            let old = free[*axis];
            let new = i64::from(old) + sign * i64::from(*amount);
            self.overtaken |= new < 0;
            let new = u32::try_from(new.max(0)).unwrap_or(u32::MAX);
            free[*axis] = new;
            let scale = &self.scales[*axis];
            let (before, after) = (scale.reached(old), scale.reached(new));
            for set in scale.first + before..scale.first + after {
                sets[set * self.words + word] |= bit;
                counts[set] += 1;
            }
            for set in scale.first + after..scale.first + before {
                sets[set * self.words + word] &= !bit;
                counts[set] -= 1;
            }
        }
    }

    /// Takes licences from a window of slots.
    pub fn take_licenses(&mut self, licenses: &[(usize, u32)], from: usize, to: usize) {
        for (license, count) in licenses {
            for slot in from..to {
                self.take_license(slot, *license, *count);
            }
            if from > 0 && from < self.slots.len() {
                self.slots[from].dips = true;
            }
        }
    }

    /// Gives licences back.
    pub fn give_licenses(&mut self, licenses: &[(usize, u32)], from: usize, to: usize) {
        for (license, count) in licenses {
            (from..to).for_each(|slot| *self.license_mut(slot, *license) += count);
            if to < self.slots.len() {
                self.slots[to].dips = true;
            }
        }
    }

    fn take_license(&mut self, slot: usize, license: usize, count: u32) {
        let left = self.license_mut(slot, license);
        let short = *left < count;
        *left = left.saturating_sub(count);
        self.overtaken |= short;
    }

    fn license_mut(&mut self, slot: usize, license: usize) -> &mut u32 {
        &mut self.licenses[self.slots[slot].row * self.kinds_of_licenses + license]
    }
}

#[cfg(test)]
mod tests;

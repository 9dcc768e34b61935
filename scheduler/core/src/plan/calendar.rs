//! The calendar: how much of every node is free, now and at every later time.
//!
//! Time is cut into slots where something changes; the last slot goes on for ever. Running jobs
//! give back what they hold at the end of their limits, so without promised starts the free
//! amounts only grow from slot to slot. A shadow takes from the slots that it covers; a slot in
//! which less may be free than in the one before it is marked as a dip. A job that wants to run
//! through a window therefore fits if it fits in the window's first slot and in its dips.
//!
//! For every slot and axis the nodes stand in sets by level (how much they have at least), so
//! that nodes that have enough are found by intersecting a few bitsets.
//!
//! Slots are cut exactly while there is room for more of them ([`room_for_slots`]); beyond that
//! ends are rounded up to the next cut, so a promise may be later than it could be, never
//! earlier.

use muster_model::{NodeId, Timestamp};

use super::axes::{ALL_SEATS, MEMORY, SEATS};
use super::nodeset::NodeSet;

/// Something that is given back at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    pub end: Timestamp,
    pub node: NodeId,
    /// Axis and amount.
    pub amounts: Vec<(usize, u32)>,
}

/// Licences that are given back at a time, by their place in the calendar's list.
#[derive(Debug, Clone, PartialEq)]
pub struct LicenseEnding {
    pub end: Timestamp,
    pub license: usize,
    pub count: u32,
}

/// The levels of one axis: level `l` holds the nodes with at least `thresholds[l]`.
#[derive(Debug, Clone)]
struct Scale {
    /// Where the axis' sets begin among a slot's sets.
    first: usize,
    /// Ascending, at least 1 each. Amounts below the first are in no set.
    thresholds: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Slot {
    start: Timestamp,
    /// Less than in the slot before may be free.
    dips: bool,
    /// `free[node * axes + axis]`.
    free: Vec<u32>,
    /// `sets[set * words ..]`.
    sets: Vec<u64>,
    licenses: Vec<u32>,
}

/// Free amounts over time.
#[derive(Debug, Clone)]
pub struct Calendar {
    axes: usize,
    words: usize,
    scales: Vec<Scale>,
    slots: Vec<Slot>,
    most: usize,
}

/// Units of work done so far; a search stops when it has none left.
pub type Fuel = u64;

/// Slots that a calendar may have: memory of about 64 MiB at 10,000 nodes, and enough to be exact
/// on small clusters.
#[must_use]
pub fn room_for_slots(nodes: usize, axes: usize) -> usize {
    ((1 << 22) / (nodes * axes).max(1)).clamp(128, 8192)
}

/// Cuts after the last end of a running job, ever farther apart, so that shadows can follow each
/// other there even when no room is left for cuts of their own: to 20 times the time of that end.
const HORIZON: [i64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18];
/// ... and not before an hour from now.
const HORIZON_MS: i64 = 3_600_000;

/// Where the levels of an axis lie: everywhere for a few units; else at four amounts an octave,
/// which are those that people ask for.
fn thresholds(axis: usize, most: u32) -> Vec<u32> {
    let unit = match axis {
        SEATS => return vec![1, ALL_SEATS],
        MEMORY => 1024,
        _ if most <= 16 => return (1..=most).collect(),
        _ => 1,
    };
    let first = [1, 2, 3].into_iter();
    let octave = |base: u32| (4..8u32).map(move |n| n.saturating_mul(base));
    let rest = (0..30).map(|n| 1u32 << n).flat_map(octave);
    let all = first.chain(rest).map(|t| t.saturating_mul(unit));
    all.take_while(|t| *t <= most).collect()
}

impl Calendar {
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
        let mut first = 0;
        for (axis, most) in most.iter().enumerate() {
            let thresholds = thresholds(axis, *most);
            scales.push(Scale { first, thresholds });
            first += scales[axis].thresholds.len();
        }
        let words = nodes.div_ceil(64);
        let mut sets = vec![0; first * words];
        for (node, row) in free.chunks_exact(axes).enumerate() {
            for (scale, amount) in scales.iter().zip(row) {
                for level in 0..scale.reached(*amount) {
                    sets[(scale.first + level) * words + node / 64] |= 1 << (node % 64);
                }
            }
        }
        let slot = Slot { start: now, dips: false, free, sets, licenses };
        Calendar { axes, words, scales, slots: vec![slot], most: room_for_slots(nodes, axes) }
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
        let at = node.0 as usize * self.axes;
        &self.slots[slot].free[at..at + self.axes]
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

    /// Appends what will be given back. To be called once, before anything is taken.
    pub fn extend(&mut self, mut endings: Vec<&Ending>, licenses: &[LicenseEnding]) {
        let mut ends: Vec<Timestamp> = endings.iter().map(|e| e.end).collect();
        ends.extend(licenses.iter().map(|e| e.end));
        ends.sort_unstable();
        ends.dedup();
        // Half of the room stays for what shadows cut.
        let mut cuts = cuts(&ends, self.slots[0].start, self.most / 2 - HORIZON.len());
        let now = self.slots[0].start;
        let last = cuts.last().map_or(HORIZON_MS, |last| last.since(now)).max(HORIZON_MS);
        cuts.extend(HORIZON.map(|n| Timestamp(now.0 + last + (last >> 4) * n * n)));
        endings.sort_by_key(|e| (e.end, e.node));
        let mut left = endings.as_slice();
        for cut in cuts {
            let last = self.slots.last().expect("there is always a slot");
            let mut slot = Slot { start: cut, dips: false, ..last.clone() };
            let due = left.partition_point(|e| e.end <= cut);
            for ending in &left[..due] {
                for (axis, amount) in &ending.amounts {
                    self.change(&mut slot, ending.node, *axis, i64::from(*amount));
                }
            }
            left = &left[due..];
            let before = self.slots.last().expect("there is always a slot").start;
            for ending in licenses.iter().filter(|e| e.end > before && e.end <= cut) {
                slot.licenses[ending.license] += ending.count;
            }
            self.slots.push(slot);
        }
    }

    fn change(&self, slot: &mut Slot, node: NodeId, axis: usize, by: i64) {
        let place = node.0 as usize * self.axes + axis;
        let old = slot.free[place];
        let new = u32::try_from((i64::from(old) + by).max(0)).unwrap_or(u32::MAX);
        slot.free[place] = new;
        let scale = &self.scales[axis];
        let (before, after) = (scale.reached(old), scale.reached(new));
        let (word, bit) = (node.0 as usize / 64, 1u64 << (node.0 % 64));
        for level in after.min(before)..after.max(before) {
            let word = &mut slot.sets[(scale.first + level) * self.words + word];
            if after > before { *word |= bit } else { *word &= !bit }
        }
    }

    /// Makes a slot begin at this time, if there is room for one more; otherwise the next slot
    /// that does begin, or none if all begin before. Returns the slot.
    pub fn cut(&mut self, time: Timestamp) -> usize {
        let at = self.at_or_after(time);
        let exact = self.slots.get(at).is_some_and(|slot| slot.start == time);
        if exact || at == 0 || self.slots.len() >= self.most {
            return at;
        }
        let slot = Slot { start: time, dips: false, ..self.slots[at - 1].clone() };
        self.slots.insert(at, slot);
        at
    }

    /// Takes amounts of a node from a window of slots.
    pub fn take(&mut self, node: NodeId, amounts: &[(usize, u32)], from: usize, to: usize) {
        self.shift(node, amounts, from, to, -1);
        if from > 0 && from < self.slots.len() {
            self.slots[from].dips = true;
        }
    }

    /// Gives back what was taken.
    pub fn give(&mut self, node: NodeId, amounts: &[(usize, u32)], from: usize, to: usize) {
        self.shift(node, amounts, from, to, 1);
        if to < self.slots.len() {
            self.slots[to].dips = true;
        }
    }

    fn shift(&mut self, node: NodeId, amounts: &[(usize, u32)], from: usize, to: usize, sign: i64) {
        for at in from..to {
            let mut slot = std::mem::replace(&mut self.slots[at], Slot::nothing());
            for (axis, amount) in amounts {
                self.change(&mut slot, node, *axis, sign * i64::from(*amount));
            }
            self.slots[at] = slot;
        }
    }

    /// Takes licences from a window of slots.
    pub fn take_licenses(&mut self, licenses: &[(usize, u32)], from: usize, to: usize) {
        for (license, count) in licenses {
            for slot in &mut self.slots[from..to] {
                slot.licenses[*license] = slot.licenses[*license].saturating_sub(*count);
            }
            if from > 0 && from < self.slots.len() {
                self.slots[from].dips = true;
            }
        }
    }

    /// Gives licences back.
    pub fn give_licenses(&mut self, licenses: &[(usize, u32)], from: usize, to: usize) {
        for (license, count) in licenses {
            for slot in &mut self.slots[from..to] {
                slot.licenses[*license] += count;
            }
            if to < self.slots.len() {
                self.slots[to].dips = true;
            }
        }
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
        self.window(from, to).find(|slot| {
            licenses.iter().any(|(license, n)| self.slots[*slot].licenses[*license] < *n)
        })
    }

    /// The slots of a window that have to be looked at: its first, and its dips.
    pub fn window(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
        let dips = (from + 1..to).filter(|slot| self.slots[*slot].dips);
        std::iter::once(from).chain(dips)
    }

    /// Whether a node has these amounts in a slot.
    #[must_use]
    pub fn has(&self, slot: usize, node: NodeId, need: &[(usize, u32)]) -> bool {
        let free = self.free(slot, node);
        need.iter().all(|(axis, amount)| free[*axis] >= *amount)
    }

    /// Keeps of a set the nodes that may have these amounts in a slot: all that have, and where
    /// an amount lies between two levels some that have not. Says whether the answer is exact.
    pub fn keep_likely(&self, slot: usize, need: &[(usize, u32)], nodes: &mut NodeSet) -> bool {
        let mut exact = true;
        let sets = &self.slots[slot].sets;
        for (axis, amount) in need {
            // Every node has that.
            if *amount == 0 {
                continue;
            }
            let scale = &self.scales[*axis];
            let level = scale.reached(*amount);
            exact &= level > 0 && scale.thresholds[level - 1] == *amount;
            // More than the last level: only looking at the nodes of that level can tell.
            if level == 0 {
                continue;
            }
            let first = (scale.first + level - 1) * self.words;
            let set = &sets[first..first + self.words];
            nodes.words_mut().iter_mut().zip(set).for_each(|(mine, theirs)| *mine &= theirs);
        }
        exact
    }

    /// Keeps of a set the nodes that may have these amounts throughout a window, and says whether
    /// all of them have. If fewer than `enough` are left, returns the slot that was short.
    ///
    /// # Errors
    /// The slot in which too few were left.
    pub fn keep_fitting(
        &self,
        need: &[(usize, u32)],
        from: usize,
        to: usize,
        enough: usize,
        nodes: &mut NodeSet,
        fuel: &mut Fuel,
    ) -> Result<bool, usize> {
        let cost = (self.words * need.len()) as u64 / 16 + 1;
        let mut exact = true;
        for slot in self.window(from, to) {
            *fuel = fuel.saturating_sub(cost);
            exact &= self.keep_likely(slot, need, nodes);
            if nodes.fewer_than(enough) {
                return Err(slot);
            }
        }
        Ok(exact)
    }

    /// Whether a node has these amounts throughout a window.
    #[must_use]
    pub fn has_throughout(
        &self,
        from: usize,
        to: usize,
        node: NodeId,
        need: &[(usize, u32)],
    ) -> bool {
        self.window(from, to).all(|slot| self.has(slot, node, need))
    }

    /// Keeps of a set the nodes with at least `amount` on an axis in a slot.
    pub fn keep_with(&self, slot: usize, axis: usize, amount: u32, nodes: &mut NodeSet) {
        if !self.keep_likely(slot, &[(axis, amount)], nodes) {
            let few = |node: &NodeId| self.free(slot, *node)[axis] < amount;
            let lacking: Vec<NodeId> = nodes.iter().filter(few).collect();
            lacking.into_iter().for_each(|node| nodes.remove(node));
        }
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

impl Slot {
    fn nothing() -> Self {
        Slot {
            start: Timestamp(0),
            dips: false,
            free: Vec::new(),
            sets: Vec::new(),
            licenses: Vec::new(),
        }
    }
}

impl Scale {
    /// How many levels an amount reaches.
    fn reached(&self, amount: u32) -> usize {
        match self.thresholds.first() {
            None => 0,
            Some(first) if amount < *first => 0,
            Some(_)
                if self.thresholds.last().is_some_and(|t| *t as usize == self.thresholds.len()) =>
            {
                (amount as usize).min(self.thresholds.len())
            }
            Some(_) => self.thresholds.partition_point(|t| *t <= amount),
        }
    }
}

/// Where to cut: at every end if there are few; otherwise finer near `now` than far from it, each
/// cut at the last end of those that it stands for.
fn cuts(ends: &[Timestamp], now: Timestamp, most: usize) -> Vec<Timestamp> {
    let mut grain = 0;
    loop {
        let mut cuts: Vec<Timestamp> = Vec::new();
        let mut open: Option<Timestamp> = None;
        for end in ends {
            // A cut stands for ends up to `grain` percent of the way beyond its first.
            let reach = |first: Timestamp| first.since(now) / 100 * grain + first.0;
            match open {
                Some(first) if end.0 <= reach(first) => {
                    *cuts.last_mut().expect("an open cut is in the list") = *end;
                }
                Some(_) | None => {
                    open = Some(*end);
                    cuts.push(*end);
                }
            }
        }
        if cuts.len() <= most {
            return cuts;
        }
        grain = (grain * 3 / 2).max(grain + 1);
    }
}

#[cfg(test)]
mod tests;

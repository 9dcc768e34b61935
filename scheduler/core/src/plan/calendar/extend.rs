//! Makes a calendar know the future: what running jobs give back, and what is promised already.

use muster_model::{NodeId, Timestamp};

use super::{Calendar, Slot};

/// Something that is given back at a time.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    pub end: Timestamp,
    pub node: NodeId,
    /// Axis and amount.
    pub amounts: &'a [(usize, u32)],
}

/// Licences that are given back at a time, by their place in the calendar's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LicenseEnding {
    pub end: Timestamp,
    pub license: usize,
    pub count: u32,
}

/// What a promised start takes, from one time to another; `None`: for ever.
#[derive(Debug, Clone)]
pub struct Taken<'a> {
    pub start: Timestamp,
    pub until: Option<Timestamp>,
    pub nodes: Vec<(NodeId, &'a [(usize, u32)])>,
    pub licenses: &'a [(usize, u32)],
}

/// Cuts after the last end of a running job, ever farther apart, so that shadows can follow each
/// other there even when no room is left for cuts of their own: to 20 times the time of that end.
const HORIZON: [i64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18];
/// ... and not before an hour from now.
const HORIZON_MS: i64 = 3_600_000;

impl Calendar {
    /// Appends what will be given back. To be called once, before anything is promised.
    pub fn extend(&mut self, endings: Vec<Ending<'_>>, licenses: Vec<LicenseEnding>) {
        self.extend_with(endings, licenses, &[]);
    }

    /// The same, with promises that were made before, as if each had been taken in turn: in one
    /// go, so that it costs slots and promises, not their product.
    pub fn extend_with(
        &mut self,
        mut endings: Vec<Ending<'_>>,
        mut licenses: Vec<LicenseEnding>,
        taken: &[Taken<'_>],
    ) {
        endings.sort_by_key(|e| e.end);
        licenses.sort_by_key(|e| e.end);
        let cuts = self.all_cuts(&endings, &licenses, taken);
        // Slot 0 is there already.
        let slot_of = |time: Timestamp| match time <= self.slots[0].start {
            true => 0,
            false => cuts.partition_point(|cut| *cut < time) + 1,
        };
        let mut begins: Vec<(usize, usize)> = Vec::with_capacity(taken.len());
        let mut ends: Vec<(usize, usize)> = Vec::with_capacity(taken.len());
        for (at, promise) in taken.iter().enumerate() {
            let from = slot_of(promise.start);
            let to = promise.until.map_or(cuts.len() + 1, slot_of);
            begins.push((from, at));
            ends.push((to.max(from), at));
        }
        begins.sort_unstable();
        ends.sort_unstable();
        self.free.reserve(cuts.len() * self.nodes * self.axes);
        self.sets.reserve(cuts.len() * self.levels * self.words);
        let (mut endings, mut licenses) = (endings.as_slice(), licenses.as_slice());
        let (mut begins, mut ends) = (begins.as_slice(), ends.as_slice());
        for at in 0..=cuts.len() {
            if at > 0 {
                let cut = cuts[at - 1];
                self.push(cut);
                for ending in due(&mut endings, |e| e.end <= cut) {
                    self.shift_slot(at, ending.node, ending.amounts, 1);
                }
                for ending in due(&mut licenses, |e| e.end <= cut) {
                    *self.license_mut(at, ending.license) += ending.count;
                }
            }
            for (_, promise) in due(&mut ends, |(slot, _)| *slot <= at) {
                self.apply(at, &taken[*promise], 1);
            }
            for (_, promise) in due(&mut begins, |(slot, _)| *slot <= at) {
                self.apply(at, &taken[*promise], -1);
                self.slots[at].dips |= at > 0;
            }
        }
    }

    fn apply(&mut self, slot: usize, promise: &Taken<'_>, sign: i64) {
        for (node, amounts) in &promise.nodes {
            self.shift_slot(slot, *node, amounts, sign);
        }
        for (license, count) in promise.licenses {
            match sign > 0 {
                true => *self.license_mut(slot, *license) += count,
                false => self.take_license(slot, *license, *count),
            }
        }
    }

    /// Where slots begin: at the ends, beyond the last of them, and, in their order and as long as
    /// there is room, where promises begin and end.
    fn all_cuts(
        &self,
        endings: &[Ending<'_>],
        licenses: &[LicenseEnding],
        taken: &[Taken<'_>],
    ) -> Vec<Timestamp> {
        let now = self.slots[0].start;
        let mut times: Vec<Timestamp> = endings.iter().map(|e| e.end).collect();
        times.dedup();
        times.extend(licenses.iter().map(|e| e.end));
        times.sort();
        times.dedup();
        // Half of the room stays for what shadows cut.
        let mut out = cuts(&times, now, self.most / 2 - HORIZON.len());
        let last = out.last().map_or(HORIZON_MS, |last| last.since(now)).max(HORIZON_MS);
        out.extend(HORIZON.map(|n| Timestamp(now.0 + last + (last >> 4) * n * n)));
        if !taken.is_empty() {
            let mut known: std::collections::BTreeSet<Timestamp> = out.iter().copied().collect();
            let edges = taken.iter().flat_map(|t| [Some(t.start), t.until]).flatten();
            for edge in edges.filter(|edge| *edge > now) {
                if known.len() + 1 >= self.most {
                    break;
                }
                known.insert(edge);
            }
            out = known.into_iter().collect();
        }
        out
    }

    /// One more slot at the end, with as much free as the last has.
    fn push(&mut self, start: Timestamp) {
        let last = self.slots.last().expect("there is always a slot").row;
        let row = self.copy_row(last);
        self.slots.push(Slot { start, dips: false, row });
    }
}

/// Takes from a sorted list those at its beginning that are due.
fn due<'b, T>(list: &mut &'b [T], is_due: impl Fn(&T) -> bool) -> &'b [T] {
    let count = list.partition_point(is_due);
    let (due, rest) = list.split_at(count);
    *list = rest;
    due
}

/// Where to cut: at every end if there are few; otherwise finer near `now` than far from it, each
/// cut at the last end of those that it stands for.
pub(super) fn cuts(ends: &[Timestamp], now: Timestamp, most: usize) -> Vec<Timestamp> {
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

//! Places at later times: the earliest for a run, and promises booked, lifted and moved.

use muster_model::Timestamp;

use super::super::calendar::{Fuel, Want};
use super::{Ground, Part, Query, end_of};

impl Ground<'_> {
    /// The earliest place from a slot on, with its slot.
    pub fn earliest(
        &self,
        query: &Query,
        from: usize,
        length: i64,
        fuel: &mut Fuel,
    ) -> Option<(usize, Vec<Part>)> {
        let mut slot = from;
        while slot < self.calendar.slots() && *fuel > 0 {
            if let Some(hopeless) = self.hopeless(query, slot, length, fuel) {
                slot = hopeless + 1;
                continue;
            }
            match self.place(query, slot, length, fuel) {
                Ok(parts) => return Some((slot, parts)),
                Err(next) => slot = next,
            }
        }
        None
    }

    /// A slot of a run from another one on that has too few nodes by mere counts: no run that
    /// has to pass it will do.
    fn hopeless(&self, query: &Query, slot: usize, length: i64, fuel: &mut Fuel) -> Option<usize> {
        let (uniform, want) = query.uniform.as_ref().filter(|(uniform, _)| uniform.only)?;
        let to = self.calendar.end_slot(slot, end_of(self.calendar.start(slot), length));
        self.calendar.last_too_few(want, slot, to, uniform.nodes as usize, fuel)
    }

    /// The first slot before the one at which a run is promised to begin with which it might begin
    /// instead, were the promise lifted: what it would take before the promise is free.
    #[must_use]
    pub fn sooner(
        &self,
        query: &Query,
        promised: usize,
        length: i64,
        fuel: &mut Fuel,
    ) -> Option<usize> {
        let Some((uniform, want)) = query.uniform.as_ref().filter(|(uniform, _)| uniform.only)
        else {
            return Some(0);
        };
        let (calendar, enough) = (&self.calendar, uniform.nodes as usize);
        let mut slot = 0;
        while slot < promised && *fuel > 0 {
            let to = calendar.end_slot(slot, end_of(calendar.start(slot), length)).min(promised);
            if let Some(short) = calendar.short_of_licenses(&query.licenses, slot, to) {
                slot = short + 1;
                continue;
            }
            let latest_first = calendar.window(slot, to).rev();
            match calendar.keep_in(want, latest_first, enough, &mut self.open(query), fuel) {
                Ok(_) => return Some(slot),
                Err(short) => slot = short + 1,
            }
        }
        None
    }

    /// After a window was short from its first slot to another: a window that begins later is short
    /// too, as long as it has enough of these slots, whatever reservations close.
    pub(super) fn next_after(
        &self,
        query: &Query,
        want: &Want,
        enough: usize,
        (slot, short): (usize, usize),
        fuel: &mut Fuel,
    ) -> usize {
        // A pass asks about starts now only, until something is promised.
        if short == slot || self.calendar.slots() == 1 {
            return slot + 1;
        }
        let later = self.calendar.window(slot + 1, short + 1).rev();
        match self.calendar.keep_in(want, later, enough, &mut self.open(query), fuel) {
            Ok(_) => slot + 1,
            Err(short) => short + 1,
        }
    }

    /// Takes a place in the calendar; a run that begins at `start`.
    pub fn take(
        &mut self,
        parts: &[Part],
        licenses: &[(usize, u32)],
        start: Timestamp,
        length: i64,
    ) {
        let (from, to) = self.cut_window(start, length);
        for part in parts {
            self.calendar.take(part.node, &part.amounts, from, to);
        }
        self.calendar.take_licenses(licenses, from, to);
    }

    /// Gives back what [`Ground::take`] took.
    pub fn lift(
        &mut self,
        parts: &[Part],
        licenses: &[(usize, u32)],
        start: Timestamp,
        length: i64,
    ) {
        let (from, to) = self.cut_window(start, length);
        for part in parts {
            self.calendar.give(part.node, &part.amounts, from, to);
        }
        self.calendar.give_licenses(licenses, from, to);
    }

    /// Moves the start of what [`Ground::take`] took from one time to an earlier one.
    pub fn advance(
        &mut self,
        parts: &[Part],
        licenses: &[(usize, u32)],
        (old, new): (Timestamp, Timestamp),
        length: i64,
    ) {
        // The only cut that can be missing comes first: it moves the slots behind it.
        let new_to = self.window_end(new, length);
        let (old_from, new_from) = (self.calendar.at_or_after(old), self.calendar.at_or_after(new));
        let old_to = self.window_end(old, length);
        let (until, gone) = (new_to.min(old_from), new_to.max(old_from));
        for part in parts {
            self.calendar.take(part.node, &part.amounts, new_from, until);
            self.calendar.give(part.node, &part.amounts, gone, old_to);
        }
        self.calendar.take_licenses(licenses, new_from, until);
        self.calendar.give_licenses(licenses, gone, old_to);
    }

    /// Whether there is but one node and nothing is closed to the query: then a place is a time.
    #[must_use]
    pub fn is_pool(&self, query: &Query) -> bool {
        let open = query.closures.is_empty() && query.kept_licenses.is_empty();
        open && self.view.nodes.len() == 1
    }

    /// The slots of a run, cut where it begins and ends.
    fn cut_window(&mut self, start: Timestamp, length: i64) -> (usize, usize) {
        let from = self.calendar.cut(start);
        (from, self.window_end(start, length))
    }

    fn window_end(&mut self, start: Timestamp, length: i64) -> usize {
        match end_of(start, length) {
            // Before the calendar knows of any later time it has one slot for all of it.
            Some(_) if self.calendar.slots() == 1 => 1,
            Some(end) => self.calendar.cut(end),
            None => self.calendar.slots(),
        }
    }
}

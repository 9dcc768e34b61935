//! Places at later times: the earliest for a run, and promises booked, lifted and moved.

use std::collections::BTreeMap;

use muster_model::{NodeId, Timestamp};

use crate::state::Row;

use super::super::axes::Amounts;
use super::super::calendar::{Fuel, Want};
use super::super::demand::Demand;
use super::{Ground, Part, Query, end_of};

/// Rows of later times that one pass makes at most, a few microseconds each.
pub(super) const MOST_ROWS: u32 = 2_000;

/// What a row costs beside a look at a node.
pub(super) const ROW_FUEL: Fuel = 16;

impl Ground<'_> {
    /// What will be free of a node at a later slot, to the unit, if nobody begins there before. `None`:
    /// it is not known, since starts of this pass are there, or enough was asked.
    fn row_at(&self, node: NodeId, slot: usize) -> Option<Row> {
        let place = node.0 as usize;
        if self.rows[place].is_some() {
            return None;
        }
        self.rows_later.set(self.rows_later.get().checked_sub(1)?);
        let (at, begins) = (&self.view.nodes[place], self.calendar.start(slot));
        let returns = self.returns.get_or_init(|| self.view.given_back());
        let mut row = Row::clone(&at.free);
        for (_, slice) in returns[place].iter().filter(|(end, _)| *end <= begins) {
            row.give(&at.facts, slice);
        }
        Some(row)
    }

    /// The same of several nodes, for a demand to which it matters.
    pub(super) fn rows_at(
        &self,
        demand: &Demand,
        nodes: &[NodeId],
        slot: usize,
    ) -> BTreeMap<NodeId, Row> {
        let asked = nodes.iter().filter(|_| slot > 0 && demand.ask.looks_inside());
        asked.filter_map(|node| Some((*node, self.row_at(*node, slot)?))).collect()
    }

    /// The most GPUs that a job can have together, of those in a row.
    pub(super) fn joined_in(&self, demand: &Demand, node: NodeId, row: &Row) -> u32 {
        let at = &self.view.nodes[node.0 as usize];
        demand.most_joined(&at.facts, Some((row, at.wiring.as_deref())))
    }

    /// Whether a node that has enough by numbers at a later slot has it joined and near as well.
    pub(super) fn has_inside(
        &self,
        demand: &Demand,
        need: &Amounts,
        part: (u32, &[u64]),
        node: NodeId,
        slot: usize,
    ) -> bool {
        if slot == 0 || !demand.ask.looks_inside() {
            return true;
        }
        let Some(row) = self.row_at(node, slot) else { return true };
        let at = &self.view.nodes[node.0 as usize];
        demand.gpus(need) <= self.joined_in(demand, node, &row)
            && demand.binds(part, &at.facts, &row, at.wiring.as_deref())
    }

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

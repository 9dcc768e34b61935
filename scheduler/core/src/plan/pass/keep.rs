//! Promises of the last pass, kept or bettered.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::JobId;

use super::super::Shadow;
use super::super::calendar::Taken;
use super::super::ground::end_of;
use super::super::order::Turn;
use super::super::view::{Group, Head};
use super::{Pass, length_of};

impl Pass<'_> {
    /// Starts from the promises of the last pass: each is lifted out and put where it now fits
    /// first, in the order of the queue; whoever has none is put in behind.
    pub(super) fn keep_promises(&mut self, cursors: &mut [usize]) {
        let mut turns = self.turns();
        let mut waiting: Vec<(usize, Head)> = Vec::new();
        while let Some(Turn { group, .. }) = turns.pop() {
            let at = group.0;
            waiting.push((at, self.view.groups[at].heads[cursors[at]]));
            cursors[at] += 1;
            if let Some(next) = self.turn(at, cursors[at]) {
                turns.push(next);
            }
        }
        let waits: BTreeSet<JobId> = waiting.iter().map(|(_, head)| head.job).collect();
        let mut kept: BTreeMap<JobId, &Shadow> = BTreeMap::new();
        let still = |s: &&Shadow| waits.contains(&s.job) && s.start >= self.now;
        for shadow in self.view.promised.iter().filter(still) {
            kept.insert(shadow.job, shadow);
        }
        let licensed: BTreeMap<JobId, usize> =
            waiting.iter().map(|(at, head)| (head.job, self.query(*at))).collect();
        let licenses: Vec<Vec<(usize, u32)>> =
            kept.keys().map(|job| self.licenses(licensed[job])).collect();
        let taken = kept.values().zip(&licenses).map(|(shadow, licenses)| Taken {
            start: shadow.start,
            until: end_of(shadow.start, shadow.length),
            nodes: shadow.parts.iter().map(|part| (part.node, &*part.amounts)).collect(),
            licenses,
        });
        let taken: Vec<Taken<'_>> = taken.collect();
        self.extend(&taken);
        for (at, head) in waiting {
            if self.spent() {
                return;
            }
            self.settle(at, head, kept.get(&head.job).copied());
        }
    }

    pub(super) fn licenses(&self, index: usize) -> Vec<(usize, u32)> {
        self.asked[index].as_ref().map_or_else(|_| Vec::new(), |query| query.licenses.clone())
    }

    /// One waiting job and the promise it has.
    fn settle(&mut self, at: usize, head: Head, kept: Option<&Shadow>) {
        let group = &self.view.groups[at];
        let full = head.throttled_by.is_some_and(|array| self.throttles.get(&array) == Some(&0));
        if self.started.contains(&head.job) || self.shadowed.contains(&head.job) || full {
            return;
        }
        let index = self.query(at);
        let length = length_of(&group.shape);
        let licenses = self.licenses(index);
        let mut from = 0;
        if let Some(shadow) = kept {
            match self.outlook(index, (group.partition, length), shadow) {
                Outlook::Stays => return self.keep(index, group, head, shadow.clone()),
                Outlook::Moves(slot) => {
                    let start = self.ground.calendar.start(slot);
                    self.ground.advance(&shadow.parts, &licenses, (shadow.start, start), length);
                    let moved = Shadow { start, latest: start, ..shadow.clone() };
                    return self.keep(index, group, head, moved);
                }
                Outlook::Open(slot) => from = slot,
            }
            self.ground.lift(&shadow.parts, &licenses, shadow.start, shadow.length);
        }
        let Pass { asked, ground, fuel, .. } = self;
        let found = match &asked[index] {
            Ok(query) => ground.earliest(query, from, length, fuel),
            Err(_) => None,
        };
        match found {
            Some((0, parts)) if self.start(index, group, head, parts.clone(), length, None) => {}
            Some((slot, parts)) => {
                let start = self.ground.calendar.start(slot);
                self.ground.take(&parts, &licenses, start, length);
                let (job, partition) = (head.job, group.partition);
                let latest = start;
                let made = Shadow { job, partition, start, latest, length, parts };
                self.keep(index, group, head, made);
            }
            None => self.give_reason(index, group, head),
        }
    }

    /// What can become of a promise, found out without lifting it. What stays keeps its nodes, too.
    fn outlook(&mut self, index: usize, now: (u32, i64), shadow: &Shadow) -> Outlook {
        if shadow.start <= self.now {
            return Outlook::Open(0);
        }
        if !self.view.released {
            return Outlook::Stays;
        }
        let Pass { asked, ground, fuel, .. } = self;
        let Ok(query) = &asked[index] else { return Outlook::Open(0) };
        let mut there = shadow.parts.iter().filter(|part| part.tasks > 0);
        let valid = now == (shadow.partition, shadow.length)
            && ground.calendar.holds()
            && there.all(|part| query.base.contains(part.node));
        if !valid {
            return Outlook::Open(0);
        }
        let promised = ground.calendar.at_or_after(shadow.start);
        match ground.sooner(query, promised, shadow.length, fuel) {
            None if *fuel > 0 => Outlook::Stays,
            Some(slot) if slot > 0 && ground.is_pool(query) => Outlook::Moves(slot),
            Some(slot) => Outlook::Open(slot),
            None => Outlook::Open(0),
        }
    }

    fn keep(&mut self, index: usize, group: &Group, head: Head, shadow: Shadow) {
        self.shadowed.insert(head.job);
        self.plan.shadows.push(shadow);
        self.give_reason(index, group, head);
    }
}

/// What can become of a promise.
enum Outlook {
    Stays,
    /// It begins with this slot, all else as it was.
    Moves(usize),
    /// Where it might begin is to be looked for from this slot on.
    Open(usize),
}

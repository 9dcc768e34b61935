//! The order of work of one pass.
//!
//! - `glance`: plain groups for which there is no room at all; `query`: what groups ask
//! - `keep`: promises of the pass before; `giving`: promises that give way;
//!   `het`: jobs of several components

mod giving;
mod glance;
mod het;
mod keep;
mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::{JobId, Placement, Reason, Seconds, TimeLimit, Timestamp};

use crate::command::StartWish;
use crate::state::{Row, Shape};

use super::axes::{ALL_SEATS, SEATS};
use super::build;
use super::calendar::{Ending, Taken};
use super::ground::{FOREVER, Ground, Part, Query, end_of};
use super::order::{Turn, Turns, due, turn};
use super::policy::{Backfill, Policy};
use super::sieve::Sieve;
use super::view::{Group, Head, Mate, OVERDUE_MS, View};
use super::{Plan, Shadow};
use giving::Giving;
use glance::Common;

struct Pass<'a> {
    view: &'a View,
    policy: &'a Policy,
    now: Timestamp,
    ground: Ground<'a>,
    /// The first group that asks the same, by group.
    kinds: Vec<usize>,
    /// By the first group of a kind.
    queries: Vec<Option<usize>>,
    asked: Vec<Result<Box<Query>, Reason>>,
    sieve: Sieve<'a>,
    glances: Vec<Common<'a>>,
    /// What starts of this pass will give back, until the calendar is extended.
    endings: Vec<(Timestamp, Part)>,
    extended: bool,
    throttles: BTreeMap<JobId, u32>,
    /// Shadows by partition.
    promised: Vec<u32>,
    shadowed: BTreeSet<JobId>,
    /// Promises that give way, and what their jobs ask.
    giving: Vec<Giving>,
    started: BTreeSet<JobId>,
    /// Partitions in which somebody was blocked for want of resources.
    blocked: BTreeSet<u32>,
    /// By query.
    settled: Vec<Option<Reason>>,
    /// Of heads, the latest last.
    reasons: Vec<(JobId, Reason)>,
    plan: Plan,
    fuel: u64,
}

/// What became of a head.
enum Step {
    /// Look at the group's next.
    Next,
    /// The group is done with.
    Done,
}

/// Chooses starts.
#[must_use]
pub fn plan(view: &View, policy: &Policy, now: Timestamp, fuel: u64) -> Plan {
    let mut pass = Pass {
        view,
        policy,
        now,
        ground: Ground::new(view, now, policy.packing),
        kinds: query::kinds(view),
        queries: vec![None; view.groups.len()],
        asked: Vec::new(),
        sieve: Sieve::default(),
        glances: Vec::new(),
        endings: Vec::new(),
        extended: false,
        throttles: view.throttles.clone(),
        promised: vec![0; view.partitions.len()],
        shadowed: BTreeSet::new(),
        giving: Vec::new(),
        started: BTreeSet::new(),
        blocked: BTreeSet::new(),
        settled: Vec::new(),
        reasons: Vec::with_capacity(view.groups.len()),
        plan: Plan::default(),
        fuel,
    };
    let mut cursors = vec![0usize; view.groups.len()];
    if view.promised.is_empty() {
        pass.run(&mut cursors);
    } else {
        pass.keep_promises(&mut cursors);
    }
    pass.plan.fuel_used = fuel - pass.fuel;
    pass.explain(&cursors);
    pass.plan.reasons.jobs = pass.reasons.into_iter().collect();
    pass.plan
}

impl<'a> Pass<'a> {
    fn turn(&self, at: usize, cursor: usize) -> Option<Turn> {
        turn(self.view, self.policy.order, at, cursor, self.now)
    }

    fn turns(&self) -> Turns {
        (0..self.view.groups.len()).filter_map(|at| self.turn(at, 0)).collect()
    }

    /// The queue in its order. Whoever would delay the earliest start of a job that gives way
    /// comes behind all who would not.
    fn run(&mut self, cursors: &mut [usize]) {
        let mut aside = Vec::new();
        self.run_through(self.turns(), cursors, Some(&mut aside));
        if !aside.is_empty() && !self.spent() {
            self.close_ranks();
            self.run_through(aside.into_iter().collect(), cursors, None);
        }
    }

    fn run_through(
        &mut self,
        mut turns: Turns,
        cursors: &mut [usize],
        mut aside: Option<&mut Vec<Turn>>,
    ) {
        while let Some(turn) = turns.pop() {
            if self.spent() {
                return;
            }
            let at = turn.group.0;
            if let Some(aside) = &mut aside
                && self.would_delay(at)
            {
                aside.push(turn);
                continue;
            }
            let head = self.view.groups[at].heads[cursors[at]];
            if matches!(self.step(at, head), Step::Done) {
                continue;
            }
            cursors[at] += 1;
            match self.turn(at, cursors[at]) {
                Some(next) => turns.push(next),
                None => self.plan.more |= self.view.groups[at].more,
            }
            let sorted = self.policy.backfill == Backfill::ShortestFirst;
            if sorted && !self.plan.shadows.is_empty() && self.promises_made() {
                return self.shortest_first(turns, cursors);
            }
        }
    }

    fn spent(&mut self) -> bool {
        let spent = self.fuel == 0 || self.plan.starts.len() >= self.policy.max_starts;
        self.plan.more |= spent;
        spent
    }

    fn promises_made(&self) -> bool {
        self.promised.iter().all(|n| *n == 0 || *n >= self.policy.shadows)
    }

    /// The rest of the queue, the shortest limits first, equals in the order of the queue.
    fn shortest_first(&mut self, mut turns: Turns, cursors: &mut [usize]) {
        let mut rest: Vec<(i64, usize, Head)> = Vec::new();
        let mut ahead = cursors.to_vec();
        while let Some(Turn { group, .. }) = turns.pop() {
            let at = group.0;
            let found = &self.view.groups[at];
            rest.push((length_of(&found.shape), at, found.heads[ahead[at]]));
            ahead[at] += 1;
            if let Some(next) = self.turn(at, ahead[at]) {
                turns.push(next);
            }
        }
        rest.sort_by_key(|(length, ..)| *length);
        for (_, at, head) in rest {
            if self.spent() {
                return;
            }
            if matches!(self.step(at, head), Step::Next) {
                cursors[at] += 1;
            }
        }
    }

    /// Starts a head, promises it a start, or lets it wait.
    fn step(&mut self, at: usize, head: Head) -> Step {
        let group = &self.view.groups[at];
        let full = head.throttled_by.is_some_and(|array| self.throttles.get(&array) == Some(&0));
        if full || self.started.contains(&head.job) {
            return Step::Next;
        }
        if let Some(mates) = self.view.hets.get(&head.job) {
            return self.heterogeneous(at, head, mates);
        }
        if self.owes_nothing(group) && !self.is_asked(at) && self.glance(group) {
            self.note_reason(Reason::Resources, group, head);
            return Step::Done;
        }
        let index = self.query(at);
        let length = length_of(&group.shape);
        let Ok(query) = &self.asked[index] else {
            self.give_reason(index, group, head);
            return Step::Done;
        };
        if query.fails_now.is_none_or(|known| length < known) {
            if self.start_now(index, group, head, length) {
                return Step::Next;
            }
            if self.fuel == 0 {
                // Unfinished, so nothing is known.
                self.plan.more = true;
                return Step::Done;
            }
        }
        self.give_reason(index, group, head);
        if self.policy.backfill == Backfill::Off {
            let Ok(query) = &self.asked[index] else { return Step::Done };
            self.ground.close(&query.base);
            return Step::Done;
        }
        if self.owes_nothing(group) {
            return Step::Done;
        }
        if self.shadowed.contains(&head.job) {
            return Step::Next;
        }
        self.extend(&[]);
        let give_way = self.policy.gives_way().then(|| due(self.view, group, head));
        match self.promise(index, group, head, length, give_way) {
            true => Step::Next,
            false => Step::Done,
        }
    }

    /// Whether a group that cannot start is let wait, and no more.
    fn owes_nothing(&self, group: &Group) -> bool {
        let promised = self.promised[group.partition as usize];
        self.policy.backfill != Backfill::Off && promised >= self.policy.shadows
    }

    fn start_now(&mut self, index: usize, group: &Group, head: Head, length: i64) -> bool {
        let Pass { asked, ground, fuel, .. } = self;
        let Ok(query) = &mut asked[index] else { return false };
        if let Ok(parts) = ground.place(query, 0, length, fuel) {
            return self.start(index, group, head, parts, length, None);
        }
        let least = group.shape.least_limit.map_or(length, length_of_limit).min(length);
        if least < length
            && let Ok(parts) = ground.place(query, 0, least, fuel)
        {
            let most = self.longest(&parts, least, length);
            let limit = Seconds(u32::try_from(most / 1000).unwrap_or(u32::MAX));
            return self.start(index, group, head, parts, most, Some(limit));
        }
        if self.fuel > 0
            && let Ok(query) = &mut self.asked[index]
        {
            query.fails_now = Some(query.fails_now.map_or(least, |known| known.min(least)));
        }
        false
    }

    /// How long these parts can run from now on, in whole minutes between the two lengths.
    fn longest(&self, parts: &[Part], least: i64, most: i64) -> i64 {
        let calendar = &self.ground.calendar;
        let free = |slot: usize| parts.iter().all(|p| calendar.has(slot, p.node, &p.amounts));
        let end = (1..calendar.slots()).find(|slot| !free(*slot));
        let room = end.map_or(most, |slot| calendar.start(slot).since(self.now));
        (room / 60_000 * 60_000).clamp(least, most)
    }

    fn start(
        &mut self,
        index: usize,
        group: &Group,
        head: Head,
        parts: Vec<Part>,
        length: i64,
        limit: Option<Seconds>,
    ) -> bool {
        let Ok(query) = &self.asked[index] else { return false };
        let mut slices = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|part| part.tasks > 0) {
            let node = &self.view.nodes[part.node.0 as usize];
            let row = self.ground.rows[part.node.0 as usize].as_deref().unwrap_or(&node.free);
            let Some(slice) = build::slice(&query.demand.ask, part, node, row) else {
                return false;
            };
            slices.push(slice);
        }
        for slice in &slices {
            let node = &self.view.nodes[slice.node.0 as usize];
            let row = self.ground.rows[slice.node.0 as usize]
                .get_or_insert_with(|| Box::new(Row::clone(&node.free)));
            row.take(&node.facts, slice);
        }
        let licenses = query.licenses.clone();
        self.ground.take(&parts, &licenses, self.now, length);
        if !self.extended
            && let Some(end) = end_of(self.now, length)
        {
            self.endings.extend(parts.into_iter().map(|part| (end, part)));
        }
        if let Some(left) = head.throttled_by.and_then(|a| self.throttles.get_mut(&a)) {
            *left = left.saturating_sub(1);
        }
        self.started.insert(head.job);
        let partition = self.view.partitions[group.partition as usize].partition.name.clone();
        let placement = Placement { slices };
        let time_limit = limit;
        self.plan.starts.push(StartWish { job: head.job, partition, placement, time_limit });
        true
    }

    /// Makes the calendar know the future, and what was promised before.
    fn extend(&mut self, taken: &[Taken<'_>]) {
        if self.extended {
            return;
        }
        self.extended = true;
        let later = Timestamp(self.now.0 + OVERDUE_MS);
        let (mut endings, licenses) = self.view.endings(self.now);
        let alone = &[(SEATS, ALL_SEATS)];
        endings.extend(self.view.kept.iter().filter_map(|(node, end)| {
            Some(Ending { end: (*end)?.max(later), node: *node, amounts: alone })
        }));
        endings.extend(self.endings.iter().map(|(end, part)| Ending {
            end: *end,
            node: part.node,
            amounts: &part.amounts,
        }));
        self.ground.calendar.extend_with(endings, licenses, taken);
        // Starts are looked for where something changes: where reservations begin and end, too.
        for reserved in &self.view.reservations {
            for (from, until) in reserved.windows.iter().take(2) {
                for at in [*from, *until] {
                    if at > self.now {
                        self.ground.calendar.cut(at);
                    }
                }
            }
        }
    }

    /// Promises the earliest start, or the earliest from `due` on.
    fn promise(
        &mut self,
        index: usize,
        group: &Group,
        head: Head,
        length: i64,
        due: Option<Timestamp>,
    ) -> bool {
        let Pass { asked, ground, fuel, .. } = self;
        let Ok(query) = &mut asked[index] else { return false };
        let from = match query.not_before {
            Some((known, at)) if length >= known => ground.calendar.at_or_after(at),
            Some(_) | None => 1,
        };
        let Some((slot, parts)) = ground.earliest(query, from, length, fuel) else {
            return false;
        };
        let start = ground.calendar.start(slot);
        query.not_before = Some((length, start));
        let mut latest = start;
        let mut kept = None;
        if let Some(due) = due.filter(|due| *due > start) {
            let from = ground.calendar.cut(due);
            if let Some((slot, parts)) = ground.earliest(query, from, length, fuel) {
                latest = ground.calendar.start(slot);
                kept = Some(parts);
            }
        }
        let licenses = query.licenses.clone();
        ground.take(kept.as_ref().unwrap_or(&parts), &licenses, latest, length);
        if let Some(parts) = kept {
            self.giving.push(Giving { shadow: self.plan.shadows.len(), query: index, parts });
        }
        self.promised[group.partition as usize] += 1;
        self.shadowed.insert(head.job);
        let (job, partition) = (head.job, group.partition);
        self.plan.shadows.push(Shadow { job, partition, start, latest, length, parts });
        true
    }

    /// Notes why a head waits. The first in its partition that lacks resources waits for those,
    /// the others for their turn.
    fn give_reason(&mut self, index: usize, group: &Group, head: Head) {
        let reason = self.reason(index);
        self.note_reason(reason, group, head);
        self.settled[index] = Some(reason);
    }

    fn note_reason(&mut self, reason: Reason, group: &Group, head: Head) {
        let first = reason != Reason::Resources || self.blocked.insert(group.partition);
        let own = if first { reason } else { Reason::Priority };
        self.reasons.push((head.job, own));
    }

    fn reason(&mut self, index: usize) -> Reason {
        let Pass { asked, ground, fuel, .. } = self;
        let query = match &mut asked[index] {
            Ok(query) => query,
            Err(reason) => return *reason,
        };
        let needed = query.licenses_needed(self.now, None);
        if ground.calendar.short_of_licenses(&needed, 0, 1).is_some() {
            return Reason::Licenses;
        }
        if query.possible.is_none() {
            query.possible = Some(ground.possible(query, fuel));
        }
        match query.possible {
            // Not even if everybody left: nodes that it needs are out of service, or kept.
            Some(false) if !query.closures.is_empty() => Reason::Reservation,
            Some(false) => Reason::ReqNodeNotAvail,
            Some(true) | None => Reason::Resources,
        }
    }

    /// Reasons for everybody behind the heads that were looked at.
    fn explain(&mut self, cursors: &[usize]) {
        let mut by_partition: Vec<Vec<(Arc<Shape>, Reason)>> =
            vec![Vec::new(); self.view.partitions.len()];
        let waiting = (0..self.view.groups.len()).zip(cursors);
        for (at, cursor) in waiting {
            let group = &self.view.groups[at];
            if *cursor >= group.heads.len() && !group.more {
                continue;
            }
            let known = self.queries[self.kinds[at]].and_then(|index| self.settled[index]);
            let reason = match known {
                Some(Reason::Resources) | None => Reason::Priority,
                Some(reason) => reason,
            };
            by_partition[group.partition as usize].push((Arc::clone(&group.shape), reason));
        }
        let named = self.view.partitions.iter().zip(by_partition).filter(|(_, of)| !of.is_empty());
        self.plan.reasons.shapes =
            named.map(|(row, of)| (row.partition.name.clone(), of.into())).collect();
    }
}

/// How long a job of this shape may run, milliseconds.
fn length_of(shape: &Shape) -> i64 {
    shape.limit.map_or(FOREVER, length_of_limit)
}

fn length_of_limit(limit: TimeLimit) -> i64 {
    limit.seconds().map_or(FOREVER, |seconds| seconds.saturating_mul(1000))
}

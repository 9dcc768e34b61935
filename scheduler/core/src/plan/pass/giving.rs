//! Promises that give way.
//!
//! Limits are several times what jobs run, so the earliest start by limits comes nearer with every
//! job that ends early, and keeping everybody from delaying it by a limit would keep many out who
//! would have delayed nothing. The first that cannot start therefore has two starts. Its promise
//! is the earliest from the time on at which it is due; the calendar keeps that one against
//! everybody's limit. The earliest of all is kept by forecasts alone: those expected to be over
//! before come first, and for the others the calendar then keeps this start as well. From the time
//! on at which it is due, both are the same.

use super::super::ground::Part;
use super::super::order::expected;
use super::Pass;

/// A promise that gives way.
pub(super) struct Giving {
    /// Among the plan's shadows.
    pub(super) shadow: usize,
    /// Among the pass's queries.
    pub(super) query: usize,
    /// What the calendar keeps for it, from `Shadow::latest` on.
    pub(super) parts: Vec<Part>,
}

impl Pass<'_> {
    /// Whether a group's jobs are expected to run beyond the earliest start of a job that gives
    /// way. The first of a partition without its promise is no such group: it may be owed one.
    pub(super) fn would_delay(&self, at: usize) -> bool {
        let group = &self.view.groups[at];
        let first = self.giving.iter().map(|giving| self.plan.shadows[giving.shadow].start).min();
        let Some(first) = first else { return false };
        let seconds = i64::try_from(expected(group)).unwrap_or(i64::MAX);
        let promised = self.promised[group.partition as usize] >= self.policy.shadows;
        promised && self.now.plus_seconds(seconds) > first
    }

    /// Keeps for those that give way their earliest start as well, as it is after all starts so
    /// far.
    pub(super) fn close_ranks(&mut self) {
        for giving in std::mem::take(&mut self.giving) {
            let Pass { asked, ground, fuel, plan, .. } = self;
            let (Ok(query), shadow) = (&asked[giving.query], &mut plan.shadows[giving.shadow])
            else {
                continue;
            };
            let licenses = &query.licenses;
            ground.lift(&giving.parts, licenses, shadow.latest, shadow.length);
            let from = ground.calendar.at_or_after(shadow.start).max(1);
            let found = ground.earliest(query, from, shadow.length, fuel);
            ground.take(&giving.parts, licenses, shadow.latest, shadow.length);
            let Some((slot, parts)) = found else { continue };
            shadow.start = ground.calendar.start(slot).min(shadow.latest);
            shadow.parts = parts;
            let until = shadow.latest.since(shadow.start).min(shadow.length);
            if until > 0 {
                ground.take(&shadow.parts, licenses, shadow.start, until);
            }
        }
    }
}

//! Heterogeneous jobs in a pass: every component finds its place in one and the same slot, or none
//! starts. What the leader's group learned of its own request holds for it as well; that the others
//! did not fit says nothing of those behind it.

use muster_model::{Reason, Timestamp};

use super::{Backfill, Group, Head, Mate, Part, Pass, Shadow, Step, length_of};

/// A component, with the question it asks.
#[derive(Clone, Copy)]
struct Member<'a> {
    group: &'a Group,
    head: Head,
    index: usize,
    length: i64,
}

/// The first component that found no place, and the first slot in which it might.
struct Short {
    index: usize,
    next: usize,
}

impl<'a> Pass<'a> {
    /// Starts a heterogeneous job, promises it a start, or lets it wait.
    pub(super) fn heterogeneous(&mut self, at: usize, head: Head, mates: &'a [Mate]) -> Step {
        let leader = &self.view.groups[at];
        let index = self.query(at);
        let first = Member { group: leader, head, index, length: length_of(&leader.shape) };
        // A component is back from its last attempt a moment later than the others.
        if mates.is_empty() {
            return Step::Next;
        }
        let Some(members) = self.members(first, mates) else {
            self.reasons.push((head.job, Reason::ReqNodeNotAvail));
            return Step::Next;
        };
        let known = self.asked[index].as_ref().ok().and_then(|query| query.fails_now);
        let fits = known.is_none_or(|known| first.length < known);
        let short = match fits.then(|| self.draft(&members, 0)) {
            Some(Ok(places)) if self.start_together(&members, &places) => return Step::Next,
            Some(Ok(_)) | None => index,
            Some(Err(short)) => short.index,
        };
        self.wait_reason(short, leader, head);
        if self.policy.backfill == Backfill::Off {
            // Nobody behind it overtakes, on the nodes of any component.
            for member in &members {
                let Ok(query) = &self.asked[member.index] else { continue };
                self.ground.close(&query.base);
            }
            return Step::Done;
        }
        let partition = leader.partition as usize;
        if self.promised[partition] < self.policy.shadows && !self.shadowed.contains(&head.job) {
            self.extend(&[]);
            self.promise_together(&members);
        }
        Step::Next
    }

    /// The components with the first of their partitions that is open to them; `None`: one has none.
    fn members(&mut self, first: Member<'a>, mates: &'a [Mate]) -> Option<Vec<Member<'a>>> {
        let mut out = vec![first];
        if self.asked[first.index].is_err() {
            return None;
        }
        for mate in mates {
            let open = mate.iter().find_map(|group| {
                let query = self.ask(group).ok()?;
                self.asked.push(Ok(query));
                self.settled.push(None);
                Some((group, self.asked.len() - 1))
            });
            let (group, index) = open?;
            let length = length_of(&group.shape);
            out.push(Member { group, head: group.heads[0], index, length });
        }
        Some(out)
    }

    /// A place for each in this slot, beside each other; the calendar is left as it was.
    fn draft(&mut self, members: &[Member<'_>], slot: usize) -> Result<Vec<Vec<Part>>, Short> {
        let start = self.ground.calendar.start(slot);
        let mut places: Vec<Vec<Part>> = Vec::with_capacity(members.len());
        let mut short = None;
        for member in members {
            // What was taken may have cut the calendar: the slot is found anew.
            let at = if slot == 0 { 0 } else { self.ground.calendar.at_or_after(start) };
            let Pass { asked, ground, fuel, .. } = self;
            let Ok(query) = &asked[member.index] else { continue };
            match ground.place(query, at, member.length, fuel) {
                Ok(parts) => {
                    let licenses = query.licenses.clone();
                    ground.take(&parts, &licenses, start, member.length);
                    places.push(parts);
                }
                Err(next) => {
                    short = Some(Short { index: member.index, next: next - at + slot });
                    break;
                }
            }
        }
        for (member, parts) in members.iter().zip(&places) {
            let licenses = self.licenses(member.index);
            self.ground.lift(parts, &licenses, start, member.length);
        }
        match short {
            Some(short) => Err(short),
            None => Ok(places),
        }
    }

    /// Starts them all, or undoes what was begun.
    fn start_together(&mut self, members: &[Member<'_>], places: &[Vec<Part>]) -> bool {
        let (rows, starts, endings) =
            (self.ground.rows.clone(), self.plan.starts.len(), self.endings.len());
        for (done, (member, parts)) in members.iter().zip(places).enumerate() {
            let Member { group, head, index, length } = *member;
            if self.start(index, group, head, parts.clone(), length, None) {
                continue;
            }
            self.ground.rows = rows;
            self.plan.starts.truncate(starts);
            self.endings.truncate(endings);
            for (member, parts) in members.iter().zip(places).take(done) {
                self.started.remove(&member.head.job);
                let licenses = self.licenses(member.index);
                self.ground.lift(parts, &licenses, self.now, member.length);
            }
            return false;
        }
        true
    }

    /// The earliest time at which all of them fit.
    fn promise_together(&mut self, members: &[Member<'_>]) {
        let mut slot = 1;
        while slot < self.ground.calendar.slots() && self.fuel > 0 {
            let start = self.ground.calendar.start(slot);
            match self.draft(members, slot) {
                Ok(places) => return self.shadow_together(members, places, start),
                // Drafts cut slots, so the place to go on from is a time.
                Err(short) => {
                    let calendar = &self.ground.calendar;
                    if short.next >= calendar.slots() {
                        return;
                    }
                    let next = calendar.start(short.next).max(Timestamp(start.0 + 1));
                    slot = calendar.at_or_after(next).max(slot + 1);
                }
            }
        }
    }

    fn shadow_together(
        &mut self,
        members: &[Member<'_>],
        places: Vec<Vec<Part>>,
        start: Timestamp,
    ) {
        for (member, parts) in members.iter().zip(places) {
            let licenses = self.licenses(member.index);
            self.ground.take(&parts, &licenses, start, member.length);
            let (job, partition) = (member.head.job, member.group.partition);
            self.shadowed.insert(job);
            let (latest, length) = (start, member.length);
            self.plan.shadows.push(Shadow { job, partition, start, latest, length, parts });
        }
        if let Some(first) = members.first() {
            self.promised[first.group.partition as usize] += 1;
        }
    }

    /// As for others, but nothing is settled for those who ask the same as one component does.
    fn wait_reason(&mut self, index: usize, group: &Group, head: Head) {
        let reason = self.reason(index);
        let first = reason != Reason::Resources || self.blocked.insert(group.partition);
        let own = if first { reason } else { Reason::Priority };
        self.reasons.push((head.job, own));
    }
}

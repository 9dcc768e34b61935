//! What time alone brings: deadlines, dependencies that can never hold, limits that no agent
//! enforced, reservations that are over.

use muster_model::{Outcome, Timestamp, Uid};

use crate::decide::reservation;
use crate::event::{AfterCompleting, Event};
use crate::state::dependency::{Standing, array_standing};
use crate::state::{Entry, State};

use super::Decision;

/// Agents enforce time limits; this long after one the controller does, seconds. Longer than any
/// sensible kill_wait and epilog.
const BACKSTOP_SECONDS: i64 = 300;

/// Facts of one kind per tick at most: a tick is one commit, and the next comes within seconds.
const MOST: usize = 1000;

pub(super) fn tick(state: &State, now: Timestamp) -> Decision {
    let mut events = reservation::passed(state, now);
    let late = state.derived.deadlines.iter().take_while(|(at, _)| *at < now).take(MOST);
    let late: Vec<Entry> = late.map(|(_, entry)| *entry).collect();
    for entry in &late {
        events.extend(give_up(state, *entry, false, &Outcome::Deadline, now));
    }
    let doomed = state.derived.doomed.iter().filter(|entry| !late.contains(entry)).take(MOST);
    for entry in doomed {
        // Nobody cancelled it; Slurm says the same of such jobs.
        let outcome = Outcome::Cancelled { by: Uid(0) };
        events.extend(give_up(state, *entry, true, &outcome, now));
    }
    let overdue = now.plus_seconds(-BACKSTOP_SECONDS);
    let beyond = state.derived.ends.iter().take_while(|(end, _)| *end < overdue).take(MOST);
    for job in beyond.filter_map(|(_, id)| state.jobs.get(id)) {
        let dead = job.spec.deadline.is_some_and(|deadline| deadline < now);
        events.push(Event::Completing {
            job: job.id,
            attempt: job.attempt,
            outcome: if dead { Outcome::Deadline } else { Outcome::Timeout },
            then: AfterCompleting::End,
            at: now,
        });
    }
    Decision::done(events)
}

/// Ends a pending job, or the pending tasks of an array (with `dead_only`: those whose
/// dependency can never hold).
fn give_up(
    state: &State,
    entry: Entry,
    dead_only: bool,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Event> {
    let outcome = outcome.clone();
    if entry.is_job {
        let job = state.jobs.get(&entry.id)?;
        return Some(Event::Ended { job: job.id, attempt: job.attempt, outcome, at: now });
    }
    let array = state.arrays.get(&entry.id)?;
    let standing = array_standing(&array.spec.dependency, &array.terms);
    let all = !dead_only || standing.standing == Standing::Never;
    let tasks =
        if all { array.pending.clone() } else { array.pending.intersection(&standing.never) };
    (!tasks.is_empty()).then_some(Event::TasksEnded { job: array.id, tasks, outcome, at: now })
}

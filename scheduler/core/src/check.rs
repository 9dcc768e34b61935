//! Every invariant by name. Looked at after every fact in tests and in the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use muster_model::{Capacity, GresKind, JobId, NodeId};

use crate::lifecycle::Phase;
use crate::state::{Facts, Job, State};

/// An invariant that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

/// What must always be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A GPU, or any named unit, is held by one attempt at a time.
    NoUnitHeldTwice,
    NoCpuHeldTwice,
    /// What jobs hold on a node is at most what it has.
    WithinCapacity,
    /// What the ledger says is free is what the jobs leave.
    LedgerAgrees,
    /// A running gang holds every slice of its placement (unless it may lose nodes).
    GangWhole,
    /// The components of a heterogeneous job run together.
    HetWhole,
    /// A job holds at most one slice of a node, and names only nodes that exist.
    PlacementSound,
    /// A job that holds something has a number of attempts; one that never did has none.
    AttemptsCount,
    /// A task of an array is in exactly one place: pending, ended, or a live job.
    TasksPartitioned,
    /// What is derived is what would be derived anew.
    IndicesAgree,
    /// Licences in use are at most those configured.
    LicensesWithin,
    /// A reservation has a name, a window and known nodes.
    ReservationSound,
    /// Two reservations keep a node at one time only if one of them allows it.
    ReservationsApart,
    /// No fact is later than the clock.
    ClockAhead,
}

/// Everything that does not hold; empty if all is well.
#[must_use]
pub fn check(state: &State) -> Vec<Violation> {
    let mut out = Vec::new();
    let mut found = |invariant, what| out.push(Violation { invariant, what });
    for job in state.jobs.values() {
        job_sound(state, job, &mut found);
    }
    for node in &state.nodes {
        node_sound(state, node.id, &mut found);
    }
    for array in state.arrays.keys() {
        array_sound(state, *array, &mut found);
    }
    reservations_sound(state, &mut found);
    for (name, used) in &state.derived.licenses_used {
        let all = state.config.licenses.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n);
        if *used > all {
            found(Invariant::LicensesWithin, format!("{used} of {all} {name:?}"));
        }
    }
    let mut anew = state.clone();
    anew.rebuild_indices();
    if anew != *state {
        found(Invariant::IndicesAgree, difference(state, &anew));
    }
    out
}

fn job_sound(state: &State, job: &Job, found: &mut impl FnMut(Invariant, String)) {
    if job.submitted_at > state.clock {
        found(Invariant::ClockAhead, format!("job {} was submitted later", job.id));
    }
    let Some(held) = job.phase.allocation() else { return };
    if job.attempt.0 == 0 {
        found(Invariant::AttemptsCount, format!("job {} holds something without one", job.id));
    }
    let nodes: BTreeSet<NodeId> = held.placement.nodes().collect();
    let known = nodes.iter().all(|n| state.node(*n).is_some());
    let within = held.remaining.iter().all(|n| nodes.contains(n));
    if nodes.len() != held.placement.slices.len() || !known || !within {
        found(Invariant::PlacementSound, format!("job {}", job.id));
    }
    let whole = held.remaining.len() == held.placement.slices.len();
    let needs_whole = match &job.phase {
        Phase::Launching { .. } => true,
        Phase::Running { .. } => !job.spec.launch.no_kill,
        Phase::Pending { .. } | Phase::Completing { .. } | Phase::Ended { .. } => false,
    };
    if needs_whole && !whole {
        found(Invariant::GangWhole, format!("job {}", job.id));
    }
    let runs = matches!(job.phase, Phase::Running { .. });
    if runs && state.mates_of(job).any(|mate| !mate.phase.is_active()) {
        found(Invariant::HetWhole, format!("job {}", job.id));
    }
}

fn reservations_sound(state: &State, found: &mut impl FnMut(Invariant, String)) {
    for (name, one) in &state.reservations {
        let ascending = one.nodes.is_sorted_by(|a, b| a < b);
        let known = one.nodes.iter().all(|n| state.node(*n).is_some());
        let keeps = !one.nodes.is_empty() || !one.licenses.is_empty();
        if *name != one.name || one.start >= one.end || !ascending || !known || !keeps {
            found(Invariant::ReservationSound, name.to_string());
        }
        for (other, two) in state.reservations.range::<str, _>((Excluded(&**name), Unbounded)) {
            let closed = one.closes_to(two) && two.closes_to(one);
            if closed && one.nodes.iter().any(|n| two.holds(*n)) && one.meets(two) {
                found(Invariant::ReservationsApart, format!("{name} and {other}"));
            }
        }
    }
}

fn node_sound(state: &State, id: NodeId, found: &mut impl FnMut(Invariant, String)) {
    let node = &state.nodes[id.0 as usize];
    let name = &node.config.name;
    let mut cpus = muster_model::CpuSet::default();
    let mut units: BTreeMap<&GresKind, u64> = BTreeMap::new();
    let mut sum = Capacity::default();
    let mut holders: BTreeSet<JobId> = BTreeSet::new();
    for job in state.jobs.values() {
        let Some(held) = job.phase.allocation().filter(|h| h.remaining.contains(&id)) else {
            continue;
        };
        let Some(slice) = held.placement.slice(id) else { continue };
        holders.insert(job.id);
        if cpus.overlaps(&slice.cpus) {
            found(Invariant::NoCpuHeldTwice, format!("job {} on {name}", job.id));
        }
        cpus.add(&slice.cpus);
        sum.cpus += slice.cpus.len();
        sum.memory_mib += slice.memory_mib;
        for part in &slice.gres {
            let mask = units.entry(&part.kind).or_default();
            if *mask & part.mask != 0 {
                found(
                    Invariant::NoUnitHeldTwice,
                    format!("{} by job {} on {name}", part.kind, job.id),
                );
            }
            *mask |= part.mask;
            *sum.gres.entry(part.kind.clone()).or_default() += part.count;
        }
    }
    if !within(&sum, &node.facts) {
        found(Invariant::WithinCapacity, format!("{name}: {sum:?}"));
    }
    let ledger = node.allocated();
    let gres_agree = ledger.gres.iter().all(|(k, n)| sum.gres.get(k).copied().unwrap_or(0) == *n);
    let same = ledger.cpus == sum.cpus && ledger.memory_mib == sum.memory_mib && gres_agree;
    if holders != node.jobs || !same {
        found(Invariant::LedgerAgrees, format!("{name}: {ledger:?}, jobs hold {sum:?}"));
    }
}

fn within(sum: &Capacity, facts: &Facts) -> bool {
    let has = |kind: &GresKind| -> u64 {
        let slots = facts.slots.iter().zip(&facts.whole.gres);
        slots.filter(|(s, _)| s.kind == *kind).map(|(_, u)| u.count).sum()
    };
    sum.cpus <= facts.whole.cpus.len()
        && sum.memory_mib <= facts.whole.memory_mib
        && sum.gres.iter().all(|(kind, n)| *n <= has(kind))
}

fn array_sound(state: &State, id: JobId, found: &mut impl FnMut(Invariant, String)) {
    let array = &state.arrays[&id];
    let ended = array.ok.union(&array.bad);
    let overlap = !array.ok.intersection(&array.bad).is_empty()
        || !array.pending.intersection(&ended).is_empty();
    let held = array.held_user.union(&array.held_admin);
    let strays = !held.difference(&array.pending).is_empty()
        || !ended.union(&array.pending).difference(&array.full).is_empty();
    let mut left = array.full.difference(&array.pending).difference(&ended);
    for job in state.tasks_of(array) {
        let Some((_, index)) = job.array else { continue };
        if job.phase.is_ended() != ended.contains(index) || array.pending.contains(index) {
            found(Invariant::TasksPartitioned, format!("task {index} of array {id}"));
        }
        left.remove(index);
    }
    if overlap || strays || !left.is_empty() {
        found(Invariant::TasksPartitioned, format!("array {id}: {left} is nowhere"));
    }
}

fn difference(kept: &State, anew: &State) -> String {
    let (a, b) = (&kept.derived, &anew.derived);
    let parts = [
        ("queue", a.queue == b.queue),
        ("dependents", a.dependents == b.dependents),
        ("names", a.names == b.names),
        ("requests", a.requests == b.requests),
        ("ends", a.ends == b.ends),
        ("ended", a.ended == b.ended),
        ("deadlines", a.deadlines == b.deadlines),
        ("doomed", a.doomed == b.doomed),
        ("reserving", a.reserving == b.reserving),
        ("tasks", a.tasks == b.tasks),
        ("licences", a.licenses_used == b.licenses_used),
        ("counts", (a.live, a.active) == (b.live, b.active)),
        ("nodes", kept.nodes == anew.nodes),
        ("jobs", kept.jobs == anew.jobs),
        ("arrays", kept.arrays == anew.arrays),
    ];
    let wrong: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    format!("differ: {}", wrong.join(", "))
}

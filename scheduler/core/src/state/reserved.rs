//! What reservations close, and to whom: the one place that says so. A start is held against it,
//! and the plan reads the same rows.

use muster_model::{NodeId, Reservation, ReservationFlags, Timestamp};

use super::State;

/// Windows that come back are written out this far ahead. A job that would run longer meets the
/// first of them anyway, and nothing is planned further ahead.
const AHEAD_SECONDS: i64 = 31 * 86_400;
/// Windows written out of one reservation at most: hourly ones for [`AHEAD_SECONDS`].
const MOST_WINDOWS: usize = 31 * 24 + 1;

/// A reservation as plain data, with its windows written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedView {
    pub name: Box<str>,
    /// Ascending; empty: licences only.
    pub nodes: Vec<NodeId>,
    /// Ascending and apart, from the one that now is in (or the next) on.
    pub windows: Vec<(Timestamp, Timestamp)>,
    /// Its jobs may start before a window, end after it and use other nodes too.
    pub flex: bool,
    pub maint: bool,
    pub overlap: bool,
    pub ignore_jobs: bool,
    /// Kept for its jobs and not in use by them.
    pub licenses: Vec<(Box<str>, u32)>,
    /// Places in the list of reservations whose jobs it does not shut out.
    open_to: Vec<u32>,
}

/// All reservations that are not over, by name.
#[must_use]
pub fn reserved_view(state: &State, now: Timestamp) -> Vec<ReservedView> {
    let until = now.plus_seconds(AHEAD_SECONDS);
    let all: Vec<&Reservation> = state.reservations.values().collect();
    let view = |r: &&Reservation| ReservedView {
        name: r.name.clone(),
        nodes: r.nodes.clone(),
        windows: windows(r, now, until),
        flex: r.has(ReservationFlags::FLEX),
        maint: r.has(ReservationFlags::MAINT),
        overlap: r.has(ReservationFlags::OVERLAP),
        ignore_jobs: r.has(ReservationFlags::IGNORE_JOBS),
        licenses: unused_licenses(state, r),
        open_to: (0u32..).zip(&all).filter(|(_, o)| !r.closes_to(o)).map(|(at, _)| at).collect(),
    };
    all.iter().map(view).collect()
}

fn windows(r: &Reservation, now: Timestamp, until: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    // The next one counts however far it is.
    let first = r.window_at(now);
    let later = r.windows(now, Some(until)).skip(1);
    first.into_iter().chain(later).take(MOST_WINDOWS).collect()
}

/// What a reservation keeps of each licence beyond what its own jobs hold.
fn unused_licenses(state: &State, r: &Reservation) -> Vec<(Box<str>, u32)> {
    if r.licenses.is_empty() {
        return Vec::new();
    }
    let entries = state.derived.reserving.get(&r.name).into_iter().flatten();
    let jobs = entries.filter(|e| e.is_job).filter_map(|e| state.jobs.get(&e.id));
    let active: Vec<_> = jobs.filter(|job| job.phase.is_active()).collect();
    let unused = |(name, kept): &(Box<str>, u32)| {
        let of = |(n, count): &(Box<str>, u32)| if n == name { *count } else { 0 };
        let used: u32 = active.iter().flat_map(|job| &job.spec.licenses).map(of).sum();
        (name.clone(), kept.saturating_sub(used))
    };
    r.licenses.iter().map(unused).collect()
}

/// What is closed to the jobs of one reservation, or to those of none.
#[derive(Debug, Clone)]
pub struct Fence<'a> {
    /// A job of a reservation: only these nodes.
    pub only: Option<&'a [NodeId]>,
    /// A job of a reservation: only from the first to the second instant.
    pub within: Option<(Timestamp, Timestamp)>,
    /// Whose nodes and licences are closed in their windows.
    pub closed: Vec<&'a ReservedView>,
    own: Option<&'a ReservedView>,
}

/// The fence around jobs that name this reservation, or none; `None`: it is unknown or over.
#[must_use]
pub fn fence<'a>(reserved: &'a [ReservedView], own: Option<&str>) -> Option<Fence<'a>> {
    let place = match own {
        Some(name) => Some(reserved.iter().position(|r| *r.name == *name)?),
        None => None,
    };
    let number = place.and_then(|at| u32::try_from(at).ok());
    let open = |r: &&ReservedView| number.is_some_and(|at| r.open_to.contains(&at));
    let own = place.map(|at| &reserved[at]);
    let strict = own.filter(|r| !r.flex);
    let within = match strict {
        Some(r) => Some(*r.windows.first()?),
        None => None,
    };
    Some(Fence {
        only: strict.filter(|r| !r.nodes.is_empty()).map(|r| &r.nodes[..]),
        within,
        closed: reserved.iter().filter(|r| !open(r)).collect(),
        own,
    })
}

impl<'a> Fence<'a> {
    /// Nothing is closed and nothing is bound.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed.is_empty() && self.only.is_none() && self.within.is_none()
    }

    /// The reservation on whose account a job may not have this node from `start` to `end`
    /// (`None`: without end); its own, if that is what is in the way.
    #[must_use]
    pub fn closed_by(
        &self,
        node: NodeId,
        start: Timestamp,
        end: Option<Timestamp>,
    ) -> Option<&'a str> {
        let outside = self.only.is_some_and(|only| only.binary_search(&node).is_err());
        let out_of_time = self
            .within
            .is_some_and(|(from, until)| start < from || end.is_none_or(|end| end > until));
        if outside || out_of_time {
            return self.own.map(|r| &*r.name);
        }
        let closes =
            |r: &&&ReservedView| r.nodes.binary_search(&node).is_ok() && r.meets(start, end);
        self.closed.iter().find(closes).map(|r| &*r.name)
    }

    /// How many of a licence are kept for others from `start` to `end`.
    #[must_use]
    pub fn licenses_kept(&self, name: &str, start: Timestamp, end: Option<Timestamp>) -> u32 {
        let meeting = self.closed.iter().filter(|r| r.meets(start, end));
        let of = meeting.flat_map(|r| &r.licenses).filter(|(n, _)| **n == *name);
        of.map(|(_, count)| *count).fold(0, u32::saturating_add)
    }
}

impl ReservedView {
    /// Whether a window has a moment from `start` to `end` (`None`: without end).
    #[must_use]
    pub fn meets(&self, start: Timestamp, end: Option<Timestamp>) -> bool {
        self.windows.iter().any(|(from, until)| start < *until && end.is_none_or(|e| e > *from))
    }
}

/// The windows in which nodes are closed to jobs that name this reservation, or none; `None`: no
/// such reservation. What the jobs of a reservation are bound to stands in its [`Fence`].
#[must_use]
pub fn blocked_windows<'a>(
    reserved: &'a [ReservedView],
    own: Option<&str>,
) -> Option<Vec<(&'a [NodeId], Timestamp, Timestamp)>> {
    let fence = fence(reserved, own)?;
    let each = fence
        .closed
        .into_iter()
        .flat_map(|r| r.windows.iter().map(|(from, until)| (&r.nodes[..], *from, *until)));
    Some(each.filter(|(nodes, ..)| !nodes.is_empty()).collect())
}

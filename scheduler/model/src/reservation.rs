//! Reservations: nodes (and licences) that an admin keeps for some jobs, for a time.
//!
//! A reservation is one window, or one that comes back every hour, day or week. Windows are
//! counted in elapsed time: a daily one moves against the wall clock when clocks are set forward
//! or back.

use std::fmt;

use crate::constraint::Constraint;
use crate::ids::{NodeId, Uid};
use crate::time::Timestamp;

/// The longest name, bytes; any name must also fit in a table.
pub const MAX_NAME: usize = 64;

/// A reservation as it is in force: everything is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub name: Box<str>,
    /// Ascending. Empty: it keeps licences only.
    pub nodes: Vec<NodeId>,
    /// Where its nodes were looked for.
    pub partition: Option<Box<str>>,
    /// The present window, or the next.
    pub start: Timestamp,
    pub end: Timestamp,
    pub users: Access,
    pub accounts: Access,
    pub flags: ReservationFlags,
    /// What its nodes were chosen by.
    pub features: Option<Constraint>,
    /// Kept for its jobs, (name, count).
    pub licenses: Vec<(Box<str>, u32)>,
    pub comment: Box<str>,
    pub created_by: Uid,
    pub created_at: Timestamp,
}

/// Who of a kind (users or accounts) may use a reservation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub names: Vec<Box<str>>,
    /// The names are those who may not.
    pub deny: bool,
}

impl Access {
    /// Reads `a,b` or `-a,-b`. The empty text names nobody and admits everybody.
    ///
    /// # Errors
    /// Names with and without '-' in one list, or an empty name.
    pub fn parse(text: &str) -> Result<Self, BadAccess> {
        let bad = |fault| BadAccess { text: text.to_owned(), fault };
        if text.is_empty() {
            return Ok(Access::default());
        }
        let deny = text.starts_with('-');
        let mut names: Vec<Box<str>> = Vec::new();
        for part in text.split(',') {
            let name = part.strip_prefix('-').unwrap_or(part);
            if part.starts_with('-') != deny {
                return Err(bad("either all names have a '-' or none"));
            }
            if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(bad("a name is empty or has spaces"));
            }
            names.push(name.into());
        }
        Ok(Access { names, deny })
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.names.is_empty()
    }

    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        self.is_open() || self.names.iter().any(|n| **n == *name) != self.deny
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let minus = if self.deny { "-" } else { "" };
            write!(f, "{comma}{minus}{name}")?;
        }
        Ok(())
    }
}

/// Why a list of users or accounts could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid list of names {text:?}: {fault}")]
pub struct BadAccess {
    pub text: String,
    pub fault: &'static str,
}

/// A set of flags. The bits are those on the wire and on disk: append only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationFlags(pub u32);

impl ReservationFlags {
    /// For maintenance: it may overlap others, whose jobs it shuts out too.
    pub const MAINT: Self = Self(1);
    /// May be made although jobs run on its nodes beyond its start.
    pub const IGNORE_JOBS: Self = Self(1 << 1);
    pub const HOURLY: Self = Self(1 << 2);
    pub const DAILY: Self = Self(1 << 3);
    pub const WEEKLY: Self = Self(1 << 4);
    /// Its jobs may start before it, end after it and use other nodes too.
    pub const FLEX: Self = Self(1 << 5);
    /// May share nodes with other reservations.
    pub const OVERLAP: Self = Self(1 << 6);
    /// Keeps licences of the cluster and no node.
    pub const ANY_NODES: Self = Self(1 << 7);
    /// Its nodes were named one by one.
    pub const SPEC_NODES: Self = Self(1 << 8);
    /// Every node of the cluster.
    pub const ALL_NODES: Self = Self(1 << 9);
    /// Every node of its partition.
    pub const PART_NODES: Self = Self(1 << 10);

    /// In the order shown.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::MAINT, "MAINT"),
        (Self::FLEX, "FLEX"),
        (Self::OVERLAP, "OVERLAP"),
        (Self::IGNORE_JOBS, "IGNORE_JOBS"),
        (Self::HOURLY, "HOURLY"),
        (Self::DAILY, "DAILY"),
        (Self::WEEKLY, "WEEKLY"),
        (Self::ANY_NODES, "ANY_NODES"),
        (Self::SPEC_NODES, "SPEC_NODES"),
        (Self::ALL_NODES, "ALL_NODES"),
        (Self::PART_NODES, "PART_NODES"),
    ];

    const REPEATING: Self = Self(Self::HOURLY.0 | Self::DAILY.0 | Self::WEEKLY.0);

    #[must_use]
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    #[must_use]
    pub fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    #[must_use]
    pub fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }

    /// The flag of a name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(flag, _)| *flag)
    }

    /// Names of the flags, in the order shown.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
    }

    /// Whether more than one way of coming back is asked for.
    #[must_use]
    pub fn repeats_twice(self) -> bool {
        (self.0 & Self::REPEATING.0).count_ones() > 1
    }

    /// Seconds from one window's start to the next; `None`: there is one window.
    #[must_use]
    pub fn period(self) -> Option<i64> {
        match () {
            () if self.has(Self::HOURLY) => Some(3600),
            () if self.has(Self::DAILY) => Some(86_400),
            () if self.has(Self::WEEKLY) => Some(7 * 86_400),
            () => None,
        }
    }
}

impl fmt::Display for ReservationFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            write!(f, "{}{name}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Reservation {
    #[must_use]
    pub fn has(&self, flag: ReservationFlags) -> bool {
        self.flags.has(flag)
    }

    /// Its windows that have a moment in `from..until`, ascending; `until` `None`: without end.
    pub fn windows(
        &self,
        from: Timestamp,
        until: Option<Timestamp>,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> + use<> {
        let (mut start, mut end) = (self.start, self.end);
        let period = self.flags.period().map(|seconds| seconds * 1000);
        if let Some(period) = period
            && end <= from
        {
            let passed = from.since(end) / period + 1;
            (start, end) =
                (Timestamp(start.0 + passed * period), Timestamp(end.0 + passed * period));
        }
        let mut next = (end > from).then_some((start, end));
        std::iter::from_fn(move || {
            let (start, end) = next.filter(|(start, _)| until.is_none_or(|u| *start < u))?;
            next = period.map(|p| (Timestamp(start.0 + p), Timestamp(end.0 + p)));
            Some((start, end))
        })
    }

    /// The window that `now` is in, or else the next; `None`: it is over.
    #[must_use]
    pub fn window_at(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.windows(now, None).next()
    }

    /// Whether it is in force.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        self.window_at(now).is_some_and(|(start, _)| start <= now)
    }

    /// Whether some moment is in a window of both. Reservations that come back are looked at
    /// through all their phases: two periods of which one is a multiple of the other meet within
    /// the longer one, if ever.
    #[must_use]
    pub fn meets(&self, other: &Reservation) -> bool {
        let from = self.start.max(other.start);
        let ahead = self.flags.period().max(other.flags.period()).unwrap_or(0);
        let longest = self.end.since(self.start).max(other.end.since(other.start));
        let until = Timestamp(from.plus_seconds(2 * ahead).0.saturating_add(2 * longest));
        self.windows(from, Some(until))
            .any(|(start, end)| other.windows(start, Some(end)).next().is_some())
    }

    /// Whether it takes part of the span; `end` `None`: without end.
    #[must_use]
    pub fn touches(&self, start: Timestamp, end: Option<Timestamp>) -> bool {
        self.windows(start, end).next().is_some()
    }

    /// Whether a user of an account may use it: both must be admitted.
    #[must_use]
    pub fn admits(&self, user: &str, account: &str) -> bool {
        self.users.admits(user) && self.accounts.admits(account)
    }

    #[must_use]
    pub fn holds(&self, node: NodeId) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// Whether it shuts out the jobs of another reservation too. Maintenance does; jobs of a
    /// maintenance are shut out by nobody.
    #[must_use]
    pub fn closes_to(&self, other: &Reservation) -> bool {
        use ReservationFlags as F;
        let shared = self.has(F::OVERLAP) || other.has(F::OVERLAP);
        self.name != other.name && !other.has(F::MAINT) && (self.has(F::MAINT) || !shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn of(start: i64, end: i64, flags: ReservationFlags) -> Reservation {
        Reservation {
            name: "r".into(),
            nodes: vec![NodeId(1)],
            partition: None,
            start: Timestamp(start * HOUR),
            end: Timestamp(end * HOUR),
            users: Access::default(),
            accounts: Access::default(),
            flags,
            features: None,
            licenses: Vec::new(),
            comment: "".into(),
            created_by: Uid(0),
            created_at: Timestamp(0),
        }
    }

    #[track_caller]
    fn check(reservation: &Reservation, (from, until): (i64, i64), expected: &[(i64, i64)]) {
        let (from, until) = (Timestamp(from * HOUR), Timestamp(until * HOUR));
        let got: Vec<(i64, i64)> = reservation
            .windows(from, Some(until))
            .map(|(start, end)| (start.0 / HOUR, end.0 / HOUR))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_window_is_there_as_long_as_it_has_a_moment_in_the_span() {
        let once = of(10, 12, ReservationFlags::default());
        check(&once, (0, 24), &[(10, 12)]);
        check(&once, (11, 24), &[(10, 12)]);
        check(&once, (12, 24), &[]);
        check(&once, (0, 10), &[]);
        assert!(once.active(Timestamp(10 * HOUR)) && !once.active(Timestamp(12 * HOUR)));
    }

    #[test]
    fn a_daily_window_comes_back_for_ever() {
        let daily = of(10, 12, ReservationFlags::DAILY);
        check(&daily, (0, 48), &[(10, 12), (34, 36)]);
        check(&daily, (12, 48), &[(34, 36)]);
        check(&daily, (24_000, 24_011), &[(24_010, 24_012)]);
        assert!(daily.active(Timestamp(35 * HOUR)) && !daily.active(Timestamp(36 * HOUR)));
        let weekly = of(10, 12, ReservationFlags::WEEKLY);
        check(&weekly, (12, 24 * 9), &[(178, 180)]);
    }

    #[test]
    fn reservations_meet_in_any_of_their_windows() {
        let daily = of(10, 12, ReservationFlags::DAILY);
        let once = |start, end| of(start, end, ReservationFlags::default());
        assert!(daily.meets(&once(59, 60)) && once(59, 60).meets(&daily));
        assert!(!daily.meets(&once(60, 70)) && !once(60, 70).meets(&daily));
        let weekly = of(24 * 3 + 11, 24 * 3 + 13, ReservationFlags::WEEKLY);
        assert!(daily.meets(&weekly) && weekly.meets(&daily));
        let apart = of(24 * 3 + 12, 24 * 3 + 13, ReservationFlags::WEEKLY);
        assert!(!daily.meets(&apart) && !apart.meets(&daily));
        assert!(!daily.meets(&once(2, 9)));
    }

    #[test]
    fn lists_name_those_who_may_or_those_who_may_not() {
        let allow = Access::parse("alice,bob").unwrap();
        assert!(allow.admits("bob") && !allow.admits("eve"));
        let deny = Access::parse("-eve").unwrap();
        assert!(deny.admits("bob") && !deny.admits("eve"));
        assert!(Access::parse("").unwrap().admits("eve"));
        assert!(Access::parse("a,-b").is_err() && Access::parse("a,,b").is_err());
        for text in ["", "a,b", "-a,-b"] {
            assert_eq!(Access::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn flags_have_names() {
        let flags = ReservationFlags::MAINT.with(ReservationFlags::IGNORE_JOBS);
        assert_eq!(flags.to_string(), "MAINT,IGNORE_JOBS");
        for (flag, name) in ReservationFlags::ALL {
            assert_eq!(ReservationFlags::named(name), Some(*flag));
        }
    }
}

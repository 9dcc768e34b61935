//! Time as values: no clock is read here.
//!
//! Grammar of durations: Slurm's `--time` (minutes, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`,
//! `UNLIMITED`).

use std::fmt;

/// Milliseconds since the Unix epoch. Chosen by the engine, once per batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole seconds since the epoch, rounded down: what Slurm's formats show.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The instant this many seconds after the epoch.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Timestamp(seconds.saturating_mul(1000))
    }

    /// This instant moved by whole seconds (negative: earlier).
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to `self`; negative if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A span in whole seconds, the unit of time limits. What users and the wire say is minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u32);

/// How long a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeLimit {
    /// At most this long.
    Limited(Seconds),
    /// As long as it likes.
    Unlimited,
}

impl TimeLimit {
    /// A limit of whole minutes; from 136 years on, the longest there is.
    #[must_use]
    pub const fn minutes(minutes: u32) -> Self {
        TimeLimit::Limited(Seconds(minutes.saturating_mul(60)))
    }

    /// The limit in minutes, a part of one counted whole; `None` when there is no limit.
    #[must_use]
    pub fn whole_minutes(self) -> Option<u32> {
        match self {
            TimeLimit::Limited(seconds) => Some(seconds.0.div_ceil(60)),
            TimeLimit::Unlimited => None,
        }
    }

    /// The limit in seconds, or `None` when there is none.
    #[must_use]
    pub fn seconds(self) -> Option<i64> {
        match self {
            TimeLimit::Limited(seconds) => Some(i64::from(seconds.0)),
            TimeLimit::Unlimited => None,
        }
    }
}

/// Why a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: use minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S or UNLIMITED")]
pub struct BadDuration(pub String);

/// Reads a duration in Slurm's grammar, in seconds; `None` is "no limit".
///
/// # Errors
/// When the text is none of the documented forms or overflows.
pub fn parse_seconds(text: &str) -> Result<Option<i64>, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    if matches!(lower.as_str(), "unlimited" | "infinite" | "-1") {
        return Ok(None);
    }
    let (days, rest, has_days) = match lower.split_once('-') {
        Some((days, rest)) => (number(days).ok_or_else(bad)?, rest, true),
        None => (0, lower.as_str(), false),
    };
    let fields: Option<Vec<i64>> = rest.split(':').map(number).collect();
    let seconds = match (has_days, fields.ok_or_else(bad)?.as_slice()) {
        (false, [m]) => m.checked_mul(60),
        (false, [m, s]) => m.checked_mul(60).and_then(|m| m.checked_add(*s)),
        (true, [h]) => hms(*h, 0, 0),
        (true, [h, m]) => hms(*h, *m, 0),
        (_, [h, m, s]) => hms(*h, *m, *s),
        _ => None,
    };
    let days = i64::checked_mul(days, 86_400).ok_or_else(bad)?;
    seconds.and_then(|s| s.checked_add(days)).map(Some).ok_or_else(bad)
}

/// Reads a time limit: seconds round up to a whole minute; 0 means none was set (no limit).
///
/// # Errors
/// As [`parse_seconds`], and when the limit exceeds `u32` seconds (136 years).
pub fn parse_limit(text: &str) -> Result<TimeLimit, BadDuration> {
    match parse_seconds(text)? {
        None | Some(0) => Ok(TimeLimit::Unlimited),
        Some(seconds) => u32::try_from(seconds)
            .ok()
            .and_then(|seconds| seconds.checked_next_multiple_of(60))
            .map(|seconds| TimeLimit::Limited(Seconds(seconds)))
            .ok_or_else(|| BadDuration(text.to_owned())),
    }
}

fn number(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn hms(h: i64, m: i64, s: i64) -> Option<i64> {
    h.checked_mul(3600)?.checked_add(m.checked_mul(60)?)?.checked_add(s)
}

/// `[D-]HH:MM:SS`, the long form of every Slurm tool.
pub struct Clock(pub i64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.max(0);
        let (days, h, m, s) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
        if days > 0 {
            write!(f, "{days}-")?;
        }
        write!(f, "{h:02}:{m:02}:{s:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: i64) {
        assert_eq!(parse_seconds(text), Ok(Some(seconds)), "{text}");
    }

    #[test]
    fn every_documented_form_is_read() {
        check("5", 300);
        check("1:30", 90);
        check("20:00:00", 72_000);
        check("2-0", 172_800);
        check("0-12:00", 43_200);
        check("02-00:00:00", 172_800);
        assert_eq!(parse_seconds("UNLIMITED"), Ok(None));
        assert_eq!(parse_limit("0:1"), Ok(TimeLimit::minutes(1)));
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "abc", "-5", "1:2:3:4", "1-", "1-2-3", "1:", "99999999999999999999"] {
            assert_eq!(parse_seconds(text), Err(BadDuration(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn clocks_show_days_only_when_there_are_any() {
        assert_eq!(Clock(59).to_string(), "00:00:59");
        assert_eq!(Clock(90_061).to_string(), "1-01:01:01");
    }
}

//! Points in time and spans: how users write them and how they are shown.
//!
//! Instants are milliseconds since the Unix epoch, 0 = unset. The clock and the time zone are
//! handed in; nothing here reads either.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};

/// `SLURM_TIME_FORMAT`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// `2026-11-23T17:02:29`
    #[default]
    Standard,
    /// `17:02:29`, `Ystday 17:02`, `Mon 17:02`, `3 Nov 17:02`, `3 Nov 2024`
    Relative,
    /// A strftime format.
    Custom(String),
}

impl Style {
    /// Reads the variable's value; anything that is no known word is a strftime format.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Style {
        match text {
            "" | "standard" => Style::Standard,
            "relative" => Style::Relative,
            custom => Style::Custom(custom.to_owned()),
        }
    }
}

const STANDARD: &str = "%Y-%m-%dT%H:%M:%S";

/// Shows an instant, or `unset` when there is none.
pub(crate) fn show(at_ms: i64, unset: &str, style: &Style, zone: &TimeZone, now_ms: i64) -> String {
    if at_ms <= 0 {
        return unset.to_owned();
    }
    let (Some(at), Some(now)) = (zoned(at_ms, zone), zoned(now_ms, zone)) else {
        return unset.to_owned();
    };
    let format = match style {
        Style::Standard => STANDARD,
        Style::Relative => relative_format(&at, &now),
        Style::Custom(format) => format,
    };
    jiff::fmt::strtime::format(format, &at)
        .unwrap_or_else(|_| at.datetime().strftime(STANDARD).to_string())
}

/// The line above `squeue -l` and `sinfo -l`: `Mon Nov 23 17:02:29 2026`.
pub(crate) fn headline(now_ms: i64, zone: &TimeZone) -> String {
    zoned(now_ms, zone)
        .map_or_else(String::new, |now| now.strftime("%a %b %d %H:%M:%S %Y").to_string())
}

fn zoned(at_ms: i64, zone: &TimeZone) -> Option<ZonedDateTime> {
    Timestamp::from_millisecond(at_ms).ok().map(|at| at.to_zoned_datetime(zone.clone()))
}

fn relative_format(at: &ZonedDateTime, now: &ZonedDateTime) -> &'static str {
    let days = (at.date() - now.date()).get_days();
    match days {
        -1 => "Ystday %H:%M",
        0 => "%H:%M:%S",
        1 => "Tomorr %H:%M",
        d if !(-365..=365).contains(&d) => "%-d %b %Y",
        d if !(-1..=6).contains(&d) => "%-d %b %H:%M",
        _ => "%a %H:%M",
    }
}

/// `[D-]HH:MM:SS` without leading fields that are nothing: `0:05`, `12:00`, `1:00:00`, `1-00:00:00`.
pub(crate) fn trimmed(seconds: i64) -> String {
    let s = seconds.max(0);
    let (days, h, m, s) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, h) {
        (0, 0) => format!("{m}:{s:02}"),
        (0, _) => format!("{h}:{m:02}:{s:02}"),
        _ => format!("{days}-{h:02}:{m:02}:{s:02}"),
    }
}

/// `[D-]HH:MM:SS`, or `MM:SS.mmm` below an hour if there is a fraction: CPU time in `sacct`.
pub(crate) fn cpu_time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    if seconds < 3600 && !ms.is_multiple_of(1000) {
        format!("{:02}:{:02}.{:03}", seconds / 60, seconds % 60, ms % 1000)
    } else {
        muster_model::time::Clock(seconds).to_string()
    }
}

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid time specification (pos=0): {0}")]
pub(crate) struct BadTime(pub(crate) String);

/// Reads a point in time as `-S` and `-E` take it; the result is in milliseconds.
///
/// Times of day are of today, also when they have passed: a query looks back.
pub(crate) fn parse(text: &str, zone: &TimeZone, now_ms: i64) -> Result<i64, BadTime> {
    let bad = || BadTime(text.to_owned());
    let now = zoned(now_ms, zone).ok_or_else(bad)?;
    let lower = text.trim().to_ascii_lowercase();
    if let Some(seconds) = lower.strip_prefix("uts") {
        let seconds: i64 = seconds.parse().map_err(|_| bad())?;
        return seconds.checked_mul(1000).ok_or_else(bad);
    }
    let (base, shift) = split_shift(&lower).ok_or_else(bad)?;
    let moment = match base {
        "now" => now.clone(),
        "today" | "midnight" => on(&now, now.date(), Time::midnight()).ok_or_else(bad)?,
        "tomorrow" => {
            on(&now, now.date().tomorrow().map_err(|_| bad())?, Time::midnight()).ok_or_else(bad)?
        }
        "noon" => hour(&now, 12).ok_or_else(bad)?,
        "elevenses" => hour(&now, 11).ok_or_else(bad)?,
        "fika" => hour(&now, 15).ok_or_else(bad)?,
        "teatime" => hour(&now, 16).ok_or_else(bad)?,
        other => {
            let at = written(other, &now).ok_or_else(bad)?;
            at.to_zoned_datetime(zone.clone()).map_err(|_| bad())?
        }
    };
    let moved = match shift {
        Some(span) => moment.checked_add(span).map_err(|_| bad())?,
        None => moment,
    };
    Ok(moved.timestamp().as_millisecond())
}

fn on(now: &ZonedDateTime, date: Date, time: Time) -> Option<ZonedDateTime> {
    date.to_datetime(time).to_zoned_datetime(now.time_zone().clone()).ok()
}

fn hour(now: &ZonedDateTime, hour: i8) -> Option<ZonedDateTime> {
    on(now, now.date(), Time::new(hour, 0, 0, 0).ok()?)
}

/// Splits `now-7days` into its word and its shift. Only words shift: dates have dashes too.
fn split_shift(text: &str) -> Option<(&str, Option<Span>)> {
    let starts_as_word = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let Some(at) = text.find(['+', '-']).filter(|_| starts_as_word) else {
        return Some((text, None));
    };
    let (base, rest) = text.split_at(at);
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    let digits = rest[1..].trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: i64 = digits.parse().ok()?;
    let unit = &rest[1 + digits.len()..];
    let seconds = match unit {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    let span = match seconds {
        // Whole days keep the time of day over a change of the clocks.
        86_400 => Span::new().try_days(sign * count),
        604_800 => Span::new().try_weeks(sign * count),
        seconds => Span::new().try_seconds(count.checked_mul(sign * seconds)?),
    };
    Some((base.trim_end(), Some(span.ok()?)))
}

/// A date, a time of day or both.
fn written(text: &str, now: &ZonedDateTime) -> Option<DateTime> {
    if let Some(time) = clock(text) {
        return Some(now.date().to_datetime(time));
    }
    if text.len() >= 10 && text.as_bytes()[4] == b'-' {
        let date = Date::strptime("%Y-%m-%d", &text[..10]).ok()?;
        return Some(date.to_datetime(rest_clock(&text[10..])?));
    }
    if text.contains('/') {
        let (date, time) = text.split_once(['-', 't']).unwrap_or((text, ""));
        let fields: Vec<&str> = date.split('/').collect();
        let year = match fields.get(2) {
            Some(year) => two_digit_year(year)?,
            None => now.year(),
        };
        let date = Date::new(year, fields[0].parse().ok()?, fields.get(1)?.parse().ok()?).ok()?;
        let time = if time.is_empty() { Time::midnight() } else { clock(time)? };
        return (fields.len() <= 3).then(|| date.to_datetime(time));
    }
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits && matches!(text.len(), 4 | 6) {
        let year = if text.len() == 6 { two_digit_year(&text[4..])? } else { now.year() };
        let date = Date::new(year, text[..2].parse().ok()?, text[2..4].parse().ok()?).ok()?;
        return Some(date.to_datetime(Time::midnight()));
    }
    None
}

fn two_digit_year(text: &str) -> Option<i16> {
    let year: i16 = text.parse().ok()?;
    Some(if text.len() <= 2 { 2000 + year } else { year })
}

/// What follows a date: nothing, or a time of day after `T`, `-` or a blank.
fn rest_clock(text: &str) -> Option<Time> {
    match text.strip_prefix(['t', '-', ' ']) {
        None if text.is_empty() => Some(Time::midnight()),
        None => None,
        Some(time) => clock(time),
    }
}

/// `HH:MM[:SS] [AM|PM]`.
fn clock(text: &str) -> Option<Time> {
    let text = text.trim();
    let (text, half) = if let Some(text) = text.strip_suffix("am") {
        (text.trim_end(), Some(0))
    } else if let Some(text) = text.strip_suffix("pm") {
        (text.trim_end(), Some(12))
    } else {
        (text, None)
    };
    let fields: Option<Vec<i8>> = text.split(':').map(|f| f.parse().ok()).collect();
    let (hour, minute, second) = match fields?.as_slice() {
        [h, m] => (*h, *m, 0),
        [h, m, s] => (*h, *m, *s),
        _ => return None,
    };
    let hour = match half {
        Some(add) if (1..=12).contains(&hour) => hour % 12 + add,
        Some(_) => return None,
        None => hour,
    };
    Time::new(hour, minute, second, 0).ok()
}

/// Local midnight of the day of `now`.
pub(crate) fn midnight(zone: &TimeZone, now_ms: i64) -> i64 {
    zoned(now_ms, zone)
        .and_then(|now| on(&now, now.date(), Time::midnight()))
        .map_or(0, |at| at.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-23T17:02:29 in a zone an hour east of UTC.
    const NOW: i64 = 1_795_449_749_000;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(1))
    }

    #[track_caller]
    fn check(text: &str, standard: &str) {
        let at = parse(text, &zone(), NOW).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(show(at, "", &Style::Standard, &zone(), NOW), standard, "{text}");
    }

    #[test]
    fn every_documented_form_is_read() {
        check("now", "2026-11-23T17:02:29");
        check("2026-11-21T17:00", "2026-11-21T17:00:00");
        check("2026-11-21", "2026-11-21T00:00:00");
        check("1970-01-02-00:00:01", "1970-01-02T00:00:01");
        check("11/21/25-08:30", "2025-11-21T08:30:00");
        check("11/21", "2026-11-21T00:00:00");
        check("112125", "2025-11-21T00:00:00");
        check("1121", "2026-11-21T00:00:00");
        check("08:30:15", "2026-11-23T08:30:15");
        check("08:30 PM", "2026-11-23T20:30:00");
        check("12:05am", "2026-11-23T00:05:00");
        check("now-7days", "2026-11-16T17:02:29");
        check("now+1hour", "2026-11-23T18:02:29");
        check("now-90", "2026-11-23T17:00:59");
        check("today", "2026-11-23T00:00:00");
        check("tomorrow", "2026-11-24T00:00:00");
        check("teatime", "2026-11-23T16:00:00");
        check("uts1700000000", "2023-11-14T23:13:20");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "foo", "now-7fortnights", "25:00", "13:00pm", "2026-13-01", "99", "1/2/3/4"]
        {
            assert_eq!(parse(text, &zone(), NOW), Err(BadTime(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn styles_show_the_same_instant() {
        let show = |at: i64, style: &Style| show(at, "N/A", style, &zone(), NOW);
        assert_eq!(show(0, &Style::Standard), "N/A");
        assert_eq!(show(NOW, &Style::Relative), "17:02:29");
        let day = 86_400_000;
        assert_eq!(show(NOW - day, &Style::Relative), "Ystday 17:02");
        assert_eq!(show(NOW + day, &Style::Relative), "Tomorr 17:02");
        assert_eq!(show(NOW + 3 * day, &Style::Relative), "Thu 17:02");
        assert_eq!(show(NOW - 20 * day, &Style::Relative), "3 Nov 17:02");
        assert_eq!(show(NOW - 800 * day, &Style::Relative), "14 Sep 2024");
        assert_eq!(show(NOW, &Style::parse("%y/%m/%d")), "26/11/23");
        assert_eq!(headline(NOW, &zone()), "Mon Nov 23 17:02:29 2026");
    }

    #[test]
    fn spans_lose_their_empty_front() {
        assert_eq!(trimmed(0), "0:00");
        assert_eq!(trimmed(65), "1:05");
        assert_eq!(trimmed(3_600), "1:00:00");
        assert_eq!(trimmed(90_061), "1-01:01:01");
        assert_eq!(cpu_time(61_005), "01:01.005");
        assert_eq!(cpu_time(61_000), "00:01:01");
        assert_eq!(cpu_time(3_600_001), "01:00:00");
    }
}

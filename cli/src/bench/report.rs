//! A benchmark's numbers: a table that grows as they come, or one JSON document.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Rows of one benchmark.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    benchmark: &'static str,
    version: &'static str,
    /// Numbers of a debug build or of small amounts are no measurements.
    build: &'static str,
    quick: bool,
    rows: Vec<Row>,
    #[serde(skip)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

/// One number and what belongs to it.
pub(super) struct Figure {
    row: Row,
}

impl Figure {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure { row: Row { what: what.into(), value, unit, aim: None, note: String::new() } }
    }

    /// What it should be.
    pub(super) fn aim(mut self, aim: &'static str) -> Figure {
        self.row.aim = Some(aim);
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Figure {
        self.row.note = note.into();
        self
    }
}

impl Report {
    pub(super) fn new(benchmark: &'static str, json: bool, quick: bool) -> Report {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let version = env!("CARGO_PKG_VERSION");
        if !json {
            println!("muster bench {benchmark} ({version}, {build} build)");
            if quick || cfg!(debug_assertions) {
                println!("Small amounts or a debug build: the numbers mean little.");
            }
            println!("{:<58} {:>12} {:<8} {:<10} note", "", "value", "unit", "aim");
        }
        Report { benchmark, version, build, quick, rows: Vec::new(), json }
    }

    /// Adds a row; a table shows it at once, for a benchmark takes minutes.
    pub(super) fn add(&mut self, figure: Figure) {
        let row = figure.row;
        if !self.json {
            let line = format!(
                "{:<58} {:>12} {:<8} {:<10} {}",
                row.what,
                shown(row.value),
                row.unit,
                row.aim.unwrap_or("-"),
                row.note
            );
            println!("{}", line.trim_end());
        }
        self.rows.push(row);
    }

    pub(super) fn end(self) {
        if self.json {
            let text = serde_json::to_string_pretty(&self).expect("plain data");
            println!("{text}");
        }
    }
}

fn shown(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// Durations, for their percentiles.
#[derive(Debug, Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Latencies {
        // Microseconds up to ten minutes, three digits.
        Latencies(Histogram::new_with_bounds(1, 600_000_000, 3).expect("sound bounds"))
    }

    pub(super) fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.max(1));
    }

    pub(super) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// The value that `percent` of all stay below, ms.
    pub(super) fn ms(&self, percent: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a benchmark")]
        let us = self.0.value_at_percentile(percent) as f64;
        us / 1000.0
    }

    /// `p50 1.2, p99 3.4, max 5.6 ms`
    pub(super) fn text(&self) -> String {
        format!("p50 {:.2}, p99 {:.2}, max {:.2} ms", self.ms(50.0), self.ms(99.0), self.ms(100.0))
    }
}

/// How often a second.
pub(super) fn rate(count: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let count = count as f64;
    count / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::new();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        assert!((latencies.ms(50.0) - 50.0).abs() < 0.5, "{}", latencies.ms(50.0));
        assert!((latencies.ms(100.0) - 100.0).abs() < 0.5);
    }

    #[test]
    fn rates_are_per_second() {
        assert!((rate(500, Duration::from_millis(250)) - 2000.0).abs() < 1e-6);
    }
}

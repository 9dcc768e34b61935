//! `--report`: a schedule as one HTML page with plots drawn as SVG in it, nothing from outside.
//!
//! However many jobs there are, a plot has a fixed number of columns and rows: what is finer is
//! averaged (utilisation, demand) or sampled (the Gantt chart), so the page stays readable and
//! small.
//!
//! - `svg`: axes, areas, cells; `series`: utilisation and demand over time, waits by size
//! - `gantt`: which job sits on which processor when

mod gantt;
mod series;
mod svg;

use std::fmt::Write;

use crate::replay::cluster::Cluster;
use crate::replay::drive::Schedule;
use crate::replay::metrics::Metrics;
use crate::replay::output;
use crate::replay::trace::{Trace, Unit};

/// One job as the plots see it. Seconds of the trace.
#[derive(Debug, Clone, Copy)]
struct Bar {
    submit: i64,
    start: i64,
    end: i64,
    size: u64,
}

/// Classes of sizes and their colours, from light to dark; the last has no upper end.
const CLASSES: &[(u64, &str, &str)] = &[
    (1, "1", "#c6dbef"),
    (4, "2-4", "#9ecae1"),
    (16, "5-16", "#6baed6"),
    (64, "17-64", "#3182bd"),
    (u64::MAX, "65 and more", "#08519c"),
];

fn class_of(size: u64) -> usize {
    CLASSES.iter().position(|(most, _, _)| size <= *most).unwrap_or(CLASSES.len() - 1)
}

/// The page.
#[must_use]
pub fn page(
    trace: &Trace,
    cluster: &Cluster,
    schedule: &Schedule,
    numbers: &Metrics,
    policy: &str,
) -> String {
    let bar = |run: &crate::replay::drive::Run| {
        let job = &trace.jobs[run.job];
        let (cpus, gpus) = cluster.takes(job);
        let size = if trace.unit == Unit::Gpus { gpus } else { cpus };
        Bar { submit: job.submit, start: run.start, end: run.end, size }
    };
    let bars: Vec<Bar> = schedule.runs.iter().map(bar).collect();
    let (what, capacity) = match trace.unit {
        Unit::Gpus => ("GPUs", cluster.gpus),
        Unit::Processors => ("processors", cluster.cpus),
    };
    let first = bars.iter().map(|bar| bar.submit).min().unwrap_or(0);
    let last = bars.iter().map(|bar| bar.end).max().unwrap_or(0).max(first + 1);
    let mut out = String::from(HEAD);
    let title = format!("{} with {}", escaped(&trace.file), escaped(policy));
    let _ = write!(out, "<title>{title}</title></head><body><h1>{title}</h1>");
    let _ = write!(out, "<pre>{}</pre>", escaped(&output::table(numbers)));
    let _ = write!(out, "<h2>Share of the {capacity} {what} in use</h2>");
    out.push_str(&series::utilisation(&bars, capacity, first, last));
    let _ = write!(out, "<h2>{what} that waiting jobs ask for</h2>");
    out.push_str(&series::waiting(&bars, first, last));
    out.push_str("<h2>Waits by size</h2>");
    out.push_str(&series::waits(&bars, what));
    let _ = write!(out, "<h2>Who sits where: every {what} over the whole time</h2>");
    legend(&mut out, what);
    out.push_str(&gantt::chart(&bars, capacity, first, last));
    let (from, to) = series::fullest_day(&bars, first, last);
    out.push_str("<h2>The day of the longest queue</h2>");
    out.push_str(&gantt::chart(&bars, capacity, from, to));
    out.push_str("</body></html>\n");
    out
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><style>\
body{font:15px sans-serif;max-width:1060px;margin:2em auto;color:#222}\
svg{display:block;width:100%;height:auto}svg text{font:11px sans-serif;fill:#555}\
.k{display:inline-block;width:1em;height:1em;margin:0 .3em 0 1em;vertical-align:-.15em}\
</style>";

fn legend(out: &mut String, what: &str) {
    let _ = write!(out, "<p>Jobs by {what}:");
    for (_, name, colour) in CLASSES {
        let _ = write!(out, "<span class=\"k\" style=\"background:{colour}\"></span>{name}");
    }
    out.push_str("</p>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(count: i64) -> Vec<Bar> {
        let bar = |n: i64| Bar {
            submit: n * 10,
            start: n * 10 + n % 7,
            end: n * 10 + 200,
            size: (n % 5 + 1).unsigned_abs(),
        };
        (0..count).map(bar).collect()
    }

    #[test]
    fn thirty_thousand_jobs_make_a_page_that_a_browser_can_show() {
        let bars = bars(30_000);
        let chart = gantt::chart(&bars, 128, 0, 300_200);
        assert!(chart.len() < 3_000_000, "{} bytes", chart.len());
        assert!(chart.starts_with("<svg") && chart.ends_with("</svg>"));
    }

    #[test]
    fn nothing_is_loaded_from_outside() {
        let bars = bars(50);
        let all = [
            gantt::chart(&bars, 64, 0, 1000),
            series::utilisation(&bars, 64, 0, 1000),
            series::waiting(&bars, 0, 1000),
            series::waits(&bars, "processors"),
        ];
        for plot in all {
            assert!(!plot.contains("http") && !plot.contains("NaN") && !plot.contains("inf"));
        }
    }
}

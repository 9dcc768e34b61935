//! Schedules and their numbers as text: a table for people, JSON and CSV for programs. Nothing of
//! the machine that runs the replay is in them, so equal replays give equal bytes.

use std::fmt::Write;

use serde::Serialize;

use super::cluster::Cluster;
use super::drive::Schedule;
use super::metrics::Metrics;
use super::trace::{Trace, Unit};

/// One replay of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    pub trace: String,
    pub policy: String,
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// `job,submit,start,end,procs`: seconds as in the trace, jobs in the order of the trace.
#[must_use]
pub fn csv(trace: &Trace, cluster: &Cluster, schedule: &Schedule) -> String {
    let mut out = String::from("job,submit,start,end,procs\n");
    for run in &schedule.runs {
        let job = &trace.jobs[run.job];
        let (cpus, gpus) = cluster.takes(job);
        let procs = if trace.unit == Unit::Gpus { gpus } else { cpus };
        let _ = writeln!(out, "{},{},{},{},{procs}", job.id, job.submit, run.start, run.end);
    }
    out
}

/// The numbers as JSON, one object or a list of them.
#[must_use]
pub fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("numbers and names are JSON");
    text.push('\n');
    text
}

/// Names and values of a replay, one a line.
#[must_use]
pub fn table(m: &Metrics) -> String {
    let mut rows = vec![
        ("jobs", m.jobs.to_string()),
        ("average wait", seconds(m.avg_wait_s)),
        ("95 % waited at most", seconds(m.p95_wait_s as f64)),
        ("99 % waited at most", seconds(m.p99_wait_s as f64)),
        ("longest wait", seconds(m.max_wait_s as f64)),
        ("average bounded slowdown", format!("{:.3}", m.avg_bounded_slowdown)),
        ("utilisation", percent(m.utilisation)),
        ("makespan", seconds(m.makespan_s as f64)),
    ];
    rows.extend(m.gpu_utilisation.map(|u| ("GPU utilisation", percent(u))));
    rows.extend(m.jobs_8_gpus.map(|n| ("jobs of 8 GPUs or more", n.to_string())));
    rows.extend(m.avg_wait_8_gpus_s.map(|w| ("  average wait", seconds(w))));
    rows.extend(m.p95_wait_8_gpus_s.map(|w| ("  95 % waited at most", seconds(w as f64))));
    rows.extend(m.gpus_allocated_at_full_demand.map(|s| ("GPUs given at full demand", percent(s))));
    if let Some(g) = &m.gangs {
        let share = |n: usize, of: usize| percent(n as f64 / of.max(1) as f64);
        rows.push(("jobs on several nodes", g.gangs.to_string()));
        rows.push(("  that a leaf switch could hold", g.gangs_of_a_leaf.to_string()));
        rows.push(("    of them in one leaf", share(g.gangs_in_one_leaf, g.gangs_of_a_leaf)));
        rows.push(("  in the fewest leaves", share(g.gangs_in_fewest_leaves, g.gangs)));
        rows.push(("  leaves over the least", format!("{:.3}", g.mean_leaves_over_least)));
    }
    rows.extend((m.refused > 0).then(|| ("jobs refused", m.refused.to_string())));
    rows.extend(
        (m.dropped > 0).then(|| ("jobs without run time, size or limit", m.dropped.to_string())),
    );
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value:>14}\n")).collect()
}

fn seconds(value: f64) -> String {
    format!("{value:.1} s")
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

type Column = (&'static str, fn(&Metrics) -> Option<f64>, usize);

/// Those of waiting come first: [`WAITING`] of them.
const COLUMNS: &[Column] = &[
    ("avg wait s", |m| Some(m.avg_wait_s), 1),
    ("p95 wait", |m| Some(m.p95_wait_s as f64), 0),
    ("p99 wait", |m| Some(m.p99_wait_s as f64), 0),
    ("max wait", |m| Some(m.max_wait_s as f64), 0),
    ("avg bsld", |m| Some(m.avg_bounded_slowdown), 3),
    // Here ends what is the better the less it is.
    ("util", |m| Some(m.utilisation), 4),
    ("makespan s", |m| Some(m.makespan_s as f64), 0),
    ("gpu util", |m| m.gpu_utilisation, 4),
    ("wait 8+ gpus", |m| m.avg_wait_8_gpus_s, 1),
    ("gpus given", |m| m.gpus_allocated_at_full_demand, 4),
    (
        "in one leaf",
        |m| m.gangs.map(|g| g.gangs_in_one_leaf as f64 / g.gangs_of_a_leaf.max(1) as f64),
        4,
    ),
    ("leaves over", |m| m.gangs.map(|g| g.mean_leaves_over_least), 3),
];

/// The columns of which less is better.
const WAITING: usize = 5;

/// Policies of one trace side by side, and how far each is from the first.
#[must_use]
pub fn side_by_side(results: &[Result]) -> String {
    let Some(first) = results.first() else { return String::new() };
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| c.1(&first.metrics).is_some()).collect();
    let mut rows = vec![headings(&columns)];
    for result in results {
        let value = |c: &&Column| c.1(&result.metrics).map(|v| format!("{v:.*}", c.2));
        let values = columns.iter().map(|c| value(c).unwrap_or_default());
        rows.push(std::iter::once(result.policy.clone()).chain(values).collect());
    }
    for result in &results[1..] {
        let values = columns.iter().map(|c| change(c.1(&first.metrics), c.1(&result.metrics)));
        let name = format!("{} / {}", result.policy, first.policy);
        rows.push(std::iter::once(name).chain(values).collect());
    }
    let m = &first.metrics;
    format!("{}: {} jobs\n{}", first.trace, m.jobs, aligned(&rows))
}

/// Policies over draws of one trace (by policy, then by draw): means, how far each is from the first's, and in how
/// many draws it was better.
#[must_use]
pub fn over_draws(title: &str, policies: &[&str], draws: &[Vec<Metrics>]) -> String {
    let Some(first) = draws.first().and_then(|d| d.first()) else { return String::new() };
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| c.1(first).is_some()).collect();
    let mean = |of: &[Metrics], c: &Column| {
        let values: Vec<f64> = of.iter().filter_map(c.1).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut rows = vec![headings(&columns)];
    for (name, of) in policies.iter().zip(draws) {
        let value = |c: &&Column| mean(of, c).map_or(String::new(), |v| format!("{v:.*}", c.2));
        let label = format!("{name}, mean");
        rows.push(std::iter::once(label).chain(columns.iter().map(value)).collect());
    }
    for (name, of) in policies.iter().zip(draws).skip(1) {
        let label = format!("{name} / {}", policies[0]);
        let changes = columns.iter().map(|c| change(mean(&draws[0], c), mean(of, c)));
        rows.push(std::iter::once(label).chain(changes).collect());
        let less = |c: &Column| of.iter().zip(&draws[0]).filter(|(a, b)| c.1(a) < c.1(b)).count();
        let counts = columns.iter().enumerate().map(|(at, c)| match at < WAITING {
            true => format!("{} of {}", less(c), of.len()),
            false => String::new(),
        });
        rows.push(std::iter::once("  less in".to_owned()).chain(counts).collect());
    }
    format!("{title}\n{}", aligned(&rows))
}

fn headings(columns: &[&Column]) -> Vec<String> {
    let names = columns.iter().map(|c| c.0.to_owned());
    std::iter::once("policy".to_owned()).chain(names).collect()
}

fn change(from: Option<f64>, to: Option<f64>) -> String {
    match (from, to) {
        (Some(from), Some(to)) if from != 0.0 => format!("{:+.1} %", (to / from - 1.0) * 100.0),
        (Some(_) | None, Some(_) | None) => String::new(),
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let _ = write!(out, "{:<1$}", row[0], widths[0]);
        for (value, width) in row[1..].iter().zip(&widths[1..]) {
            let _ = write!(out, "  {value:>width$}");
        }
        out.push('\n');
    }
    out
}

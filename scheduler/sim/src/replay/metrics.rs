//! What a schedule is worth, in numbers.
//!
//! Bounded slowdown is `max(1, (wait + run) / max(run, 10 s))` (Feitelson and Rudolph 1998);
//! utilisation is the work done over what the machine could have done from the first submission to
//! the last end. Percentiles are the smallest value that no less than that share is at or below.

use serde::Serialize;

use super::cluster::Cluster;
use super::drive::Schedule;
use super::trace::{Trace, Unit};

/// Runs shorter than this count as this long in a slowdown, seconds.
const TAU: i64 = 10;

/// A job of this many GPUs or more is a gang of whole nodes on today's machines.
const MANY_GPUS: u64 = 8;

/// Times are seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    pub jobs: usize,
    pub avg_wait_s: f64,
    pub p95_wait_s: i64,
    pub p99_wait_s: i64,
    pub max_wait_s: i64,
    pub avg_bounded_slowdown: f64,
    pub utilisation: f64,
    pub makespan_s: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_utilisation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs_8_gpus: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_wait_8_gpus_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_wait_8_gpus_s: Option<i64>,
    /// Of all GPUs, those given to jobs, over the time in which jobs running and waiting wanted
    /// as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_allocated_at_full_demand: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub gangs: Option<Gangs>,
    /// Jobs that the cluster refused, for instance because they are larger than it.
    pub refused: usize,
    /// Jobs of the file without positive run time, size or limit.
    pub dropped: usize,
}

/// Jobs on two nodes and more, on a cluster with leaf switches (or blocks).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gangs {
    pub gangs: usize,
    /// Those that are no larger than a leaf.
    pub gangs_of_a_leaf: usize,
    pub gangs_in_one_leaf: usize,
    /// In no more leaves than an empty cluster would have needed.
    pub gangs_in_fewest_leaves: usize,
    /// How many leaves more than that, on average.
    pub mean_leaves_over_least: f64,
}

fn gangs(cluster: &Cluster, schedule: &Schedule) -> Option<Gangs> {
    if cluster.leaves.is_empty() {
        return None;
    }
    let gangs: Vec<(u32, u32)> = schedule
        .runs
        .iter()
        .filter(|run| run.nodes > 1)
        .map(|run| (run.leaves, cluster.leaves.least(run.nodes)))
        .collect();
    let count = |of: fn((u32, u32)) -> bool| gangs.iter().filter(|gang| of(**gang)).count();
    let over: u64 =
        gangs.iter().map(|(leaves, least)| u64::from(leaves.saturating_sub(*least))).sum();
    Some(Gangs {
        gangs: gangs.len(),
        gangs_of_a_leaf: count(|(_, least)| least == 1),
        gangs_in_one_leaf: count(|(leaves, _)| leaves == 1),
        gangs_in_fewest_leaves: count(|(leaves, least)| leaves <= least),
        mean_leaves_over_least: round(over as f64 / gangs.len().max(1) as f64, 4),
    })
}

/// The numbers of a schedule.
#[must_use]
pub fn metrics(trace: &Trace, cluster: &Cluster, schedule: &Schedule) -> Metrics {
    let jobs = || schedule.runs.iter().map(|run| (&trace.jobs[run.job], run));
    let mut waits: Vec<i64> = jobs().map(|(job, run)| run.start - job.submit).collect();
    waits.sort_unstable();
    let slowdown: f64 = jobs()
        .map(|(job, run)| {
            let (wait, ran) = ((run.start - job.submit) as f64, job.run as f64);
            ((wait + ran) / job.run.max(TAU) as f64).max(1.0)
        })
        .sum();
    let first = jobs().map(|(job, _)| job.submit).min().unwrap_or(0);
    let makespan = jobs().map(|(_, run)| run.end).max().unwrap_or(0) - first;
    let takes = |at: usize| cluster.takes(&trace.jobs[at]);
    let share = |work: i128, capacity: u64| {
        round(work as f64 / (capacity as f64 * makespan.max(1) as f64).max(1.0), 6)
    };
    let work = |of: fn((u64, u64)) -> u64| -> i128 {
        let one = |run: &super::drive::Run| {
            i128::from(run.end - run.start) * i128::from(of(takes(run.job)))
        };
        schedule.runs.iter().map(one).sum()
    };
    let (cpu_share, gpu_share) =
        (share(work(|(cpus, _)| cpus), cluster.cpus), share(work(|(_, gpus)| gpus), cluster.gpus));
    let has_gpus = cluster.gpus > 0 && schedule.runs.iter().any(|run| takes(run.job).1 > 0);
    let mut large: Vec<i64> = jobs()
        .filter(|(_, run)| takes(run.job).1 >= MANY_GPUS)
        .map(|(job, run)| run.start - job.submit)
        .collect();
    large.sort_unstable();
    Metrics {
        jobs: waits.len(),
        avg_wait_s: mean(&waits),
        p95_wait_s: percentile(&waits, 95),
        p99_wait_s: percentile(&waits, 99),
        max_wait_s: waits.last().copied().unwrap_or(0),
        avg_bounded_slowdown: round(slowdown / waits.len().max(1) as f64, 6),
        utilisation: if trace.unit == Unit::Gpus { gpu_share } else { cpu_share },
        makespan_s: makespan,
        gpu_utilisation: has_gpus.then_some(gpu_share),
        jobs_8_gpus: has_gpus.then_some(large.len()),
        avg_wait_8_gpus_s: has_gpus.then(|| mean(&large)),
        p95_wait_8_gpus_s: has_gpus.then(|| percentile(&large, 95)),
        gpus_allocated_at_full_demand: full_demand(trace, cluster, schedule)
            .filter(|_| has_gpus)
            .map(|share| round(share, 6)),
        gangs: gangs(cluster, schedule),
        refused: schedule.refused.len(),
        dropped: trace.dropped,
    }
}

fn mean(values: &[i64]) -> f64 {
    let sum: i128 = values.iter().map(|v| i128::from(*v)).sum();
    round(sum as f64 / values.len().max(1) as f64, 3)
}

/// Of ascending values.
fn percentile(values: &[i64], percent: usize) -> i64 {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// `None`: demand never reached the machine.
fn full_demand(trace: &Trace, cluster: &Cluster, schedule: &Schedule) -> Option<f64> {
    // (time, change of demand, change of what is allocated)
    let mut steps: Vec<(i64, i64, i64)> = Vec::new();
    for run in &schedule.runs {
        let job = &trace.jobs[run.job];
        let gpus = i64::try_from(cluster.takes(job).1).unwrap_or(i64::MAX);
        steps.push((job.submit, gpus, 0));
        steps.push((run.start, 0, gpus));
        steps.push((run.end, -gpus, -gpus));
    }
    steps.sort_unstable();
    let capacity = i64::try_from(cluster.gpus).unwrap_or(i64::MAX);
    let (mut demand, mut held, mut last) = (0i64, 0i64, steps.first()?.0);
    let (mut time, mut given) = (0i128, 0i128);
    for (at, wanted, taken) in steps {
        if demand >= capacity {
            time += i128::from(at - last);
            given += i128::from(at - last) * i128::from(held);
        }
        (demand, held, last) = (demand + wanted, held + taken, at);
    }
    (time > 0).then(|| given as f64 / (time as f64 * capacity as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let values: Vec<i64> = (1..=200).collect();
        assert_eq!(percentile(&values, 95), 190);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 99), 0);
    }
}

//! The same policies over many draws of one trace, each with other jobs left out: a few jobs that by chance
//! come at a bad time can decide an average, and the longest wait is always one job's.

use std::thread;

use anyhow::Context as _;

use muster_core::plan::Policy;

use super::cluster::Cluster;
use super::drive::{Semantics, replay};
use super::metrics::{Metrics, metrics};
use super::output;
use super::trace::Trace;
use crate::dice::Dice;

/// What is drawn and how it is replayed.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub draws: u32,
    /// Per cent.
    pub leave_out: u32,
    pub semantics: Semantics,
}

/// The table of one trace.
///
/// # Errors
/// A replay that contradicts itself.
pub fn compare(
    trace: &Trace,
    cluster: &Cluster,
    policies: &[(&str, Policy)],
    asked: &Asked,
) -> anyhow::Result<String> {
    // Every draw is one replay's memory: no more at a time than there are processors.
    let workers = thread::available_parallelism().map_or(1, usize::from).min(asked.draws as usize);
    let mine = |worker: usize| -> anyhow::Result<Vec<(u32, Vec<Metrics>)>> {
        let seeds = (0..asked.draws).skip(worker).step_by(workers);
        seeds.map(|seed| Ok((seed, one(trace, cluster, policies, asked, seed)?))).collect()
    };
    let found = thread::scope(|scope| {
        let mine = &mine;
        let started: Vec<_> = (0..workers).map(|at| scope.spawn(move || mine(at))).collect();
        let joined = started.into_iter().map(|w| w.join().expect("a replay does not panic"));
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut found: Vec<(u32, Vec<Metrics>)> = found.into_iter().flatten().collect();
    found.sort_by_key(|(seed, _)| *seed);
    let by_policy: Vec<Vec<Metrics>> = (0..policies.len())
        .map(|at| found.iter().map(|(_, of)| of[at].clone()).collect())
        .collect();
    let names: Vec<&str> = policies.iter().map(|(name, _)| *name).collect();
    let title = format!(
        "{}: {} draws, each without {} % of {} jobs",
        super::name_of(&trace.file),
        asked.draws,
        asked.leave_out,
        trace.jobs.len()
    );
    Ok(output::over_draws(&title, &names, &by_policy))
}

/// One draw with every policy.
fn one(
    trace: &Trace,
    cluster: &Cluster,
    policies: &[(&str, Policy)],
    asked: &Asked,
    seed: u32,
) -> anyhow::Result<Vec<Metrics>> {
    let mut dice = Dice::new(u64::from(seed));
    let mut drawn = trace.clone();
    drawn.jobs.retain(|_| dice.below(100) >= u64::from(asked.leave_out));
    let with = |(name, policy): &(&str, Policy)| {
        let done = replay(&drawn, cluster, *policy, asked.semantics, &mut |_| {})
            .with_context(|| format!("{}: draw {seed} with {name}", trace.file))?;
        Ok(metrics(&drawn, cluster, &done))
    };
    policies.iter().map(with).collect()
}

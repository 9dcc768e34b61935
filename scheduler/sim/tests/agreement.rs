//! The planner against the rules: every job starts at the very second that a plain simulator of
//! the classic policies gives.
//!
//! Logs: made up by chance, made up by the Lublin-Feitelson model, and the beginnings of real logs
//! where they lie beside the repository. Whole logs take a release build:
//! `cargo test --release -p muster-sim --test agreement -- --ignored`.

mod reference;

use std::path::PathBuf;

use muster_sim::generate;
use muster_sim::replay::cluster::{Cluster, Flags};
use muster_sim::replay::drive::{Semantics, replay};
use muster_sim::replay::metrics::metrics;
use muster_sim::replay::policy::policy;
use muster_sim::replay::trace::{File, Trace, open, parse};
use proptest::prelude::*;
use reference::{Job, Rule, starts};

const RULES: &[(&str, Rule)] = &[
    ("fcfs", Rule::Fcfs),
    ("easy", Rule::Easy),
    ("easy-sjbf", Rule::EasySjbf),
    ("conservative", Rule::Conservative),
];

/// Real logs, if somebody put them there.
const LOGS: &str = "../shared/traces";

fn read(text: &str) -> Trace {
    match parse("made", text.as_bytes()).expect("a sound log") {
        File::Jobs(trace) => trace,
        File::Nodes(_) => panic!("a list of nodes is no log"),
    }
}

/// Replays a log with every policy under both semantics, and compares job by job.
#[track_caller]
fn check(trace: &Trace) {
    for (name, rule) in RULES {
        for semantics in [Semantics::PerStamp, Semantics::PerEvent] {
            if let Err(why) = compare(trace, name, *rule, semantics) {
                panic!("{}: {why}", trace.file);
            }
        }
    }
}

fn compare(trace: &Trace, name: &str, rule: Rule, semantics: Semantics) -> Result<(), String> {
    let cluster = Cluster::new(&Flags::default(), trace, None).map_err(|why| why.to_string())?;
    let policy = policy(name, &Default::default(), None)?;
    let schedule = replay(trace, &cluster, policy, semantics, &mut |_| {})
        .map_err(|why| format!("{name}, {semantics:?}: {why}"))?;
    let fits = |size: u64| size <= cluster.cpus;
    let jobs: Vec<Job> = trace
        .jobs
        .iter()
        .filter(|job| fits(job.cpus()))
        .map(|job| {
            let size = u32::try_from(job.cpus()).expect("it fits the cluster");
            Job { submit: job.submit, run: job.run, limit: job.limit, size }
        })
        .collect();
    let processors = u32::try_from(cluster.cpus).expect("a log's machine");
    let wanted = starts(&jobs, processors, rule, semantics == Semantics::PerEvent);
    assert_eq!(wanted.len(), schedule.runs.len(), "every job that fits runs");
    let pairs = || schedule.runs.iter().zip(&wanted);
    let first = pairs()
        .filter(|(run, start)| run.start != **start)
        .min_by_key(|(run, start)| run.start.min(**start));
    let Some((run, start)) = first else { return Ok(()) };
    let differ = pairs().filter(|(run, start)| run.start != **start).count();
    let job = &trace.jobs[run.job];
    Err(format!(
        "{name}, {semantics:?}: {differ} of {} jobs differ; the first: job {} of {} processors, \
         submitted at {}, limit {}, starts at {} and should at {start}",
        wanted.len(),
        job.id,
        job.cpus(),
        job.submit,
        job.limit,
        run.start,
    ))
}

/// Lines of a log on 16 processors.
fn log(jobs: &[(i64, i64, i64, u32)]) -> String {
    let (mut text, mut now) = (String::from("; MaxProcs: 16\n"), 0);
    for (id, (gap, run, slack, size)) in (1..).zip(jobs) {
        now += gap;
        let limit = run + slack;
        text.push_str(&format!(
            "{id} {now} -1 {run} {size} -1 -1 {size} {limit} -1 -1 1 -1 -1 -1 -1 -1 -1\n"
        ));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Small numbers, so that much happens in the same second.
    #[test]
    fn random_logs_start_at_the_very_second(
        jobs in proptest::collection::vec(
            (0i64..6, 1i64..30, prop_oneof![Just(0i64), 0i64..40], 1u32..=16),
            1..60,
        ),
    ) {
        let trace = read(&log(&jobs));
        for (name, rule) in RULES {
            for semantics in [Semantics::PerStamp, Semantics::PerEvent] {
                let same = compare(&trace, name, *rule, semantics);
                prop_assert!(same.is_ok(), "{}", same.unwrap_err());
            }
        }
    }
}

#[test]
fn the_model_s_jobs_start_at_the_very_second() {
    for seed in 1..=2 {
        let args = generate::Args {
            model: generate::Model::Lublin,
            seed,
            jobs: 300,
            size: Some(64),
            load: Some(1.1),
            output: None,
        };
        check(&read(&generate::trace(&args).expect("sound numbers")));
    }
}

fn real(name: &str) -> Option<Trace> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(LOGS).join(name);
    if !path.exists() {
        println!("skipped: no {LOGS}/{name}");
        return None;
    }
    match open(&path).expect("a sound log") {
        File::Jobs(trace) => Some(trace),
        File::Nodes(_) => panic!("{name} is no list of nodes"),
    }
}

const NAMES: &[&str] = &[
    "kth-sp2-1996.swf.gz",
    "philly-2017-oct.swf.gz",
    "sdsc-sp2-1998.swf.gz",
    "ctc-sp2-1996.swf.gz",
];

#[test]
fn the_first_jobs_of_real_logs_start_at_the_very_second() {
    for name in NAMES {
        let Some(mut trace) = real(name) else { continue };
        trace.jobs.truncate(500);
        check(&trace);
    }
}

#[test]
#[ignore = "minutes, and a release build"]
fn all_jobs_of_real_logs_start_at_the_very_second() {
    for name in NAMES {
        if let Some(trace) = real(name) {
            check(&trace);
            println!("{name}: all {} jobs", trace.jobs.len());
        }
    }
}

/// (log, policy, semantics, average wait, average bounded slowdown), as published.
type Published = (&'static str, &'static str, Semantics, f64, f64);

const PUBLISHED: &[Published] = &[
    (NAMES[0], "fcfs", Semantics::PerStamp, 353_776.4, 6814.973),
    (NAMES[0], "easy", Semantics::PerStamp, 6834.6, 92.688),
    (NAMES[0], "easy-sjbf", Semantics::PerStamp, 5903.7, 69.394),
    (NAMES[0], "conservative", Semantics::PerStamp, 7316.2, 88.967),
    (NAMES[0], "easy", Semantics::PerEvent, 6836.87, 92.577),
    (NAMES[1], "fcfs", Semantics::PerStamp, 5818.7, 28.098),
    (NAMES[1], "easy", Semantics::PerStamp, 4549.4, 12.675),
    (NAMES[1], "easy-sjbf", Semantics::PerStamp, 4284.6, 8.943),
    (NAMES[1], "conservative", Semantics::PerStamp, 3218.5, 8.980),
    (NAMES[2], "fcfs", Semantics::PerStamp, 1_535_568.6, 13_823.534),
    (NAMES[2], "easy", Semantics::PerStamp, 20_570.9, 87.805),
    (NAMES[2], "easy-sjbf", Semantics::PerStamp, 20_419.7, 82.996),
    (NAMES[2], "conservative", Semantics::PerStamp, 21_725.6, 89.170),
    (NAMES[2], "easy", Semantics::PerEvent, 20_497.76, 87.870),
    (NAMES[3], "fcfs", Semantics::PerStamp, 655_557.1, 3651.566),
    (NAMES[3], "easy", Semantics::PerStamp, 13_943.0, 48.837),
    (NAMES[3], "easy-sjbf", Semantics::PerStamp, 11_817.7, 30.105),
    (NAMES[3], "conservative", Semantics::PerStamp, 17_642.0, 55.927),
    (NAMES[3], "easy", Semantics::PerEvent, 14_272.59, 49.571),
];

#[test]
#[ignore = "minutes, and a release build"]
fn averages_of_real_logs_are_the_published_ones() {
    for (name, of, semantics, wait, slowdown) in PUBLISHED {
        let Some(trace) = real(name) else { continue };
        let cluster = Cluster::new(&Flags::default(), &trace, None).expect("a size");
        let policy = policy(of, &Default::default(), None).expect("a policy");
        let schedule = replay(&trace, &cluster, policy, *semantics, &mut |_| {}).expect("a run");
        let found = metrics(&trace, &cluster, &schedule);
        let near = |a: f64, b: f64, digit: f64| (a - b).abs() <= digit;
        assert!(
            near(found.avg_wait_s, *wait, 0.06)
                && near(found.avg_bounded_slowdown, *slowdown, 0.001),
            "{name}, {of}, {semantics:?}: {} and {}, published {wait} and {slowdown}",
            found.avg_wait_s,
            found.avg_bounded_slowdown,
        );
    }
}

//! The default policy beside EASY, on a made-up log that is short enough for every build and busy
//! enough to tell them apart. What it gains on whole logs: `docs/scheduling.md`.

use muster_sim::generate::{self, Model};
use muster_sim::replay::cluster::{Cluster, Flags};
use muster_sim::replay::drive::{Semantics, replay};
use muster_sim::replay::metrics::{Metrics, metrics};
use muster_sim::replay::policy::policy;
use muster_sim::replay::resample::{self, Asked};
use muster_sim::replay::trace::{File, Trace, parse};

fn numbers(trace: &Trace, name: &str) -> Metrics {
    let cluster = Cluster::new(&Flags::default(), trace, None).expect("the log says how large");
    let policy = policy(name, &Default::default(), None).expect("known");
    let schedule = replay(trace, &cluster, policy, Semantics::PerStamp, &mut |_| {});
    metrics(trace, &cluster, &schedule.expect("no contradiction"))
}

fn made(seed: u64, jobs: u32, size: u32, load: f64) -> Trace {
    let args = generate::Args {
        model: Model::Lublin,
        seed,
        jobs,
        size: Some(size),
        load: Some(load),
        output: None,
    };
    let text = generate::trace(&args).expect("sound numbers");
    let Ok(File::Jobs(trace)) = parse("made", text.as_bytes()) else {
        panic!("what is made up can be read")
    };
    trace
}

#[track_caller]
fn check(seed: u64, size: u32, load: f64) {
    let trace = made(seed, 3_000, size, load);
    let (easy, ours) = (numbers(&trace, "easy"), numbers(&trace, "default"));
    let said = format!("seed {seed}: {easy:?} and {ours:?}");
    assert!(ours.avg_wait_s < easy.avg_wait_s, "{said}");
    assert!(ours.avg_bounded_slowdown < easy.avg_bounded_slowdown * 0.8, "{said}");
    assert!(ours.p99_wait_s * 10 <= easy.p99_wait_s * 11, "{said}");
    assert!(ours.utilisation > easy.utilisation * 0.98, "{said}");
}

#[test]
fn the_default_serves_a_modelled_log_better_than_easy() {
    check(36, 64, 0.7);
}

/// Draws are the same every time, differ from each other, and tell a better policy from an equal one.
#[test]
fn draws_tell_a_difference_from_luck() {
    let trace = made(5, 400, 32, 0.9);
    let cluster = Cluster::new(&Flags::default(), &trace, None).expect("the log says how large");
    let of = |name: &'static str| (name, policy(name, &Default::default(), None).expect("known"));
    let asked = Asked { draws: 4, leave_out: 10, semantics: Semantics::PerStamp };
    let table = |against: &'static str| {
        let policies = [of("easy"), of(against)];
        resample::compare(&trace, &cluster, &policies, &asked).expect("no contradiction")
    };
    let (equal, worse) = (table("easy"), table("fcfs"));
    let row = |table: &str, label: &str| -> Vec<String> {
        let line = table.lines().find(|l| l.starts_with(label)).expect("the table has this row");
        line[label.len()..]
            .split("  ")
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .map(Into::into)
            .collect()
    };
    assert!(row(&equal, "easy / easy").iter().all(|change| change == "+0.0 %"), "{equal}");
    assert_eq!(row(&equal, "  less in"), ["0 of 4"; 5], "{equal}");
    assert!(row(&worse, "fcfs / easy")[0].starts_with('+'), "{worse}");
    assert_eq!(row(&worse, "  less in")[0], "0 of 4", "{worse}");
    assert_eq!(worse, table("fcfs"));
    let whole = numbers(&trace, "easy").avg_wait_s;
    assert_ne!(row(&worse, "easy, mean")[0], format!("{whole:.1}"), "each draw leaves jobs out");
}

//! The default policy beside EASY, on a made-up log that is short enough for every build and busy
//! enough to tell them apart. What it gains on whole logs: `docs/scheduling.md`.

use muster_sim::generate::{self, Model};
use muster_sim::replay::cluster::{Cluster, Flags};
use muster_sim::replay::drive::{Semantics, replay};
use muster_sim::replay::metrics::{Metrics, metrics};
use muster_sim::replay::policy::policy;
use muster_sim::replay::trace::{File, Trace, parse};

fn numbers(trace: &Trace, name: &str) -> Metrics {
    let cluster = Cluster::new(&Flags::default(), trace, None).expect("the log says how large");
    let policy = policy(name, &Default::default(), None).expect("known");
    let schedule = replay(trace, &cluster, policy, Semantics::PerStamp, &mut |_| {});
    metrics(trace, &cluster, &schedule.expect("no contradiction"))
}

#[track_caller]
fn check(seed: u64, size: u32, load: f64) {
    let args = generate::Args {
        model: Model::Lublin,
        seed,
        jobs: 3_000,
        size: Some(size),
        load: Some(load),
        output: None,
    };
    let text = generate::trace(&args).expect("sound numbers");
    let Ok(File::Jobs(trace)) = parse("made", text.as_bytes()) else {
        panic!("what is made up can be read")
    };
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

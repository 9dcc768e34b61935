//! What is learned from which jobs, and what is expected of the next.

use std::sync::Arc;

use muster_model::{ExitStatus, GresKind, GresRequest, Placement, Seconds, User};

use super::*;

fn request(cpus: u32) -> Request {
    Request { tasks: cpus, tasks_given: true, ..Request::default() }
}

/// A job of user `uid` with this many CPUs and a limit of so many seconds; 0: none.
fn spec(uid: u32, cpus: u32, limit: u32) -> JobSpec {
    JobSpec {
        time_limit: (limit > 0).then_some(TimeLimit::Limited(Seconds(limit))),
        ..JobSpec::plain(
            User { uid: Uid(uid), gid: uid, name: "u".into() },
            Arc::new(request(cpus)),
        )
    }
}

fn attempt(run: i64, outcome: Outcome, at: i64) -> Finished {
    Finished {
        attempt: muster_model::Attempt(1),
        partition: "main".into(),
        placement: Placement::default(),
        allocated_at: Timestamp::from_seconds(at - run),
        started_at: Some(Timestamp::from_seconds(at - run)),
        ended_at: Timestamp::from_seconds(at),
        time_limit: None,
        suspended_ms: 0,
        exit: None,
        outcome,
        before: None,
    }
}

/// What user 1 is known for after these jobs (CPUs, limit, run), and what is then expected of a
/// job with so many CPUs and such a limit.
#[track_caller]
fn check(past: &[(u32, u32, i64)], (cpus, limit): (u32, u32), expected: u32) {
    let mut habits = Habits::default();
    for (at, (cpus, limit, run)) in (0i64..).zip(past) {
        habits.ended(&spec(1, *cpus, *limit), &attempt(*run, Outcome::Completed, 100_000 + at));
    }
    let quantum = u32::try_from(quarter(u64::from(expected))).expect("small");
    assert_eq!(habits.expected(&spec(1, cpus, limit)), quantum, "{past:?}");
    let stranger = habits.expected(&spec(2, cpus, 3600));
    assert_eq!(u64::from(stranger), quarter(3600), "others are not judged by it");
}

#[test]
fn a_user_without_a_past_is_believed_his_limit() {
    check(&[], (1, 7200), 7200);
    check(&[], (1, 0), UNLIMITED_SECONDS);
}

#[test]
fn the_middle_of_those_alike_is_expected() {
    let runs = [5000, 100, 300, 200, 400].map(|run| (4, 7200, run));
    check(&runs[..1], (4, 7200), 5000);
    check(&runs[..2], (4, 7200), 5000);
    check(&runs[..3], (4, 7200), 300);
    check(&runs, (4, 7200), 300);
    check(&[(4, 7200, 900), (1, 7200, 100)], (4, 7200), 900);
}

#[test]
fn jobs_of_the_same_limit_count_where_none_has_the_size_as_well() {
    check(&[(4, 7200, 900), (1, 3600, 100)], (8, 7200), 900);
}

#[test]
fn the_shares_that_all_used_of_their_limits_count_where_none_is_alike() {
    // An eighth, an eighth, a quarter, a half.
    let runs = [(4, 7200, 900), (4, 7200, 900), (1, 3600, 900), (4, 7200, 3600)];
    check(&runs, (8, 10_000), 2500);
    check(&runs, (8, 0), 900);
    check(&[(4, 0, 3000)], (8, 9000), 3000);
}

#[test]
fn nothing_is_expected_to_outrun_its_limit_or_a_minute() {
    check(&[(4, 0, 9000)], (4, 600), 600);
    check(&[(4, 7200, 1)], (4, 7200), 60);
}

#[test]
fn runs_that_the_cluster_cut_short_teach_nothing() {
    let mut habits = Habits::default();
    let job = spec(1, 4, 7200);
    for outcome in [Outcome::NodeFail { node: "n1".into() }, Outcome::Preempted, Outcome::BootFail]
    {
        habits.ended(&job, &attempt(10, outcome, 1000));
    }
    let never = Finished { started_at: None, ..attempt(10, Outcome::Completed, 1000) };
    habits.ended(&job, &never);
    assert_eq!(habits, Habits::default());
    habits.ended(&job, &attempt(900, Outcome::Failed(ExitStatus { code: 1, signal: 0 }), 2000));
    assert_eq!(habits.users[&Uid(1)].past[0].run_seconds, 900);
}

#[test]
fn a_user_costs_a_bounded_amount() {
    let mut habits = Habits::default();
    for at in 0..100 {
        habits.ended(&spec(1, 4, 7200), &attempt(at, Outcome::Completed, 1000 + at));
    }
    let past = &habits.users[&Uid(1)].past;
    assert_eq!((past.len(), past[0].run_seconds), (JOBS_KEPT, 99));
}

#[test]
fn whoever_finished_nothing_for_longest_is_forgotten_first() {
    let mut habits = Habits::default();
    let most = u32::try_from(USERS_KEPT).expect("small");
    for uid in 0..most {
        // User 7 is the oldest.
        let at = if uid == 7 { 5 } else { 1000 + i64::from(uid) };
        habits.ended(&spec(uid, 1, 60), &attempt(5, Outcome::Completed, at));
    }
    habits.ended(&spec(most, 1, 60), &attempt(5, Outcome::Completed, 10_000_000));
    assert_eq!(habits.users.len(), USERS_KEPT);
    assert!(!habits.users.contains_key(&Uid(7)) && habits.users.contains_key(&Uid(most)));
}

#[test]
fn the_long_wait_is_near_the_true_quantile_and_the_past_fades() {
    let mut habits = Habits::default();
    assert_eq!(habits.long_wait(), 0);
    for second in 1..=1000 {
        habits.waited(second * 1000);
    }
    let long = habits.long_wait();
    assert!(long.abs_diff(990) * 100 <= 990 * 6, "{long}");
    for _ in 0..60_000 {
        habits.waited(30_000);
    }
    assert!(habits.long_wait() <= 33, "{}", habits.long_wait());
    let kept: u64 = habits.waits.iter().map(|n| u64::from(*n)).sum();
    assert!((1..WAITS_KEPT).contains(&kept));
    habits.waited(i64::MAX);
    assert!(habits.waits.len() <= WAIT_STEPS);
}

#[test]
fn a_request_is_counted_over_all_of_its_nodes() {
    let gpus = |count, scope| GresRequest { kind: GresKind::new("gpu", None), count, scope };
    let asked = |change: &dyn Fn(&mut Request)| {
        let mut request = request(4);
        change(&mut request);
        let Asked { cpus, gpus } = Asked::of(&request);
        (cpus, gpus)
    };
    assert_eq!(asked(&|_| {}), (4, 0));
    assert_eq!(
        asked(&|r| (r.tasks_given, r.tasks_per_node, r.nodes.min) = (false, Some(3), 2)),
        (6, 0)
    );
    assert_eq!(asked(&|r| (r.gres, r.nodes.min) = (vec![gpus(8, GresScope::Node)], 2)), (4, 16));
    assert_eq!(
        asked(&|r| (r.gres, r.cpus_per_gpu) = (vec![gpus(2, GresScope::Task)], Some(6))),
        (48, 8)
    );
    assert_eq!(asked(&|r| r.gres = vec![gpus(3, GresScope::Job)]), (4, 3));
}

//! Changing what was asked for.

use super::*;
use crate::command::{JobChange, TimeChange};
use muster_model::SwitchWish;

fn change(w: &mut World, actor: Actor, id: u32, change: JobChange) -> Result<(), Rejection> {
    let (target, change) = (Target::Job(JobId(id)), Box::new(change));
    w.verb(Command::Update { actor, target, change }).remove(0)
}

fn limit(minutes: u32) -> JobChange {
    let to = TimeChange::To(TimeLimit::minutes(minutes));
    JobChange { time_limit: Some(to), ..JobChange::default() }
}

#[test]
fn a_running_jobs_limit_is_lowered_by_its_user_and_raised_by_operators() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            let start = w.now;
            let end = |w: &World| w.job(1).phase.allocation().and_then(|a| a.end_at);
            assert_eq!(change(w, ALICE, 1, limit(30)), Ok(()));
            assert_eq!(end(w), Some(start.plus_seconds(1800)));
            refused(change(w, ALICE, 1, limit(60)), "operator");
            refused(change(w, BOB, 1, limit(10)), "another user's");
            assert_eq!(change(w, OP, 1, limit(60)), Ok(()));
            let by =
                JobChange { time_limit: Some(TimeChange::ByMinutes(-10)), ..Default::default() };
            assert_eq!(change(w, ALICE, 1, by), Ok(()));
            assert_eq!(end(w), Some(start.plus_seconds(3000)));
        },
        &["1 runs on n1"],
    );
}

#[test]
fn a_pending_job_may_ask_for_other_things_and_a_running_one_not() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let cpus = |n| JobChange { cpus_per_task: Some(n), ..JobChange::default() };
            refused(change(w, ALICE, 1, cpus(9)), "the largest has 8");
            assert_eq!(change(w, ALICE, 1, cpus(8)), Ok(()));
            let small = JobChange { partitions: Some(vec!["small".into()]), ..Default::default() };
            refused(change(w, ALICE, 1, small.clone()), "the largest has 4");
            assert_eq!(change(w, ALICE, 1, cpus(2)), Ok(()));
            assert_eq!(change(w, ALICE, 1, small), Ok(()));
            w.pass();
            refused(change(w, ALICE, 1, cpus(1)), "not pending");
            let comment = JobChange { comment: Some("fine".into()), ..JobChange::default() };
            assert_eq!(change(w, ALICE, 1, comment), Ok(()));
        },
        &["1 launches on n3"],
    );
}

#[test]
fn priorities_go_down_by_users_and_up_by_operators() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let to = |n| JobChange { priority: Some(n), ..JobChange::default() };
            refused(change(w, ALICE, 1, to(2_000_000)), "operator");
            assert_eq!(change(w, ALICE, 1, to(500)), Ok(()));
            assert_eq!(change(w, OP, 1, to(3_000_000)), Ok(()));
            let nice = |n| JobChange { nice: Some(n), ..JobChange::default() };
            refused(change(w, ALICE, 1, nice(-1)), "operator");
            assert_eq!(change(w, ALICE, 1, nice(10)), Ok(()));
            let view = w.state.find(JobId(1)).expect("there");
            assert_eq!(w.state.priority(view, w.now), 999_990);
            assert_eq!(change(w, ALICE, 1, to(0)), Ok(()));
        },
        &["1 waits JobHeldUser"],
    );
}

#[test]
fn a_whole_array_changes_together() {
    check(
        World::new(),
        |w| {
            w.array("0-9%1");
            w.pass();
            let throttle = JobChange { array_throttle: Some(4), ..JobChange::default() };
            let target = Target::Job(JobId(1));
            let update = Command::Update { actor: ALICE, target, change: Box::new(throttle) };
            assert_eq!(w.verb(update), [Ok(()), Ok(())]);
            assert_eq!(w.pass(), 3);
        },
        &[
            "1_[4-9] waits JobArrayTaskLimit",
            "1 launches on n1",
            "2 launches on n1",
            "3 launches on n1",
            "4 launches on n1",
        ],
    );
}

#[test]
fn a_begin_time_is_moved_and_taken_away() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let begin = |at| JobChange { begin: Some(at), ..JobChange::default() };
            let later = w.now.plus_seconds(100);
            assert_eq!(change(w, ALICE, 1, begin(later)), Ok(()));
            assert_eq!((w.pass(), w.describe()), (0, "1 waits BeginTime".to_owned()));
            assert_eq!(change(w, ALICE, 1, begin(Timestamp(0))), Ok(()));
            assert_eq!(w.pass(), 1);
        },
        &["1 launches on n1"],
    );
}

#[test]
fn an_end_is_a_limit_of_what_runs_and_nothing_for_what_waits() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let until =
                |at| JobChange { time_limit: Some(TimeChange::EndAt(at)), ..JobChange::default() };
            let soon = w.now.plus_seconds(600);
            refused(change(w, ALICE, 1, until(soon)), "not running");
            w.pass();
            w.run(1);
            let start = w.now;
            let end = |w: &World| w.job(1).phase.allocation().and_then(|a| a.end_at);
            refused(change(w, ALICE, 1, until(start)), "before the start");
            assert_eq!(change(w, ALICE, 1, until(start.plus_seconds(601))), Ok(()));
            assert_eq!(end(w), Some(start.plus_seconds(660)));
            refused(change(w, ALICE, 1, until(start.plus_seconds(6000))), "operator");
        },
        &["1 runs on n1"],
    );
}

#[test]
fn operators_write_admin_comments_and_what_waits_moves_in_the_network() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let word = JobChange { admin_comment: Some("look".into()), ..JobChange::default() };
            refused(change(w, ALICE, 1, word.clone()), "operator");
            let wish = SwitchWish { count: 1, max_wait_seconds: 60 };
            let near = |wish| JobChange {
                contiguous: Some(true),
                switches: Some(wish),
                ..JobChange::default()
            };
            assert_eq!(change(w, ALICE, 1, near(wish)), Ok(()));
            assert!(w.job(1).spec.request.contiguous);
            assert_eq!(w.job(1).spec.request.topology.switches, Some(wish));
            assert_eq!(change(w, ALICE, 1, near(SwitchWish { count: 0, ..wish })), Ok(()));
            assert_eq!(w.job(1).spec.request.topology.switches, None);
            w.pass();
            refused(change(w, ALICE, 1, near(wish)), "not pending");
            assert_eq!(change(w, OP, 1, word), Ok(()));
            assert_eq!(&*w.job(1).spec.launch.admin_comment, "look");
        },
        &["1 launches on n1"],
    );
}

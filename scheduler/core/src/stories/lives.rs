//! Single jobs: from submission to the end, and the ways off that path.

use super::*;

fn target(id: u32) -> Target {
    Target::Job(JobId(id))
}

#[test]
fn a_job_waits_launches_runs_and_ends() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
        },
        &["1 waits None"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 launches on n1"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
        },
        &["1 runs on n1"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            w.exit(1, 0);
            assert_eq!(w.state.derived.active, 0);
        },
        &["1 ended Completed"],
    );
}

#[test]
fn the_outcome_follows_from_the_exit() {
    let with = |change: fn(&mut SliceExit), expected: &str| {
        check(
            World::new(),
            |w| {
                w.submit(|_, _| {});
                w.pass();
                let mut exit = w.exit_of(0);
                change(&mut exit);
                w.report(1, "n1", SliceReport::Finished { exit: Some(exit) });
            },
            &[expected],
        );
    };
    with(|exit| exit.status.code = 3, "1 ended Failed(3)");
    with(|exit| exit.timed_out = true, "1 ended Timeout");
    with(|exit| exit.oom = true, "1 ended OutOfMemory");
}

#[test]
fn a_pending_job_is_cancelled_at_once_and_a_running_one_when_it_is_clear() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.cancel(1);
            w.submit(|_, _| {});
            w.pass();
            w.run(2);
            w.cancel(2);
            assert_eq!(w.nodes_of(2), ["n1"], "its CPUs are held until the node is clear");
            w.clear();
        },
        &["1 ended Cancelled(1000)", "2 ended Cancelled(1000)"],
    );
}

#[test]
fn nobody_cancels_anothers_job_but_operators() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            let by = |actor| Command::Cancel { actor, target: target(1) };
            refused(w.verb(by(BOB)).remove(0), "operator");
            assert_eq!(w.verb(by(OP)), [Ok(())]);
            refused(w.verb(by(OP)).remove(0), "already ended");
            refused(w.verb(Command::Cancel { actor: OP, target: target(9) }).remove(0), "unknown");
        },
        &["1 ended Cancelled(2000)"],
    );
}

#[test]
fn a_held_job_does_not_start_until_it_is_released() {
    check(
        World::new(),
        |w| {
            w.submit(|spec, _| spec.held = true);
            assert_eq!(w.pass(), 0);
        },
        &["1 waits JobHeldUser"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.verb(Command::Hold { actor: OP, target: target(1), by_user: false });
            let release = w.verb(Command::Release { actor: ALICE, target: target(1) });
            refused(release[0].clone(), "operator holds");
            assert_eq!(w.pass(), 0);
        },
        &["1 waits JobHeldAdmin"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|spec, _| spec.held = true);
            w.verb(Command::Release { actor: ALICE, target: target(1) });
            w.pass();
        },
        &["1 launches on n1"],
    );
}

#[test]
fn a_job_with_a_begin_time_starts_when_it_comes() {
    check(
        World::new(),
        |w| {
            let begin = w.now.plus_seconds(60);
            w.submit(|spec, _| spec.begin = Some(begin));
            assert_eq!(w.pass(), 0);
            w.wait(30);
        },
        &["1 waits BeginTime"],
    );
    check(
        World::new(),
        |w| {
            let begin = w.now.plus_seconds(60);
            w.submit(|spec, _| spec.begin = Some(begin));
            w.wait(61);
            assert_eq!(w.pass(), 1, "though no fact told the queue of the time");
        },
        &["1 launches on n1"],
    );
}

#[test]
fn a_deadline_that_cannot_be_met_ends_a_pending_job() {
    check(
        World::new(),
        |w| {
            let deadline = w.now.plus_seconds(7200);
            w.submit(|spec, _| {
                spec.deadline = Some(deadline);
                spec.held = true;
            });
            w.wait(3500);
            w.wish(Command::Tick).expect("ticks");
            assert_eq!(w.describe(), "1 waits JobHeldUser");
            w.wait(200);
            w.wish(Command::Tick).expect("ticks");
        },
        &["1 ended Deadline"],
    );
}

#[test]
fn requeueing_stops_the_attempt_and_begins_another() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            w.verb(Command::Requeue { actor: ALICE, target: target(1), hold: false });
            w.clear();
            assert_eq!(w.job(1).last.as_ref().map(|l| l.attempt), Some(Attempt(1)));
            w.pass();
            assert_eq!(w.job(1).attempt, Attempt(2));
        },
        &["1 launches on n1"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.verb(Command::Requeue { actor: OP, target: target(1), hold: true });
            w.clear();
            assert_eq!(w.pass(), 0);
        },
        &["1 waits JobHeldAdmin"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|spec, _| spec.requeue = Some(false));
            w.pass();
            let requeue = Command::Requeue { actor: OP, target: target(1), hold: false };
            refused(w.verb(requeue).remove(0), "--no-requeue");
        },
        &["1 launches on n1"],
    );
}

#[test]
fn attempts_wait_for_the_history_however_soon_the_next_one_ends() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            for attempt in 1..=20 {
                w.pass();
                w.run(1);
                w.verb(Command::Requeue { actor: ALICE, target: target(1), hold: false });
                w.clear();
                let kept: Vec<u32> =
                    w.job(1).last.iter().flat_map(|l| l.chain()).map(|a| a.attempt.0).collect();
                let expected: Vec<u32> = (1..=attempt).rev().take(16).collect();
                assert_eq!(kept, expected);
            }
            let open = outstanding(&w.state);
            assert!(
                open.contains(&crate::effect::Effect::Record {
                    job: JobId(1),
                    attempt: Attempt(19)
                })
            );
        },
        &["1 waits None"],
    );
}

#[test]
fn a_job_that_is_cancelled_while_it_is_requeued_ends() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            w.verb(Command::Requeue { actor: ALICE, target: target(1), hold: false });
            w.cancel(1);
            w.clear();
        },
        &["1 ended Cancelled(1000)"],
    );
}

#[test]
fn suspension_moves_the_end_of_the_time_limit() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            let end = |w: &World| w.job(1).phase.allocation().and_then(|a| a.end_at);
            let before = end(w).expect("limited");
            let suspend = Command::Suspend { actor: ALICE, target: target(1) };
            refused(w.verb(suspend).remove(0), "operator");
            w.verb(Command::Suspend { actor: OP, target: target(1) });
            assert_eq!(w.describe(), "1 is suspended");
            w.wait(100);
            w.verb(Command::Resume { actor: OP, target: target(1) });
            assert_eq!(end(w), Some(before.plus_seconds(100)));
        },
        &["1 runs on n1"],
    );
}

#[test]
fn the_controller_ends_what_no_agent_did() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            w.run(1);
            w.wait(3600 + 200);
            w.wish(Command::Tick).expect("ticks");
            assert_eq!(w.describe(), "1 runs on n1", "agents come first");
            w.wait(200);
            w.wish(Command::Tick).expect("ticks");
            w.clear();
        },
        &["1 ended Timeout"],
    );
}

#[test]
fn ended_jobs_are_forgotten_when_they_are_old_enough() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.submit(|_, _| {});
            w.cancel(1);
            assert_eq!(w.state.purgeable(w.now, 10), []);
            w.wait(301);
            let old = w.state.purgeable(w.now, 10);
            assert_eq!(old, [JobId(1)]);
            w.wish(Command::Purge(vec![JobId(1), JobId(2), JobId(77)])).expect("purges");
        },
        &["2 waits None"],
    );
}

#[test]
fn a_stale_report_is_no_fact() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            let facts = w.log.len();
            let node = w.node("n1");
            let exit = Some(w.exit_of(0));
            for attempt in [0, 2] {
                let report = SliceReport::Finished { exit };
                let (job, attempt) = (JobId(1), Attempt(attempt));
                w.wish(Command::Slice { job, attempt, node, report }).expect("taken");
            }
            w.report(1, "n2", SliceReport::Lost { reason: "never was here".into() });
            assert_eq!(w.log.len(), facts);
        },
        &["1 launches on n1"],
    );
}

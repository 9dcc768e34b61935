//! Job arrays: one record until tasks start.

use super::*;

fn tasks(array: u32, indices: &str) -> Target {
    Target::Tasks(JobId(array), ArraySpec::parse(indices, 100_000).expect("valid").indices)
}

#[test]
fn tasks_start_in_order_and_own_the_ids_of_their_ranks() {
    check(
        World::new(),
        |w| {
            w.submit(|spec, request| {
                spec.array = Some(ArraySpec::parse("2-8:2", 100).expect("valid"));
                request.cpus_per_task = 8;
            });
            let next = w.submit(|_, _| {});
            assert_eq!(next, JobId(5), "an array of four owns four ids");
            assert_eq!(w.pass(), 3);
            assert_eq!(w.job(2).array, Some((JobId(1), 4)));
        },
        &["1_[6,8] waits Resources", "1 launches on n1", "2 launches on n2", "5 launches on n3"],
    );
}

#[test]
fn a_throttle_bounds_the_tasks_at_once() {
    check(
        World::new(),
        |w| {
            w.array("0-9%2");
            assert_eq!(w.pass(), 2);
            assert_eq!(w.pass(), 0);
            w.run_all();
            w.exit(1, 0);
            assert_eq!(w.pass(), 1);
        },
        &[
            "1_[3-9] waits JobArrayTaskLimit",
            "1 ended Completed",
            "2 runs on n1",
            "3 launches on n1",
        ],
    );
}

#[test]
fn single_tasks_are_held_cancelled_and_released() {
    check(
        World::new(),
        |w| {
            w.array("0-5");
            w.verb(Command::Hold { actor: ALICE, target: tasks(1, "0-3"), by_user: true });
            w.verb(Command::Cancel { actor: ALICE, target: tasks(1, "1,9") });
            w.verb(Command::Release { actor: ALICE, target: tasks(1, "3") });
            w.pass();
        },
        &["1_[0,2] waits JobHeldUser", "4 launches on n1", "5 launches on n1", "6 launches on n1"],
    );
}

#[test]
fn cancelling_an_array_ends_every_task() {
    check(
        World::new(),
        |w| {
            w.array("0-3%1");
            w.pass();
            w.run_all();
            w.cancel(1);
            w.clear();
            assert!(w.state.arrays[&JobId(1)].is_over());
        },
        &["1_[] waits None", "1 ended Cancelled(1000)"],
    );
}

#[test]
fn a_task_is_known_by_its_index_and_by_its_own_id() {
    check(
        World::new(),
        |w| {
            w.array("5-7");
            let results = w.verb(Command::Cancel { actor: ALICE, target: Target::Job(JobId(2)) });
            assert_eq!(results, [Ok(())]);
            let results = w.verb(Command::Cancel { actor: ALICE, target: tasks(1, "6") });
            refused(results[0].clone(), "already ended");
            assert!(matches!(w.state.find(JobId(3)), Some(JobView::ArrayRest(_))));
            assert!(w.state.find(JobId(2)).is_none(), "it ended and never was a job");
        },
        &["1_[5,7] waits None"],
    );
}

#[test]
fn an_update_of_one_task_makes_it_a_job() {
    check(
        World::new(),
        |w| {
            w.array("0-2");
            let change = crate::command::JobChange { nice: Some(5), ..Default::default() };
            let target = tasks(1, "1");
            let change = Box::new(change);
            assert_eq!(w.verb(Command::Update { actor: ALICE, target, change }), [Ok(())]);
            assert_eq!((w.job(2).spec.nice, w.state.arrays[&JobId(1)].spec.nice), (5, 0));
        },
        &["1_[0,2] waits None", "2 waits None"],
    );
}

#[test]
fn a_requeued_task_waits_as_a_job() {
    check(
        World::new(),
        |w| {
            w.array("0-1%1");
            w.pass();
            w.run(1);
            w.verb(Command::Requeue { actor: ALICE, target: tasks(1, "0"), hold: false });
            w.clear();
            assert_eq!(w.pass(), 1, "the throttle counts it");
        },
        &["1 waits JobArrayTaskLimit", "2 launches on n1"],
    );
}

#[test]
fn an_array_goes_with_its_last_task() {
    check(
        World::new(),
        |w| {
            w.array("0-2%2");
            w.pass();
            w.run_all();
            w.exit(1, 0);
            w.exit(2, 1);
            w.wish(Command::Purge(vec![JobId(1)])).expect("purges");
            assert!(w.state.arrays.contains_key(&JobId(1)));
            w.cancel(1);
            w.wait(1000);
            let old = w.state.purgeable(w.now, 9);
            w.wish(Command::Purge(old)).expect("purges");
            assert!(w.state.arrays.is_empty() && w.state.jobs.is_empty());
            w.array("0-1");
            w.cancel(4);
            w.wait(1000);
            let old = w.state.purgeable(w.now, 9);
            assert_eq!(old, [JobId(4)], "an array that never started goes by itself");
            w.wish(Command::Purge(old)).expect("purges");
            assert!(w.state.arrays.is_empty());
        },
        &[],
    );
}

#[test]
fn ten_thousand_tasks_are_one_record() {
    let mut config = config();
    config.limits.max_jobs = 20_000;
    check(
        World::with(config),
        |w| {
            let facts = w.log.len();
            w.array("0-9999");
            assert_eq!((w.log.len(), w.state.arrays.len(), w.state.jobs.len()), (facts + 1, 1, 0));
            assert_eq!(w.state.live_jobs(), 10_000);
            assert_eq!(w.pass(), 24, "as many as there are CPUs");
            let full = w.try_submit(|s, _| {
                s.array = Some(ArraySpec::parse("0-10000", 20_000).expect("valid"));
            });
            refused(full, "queue is full (20000 jobs)");
            w.cancel(1);
            w.clear();
            assert_eq!(w.state.live_jobs(), 0);
            w.wait(1000);
            let old = w.state.purgeable(w.now, 99);
            w.wish(Command::Purge(old)).expect("purges");
        },
        &[],
    );
}

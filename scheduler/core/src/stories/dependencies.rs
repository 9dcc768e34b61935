//! What jobs wait for.

use super::*;

/// Job 1 ends with this code (255: cancelled before it starts), then one pass.
fn story(dependency: &'static str, code: u8) -> impl FnOnce(&mut World) {
    move |w| {
        w.submit(|_, _| {});
        w.after(dependency);
        assert_eq!(w.plan().starts.len(), 1, "only the first may start");
        if code == 255 {
            w.cancel(1);
        } else {
            w.pass();
            w.run(1);
            w.exit(1, code);
        }
        w.pass();
    }
}

#[test]
fn each_kind_waits_for_its_end() {
    let starts = "2 launches on n1";
    let never = "2 waits DependencyNeverSatisfied";
    check(World::new(), story("afterany:1", 0), &["1 ended Completed", starts]);
    check(World::new(), story("afterany:1", 9), &["1 ended Failed(9)", starts]);
    check(World::new(), story("afterok:1", 0), &["1 ended Completed", starts]);
    check(World::new(), story("afterok:1", 9), &["1 ended Failed(9)", never]);
    check(World::new(), story("afternotok:1", 0), &["1 ended Completed", never]);
    check(World::new(), story("afternotok:1", 9), &["1 ended Failed(9)", starts]);
    check(World::new(), story("after:1", 255), &["1 ended Cancelled(1000)", starts]);
    check(World::new(), story("afternotok:1", 255), &["1 ended Cancelled(1000)", starts]);
}

#[test]
fn after_waits_for_the_start_and_some_minutes() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.after("after:1+10");
            w.pass();
            w.run(1);
            w.wait(599);
            assert_eq!(w.pass(), 0);
            assert_eq!(w.describe(), "1 runs on n1\n2 waits Dependency");
            w.wait(1);
            assert_eq!(w.pass(), 1);
        },
        &["1 runs on n1", "2 launches on n1"],
    );
}

#[test]
fn all_or_any_of_several() {
    let several = |dependency: &'static str| {
        move |w: &mut World| {
            w.submit(|_, _| {});
            w.submit(|_, _| {});
            w.after(dependency);
            w.cancel(1);
            w.pass();
        }
    };
    let ended = "1 ended Cancelled(1000)";
    check(
        World::new(),
        several("afterany:1:2"),
        &[ended, "2 launches on n1", "3 waits Dependency"],
    );
    check(
        World::new(),
        several("afterany:1?afterok:2"),
        &[ended, "2 launches on n1", "3 launches on n1"],
    );
    check(
        World::new(),
        several("afterok:1?afterok:2"),
        &[ended, "2 launches on n1", "3 waits Dependency"],
    );
    check(
        World::new(),
        several("afterok:1,afterok:2"),
        &[ended, "2 launches on n1", "3 waits DependencyNeverSatisfied"],
    );
}

#[test]
fn an_array_is_waited_for_as_a_whole_or_by_the_task() {
    check(
        World::new(),
        |w| {
            w.array("0-1");
            w.after("afterok:1");
            w.after("afterok:1_1");
            w.after("afterany:2");
            w.pass();
            w.run_all();
            w.exit(2, 0);
            w.pass();
            assert_eq!(w.state.derived.dependents.len(), 1);
            w.exit(1, 7);
        },
        &[
            "1 ended Failed(7)",
            "2 ended Completed",
            "3 waits DependencyNeverSatisfied",
            "4 launches on n1",
            "5 launches on n1",
        ],
    );
}

#[test]
fn aftercorr_lets_tasks_go_one_by_one() {
    check(
        World::new(),
        |w| {
            w.array("0-2");
            w.submit(|spec, _| {
                spec.array = Some(ArraySpec::parse("0-2", 100).expect("valid"));
                spec.dependency = Dependency::parse("aftercorr:1").expect("valid");
            });
            w.pass();
            w.run_all();
            w.exit(2, 0);
            w.exit(1, 1);
            assert_eq!(w.pass(), 1);
            assert_eq!(w.job(5).array, Some((JobId(4), 1)));
        },
        &[
            "1 ended Failed(1)",
            "2 ended Completed",
            "3 runs on n1",
            "4_[0,2] waits Dependency",
            "5 launches on n1",
        ],
    );
}

#[test]
fn one_singleton_of_a_name_runs_at_a_time() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.after("singleton");
            w.after("singleton");
            w.submit(|spec, _| {
                spec.name = "other".into();
                spec.dependency.singleton = true;
            });
            w.pass();
            assert_eq!(w.describe().matches("Dependency").count(), 2);
            w.run(1);
            w.exit(1, 0);
            assert_eq!(w.pass(), 1);
        },
        &["1 ended Completed", "2 launches on n1", "3 waits Dependency", "4 launches on n1"],
    );
}

#[test]
fn what_can_never_be_met_ends_where_the_job_wishes_it() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.submit(|spec, _| {
                spec.dependency = Dependency::parse("afterok:1").expect("valid");
                spec.kill_on_invalid_dependency = true;
            });
            w.after("afterok:2");
            w.cancel(1);
            w.wish(Command::Tick).expect("ticks");
        },
        &["1 ended Cancelled(1000)", "2 ended Cancelled(0)", "3 waits DependencyNeverSatisfied"],
    );
}

#[test]
fn a_dependency_outlives_the_job_it_names() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.submit(|_, _| {});
            w.after("afterok:1,afterany:2");
            w.pass();
            w.run_all();
            w.exit(1, 0);
            w.wish(Command::Purge(vec![JobId(1)])).expect("purges");
            w.exit(2, 1);
            w.pass();
        },
        &["2 ended Failed(1)", "3 launches on n1"],
    );
}

#[test]
fn unknown_jobs_and_circles_are_refused() {
    check(
        World::new(),
        |w| {
            let on = |text: &str| Dependency::parse(text).expect("valid");
            refused(w.try_submit(|s, _| s.dependency = on("afterok:7")), "does not exist");
            w.submit(|_, _| {});
            refused(w.try_submit(|s, _| s.dependency = on("afterok:1_0")), "does not exist");
            w.after("afterok:1");
            w.after("afterok:2");
            let mut change = |id: u32, text: &str| {
                let dependency = Some(on(text));
                let change = crate::command::JobChange { dependency, ..Default::default() };
                let (target, change) = (Target::Job(JobId(id)), Box::new(change));
                w.verb(Command::Update { actor: ALICE, target, change }).remove(0)
            };
            refused(change(1, "afterok:1"), "depend on itself");
            refused(change(1, "afterok:3"), "for ever");
            assert_eq!(change(3, "afterany:1"), Ok(()));
        },
        &["1 waits None", "2 waits Dependency", "3 waits Dependency"],
    );
}

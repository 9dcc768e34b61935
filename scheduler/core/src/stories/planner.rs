//! Where jobs go and in which order.

use super::*;

/// Slices as node, CPUs, GPU mask, tasks, of one job on the empty cluster.
#[track_caller]
fn placed(change: impl FnOnce(&mut JobSpec, &mut Request), expected: &[&str]) {
    let mut w = World::new();
    w.submit(change);
    let plan = w.plan();
    let show = |slice: &Slice| {
        let gpus: u64 = slice.gres.iter().map(|g| g.mask).sum();
        let name = &w.state.nodes[slice.node.0 as usize].config.name;
        format!(
            "{name} cpus={} mem={} gpus={gpus:b} tasks={}",
            slice.cpus, slice.memory_mib, slice.tasks
        )
    };
    let slices = plan.starts.first().map_or(&[][..], |s| &s.placement.slices);
    assert_eq!(slices.iter().map(show).collect::<Vec<_>>(), expected);
    w.pass();
    w.proven();
}

#[test]
fn requests_are_placed_as_they_say() {
    placed(|_, _| {}, &["n1 cpus=0 mem=100 gpus=0 tasks=1"]);
    placed(|_, r| r.tasks = 6, &["n1 cpus=0-5 mem=600 gpus=0 tasks=6"]);
    placed(|_, r| r.memory = MemoryRequest::PerNode(0), &["n1 cpus=0 mem=64000 gpus=0 tasks=1"]);
    placed(|_, r| r.gres = vec![gpus(2, GresScope::Node)], &["n1 cpus=0 mem=100 gpus=11 tasks=1"]);
    placed(
        |_, r| {
            r.tasks = 2;
            r.gres = vec![gpus(2, GresScope::Task)];
            r.memory = MemoryRequest::PerGpu(10);
        },
        &["n1 cpus=0-1 mem=40 gpus=1111 tasks=2"],
    );
    placed(
        |_, r| {
            r.gres = vec![gpus(2, GresScope::Job)];
            r.cpus_per_gpu = Some(3);
        },
        &["n1 cpus=0-5 mem=600 gpus=11 tasks=1"],
    );
    placed(|_, r| r.exclusive = true, &["n1 cpus=0-7 mem=800 gpus=1111 tasks=1"]);
    placed(
        |_, r| r.constraint = Some(Constraint::parse("ib").expect("valid")),
        &["n3 cpus=0 mem=100 gpus=0 tasks=1"],
    );
    placed(|_, r| r.required_nodes = vec!["n4".into()], &["n4 cpus=0 mem=100 gpus=0 tasks=1"]);
    placed(
        |_, r| r.excluded_nodes = vec!["n1".into(), "n2".into()],
        &["n3 cpus=0 mem=100 gpus=0 tasks=1"],
    );
}

#[test]
fn gangs_are_spread_evenly_over_as_few_nodes_as_will_do() {
    let two = NodeCount { min: 2, max: Some(2) };
    placed(
        |_, r| (r.nodes, r.tasks) = (two, 6),
        &["n1 cpus=0-2 mem=300 gpus=0 tasks=3", "n2 cpus=0-2 mem=300 gpus=0 tasks=3"],
    );
    placed(
        |_, r| r.tasks = 16,
        &["n1 cpus=0-7 mem=800 gpus=0 tasks=8", "n2 cpus=0-7 mem=800 gpus=0 tasks=8"],
    );
    placed(
        |_, r| (r.tasks, r.tasks_per_node) = (4, Some(2)),
        &["n1 cpus=0-1 mem=200 gpus=0 tasks=2", "n2 cpus=0-1 mem=200 gpus=0 tasks=2"],
    );
    placed(
        |_, r| (r.nodes, r.gres) = (two, vec![gpus(5, GresScope::Job)]),
        &["n1 cpus=0 mem=100 gpus=111 tasks=1", "n2 cpus=0 mem=100 gpus=11 tasks=1"],
    );
    placed(
        |_, r| {
            r.nodes = NodeCount { min: 1, max: Some(3) };
            r.tasks_given = false;
            r.cpus_per_task = 4;
        },
        &[
            "n1 cpus=0-3 mem=400 gpus=0 tasks=1",
            "n2 cpus=0-3 mem=400 gpus=0 tasks=1",
            "n3 cpus=0-3 mem=400 gpus=0 tasks=1",
        ],
    );
    placed(
        |_, r| {
            (r.nodes, r.tasks) = (two, 2);
            r.constraint = Some(Constraint::parse("[ib|gpu]").expect("valid"));
        },
        &["n3 cpus=0 mem=100 gpus=0 tasks=1", "n4 cpus=0 mem=100 gpus=0 tasks=1"],
    );
    placed(
        |_, r| {
            (r.nodes, r.tasks) = (NodeCount { min: 3, max: Some(3) }, 3);
            r.constraint = Some(Constraint::parse("gpu*1&ib*2").expect("valid"));
        },
        &[
            "n1 cpus=0 mem=100 gpus=0 tasks=1",
            "n3 cpus=0 mem=100 gpus=0 tasks=1",
            "n4 cpus=0 mem=100 gpus=0 tasks=1",
        ],
    );
    placed(
        |_, r| {
            (r.nodes, r.tasks, r.contiguous) = (two, 2, true);
            r.excluded_nodes = vec!["n2".into()];
        },
        &["n3 cpus=0 mem=100 gpus=0 tasks=1", "n4 cpus=0 mem=100 gpus=0 tasks=1"],
    );
}

#[test]
fn no_gpu_is_given_twice() {
    let mut w = World::new();
    for _ in 0..9 {
        w.submit(|_, r| r.gres = vec![gpus(1, GresScope::Node)]);
    }
    assert_eq!(w.pass(), 8);
    let held = |job: &Job| {
        let held = job.phase.allocation()?;
        let slice = &held.placement.slices[0];
        Some((slice.node, slice.gres[0].mask))
    };
    let all = tally(w.state.jobs.values().filter_map(held));
    assert_eq!(all.len(), 8, "{all:?}");
    w.proven();
}

#[test]
fn higher_priorities_and_tiers_come_first() {
    let mut tiers = config();
    tiers.partitions[1].priority_tier = 9;
    check(
        World::with(tiers),
        |w| {
            let all = |r: &mut Request| r.required_nodes = vec!["n3".into()];
            let four = |r: &mut Request| {
                all(r);
                r.cpus_per_task = 4;
            };
            w.submit(|_, r| four(r));
            w.submit(|s, r| {
                four(r);
                s.nice = 100;
            });
            w.submit(|s, r| {
                four(r);
                (s.partitions, s.nice) = (vec!["small".into()], 1000);
            });
            w.pass();
        },
        &["1 waits Resources", "2 waits Priority", "3 launches on n3"],
    );
}

#[test]
fn a_large_job_is_passed_for_a_while_and_then_waited_for() {
    let large = |w: &mut World| {
        w.submit(|_, _| {});
        w.pass();
        w.submit(|_, r| r.nodes = NodeCount { min: 4, max: Some(4) });
        w.submit(|_, r| {
            (r.nodes, r.exclusive) = (NodeCount { min: 4, max: Some(4) }, true);
        });
    };
    check(
        World::new(),
        |w| {
            large(w);
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 launches on n1", "2 launches on n1,n2,n3,n4", "3 waits Resources", "4 launches on n1"],
    );
    check(
        World::new(),
        |w| {
            large(w);
            w.pass();
            w.wait(601);
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 launches on n1", "2 launches on n1,n2,n3,n4", "3 waits Resources", "4 waits Priority"],
    );
}

#[test]
fn licences_are_counted() {
    check(
        World::new(),
        |w| {
            for _ in 0..3 {
                w.submit(|s, _| s.licenses = vec![("matlab".into(), 1)]);
            }
            w.pass();
        },
        &["1 launches on n1", "2 launches on n1", "3 waits Licenses"],
    );
}

#[test]
fn lighter_nodes_fill_first() {
    let mut weighed = config();
    weighed.nodes[0].weight = 50;
    check(
        World::with(weighed),
        |w| {
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 launches on n2"],
    );
}

#[test]
fn a_plan_that_came_too_late_is_accepted_in_part() {
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.submit(|_, _| {});
            let plan = w.plan();
            w.cancel(1);
            let reply = w.wish(Command::Commit(plan.starts.clone())).expect("taken");
            let refused = vec![(JobId(1), Rejection::NotPending(JobId(1)))];
            assert_eq!(reply, Reply::Starts { accepted: 1, refused });
            let again = w.wish(Command::Commit(plan.starts)).expect("taken");
            assert!(matches!(again, Reply::Starts { accepted: 0, .. }));
        },
        &["1 ended Cancelled(1000)", "2 launches on n1"],
    );
}

#[test]
fn a_plan_without_fuel_stops_and_says_so() {
    let mut w = World::new();
    w.array("0-20");
    let view = view(&w.state, w.now, &POLICY);
    let short = plan(&view, &POLICY, w.now, 5);
    assert!(short.starts.len() < 21 && short.fuel_used <= 5);
    assert!(short.more);
    let whole = plan(&view, &POLICY, w.now, DEFAULT_FUEL);
    assert_eq!(whole.starts.len(), 21);
    assert_eq!(whole, plan(&view, &POLICY, w.now, DEFAULT_FUEL));
}

/// A job of these CPUs that keeps to node n4, which has four, with a limit in minutes.
fn on_n4(w: &mut World, actor: Actor, cpus: u32, minutes: u32) -> JobId {
    let mut job = spec(actor, "job");
    let mut asked = request();
    (asked.required_nodes, asked.cpus_per_task) = (vec!["n4".into()], cpus);
    job.time_limit = Some(TimeLimit::minutes(minutes));
    job.request = Arc::new(asked);
    w.submit_spec(actor, job).expect("admitted")
}

/// A job that starts at once and ends after so many seconds.
fn ran(w: &mut World, actor: Actor, minutes: u32, seconds: i64) {
    let job = on_n4(w, actor, 4, minutes);
    w.pass();
    w.run(job.0);
    let started_at = w.now;
    w.wait(seconds);
    let exit = SliceExit { started_at, ..w.exit_of(0) };
    w.report(job.0, "n4", SliceReport::Finished { exit: Some(exit) });
}

#[test]
fn a_user_known_for_short_runs_passes_one_known_for_long_ones() {
    check(
        World::new(),
        |w| {
            // Both ask for ten hours; Bob's jobs end after a minute.
            ran(w, ALICE, 600, 30_000);
            ran(w, BOB, 600, 60);
            on_n4(w, ALICE, 4, 600);
            w.pass();
            on_n4(w, ALICE, 4, 600);
            w.wait(600);
            on_n4(w, BOB, 4, 600);
            w.pass();
            w.run(3);
            w.exit(3, 0);
            w.pass();
        },
        &[
            "1 ended Completed",
            "2 ended Completed",
            "3 ended Completed",
            "4 waits Resources",
            "5 launches on n4",
        ],
    );
}

#[test]
fn a_short_limit_passes_a_long_one_where_nobody_is_known() {
    check(
        World::new(),
        |w| {
            on_n4(w, ALICE, 4, 600);
            w.pass();
            on_n4(w, ALICE, 4, 600);
            w.wait(600);
            on_n4(w, BOB, 4, 10);
            w.cancel(1);
            w.clear();
            w.pass();
        },
        &["1 ended Cancelled(1000)", "2 waits Resources", "3 launches on n4"],
    );
}

#[test]
fn whoever_waited_long_enough_is_passed_by_nobody() {
    check(
        World::new(),
        |w| {
            on_n4(w, ALICE, 4, 600);
            w.pass();
            on_n4(w, ALICE, 4, 600);
            // 80 minutes for each factor of e between ten minutes and ten hours: 5.5 hours.
            w.wait(20_000);
            on_n4(w, BOB, 4, 10);
            w.cancel(1);
            w.clear();
            w.pass();
        },
        &["1 ended Cancelled(1000)", "2 launches on n4", "3 waits Resources"],
    );
}

#[test]
fn what_a_job_is_expected_to_run_stays_as_it_was_when_it_came() {
    let mut w = World::new();
    let before = on_n4(&mut w, ALICE, 2, 600);
    assert_eq!(w.state.jobs[&before].expected, 38_968, "the limit, to a quarter of an octave");
    w.pass();
    w.run(before.0);
    let waiting = w.submit(|s, _| (s.held, s.time_limit) = (true, Some(TimeLimit::minutes(600))));
    w.wait(60);
    let exit = SliceExit { started_at: Timestamp(w.now.0 - 60_000), ..w.exit_of(0) };
    w.report(before.0, "n4", SliceReport::Finished { exit: Some(exit) });
    let after = on_n4(&mut w, ALICE, 2, 600);
    assert_eq!(w.state.jobs[&waiting].expected, 38_968);
    assert!(w.state.jobs[&after].expected < 70);
    w.proven();
}

#[test]
fn gangs_lie_below_one_switch_and_say_so_in_their_ranks() {
    let leaf = |name: &str, nodes: &[&str]| SwitchConfig {
        name: name.into(),
        nodes: nodes.iter().map(|n| (*n).into()).collect(),
        switches: Vec::new(),
        rails: 1,
    };
    let mut switched = config();
    let top = SwitchConfig { switches: vec!["a".into(), "b".into()], ..leaf("top", &[]) };
    switched.topology.switches = vec![leaf("a", &["n1", "n3"]), leaf("b", &["n2", "n4"]), top];
    let gang = |w: &mut World| {
        w.submit(|_, r| {
            r.nodes = NodeCount { min: 2, max: Some(2) };
            (r.tasks, r.tasks_given, r.cpus_per_task) = (2, false, 3);
        })
    };
    check(
        World::with(switched.clone()),
        |w| {
            gang(w);
            gang(w);
            w.pass();
        },
        &["1 launches on n1,n3", "2 launches on n2,n4"],
    );
    // A heavy node makes its switch the last choice.
    switched.nodes[0].weight = 9;
    check(
        World::with(switched),
        |w| {
            gang(w);
            w.pass();
        },
        &["1 launches on n2,n4"],
    );
}

//! Jobs on several nodes: all slices or none, through launch, failure and end.

use super::*;

fn gang(w: &mut World, nodes: u32) -> JobId {
    w.submit(|_, request| {
        request.nodes = NodeCount { min: nodes, max: Some(nodes) };
        (request.tasks, request.tasks_given) = (nodes, false);
        request.cpus_per_task = 4;
    })
}

fn wants(w: &World, node: &str) -> Vec<Desired> {
    desired(&w.state, w.node(node)).into_iter().map(|(_, _, want)| want).collect()
}

#[test]
fn a_gang_runs_when_every_slice_is_ready() {
    check(
        World::new(),
        |w| {
            gang(w, 2);
            w.pass();
            assert_eq!(wants(w, "n1"), [Desired::Prepare]);
            w.report(1, "n2", SliceReport::Ready);
            assert_eq!(wants(w, "n2"), [Desired::Prepare]);
            w.report(1, "n1", SliceReport::Ready);
            assert_eq!(wants(w, "n2"), [Desired::Run { suspended: false }]);
            w.report(1, "n1", SliceReport::Running { started_at: w.now });
        },
        &["1 runs on n1,n2"],
    );
    check(
        World::new(),
        |w| {
            w.submit(|_, _| {});
            w.pass();
            assert_eq!(wants(w, "n1"), [Desired::Run { suspended: false }], "no barrier for one");
        },
        &["1 launches on n1"],
    );
}

#[test]
fn the_other_slices_are_stopped_when_the_script_ends() {
    check(
        World::new(),
        |w| {
            gang(w, 3);
            w.pass();
            w.run(1);
            let exit = Some(w.exit_of(0));
            w.report(1, "n1", SliceReport::Finished { exit });
            assert_eq!(w.nodes_of(1), ["n2", "n3"]);
            assert!(wants(w, "n1").is_empty());
            w.clear();
        },
        &["1 ended Completed"],
    );
}

#[test]
fn a_launch_that_fails_on_one_node_takes_down_all_and_is_tried_again() {
    let fail = |w: &mut World| {
        w.pass();
        let failed = SliceReport::LaunchFailed { reason: "no such user".into(), node_fault: false };
        w.report(1, "n2", failed);
        w.clear();
    };
    check(
        World::new(),
        |w| {
            gang(w, 2);
            fail(w);
            w.pass();
            assert_eq!(w.job(1).attempt, Attempt(2));
        },
        &["1 launches on n1,n2"],
    );
    check(
        World::new(),
        |w| {
            gang(w, 2);
            (0..3).for_each(|_| fail(w));
        },
        &["1 waits JobHoldMaxRequeue"],
    );
}

#[test]
fn a_node_at_fault_is_drained_and_the_job_goes_elsewhere() {
    check(
        World::new(),
        |w| {
            gang(w, 2);
            w.pass();
            let failed = SliceReport::LaunchFailed { reason: "prolog".into(), node_fault: true };
            w.report(1, "n1", failed);
            w.clear();
            let mark = w.state.node_named("n1").and_then(|n| n.health.drain.clone());
            assert_eq!(mark.map(|m| m.reason), Some("prolog".into()));
            w.pass();
        },
        &["1 launches on n2,n3"],
    );
}

#[test]
fn a_gang_that_does_not_fit_takes_nothing() {
    check(
        World::new(),
        |w| {
            w.submit(|_, request| {
                request.nodes = NodeCount { min: 2, max: Some(2) };
                request.tasks = 16;
            });
            w.pass();
            gang(w, 3);
            w.pass();
            assert_eq!(w.state.derived.active, 1);
        },
        &["1 launches on n1,n2", "2 waits Resources"],
    );
}

#[test]
fn no_kill_keeps_the_rest_of_a_gang() {
    let lose = |node: &'static str| {
        move |w: &mut World| {
            w.submit(|spec, request| {
                Arc::make_mut(&mut spec.launch).no_kill = true;
                request.nodes = NodeCount { min: 3, max: Some(3) };
                (request.tasks, request.tasks_given) = (3, false);
            });
            w.pass();
            w.run(1);
            let node = w.node(node);
            w.wish(Command::NodeLost { node }).expect("lost");
        }
    };
    check(World::new(), lose("n2"), &["1 runs on n1,n3"]);
    let ends = |w: &mut World| {
        lose("n1")(w);
        w.clear();
    };
    check(World::new(), ends, &["1 waits None"]);
}

//! Heterogeneous jobs: components that start, run and end as one.

use super::*;

/// A component with so many nodes and so many CPUs on each.
pub(super) fn component(name: &str, nodes: u32, cpus: u32) -> JobSpec {
    let mut request = request();
    request.nodes = NodeCount { min: nodes, max: Some(nodes) };
    (request.tasks, request.tasks_given) = (nodes, false);
    request.cpus_per_task = cpus;
    JobSpec { request: Arc::new(request), ..spec(ALICE, name) }
}

pub(super) fn try_het(w: &mut World, mut specs: Vec<JobSpec>) -> Result<JobId, Rejection> {
    let components = specs.split_off(1);
    let spec = specs.remove(0);
    w.requests = w.requests.wrapping_add(1);
    let mut request_id = [2; 16];
    request_id[..8].copy_from_slice(&w.log.len().to_le_bytes());
    let submit = Submit { actor: ALICE, groups: Vec::new(), request_id, spec, components };
    match w.wish(Command::Submit(Box::new(submit)))? {
        Reply::Submitted { job, .. } => Ok(job),
        other => panic!("a submission is answered with {other:?}"),
    }
}

fn het(w: &mut World, specs: Vec<JobSpec>) -> JobId {
    try_het(w, specs).expect("admitted")
}

fn pair(w: &mut World) -> JobId {
    het(w, vec![component("lead", 1, 8), component("work", 2, 4)])
}

/// Reports what agents would until every component runs.
fn run_together(w: &mut World, ids: &[u32]) {
    for id in ids {
        for node in w.nodes_of(*id) {
            w.report(*id, &node, SliceReport::Ready);
        }
    }
    let first = w.nodes_of(ids[0])[0].clone();
    w.report(ids[0], &first, SliceReport::Running { started_at: w.now });
}

#[test]
fn components_start_in_one_commit_and_run_when_all_are_ready() {
    check(
        World::new(),
        |w| {
            assert_eq!(pair(w), JobId(1));
            assert_eq!(w.pass(), 2, "both components");
            let lead = w.nodes_of(1)[0].clone();
            w.report(1, &lead, SliceReport::Ready);
            let want = |w: &World| desired(&w.state, w.node(&lead))[0].2;
            assert_eq!(want(w), Desired::Prepare, "the others are not ready");
            run_together(w, &[1, 2]);
        },
        &["1 runs on n1", "2 runs on n2,n3"],
    );
}

#[test]
fn what_does_not_fit_as_a_whole_does_not_start_in_part() {
    let busy = |w: &mut World, node: &str| {
        let id = w.submit(|_, request| {
            request.required_nodes = vec![node.into()];
            request.cpus_per_task = 4;
        });
        w.pass();
        w.run(id.0);
    };
    check(
        World::new(),
        |w| {
            busy(w, "n3");
            het(w, vec![component("lead", 2, 8), component("work", 2, 4)]);
            assert_eq!(w.pass(), 0, "n3 is taken, and n1 and n2 are the leader's");
            w.submit(|_, _| {});
            w.pass();
        },
        &["1 runs on n3", "2 waits Resources", "3 waits Resources", "4 launches on n1"],
    );
}

#[test]
fn a_promised_start_holds_for_all_components() {
    let world = || {
        let mut w = World::new();
        w.submit(|spec, request| {
            spec.time_limit = Some(TimeLimit::minutes(60));
            request.required_nodes = vec!["n3".into()];
            request.cpus_per_task = 4;
        });
        w.pass();
        w.run(1);
        het(&mut w, vec![component("lead", 2, 8), component("work", 2, 4)]);
        w
    };
    let w = world();
    let plan = w.plan();
    let ends = w.now.plus_seconds(3600);
    let starts: Vec<(JobId, bool)> =
        plan.shadows.iter().map(|s| (s.job, s.start >= ends)).collect();
    assert_eq!(starts, [(JobId(2), true), (JobId(3), true)], "both, once n3 is free");
    // One that would be in the leader's way beyond the promise waits; a short one passes.
    for (minutes, passes) in [(90, 0), (30, 1)] {
        let mut w = world();
        w.submit(|spec, request| {
            spec.time_limit = Some(TimeLimit::minutes(minutes));
            request.cpus_per_task = 8;
        });
        assert_eq!(w.pass(), passes, "{minutes} minutes");
    }
    w.proven();
}

#[test]
fn nobody_overtakes_components_where_nobody_overtakes() {
    let mut w = World::new();
    w.submit(|_, request| {
        request.required_nodes = vec!["n3".into()];
        request.cpus_per_task = 4;
    });
    w.pass();
    w.run(1);
    het(&mut w, vec![component("lead", 2, 8), component("work", 2, 4)]);
    w.submit(|_, _| {});
    let starts = |w: &World, policy: &Policy| {
        plan(&view(&w.state, w.now, policy), policy, w.now, DEFAULT_FUEL).starts.len()
    };
    assert_eq!(starts(&w, &Policy::fcfs()), 0);
    assert_eq!(starts(&w, &POLICY), 1, "n3 never comes free, so nothing is promised");
}

#[test]
fn one_fate_for_all() {
    let running = || {
        let mut w = World::new();
        pair(&mut w);
        w.pass();
        run_together(&mut w, &[1, 2]);
        w
    };
    check(
        running(),
        |w| {
            w.exit(1, 3);
            assert_eq!(
                w.describe(),
                "1 ended Failed(3)\n2 completes Failed(ExitStatus { code: 3, signal: 0 })"
            );
            w.clear();
        },
        &["1 ended Failed(3)", "2 ended Failed(3)"],
    );
    check(
        running(),
        |w| {
            w.cancel(2);
            w.clear();
        },
        &["1 ended Cancelled(1000)", "2 ended Cancelled(1000)"],
    );
    check(
        running(),
        |w| {
            let node = w.node("n3");
            w.wish(Command::NodeLost { node }).expect("known");
            w.clear();
            assert_eq!(w.pass(), 2, "on other nodes");
        },
        &["1 launches on n1", "2 launches on n2,n4"],
    );
    check(
        World::new(),
        |w| {
            pair(w);
            let target = Target::Job(JobId(2));
            w.verb(Command::Hold { actor: ALICE, target: target.clone(), by_user: true });
            assert_eq!(w.pass(), 0);
            assert_eq!(w.describe(), "1 waits JobHeldUser\n2 waits JobHeldUser");
            w.verb(Command::Release { actor: ALICE, target });
            assert_eq!(w.pass(), 2);
            w.cancel(1);
            w.clear();
        },
        &["1 ended Cancelled(1000)", "2 ended Cancelled(1000)"],
    );
}

#[test]
fn a_component_alone_is_no_start() {
    check(
        World::new(),
        |w| {
            pair(w);
            let mut plan = w.plan();
            plan.starts.remove(1);
            let reply = w.wish(Command::Commit(plan.starts)).expect("answered");
            let Reply::Starts { accepted: 0, refused } = reply else { panic!("{reply:?}") };
            assert_eq!(refused.len(), 1);
            let mut plan = w.plan();
            plan.starts.remove(0);
            let reply = w.wish(Command::Commit(plan.starts)).expect("answered");
            assert!(matches!(reply, Reply::Starts { accepted: 0, .. }), "{reply:?}");
        },
        &["1 waits None", "2 waits None"],
    );
}

#[test]
fn what_cannot_be_is_refused_as_a_whole() {
    let mut w = World::new();
    let many = vec![component("x", 1, 1); 129];
    refused(try_het(&mut w, many), "at most 128 components");
    let too_large = vec![component("a", 1, 1), component("b", 1, 99)];
    assert!(try_het(&mut w, too_large).is_err(), "no node has 99 CPUs");
    let mut array = component("a", 1, 1);
    array.array = Some(ArraySpec::parse("0-3", 1000).expect("valid"));
    refused(try_het(&mut w, vec![array, component("b", 1, 1)]), "cannot be an array");
    assert_eq!(w.describe(), "");
    let mut long = component("b", 1, 1);
    long.time_limit = Some(TimeLimit::minutes(90));
    het(&mut w, vec![component("a", 1, 1), long]);
    let limits: Vec<_> = w.state.jobs.values().map(|job| job.spec.time_limit).collect();
    assert_eq!(limits[0], limits[1], "components end together");
}

//! `scontrol update` lines against requests and refusals.

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|w| w.replace('~', " ")).collect()
}

#[track_caller]
fn check_job(line: &str, jobs: &[&str], change: impl FnOnce(&mut v1::UpdateJobRequest)) {
    let mut expected = v1::UpdateJobRequest::default();
    change(&mut expected);
    match read(&words(line), &Surroundings::here()) {
        Ok(Change::Jobs(refs, request)) => {
            assert_eq!(*request, expected, "{line}");
            assert_eq!(refs.iter().map(shown).collect::<Vec<_>>(), jobs, "{line}");
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn refuse(line: &str, fault: &str) {
    assert_eq!(
        read(&words(line), &Surroundings::here()).expect_err(line).lines().next(),
        Some(fault)
    );
}

fn limit(minutes: u32) -> Time {
    Time::TimeLimit(v1::TimeLimit { limit: Some(v1::time_limit::Limit::Minutes(minutes)) })
}

#[test]
fn a_jobs_limit_is_set_or_stepped() {
    check_job("JobId=12 TimeLimit=30", &["12"], |r| r.time = Some(limit(30)));
    check_job("jobid=12 timelimit=1:00:00", &["12"], |r| r.time = Some(limit(60)));
    for (line, minutes) in [
        ("JobId=12 TimeLimit=+5", 5),
        ("JobId=12 TimeLimit+=5", 5),
        ("JobId=12 TimeLimit-=5", -5),
        ("JobId=12 TimeLimit=-1:00:00", -60),
        ("JobId=12 TimeLim=+0:30", 1),
    ] {
        check_job(line, &["12"], |r| r.time = Some(Time::TimeDeltaMinutes(minutes)));
    }
    let unlimited = v1::TimeLimit { limit: Some(v1::time_limit::Limit::Unlimited(true)) };
    check_job("JobId=12 TimeLimit=-1", &["12"], |r| r.time = Some(Time::TimeLimit(unlimited)));
}

#[test]
fn a_jobs_other_keys_are_read() {
    check_job(
        "JobId=12,13_[1-2] Partition=a,b JobName=x Comment=two~words",
        &["12", "13_[1-2]"],
        |r| {
            r.partitions = Some("a,b".to_owned());
            (r.name, r.comment) = (Some("x".to_owned()), Some("two words".to_owned()));
        },
    );
    check_job("JobId=1 NumNodes=2-4 NumTasks=8 NumCPUs=16 Priority=5 Nice=-3", &["1"], |r| {
        (r.min_nodes, r.max_nodes, r.tasks) = (Some(2), Some(4), Some(8));
        (r.num_cpus, r.priority, r.nice) = (Some(16), Some(5), Some(-3));
    });
    check_job("JobId=1 Dependency= Requeue=0 ArrayTaskThrottle=3 MinMemoryNode=4G", &["1"], |r| {
        (r.dependency, r.requeue, r.array_throttle) = (Some(String::new()), Some(false), Some(3));
        r.memory = Some(v1::Memory { request: Some(v1::memory::Request::PerNodeMib(4096)) });
    });
    check_job("JobId=1 Gres=gpu:2 ReqNodeList=n[1-2] StartTime=uts1700000000", &["1"], |r| {
        let kind = Some(v1::GresKind { name: "gpu".to_owned(), of: String::new() });
        r.gres = vec![v1::GresRequest { kind, count: 2, scope: v1::GresScope::Node as i32 }];
        (r.gres_set, r.required_nodes) = (true, Some("n[1-2]".to_owned()));
        r.begin = Some(1_700_000_000_000);
    });
}

#[test]
fn a_jobs_place_end_and_resources_are_read() {
    check_job("JobId=1 Contiguous=yes AdminComment=look~here", &["1"], |r| {
        (r.contiguous, r.admin_comment) = (Some(true), Some("look here".to_owned()));
    });
    check_job("JobId=1 Switches=2@10", &["1"], |r| {
        (r.max_switches, r.switch_wait_seconds) = (Some(2), 600);
    });
    check_job("JobId=1 Switches=0", &["1"], |r| r.max_switches = Some(0));
    check_job("JobId=1 EndTime=uts1700000000", &["1"], |r| {
        r.time = Some(Time::End(1_700_000_000_000));
    });
    let gpu = |count, scope: GresScope| v1::GresRequest {
        kind: Some(v1::GresKind { name: "gpu".to_owned(), of: String::new() }),
        count,
        scope: scope.into(),
    };
    check_job("JobId=1 TresPerJob=gres/gpu:4 TresPerTask=gres/gpu:1", &["1"], |r| {
        (r.gres, r.gres_set) = (vec![gpu(4, GresScope::Job), gpu(1, GresScope::Task)], true);
    });
}

#[test]
fn nodes_are_drained_with_a_reason() {
    let Ok(Change::Nodes(request)) =
        read(&words("NodeName=n[1-2] State=drain Reason=bad~disk"), &Surroundings::here())
    else {
        panic!("nodes are read");
    };
    assert_eq!(request.verb(), NodeVerb::Drain);
    assert_eq!((request.nodes.as_str(), request.reason.as_str()), ("n[1-2]", "bad disk"));
    refuse("NodeName=n1 State=DRAIN", "You must specify a reason when DRAINING a node");
    refuse("NodeName=n1 State=FOO", "Invalid input: FOO");
    refuse(
        "NodeName=n1 State=POWER_DOWN",
        "scontrol: error: State=POWER_DOWN is not supported: use DRAIN, DOWN, RESUME or UNDRAIN",
    );
}

#[test]
fn partitions_are_changed_until_the_next_reconfigure() {
    let line = "PartitionName=main State=down MaxTime=1-0 MaxNodes=UNLIMITED PriorityTier=3";
    let Ok(Change::Partition(request)) = read(&words(line), &Surroundings::here()) else {
        panic!("a partition is read");
    };
    assert_eq!(request.state.as_deref(), Some("DOWN"));
    assert_eq!((request.max_nodes, request.priority_tier), (Some(u32::MAX), Some(3)));
    assert!(request.max_time.is_some() && request.default_time.is_none());
    let fault = "Invalid input: state=SIDEWAYS";
    refuse("PartitionName=main State=SIDEWAYS", fault);
}

#[test]
fn what_cannot_be_updated_is_named() {
    let unsupported = |line: &str, rest: &str| {
        refuse(line, &format!("Update of this parameter is not supported: {rest}"))
    };
    unsupported(
        "JobId=1 NodeList=n1",
        "nodelist=n1: use ReqNodeList; what a running job holds is fixed",
    );
    unsupported("JobId=1 SystemComment=x", "systemcomment=x: the controller alone writes it");
    unsupported("JobId=1 Nonsense=x", "nonsense=x");
    unsupported("NodeName=n1 Extra=x", "extra=x: use Comment");
    unsupported(
        "PartitionName=p Nodes=n1",
        "nodes=n1: change it in muster.toml, then run 'scontrol reconfigure'",
    );
    refuse("JobId=1 Name+=x", "Update of this parameter is not supported: name+=x");
    refuse("JobId=1 Foo", "Update of this parameter is not supported: Foo");
    refuse("JobId=x TimeLimit=1", "Invalid job id specified for job x");
    refuse("JobId=1 TimeLimit=abc", "Invalid TimeLimit value: abc");
    refuse(
        "JobId=1 Dependency=foo:1",
        "invalid dependency \"foo:1\": the kinds are after, afterany, afterok, afternotok, aftercorr and singleton",
    );
    refuse("TimeLimit=1", "No valid entity in update command");
    refuse("StepId=1.0", "scontrol: error: steps cannot be updated");
    refuse(
        "ReservationName=x TRES=cpu=4",
        "scontrol: error: tres is not supported: use NodeCnt=, CoreCnt= or Licenses=",
    );
}

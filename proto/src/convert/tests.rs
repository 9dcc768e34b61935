//! Wire to model and back, and what is refused on the way.

use std::sync::Arc;

use muster_model::{
    ArraySpec, Constraint, CpuBinding, Dependency, GresKind, GresRequest, GresScope, JobSpec,
    LaunchSpec, MemoryRequest, NodeCount, OpenMode, Request, SignalRequest, SwitchWish, TimeLimit,
    Timestamp, TopologyWish, Uid, User,
};

use super::*;

fn spec() -> JobSpec {
    let request = Request {
        nodes: NodeCount { min: 2, max: Some(4) },
        tasks: 8,
        tasks_given: true,
        tasks_per_node: Some(4),
        cpus_per_task: 3,
        min_cpus_per_node: 2,
        memory: MemoryRequest::PerCpu(2000),
        gres: vec![GresRequest {
            kind: GresKind::new("gpu", Some("h100")),
            count: 2,
            scope: GresScope::Task,
        }],
        cpus_per_gpu: Some(6),
        constraint: Some(Constraint::parse("(a|b)&c&gpu_mem>=80G").unwrap()),
        required_nodes: vec!["n1".into()],
        excluded_nodes: vec!["n2".into(), "n3".into()],
        exclusive: true,
        contiguous: true,
        threads_per_core: Some(1),
        sockets_per_node: Some(2),
        topology: TopologyWish {
            switches: Some(SwitchWish { count: 2, max_wait_seconds: 90 }),
            segment: Some(4),
            alone: true,
            nvlink: true,
            binding: CpuBinding::Enforced,
        },
    };
    JobSpec {
        name: "train".into(),
        user: User { uid: Uid(1000), gid: 100, name: "alice".into() },
        account: "phys".into(),
        qos: "normal".into(),
        partitions: vec!["gpu".into(), "main".into()],
        request: Arc::new(request),
        time_limit: Some(TimeLimit::minutes(90)),
        time_min: Some(TimeLimit::Unlimited),
        begin: Some(Timestamp(1_700_000_000_000)),
        deadline: None,
        dependency: Dependency::parse("afterok:12:13,afterany:4_2").unwrap(),
        kill_on_invalid_dependency: true,
        array: Some(ArraySpec::parse("0-15:4,20%2", 1001).unwrap()),
        het: None,
        held: true,
        nice: -5,
        priority: Some(7),
        requeue: Some(false),
        licenses: vec![("matlab".into(), 2)],
        reservation: Some("maint".into()),
        comment: "hi there".into(),
        wckey: "w".into(),
        args: ["a b".into(), "".into()].into(),
        submit_line: "sbatch a.sh".into(),
        launch: Arc::new(LaunchSpec {
            workdir: "/home/alice".into(),
            stdout: Some("%x-%j.out".into()),
            open_mode: OpenMode::Append,
            umask: 0o22,
            rlimits: [("nofile".into(), u64::MAX)].into(),
            signal: Some(SignalRequest { signal: 10, before_seconds: 60, batch_only: true }),
            extras: vec![("hint".into(), "nomultithread".into())],
            ..LaunchSpec::default()
        }),
        script_bytes: 0,
        env_bytes: 0,
    }
}

#[test]
fn a_spec_survives_the_wire() {
    assert_eq!(job::spec_in(&job::spec_out(&spec()), 1001), Ok(spec()));
    assert_eq!(check::spec(&spec()), Ok(()));
}

#[test]
fn an_empty_message_is_the_smallest_job() {
    let spec = job::spec_in(&crate::v1::JobSpec::default(), 1001).unwrap();
    assert_eq!((spec.request.nodes.min, spec.request.tasks, spec.request.cpus_per_task), (1, 1, 1));
    assert_eq!(spec.user.uid, Uid(u32::MAX), "nobody, until the caller is filled in");
}

/// Spoils one field; the refusal must name it.
#[track_caller]
fn check_spec(spoil: impl FnOnce(&mut crate::v1::JobSpec), field: &str) {
    let mut wire = job::spec_out(&spec());
    spoil(&mut wire);
    let refusal = match job::spec_in(&wire, 1001) {
        Ok(spec) => check::spec(&spec).expect_err("spoiled"),
        Err(refusal) => refusal,
    };
    assert_eq!(refusal.field, field);
}

#[test]
fn nonsense_is_refused_by_the_fields_name() {
    check_spec(|s| s.name = "a\nb".into(), "job name");
    check_spec(|s| s.name = "a\u{1b}[31m".into(), "job name");
    check_spec(|s| s.name = "x".repeat(5000), "job name");
    check_spec(|s| s.comment = "\u{7f}".into(), "comment");
    check_spec(|s| s.array = "5-1".into(), "array");
    check_spec(|s| s.array = "0-99999999".into(), "array");
    check_spec(|s| s.dependency = "foo:1".into(), "dependency");
    check_spec(|s| s.partitions = vec!["p".into(); 999], "partition");
    check_spec(|s| s.request.as_mut().unwrap().constraint = "a&".into(), "constraint");
    check_spec(|s| s.request.as_mut().unwrap().max_nodes = Some(1), "node count");
    check_spec(|s| s.request.as_mut().unwrap().gres[0].kind = None, "gres");
    check_spec(|s| s.request.as_mut().unwrap().gres[0].scope = 77, "gres");
    check_spec(|s| s.launch.as_mut().unwrap().workdir = "tmp".into(), "working directory");
    check_spec(|s| s.launch.as_mut().unwrap().umask = 0o7777, "umask");
    check_spec(|s| s.launch.as_mut().unwrap().signal.as_mut().unwrap().signal = 99, "signal");
    check_spec(|s| s.launch.as_mut().unwrap().args = vec!["\0".into()], "script arguments");
}

#[test]
fn cpu_lists_are_read_and_bounded() {
    assert_eq!(node::cpus_in("0-3,8").unwrap().to_string(), "0-3,8");
    assert!(node::cpus_in("").unwrap().is_empty());
    for list in ["x", "3-1", "0-99999999", "-1"] {
        assert!(node::cpus_in(list).is_err(), "{list}");
    }
}

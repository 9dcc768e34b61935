//! What is admitted, what is refused, and in which words.

use super::*;

#[track_caller]
fn no(change: impl FnOnce(&mut JobSpec, &mut Request), text: &str) {
    let mut world = World::new();
    let facts = world.log.len();
    refused(world.try_submit(change), text);
    assert_eq!(world.log.len(), facts);
}

#[test]
fn each_fault_is_named() {
    no(|s, _| s.partitions = vec!["gold".into()], "partition \"gold\" does not exist");
    no(|s, _| s.user.uid = Uid(7), "submitting as another user");
    no(|s, _| s.name = "a\nb".into(), "control characters");
    no(|s, _| s.nice = -5, "operator");
    no(|s, _| s.priority = Some(5), "operator");
    no(|s, _| s.reservation = Some("gold".into()), "reservation \"gold\" does not exist");
    no(|s, _| s.licenses = vec![("ansys".into(), 1)], "no licence \"ansys\"");
    no(|s, _| s.licenses = vec![("matlab".into(), 3)], "the cluster has 2");
    no(|_, r| r.constraint = Some(Constraint::Feature("tpu".into())), "feature \"tpu\"");
    no(|_, r| r.excluded_nodes = vec!["n9".into()], "node \"n9\" does not exist");
    no(|_, r| r.nodes = NodeCount { min: 0, max: None }, "must be 1 or more");
    no(|_, r| r.nodes = NodeCount { min: 5, max: Some(2) }, "the least (5) is above the most (2)");
    no(|_, r| r.cpus_per_task = 0, "must be 1 or more");
    let year = TimeLimit::minutes(500_000);
    no(|s, _| s.time_limit = Some(year), "allows 1440 min");
    no(|s, _| s.deadline = Some(Timestamp(5)), "passed already");
    no(
        |s, _| s.array = Some(ArraySpec { indices: IndexSet::default(), throttle: None }),
        "no tasks",
    );
    let huge = ArraySpec { indices: IndexSet::one(100_001), throttle: None };
    no(|s, _| s.array = Some(huge), "max_array_size is 100001");
    let fpga = GresRequest { kind: GresKind::new("fpga", None), count: 1, scope: GresScope::Node };
    no(|_, r| r.gres = vec![fpga], "generic resource \"fpga\"");
}

#[test]
fn a_job_that_could_never_run_is_told_the_numbers() {
    no(|_, r| r.cpus_per_task = 9, "it needs 9 CPUs on a node and the largest has 8");
    no(|_, r| r.tasks = 25, "it needs 25 CPUs and its 4 nodes have 24");
    no(|_, r| r.memory = MemoryRequest::PerNode(64_001), "allows 64000 MiB");
    no(|_, r| r.memory = MemoryRequest::PerCpu(64_001), "64001 MiB on a node");
    no(|_, r| r.nodes.min = 5, "it needs 5 nodes and 4 qualify");
    no(|_, r| r.gres = vec![gpus(5, GresScope::Node)], "it needs 5 gpu on a node");
    no(|_, r| r.gres = vec![gpus(9, GresScope::Job)], "it needs 9 gpu and its nodes have 8");
    no(
        |s, r| {
            s.partitions = vec!["small".into()];
            r.required_nodes = vec!["n1".into()];
        },
        "node \"n1\" is not in partition \"small\"",
    );
    no(
        |_, r| {
            r.constraint = Some(Constraint::parse("ib").expect("valid"));
            r.nodes.min = 3;
        },
        "it needs 3 nodes and 2 qualify",
    );
}

#[test]
fn root_is_admitted_only_where_the_cluster_says_so() {
    let root = Actor { uid: Uid(0), role: Role::Admin };
    let mut world = World::new();
    refused(world.submit_spec(root, spec(root, "job")), "root");
    let mut admitting = config();
    admitting.limits.root_jobs = true;
    let mut world = World::with(admitting);
    assert_eq!(world.submit_spec(root, spec(root, "job")), Ok(JobId(1)));
}

#[test]
fn a_repeated_request_is_the_same_job() {
    check(
        World::new(),
        |w| {
            let submit = Submit {
                actor: ALICE,
                groups: Vec::new(),
                request_id: [9; 16],
                spec: spec(ALICE, "job"),
                components: Vec::new(),
            };
            let wish = Command::Submit(Box::new(submit.clone()));
            let first = w.wish(wish.clone()).expect("admitted");
            assert_eq!(first, Reply::Submitted { job: JobId(1), repeated: false });
            let again = w.wish(wish).expect("admitted");
            assert_eq!(again, Reply::Submitted { job: JobId(1), repeated: true });
            let bobs = Submit { actor: BOB, spec: spec(BOB, "job"), ..submit };
            let other = w.wish(Command::Submit(Box::new(bobs))).expect("admitted");
            assert_eq!(
                other,
                Reply::Submitted { job: JobId(2), repeated: false },
                "ids are per user"
            );
        },
        &["1 waits None", "2 waits None"],
    );
}

#[test]
fn partitions_admit_by_user_and_group() {
    let mut closed = config();
    closed.partitions[0].allow_groups = vec!["staff".into()];
    closed.partitions[0].allow_users = vec!["u1001".into()];
    let mut world = World::with(closed);
    refused(world.submit_spec(ALICE, spec(ALICE, "job")), "does not admit user \"u1000\"");
    assert!(world.submit_spec(BOB, spec(BOB, "job")).is_ok());
    let groups = vec!["staff".into()];
    let submit = Submit {
        actor: ALICE,
        groups,
        request_id: [5; 16],
        spec: spec(ALICE, "job"),
        components: Vec::new(),
    };
    assert!(world.wish(Command::Submit(Box::new(submit))).is_ok());
}

#[test]
fn where_limits_are_not_enforced_the_job_waits() {
    let mut lax = config();
    lax.limits.enforce_partition_limits = false;
    check(
        World::with(lax),
        |w| {
            w.submit(|s, _| s.time_limit = Some(TimeLimit::Unlimited));
            assert_eq!(w.pass(), 0);
        },
        &["1 waits PartitionTimeLimit"],
    );
}

#[test]
fn numbers_wrap_and_skip_those_in_use() {
    let mut w = World::new();
    w.array("0-2");
    w.state.next_id = muster_model::ids::MAX_JOB_ID;
    assert_eq!(w.submit(|_, _| {}).0, muster_model::ids::MAX_JOB_ID);
    assert_eq!(w.submit(|_, _| {}), JobId(4), "1 to 3 are the array's");
}

//! Stories of placement: a job in words, a wish, and where its tasks go.

use super::*;
use muster_proto::v1::GresKind;

/// `n1:4` is a node with four CPUs, `n1:4:2` one with two GPUs as well.
fn shares(text: &str) -> Vec<Share> {
    let share = |word: &str| {
        let mut parts = word.split(':');
        let node = parts.next().unwrap().to_owned();
        let cpus: u32 = parts.next().unwrap().parse().unwrap();
        let gpus: u64 = parts.next().map_or(0, |n| n.parse().unwrap());
        let kind = Some(GresKind { name: "gpu".into(), of: "h100".into() });
        let gres = (gpus > 0)
            .then(|| GresMask { kind, mask: (1 << gpus) - 1, count: gpus })
            .into_iter()
            .collect();
        Share { node, cpus: (0..cpus).collect(), memory_mib: 1000, gres, ..Share::default() }
    };
    text.split(' ').map(share).collect()
}

fn shape(change: impl FnOnce(&mut StepShape)) -> StepShape {
    let mut shape = StepShape { cpus_per_task: 1, ..StepShape::default() };
    change(&mut shape);
    shape
}

fn gpus(count: u64, scope: GresScope) -> Vec<GresRequest> {
    let kind = Some(GresKind { name: "gpu".into(), of: String::new() });
    vec![GresRequest { kind, count, scope: scope as i32 }]
}

/// `n1=0,1 cpus 0-1 gpus 3` for each node.
fn show(placed: Result<Vec<NodePart>, Refusal>) -> String {
    let part = |p: &NodePart| {
        let tasks: Vec<String> = p.tasks.iter().map(u32::to_string).collect();
        let gpus = p.gres.iter().fold(0, |m, g| m | g.mask);
        let gpus = if gpus == 0 { String::new() } else { format!("/{gpus:b}") };
        format!("{}={}/{}{gpus}", p.node, tasks.join(","), p.cpus)
    };
    match placed {
        Ok(parts) => parts.iter().map(part).collect::<Vec<_>>().join(" "),
        Err(Refusal::Busy) => "busy".into(),
        Err(Refusal::Never { slurm, .. }) => slurm.into(),
    }
}

#[track_caller]
fn check(job: &str, change: impl FnOnce(&mut StepShape), expected: &str) {
    assert_eq!(show(place(&shares(job), &[], &shape(change))), expected);
}

#[test]
fn tasks_go_round_the_nodes_and_ranks_by_the_distribution() {
    check("n1:4 n2:4", |_| {}, "n1=0/0-3 n2=1/0-3");
    check("n1:4 n2:4", |s| s.tasks = 3, "n1=0,1/0-3 n2=2/0-3");
    check("n1:8 n2:2", |s| s.tasks = 8, "n1=0,1,2,3,4,5/0-7 n2=6,7/0-1");
    let cyclic = |s: &mut StepShape| {
        s.tasks = 4;
        s.distribution = Distribution::Cyclic.into();
    };
    check("n1:4 n2:4", cyclic, "n1=0,2/0-3 n2=1,3/0-3");
    let plane = |s: &mut StepShape| {
        (s.tasks, s.plane) = (8, 2);
        s.distribution = Distribution::Plane.into();
    };
    check("n1:4 n2:4", plane, "n1=0,1,4,5/0-3 n2=2,3,6,7/0-3");
    check(
        "n1:4 n2:4",
        |s| (s.min_nodes, s.max_nodes, s.tasks_per_node) = (2, 2, 2),
        "n1=0,1/0-3 n2=2,3/0-3",
    );
    check("n1:4 n2:4", |s| (s.min_nodes, s.max_nodes, s.tasks) = (2, 2, 1), "n1=0/0-3");
}

#[test]
fn nodes_are_chosen_by_name_by_exclusion_and_by_place() {
    check("n1:4 n2:4 n3:4", |s| s.nodes = vec!["n3".into(), "n2".into()], "n2=0/0-3 n3=1/0-3");
    check("n1:4 n2:4 n3:4", |s| s.excluded = vec!["n1".into()], "n2=0/0-3 n3=1/0-3");
    check("n1:4 n2:4 n3:4", |s| (s.relative, s.tasks) = (Some(1), 1), "n2=0/0-3");
    check("n1:4", |s| s.nodes = vec!["n9".into()], NODE_CONFIG);
    check("n1:4", |s| s.relative = Some(1), NODE_COUNT);
    check("n1:4 n2:4", |s| (s.min_nodes, s.tasks) = (3, 3), NODE_COUNT);
}

#[test]
fn what_the_job_does_not_have_is_refused_and_overcommit_takes_it_all_the_same() {
    check("n1:2 n2:2", |s| s.tasks = 5, TOO_MANY_CPUS);
    check("n1:2", |s| s.cpus_per_task = 3, TOO_MANY_CPUS);
    check("n1:2", |s| (s.tasks, s.overcommit) = (5, true), "n1=0,1,2,3,4/0-1");
    check("n1:2", |s| s.memory_mib = 1001, MEMORY);
    check("n1:2:2", |s| (s.gres, s.gres_given) = (gpus(3, GresScope::Node), true), GRES);
}

#[test]
fn gpus_go_by_node_by_task_and_by_step() {
    let ask = |count, scope, tasks| {
        move |s: &mut StepShape| {
            (s.gres, s.gres_given, s.tasks, s.exact) = (gpus(count, scope), true, tasks, true);
        }
    };
    check("n1:4:4 n2:4:4", ask(1, GresScope::Task, 3), "n1=0,1/0-1/11 n2=2/0/1");
    check("n1:4:4 n2:4:4", ask(2, GresScope::Node, 2), "n1=0/0/11 n2=1/0/11");
    check("n1:4:4 n2:4:4", ask(5, GresScope::Job, 2), "n1=0/0/1111 n2=1/0/1");
    check("n1:4:4", |s| s.gres_given = true, "n1=0/0-3");
    check("n1:4:4", |_| {}, "n1=0/0-3/1111");
}

#[test]
fn steps_beside_each_other_share_what_the_job_has() {
    let job = shares("n1:4:2");
    let one = shape(|s| (s.tasks, s.exact, s.gres_given) = (2, true, true));
    let first = place(&job, &[], &one).unwrap();
    assert_eq!(show(place(&job, &first, &one)), "n1=0,1/2-3");
    let both = [first.clone(), place(&job, &first, &one).unwrap()].concat();
    assert_eq!(show(place(&job, &both, &one)), "busy");
    assert_eq!(show(place(&job, &first, &shape(|_| {}))), "busy", "it wants the whole node");
    assert_eq!(show(place(&job, &both, &shape(|s| s.overlap = true))), "n1=0/0-3/11");
    let two = shape(|s| (s.tasks, s.exact) = (5, true));
    assert_eq!(show(place(&job, &first, &two)), TOO_MANY_CPUS, "never, not later");
    let gpu = shape(|s| {
        (s.tasks, s.exact, s.gres, s.gres_given) = (1, true, gpus(1, GresScope::Node), true)
    });
    let first = place(&job, &[], &gpu).unwrap();
    assert_eq!(show(place(&job, &first, &gpu)), "n1=0/1/10");
}

#[test]
fn a_step_of_one_node_goes_where_room_is() {
    let job = shares("n1:2 n2:2");
    let one = shape(|s| (s.tasks, s.min_nodes, s.max_nodes, s.exact) = (2, 1, 1, true));
    let first = place(&job, &[], &one).unwrap();
    assert_eq!(show(Ok(first.clone())), "n1=0,1/0-1");
    assert_eq!(show(place(&job, &first, &one)), "n2=0,1/0-1");
}

#[test]
fn cpu_lists_are_read_and_written() {
    for text in ["0-3,8", "5", "0,2,4-5", ""] {
        assert_eq!(cpu_text(&cpu_list(text)), text);
    }
}

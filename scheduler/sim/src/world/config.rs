//! The cluster of a seed, and what users ask of it.

use std::sync::Arc;

use muster_core::config::{ClusterConfig, Limits, PriorityWeights};
use muster_model::{
    ArraySpec, Capacity, Dependency, DependencyKind, DependencyTerm, GresKind, GresRequest,
    GresScope, IndexSet, Inventory, JobId, JobSpec, LaunchSpec, MemoryRequest, NodeConfig,
    NodeCount, Partition, PartitionState, Request, TimeLimit, Timestamp, Uid, User,
};

use crate::dice::Dice;

pub(super) const PARTITIONS: [&str; 2] = ["main", "short"];

pub(super) fn cluster(dice: &mut Dice) -> ClusterConfig {
    let count = dice.between(2, 6);
    let gpu = GresKind::new("gpu", Some("h100"));
    let nodes: Vec<NodeConfig> = (1..=count)
        .map(|n| {
            let cpus = [4, 8, 16][dice.below(3) as usize];
            let gpus = [0, 2, 4][dice.below(3) as usize];
            NodeConfig {
                name: format!("n{n}").into(),
                capacity: Capacity {
                    cpus,
                    memory_mib: 1000 * u64::from(cpus),
                    gres: (gpus > 0).then(|| (gpu.clone(), gpus)).into_iter().collect(),
                },
                sockets: 1,
                cores_per_socket: cpus,
                threads_per_core: 1,
                features: Vec::new(),
                auto_gpus: false,
                weight: 1,
            }
        })
        .collect();
    let partition = |name: &str, tier, state| Partition {
        name: name.into(),
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        default: name == PARTITIONS[0],
        state,
        max_time: TimeLimit::Unlimited,
        default_time: Some(TimeLimit::minutes(5)),
        min_nodes: 0,
        max_nodes: None,
        priority_tier: tier,
        priority_factor: 1,
        default_memory_per_node_mib: None,
        default_memory_per_cpu_mib: Some(100),
        max_memory_per_node_mib: None,
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        exclusive: false,
    };
    let partitions = vec![
        partition(PARTITIONS[0], 1, PartitionState::Up),
        partition(PARTITIONS[1], 2, PartitionState::Up),
    ];
    ClusterConfig {
        cluster: "sim".into(),
        nodes,
        partitions,
        licenses: vec![("solver".into(), 2)],
        limits: Limits {
            min_job_age_seconds: 60,
            requeue_delay_seconds: dice.below(10) as u32,
            max_array_size: 100,
            ..Limits::default()
        },
        priority: PriorityWeights { age: 1000, max_age_seconds: 3600, size: 100, partition: 100 },
        topology: muster_model::TopologyConfig::default(),
    }
}

pub(super) fn inventory(node: &NodeConfig, boot: u64) -> Inventory {
    Inventory {
        capacity: node.capacity.clone(),
        sockets: node.sockets,
        cores_per_socket: node.cores_per_socket,
        threads_per_core: node.threads_per_core,
        hostname: node.name.clone(),
        boot_id: format!("boot-{boot}").into(),
        ..Inventory::default()
    }
}

pub(super) fn spec(dice: &mut Dice, known: &[JobId], now: Timestamp) -> JobSpec {
    let user = 1000 + dice.below(2) as u32;
    let mut partitions: Vec<Box<str>> = vec![PARTITIONS[dice.below(2) as usize].into()];
    if dice.permille(200) {
        partitions = PARTITIONS.iter().map(|p| (*p).into()).collect();
    }
    let array = dice.permille(150).then(|| {
        let from = dice.below(5) as u32;
        let mut ranges = vec![(from, from + dice.below(6) as u32)];
        if dice.permille(300) {
            ranges.push((20, 20 + dice.below(3) as u32));
        }
        let throttle = dice.permille(400).then(|| 1 + dice.below(3) as u32);
        ArraySpec { indices: IndexSet::from_ranges(ranges), throttle }
    });
    JobSpec {
        name: ["train", "prepare", "eval"][dice.below(3) as usize].into(),
        user: User { uid: Uid(user), gid: user, name: format!("u{user}").into() },
        account: "".into(),
        qos: "".into(),
        partitions,
        request: Arc::new(request(dice)),
        time_limit: Some(TimeLimit::minutes(1 + dice.below(4) as u32)),
        time_min: None,
        begin: dice.permille(80).then(|| now.plus_seconds(dice.between(1, 120))),
        deadline: dice.permille(40).then(|| now.plus_seconds(dice.between(300, 2000))),
        dependency: dependency(dice, known),
        kill_on_invalid_dependency: dice.permille(500),
        array,
        het: None,
        held: dice.permille(50),
        nice: dice.between(-5, 100) as i32,
        priority: None,
        requeue: [None, Some(true), Some(false)][dice.below(3) as usize],
        licenses: if dice.permille(80) { vec![("solver".into(), 1)] } else { Vec::new() },
        reservation: None,
        comment: "".into(),
        wckey: "".into(),
        args: Box::default(),
        submit_line: Box::default(),
        launch: Arc::new(LaunchSpec {
            workdir: "/home".into(),
            no_kill: dice.permille(100),
            ..LaunchSpec::default()
        }),
        script_bytes: 10,
        env_bytes: 10,
    }
}

fn request(dice: &mut Dice) -> Request {
    let nodes = if dice.permille(300) { 2 + dice.below(2) as u32 } else { 1 };
    let gres = if dice.permille(400) {
        let scope = if dice.permille(500) { GresScope::Node } else { GresScope::Job };
        let of = dice.permille(500).then_some("h100");
        let count = u64::from(nodes) * (1 + dice.below(2));
        vec![GresRequest { kind: GresKind::new("gpu", of), count, scope }]
    } else {
        Vec::new()
    };
    Request {
        nodes: NodeCount { min: nodes, max: dice.permille(200).then_some(nodes + 1) },
        tasks: nodes * (1 + dice.below(2) as u32),
        tasks_given: true,
        cpus_per_task: 1 + dice.below(3) as u32,
        min_cpus_per_node: 1,
        memory: match dice.below(3) {
            0 => MemoryRequest::Default,
            1 => MemoryRequest::PerCpu(100 + dice.below(500)),
            _ => MemoryRequest::PerNode(100 + dice.below(2000)),
        },
        gres,
        exclusive: dice.permille(50),
        ..Request::default()
    }
}

fn dependency(dice: &mut Dice, known: &[JobId]) -> Dependency {
    if !dice.permille(200) {
        return Dependency { singleton: dice.permille(30), ..Dependency::default() };
    }
    let mut terms = Vec::new();
    for _ in 0..1 + dice.below(2) {
        let kind = match dice.below(5) {
            0 => DependencyKind::After { minutes: dice.below(2) as u32 },
            1 => DependencyKind::AfterAny,
            2 => DependencyKind::AfterOk,
            3 => DependencyKind::AfterNotOk,
            _ => DependencyKind::AfterCorr,
        };
        let job = dice.pick(known).copied();
        terms.extend(job.map(|job| DependencyTerm { kind, job, task: None }));
    }
    Dependency { terms, any: dice.permille(300), singleton: false }
}

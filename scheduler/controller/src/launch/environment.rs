//! The environment of a batch script: the submitter's, then what Slurm's tools and the training
//! frameworks read. A name that only an option puts there (`--mem`, `--gpus`) is left out without
//! it, for commands inside the job take these names as options.

use std::fmt::Write as _;

mod het;

use muster_model::{GresMask, GresRequest, GresScope, Hostlist, MemoryRequest};

use super::Facts;

/// Names that describe a job: those inherited from a job that submitted this one would lie.
const OF_A_JOB: [&str; 34] = [
    "SLURM_JOB",
    "SLURM_ARRAY_",
    "SLURM_STEP",
    "SLURM_TASK",
    "SLURM_GPUS",
    "SLURM_MEM_PER",
    "SLURM_NTASKS",
    "SLURM_CPUS_",
    "SLURM_CPU_BIND",
    "SLURM_NNODES",
    "SLURM_NODE",
    "SLURM_NPROCS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_GTIDS",
    "SLURM_RESTART_COUNT",
    "SLURM_SUBMIT_",
    "SLURM_TRES_",
    "SLURM_GPU_BIND",
    "SLURM_LAUNCH_",
    "SLURM_SRUN_",
    "SLURM_TOPOLOGY_",
    "SLURM_DISTRIBUTION",
    "SLURM_HINT",
    "SLURM_EXPORT_ENV",
    "SLURM_THREADS_PER_CORE",
    "SLURM_OVERCOMMIT",
    "SLURM_UMASK",
    "SLURM_HET_",
    "SLURM_PRIO_",
    "SLURM_OOM_",
    "SLURMD_",
    "PMI_",
    "PMIX_",
];

/// Names that choose GPUs: only what was granted counts.
const OF_GPUS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

/// Options that only tasks and frameworks read back, and the names under which they do.
const FROM_EXTRAS: [(&str, &str); 13] = [
    ("hint", "SLURM_HINT"),
    ("distribution", "SLURM_DISTRIBUTION"),
    ("export", "SLURM_EXPORT_ENV"),
    ("gpu-bind", "SLURM_GPU_BIND"),
    ("tres-bind", "SLURM_TRES_BIND"),
    ("gpu-freq", "SLURM_GPU_FREQ"),
    ("network", "SLURM_NETWORK"),
    ("profile", "SLURM_PROFILE"),
    ("ntasks-per-core", "SLURM_NTASKS_PER_CORE"),
    ("ntasks-per-socket", "SLURM_NTASKS_PER_SOCKET"),
    ("ntasks-per-gpu", "SLURM_NTASKS_PER_GPU"),
    ("tres-per-task", "SLURM_TRES_PER_TASK"),
    ("cpus-per-task", "SLURM_CPUS_PER_TASK"),
];

/// The whole environment of the batch script on the slice at `index`: NUL-separated NAME=VALUE.
#[must_use]
pub fn build(facts: &Facts<'_>, mates: &[Facts<'_>], index: usize, user_env: &[u8]) -> Vec<u8> {
    let mut env = Environment::inherited(user_env);
    who_and_where(&mut env, facts);
    sizes(&mut env, facts, index);
    asked_for(&mut env, facts);
    gpus(&mut env, facts.slices[index].1.gres.as_slice());
    array(&mut env, facts);
    het::components(&mut env, facts, mates);
    env.bytes
}

/// The job's nodes as a hostlist, in rank order.
#[must_use]
pub fn node_list(facts: &Facts<'_>) -> String {
    facts.slices.iter().map(|(node, _)| *node).collect::<Hostlist>().to_string()
}

struct Environment {
    bytes: Vec<u8>,
    /// Start of each inherited NAME, for "unless it is there".
    has: Vec<Box<str>>,
}

impl Environment {
    fn inherited(user_env: &[u8]) -> Self {
        let mut env = Environment { bytes: Vec::with_capacity(user_env.len() + 2048), has: vec![] };
        for entry in user_env.split(|b| *b == 0).filter(|e| !e.is_empty()) {
            let Some(end) = entry.iter().position(|b| *b == b'=').filter(|end| *end > 0) else {
                continue;
            };
            let Ok(name) = std::str::from_utf8(&entry[..end]) else { continue };
            if OF_A_JOB.iter().any(|prefix| name.starts_with(prefix)) || OF_GPUS.contains(&name) {
                continue;
            }
            env.bytes.extend_from_slice(entry);
            env.bytes.push(0);
            if matches!(name, "PATH" | "HOME" | "USER" | "LOGNAME" | "SHELL" | "MUSTER_CONF") {
                env.has.push(name.into());
            }
        }
        env
    }

    fn set(&mut self, name: &str, value: impl AsRef<str>) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'=');
        self.bytes.extend(value.as_ref().bytes().filter(|b| *b != 0));
        self.bytes.push(0);
    }

    fn number(&mut self, name: &str, value: impl Into<i64>) {
        self.set(name, value.into().to_string());
    }

    fn unless_there(&mut self, name: &str, value: &str) {
        if !self.has.iter().any(|has| &**has == name) {
            self.set(name, value);
        }
    }
}

fn who_and_where(env: &mut Environment, facts: &Facts<'_>) {
    let spec = facts.spec;
    for name in ["USER", "LOGNAME"] {
        env.unless_there(name, &spec.user.name);
    }
    env.unless_there("HOME", &facts.account.home);
    env.unless_there("SHELL", &facts.account.shell);
    env.unless_there("PATH", "/usr/local/bin:/usr/bin:/bin");
    // Commands inside the job must find the cluster even when nothing was exported.
    env.unless_there("MUSTER_CONF", facts.config_path);
    let id = facts.job.to_string();
    let nodes = node_list(facts);
    let (address, pattern) = facts.topology.address(facts.slices[0].0);
    for (name, value) in [
        ("SLURM_JOB_ID", id.as_str()),
        ("SLURM_JOBID", &id),
        ("SLURM_JOB_NAME", &spec.name),
        ("SLURM_JOB_NODELIST", &nodes),
        ("SLURM_NODELIST", &nodes),
        ("SLURM_JOB_PARTITION", facts.partition),
        ("SLURM_JOB_ACCOUNT", &spec.account),
        ("SLURM_JOB_QOS", &spec.qos),
        ("SLURM_JOB_USER", &spec.user.name),
        ("SLURM_CLUSTER_NAME", facts.cluster),
        ("SLURM_CONF", facts.config_path),
        ("SLURM_SUBMIT_DIR", &spec.launch.submit_dir),
        ("SLURM_SUBMIT_HOST", &spec.launch.submit_host),
        ("SLURMD_NODENAME", facts.slices[0].0),
        ("SLURM_TOPOLOGY_ADDR", address.as_str()),
        ("SLURM_TOPOLOGY_ADDR_PATTERN", &pattern),
        ("ENVIRONMENT", "BATCH"),
        ("SLURM_GTIDS", "0"),
        ("SLURM_PROCID", "0"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_NODEID", "0"),
        ("SLURM_PRIO_PROCESS", "0"),
        ("SLURM_OOM_KILL_STEP", "0"),
    ] {
        // An account or QOS that nobody named is no variable at all.
        if !value.is_empty() {
            env.set(name, value);
        }
    }
    env.number("SLURM_JOB_UID", spec.user.uid.0);
    env.number("SLURM_JOB_GID", spec.user.gid);
    if let Some(group) = facts.account.groups.first() {
        env.set("SLURM_JOB_GROUP", group);
    }
    env.set("SLURM_UMASK", format!("{:04o}", spec.launch.umask));
    env.number("SLURM_JOB_START_TIME", facts.started_at.seconds());
    if let Some(end_at) = facts.end_at {
        env.number("SLURM_JOB_END_TIME", end_at.seconds());
    }
    if facts.restarts > 0 {
        env.number("SLURM_RESTART_COUNT", facts.restarts);
    }
}

fn sizes(env: &mut Environment, facts: &Facts<'_>, index: usize) {
    let nodes = u32::try_from(facts.slices.len()).expect("a job has fewer nodes than u32");
    env.number("SLURM_JOB_NUM_NODES", nodes);
    env.number("SLURM_NNODES", nodes);
    env.set("SLURM_JOB_CPUS_PER_NODE", repeated(facts.slices.iter().map(|(_, s)| s.cpus.len())));
    env.set("SLURM_TASKS_PER_NODE", repeated(facts.slices.iter().map(|(_, s)| s.tasks.max(1))));
    env.number("SLURM_CPUS_ON_NODE", facts.slices[index].1.cpus.len());
    let request = &facts.spec.request;
    if let Some(per_node) = request.tasks_per_node {
        env.number("SLURM_NTASKS_PER_NODE", per_node);
    }
    if request.tasks_given || request.tasks_per_node.is_some() {
        let tasks = match request.tasks_per_node {
            Some(per_node) if !request.tasks_given => per_node.saturating_mul(nodes),
            _ => request.tasks,
        };
        env.number("SLURM_NTASKS", tasks);
        env.number("SLURM_NPROCS", tasks);
    }
}

fn asked_for(env: &mut Environment, facts: &Facts<'_>) {
    let spec = facts.spec;
    let request = &spec.request;
    let extra = |name: &str| spec.launch.extras.iter().find(|(n, _)| &**n == name).map(|(_, v)| v);
    if request.cpus_per_task > 1 && extra("cpus-per-task").is_none() {
        env.number("SLURM_CPUS_PER_TASK", request.cpus_per_task);
    }
    let given = extra("cpus-per-task").is_some() || request.cpus_per_task > 1;
    if given && extra("tres-per-task").is_none() {
        env.set("SLURM_TRES_PER_TASK", format!("cpu={}", request.cpus_per_task));
    }
    for (option, name) in FROM_EXTRAS {
        if let Some(value) = extra(option) {
            env.set(name, value);
        }
    }
    let whole_node = facts.slices[0].1.memory_mib;
    match request.memory {
        MemoryRequest::Default => {}
        MemoryRequest::PerNode(0) => env.set("SLURM_MEM_PER_NODE", whole_node.to_string()),
        MemoryRequest::PerNode(mib) => env.set("SLURM_MEM_PER_NODE", mib.to_string()),
        MemoryRequest::PerCpu(mib) => env.set("SLURM_MEM_PER_CPU", mib.to_string()),
        MemoryRequest::PerGpu(mib) => env.set("SLURM_MEM_PER_GPU", mib.to_string()),
    }
    for gres in request.gres.iter().filter(|g| &*g.kind.name == "gpu") {
        let name = match gres.scope {
            GresScope::Job => "SLURM_GPUS",
            GresScope::Node => "SLURM_GPUS_PER_NODE",
            GresScope::Task => "SLURM_GPUS_PER_TASK",
            GresScope::Socket => "SLURM_GPUS_PER_SOCKET",
        };
        env.set(name, gpu_count(gres));
    }
    if let Some(per_gpu) = request.cpus_per_gpu {
        env.number("SLURM_CPUS_PER_GPU", per_gpu);
    }
    if let Some(threads) = request.threads_per_core {
        env.number("SLURM_THREADS_PER_CORE", threads);
    }
    if spec.launch.overcommit {
        env.set("SLURM_OVERCOMMIT", "1");
    }
    if !spec.dependency.is_empty() {
        let text = muster_proto::convert::job::dependency_text(&spec.dependency);
        env.set("SLURM_JOB_DEPENDENCY", text);
    }
    if !spec.licenses.is_empty() {
        let show = |(name, count): &(Box<str>, u32)| format!("{name}:{count}");
        let text = spec.licenses.iter().map(show).collect::<Vec<_>>().join(",");
        env.set("SLURM_JOB_LICENSES", text);
    }
    if let Some(reservation) = &spec.reservation {
        env.set("SLURM_JOB_RESERVATION", reservation);
    }
}

fn gpu_count(gres: &GresRequest) -> String {
    match &gres.kind.of {
        Some(of) => format!("{of}:{}", gres.count),
        None => gres.count.to_string(),
    }
}

/// GPU numbers are the node's own. An agent that confines devices renumbers them from 0, since
/// the driver then shows the granted ones alone.
fn gpus(env: &mut Environment, gres: &[GresMask]) {
    let gpus = gres.iter().filter(|g| &*g.kind.name == "gpu");
    let (mask, count) = gpus.fold((0, 0), |(mask, count), g| (mask | g.mask, count + g.count));
    if count > 0 {
        env.set("SLURM_GPUS_ON_NODE", count.to_string());
    }
    if mask != 0 {
        let units = (0..64u32).filter(|bit| mask >> bit & 1 == 1);
        let list = units.map(|unit| unit.to_string()).collect::<Vec<_>>().join(",");
        env.set("SLURM_JOB_GPUS", &list);
        for name in OF_GPUS {
            env.set(name, &list);
        }
    }
    let shards: u64 = gres.iter().filter(|g| &*g.kind.name == "shard").map(|g| g.count).sum();
    if shards > 0 {
        env.set("SLURM_SHARDS_ON_NODE", shards.to_string());
    }
}

fn array(env: &mut Environment, facts: &Facts<'_>) {
    let Some(array) = &facts.array else { return };
    env.number("SLURM_ARRAY_JOB_ID", array.job.0);
    env.number("SLURM_ARRAY_TASK_ID", array.task);
    env.set("SLURM_ARRAY_TASK_COUNT", array.count.to_string());
    env.number("SLURM_ARRAY_TASK_MIN", array.min);
    env.number("SLURM_ARRAY_TASK_MAX", array.max);
    env.number("SLURM_ARRAY_TASK_STEP", array.step);
}

/// `72(x2),36`: runs of equal numbers.
fn repeated(numbers: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((last, times)) if *last == number => *times += 1,
            _ => runs.push((number, 1)),
        }
    }
    let mut text = String::new();
    for (i, (number, times)) in runs.into_iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let written = match times {
            1 => write!(text, "{comma}{number}"),
            _ => write!(text, "{comma}{number}(x{times})"),
        };
        written.expect("a String takes every write");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::ArrayFacts;
    use super::*;
    use crate::users::Account;
    use muster_model::{
        CpuSet, GresKind, IndexSet, JobId, JobSpec, NodeId, Slice, Timestamp, Uid, User,
    };
    use muster_proto::convert::job::spec_in;
    use muster_proto::v1;

    fn spec(change: impl FnOnce(&mut v1::JobSpec)) -> JobSpec {
        let launch = v1::LaunchSpec {
            workdir: "/w".into(),
            submit_dir: "/w".into(),
            submit_host: "login".into(),
            umask: 0o22,
            ..Default::default()
        };
        let mut wire = v1::JobSpec {
            name: "train".into(),
            request: Some(v1::Request::default()),
            launch: Some(launch),
            ..Default::default()
        };
        change(&mut wire);
        let mut spec = spec_in(&wire, 1001).unwrap();
        spec.user = User { uid: Uid(1000), gid: 100, name: "ann".into() };
        spec
    }

    fn slice(node: u32, cpus: u32, tasks: u32, gpus: u64) -> Slice {
        let kind = GresKind::new("gpu", Some("h100"));
        let gres = (gpus != 0)
            .then(|| GresMask { kind, mask: gpus, count: gpus.count_ones().into() })
            .into_iter()
            .collect();
        Slice { node: NodeId(node), cpus: CpuSet::first(cpus), memory_mib: 4096, gres, tasks }
    }

    fn built(
        spec: &JobSpec,
        slices: &[(&str, Slice)],
        array: Option<ArrayFacts>,
        env: &[u8],
    ) -> String {
        let account = Account {
            uid: 1000,
            gid: 100,
            name: "ann".into(),
            home: "/home/ann".into(),
            shell: "/bin/bash".into(),
            groups: vec!["users".into()],
        };
        let switch = |name: &str, nodes: &[&str], switches: &[&str]| muster_model::SwitchConfig {
            name: name.into(),
            nodes: nodes.iter().map(|n| (*n).into()).collect(),
            switches: switches.iter().map(|n| (*n).into()).collect(),
            rails: 1,
        };
        let topology = muster_model::TopologyConfig {
            switches: vec![switch("leaf", &["n1"], &[]), switch("spine", &[], &["leaf"])],
            blocks: Vec::new(),
        };
        let facts = Facts {
            cluster: "demo",
            config_path: "/etc/muster/muster.toml",
            job: JobId(7),
            array,
            attempt: 1,
            restarts: 0,
            spec,
            partition: "main",
            started_at: Timestamp::from_seconds(1_700_000_000),
            end_at: Some(Timestamp::from_seconds(1_700_003_600)),
            slices: slices.iter().map(|(node, slice)| (*node, slice)).collect(),
            account: &account,
            topology: &topology,
            kill_wait_seconds: 30,
            unkillable_seconds: 60,
        };
        let bytes = build(&facts, &[], 0, env);
        let mut lines: Vec<&str> =
            std::str::from_utf8(&bytes).unwrap().split_terminator('\0').collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    #[test]
    fn a_gang_with_gpus_sees_what_the_frameworks_read() {
        let spec = spec(|s| {
            let request = s.request.as_mut().unwrap();
            request.min_nodes = 3;
            request.tasks_per_node = Some(2);
            request.cpus_per_task = 4;
            request.memory =
                Some(v1::Memory { request: Some(v1::memory::Request::PerCpuMib(2000)) });
            request.gres = vec![v1::GresRequest {
                kind: Some(v1::GresKind { name: "gpu".into(), of: "h100".into() }),
                count: 2,
                scope: v1::GresScope::Node as i32,
            }];
        });
        let slices = [
            ("n1", slice(1, 8, 2, 0b110)),
            ("n2", slice(2, 8, 2, 0b11)),
            ("n3", slice(3, 4, 1, 0b11)),
        ];
        let env = b"HOME=/home/ann\0PATH=/opt/bin\0SLURM_JOB_ID=3\0CUDA_VISIBLE_DEVICES=7\0A=b c\0";
        let expected = "\
A=b c
CUDA_VISIBLE_DEVICES=1,2
ENVIRONMENT=BATCH
GPU_DEVICE_ORDINAL=1,2
HOME=/home/ann
LOGNAME=ann
MUSTER_CONF=/etc/muster/muster.toml
PATH=/opt/bin
ROCR_VISIBLE_DEVICES=1,2
SHELL=/bin/bash
SLURMD_NODENAME=n1
SLURM_CLUSTER_NAME=demo
SLURM_CONF=/etc/muster/muster.toml
SLURM_CPUS_ON_NODE=8
SLURM_CPUS_PER_TASK=4
SLURM_GPUS_ON_NODE=2
SLURM_GPUS_PER_NODE=h100:2
SLURM_GTIDS=0
SLURM_JOBID=7
SLURM_JOB_CPUS_PER_NODE=8(x2),4
SLURM_JOB_END_TIME=1700003600
SLURM_JOB_GID=100
SLURM_JOB_GPUS=1,2
SLURM_JOB_GROUP=users
SLURM_JOB_ID=7
SLURM_JOB_NAME=train
SLURM_JOB_NODELIST=n[1-3]
SLURM_JOB_NUM_NODES=3
SLURM_JOB_PARTITION=main
SLURM_JOB_START_TIME=1700000000
SLURM_JOB_UID=1000
SLURM_JOB_USER=ann
SLURM_LOCALID=0
SLURM_MEM_PER_CPU=2000
SLURM_NNODES=3
SLURM_NODEID=0
SLURM_NODELIST=n[1-3]
SLURM_NPROCS=6
SLURM_NTASKS=6
SLURM_NTASKS_PER_NODE=2
SLURM_OOM_KILL_STEP=0
SLURM_PRIO_PROCESS=0
SLURM_PROCID=0
SLURM_SUBMIT_DIR=/w
SLURM_SUBMIT_HOST=login
SLURM_TASKS_PER_NODE=2(x2),1
SLURM_TOPOLOGY_ADDR=spine.leaf.n1
SLURM_TOPOLOGY_ADDR_PATTERN=switch.switch.node
SLURM_TRES_PER_TASK=cpu=4
SLURM_UMASK=0022
USER=ann
ZE_AFFINITY_MASK=1,2";
        assert_eq!(built(&spec, &slices, None, env), expected);
    }

    #[test]
    fn what_was_not_asked_for_is_not_there() {
        let text = built(&spec(|_| ()), &[("n1", slice(1, 1, 1, 0))], None, b"");
        for name in [
            "SLURM_NTASKS=",
            "SLURM_MEM_PER",
            "SLURM_GPUS",
            "CUDA",
            "SLURM_ARRAY",
            "SLURM_CPUS_PER_TASK",
            "SLURM_RESTART",
        ] {
            assert!(!text.contains(name), "{name}");
        }
    }

    #[test]
    fn an_array_task_knows_its_place() {
        let indices: IndexSet = IndexSet::from_ranges(vec![(1, 1), (3, 3), (5, 5)]);
        let array = ArrayFacts::new(JobId(6), 3, &indices);
        let text = built(&spec(|_| ()), &[("n1", slice(1, 1, 1, 0))], Some(array), b"");
        for line in
            ["JOB_ID=6", "TASK_ID=3", "TASK_COUNT=3", "TASK_MIN=1", "TASK_MAX=5", "TASK_STEP=2"]
        {
            assert!(text.contains(&format!("SLURM_ARRAY_{line}\n")), "{line}");
        }
    }
}

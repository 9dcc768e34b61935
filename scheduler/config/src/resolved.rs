//! The values in force: defaults filled in, hostlists expanded, members of partitions by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use muster_model::resources::{Capacity, GresKind};
use muster_model::time::{parse_limit, parse_seconds};
use muster_model::{Hostlist, NodeConfig, Partition, PartitionState, TimeLimit, TopologyConfig};

use crate::choices::{self, Backfill, MpiDefault, Order, Packing, Shadows};
use crate::raw;

/// Everything the file says. Units are in the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    pub cluster: String,
    /// The controller's durable data: log, history.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    pub controller: Controller,
    pub security: Security,
    pub scheduler: Scheduler,
    pub priority: Priority,
    pub history: History,
    pub agent: Agent,
    /// (name, count), by name.
    pub licenses: Vec<(Box<str>, u32)>,
    /// In the order written, hostlists expanded.
    pub nodes: Vec<NodeConfig>,
    /// Where nodes are reached, by name, as far as the file says.
    pub addresses: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
    /// Sound for these nodes.
    pub topology: TopologyConfig,
}

/// Where the controller is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Unix socket on the controller's host.
    pub socket: PathBuf,
    /// TCP with TLS.
    pub listen: Option<SocketAddr>,
    /// `host:port` for agents and commands on other hosts; `None`: the socket.
    pub address: Option<String>,
}

/// Keys and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// Signs agent tokens, client tokens and launch credentials.
    pub cluster_key: Option<PathBuf>,
    pub tls: Tls,
    /// User names or numbers.
    pub admins: Vec<String>,
    pub operators: Vec<String>,
    pub allow_root_jobs: bool,
}

/// Files for TLS. Certificate and key are the daemon's on this host; clients need the CA alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

/// Bounds and intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    pub max_jobs: u32,
    pub max_array_size: u32,
    pub first_job_id: u32,
    pub min_job_age_seconds: u32,
    pub max_script_bytes: u32,
    pub max_environment_bytes: u32,
    pub requeue: bool,
    pub max_requeues: u32,
    pub requeue_delay_seconds: u32,
    pub kill_on_invalid_dependency: bool,
    pub enforce_partition_limits: bool,
    pub kill_wait_seconds: u32,
    /// `salloc` without a command begins a shell on the first node.
    pub interactive_step: bool,
    /// What `srun` does without `--mpi`.
    pub mpi_default: MpiDefault,
    pub unkillable_seconds: u32,
    pub heartbeat_seconds: u32,
    pub node_timeout_seconds: u32,
    pub sample_seconds: u32,
    pub pass_interval_seconds: u32,
    /// Work units of one pass.
    pub pass_fuel: u64,
    /// A pass that takes more than twice this is slow.
    pub pass_target_ms: u32,
    /// Dumps of passes that are kept; 0: none is written.
    pub pass_dumps: u32,
    pub order: Order,
    pub backfill: Backfill,
    pub shadows: Shadows,
    pub packing: Packing,
}

/// Weights of the priority's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    pub age: u32,
    pub max_age_seconds: u32,
    pub size: u32,
    pub partition: u32,
}

/// Where finished jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// `sqlite:///path` or `postgres://...`.
    pub url: String,
}

/// What agents do on their hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// `%n` stands for the node's name.
    pub spool_dir: PathBuf,
    pub cgroup: CgroupMode,
    pub prolog: Option<PathBuf>,
    pub epilog: Option<PathBuf>,
    pub prolog_timeout_seconds: u32,
    /// In a path, `%n` stands for the node's name.
    pub nvml_library: NvmlLibrary,
    /// A file, or a name for the dynamic linker.
    pub pmix_library: String,
    /// Between two looks at the health of GPUs.
    pub gpu_check_seconds: u32,
    pub gpu_numbering: GpuNumbering,
    /// TCP with TLS for commands on other hosts; `None`: this host's socket alone.
    pub listen: Option<SocketAddr>,
}

/// Where NVIDIA's management library is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NvmlLibrary {
    /// Where the system's loader finds it, if it does.
    #[default]
    System,
    /// It is not asked: GPUs are as declared.
    None,
    Path(PathBuf),
}

/// How CUDA_VISIBLE_DEVICES names GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GpuNumbering {
    /// By number, as Slurm does: from 0 where a job sees its own GPUs only.
    #[default]
    Index,
    /// By the driver's names (`GPU-...`), which hold inside and outside a job.
    Uuid,
}

/// Which cgroup interface confines jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// What the host offers; nothing when it offers nothing.
    #[default]
    Auto,
    V2,
    V1,
    None,
}

impl Config {
    /// The spool of one node's agent.
    #[must_use]
    pub fn spool_dir(&self, node: &str) -> PathBuf {
        PathBuf::from(self.agent.spool_dir.to_string_lossy().replace("%n", node))
    }

    /// The NVIDIA library that one node's agent loads.
    #[must_use]
    pub fn nvml_library(&self, node: &str) -> NvmlLibrary {
        match &self.agent.nvml_library {
            NvmlLibrary::Path(path) => {
                NvmlLibrary::Path(path.to_string_lossy().replace("%n", node).into())
            }
            other => other.clone(),
        }
    }

    /// The socket on which one node's agent serves its local users.
    #[must_use]
    pub fn agent_socket(&self, node: &str) -> PathBuf {
        self.run_dir.join(format!("agent-{node}.sock"))
    }

    /// Where the tokens of this host are issued, when no agent of a node runs on it.
    #[must_use]
    pub fn token_socket(&self) -> PathBuf {
        self.run_dir.join("tokens.sock")
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeConfig> {
        self.nodes.iter().find(|n| &*n.name == name)
    }
}

pub(crate) fn resolve(path: &Path, file: raw::File) -> Result<Config, String> {
    word("cluster", &file.cluster)?;
    let state_dir = absolute("state_dir", file.state_dir.as_deref(), "/var/lib/muster")?;
    let run_dir = absolute("run_dir", file.run_dir.as_deref(), "/run/muster")?;
    let nodes = nodes(&file.node)?;
    let addresses = addresses(&file.node)?;
    let partitions = partitions(&file.partition, &nodes)?;
    let topology = crate::topology::resolve(&file.switch, &file.block, &nodes)?;
    let tls = tls(&file.security)?;
    let listen = agent_listen(&file, &tls)?;
    let history_default = format!("sqlite://{}/history.db", state_dir.display());
    Ok(Config {
        path: path.to_owned(),
        controller: controller(&file.controller, &run_dir, &tls, &file.security)?,
        security: security(&file.security, tls)?,
        scheduler: scheduler(&file.scheduler)?,
        priority: priority(&file.priority)?,
        history: history(file.history.url, history_default)?,
        agent: agent(&file.agent, listen)?,
        licenses: file.licenses.into_iter().map(|(name, n)| (name.into(), n)).collect(),
        cluster: file.cluster,
        state_dir,
        run_dir,
        nodes,
        addresses,
        partitions,
        topology,
    })
}

fn controller(
    raw: &raw::Controller,
    run_dir: &Path,
    tls: &Tls,
    security: &raw::Security,
) -> Result<Controller, String> {
    let default = run_dir.join("controller.sock");
    let socket = absolute("controller.socket", raw.socket.as_deref(), &default.to_string_lossy())?;
    let listen = raw.listen.as_deref().map(|text| socket_address("controller.listen", text));
    let listen = listen.transpose()?;
    if listen.is_some() && (tls.cert.is_none() || security.cluster_key.is_none()) {
        return Err("controller.listen needs security.tls_cert, tls_key and cluster_key".into());
    }
    if let Some(address) = &raw.address {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.ok_or_else(|| format!("controller.address = {address:?}: use HOST:PORT"))?;
    }
    Ok(Controller { socket, listen, address: raw.address.clone() })
}

fn socket_address(key: &str, text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| format!("{key} = {text:?}: use ADDRESS:PORT"))
}

/// Where an agent listens when the file does not say.
const AGENT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 6818);

/// In a cluster of several hosts agents listen, wherever they have what it takes.
fn agent_listen(file: &raw::File, tls: &Tls) -> Result<Option<SocketAddr>, String> {
    let able = tls.cert.is_some() && file.security.cluster_key.is_some();
    match file.agent.listen.as_deref() {
        Some("none") => Ok(None),
        Some(_) if !able => {
            Err("agent.listen needs security.tls_cert, tls_key and cluster_key".into())
        }
        Some(text) => socket_address("agent.listen", text).map(Some),
        None => Ok((able && file.controller.address.is_some()).then_some(AGENT_LISTEN)),
    }
}

/// The addresses of nodes: a hostlist as long as that of their names.
fn addresses(raw: &[raw::Node]) -> Result<BTreeMap<String, String>, String> {
    let mut out = BTreeMap::new();
    for node in raw {
        let Some(text) = &node.address else { continue };
        let fault = |fault: String| format!("node {:?}: address {text:?}: {fault}", node.name);
        let all = Hostlist::parse(text).map_err(|f| fault(f.to_string()))?.0;
        let names = Hostlist::parse(&node.name).map_err(|f| fault(f.to_string()))?.0;
        if all.len() != names.len() {
            return Err(fault(format!("{} for {} nodes", all.len(), names.len())));
        }
        out.extend(names.into_iter().zip(all));
    }
    Ok(out)
}

fn tls(raw: &raw::Security) -> Result<Tls, String> {
    if raw.tls_cert.is_some() != raw.tls_key.is_some() {
        return Err("security: tls_cert and tls_key belong together".into());
    }
    Ok(Tls {
        cert: path("security.tls_cert", raw.tls_cert.as_deref())?,
        key: path("security.tls_key", raw.tls_key.as_deref())?,
        ca: path("security.tls_ca", raw.tls_ca.as_deref())?,
    })
}

fn security(raw: &raw::Security, tls: Tls) -> Result<Security, String> {
    Ok(Security {
        cluster_key: path("security.cluster_key", raw.cluster_key.as_deref())?,
        tls,
        admins: raw.admins.clone().unwrap_or_else(|| vec!["root".into()]),
        operators: raw.operators.clone(),
        allow_root_jobs: raw.allow_root_jobs,
    })
}

fn scheduler(raw: &raw::Scheduler) -> Result<Scheduler, String> {
    let heartbeat = at_least("heartbeat_seconds", raw.heartbeat_seconds.unwrap_or(10), 1)?;
    let timeout = raw.node_timeout_seconds.unwrap_or(300);
    if timeout < heartbeat.saturating_mul(2) {
        return Err(format!(
            "scheduler.node_timeout_seconds = {timeout} must be at least twice heartbeat_seconds \
             ({heartbeat})"
        ));
    }
    let max_array_size = at_least("max_array_size", raw.max_array_size.unwrap_or(100_001), 1)?;
    if max_array_size > 4_000_001 {
        return Err(format!("scheduler.max_array_size = {max_array_size} exceeds 4000001"));
    }
    Ok(Scheduler {
        max_jobs: at_least("max_jobs", raw.max_jobs.unwrap_or(2_000_000), 1)?,
        max_array_size,
        first_job_id: at_least("first_job_id", raw.first_job_id.unwrap_or(1), 1)?,
        min_job_age_seconds: raw.min_job_age_seconds.unwrap_or(300),
        max_script_bytes: raw.max_script_bytes.unwrap_or(4 << 20),
        max_environment_bytes: raw.max_environment_bytes.unwrap_or(2 << 20),
        requeue: raw.requeue.unwrap_or(true),
        max_requeues: raw.max_requeues.unwrap_or(5),
        requeue_delay_seconds: raw.requeue_delay_seconds.unwrap_or(0),
        kill_on_invalid_dependency: raw.kill_on_invalid_dependency.unwrap_or(false),
        enforce_partition_limits: raw.enforce_partition_limits.unwrap_or(true),
        kill_wait_seconds: raw.kill_wait_seconds.unwrap_or(30),
        interactive_step: raw.interactive_step.unwrap_or(false),
        mpi_default: choices::mpi_default(raw.mpi_default.as_deref())?,
        unkillable_seconds: raw.unkillable_seconds.unwrap_or(60),
        heartbeat_seconds: heartbeat,
        node_timeout_seconds: timeout,
        sample_seconds: at_least("sample_seconds", raw.sample_seconds.unwrap_or(30), 1)?,
        pass_interval_seconds: at_least(
            "pass_interval_seconds",
            raw.pass_interval_seconds.unwrap_or(30),
            1,
        )?,
        pass_fuel: raw.pass_fuel.unwrap_or(50_000_000).max(1),
        pass_target_ms: at_least("pass_target_ms", raw.pass_target_ms.unwrap_or(250), 1)?,
        pass_dumps: raw.pass_dumps.unwrap_or(4),
        order: choices::order(raw.order.as_deref())?,
        backfill: choices::backfill(raw.backfill.as_deref())?,
        shadows: choices::shadows(raw.shadows.as_ref())?,
        packing: choices::packing(raw.packing.as_deref())?,
    })
}

fn priority(raw: &raw::Priority) -> Result<Priority, String> {
    let max_age = match raw.max_age.as_deref().map(parse_seconds) {
        None => 7 * 86_400,
        Some(Ok(Some(seconds))) => {
            u32::try_from(seconds).map_err(|_| "priority.max_age is too long".to_owned())?
        }
        Some(Ok(None)) => return Err("priority.max_age must be limited".into()),
        Some(Err(fault)) => return Err(format!("priority.max_age: {fault}")),
    };
    Ok(Priority {
        age: raw.age.unwrap_or(1000),
        max_age_seconds: max_age,
        size: raw.size.unwrap_or(0),
        partition: raw.partition.unwrap_or(1000),
    })
}

fn history(url: Option<String>, default: String) -> Result<History, String> {
    let url = url.unwrap_or(default);
    if ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
        Ok(History { url })
    } else {
        Err("history.url: use sqlite:///path/history.db or postgres://...".into())
    }
}

fn agent(raw: &raw::Agent, listen: Option<SocketAddr>) -> Result<Agent, String> {
    let cgroup = match raw.cgroup.as_deref().unwrap_or("auto") {
        "auto" => CgroupMode::Auto,
        "v2" => CgroupMode::V2,
        "v1" => CgroupMode::V1,
        "none" => CgroupMode::None,
        other => return Err(format!("agent.cgroup = {other:?}: use auto, v2, v1 or none")),
    };
    Ok(Agent {
        spool_dir: absolute("agent.spool_dir", raw.spool_dir.as_deref(), "/var/spool/muster/%n")?,
        cgroup,
        prolog: path("agent.prolog", raw.prolog.as_deref())?,
        epilog: path("agent.epilog", raw.epilog.as_deref())?,
        prolog_timeout_seconds: raw.prolog_timeout_seconds.unwrap_or(300),
        nvml_library: match raw.nvml_library.as_deref() {
            None | Some("system") => NvmlLibrary::System,
            Some("none") => NvmlLibrary::None,
            Some(text) => NvmlLibrary::Path(absolute("agent.nvml_library", Some(text), "")?),
        },
        pmix_library: match raw.pmix_library.as_deref() {
            None | Some("system") => "libpmix.so.2".to_owned(),
            Some(text) => {
                absolute("agent.pmix_library", Some(text), "")?.to_string_lossy().into_owned()
            }
        },
        gpu_check_seconds: at_least(
            "agent.gpu_check_seconds",
            raw.gpu_check_seconds.unwrap_or(10),
            1,
        )?,
        gpu_numbering: match raw.gpu_numbering.as_deref().unwrap_or("index") {
            "index" => GpuNumbering::Index,
            "uuid" => GpuNumbering::Uuid,
            other => return Err(format!("agent.gpu_numbering = {other:?}: use index or uuid")),
        },
        listen,
    })
}

fn nodes(raw: &[raw::Node]) -> Result<Vec<NodeConfig>, String> {
    let mut out: Vec<NodeConfig> = Vec::new();
    let mut seen = BTreeSet::new();
    for node in raw {
        let names = Hostlist::parse(&node.name).map_err(|f| format!("[[node]] name: {f}"))?;
        if names.0.is_empty() {
            return Err("[[node]] name is empty".into());
        }
        let (sockets, cores, threads) = shape(node)?;
        let capacity = Capacity {
            cpus: node.cpus,
            memory_mib: node.memory.0,
            gres: gres(&node.name, &node.gres.0)?,
        };
        let auto_gpus = node.gres.0.iter().any(|word| word == AUTO);
        if auto_gpus && capacity.gres.keys().any(|kind| &*kind.name == "gpu") {
            return Err(format!("node {:?}: gres names GPUs and \"auto\": use one", node.name));
        }
        for feature in &node.features {
            word(&format!("node {}: feature", node.name), feature)?;
        }
        for name in names.0 {
            if !seen.insert(name.clone()) {
                return Err(format!("node {name:?} is configured twice"));
            }
            out.push(NodeConfig {
                name: name.into(),
                capacity: capacity.clone(),
                sockets,
                cores_per_socket: cores,
                threads_per_core: threads,
                features: node.features.iter().map(|f| f.as_str().into()).collect(),
                auto_gpus,
                weight: node.weight.unwrap_or(1),
            });
        }
    }
    Ok(out)
}

/// Sockets, cores per socket and threads per core; what is not given follows from the CPUs.
fn shape(node: &raw::Node) -> Result<(u32, u32, u32), String> {
    let name = &node.name;
    if node.cpus == 0 || node.cpus > 4096 {
        return Err(format!("node {name:?}: cpus = {} must be 1 to 4096", node.cpus));
    }
    if node.memory.0 == 0 {
        return Err(format!("node {name:?}: memory must not be 0"));
    }
    let threads = node.threads_per_core.unwrap_or(1);
    let sockets = node.sockets.unwrap_or(1);
    let per = u64::from(sockets) * u64::from(threads);
    let cores = node
        .cores_per_socket
        .map_or_else(|| u64::from(node.cpus).checked_div(per), |c| Some(c.into()));
    match cores {
        Some(cores) if per * cores == u64::from(node.cpus) => {
            Ok((sockets, u32::try_from(cores).unwrap_or(node.cpus), threads))
        }
        _ => Err(format!(
            "node {name:?}: sockets x cores_per_socket x threads_per_core is not cpus ({})",
            node.cpus
        )),
    }
}

/// Among the GRES of a node: its GPUs are those that its agent finds.
const AUTO: &str = "auto";

fn gres(node: &str, words: &[String]) -> Result<BTreeMap<GresKind, u64>, String> {
    let mut out = BTreeMap::new();
    for text in words.iter().filter(|text| *text != AUTO) {
        let fault = || format!("node {node:?}: gres {text:?}: use name:count or name:type:count");
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, count) = match parts.as_slice() {
            [name, count] => (GresKind::new(name, None), count),
            [name, of, count] => (GresKind::new(name, Some(of)), count),
            _ => return Err(fault()),
        };
        let count: u64 = count.parse().ok().filter(|n| *n > 0).ok_or_else(fault)?;
        word(&format!("node {node:?}: gres"), parts[0])?;
        if out.insert(kind, count).is_some() {
            return Err(format!("node {node:?}: gres {text:?} is given twice"));
        }
    }
    Ok(out)
}

fn partitions(raw: &[raw::Partition], nodes: &[NodeConfig]) -> Result<Vec<Partition>, String> {
    let mut out: Vec<Partition> = Vec::new();
    for partition in raw {
        word("[[partition]] name", &partition.name)?;
        if out.iter().any(|p| *p.name == *partition.name) {
            return Err(format!("partition {:?} is configured twice", partition.name));
        }
        if partition.default && out.iter().any(|p| p.default) {
            return Err(format!("partition {:?}: there is a default one already", partition.name));
        }
        out.push(self::partition(partition, nodes)?);
    }
    Ok(out)
}

fn partition(raw: &raw::Partition, nodes: &[NodeConfig]) -> Result<Partition, String> {
    let name = &raw.name;
    let limit = |key: &str, text: &Option<String>| -> Result<Option<TimeLimit>, String> {
        let read = text.as_deref().map(parse_limit).transpose();
        read.map_err(|f| format!("partition {name:?}: {key}: {f}"))
    };
    let max_time = limit("max_time", &raw.max_time)?.unwrap_or(TimeLimit::Unlimited);
    let default_time = limit("default_time", &raw.default_time)?;
    if let (Some(default), Some(max)) = (default_time.map(TimeLimit::seconds), max_time.seconds())
        && default.is_none_or(|seconds| seconds > max)
    {
        return Err(format!("partition {name:?}: default_time exceeds max_time"));
    }
    let state = match raw.state.as_deref().unwrap_or("UP").to_ascii_uppercase().as_str() {
        "UP" => PartitionState::Up,
        "DOWN" => PartitionState::Down,
        "DRAIN" => PartitionState::Drain,
        "INACTIVE" => PartitionState::Inactive,
        other => {
            return Err(format!(
                "partition {name:?}: state {other:?}: use UP, DOWN, DRAIN or INACTIVE"
            ));
        }
    };
    let min_nodes = raw.min_nodes.unwrap_or(0);
    if raw.max_nodes.is_some_and(|max| max < min_nodes) {
        return Err(format!("partition {name:?}: max_nodes is less than min_nodes"));
    }
    let own = |list: &[String]| list.iter().map(|s| s.as_str().into()).collect();
    Ok(Partition {
        name: name.as_str().into(),
        nodes: members(raw, nodes)?,
        default: raw.default,
        state,
        max_time,
        default_time,
        min_nodes,
        max_nodes: raw.max_nodes,
        priority_tier: raw.priority_tier.unwrap_or(1),
        priority_factor: raw.priority_factor.unwrap_or(1),
        default_memory_per_node_mib: raw.default_memory_per_node.map(|s| s.0),
        default_memory_per_cpu_mib: raw.default_memory_per_cpu.map(|s| s.0),
        max_memory_per_node_mib: raw.max_memory_per_node.map(|s| s.0),
        allow_users: own(&raw.allow_users),
        allow_groups: own(&raw.allow_groups),
        exclusive: raw.exclusive,
    })
}

/// Nodes of a partition: those named (all, when only features are) that have all its features.
fn members(raw: &raw::Partition, nodes: &[NodeConfig]) -> Result<Vec<Box<str>>, String> {
    let name = &raw.name;
    let named: Vec<String> = match raw.nodes.as_deref() {
        None if raw.features.is_empty() => {
            return Err(format!(
                "partition {name:?} needs nodes (a hostlist or \"ALL\") or features"
            ));
        }
        None | Some("ALL") => nodes.iter().map(|n| n.name.to_string()).collect(),
        Some(list) => Hostlist::parse(list).map_err(|f| format!("partition {name:?}: {f}"))?.0,
    };
    let known: BTreeMap<&str, &NodeConfig> = nodes.iter().map(|n| (&*n.name, n)).collect();
    let mut out = Vec::new();
    for node in Hostlist(named).sorted().0 {
        let Some(config) = known.get(node.as_str()) else {
            return Err(format!("partition {name:?}: node {node:?} is not configured"));
        };
        if raw.features.iter().all(|f| config.features.iter().any(|has| **has == **f)) {
            out.push(node.into());
        }
    }
    if out.is_empty() && !nodes.is_empty() {
        return Err(format!("partition {name:?} has no nodes"));
    }
    Ok(out)
}

pub(crate) fn word(what: &str, text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(plain) {
        Ok(())
    } else {
        Err(format!("{what} {text:?}: use letters, digits, '-', '_' and '.'"))
    }
}

fn at_least(key: &str, value: u32, least: u32) -> Result<u32, String> {
    if value >= least {
        Ok(value)
    } else {
        Err(format!("{key} = {value} must be at least {least}"))
    }
}

fn path(key: &str, text: Option<&str>) -> Result<Option<PathBuf>, String> {
    text.map(|text| absolute(key, Some(text), "")).transpose()
}

fn absolute(key: &str, text: Option<&str>, default: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text.unwrap_or(default));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{key} = {:?} must be an absolute path", path.display().to_string()))
    }
}

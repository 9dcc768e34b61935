//! The daemon: config, spool, what was left in it, the shims' notices, the local socket, the
//! stream.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use muster_cgroup::{Cgroups, DEFAULT_ROOT, DeviceRules, Mode};
use muster_config::{CgroupMode, Config, GpuNumbering};
use muster_model::NodeConfig;
use muster_proto::agent::v1::Hello;
use muster_proto::token::{ClusterKey, TokenError};
use muster_shim::{Launcher, LauncherConfig, SliceDir, Spares, StepLauncher};
use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixDatagram;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::health::Gpus;
use crate::inventory::{self, Host, Roots, library};
use crate::jobs::edge::{Binding, Edge, PARALLEL, Patience, chain};
use crate::jobs::gpus::mask_of;
use crate::jobs::series::Series;
use crate::jobs::{INPUTS, Input, Jobs, adopt};
use crate::session::dial::Target;
use crate::session::{self, Session};
use crate::steps::{Callers, ListenError, Port, Steps};
use crate::tokens::{self, Tokens};
use crate::tree;

/// Threads that wait for disks and shims: twice what may work at once, since a look at a mute
/// shim holds one for seconds.
const BLOCKING_THREADS: usize = PARALLEL * 2;
/// Threads that never wait for anything: an agent does little, and what one wakes another for
/// costs more than what is done.
const ASYNC_THREADS: usize = 1;
/// A shim's notice is at most this long, in bytes.
const NOTICE_BYTES: usize = 64 * 1024;
/// A path of a unix socket is at most 107 bytes; a longer one is bound through its folder.
const SOCKET_PATH_BYTES: usize = 100;

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: PathBuf,
    pub node: String,
    /// The binary that is re-executed for the shims: it must answer to `shim`.
    pub exe: PathBuf,
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] muster_config::ConfigError),
    #[error("node {node:?} is not in {}: add a [[node]] or name another with --node", config.display())]
    NoSuchNode { node: String, config: PathBuf },
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another agent of this node holds {}", .0.display())]
    Running(PathBuf),
    #[error("the cluster key {} is readable by others (mode {mode:o}); chmod 600 it", path.display())]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("the cluster key {}", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: TokenError,
    },
    #[error("controller.address is set: agents need security.cluster_key")]
    NoKey,
    #[error("security.cluster_key is not set: there is nothing to sign tokens with")]
    NothingToSign,
    #[error("the socket is served no more")]
    Served(#[source] tonic::transport::Error),
    #[error(transparent)]
    Dial(#[from] session::dial::DialError),
    #[error(transparent)]
    Spool(#[from] muster_shim::SpoolError),
    #[error(transparent)]
    Cgroup(#[from] muster_cgroup::Error),
    #[error(transparent)]
    Launcher(#[from] muster_shim::LaunchError),
    #[error(transparent)]
    Socket(#[from] tokens::SocketError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// `muster agent`: runs until SIGTERM or SIGINT. The answer is the exit code.
#[must_use]
pub fn main(config: PathBuf, node: String) -> i32 {
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(fault) => {
            eprintln!("muster agent: its own binary cannot be found: {fault}");
            return 1;
        }
    };
    let mut end = End::Asked;
    let options = Options { config, node, exe: exe.clone() };
    let code = daemon("muster agent", async { run(options).await.map(|how| end = how) });
    match end {
        End::Asked => code,
        End::StartAgain => start_again(&exe),
    }
}

/// Why a daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM or SIGINT.
    Asked,
    /// What it knows of its host is out of date.
    StartAgain,
}

/// This process runs the agent anew, under its own number and with its own words. Returns if that
/// fails: whoever watches over the agent starts it.
fn start_again(exe: &Path) -> i32 {
    use std::os::unix::process::CommandExt;
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(exe);
    command.arg0(words.next().unwrap_or_else(|| "muster".into())).args(words);
    eprintln!("muster agent: cannot start again: {}", command.exec());
    1
}

/// `muster tokens`: on a host without a node, issues tokens to its users until SIGTERM or SIGINT.
/// The answer is the exit code.
#[must_use]
pub fn tokens_main(config: PathBuf) -> i32 {
    daemon("muster tokens", issue(config))
}

async fn issue(config: PathBuf) -> Result<(), StartError> {
    let config = Config::load(&config)?;
    let key = cluster_key(&config)?.ok_or(StartError::NothingToSign)?;
    let socket = config.token_socket();
    let listener = tokens::listen(&socket)?;
    let node = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let tokens = Tokens {
        cluster: config.cluster.clone(),
        node: node.unwrap_or_default(),
        key: Some(key),
        started_at: now_ms(),
    };
    let served = tokio::spawn(tokens::issue(listener, tokens));
    tracing::info!(socket = %socket.display(), "issuing tokens");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        () = ended() => {}
        ended = served => {
            if let Err(fault) = ended.expect("the service does not panic") {
                return Err(StartError::Served(fault));
            }
        }
    }
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

fn daemon(name: &str, work: impl Future<Output = Result<(), StartError>>) -> i32 {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(fault) => {
            eprintln!("{name}: cannot start its threads: {fault}");
            return 1;
        }
    };
    let ended = runtime.block_on(work);
    // A hung site script or disk does not keep the daemon: jobs go on without it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("{name}: {}", chain(&fault));
            1
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A process that has a log already keeps it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
}

/// Runs an agent until SIGTERM or SIGINT, or until it has to start again.
///
/// # Errors
/// Whatever keeps it from starting. Once started, it lives with what fails.
pub async fn run(options: Options) -> Result<End, StartError> {
    let config = Config::load(&options.config)?;
    let node = node_of(&config, &options.node)?.clone();
    let key = cluster_key(&config)?;
    let target = Target::of(&config)?;
    let spool = config.spool_dir(&options.node);
    make_folder(&spool)?;
    SliceDir::prepare_spool(&spool)?;
    let _lock = lock(&spool)?;
    let timeout = Duration::from_secs(config.scheduler.node_timeout_seconds.into());
    let bound = library::Bound::of_agent(&spool, timeout);
    let library = config.nvml_library(&options.node);
    let library::Asked { driver, host, late } = library::ask(library, &Roots::default(), bound);
    let gpus = Gpus::new(&driver, host.gpus.assigned(&node).0);
    let (edge, limits, step_launcher) = edge(&options, &config, &node, &host, key.clone(), gpus)?;
    let edge = Arc::new(edge);
    let callers = Callers { key: key.clone(), remote_root: roots_word(&config) };
    let steps = Steps::new(edge.clone(), step_launcher, callers);
    let notices = notices(&spool)?;
    let held = {
        let edge = edge.clone();
        let adopting = tokio::task::spawn_blocking(move || adopt::adopt(&edge));
        adopting.await.expect("adoption does not panic")?
    };
    let (inputs, taken) = mpsc::channel(INPUTS);
    let stop = CancellationToken::new();
    tokio::spawn(listen(notices, inputs.clone()));
    let started_at = now_ms();
    let listener = tokens::listen(&config.agent_socket(&options.node))?;
    let serve = tokens::serve(
        listener,
        Tokens {
            cluster: config.cluster.clone(),
            node: options.node.clone(),
            key: key.clone(),
            started_at,
        },
        steps.clone(),
    );
    tokio::spawn(async move {
        if let Err(fault) = serve.await {
            tracing::error!("the local socket is gone: {}", chain(&fault));
        }
    });
    let port = open_port(&config, &steps).await?;
    let mut inventory = inventory::report(&host, &node, &limits);
    if let Some(address) = config.addresses.get(&options.node) {
        inventory.address.clone_from(address);
    }
    let hello = Hello {
        node: options.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        inventory: Some(inventory),
        slices: Vec::new(),
        agent_started_at: started_at,
        measured: host.cpus.is_some() && host.memory_mib.is_some(),
        port: port.into(),
    };
    let session = Session { target, key, hello, roots: Roots::default() };
    tokio::spawn(session::run(session, inputs.clone()));
    for (slice, _) in held.iter() {
        if let Ok(Some(launch)) = edge.dir(slice).read_launch() {
            edge.gpus.hold(slice, mask_of(&launch.gres));
        }
    }
    let look_every = Duration::from_secs(config.agent.gpu_check_seconds.into());
    edge.gpus.watch(look_every, inputs.clone());
    let parent = edge.cgroup_parent.clone();
    let jobs =
        tokio::spawn(Jobs::new(edge, held, inputs).with_steps(steps).run(taken, stop.clone()));
    tracing::info!(node = %options.node, spool = %spool.display(), "the agent is up");
    // Without systemd nobody waits for this.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let end = tokio::select! {
        () = ended() => End::Asked,
        () = async { if let Some(late) = late { late.answered().await } else { pending().await } } => {
            End::StartAgain
        }
    };
    tracing::info!(node = %options.node, "the agent ends; jobs go on");
    stop.cancel();
    jobs.await.expect("the jobs do not panic");
    tree::prune(Path::new(DEFAULT_ROOT), &parent);
    Ok(end)
}

/// Whether root is root on every host: where it may do everything with the controller.
fn roots_word(config: &Config) -> bool {
    config.security.admins.iter().any(|name| name == "root" || name == "0")
}

/// Serves steps to other hosts, where the config says so; the port, or 0.
async fn open_port(config: &Config, steps: &Steps) -> Result<u16, StartError> {
    let Some(address) = config.agent.listen else { return Ok(0) };
    let port = Port::open(address, &config.security.tls).await?;
    let number = port.number;
    let steps = steps.clone();
    tokio::spawn(async move {
        if let Err(fault) = port.serve(steps).await {
            tracing::error!("steps are served to this host alone: {}", chain(&fault));
        }
    });
    Ok(number)
}

/// SIGTERM or SIGINT.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("a runtime takes signals");
    let mut int = signal(SignalKind::interrupt()).expect("a runtime takes signals");
    tokio::select! {
        _ = term.recv() => (),
        _ = int.recv() => (),
    }
}

pub(crate) fn node_of<'a>(config: &'a Config, name: &str) -> Result<&'a NodeConfig, StartError> {
    config.node(name).ok_or_else(|| StartError::NoSuchNode {
        node: name.to_owned(),
        config: config.path.clone(),
    })
}

/// The cluster key. Without one the cluster is one host, and peers are known by their uid.
fn cluster_key(config: &Config) -> Result<Option<ClusterKey>, StartError> {
    let Some(path) = &config.security.cluster_key else {
        return if config.controller.address.is_some() { Err(StartError::NoKey) } else { Ok(None) };
    };
    let fault =
        |source| StartError::File { what: "read the cluster key", path: path.clone(), source };
    let mode = path.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StartError::OpenKey { path: path.clone(), mode });
    }
    let bytes = std::fs::read(path).map_err(fault)?;
    let key = ClusterKey::new(&bytes);
    key.map(Some).map_err(|source| StartError::Key { path: path.clone(), source })
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|source| StartError::File {
        what: "create",
        path: path.to_owned(),
        source,
    })
}

/// Two agents on one spool would launch everything twice.
fn lock(spool: &Path) -> Result<Flock<File>, StartError> {
    let path = spool.join("agent.lock");
    let fault = |source| StartError::File { what: "open", path: path.clone(), source };
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(fault)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, _)| StartError::Running(path.clone()))
}

/// The outside, what it cannot enforce, and what starts steps.
fn edge(
    options: &Options,
    config: &Config,
    node: &NodeConfig,
    host: &Host,
    key: Option<ClusterKey>,
    gpus: Gpus,
) -> Result<(Edge, Vec<String>, StepLauncher), StartError> {
    let uid = nix::unistd::geteuid().as_raw();
    let root = Path::new(DEFAULT_ROOT);
    let spool = config.spool_dir(&options.node);
    let parent = tree::parent(root, &options.node, &spool, uid == 0);
    let mode = match config.agent.cgroup {
        CgroupMode::Auto => Mode::Auto,
        CgroupMode::V2 => Mode::V2,
        CgroupMode::V1 => Mode::V1,
        CgroupMode::None => Mode::None,
    };
    let cgroups = Cgroups::detect(mode, root, &parent)?;
    let mut limits = unenforced(uid, &cgroups);
    // The rules name NVIDIA's devices; a job of an AMD GPU could not reach its own under them.
    let amd = Path::new("/dev/kfd").exists();
    if amd {
        limits.push("devices of AMD GPUs are not confined".into());
    }
    let has_gpus = host.gpu_devices > 0
        || !gpus.units().is_empty()
        || node.capacity.gres.keys().any(|k| &*k.name == "gpu");
    let hold = has_gpus && !amd && cgroups.can_limit_devices();
    let binding = Binding {
        cpus: inventory::cpus_exist(host, node),
        devices: hold.then(DeviceRules::of_this_machine).transpose()?,
        caps_major: hold.then(muster_cgroup::mig_caps_major).flatten(),
        by_uuid: config.agent.gpu_numbering == GpuNumbering::Uuid,
    };
    let launching = LauncherConfig {
        exe: options.exe.clone(),
        spool: spool.clone(),
        cgroup: mode,
        cgroup_root: root.to_owned(),
        cgroup_parent: parent.clone(),
    };
    let launcher = Launcher::start(launching.clone())?;
    let seconds = |n: u32| Duration::from_secs(n.into());
    let edge = Edge {
        node: options.node.clone(),
        spares: Spares::open(&spool)?,
        spool,
        config: config.path.clone(),
        prolog: config.agent.prolog.clone(),
        epilog: config.agent.epilog.clone(),
        script_timeout: seconds(config.agent.prolog_timeout_seconds),
        cgroups,
        cgroup_parent: parent,
        binding,
        pmix_library: config.agent.pmix_library.clone(),
        topology: config.topology.address(&options.node),
        launcher,
        key,
        uid,
        boot_id: host.boot_id.clone(),
        patience: Patience {
            kill_wait: seconds(config.scheduler.kill_wait_seconds),
            unkillable: seconds(config.scheduler.unkillable_seconds),
        },
        sample_every: seconds(config.scheduler.sample_seconds),
        slots: Arc::new(Semaphore::new(PARALLEL)),
        series: Series::default(),
        gpus,
        looking: AtomicBool::new(false),
    };
    Ok((edge, limits, StepLauncher::new(launching)))
}

/// What this agent cannot hold jobs to, whatever the host has.
fn unenforced(uid: u32, cgroups: &Cgroups) -> Vec<String> {
    let mut out = Vec::new();
    if uid != 0 {
        out.push(format!("the agent runs as uid {uid}: it serves that user alone"));
    }
    out.extend(cgroups.what_cannot_be_enforced());
    out
}

/// The socket on which shims tell.
fn notices(spool: &Path) -> Result<UnixDatagram, StartError> {
    let path = muster_shim::notice_socket(spool);
    let fault = |source| StartError::File { what: "listen on", path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fault(e)),
        _ => (),
    }
    let socket = bind(&path).map_err(fault)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    UnixDatagram::from_std(socket).map_err(fault)
}

fn bind(path: &Path) -> io::Result<StdDatagram> {
    use std::os::fd::AsRawFd;
    if path.as_os_str().len() <= SOCKET_PATH_BYTES {
        return StdDatagram::bind(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    StdDatagram::bind(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

/// Passes the shims' notices on.
async fn listen(socket: UnixDatagram, inputs: mpsc::Sender<Input>) {
    let mut datagram = vec![0; NOTICE_BYTES];
    loop {
        let length = match socket.recv(&mut datagram).await {
            Ok(length) => length,
            Err(fault) => {
                // The files say the same, and are looked at.
                tracing::warn!("a shim's notice: {fault}");
                continue;
            }
        };
        let Some(notice) = muster_shim::decode_notice(&datagram[..length]) else { continue };
        if inputs.send(Input::Notice(notice)).await.is_err() {
            return;
        }
    }
}

//! Sockets, TLS, start and end.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use muster_config::{Config, Tls};
use muster_core::command::Command;
use muster_proto::agent::v1::agents_server::AgentsServer;
use muster_proto::v1::admin_server::AdminServer;
use muster_proto::v1::jobs_server::JobsServer;
use muster_proto::v1::query_server::QueryServer;
use muster_store::sled_log::SledLog;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::auth::Auth;
use crate::cluster::cluster_config;
use crate::engine::{Engine, system_clock};
use crate::history::History;
use crate::recorder::{self, Recorder};
use crate::rpc::Service;
use crate::sessions::wanted::Scripts;
use crate::{Controller, changes, duties, pass, sessions, upkeep};

/// What is under way when the controller stops may end within this time.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Probes a silent TCP peer, so that a cut cable ends the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Above the largest script and environment, for the rest of a message.
const MESSAGE_MARGIN: u64 = 1 << 20;

/// Runs a controller until it is told to stop.
///
/// # Errors
/// Anything that keeps it from starting; the chain names file or address.
pub async fn run(config: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&config)?;
    let stop = CancellationToken::new();
    let controller = start(config, stop.clone()).await?;
    let servers = listen(&controller).await?;
    // Without systemd there is nobody to notify.
    _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut term = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stop.cancelled() => {}
    }
    _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    for server in servers {
        // Open streams would keep it for ever.
        _ = tokio::time::timeout(STOP_WITHIN, server).await;
    }
    if let Ok(Err(fault)) = tokio::time::timeout(STOP_WITHIN, recorder::flush(&controller)).await {
        tracing::warn!(%fault, "history not written; it will be after the next start");
    }
    controller.history.close().await;
    _ = std::fs::remove_file(&controller.config().controller.socket);
    tracing::info!("stopped");
    Ok(())
}

/// Recovers the state and starts everything but the listeners.
///
/// # Errors
/// The key, the log, the history or the config is not usable.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Arc<Controller>> {
    make_dir(&config.state_dir, 0o700)?;
    let auth = Auth::new(&config.security)?;
    let log = config.state_dir.join("log");
    let recorder = Recorder::default();
    let witness = recorder.witness();
    let engine = tokio::task::spawn_blocking(move || {
        let log = SledLog::open(&log)?;
        anyhow::Ok(Engine::start(Box::new(log), system_clock(), witness)?)
    })
    .await
    .expect("the recovery does not panic")?;
    let history = History::open(&config.history.url).await?;
    let controller = Arc::new(Controller {
        scripts: Scripts::new(Arc::clone(engine.blobs())),
        engine,
        auth,
        users: Default::default(),
        hub: Default::default(),
        usage: Default::default(),
        steps: Default::default(),
        history,
        recorder,
        changes: Default::default(),
        opinions: Default::default(),
        counts: Default::default(),
        dumps: Default::default(),
        estimates: Default::default(),
        started_at: crate::now(),
        stop,
        config: RwLock::new(Arc::new(config)),
    });
    let effects = controller.engine.subscribe();
    let cluster = cluster_config(&controller.config());
    controller
        .engine
        .tell(Command::Configure(Box::new(cluster)))
        .await
        .context("take the config into the state")?;
    until_stopped(&controller, duties::run(Arc::clone(&controller), effects));
    until_stopped(&controller, pass::run(Arc::clone(&controller)));
    until_stopped(&controller, recorder::run(Arc::clone(&controller)));
    until_stopped(&controller, changes::run(Arc::clone(&controller)));
    until_stopped(&controller, upkeep::run(Arc::clone(&controller)));
    until_stopped(&controller, sessions::liveness::watch(Arc::clone(&controller)));
    Ok(controller)
}

/// Runs a part beside the others. One that panics would leave a controller that looks alive and
/// does not do its work: it ends the process instead, and a restart finds everything in the log.
fn until_stopped(controller: &Controller, part: impl Future<Output = ()> + Send + 'static) {
    let stop = controller.stop.clone();
    tokio::spawn(async move {
        let part = tokio::spawn(part);
        let abort = part.abort_handle();
        tokio::select! {
            () = stop.cancelled() => abort.abort(),
            ended = part => if ended.is_err_and(|fault| fault.is_panic()) {
                tracing::error!("a part of the controller panicked, aborting");
                std::process::abort();
            },
        }
    });
}

type Serving = tokio::task::JoinHandle<()>;

/// Opens the sockets that the config names.
///
/// # Errors
/// An address that cannot be bound, or TLS files that cannot be read.
pub async fn listen(controller: &Arc<Controller>) -> anyhow::Result<Vec<Serving>> {
    let config = controller.config();
    let mut serving = vec![listen_unix(controller, &config.controller.socket).await?];
    if let Some(address) = config.controller.listen {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        serving.push(listen_tls(controller, listener, &config.security.tls)?);
    }
    Ok(serving)
}

async fn listen_unix(controller: &Arc<Controller>, path: &Path) -> anyhow::Result<Serving> {
    if let Some(dir) = path.parent() {
        make_dir(dir, 0o755)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        anyhow::bail!("another controller serves {}", path.display());
    }
    // What a killed controller left.
    _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    // Everybody may connect: the kernel says who it is.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("open {} to all users", path.display()))?;
    tracing::info!(socket = %path.display(), "listening");
    let server = Server::builder().layer(controller.counts.clone()).add_routes(routes(controller));
    let stop = controller.stop.clone();
    Ok(tokio::spawn(async move {
        let incoming = UnixListenerStream::new(listener);
        let served = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
        if let Err(fault) = served {
            tracing::error!(%fault, "the unix socket is served no more");
        }
    }))
}

/// Serves TLS on a listener.
///
/// # Errors
/// TLS files that cannot be read or are none.
pub fn listen_tls(
    controller: &Arc<Controller>,
    listener: TcpListener,
    tls: &Tls,
) -> anyhow::Result<Serving> {
    let read = |path: &Option<PathBuf>| {
        let path = path.as_deref().context("security.tls_cert and tls_key are not set")?;
        std::fs::read(path).with_context(|| format!("read {}", path.display()))
    };
    let identity = Identity::from_pem(read(&tls.cert)?, read(&tls.key)?);
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .context("use security.tls_cert and tls_key")?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .tcp_nodelay(true)
        .layer(controller.counts.clone())
        .add_routes(routes(controller));
    let stop = controller.stop.clone();
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening with TLS");
    }
    Ok(tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let served = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
        if let Err(fault) = served {
            tracing::error!(%fault, "TCP is served no more");
        }
    }))
}

fn routes(controller: &Arc<Controller>) -> Routes {
    let limits = &controller.config().scheduler;
    let most = u64::from(limits.max_script_bytes) + u64::from(limits.max_environment_bytes);
    let most = usize::try_from(most + MESSAGE_MARGIN).unwrap_or(usize::MAX);
    let service = || Service(Arc::clone(controller));
    Routes::new(JobsServer::new(service()).max_decoding_message_size(most))
        .add_service(QueryServer::new(service()))
        .add_service(AdminServer::new(service()))
        .add_service(AgentsServer::new(service()).max_decoding_message_size(most))
}

fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(mode);
    builder.create(dir).with_context(|| format!("create {}", dir.display()))
}

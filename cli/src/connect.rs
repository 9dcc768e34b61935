//! The connection to the controller.
//!
//! On the controller's host it is the unix socket, where the kernel vouches for the caller;
//! elsewhere it is TLS with a short-lived token that a local agent issues to its peer. Calls are
//! repeated while the controller restarts, within a bound; a repeated submission carries its
//! first request id, so nothing is submitted twice.
//!
//! One thread, one runtime: a command starts within a millisecond.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_config::Config;
use muster_proto::v1::admin_client::AdminClient;
use muster_proto::v1::jobs_client::JobsClient;
use muster_proto::v1::query_client::QueryClient;
use muster_proto::v1::{ErrorDetail, IssueTokenRequest};
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::exit;

/// What Slurm says when nobody answers; launchers match on it.
pub const UNREACHABLE: &str = "Unable to contact slurm controller (connect failure)";

/// Slurm's sleeps of 1..15 s add up to this.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause; it doubles up to [`PAUSE_MAX`]. A restarted controller answers within a
/// second, so the first tries come soon.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// After this long a person at a terminal is told why nothing happens.
const SILENT: Duration = Duration::from_secs(2);
/// Pages are far smaller; a bound against a broken peer.
const MESSAGE_MAX: usize = 64 << 20;
/// A host that does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that is silent for so long is asked whether it lives, and given up after as long again. A
/// daemon answers whatever else it does, and srun names a node that is cut off within ten seconds.
const KEEPALIVE: Duration = Duration::from_secs(4);
/// Of all streams of one connection, in bytes: a stream whose reader is slow must not hold up the
/// others.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// MaxJobCount reached: worth waiting for, as Slurm's sbatch does.
const QUEUE_FULL: u32 = 2007;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Config(#[from] muster_config::ConfigError),
    #[error("cannot use the controller's address {address}: {fault}")]
    Address { address: String, fault: String },
    #[error("no token for {address}: {fault}")]
    Token { address: String, fault: String },
    #[error("{target} did not answer within {seconds} s: {fault}")]
    Unreachable { target: String, seconds: u64, fault: String },
    /// The controller's own refusal.
    #[error("{}", if .0.message.is_empty() { &.0.slurm_text } else { &.0.message })]
    Refused(ErrorDetail),
    /// The call failed without a refusal that speaks Slurm.
    #[error("{0}")]
    Failed(String),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl CallError {
    /// Slurm's number of the refusal; 0 where there is none.
    #[must_use]
    pub fn errno(&self) -> u32 {
        match self {
            CallError::Refused(detail) => detail.slurm_errno,
            _ => 0,
        }
    }

    /// Slurm's text, which tools match on.
    #[must_use]
    pub fn slurm_text(&self) -> String {
        match self {
            CallError::Refused(detail) if !detail.slurm_text.is_empty() => {
                detail.slurm_text.clone()
            }
            CallError::Unreachable { .. } | CallError::Config(_) | CallError::Address { .. } => {
                UNREACHABLE.to_owned()
            }
            CallError::Token { .. } => "Protocol authentication error".to_owned(),
            other => other.to_string(),
        }
    }

    /// Our sentence, where it says more than Slurm's text.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        (!text.is_empty() && text != self.slurm_text()).then_some(text)
    }
}

/// Adds the token on TCP; on a unix socket there is none to add.
#[derive(Debug, Clone)]
pub struct Credentials(pub(crate) Option<AsciiMetadataValue>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Wire = InterceptedService<Channel, Credentials>;

/// The three services. Cheap to clone: all share one connection.
#[derive(Clone)]
pub struct Api {
    pub jobs: JobsClient<Wire>,
    pub query: QueryClient<Wire>,
    pub admin: AdminClient<Wire>,
}

/// Where the controller is.
#[derive(Debug, Clone)]
enum Target {
    Socket(PathBuf),
    Tls { address: String, ca: Option<PathBuf>, run_dir: PathBuf },
}

/// A connection that repeats what a restarting controller did not answer.
pub struct Client {
    runtime: Runtime,
    target: Target,
    api: Api,
    patience: Duration,
    program: &'static str,
}

impl Client {
    /// Opens a client by the config file that [`Config::find`] names. Nothing is sent yet, except
    /// for the token on TCP.
    ///
    /// # Errors
    /// No or a faulty config, an unusable address, no token.
    pub fn find(program: &'static str) -> Result<Client, CallError> {
        Client::open(&Config::load(&Config::find()?)?, program)
    }

    /// Opens a client for this config; `program` leads notices to the user.
    ///
    /// # Errors
    /// An unusable address or CA, no token.
    pub fn open(config: &Config, program: &'static str) -> Result<Client, CallError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CallError::Runtime)?;
        let target = Target::of(config);
        let api = runtime.block_on(target.connect())?;
        Ok(Client { runtime, target, api, patience: patience(), program })
    }

    /// The same client with another bound on how long it tries.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// Sends a request, again while the controller is not there. `request` is called once a try,
    /// so it must be safe to repeat: a submission carries its request id.
    ///
    /// # Errors
    /// A refusal, or nobody answered within the bound.
    pub fn call<T>(
        &mut self,
        request: impl AsyncFn(Api) -> Result<T, Status>,
    ) -> Result<T, CallError> {
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut told = false;
        let mut renewed = false;
        loop {
            let status = match self.runtime.block_on(request(self.api.clone())) {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match verdict(&status, &self.target) {
                Verdict::Final(error) => return Err(error),
                Verdict::Renew if renewed => return Err(refusal(&status)),
                Verdict::Renew => {
                    renewed = true;
                    self.api = self.runtime.block_on(self.target.connect())?;
                    continue;
                }
                Verdict::Again(notice) => {
                    if start.elapsed() + pause > self.patience {
                        return Err(self.given_up(&status));
                    }
                    self.tell(notice, start, &mut told);
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Runs a future on the client's runtime: for streams that are printed as they come.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The services, for [`Client::block_on`]; nothing is repeated there.
    #[must_use]
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    fn given_up(&self, status: &Status) -> CallError {
        match refusal(status) {
            refused @ CallError::Refused(_) => refused,
            _ => CallError::Unreachable {
                target: self.target.to_string(),
                seconds: self.patience.as_secs(),
                fault: root_cause(status),
            },
        }
    }

    fn tell(&self, notice: Option<&str>, start: Instant, told: &mut bool) {
        if *told {
            return;
        }
        match notice {
            Some(text) => exit::error(self.program, text),
            None if start.elapsed() > SILENT && std::io::stderr().is_terminal() => {
                let bound = self.patience.as_secs();
                let text =
                    format!("{} does not answer; trying again for up to {bound} s", self.target);
                exit::say(self.program, &text);
            }
            None => return,
        }
        *told = true;
    }
}

/// How long to try: `MUSTER_RETRY_SECONDS`, else [`PATIENCE`].
fn patience() -> Duration {
    let chosen = std::env::var("MUSTER_RETRY_SECONDS").ok().and_then(|t| t.trim().parse().ok());
    chosen.map_or(PATIENCE, |s: u32| Duration::from_secs(u64::from(s)))
}

enum Verdict {
    Final(CallError),
    /// The token may have run out.
    Renew,
    /// Worth repeating, with Slurm's notice where it has one.
    Again(Option<&'static str>),
}

fn verdict(status: &Status, target: &Target) -> Verdict {
    let error = refusal(status);
    match (status.code(), &error) {
        (Code::ResourceExhausted, CallError::Refused(d)) if d.slurm_errno == QUEUE_FULL => {
            Verdict::Again(Some("Slurm job queue full, sleeping and retrying"))
        }
        (_, CallError::Refused(_)) => Verdict::Final(error),
        (Code::Unauthenticated, _) if matches!(target, Target::Tls { .. }) => Verdict::Renew,
        (Code::Unavailable, _) => Verdict::Again(None),
        (Code::ResourceExhausted, _) => {
            Verdict::Again(Some("Slurm temporarily unable to accept job, sleeping and retrying"))
        }
        // Made on this side: the connection broke while the answer was awaited.
        (Code::Unknown | Code::Internal | Code::Cancelled, _)
            if std::error::Error::source(status).is_some() =>
        {
            Verdict::Again(None)
        }
        _ => Verdict::Final(error),
    }
}

/// What a status says, in Slurm's words where the controller sent them.
fn refusal(status: &Status) -> CallError {
    let detail = status
        .metadata()
        .get_bin(muster_proto::ERROR_TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| ErrorDetail::decode(bytes).ok());
    match detail {
        Some(detail) => CallError::Refused(detail),
        None if status.code() == Code::PermissionDenied => CallError::Refused(ErrorDetail {
            slurm_errno: 2002,
            slurm_text: "Access/permission denied".to_owned(),
            message: status.message().to_owned(),
        }),
        None if status.message().is_empty() => {
            CallError::Failed(format!("the controller answered {:?}", status.code()))
        }
        None => CallError::Failed(status.message().to_owned()),
    }
}

/// The innermost error: "No such file or directory" says more than "transport error".
fn root_cause(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

impl Target {
    fn of(config: &Config) -> Target {
        let socket = &config.controller.socket;
        match &config.controller.address {
            // The socket is there on the controller's own host alone.
            Some(address) if !socket.exists() => Target::Tls {
                address: address.clone(),
                ca: config.security.tls.ca.clone(),
                run_dir: config.run_dir.clone(),
            },
            _ => Target::Socket(socket.clone()),
        }
    }

    async fn connect(&self) -> Result<Api, CallError> {
        let (channel, token) = match self {
            Target::Socket(path) => (unix_channel(path), None),
            Target::Tls { address, ca, run_dir } => {
                let host = address.rsplit_once(':').map_or(&**address, |(host, _)| host);
                let channel = tls_channel(address, host, ca.as_deref())?;
                (channel, Some(local_token(address, run_dir).await?.credentials))
            }
        };
        let wire = || InterceptedService::new(channel.clone(), Credentials(token.clone()));
        Ok(Api {
            jobs: JobsClient::new(wire()).max_decoding_message_size(MESSAGE_MAX),
            query: QueryClient::new(wire()).max_decoding_message_size(MESSAGE_MAX),
            admin: AdminClient::new(wire()).max_decoding_message_size(MESSAGE_MAX),
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Socket(path) => write!(f, "the controller's socket {}", path.display()),
            Target::Tls { address, .. } => write!(f, "the controller at {address}"),
        }
    }
}

/// A channel over a unix socket; it connects with the first call, and again when it broke.
#[must_use]
pub fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    // The name is not looked up: the connector knows the path.
    Endpoint::from_static("http://muster.local")
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}

/// A channel with TLS to `address`, where somebody with the certificate of `name` must answer; it
/// connects with the first call.
///
/// # Errors
/// An address or authority that cannot be used.
pub(crate) fn tls_channel(
    address: &str,
    name: &str,
    ca: Option<&Path>,
) -> Result<Channel, CallError> {
    let bad = |fault: &dyn ToString| CallError::Address {
        address: address.to_owned(),
        fault: fault.to_string(),
    };
    let mut tls = ClientTlsConfig::new().domain_name(name.trim_matches(['[', ']']));
    if let Some(path) = ca {
        let pem = std::fs::read(path)
            .map_err(|e| bad(&format!("cannot read tls_ca {}: {e}", path.display())))?;
        tls = tls.ca_certificate(Certificate::from_pem(pem));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|e| bad(&e))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tls_config(tls)
        .map_err(|e| bad(&e))?;
    Ok(endpoint.connect_lazy())
}

/// A token in the caller's name.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) credentials: AsciiMetadataValue,
    /// Milliseconds since the epoch.
    pub(crate) expires_at: i64,
}

/// Asks the daemons of this host, one after another, for a token in the caller's name.
///
/// # Errors
/// Nobody here issues any; `address` says for what it was wanted.
pub(crate) async fn local_token(address: &str, run_dir: &Path) -> Result<Token, CallError> {
    let fail = |fault: String| CallError::Token { address: address.to_owned(), fault };
    let mut fault = format!("no daemon that issues any has a socket in {}", run_dir.display());
    for socket in token_sockets(run_dir) {
        let mut daemon = QueryClient::new(unix_channel(&socket));
        match daemon.issue_token(IssueTokenRequest {}).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                let value = format!("Bearer {}", reply.token);
                let credentials = value.parse().map_err(|_| fail("not printable".to_owned()))?;
                return Ok(Token { credentials, expires_at: reply.expires_at });
            }
            Err(status) => fault = format!("{}: {}", socket.display(), root_cause(&status)),
        }
    }
    Err(fail(fault))
}

/// Agents', the token daemon's, the controller's: whoever is here.
fn token_sockets(run_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|ending| ending == "sock"))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    fn refused(code: Code, errno: u32, text: &str, message: &str) -> Status {
        let detail = ErrorDetail {
            slurm_errno: errno,
            slurm_text: text.to_owned(),
            message: message.to_owned(),
        };
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(
            muster_proto::ERROR_TRAILER,
            MetadataValue::from_bytes(&detail.encode_to_vec()),
        );
        Status::with_metadata(code, message, metadata)
    }

    #[test]
    fn a_refusal_keeps_slurms_text_and_our_sentence() {
        let status = refused(
            Code::InvalidArgument,
            2000,
            "Invalid partition name specified",
            "partition \"x\" does not exist",
        );
        let error = refusal(&status);
        assert_eq!(error.errno(), 2000);
        assert_eq!(error.slurm_text(), "Invalid partition name specified");
        assert_eq!(error.detail().as_deref(), Some("partition \"x\" does not exist"));
    }

    #[test]
    fn only_a_missing_controller_and_a_full_queue_are_worth_waiting_for() {
        let socket = Target::Socket("/nowhere".into());
        let again = |status: &Status| matches!(verdict(status, &socket), Verdict::Again(_));
        assert!(again(&Status::unavailable("going down")));
        assert!(again(&refused(Code::ResourceExhausted, QUEUE_FULL, "MaxJobCount", "full")));
        assert!(!again(&refused(Code::Unavailable, 2001, "no default", "none")));
        assert!(!again(&Status::internal("a fault of the controller's")));
        assert!(!again(&Status::permission_denied("not yours")));
    }

    #[test]
    fn nobody_there_is_said_in_slurms_words() {
        let error = CallError::Unreachable {
            target: "the controller's socket /x".into(),
            seconds: 1,
            fault: "No such file or directory".into(),
        };
        assert_eq!(error.slurm_text(), UNREACHABLE);
        assert!(error.detail().expect("more to say").contains("/x"));
    }

    #[test]
    fn a_socket_that_is_not_there_is_tried_until_the_bound() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let target = Target::Socket("/nonexistent/muster.sock".into());
        let api = runtime.block_on(target.connect()).expect("nothing is sent yet");
        let patience = Duration::from_millis(50);
        let mut client = Client { runtime, target, api, patience, program: "test" };
        let answer = client.call(async |mut api: Api| {
            api.query.ping(muster_proto::v1::PingRequest {}).await.map(|_| ())
        });
        match answer {
            Err(CallError::Unreachable { fault, .. }) => assert!(fault.contains("No such file")),
            other => panic!("expected nobody there, got {other:?}"),
        }
    }
}

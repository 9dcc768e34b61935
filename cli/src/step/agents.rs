//! The way to the agents of a job's nodes.
//!
//! An agent of this host is reached by its socket, where the kernel says who asks. Others are reached
//! over TLS, with the caller's token; where they are is in a step's grant, or the controller knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_config::Config;
use muster_proto::v1::steps_client::StepsClient;
use muster_proto::v1::{ErrorDetail, ListNodesRequest, NodePart};
use prost::Message as _;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::connect::{self, Credentials, Token, Wire, tls_channel, unix_channel};

/// An agent.
pub(crate) type Client = StepsClient<Wire>;

/// As the agents'.
const MESSAGE_BYTES: usize = 32 << 20;
/// An agent that restarts is back in less; one that was killed comes with its host's supervisor.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// A token is renewed when it is good for less than this, in milliseconds.
const TOKEN_LEFT_MS: i64 = 60_000;
/// An agent that does not answer may have moved: the controller is asked again, but not sooner.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long the controller may take to say where a node is.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(10);

/// The agents. Clones share what is known of them.
#[derive(Debug, Clone)]
pub(crate) struct Agents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// One connection each: what a step asks of a node, it asks at once.
    sockets: Mutex<HashMap<String, Channel>>,
    known: Mutex<HashMap<String, Place>>,
    token: tokio::sync::Mutex<Option<Token>>,
}

/// Where an agent on another host is.
#[derive(Debug, Clone)]
struct Place {
    address: String,
    channel: Channel,
    asked: Instant,
    doubted: bool,
}

/// A call to an agent failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error(
        "the agent of node {node} has no socket here ({socket}) and serves no other hosts \
         (agent.listen)"
    )]
    Elsewhere { node: String, socket: String },
    #[error("no way to the agent of node {node}: {fault}")]
    NoWay { node: String, fault: String },
    #[error("{}", if .message.is_empty() { .slurm } else { .message })]
    Refused { slurm: String, message: String },
    /// The job is not on the node, or not any more, or not yet.
    #[error("{0}")]
    NotThere(String),
    #[error("the agent of node {node} does not answer: {fault}")]
    Away { node: String, fault: String },
}

impl AgentError {
    /// Slurm's words for it, where it has any.
    pub(crate) fn slurm_text(&self) -> String {
        match self {
            AgentError::Refused { slurm, .. } if !slurm.is_empty() => slurm.clone(),
            AgentError::NotThere(_) => "Invalid job id specified".to_owned(),
            other => other.to_string(),
        }
    }

    /// Our sentence, where it says more.
    pub(crate) fn detail(&self) -> Option<String> {
        let text = self.to_string();
        (text != self.slurm_text()).then_some(text)
    }

    pub(crate) fn of(node: &str, status: &Status) -> AgentError {
        let detail = status
            .metadata()
            .get_bin(muster_proto::ERROR_TRAILER)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| ErrorDetail::decode(bytes).ok());
        let refused = |slurm: &str| AgentError::Refused {
            slurm: slurm.to_owned(),
            message: status.message().to_owned(),
        };
        match (detail, status.code()) {
            (Some(detail), _) => {
                AgentError::Refused { slurm: detail.slurm_text, message: detail.message }
            }
            (None, Code::PermissionDenied) => refused("Access/permission denied"),
            (None, Code::Unauthenticated) => refused("Protocol authentication error"),
            (None, Code::NotFound) => AgentError::NotThere(status.message().to_owned()),
            (None, _) => {
                let mut fault = status.message().to_owned();
                let mut cause = std::error::Error::source(status);
                while let Some(inner) = cause {
                    fault = inner.to_string();
                    cause = inner.source();
                }
                AgentError::Away { node: node.to_owned(), fault }
            }
        }
    }
}

/// Whether a call is worth repeating: the agent restarts, or the job is a moment away.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => {
            std::error::Error::source(status).is_some()
        }
        _ => false,
    }
}

impl Agents {
    pub(crate) fn new(config: Config) -> Agents {
        Agents(Arc::new(Inner {
            config,
            sockets: Mutex::default(),
            known: Mutex::default(),
            token: tokio::sync::Mutex::default(),
        }))
    }

    /// Takes in where the nodes of a step are.
    pub(crate) fn learn(&self, parts: &[NodePart]) {
        for part in parts.iter().filter(|part| !part.address.is_empty()) {
            let mut known = self.known();
            if known.get(&part.node).is_none_or(|place| place.doubted)
                && let Ok(place) = self.place(&part.node, &part.address)
            {
                known.insert(part.node.clone(), place);
            }
        }
    }

    /// The agent of a node; it is dialled with the first call.
    pub(crate) async fn of(&self, node: &str) -> Result<Client, AgentError> {
        let socket = self.0.config.agent_socket(node);
        let (channel, token) = match socket.exists() || self.is_one_host(node) {
            true => {
                let mut sockets = self.0.sockets.lock().expect("nobody panics with them locked");
                let channel = sockets.entry(node.to_owned());
                (channel.or_insert_with(|| unix_channel(&socket)).clone(), None)
            }
            false => {
                let place = self.find(node).await?;
                (place.channel, Some(self.token(node, &place.address).await?))
            }
        };
        let client = StepsClient::new(InterceptedService::new(channel, Credentials(token)));
        Ok(client.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }

    /// Whether the cluster has such a node.
    pub(crate) fn knows(&self, node: &str) -> bool {
        self.0.config.node(node).is_some()
    }

    /// Whether all agents are on this host: a socket that is not there is about to be.
    fn is_one_host(&self, node: &str) -> bool {
        self.0.config.controller.address.is_none() && self.0.config.node(node).is_some()
    }

    /// A call that may be repeated while the agent is away for a moment.
    pub(crate) async fn call<T>(
        &self,
        node: &str,
        request: impl AsyncFn(Client) -> Result<T, Status>,
    ) -> Result<T, AgentError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match request(self.of(node).await?).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_passing(&status) && Instant::now() < until => {
                    self.doubt(node);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(AgentError::of(node, &status)),
            }
        }
    }

    /// The agent of this node did not answer: it may be somewhere else by now.
    pub(crate) fn doubt(&self, node: &str) {
        if let Some(place) = self.known().get_mut(node) {
            place.doubted = true;
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.0.known.lock().expect("nobody panics with the places locked")
    }

    async fn find(&self, node: &str) -> Result<Place, AgentError> {
        let known = self.known().get(node).cloned();
        match known {
            Some(place) if !place.doubted || place.asked.elapsed() < ASK_AGAIN => Ok(place),
            Some(place) => {
                // A controller that is away too does not make it worse.
                let address = self.ask(node).await.unwrap_or_else(|_| place.address.clone());
                let channel = match address == place.address {
                    true => place.channel,
                    false => self.place(node, &address)?.channel,
                };
                let place = Place { address, channel, asked: Instant::now(), doubted: false };
                self.known().insert(node.to_owned(), place.clone());
                Ok(place)
            }
            None => {
                let place = self.place(node, &self.ask(node).await?)?;
                self.known().insert(node.to_owned(), place.clone());
                Ok(place)
            }
        }
    }

    fn place(&self, node: &str, address: &str) -> Result<Place, AgentError> {
        let ca = self.0.config.security.tls.ca.as_deref();
        let channel = tls_channel(address, node, ca).map_err(|fault| no_way(node, &fault))?;
        Ok(Place { address: address.to_owned(), channel, asked: Instant::now(), doubted: false })
    }

    /// Asks the controller where a node's agent is.
    async fn ask(&self, node: &str) -> Result<String, AgentError> {
        let elsewhere = || AgentError::Elsewhere {
            node: node.to_owned(),
            socket: self.0.config.agent_socket(node).display().to_string(),
        };
        if self.0.config.controller.address.is_none() {
            return Err(elsewhere());
        }
        let (config, nodes) = (self.0.config.clone(), node.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let client = connect::Client::open(&config, "srun")?;
            client.patient(CONTROLLER_PATIENCE).call(async |mut api| {
                let request = ListNodesRequest { nodes: nodes.clone() };
                let mut pages = api.query.list_nodes(request).await?.into_inner();
                let first = pages.message().await?;
                Ok(first.and_then(|page| page.nodes.into_iter().next()))
            })
        });
        let found = asked.await.expect("a question does not panic");
        match found.map_err(|fault| no_way(node, &fault))? {
            Some(found) if found.port > 0 => {
                Ok(muster_proto::host_port(&found.address, found.port))
            }
            _ => Err(elsewhere()),
        }
    }

    /// The caller's token; renewed in time, for steps last longer than tokens.
    async fn token(
        &self,
        node: &str,
        address: &str,
    ) -> Result<tonic::metadata::AsciiMetadataValue, AgentError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut kept = self.0.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|t| t.expires_at - now > TOKEN_LEFT_MS) {
            return Ok(token.credentials.clone());
        }
        let token = connect::local_token(address, &self.0.config.run_dir).await;
        let token = token.map_err(|fault| no_way(node, &fault))?;
        let credentials = token.credentials.clone();
        *kept = Some(token);
        Ok(credentials)
    }
}

fn no_way(node: &str, fault: &connect::CallError) -> AgentError {
    AgentError::NoWay { node: node.to_owned(), fault: fault.to_string() }
}

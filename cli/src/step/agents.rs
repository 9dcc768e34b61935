//! The way to the agents of a job's nodes.
//!
//! The agents of this host are reached by their sockets, where the kernel says who asks.

use std::path::PathBuf;
use std::time::Duration;

use muster_config::Config;
use muster_proto::v1::ErrorDetail;
use muster_proto::v1::steps_client::StepsClient;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::connect::unix_channel;

/// An agent.
pub(crate) type Client = StepsClient<Channel>;

/// As the agents'.
const MESSAGE_BYTES: usize = 32 << 20;
/// An agent that restarts is back in less; one that was killed comes with its host's supervisor.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The agents.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    config: Config,
}

/// A call to an agent failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("no agent of node {node} has a socket on this host ({})", socket.display())]
    Elsewhere { node: String, socket: PathBuf },
    #[error("{}", if .message.is_empty() { .slurm } else { .message })]
    Refused { slurm: String, message: String },
    #[error("the agent of node {node} does not answer: {fault}")]
    Away { node: String, fault: String },
}

impl AgentError {
    /// Slurm's words for it, where it has any.
    pub(crate) fn slurm_text(&self) -> String {
        match self {
            AgentError::Refused { slurm, .. } if !slurm.is_empty() => slurm.clone(),
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
        match (detail, status.code()) {
            (Some(detail), _) => {
                AgentError::Refused { slurm: detail.slurm_text, message: detail.message }
            }
            (None, Code::PermissionDenied) => AgentError::Refused {
                slurm: "Access/permission denied".into(),
                message: status.message().to_owned(),
            },
            (None, Code::NotFound) => AgentError::Refused {
                slurm: "Invalid job id specified".into(),
                message: status.message().to_owned(),
            },
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
        Agents { config }
    }

    /// The agent of a node; it is dialled with the first call.
    pub(crate) fn of(&self, node: &str) -> Result<StepsClient<Channel>, AgentError> {
        let socket = self.config.agent_socket(node);
        if !socket.exists() && self.config.node(node).is_none() {
            return Err(AgentError::Elsewhere { node: node.to_owned(), socket });
        }
        let client = StepsClient::new(unix_channel(&socket));
        Ok(client.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }

    /// A call that may be repeated while the agent is away for a moment.
    pub(crate) async fn call<T>(
        &self,
        node: &str,
        request: impl AsyncFn(StepsClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, AgentError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match request(self.of(node)?).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_passing(&status) && tokio::time::Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(AgentError::of(node, &status)),
            }
        }
    }
}

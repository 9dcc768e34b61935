//! The agent's one stream to the controller: dialled, greeted, fed, and dialled again.
//!
//! Knows no slices: it hands the controller's wishes to the jobs and gives the jobs a way to
//! report for as long as the stream lasts. What was said on a broken stream is not remembered,
//! for the Hello of the next one says everything.
//!
//! - `dial`: the connection, and who may be at its other end

pub mod dial;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_proto::agent::v1::agents_client::AgentsClient;
use muster_proto::agent::v1::{
    AgentMessage, ControllerMessage, Heartbeat, Hello, agent_message, controller_message,
};
use muster_proto::token::ClusterKey;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;

use crate::inventory::{Roots, memory};
use crate::jobs::{Input, Link};
use dial::{DialError, Target};

/// Messages on their way to the controller. A controller that does not read for this long has the
/// jobs keep what they would say; it is state, so nothing but age is lost.
const OUTBOX: usize = 64;
/// The largest message of the controller, in bytes: hundreds of launches with scripts of 4 MiB do
/// not come in one message, but one of them with its environment must fit.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Pauses between attempts to connect: a controller that restarts is found at once, ten thousand
/// agents of a controller that is away do not storm it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A session that lasted this long was a good one: the next pause is short again.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// Until the controller says otherwise, in seconds.
const HEARTBEAT_SECONDS: u64 = 10;

/// What a session needs.
#[derive(Debug, Clone)]
pub struct Session {
    pub target: Target,
    /// `None`: a cluster of one host, trusted by uid.
    pub key: Option<ClusterKey>,
    /// Without slices; these are added when it is sent.
    pub hello: Hello,
    pub roots: Roots,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the controller refused the session: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    #[error("the stream broke: {}", .0.message())]
    Broken(#[source] Box<tonic::Status>),
    #[error("the controller closed the stream")]
    Closed,
    #[error("the jobs are gone")]
    JobsGone,
    #[error("sign the agent's token")]
    Token(#[source] muster_proto::token::TokenError),
}

/// Holds a session with the controller for as long as the jobs live.
pub async fn run(session: Session, jobs: mpsc::Sender<Input>) {
    let mut pause = PAUSE_MIN;
    let mut told = String::new();
    loop {
        let begun = Instant::now();
        let Err(fault) = once(&session, &jobs).await;
        if matches!(fault, SessionError::JobsGone) || jobs.send(Input::Unlinked).await.is_err() {
            return;
        }
        // A controller that is away says the same at every attempt: once is enough.
        let text = chain(&fault);
        if text != told {
            tracing::warn!(node = %session.hello.node, "session: {text}");
            told = text;
        }
        if begun.elapsed() >= GOOD_SESSION {
            (pause, told) = (PAUSE_MIN, String::new());
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Between half and all of a pause, so that agents that lost the same controller spread.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // tonic's status repeats itself as its own source.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) && !cause_text.contains("status: ") {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

async fn once(
    session: &Session,
    jobs: &mpsc::Sender<Input>,
) -> Result<std::convert::Infallible, SessionError> {
    let channel = session.target.connect().await?;
    let mut client = AgentsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (tx, rx) = mpsc::channel::<AgentMessage>(OUTBOX);
    // The Hello goes into the stream before it is opened: the controller answers to it.
    let link = Link { outbox: tx.clone(), hello: Box::new(session.hello.clone()) };
    jobs.send(Input::Linked(link)).await.map_err(|_| SessionError::JobsGone)?;
    let mut request = tonic::Request::new(ReceiverStream::new(rx));
    if let Some(key) = &session.key {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let token = key.sign_agent(&session.hello.node, now).map_err(SessionError::Token)?;
        let value = format!("Bearer {token}");
        let value = MetadataValue::try_from(value).expect("a JWT is ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    let refused = |status| SessionError::Refused(Box::new(status));
    let mut stream = client.session(request).await.map_err(refused)?.into_inner();
    let mut beat = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    loop {
        tokio::select! {
            message = stream.next() => {
                let message = message.ok_or(SessionError::Closed)?;
                let message = message.map_err(|s| SessionError::Broken(Box::new(s)))?;
                if let Some(every) = take(message, jobs).await? {
                    tracing::info!(node = %session.hello.node, "session: joined the cluster");
                    beat = tokio::time::interval(every);
                }
            }
            _ = beat.tick() => {
                // A full outbox already shows the controller that the agent is there.
                let _ = tx.try_send(heartbeat(&session.roots));
            }
        }
    }
}

/// Hands a message to the jobs; a welcome says how often to beat.
async fn take(
    message: ControllerMessage,
    jobs: &mpsc::Sender<Input>,
) -> Result<Option<Duration>, SessionError> {
    use controller_message::Kind;
    let (input, every) = match message.kind {
        Some(Kind::Welcome(welcome)) => {
            let every = Duration::from_secs(welcome.heartbeat_seconds.max(1).into());
            (Input::Welcome(welcome), Some(every))
        }
        Some(Kind::Desired(desired)) => (Input::Desired(desired), None),
        Some(Kind::Signals(signals)) => (Input::Signals(signals), None),
        // A newer controller says something that this agent has no ear for.
        None => return Ok(None),
    };
    jobs.send(input).await.map_err(|_| SessionError::JobsGone)?;
    Ok(every)
}

fn heartbeat(roots: &Roots) -> AgentMessage {
    let heartbeat = Heartbeat {
        load: memory::load(&roots.proc).unwrap_or(0.0),
        memory_free_mib: memory::available_mib(&roots.proc).unwrap_or(0),
    };
    AgentMessage { kind: Some(agent_message::Kind::Heartbeat(heartbeat)) }
}

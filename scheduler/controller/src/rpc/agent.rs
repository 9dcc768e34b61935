//! The agents' door.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_proto::agent::v1 as agent;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Service;
use crate::sessions::stream::{MESSAGES_UNDER_WAY, serve};

#[tonic::async_trait]
impl agent::agents_server::Agents for Service {
    type SessionStream = BoxStream<'static, Result<agent::ControllerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<agent::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = self.auth.agent(&request)?;
        let (out, messages) = mpsc::channel(MESSAGES_UNDER_WAY);
        tokio::spawn(serve(Arc::clone(&self.0), caller, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}

//! The agent's local socket: users on this host get a token for the controller's TCP port, signed
//! for the uid that the kernel names. Everything else is the controller's business and refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::Stream;
use muster_proto::token::ClusterKey;
use muster_proto::v1::query_server::{Query, QueryServer};
use muster_proto::v1::{
    DiagReply, DiagRequest, GetScriptReply, GetScriptRequest, GpuPage, HistoryPage, HistoryRequest,
    IssueTokenReply, IssueTokenRequest, JobPage, ListJobsRequest, ListNodesRequest,
    ListPartitionsRequest, ListReservationsRequest, ListUsageRequest, NodePage, PartitionPage,
    PingReply, PingRequest, ReservationPage, ShowConfigReply, ShowConfigRequest, ShowTopologyReply,
    ShowTopologyRequest, UsagePage, WatchEvent, WatchRequest,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::clock::now_ms;

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
#[error("listen on {}", path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Makes the socket, open to every user of the host: who they are is the kernel's word.
///
/// # Errors
/// When the folder or the socket cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let fault = |source| SocketError { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fault(e)),
        _ => (),
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fault)?;
    Ok(listener)
}

/// Serves the socket until the process ends.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: UnixListener,
    tokens: Tokens,
    steps: crate::steps::Steps,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .add_service(QueryServer::new(tokens))
        .add_service(steps.server())
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

/// Issues tokens on the socket until the process ends.
///
/// # Errors
/// When the listener breaks.
pub async fn issue(listener: UnixListener, tokens: Tokens) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .add_service(QueryServer::new(tokens))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

/// Issues tokens; answers pings.
#[derive(Debug)]
pub struct Tokens {
    pub cluster: String,
    pub node: String,
    /// `None`: a cluster of one host, where nobody needs a token.
    pub key: Option<ClusterKey>,
    /// Milliseconds since the epoch.
    pub started_at: i64,
}

type Pages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn elsewhere<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an agent's socket only issues tokens: ask the controller"))
}

#[tonic::async_trait]
impl Query for Tokens {
    type ListJobsStream = Pages<JobPage>;
    type ListNodesStream = Pages<NodePage>;
    type ListGpusStream = Pages<GpuPage>;
    type ListHistoryStream = Pages<HistoryPage>;
    type ListUsageStream = Pages<UsagePage>;
    type WatchStream = Pages<WatchEvent>;

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingReply>, Status> {
        Ok(Response::new(PingReply {
            cluster: self.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.node.clone(),
            now: now_ms(),
            started_at: self.started_at,
            pid: std::process::id(),
            ..PingReply::default()
        }))
    }

    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<IssueTokenReply>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let peer = peer.ok_or_else(|| Status::unauthenticated("the kernel names no peer"))?;
        let key = self.key.as_ref().ok_or_else(|| {
            Status::failed_precondition("security.cluster_key is not set: there is no key to sign")
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (token, expires) = key
            .sign_user(peer.uid(), peer.gid(), now)
            .map_err(|fault| Status::internal(fault.to_string()))?;
        let expires_at = i64::try_from(expires).unwrap_or(i64::MAX / 1000) * 1000;
        Ok(Response::new(IssueTokenReply { token, expires_at }))
    }

    async fn list_jobs(
        &self,
        _: Request<ListJobsRequest>,
    ) -> Result<Response<Self::ListJobsStream>, Status> {
        elsewhere()
    }

    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<Self::ListNodesStream>, Status> {
        elsewhere()
    }

    async fn list_partitions(
        &self,
        _: Request<ListPartitionsRequest>,
    ) -> Result<Response<PartitionPage>, Status> {
        elsewhere()
    }

    async fn list_reservations(
        &self,
        _: Request<ListReservationsRequest>,
    ) -> Result<Response<ReservationPage>, Status> {
        elsewhere()
    }

    async fn list_gpus(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<Self::ListGpusStream>, Status> {
        elsewhere()
    }

    async fn diag(&self, _: Request<DiagRequest>) -> Result<Response<DiagReply>, Status> {
        elsewhere()
    }

    async fn show_topology(
        &self,
        _: Request<ShowTopologyRequest>,
    ) -> Result<Response<ShowTopologyReply>, Status> {
        elsewhere()
    }

    async fn why(
        &self,
        _: Request<muster_proto::v1::WhyRequest>,
    ) -> Result<Response<muster_proto::v1::WhyReply>, Status> {
        elsewhere()
    }

    async fn list_history(
        &self,
        _: Request<HistoryRequest>,
    ) -> Result<Response<Self::ListHistoryStream>, Status> {
        elsewhere()
    }

    async fn list_usage(
        &self,
        _: Request<ListUsageRequest>,
    ) -> Result<Response<Self::ListUsageStream>, Status> {
        elsewhere()
    }

    async fn get_script(
        &self,
        _: Request<GetScriptRequest>,
    ) -> Result<Response<GetScriptReply>, Status> {
        elsewhere()
    }

    async fn show_config(
        &self,
        _: Request<ShowConfigRequest>,
    ) -> Result<Response<ShowConfigReply>, Status> {
        elsewhere()
    }

    async fn list_steps(
        &self,
        _: Request<muster_proto::v1::StepsRequest>,
    ) -> Result<Response<muster_proto::v1::ListStepsReply>, Status> {
        elsewhere()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        elsewhere()
    }
}

//! The few questions that these commands put to the controller.

use anyhow::Context as _;
use muster_config::Config;
use muster_proto::v1;
use tokio::runtime::Runtime;

use crate::connect::{Api, Client};

/// A connection without patience: these commands do their own waiting.
pub(super) struct Ask {
    runtime: Runtime,
    config: Config,
}

impl Ask {
    pub(super) fn new(config: &Config) -> anyhow::Result<Ask> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Ask { runtime, config: config.clone() })
    }

    fn query<T>(
        &self,
        what: impl AsyncFnOnce(
            v1::query_client::QueryClient<tonic::transport::Channel>,
        ) -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let socket = self.config.controller.socket.clone();
        self.runtime
            .block_on(async {
                let channel = crate::connect::unix_channel(&socket);
                what(v1::query_client::QueryClient::new(channel)).await
            })
            .with_context(|| format!("ask the controller at {}", socket.display()))
    }

    pub(super) fn nodes(&self) -> anyhow::Result<Vec<v1::Node>> {
        self.query(async |mut query| {
            let mut pages = query.list_nodes(v1::ListNodesRequest::default()).await?.into_inner();
            let mut nodes = Vec::new();
            while let Some(page) = pages.message().await? {
                nodes.extend(page.nodes);
            }
            Ok(nodes)
        })
    }

    /// Jobs that have not ended, or all that are still known.
    pub(super) fn jobs(&self, all_states: bool) -> anyhow::Result<Vec<v1::Job>> {
        self.query(async |mut query| {
            let request = v1::ListJobsRequest { all_states, ..Default::default() };
            let mut pages = query.list_jobs(request).await?.into_inner();
            let mut jobs = Vec::new();
            while let Some(page) = pages.message().await? {
                jobs.extend(page.jobs);
            }
            Ok(jobs)
        })
    }

    /// Ends every job of everybody.
    pub(super) fn cancel_all(&self) -> anyhow::Result<()> {
        let jobs: Vec<v1::JobRef> = self
            .jobs(false)?
            .iter()
            .map(|job| v1::JobRef { job: job.id, tasks: String::new() })
            .collect();
        if jobs.is_empty() {
            return Ok(());
        }
        let mut client = Client::open(&self.config, "muster down")?;
        client.call(async |mut api: Api| {
            let request = v1::CancelRequest { jobs: jobs.clone(), ..Default::default() };
            api.jobs.cancel(request).await
        })?;
        Ok(())
    }
}

//! Where the wire messages come from: the controller, or a test's fixed values.

use std::collections::BTreeMap;

use muster_config::Config;
use muster_proto::v1;

use crate::connect::{Api, CallError, Client};
use crate::step::figures::{self, Figures};

/// Answers the queries. Long answers are narrowed page by page, so a short view of a long queue
/// stays small.
pub(crate) trait Source {
    /// Jobs of the queue that `keep` wants, in ascending id.
    fn jobs(
        &mut self,
        request: &v1::ListJobsRequest,
        keep: &dyn Fn(&v1::Job) -> bool,
    ) -> Result<Vec<v1::Job>, CallError>;

    /// Nodes in the configured order.
    fn nodes(&mut self) -> Result<Vec<v1::Node>, CallError>;

    /// GPUs of these nodes (a hostlist; empty: all).
    fn gpus(&mut self, nodes: &str) -> Result<Vec<v1::Gpu>, CallError>;

    /// Partitions in the configured order.
    fn partitions(&mut self) -> Result<Vec<v1::Partition>, CallError>;

    /// Reservations by name.
    fn reservations(&mut self) -> Result<Vec<v1::Reservation>, CallError>;

    /// Attempts that `keep` wants.
    fn history(
        &mut self,
        request: &v1::HistoryRequest,
        keep: &dyn Fn(&v1::HistoryRow) -> bool,
    ) -> Result<Vec<v1::HistoryRow>, CallError>;

    /// What running jobs use.
    fn usage(&mut self, request: &v1::ListUsageRequest) -> Result<Vec<v1::JobUsage>, CallError>;

    /// What each step of a running job uses now, by its name.
    fn figures(&mut self, job: u32, nodes: &str) -> BTreeMap<String, Figures>;

    /// Steps of running jobs, beside their scripts.
    fn steps(&mut self, request: &v1::StepsRequest) -> Result<Vec<v1::Step>, CallError>;

    /// A job's script, or its environment.
    fn script(&mut self, request: &v1::GetScriptRequest) -> Result<Vec<u8>, CallError>;

    /// What the controller did since its start.
    fn diag(&mut self) -> Result<v1::DiagReply, CallError>;

    /// The cluster's name.
    fn cluster(&mut self) -> Result<String, CallError>;
}

/// The controller. Connects with the first question, so that `--help` needs none.
pub(crate) struct Live {
    program: &'static str,
    client: Option<Client>,
    cluster: Option<String>,
}

impl Live {
    pub(crate) fn new(program: &'static str) -> Self {
        Live { program, client: None, cluster: None }
    }

    fn client(&mut self) -> Result<&mut Client, CallError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::find(self.program)?,
        };
        Ok(self.client.insert(client))
    }
}

impl Source for Live {
    fn jobs(
        &mut self,
        request: &v1::ListJobsRequest,
        keep: &dyn Fn(&v1::Job) -> bool,
    ) -> Result<Vec<v1::Job>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let mut pages = api.query.list_jobs(request.clone()).await?.into_inner();
            let mut jobs = Vec::new();
            while let Some(page) = pages.message().await? {
                jobs.extend(page.jobs.into_iter().filter(|job| keep(job)));
            }
            Ok(jobs)
        })
    }

    fn nodes(&mut self) -> Result<Vec<v1::Node>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let request = v1::ListNodesRequest::default();
            let mut pages = api.query.list_nodes(request).await?.into_inner();
            let mut nodes = Vec::new();
            while let Some(page) = pages.message().await? {
                nodes.extend(page.nodes);
            }
            Ok(nodes)
        })
    }

    fn gpus(&mut self, nodes: &str) -> Result<Vec<v1::Gpu>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let request = v1::ListNodesRequest { nodes: nodes.to_owned() };
            let mut pages = api.query.list_gpus(request).await?.into_inner();
            let mut gpus = Vec::new();
            while let Some(page) = pages.message().await? {
                gpus.extend(page.gpus);
            }
            Ok(gpus)
        })
    }

    fn partitions(&mut self) -> Result<Vec<v1::Partition>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let reply = api.query.list_partitions(v1::ListPartitionsRequest {}).await?;
            Ok(reply.into_inner().partitions)
        })
    }

    fn reservations(&mut self) -> Result<Vec<v1::Reservation>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let reply = api.query.list_reservations(v1::ListReservationsRequest {}).await?;
            Ok(reply.into_inner().reservations)
        })
    }

    fn history(
        &mut self,
        request: &v1::HistoryRequest,
        keep: &dyn Fn(&v1::HistoryRow) -> bool,
    ) -> Result<Vec<v1::HistoryRow>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let mut pages = api.query.list_history(request.clone()).await?.into_inner();
            let mut rows = Vec::new();
            while let Some(page) = pages.message().await? {
                rows.extend(page.rows.into_iter().filter(|row| keep(row)));
            }
            Ok(rows)
        })
    }

    fn usage(&mut self, request: &v1::ListUsageRequest) -> Result<Vec<v1::JobUsage>, CallError> {
        self.client()?.call(async |mut api: Api| {
            let mut pages = api.query.list_usage(request.clone()).await?.into_inner();
            let mut jobs = Vec::new();
            while let Some(page) = pages.message().await? {
                jobs.extend(page.jobs);
            }
            Ok(jobs)
        })
    }

    fn figures(&mut self, job: u32, nodes: &str) -> BTreeMap<String, Figures> {
        // Known already: the controller was found by it.
        let Ok(config) = Config::find().and_then(|path| Config::load(&path)) else {
            return BTreeMap::new();
        };
        self.client().map_or_else(
            |_| BTreeMap::new(),
            |client| client.block_on(figures::of_job(&config, job, nodes)),
        )
    }

    fn steps(&mut self, request: &v1::StepsRequest) -> Result<Vec<v1::Step>, CallError> {
        self.client()?.call(async |mut api: Api| {
            Ok(api.query.list_steps(request.clone()).await?.into_inner().steps)
        })
    }

    fn script(&mut self, request: &v1::GetScriptRequest) -> Result<Vec<u8>, CallError> {
        self.client()?.call(async |mut api: Api| {
            Ok(api.query.get_script(*request).await?.into_inner().content.to_vec())
        })
    }

    fn diag(&mut self) -> Result<v1::DiagReply, CallError> {
        self.client()?
            .call(async |mut api: Api| Ok(api.query.diag(v1::DiagRequest {}).await?.into_inner()))
    }

    fn cluster(&mut self) -> Result<String, CallError> {
        if self.cluster.is_none() {
            let name = self.client()?.call(async |mut api: Api| {
                Ok(api.query.ping(v1::PingRequest {}).await?.into_inner().cluster)
            })?;
            self.cluster = Some(name);
        }
        Ok(self.cluster.clone().unwrap_or_default())
    }
}

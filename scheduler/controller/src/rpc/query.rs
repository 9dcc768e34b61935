//! Listings. Jobs come in pages, each from one short read of the state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_core::plan::Reasons;
use muster_core::plan::why::Start;
use muster_core::state::{Entry, State};
use muster_model::{Hostlist, JobId, Timestamp, Uid};
use muster_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::scan::{self, Span};
use super::status::{invalid, not_permitted, unknown_job};
use super::{Service, past, reservation, watch, why};
use crate::Controller;
use crate::auth::now_seconds;
use crate::engine::{environment_key, script_key};
use crate::estimates::{self, Starts};
use crate::show::filter::Filter;
use crate::show::gpu;
use crate::show::job::{self, Depth, Line, Opinion, Shown};
use crate::show::node;

/// Jobs of one page: about half a megabyte, and a read of a millisecond or two.
pub const JOBS_PER_PAGE: usize = 512;
/// Views looked at in one read, however few of them pass the filter.
pub const VIEWS_PER_READ: usize = 4096;
/// Nodes of one page.
const NODES_PER_PAGE: usize = 1000;
/// GPUs of one page.
const GPUS_PER_PAGE: usize = 4000;
/// Pages made before the caller has taken the first: enough to keep both ends busy.
pub const PAGES_AHEAD: usize = 2;

/// What the last pass thought, and when it is asked.
#[derive(Debug, Clone)]
pub struct View {
    pub now: Timestamp,
    reasons: Arc<Reasons>,
    starts: Starts,
}

/// Opinions as of now.
#[must_use]
pub fn opinions(controller: &Controller) -> View {
    let (reasons, starts) = (controller.opinions.reasons(), controller.opinions.starts());
    View { now: crate::now(), reasons, starts }
}

/// The same with the starts of jobs that have no promised one.
///
/// # Errors
/// The engine's.
async fn estimated(controller: &Controller) -> Result<View, Status> {
    let mut view = opinions(controller);
    let mut starts = BTreeMap::clone(&*estimates::starts(controller).await?);
    starts.extend(view.starts.iter().map(|(job, start)| (*job, start.clone())));
    view.starts = Arc::new(starts);
    Ok(view)
}

impl View {
    /// Of one line.
    #[must_use]
    pub fn of(&self, state: &State, line: &Line<'_>) -> Opinion {
        let view = line.view();
        let waits = line.state() == v1::JobState::Pending;
        let start = self.start(line).filter(|_| state.static_reason(view, self.now).is_none());
        Opinion {
            reason: if waits { self.reasons.of(state, view, self.now) } else { Default::default() },
            detail: String::new(),
            expected_start: start.map(|start| start.at.max(self.now)),
            scheduled: start.map(|start| start.nodes.clone()).unwrap_or_default(),
            priority: if line.is_ended() { 0 } else { state.priority(view, self.now) },
        }
    }
}

impl View {
    /// When and where it is expected to start; of an array the first of its tasks.
    fn start(&self, line: &Line<'_>) -> Option<&Start> {
        match line {
            Line::Job(job) if job.phase.is_pending() => self.starts.get(&job.id),
            Line::Pending(array) => {
                let ids = array.id..JobId(array.id.0.saturating_add(array.count()));
                self.starts.range(ids).map(|(_, start)| start).min_by_key(|start| start.at)
            }
            Line::Job(_) | Line::Unstarted(..) => None,
        }
    }
}

/// Which jobs a listing shows, and how.
#[derive(Debug, Clone)]
pub struct Listing {
    pub filter: Filter,
    /// Those that have ended too.
    pub ended: bool,
    pub depth: Depth,
}

/// One page of a stretch, and where the next begins.
#[must_use]
pub fn page(
    state: &State,
    span: &Span,
    listing: &Listing,
    view: &View,
) -> (Vec<v1::Job>, Option<Entry>) {
    let shown = Shown { now: view.now, depth: listing.depth };
    let mut jobs = Vec::new();
    let next = scan::walk(state, span, VIEWS_PER_READ, |line| {
        if (listing.ended || !line.is_ended()) && listing.filter.admits(state, line) {
            let mut job = job::job(state, line, view.of(state, line), shown);
            if let (Some(tasks), Line::Pending(array)) = (&span.tasks, line) {
                job::narrow(&mut job, array, tasks, shown);
            }
            jobs.push(job);
        }
        jobs.len() < JOBS_PER_PAGE
    });
    (jobs, next)
}

/// Sends all pages of some stretches.
async fn send_pages(
    controller: Arc<Controller>,
    spans: Vec<Span>,
    listing: Listing,
    view: View,
    out: mpsc::Sender<Result<v1::JobPage, Status>>,
) {
    for span in spans {
        let mut from = Some(span.from);
        while let Some(cursor) = from {
            let (listing, view) = (listing.clone(), view.clone());
            let span = Span { from: cursor, ..span.clone() };
            let read =
                controller.engine.look(move |state| page(state, &span, &listing, &view)).await;
            let sent = match read {
                Ok((jobs, next)) => {
                    from = next;
                    if jobs.is_empty() {
                        continue;
                    }
                    out.send(Ok(v1::JobPage { jobs })).await
                }
                Err(fault) => out.send(Err(fault.into())).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Reads a filter off the async threads: names may need the directory service.
///
/// # Errors
/// INVALID_ARGUMENT, naming the field.
pub async fn filter(wire: Option<v1::JobFilter>) -> Result<Filter, Status> {
    let wire = wire.unwrap_or_default();
    let read = tokio::task::spawn_blocking(move || Filter::new(&wire)).await;
    read.expect("reading a filter does not panic").map_err(|bad| invalid(&bad))
}

#[tonic::async_trait]
impl v1::query_server::Query for Service {
    async fn ping(
        &self,
        request: Request<v1::PingRequest>,
    ) -> Result<Response<v1::PingReply>, Status> {
        self.auth.caller(&request)?;
        let (live, active) = self.engine.read(|s| (s.derived.live, s.derived.active)).await?;
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        Ok(Response::new(v1::PingReply {
            cluster: self.config().cluster.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            hostname: hostname.to_string_lossy().into_owned(),
            pending_jobs: live.saturating_sub(active),
            running_jobs: active,
            now: crate::now().0,
            started_at: self.started_at.0,
            passes: self.opinions.passes.load(Relaxed),
            last_pass_at: self.opinions.last_at.load(Relaxed),
            log_index: self.engine.stats().index.load(Relaxed),
            pid: std::process::id(),
        }))
    }

    type ListJobsStream = BoxStream<'static, Result<v1::JobPage, Status>>;

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<Self::ListJobsStream>, Status> {
        self.auth.caller(&request)?;
        let wire = request.into_inner();
        let filter = filter(wire.filter).await?;
        let ended = wire.all_states || filter.names_states();
        let depth = match (wire.with_details, wire.brief) {
            (true, _) => Depth::Details,
            (false, true) => Depth::Brief,
            (false, false) => Depth::Plain,
        };
        let listing = Listing { filter, ended, depth };
        let view = match wire.with_estimates {
            true => estimated(self).await?,
            false => opinions(self),
        };
        let spans = scan::spans(self, &wire.jobs).await?;
        let (out, pages) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(send_pages(Arc::clone(&self.0), spans, listing, view, out));
        Ok(Response::new(ReceiverStream::new(pages).boxed()))
    }

    type ListNodesStream = BoxStream<'static, Result<v1::NodePage, Status>>;

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<Self::ListNodesStream>, Status> {
        self.auth.caller(&request)?;
        let list = request.into_inner().nodes;
        let names = Hostlist::parse(&list)
            .map_err(|f| invalid(&muster_proto::convert::BadField::new("node list", f)))?;
        let (hub, grace) = (self.hub.clone(), self.grace());
        let nodes = self.engine.read(move |state| {
            let of = |n: &muster_core::state::Node| node::node(state, n, hub.live(n.id, grace));
            if names.0.is_empty() {
                state.nodes.iter().filter(|n| n.configured).map(of).collect::<Vec<_>>()
            } else {
                names.0.iter().filter_map(|name| state.node_named(name)).map(of).collect()
            }
        });
        let mut nodes = nodes.await?;
        for node in &mut nodes {
            // Names may need the directory service, which the engine never waits for.
            if let Ok(uid) = node.reason_by.parse() {
                node.reason_by = self.users.find(uid).await.name.to_string();
            }
        }
        let pages: Vec<Result<v1::NodePage, Status>> = nodes
            .chunks(NODES_PER_PAGE)
            .map(|some| Ok(v1::NodePage { nodes: some.to_vec() }))
            .collect();
        Ok(Response::new(futures::stream::iter(pages).boxed()))
    }

    async fn list_gpus(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<Self::ListGpusStream>, Status> {
        self.auth.caller(&request)?;
        let list = request.into_inner().nodes;
        let names = Hostlist::parse(&list)
            .map_err(|f| invalid(&muster_proto::convert::BadField::new("node list", f)))?;
        let hub = self.hub.clone();
        let gpus = self.engine.read(move |state| {
            let of = |n: &muster_core::state::Node| gpu::gpus(state, n, &hub.gpu_readings(n.id));
            if names.0.is_empty() {
                state.nodes.iter().filter(|n| n.configured).flat_map(of).collect::<Vec<_>>()
            } else {
                names.0.iter().filter_map(|name| state.node_named(name)).flat_map(of).collect()
            }
        });
        let mut gpus = gpus.await?;
        for gpu in &mut gpus {
            if let Ok(uid) = gpu.reason_by.parse() {
                gpu.reason_by = self.users.find(uid).await.name.to_string();
            }
        }
        let pages: Vec<Result<v1::GpuPage, Status>> = gpus
            .chunks(GPUS_PER_PAGE)
            .map(|some| Ok(v1::GpuPage { gpus: some.to_vec() }))
            .collect();
        Ok(Response::new(futures::stream::iter(pages).boxed()))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::PartitionPage>, Status> {
        self.auth.caller(&request)?;
        let partitions = self.engine.read(|state| {
            let rows = state.partitions.iter().map(|row| node::partition(state, row));
            rows.collect::<Vec<_>>()
        });
        Ok(Response::new(v1::PartitionPage { partitions: partitions.await? }))
    }

    async fn list_reservations(
        &self,
        request: Request<v1::ListReservationsRequest>,
    ) -> Result<Response<v1::ReservationPage>, Status> {
        self.auth.caller(&request)?;
        let reservations = self.engine.read(|state| {
            let now = crate::now();
            let shown = state.reservations.values().map(|r| reservation::shown(state, r, now));
            shown.collect::<Vec<_>>()
        });
        Ok(Response::new(v1::ReservationPage { reservations: reservations.await? }))
    }

    type ListGpusStream = BoxStream<'static, Result<v1::GpuPage, Status>>;
    type ListHistoryStream = BoxStream<'static, Result<v1::HistoryPage, Status>>;

    async fn list_history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<Self::ListHistoryStream>, Status> {
        let caller = self.auth.caller(&request)?;
        past::list(Arc::clone(&self.0), caller, request.into_inner()).await.map(Response::new)
    }

    type ListUsageStream = BoxStream<'static, Result<v1::UsagePage, Status>>;

    async fn list_steps(
        &self,
        request: Request<v1::StepsRequest>,
    ) -> Result<Response<v1::ListStepsReply>, Status> {
        let caller = self.auth.caller(&request)?;
        let spans = scan::spans(self, &request.into_inner().jobs).await?;
        let known = self.steps.jobs();
        let found = self.engine.read(move |state| {
            let within = |id: &JobId| spans.iter().any(|s| (s.from.id..s.until).contains(id));
            let jobs = known.into_iter().filter(within).filter_map(|id| state.jobs.get(&id));
            let jobs = jobs.filter(|job| caller.may_read(job.uid()) && job.phase.is_active());
            jobs.map(|job| (job.id, job.attempt.0)).collect::<Vec<_>>()
        });
        let steps = found.await?.into_iter().flat_map(|(job, attempt)| self.steps.of(job, attempt));
        let runs = |step: &v1::Step| step.state() == v1::StepState::Running;
        let steps = steps.filter(runs).collect();
        Ok(Response::new(v1::ListStepsReply { steps }))
    }

    async fn list_usage(
        &self,
        request: Request<v1::ListUsageRequest>,
    ) -> Result<Response<Self::ListUsageStream>, Status> {
        let caller = self.auth.caller(&request)?;
        let spans = scan::spans(self, &request.into_inner().jobs).await?;
        let rows = self.engine.read(move |state| {
            // Those that nobody has measured yet too: their agents are asked by whoever asks here.
            let within = spans.iter().flat_map(|s| state.jobs.range(s.from.id..s.until));
            let jobs = within
                .map(|(_, job)| job)
                .filter(|job| caller.may_read(job.uid()) && job.phase.is_active());
            jobs.map(|job| {
                job::job(
                    state,
                    &Line::Job(job),
                    Opinion::default(),
                    Shown { now: Timestamp(0), depth: Depth::Plain },
                )
            })
            .collect::<Vec<_>>()
        });
        let jobs = rows.await?.into_iter().map(|job| {
            let (usage, pids) = self.usage.of(JobId(job.id)).unwrap_or_default();
            let het = job.spec.as_ref().and_then(|spec| spec.het);
            let shown = match (job.array_task, het) {
                (Some(task), _) => format!("{}_{task}", job.array_id),
                (None, Some(part)) => format!("{}+{}", job.id - part.index, part.index),
                (None, None) => job.id.to_string(),
            };
            let (nodes, tasks) = (job.nodes, job.task_count);
            v1::JobUsage { job: job.id, shown, nodes, usage: Some(usage), tasks, pids }
        });
        let page = v1::UsagePage { jobs: jobs.collect() };
        Ok(Response::new(futures::stream::iter([Ok(page)]).boxed()))
    }

    async fn get_script(
        &self,
        request: Request<v1::GetScriptRequest>,
    ) -> Result<Response<v1::GetScriptReply>, Status> {
        let caller = self.auth.caller(&request)?;
        let v1::GetScriptRequest { job, environment } = request.into_inner();
        let found = self.engine.read(move |state| owner(state, JobId(job))).await?;
        let (uid, blob) = found.ok_or_else(|| unknown_job(job))?;
        if !caller.may_read(uid) {
            return Err(not_permitted(&format!("reading the script of job {job}")));
        }
        let key = if environment { environment_key(blob) } else { script_key(blob) };
        let blobs = Arc::clone(self.engine.blobs());
        let read = tokio::task::spawn_blocking(move || blobs.get(&key)).await;
        let content = read.expect("reading a blob does not panic").map_err(|fault| {
            tracing::error!(job, %fault, "a blob cannot be read");
            Status::internal(format!("the script of job {job} cannot be read"))
        })?;
        Ok(Response::new(v1::GetScriptReply { content: content.unwrap_or_default() }))
    }

    async fn show_config(
        &self,
        request: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigReply>, Status> {
        self.auth.caller(&request)?;
        let pairs = self.config().to_entries().into_iter();
        let entries = pairs.map(|(name, value)| v1::Pair { name, value }).collect();
        Ok(Response::new(v1::ShowConfigReply { entries }))
    }

    async fn diag(
        &self,
        request: Request<v1::DiagRequest>,
    ) -> Result<Response<v1::DiagReply>, Status> {
        self.auth.caller(&request)?;
        let (live, active) = self.engine.read(|s| (s.derived.live, s.derived.active)).await?;
        let stats = self.engine.stats();
        let mut reply = v1::DiagReply {
            now: crate::now().0,
            started_at: self.started_at.0,
            submitted: stats.submitted.load(Relaxed),
            started: stats.started.load(Relaxed),
            completed: stats.completed.load(Relaxed),
            cancelled: stats.cancelled.load(Relaxed),
            failed: stats.failed.load(Relaxed),
            pending: live.saturating_sub(active),
            running: active,
            last_pass_at: self.opinions.last_at.load(Relaxed),
            ..Default::default()
        };
        self.counts.tell(&mut reply);
        Ok(Response::new(reply))
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyReply>, Status> {
        self.auth.caller(&request)?;
        why::why(self, request.into_inner()).await.map(Response::new)
    }

    async fn show_topology(
        &self,
        request: Request<v1::ShowTopologyRequest>,
    ) -> Result<Response<v1::ShowTopologyReply>, Status> {
        self.auth.caller(&request)?;
        Ok(Response::new(crate::show::topology::reply(&self.config())))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.auth.caller(&request)?;
        watch::watch(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }

    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenReply>, Status> {
        let caller = self.auth.caller(&request)?;
        if !caller.local {
            // A token that could be traded for a fresh one would never expire.
            return Err(not_permitted("a token over TCP (ask on this host's socket)"));
        }
        let key = self.auth.key().ok_or_else(|| Status::failed_precondition("no cluster key"))?;
        let signed = key.sign_user(caller.uid, caller.gid, now_seconds());
        let (token, expires) =
            signed.map_err(|fault| Status::internal(format!("sign a token: {fault}")))?;
        let expires_at = i64::try_from(expires).unwrap_or(i64::MAX).saturating_mul(1000);
        Ok(Response::new(v1::IssueTokenReply { token, expires_at }))
    }
}

/// Whose a job is, and the number under which its blobs are kept.
fn owner(state: &State, job: JobId) -> Option<(Uid, JobId)> {
    if let Some(own) = state.jobs.get(&job) {
        return Some((own.uid(), own.array.map_or(own.id, |(array, _)| array)));
    }
    let array = state.array_owning(job)?;
    Some((array.uid(), array.id))
}

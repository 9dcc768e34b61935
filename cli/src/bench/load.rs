//! Clients that submit, and what they ask meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_proto::v1;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::report::Latencies;
use crate::local::Cluster;

/// Submissions that one stream keeps in flight: more than a commit takes at once.
const WINDOW: usize = 256;

/// How often the end is looked for: as often as this at first, ever more seldom up to that, so that
/// what is measured is not the asking.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(30);

/// Clients of one cluster, each with a connection of its own.
pub(super) struct Load<'a> {
    runtime: Runtime,
    cluster: &'a Cluster,
}

/// Submissions that were acknowledged.
pub(super) struct Submitted {
    pub(super) count: usize,
    pub(super) took: Duration,
    pub(super) latencies: Latencies,
    pub(super) last: u32,
}

/// What the jobs of a benchmark are.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    spec: v1::JobSpec,
    script: Vec<u8>,
    environment: Vec<u8>,
}

impl Kind {
    /// A job of one CPU whose script is `true`, the shell's own: one exec a job.
    pub(super) fn new(name: &str, workdir: &Path) -> Kind {
        let request =
            v1::Request { min_nodes: 1, tasks: 1, cpus_per_task: 1, ..Default::default() };
        let launch = v1::LaunchSpec {
            workdir: workdir.display().to_string(),
            stdout: Some("/dev/null".to_owned()),
            umask: 0o022,
            command: "bench".to_owned(),
            submit_dir: workdir.display().to_string(),
            submit_host: "localhost".to_owned(),
            ..Default::default()
        };
        let spec = v1::JobSpec {
            name: name.to_owned(),
            request: Some(request),
            launch: Some(launch),
            ..Default::default()
        };
        // About what a login shell's environment holds.
        let mut environment = Vec::new();
        for (name, value) in [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")] {
            environment.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        for i in 0..16 {
            let pair = format!("BENCH_VARIABLE_{i}=/opt/some/path/of/usual/length/{i}\0");
            environment.extend_from_slice(pair.as_bytes());
        }
        Kind { spec, script: b"#!/bin/sh\ntrue\n".to_vec(), environment }
    }

    /// Held jobs wait without ever being looked at by a pass.
    pub(super) fn held(mut self) -> Kind {
        self.spec.held = true;
        self
    }

    /// An array of `count` tasks.
    pub(super) fn array(mut self, count: usize) -> Kind {
        self.spec.array = format!("0-{}", count - 1);
        self
    }

    /// Fills whole nodes for longer than any benchmark takes.
    pub(super) fn blocker(mut self, nodes: u32) -> Kind {
        let request = self.spec.request.get_or_insert_default();
        request.min_nodes = nodes;
        request.tasks = nodes;
        request.exclusive = true;
        self.script = b"#!/bin/sh\nexec sleep 36000\n".to_vec();
        self
    }

    fn request(&self) -> v1::SubmitRequest {
        let id: u128 = rand_id();
        v1::SubmitRequest {
            request_id: id.to_be_bytes().to_vec().into(),
            spec: Some(self.spec.clone()),
            script: self.script.clone().into(),
            environment: self.environment.clone().into(),
            components: Vec::new(),
        }
    }
}

/// Random enough for a request id: two draws of the hasher's per-process keys and a counter.
fn rand_id() -> u128 {
    use std::hash::{BuildHasher as _, RandomState};
    let draw = || u128::from(RandomState::new().hash_one(super::next()));
    (draw() << 64) | draw()
}

impl<'a> Load<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> anyhow::Result<Load<'a>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Load { runtime, cluster })
    }

    fn channel(&self) -> Channel {
        let socket = &self.cluster.config.controller.socket;
        let _inside = self.runtime.enter();
        crate::connect::unix_channel(socket)
    }

    /// `count` submissions by `clients`, each waiting for its answer before the next.
    pub(super) fn submit(
        &self,
        kind: &Kind,
        clients: usize,
        count: usize,
    ) -> anyhow::Result<Submitted> {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let mut jobs = v1::jobs_client::JobsClient::new(self.channel());
                let kind = kind.clone();
                let own = count / clients + usize::from(client < count % clients);
                self.runtime.spawn(async move {
                    let mut latencies = Latencies::new();
                    let mut last = 0;
                    for _ in 0..own {
                        let sent = Instant::now();
                        let reply = jobs.submit(kind.request()).await?.into_inner();
                        latencies.record(sent.elapsed());
                        last = reply.job;
                    }
                    Ok::<_, tonic::Status>((latencies, last))
                })
            })
            .collect();
        let mut latencies = Latencies::new();
        let mut last = 0;
        for task in tasks {
            let (own, job) = self.runtime.block_on(task)?.context("submit")?;
            latencies.add(&own);
            last = last.max(job);
        }
        Ok(Submitted { count, took: begin.elapsed(), latencies, last })
    }

    /// `count` submissions on `streams` streams, many in flight on each.
    pub(super) fn stream(
        &self,
        kind: &Kind,
        streams: usize,
        count: usize,
    ) -> anyhow::Result<Submitted> {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..streams)
            .map(|stream| {
                let jobs = v1::jobs_client::JobsClient::new(self.channel());
                let own = count / streams + usize::from(stream < count % streams);
                self.runtime.spawn(one_stream(jobs, kind.clone(), own))
            })
            .collect();
        let mut last = 0;
        for task in tasks {
            last = last.max(self.runtime.block_on(task)??);
        }
        Ok(Submitted { count, took: begin.elapsed(), latencies: Latencies::new(), last })
    }

    pub(super) fn ping(&self) -> anyhow::Result<v1::PingReply> {
        let mut query = v1::query_client::QueryClient::new(self.channel());
        let reply = self.runtime.block_on(query.ping(v1::PingRequest {})).context("ping")?;
        Ok(reply.into_inner())
    }

    /// Waits until nothing is pending or on a node.
    pub(super) fn wait_until_empty(&self, patience: Duration) -> anyhow::Result<()> {
        let mut query = v1::query_client::QueryClient::new(self.channel());
        let deadline = Instant::now() + patience;
        let mut pause = LOOK;
        loop {
            let ping = query.ping(v1::PingRequest {});
            let reply = self.runtime.block_on(ping).context("ping")?.into_inner();
            if reply.pending_jobs == 0 && reply.running_jobs == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "after {} s still {} jobs pending and {} running",
                    patience.as_secs(),
                    reply.pending_jobs,
                    reply.running_jobs
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// All jobs that have not ended (or all that are known), as `squeue` asks for them.
    pub(super) fn list(&self, all_states: bool) -> anyhow::Result<Vec<v1::Job>> {
        let mut query = v1::query_client::QueryClient::new(self.channel());
        self.runtime.block_on(async {
            let request = v1::ListJobsRequest { all_states, ..Default::default() };
            let mut pages = query.list_jobs(request).await?.into_inner();
            let mut jobs = Vec::new();
            while let Some(page) = pages.message().await? {
                jobs.extend(page.jobs);
            }
            Ok(jobs)
        })
    }

    /// Waits until a job is in this state.
    pub(super) fn wait_for(&self, job: u32, state: v1::JobState) -> anyhow::Result<()> {
        let mut query = v1::query_client::QueryClient::new(self.channel());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let request = v1::ListJobsRequest {
                jobs: vec![v1::JobRef { job, tasks: String::new() }],
                all_states: true,
                ..Default::default()
            };
            let found = self.runtime.block_on(async {
                let mut pages = query.list_jobs(request).await?.into_inner();
                let page = pages.message().await?;
                Ok::<_, tonic::Status>(page.and_then(|page| page.jobs.first().map(v1::Job::state)))
            })?;
            if found == Some(state) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("job {job} is {found:?} and not {state:?} after 60 s");
            }
            std::thread::sleep(LOOK);
        }
    }
}

async fn one_stream(
    mut jobs: v1::jobs_client::JobsClient<Channel>,
    kind: Kind,
    count: usize,
) -> anyhow::Result<u32> {
    let (sender, receiver) = tokio::sync::mpsc::channel(WINDOW);
    let feeder = tokio::spawn(async move {
        for _ in 0..count {
            if sender.send(kind.request()).await.is_err() {
                break;
            }
        }
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut replies = jobs.submit_many(requests).await.context("submit many")?.into_inner();
    let (mut answered, mut last) = (0, 0);
    while let Some(reply) = replies.message().await.context("submit many")? {
        if let Some(error) = reply.error {
            bail!("submission {answered} of {count} was refused: {}", error.message);
        }
        answered += 1;
        last = reply.job;
    }
    feeder.await?;
    if answered != count {
        bail!("{answered} of {count} submissions were answered");
    }
    Ok(last)
}

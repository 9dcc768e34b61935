//! This node's part of a step: its order is checked against what the job has here, its shim is
//! started, and from then on the agent only passes on what both ends say. Nothing is kept here:
//! what was not taken is the shim's to say again.

use std::time::Duration;

use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::step_input::Kind as Asked;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{AttachStep, NodePart, StartStep, StepFailed, StepInput, StepOutput};
use muster_shim::{BATCH_GROUP, ClientError, ShimClient, SliceDir, StepDir, group_name};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::frames::{self, Reader};
use super::place::cpu_list;
use super::slice::{self, Missing, Slice};
use super::{Inner, Steps};
use crate::jobs::edge::chain;

/// Messages between the shim and the stream: what the shim may have under way is bounded by its
/// windows, so this only smooths.
pub(super) const UNDER_WAY: usize = 64;
/// Between looks at what a step uses, unless srun says otherwise.
const SAMPLE_SECONDS: u32 = 30;
/// Nodes of a gang start within moments of each other: a step may be here before its slice runs.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);
const LAUNCH_PAUSE: Duration = Duration::from_millis(20);
/// Killed processes are gone in less, or wait for a disk: then they go with the job.
const CLEAR_WAIT: Duration = Duration::from_secs(2);

type Out = mpsc::Sender<Result<StepOutput, Status>>;

/// Whether this caller may have a hand in the job.
pub(super) fn admit(slice: &Slice, uid: u32) -> Result<(), Status> {
    match uid == 0 || uid == slice.uid() {
        true => Ok(()),
        false => {
            Err(Status::permission_denied(format!("job {} belongs to another user", slice.key.job)))
        }
    }
}

impl Steps {
    pub(super) async fn find(&self, job: u32, attempt: Option<u32>) -> Result<Slice, Missing> {
        let spool = self.0.edge.spool.clone();
        tokio::task::spawn_blocking(move || slice::find(&spool, job, attempt))
            .await
            .expect("a look at the spool does not panic")
    }

    /// A slice that is expected to run any moment.
    async fn expect(&self, job: u32, attempt: u32) -> Result<Slice, Missing> {
        let until = tokio::time::Instant::now() + LAUNCH_WAIT;
        loop {
            match self.find(job, Some(attempt)).await {
                Err(Missing::Early | Missing::Unknown) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(LAUNCH_PAUSE).await;
                }
                found => return found,
            }
        }
    }

    /// Serves one stream.
    pub(super) async fn serve(
        &self,
        uid: u32,
        first: StepInput,
        asked: Streaming<StepInput>,
        out: Out,
    ) -> Result<(), Status> {
        let stream = match first.kind {
            Some(Asked::Start(start)) => self.start(uid, start).await,
            Some(Asked::Attach(attach)) => self.attach(uid, attach).await,
            _ => return Err(Status::invalid_argument("the first message starts or attaches")),
        };
        match stream {
            Ok(stream) => relay(stream, asked, out).await,
            Err(status) => {
                let gone = status.code() == tonic::Code::NotFound;
                if status.code() == tonic::Code::PermissionDenied {
                    return Err(status);
                }
                let failed = StepFailed { text: status.message().to_owned(), gone };
                let _ = out.send(Ok(StepOutput { kind: Some(Said::Failed(failed)) })).await;
                Ok(())
            }
        }
    }

    async fn start(&self, uid: u32, start: StartStep) -> Result<UnixStream, Status> {
        let node = &self.0.edge.node;
        let slice = self
            .expect(start.job, start.attempt)
            .await
            .map_err(|why| why.status(node, start.job))?;
        admit(&slice, uid)?;
        within(&slice, start.part.as_ref().unwrap_or(&NodePart::default()))?;
        let dir = StepDir::of(&self.0.edge.spool, start.job, slice.key.attempt, start.step);
        if dir.is_alive() {
            // The asker never heard that its order had come.
            let (job, step) = (start.job, start.step);
            let again = AttachStep { job, step, resume: true, ..AttachStep::default() };
            return self.attach(uid, again).await;
        }
        let inner = self.0.clone();
        let launched = tokio::task::spawn_blocking(move || launch(&inner, &slice, start));
        let stream = launched.await.expect("a launch does not panic")?;
        stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream))
            .map_err(|e| Status::internal(e.to_string()))
    }

    async fn attach(&self, uid: u32, attach: AttachStep) -> Result<UnixStream, Status> {
        let node = &self.0.edge.node;
        let slice =
            self.find(attach.job, None).await.map_err(|why| why.status(node, attach.job))?;
        admit(&slice, uid)?;
        let dir = StepDir::of(&self.0.edge.spool, attach.job, slice.key.attempt, attach.step);
        let gone = |_| {
            let text = format!("step {}.{} does not run on {node}", attach.job, attach.step);
            Status::not_found(text)
        };
        let stream = match dir.connect() {
            Ok(stream) => stream,
            Err(fault) => {
                let inner = self.0.clone();
                let cleared =
                    tokio::task::spawn_blocking(move || clear(&inner, &slice, attach.step, &dir));
                cleared.await.expect("a look at a step does not panic");
                return Err(gone(fault));
            }
        };
        stream.set_nonblocking(true).map_err(gone)?;
        let mut stream = UnixStream::from_std(stream).map_err(gone)?;
        let first = StepInput { kind: Some(Asked::Attach(attach.clone())) };
        let (from, mut to) = stream.into_split();
        frames::write(&mut to, &first).await.map_err(gone)?;
        stream = from.reunite(to).map_err(|e| Status::internal(e.to_string()))?;
        Ok(stream)
    }
}

/// Refuses what the job does not have here. Which of it a step may use is between the user's own
/// steps: the first node's table keeps them apart.
fn within(slice: &Slice, part: &NodePart) -> Result<(), Status> {
    let refuse = |what: String| {
        Err(Status::permission_denied(format!(
            "job {} does not have {what} on node {}",
            slice.key.job, slice.launch.node
        )))
    };
    let mine = cpu_list(&slice.launch.cpus);
    if let Some(cpu) = cpu_list(&part.cpus).into_iter().find(|cpu| !mine.contains(cpu)) {
        return refuse(format!("CPU {cpu}"));
    }
    for gres in &part.gres {
        let same = |g: &&muster_proto::v1::GresMask| {
            let (have, want) = (g.kind.as_ref(), gres.kind.as_ref());
            have.map(|k| &k.name) == want.map(|k| &k.name)
        };
        let (mask, count) = slice
            .launch
            .gres
            .iter()
            .filter(same)
            .fold((0, 0), |(mask, count), g| (mask | g.mask, count + g.count));
        if gres.mask & !mask != 0 || gres.count > count {
            let name = gres.kind.as_ref().map_or("", |k| k.name.as_str());
            return refuse(format!("that {name}"));
        }
    }
    Ok(())
}

fn launch(
    inner: &Inner,
    slice: &Slice,
    start: StartStep,
) -> Result<std::os::unix::net::UnixStream, Status> {
    let edge = &inner.edge;
    let launch = &slice.launch;
    let dir = StepDir::of(&edge.spool, slice.key.job, slice.key.attempt, start.step);
    let step = start.step;
    let part = start.part.clone().unwrap_or_default();
    let room = room(inner, slice)
        .map_err(|fault| Status::internal(format!("step {}.{step}: {fault}", slice.key.job)))?;
    let sample_seconds = start.sample_seconds.unwrap_or(SAMPLE_SECONDS);
    let named = edge.gpus.units().iter().filter(|_| edge.binding.by_uuid);
    let order = StepOrder {
        start: Some(start),
        user: launch.user.clone(),
        node: launch.node.clone(),
        cgroup: slice.group(&edge.cgroups).to_owned(),
        bind: launch.limits.as_ref().is_some_and(|l| !l.cpus.is_empty()),
        kill_wait_seconds: launch.kill_wait_seconds,
        job_name: launch.job_name.clone(),
        array_job: launch.array_job,
        array_task: launch.array_task,
        restarts: launch.restarts,
        devices_held: edge.binding.devices.is_some(),
        gpus_of_slice: slice.gpus(),
        limits: room.then(|| edge.limits_of_step(launch, &part)),
        sample_seconds,
        pmix_library: edge.pmix_library.clone(),
        topology_address: edge.topology.0.clone(),
        topology_pattern: edge.topology.1.clone(),
        gpu_cpus: edge.gpus.units().iter().map(|unit| unit.gpu.cpus.to_string()).collect(),
        gpu_names: named.map(|unit| unit.gpu.uuid.to_string()).collect(),
    };
    if dir.path().exists() && !dir.is_alive() {
        dir.remove();
    }
    dir.write_order(&order)
        .map_err(|e| Status::internal(format!("step {}.{step}: {}", slice.key.job, chain(&e))))?;
    inner.launcher.launch(&dir).map_err(|e| {
        dir.remove();
        Status::internal(chain(&e))
    })
}

/// Sees to it that the slice's group takes groups for steps. False: there are no groups, or the
/// slice's shim is of a version that knows of none.
fn room(inner: &Inner, slice: &Slice) -> Result<bool, String> {
    let cgroups = &inner.edge.cgroups;
    let name = slice.group(cgroups);
    if name.is_empty() {
        return Ok(false);
    }
    let Some(group) = cgroups.open(name).map_err(|e| chain(&e))? else {
        return Err(format!("job {} is over", slice.key.job));
    };
    let first = slice.launch.batch.then_some(BATCH_GROUP);
    if cgroups.has_room(&group, first) {
        return Ok(true);
    }
    if first.is_none() {
        cgroups.make_room(&group, None).map_err(|e| chain(&e))?;
        return Ok(true);
    }
    let dir = SliceDir::of(&inner.edge.spool, slice.key.job, slice.key.attempt);
    let mut shim = ShimClient::connect(&dir).map_err(|e| chain(&e))?;
    match shim.make_room() {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { reason, .. }) if reason == muster_shim::UNKNOWN_REQUEST => {
            Ok(false)
        }
        Err(e) => Err(chain(&e)),
    }
}

/// A step whose shim was killed: nobody minds its tasks any more, and what they hold of the job others
/// are given now. Without a group of its own they go with the job.
fn clear(inner: &Inner, slice: &Slice, step: u32, dir: &StepDir) {
    if !dir.path().exists() || dir.is_alive() {
        return;
    }
    let cgroups = &inner.edge.cgroups;
    let cleared = || -> Result<(), muster_cgroup::Error> {
        let Some(whole) = cgroups.open(slice.group(cgroups))? else { return Ok(()) };
        let Some(group) = cgroups.open_inside(&whole, &group_name(step))? else { return Ok(()) };
        group.kill_all()?;
        match group.wait_empty(CLEAR_WAIT)? {
            true => group.remove(),
            false => Ok(()),
        }
    };
    if !slice.group(cgroups).is_empty()
        && let Err(fault) = cleared()
    {
        tracing::warn!(slice = %slice.key, step, "clear what its shim left: {}", chain(&fault));
    }
    dir.remove();
}

/// Passes on both ways until the shim has had its last word. An asker who goes away does not end
/// the step: the shim waits for it to come back.
async fn relay(
    stream: UnixStream,
    mut asked: Streaming<StepInput>,
    out: Out,
) -> Result<(), Status> {
    let (from, mut to) = stream.into_split();
    let inward = tokio::spawn(async move {
        while let Ok(Some(message)) = asked.message().await {
            let over = matches!(message.kind, Some(Asked::Over(_)));
            if frames::write(&mut to, &message).await.is_err() || over {
                break;
            }
        }
        // Closed, the shim knows that nobody asks any more.
        drop(to);
    });
    let mut reader = Reader::new(from);
    let result = loop {
        match reader.next().await {
            Ok(Some(message)) => {
                if out.send(Ok(message)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(fault) => break Err(Status::internal(format!("the step's shim: {fault}"))),
        }
    };
    // Dropped by now: the shim sees its stream end even when the asker is silent.
    drop(reader);
    inward.abort();
    result
}

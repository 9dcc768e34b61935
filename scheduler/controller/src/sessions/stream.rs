//! One agent's stream, from its Hello to its end. The reading half turns what the agent says into
//! wishes for the engine, in the order said; the writing half tells it what is wanted. Either
//! one's end is the session's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_core::command::{Command, GpuFault};
use muster_core::effect::{Desired, StopCause};
use muster_core::effects::desired;
use muster_model::{NodeId, Timestamp};
use muster_proto::agent::v1 as agent;
use muster_proto::agent::v1::agent_message::Kind as Said;
use muster_proto::agent::v1::controller_message::Kind as Told;
use muster_proto::convert::node::inventory_in;
use muster_proto::shim::v1 as shim;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::hub::Outbox;
use super::reconcile::{SliceId, is_final, missing, report_in, slice_id};
use super::wanted::{Wanted, wanted};
use crate::Controller;
use crate::auth::{AgentCaller, now_seconds};
use crate::rpc::status;

/// An agent that has dialled says who it is within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Messages under way to one agent: each may be a megabyte, and an agent that reads slowly should
/// make the session wait rather than the memory grow.
pub const MESSAGES_UNDER_WAY: usize = 4;
/// Slices looked up in one read of the state.
const SLICES_PER_READ: usize = 512;
/// A message with launches is closed when it passes this size.
const MESSAGE_BYTES: usize = 1 << 20;

type Out = mpsc::Sender<Result<agent::ControllerMessage, Status>>;

/// Serves one session until it ends.
pub async fn serve(
    controller: Arc<Controller>,
    caller: AgentCaller,
    mut incoming: Streaming<agent::AgentMessage>,
    out: Out,
) {
    let session = match Session::greet(controller, caller, &mut incoming, &out).await {
        Ok(session) => session,
        Err(refusal) => {
            tracing::warn!(%refusal, "an agent was turned away");
            _ = out.send(Err(refusal)).await;
            return;
        }
    };
    let Session { name, node, .. } = &session;
    tracing::info!(node = %name, "agent connected");
    let ended = tokio::select! {
        ended = session.read(&mut incoming) => ended,
        ended = session.write(&out) => ended,
    };
    session.controller.hub.close(*node, &session.outbox);
    match ended {
        Ok(()) => tracing::info!(node = %name, "agent left"),
        Err(fault) => {
            tracing::warn!(node = %name, %fault, "session ended");
            _ = out.try_send(Err(fault));
        }
    }
}

struct Session {
    controller: Arc<Controller>,
    name: String,
    node: NodeId,
    outbox: Arc<Outbox>,
    /// Slices whose launch the agent has.
    has: Mutex<BTreeSet<SliceId>>,
    /// Those of them of which the agent said that nothing is left.
    over: Mutex<BTreeSet<SliceId>>,
}

impl Session {
    async fn greet(
        controller: Arc<Controller>,
        caller: AgentCaller,
        incoming: &mut Streaming<agent::AgentMessage>,
        out: &Out,
    ) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO_WITHIN, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(Said::Hello(hello)) = first.and_then(|m| m.kind) else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        caller.speaks_for(&hello.node)?;
        let name = hello.node.clone();
        let looked_up = name.clone();
        let found = controller.engine.look(move |state| state.node_id(&looked_up)).await?;
        let node = found.ok_or_else(|| {
            Status::not_found(format!("node {name:?} is not in the controller's config"))
        })?;
        let inventory = hello.inventory.clone().unwrap_or_default();
        let inventory =
            inventory_in(&inventory, &hello.version).map_err(|bad| status::invalid(&bad))?;
        // Before the state has it up: whoever looks for the silent must not see the old silence.
        controller.hub.heard(node, None);
        let command = Command::Register { node, inventory: Box::new(inventory) };
        controller.engine.tell(command).await?;
        // The seat comes before the look at the state: what changes in between is told again.
        let has: BTreeSet<SliceId> = hello.slices.iter().map(slice_id).collect();
        let outbox = controller.hub.open(node, (hello.agent_started_at, hello.port), has.clone());
        // It may have been passed over while it did not answer.
        controller.opinions.wake();
        let over = hello.slices.iter().filter(|r| is_final(r)).map(slice_id).collect();
        let session = Session {
            controller,
            name,
            node,
            outbox,
            has: Mutex::new(has),
            over: Mutex::new(over),
        };
        session.reconcile(hello, out).await?;
        Ok(session)
    }

    async fn reconcile(&self, hello: agent::Hello, out: &Out) -> Result<(), Status> {
        let (node, engine) = (self.node, &self.controller.engine);
        let listed: BTreeSet<SliceId> = hello.slices.iter().map(slice_id).collect();
        let told = listed.clone();
        let gone = engine.look(move |state| missing(state, node, &told)).await?;
        self.report(&hello.slices).await?;
        for (job, attempt) in gone {
            tracing::warn!(node = %self.name, %job, %attempt, "the agent does not have this slice");
            let reason = "the agent does not know it any more".into();
            let report = muster_core::command::SliceReport::Lost { reason };
            self.tell(Command::Slice { job, attempt, node, report }).await?;
        }
        let s = &self.controller.config().scheduler;
        let welcome = agent::Welcome {
            cluster: self.controller.config().cluster.clone(),
            heartbeat_seconds: s.heartbeat_seconds,
            kill_wait_seconds: s.kill_wait_seconds,
            unkillable_seconds: s.unkillable_seconds,
            sample_seconds: s.sample_seconds,
        };
        send(out, Told::Welcome(welcome)).await?;
        // What the agent has is settled in one message; launches that it lacks follow it.
        let (mut all, lacks) = engine
            .look(move |state| {
                let lacks: Vec<SliceId> = desired(state, node)
                    .into_iter()
                    .map(|(job, attempt, _)| (job, attempt))
                    .filter(|id| !listed.contains(id))
                    .collect();
                let all = listed.iter().map(|id| wanted(state, node, *id, false));
                (all.collect::<Vec<_>>(), lacks)
            })
            .await?;
        let leftovers = self.stop_leftovers(&mut all);
        for (job, attempt) in &leftovers {
            tracing::warn!(node = %self.name, %job, %attempt, "a given-up slice is still there");
        }
        self.controller.hub.has_leftovers(node, leftovers);
        let slices = all.iter().map(|wanted| wanted.message(None)).collect();
        send(out, Told::Desired(agent::Desired { full: true, slices })).await?;
        for (job, attempt) in lacks {
            self.outbox.desire(job, attempt);
        }
        Ok(())
    }

    async fn read(&self, incoming: &mut Streaming<agent::AgentMessage>) -> Result<(), Status> {
        while let Some(message) = incoming.message().await? {
            let Some(kind) = message.kind else { continue };
            let hub = &self.controller.hub;
            match kind {
                Said::Heartbeat(beat) => hub.heard(self.node, Some(&beat)),
                Said::Reports(reports) => {
                    hub.heard(self.node, None);
                    self.report(&reports.slices).await?;
                }
                Said::Samples(samples) => {
                    hub.heard(self.node, None);
                    self.controller.usage.note(self.node, &samples.samples);
                }
                Said::Gpus(report) => {
                    hub.heard(self.node, None);
                    self.gpus(report).await?;
                }
                Said::Steps(told) => {
                    hub.heard(self.node, None);
                    self.controller.steps.note(told.steps);
                    self.controller.steps.note_parts(self.node, told.parts);
                }
                Said::Fault(fault) => {
                    tracing::warn!(node = %self.name, reason = %fault.reason, "the node is unfit");
                    let reason = fault.reason.as_str().into();
                    self.tell(Command::NodeFault { node: self.node, reason }).await?;
                }
                Said::Hello(_) => {
                    return Err(Status::invalid_argument("a second Hello in one session"));
                }
            }
        }
        Ok(())
    }

    /// What is wrong with the node's GPUs is the state's business; what they do is shown.
    async fn gpus(&self, report: agent::GpuReport) -> Result<(), Status> {
        let fault = |fault: &agent::GpuFault| {
            Some(GpuFault {
                gpu: u8::try_from(fault.gpu).ok()?,
                reason: fault.reason.as_str().into(),
                stays: fault.stays,
                at: Timestamp(fault.at),
            })
        };
        let faults = report.faults.iter().filter_map(fault).collect();
        self.controller.hub.gpus(self.node, report.readings);
        self.tell(Command::GpuReport { node: self.node, faults }).await
    }

    /// Hands reports on, all in one breath so that they share a commit, and sees that the agent
    /// hears what becomes of those that wait to be forgotten.
    async fn report(&self, reports: &[agent::SliceReport]) -> Result<(), Status> {
        let node = self.node;
        // Before the state hears it: the wish to forget may come at once.
        lock(&self.over).extend(reports.iter().filter(|report| is_final(report)).map(slice_id));
        let tellings = reports.iter().filter_map(|wire| {
            let (job, attempt) = slice_id(wire);
            let report = report_in(wire)?;
            Some(self.tell(Command::Slice { job, attempt, node, report }))
        });
        for told in futures::future::join_all(tellings).await {
            told?;
        }
        for report in reports.iter().filter(|report| is_final(report)) {
            let (job, attempt) = slice_id(report);
            self.outbox.desire(job, attempt);
            if self.controller.hub.cleared(node, (job, attempt)) {
                self.controller.opinions.wake();
            }
        }
        Ok(())
    }

    /// What the state has let go of and the agent still has must end, and say so, before its node
    /// gets new work: names it, and turns the wish to forget it into one to stop it.
    fn stop_leftovers(&self, all: &mut [Wanted]) -> BTreeSet<SliceId> {
        let (has, over) = (lock(&self.has), lock(&self.over));
        let mut leftovers = BTreeSet::new();
        for wanted in all {
            let id = (wanted.job, wanted.attempt);
            let gone = match wanted.desired {
                Desired::Forget | Desired::Stop(StopCause::Unknown) => true,
                Desired::Prepare | Desired::Run { .. } | Desired::Stop(_) => false,
            };
            if gone && has.contains(&id) && !over.contains(&id) {
                wanted.desired = Desired::Stop(StopCause::NodeFailure);
                leftovers.insert(id);
            }
        }
        leftovers
    }

    /// A refusal means that the report came too late to matter.
    async fn tell(&self, command: Command) -> Result<(), Status> {
        use crate::engine::EngineError;
        match self.controller.engine.tell(command).await {
            Ok(_) => Ok(()),
            Err(EngineError::Rejected(refusal)) => {
                tracing::debug!(node = %self.name, %refusal, "a report changed nothing");
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    async fn write(&self, out: &Out) -> Result<(), Status> {
        loop {
            let mail = self.outbox.take().await;
            if mail.closed {
                return Err(Status::aborted(
                    "another session of this node began, or it was given up",
                ));
            }
            let slices: Vec<SliceId> = mail.slices.into_iter().collect();
            for some in slices.chunks(SLICES_PER_READ) {
                self.want(some.to_vec(), out).await?;
            }
            if !mail.signals.is_empty() {
                send(out, Told::Signals(agent::Signals { signals: mail.signals })).await?;
            }
        }
    }

    async fn want(&self, slices: Vec<SliceId>, out: &Out) -> Result<(), Status> {
        let node = self.node;
        let has: BTreeSet<SliceId> = {
            let has = lock(&self.has);
            slices.iter().filter(|id| has.contains(id)).copied().collect()
        };
        let all = self.controller.engine.look(move |state| {
            let of = |id: &SliceId| wanted(state, node, *id, !has.contains(id));
            slices.iter().map(of).collect::<Vec<Wanted>>()
        });
        let mut all = all.await?;
        for slice in self.stop_leftovers(&mut all) {
            self.controller.hub.leaves(node, slice);
        }
        let mut message = agent::Desired::default();
        let mut bytes = 0;
        for wanted in all {
            let launch = self.launch(&wanted).await?;
            bytes += launch.as_ref().map_or(64, |(launch, _)| launch.encoded_len() + 512);
            message.slices.push(wanted.message(launch));
            if bytes >= MESSAGE_BYTES {
                send(out, Told::Desired(std::mem::take(&mut message))).await?;
                bytes = 0;
            }
        }
        if message.slices.is_empty() {
            return Ok(());
        }
        send(out, Told::Desired(message)).await
    }

    /// The launch that goes with a wish; remembers that the agent has it from now on.
    async fn launch(&self, wanted: &Wanted) -> Result<Option<(shim::Launch, String)>, Status> {
        let id = (wanted.job, wanted.attempt);
        if wanted.desired == Desired::Forget {
            lock(&self.has).remove(&id);
            lock(&self.over).remove(&id);
        }
        let Some(source) = &wanted.source else { return Ok(None) };
        let controller = &self.controller;
        let blobs = if source.is_batch() {
            let (scripts, blob) = (controller.scripts.clone(), source.blob);
            let read = tokio::task::spawn_blocking(move || scripts.get(blob)).await;
            read.expect("reading a blob does not panic").map_err(|fault| {
                tracing::error!(job = %wanted.job, %fault, "script or environment unreadable");
                Status::internal("a job's script cannot be read")
            })?
        } else {
            Default::default()
        };
        let account = controller.users.find(source.spec.user.uid.0).await;
        let config = controller.config();
        let mut launch = source.launch(wanted, &config, &account, blobs);
        source.place(&mut launch, |node| controller.hub.port(node));
        let credential = match controller.auth.key() {
            None => String::new(),
            Some(key) => key.sign_launch(&launch, now_seconds()).map_err(|fault| {
                tracing::error!(job = %wanted.job, %fault, "a launch could not be signed");
                Status::internal("a launch could not be signed")
            })?,
        };
        lock(&self.has).insert(id);
        Ok(Some((launch, credential)))
    }
}

fn lock(set: &Mutex<BTreeSet<SliceId>>) -> std::sync::MutexGuard<'_, BTreeSet<SliceId>> {
    set.lock().expect("nobody panics with the set locked")
}

async fn send(out: &Out, kind: Told) -> Result<(), Status> {
    let message = agent::ControllerMessage { kind: Some(kind) };
    out.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent is gone"))
}

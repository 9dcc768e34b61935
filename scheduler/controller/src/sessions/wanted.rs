//! What the state wants of slices, and the launches that go with it.
//!
//! In two steps: a short read of the state copies what is needed; the launches (environment,
//! script, credential) are built outside, from blobs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use muster_config::Config;
use muster_core::effect::{Desired, StopCause};
use muster_core::effects::desired_of;
use muster_core::state::{Job, State};
use muster_model::{Attempt, JobId, JobSpec, NodeId, Slice, Timestamp};
use muster_proto::agent::v1 as agent;
use muster_proto::shim::v1 as shim;
use muster_store::{Blobs, LogError};

use crate::engine::{environment_key, script_key};
use crate::launch::{self, ArrayFacts, Facts};
use crate::show::node_name;
use crate::users::Account;

/// The wish about one slice, copied out of the state.
#[derive(Debug)]
pub struct Wanted {
    pub job: JobId,
    pub attempt: Attempt,
    pub desired: Desired,
    pub end_at: Option<Timestamp>,
    /// What the launch is built from, where one may be needed.
    pub source: Option<Box<Source>>,
}

/// What a launch is built from.
#[derive(Debug)]
pub struct Source {
    pub spec: Arc<JobSpec>,
    /// The job or array whose blobs hold script and environment.
    pub blob: JobId,
    array: Option<ArrayFacts>,
    partition: Box<str>,
    allocated_at: Timestamp,
    end_at: Option<Timestamp>,
    /// In rank order.
    slices: Vec<(Box<str>, Slice)>,
    /// Addresses of their nodes.
    addresses: Vec<Box<str>>,
    /// The rank of the node it is for.
    index: usize,
    /// The further components of a heterogeneous job, where this runs its script.
    mates: Vec<(JobId, Source)>,
}

/// The wish about one slice. `with_source`: the agent does not have its launch yet.
#[must_use]
pub fn wanted(
    state: &State,
    node: NodeId,
    (job, attempt): (JobId, Attempt),
    with_source: bool,
) -> Wanted {
    let desired = desired_of(state, node, job, attempt);
    let record = state.jobs.get(&job).filter(|record| record.attempt == attempt);
    let held = record.and_then(|record| record.phase.allocation());
    let starts = matches!(desired, Desired::Prepare | Desired::Run { .. });
    let source = record.filter(|_| with_source && starts).and_then(|r| source(state, r, node));
    Wanted { job, attempt, desired, end_at: held.and_then(|held| held.end_at), source }
}

fn source(state: &State, job: &Job, node: NodeId) -> Option<Box<Source>> {
    let held = job.phase.allocation()?;
    let index = held.placement.slices.iter().position(|slice| slice.node == node)?;
    let mut found = source_at(state, job, index)?;
    if found.is_batch() {
        let mate = |mate: &Job| Some((mate.id, source_at(state, mate, 0)?));
        found.mates = state.mates_of(job).filter_map(mate).collect();
    }
    Some(Box::new(found))
}

fn source_at(state: &State, job: &Job, index: usize) -> Option<Source> {
    let held = job.phase.allocation()?;
    let array = job.array.and_then(|(id, task)| {
        let array = state.arrays.get(&id)?;
        Some(ArrayFacts::new(id, task, &array.full))
    });
    let address = |slice: &Slice| {
        let inventory = state.node(slice.node).and_then(|node| node.inventory.as_deref());
        inventory.map_or_else(Default::default, |found| found.address.clone())
    };
    let named = |slice: &Slice| (node_name(state, slice.node).into(), slice.clone());
    Some(Source {
        spec: job.spec.clone(),
        blob: job.array.map_or(job.id, |(id, _)| id),
        array,
        partition: held.partition.clone(),
        allocated_at: held.allocated_at,
        end_at: held.end_at,
        slices: held.placement.slices.iter().map(named).collect(),
        addresses: held.placement.slices.iter().map(address).collect(),
        index,
        mates: Vec::new(),
    })
}

impl Source {
    /// Whether this node runs the batch script.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.index == 0 && self.spec.het.is_none_or(|het| het.index == 0)
    }

    /// The launch of this slice.
    #[must_use]
    pub fn launch(
        &self,
        wanted: &Wanted,
        config: &Config,
        account: &Account,
        (script, env): (Bytes, Bytes),
    ) -> shim::Launch {
        let config_path = config.path.to_string_lossy();
        let attempt = wanted.attempt;
        let facts =
            |job, source| Source::facts(source, job, attempt, config, &config_path, account);
        let mates: Vec<Facts<'_>> = self.mates.iter().map(|(job, of)| facts(*job, of)).collect();
        launch::payload(&facts(wanted.job, self), &mates, self.index, script, &env)
    }

    fn facts<'a>(
        &'a self,
        job: JobId,
        attempt: Attempt,
        config: &'a Config,
        config_path: &'a str,
        account: &'a Account,
    ) -> Facts<'a> {
        Facts {
            cluster: &config.cluster,
            config_path,
            job,
            array: self.array,
            attempt: attempt.0,
            restarts: attempt.0.saturating_sub(1),
            spec: &self.spec,
            partition: &self.partition,
            started_at: self.allocated_at,
            end_at: self.end_at,
            slices: self.slices.iter().map(|(name, slice)| (&**name, slice)).collect(),
            topology: &config.topology,
            account,
            kill_wait_seconds: config.scheduler.kill_wait_seconds,
            unkillable_seconds: config.scheduler.unkillable_seconds,
        }
    }
}

impl Source {
    /// Writes into the first node's launch where the agents of all of them are, as far as they
    /// serve other hosts.
    pub fn place(&self, launch: &mut shim::Launch, port: impl Fn(NodeId) -> u32) {
        for (share, ((_, slice), address)) in
            launch.shares.iter_mut().zip(self.slices.iter().zip(&self.addresses))
        {
            let port = port(slice.node);
            if port > 0 && !address.is_empty() {
                share.address = muster_proto::host_port(address, port);
            }
        }
    }
}

impl Wanted {
    /// The message, with its launch and credential where the agent needs them.
    #[must_use]
    pub fn message(&self, launch: Option<(shim::Launch, String)>) -> agent::DesiredSlice {
        let (want, suspended, cause) = match self.desired {
            Desired::Prepare => (agent::Want::Prepare, false, None),
            Desired::Run { suspended } => (agent::Want::Run, suspended, None),
            Desired::Stop(cause) => (agent::Want::Stop, false, Some(cause)),
            Desired::Forget => (agent::Want::Forget, false, None),
        };
        let (launch, credential) = match launch {
            Some((launch, credential)) => (Some(launch), credential),
            None => (None, String::new()),
        };
        agent::DesiredSlice {
            job: self.job.0,
            attempt: self.attempt.0,
            want: want as i32,
            launch,
            credential,
            suspended,
            stop_cause: cause.map_or(shim::StopCause::None, cause_out) as i32,
            end_at: self.end_at.map_or(0, |at| at.0),
        }
    }
}

fn cause_out(cause: StopCause) -> shim::StopCause {
    match cause {
        StopCause::Cancelled => shim::StopCause::Cancelled,
        StopCause::TimeLimit => shim::StopCause::TimeLimit,
        StopCause::Preempted => shim::StopCause::Preempted,
        StopCause::NodeFailure => shim::StopCause::NodeFailure,
        StopCause::Requeued => shim::StopCause::Requeued,
        StopCause::Unknown => shim::StopCause::UnknownToController,
    }
}

/// Pairs kept: the tasks of a few arrays that start at the same time.
const SCRIPTS_KEPT: usize = 16;
/// Pairs beyond this size are read anew each time, bytes.
const SCRIPT_KEPT_BYTES: usize = 256 << 10;

/// Scripts and environments, the last ones kept: the tasks of an array share theirs.
#[derive(Clone)]
pub struct Scripts {
    blobs: Arc<dyn Blobs>,
    kept: Arc<Mutex<VecDeque<(JobId, Bytes, Bytes)>>>,
}

impl Scripts {
    /// Over these blobs.
    #[must_use]
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        Scripts { blobs, kept: Arc::default() }
    }

    /// Script and environment of a job or array; blocks on the disk when they are not kept.
    ///
    /// # Errors
    /// The log's own.
    pub fn get(&self, job: JobId) -> Result<(Bytes, Bytes), LogError> {
        let find = || {
            let kept = self.kept.lock().expect("nobody panics with the scripts locked");
            kept.iter().find(|(id, ..)| *id == job).map(|(_, s, e)| (s.clone(), e.clone()))
        };
        if let Some(found) = find() {
            return Ok(found);
        }
        let script = self.blobs.get(&script_key(job))?.unwrap_or_default();
        let env = self.blobs.get(&environment_key(job))?.unwrap_or_default();
        if script.len() + env.len() <= SCRIPT_KEPT_BYTES {
            let mut kept = self.kept.lock().expect("nobody panics with the scripts locked");
            if kept.len() >= SCRIPTS_KEPT {
                kept.pop_front();
            }
            kept.push_back((job, script.clone(), env.clone()));
        }
        Ok((script, env))
    }
}

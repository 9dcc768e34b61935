//! One commit, without any I/O: wishes in; facts, their record, answers and duties out.
//!
//! The engine's thread and the simulator run this very function.

use bytes::Bytes;
use muster_core::apply::apply;
use muster_core::command::Command;
use muster_core::decide::{self, decide};
use muster_core::effect::Effect;
use muster_core::effects::effects;
use muster_core::event::Event;
use muster_core::rejection::Rejection;
use muster_core::state::State;
use muster_model::{JobId, Timestamp};
use muster_store::Batch;

use super::codec;

/// Wishes taken into one commit at most: more would make the first of them wait too long.
pub const MAX_WISHES: usize = 1024;

/// What a submission brings beside its spec.
#[derive(Debug, Clone, Default)]
pub struct JobBlobs {
    pub script: Bytes,
    /// `NAME=value`, each closed by a NUL.
    pub environment: Bytes,
}

/// A command on its way to a commit.
#[derive(Debug)]
pub struct Wish {
    pub command: Command,
    /// Of a submission.
    pub blobs: Option<JobBlobs>,
}

impl From<Command> for Wish {
    fn from(command: Command) -> Self {
        Wish { command, blobs: None }
    }
}

/// What became of a wish that was granted.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The commit's time.
    pub at: Timestamp,
    /// The facts it became; none if it was so already.
    pub events: Vec<Event>,
    /// What the core tells the caller: a verb on several jobs may have failed for some.
    pub answer: decide::Reply,
    /// Of a submission: the job, also when this request was answered before.
    pub job: Option<JobId>,
}

/// One commit. Nothing of it may leave before `commit` is durable.
#[derive(Debug)]
pub struct Step {
    pub at: Timestamp,
    /// One per wish, in order.
    pub replies: Vec<Result<Reply, Rejection>>,
    /// Ascending, each once.
    pub effects: Vec<Effect>,
    /// `None`: nothing became a fact.
    pub commit: Option<Batch>,
}

/// Where a job's script is kept (an array's under its own id).
#[must_use]
pub fn script_key(job: JobId) -> Vec<u8> {
    [b"script/".as_slice(), &job.0.to_be_bytes()].concat()
}

/// Where a job's environment is kept.
#[must_use]
pub fn environment_key(job: JobId) -> Vec<u8> {
    [b"env/".as_slice(), &job.0.to_be_bytes()].concat()
}

/// Decides the wishes in order, each on the state that the ones before it left.
pub fn step(state: &mut State, wishes: Vec<Wish>, now: Timestamp) -> Step {
    let at = now.max(state.clock);
    let mut out =
        Step { at, replies: Vec::with_capacity(wishes.len()), effects: Vec::new(), commit: None };
    let mut batch = Batch::default();
    for wish in wishes {
        let reply = decide(state, &wish.command, at).map(|decision| {
            let mut blobs = wish.blobs;
            for event in &decision.events {
                let owners = blob_owners(state, event);
                apply(state, event);
                out.effects.extend(effects(state, event));
                keep_blobs(state, event, &mut blobs, &owners, &mut batch);
            }
            let job = match decision.reply {
                decide::Reply::Submitted { job, .. } => Some(job),
                _ => None,
            };
            Reply { at, events: decision.events, answer: decision.reply, job }
        });
        out.replies.push(reply);
    }
    out.effects.sort_unstable();
    out.effects.dedup();
    let mut events = out.replies.iter().flatten().flat_map(|reply| &reply.events).peekable();
    if events.peek().is_some() {
        batch.payload = codec::encode(at, events);
        out.commit = Some(batch);
    }
    out
}

/// Whose blobs a purge may concern: the jobs, and the arrays whose tasks they are.
fn blob_owners(state: &State, event: &Event) -> Vec<JobId> {
    let Event::Purged { jobs } = event else { return Vec::new() };
    let array = |job| state.jobs.get(job).and_then(|job| job.array).map(|(array, _)| array);
    let mut owners: Vec<JobId> =
        jobs.iter().copied().chain(jobs.iter().filter_map(array)).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// A job's blobs come with its submission and go with it. An array's are under its own id, which
/// its first task shares: they stay until both are gone.
fn keep_blobs(
    state: &State,
    event: &Event,
    blobs: &mut Option<JobBlobs>,
    owners: &[JobId],
    batch: &mut Batch,
) {
    if let (Event::Submitted { job, .. }, Some(blobs)) = (event, blobs.take()) {
        batch.put.push((script_key(*job), blobs.script));
        batch.put.push((environment_key(*job), blobs.environment));
    }
    let gone = |id: &&JobId| !state.jobs.contains_key(id) && !state.arrays.contains_key(id);
    for job in owners.iter().filter(gone) {
        batch.delete.push(script_key(*job));
        batch.delete.push(environment_key(*job));
    }
}

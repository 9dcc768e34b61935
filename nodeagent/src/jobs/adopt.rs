//! What an agent that has just started finds in its spool: the slices of its predecessor, each
//! in the phase that its files and processes prove.

use muster_proto::shim::v1::Launch;
use muster_shim::{Adopted, SliceDir, SpoolError};

use super::edge::{Edge, chain};
use super::job::{End, Job, Key, Phase};
use super::reconcile::Held;
use super::spool;

/// Reads the spool. A slice that makes no sense is told as lost, never passed over in silence:
/// the controller believes that it is here.
///
/// # Errors
/// When the spool itself cannot be listed.
pub fn adopt(edge: &Edge) -> Result<Held, SpoolError> {
    let mut held = Held::default();
    for (job, attempt, dir) in SliceDir::list(&edge.spool)? {
        let key = Key { job, attempt };
        if let Some(job) = one(edge, key, &dir) {
            tracing::info!(slice = %key, "found in the spool: {}", name(&job.phase));
            held.adopt(key, job);
        }
    }
    Ok(held)
}

/// One slice; `None` for an entry that was never finished, which is removed.
fn one(edge: &Edge, key: Key, dir: &SliceDir) -> Option<Job> {
    let launch = match dir.read_launch() {
        Ok(Some(launch)) => launch,
        Ok(None) => {
            edge.forget(key);
            return None;
        }
        Err(fault) => {
            let phase = Phase::Cleaning(End::Lost { reason: chain(&fault) });
            return Some(Job::new(false, 0, phase));
        }
    };
    if let Some(end) = spool::read_end(dir) {
        return Some(Job::new(launch.batch, launch.end_at, Phase::Over(end)));
    }
    if launch.batch { Some(batch(edge, dir, &launch)) } else { Some(bare(edge, dir, &launch)) }
}

fn batch(edge: &Edge, dir: &SliceDir, launch: &Launch) -> Job {
    let job = |phase| Job::new(true, launch.end_at, phase);
    match muster_shim::adopt(dir) {
        Ok(Adopted::Exited(exit)) => job(Phase::Cleaning(End::of(exit))),
        Ok(Adopted::Alive(mut shim)) => {
            let record = dir.read_record().ok().flatten().unwrap_or_default();
            let mut job = job(Phase::Running { started_at: record.started_at });
            job.adopted(shim.status().is_ok_and(|reply| reply.suspended));
            job
        }
        Ok(Adopted::NotStarted) => job(not_started(edge, dir)),
        Ok(Adopted::Gone(reason)) => job(Phase::Cleaning(End::Lost { reason })),
        Err(fault) => job(Phase::Cleaning(End::Lost { reason: chain(&fault) })),
    }
}

/// A slice without a process: its note says whether it was let go, and in which boot.
fn bare(edge: &Edge, dir: &SliceDir, launch: &Launch) -> Job {
    let phase = match dir.read_record() {
        Ok(None) => not_started(edge, dir),
        Ok(Some(note)) if note.boot_id == edge.boot_id => {
            Phase::Running { started_at: note.started_at }
        }
        Ok(Some(_)) => {
            Phase::Cleaning(End::Lost { reason: "the node has been restarted".to_owned() })
        }
        Err(fault) => Phase::Cleaning(End::Lost { reason: chain(&fault) }),
    };
    let mut job = Job::new(false, launch.end_at, phase);
    if let Some((of, attempt)) = dir.ids() {
        job.adopted(edge.is_frozen(Key { job: of, attempt }));
    }
    job
}

/// Nothing ran yet. Without a prolog there is nothing left to prepare but the group, which a
/// wish to prepare or run makes anew.
fn not_started(edge: &Edge, dir: &SliceDir) -> Phase {
    if edge.prolog.is_some() && spool::is_prepared(dir) {
        Phase::Ready
    } else {
        Phase::Preparing { begun: false, cancelled: false }
    }
}

fn name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Preparing { .. } => "not prepared yet",
        Phase::Ready => "ready",
        Phase::Launching => "being launched",
        Phase::Running { .. } => "running",
        Phase::Stopping => "stopping",
        Phase::Cleaning(_) => "ended, to be cleaned up",
        Phase::Over(_) => "over",
    }
}

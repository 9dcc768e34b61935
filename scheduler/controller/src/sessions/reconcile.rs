//! What an agent has against what the state says it has, when its session begins.
//!
//! What the agent lists is reported as if it had just been said. What the state has there and the
//! agent does not list is gone, unless it was never launched: then the launch is sent again.

use std::collections::BTreeSet;

use muster_core::command::{SliceExit, SliceReport};
use muster_core::lifecycle::Phase;
use muster_core::state::State;
use muster_model::{Attempt, ExitStatus, JobId, NodeId, Timestamp};
use muster_proto::agent::v1 as agent;
use muster_proto::agent::v1::slice_report::Phase as Reported;
use muster_proto::convert::values::{exit_in, usage_in};
use muster_proto::shim::v1 as shim;

/// A slice's name.
pub type SliceId = (JobId, Attempt);

/// The name of a reported slice.
#[must_use]
pub fn slice_id(report: &agent::SliceReport) -> SliceId {
    (JobId(report.job), Attempt(report.attempt))
}

/// What a report says, as the core wants it; `None`: nothing that decisions depend on.
#[must_use]
pub fn report_in(report: &agent::SliceReport) -> Option<SliceReport> {
    Some(match report.phase.as_ref()? {
        Reported::Ready(_) => SliceReport::Ready,
        Reported::Running(running) => {
            SliceReport::Running { started_at: Timestamp(running.started_at) }
        }
        Reported::Finished(finished) => {
            SliceReport::Finished { exit: finished.exit.as_ref().map(exit_record) }
        }
        Reported::LaunchFailed(failed) => SliceReport::LaunchFailed {
            reason: failed.reason.as_str().into(),
            node_fault: failed.node_fault,
        },
        Reported::Lost(lost) => SliceReport::Lost { reason: lost.reason.as_str().into() },
        Reported::Stopping(_) | Reported::Preparing(_) => return None,
    })
}

/// Whether the agent has nothing of the slice left and waits to forget it.
#[must_use]
pub fn is_final(report: &agent::SliceReport) -> bool {
    matches!(
        report.phase,
        Some(Reported::Finished(_) | Reported::LaunchFailed(_) | Reported::Lost(_))
    )
}

fn exit_record(record: &shim::ExitRecord) -> SliceExit {
    // A record without a status tells of a script that never ran.
    let never_ran = ExitStatus { code: 1, signal: 0 };
    SliceExit {
        status: record.status.as_ref().map_or(never_ran, exit_in),
        oom: record.oom,
        timed_out: record.timed_out,
        started_at: Timestamp(record.started_at),
        ended_at: Timestamp(record.ended_at),
        usage: record.usage.as_ref().map(usage_in).unwrap_or_default(),
    }
}

/// Slices that the state has on this node beyond launching, and the agent does not list: lost.
#[must_use]
pub fn missing(state: &State, node: NodeId, listed: &BTreeSet<SliceId>) -> Vec<SliceId> {
    let gone = |job: &&muster_core::state::Job| {
        let Some(held) = job.phase.allocation() else { return false };
        if !held.remaining.contains(&node) || listed.contains(&(job.id, job.attempt)) {
            return false;
        }
        match &job.phase {
            Phase::Launching { ready, .. } => ready.contains(&node),
            Phase::Running { .. } | Phase::Completing { .. } => true,
            Phase::Pending { .. } | Phase::Ended { .. } => false,
        }
    };
    state.jobs_on(node).filter(gone).map(|job| (job.id, job.attempt)).collect()
}

//! Looking after the shims of this node: an end whose notice was lost (the shim was killed, the
//! agent was away) is found in the spool or by a process that is gone; and what jobs use is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::agent::v1::Sample;
use muster_proto::v1::Usage;
use muster_shim::{ShimClient, SliceDir};

use super::edge::Edge;
use super::job::{End, Event, Key, Phase};
use super::{Input, Jobs};

/// A shim that has not claimed its slice this long after it was asked for will not come.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);

impl Jobs {
    /// Looks at every slice that should have a shim. One round at a time.
    pub(super) fn look(&mut self) {
        if self.edge.is_looking() {
            return;
        }
        let shims: Vec<(Key, Option<Instant>)> = self
            .held
            .iter()
            .filter(|(_, job)| job.batch)
            .filter_map(|(key, job)| match job.phase {
                Phase::Launching => Some((key, self.launching.get(&key).copied())),
                Phase::Running { .. } | Phase::Stopping => Some((key, None)),
                _ => None,
            })
            .collect();
        if shims.is_empty() {
            return;
        }
        let (edge, inputs) = (self.edge.clone(), self.inputs.clone());
        edge.set_looking(true);
        tokio::task::spawn_blocking(move || {
            for (key, since) in shims {
                if let Some(event) = found(&edge.dir(key), since) {
                    // Jobs that are gone need no news.
                    let _ = inputs.blocking_send(Input::Happened(key, event));
                }
            }
            edge.set_looking(false);
        });
    }

    /// Asks every running shim what its slice uses. One round at a time.
    pub(super) fn sample(&mut self) {
        let runs = |phase: &Phase| matches!(phase, Phase::Running { .. });
        let keys: Vec<Key> = self
            .held
            .iter()
            .filter(|(_, job)| job.batch && runs(&job.phase))
            .map(|(key, _)| key)
            .collect();
        if self.sampling || keys.is_empty() || self.link.is_none() {
            return;
        }
        self.sampling = true;
        let (edge, inputs) = (self.edge.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let samples = keys.into_iter().filter_map(|key| usage(&edge, key)).collect();
            let _ = inputs.blocking_send(Input::Samples(samples));
        });
    }
}

/// What the spool says of a slice that should have a shim; `None`: nothing new.
fn found(dir: &SliceDir, launching_since: Option<Instant>) -> Option<Event> {
    let finished = || {
        let exit = dir.read_exit().ok().flatten()?;
        Some(Event::Ended(End::of(exit)))
    };
    if let Some(event) = finished() {
        return Some(event);
    }
    match (dir.read_record().ok()?, launching_since) {
        (Some(record), _) if muster_shim::is_alive(&record) => {
            (record.started_at > 0).then_some(Event::Launched { started_at: record.started_at })
        }
        // It may have written its end between the two looks.
        (Some(record), _) => Some(finished().unwrap_or_else(|| {
            let reason =
                format!("its shim, process {}, is gone without an exit record", record.pid);
            Event::Ended(End::Lost { reason })
        })),
        (None, Some(since)) if since.elapsed() > CLAIM_WITHIN => {
            let reason = format!("no shim came within {} s", CLAIM_WITHIN.as_secs());
            let abandoned = dir.abandon().ok()?;
            abandoned.then_some(Event::Failed(End::LaunchFailed { reason, node_fault: true }))
        }
        (None, _) => None,
    }
}

fn usage(edge: &Arc<Edge>, key: Key) -> Option<Sample> {
    // A shim that ends just now says all in its exit record.
    let reply = ShimClient::connect(&edge.dir(key)).ok()?.status().ok()?;
    let usage = reply.usage.map(|usage| Usage { gpu: edge.gpus.usage(key), ..usage });
    Some(Sample { job: key.job, attempt: key.attempt, usage, pids: reply.pids })
}

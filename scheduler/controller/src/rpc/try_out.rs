//! `sbatch --test-only`: would it be taken, and where and when would it start?
//!
//! Decided and planned on a copied view; nothing is stored. A job that cannot start now is given
//! the end of the last running job as its start: later than it need be, never too early.

use std::sync::Arc;

use muster_core::command::{Command, StartWish};
use muster_core::decide::decide;
use muster_core::event::Event;
use muster_core::plan::{self, Group, Head, Policy, View};
use muster_core::priority::Base;
use muster_core::rejection::Rejection;
use muster_core::state::{Shape, State};
use muster_model::{JobId, JobSpec, Timestamp};
use muster_proto::v1;
use tonic::Status;

use super::status::{invalid, refused};
use super::submit::submission;
use crate::Controller;
use crate::auth::Caller;
use crate::show::host_list;

/// Nodes that one trial may look at: it runs inside a read of the state.
const FUEL: u64 = 1_000_000;

/// Tries a submission out.
///
/// # Errors
/// What a true submission would be refused for.
pub async fn test_only(
    controller: &Controller,
    caller: Caller,
    wire: v1::SubmitRequest,
) -> Result<v1::TestOnlyReply, Status> {
    let account = controller.users.find(caller.uid).await;
    let (submit, _) =
        submission(controller, caller, &account, wire).map_err(|bad| invalid(&bad))?;
    let now = crate::now();
    let tried = controller.engine.read(move |state| {
        let now = now.max(state.clock);
        let decision = decide(state, &Command::Submit(Box::new(submit)), now)?;
        let found = decision.events.into_iter().find_map(|event| match event {
            Event::Submitted { job, spec, .. } => Some((job, spec)),
            _ => None,
        });
        // A request that was answered before is tried as what it was answered with.
        let (job, spec) =
            found.ok_or(Rejection::BadValue("this request was used before".into()))?;
        Ok::<_, Rejection>(trial(state, job, &spec, now))
    });
    tried.await?.map_err(|refusal| refused(&refusal))
}

fn trial(state: &State, job: JobId, spec: &JobSpec, now: Timestamp) -> v1::TestOnlyReply {
    let mut view = plan::view(state, now);
    view.groups = groups(&view, job, spec, now);
    let policy = Policy::default();
    let (start, found) = match plan::plan(&view, &policy, now, FUEL).starts.pop() {
        Some(found) => (now, Some(found)),
        None => {
            for node in &mut view.nodes {
                node.free = node.facts.whole.clone();
            }
            let last = state.derived.ends.last().map_or(now, |(at, _)| (*at).max(now));
            (last, plan::plan(&view, &policy, now, FUEL).starts.pop())
        }
    };
    let first = spec.partitions.first().map(|p| p.to_string()).unwrap_or_default();
    let start = spec.begin.map_or(start, |begin| begin.max(start));
    let Some(StartWish { partition, placement, .. }) = found else {
        return v1::TestOnlyReply { job: job.0, partition: first, ..Default::default() };
    };
    v1::TestOnlyReply {
        job: job.0,
        start: start.0,
        cpus: placement.cpus(),
        nodes: host_list(state, placement.nodes()),
        partition: partition.to_string(),
    }
}

/// The job alone in the queue, in each of its partitions.
fn groups(view: &View, job: JobId, spec: &JobSpec, now: Timestamp) -> Vec<Group> {
    let shape = Arc::new(Shape::of(spec));
    let of = |(index, row): (u32, &plan::view::ViewPartition)| {
        spec.partitions.contains(&row.partition.name).then(|| Group {
            partition: index,
            shape: Arc::clone(&shape),
            base: Base::of(spec),
            heads: vec![Head { job, throttled_by: None, eligible_at: now }],
            more: false,
        })
    };
    (0u32..).zip(&view.partitions).filter_map(of).collect()
}

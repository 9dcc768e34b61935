//! `sbatch --test-only`: would it be taken, and where and when would it start?
//!
//! Decided and planned on a copied view; nothing is stored. A job that cannot start now is told the
//! start that the limits of running jobs allow, as if nobody waited before it.

use std::sync::Arc;

use muster_core::command::{Command, StartWish};
use muster_core::decide::decide;
use muster_core::event::Event;
use muster_core::plan::{self, Backfill, Group, Head, Policy, View};
use muster_core::priority::Base;
use muster_core::rejection::Rejection;
use muster_core::state::{Shape, State};
use muster_model::{JobId, JobSpec, NodeId, Timestamp};
use muster_proto::v1;
use tonic::Status;

use super::former;
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
    let (mut submit, _) =
        submission(controller, caller, &account, wire).map_err(|bad| invalid(&bad))?;
    former::settle(controller, &mut submit.spec.dependency).await?;
    let now = crate::now();
    let policy = crate::pass::policy(&controller.config().scheduler);
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
        Ok::<_, Rejection>(trial(state, &policy, job, &spec, now))
    });
    tried.await?.map_err(|refusal| refused(&refusal))
}

fn trial(
    state: &State,
    policy: &Policy,
    job: JobId,
    spec: &JobSpec,
    now: Timestamp,
) -> v1::TestOnlyReply {
    // Alone in the queue: what waits already may come first, and is not waited for.
    let policy = Policy { shadows: 1, backfill: Backfill::InOrder, ..*policy };
    let mut view = plan::view(state, now, &Policy { max_heads: 0, ..policy });
    view.groups = groups(&view, job, spec, now);
    let mut found = plan::plan(&view, &policy, now, FUEL);
    let first = spec.partitions.first().map(|p| p.to_string()).unwrap_or_default();
    let no_earlier = |start: Timestamp| spec.begin.map_or(start, |begin| begin.max(start));
    let reply = |start, cpus, nodes: &mut dyn Iterator<Item = NodeId>, partition| {
        let nodes = host_list(state, nodes);
        v1::TestOnlyReply { job: job.0, start: no_earlier(start).0, cpus, nodes, partition }
    };
    if let Some(StartWish { partition, placement, .. }) = found.starts.pop() {
        return reply(now, placement.cpus(), &mut placement.nodes(), partition.to_string());
    }
    let soonest = found.shadows.iter().min_by_key(|shadow| shadow.start);
    let Some(shadow) = soonest else {
        return v1::TestOnlyReply { job: job.0, partition: first, ..Default::default() };
    };
    let cpus = shadow.parts.iter().map(plan::Part::cpus).sum();
    let partition = view.partitions[shadow.partition as usize].partition.name.to_string();
    reply(shadow.start, cpus, &mut shadow.parts.iter().map(|part| part.node), partition)
}

/// The job alone in the queue, in each of its partitions.
fn groups(view: &View, job: JobId, spec: &JobSpec, now: Timestamp) -> Vec<Group> {
    let shape = Arc::new(Shape::of(spec));
    let of = |(index, row): (u32, &plan::view::ViewPartition)| {
        spec.partitions.contains(&row.partition.name).then(|| Group {
            partition: index,
            shape: Arc::clone(&shape),
            base: Base::of(spec),
            expected: 0,
            heads: vec![Head { job, throttled_by: None, eligible_at: now }],
            more: false,
        })
    };
    (0u32..).zip(&view.partitions).filter_map(of).collect()
}

//! `sbatch --test-only`: would it be taken, and where and when would it start?
//!
//! Decided and planned on a copied view; nothing is stored. A job that cannot start now is told the
//! start that the limits of running jobs allow, as if nobody waited before it.

use std::sync::Arc;

use muster_core::command::Command;
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
        let found = decision.events.into_iter().filter_map(|event| match event {
            Event::Submitted { job, spec, .. } => Some((job, spec)),
            _ => None,
        });
        let components: Vec<(JobId, Arc<JobSpec>)> = found.collect();
        if components.is_empty() {
            return Err(Rejection::BadValue("this request was used before".into()));
        }
        Ok::<_, Rejection>(trial(state, &policy, &components, now))
    });
    tried.await?.map_err(|refusal| refused(&refusal))
}

/// When the job would start, and what its components would have together.
fn trial(
    state: &State,
    policy: &Policy,
    components: &[(JobId, Arc<JobSpec>)],
    now: Timestamp,
) -> v1::TestOnlyReply {
    let ((job, spec), others) = components.split_first().expect("a job has a component");
    // Alone in the queue: what waits already may come first, and is not waited for.
    let policy = Policy { shadows: 1, backfill: Backfill::InOrder, ..*policy };
    let mut view = plan::view(state, now, &Policy { max_heads: 0, ..policy });
    view.groups = groups(&view, *job, spec, now);
    view.hets.clear();
    if !others.is_empty() {
        let mates = others.iter().map(|(job, spec)| groups(&view, *job, spec, now)).collect();
        view.hets.insert(*job, mates);
    }
    let found = plan::plan(&view, &policy, now, FUEL);
    let no_earlier = |start: Timestamp| spec.begin.map_or(start, |begin| begin.max(start));
    let reply = |start, cpus, nodes: Vec<NodeId>, partitions: Vec<&str>| {
        let nodes = host_list(state, nodes.into_iter());
        let partition = distinct(partitions).join(",");
        v1::TestOnlyReply { job: job.0, start: no_earlier(start).0, cpus, nodes, partition }
    };
    if !found.starts.is_empty() {
        let starts = found.starts.iter();
        let cpus = starts.clone().map(|wish| wish.placement.cpus()).sum();
        let nodes = starts.clone().flat_map(|wish| wish.placement.nodes()).collect();
        return reply(now, cpus, distinct(nodes), starts.map(|wish| &*wish.partition).collect());
    }
    let Some(soonest) = found.shadows.iter().map(|shadow| shadow.start).min() else {
        let first = spec.partitions.first().map(|p| p.to_string()).unwrap_or_default();
        return v1::TestOnlyReply { job: job.0, partition: first, ..Default::default() };
    };
    // In several partitions a plain job has a promise each: the first of the soonest is told.
    let at_once = found.shadows.iter().filter(|shadow| shadow.start == soonest);
    let shadows: Vec<_> = at_once.take(components.len()).collect();
    let parts = || shadows.iter().flat_map(|shadow| &shadow.parts);
    let name = |at: u32| &*view.partitions[at as usize].partition.name;
    reply(
        soonest,
        parts().map(plan::Part::cpus).sum(),
        distinct(parts().map(|part| part.node).collect()),
        shadows.iter().map(|shadow| name(shadow.partition)).collect(),
    )
}

/// Without those that were there before.
fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
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

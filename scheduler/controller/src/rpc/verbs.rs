//! What is done to jobs that exist: one wish per job named, one line of answer each.

use futures::StreamExt as _;
use muster_core::command::{Command, Target};
use muster_core::decide::{JobResult, Reply as Answer};
use muster_core::lifecycle::Phase;
use muster_core::rejection::Rejection;
use muster_core::state::{Entry, Job, State};
use muster_model::{Attempt, JobId, NodeId};
use muster_proto::agent::v1 as agent;
use muster_proto::v1;
use tonic::Status;

use super::status::{detail, fault_detail, invalid};
use super::{change, former, scan};
use crate::Controller;
use crate::auth::Caller;
use crate::engine::Reply;
use crate::show::filter::{Filter, target, target_text};
use crate::show::job::Line;

/// Wishes of one call under way at a time.
const UNDER_WAY: usize = 256;
/// Lines looked at in one read when a filter chooses the jobs.
const LINES_PER_READ: usize = 4096;
/// SIGKILL to a whole job is its end, not a signal.
const SIGKILL: i32 = 9;

/// One wish per job named.
///
/// # Errors
/// A reference that is none; refusals are in the reply.
pub async fn each(
    controller: &Controller,
    jobs: &[v1::JobRef],
    make: impl Fn(Target) -> Command,
) -> Result<v1::VerbReply, Status> {
    let targets = jobs.iter().map(target).collect::<Result<Vec<_>, _>>();
    let targets = targets.map_err(|bad| invalid(&bad))?;
    Ok(wish_all(controller, targets, make).await)
}

async fn wish_all(
    controller: &Controller,
    targets: Vec<Target>,
    make: impl Fn(Target) -> Command,
) -> v1::VerbReply {
    let wishes = targets.into_iter().map(|target| {
        let (job, shown) = (job_of(&target), target_text(&target));
        let command = make(target);
        async move {
            match controller.engine.submit(command, None).await {
                Ok(Reply { answer: Answer::Jobs(results), .. }) => {
                    results.iter().map(result).collect()
                }
                Ok(_) => vec![v1::VerbResult { job: job.0, shown, error: None }],
                Err(fault) => {
                    let error = Some(fault_detail(&fault));
                    vec![v1::VerbResult { job: job.0, shown, error }]
                }
            }
        }
    });
    let results: Vec<Vec<v1::VerbResult>> =
        futures::stream::iter(wishes).buffered(UNDER_WAY).collect().await;
    v1::VerbReply { results: results.into_iter().flatten().collect() }
}

fn result(of: &JobResult) -> v1::VerbResult {
    let target = match &of.tasks {
        Some(tasks) => Target::Tasks(of.job, tasks.clone()),
        None => Target::Job(of.job),
    };
    let error = of.result.as_ref().err().map(detail);
    v1::VerbResult { job: of.job.0, shown: target_text(&target), error }
}

/// `scontrol update job`.
///
/// # Errors
/// A field that makes no sense; refusals are in the reply.
pub async fn update(
    controller: &Controller,
    caller: Caller,
    wire: v1::UpdateJobRequest,
) -> Result<v1::VerbReply, Status> {
    let mut change = change::job(&wire).map_err(|bad| invalid(&bad))?;
    if let Some(dependency) = &mut change.dependency {
        former::settle(controller, dependency).await?;
    }
    let job = wire.job.unwrap_or_default();
    let actor = caller.actor();
    let make = move |target| Command::Update { actor, target, change: Box::new(change.clone()) };
    each(controller, &[job], make).await
}

/// `scancel`: ends jobs, or signals them.
///
/// # Errors
/// A reference or filter that is none; refusals are in the reply.
pub async fn cancel(
    controller: &Controller,
    caller: Caller,
    wire: v1::CancelRequest,
) -> Result<v1::VerbReply, Status> {
    let filter = wire.filter.clone().unwrap_or_default();
    let filter = tokio::task::spawn_blocking(move || Filter::new(&filter)).await;
    let filter = filter.expect("reading a filter does not panic").map_err(|bad| invalid(&bad))?;
    if wire.jobs.is_empty() && filter.is_open() {
        return Ok(v1::VerbReply::default());
    }
    let named = wire.jobs.iter().map(target).collect::<Result<Vec<_>, _>>();
    let named = named.map_err(|bad| invalid(&bad))?;
    let targets = if filter.is_open() {
        named
    } else {
        chosen(controller, wire.jobs.clone(), filter).await?
    };
    let ends = wire.signal == 0 || (wire.signal == SIGKILL && !wire.batch_only && !wire.full);
    if ends {
        let actor = caller.actor();
        return Ok(wish_all(controller, targets, |target| Command::Cancel { actor, target }).await);
    }
    if !(1..=64).contains(&wire.signal) {
        let bad = muster_proto::convert::BadField::new("signal", format!("{}", wire.signal));
        return Err(invalid(&bad));
    }
    let mut results = Vec::new();
    for target in targets {
        let (job, shown) = (job_of(&target), target_text(&target));
        let error = signal(controller, caller, target, &wire).await?.map(|r| detail(&r));
        results.push(v1::VerbResult { job: job.0, shown, error });
    }
    Ok(v1::VerbReply { results })
}

/// Targets of a filter (within the references, if there are any): what has not ended.
async fn chosen(
    controller: &Controller,
    refs: Vec<v1::JobRef>,
    filter: Filter,
) -> Result<Vec<Target>, Status> {
    let spans = scan::spans(controller, &refs).await?;
    let mut targets = Vec::new();
    for mut span in spans {
        let mut from = Some(span.from);
        while let Some(cursor) = from {
            span.from = cursor;
            let (span, filter) = (span.clone(), filter.clone());
            let (mut found, next) =
                controller.engine.look(move |state| found(state, &span, &filter)).await?;
            targets.append(&mut found);
            from = next;
        }
    }
    Ok(targets)
}

fn found(state: &State, span: &scan::Span, filter: &Filter) -> (Vec<Target>, Option<Entry>) {
    let mut targets = Vec::new();
    let next = scan::walk(state, span, LINES_PER_READ, |line| {
        if line.is_ended() || !filter.admits(state, line) {
            return true;
        }
        match line {
            Line::Job(job) => targets.push(match job.array {
                Some((array, index)) => Target::Tasks(array, muster_model::IndexSet::one(index)),
                None => Target::Job(job.id),
            }),
            Line::Pending(array) => targets.push(Target::Tasks(array.id, array.pending.clone())),
            Line::Unstarted(..) => {}
        }
        true
    });
    (targets, next)
}

/// Sends a signal to what runs of a target.
async fn signal(
    controller: &Controller,
    caller: Caller,
    target: Target,
    wire: &v1::CancelRequest,
) -> Result<Option<Rejection>, Status> {
    let batch_only = wire.batch_only;
    let slices =
        controller.engine.look(move |state| running(state, caller, &target, batch_only)).await?;
    let slices = match slices {
        Ok(slices) => slices,
        Err(refusal) => return Ok(Some(refusal)),
    };
    for (node, job, attempt) in slices {
        let signal = agent::Signal {
            job: job.0,
            attempt: attempt.0,
            signal: wire.signal,
            batch_only: wire.batch_only,
            full: wire.full,
        };
        if !controller.hub.signal(node, signal) {
            tracing::warn!(%job, node = node.0, "a signal was not delivered: no session");
        }
    }
    Ok(None)
}

/// The slices of what runs of a target, if the caller may touch it.
fn running(
    state: &State,
    caller: Caller,
    target: &Target,
    batch_only: bool,
) -> Result<Vec<(NodeId, JobId, Attempt)>, Rejection> {
    let jobs: Vec<&Job> = match target {
        Target::Job(id) => match state.arrays.get(id) {
            Some(array) => state.tasks_of(array).collect(),
            None => {
                let job = state.jobs.get(id);
                let known = state.find(*id).is_some();
                let job = job.ok_or(if known {
                    Rejection::NotRunning(*id)
                } else {
                    Rejection::UnknownJob(*id)
                })?;
                // The number of a heterogeneous job means all of its components.
                let leads = job.spec.het.is_some_and(|part| part.index == 0);
                let mates = state.mates_of(job).filter(|_| leads);
                std::iter::once(job).chain(mates).collect()
            }
        },
        Target::Tasks(id, tasks) => {
            let array = state.arrays.get(id).ok_or(Rejection::UnknownJob(*id))?;
            let ids = tasks.iter().filter_map(|index| array.task_id(index));
            ids.filter_map(|id| state.jobs.get(&id)).collect()
        }
    };
    let mut slices = Vec::new();
    for job in jobs {
        if !caller.may_read(job.uid()) {
            return Err(Rejection::NotPermitted { what: format!("to signal job {}", job.id) });
        }
        let Phase::Running { held, .. } = &job.phase else { continue };
        let nodes = held.placement.nodes().take(if batch_only { 1 } else { usize::MAX });
        slices.extend(nodes.map(|node| (node, job.id, job.attempt)));
    }
    if slices.is_empty() {
        return Err(Rejection::NotRunning(job_of(target)));
    }
    Ok(slices)
}

fn job_of(target: &Target) -> JobId {
    match target {
        Target::Job(job) | Target::Tasks(job, _) => *job,
    }
}

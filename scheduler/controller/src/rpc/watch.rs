//! Changes of jobs as they become durable, for one caller.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_core::state::State;
use muster_model::{IndexSet, JobId};
use muster_proto::v1;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::query::{Listing, opinions, page};
use super::scan::{self, Span};
use super::status::invalid;
use crate::Controller;
use crate::show::filter::{Filter, tasks};
use crate::show::job::Depth;

/// Events ready before the caller takes them; beyond it the feed itself holds them.
const EVENTS_AHEAD: usize = 64;

type Out = mpsc::Sender<Result<v1::WatchEvent, Status>>;

/// What one caller watches.
#[derive(Debug, Clone)]
struct Watched {
    refs: Vec<(JobId, Option<IndexSet>)>,
}

/// Opens a watch: first what is, then what changes. With jobs named it ends when all have ended.
///
/// # Errors
/// A reference that is none, or one single job that nobody knows.
pub async fn watch(
    controller: Arc<Controller>,
    wire: v1::WatchRequest,
) -> Result<BoxStream<'static, Result<v1::WatchEvent, Status>>, Status> {
    let refs = wire
        .jobs
        .iter()
        .map(|r| Ok((JobId(r.job), tasks(r)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|bad| invalid(&bad))?;
    let spans = scan::spans(&controller, &wire.jobs).await?;
    let (out, events) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(async move {
        if let Err(fault) = follow(&controller, Watched { refs }, spans, &out).await {
            _ = out.send(Err(fault)).await;
        }
    });
    Ok(ReceiverStream::new(events).boxed())
}

async fn follow(
    controller: &Controller,
    watched: Watched,
    spans: Vec<Span>,
    out: &Out,
) -> Result<(), Status> {
    let mut feed = controller.changes.subscribe();
    // A watch of everything begins with the first change: what is can be listed.
    if !watched.refs.is_empty() {
        resync(controller, &spans, out).await?;
    }
    loop {
        if watched.is_over(controller).await? {
            return Ok(());
        }
        // Until a change that concerns this caller.
        loop {
            let event = tokio::select! {
                event = feed.recv() => event,
                () = out.closed() => return Ok(()),
            };
            match event {
                Ok(job) if watched.covers(&job) => {
                    let ended = job.ended_at > 0 && job.exit.is_some();
                    send(out, v1::Job::clone(&job)).await?;
                    if ended {
                        break;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    resync(controller, &spans, out).await?;
                    break;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}

/// Tells how everything watched is now.
async fn resync(controller: &Controller, spans: &[Span], out: &Out) -> Result<(), Status> {
    let listing = Listing { filter: Filter::default(), ended: true, depth: Depth::Plain };
    for span in spans {
        let mut from = Some(span.from);
        while let Some(cursor) = from {
            let (view, listing) = (opinions(controller), listing.clone());
            let span = Span { from: cursor, ..span.clone() };
            let read = controller.engine.look(move |state| page(state, &span, &listing, &view));
            let (jobs, next) = read.await?;
            for job in jobs {
                send(out, job).await?;
            }
            from = next;
        }
    }
    Ok(())
}

impl Watched {
    fn covers(&self, job: &v1::Job) -> bool {
        self.refs.is_empty()
            || self.refs.iter().any(|(id, tasks)| {
                let same = id.0 == job.id || id.0 == job.array_id;
                same && tasks
                    .as_ref()
                    .is_none_or(|tasks| job.array_task.is_none_or(|task| tasks.contains(task)))
            })
    }

    /// Whether everything named has ended; a watch of all never does.
    async fn is_over(&self, controller: &Controller) -> Result<bool, Status> {
        if self.refs.is_empty() {
            return Ok(false);
        }
        let refs = self.refs.clone();
        let over = controller.engine.look(move |state| {
            refs.iter().all(|(job, tasks)| has_ended(state, *job, tasks.as_ref()))
        });
        Ok(over.await?)
    }
}

/// A job that nobody knows any more ended long ago.
fn has_ended(state: &State, job: JobId, tasks: Option<&IndexSet>) -> bool {
    let ended = |id: &JobId| state.jobs.get(id).is_none_or(|job| job.phase.is_ended());
    match (state.arrays.get(&job), tasks) {
        (Some(array), None) => array.is_over(),
        (Some(array), Some(tasks)) => {
            array.pending.intersection(tasks).is_empty()
                && tasks.iter().filter_map(|index| array.task_id(index)).all(|id| ended(&id))
        }
        (None, _) => match state.array_owning(job) {
            Some(array) => {
                let waits = array.index_of(job).is_some_and(|index| array.pending.contains(index));
                !waits && ended(&job)
            }
            None => ended(&job),
        },
    }
}

async fn send(out: &Out, job: v1::Job) -> Result<(), Status> {
    let event = v1::WatchEvent { job: Some(job) };
    out.send(Ok(event)).await.map_err(|_| Status::cancelled("nobody watches any more"))
}

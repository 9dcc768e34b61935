//! The history as `sacct` asks for it: rows of the database, and the jobs that still live.
//!
//! The state is asked first and the database second: a job that ends in between is in both, never
//! in neither, and the database's row wins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_core::state::State;
use muster_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::query::{JOBS_PER_PAGE, PAGES_AHEAD, VIEWS_PER_READ, View, filter, opinions};
use super::scan::{self, Span};
use super::status::invalid;
use crate::Controller;
use crate::auth::Caller;
use crate::history::{HistoryQuery, JobChoice};
use crate::recorder::Recorder;
use crate::show::filter::{Filter, state_of, tasks};
use crate::show::history;
use crate::show::job::{self, Depth, Line, Shown};

type Out = mpsc::Sender<Result<v1::HistoryPage, Status>>;
/// A database that takes longer than this to write a row is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A row's place: job and, of the rest of an array, its tasks.
type Key = (u32, String);

/// Opens a listing.
///
/// # Errors
/// A filter or reference that is none.
pub async fn list(
    controller: Arc<Controller>,
    caller: Caller,
    wire: v1::HistoryRequest,
) -> Result<BoxStream<'static, Result<v1::HistoryPage, Status>>, Status> {
    let mut asked = wire.filter.clone().unwrap_or_default();
    match asked.users.as_slice() {
        // Naming jobs is choice enough.
        [] if wire.jobs.is_empty() => asked.users = vec![caller.uid.to_string()],
        [all] if all == "*" => asked.users.clear(),
        _ => {}
    }
    let query = query(&wire, &asked).map_err(|bad| invalid(&bad))?;
    let filter = filter(Some(asked)).await?;
    let spans = match scan::spans(&controller, &wire.jobs).await {
        Ok(spans) => spans,
        // The state has forgotten it; the history has not.
        Err(unknown) if unknown.code() == tonic::Code::NotFound => Vec::new(),
        Err(fault) => return Err(fault),
    };
    if wire.duplicates {
        // The state shows one attempt of a job; earlier ones are in the database alone.
        controller.recorder.settle(PATIENCE).await;
    }
    let (out, pages) = mpsc::channel(PAGES_AHEAD);
    tokio::spawn(async move {
        if let Err(fault) = send_all(&controller, spans, filter, query, &out).await {
            _ = out.send(Err(fault)).await;
        }
    });
    Ok(ReceiverStream::new(pages).boxed())
}

fn query(
    wire: &v1::HistoryRequest,
    asked: &v1::JobFilter,
) -> Result<HistoryQuery, muster_proto::convert::BadField> {
    let mut nodes = Vec::new();
    for list in &asked.nodes {
        let hosts = muster_model::Hostlist::parse(list);
        nodes.extend(hosts.map_err(|f| muster_proto::convert::BadField::new("node list", f))?.0);
    }
    let choice = |r: &v1::JobRef| Ok(JobChoice { job: r.job, tasks: tasks(r)? });
    Ok(HistoryQuery {
        jobs: wire.jobs.iter().map(choice).collect::<Result<_, _>>()?,
        users: asked.users.clone(),
        names: asked.names.clone(),
        partitions: asked.partitions.clone(),
        states: asked.states.iter().map(|s| state_of(s)).collect::<Result<_, _>>()?,
        nodes,
        accounts: asked.accounts.clone(),
        qos: asked.qos.clone(),
        start: wire.start,
        end: wire.end,
        duplicates: wire.duplicates,
        after: None,
        limit: 0,
    })
}

async fn send_all(
    controller: &Controller,
    spans: Vec<Span>,
    filter: Filter,
    mut query: HistoryQuery,
    out: &Out,
) -> Result<(), Status> {
    let mut live = BTreeMap::new();
    for span in spans {
        let mut from = Some(span.from);
        while let Some(cursor) = from {
            let span = Span { from: cursor, ..span.clone() };
            let (filter, view) = (filter.clone(), opinions(controller));
            let recorder = controller.recorder.clone();
            let end = query.end;
            let read = controller
                .engine
                .look(move |state| living(state, &span, &filter, &view, &recorder, end));
            let (rows, next) = read.await?;
            live.extend(rows.into_iter().map(|(key, mut row)| {
                controller.steps.add_to(&mut row);
                (key, row)
            }));
            from = next;
        }
    }
    loop {
        let page = controller.history.query(&query).await.map_err(|fault| {
            tracing::error!(%fault, "history unreadable");
            Status::internal("the history database cannot be read")
        })?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let Some(job) = &row.job else { continue };
            while let Some(first) = live.first_entry().filter(|e| e.key().0 < job.id) {
                rows.push(first.remove());
            }
            let key: Key = (job.id, job.array_tasks.clone());
            let newer = live.get(&key).and_then(|row: &v1::HistoryRow| row.job.as_ref());
            match newer.map(|live| is_newer(live, job)) {
                Some(true) if !query.duplicates => continue,
                Some(false) => _ = live.remove(&key),
                Some(true) | None => {}
            }
            rows.push(row);
        }
        send(out, rows).await?;
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let rest: Vec<v1::HistoryRow> = live.into_values().collect();
    for some in rest.chunks(JOBS_PER_PAGE) {
        send(out, some.to_vec()).await?;
    }
    Ok(())
}

/// Whether what lives came after a row. A job that was put back still bears the number of the
/// attempt that the row is about, and one that was alive when the state was asked may have been
/// put back since: the row tells of an attempt, not of the job's end.
fn is_newer(live: &v1::Job, row: &v1::Job) -> bool {
    let lives = live.state <= v1::JobState::Completing as i32;
    live.attempt > row.attempt || lives && live.attempt == row.attempt
}

/// Rows of jobs that have not ended, or whose end is not written yet.
fn living(
    state: &State,
    span: &Span,
    filter: &Filter,
    view: &View,
    recorder: &Recorder,
    end: i64,
) -> (Vec<(Key, v1::HistoryRow)>, Option<muster_core::state::Entry>) {
    let shown = Shown { now: view.now, depth: Depth::Details };
    let mut rows = Vec::new();
    let next = scan::walk(state, span, VIEWS_PER_READ, |line| {
        let id = match line {
            Line::Job(job) => job.id,
            Line::Pending(array) | Line::Unstarted(array, _) => array.id,
        };
        let wanted = !line.is_ended() || recorder.waits_for(id);
        if wanted && filter.admits(state, line) {
            let row = history::live(job::job(state, line, view.of(state, line), shown));
            let job = row.job.as_ref().expect("a live row has its job");
            if end == 0 || job.eligible_at <= end {
                rows.push(((job.id, job.array_tasks.clone()), row));
            }
        }
        rows.len() < JOBS_PER_PAGE
    });
    (rows, next)
}

async fn send(out: &Out, rows: Vec<v1::HistoryRow>) -> Result<(), Status> {
    if rows.is_empty() {
        return Ok(());
    }
    let page = v1::HistoryPage { rows };
    out.send(Ok(page)).await.map_err(|_| Status::cancelled("nobody reads any more"))
}

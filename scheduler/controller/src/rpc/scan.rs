//! Walks over the jobs in ascending order, in short reads of the state.

use muster_core::state::{Entry, JobView, State};
use muster_model::{IndexSet, JobId};
use muster_proto::v1;
use tonic::Status;

use super::status::{invalid, unknown_job};
use crate::Controller;
use crate::show::filter::tasks;
use crate::show::job::Line;

/// A stretch of job numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub from: Entry,
    /// The first number beyond it.
    pub until: JobId,
    /// Only these tasks of the array that the stretch covers.
    pub tasks: Option<IndexSet>,
}

impl Span {
    /// All jobs.
    #[must_use]
    pub fn all() -> Self {
        Span { from: Entry::rest(JobId(0)), until: JobId(u32::MAX), tasks: None }
    }

    fn covers(&self, line: &Line<'_>) -> bool {
        let Some(tasks) = &self.tasks else { return true };
        match line {
            Line::Job(job) => job.array.is_some_and(|(_, index)| tasks.contains(index)),
            Line::Pending(array) => !array.pending.intersection(tasks).is_empty(),
            Line::Unstarted(_, group) => !group.tasks.intersection(tasks).is_empty(),
        }
    }
}

/// The stretches that references name; all jobs without any. Unknown jobs are left out, unless
/// only one was named.
///
/// # Errors
/// A reference that is none; one single job that nobody knows.
pub async fn spans(controller: &Controller, refs: &[v1::JobRef]) -> Result<Vec<Span>, Status> {
    if refs.is_empty() {
        return Ok(vec![Span::all()]);
    }
    let wanted = refs
        .iter()
        .map(|r| Ok((JobId(r.job), tasks(r)?)))
        .collect::<Result<Vec<(JobId, Option<IndexSet>)>, _>>()
        .map_err(|bad| invalid(&bad))?;
    let looked_up = wanted.clone();
    let spans = controller.engine.read(move |state| {
        let found = looked_up.into_iter().filter_map(|(job, tasks)| span(state, job, tasks));
        found.collect::<Vec<_>>()
    });
    let mut spans = spans.await?;
    if let ([], [(only, _)]) = (spans.as_slice(), wanted.as_slice()) {
        return Err(unknown_job(only.0));
    }
    spans.sort_by_key(|span| span.from);
    spans.dedup();
    Ok(spans)
}

/// The stretch of one job, or of an array and its tasks.
#[must_use]
pub fn span(state: &State, job: JobId, tasks: Option<IndexSet>) -> Option<Span> {
    if let Some(array) = state.arrays.get(&job) {
        let until = JobId(job.0.saturating_add(array.count()));
        return Some(Span { from: Entry::rest(job), until, tasks });
    }
    match state.find(job)? {
        JobView::Single(_) if tasks.is_some() => None,
        // The number of a heterogeneous job names all its components.
        JobView::Single(one) if one.spec.het.is_some_and(|het| het.index == 0) => {
            let count = one.spec.het.map_or(1, |het| u32::from(het.count));
            Some(Span { from: Entry::job(job), until: JobId(job.0 + count), tasks: None })
        }
        JobView::Single(_) | JobView::Task(_) => {
            Some(Span { from: Entry::job(job), until: JobId(job.0 + 1), tasks: None })
        }
        // A task by its own number that is no job of its own yet: the array's line shows it.
        JobView::ArrayRest(array) => {
            let index = array.index_of(job)?;
            let until = JobId(array.id.0 + 1);
            let tasks = Some(IndexSet::one(index));
            Some(Span { from: Entry::rest(array.id), until, tasks })
        }
    }
}

/// Visits the lines of a stretch until `visit` says no or `most` views were looked at; where to
/// go on, if there is more.
pub fn walk(
    state: &State,
    span: &Span,
    most: usize,
    mut visit: impl FnMut(&Line<'_>) -> bool,
) -> Option<Entry> {
    let mut goes_on = true;
    for (looked_at, view) in state.views_from(span.from).enumerate() {
        let entry = view.entry();
        if entry.id >= span.until {
            return None;
        }
        if !goes_on || looked_at >= most {
            return Some(entry);
        }
        for line in Line::of(view).filter(|line| span.covers(line)) {
            goes_on &= visit(&line);
        }
    }
    None
}

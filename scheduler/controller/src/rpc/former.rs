//! Dependencies on jobs that the state has let go of and the history remembers: they are settled
//! when the dependent job is submitted, so that a chain may be continued a day later.

use muster_core::rejection::Rejection;
use muster_model::{Dependency, DependencyKind, DependencyTerm, IndexSet};
use muster_proto::v1::JobState;

use crate::Controller;
use crate::engine::EngineError;
use crate::history::{HistoryError, HistoryQuery, JobChoice};

/// Former jobs that one dependency may name: each costs two questions to the database. Those beyond
/// are jobs that nobody knows.
const MOST: usize = 64;

/// Ends that are not well.
const BAD: [JobState; 8] = [
    JobState::Failed,
    JobState::Cancelled,
    JobState::Timeout,
    JobState::OutOfMemory,
    JobState::NodeFail,
    JobState::Deadline,
    JobState::Preempted,
    JobState::BootFail,
];

/// Takes out of a dependency what former jobs already fulfil. Terms on jobs that nobody knows stay,
/// for the core to refuse.
///
/// # Errors
/// A former job ended in a way that the dependency can never hold; the engine's.
pub async fn settle(
    controller: &Controller,
    dependency: &mut Dependency,
) -> Result<(), EngineError> {
    if dependency.terms.is_empty() {
        return Ok(());
    }
    let terms = dependency.terms.clone();
    let gone = controller.engine.read(move |state| {
        let gone = |term: &DependencyTerm| state.dependency_target(term).is_none();
        terms.into_iter().filter(gone).collect::<Vec<_>>()
    });
    let mut settled = Vec::new();
    for term in gone.await?.into_iter().take(MOST) {
        match fate(controller, term).await {
            Ok(Some(met)) => settled.push((term, met)),
            Ok(None) => {}
            // Without the history a former job is one that nobody knows.
            Err(fault) => tracing::error!(%fault, job = %term.job, "history unreadable"),
        }
    }
    take(dependency, &settled).map_err(EngineError::Rejected)
}

/// Whether a term on a former job holds; `None`: the history does not know the job.
async fn fate(controller: &Controller, term: DependencyTerm) -> Result<Option<bool>, HistoryError> {
    if !has(controller, term, &[]).await? {
        return Ok(None);
    }
    Ok(Some(holds(term.kind, has(controller, term, &BAD).await?)))
}

/// Whether the history has a row of the term's job in one of these states; without any, at all.
async fn has(
    controller: &Controller,
    term: DependencyTerm,
    states: &[JobState],
) -> Result<bool, HistoryError> {
    let query = HistoryQuery {
        jobs: vec![JobChoice { job: term.job.0, tasks: term.task.map(IndexSet::one) }],
        states: states.iter().map(|state| *state as i32).collect(),
        limit: 1,
        ..HistoryQuery::default()
    };
    Ok(!controller.history.query(&query).await?.rows.is_empty())
}

/// Whether a dependency on what has ended holds; `bad`: some of it did not end well.
fn holds(kind: DependencyKind, bad: bool) -> bool {
    match kind {
        DependencyKind::After { .. } | DependencyKind::AfterAny => true,
        DependencyKind::AfterOk | DependencyKind::AfterCorr => !bad,
        DependencyKind::AfterNotOk => bad,
    }
}

fn take(dependency: &mut Dependency, settled: &[(DependencyTerm, bool)]) -> Result<(), Rejection> {
    let fate = |term: &DependencyTerm| settled.iter().find(|(t, _)| t == term).map(|(_, met)| *met);
    let never = |term: &DependencyTerm| {
        Err(Rejection::DependencyNeverHolds { term: term.to_string(), job: term.job })
    };
    if dependency.any {
        if dependency.terms.iter().any(|term| fate(term) == Some(true)) {
            dependency.terms.clear();
            return Ok(());
        }
        let last = dependency.terms.last().copied();
        dependency.terms.retain(|term| fate(term) != Some(false));
        return match last {
            Some(last) if dependency.terms.is_empty() => never(&last),
            _ => Ok(()),
        };
    }
    if let Some(term) = dependency.terms.iter().find(|term| fate(term) == Some(false)) {
        return never(term);
    }
    dependency.terms.retain(|term| fate(term).is_none());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a dependency when these jobs are gone and each ended well or not.
    #[track_caller]
    fn check(text: &str, ended: &[(u32, bool)], left: Option<usize>) {
        let mut dependency = Dependency::parse(text).unwrap();
        let of = |term: &DependencyTerm| {
            let (_, ok) = ended.iter().find(|(id, _)| *id == term.job.0)?;
            Some((*term, holds(term.kind, !ok)))
        };
        let settled: Vec<_> = dependency.terms.iter().filter_map(of).collect();
        let taken = take(&mut dependency, &settled).map(|()| dependency.terms.len());
        assert_eq!(taken.ok(), left, "{text}");
    }

    #[test]
    fn former_jobs_settle_their_terms() {
        check("afterok:1", &[(1, true)], Some(0));
        check("afterok:1", &[(1, false)], None);
        check("afterok:1:2", &[(1, true)], Some(1));
        check("afterany:1,afternotok:2", &[(1, false), (2, false)], Some(0));
        check("afternotok:2", &[(2, true)], None);
        check("after:1+5", &[(1, false)], Some(0));
        check("afterok:7", &[], Some(1));
    }

    #[test]
    fn one_of_several_is_enough_where_any_is() {
        check("afterok:1?afterok:2", &[(1, true)], Some(0));
        check("afterok:1?afterok:2", &[(1, false)], Some(1));
        check("afterok:1?afterok:2", &[(1, false), (2, false)], None);
    }
}

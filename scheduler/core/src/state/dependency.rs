//! Dependencies: how far each term is, and when a term is settled.
//!
//! A term's state is kept with the job that waits, so that it outlives the job waited for. Once
//! met or never to be met it stays so.

use std::collections::BTreeSet;

use muster_model::{
    Dependency, DependencyKind, DependencyTerm, IndexSet, JobId, Outcome, Timestamp,
};

use crate::lifecycle::Phase;

use super::State;
use super::job::{Array, Entry, Job, JobView};

/// How far one term is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermState {
    Waiting,
    /// Holds from this time on.
    Met {
        from: Timestamp,
    },
    Never,
    /// `aftercorr` between arrays: by the index of the waiting task.
    Each {
        ok: IndexSet,
        never: IndexSet,
    },
}

/// All terms together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    Met { from: Timestamp },
    Never,
}

/// What became of what is waited for.
enum Fate {
    NotStarted,
    Started { at: Timestamp },
    Ended { ok: bool, started: Timestamp },
}

/// The terms taken together, for the task with this index (or a single job).
#[must_use]
pub fn standing(dependency: &Dependency, terms: &[TermState], index: Option<u32>) -> Standing {
    let each = terms.iter().map(|term| match term {
        TermState::Waiting => Standing::Waiting,
        TermState::Met { from } => Standing::Met { from: *from },
        TermState::Never => Standing::Never,
        TermState::Each { ok, never } => match index {
            Some(i) if ok.contains(i) => Standing::Met { from: Timestamp(0) },
            Some(i) if never.contains(i) => Standing::Never,
            Some(_) | None => Standing::Waiting,
        },
    });
    combine(each, dependency.any)
}

fn combine(terms: impl Iterator<Item = Standing>, any: bool) -> Standing {
    let (mut met, mut waiting, mut never, mut count) = (None, false, false, 0);
    for term in terms {
        count += 1;
        match term {
            Standing::Waiting => waiting = true,
            Standing::Never => never = true,
            Standing::Met { from } => {
                met = Some(
                    met.map_or(from, |m: Timestamp| if any { m.min(from) } else { m.max(from) }),
                );
            }
        }
    }
    let from = met.unwrap_or_default();
    match (any, count) {
        (_, 0) => Standing::Met { from: Timestamp(0) },
        (true, _) if met.is_some() => Standing::Met { from },
        (true, _) if waiting => Standing::Waiting,
        (true, _) => Standing::Never,
        (false, _) if never => Standing::Never,
        (false, _) if waiting => Standing::Waiting,
        (false, _) => Standing::Met { from },
    }
}

/// Which tasks of a waiting array its dependency lets go; `None`: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayStanding {
    pub standing: Standing,
    pub only: Option<IndexSet>,
    pub never: IndexSet,
}

/// The terms taken together, for an array's pending tasks.
#[must_use]
pub fn array_standing(dependency: &Dependency, terms: &[TermState]) -> ArrayStanding {
    let plain = terms.iter().filter(|t| !matches!(t, TermState::Each { .. }));
    let corr: Vec<(&IndexSet, &IndexSet)> = terms
        .iter()
        .filter_map(|t| match t {
            TermState::Each { ok, never } => Some((ok, never)),
            TermState::Waiting | TermState::Met { .. } | TermState::Never => None,
        })
        .collect();
    let plain_count = plain.clone().count();
    let whole = standing_of_plain(dependency, plain);
    let everything = |standing| ArrayStanding { standing, only: None, never: IndexSet::default() };
    let Some((first, rest)) = corr.split_first() else { return everything(whole) };
    let fold = |f: fn(&IndexSet, &IndexSet) -> IndexSet,
                pick: fn(&(&IndexSet, &IndexSet)) -> IndexSet| {
        rest.iter().fold(pick(first), |acc, c| f(&acc, &pick(c)))
    };
    let oks: fn(&(&IndexSet, &IndexSet)) -> IndexSet = |c| c.0.clone();
    let nevers: fn(&(&IndexSet, &IndexSet)) -> IndexSet = |c| c.1.clone();
    if dependency.any {
        if plain_count > 0 && matches!(whole, Standing::Met { .. }) {
            return everything(whole);
        }
        let dead_rest = plain_count == 0 || whole == Standing::Never;
        let never =
            if dead_rest { fold(IndexSet::intersection, nevers) } else { IndexSet::default() };
        return ArrayStanding {
            standing: Standing::Met { from: Timestamp(0) },
            only: Some(fold(IndexSet::union, oks)),
            never,
        };
    }
    match whole {
        Standing::Met { from } => ArrayStanding {
            standing: Standing::Met { from },
            only: Some(fold(IndexSet::intersection, oks)),
            never: fold(IndexSet::union, nevers),
        },
        Standing::Waiting | Standing::Never => everything(whole),
    }
}

fn standing_of_plain<'a>(
    dependency: &Dependency,
    plain: impl Iterator<Item = &'a TermState>,
) -> Standing {
    let each = plain.map(|t| match t {
        TermState::Met { from } => Standing::Met { from: *from },
        TermState::Never => Standing::Never,
        TermState::Waiting | TermState::Each { .. } => Standing::Waiting,
    });
    combine(each, dependency.any)
}

impl State {
    /// What a term waits for: a job, one task that is no job of its own, or a whole array.
    #[must_use]
    pub fn dependency_target(&self, term: &DependencyTerm) -> Option<JobView<'_>> {
        match term.task {
            Some(index) => self.find_task(term.job, index),
            None => match self.arrays.get(&term.job) {
                Some(array) => Some(JobView::ArrayRest(array)),
                None => self.find(term.job),
            },
        }
    }

    /// How far a term is by now; `None`: what it waits for is gone, so nothing new is known.
    #[must_use]
    pub(crate) fn evaluate(
        &self,
        term: &DependencyTerm,
        waiting: Option<&IndexSet>,
    ) -> Option<TermState> {
        let fate = match (term.task, self.arrays.get(&term.job)) {
            (None, Some(array)) => return Some(by_array(array, term.kind, waiting)),
            (Some(index), Some(array)) => self.task_fate(array, index)?,
            (Some(_), None) => return None,
            (None, None) => match self.jobs.get(&term.job) {
                Some(job) => job_fate(job),
                None => {
                    let array = self.array_owning(term.job)?;
                    self.task_fate(array, array.index_of(term.job)?)?
                }
            },
        };
        Some(by_fate(term.kind, &fate))
    }

    fn task_fate(&self, array: &Array, index: u32) -> Option<Fate> {
        if let Some(job) = array.task_id(index).and_then(|id| self.jobs.get(&id)) {
            return Some(job_fate(job));
        }
        Some(match (array.ok.contains(index), array.bad.contains(index)) {
            (true, _) => Fate::Ended { ok: true, started: array.last_end },
            (_, true) => Fate::Ended { ok: false, started: array.last_end },
            (false, false) if array.full.contains(index) => Fate::NotStarted,
            (false, false) => return None,
        })
    }

    /// Whether making `of` wait for `dependency` would close a circle.
    #[must_use]
    pub fn dependency_loops(&self, of: JobId, dependency: &Dependency) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<JobId> = dependency.terms.iter().map(|t| t.job).collect();
        while let Some(id) = open.pop() {
            if id == of || self.array_owning(id).is_some_and(|a| a.id == of) {
                return true;
            }
            if !seen.insert(id) {
                continue;
            }
            let waits = |spec: &muster_model::JobSpec| {
                spec.dependency.terms.iter().map(|t| t.job).collect::<Vec<_>>()
            };
            match self.arrays.get(&id) {
                Some(array) if !array.pending.is_empty() => open.extend(waits(&array.spec)),
                Some(_) | None => {}
            }
            if let Some(job) = self.jobs.get(&id).filter(|j| j.phase.is_pending()) {
                open.extend(waits(&job.spec));
            }
        }
        false
    }

    /// Jobs and arrays with a term on this id that is not settled.
    pub(crate) fn dependents_of(&self, id: JobId) -> Vec<Entry> {
        self.derived.dependents.get(&id).into_iter().flatten().copied().collect()
    }
}

fn job_fate(job: &Job) -> Fate {
    match &job.phase {
        Phase::Pending { .. } | Phase::Launching { .. } => Fate::NotStarted,
        Phase::Running { held, .. } => {
            Fate::Started { at: held.started_at.unwrap_or(held.allocated_at) }
        }
        Phase::Completing { held, since, .. } => {
            Fate::Started { at: held.started_at.unwrap_or(*since) }
        }
        Phase::Ended { outcome, at } => Fate::Ended {
            ok: *outcome == Outcome::Completed,
            started: job.started_at().unwrap_or(*at),
        },
    }
}

fn by_fate(kind: DependencyKind, fate: &Fate) -> TermState {
    let now = Timestamp(0);
    match (kind, fate) {
        (_, Fate::NotStarted) => TermState::Waiting,
        (DependencyKind::After { minutes }, Fate::Started { at })
        | (DependencyKind::After { minutes }, Fate::Ended { started: at, .. }) => {
            TermState::Met { from: at.plus_seconds(i64::from(minutes) * 60) }
        }
        (
            DependencyKind::AfterAny
            | DependencyKind::AfterOk
            | DependencyKind::AfterNotOk
            | DependencyKind::AfterCorr,
            Fate::Started { .. },
        ) => TermState::Waiting,
        (DependencyKind::AfterAny, Fate::Ended { .. }) => TermState::Met { from: now },
        (DependencyKind::AfterOk | DependencyKind::AfterCorr, Fate::Ended { ok, .. }) => {
            settled(*ok)
        }
        (DependencyKind::AfterNotOk, Fate::Ended { ok, .. }) => settled(!ok),
    }
}

fn settled(met: bool) -> TermState {
    if met { TermState::Met { from: Timestamp(0) } } else { TermState::Never }
}

fn by_array(array: &Array, kind: DependencyKind, waiting: Option<&IndexSet>) -> TermState {
    match kind {
        DependencyKind::After { minutes } => {
            let begun = array.pending.is_empty();
            let from = array.last_start.max(Timestamp(0)).plus_seconds(i64::from(minutes) * 60);
            if begun { TermState::Met { from } } else { TermState::Waiting }
        }
        DependencyKind::AfterAny => {
            if array.is_over() {
                settled(true)
            } else {
                TermState::Waiting
            }
        }
        DependencyKind::AfterOk => all_ok(array),
        DependencyKind::AfterNotOk => {
            if array.is_over() {
                settled(!array.bad.is_empty())
            } else {
                TermState::Waiting
            }
        }
        DependencyKind::AfterCorr => match waiting {
            None => all_ok(array),
            Some(mine) => TermState::Each {
                ok: array.ok.intersection(mine),
                never: array.bad.intersection(mine).union(&mine.difference(&array.full)),
            },
        },
    }
}

fn all_ok(array: &Array) -> TermState {
    match (array.bad.is_empty(), array.is_over()) {
        (false, _) => TermState::Never,
        (true, true) => settled(true),
        (true, false) => TermState::Waiting,
    }
}

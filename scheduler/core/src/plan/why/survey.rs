//! What an explanation needs of the state, copied in one read.

use muster_model::{JobId, JobSpec, NodeId, Reason, Timestamp};

use crate::lifecycle::Phase;
use crate::plan::axes::Amounts;
use crate::plan::policy::Policy;
use crate::plan::view::{Group, Head, View, startable, view};
use crate::priority::Base;
use crate::state::index::remaining_slices;
use crate::state::queue::beyond;
use crate::state::{JobView, Shape, State};

use super::estimating;

/// A view with a waiting job in it, and who holds what.
#[derive(Debug, Clone)]
pub struct Survey {
    pub view: View,
    pub subject: Subject,
    pub holders: Vec<Holder>,
    /// By end, those without one last.
    pub licensed: Vec<LicenseHolder>,
}

/// The job that is asked about; of an array the first task that may start.
#[derive(Debug, Clone)]
pub struct Subject {
    pub job: JobId,
    pub spec: JobSpec,
    pub expected: u32,
    pub eligible_at: Timestamp,
    pub throttled_by: Option<JobId>,
    /// What it says itself, whoever else is there.
    pub blocked: Option<Reason>,
}

/// What a running job holds of a node.
#[derive(Debug, Clone)]
pub struct Holder {
    pub job: JobId,
    pub node: NodeId,
    /// By its limit; `None`: it has none.
    pub end: Option<Timestamp>,
    pub amounts: Amounts,
}

/// How many of a licence a running job holds.
#[derive(Debug, Clone)]
pub struct LicenseHolder {
    pub job: JobId,
    pub end: Option<Timestamp>,
    pub name: Box<str>,
    pub count: u32,
}

/// Copies what is needed; `None`: no such job waits.
#[must_use]
pub fn survey(state: &State, now: Timestamp, policy: &Policy, job: JobId) -> Option<Survey> {
    let subject = subject(state, now, job)?;
    let mut view = view(state, now, &estimating(policy));
    let stands = view.groups.iter().any(|g| g.heads.iter().any(|h| h.job == subject.job));
    // Other components than the first come with it, from wherever it stands.
    if !stands && subject.blocked.is_none() && !subject.follows() {
        // Too far behind to be among the heads that were copied.
        let groups = groups(&view, &subject, &subject.spec, subject.head());
        view.groups.extend(groups);
    }
    let (holders, licensed) = match subject.blocked {
        Some(_) => (Vec::new(), Vec::new()),
        None => holders(state),
    };
    Some(Survey { view, subject, holders, licensed })
}

fn subject(state: &State, now: Timestamp, id: JobId) -> Option<Subject> {
    let found = state.find(id)?;
    // What a component waits for is its leader's to say.
    let speaker = match found {
        JobView::Single(job) => JobView::Single(state.leader_of(job)),
        JobView::Task(_) | JobView::ArrayRest(_) => found,
    };
    let blocked = state.static_reason(speaker, now);
    match found {
        JobView::Single(job) | JobView::Task(job) => {
            let Phase::Pending { eligible_at, .. } = job.phase else { return None };
            let (spec, expected) = (JobSpec::clone(&job.spec), job.expected);
            let throttled_by = None;
            Some(Subject { job: job.id, spec, expected, eligible_at, throttled_by, blocked })
        }
        JobView::ArrayRest(array) => {
            if array.pending.is_empty() {
                return None;
            }
            let first = startable(array, 1).first().copied();
            Some(Subject {
                job: first.unwrap_or(array.id),
                spec: JobSpec::clone(&array.spec),
                expected: array.expected,
                eligible_at: array.eligible_at,
                throttled_by: array.throttle.map(|_| array.id),
                blocked,
            })
        }
    }
}

impl Subject {
    /// Whether it is a component that another one leads.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.spec.het.is_some_and(|het| het.index > 0)
    }

    /// The job that a pass has a reason for.
    pub(super) fn leader(&self) -> JobId {
        self.spec.het.map_or(self.job, |het| het.leader(self.job))
    }

    pub(super) fn head(&self) -> Head {
        let Subject { job, throttled_by, eligible_at, .. } = *self;
        Head { job, throttled_by, eligible_at }
    }
}

/// The groups of a job that asks for this, alone in each.
pub(super) fn groups(view: &View, of: &Subject, spec: &JobSpec, head: Head) -> Vec<Group> {
    let shape = std::sync::Arc::new(Shape::of(spec));
    let rows = (0u32..).zip(&view.partitions);
    let wanted = rows.filter(|(_, row)| {
        spec.partitions.contains(&row.partition.name) && beyond(&row.partition, spec).is_none()
    });
    let group = |(partition, _)| Group {
        partition,
        shape: shape.clone(),
        base: Base::of(spec),
        expected: of.expected,
        heads: vec![head],
        more: false,
    };
    wanted.map(group).collect()
}

fn holders(state: &State) -> (Vec<Holder>, Vec<LicenseHolder>) {
    let (mut nodes, mut licensed) = (Vec::new(), Vec::new());
    for job in state.derived.holding.iter().filter_map(|id| state.jobs.get(id)) {
        let Some(held) = job.phase.allocation() else { continue };
        let leaves = matches!(job.phase, Phase::Completing { .. });
        let end = if leaves { Some(state.clock) } else { held.end_at };
        for slice in remaining_slices(job) {
            let amounts = state.derived.axes.taken(slice);
            nodes.push(Holder { job: job.id, node: slice.node, end, amounts });
        }
        licensed.extend(job.spec.licenses.iter().map(|(name, count)| LicenseHolder {
            job: job.id,
            end,
            name: name.clone(),
            count: *count,
        }));
    }
    licensed.sort_by_key(|h| (h.end.unwrap_or(Timestamp(i64::MAX)), h.job));
    (nodes, licensed)
}

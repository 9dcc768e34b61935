//! Why a job waits, worked out: which nodes fall out at which filter, whom it waits for, when it is
//! expected to start and what would let it start now.
//!
//! Nothing here decides anything. Expected starts are the shadows of a plan that promises a start to
//! many more jobs than a pass does ([`estimating`]); a change is proposed only if a plan with the
//! cluster's own policy over the same view, with the job changed so and last in the queue, starts
//! it. Both are true as of the view, and as long as jobs run to their limits.
//!
//! - `survey`: what is copied of the state; `funnel`: the filters; `changes`: what would help

mod changes;
mod funnel;
mod survey;

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{JobId, NodeId, Reason, Timestamp};

use super::axes::{Amounts, Axes};
use super::ground::{Part, end_of};
use super::nodeset::NodeSet;
use super::policy::{Backfill, Policy};
use super::view::View;
use super::{Plan, Shadow, plan};

pub use changes::{Change, Suggestion};
pub use funnel::{Filter, Funnel, Removed};
pub use survey::{Holder, LicenseHolder, Subject, Survey, survey};

/// Jobs of each partition that an estimate promises a start at least.
pub const ESTIMATED: u32 = 1000;

/// What is known about a waiting job.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    pub job: JobId,
    /// [`Reason::None`]: the next pass starts it.
    pub reason: Reason,
    /// One for each of its partitions.
    pub funnels: Vec<Funnel>,
    /// Running jobs that must end before it starts, by end; without an end those that have none.
    pub waits_for: Vec<(JobId, Option<Timestamp>)>,
    /// Jobs that wait too, want nodes that it could use and have an earlier promise, in that order.
    pub ahead: Vec<JobId>,
    pub start: Option<Start>,
    /// Verified, at most three.
    pub changes: Vec<Suggestion>,
    pub fuel_used: u64,
}

/// When and where a job is expected to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub at: Timestamp,
    pub partition: Box<str>,
    pub nodes: Vec<NodeId>,
}

/// The policy for estimates: the cluster's own but that many more starts are promised. Where nobody
/// may overtake, an estimate is the earliest start that is possible.
#[must_use]
pub fn estimating(policy: &Policy) -> Policy {
    let backfill = match policy.backfill {
        Backfill::Off => Backfill::InOrder,
        other => other,
    };
    Policy { backfill, shadows: policy.shadows.max(ESTIMATED), ..*policy }
}

/// The starts that a plan chose or promised.
#[must_use]
pub fn starts(view: &View, plan: &Plan, now: Timestamp) -> BTreeMap<JobId, Start> {
    let mut out: BTreeMap<JobId, Start> = BTreeMap::new();
    for shadow in &plan.shadows {
        let start = promised(view, shadow);
        let known = out.entry(shadow.job).or_insert_with(|| start.clone());
        if start.at < known.at {
            *known = start;
        }
    }
    for wish in &plan.starts {
        let nodes = wish.placement.nodes().collect();
        out.insert(wish.job, Start { at: now, partition: wish.partition.clone(), nodes });
    }
    out
}

fn promised(view: &View, shadow: &Shadow) -> Start {
    let partition = view.partitions[shadow.partition as usize].partition.name.clone();
    let parts = shadow.parts.iter().filter(|part| part.tasks > 0);
    Start { at: shadow.start, partition, nodes: parts.map(|part| part.node).collect() }
}

/// Looks into one waiting job. Without enough fuel the answer is true as far as it goes.
#[must_use]
pub fn why(survey: &Survey, policy: &Policy, now: Timestamp, fuel: u64) -> Why {
    let Survey { view, subject, .. } = survey;
    let job = subject.job;
    let mut out = Why {
        job,
        reason: Reason::None,
        funnels: Vec::new(),
        waits_for: Vec::new(),
        ahead: Vec::new(),
        start: None,
        changes: Vec::new(),
        fuel_used: 0,
    };
    if let Some(reason) = subject.blocked {
        out.reason = reason;
        return out;
    }
    let mut left = fuel;
    let current = planned(view, policy, now, &mut left);
    if let Some(start) = starts(view, &current, now).remove(&job).filter(|s| s.at == now) {
        out.start = Some(start);
        out.fuel_used = fuel - left;
        return out;
    }
    out.reason = reason(survey, &current);
    out.funnels = funnel::funnels(survey, policy, now, &current);
    let wide = estimating(policy);
    let guess = if wide == *policy { current } else { planned(view, &wide, now, &mut left) };
    let own = guess.shadows.iter().position(|shadow| shadow.job == job);
    let before = &guess.shadows[..own.unwrap_or(guess.shadows.len())];
    let usable = funnel::usable(survey);
    let mut known = BTreeSet::new();
    let touches = |shadow: &&Shadow| shadow.parts.iter().any(|p| usable.contains(p.node));
    let rivals = before.iter().filter(touches).map(|shadow| shadow.job);
    out.ahead = rivals.filter(|id| known.insert(*id)).collect();
    match own.map(|at| &guess.shadows[at]) {
        Some(shadow) => {
            out.start = Some(promised(view, shadow));
            out.waits_for = must_end(survey, &guess, shadow, before);
        }
        None => out.waits_for = endless(survey, &usable),
    }
    // What would start it is told of the first component: it starts with that one alone.
    if !subject.follows() {
        out.changes = changes::changes(survey, policy, now, &mut left);
    }
    out.fuel_used = fuel - left;
    out
}

fn planned(view: &View, policy: &Policy, now: Timestamp, fuel: &mut u64) -> Plan {
    let plan = plan(view, policy, now, *fuel);
    *fuel -= plan.fuel_used.min(*fuel);
    plan
}

fn reason(survey: &Survey, plan: &Plan) -> Reason {
    let Survey { view, subject, .. } = survey;
    let head = subject.leader();
    if let Some(reason) = plan.reasons.jobs.get(&head) {
        return *reason;
    }
    let groups = view.groups.iter().filter(|g| g.heads.iter().any(|h| h.job == head));
    let known = groups.filter_map(|group| {
        let name = &view.partitions[group.partition as usize].partition.name;
        plan.reasons.shapes.get(name)?.get(&group.shape)
    });
    // The best that one of its partitions has to say: nothing but others is in the way.
    known.max_by_key(|reason| *reason == Reason::Priority).unwrap_or(Reason::Priority)
}

/// The running jobs whose ends a promise builds on: on each of its nodes those that end first, until
/// there is enough.
fn must_end(
    survey: &Survey,
    plan: &Plan,
    shadow: &Shadow,
    before: &[Shadow],
) -> Vec<(JobId, Option<Timestamp>)> {
    let view = &survey.view;
    let mut out: BTreeMap<JobId, Timestamp> = BTreeMap::new();
    let over = end_of(shadow.start, shadow.length);
    let meets = |other: &&Shadow| {
        over.is_none_or(|over| other.start < over)
            && end_of(other.start, other.length).is_none_or(|end| end > shadow.start)
    };
    for part in &shadow.parts {
        let mut free = free(view, part.node);
        for other in before.iter().filter(meets).flat_map(|s| &s.parts) {
            take(&mut free, other, part.node);
        }
        for slice in plan.starts.iter().flat_map(|wish| &wish.placement.slices) {
            if slice.node == part.node {
                view.axes.taken(slice).iter().for_each(|(axis, n)| free[*axis] -= i64::from(*n));
            }
        }
        let short = |free: &[i64], axis: usize, n: u32| free[axis] < i64::from(n);
        let here = survey.holders.iter().filter(|h| h.node == part.node);
        let mut here: Vec<(Timestamp, &Holder)> =
            here.filter_map(|h| Some((h.end.filter(|end| *end <= shadow.start)?, h))).collect();
        here.sort_by_key(|(end, holder)| (*end, holder.job));
        for (end, holder) in here {
            let lacking = |(axis, n): &&(usize, u32)| short(&free, *axis, *n);
            let lack: Vec<usize> = part.amounts.iter().filter(lacking).map(|(a, _)| *a).collect();
            if lack.is_empty() {
                break;
            }
            if holder.amounts.iter().any(|(axis, n)| *n > 0 && lack.contains(axis)) {
                out.insert(holder.job, end);
            }
            holder.amounts.iter().for_each(|(axis, n)| free[*axis] += i64::from(*n));
        }
    }
    for (name, wanted) in &survey.subject.spec.licenses {
        let license = view.licenses.iter().find(|l| l.name == *name);
        let mut free = license.map_or(0, |l| l.free);
        let of = survey.licensed.iter().filter(|h| h.name == *name);
        for (holder, end) in of.filter_map(|h| Some((h, h.end.filter(|e| *e <= shadow.start)?))) {
            if free >= *wanted {
                break;
            }
            free = free.saturating_add(holder.count);
            out.insert(holder.job, end);
        }
    }
    let mut out: Vec<(JobId, Option<Timestamp>)> =
        out.into_iter().map(|(job, end)| (job, Some(end))).collect();
    out.sort_by_key(|(job, end)| (*end, *job));
    out
}

fn free(view: &View, node: NodeId) -> Vec<i64> {
    let of = &view.nodes[node.0 as usize];
    let mut row = vec![0; view.axes.len()];
    Axes::count(&view.axes, node.0 as usize, &of.free, of.jobs, &mut row);
    row.into_iter().map(i64::from).collect()
}

fn take(free: &mut [i64], part: &Part, node: NodeId) {
    if part.node == node {
        let amounts: &Amounts = &part.amounts;
        amounts.iter().for_each(|(axis, n)| free[*axis] -= i64::from(*n));
    }
}

/// Jobs without an end on nodes that could serve it: why nothing can be promised.
fn endless(survey: &Survey, usable: &NodeSet) -> Vec<(JobId, Option<Timestamp>)> {
    let there = survey.holders.iter().filter(|h| h.end.is_none() && usable.contains(h.node));
    let jobs: BTreeSet<JobId> = there.map(|h| h.job).collect();
    jobs.into_iter().map(|job| (job, None)).collect()
}

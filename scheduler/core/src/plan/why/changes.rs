//! What would let a job start now: smaller and shorter forms of it, each of them planned.

use std::sync::Arc;

use muster_model::{
    GresKind, GresScope, JobId, JobSpec, NodeId, PartitionState, Request, Seconds, TimeLimit,
    Timestamp,
};

use crate::command::StartWish;
use crate::plan::policy::Policy;
use crate::plan::view::{Head, View};

use super::survey::groups;
use super::{Survey, planned};

/// Proposed at most.
const MOST: usize = 3;
/// Other partitions tried at most.
const PARTITIONS: usize = 8;

/// One thing asked for otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Partition(Box<str>),
    /// The longest limit that fits before what is promised to others, less a little so that there
    /// is time to type it.
    Limit(Seconds),
    Gres {
        kind: GresKind,
        count: u64,
        scope: GresScope,
    },
    /// Tasks and GRES of the whole job shrink with the nodes.
    Nodes {
        nodes: u32,
        tasks: Option<u32>,
        gres: Vec<(GresKind, u64)>,
    },
    CpusPerTask(u32),
}

/// A change with which it would start now, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    pub change: Change,
    pub partition: Box<str>,
    pub nodes: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Partition,
    Limit,
    Gpus,
    Nodes,
    Cpus,
}

/// The queue without the job, and tries with it as the last.
struct Trials<'a> {
    survey: &'a Survey,
    view: View,
    policy: &'a Policy,
    now: Timestamp,
    fuel: &'a mut u64,
}

/// Changes that would start it now, what costs least first.
pub(super) fn changes(
    survey: &Survey,
    policy: &Policy,
    now: Timestamp,
    fuel: &mut u64,
) -> Vec<Suggestion> {
    let mut view = survey.view.clone();
    for group in &mut view.groups {
        group.heads.retain(|head| head.job != survey.subject.job);
    }
    view.groups.retain(|group| !group.heads.is_empty());
    let mut trials = Trials { survey, view, policy, now, fuel };
    let ways = [Way::Partition, Way::Limit, Way::Gpus, Way::Nodes, Way::Cpus];
    ways.into_iter().filter_map(|way| trials.go(way)).take(MOST).collect()
}

impl Trials<'_> {
    fn go(&mut self, way: Way) -> Option<Suggestion> {
        match way {
            Way::Partition => self.another_partition(),
            Way::Limit => self.shorter(),
            Way::Gpus => self.fewer_gpus(),
            Way::Nodes => self.fewer_nodes(),
            Way::Cpus => self.fewer_cpus(),
        }
    }

    fn spec(&self) -> &JobSpec {
        &self.survey.subject.spec
    }

    /// The start of a job that asks for this, now, as the last of all that wait.
    fn starts(&mut self, spec: &JobSpec) -> Option<StartWish> {
        if *self.fuel == 0 {
            return None;
        }
        let job = JobId(u32::MAX);
        let throttled_by = self.survey.subject.throttled_by;
        let head = Head { job, throttled_by, eligible_at: self.now };
        let others = self.view.groups.len();
        self.view.groups.extend(groups(&self.view, &self.survey.subject, spec, head));
        let plan = planned(&self.view, self.policy, self.now, self.fuel);
        self.view.groups.truncate(others);
        plan.starts.into_iter().find(|wish| wish.job == job)
    }

    fn verified(&mut self, spec: &JobSpec, change: Change) -> Option<Suggestion> {
        let StartWish { partition, placement, .. } = self.starts(spec)?;
        Some(Suggestion { change, partition, nodes: placement.nodes().collect() })
    }

    fn another_partition(&mut self) -> Option<Suggestion> {
        let spec = self.spec().clone();
        let may = |allowed: &[Box<str>], groups: &[Box<str>]| {
            allowed.is_empty() && groups.is_empty() || allowed.contains(&spec.user.name)
        };
        let rows = self.survey.view.partitions.iter().map(|row| &row.partition);
        let others = rows.filter(|p| {
            p.state == PartitionState::Up
                && !spec.partitions.contains(&p.name)
                && may(&p.allow_users, &p.allow_groups)
        });
        let names: Vec<Box<str>> = others.map(|p| p.name.clone()).take(PARTITIONS).collect();
        names.into_iter().find_map(|name| {
            let moved = JobSpec { partitions: vec![name.clone()], ..spec.clone() };
            self.verified(&moved, Change::Partition(name))
        })
    }

    fn shorter(&mut self) -> Option<Suggestion> {
        // A job that makes do with a minute is given as much as there is.
        let least = Some(TimeLimit::minutes(1));
        let modest = JobSpec { time_min: least, ..self.spec().clone() };
        let room = self.starts(&modest)?.time_limit?;
        let minutes = room.0 / 60;
        let minutes = minutes - (minutes / 20).clamp(1, 5).min(minutes);
        if minutes == 0 {
            return None;
        }
        let limit = TimeLimit::minutes(minutes);
        let short = JobSpec { time_limit: Some(limit), time_min: None, ..self.spec().clone() };
        self.verified(&short, Change::Limit(Seconds(minutes.saturating_mul(60))))
    }

    fn fewer_gpus(&mut self) -> Option<Suggestion> {
        let spec = self.spec().clone();
        let request = &spec.request;
        let mut gpus = (0..request.gres.len()).filter(|i| &*request.gres[*i].kind.name == "gpu");
        let at = gpus.next()?;
        let wanted = request.gres[at].clone();
        let least = match wanted.scope {
            GresScope::Job => u64::from(request.nodes.min.max(1)),
            GresScope::Node | GresScope::Task | GresScope::Socket => 1,
        };
        let with = |count: u64| {
            let mut request = Request::clone(&spec.request);
            request.gres[at].count = count;
            JobSpec { request: Arc::new(request), ..spec.clone() }
        };
        let count = self.most(least, wanted.count, with)?;
        let change = Change::Gres { kind: wanted.kind, count, scope: wanted.scope };
        self.verified(&with(count), change)
    }

    fn fewer_nodes(&mut self) -> Option<Suggestion> {
        let spec = self.spec().clone();
        let nodes = spec.request.nodes.min;
        let with = |n: u64| {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            let mut request = Request::clone(&spec.request);
            request.nodes.min = n;
            request.nodes.max = request.nodes.max.map(|max| if max == nodes { n } else { max });
            if request.tasks_given && request.tasks.is_multiple_of(nodes) {
                request.tasks = request.tasks / nodes * n;
            }
            for gres in request.gres.iter_mut().filter(|g| g.scope == GresScope::Job) {
                if gres.count.is_multiple_of(nodes.into()) {
                    gres.count = gres.count / u64::from(nodes) * u64::from(n);
                }
            }
            JobSpec { request: Arc::new(request), ..spec.clone() }
        };
        if nodes < 2 {
            return None;
        }
        let fewer = self.most(1, nodes.into(), with)?;
        let spec = with(fewer);
        let request = &spec.request;
        let tasks = (request.tasks_given && nodes > 1).then_some(request.tasks);
        let whole = request.gres.iter().filter(|g| g.scope == GresScope::Job);
        let gres = whole.map(|g| (g.kind.clone(), g.count)).collect();
        self.verified(&spec, Change::Nodes { nodes: request.nodes.min, tasks, gres })
    }

    fn fewer_cpus(&mut self) -> Option<Suggestion> {
        let spec = self.spec().clone();
        let with = |cpus: u64| {
            let mut request = Request::clone(&spec.request);
            request.cpus_per_task = u32::try_from(cpus).unwrap_or(u32::MAX);
            JobSpec { request: Arc::new(request), ..spec.clone() }
        };
        let cpus = self.most(1, spec.request.cpus_per_task.into(), with)?;
        let change = Change::CpusPerTask(u32::try_from(cpus).unwrap_or(u32::MAX));
        self.verified(&with(cpus), change)
    }

    /// The greatest number from `least` on and below `wanted` that starts, if smaller ones do too.
    fn most(&mut self, least: u64, wanted: u64, with: impl Fn(u64) -> JobSpec) -> Option<u64> {
        if least >= wanted || self.starts(&with(least)).is_none() {
            return None;
        }
        let (mut good, mut bad) = (least, wanted);
        while good + 1 < bad {
            let middle = good + (bad - good) / 2;
            match self.starts(&with(middle)) {
                Some(_) => good = middle,
                None => bad = middle,
            }
        }
        Some(good)
    }
}

//! What the groups of a pass ask: one query for all that ask the same of the nodes.

use std::sync::Arc;

use muster_model::{PartitionState, Reason, Timestamp};

use crate::state::reserved::fence;

use super::super::ask::Ask;
use super::super::demand::Demand;
use super::super::ground::{Closure, KeptLicenses, Query};
use super::super::nodeset::NodeSet;
use super::super::view::{Group, View};
use super::Pass;

impl<'a> Pass<'a> {
    /// The query of a group, which is made when it is first looked at.
    pub(super) fn query(&mut self, at: usize) -> usize {
        let kind = self.kinds[at];
        if let Some(index) = self.queries[kind] {
            return index;
        }
        let view = self.view;
        let asked = self.ask(&view.groups[kind]);
        if let Ok(query) = &asked {
            let common = self.note_glance(&view.groups[kind], query);
            self.glances.extend(common);
        }
        self.asked.push(asked);
        self.settled.push(None);
        self.queries[kind] = Some(self.asked.len() - 1);
        self.asked.len() - 1
    }

    /// Whether the query of a group is made.
    pub(super) fn is_asked(&self, at: usize) -> bool {
        self.queries[self.kinds[at]].is_some()
    }

    pub(super) fn ask(&mut self, group: &'a Group) -> Result<Box<Query>, Reason> {
        let row = &self.view.partitions[group.partition as usize];
        if !row.starts() {
            return Err(match row.partition.state {
                PartitionState::Inactive => Reason::PartitionInactive,
                PartitionState::Up | PartitionState::Down | PartitionState::Drain => {
                    Reason::PartitionDown
                }
            });
        }
        let mut licenses = Vec::with_capacity(group.shape.licenses.len());
        for (name, count) in &group.shape.licenses {
            let at = self.view.licenses.iter().position(|l| l.name == *name);
            licenses.push((at.ok_or(Reason::Licenses)?, *count));
        }
        let ask = Ask::new(&group.shape.request, &row.partition);
        let demand = Demand::new(ask, &self.ground.axes).ok_or(Reason::ReqNodeNotAvail)?;
        let fence = fence(&self.view.reservations, group.shape.reservation.as_deref())
            .ok_or(Reason::Reservation)?;
        let nodes = self.view.nodes.len();
        let base = self.sieve.pass(self.view, group, &demand, fence.only);
        let mut closures: Vec<Closure> = Vec::new();
        for reserved in fence.closed.iter().filter(|r| !r.nodes.is_empty()) {
            let set = NodeSet::of(nodes, reserved.nodes.iter().copied());
            let of = |(from, until): &(Timestamp, Timestamp)| Closure {
                from: *from,
                until: *until,
                nodes: set.clone(),
            };
            closures.extend(reserved.windows.iter().map(of));
        }
        if let Some((from, until)) = fence.within {
            let all = || NodeSet::clone(&base);
            closures.push(Closure { from: Timestamp(i64::MIN), until: from, nodes: all() });
            closures.push(Closure { from: until, until: Timestamp(i64::MAX), nodes: all() });
        }
        let license = |name: &str| self.view.licenses.iter().position(|l| *l.name == *name);
        let mut kept: Vec<KeptLicenses> = Vec::new();
        for (name, _) in &group.shape.licenses {
            for reserved in fence.closed.iter().filter(|r| !r.licenses.is_empty()) {
                let of = reserved.licenses.iter().filter(|(n, _)| n == name);
                for (count, window) in
                    of.flat_map(|(_, n)| reserved.windows.iter().map(move |w| (n, w)))
                {
                    let license = license(name).ok_or(Reason::Licenses)?;
                    let (from, until) = *window;
                    kept.push(KeptLicenses { from, until, license, count: *count });
                }
            }
        }
        let since = group.heads.first().map_or(self.now, |head| head.eligible_at);
        let mut query = Query::new(demand, base, licenses, closures, since, &self.ground);
        query.kept_licenses = kept;
        Ok(Box::new(query))
    }
}

/// Groups that ask the same of the nodes stand side by side, one for each limit and expected run
/// time: the first of each such run, by group.
pub(super) fn kinds(view: &View) -> Vec<usize> {
    let same = |a: &Group, b: &Group| {
        a.partition == b.partition
            && Arc::ptr_eq(&a.shape.request, &b.shape.request)
            && a.shape.licenses == b.shape.licenses
            && a.shape.reservation == b.shape.reservation
    };
    let mut out: Vec<usize> = Vec::with_capacity(view.groups.len());
    for (at, group) in view.groups.iter().enumerate() {
        let before = at.checked_sub(1).filter(|n| same(&view.groups[*n], group));
        out.push(before.map_or(at, |n| out[n]));
    }
    out
}

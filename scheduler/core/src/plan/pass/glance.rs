//! A first look at plain requests: so many equal parts of nodes, and nothing said about which nodes.
//!
//! Most of a long queue asks for just that, and in a full cluster counts alone say that there are
//! not so many parts free. To know it takes a few numbers, where a query is hundreds of bytes with
//! sets of nodes. A glance never says more than the query would: that one waits for resources.

use muster_model::{CpuBinding, GresKind, GresScope, MemoryRequest, Partition, Request};
use smallvec::{SmallVec, smallvec};

use super::super::axes::{Amounts, CPUS, MEMORY, SEATS};
use super::super::ground::Query;
use super::super::view::Group;
use super::Pass;

/// A plain request: nodes, and what each part takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plain<'a> {
    nodes: u32,
    cpus: u32,
    memory_mib: u64,
    kind: Option<&'a GresKind>,
    units: u32,
}

/// What plain requests for one kind of GRES have in common in a partition.
#[derive(Debug)]
pub(super) struct Common<'a> {
    partition: u32,
    kind: Option<&'a GresKind>,
    axes: SmallVec<[usize; 2]>,
    /// How many nodes that could serve there are of each of the sizes of the axes.
    sizes: Vec<usize>,
}

/// Kinds compared at most: where there are so many, a query costs no more.
const COMPARED: usize = 32;

impl<'a> Pass<'a> {
    /// Whether counts alone say that no job of a group can start now, though it could if nobody
    /// ran anything. `false`: its query knows.
    pub(super) fn glance(&mut self, group: &Group) -> bool {
        let Some(plain) = self.plain(group) else { return false };
        let of = |c: &&Common<'_>| c.partition == group.partition && c.kind == plain.kind;
        let Some(common) = self.glances.iter().find(of) else { return false };
        let enough = plain.nodes as usize;
        let amounts = plain.amounts(&common.axes);
        let calendar = &self.ground.calendar;
        if !amounts.iter().any(|(axis, n)| calendar.counted(0, *axis, *n) < enough) {
            return false;
        }
        let sizes = self.ground.axes.sizes().iter().zip(&common.sizes);
        let room = sizes.filter(|((size, _), _)| amounts.iter().all(|(a, n)| size[*a] >= *n));
        let possible = room.map(|(_, count)| count).sum::<usize>() >= enough;
        self.fuel = self.fuel.saturating_sub(if possible { 2 } else { 0 });
        possible
    }

    /// Notes what the query of a group found out for others that ask for the same kind.
    pub(super) fn note_glance(&mut self, group: &'a Group, query: &Query) -> Option<Common<'a>> {
        let plain = self.plain(group).filter(|_| self.glances.len() < COMPARED)?;
        let of = |c: &Common<'_>| c.partition == group.partition && c.kind == plain.kind;
        if self.glances.iter().any(of) {
            return None;
        }
        let axes = match plain.kind {
            Some(kind) => self.ground.axes.of_kind(kind)?.into(),
            None => SmallVec::new(),
        };
        let count = |(_, nodes): &(Vec<u32>, _)| query.base.up_to_common(nodes, usize::MAX);
        let sizes = self.ground.axes.sizes().iter().map(count).collect();
        Some(Common { partition: group.partition, kind: plain.kind, axes, sizes })
    }

    fn plain<'b>(&self, group: &'b Group) -> Option<Plain<'b>> {
        let shape = &group.shape;
        let row = &self.view.partitions[group.partition as usize];
        let open = row.starts() && shape.licenses.is_empty() && shape.reservation.is_none();
        Plain::of(&shape.request, &row.partition).filter(|_| open)
    }
}

impl<'a> Plain<'a> {
    /// `None`: it is not plain.
    fn of(request: &'a Request, partition: &Partition) -> Option<Self> {
        let topology = &request.topology;
        let named = !request.required_nodes.is_empty()
            || !request.excluded_nodes.is_empty()
            || request.constraint.is_some()
            || request.threads_per_core.is_some()
            || request.sockets_per_node.is_some();
        let shaped = request.exclusive
            || partition.exclusive
            || request.contiguous
            || topology.alone
            || topology.nvlink
            || topology.binding == CpuBinding::Enforced;
        let nodes = request.nodes.min.max(1);
        let fixed = request.nodes.max == Some(nodes)
            && partition.min_nodes <= nodes
            && partition.max_nodes.is_none_or(|max| max >= nodes);
        if named || shaped || !fixed {
            return None;
        }
        let per_node = request.tasks_per_node.filter(|n| *n > 0);
        let tasks = match request.tasks_given {
            false => per_node.unwrap_or(1),
            true => {
                let (all, each) = (request.tasks.max(1), request.tasks.max(1) / nodes);
                let even = all % nodes == 0 && per_node.is_none_or(|max| each <= max);
                Some(each).filter(|each| even && (nodes == 1 || *each == 1))?
            }
        };
        let (kind, units) = match request.gres.as_slice() {
            [] => (None, 0),
            [one] if one.count > 0 => {
                let count = u32::try_from(one.count).unwrap_or(u32::MAX);
                let units = match one.scope {
                    GresScope::Node => count,
                    GresScope::Task => count.saturating_mul(tasks),
                    GresScope::Job if nodes == 1 => count,
                    GresScope::Job | GresScope::Socket => return None,
                };
                (Some(&one.kind), units)
            }
            _ => return None,
        };
        let gpus = if kind.is_some_and(|kind| &*kind.name == "gpu") { units } else { 0 };
        let by_tasks = tasks.saturating_mul(request.cpus_per_task.max(1));
        let by_gpus = gpus.saturating_mul(request.cpus_per_gpu.unwrap_or(0));
        let cpus = by_tasks.max(by_gpus).max(request.min_cpus_per_node).max(1);
        let memory_mib = match partition.memory(request.memory) {
            MemoryRequest::PerNode(0) | MemoryRequest::Default => return None,
            MemoryRequest::PerNode(mib) => mib,
            MemoryRequest::PerCpu(mib) => mib.saturating_mul(cpus.into()),
            MemoryRequest::PerGpu(mib) => mib.saturating_mul(gpus.into()),
        };
        Some(Plain { nodes, cpus, memory_mib, kind, units })
    }

    /// What each part takes, where its GRES are counted on these axes.
    fn amounts(&self, axes: &[usize]) -> Amounts {
        let memory = u32::try_from(self.memory_mib).unwrap_or(u32::MAX);
        let mut out: Amounts = smallvec![(SEATS, 1), (CPUS, self.cpus), (MEMORY, memory)];
        out.extend(axes.iter().map(|axis| (*axis, self.units)));
        out
    }
}

#[cfg(test)]
#[path = "glance/tests.rs"]
mod tests;

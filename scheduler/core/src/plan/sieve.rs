//! Which nodes could serve a request as far as their nature goes: few questions of that kind are
//! asked in a pass, by many shapes.

use std::sync::Arc;

use muster_model::{GresKind, NodeId, Request};

use super::demand::Demand;
use super::nodeset::NodeSet;
use super::view::{Group, View};

/// Answers so far, the latest last.
#[derive(Debug, Default)]
pub(super) struct Sieve<'a> {
    known: Vec<(Question<'a>, Arc<NodeSet>)>,
}

#[derive(Debug)]
struct Question<'a> {
    partition: u32,
    request: &'a Request,
    reservation: Option<&'a str>,
}

/// Answers compared at most: beyond so many different questions an answer is sooner found anew.
const COMPARED: usize = 32;

impl<'a> Sieve<'a> {
    /// The nodes in service that a group's demand admits; of a reservation, `only` its nodes.
    pub(super) fn pass(
        &mut self,
        view: &'a View,
        group: &'a Group,
        demand: &Demand,
        only: Option<&[NodeId]>,
    ) -> Arc<NodeSet> {
        let question = Question {
            partition: group.partition,
            request: &group.shape.request,
            reservation: group.shape.reservation.as_deref(),
        };
        let known = self.known.iter().rev().take(COMPARED).find(|(q, _)| q.same(&question));
        if let Some((_, nodes)) = known {
            return Arc::clone(nodes);
        }
        let row = &view.partitions[group.partition as usize];
        let facts = |id: &NodeId| &*view.nodes[id.0 as usize].facts;
        let like = view.axes.layouts().iter();
        let serves: Vec<bool> = like.map(|id| demand.admits_slots(facts(id))).collect();
        let any = demand.takes_any_nature();
        let admitted = row.members.iter().filter(|id| {
            let node = &view.nodes[id.0 as usize];
            node.usable
                && serves[view.axes.layout(**id)]
                && (any || demand.admits_nature(&node.facts))
                && only.is_none_or(|only| only.binary_search(id).is_ok())
        });
        let nodes = Arc::new(NodeSet::of(view.nodes.len(), admitted.copied()));
        self.known.push((question, Arc::clone(&nodes)));
        nodes
    }
}

impl Question<'_> {
    /// Whether [`Demand::admits`] would say the same of every node.
    fn same(&self, other: &Question<'_>) -> bool {
        let (a, b) = (self.request, other.request);
        self.partition == other.partition
            && self.reservation == other.reservation
            && a.threads_per_core == b.threads_per_core
            && a.sockets_per_node == b.sockets_per_node
            && a.constraint == b.constraint
            && a.excluded_nodes == b.excluded_nodes
            && kinds(a).eq(kinds(b))
    }
}

fn kinds(request: &Request) -> impl Iterator<Item = &GresKind> {
    request.gres.iter().filter(|g| g.count > 0).map(|g| &g.kind)
}

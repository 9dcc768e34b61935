//! Whether a request could be served by nodes that nobody uses: asked at every submission of a
//! new kind.

use muster_model::NodeId;

use crate::state::{Facts, Node};

use super::axes::{Amounts, Axes};
use super::binding::{Answers, Inside};
use super::demand::Demand;
use super::gather::{Rooms, gather};

/// Nodes that nobody uses.
struct Empty<'a> {
    nodes: &'a [Node],
    axes: &'a Axes,
}

/// Of these members, those that could be part of it as far as their nature goes.
pub fn candidates<'a>(
    demand: &'a Demand,
    nodes: &'a [Node],
    members: &'a [NodeId],
) -> impl Iterator<Item = NodeId> + 'a {
    members.iter().copied().filter(|id| demand.admits(&nodes[id.0 as usize].facts))
}

/// Whether these members could serve all of it. An even distribution is looked for first, and no
/// further than until there are enough nodes for it.
#[must_use]
pub fn could_serve(demand: &Demand, axes: &Axes, nodes: &[Node], members: &[NodeId]) -> bool {
    let mut amounts = Amounts::new();
    let mut answers = Answers::default();
    let mut holds = |tasks: u32, shares: &[u64], node: NodeId| {
        let whole = axes.whole(node);
        demand.amounts(tasks, shares, whole, &mut amounts);
        let at = &nodes[node.0 as usize];
        demand.gpus(&amounts) <= demand.most_joined(&at.facts, None)
            && amounts.iter().all(|(axis, n)| whole[*axis] >= *n)
            && answers.binds(demand, (tasks, shares), whole_inside(at))
    };
    if let Some(uniform) = demand.uniform() {
        let enough = uniform.nodes as usize;
        let fits = |node: &NodeId| holds(uniform.tasks, &uniform.shares, *node);
        if candidates(demand, nodes, members).filter(fits).take(enough).count() == enough {
            return true;
        }
        if uniform.only {
            return false;
        }
    }
    let all: Vec<NodeId> = candidates(demand, nodes, members).collect();
    let caps = gather(demand, &all, &mut Empty { nodes, axes }, &mut u64::MAX.clone());
    caps.is_some_and(|caps| caps.iter().all(|cap| holds(cap.tasks, &cap.shares, cap.node)))
}

/// The inside of a node that nobody uses.
fn whole_inside(node: &Node) -> Inside<'_> {
    (&node.facts, &node.facts.whole, node.wiring.as_ref())
}

/// Whether one of these nodes alone could have this part with CPUs near its GPUs, if it must.
#[must_use]
pub fn could_bind(demand: &Demand, part: (u32, &[u64]), nodes: &[Node], among: &[NodeId]) -> bool {
    let mut answers = Answers::default();
    let mut binds = |id: &NodeId| answers.binds(demand, part, whole_inside(&nodes[id.0 as usize]));
    among.iter().any(&mut binds)
}

impl Rooms for Empty<'_> {
    fn free(&mut self, node: NodeId) -> Option<&[u32]> {
        Some(self.axes.whole(node))
    }
    fn whole(&self, node: NodeId) -> &[u32] {
        self.axes.whole(node)
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.nodes[node.0 as usize].facts
    }
    fn inside(&self, node: NodeId) -> Inside<'_> {
        whole_inside(&self.nodes[node.0 as usize])
    }
}

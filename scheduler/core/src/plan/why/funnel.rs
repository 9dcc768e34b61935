//! The filters that nodes go through, one after the other, and how many fall out at each.

use std::collections::BTreeMap;

use muster_model::{GresKind, NodeId, PartitionState, Timestamp};

use crate::plan::ask::Ask;
use crate::plan::axes::{ALL_SEATS, Amounts, Axes, CPUS, MEMORY, SEATS};
use crate::plan::demand::Demand;
use crate::plan::ground::{FOREVER, Ground, end_of};
use crate::plan::nodeset::NodeSet;
use crate::plan::policy::Policy;
use crate::plan::topology::{self, Rejected};
use crate::plan::view::ViewPartition;
use crate::plan::{Plan, Shadow};
use crate::state::Shape;
use crate::state::reserved::{Fence, fence};

use super::Survey;

/// What takes a node out, in the order in which it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Down, drained or not answering.
    OutOfService,
    Features,
    /// Sockets, or threads per core.
    Build,
    /// Excluded by name, or not among those asked for by name.
    Named,
    Reservation(Box<str>),
    /// The whole node has too little.
    WholeCpus,
    WholeMemory,
    WholeGres(Box<str>),
    /// NVLink joins too few of its GPUs.
    WholeLinks,
    /// Too few CPUs are near its GPUs.
    WholeNear,
    /// It shall be alone there and is not, or somebody else is to be alone.
    InUse,
    /// Too little is free.
    FreeCpus,
    FreeMemory,
    FreeGres(Box<str>),
    /// NVLink joins too few of those that are free.
    FreeLinks,
    /// Too few CPUs are free near those that are free.
    FreeNear,
    /// Enough is free, but promised to a job ahead before this one would be over.
    Promised,
}

impl Filter {
    /// Whether the node could serve it some time as far as its nature goes.
    fn passes_with_time(&self) -> bool {
        matches!(
            self,
            Filter::InUse
                | Filter::FreeCpus
                | Filter::FreeMemory
                | Filter::FreeGres(_)
                | Filter::FreeLinks
                | Filter::FreeNear
                | Filter::Promised
                | Filter::Reservation(_)
        )
    }
}

/// The nodes that one filter took out, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Removed {
    pub by: Filter,
    pub nodes: Vec<NodeId>,
}

/// What became of the nodes of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Funnel {
    pub partition: Box<str>,
    /// `Down` and `Inactive` start nothing.
    pub state: PartitionState,
    pub members: u32,
    /// Nodes that it needs at least.
    pub wanted: u32,
    pub removed: Vec<Removed>,
    /// Nodes that could take their part now.
    pub left: u32,
    /// Enough are left, but they do not lie together as wished.
    pub network: Option<Rejected>,
}

/// One partition's nodes, and how one of them fares.
struct Check<'a> {
    survey: &'a Survey,
    demand: Option<Demand>,
    fence: Option<Fence<'a>>,
    length: i64,
    now: Timestamp,
    only_required: bool,
    /// Free now, and with the promises to jobs ahead.
    ground: Option<&'a Ground<'a>>,
}

/// The funnels of a job's partitions.
pub(super) fn funnels(
    survey: &Survey,
    policy: &Policy,
    now: Timestamp,
    plan: &Plan,
) -> Vec<Funnel> {
    let view = &survey.view;
    let mut ground = Ground::new(view, now, policy.packing);
    let (endings, licenses) = view.endings(now);
    ground.calendar.extend(endings, licenses);
    let slots = ground.calendar.slots();
    for slice in plan.starts.iter().flat_map(|wish| &wish.placement.slices) {
        ground.calendar.take(slice.node, &view.axes.taken(slice), 0, slots);
    }
    let others = |shadow: &&Shadow| shadow.job != survey.subject.job;
    for shadow in plan.shadows.iter().take_while(others) {
        ground.take(&shadow.parts, &[], shadow.start, shadow.length);
    }
    let rows = partitions(survey).map(|row| {
        let check = Check::new(survey, row, now, Some(&ground));
        let mut removed: BTreeMap<Filter, Vec<NodeId>> = BTreeMap::new();
        let mut left = NodeSet::new(view.nodes.len());
        for node in &row.members {
            match check.falls_at(*node) {
                Some(filter) => removed.entry(filter).or_default().push(*node),
                None => left.insert(*node),
            }
        }
        let wanted = check.demand.as_ref().map_or(1, |d| d.ask.min_nodes);
        Funnel {
            partition: row.partition.name.clone(),
            state: row.partition.state,
            members: count(row.members.len()),
            wanted,
            removed: removed.into_iter().map(|(by, nodes)| Removed { by, nodes }).collect(),
            left: count(left.count()),
            network: check.network(&ground, &left),
        }
    });
    rows.collect()
}

/// The nodes that could serve the job some time.
pub(super) fn usable(survey: &Survey) -> NodeSet {
    let mut out = NodeSet::new(survey.view.nodes.len());
    for row in partitions(survey) {
        let check = Check::new(survey, row, survey.view.now, None);
        for node in &row.members {
            if check.falls_at(*node).is_none_or(|filter| filter.passes_with_time()) {
                out.insert(*node);
            }
        }
    }
    out
}

fn partitions(survey: &Survey) -> impl Iterator<Item = &ViewPartition> {
    let wanted = &survey.subject.spec.partitions;
    survey.view.partitions.iter().filter(|row| wanted.contains(&row.partition.name))
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

impl<'a> Check<'a> {
    fn new(
        survey: &'a Survey,
        row: &ViewPartition,
        now: Timestamp,
        ground: Option<&'a Ground<'a>>,
    ) -> Self {
        let (view, spec) = (&survey.view, &survey.subject.spec);
        let ask = Ask::new(&spec.request, &row.partition);
        let most = ask.max_nodes.unwrap_or(ask.min_nodes) as usize;
        let only_required = !ask.required.is_empty() && ask.required.len() >= most;
        let limit = Shape::of(spec).limit.and_then(|limit| limit.seconds());
        Check {
            survey,
            demand: Demand::new(ask, &view.axes),
            fence: fence(&view.reservations, spec.reservation.as_deref()),
            length: limit.map_or(FOREVER, |seconds| seconds.saturating_mul(1000)),
            now,
            only_required,
            ground,
        }
    }

    /// The filter that takes a node out; `None`: it could take its part now.
    fn falls_at(&self, id: NodeId) -> Option<Filter> {
        let node = &self.survey.view.nodes[id.0 as usize];
        if !node.usable {
            return Some(Filter::OutOfService);
        }
        let (facts, spec) = (&node.facts, &self.survey.subject.spec);
        let Some(demand) = &self.demand else {
            return Some(Filter::WholeGres(self.unknown_gres()));
        };
        let ask = &demand.ask;
        if ask.constraint.as_ref().is_some_and(|c| !ask.finds(c, facts)) {
            return Some(Filter::Features);
        }
        let too_small = ask.threads_per_core.is_some_and(|n| facts.threads_per_core < n)
            || ask.sockets_per_node.is_some_and(|n| facts.sockets < n);
        if too_small {
            return Some(Filter::Build);
        }
        let required = ask.required.contains(&facts.name);
        if ask.excluded.contains(&facts.name) || self.only_required && !required {
            return Some(Filter::Named);
        }
        let until = end_of(self.now, self.length);
        let own = || spec.reservation.clone().unwrap_or_default();
        let Some(fence) = &self.fence else { return Some(Filter::Reservation(own())) };
        if let Some(name) = fence.closed_by(id, self.now, until) {
            return Some(Filter::Reservation(name.into()));
        }
        if let Some((kind, _)) =
            gres(ask).find(|(kind, _)| !facts.slots.iter().any(|slot| slot.kind.satisfies(kind)))
        {
            return Some(Filter::WholeGres(kind.to_string().into()));
        }
        let whole = self.survey.view.axes.whole(id);
        let need = need(demand, whole);
        if let Some(axis) = short(&need, whole) {
            return Some(match axis {
                MEMORY => Filter::WholeMemory,
                SEATS | CPUS => Filter::WholeCpus,
                other => Filter::WholeGres(self.label(other)),
            });
        }
        if demand.gpus(&need) > demand.most_joined(facts, None) {
            return Some(Filter::WholeLinks);
        }
        let wiring = self.survey.view.nodes[id.0 as usize].wiring.as_deref();
        let (tasks, shares) = part(demand);
        if !demand.binds((tasks, &shares), facts, &facts.whole, wiring) {
            return Some(Filter::WholeNear);
        }
        self.falls_now(id, demand, &need, until)
    }

    fn falls_now(
        &self,
        id: NodeId,
        demand: &Demand,
        need: &Amounts,
        until: Option<Timestamp>,
    ) -> Option<Filter> {
        let calendar = &self.ground?.calendar;
        if let Some(axis) = short(need, calendar.free(0, id)) {
            return Some(match axis {
                SEATS => Filter::InUse,
                CPUS => Filter::FreeCpus,
                MEMORY => Filter::FreeMemory,
                other => Filter::FreeGres(self.label(other)),
            });
        }
        let node = &self.survey.view.nodes[id.0 as usize];
        let now = Some((&*node.free, node.wiring.as_deref()));
        if demand.gpus(need) > demand.most_joined(&node.facts, now) {
            return Some(Filter::FreeLinks);
        }
        let wiring = node.wiring.as_deref();
        let (tasks, shares) = part(demand);
        if !demand.binds((tasks, &shares), &node.facts, &node.free, wiring) {
            return Some(Filter::FreeNear);
        }
        let to = calendar.end_slot(0, until);
        (!calendar.window(0, to).all(|slot| calendar.has(slot, id, need)))
            .then_some(Filter::Promised)
    }

    /// What is wrong with where the nodes that are left lie, if there are enough of them.
    fn network(&self, ground: &Ground<'_>, left: &NodeSet) -> Option<Rejected> {
        let (view, ask) = (&self.survey.view, &self.demand.as_ref()?.ask);
        let wanted = ask.min_nodes as usize;
        let wished = ask.switches.is_some() || ask.segment.is_some() || ask.alone;
        let matters = wished || wanted > 1 && !view.topology.is_empty();
        if left.count() < wanted || !matters {
            return None;
        }
        let switches = ask.switches.filter(|wish| {
            let since = self.survey.subject.eligible_at;
            self.now < since.plus_seconds(i64::from(wish.max_wait_seconds))
        });
        let idle = ask.alone.then(|| {
            let all = (0u32..).map(NodeId).take(view.nodes.len());
            let empty = |id: &NodeId| ground.calendar.free(0, *id)[SEATS] == ALL_SEATS;
            NodeSet::of(view.nodes.len(), all.filter(empty))
        });
        let wish = topology::Wish {
            switches: switches.map(|wish| wish.count),
            segment: ask.segment,
            alone: idle.as_ref(),
            ..topology::Wish::default()
        };
        topology::choose(&view.topology, left, wanted, &wish).err()
    }

    fn label(&self, axis: usize) -> Box<str> {
        let axes: &Axes = &self.survey.view.axes;
        let Some(demand) = &self.demand else { return "gres".into() };
        let counts = |kind: &GresKind| axes.of_kind(kind).is_some_and(|of| of.contains(&axis));
        let kind = gres(&demand.ask).find(|(kind, _)| counts(kind));
        kind.map_or_else(|| "gres".into(), |(kind, _)| kind.to_string().into())
    }

    /// A kind of GRES that no node has.
    fn unknown_gres(&self) -> Box<str> {
        let axes = &self.survey.view.axes;
        let all = self.survey.subject.spec.request.gres.iter().filter(|g| g.count > 0);
        let mut unknown = all.filter(|g| axes.of_kind(&g.kind).is_none());
        unknown.next().map_or_else(|| "gres".into(), |g| g.kind.to_string().into())
    }
}

fn gres(ask: &Ask) -> impl Iterator<Item = &(GresKind, u64)> {
    ask.node_gres.iter().chain(&ask.task_gres).chain(&ask.job_gres)
}

/// What a node must have.
fn need(demand: &Demand, whole: &[u32]) -> Amounts {
    let mut out = Amounts::new();
    let (tasks, shares) = part(demand);
    demand.amounts(tasks, &shares, whole, &mut out);
    out
}

/// Tasks and shares of a node: its even part, or else the least part that makes sense.
fn part(demand: &Demand) -> (u32, Vec<u64>) {
    match demand.uniform().filter(|uniform| uniform.only) {
        Some(uniform) => (uniform.tasks, uniform.shares),
        None => {
            let per_node = demand.ask.tasks_per_node.filter(|_| demand.ask.tasks.is_none());
            (per_node.unwrap_or(1), vec![1; demand.ask.job_gres.len()])
        }
    }
}

/// The first axis on which there is less than needed, seats before CPUs, memory and GRES.
fn short(need: &Amounts, have: &[u32]) -> Option<usize> {
    let lacking = |(axis, n): &&(usize, u32)| have[*axis] < *n;
    let of = |seats: bool| need.iter().filter(move |(axis, _)| (*axis == SEATS) == seats);
    of(true).find(lacking).or_else(|| of(false).find(lacking)).map(|(axis, _)| *axis)
}

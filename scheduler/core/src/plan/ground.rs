//! The ground of a pass: the nodes of a view on the axes, the calendar over them, and the search
//! for a place in it.
//!
//! - `later`: places at later times, and promises booked, lifted and moved

mod later;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{NodeId, Slice, Timestamp};
use smallvec::{SmallVec, smallvec};

use crate::state::{Facts, Row};

use super::ask::Ask;
use super::axes::{ALL_SEATS, Amounts, Axes, SEATS};
use super::binding::{Answers, Inside};
use super::calendar::{Calendar, Fuel, Want};
use super::choose::{self, Wish};
use super::demand::{Demand, Uniform};
use super::gather::{Rooms, gather};
use super::nodeset::NodeSet;
use super::policy::Packing;
use super::topology;
use super::view::View;

/// Nodes, counted.
#[derive(Debug)]
pub struct Ground<'a> {
    pub view: &'a View,
    pub axes: Arc<Axes>,
    pub calendar: Calendar,
    /// Nodes of equal weight, the lightest first.
    pub classes: Vec<NodeSet>,
    /// By `NodeId`; empty where there is one class.
    weights: Vec<u32>,
    pub packing: Packing,
    /// The most that a node has, by axis.
    pub most: Vec<u32>,
    /// Nodes that nobody further down the queue may have.
    closed: NodeSet,
    /// There are such nodes.
    closes: bool,
    /// What the starts of this pass left free of the nodes that they took something of, by `NodeId`.
    pub rows: Vec<Option<Box<Row>>>,
    /// What running jobs give back, once somebody asked for it.
    returns: OnceCell<Vec<Vec<(Timestamp, &'a Slice)>>>,
    /// How many rows of later times may still be made.
    rows_later: Cell<u32>,
}

/// What a group asks of the nodes, and how far its search came.
#[derive(Debug)]
pub struct Query {
    pub demand: Demand,
    /// Nodes in service that could be part of it as far as their nature goes.
    pub base: Arc<NodeSet>,
    uniform: Option<(Uniform, Want)>,
    /// The least that a node must have to take any part; nothing where parts are always even.
    least: Want,
    /// Nodes of `base` are asked for different amounts.
    uneven: bool,
    /// By their place in the calendar's list.
    pub licenses: Vec<(usize, u32)>,
    /// Runs of this length or longer do not fit now; milliseconds.
    pub fails_now: Option<i64>,
    /// Runs of this length or longer do not fit before this time.
    pub not_before: Option<(i64, Timestamp)>,
    pub kept_licenses: Vec<KeptLicenses>,
    /// Since when its first job waits: a wish for few switches lapses.
    pub eligible_at: Timestamp,
    /// Whether it could be served if nobody ran anything.
    pub possible: Option<bool>,
    /// The partition's reservation windows in which nodes are closed to it, or its own.
    pub closures: Vec<Closure>,
}

/// Nodes that are closed for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Closure {
    pub from: Timestamp,
    pub until: Timestamp,
    pub nodes: NodeSet,
}

/// Licences that a reservation of others keeps for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLicenses {
    pub from: Timestamp,
    pub until: Timestamp,
    /// Place in the calendar's list.
    pub license: usize,
    pub count: u32,
}

/// One node's part of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub node: NodeId,
    pub tasks: u32,
    /// Parallel to `Ask::job_gres`.
    pub shares: Vec<u64>,
    /// What it takes, by axis.
    pub amounts: Amounts,
}

impl Part {
    #[must_use]
    pub fn cpus(&self) -> u32 {
        super::axes::amount_on(&self.amounts, super::axes::CPUS)
    }
}

/// A run of this length, milliseconds; this is "for ever".
pub const FOREVER: i64 = i64::MAX;

/// The end of a run.
#[must_use]
pub fn end_of(start: Timestamp, length: i64) -> Option<Timestamp> {
    (length != FOREVER).then(|| Timestamp(start.0.saturating_add(length)))
}

impl Query {
    /// The query of a demand; `base` holds the nodes that could serve it.
    #[must_use]
    pub fn new(
        demand: Demand,
        base: Arc<NodeSet>,
        licenses: Vec<(usize, u32)>,
        closures: Vec<Closure>,
        eligible_at: Timestamp,
        ground: &Ground<'_>,
    ) -> Self {
        let axes = ground.axes.len();
        let mut smallest: SmallVec<[u32; 8]> = smallvec![0; axes];
        let mut uneven = false;
        if demand.follows_node() && !base.is_empty() {
            smallest.fill(u32::MAX);
            let mut first: Option<&[u32]> = None;
            for node in base.iter() {
                let whole = ground.whole_of(node);
                uneven |= *first.get_or_insert(whole) != whole;
                smallest.iter_mut().zip(whole).for_each(|(least, n)| *least = (*least).min(*n));
            }
        }
        let uniform = demand.uniform().map(|uniform| {
            let mut need = Amounts::new();
            demand.amounts(uniform.tasks, &uniform.shares, &smallest, &mut need);
            (uniform, ground.calendar.want(need))
        });
        let even = uniform.as_ref().is_some_and(|(uniform, _)| uniform.only);
        let least = if even { Amounts::new() } else { least(&demand, &smallest) };
        let least = ground.calendar.want(least);
        Query {
            demand,
            base,
            uniform,
            least,
            uneven,
            licenses,
            fails_now: None,
            not_before: None,
            kept_licenses: Vec::new(),
            eligible_at,
            possible: None,
            closures,
        }
    }
}

/// What a node must have to take any part; `whole`: what the smallest one has.
fn least(demand: &Demand, whole: &[u32]) -> Amounts {
    let ones = vec![1; demand.ask.job_gres.len()];
    let tasks = match (demand.ask.tasks, demand.ask.tasks_per_node) {
        (None, Some(per_node)) => per_node,
        (Some(_), _) | (None, None) => 1,
    };
    let mut least = Amounts::new();
    demand.amounts(tasks, &ones, whole, &mut least);
    least
}

impl Query {
    /// What must be unused for a run in this window: its own licences, and those kept for others.
    #[must_use]
    pub fn licenses_needed(
        &self,
        start: Timestamp,
        until: Option<Timestamp>,
    ) -> Cow<'_, [(usize, u32)]> {
        if self.kept_licenses.is_empty() {
            return Cow::Borrowed(&self.licenses);
        }
        let meets = |k: &&KeptLicenses| until.is_none_or(|u| k.from < u) && k.until > start;
        let kept = |license: usize| -> u32 {
            let of = self.kept_licenses.iter().filter(meets).filter(|k| k.license == license);
            of.map(|k| k.count).fold(0, u32::saturating_add)
        };
        let need = |(license, n): &(usize, u32)| (*license, n.saturating_add(kept(*license)));
        self.licenses.iter().map(need).collect()
    }
}

impl Ground<'_> {
    #[must_use]
    pub fn whole_of(&self, node: NodeId) -> &[u32] {
        self.axes.whole(node)
    }

    /// A place for a run of `length` that begins with a slot. `Err`: the first later slot with
    /// which one might begin.
    pub fn place(
        &self,
        query: &Query,
        slot: usize,
        length: i64,
        fuel: &mut Fuel,
    ) -> Result<Vec<Part>, usize> {
        let calendar = &self.calendar;

        let start = calendar.start(slot);
        let until = end_of(start, length);
        let to = calendar.end_slot(slot, until);
        let licenses = query.licenses_needed(start, until);
        if let Some(short) = calendar.short_of_licenses(&licenses, slot, to) {
            // What is kept for others may be less for a later run.
            return Err(if query.kept_licenses.is_empty() { short + 1 } else { slot + 1 });
        }
        let only = query.uniform.as_ref().filter(|(uniform, _)| uniform.only);
        if only.is_some_and(|(uniform, want)| calendar.too_few(slot, want, uniform.nodes as usize))
        {
            *fuel = fuel.saturating_sub(1);
            return Err(slot + 1);
        }
        let mut nodes = self.open(query);
        let meets = |c: &&Closure| until.is_none_or(|until| c.from < until) && c.until > start;
        for closure in query.closures.iter().filter(meets) {
            nodes.and_not_with(&closure.nodes);
        }
        if let Some((uniform, want)) = &query.uniform {
            let found = self.uniform(query, uniform, want, (slot, to), &nodes, fuel);
            match found {
                Ok(parts) => return Ok(parts),
                Err(next) if uniform.only => return Err(next),
                Err(_) => {}
            }
        }
        self.uneven(query, (slot, to), nodes, fuel)
    }

    /// Whether a query could be served if nobody ran anything.
    pub fn possible(&self, query: &Query, fuel: &mut Fuel) -> bool {
        if let Some((uniform, _)) =
            query.uniform.as_ref().filter(|_| !query.demand.ask.looks_inside())
        {
            let mut amounts = Amounts::new();
            let mut found = 0;
            for (size, nodes) in self.axes.sizes() {
                *fuel = fuel.saturating_sub(1);
                query.demand.amounts(uniform.tasks, &uniform.shares, size, &mut amounts);
                if amounts.iter().all(|(axis, n)| size[*axis] >= *n) {
                    found += query.base.up_to_common(nodes, uniform.nodes as usize);
                }
                if found >= uniform.nodes as usize {
                    return true;
                }
            }
            if uniform.only {
                return false;
            }
        }
        let mut rooms = Whole { view: self.view, axes: &self.axes };
        let candidates: Vec<NodeId> = query.base.iter().collect();
        gather(&query.demand, &candidates, &mut rooms, fuel).is_some()
    }

    #[allow(clippy::too_many_arguments)]
    fn uniform(
        &self,
        query: &Query,
        uniform: &Uniform,
        want: &Want,
        (slot, to): (usize, usize),
        base: &NodeSet,
        fuel: &mut Fuel,
    ) -> Result<Vec<Part>, usize> {
        let calendar = &self.calendar;
        let enough = uniform.nodes as usize;
        let mut nodes = base.clone();
        let kept = calendar.keep_fitting(want, slot, to, enough, &mut nodes, fuel);
        let exact = match kept {
            Ok(exact) => exact && !query.uneven && !query.demand.ask.looks_inside(),
            Err(short) => return Err(self.next_after(query, want, enough, (slot, short), fuel)),
        };
        let need = &want.amounts;
        let mut amounts = Amounts::new();
        let mut looked = 0;
        let mut answers = Answers::default();
        let mut fits = |node: NodeId| {
            if exact {
                return true;
            }
            looked += 1;
            let part = (uniform.tasks, &*uniform.shares);
            if query.demand.ask.looks_inside()
                && (query.demand.gpus(need) > self.most_joined(&query.demand, node, slot)
                    || !answers.binds(&query.demand, part, self.inside(node, slot)))
            {
                return false;
            }
            let has = if query.uneven {
                let whole = self.whole_of(node);
                query.demand.amounts(uniform.tasks, &uniform.shares, whole, &mut amounts);
                calendar.has_throughout(slot, to, node, &amounts)
            } else {
                calendar.has_throughout(slot, to, node, need)
            };
            has && self.has_inside(&query.demand, need, part, node, slot)
        };
        let idle = self.idle(query, slot, to);
        let network = self.network(query, calendar.start(slot), enough, idle.as_ref());
        let whole_first = self.axes.has_cut() && query.demand.ask.takes_any_gpu();
        let wish = Wish { nodes: enough, need, slot, network, whole_first };
        let chosen = choose::nodes(self, calendar, &wish, nodes, &mut fits);
        *fuel = fuel.saturating_sub(looked);
        let chosen = chosen.ok_or(slot + 1)?;
        let mates = self.mates(query, &chosen);
        let part = |node: NodeId| {
            let whole = self.whole_of(node);
            query.demand.amounts(uniform.tasks, &uniform.shares, whole, &mut amounts);
            let taken = query.demand.takes(&amounts, &self.axes, whole, calendar.free(slot, node));
            Part { node, tasks: uniform.tasks, shares: uniform.shares.clone(), amounts: taken }
        };
        Ok(chosen.into_iter().map(part).chain(mates).collect())
    }

    /// Of candidates for a job that takes any GPU, those where no instance of a cut GPU is free;
    /// `None`: it is all the same.
    fn without_instances(&self, ask: &Ask, slot: usize, nodes: &[NodeId]) -> Option<Vec<NodeId>> {
        let gpu = self.axes.name("gpu").filter(|_| self.axes.has_cut() && ask.takes_any_gpu())?;
        let whole = |node: &NodeId| {
            let free = self.calendar.free(slot, *node);
            let facts = &self.view.nodes[node.0 as usize].facts;
            self.axes.uncut(facts, |axis| free[axis]) == free[gpu]
        };
        Some(nodes.iter().copied().filter(whole).collect())
    }

    /// The most GPUs of a node that a job can have together; later, of the whole node: whether those
    /// that will be free do is asked last, of few nodes.
    fn most_joined(&self, demand: &Demand, node: NodeId, slot: usize) -> u32 {
        let at = &self.view.nodes[node.0 as usize];
        let row = self.rows[node.0 as usize].as_deref().unwrap_or(&at.free);
        demand.most_joined(&at.facts, (slot == 0).then_some((row, at.wiring.as_deref())))
    }

    /// What binding looks at.
    fn inside(&self, node: NodeId, slot: usize) -> Inside<'_> {
        let at = &self.view.nodes[node.0 as usize];
        (&at.facts, self.row(node, slot), at.wiring.as_ref())
    }

    /// What is free of a node now; later, all of it.
    fn row(&self, node: NodeId, slot: usize) -> &Row {
        let at = &self.view.nodes[node.0 as usize];
        match slot {
            0 => self.rows[node.0 as usize].as_deref().unwrap_or(&at.free),
            _ => &at.facts.whole,
        }
    }

    /// What a job wants of the network at a time. A gang lies together wherever there is a network.
    fn network<'b>(
        &'b self,
        query: &Query,
        at: Timestamp,
        nodes: usize,
        idle: Option<&'b NodeSet>,
    ) -> Option<topology::Wish<'b>> {
        let ask = &query.demand.ask;
        let switches = ask.switches.filter(|wish| {
            let lapses = query.eligible_at.plus_seconds(i64::from(wish.max_wait_seconds));
            at < lapses
        });
        let plain = switches.is_none() && ask.segment.is_none() && !ask.alone;
        if plain && (nodes == 1 || self.view.topology.is_empty()) {
            return None;
        }
        Some(topology::Wish {
            switches: switches.map(|wish| wish.count),
            segment: ask.segment,
            alone: idle,
            required: &[],
            weights: &self.weights,
        })
    }

    /// The nodes that nobody is on throughout a window, for a job that wants to be alone.
    fn idle(&self, query: &Query, slot: usize, to: usize) -> Option<NodeSet> {
        query.demand.ask.alone.then(|| {
            let mut idle = NodeSet::full(self.view.nodes.len());
            let empty = self.calendar.want(smallvec![(SEATS, ALL_SEATS)]);
            for slot in self.calendar.window(slot, to) {
                self.calendar.keep_likely(slot, &empty, &mut idle);
            }
            idle
        })
    }

    /// The seats of nodes that a job which wants to be alone keeps others out of.
    fn mates(&self, query: &Query, chosen: &[NodeId]) -> Vec<Part> {
        if !query.demand.ask.alone {
            return Vec::new();
        }
        let own = NodeSet::of(self.view.nodes.len(), chosen.iter().copied());
        let mut mates = self.view.topology.unit_mates(&own);
        mates.and_not_with(&own);
        let kept = |node| {
            let amounts = smallvec![(SEATS, ALL_SEATS)];
            Part { node, tasks: 0, shares: Vec::new(), amounts }
        };
        mates.iter().map(kept).collect()
    }

    /// The nodes that a query may have at times when no reservation closes any.
    fn open(&self, query: &Query) -> NodeSet {
        let mut nodes = NodeSet::clone(&query.base);
        if self.closes {
            nodes.and_not_with(&self.closed);
        }
        nodes
    }

    /// Nobody further down the queue may have these nodes.
    pub fn close(&mut self, nodes: &NodeSet) {
        self.closes = true;
        self.closed.or_with(nodes);
    }

    fn uneven(
        &self,
        query: &Query,
        (slot, to): (usize, usize),
        mut nodes: NodeSet,
        fuel: &mut Fuel,
    ) -> Result<Vec<Part>, usize> {
        let (ask, calendar) = (&query.demand.ask, &self.calendar);
        let enough = ask.min_nodes as usize;
        // Nodes that must be had by name are counted too, so this is no more than a quick look.
        calendar
            .keep_fitting(&query.least, slot, to, enough, &mut nodes, fuel)
            .map_err(|_| slot + 1)?;
        let mut candidates = Vec::with_capacity(nodes.count());
        for class in &self.classes {
            candidates.extend(nodes.iter().filter(|node| class.contains(*node)));
        }
        let inside = self.rows_at(&query.demand, &candidates, slot);
        let mut rooms = Window { ground: self, calendar, slot, to, least: Vec::new(), inside };
        let whole = self.without_instances(ask, slot, &candidates);
        let whole = whole.and_then(|nodes| gather(&query.demand, &nodes, &mut rooms, fuel));
        let caps = whole.or_else(|| gather(&query.demand, &candidates, &mut rooms, fuel));
        let mut caps = caps.ok_or(slot + 1)?;
        let mut amounts = Amounts::new();
        let mut answers = Answers::default();
        let mut parts = Vec::with_capacity(caps.len());
        if !self.view.topology.is_empty() {
            caps.sort_by_key(|cap| self.view.topology.rank.get(cap.node.0 as usize));
        }
        for cap in caps {
            let whole = self.whole_of(cap.node);
            query.demand.amounts(cap.tasks, &cap.shares, whole, &mut amounts);
            let short = calendar.window(slot, to).any(|s| !calendar.has(s, cap.node, &amounts));
            let part = (cap.tasks, &*cap.shares);
            if short || !answers.binds(&query.demand, part, rooms.inside(cap.node)) {
                return Err(slot + 1);
            }
            let free = calendar.free(slot, cap.node);
            let taken = query.demand.takes(&amounts, &self.axes, whole, free);
            let (node, tasks, shares) = (cap.node, cap.tasks, cap.shares);
            parts.push(Part { node, tasks, shares, amounts: taken });
        }
        Ok(parts)
    }
}

/// Nodes that nobody uses.
struct Whole<'a> {
    view: &'a View,
    axes: &'a Axes,
}

impl Rooms for Whole<'_> {
    fn free(&mut self, node: NodeId) -> Option<&[u32]> {
        Some(self.axes.whole(node))
    }
    fn whole(&self, node: NodeId) -> &[u32] {
        self.axes.whole(node)
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.view.nodes[node.0 as usize].facts
    }
    fn inside(&self, node: NodeId) -> Inside<'_> {
        let at = &self.view.nodes[node.0 as usize];
        (&at.facts, &at.facts.whole, at.wiring.as_ref())
    }
}

/// What is free throughout a window.
struct Window<'a, 'v> {
    ground: &'a Ground<'v>,
    calendar: &'a Calendar,
    slot: usize,
    to: usize,
    least: Vec<u32>,
    /// What is free of nodes then, as far as that is known to the unit.
    inside: BTreeMap<NodeId, Row>,
}

impl Rooms for Window<'_, '_> {
    fn free(&mut self, node: NodeId) -> Option<&[u32]> {
        self.calendar.least(node, self.slot, self.to, &mut self.least);
        Some(&self.least)
    }
    fn whole(&self, node: NodeId) -> &[u32] {
        self.ground.whole_of(node)
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.ground.view.nodes[node.0 as usize].facts
    }
    fn most_joined(&self, demand: &Demand, node: NodeId) -> u32 {
        match self.inside.get(&node) {
            Some(row) => self.ground.joined_in(demand, node, row),
            None => self.ground.most_joined(demand, node, self.slot),
        }
    }
    fn inside(&self, node: NodeId) -> Inside<'_> {
        let (facts, row, wiring) = self.ground.inside(node, self.slot);
        (facts, self.inside.get(&node).unwrap_or(row), wiring)
    }
}

impl<'a> Ground<'a> {
    /// The nodes of a view, as they are now.
    #[must_use]
    pub fn new(view: &'a View, now: Timestamp, packing: Packing) -> Self {
        let axes = Arc::clone(&view.axes);
        let (count, nodes) = (axes.len(), view.nodes.len());
        let mut free = vec![0; nodes * count];
        let mut most = vec![0; count];
        let mut weights: BTreeMap<u32, NodeSet> = BTreeMap::new();
        let by_node: Vec<u32> = view.nodes.iter().map(|node| node.facts.weight).collect();
        for (id, (node, row)) in view.nodes.iter().zip(free.chunks_exact_mut(count)).enumerate() {
            axes.count(id, &node.free, node.jobs, row);
            let class = weights.entry(node.facts.weight).or_insert_with(|| NodeSet::new(nodes));
            class.insert(NodeId(u32::try_from(id).expect("node numbers are 32 bits")));
        }
        for (node, _) in &view.kept {
            free[node.0 as usize * count + SEATS] = 0;
        }
        for (size, _) in axes.sizes() {
            most.iter_mut().zip(size).for_each(|(most, n)| *most = (*most).max(*n));
        }
        let licenses = view.licenses.iter().map(|l| l.free).collect();
        Ground {
            view,
            calendar: Calendar::new(now, count, free, &most, licenses),
            axes,
            weights: if weights.len() > 1 { by_node } else { Vec::new() },
            classes: weights.into_values().collect(),
            packing,
            most,
            closed: NodeSet::new(nodes),
            closes: false,
            rows: vec![None; nodes],
            returns: OnceCell::new(),
            rows_later: Cell::new(later::MOST_ROWS),
        }
    }
}

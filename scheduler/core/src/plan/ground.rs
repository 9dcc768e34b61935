//! The ground of a pass: the nodes of a view on the axes, the calendar over them, and the search
//! for a place in it.
//!
//! - `query`: what groups ask; `rooms`: what nodes have, for the search for uneven parts
//! - `later`: places at later times, and promises booked, lifted and moved

mod later;
mod query;
mod rooms;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{NodeId, Slice, Timestamp};
use smallvec::smallvec;

use crate::state::Row;

use super::ask::Ask;
use super::axes::{ALL_SEATS, Amounts, Axes, SEATS, amount_on};
use super::binding::{Answers, Inside};
use super::calendar::{Calendar, Fuel, Want};
use super::choose::{self, Wish};
use super::demand::{Demand, Uniform};
use super::gather::{Rooms, gather};
use super::nodeset::NodeSet;
use super::policy::Packing;
use super::topology;
use super::view::View;

pub use query::{Closure, KeptLicenses, Query};
use rooms::{Whole, Window};

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
        let rows = self.rows_later.get();
        let found = self.place_on(query, (slot, to), until, fuel);
        let made = Fuel::from(rows - self.rows_later.get());
        *fuel = fuel.saturating_sub(later::ROW_FUEL * made);
        found
    }

    /// The same on the nodes that no reservation closes, where licences and counts do not rule it out.
    fn place_on(
        &self,
        query: &Query,
        (slot, to): (usize, usize),
        until: Option<Timestamp>,
        fuel: &mut Fuel,
    ) -> Result<Vec<Part>, usize> {
        let start = self.calendar.start(slot);
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
        // Latest first: whatever begins later has the end of this window in it, so that the slot which
        // is short rules out all starts before it. Now, the first slot is what is short most often.
        let leaps = slot > 0 && query.closures.is_empty();
        let kept = match leaps {
            true => {
                let latest_first = calendar.window(slot, to).rev();
                calendar.keep_in(want, latest_first, enough, &mut nodes, fuel)
            }
            false => calendar.keep_fitting(want, slot, to, enough, &mut nodes, fuel),
        };
        let exact = match kept {
            Ok(exact) => exact && !query.uneven && !query.demand.ask.looks_inside(),
            Err(short) if leaps => return Err(short + 1),
            Err(short) => return Err(self.next_after(query, want, enough, (slot, short), fuel)),
        };
        let need = &want.amounts;
        let mut amounts = Amounts::new();
        let mut looked = 0;
        let mut answers = Answers::default();
        let window: Vec<usize> =
            if exact { Vec::new() } else { calendar.window(slot, to).rev().collect() };
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
                calendar.has_throughout(&window, node, &amounts)
            } else {
                calendar.has_throughout(&window, node, need)
            };
            has && self.has_inside(&query.demand, need, part, node, slot)
        };
        let idle = self.idle(query, slot, to);
        let network = self.network(query, calendar.start(slot), enough, idle.as_ref());
        let whole = self.whole_first(&query.demand.ask, need, slot, &nodes, fuel);
        let wish = Wish { nodes: enough, need, slot, network, whole };
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

    /// Of nodes that are likely to serve a job that takes any GPU, those that could with whole ones;
    /// `None`: it is all the same.
    fn whole_first(
        &self,
        ask: &Ask,
        need: &Amounts,
        slot: usize,
        likely: &NodeSet,
        fuel: &mut Fuel,
    ) -> Option<NodeSet> {
        if !self.axes.has_cut() || !ask.takes_any_gpu() {
            return None;
        }
        let (uncut, mixed) = self.axes.with_whole_gpus();
        let mut whole = likely.clone();
        whole.and_with(uncut);
        let mut looked = likely.clone();
        looked.and_with(mixed);
        for node in looked.iter() {
            let free = self.calendar.free(slot, node);
            let wanted = self.axes.uncut(node, |axis| amount_on(need, axis));
            let has = self.axes.uncut(node, |axis| free[axis]);
            if has == 0 || has < wanted {
                whole.remove(node);
            }
        }
        *fuel = fuel.saturating_sub(looked.count() as u64 / 8);
        Some(whole)
    }

    /// Of candidates for a job that takes any GPU, those where no instance of a cut GPU is free;
    /// `None`: it is all the same.
    fn without_instances(&self, ask: &Ask, slot: usize, nodes: &[NodeId]) -> Option<Vec<NodeId>> {
        let gpu = self.axes.name("gpu").filter(|_| self.axes.has_cut() && ask.takes_any_gpu())?;
        let whole = |node: &NodeId| {
            let free = self.calendar.free(slot, *node);
            self.axes.uncut(*node, |axis| free[axis]) == free[gpu]
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

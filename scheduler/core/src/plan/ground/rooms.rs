//! What nodes have, as the search for uneven parts sees it.

use std::collections::BTreeMap;

use muster_model::NodeId;

use crate::state::{Facts, Row};

use super::super::axes::Axes;
use super::super::binding::Inside;
use super::super::calendar::Calendar;
use super::super::demand::Demand;
use super::super::gather::Rooms;
use super::super::view::View;
use super::Ground;

/// Nodes that nobody uses.
pub(super) struct Whole<'a> {
    pub(super) view: &'a View,
    pub(super) axes: &'a Axes,
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
pub(super) struct Window<'a, 'v> {
    pub(super) ground: &'a Ground<'v>,
    pub(super) calendar: &'a Calendar,
    pub(super) slot: usize,
    pub(super) to: usize,
    pub(super) least: Vec<u32>,
    /// What is free of nodes then, as far as that is known to the unit.
    pub(super) inside: BTreeMap<NodeId, Row>,
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

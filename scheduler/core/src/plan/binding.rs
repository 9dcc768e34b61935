//! `--gres-flags=enforce-binding`: all CPUs of a job on a node are near the GPUs that it has there.
//!
//! More NUMA nodes have more CPUs, but each of them must have one of the job's GPUs. So sets of NUMA
//! nodes are tried, the smallest first, with a GPU from each.

use std::sync::Arc;

use muster_model::{CpuBinding, CpuSet, GresKind, GresMask};

use crate::state::{Facts, GresSlot, Row, Wiring};

use super::ask::Need;
use super::build::{joined, pick_units};
use super::demand::Demand;
use super::nodeset::Ones;
use super::units;

/// NUMA nodes of one machine beyond which no sets are tried: 4,096 sets of 12.
const MOST_NUMA: usize = 12;

/// The free CPUs that are near these GPUs; all, where nobody told what is near.
#[must_use]
pub(super) fn near_free(free: &CpuSet, gpus: u64, wiring: Option<&Wiring>) -> CpuSet {
    let Some(wiring) = wiring else { return free.clone() };
    let links = wiring.table.links();
    let told = |gpu: u32| {
        let numa = u8::try_from(gpu).ok().and_then(|gpu| links.numa_of(gpu));
        numa.is_some_and(|numa| wiring.numa.get(usize::from(numa)).is_some())
    };
    if gpus == 0 || !Ones(gpus).all(told) {
        return free.clone();
    }
    let mut near = CpuSet::default();
    units::near(links, gpus, &wiring.numa).iter().for_each(|cpus| near.add(cpus));
    free.intersection(&near)
}

/// The GPUs among some units.
#[must_use]
pub(super) fn gpus_of(gres: &[GresMask]) -> u64 {
    gres.iter().filter(|g| &*g.kind.name == "gpu").fold(0, |all, g| all | g.mask)
}

/// The best free units that serve a need and have its CPUs near them; `None`: there are none.
#[must_use]
pub(super) fn choose(
    nvlink: bool,
    need: &Need,
    free: &Row,
    facts: &Facts,
    wiring: Option<&Wiring>,
) -> Option<Vec<GresMask>> {
    let best = pick_units(nvlink, &need.gres, free, facts, wiring)?;
    let enough =
        |gres: &[GresMask]| near_free(&free.cpus, gpus_of(gres), wiring).len() >= need.cpus;
    if enough(&best) {
        return Some(best);
    }
    let wiring = wiring?;
    let links = wiring.table.links();
    let kinds = need.gres.iter().map(|(kind, _)| kind).filter(|kind| &*kind.name == "gpu");
    let kinds: Vec<&GresKind> = kinds.collect();
    let numa_of = |gpu: u32| u8::try_from(gpu).ok().and_then(|gpu| links.numa_of(gpu));
    let mut numa: Vec<u8> = Ones(facts.units_of(free, &kinds)).filter_map(numa_of).collect();
    numa.sort_unstable();
    numa.dedup();
    numa.truncate(MOST_NUMA);
    let mut sets: Vec<u32> = (1..1 << numa.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    sets.into_iter().find_map(|set| {
        let places = numa.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
        let places: Vec<u8> = places.map(|(_, numa)| *numa).collect();
        let on = |place: &u8| {
            let there = (0..64).filter(|gpu| numa_of(*gpu) == Some(*place));
            there.fold(0u64, |mask, gpu| mask | 1 << gpu)
        };
        let groups: Vec<u64> = places.iter().map(on).collect();
        let all = groups.iter().fold(0, |all, mask| all | mask);
        if near_free(&free.cpus, all, Some(wiring)).len() < need.cpus {
            return None;
        }
        let mut search = Search { nvlink, facts, wiring, row: within(free, facts, all) };
        let best = pick_units(nvlink, &need.gres, &search.row, facts, Some(wiring));
        let mut wants = need.gres.clone();
        best.filter(|best| enough(best))
            .or_else(|| search.one_of_each(&groups, &mut wants, &mut Vec::new()))
    })
}

/// Kinds of nodes whose answers are kept, the latest.
const KINDS_KEPT: usize = 32;

/// What [`Demand::binds`] said of parts of one demand. Nodes that are alike inside are asked once.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<Kind>);

/// All nodes that have the same inside.
#[derive(Debug)]
struct Kind {
    slots: Vec<GresSlot>,
    row: Row,
    /// Nodes that are wired alike share it.
    wiring: Option<Arc<Wiring>>,
    /// Tasks, shares, and whether they can be there.
    said: Vec<(u32, Box<[u64]>, bool)>,
}

/// The inside of a node: its facts, what is free of it, and its wiring.
pub(super) type Inside<'a> = (&'a Facts, &'a Row, Option<&'a Arc<Wiring>>);

impl Answers {
    pub(super) fn binds(
        &mut self,
        demand: &Demand,
        (tasks, shares): (u32, &[u64]),
        (facts, row, wiring): Inside<'_>,
    ) -> bool {
        if demand.ask.binding != CpuBinding::Enforced {
            return true;
        }
        let same = |kind: &Kind| {
            let wired = match (&kind.wiring, wiring) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            wired && kind.row == *row && kind.slots == facts.slots
        };
        let at = self.0.iter().rposition(same).unwrap_or_else(|| {
            if self.0.len() == KINDS_KEPT {
                self.0.remove(0);
            }
            let (slots, row, wiring) = (facts.slots.clone(), row.clone(), wiring.cloned());
            self.0.push(Kind { slots, row, wiring, said: Vec::new() });
            self.0.len() - 1
        });
        let said = &mut self.0[at].said;
        let known = said.iter().find(|(t, s, _)| *t == tasks && **s == *shares);
        known.map(|(_, _, binds)| *binds).unwrap_or_else(|| {
            let wiring = wiring.map(|wiring| &**wiring);
            let binds = demand.binds((tasks, shares), facts, row, wiring);
            said.push((tasks, shares.into(), binds));
            binds
        })
    }
}

/// A row with these GPUs alone.
fn within(free: &Row, facts: &Facts, gpus: u64) -> Row {
    let mut row = free.clone();
    for (slot, units) in facts.slots.iter().zip(&mut row.gres) {
        if slot.named && &*slot.kind.name == "gpu" {
            units.mask &= gpus;
            units.count = u64::from(units.mask.count_ones());
        }
    }
    row
}

/// Looks for units with a GPU in each of several places.
struct Search<'a> {
    nvlink: bool,
    facts: &'a Facts,
    wiring: &'a Wiring,
    /// What is left.
    row: Row,
}

impl Search<'_> {
    /// `held`: slots and units that are taken already; `wants`: what is still to be found.
    fn one_of_each(
        &mut self,
        places: &[u64],
        wants: &mut [(GresKind, u64)],
        held: &mut Vec<(usize, u64)>,
    ) -> Option<Vec<GresMask>> {
        let Some((place, rest)) = places.split_first() else { return self.complete(wants, held) };
        for slot in 0..self.facts.slots.len() {
            let GresKind { name, .. } = &self.facts.slots[slot].kind;
            let here = self.row.gres[slot].mask & place;
            let Some(want) = self.want_of(slot, wants).filter(|_| &**name == "gpu" && here != 0)
            else {
                continue;
            };
            let unit = here & here.wrapping_neg();
            wants[want].1 -= 1;
            self.row.gres[slot].mask &= !unit;
            self.row.gres[slot].count -= 1;
            held.push((slot, unit));
            if let Some(found) = self.one_of_each(rest, wants, held) {
                return Some(found);
            }
            held.pop();
            self.row.gres[slot].mask |= unit;
            self.row.gres[slot].count += 1;
            wants[want].1 += 1;
        }
        None
    }

    /// The wish that a unit of this slot serves: one for its type before one for any.
    fn want_of(&self, slot: usize, wants: &[(GresKind, u64)]) -> Option<usize> {
        let kind = &self.facts.slots[slot].kind;
        let serves = |typed: bool| {
            wants
                .iter()
                .position(|(of, n)| *n > 0 && of.of.is_some() == typed && kind.satisfies(of))
        };
        serves(true).or_else(|| serves(false))
    }

    fn complete(&self, wants: &[(GresKind, u64)], held: &[(usize, u64)]) -> Option<Vec<GresMask>> {
        let mut out = pick_units(false, wants, &self.row, self.facts, Some(self.wiring))?;
        for (slot, unit) in held {
            let kind = &self.facts.slots[*slot].kind;
            match out.iter_mut().find(|gres| gres.kind == *kind) {
                Some(gres) => (gres.mask, gres.count) = (gres.mask | unit, gres.count + 1),
                None => out.push(GresMask { kind: kind.clone(), mask: *unit, count: 1 }),
            }
        }
        let place = |gres: &GresMask| self.facts.slots.iter().position(|s| s.kind == gres.kind);
        out.sort_by_key(place);
        let gpus = gpus_of(&out);
        (!self.nvlink || joined(Some(self.wiring), gpus)).then_some(out)
    }
}

#[cfg(test)]
mod tests;

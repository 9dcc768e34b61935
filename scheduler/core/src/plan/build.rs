//! The exact CPUs and units of a start, from what is free on its nodes.

use muster_model::{CpuBinding, CpuSet, GresKind, GresMask, Slice};

use crate::state::{Facts, Row, Wiring};

use super::ask::Ask;
use super::binding::{self, gpus_of, near_free};
use super::ground::Part;
use super::units;
use super::view::ViewNode;

/// The slice of one part; `None`: the units that are free do not serve it, though there are enough.
#[must_use]
pub(super) fn slice(ask: &Ask, part: &Part, node: &ViewNode, free: &Row) -> Option<Slice> {
    let (facts, wiring) = (&*node.facts, node.wiring.as_deref());
    let whole = &facts.whole;
    let need = ask.need(part.tasks, &part.shares, whole.cpus.len(), whole.memory_mib);
    if need.cpus > free.cpus.len() || need.memory_mib > free.memory_mib {
        return None;
    }
    let enforced = ask.binding == CpuBinding::Enforced;
    let gres = match ask.exclusive {
        true => everything(facts, free),
        false if enforced => binding::choose(ask.nvlink, &need, free, facts, wiring)?,
        false => pick_units(ask.nvlink, &need.gres, free, facts, wiring)?,
    };
    let gpus = gpus_of(&gres);
    let near = match wiring.filter(|_| ask.binding != CpuBinding::Disabled) {
        Some(wiring) => units::near(wiring.table.links(), gpus, &wiring.numa),
        None => Vec::new(),
    };
    let fenced: Option<CpuSet> = enforced.then(|| near_free(&free.cpus, gpus, wiring));
    let open = fenced.as_ref().unwrap_or(&free.cpus);
    Some(Slice {
        node: part.node,
        cpus: units::pick_cpus(open, need.cpus, &near, facts.threads_per_core),
        memory_mib: need.memory_mib,
        gres,
        tasks: part.tasks,
    })
}

/// All that is in service: nobody else is there.
fn everything(facts: &Facts, free: &Row) -> Vec<GresMask> {
    let units = facts.slots.iter().zip(&free.gres).filter(|(_, u)| u.count > 0);
    units.map(|(s, u)| GresMask { kind: s.kind.clone(), mask: u.mask, count: u.count }).collect()
}

/// The best free units that serve these wishes; wishes for a type choose before those for any.
pub(super) fn pick_units(
    nvlink: bool,
    wants: &[(GresKind, u64)],
    free: &Row,
    facts: &Facts,
    wiring: Option<&Wiring>,
) -> Option<Vec<GresMask>> {
    let mut left = free.gres.clone();
    let mut taken: Vec<(u64, u64)> = vec![(0, 0); left.len()];
    let typed = wants.iter().filter(|(kind, _)| kind.of.is_some());
    let untyped = wants.iter().filter(|(kind, _)| kind.of.is_none());
    for (kind, count) in typed.chain(untyped) {
        let serving: Vec<usize> =
            (0..left.len()).filter(|i| facts.slots[*i].kind.satisfies(kind)).collect();
        let mut wanted = *count;
        let serving = whole_first(serving, |i| (facts.slots[i].cut, left[i].count), wanted);
        // One type that has enough is better than a mixture.
        let alone = serving.iter().copied().find(|i| left[*i].count >= wanted);
        for i in alone.into_iter().chain(serving) {
            let n = wanted.min(left[i].count);
            if n == 0 {
                continue;
            }
            let mask = match facts.slots[i].named {
                true => {
                    let gpu = &*facts.slots[i].kind.name == "gpu";
                    let table = wiring.filter(|_| gpu).map(|w| &w.table);
                    let n = u32::try_from(n).ok()?;
                    match gpu && nvlink {
                        true => units::choose_joined(table, left[i].mask, n)?,
                        false => units::choose(table, left[i].mask, n)?,
                    }
                }
                false => 0,
            };
            left[i].mask &= !mask;
            left[i].count -= n;
            taken[i].0 |= mask;
            taken[i].1 += n;
            wanted -= n;
        }
        if wanted > 0 {
            return None;
        }
    }
    let held = facts.slots.iter().zip(taken).filter(|(_, (_, count))| *count > 0);
    let held: Vec<GresMask> =
        held.map(|(s, (mask, count))| GresMask { kind: s.kind.clone(), mask, count }).collect();
    // Of several kinds each was chosen by itself.
    (!nvlink || joined(wiring, gpus_of(&held))).then_some(held)
}

/// What serves a wish, in the order in which it is taken: whole GPUs alone if there are enough, else
/// instances of GPUs that were cut alone, of which a program can use but one; a mixture is the last
/// resort. `is`: whether the units of one are instances, and how many there are.
#[must_use]
pub(super) fn whole_first<T: Copy>(
    serving: Vec<T>,
    is: impl Fn(T) -> (bool, u64),
    wanted: u64,
) -> Vec<T> {
    let (cut, mut whole): (Vec<T>, Vec<T>) = serving.into_iter().partition(|at| is(*at).0);
    let enough = |of: &[T]| of.iter().map(|at| is(*at).1).sum::<u64>() >= wanted;
    match (enough(&whole), enough(&cut)) {
        (true, _) => whole,
        (false, true) => cut,
        (false, false) => {
            whole.extend(cut);
            whole
        }
    }
}

/// Whether NVLink joins these GPUs, directly or over one another.
#[must_use]
pub(super) fn joined(wiring: Option<&Wiring>, gpus: u64) -> bool {
    let one = |w: &Wiring| units::islands(w.table.links(), gpus) == [gpus];
    gpus.count_ones() <= 1 || wiring.is_some_and(one)
}

//! Nodes: config, inventory and health (primary), and who holds what there (derived).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::GPU;

use crate::plan::nodeset::Ones;
use crate::plan::units::{UnitTable, islands};
use muster_model::{
    Capacity, CpuSet, GresKind, GresMask, Inventory, JobId, NodeConfig, NodeHealth, NodeId, Slice,
    Term,
};

/// One node. Its id is its place in `State::nodes`; it is never taken away, since old facts
/// name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: NodeId,
    /// As configured, with an operator's changes (features, weight) since.
    pub config: NodeConfig,
    /// False: the config names it no more; what runs there may end.
    pub configured: bool,
    /// What its agent last registered; `None`: never seen.
    pub inventory: Option<Arc<Inventory>>,
    pub health: NodeHealth,
    pub comment: Box<str>,
    /// Derived: what `config` says, ready for the planner.
    pub facts: Arc<Facts>,
    /// Derived: what no job holds.
    pub free: Arc<Row>,
    /// Derived: how its GPUs are joined, if its agent said so. Equal nodes share it.
    pub wiring: Option<Arc<Wiring>>,
    /// Derived: jobs that hold something here.
    pub jobs: BTreeSet<JobId>,
}

/// How a node's GPUs are joined to each other and to its CPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct Wiring {
    pub table: UnitTable,
    /// The CPUs of each NUMA node.
    pub numa: Vec<CpuSet>,
}

impl Wiring {
    /// The CPUs of each NUMA node. Where the host does not tell, the driver names those of each GPU.
    #[must_use]
    pub(super) fn numa_of(inventory: &Inventory) -> Cow<'_, [CpuSet]> {
        if !inventory.numa.is_empty() {
            return Cow::Borrowed(&inventory.numa);
        }
        let mut out: Vec<CpuSet> = Vec::new();
        for gpu in inventory.gpus.iter().filter(|gpu| !gpu.cpus.is_empty()) {
            let Some(at) = gpu.numa.map(|numa| numa as usize).filter(|at| *at < 256) else {
                return Cow::Borrowed(&[]);
            };
            out.resize(out.len().max(at + 1), CpuSet::default());
            out[at].add(&gpu.cpus);
        }
        Cow::Owned(out)
    }
}

/// What the planner asks of a node and what does not change as jobs come and go.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub name: Box<str>,
    pub features: Vec<Box<str>>,
    pub weight: u32,
    pub sockets: u32,
    pub threads_per_core: u32,
    /// In the order of `Capacity::gres`.
    pub slots: Vec<GresSlot>,
    /// Everything the node has.
    pub whole: Row,
    /// Parallel to `slots`: megabytes (10^6) of the smallest GPU; 0: no GPUs, or nobody told.
    pub gpu_megabytes: Vec<u64>,
    /// GPUs that NVLink joins, directly or over one another: the units of each such set.
    pub islands: Vec<u64>,
}

/// One kind of generic resource on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct GresSlot {
    pub kind: GresKind,
    /// Whether units are known one by one (names with at most 64 units).
    pub named: bool,
    /// Its units are instances of GPUs that were cut (MIG).
    pub cut: bool,
}

/// Amounts on one node: all, or free.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub cpus: CpuSet,
    pub memory_mib: u64,
    /// Parallel to `Facts::slots`.
    pub gres: Vec<Units>,
}

/// Units of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Units {
    /// 0 where units are only counted.
    pub mask: u64,
    pub count: u64,
}

impl Facts {
    #[must_use]
    pub fn new(config: &NodeConfig, inventory: Option<&Inventory>) -> Self {
        let (mut slots, gres) = slots(&config.capacity);
        let gpus = inventory.map_or(&[][..], |told| &told.gpus);
        for (slot, units) in slots.iter_mut().zip(&gres).filter(|(slot, _)| &*slot.kind.name == GPU)
        {
            let is_cut = |unit: u32| gpus.get(unit as usize).is_some_and(|gpu| gpu.mig.is_some());
            slot.cut = units.mask != 0 && Ones(units.mask).all(is_cut);
        }
        let smallest = |(slot, units): (&GresSlot, &Units)| {
            let of_slot = Ones(units.mask).filter(|_| &*slot.kind.name == GPU);
            let megabytes = |unit: u32| gpus.get(unit as usize).map_or(0, |gpu| gpu.megabytes());
            of_slot.map(megabytes).min().unwrap_or(0)
        };
        let links = inventory.and_then(|told| told.links.as_deref()).filter(|l| l.is_sound());
        Facts {
            gpu_megabytes: slots.iter().zip(&gres).map(smallest).collect(),
            islands: links.map_or_else(Vec::new, |links| islands(links, u64::MAX)),
            name: config.name.clone(),
            features: config.features.clone(),
            weight: config.weight,
            sockets: config.sockets,
            threads_per_core: config.threads_per_core,
            slots,
            whole: Row {
                cpus: CpuSet::first(config.capacity.cpus),
                memory_mib: config.capacity.memory_mib,
                gres,
            },
        }
    }

    #[must_use]
    pub fn has_feature(&self, name: &str) -> bool {
        self.features.iter().any(|f| **f == *name)
    }

    /// Whether a node has what a constraint names; of GPUs, those of these kinds, all where none is
    /// named.
    #[must_use]
    pub fn has(&self, term: Term<'_>, kinds: &[&GresKind]) -> bool {
        match term {
            Term::Feature(name) => self.has_feature(name),
            Term::GpuMemory(megabytes) => {
                let mut slots = self.slots.iter().zip(&self.gpu_megabytes);
                let mut some = false;
                let all = slots.all(|(slot, has)| {
                    let asked = kinds.is_empty() || kinds.iter().any(|k| slot.kind.satisfies(k));
                    let counts = &*slot.kind.name == GPU && asked;
                    some |= counts;
                    !counts || *has >= megabytes
                });
                all && some
            }
        }
    }

    /// The units of these kinds.
    #[must_use]
    pub fn units_of(&self, row: &Row, kinds: &[&GresKind]) -> u64 {
        let of = self.slots.iter().zip(&row.gres);
        let asked = of.filter(|(slot, _)| kinds.iter().any(|kind| slot.kind.satisfies(kind)));
        asked.fold(0, |mask, (_, units)| mask | units.mask)
    }
}

fn slots(capacity: &Capacity) -> (Vec<GresSlot>, Vec<Units>) {
    let mut slots = Vec::new();
    let mut units = Vec::new();
    for (kind, count) in &capacity.gres {
        let same_name = |k: &&GresKind| k.name == kind.name;
        let of_name = |(k, n): (&GresKind, &u64)| same_name(&k).then_some(*n);
        let total: u64 = capacity.gres.iter().filter_map(of_name).sum();
        let before: u64 =
            capacity.gres.iter().take_while(|(k, _)| *k < kind).filter_map(of_name).sum();
        let named = total <= 64;
        let ones = if *count >= 64 { u64::MAX } else { (1 << count) - 1 };
        let mask = if named && *count > 0 { ones << before } else { 0 };
        slots.push(GresSlot { kind: kind.clone(), named, cut: false });
        units.push(Units { mask, count: *count });
    }
    (slots, units)
}

impl Node {
    #[must_use]
    pub fn new(id: NodeId, config: NodeConfig) -> Self {
        let facts = Arc::new(Facts::new(&config, None));
        Node {
            id,
            free: Arc::new(facts.whole.clone()),
            facts,
            config,
            configured: true,
            inventory: None,
            wiring: None,
            health: NodeHealth::default(),
            comment: Box::default(),
            jobs: BTreeSet::new(),
        }
    }

    /// Whether new work may go there.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.configured && self.inventory.is_some() && self.health.takes_work()
    }

    /// What new work may have: free, and not kept back by a drained GPU.
    #[must_use]
    pub fn open(&self) -> Arc<Row> {
        let drained = self.health.drained_gpus();
        if drained == 0 {
            return Arc::clone(&self.free);
        }
        let mut row = Row::clone(&self.free);
        for (slot, units) in self.facts.slots.iter().zip(&mut row.gres) {
            if slot.named && &*slot.kind.name == GPU {
                let lost = units.mask & drained;
                units.mask &= !drained;
                units.count = units.count.saturating_sub(lost.count_ones().into());
            }
        }
        Arc::new(row)
    }

    /// CPUs, memory (MiB) and units per kind that jobs hold.
    #[must_use]
    pub fn allocated(&self) -> Capacity {
        let whole = &self.facts.whole;
        let used = |(slot, (all, free)): (&GresSlot, (&Units, &Units))| {
            (slot.kind.clone(), all.count.saturating_sub(free.count))
        };
        Capacity {
            cpus: whole.cpus.len().saturating_sub(self.free.cpus.len()),
            memory_mib: whole.memory_mib.saturating_sub(self.free.memory_mib),
            gres: self
                .facts
                .slots
                .iter()
                .zip(whole.gres.iter().zip(&self.free.gres))
                .map(used)
                .collect(),
        }
    }

    /// Makes its facts anew.
    pub(crate) fn look_up(&mut self) {
        self.facts = Arc::new(Facts::new(&self.config, self.inventory.as_deref()));
    }

    pub(crate) fn hold(&mut self, job: JobId, slice: &Slice) {
        self.jobs.insert(job);
        let facts = Arc::clone(&self.facts);
        Arc::make_mut(&mut self.free).take(&facts, slice);
    }

    pub(crate) fn release(&mut self, job: JobId, slice: &Slice) {
        if self.jobs.remove(&job) {
            let facts = Arc::clone(&self.facts);
            Arc::make_mut(&mut self.free).give(&facts, slice);
        }
    }

    /// After `config` changed: nobody holds anything until the ledger is filled anew.
    pub(crate) fn reset(&mut self) {
        self.look_up();
        self.free = Arc::new(self.facts.whole.clone());
        self.jobs.clear();
    }
}

impl Row {
    pub(crate) fn take(&mut self, facts: &Facts, slice: &Slice) {
        self.cpus.remove(&slice.cpus);
        self.memory_mib = self.memory_mib.saturating_sub(slice.memory_mib);
        for held in &slice.gres {
            if let Some(units) = self.units_of(facts, held) {
                units.mask &= !held.mask;
                units.count = units.count.saturating_sub(held.count);
            }
        }
    }

    pub(crate) fn give(&mut self, facts: &Facts, slice: &Slice) {
        // What a smaller config took away does not come back.
        let whole = &facts.whole;
        self.cpus.add(&slice.cpus.intersection(&whole.cpus));
        self.memory_mib = (self.memory_mib + slice.memory_mib).min(whole.memory_mib);
        for held in &slice.gres {
            let at = facts.slots.iter().position(|s| s.kind == held.kind);
            if let Some((units, all)) = at.map(|i| (&mut self.gres[i], whole.gres[i])) {
                units.mask |= held.mask & all.mask;
                units.count = (units.count + held.count).min(all.count);
            }
        }
    }

    /// Whether a slice's exact resources are free.
    #[must_use]
    pub fn covers(&self, facts: &Facts, slice: &Slice) -> bool {
        self.cpus.covers(&slice.cpus)
            && slice.memory_mib <= self.memory_mib
            && slice.gres.iter().all(|held| {
                let at = facts.slots.iter().position(|s| s.kind == held.kind);
                at.is_some_and(|i| {
                    let named = facts.slots[i].named;
                    let free = self.gres[i];
                    let exact = u64::from(held.mask.count_ones()) == held.count;
                    held.count <= free.count && held.mask & !free.mask == 0 && (exact || !named)
                })
            })
    }

    fn units_of(&mut self, facts: &Facts, held: &GresMask) -> Option<&mut Units> {
        let at = facts.slots.iter().position(|s| s.kind == held.kind)?;
        Some(&mut self.gres[at])
    }
}

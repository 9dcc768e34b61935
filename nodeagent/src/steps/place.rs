//! Where a step's tasks go: pure, over what the job has on each node and what other steps hold.
//!
//! How many tasks a node gets is worked out by dealing them round, as Slurm does, so that nodes of
//! different sizes fill evenly; which ranks those are is the distribution's business.

use muster_proto::v1::{Distribution, GresMask, GresRequest, GresScope, NodePart, StepShape};

/// What the job has on one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    pub node: String,
    pub cpus: Vec<u32>,
    pub memory_mib: u64,
    pub gres: Vec<GresMask>,
    /// host:port of its agent; empty: not known.
    pub address: String,
}

/// Why a step does not start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Others hold what it needs.
    Busy,
    /// The job is not made for it: Slurm's text, and what exactly.
    Never { slurm: &'static str, detail: String },
}

const TOO_MANY_CPUS: &str = "More processors requested than permitted";
const NODE_COUNT: &str = "Invalid node count specified";
const NODE_CONFIG: &str = "Requested node configuration is not available";
const GRES: &str = "Invalid generic resource (gres) specification";
const MEMORY: &str = "Memory required by task is not available";

fn never<T>(slurm: &'static str, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Never { slurm, detail: detail.into() })
}

/// `0-3,8` in numbers.
#[must_use]
pub fn cpu_list(text: &str) -> Vec<u32> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            out.extend(from..=to.min(from.saturating_add(65_535)));
        }
    }
    out
}

/// Numbers as `0-3,8`; they must ascend.
#[must_use]
pub fn cpu_text(cpus: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let show = |(from, to): (u32, u32)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    runs.into_iter().map(show).collect::<Vec<_>>().join(",")
}

/// Places a step. `held` are the parts of the steps that mind others.
///
/// # Errors
/// Busy where it would fit a job without other steps.
pub fn place(
    shares: &[Share],
    held: &[NodePart],
    shape: &StepShape,
) -> Result<Vec<NodePart>, Refusal> {
    let alone = Plan::new(shares, &[], shape).run()?;
    if shape.overlap || held.is_empty() {
        return Ok(alone);
    }
    Plan::new(shares, held, shape).run().map_err(|_| Refusal::Busy)
}

struct Plan<'a> {
    shares: &'a [Share],
    held: &'a [NodePart],
    shape: &'a StepShape,
    each: usize,
}

impl<'a> Plan<'a> {
    fn new(shares: &'a [Share], held: &'a [NodePart], shape: &'a StepShape) -> Self {
        Plan { shares, held, shape, each: shape.cpus_per_task.max(1) as usize }
    }

    fn held_on(&self, at: usize) -> impl Iterator<Item = &NodePart> {
        self.held.iter().filter(move |part| part.node == self.shares[at].node)
    }

    fn free_cpus(&self, at: usize) -> Vec<u32> {
        let taken: Vec<u32> = self.held_on(at).flat_map(|p| cpu_list(&p.cpus)).collect();
        let all = &self.shares[at].cpus;
        let free: Vec<u32> = all.iter().copied().filter(|c| !taken.contains(c)).collect();
        // A step that takes whole nodes has them to itself.
        if !self.shape.exact && free.len() < all.len() { Vec::new() } else { free }
    }

    fn free_gres(&self, at: usize, name: &str, of: &str) -> (u64, u64) {
        let fits = |g: &GresMask| {
            g.kind.as_ref().is_some_and(|k| k.name == name && (of.is_empty() || k.of == of))
        };
        let sum = |list: &[GresMask]| {
            let all = list.iter().filter(|g| fits(g));
            all.fold((0u64, 0u64), |(mask, count), g| (mask | g.mask, count + g.count))
        };
        let (mask, count) = sum(&self.shares[at].gres);
        let (taken_mask, taken) = self
            .held_on(at)
            .map(|p| sum(&p.gres))
            .fold((0, 0), |(m, c), (mask, count)| (m | mask, c + count));
        match mask {
            0 => (0, count.saturating_sub(taken)),
            mask => (mask & !taken_mask, u64::from((mask & !taken_mask).count_ones())),
        }
    }

    fn free_memory(&self, at: usize) -> u64 {
        let held: u64 = self.held_on(at).map(|p| p.memory_mib).sum();
        self.shares[at].memory_mib.saturating_sub(held)
    }

    /// How many tasks a node takes, and why not more where it takes none.
    fn capacity(&self, at: usize) -> Result<u32, Refusal> {
        let shape = self.shape;
        let name = &self.shares[at].node;
        if shape.memory_mib > 0
            && self.shares[at].memory_mib > 0
            && shape.memory_mib > self.free_memory(at)
        {
            return never(
                MEMORY,
                format!("--mem={}M is more than the job has free on {name}", shape.memory_mib),
            );
        }
        let cpus = self.free_cpus(at).len();
        if cpus == 0 && !self.shares[at].cpus.is_empty() {
            return never(TOO_MANY_CPUS, format!("no CPU of the job is free on {name}"));
        }
        let mut most = match shape.overcommit {
            true => u32::MAX,
            false => u32::try_from(cpus.max(1) / self.each).unwrap_or(u32::MAX),
        };
        if most == 0 {
            let has = self.shares[at].cpus.len();
            return never(
                TOO_MANY_CPUS,
                format!(
                    "a task of {} CPUs does not fit {name}, where the job has {has}",
                    self.each
                ),
            );
        }
        if shape.tasks_per_node > 0 {
            most = most.min(shape.tasks_per_node);
        }
        for gres in self.asked() {
            let (kind, of) = kind(gres);
            let (_, free) = self.free_gres(at, kind, of);
            let short = || never(GRES, format!("{kind} of the job on {name}: {free} free"));
            match gres.scope() {
                GresScope::Node if gres.count > free => return short(),
                GresScope::Task if gres.count > 0 => {
                    let tasks = u32::try_from(free / gres.count).unwrap_or(u32::MAX);
                    if tasks == 0 {
                        return short();
                    }
                    most = most.min(tasks);
                }
                _ => {}
            }
        }
        if !shape.gres_given {
            let whole = self.shares[at].gres.iter().filter_map(|g| g.kind.as_ref()).all(|k| {
                let alone = Plan { held: &[], ..*self };
                self.free_gres(at, &k.name, &k.of) == alone.free_gres(at, &k.name, &k.of)
            });
            if !whole {
                return never(GRES, format!("GRES of the job on {name} are held by another step"));
            }
        }
        Ok(most)
    }

    fn asked(&self) -> impl Iterator<Item = &'a GresRequest> {
        self.shape.gres.iter().filter(|g| g.count > 0)
    }

    fn run(&self) -> Result<Vec<NodePart>, Refusal> {
        let (nodes, tasks) = self.choose()?;
        let counts = self.counts(&nodes, tasks)?;
        let nodes: Vec<(usize, u32, u32)> = nodes
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .map(|((at, most), count)| (at, most, count))
            .collect();
        let ranks = ranks(&nodes.iter().map(|(_, _, n)| *n).collect::<Vec<_>>(), self.shape);
        let mut left: Vec<u64> = self.asked().map(|g| g.count).collect();
        let mut parts = Vec::new();
        for (index, ((at, _, count), tasks)) in nodes.iter().zip(ranks).enumerate() {
            let later = nodes.len() - index - 1;
            parts.push(self.part(*at, index, *count, tasks, &mut left, later)?);
        }
        let short = self.asked().zip(&left).find(|(g, l)| g.scope() == GresScope::Job && **l > 0);
        if let Some((gres, left)) = short {
            return never(GRES, format!("{left} {} short on the step's nodes", kind(gres).0));
        }
        Ok(parts)
    }

    /// The nodes with what each takes, and how many tasks there are.
    fn choose(&self) -> Result<(Vec<(usize, u32)>, u32), Refusal> {
        let shape = self.shape;
        let find = |name: &String| self.shares.iter().position(|s| s.node == *name);
        if let Some(name) = shape.nodes.iter().find(|name| find(name).is_none()) {
            return never(NODE_CONFIG, format!("node {name} is not in the job's allocation"));
        }
        let first = shape.relative.unwrap_or(0) as usize;
        if first >= self.shares.len() {
            return never(
                NODE_COUNT,
                format!("--relative={first}: the job has {} nodes", self.shares.len()),
            );
        }
        let named: Vec<usize> = shape.nodes.iter().filter_map(find).collect();
        let mut order: Vec<usize> = (first..self.shares.len())
            .filter(|at| !shape.excluded.contains(&self.shares[*at].node))
            .filter(|at| {
                named.is_empty() || named.contains(at) || shape.min_nodes as usize > named.len()
            })
            .collect();
        order.sort_by_key(|at| !named.is_empty() && !named.contains(at));
        let listed = u32::try_from(if named.is_empty() { order.len() } else { named.len() })
            .unwrap_or(u32::MAX);
        let mut most =
            if shape.max_nodes > 0 { shape.max_nodes } else { listed.max(shape.min_nodes) };
        let tasks = match (shape.tasks, shape.tasks_per_node) {
            (0, 0) => shape.min_nodes.max(if shape.max_nodes > 0 { 1 } else { listed }),
            (0, each) => each.saturating_mul(shape.min_nodes.max(if shape.max_nodes > 0 {
                1
            } else {
                listed
            })),
            (tasks, _) => tasks,
        };
        most = most.min(tasks);
        let least = shape.min_nodes.min(tasks).max(1);
        if (order.len() as u32) < least {
            return never(
                NODE_COUNT,
                format!("{least} nodes asked, the job has {} for this step", order.len()),
            );
        }
        let mut fitting = Vec::new();
        let mut fault = None;
        for at in order {
            match self.capacity(at) {
                Ok(takes) => fitting.push((at, takes)),
                Err(why) if named.contains(&at) => return Err(why),
                Err(why) => fault = fault.or(Some(why)),
            }
        }
        let chosen = self.pick(fitting, &named, most as usize, tasks);
        if (chosen.len() as u32) < least {
            return Err(fault.unwrap_or(Refusal::Never {
                slurm: NODE_COUNT,
                detail: format!("{least} nodes asked, {} fit", chosen.len()),
            }));
        }
        let room: u64 = chosen.iter().map(|(_, takes)| u64::from(*takes)).sum();
        if room < u64::from(tasks) {
            return never(
                TOO_MANY_CPUS,
                format!("{tasks} tasks asked, the job has room for {room}"),
            );
        }
        Ok((chosen, tasks))
    }

    /// The first `most` in the job's order, or those with the most room where that is not enough.
    fn pick(
        &self,
        fitting: Vec<(usize, u32)>,
        named: &[usize],
        most: usize,
        tasks: u32,
    ) -> Vec<(usize, u32)> {
        let room =
            |nodes: &[(usize, u32)]| -> u64 { nodes.iter().map(|(_, n)| u64::from(*n)).sum() };
        let mut chosen: Vec<(usize, u32)> = fitting.iter().copied().take(most).collect();
        if room(&chosen) < u64::from(tasks) && fitting.len() > most {
            let mut by_room = fitting;
            by_room
                .sort_by_key(|(at, takes)| (!named.contains(at), std::cmp::Reverse(*takes), *at));
            by_room.truncate(most);
            chosen = by_room;
        }
        chosen.sort_by_key(|(at, _)| *at);
        chosen
    }

    fn counts(&self, nodes: &[(usize, u32)], tasks: u32) -> Result<Vec<u32>, Refusal> {
        let mut counts = vec![0u32; nodes.len()];
        let mut left = tasks;
        while left > 0 {
            let before = left;
            for (count, (_, most)) in counts.iter_mut().zip(nodes) {
                if *count < *most && left > 0 {
                    *count += 1;
                    left -= 1;
                }
            }
            if left == before {
                return never(TOO_MANY_CPUS, format!("{left} tasks find no room"));
            }
        }
        Ok(counts)
    }

    fn part(
        &self,
        at: usize,
        index: usize,
        count: u32,
        tasks: Vec<u32>,
        left: &mut [u64],
        later: usize,
    ) -> Result<NodePart, Refusal> {
        let share = &self.shares[at];
        let free = self.free_cpus(at);
        let cpus: Vec<u32> = match self.shape.exact && !self.shape.overcommit {
            true => free.into_iter().take(count as usize * self.each).collect(),
            false if self.shape.exact => {
                free.into_iter().take((count as usize * self.each).max(1)).collect()
            }
            false => share.cpus.clone(),
        };
        Ok(NodePart {
            node: share.node.clone(),
            job_index: u32::try_from(at).expect("nodes are counted in u32"),
            index: u32::try_from(index).expect("nodes are counted in u32"),
            tasks,
            cpus: cpu_text(&cpus),
            gres: self.gres(at, count, left, later)?,
            memory_mib: self.shape.memory_mib,
            address: share.address.clone(),
        })
    }

    fn gres(
        &self,
        at: usize,
        count: u32,
        left: &mut [u64],
        later: usize,
    ) -> Result<Vec<GresMask>, Refusal> {
        if !self.shape.gres_given {
            return Ok(self.shares[at].gres.clone());
        }
        let mut out: Vec<GresMask> = Vec::new();
        for (gres, left) in self.asked().zip(left) {
            let (name, of) = kind(gres);
            let (mut mask, mut free) = self.free_gres(at, name, of);
            let used = out.iter().filter(|g| g.kind.as_ref().is_some_and(|k| k.name == name));
            let used = used.fold(0, |m, g| m | g.mask);
            if used != 0 {
                mask &= !used;
                free = u64::from(mask.count_ones());
            }
            let wanted = match gres.scope() {
                GresScope::Task => gres.count * u64::from(count),
                // Every later node gets at least one.
                GresScope::Job => (*left).saturating_sub(later as u64).min(free),
                GresScope::Node | GresScope::Socket => gres.count,
            };
            if wanted > free {
                return never(
                    GRES,
                    format!("{name}: {wanted} wanted on {}, {free} free", self.shares[at].node),
                );
            }
            *left = left.saturating_sub(wanted);
            let mask = lowest(mask, wanted);
            out.push(GresMask { kind: gres.kind.clone(), mask, count: wanted });
        }
        Ok(out)
    }
}

fn kind(gres: &GresRequest) -> (&str, &str) {
    gres.kind.as_ref().map_or(("", ""), |k| (k.name.as_str(), k.of.as_str()))
}

fn lowest(mask: u64, count: u64) -> u64 {
    let bits = (0..64).filter(|bit| mask >> bit & 1 == 1);
    bits.take(usize::try_from(count).unwrap_or(64)).fold(0, |m, bit| m | 1 << bit)
}

/// Which ranks the nodes get, by how many each gets.
fn ranks(counts: &[u32], shape: &StepShape) -> Vec<Vec<u32>> {
    let mut out: Vec<Vec<u32>> = vec![Vec::new(); counts.len()];
    let total: u32 = counts.iter().sum();
    let block = match shape.distribution() {
        Distribution::Block => u32::MAX,
        Distribution::Cyclic => 1,
        Distribution::Plane => shape.plane.max(1),
    };
    let mut rank = 0;
    while rank < total {
        for (at, ranks) in out.iter_mut().enumerate() {
            let room = counts[at] - ranks.len() as u32;
            for _ in 0..room.min(block) {
                ranks.push(rank);
                rank += 1;
            }
        }
    }
    out
}

#[cfg(test)]
#[path = "place/tests.rs"]
mod tests;

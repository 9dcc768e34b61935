//! What a request comes to on nodes, in numbers: how much a node must have for so many tasks and
//! such a share of the job's own GRES.

use muster_model::{CpuBinding, GresKind};

use crate::state::{Facts, Row, Wiring};

use super::ask::{Ask, Memory};
use super::axes::{ALL_SEATS, Amounts, Axes, CPUS, MEMORY, SEATS};
use super::binding;
use super::units;

/// An [`Ask`] on the axes of a cluster.
#[derive(Debug, Clone)]
pub struct Demand {
    pub ask: Ask,
    /// GRES axes: amounts on every node, for each task, and for each unit of `Ask::job_gres`.
    node: Amounts,
    task: Amounts,
    job: Vec<Vec<usize>>,
    /// The axis that `cpus_per_gpu` and `mem_per_gpu` count.
    gpu: Option<usize>,
}

/// The same part on every node: so many nodes with so many tasks and such shares each.
#[derive(Debug, Clone, PartialEq)]
pub struct Uniform {
    pub nodes: u32,
    pub tasks: u32,
    /// Parallel to `Ask::job_gres`.
    pub shares: Vec<u64>,
    /// Whether this is the only way to serve the request. If not, an uneven distribution may do
    /// where this does not.
    pub only: bool,
}

impl Demand {
    /// `None`: something is asked for that no node has.
    #[must_use]
    pub fn new(ask: Ask, axes: &Axes) -> Option<Self> {
        let scoped = |gres: &[(GresKind, u64)]| -> Option<Amounts> {
            let mut out = Amounts::new();
            for (kind, count) in gres {
                for axis in axes.of_kind(kind)? {
                    let count = u32::try_from(*count).unwrap_or(u32::MAX);
                    match out.iter_mut().find(|(a, _)| *a == axis) {
                        Some((_, n)) => *n = n.saturating_add(count),
                        None => out.push((axis, count)),
                    }
                }
            }
            Some(out)
        };
        let (node, task) = (scoped(&ask.node_gres)?, scoped(&ask.task_gres)?);
        let job: Option<Vec<Vec<usize>>> =
            ask.job_gres.iter().map(|(kind, _)| axes.of_kind(kind)).collect();
        Some(Demand { node, task, job: job?, gpu: axes.name("gpu"), ask })
    }

    /// What a node with `whole` (by axis) must have free for so many tasks and these shares.
    pub fn amounts(&self, tasks: u32, shares: &[u64], whole: &[u32], out: &mut Amounts) {
        let ask = &self.ask;
        out.clear();
        out.extend([
            (SEATS, if ask.exclusive || ask.alone { ALL_SEATS } else { 1 }),
            (CPUS, 0),
            (MEMORY, 0),
        ]);
        let mut add = |axis: usize, count: u32| match out.iter_mut().find(|(a, _)| *a == axis) {
            Some((_, n)) => *n = n.saturating_add(count),
            None => out.push((axis, count)),
        };
        self.node.iter().for_each(|(axis, n)| add(*axis, *n));
        self.task.iter().for_each(|(axis, n)| add(*axis, n.saturating_mul(tasks)));
        for (axes, share) in self.job.iter().zip(shares) {
            let share = u32::try_from(*share).unwrap_or(u32::MAX);
            axes.iter().for_each(|axis| add(*axis, share));
        }
        let gpus = self.gpu.map_or(0, |gpu| super::axes::amount_on(out, gpu));
        let by_gpus = gpus.saturating_mul(ask.cpus_per_gpu);
        let by_tasks = tasks.saturating_mul(ask.cpus_per_task);
        let least = by_tasks.max(by_gpus).max(ask.min_cpus);
        let cpus = if ask.exclusive { whole[CPUS].max(least) } else { least.max(1) };
        let memory = match ask.memory {
            Memory::Whole => u64::from(whole[MEMORY]),
            Memory::PerNode(mib) => mib,
            Memory::PerCpu(mib) => mib.saturating_mul(u64::from(cpus)),
            Memory::PerGpu(mib) => mib.saturating_mul(u64::from(gpus)),
        };
        out[1].1 = cpus;
        out[2].1 = u32::try_from(memory).unwrap_or(u32::MAX);
        out.retain(|(_, n)| *n > 0);
    }

    /// What a slice with these amounts takes of a node: everything, if it is to be alone there.
    #[must_use]
    pub fn takes(&self, amounts: &Amounts, axes: &Axes, whole: &[u32], free: &[u32]) -> Amounts {
        if self.ask.exclusive {
            let memory = super::axes::amount_on(amounts, MEMORY);
            let all = whole.iter().copied().enumerate();
            return all.map(|(a, n)| if a == MEMORY { (a, memory) } else { (a, n) }).collect();
        }
        axes.on_node(amounts, free)
    }

    /// Whether nodes of different sizes are asked for different amounts.
    #[must_use]
    pub fn follows_node(&self) -> bool {
        self.ask.exclusive || self.ask.memory == Memory::Whole
    }

    /// The part that is the same on every node, if the request can be served so.
    #[must_use]
    pub fn uniform(&self) -> Option<Uniform> {
        let ask = &self.ask;
        let plain = ask.required.is_empty()
            && ask.counts.is_empty()
            && ask.alternatives.is_empty()
            && !ask.contiguous;
        if !plain {
            return None;
        }
        let nodes = ask.min_nodes;
        let fixed = ask.max_nodes == Some(nodes);
        let even = ask.job_gres.iter().all(|(_, n)| n.is_multiple_of(u64::from(nodes)));
        let shares: Vec<u64> = ask.job_gres.iter().map(|(_, n)| n / u64::from(nodes)).collect();
        let (tasks, only) = match (ask.tasks, ask.tasks_per_node) {
            (None, per_node) => {
                // More nodes than the least are taken where they can be had.
                let more = ask.max_nodes.is_some_and(|max| max > nodes);
                if more && ask.takes_more_nodes() {
                    return None;
                }
                let single = nodes == 1 && fixed;
                (per_node.unwrap_or(1), ask.job_gres.is_empty() || single)
            }
            (Some(tasks), per_node) => {
                let each = tasks / nodes;
                if !tasks.is_multiple_of(nodes) || per_node.is_some_and(|max| each > max) {
                    return None;
                }
                let one_each = each == 1 && ask.job_gres.is_empty();
                (each, fixed && (nodes == 1 || one_each))
            }
        };
        even.then_some(Uniform { nodes, tasks, shares, only })
    }

    /// The GPUs in some amounts.
    #[must_use]
    pub fn gpus(&self, amounts: &Amounts) -> u32 {
        self.gpu.map_or(0, |gpu| super::axes::amount_on(amounts, gpu))
    }

    /// The most GPUs of a node that this job can have together: with `--nvlink=required` the largest
    /// set that is joined, of all, or of those that are free `now`.
    #[must_use]
    pub fn most_joined(&self, facts: &Facts, now: Option<(&Row, Option<&Wiring>)>) -> u32 {
        if !self.ask.nvlink {
            return u32::MAX;
        }
        let kinds = self.ask.gpu_kinds();
        let largest = |sets: &[u64], among: u64| {
            sets.iter().map(|set| (set & among).count_ones()).max().unwrap_or(0).max(1)
        };
        let whole = largest(&facts.islands, facts.units_of(&facts.whole, &kinds));
        match now {
            Some((row, Some(wiring))) if whole > 1 => {
                let free = facts.units_of(row, &kinds);
                largest(&units::islands(wiring.table.links(), free), free).min(whole)
            }
            Some(_) | None => whole,
        }
    }

    /// The most CPUs of a node that could be near the job's GPUs there, of these that are free.
    #[must_use]
    pub fn most_near(&self, facts: &Facts, free: &Row, wiring: Option<&Wiring>) -> u32 {
        match self.ask.binding {
            CpuBinding::Preferred | CpuBinding::Disabled => u32::MAX,
            CpuBinding::Enforced => {
                let gpus = facts.units_of(free, &self.ask.gpu_kinds());
                binding::near_free(&free.cpus, gpus, wiring).len()
            }
        }
    }

    /// Whether free GPUs of a node have the CPUs of this part near them, if they must.
    #[must_use]
    pub fn binds(
        &self,
        (tasks, shares): (u32, &[u64]),
        facts: &Facts,
        free: &Row,
        wiring: Option<&Wiring>,
    ) -> bool {
        if self.ask.binding != CpuBinding::Enforced {
            return true;
        }
        let (cpus, memory) = (facts.whole.cpus.len(), facts.whole.memory_mib);
        let need = self.ask.need(tasks, shares, cpus, memory);
        binding::choose(self.ask.nvlink, &need, free, facts, wiring).is_some()
    }

    /// Whether a node may be part of the job as far as its nature goes.
    #[must_use]
    pub fn admits(&self, facts: &Facts) -> bool {
        self.admits_slots(facts) && self.admits_nature(facts)
    }

    /// The part of that which nodes of one layout have in common.
    #[must_use]
    pub fn admits_slots(&self, facts: &Facts) -> bool {
        let ask = &self.ask;
        let mut gres = ask.node_gres.iter().chain(&ask.task_gres).chain(&ask.job_gres);
        gres.all(|(kind, _)| facts.slots.iter().any(|s| s.kind.satisfies(kind)))
    }

    /// The rest of it.
    #[must_use]
    pub fn admits_nature(&self, facts: &Facts) -> bool {
        let ask = &self.ask;
        !ask.excluded.iter().any(|name| **name == *facts.name)
            && ask.constraint.as_ref().is_none_or(|c| ask.finds(c, facts))
            && ask.threads_per_core.is_none_or(|n| facts.threads_per_core >= n)
            && ask.sockets_per_node.is_none_or(|n| facts.sockets >= n)
    }

    /// Whether any node's nature will do.
    #[must_use]
    pub fn takes_any_nature(&self) -> bool {
        let ask = &self.ask;
        ask.excluded.is_empty()
            && ask.constraint.is_none()
            && ask.threads_per_core.is_none()
            && ask.sockets_per_node.is_none()
    }
}

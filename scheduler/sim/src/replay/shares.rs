//! Nodes whose GPUs can be shared, filled task by task with the planner's own measure of
//! fragmentation. Only `muster sim fill` knows such nodes: it has to compare with published figures.

use std::collections::BTreeMap;

use muster_core::plan::Packing;
use muster_core::plan::packing::{Class, Idle, WHOLE, fragments, grade};
use muster_model::NodeConfig;

use super::cluster::gpus_of;
use super::trace::{Entry, Trace};
use crate::dice::Dice;

/// What a node has left. CPUs in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    cpus: u64,
    memory: u64,
    whole: u32,
    /// Left on GPUs that somebody has a share of, ascending; none is 0.
    parts: Vec<u32>,
    features: Vec<Box<str>>,
}

/// Which way to a node a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Any node and GPU that fits.
    Random,
    Packed(Packing),
}

/// A cluster being filled.
pub struct Field {
    nodes: Vec<Node>,
    way: Way,
    /// Of all tasks of the trace.
    classes: Vec<Class>,
    /// By kind of task: the best device of every node with its grade; `None`: to be asked anew.
    known: BTreeMap<Kind, Vec<Option<Choice>>>,
}

type Grade = (i64, u64, u64);
/// Grade and device ([`None`]: whole GPUs) on a node; `None`: it does not fit.
type Choice = Option<(Grade, Option<usize>)>;
/// Tasks that are alike.
type Kind = (Class, Vec<Vec<Box<str>>>);

impl Field {
    /// Empty nodes.
    #[must_use]
    pub fn new(nodes: &[NodeConfig], trace: &Trace, shared: bool, way: Way) -> Self {
        let node = |n: &NodeConfig| Node {
            cpus: u64::from(n.capacity.cpus) * 1000,
            memory: n.capacity.memory_mib,
            whole: gpus_of(n),
            parts: Vec::new(),
            features: n.features.clone(),
        };
        let mut seen: BTreeMap<Class, u64> = BTreeMap::new();
        for job in &trace.jobs {
            *seen.entry(class(job, shared)).or_default() += 1;
        }
        let classes = seen.into_iter().map(|(class, weight)| Class { weight, ..class });
        let nodes = nodes.iter().map(node).collect();
        Field { nodes, way, classes: classes.collect(), known: BTreeMap::new() }
    }

    /// Places a task, if it fits anywhere.
    pub(crate) fn put(&mut self, job: &Entry, shared: bool, dice: &mut Dice) -> bool {
        let kind = (class(job, shared), job.wish.features.clone());
        let place = match self.way {
            Way::Random => self.random(&kind, dice),
            Way::Packed(packing) => self.best(&kind, packing),
        };
        let Some((node, device)) = place else { return false };
        self.nodes[node].take(&kind.0, device);
        for row in self.known.values_mut() {
            row[node] = None;
        }
        true
    }

    fn random(&self, kind: &Kind, dice: &mut Dice) -> Option<(usize, Option<usize>)> {
        let fitting = (0..self.nodes.len()).filter(|at| self.nodes[*at].fits(kind));
        let fitting: Vec<usize> = fitting.collect();
        let node = *dice.pick(&fitting)?;
        // Of the devices each is as likely, the untouched ones among them.
        let devices = self.nodes[node].devices(&kind.0);
        Some((node, *dice.pick(&devices)?))
    }

    fn best(&mut self, kind: &Kind, packing: Packing) -> Option<(usize, Option<usize>)> {
        let Field { nodes, classes, known, .. } = self;
        let row = known.entry(kind.clone()).or_insert_with(|| vec![None; nodes.len()]);
        let mut best: Option<(Grade, usize, Option<usize>)> = None;
        for (at, (node, choice)) in nodes.iter().zip(row).enumerate() {
            let choice = choice.get_or_insert_with(|| node.choice(kind, packing, classes));
            if let Some((grade, device)) = choice
                && best.is_none_or(|(known, ..)| *grade < known)
            {
                best = Some((*grade, at, *device));
            }
        }
        best.map(|(_, node, device)| (node, device))
    }

    /// Of what is idle, the share that is of no use to the trace's tasks.
    #[must_use]
    pub fn fragmented(&self) -> f64 {
        let weight: u64 = self.classes.iter().map(|class| class.weight).sum();
        let idle: u64 = self.nodes.iter().map(|node| node.idle().gpus()).sum();
        let broken: u64 =
            self.nodes.iter().map(|node| fragments(&self.classes, &node.idle())).sum();
        if idle == 0 { 0.0 } else { broken as f64 / (weight * idle) as f64 }
    }
}

/// Thousandths of GPUs that a task asks for.
#[must_use]
pub fn wanted(job: &Entry, shared: bool) -> u64 {
    let class = class(job, shared);
    u64::from(class.gpus) * u64::from(class.share)
}

fn class(job: &Entry, shared: bool) -> Class {
    let whole = u64::from(job.wish.cpus_per_task) * 1000;
    Class {
        cpus: if job.wish.cpu_milli > 0 { job.wish.cpu_milli.into() } else { whole },
        memory: job.wish.memory_mib,
        gpus: job.wish.gpus_per_task,
        share: if shared && job.wish.gpu_share > 0 { job.wish.gpu_share } else { WHOLE },
        weight: 1,
    }
}

impl Node {
    fn idle(&self) -> Idle<'_> {
        Idle { cpus: self.cpus, memory: self.memory, whole: self.whole, parts: &self.parts }
    }

    fn fits(&self, (class, features): &Kind) -> bool {
        let has = |any: &Vec<Box<str>>| any.iter().any(|name| self.features.contains(name));
        class.fits(&self.idle()) && features.iter().all(has)
    }

    /// The devices that a task of the class could have a part of; whole ones are all alike.
    fn devices(&self, class: &Class) -> Vec<Option<usize>> {
        if class.gpus == 0 || class.share >= WHOLE {
            return vec![None];
        }
        let shared = (0..self.parts.len()).filter(|at| self.parts[*at] >= class.share);
        let untouched = std::iter::repeat_n(None, self.whole as usize);
        shared.map(Some).chain(untouched).collect()
    }

    fn choice(&self, kind: &Kind, packing: Packing, classes: &[Class]) -> Choice {
        if !self.fits(kind) {
            return None;
        }
        let mut devices = self.devices(&kind.0);
        devices.dedup();
        let graded = devices.into_iter().map(|device| {
            let mut after = self.clone();
            after.take(&kind.0, device);
            (grade(packing, classes, &self.idle(), &after.idle()), device)
        });
        // Of equals the device with the least left: they stand first.
        graded.min_by_key(|(grade, _)| *grade)
    }

    fn take(&mut self, class: &Class, device: Option<usize>) {
        self.cpus -= class.cpus;
        self.memory -= class.memory;
        match device {
            _ if class.gpus == 0 => {}
            None if class.share >= WHOLE => self.whole -= class.gpus,
            None => {
                self.whole -= 1;
                self.parts.push(WHOLE - class.share);
            }
            Some(at) => self.parts[at] -= class.share,
        }
        self.parts.retain(|part| *part > 0);
        self.parts.sort_unstable();
    }
}

//! What went on in a run, in numbers and in words.

use std::fmt;

use muster_core::event::Event;

/// Counts of a run, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub steps: u64,
    /// Simulated.
    pub seconds: i64,
    pub events: u64,
    /// Submissions that were acknowledged.
    pub jobs: u64,
    pub ended: u64,
    /// Attempts on more than one node.
    pub gangs: u64,
    pub requeues: u64,
    pub controller_kills: u64,
    pub agent_kills: u64,
    pub reboots: u64,
    /// Single GPUs that were taken out.
    pub bad_gpus: u64,
    /// Nodes that were given up for silence.
    pub lost_nodes: u64,
}

impl Tally {
    pub(super) fn count(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::Ended { .. } => self.ended += 1,
            Event::GpuDrain { mark: Some(_), .. } => self.bad_gpus += 1,
            Event::Requeued { .. } => self.requeues += 1,
            Event::Started { placement, .. } if placement.slices.len() > 1 => self.gangs += 1,
            _ => {}
        }
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.steps += other.steps;
        self.seconds += other.seconds;
        self.events += other.events;
        self.jobs += other.jobs;
        self.ended += other.ended;
        self.gangs += other.gangs;
        self.requeues += other.requeues;
        self.controller_kills += other.controller_kills;
        self.agent_kills += other.agent_kills;
        self.reboots += other.reboots;
        self.lost_nodes += other.lost_nodes;
        self.bad_gpus += other.bad_gpus;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} h simulated, {} facts, {} submissions, {} ends, {} gangs, {} requeues, \
             {} controller kills, {} agent kills, {} reboots, {} nodes lost, {} GPUs drained",
            self.steps,
            self.seconds / 3600,
            self.events,
            self.jobs,
            self.ended,
            self.gangs,
            self.requeues,
            self.controller_kills,
            self.agent_kills,
            self.reboots,
            self.lost_nodes,
            self.bad_gpus
        )
    }
}

/// A promise that was not kept.
#[derive(Debug)]
pub struct Broken {
    pub seed: u64,
    pub what: String,
    /// The last things that happened, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// A fact in a few words.
pub(super) fn brief(event: &Event) -> String {
    match event {
        Event::Configured { .. } => "Configured".into(),
        Event::Submitted { job, spec, .. } => {
            let array = spec.array.as_ref().map(|a| a.indices.to_string()).unwrap_or_default();
            format!("Submitted {job} {array}")
        }
        Event::Registered { node, .. } => format!("Registered {node:?}"),
        Event::Started { job, attempt, placement, .. } => {
            format!("Started {job}.{attempt} on {:?}", placement.nodes().collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

//! What the tasks use: asked for while they run, and looked at now and then for the most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use muster_proto::v1::{PartFigures, TaskFigures};

use super::Course;
use crate::adopt::{Stat, stat};
use crate::usage::of_stat;

/// The first look at a step's memory: many end before the usual one.
const EARLY: Duration = Duration::from_secs(1);

/// When memory is looked at.
pub(super) struct Sampling {
    pub(super) next: Instant,
    pause: Duration,
    longest: Duration,
}

impl Sampling {
    /// Looks ever more seldom, until so many seconds apart. `None`: never.
    pub(super) fn new(seconds: u32) -> Option<Self> {
        let longest = Duration::from_secs(seconds.into());
        let pause = EARLY.min(longest);
        (!longest.is_zero()).then(|| Self { next: Instant::now() + pause, pause, longest })
    }
}

impl Course<'_> {
    pub(super) fn sample(&mut self) {
        let now = Instant::now();
        let Some(sampling) = self.sampling.as_mut().filter(|s| s.next <= now) else { return };
        sampling.pause = (sampling.pause * 2).min(sampling.longest);
        sampling.next = now + sampling.pause;
        self.meter.now(&self.containment);
    }

    /// As it is now.
    pub(super) fn figures(&mut self) -> PartFigures {
        let usage = self.meter.now(&self.containment);
        let procs = self.containment.procs().unwrap_or_default();
        let stats: HashMap<u32, Stat> = procs
            .iter()
            .filter_map(|pid| stat(pid.as_raw().cast_unsigned()))
            .map(|s| (s.pid, s))
            .collect();
        let roots: HashMap<u32, usize> = (0..)
            .zip(&self.tasks)
            .filter_map(|(at, task)| Some((task.pid?.as_raw().cast_unsigned(), at)))
            .collect();
        let mut used = vec![(0u64, 0u64); self.tasks.len()];
        for stat in stats.values() {
            if let Some(at) = root(stat.pid, &roots, &stats) {
                let (cpu_ms, rss_kib) = of_stat(stat);
                used[at] = (used[at].0 + cpu_ms, used[at].1 + rss_kib);
            }
        }
        let mut tasks = TaskFigures::default();
        for (task, (cpu_ms, rss_kib)) in self.tasks.iter().zip(used) {
            let ended = task.exit.and_then(|exit| exit.usage);
            let cpu_ms = ended.map_or(cpu_ms, |u| u.user_cpu_ms + u.system_cpu_ms);
            let rss_kib = ended.map_or(rss_kib, |u| u.max_rss_kib);
            let first = tasks.tasks == 0;
            if first || rss_kib > tasks.max_rss_kib {
                (tasks.max_rss_kib, tasks.max_rss_task) = (rss_kib, task.rank);
            }
            if first || cpu_ms < tasks.min_cpu_ms {
                (tasks.min_cpu_ms, tasks.min_cpu_task) = (cpu_ms, task.rank);
            }
            tasks.sum_rss_kib += rss_kib;
            tasks.tasks += 1;
        }
        if let [_] = self.tasks.as_slice() {
            tasks.max_rss_kib = tasks.max_rss_kib.max(usage.max_rss_kib);
            tasks.sum_rss_kib = tasks.max_rss_kib;
        }
        tasks.max_rss_node.clone_from(&self.order.node);
        tasks.min_cpu_node.clone_from(&self.order.node);
        let pids = stats.into_keys().collect();
        PartFigures {
            step: self.start.step.to_string(),
            usage: Some(usage),
            tasks: Some(tasks),
            pids,
        }
    }
}

/// The task that a process belongs to: the nearest among its ancestors.
fn root(pid: u32, roots: &HashMap<u32, usize>, stats: &HashMap<u32, Stat>) -> Option<usize> {
    let mut at = pid;
    // Parents that change while they are looked at could go round for ever.
    for _ in 0..stats.len() + 1 {
        if let Some(task) = roots.get(&at) {
            return Some(*task);
        }
        at = stats.get(&at)?.parent;
    }
    None
}

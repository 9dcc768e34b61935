//! The latest usage of running jobs, as their agents measured it. Not part of the state: it is
//! an opinion that the next sample replaces, and gone after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use muster_model::{JobId, NodeId};
use muster_proto::agent::v1 as agent;
use muster_proto::v1;

/// Latest samples. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct UsageBook {
    samples: Arc<Mutex<HashMap<JobId, Samples>>>,
}

#[derive(Debug, Default)]
struct Samples {
    attempt: u32,
    by_node: BTreeMap<NodeId, (v1::Usage, u32)>,
}

impl UsageBook {
    /// Notes what one node's agent measured.
    pub fn note(&self, node: NodeId, samples: &[agent::Sample]) {
        let mut book = self.samples.lock().expect("nobody panics with the book open");
        for sample in samples {
            let entry = book.entry(JobId(sample.job)).or_default();
            if sample.attempt < entry.attempt {
                continue;
            }
            if sample.attempt > entry.attempt {
                *entry = Samples { attempt: sample.attempt, ..Samples::default() };
            }
            entry.by_node.insert(node, (sample.usage.unwrap_or_default(), sample.pids));
        }
    }

    /// A job's usage over its nodes: CPU and processes summed, the highest memory.
    #[must_use]
    pub fn of(&self, job: JobId) -> Option<(v1::Usage, u32)> {
        let book = self.samples.lock().expect("nobody panics with the book open");
        let mut total = (v1::Usage::default(), 0);
        for (usage, pids) in book.get(&job)?.by_node.values() {
            total.0.user_cpu_ms += usage.user_cpu_ms;
            total.0.system_cpu_ms += usage.system_cpu_ms;
            total.0.max_rss_kib = total.0.max_rss_kib.max(usage.max_rss_kib);
            if let Some(gpu) = &usage.gpu {
                let sum = total.0.gpu.get_or_insert_default();
                sum.busy_ms += gpu.busy_ms;
                sum.seen_ms += gpu.seen_ms;
                sum.memory_mib += gpu.memory_mib;
                sum.energy_mj += gpu.energy_mj;
            }
            total.1 += pids;
        }
        Some(total)
    }

    /// All jobs with samples, ascending.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobId> {
        let book = self.samples.lock().expect("nobody panics with the book open");
        let mut jobs: Vec<JobId> = book.keys().copied().collect();
        jobs.sort_unstable();
        jobs
    }

    /// Forgets jobs that run no more.
    pub fn keep(&self, runs: &std::collections::BTreeSet<JobId>) {
        let mut book = self.samples.lock().expect("nobody panics with the book open");
        book.retain(|job, _| runs.contains(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_summed_and_an_older_attempt_is_ignored() {
        let book = UsageBook::default();
        let sample = |attempt, cpu, rss| agent::Sample {
            job: 7,
            attempt,
            usage: Some(v1::Usage {
                user_cpu_ms: cpu,
                system_cpu_ms: 0,
                max_rss_kib: rss,
                gpu: None,
            }),
            pids: 2,
        };
        book.note(NodeId(0), &[sample(1, 10, 100)]);
        book.note(NodeId(1), &[sample(1, 5, 300)]);
        let (usage, pids) = book.of(JobId(7)).unwrap();
        assert_eq!((usage.user_cpu_ms, usage.max_rss_kib, pids), (15, 300, 4));
        book.note(NodeId(0), &[sample(2, 1, 1)]);
        book.note(NodeId(1), &[sample(1, 99, 99)]);
        assert_eq!(book.of(JobId(7)).unwrap().0.user_cpu_ms, 1);
        book.keep(&Default::default());
        assert_eq!(book.of(JobId(7)), None);
    }
}

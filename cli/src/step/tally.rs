//! What the tasks of a step have used, as their nodes tell it.

use std::collections::BTreeMap;

use muster_proto::v1::{NodeOver, TaskExit, TaskFigures, Usage};

/// The sums, and each task by its rank.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    usage: Usage,
    tasks: BTreeMap<u32, Task>,
}

#[derive(Debug, Clone)]
struct Task {
    node: String,
    cpu_ms: u64,
    rss_kib: u64,
}

impl Tally {
    /// A task has ended.
    pub(crate) fn end(&mut self, node: &str, exit: &TaskExit) {
        let Some(used) = exit.usage else { return };
        let cpu_ms = used.user_cpu_ms + used.system_cpu_ms;
        let task = Task { node: node.to_owned(), cpu_ms, rss_kib: used.max_rss_kib };
        self.tasks.insert(exit.task, task);
    }

    /// A node is done: what all its tasks used together, and theirs whom nobody waited for.
    pub(crate) fn over(&mut self, tasks: &[u32], over: &NodeOver) {
        let used = over.usage.unwrap_or_default();
        self.usage.user_cpu_ms += used.user_cpu_ms;
        self.usage.system_cpu_ms += used.system_cpu_ms;
        self.usage.max_rss_kib = self.usage.max_rss_kib.max(used.max_rss_kib);
        // Of a task alone on its node the most that was seen there is its own.
        if let [task] = tasks
            && let Some(task) = self.tasks.get_mut(task)
        {
            task.rss_kib = task.rss_kib.max(used.max_rss_kib);
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// `None`: nobody measured.
    pub(crate) fn figures(&self) -> Option<TaskFigures> {
        let (most, largest) = self.tasks.iter().rev().max_by_key(|(_, t)| t.rss_kib)?;
        let (least, smallest) = self.tasks.iter().min_by_key(|(_, t)| t.cpu_ms)?;
        Some(TaskFigures {
            tasks: u32::try_from(self.tasks.len()).unwrap_or(u32::MAX),
            max_rss_kib: largest.rss_kib,
            max_rss_node: largest.node.clone(),
            max_rss_task: *most,
            sum_rss_kib: self.tasks.values().map(|t| t.rss_kib).sum(),
            min_cpu_ms: smallest.cpu_ms,
            min_cpu_node: smallest.node.clone(),
            min_cpu_task: *least,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_ms: u64, max_rss_kib: u64) -> Option<Usage> {
        Some(Usage { user_cpu_ms: cpu_ms, max_rss_kib, ..Usage::default() })
    }

    #[test]
    fn the_largest_and_the_smallest_are_known_by_node_and_rank() {
        let mut tally = Tally::default();
        for (node, task, cpu, rss) in [("n1", 0, 50, 100), ("n1", 1, 20, 300), ("n2", 2, 90, 200)] {
            tally.end(node, &TaskExit { task, usage: used(cpu, rss), ..TaskExit::default() });
        }
        tally.over(&[0, 1], &NodeOver { usage: used(75, 400), ..NodeOver::default() });
        tally.over(&[2], &NodeOver { usage: used(95, 500), ..NodeOver::default() });
        let tasks = tally.figures().unwrap();
        assert_eq!((tasks.min_cpu_ms, tasks.min_cpu_task, &*tasks.min_cpu_node), (20, 1, "n1"));
        assert_eq!((tasks.max_rss_kib, tasks.max_rss_task, &*tasks.max_rss_node), (500, 2, "n2"));
        assert_eq!((tasks.tasks, tasks.sum_rss_kib), (3, 900));
        assert_eq!(tally.usage().user_cpu_ms, 170, "with what no task waited for");
        assert_eq!(Tally::default().figures(), None);
    }
}

//! What the steps of a running job use now, asked from the agents of its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_config::Config;
use muster_model::Hostlist;
use muster_proto::v1::{FiguresRequest, PartFigures, TaskFigures, Usage};
use tokio::task::JoinSet;

use super::agents::Agents;

/// A node that does not answer in this time is shown without.
const PATIENCE: Duration = Duration::from_secs(5);

/// A step on all of its nodes together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) usage: Usage,
    pub(crate) tasks: TaskFigures,
    pub(crate) nodes: Vec<String>,
    pub(crate) pids: Vec<u32>,
}

/// By the step's name, `batch` or its number; none of a node that cannot be asked.
pub(crate) async fn of_job(config: &Config, job: u32, nodes: &str) -> BTreeMap<String, Figures> {
    let agents = Agents::new(config.clone());
    let nodes = Hostlist::parse(nodes).unwrap_or_default().0;
    let mut asked = JoinSet::new();
    for node in nodes {
        let Ok(mut client) = agents.of(&node).await else { continue };
        asked.spawn(async move {
            let answer = client.figures(FiguresRequest { job });
            let reply = tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?;
            Some((node, reply.into_inner().parts))
        });
    }
    let mut all = BTreeMap::new();
    let mut told: Vec<(String, Vec<PartFigures>)> =
        asked.join_all().await.into_iter().flatten().collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    for (node, parts) in told {
        parts.into_iter().for_each(|part| add(&mut all, &node, part));
    }
    all
}

fn add(all: &mut BTreeMap<String, Figures>, node: &str, part: PartFigures) {
    let used = part.usage.unwrap_or_default();
    // A batch script is one task.
    let tasks = part.tasks.unwrap_or_else(|| TaskFigures {
        tasks: 1,
        max_rss_kib: used.max_rss_kib,
        max_rss_node: node.to_owned(),
        sum_rss_kib: used.max_rss_kib,
        min_cpu_ms: used.user_cpu_ms + used.system_cpu_ms,
        min_cpu_node: node.to_owned(),
        ..TaskFigures::default()
    });
    let sum = all.entry(part.step).or_default();
    let first = sum.nodes.is_empty();
    sum.nodes.push(node.to_owned());
    sum.pids.extend(part.pids);
    sum.usage.user_cpu_ms += used.user_cpu_ms;
    sum.usage.system_cpu_ms += used.system_cpu_ms;
    sum.usage.max_rss_kib = sum.usage.max_rss_kib.max(used.max_rss_kib);
    sum.usage.gpu = sum.usage.gpu.or(used.gpu);
    let known = &mut sum.tasks;
    if first || tasks.max_rss_kib > known.max_rss_kib {
        known.max_rss_kib = tasks.max_rss_kib;
        known.max_rss_task = tasks.max_rss_task;
        known.max_rss_node = tasks.max_rss_node;
    }
    if first || tasks.min_cpu_ms < known.min_cpu_ms {
        known.min_cpu_ms = tasks.min_cpu_ms;
        known.min_cpu_task = tasks.min_cpu_task;
        known.min_cpu_node = tasks.min_cpu_node;
    }
    known.tasks += tasks.tasks;
    known.sum_rss_kib += tasks.sum_rss_kib;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_two_nodes_is_one_line() {
        let part = |cpu: u64, rss: u64, task: u32, node: &str| PartFigures {
            step: "0".into(),
            usage: Some(Usage { user_cpu_ms: cpu, max_rss_kib: rss, ..Usage::default() }),
            tasks: Some(TaskFigures {
                tasks: 1,
                max_rss_kib: rss,
                max_rss_task: task,
                max_rss_node: node.into(),
                sum_rss_kib: rss,
                min_cpu_ms: cpu,
                min_cpu_task: task,
                min_cpu_node: node.into(),
            }),
            pids: vec![task],
        };
        let mut all = BTreeMap::new();
        add(&mut all, "n1", part(500, 10, 0, "n1"));
        add(&mut all, "n2", part(300, 30, 1, "n2"));
        let step = &all["0"];
        assert_eq!(
            (step.usage.user_cpu_ms, step.tasks.tasks, step.tasks.sum_rss_kib),
            (800, 2, 40)
        );
        assert_eq!((step.tasks.max_rss_task, &*step.tasks.max_rss_node), (1, "n2"));
        assert_eq!((step.tasks.min_cpu_task, &*step.tasks.min_cpu_node), (1, "n2"));
        assert_eq!(step.nodes, ["n1", "n2"]);
    }
}

//! The config file as the core sees it, and what changed between two readings.

use muster_config::Config;
use muster_core::config::{ClusterConfig, Limits, PriorityWeights};

/// The part of the config that decisions depend on. Whoever runs the controller as root on a
/// cluster that admits root's jobs does so by `allow_root_jobs`.
#[must_use]
pub fn cluster_config(config: &Config) -> ClusterConfig {
    let s = &config.scheduler;
    ClusterConfig {
        cluster: config.cluster.as_str().into(),
        nodes: config.nodes.clone(),
        partitions: config.partitions.clone(),
        licenses: config.licenses.clone(),
        limits: Limits {
            max_jobs: s.max_jobs,
            max_array_size: s.max_array_size,
            min_job_age_seconds: s.min_job_age_seconds,
            requeue_by_default: s.requeue,
            max_requeues: s.max_requeues,
            kill_on_invalid_dependency: s.kill_on_invalid_dependency,
            first_job_id: s.first_job_id,
            root_jobs: config.security.allow_root_jobs,
            enforce_partition_limits: s.enforce_partition_limits,
            requeue_delay_seconds: s.requeue_delay_seconds,
        },
        priority: PriorityWeights {
            age: config.priority.age,
            max_age_seconds: config.priority.max_age_seconds,
            size: config.priority.size,
            partition: config.priority.partition,
        },
        topology: config.topology.clone(),
    }
}

/// What a reconfigure changed, one line each.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let values = |config: &Config| config.to_entries();
    for ((name, before), (_, after)) in values(old).into_iter().zip(values(new)) {
        if before != after {
            lines.push(format!("{name}: {before} -> {after}"));
        }
    }
    difference(
        "node",
        old.nodes.iter().map(|n| (&*n.name, n)).collect(),
        new.nodes.iter().map(|n| (&*n.name, n)).collect(),
        &mut lines,
    );
    difference(
        "partition",
        old.partitions.iter().map(|p| (&*p.name, p)).collect(),
        new.partitions.iter().map(|p| (&*p.name, p)).collect(),
        &mut lines,
    );
    difference(
        "switch",
        old.topology.switches.iter().map(|s| (&*s.name, s)).collect(),
        new.topology.switches.iter().map(|s| (&*s.name, s)).collect(),
        &mut lines,
    );
    difference(
        "block",
        old.topology.blocks.iter().map(|b| (&*b.name, b)).collect(),
        new.topology.blocks.iter().map(|b| (&*b.name, b)).collect(),
        &mut lines,
    );
    for (what, same) in [
        ("controller.socket and listen", old.controller == new.controller),
        ("security keys", old.security.cluster_key == new.security.cluster_key),
        ("tls files", old.security.tls == new.security.tls),
        ("history.url", old.history == new.history),
        ("state_dir", old.state_dir == new.state_dir),
    ] {
        if !same {
            lines.push(format!("{what}: changed, takes effect at the next start"));
        }
    }
    lines
}

fn difference<T: PartialEq>(
    what: &str,
    old: std::collections::BTreeMap<&str, &T>,
    new: std::collections::BTreeMap<&str, &T>,
    lines: &mut Vec<String>,
) {
    for (name, before) in &old {
        match new.get(name) {
            None => lines.push(format!("{what} {name}: removed")),
            Some(after) if after != before => lines.push(format!("{what} {name}: changed")),
            Some(_) => {}
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        lines.push(format!("{what} {name}: added"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(std::path::Path::new("/etc/muster/muster.toml"), text).unwrap()
    }

    #[test]
    fn a_reconfigure_lists_what_changed() {
        let base = "cluster = 'c'\n[[node]]\nname = 'n[1-2]'\ncpus = 4\nmemory = '4G'\n\
                    [[partition]]\nname = 'p'\nnodes = 'n1'\n";
        let old = config(base);
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        let new = config(
            &base
                .replace("n[1-2]", "n[1,3]")
                .replace("cpus = 4", "cpus = 8")
                .replace("cluster = 'c'", "cluster = 'c'\n[scheduler]\nkill_wait_seconds = 5"),
        );
        assert_eq!(
            changes(&old, &new),
            ["KillWait: 30 sec -> 5 sec", "node n1: changed", "node n2: removed", "node n3: added"]
        );
    }
}

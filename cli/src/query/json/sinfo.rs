//! A row of `sinfo --json`: nodes of one partition in one state.

use muster_model::hostlist::Hostlist;
use muster_proto::v1::{Node, NodeBase, Partition};
use serde_json::{Value, json};

use super::super::{states, tres};
use super::{About, partition};

/// Nodes that are shown together, and the partition they are shown under.
pub(crate) struct Group<'a> {
    pub(crate) partition: &'a Partition,
    /// In the configured order; empty for a partition without nodes.
    pub(crate) nodes: Vec<&'a Node>,
}

/// One element of `sinfo`.
pub(super) fn document(group: &Group, about: &About) -> Value {
    let nodes = &group.nodes;
    let least = |of: fn(&Node) -> u64| nodes.iter().map(|n| of(n)).min().unwrap_or(0);
    let most = |of: fn(&Node) -> u64| nodes.iter().map(|n| of(n)).max().unwrap_or(0);
    let sum = |of: fn(&Node) -> u64| nodes.iter().map(|n| of(n)).sum::<u64>();
    let span = |of: fn(&Node) -> u64| json!({ "minimum": least(of), "maximum": most(of) });
    let count = |is: fn(&Node) -> bool| nodes.iter().filter(|n| is(n)).count();
    let names: Hostlist = nodes.iter().map(|n| n.name.as_str()).collect();
    let first = nodes.first();
    let text = |of: fn(&Node) -> String| first.map_or_else(String::new, |n| of(n));
    json!({
        "port": 6818,
        "node": { "state": first.map_or_else(Vec::new, |n| states::node_flags(n)) },
        "nodes": {
            "allocated": count(allocated),
            "idle": count(idle),
            "other": count(|n| !allocated(n) && !idle(n)),
            "total": nodes.len(),
            "hostnames": nodes.iter().map(|n| n.hostname.as_str()).collect::<Vec<_>>(),
            "addresses": nodes.iter().map(|n| n.address.as_str()).collect::<Vec<_>>(),
            "nodes": names.0,
        },
        "cpus": {
            "minimum": least(|n| n.cpus.into()),
            "maximum": most(|n| n.cpus.into()),
            "allocated": sum(|n| n.cpus_allocated.into()),
            "idle": sum(idle_cpus),
            "other": sum(other_cpus),
            "total": sum(|n| n.cpus.into()),
            "load": span(|n| (f64::from(n.load) * 100.0) as u64),
        },
        "sockets": span(|n| n.sockets.into()),
        "cores": span(|n| n.cores_per_socket.into()),
        "threads": span(|n| n.threads_per_core.into()),
        "disk": span(|_| 0),
        "memory": {
            "minimum": least(|n| n.memory_mib),
            "maximum": most(|n| n.memory_mib),
            "free": span(|n| n.memory_free_mib),
            "allocated": sum(|n| n.memory_allocated_mib),
        },
        "weight": span(|n| n.weight.into()),
        "features": {
            "total": text(|n| n.features.join(",")),
            "active": text(|n| n.features.join(",")),
        },
        "gres": {
            "total": text(|n| tres::declared(&n.gres)),
            "used": text(|n| tres::used(&n.gres, &n.gres_used)),
        },
        "cluster": about.cluster,
        "comment": text(|n| n.comment.clone()),
        "extra": "",
        "reason": {
            "description": text(|n| n.reason.clone()),
            "time": first.map_or(0, |n| n.reason_at / 1000),
            "user": text(|n| n.reason_by.clone()),
        },
        "reservation": text(|n| n.reservation.clone()),
        "partition": partition::document(group.partition, about),
    })
}

/// Whether jobs run on it.
pub(crate) fn allocated(node: &Node) -> bool {
    matches!(node.base(), NodeBase::Allocated | NodeBase::Mixed) && !node.drain || node.completing
}

/// Whether it waits for jobs.
pub(crate) fn idle(node: &Node) -> bool {
    node.base() == NodeBase::Idle && !node.drain && !node.completing
}

/// CPUs that a job could get.
pub(crate) fn idle_cpus(node: &Node) -> u64 {
    let free = u64::from(node.cpus.saturating_sub(node.cpus_allocated));
    if out_of_service(node) { 0 } else { free }
}

/// CPUs that nobody can get.
pub(crate) fn other_cpus(node: &Node) -> u64 {
    let free = u64::from(node.cpus.saturating_sub(node.cpus_allocated));
    if out_of_service(node) { free } else { 0 }
}

fn out_of_service(node: &Node) -> bool {
    node.drain || matches!(node.base(), NodeBase::Down | NodeBase::Unknown)
}

//! A partition: the shape `partition_info`.

use muster_proto::v1::Partition;
use serde_json::{Value, json};

use super::super::sizes::Units;
use super::super::tres;
use super::{About, infinite, limit, maybe, mib, unset};

/// One element of `partitions`.
pub(super) fn document(partition: &Partition, about: &About) -> Value {
    let memory = |size: u64| if size == 0 { unset() } else { mib(size) };
    json!({
        "name": partition.name,
        "cluster": about.cluster,
        "nodes": {
            "allowed_allocation": "", "configured": partition.nodes,
            "total": partition.total_nodes,
        },
        "accounts": { "allowed": "", "deny": "" },
        "groups": { "allowed": partition.allow_groups.join(",") },
        "qos": { "allowed": "", "deny": "", "assigned": "" },
        "alternate": "",
        "node_sets": "",
        "tres": {
            "billing_weights": "",
            "configured": tres::text(&tres::of_partition(partition), Units::Exact),
        },
        "select_type": [],
        "cpus": { "task_binding": [], "total": partition.total_cpus },
        "defaults": {
            "memory_per_cpu": partition.default_memory_per_cpu_mib,
            "partition_memory_per_cpu": memory(partition.default_memory_per_cpu_mib),
            "partition_memory_per_node": memory(partition.default_memory_per_node_mib),
            "time": limit(partition.default_time.as_ref()),
            "job": "",
        },
        "flags": if partition.default { json!(["DEFAULT"]) } else { json!([]) },
        "partition": {
            "exclusive": if partition.exclusive { "YES" } else { "NO" },
            "oversubscribe": "NO",
            "state": [partition.state],
        },
        "grace_time": 0,
        "maximums": {
            "cpus_per_node": infinite(), "cpus_per_socket": infinite(), "memory_per_cpu": 0,
            "partition_memory_per_cpu": unset(),
            "partition_memory_per_node": memory(partition.max_memory_per_node_mib),
            "nodes": if partition.max_nodes.is_some() { maybe(partition.max_nodes) } else { infinite() },
            "shares": 1,
            "oversubscribe": { "jobs": 1, "flags": [] },
            "time": limit(partition.max_time.as_ref()),
            "over_time_limit": unset(),
        },
        "minimums": { "nodes": partition.min_nodes },
        "preempt_mode": ["DISABLED"],
        "priority": { "job_factor": partition.priority_factor, "tier": partition.priority_tier },
        "timeouts": { "resume": unset(), "suspend": unset() },
        "topology": "",
        "suspend_time": unset(),
    })
}

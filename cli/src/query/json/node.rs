//! A node: the shape `node`.

use muster_proto::v1::Node;
use serde_json::{Value, json};

use super::super::sizes::Units;
use super::super::{states, tres};
use super::{About, merged, mib, time, unset};

/// One element of `nodes`.
pub(super) fn document(node: &Node, about: &About) -> Value {
    merged([described(node, about), in_use(node), untracked()])
}

fn described(node: &Node, about: &About) -> Value {
    json!({
        "name": node.name,
        "hostname": node.hostname,
        "address": node.address,
        "architecture": node.arch,
        "operating_system": node.os,
        "version": node.version,
        "cluster_name": about.cluster,
        "boards": 1,
        "sockets": node.sockets,
        "cores": node.cores_per_socket,
        "threads": node.threads_per_core,
        "cpus": node.cpus,
        "effective_cpus": node.cpus,
        "real_memory": node.memory_mib,
        "temporary_disk": 0,
        "weight": node.weight,
        "features": node.features,
        "active_features": node.features,
        "gres": tres::declared(&node.gres),
        "partitions": node.partitions,
        "tres": tres::text(&tres::of_node(node), Units::Exact),
        "comment": node.comment,
        "reservation": node.reservation,
        "boot_time": time(node.booted_at),
        "slurmd_start_time": time(node.agent_started_at),
    })
}

fn in_use(node: &Node) -> Value {
    json!({
        "state": states::node_flags(node),
        "next_state_after_reboot": ["INVALID"],
        "reason": node.reason,
        "reason_set_by_user": node.reason_by,
        "reason_changed_at": time(node.reason_at),
        "alloc_cpus": node.cpus_allocated,
        "alloc_idle_cpus": node.cpus.saturating_sub(node.cpus_allocated),
        "alloc_memory": node.memory_allocated_mib,
        "free_mem": mib(node.memory_free_mib),
        // Hundredths of the 1 minute average.
        "cpu_load": (f64::from(node.load) * 100.0).round() as i64,
        "gres_used": tres::used(&node.gres, &node.gres_used),
        "gres_drained": tres::drained(&node.gres, &node.gres_drained),
        "tres_used": tres::text(&tres::used_of_node(node), Units::Exact),
        "last_busy": time(node.last_busy_at),
    })
}

fn untracked() -> Value {
    json!({
        "burstbuffer_network_address": "", "tls_cert_last_renewal": unset(), "cert_flags": [],
        "specialized_cores": 0, "cpu_binding": 0, "specialized_cpus": "",
        "energy": {
            "average_watts": 0, "base_consumed_energy": 0, "consumed_energy": 0,
            "current_watts": unset(), "previous_consumed_energy": 0, "last_collected": 0,
        },
        "extra": "", "gpu_spec": "", "instance_id": "", "instance_type": "", "mcs_label": "",
        "specialized_memory": 0, "owner": "", "port": 6818, "res_cores_per_gpu": 0,
        "resume_after": unset(), "suspend_time": unset(), "topology": "",
    })
}

//! `show node`: the layout of its record.

use muster_proto::v1::Node;

use super::{Manner, record};
use crate::query::shown::{or, or_null};
use crate::query::sizes::Units;
use crate::query::surroundings::Surroundings;
use crate::query::{states, tres};

/// One node.
pub(super) fn show(node: &Node, manner: Manner, here: &Surroundings) -> String {
    let features = or_null(&node.features.join(","));
    let mut lines = vec![
        format!(
            "NodeName={} Arch={} CoresPerSocket={}",
            node.name,
            or(&node.arch, "(null)"),
            node.cores_per_socket
        ),
        format!(
            "CPUAlloc={} CPUEfctv={} CPUTot={} CPULoad={:.2}",
            node.cpus_allocated, node.cpus, node.cpus, node.load
        ),
        format!("AvailableFeatures={features}"),
        format!("ActiveFeatures={features}"),
        format!("Gres={}", or_null(&tres::declared(&node.gres))),
    ];
    if manner.details {
        lines.push(format!("GresDrain={}", tres::drained(&node.gres, &node.gres_drained)));
        lines.push(format!("GresUsed={}", or_null(&tres::used(&node.gres, &node.gres_used))));
    }
    lines.extend([
        format!(
            "NodeAddr={} NodeHostName={} {}Version={}",
            or(&node.address, &node.name),
            or(&node.hostname, &node.name),
            if node.port == 0 { String::new() } else { format!("Port={} ", node.port) },
            or_null(&node.version)
        ),
        format!("OS={}", or_null(&node.os)),
        format!(
            "RealMemory={} AllocMem={} FreeMem={} Sockets={} Boards=1",
            node.memory_mib, node.memory_allocated_mib, node.memory_free_mib, node.sockets
        ),
        format!(
            "State={} ThreadsPerCore={} TmpDisk=0 Weight={} Owner=N/A MCS_label=N/A",
            states::node_flags(node).join("+"),
            node.threads_per_core,
            node.weight
        ),
        format!("Partitions={}", or_null(&node.partitions.join(","))),
        format!(
            "BootTime={} SlurmdStartTime={}",
            here.time(node.booted_at, "None"),
            here.time(node.agent_started_at, "None")
        ),
        format!("LastBusyTime={} ResumeAfterTime=None", here.time(node.last_busy_at, "Unknown")),
        format!("CfgTRES={}", tres::text(&tres::of_node(node), Units::Exact)),
        format!("AllocTRES={}", or_null(&tres::text(&tres::used_of_node(node), Units::Exact))),
        "CurrentWatts=0 AveWatts=0".to_owned(),
    ]);
    if !node.reason.is_empty() {
        let by = or(&node.reason_by, "muster");
        let at = here.time(node.reason_at, "Unknown");
        lines.push(format!("Reason={} [{by}@{at}]", node.reason));
    }
    if !node.reservation.is_empty() {
        lines.push(format!("ReservationName={}", node.reservation));
    }
    if !node.comment.is_empty() {
        lines.push(format!("Comment={}", node.comment));
    }
    if manner.details && !node.unenforced.is_empty() {
        // Ours: what this node cannot hold its jobs to.
        lines.push(format!("Unenforced={}", node.unenforced.join(",").replace(' ', "_")));
    }
    record(&lines, manner.oneliner)
}

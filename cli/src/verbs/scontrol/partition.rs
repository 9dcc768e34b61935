//! `show partition`: the layout of its record.

use muster_model::time::Clock;
use muster_proto::v1::{Partition, TimeLimit};

use super::{Manner, record};
use crate::query::shown::{limit_minutes, or, or_null};
use crate::query::sizes::Units;
use crate::query::tres;

fn limit(limit: Option<&TimeLimit>, unset: &str) -> String {
    match limit_minutes(limit) {
        None => unset.to_owned(),
        Some(None) => "UNLIMITED".to_owned(),
        Some(Some(minutes)) => Clock(i64::from(minutes) * 60).to_string(),
    }
}

/// One partition.
pub(super) fn show(partition: &Partition, manner: Manner) -> String {
    let yes = |on: bool| if on { "YES" } else { "NO" };
    let default_memory =
        match (partition.default_memory_per_node_mib, partition.default_memory_per_cpu_mib) {
            (0, 0) => "DefMemPerNode=UNLIMITED".to_owned(),
            (0, mib) => format!("DefMemPerCPU={mib}"),
            (mib, _) => format!("DefMemPerNode={mib}"),
        };
    let max_memory = match partition.max_memory_per_node_mib {
        0 => "UNLIMITED".to_owned(),
        mib => mib.to_string(),
    };
    let lines = [
        format!("PartitionName={}", partition.name),
        format!(
            "AllowGroups={} AllowAccounts=ALL AllowQos=ALL",
            or(&partition.allow_groups.join(","), "ALL")
        ),
        format!("AllocNodes=ALL Default={} QoS=N/A", yes(partition.default)),
        format!(
            "DefaultTime={} DisableRootJobs=NO Exclusive={} GraceTime=0 Hidden=NO",
            limit(partition.default_time.as_ref(), "NONE"),
            yes(partition.exclusive)
        ),
        format!(
            "MaxNodes={} MaxTime={} MinNodes={} LLN=NO MaxCPUsPerNode=UNLIMITED \
             MaxCPUsPerSocket=UNLIMITED",
            partition.max_nodes.map_or_else(|| "UNLIMITED".to_owned(), |n| n.to_string()),
            limit(partition.max_time.as_ref(), "UNLIMITED"),
            partition.min_nodes
        ),
        format!("Nodes={}", or_null(&partition.nodes)),
        format!(
            "PriorityJobFactor={} PriorityTier={} RootOnly=NO ReqResv=NO OverSubscribe={}",
            partition.priority_factor,
            partition.priority_tier,
            if partition.exclusive { "EXCLUSIVE" } else { "NO" }
        ),
        "OverTimeLimit=NONE PreemptMode=OFF".to_owned(),
        format!(
            "State={} TotalCPUs={} TotalNodes={} SelectTypeParameters=NONE",
            partition.state, partition.total_cpus, partition.total_nodes
        ),
        "JobDefaults=(null)".to_owned(),
        format!("{default_memory} MaxMemPerNode={max_memory}"),
        format!("TRES={}", tres::text(&tres::of_partition(partition), Units::Exact)),
        "TRESBillingWeights=(null)".to_owned(),
        "ResumeTimeout=GLOBAL SuspendTimeout=GLOBAL SuspendTime=GLOBAL PowerDownOnIdle=NO"
            .to_owned(),
    ];
    record(&lines, manner.oneliner)
}

//! What the spool says of a job here. Read anew for each call: the spool is right when the agent's
//! memory and it differ, and a call costs more than a look.

use std::path::Path;

use muster_cgroup::Cgroups;
use muster_proto::shim::v1::Launch;
use muster_shim::SliceDir;
use tonic::Status;

use super::place::{Share, cpu_list};
use crate::jobs::edge::chain;
use crate::jobs::job::Key;

/// A slice that runs.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) key: Key,
    pub(super) launch: Launch,
    /// Its group; empty: none.
    pub(super) cgroup: String,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// The node does not know the job.
    Unknown,
    /// It is being launched.
    Early,
    /// It has ended.
    Over,
    Fault(String),
}

impl Missing {
    pub(super) fn status(&self, node: &str, job: u32) -> Status {
        match self {
            Missing::Unknown => Status::not_found(format!("job {job} is not on node {node}")),
            Missing::Early => {
                Status::unavailable(format!("job {job} is not launched yet on node {node}"))
            }
            Missing::Over => Status::not_found(format!("job {job} has ended on node {node}")),
            Missing::Fault(fault) => Status::internal(format!("node {node}: {fault}")),
        }
    }
}

/// The slice of a job, the given attempt's or the latest.
pub(super) fn find(spool: &Path, job: u32, attempt: Option<u32>) -> Result<Slice, Missing> {
    let dir = match attempt {
        Some(attempt) => SliceDir::of(spool, job, attempt),
        None => latest(spool, job).ok_or(Missing::Unknown)?,
    };
    let fault = |e: muster_shim::SpoolError| Missing::Fault(chain(&e));
    let (_, attempt) = dir.ids().ok_or(Missing::Unknown)?;
    let launch = dir.read_launch().map_err(fault)?.ok_or(Missing::Unknown)?;
    if dir.read_exit().map_err(fault)?.is_some() {
        return Err(Missing::Over);
    }
    let record = dir.read_record().map_err(fault)?.ok_or(Missing::Early)?;
    Ok(Slice { key: Key { job, attempt }, launch, cgroup: record.cgroup })
}

fn latest(spool: &Path, job: u32) -> Option<SliceDir> {
    let prefix = format!("{job}.");
    let entries = std::fs::read_dir(spool.join("jobs")).ok()?;
    let attempt = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.strip_prefix(&prefix)?.parse::<u32>().ok())
        .max()?;
    Some(SliceDir::of(spool, job, attempt))
}

impl Slice {
    /// Its group by name, where this host has groups: a slice without a shim is noted with one in any
    /// case.
    pub(super) fn group<'a>(&'a self, cgroups: &Cgroups) -> &'a str {
        match cgroups {
            Cgroups::None(_) => "",
            Cgroups::V1(_) | Cgroups::V2(_) => &self.cgroup,
        }
    }

    pub(super) fn uid(&self) -> u32 {
        self.launch.user.as_ref().map_or(0, |u| u.uid)
    }

    /// What the job has on each of its nodes.
    pub(super) fn shares(&self) -> Vec<Share> {
        if self.launch.shares.is_empty() {
            let launch = &self.launch;
            return vec![Share {
                node: launch.node.clone(),
                cpus: cpu_list(&launch.cpus),
                memory_mib: launch.memory_mib,
                gres: launch.gres.clone(),
                address: String::new(),
            }];
        }
        let share = |s: &muster_proto::shim::v1::NodeShare| Share {
            node: s.node.clone(),
            cpus: cpu_list(&s.cpus),
            memory_mib: s.memory_mib,
            gres: s.gres.clone(),
            address: s.address.clone(),
        };
        self.launch.shares.iter().map(share).collect()
    }

    /// The node's own GPUs of the job, as bits.
    pub(super) fn gpus(&self) -> u64 {
        let gpus =
            self.launch.gres.iter().filter(|g| g.kind.as_ref().is_some_and(|k| k.name == "gpu"));
        gpus.fold(0, |mask, g| mask | g.mask)
    }
}

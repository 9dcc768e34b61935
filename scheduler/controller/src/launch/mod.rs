//! The payload of a launch: everything an agent needs to start one slice of one attempt.
//!
//! Built when a slice is to be sent, from the job as the state has it and from its blobs; owns
//! nothing. The environment is complete: the node adds only what it alone can know.
//!
//! - `environment`: the SLURM_* names and the GPU variables (`environment/het`: of components)
//! - `pattern`: `%j` and friends in output names

pub mod environment;
pub mod pattern;

use bytes::Bytes;
use muster_model::{JobId, JobSpec, Slice, Timestamp, TopologyConfig};
use muster_proto::convert::{job::launch_out, values};
use muster_proto::shim::v1 as shim;

use crate::users::Account;

/// What one attempt holds, as the launch needs it.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub cluster: &'a str,
    /// The config file, for commands inside the job.
    pub config_path: &'a str,
    pub job: JobId,
    pub array: Option<ArrayFacts>,
    pub attempt: u32,
    /// Attempts before this one.
    pub restarts: u32,
    pub spec: &'a JobSpec,
    pub partition: &'a str,
    pub started_at: Timestamp,
    pub end_at: Option<Timestamp>,
    /// Node names and slices, in rank order.
    pub slices: Vec<(&'a str, &'a Slice)>,
    pub topology: &'a TopologyConfig,
    pub account: &'a Account,
    pub kill_wait_seconds: u32,
    pub unkillable_seconds: u32,
}

/// A task's place in its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayFacts {
    pub job: JobId,
    pub task: u32,
    pub count: u64,
    pub min: u32,
    pub max: u32,
    pub step: u32,
}

impl ArrayFacts {
    /// Of one task of an array with these indices.
    #[must_use]
    pub fn new(job: JobId, task: u32, indices: &muster_model::IndexSet) -> Self {
        let mut all = indices.iter();
        let (first, second) = (all.next().unwrap_or(task), all.next());
        ArrayFacts {
            job,
            task,
            count: indices.len(),
            min: first,
            max: indices.last().unwrap_or(task),
            step: second.map_or(1, |second| second - first),
        }
    }
}

/// The launch of the slice at `index` (its rank). Only the first node gets an environment, and the
/// script unless the job is a component that follows its leader. `mates`: the further components of
/// a heterogeneous job, for its leader.
///
/// # Panics
/// When there is no slice at `index`: the caller took it from the placement.
#[must_use]
pub fn payload(
    facts: &Facts<'_>,
    mates: &[Facts<'_>],
    index: usize,
    script: Bytes,
    user_env: &[u8],
) -> shim::Launch {
    let (node, slice) = facts.slices[index];
    let spec = facts.spec;
    let first = index == 0;
    let batch = first && spec.het.is_none_or(|het| het.index == 0);
    let environment = match first {
        true => Bytes::from(environment::build(facts, mates, index, user_env)),
        false => Bytes::new(),
    };
    shim::Launch {
        job: facts.job.0,
        attempt: facts.attempt,
        array_job: facts.array.map_or(0, |a| a.job.0),
        array_task: facts.array.map(|a| a.task),
        user: Some(values::user_out(&spec.user)),
        node: node.to_owned(),
        batch,
        script: if batch { script } else { Bytes::new() },
        environment,
        spec: Some(launch_out(spec)),
        job_name: spec.name.to_string(),
        cpus: slice.cpus.to_string(),
        cpu_count: slice.cpus.len(),
        memory_mib: slice.memory_mib,
        gres: slice.gres.iter().map(values::mask_out).collect(),
        node_index: u32::try_from(index).expect("a job has fewer nodes than u32"),
        nodes: environment::node_list(facts),
        restarts: facts.restarts,
        end_at: values::time_out(facts.end_at),
        partition: facts.partition.to_owned(),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        cluster: facts.cluster.to_owned(),
        comment: spec.comment.to_string(),
        kill_wait_seconds: facts.kill_wait_seconds,
        unkillable_seconds: facts.unkillable_seconds,
        limits: None,
        shares: if first && facts.slices.len() > 1 { shares(facts) } else { Vec::new() },
    }
}

fn shares(facts: &Facts<'_>) -> Vec<shim::NodeShare> {
    let share = |(node, slice): &(&str, &Slice)| shim::NodeShare {
        node: (*node).to_owned(),
        cpus: slice.cpus.to_string(),
        memory_mib: slice.memory_mib,
        gres: slice.gres.iter().map(values::mask_out).collect(),
        address: String::new(),
    };
    facts.slices.iter().map(share).collect()
}

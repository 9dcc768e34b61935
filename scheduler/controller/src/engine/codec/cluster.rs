//! Config and inventory.

use std::sync::Arc;

use muster_core::config::{ClusterConfig, Limits, PriorityWeights};
use muster_model::{
    BlockConfig, Inventory, NodeConfig, Partition, PartitionState, SwitchConfig, Timestamp,
    TopologyConfig,
};
use muster_proto::store::v1 as rec;

use super::values::{limit, load_limit, load_limit_opt, load_named, named};
use super::{BadRecord, Stored, boxes, list, load_list, maybe, narrow, need, texts};

pub(super) fn state(state: PartitionState) -> i32 {
    let state = match state {
        PartitionState::Up => rec::PartitionState::Up,
        PartitionState::Down => rec::PartitionState::Down,
        PartitionState::Drain => rec::PartitionState::Drain,
        PartitionState::Inactive => rec::PartitionState::Inactive,
    };
    state.into()
}

pub(super) fn load_state(value: i32) -> Result<PartitionState, BadRecord> {
    let bad = BadRecord::Value { field: "partition state", value: value.into() };
    Ok(match rec::PartitionState::try_from(value).map_err(|_| bad)? {
        rec::PartitionState::Up => PartitionState::Up,
        rec::PartitionState::Down => PartitionState::Down,
        rec::PartitionState::Drain => PartitionState::Drain,
        rec::PartitionState::Inactive => PartitionState::Inactive,
    })
}

impl Stored for NodeConfig {
    type Record = rec::NodeConfig;

    fn store(&self) -> Self::Record {
        rec::NodeConfig {
            name: self.name.to_string(),
            capacity: Some(self.capacity.store()),
            sockets: self.sockets,
            cores_per_socket: self.cores_per_socket,
            threads_per_core: self.threads_per_core,
            features: texts(&self.features),
            weight: self.weight,
            auto_gpus: self.auto_gpus,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(NodeConfig {
            name: r.name.into(),
            capacity: need(r.capacity, "capacity")?,
            sockets: r.sockets,
            cores_per_socket: r.cores_per_socket,
            threads_per_core: r.threads_per_core,
            features: boxes(r.features),
            auto_gpus: r.auto_gpus,
            weight: r.weight,
        })
    }
}

impl Stored for Partition {
    type Record = rec::Partition;

    fn store(&self) -> Self::Record {
        rec::Partition {
            name: self.name.to_string(),
            nodes: texts(&self.nodes),
            default: self.default,
            state: state(self.state),
            max_time: limit(self.max_time),
            default_time: self.default_time.map(limit),
            min_nodes: self.min_nodes,
            max_nodes: self.max_nodes,
            priority_tier: self.priority_tier.into(),
            priority_factor: self.priority_factor.into(),
            default_memory_per_node_mib: self.default_memory_per_node_mib,
            default_memory_per_cpu_mib: self.default_memory_per_cpu_mib,
            max_memory_per_node_mib: self.max_memory_per_node_mib,
            allow_users: texts(&self.allow_users),
            allow_groups: texts(&self.allow_groups),
            exclusive: self.exclusive,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Partition {
            name: r.name.into(),
            nodes: boxes(r.nodes),
            default: r.default,
            state: load_state(r.state)?,
            max_time: load_limit(r.max_time)?,
            default_time: load_limit_opt(r.default_time)?,
            min_nodes: r.min_nodes,
            max_nodes: r.max_nodes,
            priority_tier: narrow(r.priority_tier, "tier")?,
            priority_factor: narrow(r.priority_factor, "priority factor")?,
            default_memory_per_node_mib: r.default_memory_per_node_mib,
            default_memory_per_cpu_mib: r.default_memory_per_cpu_mib,
            max_memory_per_node_mib: r.max_memory_per_node_mib,
            allow_users: boxes(r.allow_users),
            allow_groups: boxes(r.allow_groups),
            exclusive: r.exclusive,
        })
    }
}

impl Stored for Limits {
    type Record = rec::Limits;

    fn store(&self) -> Self::Record {
        rec::Limits {
            max_jobs: self.max_jobs,
            max_array_size: self.max_array_size,
            min_job_age_seconds: self.min_job_age_seconds,
            requeue_by_default: self.requeue_by_default,
            max_requeues: self.max_requeues,
            kill_on_invalid_dependency: self.kill_on_invalid_dependency,
            first_job_id: self.first_job_id,
            root_jobs: self.root_jobs,
            enforce_partition_limits: self.enforce_partition_limits,
            requeue_delay_seconds: self.requeue_delay_seconds,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Limits {
            max_jobs: r.max_jobs,
            max_array_size: r.max_array_size,
            min_job_age_seconds: r.min_job_age_seconds,
            requeue_by_default: r.requeue_by_default,
            max_requeues: r.max_requeues,
            kill_on_invalid_dependency: r.kill_on_invalid_dependency,
            first_job_id: r.first_job_id,
            root_jobs: r.root_jobs,
            enforce_partition_limits: r.enforce_partition_limits,
            requeue_delay_seconds: r.requeue_delay_seconds,
        })
    }
}

impl Stored for PriorityWeights {
    type Record = rec::PriorityWeights;

    fn store(&self) -> Self::Record {
        rec::PriorityWeights {
            age: self.age,
            max_age_seconds: self.max_age_seconds,
            size: self.size,
            partition: self.partition,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(PriorityWeights {
            age: r.age,
            max_age_seconds: r.max_age_seconds,
            size: r.size,
            partition: r.partition,
        })
    }
}

impl Stored for ClusterConfig {
    type Record = rec::ClusterConfig;

    fn store(&self) -> Self::Record {
        rec::ClusterConfig {
            cluster: self.cluster.to_string(),
            nodes: list(&self.nodes),
            partitions: list(&self.partitions),
            licenses: named(&self.licenses),
            limits: Some(self.limits.store()),
            priority: Some(self.priority.store()),
            switches: list(&self.topology.switches),
            blocks: list(&self.topology.blocks),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(ClusterConfig {
            cluster: r.cluster.into(),
            nodes: load_list(r.nodes)?,
            partitions: load_list(r.partitions)?,
            licenses: load_named(r.licenses)?,
            limits: need(r.limits, "limits")?,
            priority: need(r.priority, "priority weights")?,
            topology: TopologyConfig {
                switches: load_list(r.switches)?,
                blocks: load_list(r.blocks)?,
            },
        })
    }
}

impl Stored for SwitchConfig {
    type Record = rec::TopologySwitch;

    fn store(&self) -> Self::Record {
        rec::TopologySwitch {
            name: self.name.to_string(),
            nodes: texts(&self.nodes),
            switches: texts(&self.switches),
            rails: self.rails,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(SwitchConfig {
            name: r.name.into(),
            nodes: boxes(r.nodes),
            switches: boxes(r.switches),
            rails: r.rails,
        })
    }
}

impl Stored for BlockConfig {
    type Record = rec::TopologyBlock;

    fn store(&self) -> Self::Record {
        rec::TopologyBlock { name: self.name.to_string(), nodes: texts(&self.nodes) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(BlockConfig { name: r.name.into(), nodes: boxes(r.nodes) })
    }
}

impl Stored for Inventory {
    type Record = rec::Inventory;

    fn store(&self) -> Self::Record {
        rec::Inventory {
            capacity: Some(self.capacity.store()),
            sockets: self.sockets,
            cores_per_socket: self.cores_per_socket,
            threads_per_core: self.threads_per_core,
            numa: list(&self.numa),
            arch: self.arch.to_string(),
            os: self.os.to_string(),
            version: self.version.to_string(),
            hostname: self.hostname.to_string(),
            address: self.address.to_string(),
            boot_id: self.boot_id.to_string(),
            booted_at: self.booted_at.0,
            unenforced: texts(&self.unenforced),
            gpus: list(&self.gpus),
            links: self.links.as_ref().map(|links| links.store()),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Inventory {
            capacity: need(r.capacity, "capacity")?,
            sockets: r.sockets,
            cores_per_socket: r.cores_per_socket,
            threads_per_core: r.threads_per_core,
            numa: load_list(r.numa)?,
            arch: r.arch.into(),
            os: r.os.into(),
            version: r.version.into(),
            hostname: r.hostname.into(),
            address: r.address.into(),
            boot_id: r.boot_id.into(),
            booted_at: Timestamp(r.booted_at),
            unenforced: boxes(r.unenforced),
            gpus: load_list(r.gpus)?,
            links: maybe(r.links)?.map(Arc::new),
        })
    }
}

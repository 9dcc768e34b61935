//! Nodes and partitions.

use muster_core::lifecycle::Phase;
use muster_core::state::{Node, PartitionRow, State};
use muster_model::{Capacity, PartitionState, ReservationFlags};
use muster_proto::convert::values::{count_out, kind_out, limit_out};
use muster_proto::v1;

/// What a node's session knows and the state does not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Live {
    /// Its session stands, or ended only just now.
    pub responding: bool,
    pub load: f32,
    pub memory_free_mib: u64,
    pub agent_started_at: i64,
    pub last_busy_at: i64,
    /// Of its agent, for commands on other hosts; 0: none.
    pub port: u32,
}

/// One node. Who set its mark is left as a uid: the caller names it.
#[must_use]
pub fn node(state: &State, node: &Node, live: Live) -> v1::Node {
    let used = node.allocated();
    let config = &node.config;
    let now = crate::now();
    let reserved = state.reservations.values().filter(|r| r.holds(node.id) && r.active(now));
    let reserved: Vec<&muster_model::Reservation> = reserved.collect();
    let maintenance = reserved.iter().find(|r| r.has(ReservationFlags::MAINT));
    let mark = node.health.down.as_ref().or(node.health.drain.as_ref());
    let inventory = node.inventory.as_deref();
    let text = |pick: fn(&muster_model::Inventory) -> &Box<str>| {
        inventory.map_or_else(String::new, |i| pick(i).to_string())
    };
    v1::Node {
        name: config.name.to_string(),
        base: base(node, &used) as i32,
        drain: node.health.drain.is_some(),
        completing: state.jobs_on(node.id).any(|job| matches!(job.phase, Phase::Completing { .. })),
        not_responding: !live.responding && inventory.is_some(),
        reason: mark.map_or_else(String::new, |m| m.reason.to_string()),
        reason_by: mark.map_or_else(String::new, |m| m.by.map_or(0, |uid| uid.0).to_string()),
        reason_at: mark.map_or(0, |m| m.at.0),
        cpus: config.capacity.cpus,
        cpus_allocated: used.cpus,
        memory_mib: config.capacity.memory_mib,
        memory_allocated_mib: used.memory_mib,
        memory_free_mib: live.memory_free_mib,
        load: live.load,
        sockets: config.sockets,
        cores_per_socket: config.cores_per_socket,
        threads_per_core: config.threads_per_core,
        features: config.features.iter().map(|f| f.to_string()).collect(),
        gres: config.capacity.gres.iter().map(|(kind, n)| count_out(kind, *n)).collect(),
        gres_used: gres_used(node),
        weight: config.weight,
        partitions: state.partitions_of(node.id).map(|r| r.partition.name.to_string()).collect(),
        address: text(|i| &i.address),
        hostname: text(|i| &i.hostname),
        os: text(|i| &i.os),
        arch: text(|i| &i.arch),
        version: text(|i| &i.version),
        booted_at: inventory.map_or(0, |i| i.booted_at.0),
        agent_started_at: live.agent_started_at,
        last_busy_at: live.last_busy_at,
        unenforced: inventory
            .map_or_else(Vec::new, |i| i.unenforced.iter().map(|u| u.to_string()).collect()),
        comment: node.comment.to_string(),
        reservation: maintenance
            .or(reserved.first())
            .map_or_else(String::new, |r| r.name.to_string()),
        maintenance: maintenance.is_some(),
        gres_drained: gres_drained(node),
        port: live.port,
    }
}

fn gres_drained(node: &Node) -> Vec<v1::GresMask> {
    let drained = node.health.drained_gpus();
    let slots = node.facts.slots.iter().zip(&node.facts.whole.gres);
    let gpus = slots.filter(|(slot, _)| &*slot.kind.name == "gpu");
    let out = gpus.map(|(slot, all)| (slot, all.mask & drained)).filter(|(_, mask)| *mask != 0);
    out.map(|(slot, mask)| v1::GresMask {
        kind: Some(kind_out(&slot.kind)),
        mask,
        count: mask.count_ones().into(),
    })
    .collect()
}

fn base(node: &Node, used: &Capacity) -> v1::NodeBase {
    if node.health.down.is_some() {
        v1::NodeBase::Down
    } else if node.inventory.is_none() {
        v1::NodeBase::Unknown
    } else if used.cpus == 0 && node.jobs.is_empty() {
        v1::NodeBase::Idle
    } else if used.cpus >= node.config.capacity.cpus {
        v1::NodeBase::Allocated
    } else {
        v1::NodeBase::Mixed
    }
}

fn gres_used(node: &Node) -> Vec<v1::GresMask> {
    let whole = &node.facts.whole;
    let slots = node.facts.slots.iter().zip(whole.gres.iter().zip(&node.free.gres));
    slots
        .map(|(slot, (all, free))| v1::GresMask {
            kind: Some(kind_out(&slot.kind)),
            mask: all.mask & !free.mask,
            count: all.count.saturating_sub(free.count),
        })
        .collect()
}

/// One partition.
#[must_use]
pub fn partition(state: &State, row: &PartitionRow) -> v1::Partition {
    let partition = &row.partition;
    let members = row.members.iter().filter_map(|id| state.node(*id));
    let mut total = Capacity::default();
    let mut nodes = 0;
    for member in members {
        nodes += 1;
        total.cpus += member.config.capacity.cpus;
        total.memory_mib += member.config.capacity.memory_mib;
        for (kind, count) in &member.config.capacity.gres {
            *total.gres.entry(kind.clone()).or_default() += count;
        }
    }
    let names: muster_model::Hostlist = partition.nodes.iter().map(|n| n.to_string()).collect();
    v1::Partition {
        name: partition.name.to_string(),
        nodes: names.to_string(),
        default: partition.default,
        state: state_text(partition.state).to_owned(),
        max_time: Some(limit_out(partition.max_time)),
        default_time: partition.default_time.map(limit_out),
        min_nodes: partition.min_nodes,
        max_nodes: partition.max_nodes,
        priority_tier: partition.priority_tier.into(),
        priority_factor: partition.priority_factor.into(),
        default_memory_per_node_mib: partition.default_memory_per_node_mib.unwrap_or(0),
        default_memory_per_cpu_mib: partition.default_memory_per_cpu_mib.unwrap_or(0),
        max_memory_per_node_mib: partition.max_memory_per_node_mib.unwrap_or(0),
        allow_groups: partition.allow_groups.iter().map(|g| g.to_string()).collect(),
        exclusive: partition.exclusive,
        total_cpus: total.cpus,
        total_nodes: nodes,
        total_memory_mib: total.memory_mib,
        total_gres: total.gres.iter().map(|(kind, count)| count_out(kind, *count)).collect(),
    }
}

/// A partition's state as admins write it.
#[must_use]
pub fn state_text(state: PartitionState) -> &'static str {
    match state {
        PartitionState::Up => "UP",
        PartitionState::Down => "DOWN",
        PartitionState::Drain => "DRAIN",
        PartitionState::Inactive => "INACTIVE",
    }
}

/// The inverse of [`state_text`].
#[must_use]
pub fn state_of(text: &str) -> Option<PartitionState> {
    Some(match text.to_ascii_uppercase().as_str() {
        "UP" => PartitionState::Up,
        "DOWN" => PartitionState::Down,
        "DRAIN" => PartitionState::Drain,
        "INACTIVE" => PartitionState::Inactive,
        _ => return None,
    })
}

//! The columns: name (`-O`), letter (`-o`), header, value, and whether they keep nodes apart.

use std::cmp::Ordering;

use muster_model::hostlist::Hostlist;
use muster_proto::v1::{Node, Partition};

use super::super::json::{allocated, idle, idle_cpus, other_cpus};
use super::super::shown::{limit_minutes, or};
use super::super::surroundings::Surroundings;
use super::super::times::trimmed;
use super::super::{states, tres};

/// A line: nodes of a partition that are shown together.
#[derive(Debug, Clone)]
pub(super) struct Row<'a> {
    pub(super) partition: &'a Partition,
    pub(super) nodes: Vec<&'a Node>,
}

/// What values are shown with.
pub(super) struct View<'a> {
    pub(super) here: &'a Surroundings,
    pub(super) cluster: &'a str,
}

/// Whether a column keeps nodes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Nodes with different values stand on different lines.
    Key,
    /// So with `-e`; otherwise the least is shown.
    Size,
    /// Counts nodes or lists them.
    Sum,
}

/// A column.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// A blank: it has no letter.
    pub(super) code: char,
    pub(super) header: &'static str,
    pub(super) group: Group,
    pub(super) value: fn(&Row, &View) -> String,
}

type Value = fn(&Row, &View) -> String;

const fn key(name: &'static str, code: char, header: &'static str, value: Value) -> Field {
    Field { name, code, header, group: Group::Key, value }
}

const fn size(name: &'static str, code: char, header: &'static str, value: Value) -> Field {
    Field { name, code, header, group: Group::Size, value }
}

const fn sum(name: &'static str, code: char, header: &'static str, value: Value) -> Field {
    Field { name, code, header, group: Group::Sum, value }
}

/// Every column.
pub(super) const FIELDS: &[Field] = &[
    key("Partition", 'P', "PARTITION", |r, _| {
        format!("{}{}", r.partition.name, if r.partition.default { "*" } else { "" })
    }),
    key("PartitionName", 'R', "PARTITION", |r, _| r.partition.name.clone()),
    key("Available", 'a', "AVAIL", |r, _| available(&r.partition.state).to_owned()),
    key("Time", 'l', "TIMELIMIT", |r, _| limit(r.partition.max_time.as_ref(), "infinite")),
    key("DefaultTime", 'L', "DEFAULTTIME", |r, _| limit(r.partition.default_time.as_ref(), "n/a")),
    key("Size", 's', "JOB_SIZE", |r, _| job_size(r.partition)),
    key("Root", 'r', "ROOT", |_, _| "no".to_owned()),
    key("OverSubscribe", 'h', "OVERSUBSCRIBE", |r, _| oversubscribe(r.partition)),
    key("Share", ' ', "OVERSUBSCRIBE", |r, _| oversubscribe(r.partition)),
    key("Groups", 'g', "GROUPS", |r, _| or(&r.partition.allow_groups.join(","), "all")),
    key("AllocNodes", 'S', "ALLOCNODES", |_, _| "all".to_owned()),
    key("MaxCPUsPerNode", 'B', "MAX_CPUS_PER_NODE", |_, _| "UNLIMITED".to_owned()),
    key("PreemptMode", 'M', "PREEMPT_MODE", |_, _| "OFF".to_owned()),
    key("PriorityJobFactor", 'I', "PRIO_JOB_FACTOR", |r, _| {
        r.partition.priority_factor.to_string()
    }),
    key("PriorityTier", 'p', "PRIO_TIER", |r, _| r.partition.priority_tier.to_string()),
    key("Cluster", 'V', "CLUSTER", |_, v| v.cluster.to_owned()),
    sum("Nodes", 'D', "NODES", |r, _| r.nodes.len().to_string()),
    sum("NodeAI", 'A', "NODES(A/I)", |r, _| {
        format!("{}/{}", number(r, allocated), number(r, idle))
    }),
    sum("NodeAIOT", 'F', "NODES(A/I/O/T)", |r, _| {
        let (a, i, t) = (number(r, allocated), number(r, idle), r.nodes.len());
        format!("{a}/{i}/{}/{t}", t - a - i)
    }),
    sum("CPUsState", 'C', "CPUS(A/I/O/T)", |r, _| {
        let total = |of: fn(&Node) -> u64| r.nodes.iter().map(|n| of(n)).sum::<u64>();
        let (a, i, o) = (total(|n| n.cpus_allocated.into()), total(idle_cpus), total(other_cpus));
        format!("{a}/{i}/{o}/{}", total(|n| n.cpus.into()))
    }),
    sum("NodeList", 'N', "NODELIST", |r, _| {
        r.nodes.iter().map(|n| n.name.as_str()).collect::<Hostlist>().sorted().to_string()
    }),
    key("NodeHost", 'n', "HOSTNAMES", |r, _| first(r, |n| or(&n.hostname, &n.name))),
    key("NodeAddr", 'o', "NODE_ADDR", |r, _| first(r, |n| or(&n.address, &n.name))),
    key("StateCompact", 't', "STATE", |r, _| state(r, true)),
    key("StateLong", 'T', "STATE", |r, _| state(r, false)),
    key("StateComplete", ' ', "STATECOMPLETE", |r, _| {
        first(r, |n| states::node_flags(n).join("+").to_ascii_lowercase())
    }),
    size("CPUs", 'c', "CPUS", |r, _| least(r, |n| n.cpus.into())),
    size("Sockets", 'X', "SOCKETS", |r, _| least(r, |n| n.sockets.into())),
    size("Cores", 'Y', "CORES", |r, _| least(r, |n| n.cores_per_socket.into())),
    size("Threads", 'Z', "THREADS", |r, _| least(r, |n| n.threads_per_core.into())),
    size("SocketCoreThread", 'z', "S:C:T", |r, _| {
        let parts: [fn(&Node) -> u64; 3] =
            [|n| n.sockets.into(), |n| n.cores_per_socket.into(), |n| n.threads_per_core.into()];
        parts.map(|of| least(r, of)).join(":")
    }),
    size("Memory", 'm', "MEMORY", |r, _| least(r, |n| n.memory_mib)),
    size("Disk", 'd', "TMP_DISK", |r, _| least(r, |_| 0)),
    size("Weight", 'w', "WEIGHT", |r, _| least(r, |n| n.weight.into())),
    size("CPUsLoad", 'O', "CPU_LOAD", |r, _| span(r, |n| format!("{:.2}", n.load), |n| n.load)),
    size("FreeMem", 'e', "FREE_MEM", |r, _| {
        span(r, |n| n.memory_free_mib.to_string(), |n| n.memory_free_mib as f32)
    }),
    key("AllocMem", ' ', "ALLOCMEM", |r, _| first(r, |n| n.memory_allocated_mib.to_string())),
    key("Features", 'f', "AVAIL_FEATURES", |r, _| features(r)),
    key("features_act", 'b', "ACTIVE_FEATURES", |r, _| features(r)),
    key("Gres", 'G', "GRES", |r, _| first(r, |n| or(&tres::declared(&n.gres), "(null)"))),
    key("GresUsed", ' ', "GRES_USED", |r, _| {
        first(r, |n| or(&tres::used(&n.gres, &n.gres_used), "(null)"))
    }),
    key("Reason", 'E', "REASON", |r, _| first(r, |n| or(&n.reason, "none"))),
    key("User", 'u', "USER", |r, _| first(r, |n| or(&n.reason_by, "Unknown"))),
    key("UserLong", 'U', "USER", |r, v| {
        first(r, |n| {
            let uid = (v.here.uid_of)(&n.reason_by).map(|uid| format!("({uid})"));
            format!("{}{}", or(&n.reason_by, "Unknown"), uid.unwrap_or_default())
        })
    }),
    key("TimeStamp", 'H', "TIMESTAMP", |r, v| first(r, |n| v.here.time(n.reason_at, "Unknown"))),
    key("Comment", ' ', "COMMENT", |r, _| first(r, |n| or(&n.comment, "(null)"))),
    key("Extra", ' ', "EXTRA", |_, _| "(null)".to_owned()),
    key("Port", ' ', "PORT", |_, _| "6818".to_owned()),
    key("Reservation", 'i', "RESERVATION", |r, _| first(r, |n| n.reservation.clone())),
    key("Version", 'v', "VERSION", |r, _| first(r, |n| or(&n.version, "N/A"))),
];

fn available(state: &str) -> &'static str {
    match state.to_ascii_uppercase().as_str() {
        "DOWN" => "down",
        "DRAIN" => "drain",
        "INACTIVE" => "inact",
        _ => "up",
    }
}

fn limit(limit: Option<&muster_proto::v1::TimeLimit>, unset: &str) -> String {
    match limit_minutes(limit) {
        Some(Some(minutes)) => trimmed(i64::from(minutes) * 60),
        Some(None) => "infinite".to_owned(),
        None => unset.to_owned(),
    }
}

fn job_size(partition: &Partition) -> String {
    match partition.max_nodes {
        Some(most) if most == partition.min_nodes => most.to_string(),
        Some(most) => format!("{}-{most}", partition.min_nodes),
        None => format!("{}-infinite", partition.min_nodes),
    }
}

fn oversubscribe(partition: &Partition) -> String {
    if partition.exclusive { "EXCLUSIVE" } else { "NO" }.to_owned()
}

fn number(row: &Row, is: fn(&Node) -> bool) -> usize {
    row.nodes.iter().filter(|n| is(n)).count()
}

/// The value that all nodes of the row share.
fn first(row: &Row, of: impl Fn(&Node) -> String) -> String {
    row.nodes.first().map_or_else(|| "n/a".to_owned(), |n| of(n))
}

fn state(row: &Row, short: bool) -> String {
    first(row, |n| states::node(n, short))
}

fn features(row: &Row) -> String {
    first(row, |n| or(&n.features.join(","), "(null)"))
}

/// The least, with `+` where some have more.
fn least(row: &Row, of: fn(&Node) -> u64) -> String {
    let values = || row.nodes.iter().map(|n| of(n));
    match (values().min(), values().max()) {
        (Some(least), Some(most)) if least < most => format!("{least}+"),
        (least, _) => least.unwrap_or(0).to_string(),
    }
}

/// The least and the most.
fn span(row: &Row, show: fn(&Node) -> String, of: fn(&Node) -> f32) -> String {
    let by = |a: &&&Node, b: &&&Node| of(a).total_cmp(&of(b));
    match (row.nodes.iter().min_by(by), row.nodes.iter().max_by(by)) {
        (Some(least), Some(most)) if show(least) != show(most) => {
            format!("{}-{}", show(least), show(most))
        }
        (Some(least), _) => show(least),
        (None, _) => "N/A".to_owned(),
    }
}

/// The order of two rows by a sort letter.
pub(super) fn compare(code: char, a: &Row, b: &Row, view: &View) -> Ordering {
    let least = |row: &Row, of: fn(&Node) -> u64| row.nodes.iter().map(|n| of(n)).min();
    let by = |of: fn(&Node) -> u64| least(a, of).cmp(&least(b, of));
    match code {
        't' | 'T' => by(|n| states::node_rank(n).into()),
        'c' => by(|n| n.cpus.into()),
        'm' => by(|n| n.memory_mib),
        'w' => by(|n| n.weight.into()),
        'D' => a.nodes.len().cmp(&b.nodes.len()),
        'N' | 'n' => {
            let name = |row: &Row| row.nodes.first().map_or("", |n| n.name.as_str()).to_owned();
            natural(&name(a)).cmp(&natural(&name(b)))
        }
        code => match FIELDS.iter().find(|f| f.code == code) {
            Some(field) => (field.value)(a, view).cmp(&(field.value)(b, view)),
            None => Ordering::Equal,
        },
    }
}

/// `n9` before `n10`.
fn natural(name: &str) -> (String, u64, String) {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (prefix.to_owned(), name[prefix.len()..].parse().unwrap_or(0), name.to_owned())
}

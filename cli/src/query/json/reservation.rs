//! A reservation: the shape `reservation_info`.

use muster_proto::v1::Reservation;
use serde_json::{Value, json};

use super::{time, unset};

/// One element of `reservations`.
pub(super) fn document(of: &Reservation) -> Value {
    let licenses: Vec<String> =
        of.licenses.iter().map(|l| format!("{}:{}", l.name, l.count)).collect();
    let tres = if of.cpu_count == 0 { String::new() } else { format!("cpu={}", of.cpu_count) };
    json!({
        "name": of.name,
        "node_list": of.nodes,
        "node_count": of.node_count,
        "core_count": of.core_count,
        "core_specializations": [],
        "partition": of.partition,
        "features": of.features,
        "start_time": time(of.start),
        "end_time": time(of.end),
        "users": of.users,
        "groups": "",
        "accounts": of.accounts,
        "qos": "",
        "allowed_partitions": "",
        "licenses": licenses.join(","),
        "flags": of.flags,
        "comment": of.comment,
        "burst_buffer": "",
        "max_start_delay": unset(),
        "purge_completed": { "time": unset() },
        "tres": tres,
        "watts": unset(),
    })
}

//! What became of the nodes of one partition, filter by filter.

use std::fmt::Write as _;

use muster_proto::v1::why_reply::{Funnel, Removed};

pub(super) fn told(funnel: &Funnel) -> String {
    let Funnel { partition, members, wanted, left, .. } = funnel;
    let nodes = |n: u32| if n == 1 { "node" } else { "nodes" };
    let mut out = format!("  {partition} has {members} {}, it needs {wanted}:\n", nodes(*members));
    if !funnel.starts {
        out.push_str("    the partition starts no jobs\n");
    }
    let width = funnel.removed.iter().map(|r| r.count).max().unwrap_or(0).max(*left);
    let width = width.to_string().len();
    for Removed { filter, detail, count, nodes } in &funnel.removed {
        let why = sentence(filter, detail, *count == 1);
        writeln!(out, "    {count:width$} {why} ({nodes})").ok();
    }
    let rest = match (*left, &*funnel.network) {
        (left, _) if left < *wanted => "could take their part now: too few",
        (_, "") => "could take their part now",
        _ => "could take their part now, but do not lie together as they must:",
    };
    writeln!(out, "    {left:width$} {rest}").ok();
    if *left >= *wanted && !funnel.network.is_empty() {
        writeln!(out, "    {:width$} {}", "", funnel.network).ok();
    }
    out
}

/// What a filter says of the nodes that it took out.
fn sentence(filter: &str, detail: &str, one: bool) -> String {
    let (is, has, lacks) = if one { ("is", "has", "lacks") } else { ("are", "have", "lack") };
    match filter {
        "out-of-service" => format!("{is} down, drained or silent"),
        "features" => format!("{lacks} a feature that it asks for"),
        "build" => format!("{has} fewer sockets or threads than it asks for"),
        "named" => format!("{is} excluded, or not among the nodes that it names"),
        "reservation" => format!("{is} closed to it by reservation {detail}"),
        "whole-cpus" => format!("{has} too few CPUs, even when empty"),
        "whole-memory" => format!("{has} too little memory, even when empty"),
        "whole-gres" => format!("{has} too few {detail}, even when empty"),
        "whole-links" => format!("{has} too few GPUs that NVLink joins"),
        "whole-near" => format!("{has} too few CPUs near its GPUs"),
        "in-use" => format!("{is} in use, and nodes are not to be shared"),
        "free-cpus" => format!("{has} too few CPUs free"),
        "free-memory" => format!("{has} too little memory free"),
        "free-gres" => format!("{has} too few {detail} free"),
        "free-links" => format!("{has} too few GPUs free that NVLink joins"),
        "free-near" => format!("{has} too few CPUs free near GPUs that are free"),
        "promised" => format!("{has} room now, but promised to jobs ahead before this one ends"),
        other => format!("{is} out: {other} {detail}"),
    }
}

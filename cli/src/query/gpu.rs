//! `muster gpu`: every GPU of the cluster, one a line.

use muster_proto::v1::Gpu;

use super::Output;
use super::source::Source;
use super::surroundings::Surroundings;
use crate::getopt::{Opt, Spec, Takes, both, long};

const PROGRAM: &str = "muster gpu";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("bad", 'b', Takes::Nothing),
        both("free", 'f', Takes::Nothing),
        both("help", 'h', Takes::Nothing),
        both("iterate", 'i', Takes::Value),
        long("json", Takes::Nothing),
        both("noheader", 'n', Takes::Nothing),
        both("uuid", 'u', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "", short: Some('?'), takes: Takes::Nothing },
    ],
};

const HELP: &str = "\
Usage: muster gpu [OPTIONS] [NODE,..]
  -b, --bad           only GPUs that take no new work
  -f, --free          only GPUs that a job could be given now
  -i, --iterate=SECS  again every so many seconds
      --json          a JSON document
  -n, --noheader      no header line
  -u, --uuid          the driver's names and device files too
  -V, --version       the version
";

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let parsed = match super::opened(&SPEC, HELP, args) {
        Ok(parsed) => parsed,
        Err(said) => return said,
    };
    let again = match parsed.last("iterate").map(str::parse::<u64>) {
        None => None,
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => return Output::error(PROGRAM, "--iterate takes seconds, at least 1"),
    };
    let mut gpus = match source.gpus(&parsed.operands.join(",")) {
        Ok(gpus) => gpus,
        Err(fault) => return Output::failed(PROGRAM, "muster gpu: error: ", &fault),
    };
    gpus.retain(|gpu| {
        (!parsed.has("bad") || !gpu.reason.is_empty()) && (!parsed.has("free") || is_free(gpu))
    });
    if parsed.has("json") {
        let list: Vec<_> = gpus.iter().map(json).collect();
        let document = serde_json::json!({ "gpus": list });
        return Output { again, ..Output::text(format!("{document:#}\n")) };
    }
    let mut rows: Vec<Vec<String>> = gpus.iter().map(|gpu| row(gpu, here)).collect();
    let mut head: Vec<String> = HEAD.iter().map(|name| (*name).to_owned()).collect();
    if parsed.has("uuid") {
        head.splice(3..3, ["DEVICE".to_owned(), "UUID".to_owned()]);
        for (row, gpu) in rows.iter_mut().zip(&gpus) {
            let device = gpu.minor.map_or_else(|| "-".to_owned(), |minor| format!("nvidia{minor}"));
            row.splice(3..3, [device, or_dash(&gpu.uuid)]);
        }
    }
    if !parsed.has("noheader") {
        rows.insert(0, head);
    }
    Output { again, ..Output::text(aligned(&rows)) }
}

const HEAD: [&str; 11] =
    ["NODE", "GPU", "TYPE", "JOB", "USER", "UTIL", "MEM_MIB", "TOTAL", "WATTS", "TEMP", "HEALTH"];

fn is_free(gpu: &Gpu) -> bool {
    gpu.job == 0 && gpu.reason.is_empty() && gpu.node_usable
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn row(gpu: &Gpu, here: &Surroundings) -> Vec<String> {
    let used = |of: fn(&muster_proto::v1::GpuUse) -> String| {
        gpu.r#use.as_ref().map_or_else(|| "-".to_owned(), of)
    };
    let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
    vec![
        gpu.node.clone(),
        gpu.index.to_string(),
        or_dash(&gpu.r#type),
        or_dash(&gpu.job_shown),
        or_dash(&gpu.job_user),
        used(|u| format!("{}%", u.utilization)),
        used(|u| u.memory_used_mib.to_string()),
        number(gpu.memory_mib),
        used(|u| u.watts.to_string()),
        used(|u| format!("{}C", u.celsius)),
        health(gpu, here),
    ]
}

fn health(gpu: &Gpu, here: &Surroundings) -> String {
    if gpu.reason.is_empty() {
        return if gpu.node_usable { "ok".to_owned() } else { "ok (node is out)".to_owned() };
    }
    let by = if gpu.reason_by.is_empty() { "muster" } else { &gpu.reason_by };
    let at = here.time(gpu.reason_at, "Unknown");
    format!("drained: {} [{by}@{at}]", gpu.reason)
}

/// Columns as wide as their widest cell; the last one as it is.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("{cell:<width$} "));
        }
        out.push_str(row.last().map_or("", String::as_str));
        out.push('\n');
    }
    out
}

fn json(gpu: &Gpu) -> serde_json::Value {
    serde_json::json!({
        "node": gpu.node,
        "index": gpu.index,
        "type": gpu.r#type,
        "uuid": gpu.uuid,
        "minor": gpu.minor,
        "pci": gpu.pci,
        "numa": gpu.numa,
        "memory_mib": gpu.memory_mib,
        "parent": gpu.parent,
        "job": (gpu.job != 0).then_some(gpu.job),
        "user": gpu.job_user,
        "drained": (!gpu.reason.is_empty()).then(|| serde_json::json!({
            "reason": gpu.reason,
            "by": gpu.reason_by,
            "at": gpu.reason_at / 1000,
            "lifts": gpu.reason_lifts,
        })),
        "use": gpu.r#use.as_ref().map(|u| serde_json::json!({
            "utilization": u.utilization,
            "memory_used_mib": u.memory_used_mib,
            "watts": u.watts,
            "celsius": u.celsius,
            "processes": u.processes,
        })),
        "free": is_free(gpu),
    })
}

//! The documents of `--json`, in the shapes of Slurm's data_parser v0.0.4x.
//!
//! A number that may be missing is an object (`set`, `infinite`, `number`); states are lists of
//! words; times are seconds since the Unix epoch. What we do not track is there with its empty
//! value, because readers index by name.
//!
//! - `job`: `squeue --json`, `scontrol show job --json`
//! - `node`, `partition`, `reservation`: `scontrol show node|partition|reservation --json`
//! - `sinfo`: `sinfo --json`
//! - `history`: `sacct --json`

mod history;
mod job;
mod node;
mod partition;
mod reservation;
mod sinfo;

use muster_proto::v1::{ExitStatus, HistoryRow, Job, Node, Partition, Reservation};
use serde_json::{Map, Value, json};

use super::surroundings::Surroundings;
use super::tres::Tres;
use super::{VERSION, states};

pub(crate) use sinfo::{Group, allocated, idle, idle_cpus, other_cpus};

/// Who asks, and which cluster answers.
pub(crate) struct About<'a> {
    /// The command's name.
    pub(crate) command: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) here: &'a Surroundings,
}

/// The `{"jobs": [...]}` document of jobs in the queue.
pub(crate) fn jobs(jobs: &[Job], about: &About) -> String {
    let list: Vec<Value> = jobs.iter().map(|job| job::document(job, about)).collect();
    let now = number(about.here.now / 1000);
    document(about, json!({ "jobs": list, "last_backfill": now, "last_update": now }))
}

/// The `{"nodes": [...]}` document.
pub(crate) fn nodes(nodes: &[Node], about: &About) -> String {
    let list: Vec<Value> = nodes.iter().map(|node| node::document(node, about)).collect();
    document(about, json!({ "nodes": list, "last_update": number(about.here.now / 1000) }))
}

/// The `{"partitions": [...]}` document.
pub(crate) fn partitions(partitions: &[Partition], about: &About) -> String {
    let list: Vec<Value> = partitions.iter().map(|p| partition::document(p, about)).collect();
    document(about, json!({ "partitions": list, "last_update": number(about.here.now / 1000) }))
}

/// The `{"reservations": [...]}` document.
pub(crate) fn reservations(all: &[Reservation], about: &About) -> String {
    let list: Vec<Value> = all.iter().map(reservation::document).collect();
    document(about, json!({ "reservations": list, "last_update": number(about.here.now / 1000) }))
}

/// The `{"sinfo": [...]}` document.
pub(crate) fn sinfo(groups: &[Group], about: &About) -> String {
    let list: Vec<Value> = groups.iter().map(|g| sinfo::document(g, about)).collect();
    document(about, json!({ "sinfo": list }))
}

/// The `{"statistics": {...}}` document.
pub(crate) fn statistics(content: &Value, about: &About) -> String {
    document(about, json!({ "statistics": content }))
}

/// The `{"jobs": [...]}` document of accounting.
pub(crate) fn history(rows: &[HistoryRow], about: &About) -> String {
    let list: Vec<Value> = rows.iter().map(|row| history::document(row, about)).collect();
    document(about, json!({ "jobs": list }))
}

fn document(about: &About, content: Value) -> String {
    let user = (about.here.name_of)(about.here.uid).unwrap_or_else(|| about.here.uid.to_string());
    let release = VERSION.split(' ').nth(1).unwrap_or_default();
    let mut version = release.split('.');
    let mut part = || version.next().unwrap_or("0").to_owned();
    let (major, minor, micro) = (part(), part(), part());
    let meta = json!({
        "plugin": {
            "type": "", "name": "", "data_parser": "data_parser/v0.0.45",
            "accounting_storage": "accounting_storage/muster",
        },
        "client": { "source": "", "user": user, "group": "" },
        "command": [about.command],
        "slurm": {
            "version": { "major": major, "minor": minor, "micro": micro },
            "release": release,
            "cluster": about.cluster,
        },
    });
    let frame = json!({ "meta": meta, "errors": [], "warnings": [] });
    let whole = merged([content, frame]);
    serde_json::to_string_pretty(&whole).expect("names are texts and numbers are finite") + "\n"
}

/// One object out of several: the shapes are longer than one literal should be.
pub(crate) fn merged<const N: usize>(parts: [Value; N]) -> Value {
    let mut whole = Map::new();
    for part in parts {
        if let Value::Object(fields) = part {
            whole.extend(fields);
        }
    }
    Value::Object(whole)
}

fn number(value: impl Into<i64>) -> Value {
    json!({ "set": true, "infinite": false, "number": value.into() })
}

fn unset() -> Value {
    json!({ "set": false, "infinite": false, "number": 0 })
}

fn infinite() -> Value {
    json!({ "set": true, "infinite": true, "number": 0 })
}

fn maybe(value: Option<u32>) -> Value {
    value.map_or_else(unset, number)
}

/// An instant in seconds; 0 is set, as it is in Slurm's documents.
fn time(at_ms: i64) -> Value {
    number(at_ms.max(0) / 1000)
}

/// A time limit in minutes.
fn limit(limit: Option<&muster_proto::v1::TimeLimit>) -> Value {
    match super::shown::limit_minutes(limit) {
        Some(Some(minutes)) => number(minutes),
        Some(None) => infinite(),
        None => unset(),
    }
}

fn mib(size: u64) -> Value {
    number(i64::try_from(size).unwrap_or(i64::MAX))
}

fn exit_code(exit: Option<ExitStatus>, pending: bool) -> Value {
    let exit_status = exit.unwrap_or_default();
    let status = match (exit_status.code, exit_status.signal) {
        _ if pending && exit.is_none() => "PENDING",
        (0, 0) => "SUCCESS",
        (_, 0) => "ERROR",
        _ => "SIGNALED",
    };
    let signal = exit_status.signal;
    json!({
        "status": [status],
        "return_code": number(exit_status.code),
        "signal": {
            "id": if signal == 0 { unset() } else { number(signal) },
            "name": signal_name(signal),
        },
    })
}

/// `KILL` for 9; empty for none or one without a name.
fn signal_name(signal: u32) -> String {
    let known = i32::try_from(signal).ok().and_then(|s| nix::sys::signal::Signal::try_from(s).ok());
    known.map_or_else(String::new, |s| s.as_str().trim_start_matches("SIG").to_owned())
}

/// A job's state and the flags on it.
fn job_state(job: &Job) -> Value {
    use muster_proto::v1::JobState;
    match job.state() {
        // Slurm says how it ended and that it is not yet cleaned up.
        JobState::Completing => json!(["COMPLETED", "COMPLETING"]),
        JobState::Configuring => json!(["RUNNING", "CONFIGURING"]),
        JobState::Requeued => json!(["PENDING", "REQUEUED"]),
        state => json!([states::long(state)]),
    }
}

fn tres_list(list: &[Tres]) -> Value {
    let items = list
        .iter()
        .map(|t| json!({ "type": t.kind, "name": t.name, "id": t.id(), "count": t.count }));
    items.collect()
}

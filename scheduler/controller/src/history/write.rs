//! Rows in.
//!
//! Jobs end by the hundreds a second, so that a statement carries many rows and a call is one
//! transaction: 20 columns in 128 rows stay far below the 32,766 parameters SQLite takes.

use std::fmt::Write as _;

use muster_model::Hostlist;
use muster_proto::v1;
use prost::Message as _;
use sqlx::any::AnyArguments;
use sqlx::{AnyPool, Arguments as _, AssertSqlSafe};

use super::{HistoryEntry, HistoryError};

/// Rows of one statement at most.
const ROWS: usize = 128;

/// Columns in the order in which [`bind`] gives them; the first four are the key.
const COLUMNS: [&str; 20] = [
    "job",
    "submitted_at",
    "attempt",
    "rest",
    "array_id",
    "array_task",
    "uid",
    "user_name",
    "account",
    "qos",
    "partition_name",
    "job_name",
    "state",
    "eligible_at",
    "started_at",
    "ended_at",
    "exit_code",
    "exit_signal",
    "nodes",
    "content",
];
const KEYS: usize = 4;

pub(super) async fn record(pool: &AnyPool, entries: &[HistoryEntry]) -> Result<(), HistoryError> {
    if entries.is_empty() {
        return Ok(());
    }
    let failed = |source| HistoryError::Write { rows: entries.len(), source };
    let entries = last_of_each(entries);
    let mut transaction = pool.begin().await.map_err(failed)?;
    for chunk in entries.chunks(ROWS) {
        let mut arguments = AnyArguments::default();
        for row in chunk {
            bind(&mut arguments, row).map_err(|fault| failed(sqlx::Error::Encode(fault)))?;
        }
        // Only full statements are worth a place in the cache of prepared ones.
        sqlx::query_with(AssertSqlSafe(statement(chunk.len())), arguments)
            .persistent(chunk.len() == ROWS)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// PostgreSQL refuses a statement that meets one key twice: the last row of each key stays.
fn last_of_each(entries: &[HistoryEntry]) -> Vec<&v1::HistoryRow> {
    let mut seen = std::collections::BTreeSet::new();
    let mut rows: Vec<&v1::HistoryRow> = entries
        .iter()
        .rev()
        .map(|entry| &entry.row)
        .filter(|row| {
            let job = row.job.as_ref().expect("a history row names its job");
            seen.insert((job.id, job.submitted_at, job.attempt, job.array_tasks.as_str()))
        })
        .collect();
    rows.reverse();
    rows
}

fn statement(rows: usize) -> String {
    let mut text = format!("INSERT INTO attempts ({}) VALUES ", COLUMNS.join(", "));
    for row in 0..rows {
        text.push_str(if row > 0 { ",(" } else { "(" });
        for column in 0..COLUMNS.len() {
            let comma = if column > 0 { "," } else { "" };
            let number = row * COLUMNS.len() + column + 1;
            write!(text, "{comma}${number}").expect("writing to a string does not fail");
        }
        text.push(')');
    }
    let change: Vec<String> =
        COLUMNS[KEYS..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let key = COLUMNS[..KEYS].join(", ");
    write!(text, " ON CONFLICT ({key}) DO UPDATE SET {}", change.join(", "))
        .expect("writing to a string does not fail");
    text
}

fn bind(into: &mut AnyArguments, row: &v1::HistoryRow) -> Result<(), sqlx::error::BoxDynError> {
    let job = row.job.as_ref().expect("a history row names its job");
    let spec = job.spec.clone().unwrap_or_default();
    let user = spec.user.unwrap_or_default();
    let exit = job.exit.unwrap_or_default();
    into.add(i64::from(job.id))?;
    into.add(job.submitted_at)?;
    into.add(i64::from(job.attempt))?;
    into.add(job.array_tasks.clone())?;
    // The components of a heterogeneous job are found by its number, as tasks are by their array's.
    let leader = spec.het.map_or(0, |het| job.id - het.index.min(job.id));
    into.add(i64::from(if job.array_id > 0 { job.array_id } else { leader }))?;
    into.add(job.array_task.map_or(-1, i64::from))?;
    into.add(i64::from(user.uid))?;
    into.add(user.name)?;
    into.add(spec.account)?;
    into.add(spec.qos)?;
    into.add(job.partition.clone())?;
    into.add(spec.name)?;
    into.add(i64::from(job.state))?;
    into.add(job.eligible_at)?;
    into.add(job.started_at)?;
    into.add(job.ended_at)?;
    into.add(i64::from(exit.code))?;
    into.add(i64::from(exit.signal))?;
    into.add(expanded(&job.nodes))?;
    into.add(row.encode_to_vec())
}

/// Node names between commas (`,n1,n2,`), so that one name can be looked for in any of them.
fn expanded(nodes: &str) -> String {
    match Hostlist::parse(nodes) {
        Ok(Hostlist(names)) if !names.is_empty() => format!(",{},", names.join(",")),
        _ => String::new(),
    }
}

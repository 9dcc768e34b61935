//! The history: one row per attempt of a job, in SQLite or, by its URL, in PostgreSQL.
//!
//! Knows neither the engine nor who may see what: the edge hands over complete rows and asks with
//! filters that it has already narrowed to what the caller may see. A row is the whole
//! `muster.v1.HistoryRow` as a blob; what queries filter by stands beside it in columns.
//!
//! The history owns nothing that cannot be rebuilt. Until a row is confirmed here the engine keeps
//! the ended job in its state and hands the row over again after a restart, so a transaction that
//! a power cut takes back is written anew. That is why SQLite runs in WAL mode with
//! `synchronous = NORMAL`, which syncs at checkpoints instead of at every commit.
//!
//! - `schema.rs`: tables and their migration
//! - `write.rs`: rows in, many per statement
//! - `query.rs`: rows out, page by page

mod query;
mod schema;
mod write;

#[cfg(test)]
mod tests;

use std::time::Duration;

use muster_proto::v1;
use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

pub use query::{HistoryCursor, HistoryPage, HistoryQuery, JobChoice};

/// Connections at most. SQLite has one writer; the others let queries run beside it.
const CONNECTIONS: u32 = 5;

/// How long a call waits for a free connection before it is refused.
const ACQUIRE: Duration = Duration::from_secs(20);

/// What went wrong with the history database.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("history url {url:?}: neither sqlite:// nor postgres://")]
    UnknownUrl { url: String },
    #[error("open the history database at {place}")]
    Open { place: String, source: sqlx::Error },
    #[error(
        "history database at {place}: its schema is version {found}, newer than {known} which this program knows"
    )]
    Newer { place: String, found: i64, known: i64 },
    #[error("write {rows} history rows")]
    Write { rows: usize, source: sqlx::Error },
    #[error("read the history")]
    Read { source: sqlx::Error },
    #[error("history row of job {job}: its stored form cannot be read")]
    Decode { job: u32, source: prost::DecodeError },
}

/// One attempt to record.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// The row as it is shown; its `job` must be set.
    pub row: v1::HistoryRow,
}

/// Which database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Sqlite,
    Postgres,
}

/// An open history database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct History {
    pool: AnyPool,
}

impl History {
    /// Opens the database and creates or migrates its tables. SQLite: the file is created.
    ///
    /// # Errors
    /// A URL of another kind, a database that cannot be reached, or one that a newer version has
    /// written. The message names the place without its password.
    pub async fn open(url: &str) -> Result<Self, HistoryError> {
        let flavour = if url.starts_with("sqlite:") {
            Flavour::Sqlite
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Flavour::Postgres
        } else {
            return Err(HistoryError::UnknownUrl { url: without_password(url) });
        };
        sqlx::any::install_default_drivers();
        let place = without_password(url);
        let opened = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(move |connection, _| {
                Box::pin(async move { schema::prepare_connection(connection, flavour).await })
            })
            .connect(&creating(url, flavour))
            .await;
        let pool = opened.map_err(|source| HistoryError::Open { place: place.clone(), source })?;
        schema::migrate(&pool, flavour, &place).await?;
        Ok(History { pool })
    }

    /// Writes rows; one that is there already (same job, submission and attempt) is replaced. All
    /// of a call are written or none.
    ///
    /// # Errors
    /// The database refused or cannot be reached; the caller keeps the rows and tries again.
    pub async fn record(&self, entries: &[HistoryEntry]) -> Result<(), HistoryError> {
        write::record(&self.pool, entries).await
    }

    /// One page of what `query` asks, in ascending (job, submission, attempt).
    ///
    /// # Errors
    /// The database cannot be reached, or a row in it is damaged.
    pub async fn query(&self, query: &HistoryQuery) -> Result<HistoryPage, HistoryError> {
        query::page(&self.pool, query).await
    }

    /// Closes the connections; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// SQLite does not create a file unless its URL says so.
fn creating(url: &str, flavour: Flavour) -> String {
    match flavour {
        Flavour::Sqlite if !url.contains("mode=") && !url.contains(":memory:") => {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}mode=rwc")
        }
        _ => url.to_owned(),
    }
}

/// For messages and logs: `postgres://me:secret@host/db` without the secret.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split_once('?').map_or(rest, |(place, _)| place);
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}@{host}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

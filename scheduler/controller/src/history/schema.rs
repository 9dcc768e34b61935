//! Tables and their migration.
//!
//! Every version's steps stay here for ever: a database of any age is brought up one version at a
//! time, inside one transaction.

use sqlx::{AnyConnection, AnyPool, Executor, Row};

use super::{Flavour, HistoryError};

/// The steps from version `i` to `i + 1`. `BLOB` is replaced by the database's own word.
const STEPS: &[&[&str]] = &[&[
    // `rest`: tasks of an array that ended without a job of their own ("5-9"), else empty.
    "CREATE TABLE attempts (
        job BIGINT NOT NULL,
        submitted_at BIGINT NOT NULL,
        attempt BIGINT NOT NULL,
        rest TEXT NOT NULL,
        array_id BIGINT NOT NULL,
        array_task BIGINT NOT NULL,
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        account TEXT NOT NULL,
        qos TEXT NOT NULL,
        partition_name TEXT NOT NULL,
        job_name TEXT NOT NULL,
        state BIGINT NOT NULL,
        eligible_at BIGINT NOT NULL,
        started_at BIGINT NOT NULL,
        ended_at BIGINT NOT NULL,
        exit_code BIGINT NOT NULL,
        exit_signal BIGINT NOT NULL,
        nodes TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (job, submitted_at, attempt, rest)
    )",
    "CREATE INDEX attempts_of_array ON attempts (array_id, array_task)",
    "CREATE INDEX attempts_by_end ON attempts (ended_at)",
    "CREATE INDEX attempts_by_user ON attempts (uid, ended_at)",
]];

/// A lock that ends with the transaction. In a block, for its result has a type of no column.
const POSTGRES_LOCK: &str =
    "DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('muster_schema')); END $$";

/// The version that this program writes.
fn known() -> i64 {
    i64::try_from(STEPS.len()).expect("some steps")
}

/// What every new connection needs before its first statement.
pub(super) async fn prepare_connection(
    connection: &mut AnyConnection,
    flavour: Flavour,
) -> Result<(), sqlx::Error> {
    if flavour == Flavour::Sqlite {
        // The timeout first: switching to WAL takes a lock that another connection may hold.
        for pragma in [
            "PRAGMA busy_timeout = 10000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
        ] {
            connection.execute(pragma).await?;
        }
    }
    Ok(())
}

/// Brings the tables to the version of this program.
pub(super) async fn migrate(
    pool: &AnyPool,
    flavour: Flavour,
    place: &str,
) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::Open { place: place.to_owned(), source };
    // Two programs that start at once must not both make the tables.
    let mut transaction = match flavour {
        Flavour::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await,
        Flavour::Postgres => pool.begin().await,
    }
    .map_err(failed)?;
    if flavour == Flavour::Postgres {
        transaction.execute(POSTGRES_LOCK).await.map_err(failed)?;
    }
    transaction
        .execute("CREATE TABLE IF NOT EXISTS muster_schema (version BIGINT NOT NULL)")
        .await
        .map_err(failed)?;
    let found: i64 = transaction
        .fetch_one("SELECT COALESCE(MAX(version), 0) AS version FROM muster_schema")
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    if found > known() {
        return Err(HistoryError::Newer { place: place.to_owned(), found, known: known() });
    }
    let from = usize::try_from(found).unwrap_or(0);
    for statement in STEPS[from..].iter().copied().flatten() {
        let text = match flavour {
            Flavour::Sqlite => (*statement).to_owned(),
            Flavour::Postgres => statement.replace("BLOB", "BYTEA"),
        };
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut *transaction).await.map_err(failed)?;
    }
    if found < known() {
        sqlx::query("INSERT INTO muster_schema (version) VALUES ($1)")
            .bind(known())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

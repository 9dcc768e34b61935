//! Rows out, page by page.
//!
//! Every value of a filter is bound, never written into the statement. A page ends at a row, and
//! its cursor names that row: what is written meanwhile neither repeats nor skips a row.

use muster_model::IndexSet;
use muster_proto::v1;
use prost::Message as _;
use sqlx::any::AnyArguments;
use sqlx::{AnyPool, Arguments as _, AssertSqlSafe, Row};

use super::HistoryError;

/// Rows of a page at most, whatever was asked: about 2 MB of messages.
const PAGE: u32 = 2_000;

/// What is asked. Empty lists filter nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    pub jobs: Vec<JobChoice>,
    /// Names or numbers.
    pub users: Vec<String>,
    pub names: Vec<String>,
    pub partitions: Vec<String>,
    /// Values of `v1::JobState`. With states, a row counts if it *ended* within the window.
    pub states: Vec<i32>,
    /// Single names; a row counts if its attempt held any of them.
    pub nodes: Vec<String>,
    pub accounts: Vec<String>,
    pub qos: Vec<String>,
    /// Ms since the epoch; rows that ended before it are left out. 0: no bound.
    pub start: i64,
    /// Rows that became eligible after it are left out. 0: no bound.
    pub end: i64,
    /// Every attempt and every use of a job number, not only the last.
    pub duplicates: bool,
    /// Goes on after this row.
    pub after: Option<HistoryCursor>,
    /// Rows of this page at most; 0: as many as a page may have.
    pub limit: u32,
}

/// A job, an array, or tasks of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobChoice {
    /// The job's number or its array's.
    pub job: u32,
    /// Only these tasks of the array.
    pub tasks: Option<IndexSet>,
}

/// A place between two rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryCursor {
    job: i64,
    submitted_at: i64,
    attempt: i64,
    rest: String,
}

/// Rows in ascending (job, submission, attempt).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryPage {
    pub rows: Vec<v1::HistoryRow>,
    /// Where the next page goes on; `None`: this was the last.
    pub next: Option<HistoryCursor>,
}

pub(super) async fn page(
    pool: &AnyPool,
    query: &HistoryQuery,
) -> Result<HistoryPage, HistoryError> {
    let limit = if query.limit == 0 { PAGE } else { query.limit.min(PAGE) };
    let mut statement = Statement::default();
    filter(&mut statement, query)
        .map_err(|f| HistoryError::Read { source: sqlx::Error::Encode(f) })?;
    let text = format!(
        "SELECT a.job, a.submitted_at, a.attempt, a.rest, a.content FROM attempts a{} \
         ORDER BY a.job, a.submitted_at, a.attempt, a.rest LIMIT {limit}",
        statement.conditions(),
    );
    // Statements differ with every filter: keeping them prepared would only fill the cache.
    let found = sqlx::query_with(AssertSqlSafe(text), statement.arguments)
        .persistent(false)
        .fetch_all(pool)
        .await
        .map_err(|source| HistoryError::Read { source })?;
    let mut page = HistoryPage::default();
    for row in &found {
        page.rows.push(content(row)?);
    }
    if found.len() == limit as usize {
        let last = found.last().expect("a limit is above 0");
        page.next = Some(cursor(last).map_err(|source| HistoryError::Read { source })?);
    }
    Ok(page)
}

fn cursor(row: &sqlx::any::AnyRow) -> Result<HistoryCursor, sqlx::Error> {
    Ok(HistoryCursor {
        job: row.try_get(0)?,
        submitted_at: row.try_get(1)?,
        attempt: row.try_get(2)?,
        rest: row.try_get(3)?,
    })
}

fn content(row: &sqlx::any::AnyRow) -> Result<v1::HistoryRow, HistoryError> {
    let read = |source| HistoryError::Read { source };
    let job: i64 = row.try_get(0).map_err(read)?;
    let bytes: Vec<u8> = row.try_get(4).map_err(read)?;
    v1::HistoryRow::decode(bytes.as_slice()).map_err(|source| HistoryError::Decode {
        job: u32::try_from(job).unwrap_or_default(),
        source,
    })
}

/// A statement's conditions and what is bound to their `$1`, `$2`, ...
#[derive(Default)]
struct Statement {
    conditions: Vec<String>,
    arguments: AnyArguments,
}

type Fault = sqlx::error::BoxDynError;

impl Statement {
    fn number(&mut self, value: i64) -> Result<String, Fault> {
        self.arguments.add(value)?;
        Ok(format!("${}", self.arguments.len()))
    }

    fn text(&mut self, value: &str) -> Result<String, Fault> {
        self.arguments.add(value.to_owned())?;
        Ok(format!("${}", self.arguments.len()))
    }

    fn and(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    fn any_of(&mut self, conditions: &[String]) {
        if !conditions.is_empty() {
            self.and(format!("({})", conditions.join(" OR ")));
        }
    }

    fn one_of_texts(&mut self, column: &str, values: &[String]) -> Result<(), Fault> {
        let conditions = values
            .iter()
            .map(|value| Ok(format!("a.{column} = {}", self.text(value)?)))
            .collect::<Result<Vec<_>, Fault>>()?;
        self.any_of(&conditions);
        Ok(())
    }

    fn conditions(&self) -> String {
        if self.conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conditions.join(" AND "))
        }
    }
}

fn filter(to: &mut Statement, query: &HistoryQuery) -> Result<(), Fault> {
    let jobs =
        query.jobs.iter().map(|choice| chosen(to, choice)).collect::<Result<Vec<_>, Fault>>()?;
    to.any_of(&jobs);
    to.one_of_texts("job_name", &query.names)?;
    to.one_of_texts("partition_name", &query.partitions)?;
    to.one_of_texts("account", &query.accounts)?;
    to.one_of_texts("qos", &query.qos)?;
    let users = query.users.iter().map(|u| user(to, u)).collect::<Result<Vec<_>, Fault>>()?;
    to.any_of(&users);
    let states = query
        .states
        .iter()
        .map(|state| Ok(format!("a.state = {}", to.number(i64::from(*state))?)))
        .collect::<Result<Vec<_>, Fault>>()?;
    to.any_of(&states);
    let nodes = query
        .nodes
        .iter()
        .map(|node| Ok(format!("a.nodes LIKE {} ESCAPE '!'", to.text(&pattern(node))?)))
        .collect::<Result<Vec<_>, Fault>>()?;
    to.any_of(&nodes);
    window(to, query)?;
    if !query.duplicates {
        // A row about the rest of an array never hides one of its tasks, nor the reverse.
        to.and(
            "NOT EXISTS (SELECT 1 FROM attempts b WHERE b.job = a.job AND b.rest = a.rest AND \
             (b.submitted_at > a.submitted_at OR \
             (b.submitted_at = a.submitted_at AND b.attempt > a.attempt)))"
                .to_owned(),
        );
    }
    if let Some(after) = &query.after {
        let job = to.number(after.job)?;
        let submitted = to.number(after.submitted_at)?;
        let attempt = to.number(after.attempt)?;
        let rest = to.text(&after.rest)?;
        to.and(format!(
            "(a.job, a.submitted_at, a.attempt, a.rest) > ({job}, {submitted}, {attempt}, {rest})"
        ));
    }
    Ok(())
}

fn window(to: &mut Statement, query: &HistoryQuery) -> Result<(), Fault> {
    if query.start > 0 {
        let start = to.number(query.start)?;
        to.and(format!("(a.ended_at >= {start} OR a.ended_at = 0)"));
    }
    if query.end > 0 {
        let end = to.number(query.end)?;
        to.and(if query.states.is_empty() {
            format!(
                "(CASE WHEN a.eligible_at > 0 THEN a.eligible_at ELSE a.submitted_at END) <= {end}"
            )
        } else {
            format!("a.ended_at <= {end}")
        });
    }
    Ok(())
}

fn chosen(to: &mut Statement, choice: &JobChoice) -> Result<String, Fault> {
    let job = to.number(i64::from(choice.job))?;
    let Some(tasks) = &choice.tasks else {
        return Ok(format!("(a.job = {job} OR a.array_id = {job})"));
    };
    let mut ranges = Vec::new();
    for (from, until) in tasks.ranges() {
        let from = to.number(i64::from(*from))?;
        let until = to.number(i64::from(*until))?;
        ranges.push(format!("a.array_task BETWEEN {from} AND {until}"));
    }
    // The rest of an array is one row: whether it holds a task asked for is decided by its reader.
    ranges.push("a.rest <> ''".to_owned());
    Ok(format!("(a.array_id = {job} AND ({}))", ranges.join(" OR ")))
}

fn user(to: &mut Statement, user: &str) -> Result<String, Fault> {
    let name = to.text(user)?;
    match user.parse::<u32>() {
        Ok(uid) => Ok(format!("(a.user_name = {name} OR a.uid = {})", to.number(i64::from(uid))?)),
        Err(_) => Ok(format!("a.user_name = {name}")),
    }
}

/// The node's name between the commas of the column, with `LIKE`'s wildcards made plain.
fn pattern(node: &str) -> String {
    let mut plain = String::with_capacity(node.len());
    for c in node.chars() {
        if matches!(c, '%' | '_' | '!') {
            plain.push('!');
        }
        plain.push(c);
    }
    format!("%,{plain},%")
}

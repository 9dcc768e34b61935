//! Stories of the history, on SQLite always and on PostgreSQL where one is offered.

use std::ops::AsyncFn;

use muster_model::IndexSet;
use muster_proto::v1::{self, JobState};

use super::*;

/// The URL of a PostgreSQL database that the tests may empty.
const POSTGRES: &str = "MUSTER_TEST_POSTGRES";

fn row(id: u32, attempt: u32, change: impl FnOnce(&mut v1::Job)) -> HistoryEntry {
    let mut job = v1::Job {
        id,
        attempt,
        submitted_at: 1_000,
        eligible_at: 1_000,
        started_at: 2_000,
        ended_at: 3_000,
        partition: "main".to_owned(),
        nodes: "n[1-2]".to_owned(),
        spec: Some(v1::JobSpec {
            name: format!("job{id}"),
            user: Some(v1::User { uid: 1000, gid: 1000, name: "alice".to_owned() }),
            account: "physics".to_owned(),
            ..Default::default()
        }),
        exit: Some(v1::ExitStatus { code: 3, signal: 0 }),
        ..Default::default()
    };
    job.set_state(JobState::Completed);
    change(&mut job);
    HistoryEntry { row: v1::HistoryRow { job: Some(job), steps: Vec::new() } }
}

fn spec(job: &mut v1::Job) -> &mut v1::JobSpec {
    job.spec.as_mut().expect("made with a spec")
}

/// Runs a story on an empty SQLite file and, where offered, on an emptied PostgreSQL database.
async fn on_each(story: impl AsyncFn(&History)) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/history.db", dir.path().display());
    let history = History::open(&url).await.unwrap();
    story(&history).await;
    history.close().await;
    let Ok(url) = std::env::var(POSTGRES) else {
        println!("PostgreSQL skipped: {POSTGRES} is not set");
        return;
    };
    // Stories run side by side: each has a schema, and so tables, of its own.
    let name = format!("t{:x}", rand_number());
    let admin = History::open(&url).await.unwrap();
    let make = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
    sqlx::query(make).execute(&admin.pool).await.unwrap();
    let joint = if url.contains('?') { '&' } else { '?' };
    let own = format!("{url}{joint}options=-c%20search_path%3D{name}");
    let history = History::open(&own).await.unwrap();
    story(&history).await;
    history.close().await;
    let drop = sqlx::AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"));
    sqlx::query(drop).execute(&admin.pool).await.unwrap();
}

fn rand_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

async fn found(history: &History, query: &HistoryQuery) -> Vec<(u32, u32)> {
    let mut query = query.clone();
    let mut all = Vec::new();
    loop {
        let page = history.query(&query).await.unwrap();
        all.extend(page.rows.iter().map(|r| {
            let job = r.job.as_ref().unwrap();
            (job.id, job.attempt)
        }));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

/// Asks `query` of a history with `entries`; expects these (job, attempt).
async fn check(entries: &[HistoryEntry], query: HistoryQuery, expected: &[(u32, u32)]) {
    on_each(async |history: &History| {
        history.record(entries).await.unwrap();
        assert_eq!(found(history, &query).await, expected, "{query:?}");
    })
    .await;
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

#[tokio::test]
async fn a_row_comes_back_whole() {
    on_each(async |history: &History| {
        let entry = row(7, 1, |job| spec(job).comment = "as it was".to_owned());
        history.record(std::slice::from_ref(&entry)).await.unwrap();
        let page = history.query(&HistoryQuery::default()).await.unwrap();
        assert_eq!(page.rows, std::slice::from_ref(&entry.row));
        assert_eq!(page.next, None);
    })
    .await;
}

#[tokio::test]
async fn a_row_written_twice_is_one_row_with_the_last_content() {
    on_each(async |history: &History| {
        let late = row(7, 1, |job| job.set_state(JobState::Failed));
        history.record(&[row(7, 1, |_| {}), row(7, 1, |_| {})]).await.unwrap();
        history.record(std::slice::from_ref(&late)).await.unwrap();
        let page = history.query(&HistoryQuery::default()).await.unwrap();
        assert_eq!(page.rows, std::slice::from_ref(&late.row));
    })
    .await;
}

#[tokio::test]
async fn only_the_last_attempt_is_shown_unless_duplicates_are_asked_for() {
    let entries = [
        row(7, 1, |job| job.set_state(JobState::Requeued)),
        row(7, 2, |_| {}),
        // The number was given again, to another job.
        row(8, 3, |_| {}),
        row(8, 1, |job| job.submitted_at = 9_000),
    ];
    check(&entries, HistoryQuery::default(), &[(7, 2), (8, 1)]).await;
    let all = HistoryQuery { duplicates: true, ..Default::default() };
    check(&entries, all, &[(7, 1), (7, 2), (8, 3), (8, 1)]).await;
}

#[tokio::test]
async fn filters_narrow_by_user_name_partition_account_state_and_node() {
    let entries = [
        row(1, 1, |_| {}),
        row(2, 1, |job| {
            spec(job).user = Some(v1::User { uid: 7, gid: 7, name: "bob".to_owned() });
        }),
        row(3, 1, |job| job.partition = "debug".to_owned()),
        row(4, 1, |job| job.set_state(JobState::Timeout)),
        row(5, 1, |job| job.nodes = "n_2,n[10-12]".to_owned()),
        row(6, 1, |job| spec(job).account = "chemistry".to_owned()),
    ];
    let base = HistoryQuery::default;
    let cases: [(HistoryQuery, &[(u32, u32)]); 9] = [
        (HistoryQuery { users: texts(&["bob"]), ..base() }, &[(2, 1)]),
        (HistoryQuery { users: texts(&["7"]), ..base() }, &[(2, 1)]),
        (HistoryQuery { names: texts(&["job1", "job3"]), ..base() }, &[(1, 1), (3, 1)]),
        (HistoryQuery { partitions: texts(&["debug"]), ..base() }, &[(3, 1)]),
        (HistoryQuery { accounts: texts(&["chemistry"]), ..base() }, &[(6, 1)]),
        (HistoryQuery { states: vec![JobState::Timeout as i32], ..base() }, &[(4, 1)]),
        (HistoryQuery { nodes: texts(&["n11"]), ..base() }, &[(5, 1)]),
        (HistoryQuery { nodes: texts(&["n_2"]), ..base() }, &[(5, 1)]),
        (HistoryQuery { users: texts(&["x' OR '1'='1"]), ..base() }, &[]),
    ];
    for (query, expected) in cases {
        check(&entries, query, expected).await;
    }
}

#[tokio::test]
async fn an_array_is_found_by_its_number_and_by_tasks() {
    let task = |id: u32, task: u32| {
        row(id, 1, |job| {
            job.array_id = 20;
            job.array_task = Some(task);
        })
    };
    let entries = [task(20, 0), task(21, 5), task(22, 9), row(30, 1, |_| {})];
    let whole = vec![JobChoice { job: 20, tasks: None }];
    let query = HistoryQuery { jobs: whole, ..Default::default() };
    check(&entries, query, &[(20, 1), (21, 1), (22, 1)]).await;
    let some = vec![
        JobChoice { job: 20, tasks: Some(IndexSet::from_ranges(vec![(4, 9)])) },
        JobChoice { job: 30, tasks: None },
    ];
    let query = HistoryQuery { jobs: some, ..Default::default() };
    check(&entries, query, &[(21, 1), (22, 1), (30, 1)]).await;
}

#[tokio::test]
async fn the_rest_of_an_array_and_its_first_task_do_not_hide_each_other() {
    let entries = [
        row(20, 1, |job| {
            job.array_id = 20;
            job.array_task = Some(0);
        }),
        row(20, 0, |job| {
            job.array_id = 20;
            job.array_tasks = "1-9".to_owned();
            job.set_state(JobState::Cancelled);
        }),
    ];
    check(&entries, HistoryQuery::default(), &[(20, 0), (20, 1)]).await;
}

#[tokio::test]
async fn a_window_keeps_what_was_alive_within_it_and_with_states_what_ended_within_it() {
    let at = |id: u32, eligible: i64, ended: i64| {
        row(id, 1, |job| {
            job.eligible_at = eligible;
            job.ended_at = ended;
        })
    };
    let entries = [at(1, 10, 20), at(2, 10, 50), at(3, 45, 90), at(4, 70, 90)];
    let window = HistoryQuery { start: 30, end: 60, ..Default::default() };
    check(&entries, window.clone(), &[(2, 1), (3, 1)]).await;
    let ended = HistoryQuery { states: vec![JobState::Completed as i32], ..window };
    check(&entries, ended, &[(2, 1)]).await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    on_each(async |history: &History| {
        let entries: Vec<HistoryEntry> = (1..=1_000).map(|id| row(id, 1, |_| {})).collect();
        history.record(&entries).await.unwrap();
        let query = HistoryQuery { limit: 99, ..Default::default() };
        let expected: Vec<(u32, u32)> = (1..=1_000).map(|id| (id, 1)).collect();
        assert_eq!(found(history, &query).await, expected);
    })
    .await;
}

#[tokio::test]
async fn rows_survive_closing_and_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/history.db", dir.path().display());
    let history = History::open(&url).await.unwrap();
    history.record(&[row(1, 1, |_| {})]).await.unwrap();
    history.close().await;
    let history = History::open(&url).await.unwrap();
    assert_eq!(found(&history, &HistoryQuery::default()).await, [(1, 1)]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/history.db", dir.path().display());
    let history = History::open(&url).await.unwrap();
    sqlx::query("INSERT INTO muster_schema (version) VALUES (99)")
        .execute(&history.pool)
        .await
        .unwrap();
    history.close().await;
    let refused = History::open(&url).await.unwrap_err();
    assert!(matches!(refused, HistoryError::Newer { found: 99, .. }), "{refused}");
}

#[tokio::test]
async fn a_message_names_the_database_without_its_password() {
    let url = "mysql://me:secret@db/muster?sslkey=x";
    let refused = History::open(url).await.unwrap_err().to_string();
    assert!(refused.contains("mysql://me@db/muster"), "{refused}");
    assert!(!refused.contains("secret"), "{refused}");
}

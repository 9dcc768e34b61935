//! `sacct`: jobs past and present, with their steps.
//!
//! - `options`: what was asked, and the window in time that follows from it
//! - `fields`: the columns
//! - `select`: which attempts fit

mod fields;
mod options;
mod select;

use muster_proto::v1::{self, HistoryRow, Job};

pub(super) use self::fields::{Row, View};
use self::options::{Action, Ask, Options};
use super::pick::{self, Pick};
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, json, shown};

const PROGRAM: &str = "sacct";
const LEAD: &str = "sacct: error: ";

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    match options::read(args, here) {
        Ok(Ask::Text(text)) => Output::text(text),
        Ok(Ask::History(options)) => show(&options, source, here).unwrap_or_else(|output| output),
        Err(output) => output,
    }
}

fn show(options: &Options, source: &mut dyn Source, here: &Surroundings) -> Result<Output, Output> {
    let failed = |fault| Output::failed(PROGRAM, LEAD, &fault);
    let cluster =
        if options.needs_cluster() { source.cluster().map_err(failed)? } else { String::new() };
    if let Some(other) = options.foreign_cluster(&cluster) {
        return Err(Output::error(PROGRAM, &super::unknown_cluster(other)));
    }
    let rows = load(options, source)?;
    match options.action {
        Action::Script => return scripts(&rows, false, source),
        Action::Environment => return scripts(&rows, true, source),
        Action::Json => {
            let about = json::About { command: PROGRAM, cluster: &cluster, here };
            return Ok(Output::text(json::history(&rows, &about)));
        }
        Action::Table => {}
    }
    let window = options.truncate.then_some((options.start, options.end.unwrap_or(here.now)));
    let view = View { here, units: options.units, cluster: &cluster, window };
    let names = fields::names();
    let mut out = String::new();
    if !options.no_header {
        out.push_str(&options.columns.header(&names));
    }
    for row in &rows {
        let Some(job) = &row.job else { continue };
        lines(options, row, job, &view, &mut out);
    }
    Ok(Output::text(out))
}

/// The job's line, then one for each of its steps.
fn lines(options: &Options, row: &HistoryRow, job: &Job, view: &View, out: &mut String) {
    let mut line = |row: &Row| {
        out.push_str(&options.columns.line(|field| (fields::FIELDS[field].value)(row, view)));
    };
    let named: Vec<&Pick> = options.jobs.iter().flatten().filter(|p| p.names(job)).collect();
    let wants = |step: Option<&str>| {
        named.is_empty() || named.iter().any(|p| p.step.is_none() || p.step.as_deref() == step)
    };
    if wants(None) {
        line(&Row { job, step: None, steps: &row.steps });
    }
    if options.allocations_only {
        return;
    }
    for step in row.steps.iter().filter(|step| wants(Some(&step.id))) {
        line(&Row { job, step: Some(step), steps: &row.steps });
    }
}

fn load(options: &Options, source: &mut dyn Source) -> Result<Vec<HistoryRow>, Output> {
    let picks = options.jobs.as_deref().unwrap_or_default();
    let request = v1::HistoryRequest {
        jobs: picks.iter().map(Pick::reference).collect(),
        filter: Some(v1::JobFilter {
            users: match &options.users {
                Some(uids) => uids.iter().map(u32::to_string).collect(),
                None => vec!["*".to_owned()],
            },
            ..v1::JobFilter::default()
        }),
        start: options.start,
        end: options.end.unwrap_or(0),
        duplicates: options.duplicates,
    };
    let keep = |row: &HistoryRow| row.job.as_ref().is_some_and(|job| select::keeps(options, job));
    let mut rows =
        source.history(&request, &keep).map_err(|fault| Output::failed(PROGRAM, LEAD, &fault))?;
    for job in rows.iter_mut().filter_map(|row| row.job.as_mut()) {
        pick::narrow(job, picks);
    }
    // An array's tasks stand together, and what has not started of it after them.
    rows.sort_by_key(|row| {
        let job = row.job.as_ref();
        job.map(|j| {
            (if j.array_id > 0 { j.array_id } else { j.id }, !j.array_tasks.is_empty(), j.id)
        })
    });
    if options.one_line_per_task {
        rows = rows.into_iter().flat_map(spread).collect();
    }
    Ok(rows)
}

fn spread(row: HistoryRow) -> Vec<HistoryRow> {
    let waiting = row.job.as_ref().map(pick::waiting).unwrap_or_default();
    if waiting.is_empty() {
        return vec![row];
    }
    let single = |index| {
        let mut row = row.clone();
        if let Some(job) = &mut row.job {
            job.array_task = Some(index);
            job.array_tasks.clear();
        }
        row
    };
    waiting.iter().map(single).collect()
}

/// `-B` and `--env-vars`: the stored texts, each under a headline.
fn scripts(
    rows: &[HistoryRow],
    environment: bool,
    source: &mut dyn Source,
) -> Result<Output, Output> {
    let mut out = String::new();
    for job in rows.iter().filter_map(|row| row.job.as_ref()) {
        // An array's tasks share the script of the array.
        let id = if job.array_id > 0 { job.array_id } else { job.id };
        let request = v1::GetScriptRequest { job: id, environment };
        let content =
            source.script(&request).map_err(|fault| Output::failed(PROGRAM, LEAD, &fault))?;
        let what = if environment { "Environment used" } else { "Batch Script" };
        out.push_str(&format!("{what} for {}\n{}\n", shown::id(job), "-".repeat(80)));
        let text = String::from_utf8_lossy(&content);
        let text = if environment { text.replace('\0', "\n") } else { text.into_owned() };
        out.push_str(shown::or(&text, "NONE").trim_end_matches('\n'));
        out.push('\n');
    }
    Ok(Output::text(out))
}

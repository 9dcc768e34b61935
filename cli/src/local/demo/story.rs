//! What the demo promises and how each promise is checked.

use std::fs;
use std::time::Duration;

use muster_proto::v1::{Job, JobState};

use super::stage::{Stage, say, typed};

/// How long the jobs of the story may take in all: several times what they need.
const PATIENCE: Duration = Duration::from_secs(40);

/// Something that the story promised.
pub(super) struct Promise {
    pub(super) text: String,
    pub(super) kept: bool,
    /// What was found, for a promise that was broken.
    pub(super) found: String,
}

fn promise(text: &str, kept: bool, found: impl Into<String>) -> Promise {
    Promise { text: text.to_owned(), kept, found: found.into() }
}

/// The jobs of the story, by what they show.
struct Cast {
    array: u32,
    after: u32,
    gang: u32,
    endless: u32,
    survivor: u32,
}

/// Plays the story and returns its promises.
pub(super) fn tell(stage: &Stage) -> anyhow::Result<Vec<Promise>> {
    let cast = submit(stage)?;
    let on_stage = [cast.gang, cast.endless, cast.survivor];
    let begun = stage.wait("jobs start", PATIENCE, |jobs| {
        on_stage.iter().all(|id| state(jobs, *id) == Some(JobState::Running))
    })?;
    typed("squeue");
    for line in stage.command(&["squeue"])?.lines() {
        say(line);
    }
    typed(&format!("scancel {}", cast.endless));
    stage.command(&["scancel", &cast.endless.to_string()])?;
    typed("kill -9 the controller, while jobs run; then start it again");
    let took = stage.crash_controller()?;
    say(&format!("the controller is back, and knows its nodes, after {:.2} s", took.as_secs_f64()));
    let done =
        stage.wait("all jobs", PATIENCE, |jobs| !jobs.is_empty() && jobs.iter().all(ended))?;
    let history = history(stage, &cast)?;
    let mut promises = vec![
        promise("jobs on several nodes ran at once", begun, "they did not start in time"),
        promise("every job came to its end", done, "some were still there"),
    ];
    promises.extend(array(stage, &cast, &history));
    promises.push(after(stage, &cast, &history));
    promises.push(gang(stage, &cast, &history));
    promises.push(cancelled(&cast, &history));
    promises.push(survivor(stage, &cast, &history));
    Ok(promises)
}

fn submit(stage: &Stage) -> anyhow::Result<Cast> {
    let array = stage.submit(&[
        "--array=0-15",
        "--job-name=array",
        "--output=array-%a.out",
        "--wrap=sleep 0.2; echo task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT",
    ])?;
    let after = stage.submit(&[
        &format!("--dependency=afterok:{array}"),
        "--job-name=after",
        "--output=after.out",
        "--wrap=ls array-*.out | wc -l",
    ])?;
    let gang = stage.submit(&[
        "--nodes=2",
        "--gpus-per-node=demo:4",
        "--job-name=gang",
        "--output=gang.out",
        "--wrap=sleep 2; echo nodes $SLURM_JOB_NODELIST count $SLURM_JOB_NUM_NODES gpus $CUDA_VISIBLE_DEVICES",
    ])?;
    let endless = stage.submit(&[
        "--job-name=endless",
        "--output=endless.out",
        "--wrap=sleep 600; echo never seen",
    ])?;
    let survivor = stage.submit(&[
        "--job-name=survivor",
        "--output=survivor.out",
        "--wrap=echo start; sleep 3; echo end; exit 7",
    ])?;
    Ok(Cast { array, after, gang, endless, survivor })
}

fn state(jobs: &[Job], id: u32) -> Option<JobState> {
    jobs.iter().find(|job| job.id == id).map(Job::state)
}

fn ended(job: &Job) -> bool {
    !matches!(
        job.state(),
        JobState::Pending
            | JobState::Requeued
            | JobState::Configuring
            | JobState::Running
            | JobState::Suspended
            | JobState::Completing
    )
}

/// A line of `sacct`: state, exit code, restarts.
struct Row {
    id: String,
    state: String,
    exit: String,
}

fn history(stage: &Stage, cast: &Cast) -> anyhow::Result<Vec<Row>> {
    let ids = [cast.array, cast.after, cast.gang, cast.endless, cast.survivor];
    let list = ids.map(|id| id.to_string()).join(",");
    let words = ["sacct", "-X", "-j", &list, "-o", "JobID,JobName,State,ExitCode,Elapsed,NodeList"];
    typed(&words.join(" "));
    for line in stage.command(&words)?.lines() {
        say(line);
    }
    let table =
        stage.command(&["sacct", "-X", "-n", "-P", "-j", &list, "-o", "JobID,State,ExitCode"])?;
    Ok(table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::to_owned);
            Some(Row { id: fields.next()?, state: fields.next()?, exit: fields.next()? })
        })
        .collect())
}

fn row(history: &[Row], id: u32) -> (String, String) {
    let id = id.to_string();
    let found = history.iter().find(|row| row.id == id);
    found.map_or_else(
        || ("absent".to_owned(), String::new()),
        |row| (row.state.clone(), row.exit.clone()),
    )
}

fn text(stage: &Stage, file: &str) -> String {
    fs::read_to_string(stage.output.join(file)).unwrap_or_else(|fault| format!("{file}: {fault}"))
}

fn array(stage: &Stage, cast: &Cast, history: &[Row]) -> Vec<Promise> {
    let prefix = format!("{}_", cast.array);
    let completed = history
        .iter()
        .filter(|row| row.id.starts_with(&prefix) && row.state == "COMPLETED" && row.exit == "0:0")
        .count();
    let wrong: Vec<String> = (0..16)
        .map(|task| (task, text(stage, &format!("array-{task}.out"))))
        .filter(|(task, said)| *said != format!("task {task} of 16\n"))
        .map(|(task, said)| format!("task {task} wrote {said:?}"))
        .collect();
    vec![
        promise(
            "16 array tasks completed, each with a row of its own",
            completed == 16,
            format!("{completed} of 16 did"),
        ),
        promise("each task wrote its own output", wrong.is_empty(), wrong.join("; ")),
    ]
}

fn after(stage: &Stage, cast: &Cast, history: &[Row]) -> Promise {
    let (state, _) = row(history, cast.after);
    let saw = text(stage, "after.out");
    promise(
        "the dependent job started after the whole array and saw its 16 files",
        state == "COMPLETED" && saw.trim() == "16",
        format!("it is {state} and wrote {saw:?}"),
    )
}

fn gang(stage: &Stage, cast: &Cast, history: &[Row]) -> Promise {
    let (state, _) = row(history, cast.gang);
    let said = text(stage, "gang.out");
    let words: Vec<&str> = said.split_whitespace().collect();
    let right = matches!(words.as_slice(), ["nodes", list, "count", "2", "gpus", "0,1,2,3"]
        if muster_model::Hostlist::parse(list).is_ok_and(|hosts| hosts.0.len() == 2));
    promise(
        "the gang held two nodes and all four GPUs of its first at once",
        state == "COMPLETED" && right,
        format!("it is {state} and wrote {said:?}"),
    )
}

fn cancelled(cast: &Cast, history: &[Row]) -> Promise {
    let (state, _) = row(history, cast.endless);
    promise(
        "the cancelled job ended by its signal",
        state.starts_with("CANCELLED"),
        format!("it is {state}"),
    )
}

fn survivor(stage: &Stage, cast: &Cast, history: &[Row]) -> Promise {
    let (state, exit) = row(history, cast.survivor);
    let said = text(stage, "survivor.out");
    promise(
        "a job that ran while the controller was killed went on, once, and its exit code 7 is known",
        state == "FAILED" && exit == "7:0" && said == "start\nend\n",
        format!("it is {state} {exit} and wrote {said:?}"),
    )
}

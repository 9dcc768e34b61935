//! `scancel`: cancel or signal jobs, by id or by filter.

use std::io::{BufRead as _, Write as _};

use muster_proto::v1;
use tonic::Response;

use crate::connect::{CallError, Client};
use crate::exit;
use crate::getopt::{self, Opt, Parsed, Spec, Takes, alias, both, long};
use crate::query::pick::{Pick, words};
use crate::query::shown;
use crate::query::states::Wanted;
use crate::query::surroundings::Surroundings;
use crate::submit::values::signal_number;

const PROGRAM: &str = "scancel";
/// "Job/step already completing or completed": what was wished has happened.
const ALREADY_DONE: [u32; 2] = [2021, 2084];

const OPTIONS: &[Opt] = &[
    both("account", 'A', Takes::Value),
    both("batch", 'b', Takes::Nothing),
    long("cron", Takes::Nothing),
    long("ctld", Takes::Nothing),
    both("full", 'f', Takes::Nothing),
    long("help", Takes::Nothing),
    both("hurry", 'H', Takes::Nothing),
    both("interactive", 'i', Takes::Nothing),
    long("me", Takes::Nothing),
    both("clusters", 'M', Takes::Value),
    both("name", 'n', Takes::Value),
    alias("name", "jobname", Takes::Value),
    both("nodelist", 'w', Takes::Value),
    both("partition", 'p', Takes::Value),
    both("qos", 'q', Takes::Value),
    both("quiet", 'Q', Takes::Nothing),
    both("reservation", 'R', Takes::Value),
    long("sibling", Takes::Value),
    both("signal", 's', Takes::Value),
    both("state", 't', Takes::Value),
    long("usage", Takes::Nothing),
    both("user", 'u', Takes::Value),
    both("verbose", 'v', Takes::Nothing),
    both("version", 'V', Takes::Nothing),
    long("wckey", Takes::Value),
];

const SPEC: Spec = Spec { program: PROGRAM, options: OPTIONS, stop_at_operand: false };

const HELP: &str = "\
usage: scancel [OPTIONS] [JOB[_TASK]...]

  -A, --account=NAME      of this account
  -b, --batch             signal the batch shell alone
  -f, --full              signal the batch shell and its children
  -i, --interactive       ask for each job
      --me                of mine
  -n, --name=NAME         of this name
  -w, --nodelist=NODES    on one of these nodes
  -p, --partition=NAME    of this partition
  -q, --qos=NAME          of this quality of service
  -Q, --quiet             say nothing of jobs that have ended
  -s, --signal=SIGNAL     send this signal alone
  -t, --state=STATE       in this state: PENDING, RUNNING or SUSPENDED
  -u, --user=NAME         of this user
  -v, --verbose           say what is done
";

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Order {
    request: v1::CancelRequest,
    /// Of the jobs in it those that are named as components of others.
    components: Vec<Pick>,
    interactive: bool,
    verbose: bool,
    quiet: bool,
}

/// The command.
#[must_use]
pub fn scancel(args: &[String]) -> i32 {
    let mut parsed = match getopt::parse(&SPEC, args) {
        Ok(parsed) => parsed,
        Err(usage) => {
            eprintln!("{usage}");
            return exit::FAILED;
        }
    };
    if parsed.has("help") || parsed.has("usage") {
        exit::print(HELP);
        return exit::OK;
    }
    if parsed.has("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return exit::OK;
    }
    let (steps, rest) = crate::step::among(&parsed.operands);
    if !steps.is_empty() {
        let signal = parsed.last("signal").map_or(Some(0), signal_number);
        let Some(signal) = signal else {
            exit::error(PROGRAM, "Unknown job signal");
            return exit::FAILED;
        };
        let code = crate::step::cancel(PROGRAM, &steps, signal);
        if rest.is_empty() {
            return code;
        }
        parsed.operands = rest;
    }
    let order = match order(&parsed, &Surroundings::here()) {
        Ok(order) => order,
        Err(fault) => {
            exit::error(PROGRAM, &fault);
            return exit::FAILED;
        }
    };
    match Client::find(PROGRAM).and_then(|mut client| carry_out(&mut client, order)) {
        Ok(code) => code,
        Err(error) => {
            if let Some(detail) = error.detail() {
                exit::say(PROGRAM, &detail);
            }
            exit::error(PROGRAM, &format!("Kill job error: {}", error.slurm_text()));
            exit::FAILED
        }
    }
}

fn order(parsed: &Parsed, here: &Surroundings) -> Result<Order, String> {
    for (id, why) in [
        ("sibling", "there are no federations"),
        ("cron", "there are no cron jobs"),
        ("wckey", "jobs are not looked up by their wckey"),
    ] {
        if parsed.has(id) {
            return Err(format!("--{id} is not supported: {why}"));
        }
    }
    let set = |id: &str| parsed.has(id) || here.variable(&variable(id)).is_some();
    let value = |id: &str| {
        parsed
            .last(id)
            .map(str::to_owned)
            .or_else(|| here.variable(&variable(id)).map(str::to_owned))
    };
    let list = |id: &str| value(id).map(|text| words(&text)).unwrap_or_default();
    let mut picks = Vec::new();
    for operand in &parsed.operands {
        picks.extend(references(operand)?);
    }
    let jobs: Vec<v1::JobRef> = picks.iter().map(Pick::reference).collect();
    picks.retain(|pick| pick.leader.is_some());
    let filter = v1::JobFilter {
        users: users(parsed, value("user"), here)?,
        names: list("name"),
        partitions: list("partition"),
        states: states(value("state"))?,
        nodes: nodes(value("nodelist"))?,
        accounts: list("account"),
        qos: list("qos"),
        reservations: list("reservation"),
    };
    if jobs.is_empty() && filter == v1::JobFilter::default() {
        return Err("No job identification provided".to_owned());
    }
    let signal = match parsed.last("signal") {
        None => 0,
        Some(text) => signal_number(text).ok_or_else(|| format!("Unknown job signal: {text}"))?,
    };
    let narrow = filter != v1::JobFilter::default();
    Ok(Order {
        request: v1::CancelRequest {
            jobs,
            filter: narrow.then_some(filter),
            signal,
            batch_only: set("batch"),
            full: set("full"),
        },
        components: picks,
        interactive: set("interactive"),
        verbose: set("verbose"),
        quiet: parsed.has("quiet"),
    })
}

fn variable(id: &str) -> String {
    format!("SCANCEL_{}", id.to_ascii_uppercase())
}

/// `12`, `12_4`, `12_[1-5]`, `12_*`, `12+1`, `12,13`.
fn references(text: &str) -> Result<Vec<Pick>, String> {
    if let Some(id) = text.strip_suffix("_*") {
        return references(id);
    }
    let picks = Pick::list(text).map_err(|item| format!("Invalid job id {item}"))?;
    if let Some(pick) = picks.iter().find(|p| p.step.is_some()) {
        let step = pick.step.as_deref().unwrap_or_default();
        return Err(format!(
            "{}.{step}: steps cannot be cancelled alone; cancel job {}",
            pick.job, pick.job
        ));
    }
    if picks.is_empty() {
        return Err(format!("Invalid job id {text}"));
    }
    Ok(picks)
}

fn users(
    parsed: &Parsed,
    user: Option<String>,
    here: &Surroundings,
) -> Result<Vec<String>, String> {
    if parsed.has("me") {
        return Ok(vec![here.uid.to_string()]);
    }
    let Some(list) = user else { return Ok(Vec::new()) };
    words(&list)
        .iter()
        .map(|name| {
            let uid = here.user(name).ok_or_else(|| format!("Invalid user name: {name}"))?;
            Ok(uid.to_string())
        })
        .collect()
}

fn states(text: Option<String>) -> Result<Vec<String>, String> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let bad = |word: &str| {
        format!(
            "Invalid job state specified: {word}\nValid job states are: PENDING,RUNNING,SUSPENDED"
        )
    };
    match Wanted::parse(&text).map_err(|word| bad(&word))? {
        Wanted::These(states) => {
            let open = ["PENDING", "RUNNING", "SUSPENDED"];
            match states.iter().find(|s| !open.contains(s)) {
                Some(word) => Err(bad(word)),
                None => Ok(states.into_iter().map(str::to_owned).collect()),
            }
        }
        Wanted::All => Err(bad("all")),
    }
}

fn nodes(text: Option<String>) -> Result<Vec<String>, String> {
    let Some(text) = text else { return Ok(Vec::new()) };
    Ok(muster_model::Hostlist::parse(&text).map_err(|fault| fault.to_string())?.0)
}

fn carry_out(client: &mut Client, mut order: Order) -> Result<i32, CallError> {
    let mut code = exit::OK;
    for pick in std::mem::take(&mut order.components) {
        if is_another(client, &pick)? {
            let text =
                format!("Kill job error on job id {}: Invalid job id specified", pick.text());
            exit::error(PROGRAM, &text);
            code = exit::FAILED;
            // The job of that number may be named by itself as well.
            let jobs = &mut order.request.jobs;
            if let Some(at) = jobs.iter().position(|named| *named == pick.reference()) {
                jobs.remove(at);
            }
        }
    }
    if code != exit::OK && order.request.jobs.is_empty() {
        return Ok(code);
    }
    if order.interactive {
        order.request.jobs = confirmed(client, &order.request)?;
        order.request.filter = None;
        if order.request.jobs.is_empty() {
            return Ok(code);
        }
    }
    let request = order.request.clone();
    let reply = client
        .call(async |mut api| api.jobs.cancel(request.clone()).await.map(Response::into_inner))?;
    for result in &reply.results {
        let (text, failed) = line(result, &order);
        code = if failed { exit::FAILED } else { code };
        match text {
            Some(text) if failed => exit::error(PROGRAM, &text),
            Some(text) => exit::say(PROGRAM, &text),
            None => {}
        }
    }
    Ok(code)
}

/// Whether the number belongs to a job that is no component of the one it is named after. One that
/// nobody knows is the controller's to refuse.
fn is_another(client: &mut Client, pick: &Pick) -> Result<bool, CallError> {
    let request = v1::ListJobsRequest {
        jobs: vec![pick.reference()],
        all_states: true,
        ..v1::ListJobsRequest::default()
    };
    match super::list_jobs(client, &request) {
        Ok(found) => Ok(found.iter().any(|job| job.id == pick.job && !pick.may_be(job))),
        Err(CallError::Refused(_)) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// What is said about one job, and whether it is a failure.
fn line(result: &v1::VerbResult, order: &Order) -> (Option<String>, bool) {
    let id = &result.shown;
    match &result.error {
        None if !order.verbose => (None, false),
        None if order.request.signal == 0 => (Some(format!("Terminating job {id}")), false),
        None => (Some(format!("Signal {} to job {id}", order.request.signal)), false),
        Some(detail) => {
            let text = format!("Kill job error on job id {id}: {}", detail.slurm_text);
            if ALREADY_DONE.contains(&detail.slurm_errno) {
                return ((order.verbose && !order.quiet).then_some(text), false);
            }
            (Some(text), true)
        }
    }
}

/// Asks about each job that the order would meet.
fn confirmed(
    client: &mut Client,
    request: &v1::CancelRequest,
) -> Result<Vec<v1::JobRef>, CallError> {
    let list = v1::ListJobsRequest {
        jobs: request.jobs.clone(),
        filter: request.filter.clone(),
        ..v1::ListJobsRequest::default()
    };
    let mut chosen = Vec::new();
    for job in super::list_jobs(client, &list)? {
        let (id, name) = (shown::id(&job), &shown::spec(&job).name);
        print!("Cancel job_id={id} name={name} partition={} [y/n]? ", shown::partition(&job));
        let _ = std::io::stdout().flush();
        let mut answer = String::new();
        // The end of the input means no.
        let read = std::io::stdin().lock().read_line(&mut answer).unwrap_or(0);
        if read > 0 && answer.trim_start().starts_with(['y', 'Y']) {
            chosen.push(match job.array_task {
                Some(task) => v1::JobRef { job: job.array_id, tasks: task.to_string() },
                None => v1::JobRef { job: job.id, tasks: String::new() },
            });
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            uid: 1000,
            variables: variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            uid_of: |name| (name == "ann").then_some(1001),
            ..Surroundings::here()
        }
    }

    fn read(line: &str, variables: &[(&str, &str)]) -> Result<Order, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = getopt::parse(&SPEC, &words).map_err(|usage| usage.to_string())?;
        order(&parsed, &here(variables))
    }

    #[track_caller]
    fn check(line: &str, jobs: &[(u32, &str)], filter: Option<v1::JobFilter>, signal: i32) {
        let order = read(line, &[]).expect(line);
        let got: Vec<_> = order.request.jobs.iter().map(|j| (j.job, j.tasks.as_str())).collect();
        assert_eq!(got, jobs, "{line}");
        assert_eq!(order.request.filter, filter, "{line}");
        assert_eq!(order.request.signal, signal, "{line}");
    }

    #[track_caller]
    fn refuse(line: &str, fault: &str) {
        assert_eq!(read(line, &[]).expect_err(line).lines().next(), Some(fault));
    }

    #[test]
    fn every_form_of_an_order_is_read() {
        let filter = v1::JobFilter::default;
        check("12", &[(12, "")], None, 0);
        check("12_4 12_[1-5] 13_*", &[(12, "4"), (12, "1-5"), (13, "")], None, 0);
        check("7,8", &[(7, ""), (8, "")], None, 0);
        check("12 --signal SIGTERM", &[(12, "")], None, 15);
        check("--signal=USR2 12", &[(12, "")], None, 12);
        let mine = v1::JobFilter { users: vec!["1000".into()], ..filter() };
        check("--me", &[], Some(mine), 0);
        let anns = v1::JobFilter {
            users: vec!["1001".into()],
            states: vec!["PENDING".into()],
            ..filter()
        };
        check("-u ann -t PD", &[], Some(anns), 0);
        let named = v1::JobFilter { names: vec!["x".into()], ..filter() };
        check("--jobname=x", &[], Some(named), 0);
        let kept = v1::JobFilter { reservations: vec!["r".into()], ..filter() };
        check("-R r", &[], Some(kept), 0);
    }

    #[test]
    fn a_wrong_order_is_named() {
        refuse("", "No job identification provided");
        refuse("abc", "Invalid job id abc");
        refuse("-s FOO 1", "Unknown job signal: FOO");
        refuse("-u nobodyknown", "Invalid user name: nobodyknown");
        refuse("-t CD", "Invalid job state specified: COMPLETED");
        refuse("12.0", "12.0: steps cannot be cancelled alone; cancel job 12");
    }

    #[test]
    fn variables_stand_in_for_options() {
        let order = read("", &[("SCANCEL_NAME", "x"), ("SCANCEL_VERBOSE", "1")]).expect("a name");
        assert_eq!(order.request.filter.expect("a filter").names, ["x"]);
        assert!(order.verbose);
    }

    #[test]
    fn success_is_silent_and_an_ended_job_is_no_failure() {
        let quiet = Order::default();
        let loud = Order { verbose: true, ..Order::default() };
        let done = v1::VerbResult { job: 9, shown: "9".into(), error: None };
        assert_eq!(line(&done, &quiet), (None, false));
        assert_eq!(line(&done, &loud), (Some("Terminating job 9".into()), false));
        let failed = |errno, text: &str| v1::VerbResult {
            error: Some(v1::ErrorDetail {
                slurm_errno: errno,
                slurm_text: text.into(),
                message: String::new(),
            }),
            ..done.clone()
        };
        let ended = failed(2021, "Job/step already completing or completed");
        assert_eq!(line(&ended, &quiet), (None, false));
        let unknown = failed(2017, "Invalid job id specified");
        let text = "Kill job error on job id 9: Invalid job id specified";
        assert_eq!(line(&unknown, &quiet), (Some(text.into()), true));
    }
}

//! `scontrol update KEY=VALUE ...`: of jobs, nodes, partitions and reservations.
//!
//! The tables say which keys there are; what is not in them is refused by name.

use muster_model::{Constraint, Dependency, Hostlist, SwitchWish, time};
use muster_proto::convert::values::limit_out;
use muster_proto::v1::{self, GresScope, NodeVerb, update_job_request::Time};
use tonic::Response;

use super::act::shown;
use super::{PROGRAM, failed, reservation};
use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::query::pick::Pick;
use crate::query::surroundings::Surroundings;
use crate::query::times;
use crate::submit::gpus;
use crate::submit::topology;
use crate::submit::values;

mod keys;

use keys::{JOB, NODE, PARTITION, key, unsupported};

/// What an update is about.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// Once for each of these jobs.
    Jobs(Vec<v1::JobRef>, Box<v1::UpdateJobRequest>),
    Nodes(v1::UpdateNodesRequest),
    Partition(v1::UpdatePartitionRequest),
    Reservation(Box<v1::UpdateReservationRequest>),
}

/// The verb.
pub(super) fn update(words: &[String], here: &Surroundings) -> i32 {
    let change = match read(words, here) {
        Ok(change) => change,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    let mut client = match super::super::open(PROGRAM, "slurm_update") {
        Ok(client) => client,
        Err(code) => return code,
    };
    match change {
        Change::Jobs(jobs, request) => update_jobs(&mut client, jobs, &request),
        Change::Nodes(request) => {
            let answer = client.call(async |mut api: Api| {
                api.admin.update_nodes(request.clone()).await.map(|_| ())
            });
            said(answer)
        }
        Change::Partition(request) => {
            let answer = client.call(async |mut api: Api| {
                api.admin.update_partition(request.clone()).await.map(|_| ())
            });
            said(answer)
        }
        Change::Reservation(request) => reservation::update(&mut client, &request),
    }
}

fn said(answer: Result<(), CallError>) -> i32 {
    match answer {
        Ok(()) => exit::OK,
        Err(error) => failed("slurm_update", &error),
    }
}

fn update_jobs(client: &mut Client, jobs: Vec<v1::JobRef>, change: &v1::UpdateJobRequest) -> i32 {
    let mut code = exit::OK;
    for job in jobs {
        let request = v1::UpdateJobRequest { job: Some(job.clone()), ..change.clone() };
        let answer = client.call(async |mut api: Api| {
            api.jobs.update(request.clone()).await.map(Response::into_inner)
        });
        let mut say = |id: &str, error: &CallError| {
            if let Some(detail) = error.detail() {
                exit::say(PROGRAM, &detail);
            }
            eprintln!("{} for job {id}", error.slurm_text());
            code = exit::FAILED;
        };
        match answer {
            Ok(reply) => {
                for result in reply.results {
                    if let Some(detail) = result.error {
                        say(&result.shown, &CallError::Refused(detail));
                    }
                }
            }
            Err(error @ CallError::Refused(_)) => say(&shown(&job), &error),
            Err(error) => return failed("slurm_update", &error),
        }
    }
    code
}

/// `KEY=VALUE` pairs, keys in lower case.
fn pairs(words: &[String]) -> Result<Vec<(String, &str)>, String> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_ascii_lowercase(), value)),
            _ => Err(keys::meaningless(word)),
        })
        .collect()
}

fn read(words: &[String], here: &Surroundings) -> Result<Change, String> {
    let pairs = pairs(words)?;
    let subject = |names: &[&str]| {
        pairs.iter().find(|(k, _)| names.contains(&k.as_str())).map(|(_, value)| *value)
    };
    if let Some(jobs) = subject(&["jobid", "job"]) {
        let bad = |_| format!("Invalid job id specified for job {jobs}");
        let picks = Pick::list(jobs).map_err(bad)?;
        let request = job(&pairs, here)?;
        return Ok(Change::Jobs(picks.iter().map(Pick::reference).collect(), Box::new(request)));
    }
    if let Some(nodes) = subject(&["nodename", "node"]) {
        return node(nodes, &pairs).map(Change::Nodes);
    }
    if let Some(name) = subject(&["partitionname"]) {
        return partition(name, &pairs).map(Change::Partition);
    }
    if subject(&["reservationname", "reservation"]).is_some() {
        let request = reservation::read_update(words, here)?;
        return Ok(Change::Reservation(Box::new(request)));
    }
    for (word, why) in [("stepid", "steps"), ("frontendname", "front ends")] {
        if subject(&[word]).is_some() {
            return Err(format!("{PROGRAM}: error: {why} cannot be updated"));
        }
    }
    Err("No valid entity in update command\n\
         Input line must include \"NodeName\", \"JobId\", \"PartitionName\" or \"ReservationName\""
        .to_owned())
}

fn invalid(key: &str, value: &str) -> String {
    format!("Invalid {key} value: {value}")
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| invalid(key, value))
}

/// One job's changes; the job itself is set by the caller.
fn job(pairs: &[(String, &str)], here: &Surroundings) -> Result<v1::UpdateJobRequest, String> {
    let mut request = v1::UpdateJobRequest::default();
    for (given, value) in pairs {
        // `TimeLimit+=5` and `TimeLimit-=5` step from the present one.
        let (name, sign) = match given.strip_suffix(['+', '-']) {
            Some(name) => (name, &given[name.len()..]),
            None => (given.as_str(), ""),
        };
        if name == "jobid" || name == "job" {
            continue;
        }
        let key = key(&JOB, name).ok_or_else(|| unsupported(&JOB, given, value))?;
        if !sign.is_empty() && key != "timelimit" {
            return Err(unsupported(&JOB, given, value));
        }
        if key == "timelimit" {
            request.time = Some(time_change(sign, value)?);
        } else if !words_of(&mut request, key, value)? && !sizes_of(&mut request, key, value)? {
            times_of(&mut request, key, value, here)?;
        }
    }
    Ok(request)
}

/// Keys whose values are texts; whether it was one of them.
fn words_of(request: &mut v1::UpdateJobRequest, key: &str, value: &str) -> Result<bool, String> {
    let text = Some(value.to_owned());
    let hosts = || match Hostlist::parse(value) {
        Ok(_) => Ok(Some(value.to_owned())),
        Err(fault) => Err(fault.to_string()),
    };
    match key {
        "account" => request.account = text,
        "admincomment" => request.admin_comment = text,
        "comment" => request.comment = text,
        "dependency" => {
            if !value.is_empty() {
                Dependency::parse(value).map_err(|fault| fault.to_string())?;
            }
            request.dependency = text;
        }
        "excnodelist" => request.excluded_nodes = hosts()?,
        "features" => {
            if !value.is_empty() {
                Constraint::parse(value).map_err(|fault| fault.to_string())?;
            }
            request.constraint = text;
        }
        "jobname" | "name" => request.name = text,
        "licenses" => request.licenses = text,
        "mailtype" => {
            request.mail_type = Some(values::mail_type(value).map_err(|_| invalid(key, value))?);
        }
        "mailuser" => request.mail_user = text,
        "partition" => request.partitions = text,
        "qos" => request.qos = text,
        "reqnodelist" => request.required_nodes = hosts()?,
        "reservation" | "reservationname" => request.reservation = text,
        "stderr" => request.stderr = text,
        "stdout" => request.stdout = text,
        "wckey" => request.wckey = text,
        "workdir" => request.workdir = text,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Keys whose values are counts and sizes; whether it was one of them.
fn sizes_of(request: &mut v1::UpdateJobRequest, key: &str, value: &str) -> Result<bool, String> {
    use v1::memory::Request;
    let memory = |make: fn(u64) -> Request| {
        let mib = values::mebibytes(value).ok_or_else(|| invalid(key, value))?;
        Ok::<_, String>(Some(v1::Memory { request: Some(make(mib)) }))
    };
    match key {
        "arraytaskthrottle" => request.array_throttle = Some(number(key, value)?),
        "cpus/task" | "cpuspertask" => request.cpus_per_task = Some(number(key, value)?),
        "contiguous" => {
            let on = values::yes_or_no(value).ok_or_else(|| invalid(key, value))?;
            request.contiguous = Some(on);
        }
        "switches" => {
            let wish = match value.split('@').next() {
                Some("0" | "") => SwitchWish { count: 0, max_wait_seconds: 0 },
                _ => topology::switches(value, None).map_err(|_| invalid(key, value))?,
            };
            request.max_switches = Some(wish.count);
            request.switch_wait_seconds = wish.max_wait_seconds;
        }
        "gres" | "trespernode" => gres_of(request, GresScope::Node, key, value)?,
        "tresperjob" => gres_of(request, GresScope::Job, key, value)?,
        "trespersocket" => gres_of(request, GresScope::Socket, key, value)?,
        "trespertask" => gres_of(request, GresScope::Task, key, value)?,
        "minmemorycpu" => request.memory = memory(Request::PerCpuMib)?,
        "minmemorynode" => request.memory = memory(Request::PerNodeMib)?,
        "nice" => {
            let value = if value.is_empty() { None } else { Some(value) };
            request.nice =
                Some(values::nice(value).map_err(|_| invalid(key, value.unwrap_or("")))?);
        }
        "numcpus" => {
            // A maximum is accepted in Slurm's grammar and has no meaning there either.
            let least = value.split('-').next().unwrap_or_default();
            request.num_cpus = Some(number(key, least)?);
        }
        "numnodes" => {
            let (min, max) = values::nodes(value).map_err(|_| invalid(key, value))?;
            (request.min_nodes, request.max_nodes) = (Some(min), Some(max));
        }
        "numtasks" => request.tasks = Some(number(key, value)?),
        "priority" => request.priority = Some(number(key, value)?),
        "requeue" => {
            request.requeue = Some(values::yes_or_no(value).ok_or_else(|| invalid(key, value))?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Keys of one line add up; together they replace what was asked for before.
fn gres_of(
    request: &mut v1::UpdateJobRequest,
    scope: GresScope,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let asked = gpus::per_node(value).map_err(|_| invalid(key, value))?;
    let scoped = |gres| v1::GresRequest { scope: scope.into(), ..gres };
    request.gres.extend(asked.into_iter().map(scoped));
    request.gres_set = true;
    Ok(())
}

fn times_of(
    request: &mut v1::UpdateJobRequest,
    key: &str,
    value: &str,
    here: &Surroundings,
) -> Result<(), String> {
    let at = match value {
        "" | "0" => 0,
        text => times::parse(text, &here.zone, here.now).map_err(|fault| fault.to_string())?,
    };
    match key {
        "starttime" => request.begin = Some(at),
        "endtime" => request.time = Some(Time::End(at)),
        _ => request.deadline = Some(at),
    }
    Ok(())
}

/// `5`, `+5`, `-1:00:00`, `UNLIMITED`.
fn time_change(sign: &str, value: &str) -> Result<Time, String> {
    let bad = || invalid("TimeLimit", value);
    // `-1` is Slurm's other word for UNLIMITED.
    let (sign, text) = match value.strip_prefix(['+', '-']) {
        Some(rest) if sign.is_empty() && value != "-1" => (&value[..1], rest),
        _ => (sign, value),
    };
    if sign.is_empty() {
        return time::parse_limit(text).map(limit_out).map(Time::TimeLimit).map_err(|_| bad());
    }
    let seconds = time::parse_seconds(text).ok().flatten().ok_or_else(bad)?;
    let minutes = i32::try_from((seconds + 59) / 60).map_err(|_| bad())?;
    Ok(Time::TimeDeltaMinutes(if sign == "-" { -minutes } else { minutes }))
}

fn node(nodes: &str, pairs: &[(String, &str)]) -> Result<v1::UpdateNodesRequest, String> {
    if !nodes.eq_ignore_ascii_case("ALL") {
        Hostlist::parse(nodes).map_err(|fault| fault.to_string())?;
    }
    let mut request = v1::UpdateNodesRequest { nodes: nodes.to_owned(), ..Default::default() };
    for (given, value) in pairs.iter().filter(|(k, _)| k != "nodename" && k != "node") {
        match key(&NODE, given).ok_or_else(|| unsupported(&NODE, given, value))? {
            "state" => request.verb = node_verb(value)? as i32,
            "reason" => request.reason = (*value).to_owned(),
            "weight" => request.weight = Some(number(given, value)?),
            "comment" => request.comment = Some((*value).to_owned()),
            "gpu" => request.gpus = gpus(given, value)?,
            _ => request.features = Some((*value).to_owned()),
        }
    }
    let needs_reason = matches!(request.verb(), NodeVerb::Drain | NodeVerb::Down);
    if needs_reason && request.reason.is_empty() {
        let doing = if request.verb() == NodeVerb::Drain { "DRAINING" } else { "DOWNING" };
        return Err(format!("You must specify a reason when {doing} a node\nRequest denied"));
    }
    Ok(request)
}

/// `Gpu=3` or `Gpu=0-3,6`: units of each of the nodes.
fn gpus(given: &str, value: &str) -> Result<Vec<u32>, String> {
    let list = muster_proto::convert::node::cpus_in(value).map_err(|_| invalid(given, value))?;
    let units: Vec<u32> = list.iter().collect();
    if units.is_empty() { Err(invalid(given, value)) } else { Ok(units) }
}

fn node_verb(state: &str) -> Result<NodeVerb, String> {
    let upper = state.to_ascii_uppercase();
    match upper.as_str() {
        "DRAIN" => Ok(NodeVerb::Drain),
        "DOWN" => Ok(NodeVerb::Down),
        // IDLE is how older scripts say it.
        "RESUME" | "IDLE" => Ok(NodeVerb::Resume),
        "UNDRAIN" => Ok(NodeVerb::Undrain),
        "FAIL" | "FUTURE" | "NORESP" | "POWER_DOWN" | "POWER_DOWN_ASAP" | "POWER_DOWN_FORCE"
        | "POWER_UP" | "CANCEL_REBOOT" | "ALLOC" | "ALLOCATED" => Err(format!(
            "{PROGRAM}: error: State={upper} is not supported: use DRAIN, DOWN, RESUME or UNDRAIN"
        )),
        _ => Err(format!(
            "Invalid input: {state}\nRequest aborted\nValid states are: DOWN DRAIN RESUME UNDRAIN"
        )),
    }
}

fn partition(name: &str, pairs: &[(String, &str)]) -> Result<v1::UpdatePartitionRequest, String> {
    let mut request = v1::UpdatePartitionRequest { name: name.to_owned(), ..Default::default() };
    let limit = |key: &str, value: &str| {
        time::parse_limit(value).map(limit_out).map(Some).map_err(|_| invalid(key, value))
    };
    for (given, value) in pairs.iter().filter(|(k, _)| k != "partitionname") {
        let known = key(&PARTITION, given);
        match known.ok_or_else(|| unsupported(&PARTITION, given, value))? {
            "state" => {
                let upper = value.to_ascii_uppercase();
                if !matches!(upper.as_str(), "UP" | "DOWN" | "DRAIN" | "INACTIVE") {
                    return Err(format!(
                        "Invalid input: {given}={value}\n\
                         Acceptable State values are UP, DOWN, DRAIN, and INACTIVE"
                    ));
                }
                request.state = Some(upper);
            }
            "maxtime" => request.max_time = limit(given, value)?,
            "defaulttime" => request.default_time = limit(given, value)?,
            "maxnodes" => {
                let unlimited = value.eq_ignore_ascii_case("UNLIMITED");
                request.max_nodes = Some(if unlimited { u32::MAX } else { number(given, value)? });
            }
            _ => request.priority_tier = Some(number(given, value)?),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests;

//! An accounted job with its steps: the shapes `job` and `step`.

use muster_model::hostlist::Hostlist;
use muster_proto::v1::{HistoryRow, Job, StepRow, Usage, memory};
use serde_json::{Value, json};

use super::super::shown::{self, launch, request, spec};
use super::super::{states, tres};
use super::{About, exit_code, limit, maybe, merged, mib, number, time, tres_list, unset};

/// One element of `jobs`.
pub(super) fn document(row: &HistoryRow, about: &About) -> Value {
    let empty = Job::default();
    let job = row.job.as_ref().unwrap_or(&empty);
    let steps: Vec<Value> = row.steps.iter().map(|s| step(job, s, about)).collect();
    merged([identity(job, about), outcome(job, about), asked(job), json!({ "steps": steps })])
}

fn split(ms: u64) -> Value {
    json!({ "seconds": ms / 1000, "microseconds": ms % 1000 * 1000 })
}

fn times(usage: Usage) -> [Value; 3] {
    let (user, system) = (usage.user_cpu_ms, usage.system_cpu_ms);
    [split(system), split(user + system), split(user)]
}

fn identity(job: &Job, about: &About) -> Value {
    let spec = spec(job);
    json!({
        "account": spec.account,
        "association": {
            "account": spec.account, "cluster": about.cluster, "partition": "",
            "user": shown::user(job), "id": 0,
        },
        "array": {
            "job_id": job.array_id,
            "limits": { "max": { "running": { "tasks": job.array_throttle } } },
            "task_id": maybe(job.array_task),
            "task": job.array_tasks,
        },
        "cluster": about.cluster,
        "comment": { "administrator": launch(job).admin_comment, "job": spec.comment, "system": job.system_comment },
        "group": about.here.group(shown::gid(job)),
        "het": { "job_id": 0, "job_offset": unset() },
        "job_id": job.id,
        "name": spec.name,
        "user": shown::user(job),
        "partition": shown::partition(job),
        "qos": spec.qos,
        "qosreq": spec.qos,
        "wckey": { "wckey": spec.wckey, "flags": [] },
        "reservation": { "id": 0, "name": spec.reservation, "requested": spec.reservation },
        "submit_line": launch(job).submit_line,
        "working_directory": launch(job).workdir,
        "stdout": job.stdout, "stderr": job.stderr, "stdin": job.stdin,
        "stdout_expanded": job.stdout, "stderr_expanded": job.stderr, "stdin_expanded": job.stdin,
        "script": "", "container": "", "block": "", "extra": "", "sluid": "",
        "original_sluid": "", "licenses": shown::licenses(job), "mcs": { "label": "" },
        "segment_size": 0, "used_gres": "", "flags": [],
    })
}

fn outcome(job: &Job, about: &About) -> Value {
    let [system, total, user] = times(job.usage.unwrap_or_default());
    let started = if job.started_at > 0 { job.started_at } else { about.here.now };
    let planned = ((started - job.submitted_at) / 1000).max(0);
    let ended = states::ended(job.state());
    let by = if job.cancelled_by > 0 {
        (about.here.name_of)(job.cancelled_by).unwrap_or_else(|| job.cancelled_by.to_string())
    } else {
        String::new()
    };
    json!({
        "state": { "current": super::job_state(job), "reason": shown::reason(job) },
        "exit_code": exit_code(job.exit, !ended),
        "derived_exit_code": exit_code(job.exit, !ended),
        "failed_node": job.failed_node,
        "kill_request_user": by,
        "restart_cnt": job.restarts,
        "hold": job.priority == 0 && !ended && job.started_at <= 0,
        "priority": number(job.priority),
        "nodes": shown::or(&job.nodes, "None assigned"),
        "allocation_nodes": if job.nodes.is_empty() { 0 } else { job.node_count },
        "time": {
            "elapsed": shown::used_seconds(job, about.here.now),
            "eligible": job.eligible_at / 1000,
            "start": job.started_at / 1000,
            "end": if ended { job.ended_at / 1000 } else { 0 },
            "submission": job.submitted_at / 1000,
            "suspended": job.suspended_ms / 1000,
            "planned": number(planned),
            "limit": limit(job.time_limit.as_ref()),
            "system": system, "total": total, "user": user,
        },
        "tres": {
            "allocated": if job.nodes.is_empty() { json!([]) } else { tres_list(&tres::of_job(job)) },
            "requested": tres_list(&tres::of_job(job)),
        },
    })
}

fn asked(job: &Job) -> Value {
    let (mut per_cpu, mut per_node) = (unset(), unset());
    match shown::memory(job) {
        Some(memory::Request::PerNodeMib(size)) => per_node = mib(size),
        Some(memory::Request::PerCpuMib(size)) => per_cpu = mib(size),
        _ => {}
    }
    json!({
        "constraints": request(job).constraint,
        "exclusive": if request(job).exclusive { "YES" } else { "NO" },
        "oversubscribe": if request(job).exclusive { "NO" } else { "OK" },
        "required": {
            "CPUs": job.cpu_count, "memory_per_cpu": per_cpu, "memory_per_node": per_node,
        },
    })
}

fn step(job: &Job, step: &StepRow, about: &About) -> Value {
    let usage = step.usage.unwrap_or_default();
    let [system, total, user] = times(usage);
    let end = if step.ended_at > 0 { step.ended_at } else { about.here.now };
    let nodes = Hostlist::parse(&step.nodes).unwrap_or_default();
    let rss = |bytes: u64| json!([{ "type": "mem", "name": "", "id": 2, "count": bytes, "node": step.nodes, "task": 0 }]);
    let cpu = usage.user_cpu_ms + usage.system_cpu_ms;
    json!({
        "state": [states::long(step.state())],
        "exit_code": exit_code(step.exit, !states::ended(step.state())),
        "step": {
            "id": format!("{}.{}", job.id, step.id), "name": step.name,
            "stdout": job.stdout, "stderr": job.stderr, "stdin": job.stdin,
            "stdout_expanded": job.stdout, "stderr_expanded": job.stderr,
            "stdin_expanded": job.stdin,
        },
        "nodes": { "count": nodes.0.len(), "range": step.nodes, "list": nodes.0 },
        "tasks": { "count": step.tasks },
        "task": { "distribution": "Unknown" },
        "time": {
            "elapsed": ((end - step.started_at) / 1000).max(0),
            "start": time(step.started_at),
            "end": if step.ended_at > 0 { time(step.ended_at) } else { unset() },
            "suspended": 0,
            "limit": limit(job.time_limit.as_ref()),
            "system": system, "total": total, "user": user,
        },
        "CPU": { "requested_frequency": { "min": unset(), "max": unset() }, "governor": "0" },
        "statistics": { "CPU": { "actual_frequency": 0 }, "energy": { "consumed": unset() } },
        "kill_request_user": "",
        "submit_line": launch(job).submit_line,
        "tres": {
            "allocated": [{ "type": "cpu", "name": "", "id": 1, "count": step.cpu_count }],
            "requested": {
                "max": rss(usage.max_rss_kib * 1024), "min": [], "average": [],
                "total": [{ "type": "cpu", "name": "", "id": 1, "count": cpu }],
            },
            "consumed": { "max": [], "min": [], "average": [], "total": [] },
        },
    })
}

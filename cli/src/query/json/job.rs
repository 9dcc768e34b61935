//! A job in the queue: the shape `job_info`.

use muster_proto::v1::{CpuBinding, GresScope, Job, JobState, memory};
use serde_json::{Value, json};

use super::super::shown::{self, launch, request, spec};
use super::super::sizes::Units;
use super::super::{states, tres};
use super::{About, exit_code, job_state, limit, maybe, merged, mib, number, time, unset};

/// One element of `jobs`.
pub(super) fn document(job: &Job, about: &About) -> Value {
    merged([identity(job, about), life(job), wanted(job), placement(job), files(job), untracked()])
}

fn identity(job: &Job, about: &About) -> Value {
    let spec = spec(job);
    let task = job.array_task;
    json!({
        "account": spec.account,
        "array_job_id": number(job.array_id),
        "array_task_id": maybe(task),
        "array_max_tasks": number(job.array_throttle),
        "array_task_string": job.array_tasks,
        "cluster": about.cluster,
        "comment": spec.comment,
        "admin_comment": launch(job).admin_comment,
        "system_comment": job.system_comment,
        "group_id": shown::gid(job),
        "group_name": about.here.group(shown::gid(job)),
        "job_id": job.id,
        "het_job_id": number(shown::het(job).map_or(0, |(leader, _)| leader)),
        "het_job_id_set": shown::het_set(job).unwrap_or_default(),
        "het_job_offset": number(shown::het(job).map_or(0, |(_, place)| place)),
        "name": spec.name,
        "partition": shown::partition(job),
        "qos": spec.qos,
        "user_id": shown::uid(job),
        "user_name": shown::user(job),
        "wckey": spec.wckey,
        "resv_name": spec.reservation,
        "step_id": { "job_id": job.id, "step_het_component": unset(), "step_id": "TBD" },
    })
}

fn life(job: &Job) -> Value {
    let pending = job.state() == JobState::Pending;
    let spec = spec(job);
    json!({
        "job_state": job_state(job),
        "state_reason": shown::reason(job),
        "state_description": job.reason_detail,
        "hold": pending && job.priority == 0,
        "priority": number(job.priority),
        "priority_by_partition": [],
        "nice": spec.nice,
        "requeue": spec.requeue.unwrap_or(true),
        "restart_cnt": job.restarts,
        "submit_time": time(job.submitted_at),
        "eligible_time": time(job.eligible_at),
        "accrue_time": time(job.eligible_at),
        "start_time": time(job.started_at),
        "end_time": time(job.ended_at),
        "suspend_time": time(job.suspended_at),
        "pre_sus_time": time(job.suspended_ms),
        "deadline": time(spec.deadline),
        "time_limit": limit(job.time_limit.as_ref()),
        "time_minimum": limit(spec.time_min.as_ref()),
        "exit_code": exit_code(job.exit, !states::ended(job.state())),
        "derived_exit_code": exit_code(job.exit, !states::ended(job.state())),
        "dependency": job.dependency,
        "failed_node": job.failed_node,
    })
}

fn wanted(job: &Job) -> Value {
    let wanted = request(job);
    let gres = |scope| tres::asked(&wanted.gres, scope);
    let (mut per_cpu, mut per_node, mut per_gpu) = (unset(), unset(), String::new());
    match shown::memory(job) {
        Some(memory::Request::PerNodeMib(size)) => per_node = mib(size),
        Some(memory::Request::PerCpuMib(size)) => per_cpu = mib(size),
        Some(memory::Request::PerGpuMib(size)) => per_gpu = format!("gres/gpu:{size}"),
        None => {}
    }
    let cpus_per_tres = wanted.cpus_per_gpu.map_or_else(String::new, |n| format!("gres/gpu:{n}"));
    json!({
        "contiguous": wanted.contiguous,
        "cores_per_socket": unset(),
        "sockets_per_node": maybe(wanted.sockets_per_node),
        "required_switches": wanted.max_switches.unwrap_or(0),
        "maximum_switch_wait_time": wanted.switch_wait_seconds,
        "segment_size": wanted.segment.unwrap_or(0),
        "threads_per_core": maybe(wanted.threads_per_core),
        "cpus_per_task": number(wanted.cpus_per_task.max(1)),
        "cpus_per_tres": cpus_per_tres,
        "memory_per_tres": per_gpu,
        "memory_per_cpu": per_cpu,
        "memory_per_node": per_node,
        "minimum_cpus_per_node": number(wanted.min_cpus_per_node.max(1)),
        "minimum_tmp_disk_per_node": number(0),
        "excluded_nodes": wanted.excluded_nodes.join(","),
        "required_nodes": wanted.required_nodes.join(","),
        "features": wanted.constraint,
        "prefer": "",
        "licenses": shown::licenses(job),
        "licenses_allocated":
            if states::active(job.state()) { shown::licenses(job) } else { String::new() },
        "max_cpus": number(0),
        "max_nodes": number(wanted.max_nodes.unwrap_or(0)),
        "shared": if wanted.exclusive { json!(["none"]) } else { json!([]) },
        "tasks_per_core": unset(),
        "tasks_per_tres": unset(),
        "tasks_per_node": number(wanted.tasks_per_node.unwrap_or(0)),
        "tasks_per_socket": unset(),
        "tasks_per_board": number(0),
        "tres_per_job": gres(GresScope::Job),
        "tres_per_node": gres(GresScope::Node),
        "tres_per_socket": gres(GresScope::Socket),
        "tres_per_task": gres(GresScope::Task),
        "tres_bind": tres::bind(job),
        // Not in Slurm.
        "nvlink": if wanted.nvlink_required { "required" } else { "" },
        "tres_req_str": tres::text(&tres::of_job(job), Units::Exact),
        "flags": flags(job),
    })
}

fn flags(job: &Job) -> Vec<&'static str> {
    let mut flags = Vec::new();
    flags.extend(spec(job).kill_on_invalid_dependency.then_some("KILL_INVALID_DEPENDENCY"));
    flags.extend(match request(job).cpu_binding() {
        CpuBinding::Enforced => Some("GRES_BINDING_ENFORCED"),
        CpuBinding::Disabled => Some("GRES_BINDING_DISABLED"),
        CpuBinding::Unspecified => None,
    });
    flags
}

fn placement(job: &Job) -> Value {
    let held = states::active(job.state());
    let allocated = if held { tres::text(&tres::of_job(job), Units::Exact) } else { String::new() };
    let slices: Vec<Value> = job
        .slices
        .iter()
        .map(|slice| {
            json!({
                "name": slice.node,
                "cpus": { "count": slice.tasks, "list": slice.cpus },
                "memory": { "allocated": slice.memory_mib },
            })
        })
        .collect();
    let detail: Vec<String> = job
        .slices
        .iter()
        .map(|slice| {
            let gres: Vec<String> = slice.gres.iter().map(mask).collect();
            gres.join(",")
        })
        .collect();
    let scheduled: muster_model::hostlist::Hostlist = job.scheduled_nodes.iter().cloned().collect();
    json!({
        "nodes": job.nodes,
        "batch_host": job.batch_host,
        "batch_flag": true,
        "batch_features": "",
        "allocating_node": launch(job).submit_host,
        "node_count": number(job.node_count),
        "cpus": number(job.cpu_count),
        "tasks": number(job.task_count),
        "billable_tres": number(job.cpu_count),
        "scheduled_nodes": scheduled.to_string(),
        "gres_detail": detail,
        "job_size_str": [],
        "tres_alloc_str": allocated,
        "job_resources": {
            "select_type": [],
            "nodes": {
                "count": job.node_count, "select_type": [], "list": job.nodes,
                "whole": request(job).exclusive, "allocation": slices,
            },
            "cpus": job.cpu_count,
            "threads_per_core": unset(),
        },
    })
}

fn mask(gres: &muster_proto::v1::GresMask) -> String {
    let kind = gres.kind.clone().unwrap_or_default();
    let of = if kind.of.is_empty() { String::new() } else { format!(":{}", kind.of) };
    format!("{}{of}:{}(IDX:{})", kind.name, gres.count, tres::indices(gres.mask))
}

fn files(job: &Job) -> Value {
    let launch = launch(job);
    let input = shown::or(&job.stdin, "/dev/null");
    json!({
        "command": shown::command(job),
        "submit_line": launch.submit_line,
        "current_working_directory": launch.workdir,
        "standard_input": input,
        "standard_output": job.stdout,
        "standard_error": job.stderr,
        "stdin_expanded": input,
        "stdout_expanded": job.stdout,
        "stderr_expanded": job.stderr,
        "mail_type": launch.mail_type.split(',').filter(|m| !m.is_empty()).collect::<Vec<_>>(),
        "mail_user": launch.mail_user,
    })
}

fn untracked() -> Value {
    json!({
        "association_id": 0, "burst_buffer": "", "burst_buffer_state": "",
        "cluster_features": "", "container": "", "container_id": "", "container_type": "",
        "core_spec": 0, "thread_spec": 0, "cpu_frequency_minimum": unset(),
        "cpu_frequency_maximum": unset(), "cpu_frequency_governor": unset(), "cron": "",
        "delay_boot": number(0), "extra": "", "federation_origin": "",
        "federation_siblings_active": "", "federation_siblings_viable": "",
        "last_sched_evaluation": unset(), "mcs_label": "", "memory_update_delay": 0,
        "memory_update_margin": 0, "network": "", "preempt_time": number(0),
        "preemptable_time": number(0), "profile": ["NOT_SET"], "reboot": false,
        "resize_time": number(0), "selinux_context": "", "sockets_per_board": 0, "tres_freq": "",
    })
}

//! `show job` and `show step`: the layouts of their records.

use muster_proto::v1::{self, CpuBinding, Distribution, GresScope, Job, JobState, Step};

use super::{Manner, record};
use crate::query::shown::{self, launch, or_null, request, spec};
use crate::query::sizes::Units;
use crate::query::surroundings::Surroundings;
use crate::query::{states, tres};
use muster_model::time::Clock;

/// One job.
pub(super) fn show(job: &Job, manner: Manner, here: &Surroundings) -> String {
    let mut lines = head(job, manner, here);
    lines.extend(times(job, here));
    lines.extend(places(job));
    lines.extend(sizes(job, manner));
    lines.extend(files(job, manner));
    lines.extend(tail(job));
    record(&lines, manner.oneliner)
}

fn yes(on: bool) -> u8 {
    u8::from(on)
}

fn head(job: &Job, manner: Manner, here: &Surroundings) -> Vec<String> {
    let spec = spec(job);
    let mut hets = Vec::new();
    let mut first = format!("JobId={}", job.id);
    if job.array_id != 0 {
        let task = match job.array_task {
            Some(task) => task.to_string(),
            None => job.array_tasks.clone(),
        };
        first.push_str(&format!(" ArrayJobId={} ArrayTaskId={}", job.array_id, or_null(&task)));
        if job.array_throttle > 0 {
            first.push_str(&format!(" ArrayTaskThrottle={}", job.array_throttle));
        }
    }
    if let (Some((leader, place)), Some(set)) = (shown::het(job), shown::het_set(job)) {
        first.push_str(&format!(" HetJobId={leader} HetJobOffset={place}"));
        hets.push(format!("HetJobIdSet={set}"));
    }
    first.push_str(&format!(" JobName={}", spec.name));
    let wckey =
        if spec.wckey.is_empty() { String::new() } else { format!(" WCKey={}", spec.wckey) };
    let reason = match job.reason_detail.as_str() {
        // A blank would end the value.
        "" => shown::reason_told(job).replace(' ', "_"),
        detail => format!("{},{}", shown::reason(job), detail.replace(' ', "_")),
    };
    let failed = match job.failed_node.as_str() {
        "" => String::new(),
        node => format!(" FailedNode={node}"),
    };
    let mut lines = vec![first];
    lines.extend(hets);
    lines.extend([
        format!(
            "UserId={}({}) GroupId={}({}) MCS_label=N/A",
            shown::user(job),
            shown::uid(job),
            here.group(shown::gid(job)),
            shown::gid(job)
        ),
        format!(
            "Priority={} Nice={} Account={} QOS={}{wckey}",
            job.priority,
            spec.nice,
            or_null(&spec.account),
            or_null(&spec.qos)
        ),
        format!(
            "JobState={} Reason={reason}{failed} Dependency={}",
            states::long(job.state()),
            or_null(&job.dependency)
        ),
        format!(
            "Requeue={} Restarts={} BatchFlag=1 Reboot=0 ExitCode={}",
            yes(spec.requeue.unwrap_or(true)),
            job.restarts,
            shown::exit(job)
        ),
    ]);
    if manner.details {
        lines.push("DerivedExitCode=0:0".to_owned());
    }
    lines
}

fn limit(limit: Option<&v1::TimeLimit>, unset: &str) -> String {
    match shown::limit_minutes(limit) {
        None => unset.to_owned(),
        Some(None) => "UNLIMITED".to_owned(),
        Some(Some(minutes)) => Clock(i64::from(minutes) * 60).to_string(),
    }
}

fn times(job: &Job, here: &Surroundings) -> Vec<String> {
    let spec = spec(job);
    let time = |at: i64, unset: &str| here.time(at, unset);
    vec![
        format!(
            "RunTime={} TimeLimit={} TimeMin={}",
            Clock(shown::used_seconds(job, here.now)),
            limit(job.time_limit.as_ref(), "Partition_Limit"),
            limit(spec.time_min.as_ref(), "N/A")
        ),
        format!(
            "SubmitTime={} EligibleTime={}",
            time(job.submitted_at, "Unknown"),
            time(job.eligible_at, "Unknown")
        ),
        format!("AccrueTime={}", time(job.eligible_at, "Unknown")),
        format!(
            "StartTime={} EndTime={} Deadline={}",
            time(job.started_at, "Unknown"),
            time(job.ended_at, "Unknown"),
            time(spec.deadline, "N/A")
        ),
        format!(
            "SuspendTime={} SecsPreSuspend={} LastSchedEval=Unknown Scheduler=Main",
            time(job.suspended_at, "None"),
            presuspend(job)
        ),
    ]
}

/// Seconds it ran before it was suspended.
fn presuspend(job: &Job) -> i64 {
    match job.state() {
        JobState::Suspended => shown::used_seconds(job, job.suspended_at),
        _ => 0,
    }
}

fn places(job: &Job) -> Vec<String> {
    let (request, launch) = (request(job), launch(job));
    let list = |nodes: &[String]| {
        or_null(&nodes.iter().cloned().collect::<muster_model::Hostlist>().to_string())
    };
    let mut nodes = format!("NodeList={}", or_null(&job.nodes));
    if !job.scheduled_nodes.is_empty() && job.nodes.is_empty() {
        nodes.push_str(&format!(" SchedNodeList={}", list(&job.scheduled_nodes)));
    }
    let mut lines = vec![
        format!(
            "Partition={} AllocNode:Sid={}:0",
            or_null(&shown::partition(job)),
            or_null(&launch.submit_host)
        ),
        format!(
            "ReqNodeList={} ExcNodeList={}",
            list(&request.required_nodes),
            list(&request.excluded_nodes)
        ),
        nodes,
    ];
    if !job.batch_host.is_empty() {
        lines.push(format!("BatchHost={}", job.batch_host));
    }
    lines
}

fn sizes(job: &Job, manner: Manner) -> Vec<String> {
    let request = request(job);
    let asked = tres::text(&tres::of_job(job), Units::Exact);
    let held = if states::active(job.state()) { asked.clone() } else { "(null)".to_owned() };
    let per_node = match request.tasks_per_node {
        Some(tasks) => tasks.to_string(),
        None => "0".to_owned(),
    };
    let sockets = request.sockets_per_node.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let threads = request.threads_per_core.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let nodes = match (job.nodes.is_empty(), request.max_nodes) {
        (true, Some(max)) if max > job.node_count => format!("{}-{max}", job.node_count),
        _ => job.node_count.to_string(),
    };
    let mut lines = vec![
        format!(
            "NumNodes={nodes} NumCPUs={} NumTasks={} CPUs/Task={} ReqB:S:C:T=0:0:*:{threads}",
            job.cpu_count, job.task_count, request.cpus_per_task
        ),
        format!("ReqTRES={asked}"),
        format!("AllocTRES={held}"),
        format!("Socks/Node={sockets} NtasksPerN:B:S:C={per_node}:0:*:* CoreSpec=*"),
    ];
    if manner.details {
        lines.extend(slices(job));
    }
    let memory = match shown::memory(job) {
        Some(v1::memory::Request::PerCpuMib(_)) => "MinMemoryCPU",
        _ => "MinMemoryNode",
    };
    let cpus = request.min_cpus_per_node.max(request.cpus_per_task).max(1);
    lines.push(format!(
        "MinCPUsNode={cpus} {memory}={} MinTmpDiskNode=0",
        shown::min_memory(job, Units::Exact)
    ));
    lines
}

/// What it holds on each node.
fn slices(job: &Job) -> Vec<String> {
    let mut lines = Vec::new();
    if !job.gres.is_empty() {
        lines.push(format!("JOB_GRES={}", tres::declared(&job.gres)));
    }
    for slice in &job.slices {
        let gres: Vec<String> = slice
            .gres
            .iter()
            .filter_map(|g| {
                let kind = g.kind.as_ref()?;
                let of = if kind.of.is_empty() { String::new() } else { format!(":{}", kind.of) };
                Some(format!("{}{of}:{}(IDX:{})", kind.name, g.count, tres::indices(g.mask)))
            })
            .collect();
        // Two more blanks than the other lines.
        lines.push(format!(
            "  Nodes={} CPU_IDs={} Mem={} GRES={}",
            slice.node,
            slice.cpus,
            slice.memory_mib,
            gres.join(",")
        ));
    }
    lines
}

fn files(job: &Job, manner: Manner) -> Vec<String> {
    let (spec, request, launch) = (spec(job), request(job), launch(job));
    let mut features =
        vec![format!("Features={} DelayBoot=00:00:00", or_null(&request.constraint))];
    if !spec.reservation.is_empty() {
        features.push(format!("Reservation={}", spec.reservation));
    }
    let over = if request.exclusive { "NO" } else { "OK" };
    let held = if states::active(job.state()) { shown::licenses(job) } else { String::new() };
    features.push(format!(
        "OverSubscribe={over} Exclusive={} Contiguous={} Licenses={} LicensesAlloc={} \
         Network=(null)",
        exclusive(request),
        yes(request.contiguous),
        or_null(&shown::licenses(job)),
        or_null(&held)
    ));
    if manner.oneliner {
        // Tools split such a line at blanks and want a '=' in every word.
        features.push(format!("Command={}", or_null(&launch.command)));
    } else {
        features.push(format!("Command={}", or_null(&shown::command(job))));
        features.push(format!("SubmitLine={}", or_null(&launch.submit_line)));
    }
    features.push(format!("WorkDir={}", or_null(&launch.workdir)));
    for (name, text) in [
        ("AdminComment", &launch.admin_comment),
        ("SystemComment", &job.system_comment),
        ("Comment", &spec.comment),
    ] {
        if !text.is_empty() {
            features.push(format!("{name}={text}"));
        }
    }
    features.push(format!("StdErr={}", or_null(&job.stderr)));
    features.push(format!("StdIn={}", or_null(&job.stdin)));
    features.push(format!("StdOut={}", or_null(&job.stdout)));
    let mut near = Vec::new();
    near.extend(request.segment.map(|size| format!("SegmentSize={size}")));
    near.extend(request.max_switches.map(|count| {
        format!("Switches={}", crate::submit::topology::shown(count, request.switch_wait_seconds))
    }));
    if !near.is_empty() {
        features.push(near.join(" "));
    }
    features
}

fn exclusive(request: &v1::Request) -> &'static str {
    match (request.exclusive, request.topology_alone) {
        (true, _) => "YES",
        (false, true) => "TOPO",
        (false, false) => "NO",
    }
}

fn tail(job: &Job) -> Vec<String> {
    let (spec, request, launch) = (spec(job), request(job), launch(job));
    let mut lines = Vec::new();
    let mut flags = Vec::new();
    flags.extend(match request.cpu_binding() {
        CpuBinding::Enforced => Some("GresEnforceBind=Yes"),
        CpuBinding::Disabled => Some("GresEnforceBind=No"),
        CpuBinding::Unspecified => None,
    });
    flags.extend(spec.kill_on_invalid_dependency.then_some("KillOnInvalidDependent=Yes"));
    // Not in Slurm.
    flags.extend(request.nvlink_required.then_some("NvLink=required"));
    if !flags.is_empty() {
        lines.push(flags.join(","));
    }
    if let Some(cpus) = request.cpus_per_gpu {
        lines.push(format!("CpusPerTres=gres/gpu:{cpus}"));
    }
    if let Some(v1::memory::Request::PerGpuMib(mib)) = request.memory.and_then(|m| m.request) {
        lines.push(format!("MemPerTres=gres/gpu:{mib}"));
    }
    let bind = tres::bind(job);
    if !bind.is_empty() {
        lines.push(format!("TresBind={bind}"));
    }
    for (name, scope) in [
        ("TresPerJob", GresScope::Job),
        ("TresPerNode", GresScope::Node),
        ("TresPerSocket", GresScope::Socket),
        ("TresPerTask", GresScope::Task),
    ] {
        let asked = tres::asked(&request.gres, scope);
        if !asked.is_empty() {
            lines.push(format!("{name}={asked}"));
        }
    }
    if !launch.mail_type.is_empty() {
        let user =
            if launch.mail_user.is_empty() { shown::user(job) } else { launch.mail_user.clone() };
        lines.push(format!("MailUser={user} MailType={}", launch.mail_type));
    }
    lines
}

/// A step that srun made in a running job.
pub(super) fn show_srun(job: &Job, step: &Step, manner: Manner, here: &Surroundings) -> String {
    let lines = vec![
        format!(
            "StepId={}.{} UserId={} StartTime={} TimeLimit={}",
            shown::id(job),
            step.step,
            step.uid,
            here.time(step.started_at, "Unknown"),
            limit(job.time_limit.as_ref(), "UNLIMITED")
        ),
        format!(
            "State=RUNNING Partition={} NodeList={}",
            shown::partition(job),
            or_null(&step.nodes)
        ),
        format!(
            "Nodes={} CPUs={} Tasks={} Name={} Network=(null)",
            step.node_count, step.cpus, step.tasks, step.name
        ),
        format!("TRES={}", step_tres(job, step)),
        "ResvPorts=(null)".to_owned(),
        format!("CPUFreqReq=Default Dist={}", layout(step)),
        format!("SrunHost:Pid={}:0", or_null(&step.host)),
    ];
    record(&lines, manner.oneliner)
}

fn step_tres(job: &Job, step: &Step) -> String {
    let shared = job.memory_mib * u64::from(step.node_count) / u64::from(job.node_count.max(1));
    let memory = if step.memory_mib > 0 { step.memory_mib } else { shared };
    let list = tres::of_step(step.cpus, memory, step.node_count, &step.gres);
    tres::text(&list, Units::Exact)
}

fn layout(step: &Step) -> &'static str {
    match step.distribution() {
        Distribution::Block => "Block",
        Distribution::Cyclic => "Cyclic",
        Distribution::Plane => "Plane",
    }
}

/// The batch script of a running job, or the step that every job has on all of its nodes.
pub(super) fn show_step(job: &Job, batch: bool, manner: Manner, here: &Surroundings) -> String {
    let name = if batch { "batch" } else { "extern" };
    let nodes = if batch { 1 } else { job.node_count };
    let (cpus, memory) = (u64::from(job.cpu_count), job.memory_mib);
    let share = |all: u64| all * u64::from(nodes) / u64::from(job.node_count.max(1));
    let cpus = u32::try_from(share(cpus)).unwrap_or(u32::MAX);
    let gres: Vec<v1::GresCount> = job
        .gres
        .clone()
        .into_iter()
        .map(|g| v1::GresCount { count: share(g.count), ..g })
        .collect();
    let lines = vec![
        format!(
            "StepId={}.{name} UserId={} StartTime={} TimeLimit={}",
            shown::id(job),
            shown::uid(job),
            here.time(job.started_at, "Unknown"),
            limit(job.time_limit.as_ref(), "UNLIMITED")
        ),
        format!(
            "State={} Partition={} NodeList={}",
            states::long(job.state()),
            shown::partition(job),
            or_null(if batch { &job.batch_host } else { &job.nodes })
        ),
        format!("Nodes={nodes} CPUs={cpus} Tasks={nodes} Name={name} Network=(null)"),
        format!(
            "TRES={}",
            tres::text(&tres::of_step(cpus, share(memory), nodes, &gres), Units::Exact)
        ),
        "ResvPorts=(null)".to_owned(),
        "CPUFreqReq=Default Dist=(null)".to_owned(),
    ];
    record(&lines, manner.oneliner)
}

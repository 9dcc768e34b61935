//! The columns of jobs: name (`-O`), letter (`-o`), header, value.

use muster_proto::v1::{GresScope, Job, JobState};

use super::super::shown::{self, launch, or, or_null, request, spec};
use super::super::sizes::Units;
use super::super::surroundings::Surroundings;
use super::super::times::trimmed;
use super::super::{states, tres};

/// What values are shown with.
pub(super) struct View<'a> {
    pub(super) here: &'a Surroundings,
    pub(super) units: Units,
    pub(super) cluster: &'a str,
}

/// A column.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// A blank: it has no letter.
    pub(super) code: char,
    pub(super) header: &'static str,
    /// Needs what the controller sends on request only.
    pub(super) details: bool,
    pub(super) value: fn(&Job, &View) -> String,
}

type Value = fn(&Job, &View) -> String;

const fn f(name: &'static str, code: char, header: &'static str, value: Value) -> Field {
    Field { name, code, header, details: false, value }
}

const fn d(name: &'static str, code: char, header: &'static str, value: Value) -> Field {
    Field { name, code, header, details: true, value }
}

const NA: Value = |_, _| "N/A".to_owned();
const NULL: Value = |_, _| "(null)".to_owned();
const ZERO: Value = |_, _| "0".to_owned();
const STAR: Value = |_, _| "*".to_owned();
const NO: Value = |_, _| "no".to_owned();

fn het(job: &Job, of: fn((u32, u32)) -> u32) -> String {
    count(shown::het(job).map(of))
}

fn count(value: Option<u32>) -> String {
    value.map_or_else(|| "N/A".to_owned(), |n| n.to_string())
}

fn asked(job: &Job, scope: GresScope) -> String {
    or(&tres::asked(&request(job).gres, scope), "N/A")
}

fn memory_per_gpu(job: &Job, view: &View) -> String {
    use muster_proto::v1::memory::Request::PerGpuMib;
    match request(job).memory.and_then(|m| m.request) {
        Some(PerGpuMib(mib)) => format!("gres/gpu:{}", view.units.mib(mib)),
        _ => "N/A".to_owned(),
    }
}

fn yes(flag: bool) -> String {
    if flag { "1" } else { "0" }.to_owned()
}

fn oversubscribe(job: &Job) -> String {
    if request(job).exclusive { "NO" } else { "OK" }.to_owned()
}

fn array_job(job: &Job) -> String {
    if job.array_id > 0 { job.array_id } else { job.id }.to_string()
}

fn pending_seconds(job: &Job, now: i64) -> i64 {
    let until =
        if job.state() == JobState::Pending || job.started_at <= 0 { now } else { job.started_at };
    ((until - job.submitted_at) / 1000).max(0)
}

/// Every column; names are matched without case, aliases of one column stand below it.
pub(super) const FIELDS: &[Field] = &[
    f("JobArrayId", 'i', "JOBID", |j, _| shown::id(j)),
    f("JobId", 'A', "JOBID", |j, _| j.id.to_string()),
    f("ArrayJobId", 'F', "ARRAY_JOB_ID", |j, _| array_job(j)),
    f("ArrayTaskId", 'K', "ARRAY_TASK_ID", |j, _| {
        or(&shown::array_task(j).unwrap_or_default(), "N/A")
    }),
    f("Name", 'j', "NAME", |j, _| spec(j).name.clone()),
    f("UserName", 'u', "USER", |j, _| shown::user(j)),
    f("UserId", 'U', "UID", |j, _| shown::uid(j).to_string()),
    f("GroupName", 'g', "GROUP", |j, v| v.here.group(shown::gid(j))),
    f("GroupId", 'G', "GROUP", |j, _| shown::gid(j).to_string()),
    f("Account", 'a', "ACCOUNT", |j, _| or_null(&spec(j).account)),
    f("QOS", 'q', "QOS", |j, _| or_null(&spec(j).qos)),
    f("WCKey", 'w', "WCKEY", |j, _| or_null(&spec(j).wckey)),
    f("Partition", 'P', "PARTITION", |j, _| shown::partition(j)),
    f("State", 'T', "STATE", |j, _| states::long(j.state()).to_owned()),
    f("StateCompact", 't', "ST", |j, _| states::compact(j.state()).to_owned()),
    f("Reason", 'r', "REASON", |j, _| shown::reason_told(j)),
    f("ReasonList", 'R', "NODELIST(REASON)", |j, _| shown::reason_list(j)),
    f("NodeList", 'N', "NODELIST", |j, _| j.nodes.clone()),
    f("BatchHost", 'B', "EXEC_HOST", |j, _| or(&j.batch_host, "n/a")),
    f("NumNodes", 'D', "NODES", |j, _| j.node_count.to_string()),
    f("NumCPUs", 'C', "CPUS", |j, _| j.cpu_count.to_string()),
    f("NumTasks", ' ', "TASKS", |j, _| j.task_count.to_string()),
    f("TimeUsed", 'M', "TIME", |j, v| trimmed(shown::used_seconds(j, v.here.now))),
    f("TimeLimit", 'l', "TIME_LIMIT", |j, _| shown::limit(j)),
    f("TimeLeft", 'L', "TIME_LEFT", |j, v| shown::left(j, v.here.now)),
    f("Runtime", ' ', "RUNTIME", |j, v| shown::used_seconds(j, v.here.now).to_string()),
    f("PendingTime", ' ', "PENDING_TIME", |j, v| pending_seconds(j, v.here.now).to_string()),
    f("SubmitTime", 'V', "SUBMIT_TIME", |j, v| v.here.time(j.submitted_at, "N/A")),
    f("EligibleTime", ' ', "ELIGIBLE_TIME", |j, v| v.here.time(j.eligible_at, "N/A")),
    f("AccrueTime", ' ', "ACCRUE_TIME", |j, v| v.here.time(j.eligible_at, "N/A")),
    f("StartTime", 'S', "START_TIME", |j, v| v.here.time(j.started_at, "N/A")),
    f("EndTime", 'e', "END_TIME", |j, v| v.here.time(j.ended_at, "N/A")),
    f("Deadline", ' ', "DEADLINE", |j, v| v.here.time(spec(j).deadline, "N/A")),
    f("PreemptTime", ' ', "PREEMPT_TIME", NA),
    f("ResizeTime", ' ', "RESIZE_TIME", NA),
    f("LastSchedEval", ' ', "LAST_SCHED_EVAL", NA),
    f("Priority", 'p', "PRIORITY", |j, _| {
        format!("{:.14}", f64::from(j.priority) / f64::from(u32::MAX))
    }),
    f("PriorityLong", 'Q', "PRIORITY", |j, _| j.priority.to_string()),
    f("Nice", 'y', "NICE", |j, _| spec(j).nice.to_string()),
    f("Dependency", 'E', "DEPENDENCY", |j, _| or_null(&j.dependency)),
    f("Feature", 'f', "FEATURES", |j, _| or_null(&request(j).constraint)),
    f("Prefer", ' ', "PREFER", NULL),
    f("ClusterFeature", ' ', "CLUSTER_FEATURES", NULL),
    f("MinCPUs", 'c', "MIN_CPUS", |j, _| request(j).min_cpus_per_node.max(1).to_string()),
    f("MaxCPUs", ' ', "MAX_CPUS", ZERO),
    f("MinMemory", 'm', "MIN_MEMORY", |j, v| shown::min_memory(j, v.units)),
    f("MinTmpDisk", 'd', "MIN_TMP_DISK", ZERO),
    f("MinTime", ' ', "TIME_MIN", |j, _| match shown::limit_minutes(spec(j).time_min.as_ref()) {
        Some(Some(minutes)) => trimmed(i64::from(minutes) * 60),
        _ => "N/A".to_owned(),
    }),
    f("MaxNodes", ' ', "MAX_NODES", |j, _| request(j).max_nodes.unwrap_or(0).to_string()),
    d("AllocNodes", ' ', "ALLOC_NODES", |j, _| or(&launch(j).submit_host, "N/A")),
    d("AllocSID", ' ', "ALLOC_SID", ZERO),
    f("ReqNodes", 'n', "REQ_NODES", |j, _| request(j).required_nodes.join(",")),
    f("ExcNodes", 'x', "EXC_NODES", |j, _| request(j).excluded_nodes.join(",")),
    f("SchedNodes", 'Y', "SCHEDNODES", |j, _| or_null(&hostlist(&j.scheduled_nodes))),
    f("tres-per-node", 'b', "TRES_PER_NODE", |j, _| asked(j, GresScope::Node)),
    f("Gres", ' ', "TRES_PER_NODE", |j, _| asked(j, GresScope::Node)),
    f("tres-per-job", ' ', "TRES_PER_JOB", |j, _| asked(j, GresScope::Job)),
    f("tres-per-task", ' ', "TRES_PER_TASK", |j, _| asked(j, GresScope::Task)),
    f("tres-per-socket", ' ', "TRES_PER_SOCKET", |j, _| asked(j, GresScope::Socket)),
    f("tres-alloc", ' ', "TRES_ALLOC", |j, v| tres::text(&tres::of_job(j), v.units)),
    f("Tres", ' ', "TRES_ALLOC", |j, v| tres::text(&tres::of_job(j), v.units)),
    f("tres-bind", ' ', "TRES_BIND", |j, _| or(&tres::bind(j), "N/A")),
    f("tres-freq", ' ', "TRES_FREQ", NA),
    f("cpus-per-tres", ' ', "CPUS_PER_TRES", |j, _| match request(j).cpus_per_gpu {
        Some(n) => format!("gres/gpu:{n}"),
        None => "N/A".to_owned(),
    }),
    f("mem-per-tres", ' ', "MEM_PER_TRES", memory_per_gpu),
    f("CPUsPerTask", ' ', "CPUS_PER_TASK", |j, _| request(j).cpus_per_task.max(1).to_string()),
    f("cpus-per-task", ' ', "CPUS_PER_TASK", |j, _| request(j).cpus_per_task.max(1).to_string()),
    f("OverSubscribe", 'h', "OVER_SUBSCRIBE", |j, _| oversubscribe(j)),
    f("Shared", ' ', "OVER_SUBSCRIBE", |j, _| oversubscribe(j)),
    f("Exclusive", ' ', "EXCLUSIVE", |j, _| {
        if request(j).exclusive { "YES" } else { "NO" }.to_owned()
    }),
    f("Contiguous", 'O', "CONTIGUOUS", |j, _| yes(request(j).contiguous)),
    f("Sockets", 'H', "SOCKETS_PER_NODE", |j, _| star(request(j).sockets_per_node)),
    f("Cores", 'I', "CORES_PER_SOCKET", STAR),
    f("Threads", 'J', "THREADS_PER_CORE", |j, _| star(request(j).threads_per_core)),
    f("SCT", 'z', "S:C:T", |j, _| {
        format!("{}:*:{}", star(request(j).sockets_per_node), star(request(j).threads_per_core))
    }),
    f("CoreSpec", 'X', "CORE_SPEC", NA),
    f("SPerBoard", ' ', "SOCKETS_PER_BOARD", STAR),
    f("BoardsPerNode", ' ', "BOARDS_PER_NODE", STAR),
    f("NTPerCore", ' ', "NTASKS_PER_CORE", NA),
    f("NTPerNode", ' ', "NTASKS_PER_NODE", |j, _| count(request(j).tasks_per_node)),
    f("NTPerSocket", ' ', "NTASKS_PER_SOCKET", NA),
    f("NTPerBoard", ' ', "NTASKS_PER_BOARD", NA),
    f("Licenses", 'W', "LICENSES", |j, _| or_null(&shown::licenses(j))),
    f("LicensesAlloc", ' ', "LICENSES_ALLOC", |j, _| {
        or_null(&if states::active(j.state()) { shown::licenses(j) } else { String::new() })
    }),
    f("Reservation", 'v', "RESERVATION", |j, _| or_null(&spec(j).reservation)),
    f("Comment", 'k', "COMMENT", |j, _| or_null(&spec(j).comment)),
    f("admin_comment", ' ', "ADMIN_COMMENT", |j, _| or_null(&launch(j).admin_comment)),
    f("system_comment", ' ', "SYSTEM_COMMENT", |j, _| or_null(&j.system_comment)),
    d("Command", 'o', "COMMAND", |j, _| or_null(&shown::command(j))),
    d("WorkDir", 'Z', "WORK_DIR", |j, _| launch(j).workdir.clone()),
    d("StdOut", ' ', "STDOUT", |j, _| j.stdout.clone()),
    d("StdErr", ' ', "STDERR", |j, _| j.stderr.clone()),
    d("StdIn", ' ', "STDIN", |j, _| or(&j.stdin, "/dev/null")),
    f("Requeue", ' ', "REQUEUE", |j, _| yes(spec(j).requeue.unwrap_or(true))),
    f("RestartCnt", ' ', "RESTART_COUNT", |j, _| j.restarts.to_string()),
    f("Reboot", ' ', "REBOOT", ZERO),
    f("BatchFlag", ' ', "BATCH_FLAG", |_, _| "1".to_owned()),
    f("exit_code", ' ', "EXIT_CODE", |j, _| j.exit.map_or(0, |e| e.code).to_string()),
    f("DerivedEC", ' ', "DERIVED_EC", |j, _| shown::exit(j)),
    f("Cluster", ' ', "CLUSTER", |_, v| v.cluster.to_owned()),
    f("AssocId", ' ', "ASSOC_ID", ZERO),
    f("BurstBuffer", ' ', "BURST_BUFFER", NA),
    f("BurstBufferState", ' ', "BURST_BUFFER_STATE", NA),
    f("Container", ' ', "CONTAINER", NA),
    f("ContainerId", ' ', "CONTAINERID", NA),
    f("CronJob", ' ', "CRON_JOB", NO),
    f("DelayBoot", ' ', "DELAY_BOOT", |_, _| "0:00".to_owned()),
    f("HetJobId", ' ', "HET_JOB_ID", |j, _| het(j, |(leader, _)| leader)),
    f("HetJobIdSet", ' ', "HET_JOB_ID_SET", |j, _| {
        shown::het_set(j).unwrap_or_else(|| "N/A".into())
    }),
    f("HetJobOffset", ' ', "HET_JOB_OFFSET", |j, _| het(j, |(_, place)| place)),
    f("PackJobId", ' ', "HET_JOB_ID", NA),
    f("PackJobIdSet", ' ', "HET_JOB_ID_SET", NA),
    f("PackJobOffset", ' ', "HET_JOB_OFFSET", NA),
    f("MCSLabel", ' ', "MCSLABEL", NULL),
    f("Network", ' ', "NETWORK", NULL),
    f("Origin", ' ', "ORIGIN", NA),
    f("OriginRaw", ' ', "ORIGIN_RAW", NA),
    f("Profile", ' ', "PROFILE", NA),
    f("ReqSwitch", ' ', "REQ_SWITCH", |j, _| request(j).max_switches.unwrap_or(0).to_string()),
    f("Wait4Switch", ' ', "WAIT4SWITCH", |j, _| trimmed(i64::from(request(j).switch_wait_seconds))),
    f("SegmentSize", ' ', "SEGMENT_SIZE", ZERO),
    f("SiblingsActive", ' ', "ACTIVE_SIBLINGS", NA),
    f("SiblingsActiveRaw", ' ', "ACTIVE_SIBLINGS_RAW", NA),
    f("SiblingsViable", ' ', "VIABLE_SIBLINGS", NA),
    f("SiblingsViableRaw", ' ', "VIALBLE_SIBLINGS_RAW", NA),
    f("SLUID", 's', "SLUID", NA),
];

fn star(count: Option<u32>) -> String {
    count.map_or_else(|| "*".to_owned(), |n| n.to_string())
}

fn hostlist(nodes: &[String]) -> String {
    nodes.iter().cloned().collect::<muster_model::hostlist::Hostlist>().to_string()
}

/// What jobs are ordered by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(i64),
    Text(String),
}

/// The key of a sort letter; a letter that orders by nothing keeps all equal.
pub(super) fn key(code: char, job: &Job, here: &Surroundings) -> Key {
    let number = match code {
        'i' | 'A' | 'F' => i64::from(job.id),
        'K' => job.array_task.map_or(-1, i64::from),
        't' | 'T' => states::rank(job.state()) as i64,
        'p' | 'Q' => i64::from(job.priority),
        'M' => shown::used_seconds(job, here.now),
        'l' => limit(job),
        'L' => limit(job).saturating_sub(shown::used_seconds(job, here.now)),
        'S' => {
            if job.started_at > 0 {
                job.started_at
            } else {
                i64::MAX
            }
        }
        'e' => {
            if job.ended_at > 0 {
                job.ended_at
            } else {
                i64::MAX
            }
        }
        'V' => job.submitted_at,
        'D' => i64::from(job.node_count),
        'C' | 'c' => i64::from(job.cpu_count),
        'm' => i64::try_from(job.memory_mib).unwrap_or(i64::MAX),
        'U' => i64::from(shown::uid(job)),
        'G' => i64::from(shown::gid(job)),
        'y' => i64::from(spec(job).nice),
        _ => {
            let view = View { here, units: Units::Exact, cluster: "" };
            let field = FIELDS.iter().find(|f| f.code == code);
            return Key::Text(field.map_or_else(String::new, |f| (f.value)(job, &view)));
        }
    };
    Key::Number(number)
}

/// Seconds; none set or none at all sorts last.
fn limit(job: &Job) -> i64 {
    match shown::limit_minutes(job.time_limit.as_ref()) {
        Some(Some(minutes)) => i64::from(minutes) * 60,
        _ => i64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_letter_and_every_name_stands_for_one_column() {
        let mut letters = BTreeSet::new();
        let mut names = BTreeSet::new();
        for field in FIELDS {
            assert!(field.code == ' ' || letters.insert(field.code), "{}", field.code);
            assert!(names.insert(field.name.to_ascii_lowercase()), "{}", field.name);
        }
    }
}

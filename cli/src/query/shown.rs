//! Values of a job as every command shows them.

use muster_proto::v1::{
    Job, JobSpec, JobState, LaunchSpec, Request, TimeLimit, memory, time_limit,
};

use super::sizes::Units;
use super::times::trimmed;

/// A job's spec; the controller always sends one, so an empty one stands for a broken message.
pub(crate) fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

/// Where it fits.
pub(crate) fn request(job: &Job) -> &Request {
    static EMPTY: std::sync::LazyLock<Request> = std::sync::LazyLock::new(Request::default);
    spec(job).request.as_ref().unwrap_or(&EMPTY)
}

/// How it is launched.
pub(crate) fn launch(job: &Job) -> &LaunchSpec {
    static EMPTY: std::sync::LazyLock<LaunchSpec> = std::sync::LazyLock::new(LaunchSpec::default);
    spec(job).launch.as_ref().unwrap_or(&EMPTY)
}

/// The owner's name, or the number where the name is unknown.
pub(crate) fn user(job: &Job) -> String {
    match &spec(job).user {
        Some(user) if !user.name.is_empty() => user.name.clone(),
        Some(user) => user.uid.to_string(),
        None => String::new(),
    }
}

/// The owner.
pub(crate) fn uid(job: &Job) -> u32 {
    spec(job).user.as_ref().map_or(0, |user| user.uid)
}

/// The owner's primary group.
pub(crate) fn gid(job: &Job) -> u32 {
    spec(job).user.as_ref().map_or(0, |user| user.gid)
}

/// Of a component of a heterogeneous job: the number of the one with the script, and its place.
pub(crate) fn het(job: &Job) -> Option<(u32, u32)> {
    let part = spec(job).het?;
    Some((job.id.saturating_sub(part.index), part.index))
}

/// The numbers of all components: `12-14`.
pub(crate) fn het_set(job: &Job) -> Option<String> {
    let (leader, _) = het(job)?;
    let count = spec(job).het?.count.max(1);
    Some(format!("{leader}-{}", leader + count - 1))
}

/// `12`, `12_4`, `12_[0-15%4]` for what has not started of an array, `12+1` for a component.
pub(crate) fn id(job: &Job) -> String {
    match (job.array_task, job.array_tasks.as_str()) {
        (Some(task), _) => format!("{}_{task}", job.array_id),
        (None, "") => match het(job) {
            Some((leader, place)) => format!("{leader}+{place}"),
            None => job.id.to_string(),
        },
        (None, tasks) => format!("{}_[{}]", job.array_id, with_throttle(tasks, job)),
    }
}

fn with_throttle(tasks: &str, job: &Job) -> String {
    match job.array_throttle {
        0 => tasks.to_owned(),
        limit => format!("{tasks}%{limit}"),
    }
}

/// The index within the array, or the indices that have not started.
pub(crate) fn array_task(job: &Job) -> Option<String> {
    match (job.array_task, job.array_tasks.as_str()) {
        (Some(task), _) => Some(task.to_string()),
        (None, "") => None,
        (None, tasks) => Some(with_throttle(tasks, job)),
    }
}

/// Seconds it has run, without the time it was suspended.
pub(crate) fn used_seconds(job: &Job, now: i64) -> i64 {
    let state = job.state();
    if job.started_at <= 0 || matches!(state, JobState::Pending) {
        return 0;
    }
    let end = match state {
        JobState::Suspended if job.suspended_at > 0 => job.suspended_at,
        JobState::Configuring | JobState::Running | JobState::Suspended => now,
        // While it is cleaned up, its end is known already.
        JobState::Completing => {
            if job.ended_at > 0 {
                job.ended_at.min(now)
            } else {
                now
            }
        }
        _ => job.ended_at,
    };
    ((end - job.started_at - job.suspended_ms) / 1000).max(0)
}

/// The time limit in minutes; outer `None`: not set, inner: no limit.
pub(crate) fn limit_minutes(limit: Option<&TimeLimit>) -> Option<Option<u32>> {
    match limit?.limit? {
        time_limit::Limit::Minutes(minutes) => Some(Some(minutes)),
        time_limit::Limit::Unlimited(_) => Some(None),
    }
}

/// `1:00:00`, `UNLIMITED`, `NOT_SET`.
pub(crate) fn limit(job: &Job) -> String {
    match limit_minutes(job.time_limit.as_ref()) {
        Some(Some(minutes)) => trimmed(i64::from(minutes) * 60),
        Some(None) => "UNLIMITED".to_owned(),
        None => "NOT_SET".to_owned(),
    }
}

/// What is left of the time limit.
pub(crate) fn left(job: &Job, now: i64) -> String {
    match limit_minutes(job.time_limit.as_ref()) {
        Some(Some(minutes)) => match i64::from(minutes) * 60 - used_seconds(job, now) {
            left if left < 0 => "INVALID".to_owned(),
            left => trimmed(left),
        },
        Some(None) => "UNLIMITED".to_owned(),
        None => "NOT_SET".to_owned(),
    }
}

/// Slurm's reason code, never empty, with what else is known of a signal: `RaisedSignal:9(Killed)`.
pub(crate) fn reason_told(job: &Job) -> String {
    match (reason(job), job.exit.map_or(0, |exit| exit.signal)) {
        (code @ "RaisedSignal", signal @ 1..) => {
            format!("{code}:{signal}({})", signal_text(signal))
        }
        (code, _) => code.to_owned(),
    }
}

/// What `strsignal` says of a signal in the C locale.
fn signal_text(signal: u32) -> String {
    const TEXTS: [&str; 31] = [
        "Hangup",
        "Interrupt",
        "Quit",
        "Illegal instruction",
        "Trace/breakpoint trap",
        "Aborted",
        "Bus error",
        "Floating point exception",
        "Killed",
        "User defined signal 1",
        "Segmentation fault",
        "User defined signal 2",
        "Broken pipe",
        "Alarm clock",
        "Terminated",
        "Stack fault",
        "Child exited",
        "Continued",
        "Stopped (signal)",
        "Stopped",
        "Stopped (tty input)",
        "Stopped (tty output)",
        "Urgent I/O condition",
        "CPU time limit exceeded",
        "File size limit exceeded",
        "Virtual timer expired",
        "Profiling timer expired",
        "Window changed",
        "I/O possible",
        "Power failure",
        "Bad system call",
    ];
    // The two below it belong to the threads of the C library.
    const FIRST_REAL_TIME: u32 = 34;
    match signal {
        1..=31 => TEXTS[signal as usize - 1].to_owned(),
        FIRST_REAL_TIME..=64 => format!("Real-time signal {}", signal - FIRST_REAL_TIME),
        _ => format!("Unknown signal {signal}"),
    }
}

/// Slurm's reason code; never empty.
pub(crate) fn reason(job: &Job) -> &str {
    if job.reason.is_empty() { "None" } else { &job.reason }
}

/// Nodes of a job that has some, `(Reason)` of one that waits or failed.
pub(crate) fn reason_list(job: &Job) -> String {
    use JobState::{Deadline, Failed, OutOfMemory, Pending, Timeout};
    if !matches!(job.state(), Pending | Timeout | OutOfMemory | Deadline | Failed) {
        return job.nodes.clone();
    }
    match job.reason_detail.as_str() {
        "" => format!("({})", reason_told(job)),
        detail => format!("({}, {detail})", reason(job)),
    }
}

/// What counts as its request for memory, the partition's default included. Of a job that holds all
/// of its nodes' memory: what that is on each.
pub(crate) fn memory(job: &Job) -> Option<memory::Request> {
    use memory::Request::{PerCpuMib, PerGpuMib, PerNodeMib};
    match job.memory.or(request(job).memory).and_then(|memory| memory.request)? {
        PerNodeMib(0) | PerCpuMib(0) | PerGpuMib(0) if !job.nodes.is_empty() => {
            Some(PerNodeMib(job.memory_mib / u64::from(job.node_count.max(1))))
        }
        other => Some(other),
    }
}

/// The least memory, per node, per CPU or per GPU.
pub(crate) fn min_memory(job: &Job, units: Units) -> String {
    match memory(job) {
        Some(
            memory::Request::PerNodeMib(mib)
            | memory::Request::PerCpuMib(mib)
            | memory::Request::PerGpuMib(mib),
        ) => units.mib(mib),
        None => "0".to_owned(),
    }
}

/// Its partition; all it asked for while it waits.
pub(crate) fn partition(job: &Job) -> String {
    if job.partition.is_empty() { spec(job).partitions.join(",") } else { job.partition.clone() }
}

/// `code:signal`.
pub(crate) fn exit(job: &Job) -> String {
    let exit = job.exit.unwrap_or_default();
    format!("{}:{}", exit.code, exit.signal)
}

/// What the batch script was called with.
pub(crate) fn command(job: &Job) -> String {
    let launch = launch(job);
    let words: Vec<&str> = std::iter::once(launch.command.as_str())
        .chain(launch.args.iter().map(String::as_str))
        .filter(|w| !w.is_empty())
        .collect();
    words.join(" ")
}

/// `name:2,other:1`.
pub(crate) fn licenses(job: &Job) -> String {
    let items = spec(job).licenses.iter().map(|l| format!("{}:{}", l.name, l.count));
    items.collect::<Vec<_>>().join(",")
}

/// A text, or `filler` where there is none.
pub(crate) fn or(text: &str, filler: &str) -> String {
    if text.is_empty() { filler.to_owned() } else { text.to_owned() }
}

/// The text `(null)`, which Slurm prints for what is not set.
pub(crate) fn or_null(text: &str) -> String {
    or(text, "(null)")
}

/// Whether it has, or had, one of these nodes.
pub(crate) fn on_nodes(job: &Job, wanted: &[String]) -> bool {
    let nodes = muster_model::hostlist::Hostlist::parse(&job.nodes).unwrap_or_default();
    nodes.0.iter().any(|node| wanted.contains(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Request::{PerCpuMib, PerNodeMib};
    use muster_proto::v1::{ExitStatus, Memory};

    #[track_caller]
    fn signalled(signal: u32, expected: &str) {
        let exit = Some(ExitStatus { signal, ..ExitStatus::default() });
        let job = Job { reason: "RaisedSignal".into(), exit, ..Job::default() };
        assert_eq!(reason_told(&job), expected);
    }

    #[test]
    fn a_signal_is_told_by_number_and_name() {
        signalled(9, "RaisedSignal:9(Killed)");
        signalled(15, "RaisedSignal:15(Terminated)");
        signalled(31, "RaisedSignal:31(Bad system call)");
        signalled(53, "RaisedSignal:53(Real-time signal 19)");
        signalled(99, "RaisedSignal:99(Unknown signal 99)");
        assert_eq!(reason_told(&Job::default()), "None");
    }

    #[track_caller]
    fn remembered(counts: Option<memory::Request>, nodes: &str, expected: &str) {
        let memory = counts.map(|request| Memory { request: Some(request) });
        let job =
            Job { memory, nodes: nodes.into(), node_count: 2, memory_mib: 8192, ..Job::default() };
        assert_eq!(min_memory(&job, Units::Exact), expected);
    }

    #[test]
    fn memory_is_what_counts_and_all_of_a_node_is_what_is_held() {
        remembered(Some(PerCpuMib(100)), "", "100M");
        remembered(Some(PerNodeMib(0)), "", "0");
        remembered(Some(PerNodeMib(0)), "n[1-2]", "4G");
        remembered(None, "n[1-2]", "0");
    }
}

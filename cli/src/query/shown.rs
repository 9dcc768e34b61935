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
        "" => format!("({})", reason(job)),
        detail => format!("({}, {detail})", reason(job)),
    }
}

/// The least memory it asked for, per node or per CPU.
pub(crate) fn min_memory(job: &Job, units: Units) -> String {
    match request(job).memory.and_then(|m| m.request) {
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

//! Jobs, array tasks and the pending rest of an array.

use muster_core::lifecycle::{Allocation, Finished, Phase};
use muster_core::state::State;
use muster_core::state::{Array, Job, JobView, TermState, Unstarted};
use muster_model::{
    DependencyTerm, ExitStatus, GresKind, GresScope, Hold, IndexSet, JobId, JobSpec, MemoryRequest,
    NodeId, Outcome, Placement, Reason, Seconds, TimeLimit, Timestamp,
};
use muster_proto::convert::job::{brief_out, spec_out};
use muster_proto::convert::values::{
    count_out, exit_out, limit_out, mask_out, memory_out, time_out, usage_out,
};
use muster_proto::v1;

use super::{host_list, node_name};
use crate::launch::pattern;

/// What a listing wants to know beyond the state.
#[derive(Debug, Clone, Default)]
pub struct Opinion {
    /// Why it waits, as the last pass saw it.
    pub reason: Reason,
    pub detail: String,
    /// When it may start.
    pub expected_start: Option<Timestamp>,
    /// Where, in rank order.
    pub scheduled: Vec<NodeId>,
    pub priority: u32,
}

/// What decides how much of a job is shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub now: Timestamp,
    pub depth: Depth,
}

/// How much of a job is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Neither the launch spec nor the names of its files.
    Brief,
    /// Without arguments, limits of resources and the placement per node.
    Plain,
    Details,
}

/// One line of a listing. An array's record is several: what is pending of it, and each group of
/// tasks that ended before they ever started.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    Job(&'a Job),
    Pending(&'a Array),
    Unstarted(&'a Array, &'a Unstarted),
}

impl<'a> Line<'a> {
    /// The lines of a view.
    pub fn of(view: JobView<'a>) -> impl Iterator<Item = Line<'a>> {
        let (job, array) = match view {
            JobView::Single(job) | JobView::Task(job) => (Some(job), None),
            JobView::ArrayRest(array) => (None, Some(array)),
        };
        let pending = array.filter(|a| !a.pending.is_empty()).map(Line::Pending);
        let unstarted =
            array.into_iter().flat_map(|a| a.unstarted.iter().map(move |u| Line::Unstarted(a, u)));
        job.map(Line::Job).into_iter().chain(pending).chain(unstarted)
    }

    /// What was asked for.
    #[must_use]
    pub fn spec(&self) -> &'a JobSpec {
        match self {
            Line::Job(job) => &job.spec,
            Line::Pending(array) | Line::Unstarted(array, _) => &array.spec,
        }
    }

    /// The state as which it is shown.
    #[must_use]
    pub fn state(&self) -> v1::JobState {
        match self {
            Line::Pending(_) => v1::JobState::Pending,
            Line::Unstarted(_, group) => outcome_state(&group.outcome),
            Line::Job(job) => match &job.phase {
                Phase::Pending { .. } => v1::JobState::Pending,
                Phase::Launching { .. } => v1::JobState::Configuring,
                Phase::Running { suspended: None, .. } => v1::JobState::Running,
                Phase::Running { .. } => v1::JobState::Suspended,
                Phase::Completing { .. } => v1::JobState::Completing,
                Phase::Ended { outcome, .. } => outcome_state(outcome),
            },
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        match self {
            Line::Job(job) => job.phase.is_ended(),
            Line::Pending(_) => false,
            Line::Unstarted(..) => true,
        }
    }

    /// As the core's questions want it.
    #[must_use]
    pub fn view(&self) -> JobView<'a> {
        match self {
            Line::Job(job) if job.array.is_some() => JobView::Task(job),
            Line::Job(job) => JobView::Single(job),
            Line::Pending(array) | Line::Unstarted(array, _) => JobView::ArrayRest(array),
        }
    }
}

/// One line as a message.
#[must_use]
pub fn job(state: &State, line: &Line<'_>, opinion: Opinion, shown: Shown) -> v1::Job {
    match line {
        Line::Job(job) => one(state, job, opinion, shown),
        Line::Pending(array) => rest(state, array, opinion, shown),
        Line::Unstarted(array, group) => unstarted(state, array, group, shown),
    }
}

fn one(state: &State, job: &Job, opinion: Opinion, shown: Shown) -> v1::Job {
    let mut out = asked(state, &job.spec, shown);
    out.id = job.id.0;
    if let Some((array, task)) = job.array {
        out.array_id = array.0;
        out.array_task = Some(task);
        out.array_throttle = state.arrays.get(&array).and_then(|a| a.throttle).unwrap_or(0);
    }
    out.attempt = job.attempt.0;
    out.restarts = job.restarts();
    out.submitted_at = job.submitted_at.0;
    out.eligible_at = eligible(job);
    out.priority = opinion.priority;
    match &job.phase {
        Phase::Pending { eligible_at, hold } => {
            out.state = v1::JobState::Pending as i32;
            out.eligible_at = eligible_at.0;
            expected(state, &mut out, &opinion);
            out.dependency = dependency(&job.spec, &job.terms, job.array.map(|(_, index)| index));
            waiting(&mut out, *hold, opinion);
        }
        Phase::Launching { held, .. } => {
            out.state = v1::JobState::Configuring as i32;
            allocated(state, &mut out, &job.spec, held, shown);
        }
        Phase::Running { held, suspended } => {
            let running =
                if suspended.is_some() { v1::JobState::Suspended } else { v1::JobState::Running };
            out.state = running as i32;
            allocated(state, &mut out, &job.spec, held, shown);
            out.suspended_at = time_out(*suspended);
        }
        Phase::Completing { held, outcome, since, .. } => {
            allocated(state, &mut out, &job.spec, held, shown);
            ended(&mut out, outcome, held.exit.map(|e| e.status));
            out.state = v1::JobState::Completing as i32;
            out.ended_at = held.exit.map_or(*since, |e| e.ended_at).0;
            out.usage = held.exit.map(|e| usage_out(e.usage));
        }
        Phase::Ended { outcome, at } => {
            match job.last.as_deref().filter(|last| last.attempt == job.attempt) {
                Some(last) => finished(state, &mut out, &job.spec, last, shown),
                None => ended(&mut out, outcome, None),
            }
            out.state = outcome_state(outcome) as i32;
            out.ended_at = if out.ended_at == 0 { at.0 } else { out.ended_at };
        }
    }
    paths(&mut out, &job.spec, shown);
    out
}

fn rest(state: &State, array: &Array, opinion: Opinion, shown: Shown) -> v1::Job {
    let mut out = asked(state, &array.spec, shown);
    out.id = array.id.0;
    out.array_id = array.id.0;
    out.array_tasks = array.pending.to_string();
    out.array_throttle = array.throttle.unwrap_or(0);
    out.state = v1::JobState::Pending as i32;
    out.submitted_at = array.submitted_at.0;
    out.eligible_at = array.eligible_at.0;
    expected(state, &mut out, &opinion);
    out.priority = opinion.priority;
    out.dependency = dependency(&array.spec, &array.terms, None);
    let all_held = |held: &IndexSet| !held.is_empty() && held.len() == array.pending.len();
    let hold = match () {
        () if all_held(&array.held_user) => Some(Hold::User),
        () if all_held(&array.held_admin) => Some(Hold::Admin),
        () => None,
    };
    waiting(&mut out, hold, opinion);
    rest_paths(&mut out, array, &array.pending, shown);
    out
}

fn unstarted(state: &State, array: &Array, group: &Unstarted, shown: Shown) -> v1::Job {
    let mut out = asked(state, &array.spec, shown);
    // The first of its tasks gives the group its number, so that no two groups share one.
    let first = group.tasks.first();
    let id = first.and_then(|task| array.task_id(task)).unwrap_or(array.id);
    out.id = id.0;
    out.array_id = array.id.0;
    match first.filter(|_| group.tasks.len() == 1) {
        Some(task) => out.array_task = Some(task),
        None => out.array_tasks = group.tasks.to_string(),
    }
    out.array_throttle = array.throttle.unwrap_or(0);
    out.submitted_at = array.submitted_at.0;
    out.eligible_at = array.eligible_at.0;
    ended(&mut out, &group.outcome, None);
    out.state = outcome_state(&group.outcome) as i32;
    out.started_at = group.at.0;
    out.ended_at = group.at.0;
    rest_paths(&mut out, array, &group.tasks, shown);
    out
}

/// An attempt that is over, as its history shows it.
#[must_use]
pub fn past(state: &State, job: &Job, last: &Finished, shown: Shown) -> v1::Job {
    let mut out = asked(state, &job.spec, shown);
    out.id = job.id.0;
    if let Some((array, task)) = job.array {
        out.array_id = array.0;
        out.array_task = Some(task);
    }
    out.attempt = last.attempt.0;
    out.restarts = last.attempt.0.saturating_sub(1);
    out.submitted_at = job.submitted_at.0;
    out.eligible_at = eligible(job);
    finished(state, &mut out, &job.spec, last, shown);
    out.state = outcome_state(&last.outcome) as i32;
    paths(&mut out, &job.spec, shown);
    out
}

/// What is still waited for: `afterok:12(unfulfilled)`.
fn dependency(spec: &JobSpec, terms: &[TermState], index: Option<u32>) -> String {
    let of = |(term, state): (&DependencyTerm, &TermState)| match state {
        TermState::Met { .. } => None,
        TermState::Waiting => Some(format!("{term}(unfulfilled)")),
        TermState::Never => Some(format!("{term}(failed)")),
        TermState::Each { ok, never } => match index {
            Some(index) if ok.contains(index) => None,
            Some(index) if never.contains(index) => Some(format!("{term}(failed)")),
            _ => Some(format!("{term}(unfulfilled)")),
        },
    };
    let terms = spec.dependency.terms.iter().zip(terms).filter_map(of);
    let singleton = spec.dependency.singleton.then(|| "singleton(unfulfilled)".to_owned());
    let separator = if spec.dependency.any { "?" } else { "," };
    terms.chain(singleton).collect::<Vec<_>>().join(separator)
}

/// Once started, a job no longer keeps the moment from which it might have.
fn eligible(job: &Job) -> i64 {
    job.spec.begin.map_or(job.submitted_at, |begin| begin.max(job.submitted_at)).0
}

/// The state that an outcome is shown as.
#[must_use]
pub fn outcome_state(outcome: &Outcome) -> v1::JobState {
    match outcome {
        Outcome::Completed => v1::JobState::Completed,
        Outcome::Failed(_) => v1::JobState::Failed,
        Outcome::Cancelled { .. } => v1::JobState::Cancelled,
        Outcome::Timeout => v1::JobState::Timeout,
        Outcome::OutOfMemory => v1::JobState::OutOfMemory,
        Outcome::NodeFail { .. } => v1::JobState::NodeFail,
        Outcome::Deadline => v1::JobState::Deadline,
        Outcome::Preempted => v1::JobState::Preempted,
        Outcome::BootFail => v1::JobState::BootFail,
    }
}

/// What was asked for: the part that is the same in every phase.
fn asked(state: &State, spec: &JobSpec, shown: Shown) -> v1::Job {
    let request = &spec.request;
    let nodes = request.nodes.min;
    let tasks = match request.tasks_per_node {
        Some(per_node) if !request.tasks_given => per_node.saturating_mul(nodes),
        _ => request.tasks.max(nodes),
    };
    let cpus = tasks.saturating_mul(request.cpus_per_task);
    let limit = spec.time_limit.or_else(|| default_limit(state, spec));
    let gres = request.gres.iter().map(|g| {
        let times = match g.scope {
            GresScope::Job => 1,
            GresScope::Node => nodes,
            GresScope::Task => tasks,
            GresScope::Socket => nodes.saturating_mul(request.sockets_per_node.unwrap_or(1)),
        };
        count_out(&g.kind, g.count.saturating_mul(times.into()))
    });
    let gres: Vec<v1::GresCount> = gres.collect();
    let gpus = gres.iter().filter(|g| g.kind.as_ref().is_some_and(|kind| kind.name == "gpu"));
    let memory = memory_in(state, spec, spec.partitions.first().map(|name| &**name));
    let memory_mib = match memory {
        MemoryRequest::PerNode(mib) => mib.saturating_mul(u64::from(nodes)),
        MemoryRequest::PerCpu(mib) => mib.saturating_mul(u64::from(cpus)),
        MemoryRequest::PerGpu(mib) => mib.saturating_mul(gpus.map(|g| g.count).sum()),
        MemoryRequest::Default => 0,
    };
    let mut wire = match shown.depth {
        Depth::Brief => brief_out(spec),
        Depth::Plain | Depth::Details => spec_out(spec),
    };
    if let (Depth::Plain, Some(launch)) = (shown.depth, &mut wire.launch) {
        // Listings need the names and where it runs; argument lists can be long.
        launch.args.clear();
        launch.rlimits.clear();
        launch.submit_line.clear();
    }
    v1::Job {
        partition: spec.partitions.join(","),
        time_limit: limit.map(limit_out),
        node_count: nodes,
        cpu_count: cpus,
        task_count: tasks,
        memory_mib,
        memory: memory_out(memory),
        gres,
        spec: Some(wire),
        reason: Reason::None.text().into(),
        ..v1::Job::default()
    }
}

fn expected(state: &State, out: &mut v1::Job, opinion: &Opinion) {
    out.started_at = time_out(opinion.expected_start);
    let name = |node: &NodeId| node_name(state, *node).to_owned();
    out.scheduled_nodes = opinion.scheduled.iter().map(name).collect();
}

fn default_limit(state: &State, spec: &JobSpec) -> Option<TimeLimit> {
    let partition = &state.partition(spec.partitions.first()?)?.partition;
    Some(partition.default_time.unwrap_or(partition.max_time))
}

/// What its request for memory means in a partition.
fn memory_in(state: &State, spec: &JobSpec, partition: Option<&str>) -> MemoryRequest {
    let asked = spec.request.memory;
    let partition = partition.and_then(|name| state.partition(name));
    partition.map_or(asked, |known| known.partition.memory(asked))
}

fn waiting(out: &mut v1::Job, hold: Option<Hold>, opinion: Opinion) {
    let reason = match hold {
        Some(Hold::User) => Reason::JobHeldUser,
        Some(Hold::Admin) => Reason::JobHeldAdmin,
        Some(Hold::MaxRequeue) => Reason::JobHoldMaxRequeue,
        Some(Hold::LaunchFailed) => Reason::JobLaunchFailure,
        None => opinion.reason,
    };
    if hold.is_some() {
        out.priority = 0;
    } else {
        out.reason_detail = opinion.detail;
    }
    out.reason = reason.text().into();
}

fn allocated(state: &State, out: &mut v1::Job, spec: &JobSpec, held: &Allocation, shown: Shown) {
    placed(state, out, &held.placement, shown);
    ran_in(state, out, spec, &held.partition);
    let started_at = held.started_at.unwrap_or(held.allocated_at);
    out.started_at = started_at.0;
    out.ended_at = time_out(held.end_at);
    out.suspended_ms = held.suspended_ms;
    gpus_failed(state, out, &held.placement, None);
    limited(out, held.time_limit);
    if out.time_limit.is_none() {
        out.time_limit = Some(limit_out(TimeLimit::Unlimited));
    }
}

fn ran_in(state: &State, out: &mut v1::Job, spec: &JobSpec, partition: &str) {
    out.partition = partition.to_owned();
    out.memory = memory_out(memory_in(state, spec, Some(partition)));
}

/// A limit chosen at the start stands in for the one asked for.
fn limited(out: &mut v1::Job, chosen: Option<Seconds>) {
    if let Some(chosen) = chosen {
        out.time_limit = Some(limit_out(TimeLimit::Limited(chosen)));
    }
}

fn finished(state: &State, out: &mut v1::Job, spec: &JobSpec, last: &Finished, shown: Shown) {
    placed(state, out, &last.placement, shown);
    ran_in(state, out, spec, &last.partition);
    out.started_at = last.started_at.unwrap_or(last.allocated_at).0;
    out.ended_at = last.ended_at.0;
    out.suspended_ms = last.suspended_ms;
    limited(out, last.time_limit);
    out.usage = last.exit.map(|e| usage_out(e.usage));
    gpus_failed(state, out, &last.placement, Some(last.ended_at));
    ended(out, &last.outcome, last.exit.map(|e| e.status));
}

/// Tells a job of its GPUs that were taken out while it held them.
fn gpus_failed(state: &State, out: &mut v1::Job, placement: &Placement, until: Option<Timestamp>) {
    let mut words = Vec::new();
    for slice in &placement.slices {
        let gpus = slice.gres.iter().filter(|held| &*held.kind.name == "gpu");
        let mask = gpus.fold(0, |mask, held| mask | held.mask);
        let Some(node) = state.node(slice.node).filter(|_| mask != 0) else { continue };
        for (unit, mark) in
            node.health.gpus.iter().filter(|(u, _)| **u < 64 && mask >> **u & 1 == 1)
        {
            let at = mark.mark.at;
            if at.0 >= out.started_at && until.is_none_or(|end| at <= end) {
                words.push(format!("GPU {unit} of {}: {}", node.config.name, mark.mark.reason));
            }
        }
    }
    out.system_comment = words.join("; ");
}

fn placed(state: &State, out: &mut v1::Job, placement: &Placement, shown: Shown) {
    out.nodes = host_list(state, placement.nodes());
    out.batch_host = placement.nodes().next().map_or("", |n| node_name(state, n)).to_owned();
    out.node_count = u32::try_from(placement.slices.len()).unwrap_or(u32::MAX);
    out.cpu_count = placement.cpus();
    out.memory_mib = placement.memory_mib();
    let mut gres: std::collections::BTreeMap<&GresKind, u64> = Default::default();
    for held in placement.slices.iter().flat_map(|s| &s.gres) {
        *gres.entry(&held.kind).or_default() += held.count;
    }
    out.gres = gres.into_iter().map(|(kind, count)| count_out(kind, count)).collect();
    if shown.depth == Depth::Details {
        out.slices = placement
            .slices
            .iter()
            .map(|slice| v1::NodeSlice {
                node: node_name(state, slice.node).to_owned(),
                cpus: slice.cpus.to_string(),
                memory_mib: slice.memory_mib,
                gres: slice.gres.iter().map(mask_out).collect(),
                tasks: slice.tasks,
            })
            .collect();
    }
}

fn ended(out: &mut v1::Job, outcome: &Outcome, exit: Option<ExitStatus>) {
    let killed = exit.unwrap_or_default();
    let (exit, reason) = match outcome {
        Outcome::Completed => (ExitStatus::default(), Reason::None),
        Outcome::Failed(status) if status.signal != 0 => (*status, Reason::RaisedSignal),
        Outcome::Failed(status) => (*status, Reason::NonZeroExitCode),
        Outcome::Cancelled { by } => {
            out.cancelled_by = by.0;
            (ExitStatus { code: 0, signal: killed.signal }, Reason::None)
        }
        Outcome::Timeout => (ExitStatus::default(), Reason::TimeLimit),
        Outcome::OutOfMemory => (ExitStatus { code: 0, signal: 125 }, Reason::OutOfMemory),
        Outcome::NodeFail { node } => {
            out.failed_node = node.to_string();
            (killed, Reason::NodeDown)
        }
        Outcome::Deadline => (ExitStatus::default(), Reason::DeadLine),
        Outcome::Preempted => (ExitStatus::default(), Reason::None),
        Outcome::BootFail => (ExitStatus { code: 1, signal: 0 }, Reason::JobLaunchFailure),
    };
    out.exit = Some(exit_out(exit));
    out.reason = reason.text().into();
}

/// Shows only these of an array's tasks that have not started.
pub fn narrow(out: &mut v1::Job, array: &Array, tasks: &IndexSet, shown: Shown) {
    let left = array.pending.intersection(tasks);
    out.array_tasks = left.to_string();
    if left.len() == 1 {
        rest_paths(out, array, &left, shown);
    }
}

/// The files of tasks that have no record of their own: a single one's numbers are known.
fn rest_paths(out: &mut v1::Job, array: &Array, tasks: &IndexSet, shown: Shown) {
    let only = tasks.first().filter(|_| tasks.len() == 1);
    let id = only.and_then(|task| array.task_id(task)).unwrap_or(array.id);
    files(out, &array.spec, id, Some((array.id.0, only.unwrap_or(pattern::NO_TASK))), shown);
}

fn paths(out: &mut v1::Job, spec: &JobSpec, shown: Shown) {
    let (id, array) = (JobId(out.id), out.array_task.map(|task| (out.array_id, task)));
    files(out, spec, id, array, shown);
}

fn files(out: &mut v1::Job, spec: &JobSpec, id: JobId, array: Option<(u32, u32)>, shown: Shown) {
    if shown.depth == Depth::Brief {
        return;
    }
    let names = pattern::Names {
        job: id.0,
        array,
        user: &spec.user.name,
        job_name: &spec.name,
        node: &out.batch_host,
        restarts: out.restarts,
    };
    let launch = &spec.launch;
    let file = |pattern: Option<&str>| pattern::file(pattern, &launch.workdir, &names);
    let stdout = file(launch.stdout.as_deref());
    let stderr = launch.stderr.as_deref().map_or_else(|| stdout.clone(), |p| file(Some(p)));
    let stdin = launch.stdin.as_deref().map_or_else(|| "/dev/null".to_owned(), |p| file(Some(p)));
    (out.stdout, out.stderr, out.stdin) = (stdout, stderr, stdin);
}

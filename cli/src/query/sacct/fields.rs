//! The columns: name, default width (negative: text on the left), value.
//!
//! A job's own line has what it asked for and got; what was used is known of its steps.

use muster_model::hostlist::Hostlist;
use muster_model::time::Clock;
use muster_proto::v1::{Job, JobState, StepRow, TaskFigures, Usage};

use super::super::shown::{self, launch, or, request, spec};
use super::super::sizes::Units;
use super::super::surroundings::Surroundings;
use super::super::times::cpu_time;
use super::super::{states, tres};

/// A line: the job's own, or one of its steps'.
pub(in super::super) struct Row<'a> {
    pub(in super::super) job: &'a Job,
    /// None: the job's own line.
    pub(in super::super) step: Option<&'a StepRow>,
    /// All of the job's.
    pub(in super::super) steps: &'a [StepRow],
}

/// What values are shown with.
pub(in super::super) struct View<'a> {
    pub(in super::super) here: &'a Surroundings,
    pub(in super::super) units: Units,
    pub(in super::super) cluster: &'a str,
    /// Times are cut to it (`-T`).
    pub(in super::super) window: Option<(i64, i64)>,
}

/// A column.
pub(in super::super) struct Field {
    pub(in super::super) name: &'static str,
    pub(in super::super) width: i32,
    pub(in super::super) value: fn(&Row, &View) -> String,
}

type Value = fn(&Row, &View) -> String;

const fn f(name: &'static str, width: i32, value: Value) -> Field {
    Field { name, width, value }
}

/// Names and widths of all columns.
pub(in super::super) fn names() -> Vec<(&'static str, i32)> {
    FIELDS.iter().map(|f| (f.name, f.width)).collect()
}

impl Row<'_> {
    fn started(&self, view: &View) -> i64 {
        let at = match self.step {
            Some(step) => step.started_at,
            // A start that is only expected is none.
            None if self.job.state() == JobState::Pending => 0,
            None => self.job.started_at,
        };
        match view.window {
            Some((from, to)) if at > 0 => at.clamp(from, to),
            _ => at,
        }
    }

    fn ended(&self, view: &View) -> i64 {
        let (at, state) = match self.step {
            Some(step) => (step.ended_at, step.state()),
            None => (self.job.ended_at, self.job.state()),
        };
        let at = if states::ended(state) { at } else { 0 };
        match view.window {
            Some((_, to)) if at == 0 && self.started(view) > 0 => to,
            Some((from, to)) if at > 0 => at.clamp(from, to),
            _ => at,
        }
    }

    fn elapsed(&self, view: &View) -> i64 {
        let started = self.started(view);
        if started <= 0 {
            return 0;
        }
        if self.step.is_none() && view.window.is_none() {
            return shown::used_seconds(self.job, view.here.now);
        }
        let end = match self.ended(view) {
            0 => view.here.now,
            end => end,
        };
        ((end - started) / 1000).max(0)
    }

    fn allocated(&self) -> bool {
        !self.job.nodes.is_empty()
    }

    fn cpus(&self) -> u32 {
        match self.step {
            Some(step) => step.cpu_count,
            None if self.allocated() => self.job.cpu_count,
            None => 0,
        }
    }

    fn nodes(&self) -> u32 {
        match self.step {
            Some(step) => {
                let count = Hostlist::parse(&step.nodes).map_or(0, |list| list.0.len());
                u32::try_from(count).unwrap_or(u32::MAX)
            }
            None => self.job.node_count,
        }
    }

    /// Of the step, or of all steps together.
    fn usage(&self) -> Usage {
        let add = |sum: Usage, u: Usage| Usage {
            user_cpu_ms: sum.user_cpu_ms + u.user_cpu_ms,
            system_cpu_ms: sum.system_cpu_ms + u.system_cpu_ms,
            max_rss_kib: sum.max_rss_kib.max(u.max_rss_kib),
            gpu: sum.gpu.or(u.gpu),
        };
        match self.step {
            Some(step) => step.usage.unwrap_or_default(),
            None if self.steps.is_empty() => self.job.usage.unwrap_or_default(),
            None => self.steps.iter().filter_map(|s| s.usage).fold(Usage::default(), add),
        }
    }

    /// A value that only jobs have.
    fn job(&self, of: impl FnOnce(&Job) -> String) -> String {
        if self.step.is_some() { String::new() } else { of(self.job) }
    }

    /// A value that only steps have, and only once they used something.
    fn step(&self, of: impl FnOnce(&StepRow, Usage) -> String) -> String {
        match self.step {
            Some(step) => step.usage.map_or_else(String::new, |usage| of(step, usage)),
            None => String::new(),
        }
    }

    fn waited(&self, view: &View) -> i64 {
        let until = match self.started(view) {
            0 if states::ended(self.job.state()) => self.job.ended_at,
            0 => view.here.now,
            started => started,
        };
        ((until - self.job.submitted_at) / 1000).max(0)
    }
}

const NONE: Value = |_, _| String::new();

fn cpu_ms(usage: Usage) -> u64 {
    usage.user_cpu_ms + usage.system_cpu_ms
}

/// How a step's tasks were beside each other. What had no tasks of its own, as a batch script, was
/// one.
fn tasks_of(step: &StepRow, usage: Usage) -> TaskFigures {
    step.figures.clone().unwrap_or_else(|| TaskFigures {
        tasks: 1,
        max_rss_kib: usage.max_rss_kib,
        max_rss_node: first_node(step),
        sum_rss_kib: usage.max_rss_kib,
        min_cpu_ms: cpu_ms(usage),
        min_cpu_node: first_node(step),
        ..TaskFigures::default()
    })
}

fn average_ms(step: &StepRow, usage: Usage) -> u64 {
    cpu_ms(usage) / u64::from(tasks_of(step, usage).tasks.max(1))
}

fn average_kib(step: &StepRow, usage: Usage) -> u64 {
    let tasks = tasks_of(step, usage);
    tasks.sum_rss_kib / u64::from(tasks.tasks.max(1))
}

fn first_node(step: &StepRow) -> String {
    Hostlist::parse(&step.nodes).unwrap_or_default().0.into_iter().next().unwrap_or_default()
}

fn clock_ms(ms: u64) -> String {
    Clock(i64::try_from(ms / 1000).unwrap_or(i64::MAX)).to_string()
}

fn usage_tres(cpu_ms: u64, rss_kib: u64, usage: Usage, view: &View) -> String {
    let gpus = tres::of_gpus(&usage);
    format!("cpu={},mem={}{gpus}", clock_ms(cpu_ms), view.units.kib(rss_kib))
}

fn state(row: &Row) -> String {
    match row.step {
        Some(step) => states::long(step.state()).to_owned(),
        None => states::accounted(row.job),
    }
}

fn exit(row: &Row) -> String {
    match row.step {
        Some(step) => {
            let exit = step.exit.unwrap_or_default();
            format!("{}:{}", exit.code, exit.signal)
        }
        None => shown::exit(row.job),
    }
}

/// The largest code of the job's steps.
fn derived(row: &Row) -> String {
    let exits = row.steps.iter().filter_map(|s| s.exit);
    let most = exits.max_by_key(|e| (e.code, e.signal)).or(row.job.exit).unwrap_or_default();
    format!("{}:{}", most.code, most.signal)
}

fn id(row: &Row, shown_id: &str) -> String {
    match row.step {
        Some(step) => format!("{shown_id}.{}", step.id),
        None => shown_id.to_owned(),
    }
}

fn limit(job: &Job, show: fn(u32) -> String) -> String {
    match shown::limit_minutes(job.time_limit.as_ref()) {
        Some(Some(minutes)) => show(minutes),
        Some(None) => "UNLIMITED".to_owned(),
        None => "Partition_Limit".to_owned(),
    }
}

fn allocated_tres(row: &Row, view: &View) -> String {
    match row.step {
        Some(step) => {
            let all = u64::from(row.job.node_count.max(1));
            let shared = row.job.memory_mib * u64::from(row.nodes()) / all;
            let memory = if step.memory_mib > 0 { step.memory_mib } else { shared };
            let list = tres::of_step(step.cpu_count, memory, row.nodes(), &step.gres);
            tres::sorted_text(&list, view.units)
        }
        None if row.allocated() => tres::sorted_text(&tres::of_job(row.job), view.units),
        None => String::new(),
    }
}

fn nodes(row: &Row) -> String {
    match row.step {
        Some(step) => step.nodes.clone(),
        None => or(&row.job.nodes, "None assigned"),
    }
}

/// Every column, in the order of `--helpformat`.
pub(in super::super) const FIELDS: &[Field] = &[
    f("Account", 10, |r, _| spec(r.job).account.clone()),
    f("AdminComment", 15, |r, _| r.job(|j| launch(j).admin_comment.clone())),
    f("AllocCPUS", 10, |r, _| r.cpus().to_string()),
    f("AllocNodes", 10, |r, _| if r.allocated() { r.nodes() } else { 0 }.to_string()),
    f("AllocTRES", 10, allocated_tres),
    f("AssocID", 7, NONE),
    f("AveCPU", 10, |r, _| r.step(|s, u| clock_ms(average_ms(s, u)))),
    f("AveCPUFreq", 10, NONE),
    f("AveDiskRead", 14, NONE),
    f("AveDiskWrite", 14, NONE),
    f("AvePages", 10, NONE),
    f("AveRSS", 10, |r, v| r.step(|s, u| v.units.kib(average_kib(s, u)))),
    f("AveVMSize", 10, NONE),
    f("BlockID", 16, NONE),
    f("Cluster", 10, |_, v| v.cluster.to_owned()),
    f("Comment", 14, |r, _| r.job(|j| spec(j).comment.clone())),
    f("Constraints", 19, |r, _| r.job(|j| request(j).constraint.clone())),
    f("ConsumedEnergy", 14, |r, _| tres::energy(Some(&r.usage()))),
    f("ConsumedEnergyRaw", 17, |r, _| tres::energy_joules(Some(&r.usage()))),
    f("Container", 19, NONE),
    f("CPUTime", 10, |r, v| Clock(r.elapsed(v) * i64::from(r.cpus())).to_string()),
    f("CPUTimeRAW", 10, |r, v| (r.elapsed(v) * i64::from(r.cpus())).to_string()),
    f("DBIndex", -21, |r, _| r.job.id.to_string()),
    f("DerivedExitCode", 15, |r, _| r.job(|_| derived(r))),
    f("Elapsed", 10, |r, v| Clock(r.elapsed(v)).to_string()),
    f("ElapsedRaw", 10, |r, v| r.elapsed(v).to_string()),
    f("Eligible", 19, |r, v| {
        v.here.time(r.step.map_or(r.job.eligible_at, |s| s.started_at), "Unknown")
    }),
    f("End", 19, |r, v| v.here.time(r.ended(v), "Unknown")),
    f("Exclusive", 14, |r, _| {
        r.job(|j| if request(j).exclusive { "YES" } else { "NO" }.to_owned())
    }),
    f("ExitCode", 8, |r, _| exit(r)),
    f("Extra", 14, NONE),
    f("FailedNode", 8, |r, _| r.job(|j| j.failed_node.clone())),
    f("Flags", 19, NONE),
    f("GID", 6, |r, _| r.job(|j| shown::gid(j).to_string())),
    f("Group", 9, |r, v| r.job(|j| v.here.group(shown::gid(j)))),
    f("JobID", -12, |r, _| id(r, &shown::id(r.job))),
    f("JobIDRaw", -12, |r, _| id(r, &r.job.id.to_string())),
    f("JobName", 10, |r, _| r.step.map_or_else(|| spec(r.job).name.clone(), |s| s.name.clone())),
    f("Layout", 9, |r, _| r.step.map_or_else(String::new, |s| s.layout.clone())),
    f("Licenses", 10, |r, _| r.job(shown::licenses)),
    f("MaxDiskRead", 12, NONE),
    f("MaxDiskReadNode", 15, NONE),
    f("MaxDiskReadTask", 15, NONE),
    f("MaxDiskWrite", 12, NONE),
    f("MaxDiskWriteNode", 16, NONE),
    f("MaxDiskWriteTask", 16, NONE),
    f("MaxPages", 8, NONE),
    f("MaxPagesNode", 12, NONE),
    f("MaxPagesTask", 14, NONE),
    f("MaxRSS", 10, |r, v| r.step(|s, u| v.units.kib(tasks_of(s, u).max_rss_kib))),
    f("MaxRSSNode", 10, |r, _| r.step(|s, u| tasks_of(s, u).max_rss_node)),
    f("MaxRSSTask", 10, |r, _| r.step(|s, u| tasks_of(s, u).max_rss_task.to_string())),
    f("MaxVMSize", 10, NONE),
    f("MaxVMSizeNode", 14, NONE),
    f("MaxVMSizeTask", 14, NONE),
    f("McsLabel", 12, NONE),
    f("MinCPU", 10, |r, _| r.step(|s, u| clock_ms(tasks_of(s, u).min_cpu_ms))),
    f("MinCPUNode", 10, |r, _| r.step(|s, u| tasks_of(s, u).min_cpu_node)),
    f("MinCPUTask", 10, |r, _| r.step(|s, u| tasks_of(s, u).min_cpu_task.to_string())),
    f("NCPUS", 10, |r, _| r.cpus().to_string()),
    f("NNodes", 8, |r, _| r.nodes().to_string()),
    f("NodeList", 15, |r, _| nodes(r)),
    f("NTasks", 8, |r, _| r.step.map_or_else(String::new, |s| s.tasks.to_string())),
    f("OriginalSLUID", 14, NONE),
    f("OverSubscribe", 14, |r, _| {
        r.job(|j| if request(j).exclusive { "NO" } else { "OK" }.to_owned())
    }),
    f("Partition", 10, |r, _| r.job(shown::partition)),
    f("Planned", 10, |r, v| r.job(|_| Clock(r.waited(v)).to_string())),
    f("PlannedCPU", 10, |r, v| r.job(|j| Clock(r.waited(v) * i64::from(j.cpu_count)).to_string())),
    f("PlannedCPURAW", 13, |r, v| r.job(|j| (r.waited(v) * i64::from(j.cpu_count)).to_string())),
    f("Priority", 10, |r, _| r.job(|j| j.priority.to_string())),
    f("QOS", 10, |r, _| r.job(|j| spec(j).qos.clone())),
    f("QOSRAW", 6, NONE),
    f("QOSREQ", 10, |r, _| r.job(|j| spec(j).qos.clone())),
    f("Reason", 22, |r, _| r.job(|j| shown::reason(j).to_owned())),
    f("ReqCPUFreq", 10, |r, _| r.job(|_| "Unknown".to_owned())),
    f("ReqCPUFreqGov", 13, |r, _| r.job(|_| "Unknown".to_owned())),
    f("ReqCPUFreqMax", 13, |r, _| r.job(|_| "Unknown".to_owned())),
    f("ReqCPUFreqMin", 13, |r, _| r.job(|_| "Unknown".to_owned())),
    f("ReqCPUS", 8, |r, _| match r.step {
        Some(step) => step.cpu_count.to_string(),
        None => r.job.cpu_count.to_string(),
    }),
    f("ReqMem", 10, |r, v| r.job(|j| v.units.mib(j.memory_mib))),
    f("ReqNodes", 8, |r, _| r.job(|j| request(j).min_nodes.max(1).to_string())),
    f("ReqTRES", 10, |r, v| r.job(|j| tres::sorted_text(&tres::of_job(j), v.units))),
    f("Reservation", 20, |r, _| r.job(|j| spec(j).reservation.clone())),
    f("ReservationId", 8, NONE),
    f("ReqReservation", 20, |r, _| r.job(|j| spec(j).reservation.clone())),
    f("Restarts", 8, |r, _| r.job(|j| j.restarts.to_string())),
    f("SegmentSize", 11, NONE),
    f("SLUID", 14, NONE),
    f("Start", 19, |r, v| v.here.time(r.started(v), "Unknown")),
    f("State", 10, |r, _| state(r)),
    f("StdErr", 20, |r, _| r.job(|j| j.stderr.clone())),
    f("StdIn", 20, |r, _| r.job(|j| or(&j.stdin, "/dev/null"))),
    f("StdOut", 20, |r, _| r.job(|j| j.stdout.clone())),
    f("Submit", 19, |r, v| {
        v.here.time(r.step.map_or(r.job.submitted_at, |s| s.started_at), "Unknown")
    }),
    f("SubmitLine", 20, |r, _| match r.step {
        Some(step) => step.submit_line.clone(),
        None => launch(r.job).submit_line.clone(),
    }),
    f("Suspended", 10, |r, _| Clock(r.job.suspended_ms / 1000).to_string()),
    f("SystemComment", 15, |r, _| r.job(|j| j.system_comment.clone())),
    f("SystemCPU", 10, |r, _| cpu_time(r.usage().system_cpu_ms)),
    f("Timelimit", 10, |r, _| r.job(|j| limit(j, |m| Clock(i64::from(m) * 60).to_string()))),
    f("TimelimitRaw", 10, |r, _| r.job(|j| limit(j, |m| m.to_string()))),
    f("TotalCPU", 10, |r, _| cpu_time(cpu_ms(r.usage()))),
    f("TRESUsageInAve", 14, |r, v| {
        r.step(|s, u| usage_tres(average_ms(s, u), average_kib(s, u), u, v))
    }),
    f("TRESUsageInMax", 14, |r, v| {
        r.step(|s, u| usage_tres(cpu_ms(u), tasks_of(s, u).max_rss_kib, u, v))
    }),
    f("TRESUsageInMaxNode", 18, NONE),
    f("TRESUsageInMaxTask", 18, NONE),
    f("TRESUsageInMin", 14, |r, v| {
        r.step(|s, u| usage_tres(tasks_of(s, u).min_cpu_ms, average_kib(s, u), u, v))
    }),
    f("TRESUsageInMinNode", 18, NONE),
    f("TRESUsageInMinTask", 18, NONE),
    f("TRESUsageInTot", 14, |r, v| {
        r.step(|s, u| usage_tres(cpu_ms(u), tasks_of(s, u).sum_rss_kib, u, v))
    }),
    f("TRESUsageOutAve", 15, NONE),
    f("TRESUsageOutMax", 15, NONE),
    f("TRESUsageOutMaxNode", 19, NONE),
    f("TRESUsageOutMaxTask", 19, NONE),
    f("TRESUsageOutMin", 15, NONE),
    f("TRESUsageOutMinNode", 19, NONE),
    f("TRESUsageOutMinTask", 19, NONE),
    f("TRESUsageOutTot", 15, NONE),
    f("UID", 6, |r, _| r.job(|j| shown::uid(j).to_string())),
    f("User", 9, |r, _| r.job(shown::user)),
    f("UserCPU", 10, |r, _| cpu_time(r.usage().user_cpu_ms)),
    f("WCKey", 10, |r, _| r.job(|j| spec(j).wckey.clone())),
    f("WCKeyID", 10, NONE),
    f("WorkDir", 20, |r, _| r.job(|j| launch(j).workdir.clone())),
];

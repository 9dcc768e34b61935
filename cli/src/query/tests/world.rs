//! A small cluster at 2026-11-23T17:02:29, an hour east of UTC: what every query test asks.

use std::collections::BTreeMap;

use jiff::tz::{TimeZone, offset};
use muster_proto::v1::{self, ErrorDetail, JobState, NodeBase, memory, time_limit};

use super::super::source::Source;
use super::super::surroundings::Surroundings;
use super::super::times::Style;
use super::super::{Output, accounts, gpu, sacct, sdiag, seff, sinfo, squeue, sstat};
use crate::connect::CallError;
use crate::step::figures::Figures;

pub(super) const NOW: i64 = 1_795_449_749_000;
const MINUTE: i64 = 60_000;

/// Answers from memory. Filters of the request are left to the command, but for the job ids,
/// which the controller narrows by.
pub(super) struct Fixed {
    pub(super) jobs: Vec<v1::Job>,
    pub(super) history: Vec<v1::HistoryRow>,
    /// Nobody answers.
    pub(super) down: bool,
}

impl Fixed {
    pub(super) fn new() -> Self {
        Fixed { jobs: jobs(), history: history(), down: false }
    }

    fn up(&self) -> Result<(), CallError> {
        if self.down {
            return Err(CallError::Unreachable {
                target: "the controller's socket /run/c.sock".into(),
                seconds: 120,
                fault: "No such file or directory".into(),
            });
        }
        Ok(())
    }
}

/// A GPU that is used, one that is broken, and one of which nobody knows anything.
fn gpus() -> Vec<v1::Gpu> {
    let gpu = |index| v1::Gpu {
        node: "n1".into(),
        index,
        r#type: "h100".into(),
        node_usable: true,
        ..v1::Gpu::default()
    };
    vec![
        v1::Gpu {
            uuid: "GPU-0a".into(),
            minor: Some(2),
            memory_mib: 81_559,
            job: 12,
            job_shown: "10_2".into(),
            job_user: "ann".into(),
            r#use: Some(v1::GpuUse {
                utilization: 97,
                memory_used_mib: 40_000,
                watts: 650,
                celsius: 61,
                processes: 1,
            }),
            ..gpu(0)
        },
        v1::Gpu { reason: "Xid 79 (GPU has fallen off the bus)".into(), reason_at: NOW, ..gpu(1) },
        gpu(2),
    ]
}

fn named(refs: &[v1::JobRef], job: &v1::Job) -> bool {
    refs.is_empty() || refs.iter().any(|r| r.job == job.id || r.job == job.array_id)
}

impl Source for Fixed {
    fn jobs(
        &mut self,
        request: &v1::ListJobsRequest,
        keep: &dyn Fn(&v1::Job) -> bool,
    ) -> Result<Vec<v1::Job>, CallError> {
        self.up()?;
        let wanted = |job: &&v1::Job| named(&request.jobs, job) && keep(job);
        Ok(self.jobs.iter().filter(wanted).cloned().collect())
    }

    fn nodes(&mut self) -> Result<Vec<v1::Node>, CallError> {
        self.up()?;
        Ok(nodes())
    }

    fn partitions(&mut self) -> Result<Vec<v1::Partition>, CallError> {
        self.up()?;
        Ok(partitions())
    }

    fn gpus(&mut self, _: &str) -> Result<Vec<v1::Gpu>, CallError> {
        self.up()?;
        Ok(gpus())
    }

    fn reservations(&mut self) -> Result<Vec<v1::Reservation>, CallError> {
        self.up()?;
        Ok(vec![v1::Reservation {
            name: "maintenance".into(),
            nodes: "n[3-4]".into(),
            start: NOW - 10 * MINUTE,
            end: NOW + 110 * MINUTE,
            active: true,
            ..v1::Reservation::default()
        }])
    }

    fn history(
        &mut self,
        request: &v1::HistoryRequest,
        keep: &dyn Fn(&v1::HistoryRow) -> bool,
    ) -> Result<Vec<v1::HistoryRow>, CallError> {
        self.up()?;
        let wanted = |row: &&v1::HistoryRow| {
            row.job.as_ref().is_some_and(|job| named(&request.jobs, job)) && keep(row)
        };
        Ok(self.history.iter().filter(wanted).cloned().collect())
    }

    fn steps(&mut self, _: &v1::StepsRequest) -> Result<Vec<v1::Step>, CallError> {
        self.up()?;
        Ok(Vec::new())
    }

    fn figures(&mut self, _: u32, _: &str) -> BTreeMap<String, Figures> {
        BTreeMap::new()
    }

    fn usage(&mut self, request: &v1::ListUsageRequest) -> Result<Vec<v1::JobUsage>, CallError> {
        self.up()?;
        let running = v1::JobUsage {
            job: 12,
            shown: "12".into(),
            nodes: "n[1-2]".into(),
            usage: Some(usage(600_000, 12_345, 2_097_152)),
            tasks: 1,
            pids: 3,
        };
        let wanted = request.jobs.iter().any(|r| r.job == running.job);
        Ok(if wanted { vec![running] } else { Vec::new() })
    }

    fn script(&mut self, request: &v1::GetScriptRequest) -> Result<Vec<u8>, CallError> {
        match (request.job, request.environment) {
            (12, false) => Ok(b"#!/bin/sh\nexec train\n".to_vec()),
            (12, true) => Ok(b"HOME=/home/alice\0LANG=C\0".to_vec()),
            _ => Err(CallError::Refused(ErrorDetail {
                slurm_errno: 2002,
                slurm_text: "Access/permission denied".into(),
                message: "job 15 is another user's".into(),
            })),
        }
    }

    fn diag(&mut self) -> Result<v1::DiagReply, CallError> {
        self.up()?;
        let call = |method: &str, count, total_us| v1::CallCount {
            method: method.into(),
            count,
            total_us,
        };
        Ok(v1::DiagReply {
            now: NOW,
            started_at: NOW - 10 * MINUTE,
            threads: 1,
            submitted: 40,
            started: 30,
            completed: 20,
            cancelled: 3,
            failed: 2,
            pending: 5,
            running: 10,
            passes: 120,
            pass_last_us: 900,
            pass_max_us: 4000,
            pass_total_us: 120_000,
            last_pass_at: NOW - 1000,
            last_considered: 5,
            considered: 1200,
            calls: vec![call("ListJobs", 7, 2100), call("Submit", 40, 8000)],
        })
    }

    fn cluster(&mut self) -> Result<String, CallError> {
        self.up()?;
        Ok("demo".into())
    }
}

/// Alice at her desk, with these variables set.
pub(super) fn desk(variables: &[(&str, &str)]) -> Surroundings {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let style = variables.get("SLURM_TIME_FORMAT").map(|text| Style::parse(text));
    Surroundings {
        now: NOW,
        zone: TimeZone::fixed(offset(1)),
        style: style.unwrap_or_default(),
        uid: 1000,
        variables,
        uid_of: |name| match name {
            "alice" => Some(1000),
            "bob" => Some(1001),
            _ => None,
        },
        name_of: |uid| match uid {
            1000 => Some("alice".into()),
            1001 => Some("bob".into()),
            _ => None,
        },
        gid_of: |name| (name == "users").then_some(100),
        group_of: |gid| (gid == 100).then(|| "users".to_owned()),
    }
}

/// Runs a command line.
pub(super) fn run(words: &[String], source: &mut Fixed, here: &Surroundings) -> Output {
    let args = &words[1..];
    match words[0].as_str() {
        "squeue" => squeue::command(args, source, here),
        "sinfo" => sinfo::command(args, source, here),
        "sacct" => sacct::command(args, source, here),
        "sstat" => sstat::command(args, source, here),
        "seff" => seff::command(args, source, here),
        "sacctmgr" => accounts::manage(args, source, here),
        "sshare" => accounts::shares(args, source, here),
        "sdiag" => sdiag::command(args, source, here),
        "gpu" => gpu::command(args, source, here),
        other => panic!("no query command is called {other}"),
    }
}

fn usage(user: u64, system: u64, rss: u64) -> v1::Usage {
    v1::Usage { user_cpu_ms: user, system_cpu_ms: system, max_rss_kib: rss, gpu: None }
}

fn h100() -> v1::GresKind {
    v1::GresKind { name: "gpu".into(), of: "h100".into() }
}

fn minutes(n: u32) -> Option<v1::TimeLimit> {
    Some(v1::TimeLimit { limit: Some(time_limit::Limit::Minutes(n)) })
}

fn job(id: u32, name: &str, uid: u32, state: JobState) -> v1::Job {
    let user = if uid == 1000 { "alice" } else { "bob" };
    v1::Job {
        id,
        spec: Some(v1::JobSpec {
            name: name.into(),
            user: Some(v1::User { uid, gid: 100, name: user.into() }),
            account: "lab".into(),
            qos: "normal".into(),
            partitions: vec!["main".into()],
            request: Some(v1::Request {
                min_nodes: 1,
                tasks: 1,
                cpus_per_task: 1,
                memory: Some(v1::Memory { request: Some(memory::Request::PerNodeMib(4096)) }),
                ..v1::Request::default()
            }),
            launch: Some(v1::LaunchSpec {
                workdir: format!("/home/{user}"),
                command: format!("/home/{user}/{name}.sh"),
                submit_line: format!("sbatch {name}.sh"),
                submit_host: "login".into(),
                ..v1::LaunchSpec::default()
            }),
            ..v1::JobSpec::default()
        }),
        state: state.into(),
        priority: 4_294_901_758 - id,
        submitted_at: NOW - 20 * MINUTE,
        eligible_at: NOW - 20 * MINUTE,
        partition: "main".into(),
        time_limit: minutes(60),
        node_count: 1,
        cpu_count: 1,
        task_count: 1,
        memory_mib: 4096,
        stdout: format!("/home/{user}/slurm-{id}.out"),
        stderr: format!("/home/{user}/slurm-{id}.out"),
        stdin: "/dev/null".into(),
        ..v1::Job::default()
    }
}

fn on(mut job: v1::Job, nodes: &str, host: &str, started: i64) -> v1::Job {
    job.nodes = nodes.into();
    job.batch_host = host.into();
    job.started_at = started;
    job.attempt = 1;
    if job.ended_at == 0 {
        job.ended_at = started + 60 * MINUTE;
    }
    job
}

/// The one that runs on GPUs of two nodes.
fn train() -> v1::Job {
    let mut job = on(job(12, "train", 1000, JobState::Running), "n[1-2]", "n1", NOW - 10 * MINUTE);
    let spec = job.spec.as_mut().expect("made above");
    let request = spec.request.as_mut().expect("made above");
    request.min_nodes = 2;
    request.cpus_per_task = 8;
    request.memory = Some(v1::Memory { request: Some(memory::Request::PerNodeMib(32_768)) });
    request.gres =
        vec![v1::GresRequest { kind: Some(h100()), count: 2, scope: v1::GresScope::Node.into() }];
    request.tasks_per_node = Some(1);
    spec.comment = "first try".into();
    (job.node_count, job.cpu_count, job.task_count, job.memory_mib) = (2, 16, 2, 65_536);
    job.gres = vec![v1::GresCount { kind: Some(h100()), count: 4 }];
    job.slices = ["n1", "n2"]
        .map(|node| v1::NodeSlice {
            node: node.into(),
            cpus: "0-7".into(),
            memory_mib: 32_768,
            gres: vec![v1::GresMask { kind: Some(h100()), mask: 0b11, count: 2 }],
            tasks: 1,
        })
        .into();
    job
}

fn ended(mut job: v1::Job, started: i64, ended: i64, code: u32, signal: u32) -> v1::Job {
    job.ended_at = ended;
    job.exit = Some(v1::ExitStatus { code, signal });
    on(job, "n3", "n3", started)
}

fn jobs() -> Vec<v1::Job> {
    let mut waiting = job(13, "prep", 1001, JobState::Pending);
    waiting.reason = "Priority".into();
    waiting.started_at = NOW + 50 * MINUTE;
    waiting.time_limit = minutes(1440);
    waiting.scheduled_nodes = vec!["n3".into()];
    let mut held = job(14, "late", 1000, JobState::Pending);
    held.reason = "Dependency".into();
    held.dependency = "afterok:12(unfulfilled)".into();
    held.priority = 0;
    held.time_limit = Some(v1::TimeLimit { limit: Some(time_limit::Limit::Unlimited(true)) });
    let mut unlucky = job(16, "crash", 1000, JobState::Failed);
    unlucky.reason = "NonZeroExitCode".into();
    let mut first = on(job(20, "sweep", 1000, JobState::Running), "n3", "n3", NOW - 65_000);
    (first.array_id, first.array_task, first.array_throttle) = (20, Some(0), 2);
    let mut rest = job(20, "sweep", 1000, JobState::Pending);
    (rest.array_id, rest.array_tasks, rest.array_throttle) = (20, "1-3".into(), 2);
    rest.reason = "JobArrayTaskLimit".into();
    vec![
        train(),
        waiting,
        held,
        ended(job(15, "done", 1001, JobState::Completed), NOW - 5 * MINUTE, NOW - MINUTE, 0, 0),
        ended(unlucky, NOW - 4 * MINUTE, NOW - 2 * MINUTE, 3, 0),
        first,
        rest,
    ]
}

fn step(job: &v1::Job, id: &str, usage: v1::Usage) -> v1::StepRow {
    v1::StepRow {
        id: id.into(),
        name: id.into(),
        state: match job.state() {
            JobState::Pending => JobState::Pending.into(),
            _ => job.state,
        },
        exit: job.exit,
        started_at: job.started_at,
        ended_at: job.ended_at,
        usage: Some(usage),
        nodes: job.batch_host.clone(),
        tasks: 1,
        cpu_count: job.cpu_count / job.node_count.max(1),
        ..v1::StepRow::default()
    }
}

fn history() -> Vec<v1::HistoryRow> {
    let mut rows: Vec<v1::HistoryRow> = jobs()
        .into_iter()
        .map(|job| {
            let steps = match job.state() {
                JobState::Pending => Vec::new(),
                _ => vec![
                    step(&job, "batch", usage(61_005, 2_000, 1_572_864)),
                    step(&job, "extern", usage(0, 0, 0)),
                ],
            };
            v1::HistoryRow { job: Some(job), steps }
        })
        .collect();
    let old = NOW - 48 * 60 * MINUTE;
    let mut stopped = job(9, "stop", 1000, JobState::Cancelled);
    stopped.cancelled_by = 1001;
    stopped.submitted_at = old - MINUTE;
    let stopped = ended(stopped, old, old + 30 * MINUTE, 0, 15);
    let mut big = job(10, "big", 1000, JobState::OutOfMemory);
    big.reason = "OutOfMemory".into();
    big.submitted_at = old - MINUTE;
    let big = ended(big, old, old + 90 * MINUTE, 0, 125);
    let mut never = job(8, "never", 1000, JobState::Cancelled);
    never.cancelled_by = 1000;
    (never.submitted_at, never.ended_at) = (old - 2 * MINUTE, old);
    for (at, job) in [never, stopped, big].into_iter().enumerate() {
        let ran = job.started_at > 0;
        let steps =
            if ran { vec![step(&job, "batch", usage(3_600_000, 500, 4_194_304))] } else { vec![] };
        rows.insert(at, v1::HistoryRow { job: Some(job), steps });
    }
    rows
}

fn node(name: &str, base: NodeBase, allocated: u32) -> v1::Node {
    v1::Node {
        name: name.into(),
        base: base.into(),
        cpus: 64,
        cpus_allocated: allocated,
        memory_mib: 262_144,
        memory_allocated_mib: u64::from(allocated) * 4096,
        memory_free_mib: 200_000,
        load: 1.5,
        sockets: 2,
        cores_per_socket: 32,
        threads_per_core: 1,
        features: vec!["ib".into(), "h100".into()],
        gres: vec![v1::GresCount { kind: Some(h100()), count: 8 }],
        weight: 1,
        partitions: vec!["main".into()],
        address: name.into(),
        hostname: name.into(),
        os: "Linux 6.12".into(),
        arch: "x86_64".into(),
        version: "0.1.0".into(),
        booted_at: NOW - 1000 * MINUTE,
        agent_started_at: NOW - 900 * MINUTE,
        ..v1::Node::default()
    }
}

fn nodes() -> Vec<v1::Node> {
    let used = vec![v1::GresMask { kind: Some(h100()), mask: 0b11, count: 2 }];
    let mut n1 = node("n1", NodeBase::Mixed, 8);
    let mut n2 = node("n2", NodeBase::Mixed, 8);
    n1.gres_used.clone_from(&used);
    n2.gres_used = used;
    let n3 = node("n3", NodeBase::Allocated, 64);
    let mut n4 = node("n4", NodeBase::Idle, 0);
    n4.drain = true;
    n4.reason = "bad fan".into();
    n4.reason_by = "bob".into();
    n4.reason_at = NOW - 100 * MINUTE;
    let mut n5 = node("n5", NodeBase::Down, 0);
    n5.not_responding = true;
    (n5.cpus, n5.memory_mib) = (128, 524_288);
    n5.reason = "Not responding".into();
    n5.reason_by = "muster".into();
    n5.reason_at = NOW - 10 * MINUTE;
    let n10 = node("n10", NodeBase::Idle, 0);
    vec![n1, n2, n3, n4, n5, n10]
}

fn partitions() -> Vec<v1::Partition> {
    vec![
        v1::Partition {
            name: "main".into(),
            nodes: "n[1-5,10]".into(),
            default: true,
            state: "UP".into(),
            max_time: minutes(1440),
            default_time: minutes(60),
            min_nodes: 1,
            priority_tier: 1,
            priority_factor: 1,
            total_cpus: 448,
            total_nodes: 6,
            total_memory_mib: 1_835_008,
            total_gres: vec![v1::GresCount { kind: Some(h100()), count: 48 }],
            ..v1::Partition::default()
        },
        v1::Partition {
            name: "debug".into(),
            nodes: "n10".into(),
            state: "DRAIN".into(),
            max_time: Some(v1::TimeLimit { limit: Some(time_limit::Limit::Unlimited(true)) }),
            min_nodes: 1,
            max_nodes: Some(1),
            total_cpus: 64,
            total_nodes: 1,
            total_memory_mib: 262_144,
            ..v1::Partition::default()
        },
    ]
}

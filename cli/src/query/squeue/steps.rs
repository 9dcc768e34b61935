//! `squeue -s`: steps. A batch job's script is its step `batch`; the others were made by `srun`.

use std::ops::Deref;

use muster_proto::v1::{Job, Step};

use super::super::layout::Layout;
use super::super::shown;
use super::super::surroundings::Surroundings;
use super::super::times::trimmed;
use super::super::tres;
use super::options::Options;

/// Which step.
#[derive(Clone, Copy)]
enum Which<'a> {
    Batch,
    Extern,
    Made(&'a Step),
}

/// A step of a job.
pub(super) struct Row<'a> {
    job: &'a Job,
    which: Which<'a>,
}

impl Deref for Row<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        self.job
    }
}

impl Row<'_> {
    /// The number of srun's, or the name of what every job has.
    fn part(&self) -> String {
        match self.which {
            Which::Batch => "batch".to_owned(),
            Which::Extern => "extern".to_owned(),
            Which::Made(step) => step.step.to_string(),
        }
    }

    fn id(&self) -> String {
        format!("{}.{}", shown::id(self.job), self.part())
    }

    fn name(&self) -> String {
        match self.which {
            Which::Made(step) => step.name.clone(),
            _ => self.part(),
        }
    }

    fn nodes(&self) -> String {
        match self.which {
            Which::Batch => self.job.batch_host.clone(),
            Which::Extern => self.job.nodes.clone(),
            Which::Made(step) => step.nodes.clone(),
        }
    }

    fn tasks(&self) -> u32 {
        match self.which {
            Which::Batch => 1,
            Which::Extern => self.job.node_count,
            Which::Made(step) => step.tasks,
        }
    }

    fn cpus(&self) -> u32 {
        match self.which {
            Which::Batch => self.job.cpu_count / self.job.node_count.max(1),
            Which::Extern => self.job.cpu_count,
            Which::Made(step) => step.cpus,
        }
    }

    fn tres(&self) -> String {
        let gres = match self.which {
            Which::Made(step) => tres::declared(&step.gres),
            _ => tres::declared(&self.job.gres),
        };
        if gres.is_empty() {
            return "N/A".to_owned();
        }
        gres.split(',').map(|one| format!("gres/{one}")).collect::<Vec<_>>().join(",")
    }

    fn started_at(&self) -> i64 {
        match self.which {
            Which::Made(step) => step.started_at,
            _ => self.job.started_at,
        }
    }

    fn used_seconds(&self, now: i64) -> i64 {
        match self.which {
            Which::Made(step) => (now - step.started_at).max(0) / 1000,
            _ => shown::used_seconds(self.job, now),
        }
    }
}

/// A column of steps.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) code: char,
    pub(super) header: &'static str,
    value: fn(&Row<'_>, &Surroundings) -> String,
}

/// Every column; a code of blank has none.
pub(super) const FIELDS: &[Field] = &[
    Field { name: "StepId", code: 'i', header: "STEPID", value: |j, _| j.id() },
    Field { name: "StepName", code: 'j', header: "NAME", value: |j, _| j.name() },
    Field { name: "Partition", code: 'P', header: "PARTITION", value: |j, _| shown::partition(j) },
    Field { name: "UserName", code: 'u', header: "USER", value: |j, _| shown::user(j) },
    Field { name: "UserId", code: 'U', header: "UID", value: |j, _| shown::uid(j).to_string() },
    Field {
        name: "TimeUsed",
        code: 'M',
        header: "TIME",
        value: |j, h| trimmed(j.used_seconds(h.now)),
    },
    Field { name: "TimeLimit", code: 'l', header: "TIME_LIMIT", value: |j, _| shown::limit(j) },
    Field {
        name: "StartTime",
        code: 'S',
        header: "START_TIME",
        value: |j, h| h.time(j.started_at(), "N/A"),
    },
    Field { name: "Nodes", code: 'N', header: "NODELIST", value: |j, _| j.nodes() },
    Field { name: "NumTasks", code: 'A', header: "TASKS", value: |j, _| j.tasks().to_string() },
    Field { name: "tres-per-node", code: 'b', header: "TRES_PER_JOB", value: |j, _| j.tres() },
    Field {
        name: "ArrayJobId",
        code: ' ',
        header: "ARRAY_JOB_ID",
        value: |j, _| if j.array_id > 0 { j.array_id } else { j.id }.to_string(),
    },
    Field {
        name: "ArrayTaskId",
        code: ' ',
        header: "ARRAY_TASK_ID",
        value: |j, _| shown::array_task(j).unwrap_or_else(|| "N/A".to_owned()),
    },
    Field { name: "JobId", code: ' ', header: "JOB_ID", value: |j, _| j.id.to_string() },
    Field { name: "NumCPUs", code: ' ', header: "NUM_CPUS", value: |j, _| j.cpus().to_string() },
    Field {
        name: "Runtime",
        code: ' ',
        header: "RUNTIME",
        value: |j, h| j.used_seconds(h.now).to_string(),
    },
    Field {
        name: "StepState",
        code: ' ',
        header: "STATE",
        value: |j, _| super::states::long(j.state()).to_owned(),
    },
    Field { name: "StdErr", code: ' ', header: "STDERR", value: |j, _| j.stderr.clone() },
    Field { name: "StdIn", code: ' ', header: "STDIN", value: |j, _| j.stdin.clone() },
    Field { name: "StdOut", code: ' ', header: "STDOUT", value: |j, _| j.stdout.clone() },
    Field { name: "Gres", code: ' ', header: "TRES_PER_JOB", value: |j, _| j.tres() },
    Field { name: "Cluster", code: ' ', header: "CLUSTER", value: |_, _| "N/A".to_owned() },
    Field { name: "Container", code: ' ', header: "CONTAINER", value: |_, _| "N/A".to_owned() },
    Field { name: "ContainerId", code: ' ', header: "CONTAINERID", value: |_, _| "N/A".to_owned() },
    Field { name: "CPUFreq", code: ' ', header: "CPU_FREQ", value: |_, _| "N/A".to_owned() },
    Field {
        name: "cpus-per-tres",
        code: ' ',
        header: "CPUS_PER_TRES",
        value: |_, _| "N/A".to_owned(),
    },
    Field {
        name: "mem-per-tres",
        code: ' ',
        header: "MEM_PER_TRES",
        value: |_, _| "N/A".to_owned(),
    },
    Field { name: "Network", code: ' ', header: "NETWORK", value: |_, _| "N/A".to_owned() },
    Field {
        name: "ResvPorts",
        code: ' ',
        header: "RESERVED_PORTS",
        value: |_, _| "N/A".to_owned(),
    },
    Field { name: "tres-bind", code: ' ', header: "TRES_BIND", value: |_, _| "N/A".to_owned() },
    Field { name: "tres-freq", code: ' ', header: "TRES_FREQ", value: |_, _| "N/A".to_owned() },
    Field {
        name: "tres-per-job",
        code: ' ',
        header: "TRES_PER_STEP",
        value: |_, _| "N/A".to_owned(),
    },
    Field { name: "tres-per-step", code: ' ', header: "TRES_PER_STEP", value: |j, _| j.tres() },
    Field {
        name: "tres-per-socket",
        code: ' ',
        header: "TRES_PER_SOCKET",
        value: |_, _| "N/A".to_owned(),
    },
    Field {
        name: "tres-per-task",
        code: ' ',
        header: "TRES_PER_TASK",
        value: |_, _| "N/A".to_owned(),
    },
];

/// Appends the header and a line for every step that runs.
pub(super) fn table(
    options: &Options,
    layout: &Layout,
    jobs: &[Job],
    steps: &[Step],
    here: &Surroundings,
    out: &mut String,
) {
    if !options.no_header {
        out.push_str(&layout.line(|field| FIELDS[field].header.to_owned()));
        out.push('\n');
    }
    let mut line = |row: &Row<'_>| {
        out.push_str(&layout.line(|field| (FIELDS[field].value)(row, here)));
        out.push('\n');
    };
    for job in jobs.iter().filter(|job| super::runs_script(job)) {
        for step in steps.iter().filter(|step| step.job == job.id) {
            if options.shows_step(job, &step.step.to_string()) {
                line(&Row { job, which: Which::Made(step) });
            }
        }
        for (name, which) in [("batch", Which::Batch), ("extern", Which::Extern)] {
            if options.shows_step(job, name) {
                line(&Row { job, which });
            }
        }
    }
}

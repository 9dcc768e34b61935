//! `squeue -s`: steps. A batch job's script is its step `batch`.

use muster_proto::v1::Job;

use super::super::layout::Layout;
use super::super::shown;
use super::super::surroundings::Surroundings;
use super::super::times::trimmed;
use super::options::Options;

/// A column of steps.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) code: char,
    pub(super) header: &'static str,
    value: fn(&Job, &Surroundings) -> String,
}

/// Every column; a code of blank has none.
pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "StepId",
        code: 'i',
        header: "STEPID",
        value: |j, _| format!("{}.batch", shown::id(j)),
    },
    Field { name: "StepName", code: 'j', header: "NAME", value: |_, _| "batch".to_owned() },
    Field { name: "Partition", code: 'P', header: "PARTITION", value: |j, _| shown::partition(j) },
    Field { name: "UserName", code: 'u', header: "USER", value: |j, _| shown::user(j) },
    Field { name: "UserId", code: 'U', header: "UID", value: |j, _| shown::uid(j).to_string() },
    Field {
        name: "TimeUsed",
        code: 'M',
        header: "TIME",
        value: |j, h| trimmed(shown::used_seconds(j, h.now)),
    },
    Field { name: "TimeLimit", code: 'l', header: "TIME_LIMIT", value: |j, _| shown::limit(j) },
    Field {
        name: "StartTime",
        code: 'S',
        header: "START_TIME",
        value: |j, h| h.time(j.started_at, "N/A"),
    },
    Field { name: "Nodes", code: 'N', header: "NODELIST", value: |j, _| j.batch_host.clone() },
    Field { name: "NumTasks", code: 'A', header: "TASKS", value: |_, _| "1".to_owned() },
    Field {
        name: "tres-per-node",
        code: 'b',
        header: "TRES_PER_JOB",
        value: |_, _| "N/A".to_owned(),
    },
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
    Field { name: "NumCPUs", code: ' ', header: "NUM_CPUS", value: |j, _| j.cpu_count.to_string() },
    Field {
        name: "Runtime",
        code: ' ',
        header: "RUNTIME",
        value: |j, h| shown::used_seconds(j, h.now).to_string(),
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
    Field { name: "Gres", code: ' ', header: "TRES_PER_JOB", value: |_, _| "N/A".to_owned() },
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
    Field {
        name: "tres-per-step",
        code: ' ',
        header: "TRES_PER_STEP",
        value: |_, _| "N/A".to_owned(),
    },
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
    here: &Surroundings,
    out: &mut String,
) {
    if !options.no_header {
        out.push_str(&layout.line(|field| FIELDS[field].header.to_owned()));
        out.push('\n');
    }
    for job in jobs.iter().filter(|job| super::runs_script(job) && options.shows_step(job)) {
        out.push_str(&layout.line(|field| (FIELDS[field].value)(job, here)));
        out.push('\n');
    }
}

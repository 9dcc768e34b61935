//! Every option of `sbatch`: spelling, variable, and how far it is supported.
//!
//! `docs/compatibility/sbatch.md` is written from this table; a test compares them.

use crate::getopt::{Opt, Spec, Takes};
use Support::{Done, Kept, Noted, Refused};
use Takes::{MaybeValue, Nothing, Value};

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Done,
    /// Accepted and handed to the job (its steps, its environment); the scheduler needs nothing
    /// of it.
    Kept,
    /// As `Kept`, but placement does not follow it: the user is told.
    Noted,
    /// Refused by name, with the note as the reason.
    Refused,
}

/// One row.
pub struct Row {
    pub opt: Opt,
    /// The variable that sets it; empty: none.
    pub variable: &'static str,
    pub support: Support,
    /// What it does, or why not.
    pub note: &'static str,
}

const fn row(
    names: (&'static str, &'static str, char),
    takes: Takes,
    variable: &'static str,
    support: Support,
    note: &'static str,
) -> Row {
    let (id, long, letter) = names;
    let short = if letter == '\0' { None } else { Some(letter) };
    Row { opt: Opt { id, long, short, takes }, variable, support, note }
}

/// An option without a letter.
const fn long(name: &'static str) -> (&'static str, &'static str, char) {
    (name, name, '\0')
}

const fn both(name: &'static str, letter: char) -> (&'static str, &'static str, char) {
    (name, name, letter)
}

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(both("account", 'A'), Value, "SBATCH_ACCOUNT", Done, "account the job is charged to"),
    row(long("acctg-freq"), Value, "SBATCH_ACCTG_FREQ", Kept, "usage is sampled at the cluster's own rate"),
    row(both("array", 'a'), Value, "SBATCH_ARRAY_INX", Done, "a job array, as 0-15:4,20%2"),
    row(long("autocomplete"), Value, "", Refused, "use 'muster completions'"),
    row(long("batch"), Value, "SBATCH_BATCH", Refused, "the batch script runs on the allocation's first node"),
    row(long("bb"), Value, "", Refused, "there are no burst buffers"),
    row(long("bbf"), Value, "", Refused, "there are no burst buffers"),
    row(both("begin", 'b'), Value, "", Done, "not before this time"),
    row(both("chdir", 'D'), Value, "", Done, "working directory of the job"),
    row(long("cluster-constraint"), Value, "", Refused, "there are no federations"),
    row(both("clusters", 'M'), Value, "SBATCH_CLUSTERS", Done, "this cluster's name or 'all'"),
    row(("clusters", "cluster", '\0'), Value, "", Done, "as --clusters"),
    row(long("comment"), Value, "", Done, "a comment kept with the job"),
    row(long("consolidate-segments"), Nothing, "", Kept, "segments are always put into as few blocks as will do"),
    row(both("constraint", 'C'), Value, "SBATCH_CONSTRAINT", Done, "features that the nodes must have; gpu_mem>=80G: memory of its GPUs (not in Slurm)"),
    row(long("container"), Value, "SBATCH_CONTAINER", Refused, "use --container-image"),
    row(long("container-id"), Value, "SBATCH_CONTAINER_ID", Refused, "use --container-image"),
    row(long("container-image"), Value, "", Done, "the script runs in this root: a directory, an OCI bundle or a squashfs file on the node"),
    row(long("container-mount-home"), Nothing, "", Done, "the home is there anyway"),
    row(long("container-mounts"), Value, "", Done, "SOURCE:TARGET, with :ro or :rw behind it, between commas"),
    row(long("container-name"), Value, "", Refused, "a directory that is kept serves as well: --container-image"),
    row(long("container-readonly"), Nothing, "", Done, "nothing is written into the root"),
    row(long("container-workdir"), Value, "", Done, "where the script begins in there"),
    row(long("container-writable"), Nothing, "", Done, "a directory can be written to anyway"),
    row(long("context"), Value, "", Refused, "SELinux contexts are not supported"),
    row(long("contiguous"), Nothing, "", Done, "nodes next to each other in the config's order"),
    row(both("core-spec", 'S'), Value, "SBATCH_CORE_SPEC", Refused, "cores cannot be set aside for the system"),
    row(long("cores-per-socket"), Value, "", Noted, "nodes are not chosen by their cores per socket"),
    row(long("cpu-freq"), Value, "", Noted, "CPU frequencies are not changed"),
    row(long("cpus-per-gpu"), Value, "SBATCH_CPUS_PER_GPU", Done, "CPUs for each allocated GPU"),
    row(both("cpus-per-task", 'c'), Value, "", Done, "CPUs for each task"),
    row(long("deadline"), Value, "", Done, "removed if it cannot end by then"),
    row(long("delay-boot"), Value, "SBATCH_DELAY_BOOT", Kept, "nodes are never booted for a job"),
    row(both("dependency", 'd'), Value, "", Done, "after, afterany, afterok, afternotok, aftercorr, singleton"),
    row(both("distribution", 'm'), Value, "SBATCH_DISTRIBUTION", Kept, "read by job steps"),
    row(both("error", 'e'), Value, "SBATCH_ERROR", Done, "file for stderr"),
    row(both("exclude", 'x'), Value, "", Done, "nodes not to use"),
    row(long("exclusive"), MaybeValue, "SBATCH_EXCLUSIVE", Done, "whole nodes; =topo: nobody else in its blocks or leaf switches; =user and =mcs are refused"),
    row(long("export"), Value, "SBATCH_EXPORT", Done, "ALL, NONE, NIL or a list of variables"),
    row(long("export-file"), Value, "", Done, "variables from a file of NUL-separated NAME=VALUE"),
    row(long("external"), Nothing, "", Refused, "jobs without a script are not supported"),
    row(long("extra"), Value, "", Kept, "text kept with the job"),
    row(both("extra-node-info", 'B'), Value, "", Noted, "nodes are not chosen by sockets:cores:threads"),
    row(long("get-user-env"), MaybeValue, "SBATCH_GET_USER_ENV", Noted, "the submitter's environment travels instead of a login's"),
    row(long("gid"), Value, "", Refused, "jobs run as the user who submits them"),
    row(long("gpu-bind"), Value, "SBATCH_GPU_BIND", Kept, "read by job steps"),
    row(long("gpu-freq"), Value, "SBATCH_GPU_FREQ", Noted, "GPU frequencies are not changed"),
    row(both("gpus", 'G'), Value, "SBATCH_GPUS", Done, "GPUs over all nodes, at least one on each"),
    row(long("gpus-per-node"), Value, "SBATCH_GPUS_PER_NODE", Done, "GPUs on each node, as --gres=gpu:"),
    row(long("gpus-per-socket"), Value, "", Done, "GPUs on each socket; needs --sockets-per-node"),
    row(long("gpus-per-task"), Value, "SBATCH_GPUS_PER_TASK", Done, "GPUs for each task; needs --ntasks or --gpus"),
    row(long("gres"), Value, "SBATCH_GRES", Done, "generic resources on each node, as gpu:h100:2"),
    row(long("gres-flags"), Value, "SBATCH_GRES_FLAGS", Done, "enforce-binding: CPUs near the job's GPUs alone; disable-binding: any; the others are accepted"),
    row(both("help", 'h'), Nothing, "", Done, "this text"),
    row(long("hint"), Value, "SBATCH_HINT", Kept, "read by job steps; nomultithread also sets --threads-per-core=1"),
    row(both("hold", 'H'), Nothing, "", Done, "submit held"),
    row(long("ignore-pbs"), Nothing, "SBATCH_IGNORE_PBS", Done, "no word about #PBS and #BSUB lines, which are never translated"),
    row(both("input", 'i'), Value, "SBATCH_INPUT", Done, "file for stdin"),
    row(both("job-name", 'J'), Value, "SBATCH_JOB_NAME", Done, "name of the job"),
    row(long("kill-on-invalid-dep"), Value, "", Done, "yes or no: end it when its dependency cannot be met"),
    row(both("licenses", 'L'), Value, "", Done, "licences it needs, as ansys:2"),
    row(long("mail-type"), Value, "", Kept, "shown with the job; mail is not sent"),
    row(long("mail-user"), Value, "", Kept, "shown with the job; mail is not sent"),
    row(long("mcs-label"), Value, "", Refused, "there is no multi-category security"),
    row(long("mem"), Value, "SBATCH_MEM_PER_NODE", Done, "memory on each node; 0: all"),
    row(long("mem-bind"), Value, "SBATCH_MEM_BIND", Kept, "read by job steps"),
    row(long("mem-per-cpu"), Value, "SBATCH_MEM_PER_CPU", Done, "memory for each CPU"),
    row(long("mem-per-gpu"), Value, "SBATCH_MEM_PER_GPU", Done, "memory for each GPU"),
    row(long("mem-update"), Value, "", Refused, "memory limits do not shrink by themselves"),
    row(long("mincpus"), Value, "", Done, "CPUs on each node at least"),
    row(long("network"), Value, "SBATCH_NETWORK", Refused, "networks are not configured for a job"),
    row(long("nice"), MaybeValue, "", Done, "lower the priority"),
    row(long("no-container-mount-home"), Nothing, "", Done, "the home is not there"),
    row(both("no-kill", 'k'), MaybeValue, "SBATCH_NO_KILL", Done, "keep the job when one of its nodes is lost"),
    row(long("no-requeue"), Nothing, "SBATCH_NO_REQUEUE", Done, "never run it a second time"),
    row(both("nodefile", 'F'), Value, "", Done, "as --nodelist, from a file"),
    row(both("nodelist", 'w'), Value, "", Done, "nodes that must be part"),
    row(both("nodes", 'N'), Value, "", Done, "nodes, as 2 or 2-4; lists of sizes are refused"),
    row(both("ntasks", 'n'), Value, "", Done, "tasks over all nodes"),
    row(long("ntasks-per-core"), Value, "", Noted, "placement does not follow it"),
    row(long("ntasks-per-gpu"), Value, "", Done, "tasks for each GPU"),
    row(long("ntasks-per-node"), Value, "", Done, "tasks on each node"),
    row(("ntasks-per-node", "tasks-per-node", '\0'), Value, "", Done, "as --ntasks-per-node"),
    row(long("ntasks-per-socket"), Value, "", Noted, "placement does not follow it"),
    row(long("ntasks-per-tres"), Value, "", Refused, "use --ntasks-per-gpu"),
    row(long("nvlink"), Value, "SBATCH_NVLINK", Done, "required: a node's GPUs of the job are joined by NVLink; preferred: where it can be had, as without it (not in Slurm)"),
    row(long("oom-kill-step"), MaybeValue, "", Kept, "read by job steps"),
    row(long("open-mode"), Value, "SBATCH_OPEN_MODE", Done, "append or truncate"),
    row(both("output", 'o'), Value, "SBATCH_OUTPUT", Done, "file for stdout"),
    row(both("overcommit", 'O'), Nothing, "SBATCH_OVERCOMMIT", Done, "more tasks than CPUs"),
    row(both("oversubscribe", 's'), Nothing, "", Kept, "resources are never shared between jobs"),
    row(long("parsable"), Nothing, "", Done, "print the job id alone"),
    row(both("partition", 'p'), Value, "SBATCH_PARTITION", Done, "partitions, the best one first"),
    row(long("prefer"), Value, "", Refused, "use --constraint, which must hold"),
    row(long("priority"), Value, "", Done, "a fixed priority, for operators"),
    row(long("profile"), Value, "SBATCH_PROFILE", Noted, "no profiles are written"),
    row(long("propagate"), MaybeValue, "", Done, "resource limits that travel: ALL, NONE or a list"),
    row(both("qos", 'q'), Value, "SBATCH_QOS", Done, "quality of service"),
    row(both("quiet", 'Q'), Nothing, "", Done, "errors only"),
    row(long("reboot"), Nothing, "", Refused, "nodes are never booted for a job"),
    row(long("requeue"), MaybeValue, "SBATCH_REQUEUE", Done, "run it again when its node is lost or its GPU fails; =expedite is refused"),
    row(long("reservation"), Value, "SBATCH_RESERVATION", Done, "run inside this reservation"),
    row(long("resources"), Value, "", Refused, "ask with --gres, --mem and --cpus-per-task"),
    row(long("resv-ports"), MaybeValue, "", Refused, "ports are not reserved"),
    row(long("runtime"), Value, "", Refused, "use --time"),
    row(long("segment"), Value, "SBATCH_SEGMENT_SIZE", Done, "nodes in groups of this many, each inside one block"),
    row(long("signal"), Value, "SBATCH_SIGNAL", Done, "warn before the end, as B:USR1@60; R: is refused"),
    row(long("sockets-per-node"), Value, "", Done, "sockets that each node must have"),
    row(long("spread-job"), Nothing, "SBATCH_SPREAD_JOB", Refused, "use --nodes and --ntasks-per-node"),
    row(long("spread-segments"), Nothing, "", Refused, "segments are put into as few blocks as will do"),
    row(long("stepmgr"), Nothing, "", Kept, "steps are always managed near the job"),
    row(long("switches"), Value, "SBATCH_REQ_SWITCH", Done, "leaf switches at most, as 1@10 (minutes to insist; 5 unless told)"),
    row(long("test-only"), Nothing, "", Done, "say when it would start; submit nothing"),
    row(long("thread-spec"), Value, "SBATCH_THREAD_SPEC", Refused, "threads cannot be set aside for the system"),
    row(long("threads-per-core"), Value, "SBATCH_THREADS_PER_CORE", Done, "threads of each core to use"),
    row(both("time", 't'), Value, "SBATCH_TIMELIMIT", Done, "time limit: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S"),
    row(long("time-min"), Value, "", Done, "the time limit may be lowered to this"),
    row(long("tmp"), Value, "", Refused, "disk space of nodes is not tracked"),
    row(long("tres-bind"), Value, "SBATCH_TRES_BIND", Kept, "read by job steps"),
    row(long("tres-per-task"), Value, "SBATCH_TRES_PER_TASK", Done, "as cpu=4,gres/gpu:h100=1"),
    row(long("uid"), Value, "", Refused, "jobs run as the user who submits them"),
    row(long("usage"), Nothing, "", Done, "this text"),
    row(long("use-min-nodes"), Nothing, "SBATCH_USE_MIN_NODES", Refused, "give one --nodes count instead of a range"),
    row(both("verbose", 'v'), Nothing, "SBATCH_DEBUG", Done, "show each setting and where it comes from"),
    row(both("version", 'V'), Nothing, "", Done, "the version"),
    row(both("wait", 'W'), Nothing, "SBATCH_WAIT", Done, "wait for its end and exit with its code"),
    row(long("wait-all-nodes"), Value, "SBATCH_WAIT_ALL_NODES", Kept, "a job always starts with all its nodes ready"),
    row(long("wckey"), Value, "SBATCH_WCKEY", Done, "a key kept with the job"),
    row(long("wrap"), Value, "", Done, "this command instead of a script"),
];

/// The same as `getopt` wants it.
static OPTIONS: [Opt; ROWS.len()] = {
    let mut out = [ROWS[0].opt; ROWS.len()];
    let mut i = 0;
    while i < ROWS.len() {
        out[i] = ROWS[i].opt;
        i += 1;
    }
    out
};

/// For the command line: the script's own options follow its name.
pub const COMMAND_LINE: Spec = Spec { program: "sbatch", options: &OPTIONS, stop_at_operand: true };

/// For one `#SBATCH` line.
pub const DIRECTIVE: Spec = Spec { program: "sbatch", options: &OPTIONS, stop_at_operand: false };

/// The row of an option, by its id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.opt.id == id && r.opt.long == id)
}

/// `--help`.
#[must_use]
pub fn usage() -> String {
    let mut out = String::from("usage: sbatch [OPTIONS] [SCRIPT [ARGS...]]\n\n");
    for row in ROWS.iter().filter(|r| r.support != Refused) {
        let letter = row.opt.short.map_or_else(|| "   ".to_owned(), |c| format!("-{c},"));
        let value = match row.opt.takes {
            Nothing => "",
            Value => "=V",
            MaybeValue => "[=V]",
        };
        let name = format!("--{}{value}", row.opt.long);
        out.push_str(&format!("  {letter} {name:<26} {}\n", row.note));
    }
    out
}

/// The page that lists every option's status.
#[must_use]
pub fn page() -> String {
    let mut out = String::from(
        "# sbatch: every option\n\n\
         Written from the option table in `cli/src/submit/options.rs`; a test compares the two\n\
         (`MUSTER_UPDATE_DOCS=1 cargo test -p muster-cli option_page` writes it anew).\n\n\
         - **done**: does what it says\n\
         - **kept**: accepted and handed to the job; the scheduler needs nothing of it\n\
         - **noted**: accepted and handed to the job; `sbatch` says on stderr that placement does \
         not follow it\n\
         - **refused**: exit 1 with a sentence that names the option\n\n\
         Options of other plugins (`--uenv`, ...) are unknown and exit 255, as in Slurm without the \
         plugin.\n`--container-image` and its kin are NVIDIA's plugin's: the batch script alone \
         runs in there, and what srun\nstarts says its own ([srun.md](srun.md)). `#SBATCH hetjob` and `:` part the components of a heterogeneous job\n\
         ([hetjobs.md](hetjobs.md)).\n\n\
         | option | letter | variable | status | |\n|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let status = match row.support {
            Done => "done",
            Kept => "kept",
            Noted => "noted",
            Refused => "refused",
        };
        let letter = row.opt.short.map(|c| format!("`-{c}`")).unwrap_or_default();
        let variable =
            if row.variable.is_empty() { String::new() } else { format!("`{}`", row.variable) };
        out.push_str(&format!(
            "| `--{}` | {letter} | {variable} | {status} | {} |\n",
            row.opt.long, row.note
        ));
    }
    out
}

//! The options of `srun` and `salloc`: spelling, variable, and what becomes of each.
//!
//! `docs/compatibility/srun.md` and `salloc.md` follow this table.

use crate::getopt::{self, BadUsage, Given, Opt, Spec, Takes};
use Takes::{MaybeValue, Nothing, Value};
use Use::{Both, Job, No, Noted, Step};

/// What an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// The allocation that srun makes when it is in none; without meaning in one.
    Job,
    /// The step.
    Step,
    Both,
    /// Accepted: nothing here needs it.
    Noted,
    /// Refused by name, for this reason.
    No(&'static str),
}

/// One row.
pub(crate) struct Row {
    pub(crate) opt: Opt,
    /// The variable that sets it inside an allocation; empty: none.
    pub(crate) variable: &'static str,
    pub(crate) used: Use,
}

const fn row(
    long: &'static str,
    letter: char,
    takes: Takes,
    variable: &'static str,
    used: Use,
) -> Row {
    let short = if letter == '\0' { None } else { Some(letter) };
    Row { opt: Opt { id: long, long, short, takes }, variable, used }
}

const fn alias(id: &'static str, long: &'static str, takes: Takes, used: Use) -> Row {
    Row { opt: Opt { id, long, short: None, takes }, variable: "", used }
}

const OCI: Use = No("use --container-image");

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row("account", 'A', Value, "", Job),
    row("acctg-freq", '\0', Value, "SLURM_ACCTG_FREQ", Step),
    row("accel-bind", '\0', Value, "", Noted),
    row("async", '\0', Nothing, "", No("put it into the background of the shell instead")),
    row("bb", '\0', Value, "", No("there are no burst buffers")),
    row("bbf", '\0', Value, "", No("there are no burst buffers")),
    row("bcast", '\0', MaybeValue, "SLURM_BCAST", Step),
    row("bcast-exclude", '\0', Value, "", Noted),
    row("begin", 'b', Value, "", Job),
    row("bell", '\0', Nothing, "", Noted),
    row("chdir", 'D', Value, "SLURM_WORKING_DIR", Step),
    row("clusters", 'M', Value, "", Job),
    row("comment", '\0', Value, "", Job),
    row("compress", '\0', MaybeValue, "", Noted),
    row("constraint", 'C', Value, "", Job),
    row("container", '\0', Value, "", OCI),
    row("container-id", '\0', Value, "", OCI),
    row("container-image", '\0', Value, "", Step),
    row("container-mount-home", '\0', Nothing, "", Noted),
    row("container-mounts", '\0', Value, "", Step),
    row("container-name", '\0', Value, "", No("a directory that is kept serves as well: --container-image")),
    row("container-readonly", '\0', Nothing, "", Step),
    row("container-workdir", '\0', Value, "", Step),
    row("container-writable", '\0', Nothing, "", Noted),
    row("contiguous", '\0', Nothing, "", Job),
    row("cores-per-socket", '\0', Value, "", Job),
    row("cpu-bind", '\0', Value, "SLURM_CPU_BIND", Step),
    alias("cpu-bind", "cpu_bind", Value, Step),
    row("cpu-freq", '\0', Value, "", Noted),
    row("cpus-per-gpu", '\0', Value, "", Job),
    row("cpus-per-task", 'c', Value, "SLURM_CPUS_PER_TASK", Both),
    row("deadline", '\0', Value, "", Job),
    row("debugger-test", '\0', Nothing, "", No("there is no debugger interface")),
    row("dependency", 'd', Value, "", Job),
    row("disable-status", 'X', Nothing, "SLURM_DISABLE_STATUS", Step),
    row("distribution", 'm', Value, "SLURM_DISTRIBUTION", Step),
    row("epilog", '\0', Value, "SLURM_EPILOG", No("srun runs no epilog")),
    row("error", 'e', Value, "SLURM_STDERRMODE", Step),
    row("exact", '\0', Nothing, "SLURM_EXACT", Step),
    row("exclude", 'x', Value, "", Both),
    row("exclusive", '\0', MaybeValue, "SLURM_EXCLUSIVE", Both),
    row("export", '\0', Value, "SLURM_EXPORT_ENV", Step),
    row("extra-node-info", 'B', Value, "", No("say it with --sockets-per-node, --cores-per-socket, --threads-per-core")),
    row("gpu-bind", '\0', Value, "SLURM_GPU_BIND", Both),
    row("gpu-freq", '\0', Value, "", Noted),
    row("gpus", 'G', Value, "", Both),
    row("gpus-per-node", '\0', Value, "", Both),
    row("gpus-per-socket", '\0', Value, "", Job),
    row("gpus-per-task", '\0', Value, "SLURM_GPUS_PER_TASK", Both),
    row("gres", '\0', Value, "SLURM_STEP_GRES", Both),
    row("gres-flags", '\0', Value, "", Job),
    row("help", 'h', Nothing, "", Step),
    row("het-group", '\0', Value, "", Step),
    alias("het-group", "pack-group", Value, Step),
    row("hint", '\0', Value, "", Job),
    row("hold", 'H', Nothing, "", No("an allocation that is waited for cannot be held")),
    row("immediate", 'I', MaybeValue, "SLURM_IMMEDIATE", Step),
    row("input", 'i', Value, "SLURM_STDINMODE", Step),
    row("interactive", '\0', Nothing, "", Noted),
    row("job-name", 'J', Value, "", Both),
    row("jobid", '\0', Value, "", Step),
    row("kill-command", '\0', MaybeValue, "", Step),
    row("kill-on-bad-exit", 'K', MaybeValue, "SLURM_KILL_BAD_EXIT", Step),
    row("label", 'l', Nothing, "SLURM_LABELIO", Step),
    row("licenses", 'L', Value, "", Job),
    row("mail-type", '\0', Value, "", Job),
    row("mail-user", '\0', Value, "", Job),
    row("mem", '\0', Value, "", Both),
    row("mem-bind", '\0', Value, "", Noted),
    row("mem-per-cpu", '\0', Value, "", Job),
    row("mem-per-gpu", '\0', Value, "", Job),
    row("mincpus", '\0', Value, "", Job),
    row("mpi", '\0', Value, "SLURM_MPI_TYPE", Step),
    row("msg-timeout", '\0', Value, "", Noted),
    row("multi-prog", '\0', Nothing, "", Step),
    row("network", '\0', Value, "", Noted),
    row("nice", '\0', MaybeValue, "", Job),
    row("no-allocate", 'Z', Nothing, "", No("tasks run in allocations alone")),
    row("no-container-mount-home", '\0', Nothing, "", Step),
    row("no-bell", '\0', Nothing, "", Noted),
    row("no-kill", 'k', MaybeValue, "SLURM_NO_KILL", Both),
    row("no-shell", '\0', Nothing, "", Step),
    row("nodefile", 'F', Value, "", Both),
    row("nodelist", 'w', Value, "", Both),
    row("nodes", 'N', Value, "", Both),
    row("ntasks", 'n', Value, "", Both),
    row("ntasks-per-core", '\0', Value, "", Noted),
    row("ntasks-per-gpu", '\0', Value, "SLURM_NTASKS_PER_GPU", Both),
    row("ntasks-per-node", '\0', Value, "", Both),
    alias("ntasks-per-node", "tasks-per-node", Value, Both),
    row("ntasks-per-socket", '\0', Value, "", Noted),
    row("nvlink", '\0', Value, "", Job),
    row("oom-kill-step", '\0', MaybeValue, "", Noted),
    row("open-mode", '\0', Value, "SLURM_OPEN_MODE", Step),
    row("output", 'o', Value, "SLURM_STDOUTMODE", Step),
    row("overcommit", 'O', Nothing, "SLURM_OVERCOMMIT", Both),
    row("overlap", '\0', MaybeValue, "SLURM_OVERLAP", Step),
    row("oversubscribe", 's', Nothing, "", Job),
    row("parsable", '\0', Nothing, "", Noted),
    row("partition", 'p', Value, "", Job),
    row("prefer", '\0', Value, "", Job),
    row("preserve-env", 'E', Nothing, "", Step),
    row("priority", '\0', Value, "", Job),
    row("profile", '\0', Value, "", Noted),
    row("prolog", '\0', Value, "SLURM_PROLOG", No("srun runs no prolog")),
    row("propagate", '\0', MaybeValue, "SLURM_PROPAGATE", Step),
    row("pty", '\0', MaybeValue, "", Step),
    row("qos", 'q', Value, "", Job),
    row("quiet", 'Q', Nothing, "", Step),
    row("quit-on-interrupt", '\0', Nothing, "", Step),
    row("reboot", '\0', Nothing, "", Job),
    row("relative", 'r', Value, "", Step),
    row("reservation", '\0', Value, "", Job),
    row("resv-ports", '\0', MaybeValue, "", No("no ports are reserved")),
    row("send-libs", '\0', MaybeValue, "", No("copy them with sbcast, or link the program statically")),
    row("signal", '\0', Value, "", Job),
    row("slurmd-debug", '\0', Value, "", Noted),
    row("sockets-per-node", '\0', Value, "", Job),
    row("spread-job", '\0', Nothing, "", Job),
    row("switches", '\0', Value, "", Job),
    row("task-epilog", '\0', Value, "SLURM_TASK_EPILOG", No("tasks have no epilog: put it into the command")),
    row("task-prolog", '\0', Value, "SLURM_TASK_PROLOG", No("tasks have no prolog: put it into the command")),
    row("test-only", '\0', Nothing, "", No("sbatch --test-only says when and where")),
    row("threads", 'T', Value, "SLURM_THREADS", Noted),
    row("threads-per-core", '\0', Value, "", Job),
    row("time", 't', Value, "", Both),
    row("time-min", '\0', Value, "", Job),
    row("tmp", '\0', Value, "", Job),
    row("tres-bind", '\0', Value, "SLURM_TRES_BIND", Both),
    row("tres-per-task", '\0', Value, "SLURM_TRES_PER_TASK", Both),
    row("treewidth", '\0', Value, "", Noted),
    row("unbuffered", 'u', Nothing, "SLURM_UNBUFFEREDIO", Step),
    row("usage", '\0', Nothing, "", Step),
    row("use-min-nodes", '\0', Nothing, "", Job),
    row("verbose", 'v', Nothing, "", Step),
    row("version", 'V', Nothing, "", Step),
    row("wait", 'W', Value, "SLURM_WAIT", Step),
    row("wait-all-nodes", '\0', Value, "", Noted),
    row("wait-for-children", '\0', Nothing, "", No("a step ends with its tasks")),
    row("wckey", '\0', Value, "", Job),
    row("whole", '\0', Nothing, "", Step),
    row("x11", '\0', MaybeValue, "", No("X11 is not forwarded")),
];

const ROW_COUNT: usize = ROWS.len();

const OPTS: [Opt; ROW_COUNT] = {
    let mut all = [ROWS[0].opt; ROW_COUNT];
    let mut at = 0;
    while at < ROW_COUNT {
        all[at] = ROWS[at].opt;
        at += 1;
    }
    all
};

const SRUN: Spec = Spec { program: "srun", options: &OPTS, stop_at_operand: true };
const SALLOC: Spec = Spec { program: "salloc", options: &OPTS, stop_at_operand: true };

/// What was asked, by whom the stronger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    line: Vec<Given>,
    /// By variables, inside an allocation.
    around: Vec<Given>,
    pub(crate) operands: Vec<String>,
}

/// Why a command line is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bad {
    Usage(BadUsage),
    Refused(String),
}

impl From<BadUsage> for Bad {
    fn from(usage: BadUsage) -> Bad {
        Bad::Usage(usage)
    }
}

impl Asked {
    /// Reads a command line.
    pub(crate) fn read(program: &str, words: &[String]) -> Result<Asked, Bad> {
        let spec = if program == "salloc" { &SALLOC } else { &SRUN };
        let mut parsed = getopt::parse(spec, words)?;
        // Before and after the first word a `--` only ends the options.
        if parsed.operands.first().is_some_and(|word| word == "--") {
            parsed.operands.remove(0);
        }
        for given in &parsed.options {
            if let Some(Use::No(why)) = find(given.id).map(|row| row.used) {
                let name = given.id;
                return Err(Bad::Refused(format!("--{name} is not supported: {why}")));
            }
            if program == "salloc" && given.id.starts_with("container-") {
                return Err(Bad::Refused(format!("--{} belongs to srun", given.id)));
            }
        }
        Ok(Asked { line: parsed.options, around: Vec::new(), operands: parsed.operands })
    }

    /// Adds what variables say.
    pub(crate) fn add_variables(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for row in ROWS.iter().filter(|r| !r.variable.is_empty()) {
            let srun = row.variable.replacen("SLURM_", "SRUN_", 1);
            let Some(value) = variable(&srun).or_else(|| variable(row.variable)) else { continue };
            if matches!(row.used, Use::No(_)) {
                continue;
            }
            let given = match row.opt.takes {
                Nothing if matches!(value.as_str(), "0" | "no" | "false") => continue,
                Nothing => Given { id: row.opt.id, value: None },
                MaybeValue if value.is_empty() => Given { id: row.opt.id, value: None },
                _ => Given { id: row.opt.id, value: Some(value) },
            };
            self.around.push(given);
        }
    }

    /// On the command line.
    pub(crate) fn said(&self, id: &str) -> bool {
        self.line.iter().any(|g| g.id == id)
    }

    /// At all.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.said(id) || self.around.iter().any(|g| g.id == id)
    }

    fn get(&self, id: &str) -> Option<&Given> {
        let last = |list: &'_ [Given]| list.iter().rposition(|g| g.id == id);
        match last(&self.line) {
            Some(at) => Some(&self.line[at]),
            None => last(&self.around).map(|at| &self.around[at]),
        }
    }

    /// The value in force.
    pub(crate) fn value(&self, id: &str) -> Option<&str> {
        self.get(id).and_then(|g| g.value.as_deref())
    }

    /// The value of the command line.
    pub(crate) fn said_value(&self, id: &str) -> Option<&str> {
        self.line.iter().rev().find(|g| g.id == id).and_then(|g| g.value.as_deref())
    }

    /// What an allocation of this shape is asked with: words for `sbatch`.
    pub(crate) fn for_allocation(&self) -> Vec<String> {
        let mut words = Vec::new();
        for given in &self.line {
            let Some(row) = find(given.id) else { continue };
            if !matches!(row.used, Job | Both) {
                continue;
            }
            words.push(match &given.value {
                Some(value) => format!("--{}={value}", row.opt.long),
                None => format!("--{}", row.opt.long),
            });
        }
        words
    }

    /// Options that are taken and do nothing here.
    pub(crate) fn noted(&self) -> Vec<&'static str> {
        let noted = |g: &&Given| find(g.id).is_some_and(|row| row.used == Noted);
        self.line.iter().filter(noted).map(|g| g.id).collect()
    }
}

fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.opt.id == id)
}

/// `--help`.
pub(crate) fn usage(program: &str) -> String {
    let mut out = format!("Usage: {program} [OPTIONS] [COMMAND [ARGS]]\n");
    for row in ROWS.iter().filter(|r| !matches!(r.used, Use::No(_))) {
        let letter = row.opt.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        let value = match row.opt.takes {
            Nothing => "",
            Value => "=VALUE",
            MaybeValue => "[=VALUE]",
        };
        out.push_str(&format!("  {letter}--{}{value}\n", row.opt.long));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn launchers_command_lines_are_read_as_they_come() {
        let line = "--ntasks-per-node=1 --kill-on-bad-exit --mpi=none --nodes=1 --nodelist=nodeb \
                    --ntasks=1 orted -mca ess \"slurm\"";
        let asked = Asked::read("srun", &words(line)).unwrap();
        assert_eq!(asked.value("ntasks-per-node"), Some("1"));
        assert!(asked.has("kill-on-bad-exit"));
        assert_eq!(asked.operands, ["orted", "-mca", "ess", "\"slurm\""]);
        let asked =
            Asked::read("srun", &words("-N 2 -n 2 --input none hydra_pmi_proxy --proxy-id -1"));
        assert_eq!(asked.unwrap().operands, ["hydra_pmi_proxy", "--proxy-id", "-1"]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let refused = |line| Asked::read("srun", &words(line)).unwrap_err();
        assert_eq!(
            refused("--x11 xterm"),
            Bad::Refused("--x11 is not supported: X11 is not forwarded".into())
        );
        assert!(matches!(refused("--nosuch x"), Bad::Usage(_)));
    }

    #[test]
    fn the_command_line_wins_over_variables_and_goes_on_to_an_allocation() {
        let mut asked = Asked::read("srun", &words("-p gpu -c 2 -l cmd")).unwrap();
        asked.add_variables(|name| match name {
            "SLURM_CPUS_PER_TASK" => Some("8".into()),
            "SLURM_OVERLAP" => Some("1".into()),
            "SLURM_UNBUFFEREDIO" => Some("0".into()),
            _ => None,
        });
        assert_eq!(asked.value("cpus-per-task"), Some("2"));
        assert!(asked.has("overlap") && !asked.said("overlap") && !asked.has("unbuffered"));
        assert_eq!(asked.for_allocation(), ["--partition=gpu", "--cpus-per-task=2"]);
    }

    #[test]
    fn every_letter_and_name_is_there_once() {
        let mut names: Vec<&str> = ROWS.iter().map(|r| r.opt.long).collect();
        let mut letters: Vec<char> = ROWS.iter().filter_map(|r| r.opt.short).collect();
        let (all, some) = (names.len(), letters.len());
        names.sort_unstable();
        names.dedup();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!((names.len(), letters.len()), (all, some));
    }
}

//! Which name runs which command. The name is `argv[0]`'s last part, exactly, or the word after
//! `muster`.

/// A command: its words (without the name), its exit code.
pub type Main = fn(&[String]) -> i32;

/// A name that users type.
pub struct Personality {
    pub name: &'static str,
    pub main: Main,
    /// One line for `muster --help`.
    pub about: &'static str,
}

/// Slurm's names; `muster links` makes one link for each.
pub const SLURM: &[Personality] = &[
    Personality { name: "sacct", main: crate::query::sacct, about: "jobs past and present" },
    Personality {
        name: "sacctmgr",
        main: crate::query::sacctmgr,
        about: "accounts (none are kept)",
    },
    Personality { name: "salloc", main: crate::step::salloc, about: "an allocation for a command" },
    Personality { name: "sattach", main: crate::step::sattach, about: "look at a running step" },
    Personality { name: "sbatch", main: crate::submit::sbatch, about: "submit a batch script" },
    Personality { name: "sbcast", main: crate::step::sbcast, about: "a file for a job's nodes" },
    Personality { name: "scancel", main: crate::verbs::scancel, about: "cancel or signal jobs" },
    Personality {
        name: "scontrol",
        main: crate::verbs::scontrol,
        about: "show and change jobs, nodes and partitions",
    },
    Personality {
        name: "scrontab",
        main: crate::verbs::scrontab,
        about: "not supported: use cron and sbatch",
    },
    Personality { name: "sdiag", main: crate::query::sdiag, about: "what the controller did" },
    Personality { name: "seff", main: crate::query::seff, about: "how well a job used its share" },
    Personality { name: "sinfo", main: crate::query::sinfo, about: "nodes and partitions" },
    Personality {
        name: "sprio",
        main: crate::verbs::sprio,
        about: "not supported: use squeue -o %Q and muster why",
    },
    Personality { name: "squeue", main: crate::query::squeue, about: "the queue" },
    Personality { name: "sreport", main: crate::verbs::sreport, about: "not supported: use sacct" },
    Personality { name: "srun", main: crate::step::srun, about: "run tasks in a job" },
    Personality { name: "sshare", main: crate::query::sshare, about: "shares (none are kept)" },
    Personality { name: "sstat", main: crate::query::sstat, about: "what running jobs use" },
    Personality {
        name: "strigger",
        main: crate::verbs::strigger,
        about: "not supported: use sbatch --dependency and --mail-type",
    },
];

/// Commands of our own, after the word `muster`.
pub const OURS: &[Personality] = &[
    Personality { name: "up", main: crate::local::up, about: "start a cluster on this machine" },
    Personality { name: "down", main: crate::local::down, about: "stop it" },
    Personality { name: "env", main: crate::local::env, about: "shell variables that point at it" },
    Personality { name: "links", main: crate::local::links, about: "make the Slurm-named links" },
    Personality {
        name: "demo",
        main: crate::local::demo,
        about: "see it all work, in one command",
    },
    Personality { name: "gpu", main: crate::query::gpu, about: "every GPU: job, use, health" },
    Personality { name: "bench", main: crate::bench::bench, about: "measure it" },
    Personality { name: "ssh", main: crate::step::ssh, about: "a shell in a running job" },
    Personality {
        name: "topology",
        main: crate::verbs::topology,
        about: "the network between the nodes",
    },
    Personality {
        name: "dump-pass",
        main: crate::verbs::dump_pass,
        about: "write what the scheduler sees and chooses to a file",
    },
    Personality { name: "why", main: crate::verbs::why, about: "why a job waits" },
    Personality {
        name: "completions",
        main: crate::verbs::completions,
        about: "a completion script for bash, zsh, fish or elvish",
    },
];

/// The command that Slurm's name `name` runs.
#[must_use]
pub fn slurm(name: &str) -> Option<&'static Personality> {
    SLURM.iter().find(|p| p.name == name)
}

/// The command after the word `muster`.
#[must_use]
pub fn ours(name: &str) -> Option<&'static Personality> {
    OURS.iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<&str> = SLURM.iter().chain(OURS).map(|p| p.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_name_must_be_exact() {
        assert!(slurm("sbatch").is_some());
        assert!(slurm("mysbatch").is_none() && slurm("sbatch2").is_none());
    }
}

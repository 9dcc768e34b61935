//! Commands of Slurm's that there are not: each says so, and what to use instead.

use crate::exit;

fn refuse(program: &str, instead: &str) -> i32 {
    exit::error(program, &format!("{program} is not supported: {instead}"));
    exit::FAILED
}

/// Jobs at times.
#[must_use]
pub fn scrontab(_: &[String]) -> i32 {
    refuse("scrontab", "let cron on a submit host run sbatch")
}

/// The parts of priorities.
#[must_use]
pub fn sprio(_: &[String]) -> i32 {
    refuse("sprio", "'squeue -o \"%i %Q\"' shows priorities, 'muster why JOB' who comes first")
}

/// Use by user and by account.
#[must_use]
pub fn sreport(_: &[String]) -> i32 {
    refuse("sreport", "add up 'sacct -a -X -P -o User,Account,CPUTimeRAW -S START -E END'")
}

/// Programs run on events.
#[must_use]
pub fn strigger(_: &[String]) -> i32 {
    refuse("strigger", "begin jobs with 'sbatch --dependency', or watch 'squeue --json'")
}

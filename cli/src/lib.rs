//! The commands: Slurm's names over Muster's wire.
//!
//! Knows nothing of decisions, logs or nodes: it reads what the user typed, asks the controller,
//! and prints what Slurm's tools would print. Slurm's names, layouts, texts and exit codes live
//! here and nowhere else. It never imports the core.
//!
//! - `personality`: which name runs which command
//! - `connect`: the connection to the controller, with retries while it restarts
//! - `exit`: exit codes and how errors are said
//! - `getopt`: option tables and the getopt_long grammar (abbreviations, bundles)
//! - `submit`: `sbatch`
//! - `step`: `srun`, `salloc`, `sattach`, `sbcast`
//! - `verbs`: `scancel`, `scontrol`, `muster why`, completions
//! - `query`: `squeue`, `sinfo`, `sacct`, `sstat` and their formats
//! - `local`: a cluster on this machine (`muster up`, `down`, `env`, `links`, `demo`)
//! - `bench`: the benchmarks

pub mod bench;
pub mod connect;
pub mod exit;
pub mod getopt;
pub mod local;
pub mod personality;
pub mod query;
pub mod step;
pub mod submit;
pub mod verbs;

//! Steps: `srun` and its kin. They speak with the agents of a job's nodes; the controller is asked
//! for allocations alone.
//!
//! - `srun`, `salloc`, `sattach`, `sbcast`, `ssh`: the commands; `bcast`: srun's copies
//! - `options`: the table of options; `wish`: what they come to; `names`, `multiprog`: grammars
//! - `het`: one srun over several components of a job
//! - `cancel`: `scancel` of a step alone
//! - `job`: which job; `alloc`: making one; `agents`: the way to its nodes
//! - `run`: a step from its grant to its end; `course`: what follows from what; `sinks`: where
//!   output goes; `report`: how tasks ended; `tally`: what they used; `signals`, `terminal`: srun's own
//! - `container`: a root of their own for the tasks
//! - `mpi`: how the tasks find each other; `exchange`: what their nodes tell each other
//! - `variables`: what tasks find in their environment; `figures`: what running steps use

mod agents;
mod alloc;
mod bcast;
mod cancel;
pub(crate) mod container;
mod course;
mod exchange;
pub(crate) mod figures;
mod het;
mod job;
mod mpi;
mod multiprog;
mod names;
mod options;
mod per_task;
mod report;
mod run;
mod salloc;
mod sattach;
mod sbcast;
mod signals;
mod sinks;
mod srun;
mod ssh;
mod tally;
mod terminal;
mod variables;
mod wish;

pub(crate) use cancel::{among, cancel};
pub use salloc::salloc;
pub use sattach::sattach;
pub use sbcast::sbcast;
pub use srun::srun;
pub use ssh::ssh;

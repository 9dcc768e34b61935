//! A step's part on one node: the tasks of one `srun` here, started as the user in the job's group,
//! their input and output, and how each ended. One process per step and node, which outlives the
//! agent as the shim of a slice does.
//!
//! It knows its order and whoever speaks on its socket; what the agent passes through is said and
//! heard here. What a task wrote is kept until the asker says that it has it, and no more is read
//! than a window allows: a slow reader stops the writer and nobody else, and an agent that dies in
//! between loses nothing.
//!
//! - `dir`: the step's directory; `launcher`: the process that forks step shims
//! - `course`: from the order to the last word (a folder); `clients`: who listens
//! - `streams`: output with its window; `feed`: input
//! - `child`: from fork to exec; `program`: what is executed; `variables`: what a task finds in its environment; `cpus`, `gpus`: binding
//! - `mpi`: how the tasks find each other

mod child;
mod clients;
mod course;
mod cpus;
mod dir;
mod feed;
mod gpus;
pub(crate) mod launcher;
mod mpi;
mod program;
mod streams;
mod variables;

pub(crate) use dir::announce_stop;
pub use dir::{StepDir, end_steps, group_name, signal_steps};
pub use launcher::StepLauncher;

//! The agent: this node's part of jobs. It registers the node, holds one stream to the controller,
//! and brings the slices here to where the controller wants them.
//!
//! It decides nothing about who runs where, and it owns no process of a job: each slice has a shim
//! that outlives the agent. Killed and started again, it finds its slices in the spool and goes on.
//!
//! - `health`: what GPUs do, what is wrong with them, what jobs use of them
//! - `inventory`: what the host has, and what of the declared node it can enforce
//! - `session`: the stream to the controller
//! - `jobs`: the slices, from a wish to the end
//! - `steps`: what `srun` asks: tasks, their input and output
//! - `prolog`: the site's scripts around a job
//! - `tokens`: the local socket, where users of this host get a token for the controller
//! - `tree`: where the control groups of jobs stand
//! - `start`: the daemon from its config to its last breath
//! - `clock`: the wall clock

pub mod clock;
pub mod health;
pub mod inventory;
pub mod jobs;
pub mod prolog;
pub mod session;
mod start;
pub mod steps;
pub mod tokens;
pub mod tree;

pub use inventory::print::print_inventory;
pub use start::{Options, StartError, main, run, tokens_main};

//! The process that hosts PMIx for the tasks of one step on one node. Started by the step's shim as
//! the user; loads `libpmix` when it is needed, so that nothing of ours is built against it.
//!
//! Knows the ranks of the step and which are its own. What concerns other nodes it says to the shim,
//! and hears from there.
//!
//! - `abi`: structs, numbers and names of the library, declared here
//! - `library`: loading it; `infos`: what it is told of the step
//! - `callbacks`: what it asks of us, on its own thread
//! - `exchange`: what is under way between nodes
//! - `host`: the process

pub mod abi;
mod callbacks;
mod exchange;
mod host;
mod infos;
mod library;

pub use host::main;

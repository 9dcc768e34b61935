//! The core: decides everything, touches nothing.
//!
//! `decide(&State, &Command, now)` turns a wish into facts or refuses it; `apply(&mut State,
//! &Event)` makes a fact true and cannot fail; `effects(&State, &Event)` names the duties that
//! follow outside, and `outstanding(&State)` all that are open after a restart; `plan(&View,
//! &Policy, now, fuel)` chooses what starts where.
//!
//! Knows nothing of time (it is an argument), disks, sockets, threads or randomness, and iterates
//! over nothing whose order varies: equal inputs give equal outputs, byte for byte. Two replicas
//! that apply the same events are equal.
//!
//! - `command`: wishes; `rejection`: why one was refused; `event`: facts; `effect`: duties outside
//! - `config`: what the admin configured, as it enters the state
//! - `lifecycle`: a job's phases and their one exhaustive match
//! - `state/`: jobs, arrays, nodes, ledger, queue, dependency index
//! - `decide/`, `apply/`: one file per area
//! - `effects`: duties, derived from state
//! - `plan/`: the view, placement and the pass; `priority/`: who comes first
//! - `octaves`: logarithms in whole numbers
//! - `check`: every invariant by name; `stories/`: tests that tell what happens, and prove it

pub mod apply;
pub mod check;
pub mod command;
pub mod config;
pub mod decide;
pub mod effect;
pub mod effects;
pub mod event;
pub mod lifecycle;
mod octaves;
pub mod plan;
pub mod priority;
pub mod rejection;
pub mod state;

#[cfg(test)]
mod stories;

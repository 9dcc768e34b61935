//! Agents' sessions: who is there, what each should have, and what each says.
//!
//! Desired state, not orders: an outbox holds only the names of slices whose wish may have
//! changed; what is wanted is read from the state when it is sent, so nothing stale ever is and
//! no outbox grows beyond the slices of its node.
//!
//! - `hub`: one seat per node: its outbox, when it was last heard
//! - `stream`: one agent's stream, from its Hello to its end
//! - `reconcile`: what an agent has against what the state says it has
//! - `wanted`: what the state wants of slices, and the launches to send with it
//! - `liveness`: nodes that were silent too long

pub mod hub;
pub mod liveness;
pub mod reconcile;
pub mod stream;
pub mod wanted;

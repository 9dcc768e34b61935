//! The engine: the one owner of the state.
//!
//! A thread takes wishes from a bounded inbox, decides and applies a batch of them, makes the
//! batch durable, and only then lets answers and duties leave. Reads run between commits, so
//! nobody ever sees what a crash could take back.
//!
//! Knows nothing of the wire, of agents or of who asks; time and the log are handed in.
//!
//! - `batch`: one commit, without I/O; `thread`: the inbox, the log and the answers around it
//! - `codec`: facts as records; `snapshot`: a state as bytes; `recover`: from a log to a state

pub mod batch;
pub mod codec;
pub mod recover;
pub mod snapshot;
mod thread;

#[cfg(test)]
mod tests;

pub use batch::{JobBlobs, Reply, Step, Wish, environment_key, script_key, step};
pub use recover::{RecoverError, Recovery, recover};
pub use thread::{
    Clock, Effects, Engine, EngineError, EngineHandle, Lagged, Stats, Witness, system_clock,
};

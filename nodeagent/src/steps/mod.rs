//! Steps: `srun` and its kin on this node. The agent of a job's first node keeps the table of the
//! job's steps (their numbers, what they hold, who waits); the agent of every node runs its part of
//! each. The controller has no hand in a step: it hears how they went.
//!
//! Serves only the job's user and root.
//!
//! - `caller`: who asks; `listen`: the way from other hosts; `wire`: when such a way is dead
//! - `slice`: what the spool says of the job here
//! - `place`: which tasks go where, pure; `table`: the steps of the jobs that begin here, pure;
//!   `journal`: the table over the agent's end
//! - `head`: the table's edge: who opens, waits, comes back, lets go
//! - `part`: this node's part of a step; `frames`: speech with its shim
//! - `service`: the calls

mod caller;
mod frames;
mod head;
mod journal;
mod listen;
mod part;
pub mod place;
mod service;
mod slice;
mod table;
mod wire;

use std::sync::Arc;

use muster_proto::agent::v1::StepsTold;
use muster_proto::v1::PartEnd;
use muster_proto::v1::steps_server::StepsServer;
use muster_shim::StepLauncher;

use crate::jobs::edge::Edge;
use crate::jobs::job::Key;
pub use caller::Callers;
use head::Head;
pub use listen::{ListenError, Port};

/// An order with thousands of command lines, in bytes.
const MESSAGE_BYTES: usize = 32 << 20;

/// The steps of this node. Clones share them.
#[derive(Debug, Clone)]
pub struct Steps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    edge: Arc<Edge>,
    launcher: StepLauncher,
    head: Arc<Head>,
    callers: Callers,
}

impl Steps {
    /// With nothing running yet; what runs from before is found when somebody asks.
    #[must_use]
    pub fn new(edge: Arc<Edge>, launcher: StepLauncher, callers: Callers) -> Steps {
        let head = Arc::new(Head::new(edge.spool.clone()));
        Steps(Arc::new(Inner { edge, launcher, head, callers }))
    }

    /// The service, for the agent's socket.
    #[must_use]
    pub fn server(&self) -> StepsServer<Steps> {
        StepsServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Whether there are steps to tell the controller of.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.0.head.has_news()
    }

    /// The latest word of so many steps, at most. `None`: there is no news.
    #[must_use]
    pub fn news(&self, most: usize) -> Option<StepsTold> {
        self.0.head.news(most)
    }

    /// A step's part has ended here, and nobody was there to hear it.
    pub fn orphan_ended(&self, key: Key, end: PartEnd) {
        let head = self.0.head.clone();
        tokio::task::spawn_blocking(move || head.orphan_ended(key, end));
    }

    /// A signal for every step of a job that begins here, by its asker; a step whose asker is away
    /// has it on this node at least.
    pub fn signal_all(&self, key: Key, signal: i32) {
        let (head, spool) = (self.0.head.clone(), self.0.edge.spool.clone());
        tokio::task::spawn_blocking(move || {
            for step in head.signal_all(key, signal) {
                muster_shim::signal_steps(&spool, key.job, key.attempt, Some(step), signal);
            }
        });
    }

    /// What could not be told stays news.
    pub fn give_back(&self, told: StepsTold) {
        self.0.head.give_back(told);
    }

    /// A new session has begun: the controller knows nothing yet.
    pub fn tell_again(&self) {
        let head = self.0.head.clone();
        tokio::task::spawn_blocking(move || head.tell_again());
    }
}

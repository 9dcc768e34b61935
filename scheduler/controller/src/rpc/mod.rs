//! The client API: authenticate, convert, ask the engine, answer.
//!
//! - `submit`: submissions; `verbs`: what is done to jobs; `try_out`: `--test-only`;
//!   `former`: dependencies on jobs of the past
//! - `query`: listings, `scan`: their pages; `past`: the history; `watch`: changes as they come; `why`: one waiting job
//! - `admin`: nodes, partitions, reconfigure, shutdown; `agent`: the agents' door
//! - `change`, `reservation`: updates from the wire; `status`: refusals on the wire

pub mod admin;
pub mod agent;
pub mod change;
pub mod former;
pub mod past;
pub mod query;
pub mod reservation;
pub mod scan;
pub mod status;
pub mod submit;
pub mod try_out;
pub mod verbs;
pub mod watch;
pub mod why;

use std::sync::Arc;

use crate::Controller;

/// The services' one shape: a handle on the controller.
#[derive(Clone)]
pub struct Service(pub Arc<Controller>);

impl std::ops::Deref for Service {
    type Target = Controller;
    fn deref(&self) -> &Controller {
        &self.0
    }
}

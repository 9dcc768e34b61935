//! The shim: one small process per slice that starts the batch script as its user, holds it to its
//! time limit, and leaves a durable record of how it ended. It outlives the agent.
//!
//! It knows one slice. It does not know the controller, other jobs, or why it should stop; it has
//! no threads and no async runtime, so that it can be forked and forks safely.
//!
//! ```text
//! agent --(socketpair: slice dir)--> launcher --fork--> shim --fork--> batch script, as the user
//!   ^                                                    |  ^
//!   |  <spool>/notices (datagrams)                       |  | <dir>/shim (requests)
//!   +----------------------------------------------------+  +-- any agent of this node
//! ```
//!
//! - `spool`, `frames`: the slice's directory and the records in it, written so that a crash leaves
//!   whole ones; `spares`: directories of ended slices that become those of later ones; `notice`:
//!   the datagrams that save the agent from polling it
//! - `launcher`: the process that forks shims without an exec, and the agent's end of it
//! - `series`: shims that serve the tasks of one array, one after another
//! - `client`, `adopt`: what an agent does with a shim that runs, or that should
//! - `slice`: the shim's own course; `supervise`: its loop; `timetable`: which deadline does what;
//!   `usage`: what it has used
//! - `control`: its socket; `contain`: its processes, by control group or by descent
//! - `child`: from fork to exec; `identity`, `rlimits`, `output`, `pattern`: parts of that; `quick`,
//!   `spawn`: the same without a copy of this process, where nothing is amiss
//! - `lines`: what users read in the job's stderr
//! - `container`: a root of their own for tasks and scripts
//! - `step`: the tasks of one `srun` on this node

mod adopt;
mod child;
mod client;
mod contain;
mod container;
mod control;
mod frames;
mod identity;
mod launcher;
mod lines;
mod notice;
mod output;
mod pattern;
mod quick;
mod rlimits;
mod series;
mod slice;
mod spares;
mod spawn;
mod spool;
mod step;
mod supervise;
mod timetable;
mod usage;

pub use adopt::{Adopted, SweepError, adopt, is_alive, sweep};
pub use client::{ClientError, ShimClient};
pub use launcher::{LaunchError, Launcher, LauncherConfig, SHIMS_GROUP};
pub use muster_proto::shim::v1::notice::Kind as NoticeKind;
pub use muster_proto::shim::v1::{
    ExitRecord, Launch, Notice, ShimRecord, ShimReply, SliceLimits, StopCause,
};
pub use notice::{decode as decode_notice, socket as notice_socket};
pub use slice::BATCH_GROUP;
pub use spares::Spares;
pub use spool::{SliceDir, SpoolError};
pub use step::{StepDir, StepLauncher, end_steps, group_name, signal_steps};
pub use supervise::UNKNOWN_REQUEST;

use std::ffi::OsString;

/// `muster shim ...`: to be called before the binary has started any thread. `args` is what
/// follows `shim`. The answer is the exit code.
pub fn main(args: &[OsString]) -> i32 {
    match args.split_first() {
        Some((first, rest)) if first == "--step-launcher" => step::launcher::main(rest),
        _ => launcher::main(args),
    }
}

//! The pass: chooses what starts where.
//!
//! Pure: a view, a policy, a time and an amount of fuel give a plan, the same one every time. Fuel
//! is counted in units of work, so a plan never depends on how fast the machine is.
//!
//! Heads of the queue are looked at in order. One that fits starts, a gang on all of its nodes or
//! not at all. The first that do not fit get shadows: the earliest start that the limits of
//! running jobs allow, with the very CPUs, memory and GPUs that they need, taken out of the
//! calendar. Whoever comes later may start now if it fits beside all running jobs and all shadows
//! through the whole of its own limit, so nobody ever delays a shadow. Within a pass free only
//! shrinks, so what did not fit once need not be tried again.
//!
//! In the default order the first that does not fit gives way until it is due: its promise is the
//! earliest start from then on. Others pass it if they delay that by no limit, and by their
//! forecasts not the earliest start of all either; those that do delay the latter come last.
//!
//! - `view`: what a pass sees; `policy`: how it chooses; `order`: who comes first
//! - `axes`, `nodeset`, `calendar`: what is free where and when, in numbers and bits
//! - `ask`, `demand`: what a request comes to; `sieve`: which nodes could serve it; `ground`: the search for a place
//! - `choose`: which nodes of those that fit; `packing`: what breaks a node up least;
//!   `gather`: uneven requests; `topology`: which switch
//! - `build`, `units`: the exact CPUs and GPUs of a start
//! - `pass`: the order of work (`pass/het`: jobs of several components)
//! - `fits`: whether a request could ever be served
//! - `reasons`: why those wait that were not started
//! - `listing`: a plan as text
//! - `why`: the same questions asked about one job, for people

pub mod ask;
pub mod axes;
mod binding;
mod build;
pub mod calendar;
mod choose;
pub mod demand;
pub mod fits;
mod gather;
pub mod ground;
pub mod listing;
pub mod nodeset;
mod order;
pub mod packing;
mod pass;
pub mod policy;
pub mod reasons;
mod sieve;
pub mod topology;
pub mod units;
pub mod view;
pub mod why;

use muster_model::{JobId, Timestamp};

use crate::command::StartWish;

pub use ground::Part;
pub use pass::plan;
pub use policy::{ALL, Backfill, Order, Packing, Policy};
pub use reasons::{Reasons, ShapeReasons};
pub use view::{Group, Head, Mate, View, view};

/// Fuel for a pass over any cluster we aim at: about a second of work.
pub const DEFAULT_FUEL: u64 = 20_000_000;

/// What a pass chose and why the rest waits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub starts: Vec<StartWish>,
    /// Starts promised to jobs that cannot start now, in the order of the queue.
    pub shadows: Vec<Shadow>,
    pub reasons: Reasons,
    pub fuel_used: u64,
    /// Another pass at once would find more to start: fuel, starts or copied heads ran out.
    pub more: bool,
}

/// A start promised to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    pub job: JobId,
    /// Place in the view's partitions.
    pub partition: u32,
    /// The earliest by the limits of all that run.
    pub start: Timestamp,
    /// The promise: nobody who comes later delays it beyond. After `start` if it gives way.
    pub latest: Timestamp,
    /// Milliseconds; [`ground::FOREVER`]: no limit.
    pub length: i64,
    pub parts: Vec<Part>,
}

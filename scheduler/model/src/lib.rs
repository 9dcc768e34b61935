//! The vocabulary of Muster: plain values that every other crate speaks.
//!
//! Knows nothing of wires, disks, clocks or Slurm's spelling of states. Imports nothing of ours.
//! A type that can be written by a user (a hostlist, an array spec, a duration) is parsed and
//! printed here, once.
//!
//! - `ids`: job, attempt, node, uid; newtypes so that they cannot be mixed up
//! - `time`: timestamps, durations, the grammar of `--time` and friends
//! - `resources`: CPU sets, memory, generic resources, what a slice holds
//! - `hostlist`: `n[01-04,07]`
//! - `array`: `--array=0-15:4%2` and the interval set of remaining tasks
//! - `dependency`, `constraint`: `--dependency`, `--constraint`
//! - `gpu`: GPUs as an agent found them
//! - `job`: what a user asked for (`JobSpec`, `Request`) and how a job ends (`Outcome`)
//! - `links`: how the GPUs of a node hang together
//! - `node`, `partition`: what an admin configured and an agent reported
//! - `reservation`: nodes kept for some jobs, for a time
//! - `topology`: switches and NVLink blocks, checked as one graph
//! - `reason`: why a job waits, why a node is out

pub mod array;
pub mod constraint;
pub mod dependency;
pub mod gpu;
pub mod hostlist;
pub mod ids;
pub mod job;
pub mod links;
pub mod node;
pub mod partition;
pub mod reason;
pub mod reservation;
pub mod resources;
pub mod time;
pub mod topology;

pub use array::{ArraySpec, IndexSet};
pub use constraint::{Constraint, Term};
pub use dependency::{Dependency, DependencyKind, DependencyTerm};
pub use gpu::{Fabric, Gpu, MigInstance};
pub use hostlist::Hostlist;
pub use ids::{Attempt, JobId, NodeId, Uid, User};
pub use job::{
    CpuBinding, ExitStatus, GpuUsage, HetPart, Hold, JobSpec, LaunchSpec, MemoryRequest, NodeCount,
    OpenMode, Outcome, Request, SignalRequest, SwitchWish, TopologyWish, Usage,
};
pub use links::{GpuLinks, LinkClass};
pub use node::{Inventory, NodeConfig, NodeHealth};
pub use partition::{Partition, PartitionState};
pub use reason::Reason;
pub use reservation::{Access, Reservation, ReservationFlags};
pub use resources::{
    Capacity, CpuSet, GresKind, GresMask, GresRequest, GresScope, Placement, Slice,
};
pub use time::{Seconds, TimeLimit, Timestamp};
pub use topology::{BadTopology, BlockConfig, SwitchConfig, TopologyConfig, TopologyGraph};

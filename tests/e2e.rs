//! Stories of the whole: the real binary, real daemons, real processes, Slurm's names.
//!
//! Each test has a cluster of its own. What a story knows of the cluster is what a user or an
//! admin could know: what commands print, what files hold, what processes are there.

#[path = "harness/mod.rs"]
mod harness;

#[path = "e2e/containers.rs"]
mod containers;
#[path = "e2e/crashes.rs"]
mod crashes;
#[path = "e2e/disks.rs"]
mod disks;
#[path = "e2e/examples.rs"]
mod examples;
#[path = "e2e/frameworks.rs"]
mod frameworks;
#[path = "e2e/gpu_affinity.rs"]
mod gpu_affinity;
#[path = "e2e/gpu_binding.rs"]
mod gpu_binding;
#[path = "e2e/gpu_health.rs"]
mod gpu_health;
#[path = "e2e/gpu_requests.rs"]
mod gpu_requests;
#[path = "e2e/gpus.rs"]
mod gpus;
#[path = "e2e/groups.rs"]
mod groups;
#[path = "e2e/het.rs"]
mod het;
#[path = "e2e/jobs.rs"]
mod jobs;
#[path = "e2e/limits.rs"]
mod limits;
#[path = "e2e/mpi.rs"]
mod mpi;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/remote.rs"]
mod remote;
#[path = "e2e/reservations.rs"]
mod reservations;
#[path = "e2e/security.rs"]
mod security;
#[path = "e2e/step_faults.rs"]
mod step_faults;
#[path = "e2e/steps.rs"]
mod steps;
#[path = "e2e/terminal.rs"]
mod terminal;
#[path = "e2e/topology.rs"]
mod topology;
#[path = "e2e/volume.rs"]
mod volume;
#[path = "e2e/why.rs"]
mod why;

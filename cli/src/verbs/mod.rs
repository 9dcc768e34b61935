//! What users do to jobs, nodes and partitions that are there, and what they look up one by one.
//!
//! Rendering and parsing are functions of their inputs; only the commands' outermost functions
//! call the controller.
//!
//! - `scancel`: cancel or signal jobs
//! - `scontrol`: show and change jobs, nodes, partitions
//! - `network`: the switches and blocks between the nodes
//! - `dump_pass`: a scheduling pass in a file; `why`: why a job waits;
//!   `completions`: for the shell; `missing`: what there is not

mod completions;
mod dump_pass;
mod missing;
mod network;
mod scancel;
mod scontrol;
mod why;

pub use completions::completions;
pub use dump_pass::dump_pass;
pub use missing::{scrontab, sprio, sreport, strigger};
pub use network::topology;
pub use scancel::scancel;
pub use scontrol::scontrol;
pub use why::why;

use muster_proto::v1;
use tonic::Response;

use crate::connect::{Api, CallError, Client};
use crate::exit;

/// Jobs by reference or filter, those that have ended too.
pub(crate) fn list_jobs(
    client: &mut Client,
    request: &v1::ListJobsRequest,
) -> Result<Vec<v1::Job>, CallError> {
    client.call(async |mut api: Api| {
        let mut pages = api.query.list_jobs(request.clone()).await?.into_inner();
        let mut jobs = Vec::new();
        while let Some(page) = pages.message().await? {
            jobs.extend(page.jobs);
        }
        Ok(jobs)
    })
}

/// The cluster's name, as the controller says.
pub(crate) fn ping(client: &mut Client) -> Result<v1::PingReply, CallError> {
    client.call(async |mut api: Api| {
        api.query.ping(v1::PingRequest {}).await.map(Response::into_inner)
    })
}

/// Opens a client, or says why not and hands back the exit code.
pub(crate) fn open(program: &'static str, lead: &str) -> Result<Client, i32> {
    Client::find(program).map_err(|error| failed(program, lead, &error))
}

/// Says `LEAD error: TEXT` as Slurm's tools do, and our own sentence where it says more.
pub(crate) fn failed(program: &str, lead: &str, error: &CallError) -> i32 {
    if let Some(detail) = error.detail() {
        exit::say(program, &detail);
    }
    eprintln!("{lead} error: {}", error.slurm_text());
    exit::FAILED
}

//! Submissions: from the wire to a durable job.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_core::command::{Command, Submit};
use muster_model::{Uid, User};
use muster_proto::convert::job::spec_in;
use muster_proto::convert::{BadField, check};
use muster_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use super::status::{bad_field, fault_detail, status};
use super::{Service, former, try_out, verbs};
use crate::Controller;
use crate::auth::Caller;
use crate::engine::{EngineError, JobBlobs};
use crate::users::Account;

/// Submissions of one call that are under way at a time: enough to share commits, few enough that
/// one caller does not fill the engine's inbox.
const UNDER_WAY: usize = 256;

/// Why there is no job.
#[derive(Debug)]
pub enum Refused {
    Field(BadField),
    Engine(EngineError),
}

impl From<BadField> for Refused {
    fn from(bad: BadField) -> Self {
        Refused::Field(bad)
    }
}

impl From<EngineError> for Refused {
    fn from(fault: EngineError) -> Self {
        Refused::Engine(fault)
    }
}

impl Refused {
    fn detail(&self) -> v1::ErrorDetail {
        match self {
            Refused::Field(bad) => bad_field(bad),
            Refused::Engine(fault) => fault_detail(fault),
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Field(bad) => status(tonic::Code::InvalidArgument, bad_field(&bad)),
            Refused::Engine(fault) => fault.into(),
        }
    }
}

/// A submission from the wire, as the core wants it, with its blobs.
///
/// # Errors
/// The first field that makes no sense.
pub fn submission(
    controller: &Controller,
    caller: Caller,
    account: &Account,
    wire: v1::SubmitRequest,
) -> Result<(Submit, JobBlobs), BadField> {
    let config = controller.config();
    let limits = &config.scheduler;
    let spec = wire.spec.unwrap_or_default();
    let mut spec = spec_in(&spec, limits.max_array_size)?;
    check::spec(&spec)?;
    script(&wire.script, limits.max_script_bytes)?;
    let environment = bounded("environment", &wire.environment, limits.max_environment_bytes)?;
    spec.script_bytes = bounded("script", &wire.script, limits.max_script_bytes)?;
    spec.env_bytes = environment;
    spec.user = User { uid: Uid(caller.uid), gid: caller.gid, name: account.name.clone() };
    let component = |wire: &v1::JobSpec| {
        let spec = spec_in(wire, limits.max_array_size)?;
        check::spec(&spec).map(|()| spec)
    };
    let components = wire.components.iter().map(component).collect::<Result<Vec<_>, _>>()?;
    let request_id = match wire.request_id.len() {
        0 => [0; 16],
        _ => wire.request_id[..]
            .try_into()
            .map_err(|_| BadField::new("request id", "not 16 bytes"))?,
    };
    let (actor, groups) = (caller.actor(), account.groups.clone());
    let submit = Submit { actor, groups, request_id, spec, components };
    Ok((submit, JobBlobs { script: wire.script, environment: wire.environment }))
}

fn bounded(field: &'static str, content: &Bytes, most: u32) -> Result<u32, BadField> {
    match u32::try_from(content.len()) {
        Ok(bytes) if bytes <= most => Ok(bytes),
        _ => Err(BadField::new(field, format!("{} bytes, more than {most}", content.len()))),
    }
}

fn script(script: &Bytes, most: u32) -> Result<(), BadField> {
    let fault = match () {
        () if script.is_empty() => "is empty",
        () if script.len() > most as usize => return bounded("script", script, most).map(drop),
        () if !script.starts_with(b"#!") => "must begin with #! and the path of an interpreter",
        () if script.contains(&0) => "contains a NUL character",
        () => return Ok(()),
    };
    Err(BadField::new("script", fault))
}

async fn submit(
    controller: &Controller,
    caller: Caller,
    account: &Account,
    wire: v1::SubmitRequest,
) -> Result<v1::SubmitReply, Refused> {
    let (mut submit, blobs) = submission(controller, caller, account, wire)?;
    former::settle(controller, &mut submit.spec.dependency).await?;
    let command = Command::Submit(Box::new(submit));
    let reply = controller.engine.submit(command, Some(blobs)).await?;
    let job = reply.job.expect("a granted submission names its job");
    Ok(v1::SubmitReply { job: job.0, error: None, warnings: Vec::new() })
}

#[tonic::async_trait]
impl v1::jobs_server::Jobs for Service {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let caller = self.auth.caller(&request)?;
        let account = self.users.find(caller.uid).await;
        Ok(Response::new(submit(self, caller, &account, request.into_inner()).await?))
    }

    type SubmitManyStream = BoxStream<'static, Result<v1::SubmitReply, Status>>;

    async fn submit_many(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        let caller = self.auth.caller(&request)?;
        let controller = Arc::clone(&self.0);
        // Looked up once: a pause within one submission would let the next overtake it.
        let account = self.users.find(caller.uid).await;
        let replies = request.into_inner().map(move |wire| {
            let (controller, account) = (Arc::clone(&controller), Arc::clone(&account));
            async move {
                Ok(submit(&controller, caller, &account, wire?).await.unwrap_or_else(|refused| {
                    let error = Some(refused.detail());
                    v1::SubmitReply { job: 0, error, warnings: Vec::new() }
                }))
            }
        });
        Ok(Response::new(replies.buffered(UNDER_WAY).boxed()))
    }

    async fn test_only(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::TestOnlyReply>, Status> {
        let caller = self.auth.caller(&request)?;
        Ok(Response::new(try_out::test_only(self, caller, request.into_inner()).await?))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let caller = self.auth.caller(&request)?;
        Ok(Response::new(verbs::cancel(self, caller, request.into_inner()).await?))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateJobRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let caller = self.auth.caller(&request)?;
        Ok(Response::new(verbs::update(self, caller, request.into_inner()).await?))
    }

    async fn hold(
        &self,
        request: Request<v1::HoldRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let v1::HoldRequest { jobs, by_user } = request.into_inner();
        let make = move |target| Command::Hold { actor, target, by_user };
        Ok(Response::new(verbs::each(self, &jobs, make).await?))
    }

    async fn release(
        &self,
        request: Request<v1::JobsRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let make = move |target| Command::Release { actor, target };
        Ok(Response::new(verbs::each(self, &request.into_inner().jobs, make).await?))
    }

    async fn requeue(
        &self,
        request: Request<v1::RequeueRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let v1::RequeueRequest { jobs, hold } = request.into_inner();
        let make = move |target| Command::Requeue { actor, target, hold };
        Ok(Response::new(verbs::each(self, &jobs, make).await?))
    }

    async fn suspend(
        &self,
        request: Request<v1::JobsRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let make = move |target| Command::Suspend { actor, target };
        Ok(Response::new(verbs::each(self, &request.into_inner().jobs, make).await?))
    }

    async fn resume(
        &self,
        request: Request<v1::JobsRequest>,
    ) -> Result<Response<v1::VerbReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let make = move |target| Command::Resume { actor, target };
        Ok(Response::new(verbs::each(self, &request.into_inner().jobs, make).await?))
    }
}

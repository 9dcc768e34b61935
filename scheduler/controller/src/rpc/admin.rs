//! What operators and admins do. The core checks roles for what it decides; what only touches
//! this process is checked here.

use muster_config::Config;
use muster_core::command::Command;
use muster_core::config::Role;
use muster_core::decide::Reply as Answer;
use muster_core::rejection::Rejection;
use muster_model::{Hostlist, NodeId};
use muster_proto::convert::BadField;
use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::status::{invalid, make_detail, not_permitted, refused, status};
use super::{Service, change, reservation};
use crate::cluster::{changes, cluster_config};

#[tonic::async_trait]
impl v1::admin_server::Admin for Service {
    async fn update_nodes(
        &self,
        request: Request<v1::UpdateNodesRequest>,
    ) -> Result<Response<v1::UpdateNodesReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let wire = request.into_inner();
        let change = change::node(&wire).map_err(|bad| invalid(&bad))?;
        let all = wire.nodes.eq_ignore_ascii_case("ALL");
        let names = if all { Hostlist::default() } else { hosts(&wire.nodes)? };
        let nodes = self.engine.read(move |state| -> Result<Vec<NodeId>, String> {
            if all {
                return Ok(state.nodes.iter().filter(|n| n.configured).map(|n| n.id).collect());
            }
            names.0.into_iter().map(|name| state.node_id(&name).ok_or(name)).collect()
        });
        let nodes = nodes.await?.map_err(|name| refused(&Rejection::UnknownNode(name)))?;
        let gpus = change::gpus(&wire).map_err(|bad| invalid(&bad))?;
        let command = match gpus {
            Some((gpus, verb)) => Command::UpdateGpus { actor, nodes, gpus, verb },
            None => Command::UpdateNodes { actor, nodes, change },
        };
        self.engine.submit(command, None).await?;
        Ok(Response::new(v1::UpdateNodesReply {}))
    }

    async fn update_partition(
        &self,
        request: Request<v1::UpdatePartitionRequest>,
    ) -> Result<Response<v1::UpdatePartitionReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let wire = request.into_inner();
        let change = change::partition(&wire).map_err(|bad| invalid(&bad))?;
        let name = wire.name.into();
        self.engine.submit(Command::UpdatePartition { actor, name, change }, None).await?;
        Ok(Response::new(v1::UpdatePartitionReply {}))
    }

    async fn create_reservation(
        &self,
        request: Request<v1::CreateReservationRequest>,
    ) -> Result<Response<v1::CreateReservationReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let wish = reservation::wish(&request.into_inner()).map_err(|bad| invalid(&bad))?;
        let users = wish.users.names.clone();
        self.known_users(&users).await?;
        let command = Command::CreateReservation { actor, wish: Box::new(wish) };
        let reply = self.engine.submit(command, None).await?;
        let Answer::Reservation(name) = reply.answer else {
            return Err(Status::internal("a reservation was answered with something else"));
        };
        Ok(Response::new(v1::CreateReservationReply { name: name.into() }))
    }

    async fn update_reservation(
        &self,
        request: Request<v1::UpdateReservationRequest>,
    ) -> Result<Response<v1::UpdateReservationReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let wire = request.into_inner();
        let change = reservation::change(&wire).map_err(|bad| invalid(&bad))?;
        self.known_users(reservation::new_users(&change)).await?;
        let (name, change) = (wire.name.into(), Box::new(change));
        self.engine.submit(Command::UpdateReservation { actor, name, change }, None).await?;
        Ok(Response::new(v1::UpdateReservationReply {}))
    }

    async fn delete_reservation(
        &self,
        request: Request<v1::DeleteReservationRequest>,
    ) -> Result<Response<v1::DeleteReservationReply>, Status> {
        let actor = self.auth.caller(&request)?.actor();
        let name = request.into_inner().name.into();
        self.engine.submit(Command::DeleteReservation { actor, name }, None).await?;
        Ok(Response::new(v1::DeleteReservationReply {}))
    }

    async fn reconfigure(
        &self,
        request: Request<v1::ReconfigureRequest>,
    ) -> Result<Response<v1::ReconfigureReply>, Status> {
        if self.auth.caller(&request)?.role < Role::Admin {
            return Err(not_permitted("reconfiguring the cluster"));
        }
        let old = self.config();
        let path = old.path.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&path)).await;
        let new = read.expect("reading a config does not panic").map_err(|fault| {
            let detail = make_detail(0, format!("nothing was changed: {fault}"));
            status(tonic::Code::FailedPrecondition, detail)
        })?;
        self.engine.tell(Command::Configure(Box::new(cluster_config(&new)))).await?;
        let auth = self.auth.clone();
        let security = new.security.clone();
        let resolved = tokio::task::spawn_blocking(move || auth.set_roles(&security)).await;
        resolved.expect("resolving roles does not panic");
        let lines = changes(&old, &new);
        self.set_config(new);
        tracing::info!(changes = lines.len(), "reconfigured");
        Ok(Response::new(v1::ReconfigureReply { changes: lines }))
    }

    async fn dump_pass(
        &self,
        request: Request<v1::DumpPassRequest>,
    ) -> Result<Response<v1::DumpPassReply>, Status> {
        if self.auth.caller(&request)?.role < Role::Operator {
            return Err(not_permitted("dumping a pass"));
        }
        let busy = || Status::resource_exhausted("too many wait for a dump: try again");
        let file = self.dumps.ask().ok_or_else(busy)?;
        self.opinions.wake();
        let written = file.await.map_err(|_| Status::unavailable("the pass did not end"))?;
        let path = written
            .map_err(|fault| status(tonic::Code::FailedPrecondition, make_detail(0, fault)))?;
        Ok(Response::new(v1::DumpPassReply { path: path.display().to_string() }))
    }

    async fn shutdown(
        &self,
        request: Request<v1::ShutdownRequest>,
    ) -> Result<Response<v1::ShutdownReply>, Status> {
        let caller = self.auth.caller(&request)?;
        if caller.role < Role::Admin {
            return Err(not_permitted("stopping the controller"));
        }
        tracing::info!(uid = caller.uid, "shutdown asked for");
        self.stop.cancel();
        Ok(Response::new(v1::ShutdownReply {}))
    }
}

impl Service {
    /// A name that nobody has would shut out those who were meant.
    async fn known_users(&self, names: &[Box<str>]) -> Result<(), Status> {
        let names = names.to_vec();
        let looked = tokio::task::spawn_blocking(move || {
            let known = |name: &str| nix::unistd::User::from_name(name).ok().flatten().is_some();
            names.into_iter().find(|name| !known(name))
        });
        match looked.await.expect("looking up a user does not panic") {
            Some(name) => Err(invalid(&BadField::new("users", format!("nobody is {name:?}")))),
            None => Ok(()),
        }
    }
}

fn hosts(list: &str) -> Result<Hostlist, Status> {
    let hosts = Hostlist::parse(list).map_err(|f| invalid(&BadField::new("node list", f)))?;
    if hosts.0.is_empty() {
        return Err(invalid(&BadField::new("node list", "no node was named")));
    }
    Ok(hosts)
}

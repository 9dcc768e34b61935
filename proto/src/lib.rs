//! The wire: messages and services compiled from the `.proto` files, and the conversions between
//! them and the model.
//!
//! Knows no decisions and no I/O. `convert` is the only place that names wire and model together;
//! a message that does not make sense is refused there with the field's name.
//!
//! - `container`: a batch script's root file system among a job's extras
//! - `token`: what the cluster key signs (users, agents, launches)
//! - `muster/v1`: the client API (jobs, query, admin)
//! - `muster/agent/v1`: the agents' session
//! - `muster/shim/v1`: spool files and the shim's socket
//! - `muster/store/v1`: records on disk, versioned apart from the API

mod container;
pub mod convert;
pub mod token;

/// The client API.
pub mod v1 {
    #![allow(clippy::large_enum_variant, unreachable_pub, rustdoc::all)]
    tonic::include_proto!("muster.v1");
}

/// The agents' session.
pub mod agent {
    /// Version 1.
    pub mod v1 {
        #![allow(clippy::large_enum_variant, unreachable_pub, rustdoc::all)]
        tonic::include_proto!("muster.agent.v1");
    }
}

/// Spool files and the shim's socket.
pub mod shim {
    /// Version 1.
    pub mod v1 {
        #![allow(clippy::large_enum_variant, unreachable_pub, rustdoc::all)]
        tonic::include_proto!("muster.shim.v1");
    }
}

/// Records on disk.
pub mod store {
    /// Version 1.
    pub mod v1 {
        #![allow(clippy::large_enum_variant, unreachable_pub, rustdoc::all)]
        tonic::include_proto!("muster.store.v1");
    }
}

/// The trailer in which a refused call carries its [`v1::ErrorDetail`].
pub const ERROR_TRAILER: &str = "muster-error-bin";

/// `host:port`; an IPv6 address goes into brackets.
#[must_use]
pub fn host_port(host: &str, port: u32) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

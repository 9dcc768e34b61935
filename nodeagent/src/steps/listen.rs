//! TCP with TLS for commands on other hosts: steps and nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use muster_config::Tls;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::Steps;
use super::wire::Wire;

/// Of all streams of one connection, in bytes: one whose reader is slow must not hold up the rest.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Why there is no TCP.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("agent.listen needs security.tls_cert and tls_key")]
    NoCertificate,
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("agent.listen = \"{address}\"")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("use security.tls_cert and tls_key")]
    Tls(#[source] tonic::transport::Error),
}

/// An open port.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    identity: Identity,
    /// Where others reach it.
    pub number: u16,
}

impl Port {
    /// Takes the port. With number 0 the system chooses one.
    ///
    /// # Errors
    /// Files that cannot be read, an address that cannot be had.
    pub async fn open(address: SocketAddr, tls: &Tls) -> Result<Port, ListenError> {
        let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
            return Err(ListenError::NoCertificate);
        };
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|source| ListenError::Read { path: path.to_owned(), source })
        };
        let identity = Identity::from_pem(read(cert)?, read(key)?);
        let fault = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let number = listener.local_addr().map_err(fault)?.port();
        Ok(Port { listener, identity, number })
    }

    /// Serves steps until the process ends.
    ///
    /// # Errors
    /// A certificate that is none, a listener that breaks.
    pub async fn serve(self, steps: Steps) -> Result<(), ListenError> {
        let accepted = TcpListenerStream::new(self.listener);
        let incoming = accepted.map(|stream| stream.and_then(Wire::new));
        Server::builder()
            .tls_config(ServerTlsConfig::new().identity(self.identity))
            .map_err(ListenError::Tls)?
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_service(steps.server())
            .serve_with_incoming(incoming)
            .await
            .map_err(ListenError::Tls)
    }
}

//! Reaching the controller, and being sure that it is the one: over a unix socket the kernel
//! names the peer's uid, over TCP its certificate does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_config::Config;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// A connection that takes longer is given up, in seconds; the next try may find a better way.
const CONNECT_SECONDS: u64 = 10;
/// A silent peer is asked whether it lives, and given up after as long again, in seconds.
const KEEPALIVE_SECONDS: u64 = 15;

/// Where the controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Its socket on this host, and the uids that may stand behind it.
    Socket { path: PathBuf, trusted: Vec<u32> },
    /// `host:port` with TLS, and the CA that must have signed its certificate.
    Tls { address: String, ca: PathBuf },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("controller.address is set, but security.tls_ca is not: agents cannot check it")]
    NoCa,
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("connect to the controller at {at}")]
    Connect {
        at: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl Target {
    /// What the config says. The socket's owner may be root, whoever runs this agent, or the owner
    /// of the cluster key: who has the key could sign launches anyway.
    ///
    /// # Errors
    /// When TCP is asked for without a CA.
    pub fn of(config: &Config) -> Result<Self, DialError> {
        use std::os::unix::fs::MetadataExt;
        if let Some(address) = &config.controller.address {
            let ca = config.security.tls.ca.clone().ok_or(DialError::NoCa)?;
            return Ok(Target::Tls { address: address.clone(), ca });
        }
        let mut trusted = vec![0, nix::unistd::geteuid().as_raw()];
        let key = config.security.cluster_key.as_deref().and_then(|path| path.metadata().ok());
        trusted.extend(key.map(|meta| meta.uid()));
        Ok(Target::Socket { path: config.controller.socket.clone(), trusted })
    }

    /// Connects once.
    ///
    /// # Errors
    /// When nobody answers, or somebody who is not the controller.
    pub async fn connect(&self) -> Result<Channel, DialError> {
        match self {
            Target::Socket { path, trusted } => socket(path, trusted).await,
            Target::Tls { address, ca } => tls(address, ca).await,
        }
    }
}

async fn socket(path: &Path, trusted: &[u32]) -> Result<Channel, DialError> {
    let (to, trusted) = (path.to_owned(), trusted.to_vec());
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let (to, trusted) = (to.clone(), trusted.clone());
        async move {
            let stream = UnixStream::connect(&to).await?;
            let uid = stream.peer_cred()?.uid();
            if trusted.contains(&uid) {
                Ok(TokioIo::new(stream))
            } else {
                Err(std::io::Error::other(format!(
                    "uid {uid} serves {}, which is neither root, this agent, nor the owner of \
                     the cluster key",
                    to.display()
                )))
            }
        }
    });
    tuned(Endpoint::from_static("http://controller.muster"))
        .connect_with_connector(connector)
        .await
        .map_err(|source| DialError::Connect { at: path.display().to_string(), source })
}

async fn tls(address: &str, ca: &Path) -> Result<Channel, DialError> {
    let pem =
        std::fs::read(ca).map_err(|source| DialError::Read { path: ca.to_owned(), source })?;
    let fault = |source| DialError::Connect { at: address.to_owned(), source };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(fault)?;
    tuned(endpoint).tls_config(tls).map_err(fault)?.connect().await.map_err(fault)
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
        .http2_keep_alive_interval(Duration::from_secs(KEEPALIVE_SECONDS))
        .keep_alive_timeout(Duration::from_secs(KEEPALIVE_SECONDS))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_strangers_socket_is_not_the_controller() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let connect =
            async |trusted| Target::Socket { path: path.clone(), trusted }.connect().await;
        assert!(connect(vec![own]).await.is_ok());
        assert!(matches!(connect(vec![own + 1]).await, Err(DialError::Connect { .. })));
    }
}

//! Datagrams from shims to the agent: what is already durable in the spool, told at once. The
//! socket is the agent's; without an agent a notice is dropped, and the next agent reads the files.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use muster_proto::shim::v1::Notice;
use muster_proto::shim::v1::notice::Kind;
use prost::Message;

use crate::client::reachable;

/// A notice is at most this long: error texts are cut before.
pub(crate) const MAX_BYTES: usize = 64 * 1024;
/// How long a full socket is waited for. An agent that takes no notice for so long is stuck, and
/// lists the spool when it recovers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an agent binds a datagram socket, mode 0600, to be told.
pub fn socket(spool: &Path) -> PathBuf {
    spool.join("notices")
}

/// A datagram read from [`socket`].
pub fn decode(datagram: &[u8]) -> Option<Notice> {
    Notice::decode(datagram).ok()
}

/// The socket that this process, and those it forks, send from.
fn sender() -> io::Result<&'static UnixDatagram> {
    static SENDER: OnceLock<UnixDatagram> = OnceLock::new();
    if let Some(socket) = SENDER.get() {
        return Ok(socket);
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(SENDER.get_or_init(|| socket))
}

/// Tells the agent, if there is one.
pub(crate) fn send(spool: &Path, job: u32, attempt: u32, kind: Kind) -> io::Result<()> {
    match deliver(spool, job, attempt, kind) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// The same, where it matters that there is an agent.
pub(crate) fn deliver(spool: &Path, job: u32, attempt: u32, kind: Kind) -> io::Result<()> {
    let bytes = Notice { job, attempt, kind: Some(kind) }.encode_to_vec();
    assert!(bytes.len() <= MAX_BYTES, "texts in records are short");
    let socket_path = socket(spool);
    let (path, _dir) = reachable(&socket_path)?;
    sender()?.send_to(&bytes, path).map(drop)
}

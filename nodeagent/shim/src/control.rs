//! The shim's socket: length-delimited requests from the agent, each answered at once. Root and
//! the agent's own user may speak; nobody else is heard.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use muster_proto::shim::v1::{ShimReply, ShimRequest};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use prost::Message;

use crate::client::reachable;

/// One agent speaks at a time, and a restarted one may overlap with the last: more is a fault.
const MAX_CONNECTIONS: usize = 8;
/// A request is some numbers.
const MAX_REQUEST_BYTES: usize = 256;

/// The listening socket and its conversations.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Control {
    /// Listens at `path`; the umask of the shim keeps it private.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let (path, _dir) = reachable(path)?;
        // Only the claimant of a slice comes here, so a socket that is there is a dead one's.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new() })
    }

    /// What to poll for reading.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let streams = self.connections.iter().map(|c| c.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(streams)
    }

    /// Takes new conversations and answers what is asked; never blocks.
    pub(crate) fn serve(&mut self, mut answer: impl FnMut(ShimRequest) -> ShimReply) {
        self.connections.retain_mut(|c| c.serve(&mut answer));
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() == MAX_CONNECTIONS || !may_speak(&stream) {
                continue;
            }
            if stream.set_nonblocking(true).is_ok() {
                let mut connection = Connection { stream, pending: Vec::new() };
                if connection.serve(&mut answer) {
                    self.connections.push(connection);
                }
            }
        }
    }
}

fn may_speak(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

impl Connection {
    /// False when the conversation is over, by its end or by nonsense.
    fn serve(&mut self, answer: &mut impl FnMut(ShimRequest) -> ShimReply) -> bool {
        let mut chunk = [0u8; MAX_REQUEST_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            while let Some(request) = take_request(&mut self.pending) {
                let Ok(request) = request else { return false };
                let reply = answer(request).encode_length_delimited_to_vec();
                // A reply fits any socket buffer; a peer that does not read has left.
                if self.stream.write_all(&reply).is_err() {
                    return false;
                }
            }
            if self.pending.len() > MAX_REQUEST_BYTES {
                return false;
            }
        }
    }
}

/// Takes the first whole request off the buffer.
fn take_request(pending: &mut Vec<u8>) -> Option<Result<ShimRequest, prost::DecodeError>> {
    let mut rest = pending.as_slice();
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    let head = pending.len() - rest.len();
    let whole = head.checked_add(length)?;
    if pending.len() < whole {
        return None;
    }
    let request = ShimRequest::decode(&pending[head..whole]);
    pending.drain(..whole);
    Some(request)
}

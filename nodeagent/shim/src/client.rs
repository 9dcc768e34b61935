//! The agent's end of a shim's socket: one request, one answer, blocking and short.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::shim::v1::shim_request::Kind;
use muster_proto::shim::v1::{
    MakeRoom, Release, SetEnd, ShimReply, ShimRequest, Signal, Status, Stop, StopCause, Suspend,
};
use prost::Message;

use crate::SliceDir;

/// A shim answers in microseconds; one that does not within this time is stopped or stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// A reply is some numbers and a short text.
const MAX_REPLY_BYTES: usize = 16 * 1024;
/// `sockaddr_un` takes 107 bytes and a NUL.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// A shim could not be reached, or refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the conversation broke off.
    #[error("cannot speak with the shim of {}", dir.display())]
    Socket {
        /// The slice's directory.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The answer made no sense.
    #[error("the shim of {} gave no sensible answer", dir.display())]
    Reply {
        /// The slice's directory.
        dir: PathBuf,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// The shim could not do it.
    #[error("the shim of {} refused: {reason}", dir.display())]
    Refused {
        /// The slice's directory.
        dir: PathBuf,
        /// Its words.
        reason: String,
    },
}

/// A connection to the shim of one slice.
#[derive(Debug)]
pub struct ShimClient {
    dir: SliceDir,
    stream: UnixStream,
}

impl ShimClient {
    /// Connects; an error means that no shim listens there (now).
    pub fn connect(dir: &SliceDir) -> Result<Self, ClientError> {
        let open = || {
            let stream = match connect(&dir.socket_path()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => match dir.read_record() {
                    Ok(Some(record)) if record.shared => {
                        connect(&dir.shared_socket_path(record.pid))?
                    }
                    _ => return Err(e),
                },
                done => done?,
            };
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream =
            open().map_err(|source| ClientError::Socket { dir: dir.path().to_owned(), source })?;
        Ok(Self { dir: dir.clone(), stream })
    }

    /// How the slice is.
    pub fn status(&mut self) -> Result<ShimReply, ClientError> {
        self.ask(Kind::Status(Status {}))
    }

    /// SIGCONT and SIGTERM to all now, SIGKILL after `kill_wait`. Repeating it with a shorter wait
    /// shortens the wait; the first cause stands.
    pub fn stop(
        &mut self,
        cause: StopCause,
        kill_wait: Duration,
    ) -> Result<ShimReply, ClientError> {
        let kill_wait_seconds = u32::try_from(kill_wait.as_secs()).unwrap_or(u32::MAX);
        self.ask(Kind::Stop(Stop { cause: cause.into(), kill_wait_seconds }))
    }

    /// One signal: to the batch process alone (`batch_only`), to all processes (`full`), or to all
    /// but the batch process.
    pub fn signal(
        &mut self,
        signal: i32,
        batch_only: bool,
        full: bool,
    ) -> Result<ShimReply, ClientError> {
        self.ask(Kind::Signal(Signal { signal, batch_only, full }))
    }

    /// A new end of the time limit, milliseconds since the epoch; 0: none.
    pub fn set_end(&mut self, end_at: i64) -> Result<ShimReply, ClientError> {
        self.ask(Kind::SetEnd(SetEnd { end_at }))
    }

    /// Freezes or thaws the processes. The time limit rests meanwhile.
    pub fn suspend(&mut self, suspended: bool) -> Result<ShimReply, ClientError> {
        self.ask(Kind::Suspend(Suspend { suspended }))
    }

    /// Ends a batch process that only holds the allocation, as if with this exit code.
    pub fn release(&mut self, code: u32) -> Result<ShimReply, ClientError> {
        self.ask(Kind::Release(Release { code }))
    }

    /// Sees to it that steps can have groups of their own inside the slice's.
    pub fn make_room(&mut self) -> Result<ShimReply, ClientError> {
        self.ask(Kind::MakeRoom(MakeRoom {}))
    }

    fn ask(&mut self, kind: Kind) -> Result<ShimReply, ClientError> {
        let (job, attempt) = self.dir.ids().unwrap_or_default();
        let request = ShimRequest { kind: Some(kind), job, attempt };
        let request = request.encode_length_delimited_to_vec();
        let dir = || self.dir.path().to_owned();
        let bytes = exchange(&mut self.stream, &request)
            .map_err(|source| ClientError::Socket { dir: dir(), source })?;
        let reply = ShimReply::decode(bytes.as_slice())
            .map_err(|source| ClientError::Reply { dir: dir(), source })?;
        match reply.error.is_empty() {
            true => Ok(reply),
            false => Err(ClientError::Refused { dir: dir(), reason: reply.error }),
        }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = reachable(socket)?;
    UnixStream::connect(path)
}

/// Sends a request and reads one length-delimited answer.
fn exchange(stream: &mut UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let (mut length, mut shift) = (0usize, 0u32);
    loop {
        let mut byte = [0u8];
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    if length > MAX_REPLY_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A path of the socket that fits a socket address: a long one is reached through its directory's
/// descriptor, which must live as long as the path is used.
pub(crate) fn reachable(socket: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return Ok((socket.to_owned(), None));
    }
    let parent = socket.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = File::open(parent)?;
    let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok((path, Some(dir)))
}

//! A connection from another host, and when it counts as dead.
//!
//! It is the asker's host that is asked whether it lives, not the asker: an `srun` that is stopped, or
//! whose reader takes nothing for an hour, answers no ping of the protocol's and has full windows, but
//! its kernel acknowledges. So the kernels talk: TCP's own probes while nothing is under way, and a
//! look at the last acknowledgement while something is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Between probes of a quiet connection, and how many are missed until the kernel ends it: twelve
/// seconds in all.
const PROBE_SECONDS: u32 = 3;
const PROBES: u32 = 3;
/// Between looks of ours.
const LOOK: Duration = Duration::from_secs(2);
/// Without an acknowledgement of what is under way. The kernel alone would send it again for a
/// quarter of an hour.
const SILENT: Duration = Duration::from_secs(12);

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    look: Interval,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &PROBE_SECONDS)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &PROBE_SECONDS)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &PROBES)?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Wire { stream, look })
    }

    /// Looks whether the other host lives, when it is time to.
    fn judge(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look.poll_tick(cx).is_ready() {
            if Signs::of(&self.stream)?.is_dead() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

/// What the kernel knows of the other one.
#[derive(Debug, Clone, Copy)]
struct Signs {
    /// Segments under way.
    unacknowledged: u32,
    /// Probes without an answer: of a quiet connection, or of a window that is full.
    probes: u8,
    acknowledged: Duration,
}

impl Signs {
    fn of(stream: &impl AsFd) -> io::Result<Signs> {
        // SAFETY: all zero is a value of the struct, which the kernel fills in.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("a small struct");
        let fd = stream.as_fd().as_raw_fd();
        let place = (&raw mut info).cast();
        // SAFETY: the descriptor is open and the struct as long as is said.
        let done = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Signs {
            unacknowledged: info.tcpi_unacked,
            probes: info.tcpi_probes,
            acknowledged: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        })
    }

    fn is_dead(self) -> bool {
        let missed = u32::from(self.probes) >= PROBES;
        self.acknowledged >= SILENT && (self.unacknowledged > 0 || missed)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Wire {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_reader_that_takes_nothing_is_alive_as_long_as_its_kernel_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_reader, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        let block = [0u8; 64 * 1024];
        while writer.write(&block).is_ok() {}
        std::thread::sleep(Duration::from_millis(300));
        let signs = Signs::of(&writer).unwrap();
        // The window is full and everything before it is acknowledged, however long ago.
        assert!(!Signs { acknowledged: Duration::from_secs(3600), ..signs }.is_dead(), "{signs:?}");
    }

    #[test]
    fn a_host_that_acknowledges_nothing_is_dead() {
        let quiet = Signs { unacknowledged: 0, probes: 0, acknowledged: SILENT };
        assert!(!quiet.is_dead(), "nothing was asked of it");
        assert!(Signs { unacknowledged: 1, ..quiet }.is_dead());
        assert!(Signs { probes: 3, ..quiet }.is_dead());
        let just_sent = Signs { unacknowledged: 9, acknowledged: Duration::ZERO, ..quiet };
        assert!(!just_sent.is_dead());
    }
}

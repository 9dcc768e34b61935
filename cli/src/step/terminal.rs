//! srun's own terminal: raw while a task has one, and as it was afterwards, however srun ends.

use std::io;
use std::os::fd::AsFd as _;

use muster_proto::v1::WindowSize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// A terminal that is raw until this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

impl Raw {
    /// Makes standard input raw; `None` where it is no terminal.
    pub(crate) fn begin() -> Option<Raw> {
        let before = tcgetattr(io::stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

/// The size of the terminal; `None` where there is none.
pub(crate) fn size() -> Option<WindowSize> {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let of = |fd: i32, size: &mut nix::libc::winsize| {
        // SAFETY: the kernel fills in the struct, which is live.
        let done = unsafe { nix::libc::ioctl(fd, nix::libc::TIOCGWINSZ, &raw mut *size) };
        done == 0 && size.ws_row > 0
    };
    (of(0, &mut size) || of(1, &mut size))
        .then(|| WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

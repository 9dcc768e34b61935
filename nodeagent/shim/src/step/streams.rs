//! One output of one task: read as far as the window allows, kept until it was taken.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use muster_proto::v1::TaskData;
use nix::errno::Errno;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// All streams of a node share this much, in bytes, of what is read and not yet taken.
const SHARED: usize = 8 << 20;
/// What each has at least and at most of it: less makes a round trip of every line, more keeps
/// nobody busier.
const LEAST: usize = 16 * 1024;
const MOST: usize = 512 * 1024;

/// The window of each of so many streams, in bytes.
pub(super) fn window(streams: usize) -> usize {
    (SHARED / streams.max(1)).clamp(LEAST, MOST)
}

/// An output.
#[derive(Debug)]
pub(super) struct Stream {
    task: u32,
    number: u32,
    fd: Option<OwnedFd>,
    kept: VecDeque<(u64, Bytes)>,
    /// Bytes read so far, and of those, taken.
    read: u64,
    taken: u64,
    end: bool,
}

impl Stream {
    /// With nothing to read where `fd` is none: its end is told all the same.
    pub(super) fn new(task: u32, number: u32, fd: Option<OwnedFd>) -> Self {
        let end = fd.is_none();
        Self { task, number, fd, kept: VecDeque::new(), read: 0, taken: 0, end }
    }

    pub(super) fn is_over(&self) -> bool {
        self.end
    }

    /// What to wait for, unless the window is full.
    pub(super) fn wanted(&self, window: usize, discard: bool) -> Option<BorrowedFd<'_>> {
        let room = discard || self.read - self.taken < window as u64;
        self.fd.as_ref().filter(|_| room).map(AsFd::as_fd)
    }

    /// Reads once; what came, for whoever listens.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, discard: bool) -> Option<TaskData> {
        let fd = self.fd.as_ref()?;
        buffer.resize(CHUNK, 0);
        match nix::unistd::read(fd, buffer) {
            Ok(0) => self.close(),
            Ok(length) => {
                let data = Bytes::copy_from_slice(&buffer[..length]);
                let offset = self.read;
                self.read += length as u64;
                if discard {
                    self.taken = self.read;
                    return None;
                }
                self.kept.push_back((offset, data.clone()));
                Some(self.message(offset, data, false))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // A terminal whose last holder has left says EIO.
            Err(_) => self.close(),
        }
    }

    /// Nobody will write any more.
    pub(super) fn close(&mut self) -> Option<TaskData> {
        self.fd = None;
        if std::mem::replace(&mut self.end, true) {
            return None;
        }
        Some(self.message(self.read, Bytes::new(), true))
    }

    /// The asker has all before `offset`.
    pub(super) fn take(&mut self, offset: u64) {
        self.taken = self.taken.max(offset.min(self.read));
        while self.kept.front().is_some_and(|(at, d)| at + d.len() as u64 <= self.taken) {
            self.kept.pop_front();
        }
    }

    /// Everything that was not taken, for one who comes back.
    pub(super) fn again(&self) -> Vec<TaskData> {
        let kept = self.kept.iter().map(|(at, data)| self.message(*at, data.clone(), false));
        let end = self.end.then(|| self.message(self.read, Bytes::new(), true));
        kept.chain(end).collect()
    }

    fn message(&self, offset: u64, data: Bytes, end: bool) -> TaskData {
        TaskData { task: self.task, stream: self.number, offset, data, end }
    }

    pub(super) fn is(&self, task: u32, number: u32) -> bool {
        (self.task, self.number) == (task, number)
    }

    /// The descriptor, for a terminal's size.
    pub(super) fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (read, write) = nix::unistd::pipe().unwrap();
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (read, write)
    }

    #[test]
    fn what_was_not_taken_is_told_again_and_a_full_window_reads_no_more() {
        let (read, write) = pipe();
        let mut stream = Stream::new(3, 1, Some(read));
        let mut buffer = Vec::new();
        for part in [&b"one"[..], b"two"] {
            nix::unistd::write(&write, part).unwrap();
            assert_eq!(stream.read(&mut buffer, false).unwrap().data, part);
        }
        assert!(stream.wanted(6, false).is_none(), "six bytes are under way");
        assert!(stream.wanted(6, true).is_some(), "nobody listens: all is read");
        stream.take(3);
        assert!(stream.wanted(6, false).is_some());
        let again: Vec<_> = stream.again().into_iter().map(|d| (d.offset, d.data)).collect();
        assert_eq!(again, [(3, Bytes::from("two"))]);
        drop(write);
        let end = stream.read(&mut buffer, false).unwrap();
        assert!(end.end && end.offset == 6);
        assert!(stream.is_over() && stream.again().len() == 2);
    }
}

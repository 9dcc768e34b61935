//! Where the tasks' output goes: one thread per place, so that a slow terminal or disk holds up only
//! who writes to it. What is written is reported back; only then do the nodes send more.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

/// A stream of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Of {
    pub(crate) node: usize,
    pub(crate) task: u32,
    pub(crate) stream: u32,
}

/// So much of a stream is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) of: Of,
    pub(crate) offset: u64,
    /// Nobody reads what is written there.
    pub(crate) broken: bool,
}

/// A part of a stream.
#[derive(Debug)]
struct Piece {
    of: Of,
    /// Offset behind it.
    end: u64,
    data: Bytes,
    last: bool,
}

/// How it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Whole lines, each with its task before it.
    pub(crate) label: bool,
    /// As it comes.
    pub(crate) unbuffered: bool,
    /// Digits of the largest task.
    pub(crate) digits: usize,
}

/// A line that does not end is written in parts of this size, in bytes: less than the smallest
/// window, or a node would wait for room that only its own next bytes would make.
const LINE: usize = 8 * 1024;

/// One place. The queue is bounded by what the nodes send before anything is written.
#[derive(Debug)]
pub(crate) struct Place {
    pieces: Option<Sender<Piece>>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Standard output (1) or error (2).
    pub(crate) fn own(
        number: u32,
        manner: Manner,
        tell: UnboundedSender<Written>,
    ) -> io::Result<Place> {
        let fd = match number {
            1 => io::stdout().as_fd().try_clone_to_owned()?,
            _ => io::stderr().as_fd().try_clone_to_owned()?,
        };
        Ok(Place::of(File::from(fd), manner, tell))
    }

    /// A file by name.
    pub(crate) fn file(
        path: &std::path::Path,
        append: bool,
        manner: Manner,
        tell: UnboundedSender<Written>,
    ) -> io::Result<Place> {
        let mut options = OpenOptions::new();
        options.create(true);
        match append {
            true => options.append(true),
            false => options.write(true).truncate(true),
        };
        Ok(Place::of(options.open(path)?, manner, tell))
    }

    fn of(file: File, manner: Manner, tell: UnboundedSender<Written>) -> Place {
        let (pieces, taken) = channel();
        let thread = std::thread::spawn(move || Writer::new(file, manner, tell).run(&taken));
        Place { pieces: Some(pieces), thread: Some(thread) }
    }

    /// Puts a part of a stream on its way.
    pub(crate) fn write(&self, of: Of, end: u64, data: Bytes, last: bool) {
        if let Some(pieces) = &self.pieces {
            // A writer that is gone has told that its place is broken.
            let _ = pieces.send(Piece { of, end, data, last });
        }
    }

    /// Waits until all is written.
    pub(crate) fn finish(mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    file: File,
    manner: Manner,
    tell: UnboundedSender<Written>,
    /// Lines that have not ended.
    open: HashMap<Of, Vec<u8>>,
    broken: bool,
}

impl Writer {
    fn new(file: File, manner: Manner, tell: UnboundedSender<Written>) -> Writer {
        Writer { file, manner, tell, open: HashMap::new(), broken: false }
    }

    fn run(mut self, pieces: &Receiver<Piece>) {
        while let Ok(piece) = pieces.recv() {
            let text = self.complete(&piece);
            if !self.broken && !text.is_empty() {
                self.broken = write_all(&mut self.file, &text).is_err();
            }
            let kept = self.open.get(&piece.of).map_or(0, Vec::len) as u64;
            let written = Written { of: piece.of, offset: piece.end - kept, broken: self.broken };
            if self.tell.send(written).is_err() {
                return;
            }
        }
    }

    /// What can be written now.
    fn complete(&mut self, piece: &Piece) -> Vec<u8> {
        let Manner { label, unbuffered, digits } = self.manner;
        if unbuffered && !label {
            return piece.data.to_vec();
        }
        let mut all = self.open.remove(&piece.of).unwrap_or_default();
        all.extend_from_slice(&piece.data);
        let whole = match all.iter().rposition(|b| *b == b'\n') {
            _ if piece.last || unbuffered => all.len(),
            Some(at) if all.len() - at - 1 < LINE => at + 1,
            None if all.len() < LINE => 0,
            _ => all.len(),
        };
        let rest = all.split_off(whole);
        if !rest.is_empty() {
            self.open.insert(piece.of, rest);
        }
        if !label {
            return all;
        }
        let mut out = Vec::with_capacity(all.len() + 64);
        for line in all.split_inclusive(|b| *b == b'\n') {
            out.extend_from_slice(format!("{:digits$}: ", piece.of.task).as_bytes());
            out.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                out.push(b'\n');
            }
        }
        out
    }
}

/// Writes to what may be non-blocking: a terminal that somebody else has set so.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(manner: Manner, parts: &[(u32, &'static str, bool)]) -> (String, Vec<u64>) {
        let place = tempfile::NamedTempFile::new().unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let sink = Place::file(place.path(), false, manner, tell).unwrap();
        let mut at: HashMap<u32, u64> = HashMap::new();
        for (task, text, last) in parts {
            let end = at.entry(*task).or_default();
            *end += text.len() as u64;
            let of = Of { node: 0, task: *task, stream: 1 };
            sink.write(of, *end, Bytes::from(*text), *last);
        }
        sink.finish();
        let mut offsets = Vec::new();
        while let Ok(written) = told.try_recv() {
            offsets.push(written.offset);
        }
        (std::fs::read_to_string(place.path()).unwrap(), offsets)
    }

    #[test]
    fn lines_of_tasks_do_not_mix_and_only_what_is_written_counts() {
        let parts = [(0, "ab", false), (1, "x\ny", false), (0, "c\n", false), (1, "", true)];
        let (text, offsets) = shown(Manner::default(), &parts);
        assert_eq!(text, "x\nabc\ny");
        assert_eq!(offsets, [0, 2, 4, 3]);
        let raw = Manner { unbuffered: true, ..Manner::default() };
        assert_eq!(shown(raw, &parts).0, "abx\nyc\n");
    }

    #[test]
    fn labels_stand_before_each_line() {
        let manner = Manner { label: true, digits: 2, ..Manner::default() };
        let (text, _) = shown(manner, &[(3, "a\nb", false), (12, "c\n", false), (3, "", true)]);
        assert_eq!(text, " 3: a\n12: c\n 3: b\n");
    }

    #[test]
    fn a_line_without_end_is_written_in_parts() {
        let long: &'static str = Box::leak("x".repeat(LINE).into_boxed_str());
        let (text, offsets) = shown(Manner::default(), &[(0, long, false)]);
        assert_eq!((text.len(), offsets), (LINE, vec![LINE as u64]));
    }
}

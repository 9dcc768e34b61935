//! What the tasks are fed with: read no faster than the slowest of them takes it.

use std::io::Read as _;

use bytes::Bytes;
use muster_proto::v1::Stdin;
use muster_proto::v1::step_input::Kind as Ask;

use super::{Course, Event};
use crate::step::names;
use crate::step::wish::Source;

/// Input under way, in bytes: what a node keeps at most for its slowest task.
const STDIN_WINDOW: u64 = 256 * 1024;
const STDIN_CHUNK: usize = 32 * 1024;

impl Course {
    /// Starts reading what the tasks are to be fed with.
    pub(in crate::step) fn open_input(&mut self) {
        let mut from: Box<dyn std::io::Read + Send> = match &self.wish.stdin {
            Source::Nowhere | Source::There(_) => {
                self.stdin_end = true;
                return;
            }
            Source::Own | Source::Task(_) => Box::new(std::io::stdin()),
            Source::File(pattern) => {
                let path = self.wish.workdir.join(names::expand(pattern, &self.names()));
                match std::fs::File::open(&path) {
                    Ok(file) => Box::new(file),
                    Err(e) => {
                        let text = format!("Could not open stdin file {}: {e}", path.display());
                        return self.fail(&text);
                    }
                }
            }
        };
        let (permit, permits) = std::sync::mpsc::channel();
        let events = self.events.clone();
        // A thread of its own: a read of a terminal cannot be given up.
        std::thread::spawn(move || {
            let mut chunk = vec![0u8; STDIN_CHUNK];
            while permits.recv().is_ok() {
                let data = match from.read(&mut chunk) {
                    Ok(0) => None,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Some(Bytes::new()),
                    Err(_) => None,
                    Ok(length) => Some(Bytes::copy_from_slice(&chunk[..length])),
                };
                let end = data.is_none();
                if events.blocking_send(Event::Input(data)).is_err() || end {
                    return;
                }
            }
        });
        self.input = Some(permit);
        self.read_on();
    }

    /// Lets more input be read, if the nodes have room for it.
    pub(super) fn read_on(&mut self) {
        if self.reading || self.stdin_end {
            return;
        }
        let mut open = self.nodes.iter().filter(|n| !n.stdin_closed && !n.over).peekable();
        if open.peek().is_none() {
            return;
        }
        let taken = open.map(|n| n.stdin_taken).min().unwrap_or(0);
        let mut from = self.stdin_kept_from();
        while let Some(first) = self.stdin_kept.front().filter(|c| from + c.len() as u64 <= taken) {
            from += first.len() as u64;
            self.stdin_kept.pop_front();
        }
        if self.stdin_sent.saturating_sub(taken) < STDIN_WINDOW
            && let Some(permit) = &self.input
        {
            self.reading = permit.send(()).is_ok();
        }
    }

    /// Offset of the first byte that is kept.
    fn stdin_kept_from(&self) -> u64 {
        self.stdin_sent - self.stdin_kept.iter().map(|chunk| chunk.len() as u64).sum::<u64>()
    }

    /// What a node that comes back may have missed; `None`: nothing.
    pub(super) fn stdin_again(&self) -> Option<Stdin> {
        let data: Vec<u8> = self.stdin_kept.iter().flatten().copied().collect();
        (!data.is_empty() || self.stdin_end).then(|| Stdin {
            offset: self.stdin_kept_from(),
            data: data.into(),
            end: self.stdin_end,
        })
    }

    pub(super) async fn feed(&mut self, data: Option<Bytes>) {
        self.reading = false;
        let end = data.is_none();
        let data = data.unwrap_or_default();
        let input = Stdin { offset: self.stdin_sent, data: data.clone(), end };
        self.stdin_sent += data.len() as u64;
        if !data.is_empty() {
            self.stdin_kept.push_back(data);
        }
        self.stdin_end |= end;
        for at in 0..self.nodes.len() {
            if !self.nodes[at].stdin_closed && !self.nodes[at].over {
                self.ask(at, Ask::Stdin(input.clone())).await;
            }
        }
        self.read_on();
    }
}

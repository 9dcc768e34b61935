//! Messages over a socket pair that never blocks: length (four bytes, little end first) and message.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use prost::Message;

/// More in one message is a fault.
const LONGEST: usize = 32 << 20;

/// One end.
#[derive(Debug)]
pub(super) struct Framed {
    stream: UnixStream,
    heard: Vec<u8>,
    waiting: Vec<u8>,
    written: usize,
    gone: bool,
}

impl Framed {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, heard: Vec::new(), waiting: Vec::new(), written: 0, gone: false })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The other end has closed, or said what is no message.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty() && !self.gone
    }

    pub(super) fn say(&mut self, message: &impl Message) {
        let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
        self.waiting.extend_from_slice(&length.to_le_bytes());
        message.encode(&mut self.waiting).expect("a Vec has room");
        self.write();
    }

    pub(super) fn write(&mut self) {
        while self.written < self.waiting.len() && !self.gone {
            match self.stream.write(&self.waiting[self.written..]) {
                Ok(length) => self.written += length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
        self.waiting.clear();
        self.written = 0;
    }

    /// Everything that was said meanwhile.
    pub(super) fn hear<M: Message + Default>(&mut self) -> Vec<M> {
        let mut chunk = [0u8; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.gone = true,
                Ok(length) => {
                    self.heard.extend_from_slice(&chunk[..length]);
                    if self.heard.len() <= LONGEST {
                        continue;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            break;
        }
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(head) = self.heard.get(at..at + 4) {
            let length = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
            if length > LONGEST {
                self.gone = true;
                break;
            }
            let Some(body) = self.heard.get(at + 4..at + 4 + length) else { break };
            match M::decode(body) {
                Ok(message) => out.push(message),
                Err(_) => self.gone = true,
            }
            at += 4 + length;
        }
        self.heard.drain(..at);
        out
    }
}

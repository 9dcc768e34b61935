//! Who speaks with the step's shim: one asker, whose word is obeyed and for whom output is kept, and
//! any number of onlookers, who see what comes from now on.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use muster_proto::v1::{StepInput, StepOutput, step_output};
use prost::Message;

/// The longest message, in bytes: an order of thousands of tasks with their own command lines.
pub(super) const MAX_MESSAGE: usize = 32 << 20;
/// An onlooker who does not read loses what is beyond this, in bytes.
const ONLOOKER_BYTES: usize = 4 << 20;

/// One conversation.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    heard: Vec<u8>,
    /// Frames to be written, and how much of the first is.
    waiting: VecDeque<Vec<u8>>,
    written: usize,
    bytes: usize,
    pub(super) asker: bool,
    /// Has not said yet what it is.
    pub(super) fresh: bool,
    gone: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream, asker: bool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            heard: Vec::new(),
            waiting: VecDeque::new(),
            written: 0,
            bytes: 0,
            asker,
            fresh: !asker,
            gone: false,
        })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes not yet written.
    pub(super) fn backlog(&self) -> usize {
        self.bytes
    }

    /// Puts a message on its way. Output that an onlooker has no room for is lost to it.
    pub(super) fn say(&mut self, kind: step_output::Kind) {
        if !self.asker && self.bytes > ONLOOKER_BYTES && matches!(kind, step_output::Kind::Data(_))
        {
            return;
        }
        let message = StepOutput { kind: Some(kind) };
        let length = message.encoded_len();
        let mut frame = Vec::with_capacity(length + 4);
        frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        message.encode(&mut frame).expect("a Vec has room");
        self.bytes += frame.len();
        self.waiting.push_back(frame);
    }

    pub(super) fn write(&mut self) {
        while let Some(frame) = self.waiting.front() {
            match self.stream.write(&frame[self.written..]) {
                Ok(length) => {
                    self.written += length;
                    if self.written == frame.len() {
                        self.bytes -= frame.len();
                        self.waiting.pop_front();
                        self.written = 0;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// What it said meanwhile.
    pub(super) fn hear(&mut self) -> Vec<StepInput> {
        let mut chunk = [0u8; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.gone = true,
            Ok(length) => self.heard.extend_from_slice(&chunk[..length]),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(head) = self.heard.get(at..at + 4) {
            let length = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
            if length > MAX_MESSAGE {
                self.gone = true;
                break;
            }
            let Some(body) = self.heard.get(at + 4..at + 4 + length) else { break };
            match StepInput::decode(body) {
                Ok(message) => out.push(message),
                Err(_) => self.gone = true,
            }
            at += 4 + length;
        }
        self.heard.drain(..at);
        out
    }
}

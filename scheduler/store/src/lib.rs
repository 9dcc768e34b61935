//! The durable log: frames in order, snapshots, and blobs beside them.
//!
//! Does not know what a job is: payloads, keys and snapshots are bytes. Knows what durable means:
//! when `append` returns, the frame survives a power cut.
//!
//! - `frame`: length, crc32c, index, term, ignorable bit; how a tail of frames is judged
//! - `sled_log`, `mem`: the backends; `fault`: wraps one and makes it fail
//! - `snapshot_file`: one snapshot as one file, beside sled; `mark`: the newest acknowledged frame
//! - `archive`: export to and import from a plain file, the upgrade and reclaim path
//! - `conformance`: the one suite that all backends pass

use std::sync::Arc;

use bytes::Bytes;

pub mod archive;
#[cfg(test)]
mod conformance;
pub mod fault;
pub mod frame;
mod mark;
pub mod mem;
pub mod sled_log;
mod snapshot_file;

pub use fault::{Fault, FaultKind};
pub use mem::{Mem, MemDisk};
pub use sled_log::SledLog;

/// A frame of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Grows by one; the first is 1.
    pub index: u64,
    /// Of the writer that was leader (1 without an election).
    pub term: u64,
    /// A reader that does not know the payload's kind may skip it.
    pub ignorable: bool,
    pub payload: Bytes,
}

/// One commit: a frame and the blobs that stand or fall with it.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub payload: Bytes,
    pub ignorable: bool,
    pub put: Vec<(Vec<u8>, Bytes)>,
    pub delete: Vec<Vec<u8>>,
}

/// What a log holds when it is opened: the newest snapshot and all frames after it.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The snapshot's last frame index, and its bytes.
    pub snapshot: Option<(u64, Bytes)>,
    pub tail: Vec<Frame>,
    /// Bytes of a torn last frame that were cut.
    pub torn_bytes: u64,
}

/// A durable log with one writer.
pub trait Log: Send {
    /// Reads everything once, at the start. A torn last frame is cut; any other fault stops.
    ///
    /// # Errors
    /// A hole, a bad checksum before the end (with index and offset), or the disk's own error.
    fn recover(&mut self) -> Result<Recovered, LogError>;
    /// Makes one commit durable; returns its frame's index. After an error the log is poisoned:
    /// the process must end, for what is on the disk is unknown.
    ///
    /// # Errors
    /// The disk's own error, or `Poisoned`.
    fn append(&mut self, batch: Batch) -> Result<u64, LogError>;
    /// A handle that stores snapshots from another thread, while commits go on.
    fn snapshots(&self) -> Arc<dyn Snapshots>;
    /// Drops the frames up to `index`, which a snapshot covers. The work may be spread over later
    /// commits, so that none of them waits long.
    ///
    /// # Errors
    /// No durable snapshot covers `index`, or the disk's own error.
    fn forget(&mut self, index: u64) -> Result<(), LogError>;
    /// Stores a snapshot that covers all frames up to `index`, then drops those frames. Durable
    /// before anything is dropped.
    ///
    /// # Errors
    /// The disk's own error.
    fn snapshot(&mut self, index: u64, bytes: Bytes) -> Result<(), LogError> {
        self.snapshots().write(index, &bytes)?;
        self.forget(index)
    }
    /// Fills an empty log with what another one held; durable when it returns.
    ///
    /// # Errors
    /// The log is not empty, an entry is an error, or the disk's own error.
    fn install(
        &mut self,
        entries: &mut dyn Iterator<Item = Result<Entry, LogError>>,
    ) -> Result<(), LogError>;
    /// A handle that reads blobs from other threads.
    fn blobs(&self) -> Arc<dyn Blobs>;
    /// Bytes on disk, for metrics and for deciding when to compact.
    fn size(&self) -> u64;
}

/// Reads blobs. Values are whole, however they were chunked.
pub trait Blobs: Send + Sync {
    /// `None`: there is no such blob.
    ///
    /// # Errors
    /// The disk's own error or a bad checksum.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, LogError>;
    /// Every key, ascending by length and then by bytes.
    ///
    /// # Errors
    /// The disk's own error.
    fn keys(&self) -> Result<Vec<Vec<u8>>, LogError>;
}

/// Stores snapshots.
pub trait Snapshots: Send + Sync {
    /// Makes a snapshot durable that covers all frames up to `index`. An older one is dropped
    /// after that; one that is newer already makes this a no-op.
    ///
    /// # Errors
    /// The disk's own error. The log itself is unharmed.
    fn write(&self, index: u64, bytes: &[u8]) -> Result<(), LogError>;
}

/// One thing that a log holds, for moving it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Snapshot { index: u64, bytes: Bytes },
    Frame(Frame),
    Blob { key: Vec<u8>, value: Bytes },
}

/// Why a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{what} the log at {path}")]
    Io {
        what: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the log at {path} is damaged at frame {index}, offset {offset}: {fault}; restore it from a backup or export"
    )]
    Damaged { path: String, index: u64, offset: u64, fault: String },
    #[error(
        "the log at {path} was written by a newer version ({found}; this one reads up to {known})"
    )]
    Version { path: String, found: u32, known: u32 },
    #[error("the log at {path} is in use by another process")]
    Locked { path: String },
    #[error("the log at {path} is not empty")]
    NotEmpty { path: String },
    #[error("no snapshot covers frame {index} of the log at {path}")]
    NotCovered { path: String, index: u64 },
    #[error("the log failed before and takes no more commits")]
    Poisoned,
}

//! A log that fails when it is told to, around one that does not.

use std::sync::Arc;

use crate::{Batch, Blobs, Entry, Log, LogError, Recovered, Snapshots};

/// Ways to harm what is stored, beneath the log's own interface. For tests.
pub trait Damage {
    /// Leaves the first `keep` bytes of a frame.
    fn tear(&mut self, index: u64, keep: usize);
    /// Flips a bit of a frame's byte.
    fn flip(&mut self, index: u64, at: usize);
    /// Takes a frame out.
    fn remove(&mut self, index: u64);
    /// Says that this version wrote the log.
    fn mark_version(&mut self, version: u32);
}

/// How an append fails. The process is to be taken for dead after any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing was written.
    Refuse,
    /// The first bytes of the frame were written.
    Tear { keep: usize },
    /// All was written and synced, but the writer never learns.
    LoseReply,
}

/// The wrapper.
#[derive(Debug)]
pub struct Fault<L> {
    inner: L,
    /// Appends still to succeed before the fault, and the fault.
    planned: Option<(u64, FaultKind)>,
    poisoned: bool,
}

impl<L> Fault<L> {
    /// Fails at no time until told otherwise.
    pub fn new(inner: L) -> Self {
        Fault { inner, planned: None, poisoned: false }
    }

    /// The append after the next `after` ones fails so.
    pub fn plan(&mut self, after: u64, kind: FaultKind) {
        self.planned = Some((after, kind));
    }

    /// The log beneath.
    pub fn inner(&mut self) -> &mut L {
        &mut self.inner
    }

    fn due(&mut self) -> Option<FaultKind> {
        match &mut self.planned {
            Some((0, kind)) => Some(*kind),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }
}

impl<L: Log + Damage> Log for Fault<L> {
    fn recover(&mut self) -> Result<Recovered, LogError> {
        self.inner.recover()
    }

    fn append(&mut self, batch: Batch) -> Result<u64, LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let Some(kind) = self.due() else { return self.inner.append(batch) };
        self.poisoned = true;
        match kind {
            FaultKind::Refuse => {}
            // Blobs stand or fall with their frame, so a torn one leaves none.
            FaultKind::Tear { keep } => {
                let bare = Batch { put: Vec::new(), delete: Vec::new(), ..batch };
                let index = self.inner.append(bare)?;
                self.inner.tear(index, keep);
            }
            FaultKind::LoseReply => {
                self.inner.append(batch)?;
            }
        }
        let source = std::io::Error::other(format!("planned fault: {kind:?}"));
        Err(LogError::Io { what: "could not append to", path: "fault".into(), source })
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        self.inner.snapshots()
    }

    fn forget(&mut self, index: u64) -> Result<(), LogError> {
        self.inner.forget(index)
    }

    fn install(
        &mut self,
        entries: &mut dyn Iterator<Item = Result<Entry, LogError>>,
    ) -> Result<(), LogError> {
        self.inner.install(entries)
    }

    fn blobs(&self) -> Arc<dyn Blobs> {
        self.inner.blobs()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }
}

impl<L: Damage> Damage for Fault<L> {
    fn tear(&mut self, index: u64, keep: usize) {
        self.inner.tear(index, keep);
    }

    fn flip(&mut self, index: u64, at: usize) {
        self.inner.flip(index, at);
    }

    fn remove(&mut self, index: u64) {
        self.inner.remove(index);
    }

    fn mark_version(&mut self, version: u32) {
        self.inner.mark_version(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Mem, MemDisk};

    /// Appends three frames, of which the third fails so; says how many are there afterwards.
    fn check(kind: FaultKind, there: usize) {
        let disk = MemDisk::default();
        let mut log = Fault::new(Mem::open(&disk).unwrap());
        log.recover().unwrap();
        log.plan(2, kind);
        let batch = || Batch { payload: "facts".into(), ..Batch::default() };
        assert_eq!(log.append(batch()).unwrap(), 1);
        assert_eq!(log.append(batch()).unwrap(), 2);
        assert!(matches!(log.append(batch()), Err(LogError::Io { .. })), "{kind:?}");
        assert!(matches!(log.append(batch()), Err(LogError::Poisoned)), "{kind:?}");
        drop(log);
        let found = Mem::open(&disk).unwrap().recover().unwrap();
        assert_eq!(found.tail.len(), there, "{kind:?}");
    }

    #[test]
    fn a_failed_append_poisons_the_log_and_leaves_what_its_kind_says() {
        check(FaultKind::Refuse, 2);
        check(FaultKind::Tear { keep: 11 }, 2);
        check(FaultKind::LoseReply, 3);
    }
}

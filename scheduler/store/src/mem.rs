//! A log in memory, on a disk that outlives it: for tests and the simulator.
//!
//! The disk knows what a sync has reached and what not, so that it can be cut off power. It can
//! also lie, as real ones do: then a sync reaches nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::fault::Damage;
use crate::{Batch, Blobs, Entry, Log, LogError, Recovered, Snapshots, frame};

const PATH: &str = "memory";
const VERSION: u32 = 1;

/// What is stored, whole.
#[derive(Debug, Default)]
struct Image {
    frames: BTreeMap<u64, Bytes>,
    blobs: BTreeMap<(usize, Vec<u8>), Bytes>,
    snapshot: Option<(u64, Bytes)>,
}

#[derive(Debug)]
enum Op {
    Frame(u64, Bytes),
    Put(Vec<u8>, Bytes),
    Delete(Vec<u8>),
    Snapshot(u64, Bytes),
    Forget(u64),
}

impl Image {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Frame(index, bytes) => {
                self.frames.insert(index, bytes);
            }
            Op::Put(key, value) => {
                self.blobs.insert((key.len(), key), value);
            }
            Op::Delete(key) => {
                self.blobs.remove(&(key.len(), key));
            }
            Op::Snapshot(index, bytes) => self.snapshot = Some((index, bytes)),
            Op::Forget(index) => self.frames = self.frames.split_off(&(index + 1)),
        }
    }
}

#[derive(Debug)]
struct Inner {
    durable: Image,
    /// Written, but no sync has reached it.
    pending: Vec<Op>,
    lies: bool,
    open: bool,
    version: u32,
}

impl Inner {
    fn write(&mut self, ops: Vec<Op>) {
        self.pending.extend(ops);
        if !self.lies {
            self.settle();
        }
    }

    fn settle(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            self.durable.apply(op);
        }
    }
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemDisk(Arc<Mutex<Inner>>);

impl Default for MemDisk {
    fn default() -> Self {
        MemDisk(Arc::new(Mutex::new(Inner {
            durable: Image::default(),
            pending: Vec::new(),
            lies: false,
            open: false,
            version: VERSION,
        })))
    }
}

impl MemDisk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding the disk")
    }

    /// From here on a sync reaches nothing.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// Everything that no sync has reached is gone.
    pub fn cut_power(&self) {
        self.lock().pending.clear();
    }
}

/// The log.
#[derive(Debug)]
pub struct Mem {
    disk: MemDisk,
    next: u64,
}

impl Mem {
    /// Opens the disk's log.
    ///
    /// # Errors
    /// Another `Mem` has it open, or its version is a newer one.
    pub fn open(disk: &MemDisk) -> Result<Self, LogError> {
        let mut inner = disk.lock();
        if inner.open {
            return Err(LogError::Locked { path: PATH.into() });
        }
        if inner.version > VERSION {
            let found = inner.version;
            return Err(LogError::Version { path: PATH.into(), found, known: VERSION });
        }
        inner.open = true;
        // What a killed process wrote without a sync is still in the system's cache.
        inner.settle();
        Ok(Mem { disk: disk.clone(), next: 0 })
    }
}

impl Drop for Mem {
    fn drop(&mut self) {
        self.disk.lock().open = false;
    }
}

impl Log for Mem {
    fn recover(&mut self) -> Result<Recovered, LogError> {
        let mut inner = self.disk.lock();
        let snapshot = inner.durable.snapshot.clone();
        let after = snapshot.as_ref().map_or(0, |(index, _)| *index);
        let stored = inner.durable.frames.range(after + 1..);
        let judged = frame::judge(PATH, after, stored.map(|(i, b)| Ok((*i, b.clone()))))?;
        if let Some((index, _)) = judged.torn {
            inner.durable.frames.remove(&index);
        }
        self.next = after + judged.tail.len() as u64 + 1;
        let torn_bytes = judged.torn.map_or(0, |(_, bytes)| bytes);
        Ok(Recovered { snapshot, tail: judged.tail, torn_bytes })
    }

    fn append(&mut self, batch: Batch) -> Result<u64, LogError> {
        assert!(self.next > 0, "a log is recovered before it is appended to");
        let index = self.next;
        let bytes = frame::encode(index, 1, batch.ignorable, &batch.payload);
        let mut ops = vec![Op::Frame(index, bytes)];
        ops.extend(batch.put.into_iter().map(|(key, value)| Op::Put(key, value)));
        ops.extend(batch.delete.into_iter().map(Op::Delete));
        self.disk.lock().write(ops);
        self.next += 1;
        Ok(index)
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        Arc::new(self.disk.clone())
    }

    fn forget(&mut self, index: u64) -> Result<(), LogError> {
        let mut inner = self.disk.lock();
        let covered = inner.durable.snapshot.as_ref().map_or(0, |(covered, _)| *covered);
        if covered < index && !inner.lies {
            return Err(LogError::NotCovered { path: PATH.into(), index });
        }
        inner.write(vec![Op::Forget(index)]);
        Ok(())
    }

    fn install(
        &mut self,
        entries: &mut dyn Iterator<Item = Result<Entry, LogError>>,
    ) -> Result<(), LogError> {
        let mut inner = self.disk.lock();
        let Image { frames, blobs, snapshot } = &inner.durable;
        if !frames.is_empty() || !blobs.is_empty() || snapshot.is_some() {
            return Err(LogError::NotEmpty { path: PATH.into() });
        }
        for entry in entries {
            let op = match entry? {
                Entry::Snapshot { index, bytes } => Op::Snapshot(index, bytes),
                Entry::Frame(f) => {
                    Op::Frame(f.index, frame::encode(f.index, f.term, f.ignorable, &f.payload))
                }
                Entry::Blob { key, value } => Op::Put(key, value),
            };
            inner.write(vec![op]);
        }
        Ok(())
    }

    fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::new(self.disk.clone())
    }

    fn size(&self) -> u64 {
        let inner = self.disk.lock();
        let sizes = inner.durable.frames.values().chain(inner.durable.blobs.values());
        let snapshot = inner.durable.snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len());
        (sizes.map(Bytes::len).sum::<usize>() + snapshot) as u64
    }
}

impl Snapshots for MemDisk {
    fn write(&self, index: u64, bytes: &[u8]) -> Result<(), LogError> {
        let mut inner = self.lock();
        if inner.durable.snapshot.as_ref().is_none_or(|(newest, _)| *newest < index) {
            inner.write(vec![Op::Snapshot(index, Bytes::copy_from_slice(bytes))]);
        }
        Ok(())
    }
}

impl Blobs for MemDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        let inner = self.lock();
        for op in inner.pending.iter().rev() {
            match op {
                Op::Put(k, value) if k == key => return Ok(Some(value.clone())),
                Op::Delete(k) if k == key => return Ok(None),
                _ => {}
            }
        }
        Ok(inner.durable.blobs.get(&(key.len(), key.to_vec())).cloned())
    }

    fn keys(&self) -> Result<Vec<Vec<u8>>, LogError> {
        Ok(self.lock().durable.blobs.keys().map(|(_, key)| key.clone()).collect())
    }
}

impl Damage for Mem {
    fn tear(&mut self, index: u64, keep: usize) {
        if let Some(bytes) = self.disk.lock().durable.frames.get_mut(&index) {
            bytes.truncate(keep);
        }
    }

    fn flip(&mut self, index: u64, at: usize) {
        if let Some(bytes) = self.disk.lock().durable.frames.get_mut(&index) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            *bytes = flipped.into();
        }
    }

    fn remove(&mut self, index: u64) {
        self.disk.lock().durable.frames.remove(&index);
    }

    fn mark_version(&mut self, version: u32) {
        self.disk.lock().version = version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_lies_loses_what_it_promised() {
        let disk = MemDisk::default();
        let mut log = Mem::open(&disk).unwrap();
        log.recover().unwrap();
        log.append(Batch::default()).unwrap();
        disk.lie();
        assert_eq!(log.append(Batch::default()).unwrap(), 2);
        disk.cut_power();
        drop(log);
        assert_eq!(Mem::open(&disk).unwrap().recover().unwrap().tail.len(), 1);
    }
}

//! The log in sled 0.34, one tree with a prefix per kind of key.
//!
//! Why more than `flush`: sled's ends in `sync_file_range`, which neither empties the drive's
//! cache nor writes the file's size. So after it we `sync_data` a second descriptor of the same
//! file. Why small chunks: sled writes a page of up to 18 values whole, and a page above 128 KiB
//! goes to a file of its own that our sync does not reach.
//!
//! Keys: `f` index chunk; `b` key-length key chunk; `v` the format's version (numbers big endian).
//! Directory: `lock`, `sled/`, the snapshot as a file (see `snapshot_file`), and the `mark` of the
//! newest acknowledged frame: without it, damage in the middle of sled's file would look to us like
//! a log that ends earlier.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::mark::Mark;
use crate::snapshot_file::{SnapshotDir, io_error};
use crate::{Batch, Blobs, Entry, Frame, Log, LogError, Recovered, Snapshots, frame};

/// 18 of them stay below sled's 128 KiB, keys and headers included.
const CHUNK: usize = 6 * 1024;
/// The format that this code writes, and the newest that it reads.
const VERSION: u32 = 1;
/// sled's page cache: the log is written much and read once, so a small one. At 64 MiB it was a quarter
/// of all memory with 100,000 jobs pending.
const CACHE_BYTES: u64 = 8 << 20;
/// Forgotten frames are deleted this many keys a commit, so that none waits for a big clean-up.
const FORGET_KEYS_PER_COMMIT: usize = 64;
/// An install syncs after so many bytes, to bound the memory of one batch.
const INSTALL_BATCH_BYTES: usize = 4 << 20;
/// A lock is asked for so often, [`LOCK_PAUSE`] apart, for two seconds in all: a process that was killed lets
/// go of its files a moment after it seems gone, and sled of its own a moment after it is dropped.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

const VERSION_KEY: &[u8] = b"v";

/// The log.
#[derive(Debug)]
pub struct SledLog {
    db: sled::Db,
    /// A second descriptor of sled's file, for the sync that it does not do.
    file: File,
    snapshots: Arc<SnapshotDir>,
    path: PathBuf,
    /// The next frame's index; 0 until `recover`.
    next: u64,
    /// Frames up to here may be deleted.
    forget_to: u64,
    poisoned: bool,
    mark: Mark,
    /// Held as long as the log is open.
    _lock: File,
}

impl SledLog {
    /// Opens the log in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// Another process has it open, a newer version wrote it, or the disk's own error.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(dir).map_err(|e| io_error("could not make", dir, e))?;
        let lock = lock(dir)?;
        let snapshots = Arc::new(SnapshotDir::open(dir)?);
        let path = dir.join("sled");
        let db = open_sled(&path)?;
        let stored = db.get(VERSION_KEY).map_err(|e| sled_error("could not read", &path, e))?;
        match stored.map(|v| <[u8; 4]>::try_from(&*v).map_or(u32::MAX, u32::from_be_bytes)) {
            Some(VERSION) => {}
            Some(found) => {
                let path = path.display().to_string();
                return Err(LogError::Version { path, found, known: VERSION });
            }
            None => {
                let set = db.insert(VERSION_KEY, &VERSION.to_be_bytes());
                set.map_err(|e| sled_error("could not write", &path, e))?;
            }
        }
        let file = path.join("db");
        let file = File::open(&file).map_err(|e| io_error("could not open", &file, e))?;
        let log = SledLog {
            db,
            file,
            snapshots,
            path,
            next: 0,
            forget_to: 0,
            poisoned: false,
            mark: Mark::open(dir)?,
            _lock: lock,
        };
        log.sync()?;
        for made in [dir, &log.path] {
            let synced = File::open(made).and_then(|d| d.sync_all());
            synced.map_err(|e| io_error("could not sync", made, e))?;
        }
        Ok(log)
    }

    fn fault(&self, what: &'static str) -> impl Fn(sled::Error) -> LogError + '_ {
        move |e| sled_error(what, &self.path, e)
    }

    fn sync(&self) -> Result<(), LogError> {
        self.db.flush().map_err(self.fault("could not flush"))?;
        self.file.sync_data().map_err(|e| io_error("could not sync", &self.path, e))
    }

    fn commit(&self, writes: sled::Batch) -> Result<(), LogError> {
        self.db.apply_batch(writes).map_err(self.fault("could not write"))?;
        self.sync()
    }

    /// Stops where acknowledged frames are gone: whatever took them is no interrupted commit.
    fn refuse_losses(&self, last: Option<&Frame>) -> Result<(), LogError> {
        let acknowledged = self.mark.read()?;
        if acknowledged < self.next {
            return Ok(());
        }
        let fault = format!(
            "frames up to {acknowledged} were acknowledged and are gone: {} is damaged behind this offset",
            self.path.join("db").display()
        );
        let offset = last.map_or(Ok(0), |frame| self.end_in_file(frame))?;
        let path = self.path.display().to_string();
        Err(LogError::Damaged { path, index: self.next, offset, fault })
    }

    /// Where the last copy of a frame's first chunk ends in sled's file; 0 where it is not found.
    fn end_in_file(&self, frame: &Frame) -> Result<u64, LogError> {
        let file = self.path.join("db");
        let whole = fs::read(&file).map_err(|e| io_error("could not read", &file, e))?;
        let encoded = frame::encode(frame.index, frame.term, frame.ignorable, &frame.payload);
        let chunk = &encoded[..encoded.len().min(CHUNK)];
        let found = whole.windows(chunk.len()).rposition(|part| part == chunk);
        Ok(found.map_or(0, |at| (at + chunk.len()) as u64))
    }

    fn delete_blob(&self, key: &[u8], writes: &mut sled::Batch) -> Result<(), LogError> {
        for chunk in self.db.scan_prefix(blob_prefix(key)).keys() {
            writes.remove(chunk.map_err(self.fault("could not read"))?);
        }
        Ok(())
    }

    fn delete_forgotten(&self, writes: &mut sled::Batch) -> Result<(), LogError> {
        if self.forget_to == 0 {
            return Ok(());
        }
        let old = frame_key(0, 0)..frame_key(self.forget_to + 1, 0);
        for key in self.db.range(old).keys().take(FORGET_KEYS_PER_COMMIT) {
            writes.remove(key.map_err(self.fault("could not read"))?);
        }
        Ok(())
    }

    /// Stored frames after `after`, each put together from its chunks.
    fn stored(&self, after: u64) -> impl Iterator<Item = Result<(u64, Bytes), LogError>> + '_ {
        let mut chunks = self.db.range(frame_key(after + 1, 0)..frame_key(u64::MAX, 0)).peekable();
        std::iter::from_fn(move || {
            let (mut index, mut bytes) = (None, BytesMut::new());
            loop {
                match chunks.peek() {
                    Some(Ok((key, _))) if index.is_none_or(|i| i == index_of(key)) => {}
                    Some(Ok(_)) | None => break,
                    Some(Err(_)) => {}
                }
                match chunks.next() {
                    Some(Ok((key, value))) => {
                        index = Some(index_of(&key));
                        bytes.extend_from_slice(&value);
                    }
                    Some(Err(e)) => return Some(Err(self.fault("could not read")(e))),
                    None => break,
                }
            }
            Some(Ok((index?, bytes.freeze())))
        })
    }
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| io_error("could not make", &path, e))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(e)) => return Err(io_error("could not lock", &path, e)),
        }
    }
    Err(LogError::Locked { path: dir.display().to_string() })
}

fn open_sled(path: &Path) -> Result<sled::Db, LogError> {
    let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
    let held = |e: &sled::Error| matches!(e, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"));
    for _ in 1..LOCK_TRIES {
        match config.open() {
            Err(e) if held(&e) => std::thread::sleep(LOCK_PAUSE),
            other => return other.map_err(|e| sled_error("could not open", path, e)),
        }
    }
    Err(LogError::Locked { path: path.display().to_string() })
}

fn sled_error(what: &'static str, path: &Path, error: sled::Error) -> LogError {
    match error {
        sled::Error::Io(source) => io_error(what, path, source),
        sled::Error::Corruption { at, .. } => LogError::Damaged {
            path: path.display().to_string(),
            index: 0,
            offset: 0,
            fault: format!("sled finds a bad checksum at {at:?}"),
        },
        other => io_error(what, path, std::io::Error::other(other)),
    }
}

fn frame_key(index: u64, chunk: u32) -> [u8; 13] {
    let mut key = [b'f'; 13];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[1..9].try_into().expect("frame keys are 13 bytes long"))
}

fn put_frame(index: u64, bytes: &[u8], writes: &mut sled::Batch) {
    for (chunk, part) in (0..).zip(bytes.chunks(CHUNK)) {
        writes.insert(&frame_key(index, chunk), part);
    }
}

fn blob_prefix(key: &[u8]) -> Vec<u8> {
    let length = u16::try_from(key.len()).expect("blob keys are short");
    let mut out = Vec::with_capacity(key.len() + 7);
    out.push(b'b');
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(key);
    out
}

fn blob_key(key: &[u8], chunk: u32) -> Vec<u8> {
    let mut out = blob_prefix(key);
    out.extend_from_slice(&chunk.to_be_bytes());
    out
}

/// A blob's chunks are cut from: length u32, crc32c u32 (little endian), value.
fn put_blob(key: &[u8], value: &[u8], writes: &mut sled::Batch) {
    let length = u32::try_from(value.len()).expect("blobs are bounded at the edge");
    let mut whole = Vec::with_capacity(8 + value.len());
    whole.extend_from_slice(&length.to_le_bytes());
    whole.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
    whole.extend_from_slice(value);
    for (chunk, part) in (0..).zip(whole.chunks(CHUNK)) {
        writes.insert(blob_key(key, chunk), part);
    }
}

impl Log for SledLog {
    fn recover(&mut self) -> Result<Recovered, LogError> {
        let snapshot = self.snapshots.read()?;
        let after = snapshot.as_ref().map_or(0, |(index, _)| *index);
        let path = self.path.display().to_string();
        let judged = frame::judge(&path, after, self.stored(after))?;
        if let Some((index, bytes)) = judged.torn {
            tracing::warn!(index, bytes, path, "cut a torn last frame");
            let mut writes = sled::Batch::default();
            for key in self.db.range(frame_key(index, 0)..frame_key(index + 1, 0)).keys() {
                writes.remove(key.map_err(self.fault("could not read"))?);
            }
            self.commit(writes)?;
        }
        self.next = after + judged.tail.len() as u64 + 1;
        self.refuse_losses(judged.tail.last())?;
        self.forget_to = after;
        let torn_bytes = judged.torn.map_or(0, |(_, bytes)| bytes);
        Ok(Recovered { snapshot, tail: judged.tail, torn_bytes })
    }

    fn append(&mut self, batch: Batch) -> Result<u64, LogError> {
        assert!(self.next > 0, "a log is recovered before it is appended to");
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        // Cleared at the end: whatever returns before leaves the disk in doubt.
        self.poisoned = true;
        let index = self.next;
        let mut writes = sled::Batch::default();
        put_frame(index, &frame::encode(index, 1, batch.ignorable, &batch.payload), &mut writes);
        for (key, value) in &batch.put {
            self.delete_blob(key, &mut writes)?;
            put_blob(key, value, &mut writes);
        }
        for key in &batch.delete {
            self.delete_blob(key, &mut writes)?;
        }
        self.delete_forgotten(&mut writes)?;
        self.commit(writes)?;
        self.mark.write(index)?;
        self.next += 1;
        self.poisoned = false;
        Ok(index)
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        self.snapshots.clone()
    }

    fn forget(&mut self, index: u64) -> Result<(), LogError> {
        if self.snapshots.newest() < index {
            return Err(LogError::NotCovered { path: self.path.display().to_string(), index });
        }
        self.forget_to = self.forget_to.max(index);
        Ok(())
    }

    fn install(
        &mut self,
        entries: &mut dyn Iterator<Item = Result<Entry, LogError>>,
    ) -> Result<(), LogError> {
        if self.db.len() > 1 || self.snapshots.newest() > 0 {
            return Err(LogError::NotEmpty { path: self.path.display().to_string() });
        }
        let (mut writes, mut bytes, mut newest) = (sled::Batch::default(), 0, 0);
        for entry in entries {
            match entry? {
                Entry::Snapshot { index, bytes } => self.snapshots.write(index, &bytes)?,
                Entry::Frame(f) => {
                    let encoded = frame::encode(f.index, f.term, f.ignorable, &f.payload);
                    bytes += encoded.len();
                    newest = f.index;
                    put_frame(f.index, &encoded, &mut writes);
                }
                Entry::Blob { key, value } => {
                    bytes += value.len();
                    put_blob(&key, &value, &mut writes);
                }
            }
            if bytes > INSTALL_BATCH_BYTES {
                self.commit(std::mem::take(&mut writes))?;
                bytes = 0;
            }
        }
        self.commit(writes)?;
        self.mark.write(newest)
    }

    fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::new(SledBlobs { db: self.db.clone(), path: self.path.clone() })
    }

    fn size(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0) + self.snapshots.size()
    }
}

struct SledBlobs {
    db: sled::Db,
    path: PathBuf,
}

impl SledBlobs {
    fn damaged(&self, key: &[u8], fault: &str) -> LogError {
        LogError::Damaged {
            path: self.path.display().to_string(),
            index: 0,
            offset: 0,
            fault: format!("blob {:?} {fault}", String::from_utf8_lossy(key)),
        }
    }
}

impl Blobs for SledBlobs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        let mut whole = BytesMut::new();
        for chunk in self.db.scan_prefix(blob_prefix(key)).values() {
            let chunk = chunk.map_err(|e| sled_error("could not read", &self.path, e))?;
            whole.extend_from_slice(&chunk);
        }
        if whole.is_empty() {
            return Ok(None);
        }
        if whole.len() < 8 {
            return Err(self.damaged(key, "has no header"));
        }
        let header = whole.split_to(8);
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        if word(0) as usize != whole.len() || word(4) != crc32c::crc32c(&whole) {
            return Err(self.damaged(key, "has a wrong length or checksum"));
        }
        Ok(Some(whole.freeze()))
    }

    fn keys(&self) -> Result<Vec<Vec<u8>>, LogError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for chunk in self.db.scan_prefix(b"b").keys() {
            let chunk = chunk.map_err(|e| sled_error("could not read", &self.path, e))?;
            let key = &chunk[3..chunk.len() - 4];
            if keys.last().is_none_or(|last| last != key) {
                keys.push(key.to_vec());
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
impl crate::fault::Damage for SledLog {
    fn tear(&mut self, index: u64, keep: usize) {
        let (_, bytes) = self.stored(index - 1).next().unwrap().unwrap();
        self.remove(index);
        let mut writes = sled::Batch::default();
        put_frame(index, &bytes[..keep], &mut writes);
        self.commit(writes).unwrap();
        // A commit that tore was never acknowledged.
        self.mark.write(index - 1).unwrap();
    }

    fn flip(&mut self, index: u64, at: usize) {
        let (_, bytes) = self.stored(index - 1).next().unwrap().unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        let mut writes = sled::Batch::default();
        put_frame(index, &bytes, &mut writes);
        self.commit(writes).unwrap();
    }

    fn remove(&mut self, index: u64) {
        let mut writes = sled::Batch::default();
        for key in self.db.range(frame_key(index, 0)..frame_key(index + 1, 0)).keys() {
            writes.remove(key.unwrap());
        }
        self.commit(writes).unwrap();
    }

    fn mark_version(&mut self, version: u32) {
        self.db.insert(VERSION_KEY, &version.to_be_bytes()).unwrap();
        self.sync().unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_spoilt_in_the_middle_of_sleds_file_stops_the_start_and_is_located() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SledLog::open(dir.path()).unwrap();
        log.recover().unwrap();
        for i in 1..=40 {
            let payload = Bytes::from(format!("the payload of frame {i:02} ").repeat(20));
            log.append(Batch { payload, ..Default::default() }).unwrap();
        }
        drop(log);
        let file = dir.path().join("sled/db");
        let mut bytes = fs::read(&file).unwrap();
        let part = b"the payload of frame 20";
        let at = bytes.windows(part.len()).position(|w| w == part).unwrap();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        for _ in 0..2 {
            let mut log = SledLog::open(dir.path()).unwrap();
            match log.recover() {
                Err(LogError::Damaged { index, offset, fault, .. }) => {
                    assert_eq!(index, 20);
                    assert!(offset > 0 && offset <= at as u64, "{offset} {at}");
                    assert!(fault.contains("frames up to 40"), "{fault}");
                }
                other => panic!("20 acknowledged frames are lost: {other:?}"),
            }
        }
    }

    #[test]
    fn large_values_stay_in_the_file_that_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SledLog::open(dir.path()).unwrap();
        log.recover().unwrap();
        let big = Bytes::from(vec![7; 4 << 20]);
        for key in [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()] {
            let put = vec![(key, big.clone())];
            log.append(Batch { payload: big.slice(..1 << 20), put, ..Batch::default() }).unwrap();
        }
        let beside = dir.path().join("sled/blobs");
        assert!(!beside.exists() || fs::read_dir(beside).unwrap().next().is_none());
        assert_eq!(log.blobs().get(b"two").unwrap(), Some(big));
    }

    #[test]
    fn forgotten_frames_leave_the_disk_as_commits_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SledLog::open(dir.path()).unwrap();
        log.recover().unwrap();
        for _ in 0..200 {
            log.append(Batch::default()).unwrap();
        }
        log.snapshot(200, Bytes::from("state")).unwrap();
        for _ in 0..4 {
            log.append(Batch::default()).unwrap();
        }
        // Four frames and the version.
        assert_eq!(log.db.len(), 5);
    }
}

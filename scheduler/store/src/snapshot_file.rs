//! Snapshots as files of their own beside the log, newest one kept.
//!
//! A snapshot is tens of megabytes: as a file it is written and read at the disk's speed and its
//! space is given back, which sled would do neither of. Layout: magic, index u64, length u64,
//! crc32c u32 (little endian), bytes. Written to a temporary name, synced, renamed, and the
//! directory synced, so that a name always means a whole snapshot.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;

use crate::{LogError, Snapshots};

const MAGIC: &[u8; 8] = b"MUSNAP\0\x01";
const HEADER: usize = 8 + 8 + 8 + 4;
const PREFIX: &str = "snapshot.";

/// The directory that holds the snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    dir: PathBuf,
    /// The newest one; held while one is written, so that two writers take turns.
    newest: Mutex<u64>,
}

impl SnapshotDir {
    /// Looks what is there; leftovers of a crash are removed.
    pub(crate) fn open(dir: &Path) -> Result<Self, LogError> {
        let mut newest = 0;
        let listed = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in listed.map_err(|e| io_error("could not list", dir, e))? {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
            match rest.parse::<u64>() {
                Ok(index) => newest = newest.max(index),
                Err(_) => {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(|e| io_error("could not tidy", &path, e))?;
                }
            }
        }
        Ok(SnapshotDir { dir: dir.to_owned(), newest: Mutex::new(newest) })
    }

    /// The newest snapshot's index; 0: there is none.
    pub(crate) fn newest(&self) -> u64 {
        *self.newest.lock().expect("nobody panics while writing a snapshot")
    }

    pub(crate) fn size(&self) -> u64 {
        fs::metadata(self.path(self.newest())).map_or(0, |m| m.len())
    }

    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{index:020}"))
    }

    /// Reads the newest snapshot.
    pub(crate) fn read(&self) -> Result<Option<(u64, Bytes)>, LogError> {
        let index = self.newest();
        if index == 0 {
            return Ok(None);
        }
        let path = self.path(index);
        let bytes = fs::read(&path).map_err(|e| io_error("could not read", &path, e))?;
        let bytes = check(index, bytes.into()).map_err(|fault| LogError::Damaged {
            path: path.display().to_string(),
            index,
            offset: 0,
            fault: format!("its snapshot {fault}"),
        })?;
        Ok(Some((index, bytes)))
    }

    fn replace(&self, index: u64, bytes: &[u8]) -> Result<(), (PathBuf, io::Error)> {
        let temporary = self.dir.join(format!("{PREFIX}tmp"));
        let path = self.path(index);
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(MAGIC)?;
            file.write_all(&index.to_le_bytes())?;
            file.write_all(&(bytes.len() as u64).to_le_bytes())?;
            file.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| (path.clone(), e))
    }
}

fn check(index: u64, bytes: Bytes) -> Result<Bytes, &'static str> {
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err("has no valid header");
    }
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let crc = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes"));
    let body = bytes.slice(HEADER..);
    if long(8) != index {
        return Err("is one of another index");
    }
    if long(16) != body.len() as u64 || crc != crc32c::crc32c(&body) {
        return Err("has a wrong length or checksum");
    }
    Ok(body)
}

impl Snapshots for SnapshotDir {
    fn write(&self, index: u64, bytes: &[u8]) -> Result<(), LogError> {
        let mut newest = self.newest.lock().expect("nobody panics while writing a snapshot");
        if index <= *newest {
            return Ok(());
        }
        self.replace(index, bytes).map_err(|(path, e)| io_error("could not write", &path, e))?;
        let old = std::mem::replace(&mut *newest, index);
        if old > 0 {
            let path = self.path(old);
            fs::remove_file(&path).map_err(|e| io_error("could not remove", &path, e))?;
        }
        Ok(())
    }
}

pub(crate) fn io_error(what: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { what, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_snapshot_is_kept_and_an_older_one_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDir::open(dir.path()).unwrap();
        snapshots.write(5, b"five").unwrap();
        snapshots.write(9, b"nine").unwrap();
        snapshots.write(7, b"seven").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let again = SnapshotDir::open(dir.path()).unwrap();
        assert_eq!(again.read().unwrap(), Some((9, Bytes::from("nine"))));
    }

    #[test]
    fn a_snapshot_with_a_flipped_bit_stops_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDir::open(dir.path()).unwrap();
        snapshots.write(5, b"five").unwrap();
        let path = snapshots.path(5);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = snapshots.read().unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn half_a_snapshot_of_a_crash_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("snapshot.tmp"), b"half").unwrap();
        assert_eq!(SnapshotDir::open(dir.path()).unwrap().read().unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

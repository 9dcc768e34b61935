//! The newest acknowledged frame, beside the log.
//!
//! sled takes a bad checksum anywhere in its file for a torn tail: it silently drops everything
//! behind it. The mark is the witness that tells such a loss from a commit that never finished.
//! It is written after a commit is durable and never synced itself: a power cut can leave an older
//! mark, which promises less, and never a newer one. A kill leaves the newest.
//!
//! `acknowledged`: index u64, crc32c of it u32, little endian.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::LogError;
use crate::snapshot_file::io_error;

const BYTES: usize = 12;

#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens or makes the mark in the log's directory.
    pub(crate) fn open(dir: &Path) -> Result<Mark, LogError> {
        let path = dir.join("acknowledged");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|e| io_error("could not open", &path, e))?;
        Ok(Mark { file, path })
    }

    /// The newest frame known to be acknowledged; 0 where nothing is known.
    pub(crate) fn read(&self) -> Result<u64, LogError> {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(e) => return Err(io_error("could not read", &self.path, e)),
        }
        let (index, crc) = bytes.split_at(8);
        let sound = crc32c::crc32c(index).to_le_bytes() == *crc;
        Ok(if sound { u64::from_le_bytes(index.try_into().expect("8 bytes")) } else { 0 })
    }

    /// Frame `index` is durable and will be acknowledged.
    pub(crate) fn write(&self, index: u64) -> Result<(), LogError> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&bytes, 0).map_err(|e| io_error("could not write", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_spoilt_one_promises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
        mark.write(42).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().read().unwrap(), 42);
        mark.file.write_all_at(&[9], 3).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
    }
}

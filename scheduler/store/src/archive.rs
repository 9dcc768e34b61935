//! A whole log as one plain file: how it moves to another version or backend, and how the space
//! that sled never gives back is reclaimed (export, import into a new directory, swap).
//!
//! Layout: magic with the format's number, then records of kind u8, length u32, crc32c u32 (little
//! endian) and body, closed by an end record with the count, so that a cut file is noticed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};

use crate::snapshot_file::io_error;
use crate::{Blobs, Entry, Frame, Log, LogError, Recovered, frame};

const MAGIC: &[u8; 8] = b"MULOG\0\0\x01";

const SNAPSHOT: u8 = b'S';
const FRAME: u8 = b'F';
const BLOB: u8 = b'B';
const END: u8 = b'E';

/// Writes what a log held when it was recovered, and its blobs; durable when it returns.
///
/// # Errors
/// The file cannot be written (with its path), or a blob cannot be read.
pub fn export(recovered: &Recovered, blobs: &dyn Blobs, path: &Path) -> Result<(), LogError> {
    let fault = |e| io_error("could not export to", path, e);
    let mut out = BufWriter::new(File::create(path).map_err(fault)?);
    out.write_all(MAGIC).map_err(fault)?;
    let mut count = 0u64;
    if let Some((index, bytes)) = &recovered.snapshot {
        record(&mut out, SNAPSHOT, &[&index.to_le_bytes(), bytes]).map_err(fault)?;
        count += 1;
    }
    for f in &recovered.tail {
        let bytes = frame::encode(f.index, f.term, f.ignorable, &f.payload);
        record(&mut out, FRAME, &[&bytes]).map_err(fault)?;
        count += 1;
    }
    for key in blobs.keys()? {
        // Deleted since the keys were listed.
        let Some(value) = blobs.get(&key)? else { continue };
        let length = u32::try_from(key.len()).expect("blob keys are short");
        record(&mut out, BLOB, &[&length.to_le_bytes(), &key, &value]).map_err(fault)?;
        count += 1;
    }
    record(&mut out, END, &[&count.to_le_bytes()]).map_err(fault)?;
    let file = out.into_inner().map_err(|e| fault(e.into_error()))?;
    file.sync_all().map_err(fault)
}

/// Fills an empty log from an exported file. After an error the log is to be thrown away.
///
/// # Errors
/// The file is damaged or cut (with the offset), the log is not empty, or the disk's own error.
pub fn import(path: &Path, into: &mut dyn Log) -> Result<(), LogError> {
    let fault = |e| io_error("could not import", path, e);
    let mut input = BufReader::new(File::open(path).map_err(fault)?);
    let mut magic = [0; 8];
    input.read_exact(&mut magic).map_err(fault)?;
    if magic[..7] != MAGIC[..7] {
        return Err(damaged(path, 0, "it is no exported log"));
    }
    if magic[7] > MAGIC[7] {
        let (found, known) = (u32::from(magic[7]), u32::from(MAGIC[7]));
        return Err(LogError::Version { path: path.display().to_string(), found, known });
    }
    into.install(&mut Entries { input, path, offset: 8, count: 0, done: false })
}

fn record(out: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let mut header = Vec::with_capacity(9);
    header.put_u8(kind);
    header.put_u32_le(u32::try_from(length).map_err(io::Error::other)?);
    header.put_u32_le(crc);
    out.write_all(&header)?;
    parts.iter().try_for_each(|part| out.write_all(part))
}

fn damaged(path: &Path, offset: u64, fault: &str) -> LogError {
    let path = path.display().to_string();
    LogError::Damaged { path, index: 0, offset, fault: fault.to_owned() }
}

struct Entries<'a, R> {
    input: R,
    path: &'a Path,
    offset: u64,
    count: u64,
    done: bool,
}

impl<R: Read> Entries<'_, R> {
    fn entry(&mut self) -> Result<Option<Entry>, LogError> {
        let bad = |fault| damaged(self.path, self.offset, fault);
        let mut header = [0; 9];
        self.input
            .read_exact(&mut header)
            .map_err(|_| bad("the file ends without an end record"))?;
        let (kind, mut rest) = (header[0], &header[1..]);
        let (length, crc) = (rest.get_u32_le(), rest.get_u32_le());
        // Through `take`, so that a wrong length cannot make us allocate what is not there.
        let mut body = Vec::new();
        let read = self.input.by_ref().take(u64::from(length)).read_to_end(&mut body);
        read.map_err(|e| io_error("could not import", self.path, e))?;
        if body.len() != length as usize || crc32c::crc32c(&body) != crc {
            return Err(bad("a record has a wrong length or checksum"));
        }
        let mut body = Bytes::from(body);
        let entry = match kind {
            SNAPSHOT if body.len() >= 8 => {
                Entry::Snapshot { index: body.get_u64_le(), bytes: body }
            }
            FRAME => {
                let frame: Frame = frame::decode(&body).map_err(bad)?;
                Entry::Frame(frame)
            }
            BLOB if body.len() >= 4 => {
                let key = body.get_u32_le() as usize;
                if key > body.len() {
                    return Err(bad("a blob's key is longer than its record"));
                }
                Entry::Blob { key: body.split_to(key).to_vec(), value: body }
            }
            END if body.len() == 8 && body.clone().get_u64_le() == self.count => return Ok(None),
            END => return Err(bad("records are missing")),
            _ => return Err(bad("a record has an unknown kind")),
        };
        self.offset += 9 + u64::from(length);
        self.count += 1;
        Ok(Some(entry))
    }
}

impl<R: Read> Iterator for Entries<'_, R> {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.entry().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

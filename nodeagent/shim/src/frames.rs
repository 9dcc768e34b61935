//! The file of a slice's records: frames that are only ever appended.
//!
//! ```text
//! frame: length of the payload (u32), CRC-32C (u32), kind (u8), payload
//! checked: job (u32), attempt (u32), kind, payload
//! ```
//!
//! Numbers are little-endian. Since the slice's own number is checked with each frame, what a
//! former slice left in a file that serves another one is no frame of that: it needs no removing. Readers take no lock: a frame that is just being written is torn, and
//! a torn frame and what follows is not there. Whoever adds a launch or a claim holds the file's
//! lock, so that one of several claimants is the first; the end is the claimant's alone to add.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use muster_proto::shim::v1::{ExitRecord, Launch, ShimRecord};
use nix::fcntl::{Flock, FlockArg};
use prost::Message;

use crate::spool::{PRIVATE, SliceDir, SpoolError, fail, sync_dir};

/// Length, checksum, kind.
const HEAD: usize = 9;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Launch = 1,
    Shim = 2,
    Exit = 3,
    /// A former slice's end was written into this very file: its entry in the directory is durable.
    Kept = 4,
}

/// An open file of records.
#[derive(Debug)]
pub(crate) struct SliceFile {
    dir: SliceDir,
    /// Job and attempt.
    slice: (u32, u32),
    file: File,
    bytes: Vec<u8>,
}

impl SliceFile {
    /// The file as it is; `None` where there is none.
    pub(crate) fn open(dir: &SliceDir) -> Result<Option<Self>, SpoolError> {
        match Self::with(dir, number(dir), OpenOptions::new().read(true).write(true)) {
            Err(SpoolError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    /// The file, made where there is none.
    pub(crate) fn create(dir: &SliceDir) -> Result<Self, SpoolError> {
        Self::create_for(dir, number(dir))
    }

    /// The same in a directory that is not the slice's yet.
    pub(crate) fn create_for(dir: &SliceDir, slice: (u32, u32)) -> Result<Self, SpoolError> {
        Self::with(dir, slice, OpenOptions::new().read(true).write(true).create(true).mode(PRIVATE))
    }

    fn with(
        dir: &SliceDir,
        slice: (u32, u32),
        options: &mut OpenOptions,
    ) -> Result<Self, SpoolError> {
        let path = dir.records_path();
        let file =
            options.custom_flags(libc::O_NOFOLLOW).open(&path).map_err(fail("open", &path))?;
        let mut file = Self { dir: dir.clone(), slice, file, bytes: Vec::new() };
        file.load()?;
        Ok(file)
    }

    fn load(&mut self) -> Result<(), SpoolError> {
        self.bytes.clear();
        let path = || self.dir.records_path();
        let length = self.file.metadata().map_err(|e| fail("read", &path())(e))?.len();
        self.bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        let mut read = 0;
        while read < self.bytes.len() {
            match self.file.read_at(&mut self.bytes[read..], read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail("read", &path())(e)),
            }
        }
        self.bytes.truncate(read);
        Ok(())
    }

    /// The last record of a kind.
    pub(crate) fn read<M: Message + Default>(&self, kind: Kind) -> Result<Option<M>, SpoolError> {
        let path = || self.dir.records_path();
        let mut found = None;
        let mut frames = self.frames();
        for (_, payload) in frames.by_ref().filter(|(k, _)| *k == kind as u8) {
            found = Some(payload);
        }
        if frames.rest.len() == self.bytes.len() && !self.bytes.is_empty() {
            return Err(SpoolError::Torn { path: path() });
        }
        found
            .map(M::decode)
            .transpose()
            .map_err(|source| SpoolError::Record { path: path(), source })
    }

    fn has(&self, kind: Kind) -> bool {
        self.frames().any(|(k, _)| k == kind as u8)
    }

    fn frames(&self) -> Frames<'_> {
        Frames { slice: self.slice, rest: &self.bytes }
    }

    /// Adds what to do. A slice that is claimed keeps what its claimant has read.
    pub(crate) fn write_launch(&mut self, launch: &Launch) -> Result<(), SpoolError> {
        self.locked(|file| match file.has(Kind::Shim) {
            true => Ok(()),
            false => file.append(Kind::Launch, &launch.encode_to_vec()),
        })
    }

    /// Adds who does it; false when somebody does already. What is to be done is read again with
    /// the claim.
    pub(crate) fn claim(&mut self, record: &ShimRecord) -> Result<bool, SpoolError> {
        self.locked(|file| match file.has(Kind::Shim) {
            true => Ok(false),
            false => file.append(Kind::Shim, &record.encode_to_vec()).map(|()| true),
        })
    }

    /// The same for one that was sent: false also when there is nothing to be done any more, for
    /// the file may serve another slice since it was opened.
    pub(crate) fn claim_launch(&mut self, record: &ShimRecord) -> Result<bool, SpoolError> {
        self.locked(|file| match file.has(Kind::Shim) || !file.has(Kind::Launch) {
            true => Ok(false),
            false => file.append(Kind::Shim, &record.encode_to_vec()).map(|()| true),
        })
    }

    /// The claimant adds to its own record.
    pub(crate) fn update_record(&mut self, record: &ShimRecord) -> Result<(), SpoolError> {
        self.append(Kind::Shim, &record.encode_to_vec())
    }

    /// Lets go of what is in it: from here on the file is of no slice.
    pub(crate) fn clear(&mut self) -> Result<(), SpoolError> {
        self.bytes.clear();
        self.file.write_all_at(&[0; HEAD], 0).map_err(fail("clear", &self.dir.records_path()))
    }

    /// How long it is, bytes.
    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Adds how it ended; durable when it returns.
    pub(crate) fn write_exit(&mut self, record: &ExitRecord) -> Result<(), SpoolError> {
        self.append(Kind::Exit, &record.encode_to_vec())?;
        self.file.sync_data().map_err(fail("sync", &self.dir.records_path()))?;
        match self.has(Kind::Kept) {
            true => Ok(()),
            false => sync_dir(self.dir.path()),
        }
    }

    /// Whether its slice's end is in it, and so durable.
    pub(crate) fn has_ended(&self) -> bool {
        self.has(Kind::Exit)
    }

    /// Notes that a former slice's end was in it.
    pub(crate) fn note_kept(&mut self) -> Result<(), SpoolError> {
        self.append(Kind::Kept, &[])
    }

    fn locked<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let path = self.dir.records_path();
        let file = self.file.try_clone().map_err(fail("lock", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, e)| fail("lock", &path)(e.into()))?;
        self.load()?;
        let done = change(self);
        drop(lock);
        done
    }

    /// Adds a frame behind the last whole one.
    fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<(), SpoolError> {
        let mut frames = self.frames();
        frames.by_ref().for_each(drop);
        let end = self.bytes.len() - frames.rest.len();
        self.bytes.truncate(end);
        let kind = kind as u8;
        let length = u32::try_from(payload.len()).expect("a record is some MiB at most");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(checksum(self.slice, kind, payload).to_le_bytes());
        self.bytes.push(kind);
        self.bytes.extend(payload);
        let written = self.file.write_all_at(&self.bytes[end..], end as u64);
        written.map_err(fail("write", &self.dir.records_path()))
    }
}

/// A directory of another name holds records of no slice.
fn number(dir: &SliceDir) -> (u32, u32) {
    dir.ids().unwrap_or_default()
}

fn checksum((job, attempt): (u32, u32), kind: u8, payload: &[u8]) -> u32 {
    let mut about = [0; HEAD];
    about[..4].copy_from_slice(&job.to_le_bytes());
    about[4..8].copy_from_slice(&attempt.to_le_bytes());
    about[8] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&about), payload)
}

/// The whole frames of a slice from the beginning: kind and payload.
struct Frames<'a> {
    slice: (u32, u32),
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, payload, rest) = split(self.rest)?;
        if checksum(self.slice, head.kind, payload) != head.checksum {
            return None;
        }
        self.rest = rest;
        Some((head.kind, payload))
    }
}

struct Head {
    checksum: u32,
    kind: u8,
}

/// A frame by its length, unchecked, and what follows it.
fn split(bytes: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
    let (payload, rest) = rest.split_at_checked(usize::try_from(number(0)).ok()?)?;
    Some((Head { checksum: number(4), kind: head[8] }, payload, rest))
}

/// Of which slice the records in a directory are, whatever its name is; `None`: of none.
pub(crate) fn slice_in(dir: &SliceDir) -> Option<(u32, u32)> {
    let bytes = std::fs::read(dir.records_path()).ok()?;
    let (head, payload, _) = split(&bytes).filter(|(head, ..)| head.kind == Kind::Launch as u8)?;
    let launch = Launch::decode(payload).ok()?;
    let slice = (launch.job, launch.attempt);
    (checksum(slice, head.kind, payload) == head.checksum).then_some(slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice() -> (tempfile::TempDir, SliceDir) {
        let home = tempfile::tempdir().expect("a directory");
        SliceDir::prepare_spool(home.path()).expect("a spool");
        let dir = SliceDir::of(home.path(), 7, 1);
        (home, dir)
    }

    fn launch(comment: &str) -> Launch {
        Launch { job: 7, attempt: 1, comment: comment.to_owned(), ..Launch::default() }
    }

    fn record(pid: u32) -> ShimRecord {
        ShimRecord { pid, ..ShimRecord::default() }
    }

    #[test]
    fn the_last_launch_counts_until_the_first_claim() {
        let (_home, dir) = slice();
        dir.write_launch(&launch("a")).expect("written");
        dir.write_launch(&launch("b")).expect("written");
        assert!(dir.claim(&record(3)).expect("claimed"));
        assert!(!dir.claim(&record(4)).expect("looked at"));
        dir.write_launch(&launch("c")).expect("left alone");
        assert_eq!(dir.read_launch().expect("readable").expect("there").comment, "b");
        assert_eq!(dir.read_record().expect("readable"), Some(record(3)));
        assert_eq!(dir.read_exit().expect("readable"), None);
    }

    #[test]
    fn wherever_the_file_is_cut_the_records_before_the_cut_are_there_and_no_other() {
        let (_home, dir) = slice();
        dir.write_launch(&launch("a")).expect("written");
        let launched = std::fs::read(dir.records_path()).expect("readable").len();
        dir.claim(&record(3)).expect("claimed");
        let claimed = std::fs::read(dir.records_path()).expect("readable").len();
        dir.write_exit(&ExitRecord { job: 7, attempt: 1, ..ExitRecord::default() }).expect("ended");
        let whole = std::fs::read(dir.records_path()).expect("readable");
        for cut in 0..=whole.len() {
            std::fs::write(dir.records_path(), &whole[..cut]).expect("written");
            match dir.read_launch() {
                Ok(found) => assert_eq!(found.is_some(), cut >= launched, "{cut}"),
                Err(SpoolError::Torn { .. }) => assert!(cut > 0 && cut < launched, "{cut}"),
                Err(e) => panic!("{cut}: {e}"),
            }
            if cut >= launched {
                let record = dir.read_record().expect("readable");
                assert_eq!(record.is_some(), cut >= claimed, "{cut}");
                let exit = dir.read_exit().expect("readable");
                assert_eq!(exit.is_some(), cut == whole.len(), "{cut}");
            }
        }
    }

    #[test]
    fn a_record_after_a_torn_one_takes_its_place() {
        let (_home, dir) = slice();
        dir.write_launch(&launch("a")).expect("written");
        let mut bytes = std::fs::read(dir.records_path()).expect("readable");
        bytes.extend([1, 2, 3]);
        std::fs::write(dir.records_path(), &bytes).expect("written");
        assert!(dir.claim(&record(3)).expect("claimed"));
        assert_eq!(dir.read_record().expect("readable"), Some(record(3)));
    }

    #[test]
    fn a_changed_byte_is_no_record() {
        let (_home, dir) = slice();
        dir.write_launch(&launch("abc")).expect("written");
        let mut bytes = std::fs::read(dir.records_path()).expect("readable");
        *bytes.last_mut().expect("bytes") ^= 1;
        std::fs::write(dir.records_path(), &bytes).expect("written");
        assert!(matches!(dir.read_launch(), Err(SpoolError::Torn { .. })));
    }
}

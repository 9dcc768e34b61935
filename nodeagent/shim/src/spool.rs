//! A slice's directory in the spool, and the records in it.
//!
//! Every record is written beside its name and renamed, so that a reader finds the whole old one
//! or the whole new one. What is told to others, the end, is synced before (file, then directory);
//! what only a power cut could lose is not: nothing of a slice runs after one.
//!
//! ```text
//! <spool>/notices                datagrams to the agent
//! <spool>/jobs/<job>.<attempt>/  0711, the agent's: its user must reach the script
//!     launch.pb  0600            what to do, without the script
//!     script     0500            the user's
//!     shim.pb    0600            who does it; its creation is the claim to do it
//!     shim       0600            the socket
//!     exit.pb    0600            how it ended
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use muster_proto::shim::v1::{ExitRecord, Launch, ShimRecord};
use nix::unistd::geteuid;
use prost::Message;

/// A file of the spool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system refused.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The record is there and makes no sense.
    #[error("{} is no record of this kind", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What the decoder says.
        source: prost::DecodeError,
    },
}

fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::File { what, path, source }
}

/// Who else may read a record: nobody, since an environment may hold secrets.
const PRIVATE: u32 = 0o600;
/// The user executes it and nobody changes it.
const SCRIPT: u32 = 0o500;
/// Passed through by users on the way to their script, listed by nobody.
const PASSAGE: u32 = 0o711;

/// The directory of one slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceDir(PathBuf);

impl SliceDir {
    /// The slice of that attempt under `spool`.
    pub fn of(spool: &Path, job: u32, attempt: u32) -> Self {
        Self(jobs(spool).join(format!("{job}.{attempt}")))
    }

    /// A slice's directory by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes `spool` and its `jobs` so that users can pass through to their scripts.
    pub fn prepare_spool(spool: &Path) -> Result<(), SpoolError> {
        let builder = passage();
        for dir in [spool.to_owned(), jobs(spool)] {
            make_dir(&builder, &dir)?;
        }
        Ok(())
    }

    /// Every slice in the spool, by (job, attempt).
    pub fn list(spool: &Path) -> Result<Vec<(u32, u32, Self)>, SpoolError> {
        let jobs = jobs(spool);
        let mut found = Vec::new();
        for entry in fs::read_dir(&jobs).map_err(fail("list", &jobs))? {
            let entry = entry.map_err(fail("list", &jobs))?;
            let name = entry.file_name();
            let ids = name.to_str().and_then(|n| n.split_once('.'));
            let ids =
                ids.and_then(|(job, attempt)| Some((job.parse().ok()?, attempt.parse().ok()?)));
            if let Some((job, attempt)) = ids {
                found.push((job, attempt, Self(entry.path())));
            }
        }
        found.sort_by_key(|(job, attempt, _)| (*job, *attempt));
        Ok(found)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `launch.pb`.
    pub fn launch_path(&self) -> PathBuf {
        self.0.join("launch.pb")
    }

    /// `script`: the batch script as it is executed.
    pub fn script_path(&self) -> PathBuf {
        self.0.join("script")
    }

    /// `shim.pb`.
    pub fn record_path(&self) -> PathBuf {
        self.0.join("shim.pb")
    }

    /// `exit.pb`.
    pub fn exit_path(&self) -> PathBuf {
        self.0.join("exit.pb")
    }

    /// `shim`: the socket.
    pub fn socket_path(&self) -> PathBuf {
        self.0.join("shim")
    }

    /// Makes the directory with its launch record and, for a batch slice, the script. Repeating it
    /// is fine until a shim has claimed the slice.
    ///
    /// Not synced: the page cache survives the agent. After a power cut nothing of the slice runs
    /// any more; an entry that was lost then is missing in the agent's Hello, and one that was
    /// torn does not decode: the controller takes either for lost.
    pub fn write_launch(&self, launch: &Launch) -> Result<(), SpoolError> {
        make_dir(&passage(), &self.0)?;
        if launch.batch {
            let owner = launch.user.as_ref().filter(|_| geteuid().is_root());
            let path = self.script_path();
            write_file(&path, &launch.script, SCRIPT, owner.map(|u| (u.uid, u.gid)))?;
        }
        // The script stands beside it; twice would double the spool's writes.
        let slim = Launch { script: Vec::new().into(), ..launch.clone() };
        let (path, beside) = (self.launch_path(), self.launch_path().with_extension("pb.new"));
        write_unsynced(&beside, &slim.encode_to_vec())?;
        fs::rename(&beside, &path).map_err(fail("rename", &path))
    }

    /// The launch record, its script left out.
    pub fn read_launch(&self) -> Result<Option<Launch>, SpoolError> {
        read(&self.launch_path())
    }

    /// Who supervises, if anybody has begun to.
    pub fn read_record(&self) -> Result<Option<ShimRecord>, SpoolError> {
        read(&self.record_path())
    }

    /// How it ended, if it has. An empty file is what a power cut may leave of a record that was
    /// never told: none.
    pub fn read_exit(&self) -> Result<Option<ExitRecord>, SpoolError> {
        read(&self.exit_path())
    }

    /// Creates `shim.pb`; false when somebody already has, who alone goes on then. Not synced: its
    /// loss needs a power cut, and then its boot id says that the process is gone anyway.
    pub fn claim(&self, record: &ShimRecord) -> Result<bool, SpoolError> {
        let path = self.record_path();
        let beside = path.with_extension(format!("pb.{}", std::process::id()));
        write_unsynced(&beside, &record.encode_to_vec())?;
        let linked = fs::hard_link(&beside, &path);
        fs::remove_file(&beside).map_err(fail("remove", &beside))?;
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(fail("create", &path)(e)),
        }
    }

    /// Claims the slice for nobody, so that a shim still on its way will not start it. False when
    /// a shim was faster.
    pub fn abandon(&self) -> Result<bool, SpoolError> {
        // Not all default: that would be no bytes at all, which reads as no record.
        self.claim(&ShimRecord { started_at: crate::slice::now_ms(), ..ShimRecord::default() })
    }

    /// Adds to the claimant's own record; not synced, for the reason given at `claim`.
    pub(crate) fn update_record(&self, record: &ShimRecord) -> Result<(), SpoolError> {
        let path = self.record_path();
        let beside = path.with_extension("pb.new");
        write_unsynced(&beside, &record.encode_to_vec())?;
        fs::rename(&beside, &path).map_err(fail("rename", &path))
    }

    /// Writes the exit record; durable when it returns.
    pub fn write_exit(&self, record: &ExitRecord) -> Result<(), SpoolError> {
        replace(&self.exit_path(), &record.encode_to_vec())
    }

    /// Removes the slice from the spool; one that is gone is as good. Not synced: what comes back
    /// after a power cut is forgotten again.
    pub fn remove(&self) -> Result<(), SpoolError> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", &self.0)(e)),
            _ => Ok(()),
        }
    }
}

fn jobs(spool: &Path) -> PathBuf {
    spool.join("jobs")
}

fn passage() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(PASSAGE);
    builder
}

fn make_dir(builder: &DirBuilder, dir: &Path) -> Result<(), SpoolError> {
    match builder.create(dir) {
        Ok(()) => {
            // The umask of whoever started the agent does not close the passage.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(PASSAGE);
            fs::set_permissions(dir, mode).map_err(fail("open the passage of", dir))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(fail("create", dir)(e)),
    }
}

fn read<M: Message + Default>(path: &Path) -> Result<Option<M>, SpoolError> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => M::decode(bytes.as_slice())
            .map(Some)
            .map_err(|source| SpoolError::Record { path: path.to_owned(), source }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail("read", path)(e)),
    }
}

fn create(path: &Path, mode: u32) -> Result<File, SpoolError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(fail("create", path))
}

/// A new file with that owner. An old one of the name goes first: it may be the user's.
fn write_file(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), SpoolError> {
    let _ = fs::remove_file(path);
    let mut file = create(path, mode)?;
    file.write_all(bytes).map_err(fail("write", path))?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid)).map_err(fail("give away", path))?;
    }
    Ok(())
}

fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    create(path, PRIVATE)?.write_all(bytes).map_err(fail("write", path))
}

/// Replaces a record as a whole, durably.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    let beside = path.with_extension("pb.new");
    let mut file = create(&beside, PRIVATE)?;
    file.write_all(bytes).map_err(fail("write", &beside))?;
    file.sync_data().map_err(fail("sync", &beside))?;
    fs::rename(&beside, path).map_err(fail("rename", path))?;
    sync_dir(path.parent().expect("a record lies in a slice"))
}

fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(fail("sync", dir))
}

//! A slice's directory in the spool, and the records in it.
//!
//! All records of a slice are frames of one file, since making and removing a file costs more than
//! all that is written: what to do, who does it, how it ended, each appended once and the last of
//! a kind in force. A frame carries its checksum, so that a torn one is none. What is told to
//! others, the end, is synced before (file, then directory); what only a power cut could lose is
//! not: nothing of a slice runs after one.
//!
//! ```text
//! <spool>/notices                datagrams to the agent
//! <spool>/shims/<pid>            sockets of shims that serve one slice after another
//! <spool>/spare/<n>              directories of ended slices, see `spares`
//! <spool>/jobs/<job>.<attempt>/  0711, the agent's: its user must reach the script
//!     slice      0600            launch, shim and exit record, see `frames`
//!     script     0500            the user's; tasks of one array share the file
//!     shim       0600            the socket of a shim that serves this slice alone
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use muster_proto::shim::v1::{ExitRecord, Launch, ShimRecord};
use nix::unistd::geteuid;
use prost::Message;

use crate::frames::{Kind, SliceFile};

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
    /// The file does not begin with a whole record.
    #[error("{} is torn", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
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

pub(crate) fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::File { what, path, source }
}

/// Who else may read a record: nobody, since an environment may hold secrets.
pub(crate) const PRIVATE: u32 = 0o600;
/// The user executes it and nobody changes it.
const SCRIPT: u32 = 0o500;
/// Nobody's but the agent's.
const CLOSED: u32 = 0o700;
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
        make_dir(spool, PASSAGE)?;
        make_dir(&jobs(spool), PASSAGE)?;
        make_dir(&spare(spool), CLOSED)?;
        make_dir(&shims(spool), CLOSED)
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

    /// Job and attempt, by the directory's name.
    pub fn ids(&self) -> Option<(u32, u32)> {
        let (job, attempt) = self.0.file_name()?.to_str()?.split_once('.')?;
        Some((job.parse().ok()?, attempt.parse().ok()?))
    }

    /// The socket of a shim that serves one slice after another, this one among them.
    pub(crate) fn shared_socket_path(&self, pid: u32) -> PathBuf {
        let spool = self.0.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        shims(spool).join(pid.to_string())
    }

    /// `slice`: the records.
    pub fn records_path(&self) -> PathBuf {
        self.0.join("slice")
    }

    /// `script`: the batch script as it is executed.
    pub fn script_path(&self) -> PathBuf {
        self.0.join("script")
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
        self.write_launch_beside(launch, None)
    }

    /// The same; where the slice `like` has this very script for this very user, the file is
    /// shared, which spares a file per task of an array.
    pub fn write_launch_beside(
        &self,
        launch: &Launch,
        like: Option<&SliceDir>,
    ) -> Result<(), SpoolError> {
        make_dir(&self.0, PASSAGE)?;
        if launch.batch {
            self.write_script(launch, like)?;
        }
        SliceFile::create(self)?.write_launch(&slim(launch))
    }

    /// Makes `script`, anew or by sharing.
    pub(crate) fn write_script(
        &self,
        launch: &Launch,
        like: Option<&SliceDir>,
    ) -> Result<(), SpoolError> {
        let path = self.script_path();
        if like.is_some_and(|like| share_script(&like.script_path(), &path, launch)) {
            return Ok(());
        }
        let owner = launch.user.as_ref().filter(|_| geteuid().is_root());
        write_file(&path, &launch.script, SCRIPT, owner.map(|u| (u.uid, u.gid)))
    }

    /// The launch record, its script left out.
    pub fn read_launch(&self) -> Result<Option<Launch>, SpoolError> {
        self.read(Kind::Launch)
    }

    /// Who supervises, if anybody has begun to.
    pub fn read_record(&self) -> Result<Option<ShimRecord>, SpoolError> {
        self.read(Kind::Shim)
    }

    /// How it ended, if it has. Half a record is what a power cut may leave of one that was never
    /// told: none.
    pub fn read_exit(&self) -> Result<Option<ExitRecord>, SpoolError> {
        self.read(Kind::Exit)
    }

    fn read<M: Message + Default>(&self, kind: Kind) -> Result<Option<M>, SpoolError> {
        match SliceFile::open(self)? {
            Some(file) => file.read(kind),
            None => Ok(None),
        }
    }

    /// Adds who does it; false when somebody else already does, who alone goes on then. Not
    /// synced: its loss needs a power cut, and then its boot id says that the process is gone
    /// anyway.
    pub fn claim(&self, record: &ShimRecord) -> Result<bool, SpoolError> {
        match SliceFile::open(self)? {
            Some(mut file) => file.claim(record),
            None => SliceFile::create(self)?.claim(record),
        }
    }

    /// Claims the slice for nobody, so that a shim still on its way will not start it. False when
    /// a shim was faster.
    pub fn abandon(&self) -> Result<bool, SpoolError> {
        // Not all default: that would be no bytes at all, which reads as no record.
        self.claim(&ShimRecord { started_at: crate::slice::now_ms(), ..ShimRecord::default() })
    }

    /// Writes the exit record; durable when it returns.
    pub fn write_exit(&self, record: &ExitRecord) -> Result<(), SpoolError> {
        SliceFile::create(self)?.write_exit(record)
    }

    /// Removes the slice from the spool; one that is gone is as good. Not synced: what comes back
    /// after a power cut is forgotten again.
    pub fn remove(&self) -> Result<(), SpoolError> {
        // By name, which spares a listing; whatever else is there is found by the second way.
        for path in [self.script_path(), self.records_path()] {
            let _ = fs::remove_file(path);
        }
        if fs::remove_dir(&self.0).is_ok() {
            return Ok(());
        }
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", &self.0)(e)),
            _ => Ok(()),
        }
    }
}

/// Where shims that serve one slice after another listen.
pub(crate) fn shims(spool: &Path) -> PathBuf {
    spool.join("shims")
}

/// Directories of ended slices.
pub(crate) fn spare(spool: &Path) -> PathBuf {
    spool.join("spare")
}

fn jobs(spool: &Path) -> PathBuf {
    spool.join("jobs")
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), SpoolError> {
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(fail("create", dir)(e)),
    }
    // The umask of whoever started the agent does not close the passage.
    let open = || match fs::metadata(dir)?.mode() & 0o777 == mode {
        true => Ok(()),
        false => fs::set_permissions(dir, PermissionsExt::from_mode(mode)),
    };
    open().map_err(fail("open the passage of", dir))
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

/// Has `path` be the script that another slice already has; false where that is not this one.
fn share_script(other: &Path, path: &Path, launch: &Launch) -> bool {
    fs::hard_link(other, path).is_ok() && is_script(path, launch)
}

/// Whether a file is the script of this launch, text and all, as its user must find it. It is the
/// user's, who may have changed it.
pub(crate) fn is_script(path: &Path, launch: &Launch) -> bool {
    let Some(user) = &launch.user else { return false };
    let same = || -> io::Result<bool> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let found = file.metadata()?;
        let fits = found.is_file()
            && found.mode() & 0o7777 == SCRIPT
            && (found.uid(), found.gid()) == (user.uid, user.gid)
            && found.len() == launch.script.len() as u64;
        let mut text = Vec::with_capacity(launch.script.len());
        Ok(fits
            && (&file).take(found.len()).read_to_end(&mut text).is_ok()
            && text == launch.script)
    };
    same().unwrap_or(false)
}

/// The launch as it is recorded: the script stands beside it, and twice would double the spool's
/// writes.
pub(crate) fn slim(launch: &Launch) -> Launch {
    Launch { script: Vec::new().into(), ..launch.clone() }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(fail("sync", dir))
}

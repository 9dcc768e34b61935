//! Control files of one group that stay open, for a group that serves many slices one after another:
//! looking a file up by its path, seven folders deep, costs more than reading it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, files};

/// Open files by path; none for a group that nobody kept. What a group is does not depend on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Option<Arc<Vec<(PathBuf, File)>>>);

impl Kept {
    /// Opens these files and directories; what cannot be opened is looked up as ever.
    pub(crate) fn open(control_files: Vec<PathBuf>, dirs: Vec<PathBuf>) -> Self {
        let both = |path: PathBuf| {
            let both = OpenOptions::new().read(true).write(true).open(&path);
            let file = both.or_else(|_| File::open(&path)).ok()?;
            Some((path, file))
        };
        let dir = |path: PathBuf| {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
            Some((path, file))
        };
        let files = control_files.into_iter().filter_map(both);
        Self(Some(Arc::new(files.chain(dirs.into_iter().filter_map(dir)).collect())))
    }

    fn get(&self, path: &Path) -> Option<&File> {
        self.0.iter().flat_map(|kept| kept.iter()).find(|(p, _)| p == path).map(|(_, f)| f)
    }

    /// The whole of a control file.
    pub(crate) fn read(&self, path: &Path) -> Result<String, Error> {
        let Some(file) = self.get(path) else { return files::read(path) };
        let fail = |source| Error::File { what: "read", path: path.to_owned(), source };
        let (mut text, mut part) = (Vec::new(), [0u8; 4096]);
        loop {
            match file.read_at(&mut part, text.len() as u64) {
                Ok(0) => break,
                Ok(more) => text.extend(&part[..more]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Of a group that was removed since: as a path that is gone.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
                    return Err(fail(io::ErrorKind::NotFound.into()));
                }
                Err(e) => return Err(fail(e)),
            }
        }
        String::from_utf8(text).map_err(|e| fail(io::Error::other(e)))
    }

    /// Writes one value.
    pub(crate) fn write(&self, path: &Path, value: &str) -> Result<(), Error> {
        let Some(file) = self.get(path) else { return files::write(path, value) };
        // Without a position: a control file takes each write as a whole.
        file.write_all_at(value.as_bytes(), 0).map_err(|source| Error::File {
            what: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// A control file, to be written by somebody else.
    pub(crate) fn door(&self, path: &Path) -> Result<OwnedFd, Error> {
        let open = || OpenOptions::new().write(true).open(path);
        let file = self.get(path).map_or_else(open, File::try_clone);
        let fail = |source| Error::File { what: "open", path: path.to_owned(), source };
        file.map(OwnedFd::from).map_err(fail)
    }

    /// What is known of a directory.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        self.get(path).map_or_else(|| path.metadata(), File::metadata)
    }
}

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Kept {}

//! Directories of ended slices that become those of later ones. Making and removing two inodes was
//! a large part of what the spool cost for a short job, the more so on file systems that are slow
//! to give a freed inode out again (ext4 without a journal looks at every one that was freed in the
//! last minutes).
//!
//! A directory is filled before it gets its slice's name, so that whoever finds the name finds the
//! launch. What its former slice left in it is of another number and no record of the new one (see
//! `frames`). Neither the renaming nor the clearing is synced: after a power cut the records of an
//! ended slice may be found here or under a former slice's name, or those of one that was forgotten
//! at its old place. The first are moved where they belong, so that an end that was made durable is
//! found; the others are forgotten again, as any slice that comes back.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use muster_proto::shim::v1::Launch;

use crate::frames::{self, SliceFile};
use crate::spool::{SliceDir, SpoolError, fail, is_script, slim, spare};

/// Directories that are kept: what a busy node begins and ends within moments.
const KEPT: usize = 256;
/// A longer file of records is not kept: an environment may have some MiB.
const LONGEST: usize = 64 << 10;

/// The directories that wait for a slice. The agent's own.
#[derive(Debug)]
pub struct Spares {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<u64>,
    last: u64,
}

impl Spares {
    /// Begins with none. Of what an earlier agent kept, slices that were not forgotten go back to
    /// where they are looked for; so this comes before the spool is listed.
    ///
    /// # Errors
    /// When the directory cannot be listed, or what is in it not moved or removed.
    pub fn open(spool: &std::path::Path) -> Result<Self, SpoolError> {
        let dir = spare(spool);
        for entry in fs::read_dir(&dir).map_err(fail("list", &dir))? {
            let found = SliceDir::at(entry.map_err(fail("list", &dir))?.path());
            put_in_place(spool, &found, frames::slice_in(&found))?;
        }
        for (job, attempt, found) in SliceDir::list(spool)? {
            match frames::slice_in(&found) {
                Some(slice) if slice != (job, attempt) => put_in_place(spool, &found, Some(slice))?,
                _ => {}
            }
        }
        Ok(Self { dir, state: Mutex::default() })
    }

    /// As [`SliceDir::write_launch_beside`], in a directory that is there already where one is.
    ///
    /// # Errors
    /// The file system's; nothing of the slice is in the spool then, or as without spares.
    pub fn write_launch(
        &self,
        dir: &SliceDir,
        launch: &Launch,
        like: Option<&SliceDir>,
    ) -> Result<(), SpoolError> {
        let kept = self.state().free.pop();
        let Some(kept) = kept.map(|number| self.at(number)) else {
            return dir.write_launch_beside(launch, like);
        };
        let filled = fill(&kept, launch, like).and_then(|()| rename(&kept, dir));
        if filled.is_err() {
            // The slice may be here already, which a repeated wish may ask for.
            kept.remove()?;
            return dir.write_launch_beside(launch, like);
        }
        Ok(())
    }

    /// Removes a slice from the spool. Its directory is kept where nothing is in it but records and
    /// a script, and its shim has ended: `ended`.
    ///
    /// # Errors
    /// The file system's; the directory stays where it is then.
    pub fn take_back(&self, dir: &SliceDir, ended: bool) -> Result<(), SpoolError> {
        if !ended || !is_plain(dir) {
            return dir.remove();
        }
        let fits = |file: &SliceFile| file.has_ended() && file.length() <= LONGEST;
        let Some(mut file) = SliceFile::open(dir)?.filter(fits) else { return dir.remove() };
        let number = {
            let mut state = self.state();
            if state.free.len() >= KEPT {
                drop(state);
                return dir.remove();
            }
            state.last += 1;
            state.last
        };
        file.clear()?;
        rename(dir, &self.at(number))?;
        self.state().free.push(number);
        Ok(())
    }

    fn at(&self, number: u64) -> SliceDir {
        SliceDir::at(self.dir.join(number.to_string()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the numbers locked")
    }
}

/// Moves a directory to where its slice is looked for; removes one of no slice, or of one that is
/// there already.
fn put_in_place(
    spool: &std::path::Path,
    found: &SliceDir,
    slice: Option<(u32, u32)>,
) -> Result<(), SpoolError> {
    match slice.map(|(job, attempt)| SliceDir::of(spool, job, attempt)) {
        Some(place) if !place.path().exists() => rename(found, &place),
        Some(_) | None => found.remove(),
    }
}

/// Makes a kept directory that of a launch, but for its name.
fn fill(kept: &SliceDir, launch: &Launch, like: Option<&SliceDir>) -> Result<(), SpoolError> {
    let script = kept.script_path();
    if !launch.batch {
        remove_file(&script)?;
    } else if !is_script(&script, launch) {
        remove_file(&script)?;
        kept.write_script(launch, like)?;
    }
    let slice = (launch.job, launch.attempt);
    let mut file = SliceFile::create_for(kept, slice)?;
    file.write_launch(&slim(launch))?;
    file.note_kept()
}

fn remove_file(path: &std::path::Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", path)(e)),
        _ => Ok(()),
    }
}

fn rename(from: &SliceDir, to: &SliceDir) -> Result<(), SpoolError> {
    fs::rename(from.path(), to.path()).map_err(fail("rename", from.path()))
}

/// Whether nothing is in a slice's directory but its records and a script.
fn is_plain(dir: &SliceDir) -> bool {
    let Ok(entries) = fs::read_dir(dir.path()) else { return false };
    let plain = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == "slice" || entry.file_name() == "script")
    };
    entries.into_iter().all(plain)
}

#[cfg(test)]
mod tests;

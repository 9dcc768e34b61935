//! Reading and writing control files. A control file takes one write(2) per value and its answer
//! is the verdict, so nothing is buffered, created or truncated.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::Error;

/// Attempts of an rmdir that finds the group busy: exiting tasks leave a group a moment after
/// their zombies were reaped.
const REMOVE_ATTEMPTS: u32 = 40;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn write(path: &Path, value: &str) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| Error::File { what: "write", path: path.to_owned(), source })
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

/// Makes the directory; one that is already there is as good.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::File { what: "create", path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

/// Removes an empty group; one that is already gone is as good.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    let mut attempt = 0;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(source) => {
                return Err(Error::File { what: "remove", path: path.to_owned(), source });
            }
        }
    }
}

/// The number after `key` in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

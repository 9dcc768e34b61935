//! The agent's own files in a slice's directory, beside the shim's records.
//!
//! ```text
//!     prepared   the prolog is done: a restarted agent does not run it again
//!     end.pb     a SliceReport: the end of a slice whose exit record does not say all
//! ```
//!
//! Neither is synced: the page cache survives the agent, and after a power cut the boot id says
//! that the slice is gone whatever these files said.

use std::fs;
use std::io;

use muster_proto::agent::v1::SliceReport;
use muster_shim::SliceDir;
use prost::Message;

use super::job::{End, Job, Key, Phase};

/// Notes that the prolog is done.
///
/// # Errors
/// When the file cannot be made.
pub fn note_prepared(dir: &SliceDir) -> io::Result<()> {
    fs::write(dir.path().join("prepared"), [])
}

/// Whether the prolog is done.
#[must_use]
pub fn is_prepared(dir: &SliceDir) -> bool {
    dir.path().join("prepared").exists()
}

/// Writes a slice's end; of a slice that was never spooled nothing is written.
///
/// # Errors
/// When the file cannot be written or renamed.
pub fn write_end(dir: &SliceDir, key: Key, end: &End) -> io::Result<()> {
    if !dir.path().is_dir() {
        return Ok(());
    }
    let report = Job::new(false, 0, Phase::Over(end.clone())).hello(key);
    let beside = dir.path().join("end.pb.new");
    fs::write(&beside, report.encode_to_vec())?;
    fs::rename(&beside, dir.path().join("end.pb"))
}

/// The end that was written; `None` when none was, or half of one.
#[must_use]
pub fn read_end(dir: &SliceDir) -> Option<End> {
    let bytes = fs::read(dir.path().join("end.pb")).ok()?;
    End::from_report(SliceReport::decode(bytes.as_slice()).ok()?)
}

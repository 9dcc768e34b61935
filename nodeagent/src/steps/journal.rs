//! The table over the agent's end: one file beside the slice's own, records appended as they
//! happen. Not synced: it has to survive the agent, and after a power cut no step runs. It goes
//! with the slice's directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_proto::v1::StepRecord;
use prost::Message as _;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens a slice's journal, and reads what it says as far as it is whole.
    pub(super) fn open(slice: &Path) -> std::io::Result<(Journal, Vec<StepRecord>)> {
        let path = slice.join("steps");
        let bytes = std::fs::read(&path).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while let Ok(record) = StepRecord::decode_length_delimited(&mut rest) {
            records.push(record);
            if rest.is_empty() {
                break;
            }
        }
        Ok((Journal(options.open(path)?), records))
    }

    /// Adds a record.
    pub(super) fn write(&mut self, record: &StepRecord) -> std::io::Result<()> {
        self.0.write_all(&record.encode_length_delimited_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::Step;

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_none() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, none) = Journal::open(place.path()).unwrap();
        assert!(none.is_empty());
        let record = |step| StepRecord {
            step: Some(Step { job: 1, step, ..Step::default() }),
            ..StepRecord::default()
        };
        journal.write(&record(0)).unwrap();
        journal.write(&record(1)).unwrap();
        journal.0.write_all(&[200, 1, 1]).unwrap();
        let (_, records) = Journal::open(place.path()).unwrap();
        assert_eq!(records, [record(0), record(1)]);
    }
}

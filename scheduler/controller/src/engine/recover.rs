//! From what a log holds back to the state: the snapshot, then the tail through the same `apply`.

use muster_core::apply::apply;
use muster_core::state::State;
use muster_store::{Log, LogError};

use super::codec::{self, BadRecord};
use super::snapshot;

/// Why a state could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot read the snapshot at frame {index}")]
    Snapshot {
        index: u64,
        #[source]
        source: BadRecord,
    },
    #[error("cannot read frame {index}")]
    Frame {
        index: u64,
        #[source]
        source: BadRecord,
    },
}

/// A state as it was when the log's last commit was made.
#[derive(Debug)]
pub struct Recovery {
    pub state: State,
    /// The last commit's frame; 0: none.
    pub index: u64,
    /// What lies after the snapshot.
    pub tail_frames: u64,
    pub tail_bytes: u64,
    pub snapshot_bytes: u64,
}

/// Recovers the state.
///
/// # Errors
/// The log or a record in it is damaged, or of a newer version.
pub fn recover(log: &mut dyn Log) -> Result<Recovery, RecoverError> {
    let found = log.recover()?;
    let mut out = Recovery {
        state: State::new(),
        index: 0,
        tail_frames: found.tail.len() as u64,
        tail_bytes: found.tail.iter().map(|f| f.payload.len() as u64).sum(),
        snapshot_bytes: 0,
    };
    if let Some((index, bytes)) = found.snapshot {
        out.snapshot_bytes = bytes.len() as u64;
        out.index = index;
        out.state =
            snapshot::decode(bytes).map_err(|source| RecoverError::Snapshot { index, source })?;
    }
    for frame in found.tail {
        out.index = frame.index;
        match codec::decode(frame.payload) {
            Ok((_, events)) => events.iter().for_each(|event| apply(&mut out.state, event)),
            Err(BadRecord::UnknownKind) if frame.ignorable => {}
            Err(source) => return Err(RecoverError::Frame { index: frame.index, source }),
        }
    }
    Ok(out)
}

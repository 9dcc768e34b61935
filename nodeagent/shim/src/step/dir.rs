//! A step's directory in the spool.
//!
//! ```text
//! <spool>/steps/<job>.<attempt>.<step>/   0700
//!     order     what to do
//!     shim      who does it
//!     socket    where the asker comes back after the agent's end
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::shim::v1::{ShimRecord, StepOrder, StepShim, StopCause};
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{Look, PartFigures, StepInput, StepOutput, TaskSignal, step_input};
use prost::Message;

use crate::adopt::is_alive;
use crate::client::reachable;
use crate::spool::{PRIVATE, SpoolError, fail};

/// A shim that is asked for figures answers within its next turn.
const LOOK_WAIT: Duration = Duration::from_secs(2);
/// The longest answer, in bytes: the pids of a step.
const MAX_FIGURES: usize = 4 << 20;

/// The directory of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDir(PathBuf);

impl StepDir {
    /// The step's under `spool`.
    pub fn of(spool: &Path, job: u32, attempt: u32, step: u32) -> Self {
        Self(spool.join("steps").join(format!("{job}.{attempt}.{step}")))
    }

    /// A step's directory by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Every step in the spool: job, attempt, step.
    pub fn list(spool: &Path) -> Vec<(u32, u32, u32, Self)> {
        let entries = fs::read_dir(spool.join("steps")).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let mut ids = name.to_str()?.splitn(3, '.').map(str::parse::<u32>);
            let (job, attempt, step) = (ids.next()?.ok()?, ids.next()?.ok()?, ids.next()?.ok()?);
            Some((job, attempt, step, Self(entry.path())))
        };
        let mut found: Vec<_> = entries.filter_map(read).collect();
        found.sort_by_key(|(job, attempt, step, _)| (*job, *attempt, *step));
        found
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it with its order. A step of this number that was there is an error: numbers are used
    /// once.
    pub fn write_order(&self, order: &StepOrder) -> Result<(), SpoolError> {
        let steps = self.0.parent().unwrap_or(Path::new("."));
        match DirBuilder::new().mode(0o700).create(steps) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fail("create", steps)(e));
            }
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&self.0).map_err(fail("create", &self.0))?;
        write(&self.0.join("order"), &order.encode_to_vec())
    }

    pub(crate) fn read_order(&self) -> Result<StepOrder, SpoolError> {
        read(&self.0.join("order"))
    }

    pub(crate) fn claim(&self, shim: &StepShim) -> Result<(), SpoolError> {
        write(&self.0.join("shim"), &shim.encode_to_vec())
    }

    /// Whether the shim of this step runs.
    pub fn is_alive(&self) -> bool {
        read::<StepShim>(&self.0.join("shim")).is_ok_and(|shim| {
            is_alive(&ShimRecord {
                pid: shim.pid,
                start_ticks: shim.start_ticks,
                boot_id: shim.boot_id,
                ..ShimRecord::default()
            })
        })
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// Speaks with the shim.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let path = self.socket_path();
        let (path, _dir) = reachable(&path)?;
        UnixStream::connect(path)
    }

    /// What the step uses here now; none where its shim does not say so in time.
    pub fn figures(&self) -> Option<PartFigures> {
        let mut stream = self.connect().ok()?;
        stream.set_read_timeout(Some(LOOK_WAIT)).ok()?;
        stream.set_write_timeout(Some(LOOK_WAIT)).ok()?;
        let message = StepInput { kind: Some(step_input::Kind::Look(Look {})) }.encode_to_vec();
        let length = u32::try_from(message.len()).expect("some bytes").to_le_bytes();
        stream.write_all(&[&length[..], &message].concat()).ok()?;
        let mut length = [0u8; 4];
        stream.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; (u32::from_le_bytes(length) as usize).min(MAX_FIGURES)];
        stream.read_exact(&mut bytes).ok()?;
        match StepOutput::decode(bytes.as_slice()).ok()?.kind {
            Some(Said::Figures(figures)) => Some(figures),
            _ => None,
        }
    }

    /// Removes it; one that is gone is as good.
    pub fn remove(&self) {
        for name in ["order", "shim", "socket"] {
            let _ = fs::remove_file(self.0.join(name));
        }
        if fs::remove_dir(&self.0).is_err() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The name of a step's group inside its slice's.
#[must_use]
pub fn group_name(step: u32) -> String {
    format!("step_{step}")
}

/// Ends the tasks of every step of a slice at once: the job is over here. Where control groups hold
/// them they are gone already; elsewhere their shims know them by descent.
pub fn end_steps(spool: &Path, job: u32, attempt: u32, cause: StopCause) {
    let signal = TaskSignal {
        terminate: true,
        signal: libc::SIGKILL,
        cause: cause.into(),
        ..TaskSignal::default()
    };
    tell_steps(spool, job, attempt, None, signal);
}

/// The slice is about to be stopped for this cause, which its steps' users are to read.
pub(crate) fn announce_stop(spool: &Path, job: u32, attempt: u32, cause: StopCause) {
    let signal = TaskSignal { announce: true, cause: cause.into(), ..TaskSignal::default() };
    tell_steps(spool, job, attempt, None, signal);
}

/// A signal for the tasks of the slice's steps here, or of one of them.
pub fn signal_steps(spool: &Path, job: u32, attempt: u32, step: Option<u32>, signal: i32) {
    let signal = TaskSignal { signal, ..TaskSignal::default() };
    tell_steps(spool, job, attempt, step, signal);
}

fn tell_steps(spool: &Path, job: u32, attempt: u32, step: Option<u32>, signal: TaskSignal) {
    let message = StepInput { kind: Some(step_input::Kind::Signal(signal)) }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("some bytes").to_le_bytes();
    let frame = [&length[..], &message].concat();
    for (of, which, number, dir) in StepDir::list(spool) {
        if (of, which) == (job, attempt)
            && step.is_none_or(|step| step == number)
            && let Ok(mut stream) = dir.connect()
        {
            // A shim that hears nothing is ending.
            let _ = stream.write_all(&frame);
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path).map_err(fail("create", path))?;
    file.write_all(bytes).map_err(fail("write", path))
}

fn read<M: Message + Default>(path: &Path) -> Result<M, SpoolError> {
    let bytes = fs::read(path).map_err(fail("read", path))?;
    M::decode(bytes.as_slice())
        .map_err(|source| SpoolError::Record { path: path.to_owned(), source })
}

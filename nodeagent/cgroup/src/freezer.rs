//! freezer: stopping a group as a whole, for suspension and for killing without a race.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Error, Version, files};

/// How long a v1 freeze is waited for before the kill goes on without it: a task in
/// uninterruptible sleep cannot freeze, and it cannot fork either.
const FREEZE_WAIT: Duration = Duration::from_millis(200);
const FREEZE_PAUSE: Duration = Duration::from_micros(500);

/// Asks for the freeze or the thaw; does not wait.
pub(crate) fn set(version: Version, dir: &Path, frozen: bool) -> Result<(), Error> {
    match version {
        Version::V1 => {
            files::write(&dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
        }
        Version::V2 => files::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
    }
}

/// Whether all of the group stands still.
pub(crate) fn is_frozen(version: Version, dir: &Path) -> Result<bool, Error> {
    match version {
        Version::V1 => Ok(files::read(&dir.join("freezer.state"))?.trim() == "FROZEN"),
        Version::V2 => {
            let events = files::read(&dir.join("cgroup.events"))?;
            Ok(files::keyed(&events, "frozen") == Some(1))
        }
    }
}

/// Waits a moment for a freeze to be complete; says whether it is.
pub(crate) fn settle(version: Version, dir: &Path) -> Result<bool, Error> {
    let until = Instant::now() + FREEZE_WAIT;
    while !is_frozen(version, dir)? {
        if Instant::now() >= until {
            return Ok(false);
        }
        // v1 tries again to freeze stragglers only when the state is read or written.
        sleep(FREEZE_PAUSE);
    }
    Ok(true)
}

//! pids: how many processes and threads a group may hold.

use std::path::Path;

use crate::{Error, files};

/// Past `max`, fork and clone answer EAGAIN.
pub(crate) fn limit(dir: &Path, max: u64) -> Result<(), Error> {
    files::write(&dir.join("pids.max"), &max.to_string())
}

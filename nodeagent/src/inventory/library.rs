//! Asks NVIDIA's library with a bound. A library that hangs, as it does when a GPU or its driver does,
//! must keep no agent from its jobs: the node then comes up without GPUs, and what the library says
//! later is waited for by a thread of its own.
//!
//! What was set up without GPUs is not patched: an agent is cheap to start again, and its jobs do not
//! notice. That is done once. If the library is late again, an operator has to look.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use muster_config::NvmlLibrary;
use tokio::sync::oneshot;

use super::gpu::{Driver, Found};
use super::{Host, Roots};

/// So long a start waits for the library: eight GPUs that nobody kept ready take some 10 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// ... after a start that did not wait long enough.
const MORE_PATIENCE: Duration = Duration::from_secs(120);
/// In the spool of an agent that was started again because the library had been late.
const WAS_LATE: &str = "gpus-late";

/// The host as it is known at the start.
#[derive(Debug)]
pub struct Asked {
    pub driver: Driver,
    pub host: Host,
    /// The library has not answered.
    pub late: Option<Late>,
}

/// An answer that may come.
#[derive(Debug)]
pub struct Late {
    answer: Receiver<(Driver, Found)>,
    mark: Option<PathBuf>,
}

/// How long a start waits, and where it is kept that one waited in vain.
#[derive(Debug, Clone)]
pub struct Bound {
    patience: Duration,
    mark: Option<PathBuf>,
}

impl Bound {
    /// For a look that starts nothing.
    #[must_use]
    pub fn once() -> Self {
        Bound { patience: PATIENCE, mark: None }
    }

    /// For an agent with this spool; the controller gives up a node that is silent for `timeout`.
    #[must_use]
    pub fn of_agent(spool: &Path, timeout: Duration) -> Self {
        let mark = spool.join(WAS_LATE);
        let patience = match mark.exists() {
            true => MORE_PATIENCE.min(timeout / 2),
            false => PATIENCE.min(timeout / 4),
        };
        Bound { patience, mark: Some(mark) }
    }
}

/// Loads the library and looks at the host.
#[must_use]
pub fn ask(library: NvmlLibrary, roots: &Roots, bound: Bound) -> Asked {
    let (tell, answer) = channel();
    let place = roots.clone();
    std::thread::spawn(move || {
        let driver = Driver::load(&library);
        let found = Found::look(&driver, &place);
        // Whoever asked may be gone.
        let _ = tell.send((driver, found));
    });
    let Bound { patience, mark } = bound;
    match answer.recv_timeout(patience) {
        Ok((driver, found)) => {
            if let Some(mark) = &mark {
                let _ = std::fs::remove_file(mark);
            }
            Asked { driver, host: Host::with(roots, found), late: None }
        }
        Err(_) => {
            let why = format!("no answer within {} s", patience.as_secs());
            tracing::error!("NVIDIA's library: {why}; the node comes up without GPUs");
            let driver = Driver::Broken(why);
            let host = Host::with(roots, Found::look(&driver, roots));
            Asked { driver, host, late: Some(Late { answer, mark }) }
        }
    }
}

impl Late {
    /// Resolves when the library has answered and the agent is to start again.
    pub async fn answered(self) {
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let Ok((driver, found)) = self.answer.recv() else { return };
            if self.is_to_start(&driver, &found) {
                let _ = tell.send(());
            }
        });
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn is_to_start(&self, driver: &Driver, found: &Found) -> bool {
        let gpus = found.units.len();
        match (driver, &self.mark) {
            (Driver::Absent | Driver::Broken(_), _) => {
                let why = found.broken.as_deref().unwrap_or("it is not there");
                tracing::error!("NVIDIA's library answers at last, and does not work: {why}");
                false
            }
            (Driver::Loaded(_), Some(mark)) if !mark.exists() => {
                tracing::info!(
                    "NVIDIA's library answers at last: the agent starts again ({gpus} GPUs)"
                );
                std::fs::write(mark, "").is_ok()
            }
            (Driver::Loaded(_), _) => {
                tracing::error!(
                    "NVIDIA's library answers at last, late once more: restart the agent to use {gpus} GPUs"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_longer_after_one_that_waited_in_vain_and_never_until_the_node_is_given_up() {
        let spool = tempfile::tempdir().unwrap();
        let waits = |timeout| Bound::of_agent(spool.path(), Duration::from_secs(timeout)).patience;
        assert_eq!((waits(300).as_secs(), waits(20).as_secs()), (30, 5));
        std::fs::write(spool.path().join(WAS_LATE), "").unwrap();
        assert_eq!((waits(300).as_secs(), waits(20).as_secs()), (120, 10));
        let asked = ask(
            NvmlLibrary::None,
            &Roots::below(spool.path()),
            Bound::of_agent(spool.path(), Duration::from_secs(300)),
        );
        assert!(asked.late.is_none() && matches!(asked.driver, Driver::Absent));
        assert_eq!(waits(300).as_secs(), 30, "it answered in time");
    }
}

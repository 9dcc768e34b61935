//! Requests to the shim of one slice, one after another: a suspend and its resume must not
//! overtake each other. A shim that does not answer holds up nobody else.

use std::time::Duration;

use muster_proto::shim::v1::StopCause;
use muster_shim::{ClientError, ShimClient, SliceDir};
use tokio::sync::mpsc;

/// Words that wait for one shim. Only a flood of signals could fill it; what does not fit is said
/// to be lost.
const WORDS: usize = 64;
/// A shim that has just started may not listen yet: attempts, and the pause between them.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    Stop(StopCause, Duration),
    Suspend(bool),
    SetEnd(i64),
    /// Number, batch process only, batch process too.
    Signal(i32, bool, bool),
}

/// The way to one shim.
#[derive(Debug)]
pub(super) struct Teller(mpsc::Sender<Word>);

impl Teller {
    pub(super) fn new(dir: SliceDir) -> Self {
        let (tx, mut rx) = mpsc::channel::<Word>(WORDS);
        tokio::spawn(async move {
            while let Some(word) = rx.recv().await {
                say(&dir, word).await;
            }
        });
        Teller(tx)
    }

    pub(super) fn say(&self, word: Word) {
        if let Err(lost) = self.0.try_send(word) {
            tracing::error!("a shim does not keep up, lost: {lost}");
        }
    }
}

async fn say(dir: &SliceDir, word: Word) {
    for attempt in 1..=ATTEMPTS {
        let to = dir.clone();
        let said = tokio::task::spawn_blocking(move || ask(&to, word)).await;
        match said.expect("a request does not panic") {
            Ok(()) => return,
            // The end that was written meanwhile is all that could be wished for.
            Err(_) if matches!(dir.read_exit(), Ok(Some(_))) => return,
            Err(fault @ ClientError::Refused { .. }) => {
                tracing::warn!("{word:?}: {fault}");
                return;
            }
            Err(fault) if attempt == ATTEMPTS => tracing::warn!("{word:?}: {fault}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn ask(dir: &SliceDir, word: Word) -> Result<(), ClientError> {
    let mut shim = ShimClient::connect(dir)?;
    match word {
        Word::Stop(cause, kill_wait) => shim.stop(cause, kill_wait),
        Word::Suspend(suspended) => shim.suspend(suspended),
        Word::SetEnd(end_at) => shim.set_end(end_at),
        Word::Signal(signal, batch_only, full) => shim.signal(signal, batch_only, full),
    }
    .map(drop)
}

//! Signals that srun and salloc take instead of dying of them.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Every one that comes from now on, by number.
pub(crate) fn all() -> std::io::Result<mpsc::UnboundedReceiver<i32>> {
    use nix::libc::{
        SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
    };
    let (tell, told) = mpsc::unbounded_channel();
    for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH] {
        let mut stream = signal(SignalKind::from_raw(number))?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if tell.send(number).is_err() {
                    return;
                }
            }
        });
    }
    Ok(told)
}

//! A cluster on this machine: `muster up`, `down`, `env`, `links` and `demo`.
//!
//! A local cluster is a directory: the config, the cluster key, the controller's state, the
//! spools, logs and pids all lie in it, and the daemons are this very program started again. It
//! knows nothing of scheduling: what it wants to know it asks the controller, as every client.
//!
//! - `layout`: the directory's paths and the config that is written into it
//! - `daemons`: start, recognise and stop the processes
//! - `hosts`: names of nodes that resolve
//! - `up`, `down`, `links`: the commands; `demo`: a story told on such a cluster
//! - `cluster`: one that a command starts for its own use
//! - `ask`: the few questions that these commands put to the controller

mod ask;
mod cluster;
mod daemons;
mod demo;
mod down;
mod hosts;
mod layout;
mod links;
mod up;

use clap::Parser;
use clap::error::ErrorKind;

use crate::exit;

pub(crate) use cluster::Cluster;
pub use demo::demo;
pub use down::down;
pub use layout::Layout;
pub use links::{env, links};
pub use up::up;

/// Reads a command's words; a fault or `--help` is printed here and ends in an exit code.
fn read<T: Parser>(name: &'static str, words: &[String]) -> Result<T, i32> {
    let line = std::iter::once(format!("muster {name}")).chain(words.iter().cloned());
    T::try_parse_from(line).map_err(|fault| {
        let help = matches!(fault.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        // A closed stream leaves nobody to tell.
        let _ = fault.print();
        if help { exit::OK } else { exit::FAILED }
    })
}

/// Turns a command's result into an exit code; the whole chain of causes is one line.
fn finish(name: &str, result: anyhow::Result<()>) -> i32 {
    match result {
        Ok(()) => exit::OK,
        Err(fault) => {
            exit::error(&format!("muster {name}"), &format!("{fault:#}").replace('\n', " "));
            exit::FAILED
        }
    }
}

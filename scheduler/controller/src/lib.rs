//! The controller: the daemon around the engine.
//!
//! It authenticates, converts and answers; holds the agents' sessions; wakes the pass; writes the
//! history. Decides nothing: every change is a wish to the engine, every listing a short read of
//! its state. All it owns itself may be lost, and is made anew from the state after a start.
//!
//! - `engine/`: the one owner of the state and its log
//! - `rpc/`: the client API; `auth`, `users`: who calls
//! - `sessions/`: agents; `launch/`: what they are told to start
//! - `pass`: the scheduling pass, a client of the engine; `dump`: passes in files, to be run again;
//!   `estimates`: looks further ahead
//! - `duties`: the effects of commits, brought to whom they concern; `changes`: to those who
//!   watch; `recorder`: to the history; `upkeep`: ticks and purges
//! - `counts`: passes and calls in numbers
//! - `history/`: finished jobs in SQLite or PostgreSQL
//! - `show/`: state as messages; `cluster`: the config as the core sees it
//! - `serve`: sockets, TLS, start and end

pub mod auth;
pub mod changes;
pub mod cluster;
pub mod counts;
pub mod dump;
pub mod duties;
pub mod engine;
pub mod estimates;
pub mod history;
pub mod launch;
pub mod pass;
pub mod recorder;
pub mod rpc;
pub mod serve;
pub mod sessions;
pub mod show;
pub mod steps;
pub mod upkeep;
pub mod usage;
pub mod users;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use muster_config::Config;
use muster_model::Timestamp;
use tokio_util::sync::CancellationToken;

use auth::Auth;
use changes::Changes;
use counts::Counts;
use engine::EngineHandle;
use history::History;
use pass::Opinions;
use recorder::Recorder;
use sessions::hub::Hub;
use sessions::wanted::Scripts;
use steps::StepBook;
use usage::UsageBook;
use users::Users;

pub use serve::run;

/// What the parts of a running controller share.
pub struct Controller {
    pub engine: EngineHandle,
    pub auth: Auth,
    pub users: Users,
    pub hub: Hub,
    pub usage: UsageBook,
    pub steps: StepBook,
    pub scripts: Scripts,
    pub history: History,
    pub recorder: Recorder,
    pub changes: Changes,
    pub opinions: Opinions,
    pub counts: Counts,
    pub dumps: dump::Dumps,
    pub estimates: estimates::Estimates,
    pub started_at: Timestamp,
    /// Everything ends when it is cancelled.
    pub stop: CancellationToken,
    config: RwLock<Arc<Config>>,
}

impl Controller {
    /// The config in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.read().expect("the config is only replaced whole").clone()
    }

    /// Takes a config that was read again.
    pub fn set_config(&self, config: Config) {
        *self.config.write().expect("the config is only replaced whole") = Arc::new(config);
    }
}

/// The system's clock, for what is shown and for tokens; decisions use the engine's.
#[must_use]
pub fn now() -> Timestamp {
    engine::system_clock()()
}

/// `muster controller`: runs until SIGTERM or `scontrol shutdown`; the exit code.
#[must_use]
pub fn main(config: PathBuf) -> i32 {
    let log = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    // A second daemon in one process (a test) keeps the first one's log.
    _ = tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            eprintln!("muster controller: error: start the runtime: {fault}");
            return 1;
        }
    };
    match runtime.block_on(run(config)) {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("muster controller: error: {fault:#}");
            1
        }
    }
}

//! The scheduling pass: copies a view, plans off the engine's thread, hands the plan back as a
//! wish. Woken by commits (many wake-ups are one) and by a timer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use muster_config as config;
use muster_core::command::Command;
use muster_core::decide::Reply as Answer;
use muster_core::plan::{self, Plan, Policy, Reasons, why};
use muster_core::state::{Parts, State};
use muster_model::{NodeId, Timestamp};
use tokio::sync::Notify;

use crate::Controller;
use crate::dump::{self, Cause, Dump};
use crate::engine::EngineError;
use crate::estimates::Starts;

/// Commits come in bursts: a moment's wait lets one pass see them all.
const GATHER: Duration = Duration::from_millis(2);
/// ... but never longer than this.
const GATHER_MOST: Duration = Duration::from_millis(200);

/// What the last pass thought. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Opinions {
    wake: Arc<Notify>,
    reasons: Arc<RwLock<Arc<Reasons>>>,
    starts: Arc<RwLock<Starts>>,
    pub passes: Arc<AtomicU64>,
    pub last_at: Arc<AtomicI64>,
}

impl Opinions {
    /// Something may start now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Why everything waits.
    #[must_use]
    pub fn reasons(&self) -> Arc<Reasons> {
        self.reasons.read().expect("reasons are only replaced whole").clone()
    }

    /// The starts that it chose or promised.
    #[must_use]
    pub fn starts(&self) -> Starts {
        self.starts.read().expect("starts are only replaced whole").clone()
    }
}

/// How a pass chooses, as the config says.
#[must_use]
pub fn policy(of: &config::Scheduler) -> Policy {
    let order = match of.order {
        config::Order::Balanced => plan::Order::Balanced,
        config::Order::Priority => plan::Order::Priority,
        config::Order::Fcfs => plan::Order::Fcfs,
        config::Order::Sjf => plan::Order::Sjf,
        config::Order::F1 => plan::Order::F1,
        config::Order::Wfp3 => plan::Order::Wfp3,
    };
    let backfill = match of.backfill {
        config::Backfill::On => plan::Backfill::InOrder,
        config::Backfill::Off => plan::Backfill::Off,
        config::Backfill::Shortest => plan::Backfill::ShortestFirst,
    };
    let shadows = match of.shadows {
        config::Shadows::First(count) => count,
        config::Shadows::All => plan::ALL,
    };
    let packing = match of.packing {
        config::Packing::BestFit => plan::Packing::BestFit,
        config::Packing::FirstFit => plan::Packing::FirstFit,
        config::Packing::Spread => plan::Packing::Spread,
        config::Packing::Fgd => plan::Packing::Fgd,
        config::Packing::LeastFragments => plan::Packing::LeastFragments,
    };
    Policy { order, backfill, shadows, packing, ..Policy::default() }
}

/// A node that does not answer may be gone: what is not sent there need not be taken back.
pub fn leave_out_silent(controller: &Controller, view: &mut plan::View) {
    let grace = controller.grace();
    for (id, node) in (0u32..).zip(&mut view.nodes) {
        node.usable &= controller.hub.live(NodeId(id), grace).responding;
        node.usable &= controller.hub.is_clear(NodeId(id));
    }
}

/// Plans, for ever.
pub async fn run(controller: Arc<Controller>) {
    let mut took = Duration::ZERO;
    loop {
        let interval = controller.config().scheduler.pass_interval_seconds;
        let timer = tokio::time::sleep(Duration::from_secs(interval.into()));
        tokio::select! {
            () = controller.opinions.wake.notified() => {
                // As long as the last pass took: half of the time is for others.
                tokio::time::sleep(took.clamp(GATHER, GATHER_MOST)).await;
            }
            () = timer => {}
        }
        let began = Instant::now();
        let passed = pass(&controller).await;
        took = began.elapsed();
        match passed {
            Ok(true) => controller.opinions.wake(),
            Ok(false) => {}
            Err(EngineError::Stopped) => return,
            Err(fault) => tracing::error!(%fault, "a plan was refused"),
        }
    }
}

/// One pass; `true`: another one at once would find more to start.
///
/// # Errors
/// The engine's.
pub async fn pass(controller: &Controller) -> Result<bool, EngineError> {
    let began = Instant::now();
    let now = crate::now();
    let config = controller.config();
    let policy = policy(&config.scheduler);
    let watch = controller.dumps.begin();
    let watched = watch.is_some();
    let look =
        move |state: &State| (plan::view(state, now, &policy), watched.then(|| state.parts()));
    let (mut view, parts) = controller.engine.look(look).await?;
    let before: Option<Vec<bool>> =
        watched.then(|| view.nodes.iter().map(|node| node.usable).collect());
    leave_out_silent(controller, &mut view);
    let after = view.nodes.iter().map(|node| node.usable);
    let silent = before.iter().flatten().zip(after).enumerate();
    let silent: Vec<u32> = silent
        .filter(|(_, (before, after))| **before && !after)
        .map(|(at, _)| u32::try_from(at).expect("node numbers are 32 bits"))
        .collect();
    let fuel = config.scheduler.pass_fuel;
    let heads = view.groups.iter().map(|group| group.heads.len() as u64).sum();
    let planned = tokio::task::spawn_blocking(move || {
        let plan = plan::plan(&view, &policy, now, fuel);
        let promised = why::starts(&view, &plan, now);
        let chosen = watched.then(|| plan::listing::lines(&view, &plan));
        (plan, promised, chosen)
    });
    let (plan, promised, chosen) = planned.await.expect("plan does not panic");
    let Plan { starts, reasons, more, fuel_used, .. } = plan;
    let (wished, planned_in) = (starts.len(), began.elapsed());
    let mut refused = Vec::new();
    if wished > 0 {
        let reply = controller.engine.tell(Command::Commit(starts)).await?;
        if let Answer::Starts { refused: turned_down, .. } = reply.answer {
            refused = turned_down;
        }
    }
    *controller.opinions.reasons.write().expect("reasons are only replaced whole") =
        Arc::new(reasons);
    *controller.opinions.starts.write().expect("starts are only replaced whole") =
        Arc::new(promised);
    controller.opinions.passes.fetch_add(1, Relaxed);
    controller.opinions.last_at.store(now.0, Relaxed);
    let took = began.elapsed();
    controller.counts.passed(took, heads);
    let target = Duration::from_millis(config.scheduler.pass_target_ms.into());
    let symptom = dump::symptom(planned_in, target, wished, &refused);
    match symptom {
        Some(cause) => {
            let cause = cause.word();
            tracing::warn!(?took, wished, refused = refused.len(), fuel_used, cause, "a bad pass");
        }
        None if wished > 0 => tracing::debug!(?took, wished, fuel_used, "pass"),
        None => {}
    }
    if let (Some(watch), Some(parts), Some(chosen)) = (watch, parts, chosen) {
        let asked = watch.asked().then_some(Cause::Asked);
        if let Some(cause) = symptom.or(asked) {
            let refused = u32::try_from(refused.len()).unwrap_or(u32::MAX);
            let pass = Passed { now, fuel, policy, silent, chosen, took: planned_in, refused };
            watch.answer(&write_dump(&config, cause, pass, parts).await);
        }
    } else if symptom.is_some() && config.scheduler.pass_dumps > 0 {
        controller.dumps.watch();
    }
    // Without a start, another pass over the same state would find the same.
    Ok(more && wished > 0)
}

/// What a dump says of a pass besides the state.
struct Passed {
    now: Timestamp,
    fuel: u64,
    policy: Policy,
    silent: Vec<u32>,
    chosen: Vec<String>,
    took: Duration,
    refused: u32,
}

/// Writes a dump; the file, or in words why there is none.
async fn write_dump(
    config: &config::Config,
    cause: Cause,
    pass: Passed,
    parts: Parts,
) -> Result<PathBuf, String> {
    let (folder, kept) = (config.state_dir.clone(), config.scheduler.pass_dumps);
    if kept == 0 {
        return Err("scheduler.pass_dumps is 0 in the config: no dump is kept".to_owned());
    }
    let written = tokio::task::spawn_blocking(move || {
        let Passed { now, fuel, policy, silent, chosen, took, refused } = pass;
        let dump = Dump {
            now,
            fuel,
            policy,
            silent,
            chosen,
            cause: cause.word().to_owned(),
            took,
            refused,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: dump::stripped(parts),
        };
        dump.write(&folder, kept).map_err(|fault| fault.to_string())
    });
    let written = written.await.expect("writing a dump does not panic");
    match &written {
        Ok(path) => {
            let path = path.display();
            tracing::info!(cause = cause.word(), %path, "a pass was dumped: muster sim plan runs it again");
        }
        Err(fault) => tracing::warn!(%fault, "a pass could not be dumped"),
    }
    written
}

impl Controller {
    /// How long a node may be silent before it counts as not responding.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.config().scheduler.heartbeat_seconds) * 3)
    }
}

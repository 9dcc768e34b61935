//! The scheduling pass: copies a view, plans off the engine's thread, hands the plan back as a
//! wish. Woken by commits (many wake-ups are one) and by a timer.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use muster_config as config;
use muster_core::command::Command;
use muster_core::plan::{self, Plan, Policy, Reasons, why};
use muster_model::NodeId;
use tokio::sync::Notify;

use crate::Controller;
use crate::engine::EngineError;
use crate::estimates::Starts;

/// Commits come in bursts: a moment's wait lets one pass see them all.
const GATHER: Duration = Duration::from_millis(2);
/// ... but never longer than this.
const GATHER_MOST: Duration = Duration::from_millis(200);
/// A pass slower than this is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

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
    let policy = policy(&controller.config().scheduler);
    let mut view = controller.engine.look(move |state| plan::view(state, now, &policy)).await?;
    leave_out_silent(controller, &mut view);
    let fuel = controller.config().scheduler.pass_fuel;
    let planned = tokio::task::spawn_blocking(move || {
        let plan = plan::plan(&view, &policy, now, fuel);
        let promised = why::starts(&view, &plan, now);
        (plan, promised)
    });
    let (plan, promised) = planned.await.expect("plan does not panic");
    let Plan { starts, reasons, more, fuel_used, .. } = plan;
    let wished = starts.len();
    if wished > 0 {
        controller.engine.tell(Command::Commit(starts)).await?;
    }
    *controller.opinions.reasons.write().expect("reasons are only replaced whole") =
        Arc::new(reasons);
    *controller.opinions.starts.write().expect("starts are only replaced whole") =
        Arc::new(promised);
    controller.opinions.passes.fetch_add(1, Relaxed);
    controller.opinions.last_at.store(now.0, Relaxed);
    let took = began.elapsed();
    if took >= SLOW {
        tracing::warn!(?took, wished, fuel_used, "slow pass");
    } else if wished > 0 {
        tracing::debug!(?took, wished, fuel_used, "pass");
    }
    // Without a start, another pass over the same state would find the same.
    Ok(more && wished > 0)
}

impl Controller {
    /// How long a node may be silent before it counts as not responding.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.config().scheduler.heartbeat_seconds) * 3)
    }
}

//! The effects of commits, brought to whom they concern. They are derived, never stored: whoever
//! misses some asks the state for all that is outstanding.

use std::sync::Arc;

use muster_core::effect::Effect;
use muster_core::effects::outstanding;

use crate::Controller;
use crate::engine::Effects;

/// Brings duties, until the engine stops. `effects` was subscribed before the caller looked.
pub async fn run(controller: Arc<Controller>, mut effects: Effects) {
    bring_outstanding(&controller).await;
    while let Some(batch) = effects.next().await {
        match batch {
            Ok(batch) => bring(&controller, &batch),
            Err(lagged) => {
                tracing::warn!(%lagged, "looking at the whole state");
                bring_outstanding(&controller).await;
            }
        }
    }
}

async fn bring_outstanding(controller: &Controller) {
    if let Ok(all) = controller.engine.look(outstanding).await {
        bring(controller, &all);
    }
}

fn bring(controller: &Controller, effects: &[Effect]) {
    for effect in effects {
        match effect {
            Effect::Desire { node, job, attempt } => controller.hub.desire(*node, *job, *attempt),
            // Witnessed by the recorder itself.
            Effect::Record { .. } => {}
            Effect::Notify { job } => controller.changes.note(*job),
            Effect::WakePass => controller.opinions.wake(),
        }
    }
}

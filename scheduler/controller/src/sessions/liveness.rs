//! Nodes that were silent too long. A node that answers again registers anew; what became of its
//! jobs meanwhile was decided when it was given up.

use std::sync::Arc;
use std::time::Duration;

use muster_core::command::Command;
use muster_model::NodeId;

use crate::Controller;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Gives silent nodes up, for ever.
pub async fn watch(controller: Arc<Controller>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let timeout =
            Duration::from_secs(controller.config().scheduler.node_timeout_seconds.into());
        let Ok(expected) = controller
            .engine
            .look(|state| {
                let up =
                    state.nodes.iter().filter(|n| n.inventory.is_some() && n.health.down.is_none());
                up.map(|n| n.id).collect::<Vec<NodeId>>()
            })
            .await
        else {
            return;
        };
        for node in expected {
            if controller.hub.silence(node) >= timeout {
                tracing::warn!(node = node.0, "silent for {timeout:?}: given up");
                controller.hub.evict(node);
                if let Err(refusal) = controller.engine.tell(Command::NodeLost { node }).await {
                    tracing::warn!(node = node.0, %refusal, "node could not be given up");
                }
            }
        }
    }
}

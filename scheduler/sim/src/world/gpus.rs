//! GPUs that fail: for a while or for good, alone or two on a node. Their agent tells all that it sees,
//! again and again; an operator brings some back.

use std::collections::BTreeMap;

use muster_core::command::{Command, GpuFault, GpuVerb};
use muster_core::state::State;
use muster_model::{NodeId, Timestamp};

use super::client::OPERATOR;
use crate::dice::Dice;

/// What is wrong, by node and GPU.
#[derive(Debug, Default)]
pub(super) struct Gpus(BTreeMap<NodeId, BTreeMap<u8, GpuFault>>);

impl Gpus {
    /// Something changes on a node, or stays as it is, and is told; sometimes an operator acts.
    pub(super) fn turn(
        &mut self,
        state: &State,
        node: NodeId,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Vec<Command> {
        let has = state.node(node).map_or(0, |node| node.config.capacity.gres.values().sum());
        if has == 0 {
            return Vec::new();
        }
        let gpu = u8::try_from(dice.below(has)).expect("a node has few GPUs");
        let wrong = self.0.entry(node).or_default();
        match dice.below(4) {
            0 | 1 => {
                let stays = dice.permille(500);
                let reason = if stays { "Xid 79" } else { "hot" };
                wrong.insert(gpu, GpuFault { gpu, reason: reason.into(), stays, at: now });
            }
            2 => _ = wrong.remove(&gpu),
            _ => {}
        }
        let faults = wrong.values().cloned().collect();
        let mut out = vec![Command::GpuReport { node, faults }];
        if dice.permille(300) {
            let verb = match dice.permille(500) {
                true => GpuVerb::Drain { reason: "fan".into() },
                false => GpuVerb::Resume,
            };
            out.push(of_operator(node, vec![gpu], verb));
        }
        out
    }
}

/// An operator takes every GPU for good.
pub(super) fn tidy(state: &State) -> impl Iterator<Item = Command> {
    state.nodes.iter().filter(|node| !node.health.gpus.is_empty()).map(|node| {
        of_operator(node.id, node.health.gpus.keys().copied().collect(), GpuVerb::Resume)
    })
}

fn of_operator(node: NodeId, gpus: Vec<u8>, verb: GpuVerb) -> Command {
    Command::UpdateGpus { actor: OPERATOR, nodes: vec![node], gpus, verb }
}

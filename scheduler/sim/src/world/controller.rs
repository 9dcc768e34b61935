//! The controller's process: state, log and sessions. Dies and comes back from its log.

use std::collections::{BTreeMap, BTreeSet};

use muster_controller::engine::{Reply, Wish, recover, snapshot, step};
use muster_core::command::Command;
use muster_core::effect::Effect;
use muster_core::effects::outstanding;
use muster_core::event::Event;
use muster_core::rejection::Rejection;
use muster_core::state::State;
use muster_model::{NodeId, Timestamp};
use muster_store::{Fault, FaultKind, Log, LogError, Mem, MemDisk};

use crate::dice::Dice;

/// A running controller.
pub(super) struct Controller {
    log: Fault<Mem>,
    pub state: State,
    /// The open stream of each node.
    pub sessions: BTreeMap<NodeId, u64>,
    /// When each node was last heard of, or the controller's start.
    pub heard: BTreeMap<NodeId, Timestamp>,
    pub started_at: Timestamp,
}

/// What became of a batch of wishes.
pub(super) enum Committed {
    Done {
        replies: Vec<Result<Reply, Rejection>>,
        effects: Vec<Effect>,
    },
    /// The controller is dead. What the disk must tell afterwards: the state before the batch, or
    /// the one after it with these facts.
    Dead {
        expected: Box<State>,
        durable: Vec<Event>,
    },
}

impl Controller {
    /// Opens the log; the state must be the one that was promised.
    pub(super) fn start(
        disk: &MemDisk,
        expected: &State,
        now: Timestamp,
    ) -> Result<(Controller, Vec<Effect>), String> {
        let log = Mem::open(disk).map_err(|e| format!("the log does not open: {e}"))?;
        let mut log = Fault::new(log);
        let recovered = recover(&mut log).map_err(|e| format!("no recovery: {e}"))?;
        if recovered.state != *expected {
            return Err("the log tells another state than was promised".into());
        }
        let effects = outstanding(&recovered.state);
        let controller = Controller {
            log,
            state: recovered.state,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            started_at: now,
        };
        Ok((controller, effects))
    }

    /// One commit, which may be the last.
    pub(super) fn commit(
        &mut self,
        commands: Vec<Command>,
        now: Timestamp,
        fault: Option<FaultKind>,
        dice: &mut Dice,
    ) -> Result<Committed, String> {
        let before = fault.map(|kind| {
            self.log.plan(0, kind);
            self.state.clone()
        });
        let wishes = commands.into_iter().map(Wish::from).collect();
        let step = step(&mut self.state, wishes, now);
        let Some(batch) = step.commit else {
            return Ok(match before {
                // Nothing was to be written: it dies all the same.
                Some(before) => Committed::Dead { expected: Box::new(before), durable: Vec::new() },
                None => Committed::Done { replies: step.replies, effects: step.effects },
            });
        };
        match (self.log.append(batch), fault, before) {
            (Ok(index), None, _) => {
                if dice.permille(20) {
                    let bytes = snapshot::encode(&self.state.parts());
                    let written = self.log.snapshot(index, bytes);
                    written.map_err(|e: LogError| format!("no snapshot: {e}"))?;
                }
                Ok(Committed::Done { replies: step.replies, effects: step.effects })
            }
            (Err(_), Some(FaultKind::LoseReply), _) => {
                let durable = step.replies.into_iter().flatten().flat_map(|r| r.events).collect();
                Ok(Committed::Dead { expected: Box::new(self.state.clone()), durable })
            }
            (Err(_), Some(_), Some(before)) => {
                Ok(Committed::Dead { expected: Box::new(before), durable: Vec::new() })
            }
            (result, fault, _) => Err(format!("the log did {result:?} under {fault:?}")),
        }
    }

    /// Nodes that were silent for so long, as the controller sees it.
    pub(super) fn silent(&self, now: Timestamp, timeout_ms: i64) -> BTreeSet<NodeId> {
        let quiet = |node: &NodeId| {
            let heard = self.heard.get(node).copied().unwrap_or(self.started_at);
            now.since(heard) > timeout_ms
        };
        let nodes = self.state.nodes.iter();
        nodes
            .filter(|n| n.inventory.is_some() && n.health.down.is_none())
            .map(|n| n.id)
            .filter(quiet)
            .collect()
    }
}

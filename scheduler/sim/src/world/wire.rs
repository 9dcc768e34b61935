//! Streams and agents: what is on its way, who hears it, and who dies.

use std::collections::BTreeSet;

use muster_controller::sessions::reconcile::missing;
use muster_core::command::{Command, SliceReport};
use muster_core::effects::{desired, desired_of};
use muster_core::state::State;
use muster_model::{NodeId, TimeLimit, Timestamp};

use super::agent::{Orders, SliceId};
use super::{Happening, Said, Want, World, config};

impl World {
    /// When a message of a lane arrives; `None`: it is lost, and the stream with it.
    pub(super) fn arrival(&mut self, node: NodeId, to_agent: bool) -> Option<Timestamp> {
        if self.faults && self.dice.permille(10) {
            return None;
        }
        let late = self.faults && self.dice.permille(20);
        let ms = if late { self.dice.between(100, 20_000) } else { self.dice.between(1, 30) };
        let lane = self.lanes.entry((node, to_agent)).or_default();
        *lane = (*lane).max(Timestamp(self.now.0 + ms));
        Some(*lane)
    }

    pub(super) fn send(&mut self, node: NodeId, to_agent: bool, message: Happening) {
        let Some(at) = self.arrival(node, to_agent) else {
            self.note(format!("the stream of {node:?} breaks"));
            // The agent notices at once or, as here, a little later; the controller when the
            // agent dials anew or stays silent.
            self.agent(node).session = 0;
            let ms = self.dice.between(1, 8000);
            self.after(ms, Happening::Dial { node });
            return;
        };
        if self.faults && self.dice.permille(30) {
            self.at(at, message.clone());
        }
        self.at(at, message);
    }

    /// Tells an agent how far slices should be by now.
    pub(super) fn want(&mut self, node: NodeId, ids: &[SliceId]) {
        let Some(controller) = &self.controller else { return };
        let Some(session) = controller.sessions.get(&node).copied() else { return };
        let want = |id: &SliceId| {
            let (job, attempt) = *id;
            let desired = desired_of(&controller.state, node, job, attempt);
            Want { id: *id, desired, orders: orders(&controller.state, node, *id) }
        };
        let wants: Vec<Want> = ids.iter().map(want).collect();
        self.send(node, true, Happening::ToAgent { node, session, wants });
    }

    pub(super) fn say(&mut self, node: NodeId, said: Said) {
        let agent = self.agent(node);
        let session = agent.session;
        if agent.up && session != 0 {
            self.send(node, false, Happening::ToController { node, session, said });
        }
    }

    pub(super) fn controller_hears(
        &mut self,
        node: NodeId,
        session: u64,
        said: Said,
    ) -> Result<(), String> {
        let now = self.now;
        let Some(controller) = &mut self.controller else { return Ok(()) };
        let current = controller.sessions.get(&node).copied();
        match said {
            Said::Hello { boot, slices } if current.is_none_or(|c| c < session) => {
                controller.heard.insert(node, now);
                self.welcome(node, session, boot, slices)
            }
            _ if current != Some(session) => Ok(()),
            Said::Hello { .. } => Ok(()),
            Said::Heartbeat => {
                controller.heard.insert(node, now);
                Ok(())
            }
            Said::Reports(reports) => {
                controller.heard.insert(node, now);
                self.reported(node, reports).map(drop)
            }
        }
    }

    /// A stream opens: as the controller's session does it, in the same order.
    pub(super) fn welcome(
        &mut self,
        node: NodeId,
        session: u64,
        boot: u64,
        slices: Vec<(SliceId, Option<SliceReport>)>,
    ) -> Result<(), String> {
        let inventory = Box::new(config::inventory(&self.agents[node.0 as usize].config, boot));
        if self.commit(vec![Command::Register { node, inventory }])?.is_none() {
            return Ok(());
        }
        let Some(controller) = &mut self.controller else { return Ok(()) };
        controller.sessions.insert(node, session);
        let listed: BTreeSet<SliceId> = slices.iter().map(|(id, _)| *id).collect();
        let gone = missing(&controller.state, node, &listed);
        let reports = slices.into_iter().filter_map(|(id, report)| Some((id, report?))).collect();
        if !self.reported(node, reports)? {
            return Ok(());
        }
        let lost = || SliceReport::Lost { reason: "the agent does not know it".into() };
        if !self.reported(node, gone.into_iter().map(|id| (id, lost())).collect())? {
            return Ok(());
        }
        let Some(controller) = &self.controller else { return Ok(()) };
        let all =
            desired(&controller.state, node).into_iter().map(|(job, attempt, _)| (job, attempt));
        let lacks: Vec<SliceId> = all.filter(|id| !listed.contains(id)).collect();
        self.want(node, &listed.into_iter().collect::<Vec<_>>());
        self.want(node, &lacks);
        self.wake_pass();
        Ok(())
    }

    /// Commits reports; whether the controller lives on.
    pub(super) fn reported(
        &mut self,
        node: NodeId,
        reports: Vec<(SliceId, SliceReport)>,
    ) -> Result<bool, String> {
        for ((job, attempt), report) in reports {
            let command = Command::Slice { job, attempt, node, report };
            if self.commit(vec![command])?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    // ---- agents

    pub(super) fn dial(&mut self, node: NodeId) {
        let agent = &self.agents[node.0 as usize];
        if !agent.up || agent.session != 0 {
            return;
        }
        if self.controller.is_none() {
            let ms = self.dice.between(500, 5000);
            self.after(ms, Happening::Dial { node });
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        let agent = self.agent(node);
        agent.session = session;
        let said = Said::Hello { boot: agent.boot, slices: agent.listed() };
        self.say(node, said);
    }

    pub(super) fn agent_hears(&mut self, node: NodeId, session: u64, wants: Vec<Want>) {
        let (now, agent) = (self.now, &mut self.agents[node.0 as usize]);
        if !agent.up || agent.session != session {
            return;
        }
        let mut reports = Vec::new();
        for Want { id, desired, orders } in wants {
            let report = agent.want(id, desired, orders, now, &mut self.dice);
            reports.extend(report.map(|report| (id, report)));
        }
        if !reports.is_empty() {
            self.say(node, Said::Reports(reports));
        }
        self.slices_turn(node);
    }

    /// Slices whose time has come go on, and the next time is noted.
    pub(super) fn slices_turn(&mut self, node: NodeId) {
        let (now, agent) = (self.now, &mut self.agents[node.0 as usize]);
        if !agent.up {
            return;
        }
        let news = agent.advance(now, &mut self.dice);
        let reports: Vec<_> =
            news.into_iter().filter_map(|id| Some((id, agent.report(id)?))).collect();
        let next = agent.next();
        if !reports.is_empty() {
            self.say(node, Said::Reports(reports));
        }
        if let Some(next) = next.filter(|next| self.turns.insert((node, *next))) {
            self.at(next, Happening::SliceTurns { node });
        }
    }

    pub(super) fn agent_dies(&mut self, node: NodeId, reboot: bool) {
        let agent = self.agent(node);
        if !agent.up {
            return;
        }
        agent.up = false;
        agent.session = 0;
        if reboot {
            agent.reboot();
            self.tally.reboots += 1;
        } else {
            self.tally.agent_kills += 1;
        }
        let long = self.faults && self.dice.permille(200);
        let ms =
            if long { self.dice.between(60_000, 200_000) } else { self.dice.between(500, 20_000) };
        self.after(ms, Happening::AgentStarts { node });
    }

    pub(super) fn misfortune(&mut self) {
        if !self.faults {
            return;
        }
        let ms = self.dice.between(2000, 40_000);
        self.after(ms, Happening::Misfortune);
        let nodes = self.nodes();
        let node = *self.dice.pick(&nodes).expect("a cluster has nodes");
        match self.dice.below(10) {
            0..=2 => self.after(1, Happening::ControllerDies),
            3 => self.after(1, Happening::Reboot { node }),
            _ => self.after(1, Happening::AgentDies { node }),
        }
    }
}

/// What an agent needs to launch, as long as the slice is to be there.
fn orders(state: &State, node: NodeId, (job, attempt): SliceId) -> Option<Orders> {
    let job = state.jobs.get(&job).filter(|job| job.attempt == attempt)?;
    let held = job.phase.allocation()?;
    let slice = held.placement.slice(node)?.clone();
    let limit = held.time_limit.map(TimeLimit::Limited).or(job.spec.time_limit);
    let limit_ms = limit.and_then(|limit| limit.seconds()).map(|s| s * 1000);
    Some(Orders { slice, batch: held.batch_node() == Some(node), limit_ms })
}

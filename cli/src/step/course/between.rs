//! What passes between the nodes of a step, and what it means when a task or a node is missing there.

use muster_proto::v1::Aborted;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::step_output::Kind as Said;

use super::Course;
use crate::exit;
use crate::step::exchange::{Letter, Mail};

impl Course {
    /// A node speaks to others.
    pub(super) async fn between(&mut self, at: usize, said: Said) {
        let node = self.place.of_own(at);
        let mail = match said {
            Said::Gather(gather) => self.place.exchange().gather(node, gather),
            Said::Question(question) => self.place.exchange().question(node, question),
            Said::Answer(answer) => self.place.exchange().answer(node, answer),
            Said::Aborted(aborted) => return self.aborted(at, aborted).await,
            _ => return,
        };
        self.post(mail).await;
    }

    /// Another step of the same world speaks.
    pub(in crate::step) async fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Mail(at, ask) => self.deliver(at, *ask).await,
            // Those who wait have been told.
            Letter::Missing(_) | Letter::Ended if self.terminating => {}
            Letter::Missing(at) => self.end_without(at).await,
            Letter::Ended => {
                self.report.end_elsewhere();
                self.terminate(self.kill_wait).await;
            }
        }
    }

    /// Nothing will come from a node any more.
    pub(super) async fn no_more_from(&mut self, at: usize) {
        let node = self.place.of_own(at);
        let mail = self.place.exchange().lose(node, &self.nodes[at].part.node);
        self.post(mail).await;
    }

    async fn post(&mut self, mail: Vec<Mail>) {
        let fault = self.place.exchange().fault();
        if let Some(fault) = fault {
            match fault.node {
                // The others end anyway: errors of theirs would hide the reason.
                Some(_) if self.terminating => return,
                // Its tasks have ended as they liked; those who wait for them cannot go on.
                Some(node) if !self.wish.no_kill => {
                    return match self.place.own(node as usize, self.nodes.len()) {
                        Some(at) => self.end_without(at).await,
                        None if self.place.miss(node as usize) => {}
                        None => self.end_for(&fault.text).await,
                    };
                }
                _ => exit::error("srun", &fault.text),
            }
        }
        for (node, ask) in mail {
            match self.place.own(node, self.nodes.len()) {
                Some(at) => self.deliver(at, ask).await,
                None => self.place.send(node, ask),
            }
        }
    }

    async fn deliver(&mut self, at: usize, ask: Ask) {
        if self.nodes.get(at).is_some_and(|node| !node.over) {
            self.ask(at, ask).await;
        }
    }

    /// A node for which the others wait has no tasks any more.
    async fn end_without(&mut self, at: usize) {
        let rank = self.nodes[at].part.tasks.first().copied().unwrap_or_default();
        let task = rank + self.wish.first_rank;
        let text = "has ended and the others wait for it".to_owned();
        self.aborted(at, Aborted { task, code: None, text }).await;
    }

    /// The same of another step's node, of which nobody is left to say more.
    async fn end_for(&mut self, fault: &str) {
        exit::error("srun", fault);
        self.report.end_by(u32::MAX, Some(1));
        self.terminate(self.kill_wait).await;
    }

    /// A task ends the step for all.
    async fn aborted(&mut self, at: usize, aborted: Aborted) {
        if self.terminating {
            return;
        }
        let node = &self.nodes[at].part.node;
        exit::error("srun", &format!("{node}: task {} {}", aborted.task, aborted.text));
        // Ranks are the world's; the report's are the step's.
        self.report.end_by(aborted.task.saturating_sub(self.wish.first_rank), aborted.code);
        if self.report.ended() < self.grant.tasks as usize {
            self.say(&format!("Terminating StepId={}", self.id()));
        }
        self.terminate(self.kill_wait).await;
    }
}

//! What passes between the nodes of a step, and what it means when a task or a node is missing there.

use muster_proto::v1::Aborted;
use muster_proto::v1::step_output::Kind as Said;

use super::Course;
use crate::exit;
use crate::step::exchange::Mail;

impl Course {
    /// A node speaks to others.
    pub(super) async fn between(&mut self, at: usize, said: Said) {
        let mail = match said {
            Said::Gather(gather) => self.exchange.gather(at, gather),
            Said::Question(question) => self.exchange.question(at, question),
            Said::Answer(answer) => self.exchange.answer(at, answer),
            Said::Aborted(aborted) => return self.aborted(at, aborted).await,
            _ => return,
        };
        self.post(mail).await;
    }

    /// Nothing will come from a node any more.
    pub(super) async fn no_more_from(&mut self, at: usize) {
        let mail = self.exchange.lose(at, &self.nodes[at].part.node);
        self.post(mail).await;
    }

    async fn post(&mut self, mail: Vec<Mail>) {
        if let Some(fault) = self.exchange.fault() {
            match fault.node {
                // The others end anyway: errors of theirs would hide the reason.
                Some(_) if self.terminating => return,
                // Its tasks have ended as they liked; those who wait for them cannot go on.
                Some(node) if !self.wish.no_kill => {
                    let at = node as usize;
                    let task = self.nodes[at].part.tasks.first().copied().unwrap_or_default();
                    let text = "has ended and the others wait for it".to_owned();
                    return self.aborted(at, Aborted { task, code: None, text }).await;
                }
                _ => exit::error("srun", &fault.text),
            }
        }
        for (to, ask) in mail {
            if self.nodes.get(to).is_some_and(|node| !node.over) {
                self.ask(to, ask).await;
            }
        }
    }

    /// A task ends the step for all.
    async fn aborted(&mut self, at: usize, aborted: Aborted) {
        if self.terminating {
            return;
        }
        let node = &self.nodes[at].part.node;
        exit::error("srun", &format!("{node}: task {} {}", aborted.task, aborted.text));
        self.report.end_by(aborted.task, aborted.code);
        if self.report.ended() < self.grant.tasks as usize {
            self.say(&format!("Terminating StepId={}", self.id()));
        }
        self.terminate(self.kill_wait).await;
    }
}

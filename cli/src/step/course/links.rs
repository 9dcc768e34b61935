//! A stream to each node of the step: opened with its order, taken up again when it breaks, given
//! up when nobody comes back.

use std::time::Duration;

use bytes::Bytes;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::{AttachStep, Program, StepGrant, StepInput, Taken};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::end::terminate;
use super::order::order;
use super::{Course, Event, Node, Progress, QUEUE};
use crate::exit;
use crate::step::agents::{PATIENCE, PAUSE, is_passing};
use crate::step::sinks::Of;

/// A node that is away for longer is named: an agent that restarts is back before.
const NOTICE: Duration = Duration::from_secs(2);

impl Course {
    /// Sends each node its order.
    pub(in crate::step) fn start(
        &mut self,
        programs: &[Vec<String>],
        environment: Vec<u8>,
        grant: &StepGrant,
    ) {
        let environment = Bytes::from(environment);
        let wish = self.wish.clone();
        for (at, part) in grant.nodes.iter().enumerate() {
            let program = |argv: &Vec<String>| {
                let mut argv = argv.clone();
                if wish.command_by_node {
                    argv[0] = format!("{}_{}", argv[0], part.node);
                }
                Program { argv }
            };
            let programs = match wish.multi_prog {
                false => programs.iter().map(program).collect(),
                true => part.tasks.iter().map(|t| program(&programs[*t as usize])).collect(),
            };
            let order = order(&wish, grant, part, programs, environment.clone());
            let ask = self.dial(at, &part.node, vec![Ask::Start(order.clone())]);
            self.nodes.push(Node {
                part: part.clone(),
                ask,
                order: Some(Box::new(order)),
                over: false,
                stdin_taken: 0,
                stdin_closed: false,
                away_since: None,
                away_told: false,
            });
            for task in &part.tasks {
                for stream in [1, 2] {
                    let of = Of { node: at, task: *task, stream };
                    self.progress.insert(of, Progress::default());
                }
            }
        }
    }

    /// Opens a stream to a node, with these first messages.
    fn dial(&self, at: usize, node: &str, first: Vec<Ask>) -> mpsc::Sender<StepInput> {
        let (ask, asked) = mpsc::channel(QUEUE);
        for kind in first {
            ask.try_send(StepInput { kind: Some(kind) }).expect("a new queue has room for some");
        }
        let (agents, events, node) = (self.agents.clone(), self.events.clone(), node.to_owned());
        tokio::spawn(async move {
            let opened = match agents.of(&node).await {
                Ok(mut client) => client.run(ReceiverStream::new(asked)).await,
                Err(fault) => Err(Status::not_found(fault.to_string())),
            };
            let mut stream = match opened {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(events.send(Event::Out(at, Err(status))).await),
            };
            loop {
                let event = match stream.message().await {
                    Ok(Some(message)) => Event::Out(at, Ok(message)),
                    Ok(None) => return drop(events.send(Event::End(at)).await),
                    Err(status) => return drop(events.send(Event::Out(at, Err(status))).await),
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        ask
    }

    pub(super) async fn ask(&self, at: usize, kind: Ask) {
        // A node that is away hears it when it is back, or needs it no more.
        let _ = self.nodes[at].ask.send(StepInput { kind: Some(kind) }).await;
    }

    pub(super) async fn ask_all(&self, kind: &Ask) {
        for at in 0..self.nodes.len() {
            if !self.nodes[at].over {
                self.ask(at, kind.clone()).await;
            }
        }
    }

    /// A stream to a node broke: it is taken up again, or the node is given up.
    pub(super) async fn broken(&mut self, at: usize, status: &Status) {
        if self.nodes[at].over {
            return;
        }
        let now = Instant::now();
        let since = *self.nodes[at].away_since.get_or_insert(now);
        let node = self.nodes[at].part.node.clone();
        if is_passing(status) && now - since < PATIENCE {
            self.agents.doubt(&node);
            let events = self.events.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let _ = events.send(Event::Again(at)).await;
            });
            return;
        }
        let text = match is_passing(status) {
            true => format!("Node failure on {node}"),
            false => format!("{node}: {}", status.message()),
        };
        exit::error("srun", &text);
        self.lose(at).await;
    }

    /// A node has said something.
    pub(super) fn answers(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.away_since = None;
        if std::mem::take(&mut node.away_told) {
            let text = format!("{} answers again", node.part.node);
            self.say(&text);
        }
    }

    /// When nodes that are away are to be named.
    pub(super) fn notice_at(&self) -> Option<Instant> {
        let untold = self.nodes.iter().filter(|node| !node.over && !node.away_told);
        untold.filter_map(|node| node.away_since).min().map(|since| since + NOTICE)
    }

    /// Names the nodes that are away.
    pub(super) fn name_away(&mut self) {
        let now = Instant::now();
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let Some(since) = node.away_since.filter(|since| *since + NOTICE <= now) else {
                continue;
            };
            if !node.over && !std::mem::replace(&mut node.away_told, true) {
                let left = PATIENCE.saturating_sub(now - since).as_secs();
                let text =
                    format!("{} does not answer; waiting up to {left} seconds", node.part.node);
                self.say(&text);
            }
        }
    }

    /// Comes back to a node: with all that it may have missed.
    pub(super) async fn resume(&mut self, at: usize) {
        if self.nodes[at].over {
            return;
        }
        let mut first = match &self.nodes[at].order {
            // Nothing was heard of it: it may not have had its order. One that has it goes on.
            Some(order) => vec![Ask::Start((**order).clone())],
            None => vec![Ask::Attach(self.attachment(at))],
        };
        first.extend(self.stdin_again().filter(|_| !self.nodes[at].stdin_closed).map(Ask::Stdin));
        if self.terminating {
            first.push(Ask::Signal(terminate(self.kill_wait, self.cause)));
        }
        let node = self.nodes[at].part.node.clone();
        self.nodes[at].ask = self.dial(at, &node, first);
        let asked = self.place.exchange().again(self.place.of_own(at));
        for ask in asked {
            self.ask(at, ask).await;
        }
    }

    fn attachment(&self, at: usize) -> AttachStep {
        let of_node = self.progress.iter().filter(|(of, _)| of.node == at);
        let taken = of_node
            .map(|(of, p)| Taken { task: of.task, stream: of.stream, offset: p.written })
            .collect();
        AttachStep {
            job: self.grant.job,
            step: self.grant.step,
            resume: true,
            taken,
            stdin_sent: self.stdin_sent,
        }
    }

    /// The tasks of a node are none of ours any more.
    pub(super) async fn lose(&mut self, at: usize) {
        self.report.fault();
        self.nodes[at].over = true;
        for (of, progress) in &mut self.progress {
            if of.node == at {
                progress.end = true;
            }
        }
        if !self.wish.no_kill && !self.terminating {
            self.terminate(self.kill_wait).await;
        }
        self.no_more_from(at).await;
    }
}

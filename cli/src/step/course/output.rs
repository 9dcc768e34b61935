//! What tasks print: to its place, once, and the nodes told how far it is.

use std::collections::HashMap;

use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::{StepInput, Taken, TaskData};
use tokio::sync::mpsc;

use super::Course;
use crate::exit;
use crate::step::names;
use crate::step::sinks::{Manner, Of, Place, Written};
use crate::step::wish::Sink;

/// Bytes of a stream that are written before the node hears of it: a word for every line would
/// cost more than the line.
const TAKEN_STEP: u64 = 8 * 1024;

impl Course {
    /// Opens what output goes to.
    pub(in crate::step) fn open_places(&mut self, tell: mpsc::UnboundedSender<Written>) {
        let wish = self.wish.clone();
        let digits = self.grant.tasks.saturating_sub(1).max(1).ilog10() as usize + 1;
        let manner = Manner { label: wish.label, unbuffered: wish.unbuffered || wish.pty, digits };
        let names = self.names();
        // None: it could not be opened, which was said.
        let mut files: HashMap<String, Option<usize>> = HashMap::new();
        let err = wish.stderr.clone().unwrap_or_else(|| match &wish.stdout {
            // Errors go where output goes, unless that is srun's own.
            Sink::File(path) => Sink::File(path.clone()),
            Sink::Task(task) => Sink::Task(*task),
            _ => Sink::Own,
        });
        for (stream, sink) in [(1, wish.stdout.clone()), (2, err)] {
            let place = match sink {
                Sink::Nowhere | Sink::There(_) => continue,
                Sink::Own => Place::own(stream, manner, tell.clone()).map_err(|e| e.to_string()),
                Sink::Task(task) => {
                    self.only.insert(stream, task);
                    Place::own(stream, manner, tell.clone()).map_err(|e| e.to_string())
                }
                Sink::File(pattern) => {
                    let path = wish.workdir.join(names::expand(&pattern, &names));
                    let key = path.to_string_lossy().into_owned();
                    if let Some(at) = files.get(&key) {
                        self.places.extend(at.map(|at| (stream, at)));
                        continue;
                    }
                    let place = Place::file(&path, wish.append, manner, tell.clone());
                    files.insert(key, place.is_ok().then_some(self.sinks.len()));
                    place.map_err(|e| {
                        format!("Could not open file {}: {}", path.display(), exit::reason(&e))
                    })
                }
            };
            match place {
                Ok(place) => {
                    self.places.insert(stream, self.sinks.len());
                    self.sinks.push(place);
                }
                Err(fault) => self.fail(&fault),
            }
        }
    }

    pub(super) fn data(&mut self, at: usize, data: TaskData) {
        let of = Of { node: at, task: data.task, stream: data.stream };
        let Some(progress) = self.progress.get_mut(&of) else { return };
        // After a break some comes twice.
        let known = progress.received.saturating_sub(data.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.data.len());
        let fresh = data.data.slice(known..);
        if progress.end || (fresh.is_empty() && !data.end) {
            return;
        }
        progress.received += fresh.len() as u64;
        progress.end |= data.end;
        let end = progress.received;
        let wanted = self.only.get(&data.stream).is_none_or(|only| *only == data.task);
        match self.places.get(&data.stream).filter(|_| wanted) {
            Some(place) => self.sinks[*place].write(of, end, fresh, data.end),
            None => {
                progress.written = end;
                let taken = Taken { task: of.task, stream: of.stream, offset: end };
                let _ = self.nodes[at].ask.try_send(StepInput { kind: Some(Ask::Taken(taken)) });
            }
        }
    }

    pub(super) async fn written(&mut self, done: Written) {
        let Some(progress) = self.progress.get_mut(&done.of) else { return };
        progress.written = progress.written.max(done.offset);
        let whole = progress.written == progress.received;
        if progress.written - progress.told >= TAKEN_STEP
            || (whole && progress.written > progress.told)
        {
            progress.told = progress.written;
            let Of { node, task, stream } = done.of;
            let taken = Taken { task, stream, offset: progress.written };
            if !self.nodes[node].over {
                self.ask(node, Ask::Taken(taken)).await;
            }
        }
        if done.broken && !self.terminating {
            exit::error("srun", "write: Broken pipe");
            self.terminate(self.kill_wait).await;
        }
    }
}

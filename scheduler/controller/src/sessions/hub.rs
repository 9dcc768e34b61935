//! One seat per node: the outbox of its session, and what was last heard from it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_model::{Attempt, JobId, NodeId};
use muster_proto::agent::v1 as agent;
use tokio::sync::Notify;

use super::reconcile::SliceId;
use crate::show::node::Live;

/// Signals that wait for one agent at most. They are events, delivered best effort: a node that
/// takes none for so long is about to be given up anyway.
const SIGNALS_WAITING: usize = 1024;

/// All seats. Clones share them.
#[derive(Debug, Clone)]
pub struct Hub {
    seats: Arc<Mutex<HashMap<NodeId, Seat>>>,
    opened: Instant,
}

#[derive(Debug, Default)]
struct Seat {
    outbox: Option<Arc<Outbox>>,
    last_seen: Option<Instant>,
    load: f32,
    memory_free_mib: u64,
    agent_started_at: i64,
    /// Where its agent serves steps to other hosts; 0: nowhere.
    port: u32,
    /// What its GPUs did when they were last looked at.
    gpus: Vec<agent::GpuReading>,
    /// Slices that the agent still has and the state has let go of (the node was given up and came
    /// back): what they held is not free yet, whatever the ledger says.
    leftovers: BTreeSet<SliceId>,
}

/// What one session has yet to tell its agent.
#[derive(Debug, Default)]
pub struct Outbox {
    mail: Mutex<Mail>,
    wake: Notify,
}

/// Taken out whole by the session's writing half.
#[derive(Debug, Default)]
pub struct Mail {
    pub slices: BTreeSet<(JobId, Attempt)>,
    pub signals: Vec<agent::Signal>,
    /// Another session of the same node took the seat, or the node was given up.
    pub closed: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Hub { seats: Arc::default(), opened: Instant::now() }
    }
}

impl Hub {
    /// Gives a node's seat to a new session; an older one is told to end. Until
    /// [`Hub::has_leftovers`] is told which of the agent's slices are, all of `listed` count.
    #[must_use]
    pub fn open(
        &self,
        node: NodeId,
        (agent_started_at, port): (i64, u32),
        listed: BTreeSet<SliceId>,
    ) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        let seat = seats.entry(node).or_default();
        seat.agent_started_at = agent_started_at;
        seat.port = port;
        seat.last_seen = Some(Instant::now());
        seat.leftovers = listed;
        if let Some(old) = seat.outbox.replace(outbox.clone()) {
            old.close();
        }
        outbox
    }

    /// The session ended, unless a newer one has its seat already.
    pub fn close(&self, node: NodeId, outbox: &Arc<Outbox>) {
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        if let Some(seat) = seats.get_mut(&node)
            && seat.outbox.as_ref().is_some_and(|own| Arc::ptr_eq(own, outbox))
        {
            seat.outbox = None;
        }
    }

    /// What the agent has beyond the state's knowledge.
    pub fn has_leftovers(&self, node: NodeId, leftovers: BTreeSet<SliceId>) {
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.entry(node).or_default().leftovers = leftovers;
    }

    /// The state let go of a slice that the agent still has.
    pub fn leaves(&self, node: NodeId, slice: SliceId) {
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.entry(node).or_default().leftovers.insert(slice);
    }

    /// The agent says that nothing of this slice is left; `true`: it was the last leftover.
    #[must_use]
    pub fn cleared(&self, node: NodeId, slice: SliceId) -> bool {
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        let leftovers = &mut seats.entry(node).or_default().leftovers;
        leftovers.remove(&slice) && leftovers.is_empty()
    }

    /// Whether nothing but what the state knows of holds the node's resources.
    #[must_use]
    pub fn is_clear(&self, node: NodeId) -> bool {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.get(&node).is_none_or(|seat| seat.leftovers.is_empty())
    }

    /// Ends a node's session, if it has one: it was given up, and must register anew.
    pub fn evict(&self, node: NodeId) {
        if let Some(outbox) = self.outbox(node) {
            outbox.close();
        }
    }

    /// Something came from the node.
    pub fn heard(&self, node: NodeId, heartbeat: Option<&agent::Heartbeat>) {
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        let seat = seats.entry(node).or_default();
        seat.last_seen = Some(Instant::now());
        if let Some(beat) = heartbeat {
            seat.load = beat.load;
            seat.memory_free_mib = beat.memory_free_mib;
        }
    }

    /// What the node's GPUs do. A report without readings (a fault was told at once) changes nothing.
    pub fn gpus(&self, node: NodeId, readings: Vec<agent::GpuReading>) {
        if readings.is_empty() {
            return;
        }
        let mut seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.entry(node).or_default().gpus = readings;
    }

    /// What the node's GPUs did when they were last looked at.
    #[must_use]
    pub fn gpu_readings(&self, node: NodeId) -> Vec<agent::GpuReading> {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.get(&node).map_or_else(Vec::new, |seat| seat.gpus.clone())
    }

    /// What this node should have changed: its session will look. Without one its next Hello does.
    pub fn desire(&self, node: NodeId, job: JobId, attempt: Attempt) {
        if let Some(outbox) = self.outbox(node) {
            outbox.desire(job, attempt);
        }
    }

    /// Sends a signal; `false`: the node is not there, or takes none.
    #[must_use]
    pub fn signal(&self, node: NodeId, signal: agent::Signal) -> bool {
        self.outbox(node).is_some_and(|outbox| outbox.signal(signal))
    }

    /// How long the node has been silent; before its first word, since the controller began.
    #[must_use]
    pub fn silence(&self, node: NodeId) -> Duration {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.get(&node).and_then(|seat| seat.last_seen).unwrap_or(self.opened).elapsed()
    }

    /// What is shown of the node. It responds while its session stands, and for `grace` after.
    #[must_use]
    pub fn live(&self, node: NodeId, grace: Duration) -> Live {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        let Some(seat) = seats.get(&node) else {
            return Live { responding: self.opened.elapsed() < grace, ..Live::default() };
        };
        let silence = seat.last_seen.unwrap_or(self.opened).elapsed();
        Live {
            responding: silence < grace,
            load: seat.load,
            memory_free_mib: seat.memory_free_mib,
            agent_started_at: seat.agent_started_at,
            last_busy_at: 0,
            port: seat.port,
        }
    }

    /// The port on which the node's agent serves steps to other hosts; 0: not known, or none.
    #[must_use]
    pub fn port(&self, node: NodeId) -> u32 {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.get(&node).map_or(0, |seat| seat.port)
    }

    /// Nodes with a session.
    #[must_use]
    pub fn connected(&self) -> usize {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.values().filter(|seat| seat.outbox.is_some()).count()
    }

    fn outbox(&self, node: NodeId) -> Option<Arc<Outbox>> {
        let seats = self.seats.lock().expect("nobody panics with the seats locked");
        seats.get(&node)?.outbox.clone()
    }
}

impl Outbox {
    /// The wish about one slice may have changed.
    pub fn desire(&self, job: JobId, attempt: Attempt) {
        self.mail().slices.insert((job, attempt));
        self.wake.notify_one();
    }

    /// Waits for mail and takes all of it.
    pub async fn take(&self) -> Mail {
        loop {
            let mail = std::mem::take(&mut *self.mail());
            if mail.closed || !mail.slices.is_empty() || !mail.signals.is_empty() {
                return mail;
            }
            self.wake.notified().await;
        }
    }

    fn signal(&self, signal: agent::Signal) -> bool {
        let mut mail = self.mail();
        if mail.signals.len() >= SIGNALS_WAITING {
            return false;
        }
        mail.signals.push(signal);
        drop(mail);
        self.wake.notify_one();
        true
    }

    fn close(&self) {
        self.mail().closed = true;
        self.wake.notify_one();
    }

    fn mail(&self) -> std::sync::MutexGuard<'_, Mail> {
        self.mail.lock().expect("nobody panics with the mail locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wishes_about_one_slice_are_told_once() {
        let hub = Hub::default();
        let outbox = hub.open(NodeId(1), (5, 0), BTreeSet::new());
        for _ in 0..3 {
            hub.desire(NodeId(1), JobId(7), Attempt(1));
        }
        hub.desire(NodeId(2), JobId(8), Attempt(1));
        let mail = outbox.take().await;
        assert_eq!(mail.slices.into_iter().collect::<Vec<_>>(), [(JobId(7), Attempt(1))]);
    }

    #[tokio::test]
    async fn a_second_session_of_a_node_ends_the_first() {
        let hub = Hub::default();
        let first = hub.open(NodeId(1), (5, 0), BTreeSet::new());
        let second = hub.open(NodeId(1), (6, 0), BTreeSet::new());
        assert!(first.take().await.closed);
        hub.close(NodeId(1), &first);
        hub.desire(NodeId(1), JobId(7), Attempt(1));
        assert!(!second.take().await.slices.is_empty(), "the first one's end changes nothing");
        hub.close(NodeId(1), &second);
        assert!(!hub.signal(NodeId(1), agent::Signal::default()), "nobody is there");
    }

    #[test]
    fn a_node_is_clear_when_its_last_leftover_is() {
        let hub = Hub::default();
        let (old, known) = ((JobId(1), Attempt(1)), (JobId(2), Attempt(1)));
        let _outbox = hub.open(NodeId(1), (0, 0), [old, known].into());
        assert!(!hub.is_clear(NodeId(1)), "what it has is not compared yet");
        hub.has_leftovers(NodeId(1), [old].into());
        assert!(!hub.cleared(NodeId(1), known));
        assert!(!hub.is_clear(NodeId(1)));
        assert!(hub.cleared(NodeId(1), old));
        assert!(hub.is_clear(NodeId(1)));
    }

    #[test]
    fn signals_that_nobody_takes_are_bounded() {
        let hub = Hub::default();
        let _outbox = hub.open(NodeId(1), (0, 0), BTreeSet::new());
        let taken = (0..2000).filter(|_| hub.signal(NodeId(1), agent::Signal::default())).count();
        assert_eq!(taken, SIGNALS_WAITING);
    }
}

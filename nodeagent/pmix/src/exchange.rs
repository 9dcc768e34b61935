//! What is under way between this node and the others: fences that wait for the rest, and questions.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};

use muster_proto::shim::v1::pmix_output::Kind as Told;
use muster_proto::shim::v1::{PmixOrder, PmixOutput};
use muster_proto::v1::{Answer, Gather};
use prost::Message as _;

use crate::abi::{Done, Modex, RANK_WILDCARD};

/// Whom to call back, with the library's own mark, an address that is never looked at.
#[derive(Clone, Copy)]
pub(crate) enum Back {
    Modex(Modex, usize),
    Done(Done, usize),
}

type Key = (Vec<u8>, u64);

/// The state that the library's thread and ours share.
pub(crate) struct Exchange {
    order: PmixOrder,
    speech: Mutex<UnixStream>,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    /// Rounds by group.
    rounds: HashMap<Vec<u8>, u64>,
    fences: HashMap<Key, Back>,
    questions: HashMap<u64, Back>,
    asked: u64,
    /// Questions of others, by our own number: which node's, and its number.
    others: HashMap<u64, (u32, u64)>,
}

static EXCHANGE: OnceLock<Exchange> = OnceLock::new();

/// The one of this process; `None` before there is an order.
pub(crate) fn exchange() -> Option<&'static Exchange> {
    EXCHANGE.get()
}

/// Says one message to the shim.
pub(crate) fn say(to: &mut UnixStream, kind: Told) -> io::Result<()> {
    let message = PmixOutput { kind: Some(kind) };
    let length = u32::try_from(message.encoded_len()).map_err(io::Error::other)?;
    let mut frame = length.to_le_bytes().to_vec();
    message.encode(&mut frame).expect("a Vec has room");
    to.write_all(&frame)
}

impl Exchange {
    pub(crate) fn begin(order: PmixOrder, speech: UnixStream) -> &'static Exchange {
        EXCHANGE.get_or_init(|| Exchange {
            order,
            speech: Mutex::new(speech),
            under_way: Mutex::default(),
        })
    }

    pub(crate) fn order(&self) -> &PmixOrder {
        &self.order
    }

    pub(crate) fn say(&self, kind: Told) {
        // A shim that is gone ends this process by the end of its stream.
        let _ = say(&mut self.speech.lock().expect("no writer panics"), kind);
    }

    fn node_of(&self, rank: u32) -> Option<u32> {
        let at = self.order.nodes.iter().position(|node| node.tasks.contains(&rank))?;
        u32::try_from(at).ok()
    }

    /// The nodes of these ranks, in order.
    fn nodes_of(&self, ranks: &[u32]) -> Vec<u32> {
        let mut nodes: Vec<u32> = match ranks.contains(&RANK_WILDCARD) {
            true => (0..).take(self.order.nodes.len()).collect(),
            false => ranks.iter().filter_map(|rank| self.node_of(*rank)).collect(),
        };
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The tasks here are in: true where nobody else has to be, and the callback is the caller's.
    pub(crate) fn gather(&self, what: u8, ranks: &[u32], piece: &[u8], back: Back) -> bool {
        let nodes = self.nodes_of(ranks);
        if nodes.iter().all(|node| *node == self.order.index) {
            return true;
        }
        let mut sorted = ranks.to_vec();
        sorted.sort_unstable();
        let mut group = vec![what];
        sorted.iter().for_each(|rank| group.extend_from_slice(&rank.to_le_bytes()));
        let round = {
            let mut under_way = self.under_way.lock().expect("no holder panics");
            let next = under_way.rounds.entry(group.clone()).or_insert(0);
            let round = *next;
            *next += 1;
            under_way.fences.insert((group.clone(), round), back);
            round
        };
        let (group, piece) = (group.into(), piece.to_vec().into());
        self.say(Told::Gather(Gather { group, round, nodes, piece }));
        false
    }

    /// Whom the end of a fence is to be told.
    pub(crate) fn gathered(&self, group: &[u8], round: u64) -> Option<Back> {
        let mut under_way = self.under_way.lock().expect("no holder panics");
        under_way.fences.remove(&(group.to_vec(), round))
    }

    /// Asks the node of a rank for what the rank has put; false where there is none.
    pub(crate) fn ask(&self, rank: u32, back: Back) -> bool {
        let Some(node) = self.node_of(rank) else { return false };
        let number = {
            let mut under_way = self.under_way.lock().expect("no holder panics");
            under_way.asked += 1;
            let number = under_way.asked;
            under_way.questions.insert(number, back);
            number
        };
        let data = rank.to_le_bytes().to_vec().into();
        self.say(Told::Question(muster_proto::v1::Question { number, node, data }));
        true
    }

    pub(crate) fn answered(&self, number: u64) -> Option<Back> {
        self.under_way.lock().expect("no holder panics").questions.remove(&number)
    }

    /// Another node asks: our number for it; `None` where it has asked this already.
    pub(crate) fn asked(&self, node: u32, number: u64) -> Option<u64> {
        let mut under_way = self.under_way.lock().expect("no holder panics");
        if under_way.others.values().any(|other| *other == (node, number)) {
            return None;
        }
        under_way.asked += 1;
        let own = under_way.asked;
        under_way.others.insert(own, (node, number));
        Some(own)
    }

    pub(crate) fn tell(&self, own: u64, status: i32, answer: &[u8]) {
        let other = self.under_way.lock().expect("no holder panics").others.remove(&own);
        if let Some((node, number)) = other {
            let data = answer.to_vec().into();
            self.say(Told::Answer(Answer { number, node, data, status }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::NodeRanks;

    fn of_two_nodes() -> (Exchange, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let node = |name: &str, tasks: &[u32]| NodeRanks { node: name.into(), tasks: tasks.into() };
        let nodes = vec![node("n1", &[0, 1]), node("n2", &[2, 3])];
        let order = PmixOrder { nodes, index: 1, ..PmixOrder::default() };
        let exchange = Exchange { order, speech: Mutex::new(theirs), under_way: Mutex::default() };
        (exchange, ours)
    }

    #[test]
    fn a_fence_goes_to_the_nodes_of_its_ranks_and_comes_back_once() {
        let (exchange, _ours) = of_two_nodes();
        let back = Back::Done(None, 7);
        assert!(exchange.gather(b'f', &[2, 3], b"x", back), "all of them are here");
        assert!(!exchange.gather(b'f', &[RANK_WILDCARD], b"x", back));
        let mut group = vec![b'f'];
        group.extend_from_slice(&RANK_WILDCARD.to_le_bytes());
        assert!(exchange.gathered(&group, 1).is_none(), "the first round is 0");
        assert!(matches!(exchange.gathered(&group, 0), Some(Back::Done(None, 7))));
        assert!(exchange.gathered(&group, 0).is_none());
    }

    #[test]
    fn a_question_that_comes_twice_is_asked_once() {
        let (exchange, _ours) = of_two_nodes();
        let own = exchange.asked(0, 4).unwrap();
        assert_eq!(exchange.asked(0, 4), None);
        exchange.tell(own, 0, b"");
        assert!(exchange.asked(0, 4).is_some(), "its answer may have been lost");
        assert!(!exchange.ask(9, Back::Done(None, 0)), "there is no such rank");
    }
}

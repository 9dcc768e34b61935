//! What the nodes of a step tell each other, merged and passed on by srun, which has a stream to
//! each. Nothing here is looked into.
//!
//! A node whose stream broke says again what it has no answer to; srun keeps of each group what the
//! last round came to, and every question without an answer, so that nothing is lost between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::{Answer, Gather, Gathered, Question};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What all nodes say in one round, in bytes: within a message's bound, with room for the rest.
const LONGEST: usize = 24 << 20;
/// PMIx's word for what is not there.
const NOT_FOUND: i32 = -46;

/// To whom, and what.
pub(super) type Mail = (usize, Ask);

/// A group of nodes that speak with each other in rounds.
#[derive(Debug, Default)]
struct Group {
    round: u64,
    nodes: BTreeSet<u32>,
    pieces: BTreeMap<u32, Bytes>,
    /// What the round before came to.
    last: Option<Gathered>,
}

/// Why a round came to nothing.
#[derive(Debug)]
pub(super) struct Fault {
    /// The node that is missing, where one is.
    pub(super) node: Option<u32>,
    pub(super) text: String,
}

/// Everything that is under way between the nodes.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    groups: HashMap<Bytes, Group>,
    /// By who asks and its number.
    questions: BTreeMap<(u32, u64), Question>,
    /// Nodes from which nothing will come.
    gone: BTreeMap<u32, String>,
    fault: Option<Fault>,
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Exchange {
    /// A node's piece.
    pub(super) fn gather(&mut self, at: usize, said: Gather) -> Vec<Mail> {
        let group = self.groups.entry(said.group.clone()).or_default();
        if said.round < group.round {
            let again = group.last.iter().filter(|last| last.round == said.round);
            return again.map(|last| (at, Ask::Gathered(last.clone()))).collect();
        }
        group.nodes.extend(said.nodes);
        group.pieces.insert(index(at), said.piece);
        self.settle(&said.group)
    }

    /// Answers a round to which every node has come, or one cannot.
    fn settle(&mut self, key: &Bytes) -> Vec<Mail> {
        let Some(group) = self.groups.get_mut(key) else { return Vec::new() };
        if group.pieces.is_empty() {
            return Vec::new();
        }
        let missing = || group.nodes.iter().filter(|node| !group.pieces.contains_key(*node));
        let length: usize = group.pieces.values().map(Bytes::len).sum();
        let gone = missing().find_map(|node| self.gone.get_key_value(node));
        let fault = match gone {
            Some((_, node)) => format!("node {node} has no tasks any more"),
            None if length > LONGEST => format!("more than {LONGEST} bytes in one exchange"),
            None if missing().next().is_some() => return Vec::new(),
            None => String::new(),
        };
        if !fault.is_empty() {
            self.fault = Some(Fault { node: gone.map(|(node, _)| *node), text: fault.clone() });
        }
        let pieces = std::mem::take(&mut group.pieces);
        let to: Vec<u32> = pieces.keys().copied().collect();
        let pieces = if fault.is_empty() { pieces.into_values().collect() } else { Vec::new() };
        let gathered = Gathered { group: key.clone(), round: group.round, pieces, fault };
        group.round += 1;
        group.last = Some(gathered.clone());
        to.into_iter().map(|node| (node as usize, Ask::Gathered(gathered.clone()))).collect()
    }

    /// Why the last mail tells of a fault, said once.
    pub(super) fn fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// A node asks another.
    pub(super) fn question(&mut self, at: usize, said: Question) -> Vec<Mail> {
        let (from, number) = (index(at), said.number);
        if self.gone.contains_key(&said.node) {
            let none = Answer { number, node: said.node, status: NOT_FOUND, ..Answer::default() };
            return vec![(at, Ask::Answer(none))];
        }
        let to = said.node as usize;
        self.questions.insert((from, number), said.clone());
        vec![(to, Ask::Question(Question { node: from, ..said }))]
    }

    /// The other has an answer for the one who asked.
    pub(super) fn answer(&mut self, at: usize, said: Answer) -> Vec<Mail> {
        if self.questions.remove(&(said.node, said.number)).is_none() {
            return Vec::new();
        }
        let to = said.node as usize;
        vec![(to, Ask::Answer(Answer { node: index(at), ..said }))]
    }

    /// The node's stream is there again: what it was asked meanwhile.
    pub(super) fn again(&self, at: usize) -> Vec<Ask> {
        let asked = self.questions.iter().filter(|(_, question)| question.node == index(at));
        asked
            .map(|((from, _), question)| {
                Ask::Question(Question { node: *from, ..question.clone() })
            })
            .collect()
    }

    /// Nothing will come from a node any more: those who wait for it are told.
    pub(super) fn lose(&mut self, at: usize, name: &str) -> Vec<Mail> {
        self.gone.insert(index(at), name.to_owned());
        let mut keys: Vec<Bytes> = self.groups.keys().cloned().collect();
        keys.sort_unstable();
        let mut mail: Vec<Mail> = keys.iter().flat_map(|key| self.settle(key)).collect();
        let lost: Vec<(u32, u64)> = self
            .questions
            .iter()
            .filter(|(_, question)| question.node == index(at))
            .map(|(key, _)| *key)
            .collect();
        for (from, number) in lost {
            self.questions.remove(&(from, number));
            let none = Answer { number, node: index(at), status: NOT_FOUND, ..Answer::default() };
            mail.push((from as usize, Ask::Answer(none)));
        }
        mail
    }
}

/// What one step of several with one world hears from the others.
#[derive(Debug)]
pub(super) enum Letter {
    /// For one of its nodes.
    Mail(usize, Box<Ask>),
    /// The others wait for one of its nodes, which has no tasks any more.
    Missing(usize),
    /// A step elsewhere ends, and with it the world.
    Ended,
}

/// A step's place in the exchange: nodes are counted through all steps that have one world.
#[derive(Debug, Default)]
pub(super) struct Place {
    exchange: Arc<Mutex<Exchange>>,
    first: usize,
    /// The other steps, by their nodes. Few letters are under way: a node's next follows the answer.
    others: Vec<(Range<usize>, UnboundedSender<Letter>)>,
}

/// The places of steps that have so many nodes each, and what each hears.
pub(super) fn company(nodes: &[usize]) -> Vec<(Place, UnboundedReceiver<Letter>)> {
    let exchange = Arc::new(Mutex::new(Exchange::default()));
    let mut first = 0;
    let steps: Vec<_> = nodes
        .iter()
        .map(|count| {
            let range = first..first + count;
            first = range.end;
            let (tell, heard) = unbounded_channel();
            (range, tell, heard)
        })
        .collect();
    let tells: Vec<_> =
        steps.iter().map(|(range, tell, _)| (range.clone(), tell.clone())).collect();
    let place = |(range, _, heard): (Range<usize>, _, _)| {
        let others = tells.iter().filter(|(of, _)| *of != range).cloned().collect();
        (Place { exchange: exchange.clone(), first: range.start, others }, heard)
    };
    steps.into_iter().map(place).collect()
}

impl Place {
    pub(super) fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().expect("nobody panics in the exchange")
    }

    /// The world's number of a node of the step.
    pub(super) fn of_own(&self, at: usize) -> usize {
        self.first + at
    }

    /// The step's number of a node of the world; `None`: it is another step's.
    pub(super) fn own(&self, node: usize, count: usize) -> Option<usize> {
        node.checked_sub(self.first).filter(|at| *at < count)
    }

    /// Mail for a node of another step. One that is over needs none.
    pub(super) fn send(&self, node: usize, ask: Ask) {
        self.to_step_of(node, |at| Letter::Mail(at, Box::new(ask)));
    }

    /// A node of another step is missing. False: that step has heard its last.
    pub(super) fn miss(&self, node: usize) -> bool {
        self.to_step_of(node, Letter::Missing)
    }

    fn to_step_of(&self, node: usize, letter: impl FnOnce(usize) -> Letter) -> bool {
        let found = self.others.iter().find(|(range, _)| range.contains(&node));
        found.is_some_and(|(range, tell)| tell.send(letter(node - range.start)).is_ok())
    }

    /// All other steps are to end.
    pub(super) fn end_others(&self) {
        for (_, tell) in &self.others {
            let _ = tell.send(Letter::Ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_with_one_world_pass_on_what_is_for_each_others_nodes() {
        let mut places = company(&[1, 2]);
        let (second, mut of_second) = places.pop().unwrap();
        let (first, mut of_first) = places.pop().unwrap();
        assert_eq!((first.of_own(0), second.of_own(1)), (0, 2));
        assert_eq!((second.own(0, 2), second.own(1, 2), second.own(3, 2)), (None, Some(0), None));
        assert!(first.exchange().gather(0, piece(0, &[0, 1, 2], "a")).is_empty());
        assert!(second.exchange().gather(1, piece(0, &[0, 1, 2], "b")).is_empty());
        let mail = second.exchange().gather(2, piece(0, &[0, 1, 2], "c"));
        assert_eq!(told(&mail).len(), 3);
        let (node, ask) = mail.into_iter().next().unwrap();
        second.send(node, ask);
        let Ok(Letter::Mail(0, ask)) = of_first.try_recv() else { panic!("no mail") };
        assert!(matches!(*ask, Ask::Gathered(_)));
        assert!(second.miss(0) && matches!(of_first.try_recv(), Ok(Letter::Missing(0))));
        first.end_others();
        assert!(matches!(of_second.try_recv(), Ok(Letter::Ended)) && of_first.try_recv().is_err());
        drop(of_first);
        assert!(!second.miss(0), "nobody is there to hear it");
    }

    fn piece(round: u64, nodes: &[u32], text: &'static str) -> Gather {
        Gather { group: Bytes::from("g"), round, nodes: nodes.to_vec(), piece: Bytes::from(text) }
    }

    /// Who is told what: the pieces, or the fault.
    fn told(mail: &[Mail]) -> Vec<(usize, String)> {
        let show = |(to, ask): &Mail| match ask {
            Ask::Gathered(g) if g.fault.is_empty() => {
                let pieces: Vec<&str> =
                    g.pieces.iter().map(|p| std::str::from_utf8(p).unwrap()).collect();
                (*to, format!("{} {}", g.round, pieces.join("+")))
            }
            Ask::Gathered(g) => (*to, g.fault.clone()),
            Ask::Question(q) => (*to, format!("ask {} of {}", q.number, q.node)),
            Ask::Answer(a) => (*to, format!("answer {} of {}: {}", a.number, a.node, a.status)),
            other => (*to, format!("{other:?}")),
        };
        mail.iter().map(show).collect()
    }

    fn line(to: usize, text: &str) -> (usize, String) {
        (to, text.to_owned())
    }

    #[test]
    fn every_node_hears_all_pieces_when_the_last_has_come() {
        let mut exchange = Exchange::default();
        assert!(exchange.gather(2, piece(0, &[0, 2], "b")).is_empty());
        let mail = exchange.gather(0, piece(0, &[0, 2], "a"));
        assert_eq!(told(&mail), [line(0, "0 a+b"), line(2, "0 a+b")]);
        // The second round may begin while the first answer is on its way.
        assert!(exchange.gather(0, piece(1, &[0, 2], "c")).is_empty());
        let again = exchange.gather(2, piece(0, &[0, 2], "b"));
        assert_eq!(told(&again), [line(2, "0 a+b")], "one who came back hears it again");
        assert!(exchange.gather(0, piece(1, &[0, 2], "c")).is_empty(), "said twice, counted once");
        assert_eq!(exchange.gather(2, piece(1, &[0, 2], "d")).len(), 2);
    }

    #[test]
    fn a_node_that_is_lost_ends_the_waiting_now_and_later() {
        let mut exchange = Exchange::default();
        assert!(exchange.gather(0, piece(0, &[0, 1], "a")).is_empty());
        let question = Question { number: 5, node: 1, data: Bytes::new() };
        assert_eq!(told(&exchange.question(0, question.clone())), [line(1, "ask 5 of 0")]);
        let mail = exchange.lose(1, "n2");
        let fault = "node n2 has no tasks any more";
        assert_eq!(told(&mail), [line(0, fault), line(0, "answer 5 of 1: -46")]);
        assert_eq!(exchange.fault().and_then(|fault| fault.node), Some(1));
        assert!(exchange.fault().is_none(), "told once");
        assert_eq!(told(&exchange.gather(0, piece(1, &[0, 1], "a"))), [line(0, fault)]);
        assert_eq!(told(&exchange.question(0, question)), [line(0, "answer 5 of 1: -46")]);
    }

    #[test]
    fn a_question_is_asked_again_until_it_is_answered() {
        let mut exchange = Exchange::default();
        let question = Question { number: 1, node: 1, data: Bytes::new() };
        exchange.question(2, question);
        assert_eq!(exchange.again(1).len(), 1);
        assert!(exchange.again(0).is_empty());
        let answer = Answer { number: 1, node: 2, ..Answer::default() };
        assert_eq!(told(&exchange.answer(1, answer.clone())), [line(2, "answer 1 of 1: 0")]);
        assert!(exchange.answer(1, answer).is_empty() && exchange.again(1).is_empty());
    }

    #[test]
    fn too_much_at_once_is_a_fault_and_not_a_torn_stream() {
        let mut exchange = Exchange::default();
        let big = Gather { piece: Bytes::from(vec![0; LONGEST]), ..piece(0, &[0, 1], "") };
        assert!(exchange.gather(0, big).is_empty());
        let mail = exchange.gather(1, piece(0, &[0, 1], "x"));
        assert!(told(&mail).iter().all(|(_, text)| text.starts_with("more than")), "{mail:?}");
    }
}

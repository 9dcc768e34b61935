//! How the tasks of a step find each other, where they are to: PMI by this process itself, PMIx by
//! one of its own. What concerns other nodes is said to the asker, who merges what all nodes say
//! and tells each; until its answer is here it is said again to an asker who comes back.
//!
//! - `wire`, `mapping`, `pmi`: PMI-1 and PMI-2
//! - `host`: the process that hosts PMIx; `framed`: speech with it

mod framed;
mod host;
mod mapping;
mod pmi;
mod wire;

use std::io;
use std::os::fd::BorrowedFd;

use muster_proto::v1::step_input::Kind as Asked;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{
    Aborted, Answer, Gather, Mpi as Wish, MpiKind, NodeRanks, Question, StartStep,
};
use nix::poll::PollFlags;

use super::child::Common;
use host::Host;
use pmi::Pmi;

/// What may wait for other nodes at a time, in bytes, with this much for each message beside its
/// content. A task that asks for more ends its step: this process is root's.
const UNDER_WAY: usize = 64 << 20;
const EACH: usize = 256;

/// Where all tasks of the world are: of the step, or of several steps that have one.
#[derive(Clone, Debug)]
struct Layout {
    nodes: Vec<NodeRanks>,
    /// This node's.
    index: usize,
}

impl Layout {
    /// `None`: it does not fit the node's own part.
    fn of(start: &StartStep, wish: &Wish) -> Option<Self> {
        let (part, nodes) = (start.part.as_ref()?, &wish.nodes);
        let index = usize::try_from(wish.first_node.checked_add(part.index)?).ok()?;
        let mut ranks: Vec<u32> = nodes.iter().flat_map(|n| n.tasks.iter().copied()).collect();
        ranks.sort_unstable();
        let size = u32::try_from(ranks.len()).ok()?;
        let alone = wish.world.is_empty();
        let whole = ranks.iter().copied().eq(0..size) && (!alone || size == start.total_tasks);
        let own = part.tasks.iter().map(|rank| rank + start.first_rank);
        let mine = nodes.get(index).is_some_and(|node| node.tasks.iter().copied().eq(own));
        (whole && mine).then(|| Self { nodes: nodes.clone(), index })
    }

    fn own(&self) -> &[u32] {
        &self.nodes[self.index].tasks
    }

    fn size(&self) -> usize {
        self.nodes.iter().map(|node| node.tasks.len()).sum()
    }
}

/// What either kind has to say. Tasks are local ids where nothing else is said.
#[derive(Debug)]
enum News {
    Joined(usize),
    Left(usize),
    Aborted(Aborted),
    Gather(Gather),
    Question(Question),
    Answer(Answer),
}

#[derive(Debug)]
enum Kind {
    None,
    Pmi(Pmi),
    Pmix(Host),
}

/// Whether a task counts on the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It has not asked for them.
    Away,
    In,
    Left,
}

/// A task, as far as the others depend on it.
#[derive(Clone, Copy, Debug)]
struct Member {
    rank: u32,
    presence: Presence,
    ended: bool,
}

/// The tasks of this node among all of the step.
#[derive(Debug)]
pub(super) struct Mpi {
    kind: Kind,
    members: Vec<Member>,
    /// Said and not answered yet.
    gathers: Vec<Gather>,
    questions: Vec<Question>,
    aborted: Option<Aborted>,
    out: Vec<Said>,
}

impl Mpi {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            members: Vec::new(),
            gathers: Vec::new(),
            questions: Vec::new(),
            aborted: None,
            out: Vec::new(),
        }
    }

    /// Tasks that need not find each other.
    pub(super) fn none() -> Self {
        Self::of(Kind::None)
    }

    /// Everything that has to be there before the first task is.
    pub(super) fn begin(common: &Common<'_>) -> Result<Self, String> {
        let (order, start) = (common.order, common.start);
        let mut mpi = Self::none();
        let Some(wish) = start.mpi.as_ref().filter(|m| m.kind() != MpiKind::None) else {
            return Ok(mpi);
        };
        let layout = Layout::of(start, wish)
            .ok_or_else(|| "the ranks of the step are not where they should be".to_owned())?;
        mpi.members = layout
            .own()
            .iter()
            .map(|rank| Member { rank: *rank, presence: Presence::Away, ended: false })
            .collect();
        let name = match wish.world.as_str() {
            "" => format!("{}.{}", start.job, start.step),
            world => world.to_owned(),
        };
        mpi.kind = match wish.kind() {
            MpiKind::None => Kind::None,
            MpiKind::Pmi => Kind::Pmi(
                Pmi::new(name, layout).map_err(|e| format!("PMI: make a socket pair: {e}"))?,
            ),
            MpiKind::Pmix => Kind::Pmix(
                Host::start(common, name, layout)
                    .map_err(|e| format!("--mpi=pmix: {e} (node {})", order.node))?,
            ),
        };
        Ok(mpi)
    }

    /// What a task finds in its environment.
    pub(super) fn environment(&self, local: usize) -> Vec<Vec<u8>> {
        let pair = |(name, value): (String, String)| format!("{name}={value}").into_bytes();
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::Pmi(pmi) => pmi.environment(local).into_iter().map(pair).collect(),
            Kind::Pmix(host) => host.environment(local),
        }
    }

    /// Whether tasks keep files of ours open, see [`Mpi::keep`].
    pub(super) fn keeps(&self) -> bool {
        matches!(self.kind, Kind::Pmi(_))
    }

    /// In the task, when all other files are marked to be closed.
    pub(super) fn keep(&self, local: usize) -> io::Result<()> {
        match &self.kind {
            Kind::Pmi(pmi) => pmi.keep(local),
            Kind::None | Kind::Pmix(_) => Ok(()),
        }
    }

    /// Every task is forked.
    pub(super) fn launched(&mut self) {
        if let Kind::Pmi(pmi) = &mut self.kind {
            pmi.launched();
        }
    }

    /// What to wait for, by the number for [`Mpi::hear`].
    pub(super) fn fds(&self) -> Vec<(usize, BorrowedFd<'_>, PollFlags)> {
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::Pmi(pmi) => pmi.fds().collect(),
            Kind::Pmix(host) => host.fd().into_iter().map(|(fd, flags)| (0, fd, flags)).collect(),
        }
    }

    pub(super) fn hear(&mut self, at: usize) {
        match &mut self.kind {
            Kind::None => {}
            Kind::Pmi(pmi) => pmi.hear(at),
            Kind::Pmix(host) => host.hear(),
        }
        self.take_news();
    }

    /// What the asker says of other nodes.
    pub(super) fn take(&mut self, asked: Asked) {
        match (&mut self.kind, asked) {
            (_, Asked::Gathered(gathered)) => {
                self.gathers.retain(|g| (&g.group, g.round) != (&gathered.group, gathered.round));
                match &mut self.kind {
                    Kind::None => {}
                    Kind::Pmi(pmi) => pmi.gathered(&gathered),
                    Kind::Pmix(host) => host.gathered(gathered),
                }
            }
            (Kind::Pmix(host), Asked::Question(question)) => host.question(question),
            (Kind::Pmix(host), Asked::Answer(answer)) => {
                self.questions.retain(|question| question.number != answer.number);
                host.answer(answer);
            }
            _ => {}
        }
        self.take_news();
    }

    /// A task has ended; what it said before is heard first.
    pub(super) fn ended(&mut self, local: usize) {
        self.hear(local);
        if let Some(member) = self.members.get_mut(local) {
            member.ended = true;
        }
        self.count();
    }

    fn take_news(&mut self) {
        let news = match &mut self.kind {
            Kind::None => Vec::new(),
            Kind::Pmi(pmi) => pmi.news(),
            Kind::Pmix(host) => host.news(),
        };
        for one in news {
            match one {
                News::Joined(local) => self.mark(local, Presence::In),
                News::Left(local) => self.mark(local, Presence::Left),
                News::Aborted(aborted) => self.abort(aborted),
                News::Gather(_) | News::Question(_) if !self.has_room() => {
                    let task = self.members.first().map_or(0, |member| member.rank);
                    let text = "has too much under way between the nodes".to_owned();
                    self.abort(Aborted { task, code: Some(1), text });
                }
                News::Gather(gather) => {
                    self.gathers.push(gather.clone());
                    self.out.push(Said::Gather(gather));
                }
                News::Question(question) => {
                    self.questions.push(question.clone());
                    self.out.push(Said::Question(question));
                }
                News::Answer(answer) => self.out.push(Said::Answer(answer)),
            }
        }
        self.count();
    }

    fn has_room(&self) -> bool {
        let pieces = self.gathers.iter().map(|gather| gather.piece.len() + EACH);
        let questions = self.questions.iter().map(|question| question.data.len() + EACH);
        pieces.chain(questions).sum::<usize>() < UNDER_WAY
    }

    fn mark(&mut self, local: usize, presence: Presence) {
        if let Some(member) = self.members.get_mut(local) {
            member.presence = presence;
        }
    }

    fn abort(&mut self, aborted: Aborted) {
        if self.aborted.is_none() {
            self.out.push(Said::Aborted(aborted.clone()));
            self.aborted = Some(aborted);
        }
    }

    /// Whether somebody is gone on whom others count: without it they would wait for ever.
    fn count(&mut self) {
        let waits = match &self.kind {
            Kind::None => return,
            Kind::Pmi(pmi) => pmi.waits(),
            Kind::Pmix(_) => false,
        };
        let counting = self.members.iter().any(|m| m.presence == Presence::In && !m.ended);
        let gone = self.members.iter().filter(|m| m.ended).find_map(|m| match m.presence {
            Presence::In => Some((m.rank, "has ended without leaving MPI")),
            Presence::Away if counting => Some((m.rank, "has ended and the others wait for it")),
            Presence::Left if waits => Some((m.rank, "has ended and the others wait for it")),
            _ => None,
        });
        if let Some((task, text)) = gone {
            self.abort(Aborted { task, code: None, text: text.to_owned() });
        }
    }

    /// For the asker, since the last look.
    pub(super) fn news(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.out)
    }

    /// Everything that is not answered yet, for an asker who comes back.
    pub(super) fn again(&self) -> Vec<Said> {
        let gathers = self.gathers.iter().cloned().map(Said::Gather);
        let questions = self.questions.iter().cloned().map(Said::Question);
        gathers.chain(questions).chain(self.aborted.clone().map(Said::Aborted)).collect()
    }

    /// A child of the shim has ended; whether it was ours.
    pub(super) fn buried(&mut self, pid: i32) -> bool {
        let Kind::Pmix(host) = &mut self.kind else { return false };
        let ours = host.buried(pid);
        self.take_news();
        ours
    }

    /// No task is left. False: something of ours still has to end.
    pub(super) fn close(&mut self) -> bool {
        match &mut self.kind {
            Kind::Pmix(host) => host.close(),
            Kind::None | Kind::Pmi(_) => true,
        }
    }

    /// Until when that may take.
    pub(super) fn deadline(&self) -> Option<std::time::Instant> {
        match &self.kind {
            Kind::Pmix(host) => host.deadline(),
            Kind::None | Kind::Pmi(_) => None,
        }
    }
}

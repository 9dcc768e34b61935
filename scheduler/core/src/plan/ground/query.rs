//! What a group asks of the nodes.

use std::borrow::Cow;
use std::sync::Arc;

use muster_model::Timestamp;
use smallvec::{SmallVec, smallvec};

use super::super::axes::Amounts;
use super::super::calendar::Want;
use super::super::demand::{Demand, Uniform};
use super::super::nodeset::NodeSet;
use super::Ground;

/// What a group asks of the nodes, and how far its search came.
#[derive(Debug)]
pub struct Query {
    pub demand: Demand,
    /// Nodes in service that could be part of it as far as their nature goes.
    pub base: Arc<NodeSet>,
    pub(super) uniform: Option<(Uniform, Want)>,
    /// The least that a node must have to take any part; nothing where parts are always even.
    pub(super) least: Want,
    /// Nodes of `base` are asked for different amounts.
    pub(super) uneven: bool,
    /// By their place in the calendar's list.
    pub licenses: Vec<(usize, u32)>,
    /// Runs of this length or longer do not fit now; milliseconds.
    pub fails_now: Option<i64>,
    /// Runs of this length or longer do not fit before this time.
    pub not_before: Option<(i64, Timestamp)>,
    pub kept_licenses: Vec<KeptLicenses>,
    /// Since when its first job waits: a wish for few switches lapses.
    pub eligible_at: Timestamp,
    /// Whether it could be served if nobody ran anything.
    pub possible: Option<bool>,
    /// The partition's reservation windows in which nodes are closed to it, or its own.
    pub closures: Vec<Closure>,
}

/// Nodes that are closed for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Closure {
    pub from: Timestamp,
    pub until: Timestamp,
    pub nodes: NodeSet,
}

/// Licences that a reservation of others keeps for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLicenses {
    pub from: Timestamp,
    pub until: Timestamp,
    /// Place in the calendar's list.
    pub license: usize,
    pub count: u32,
}

impl Query {
    /// The query of a demand; `base` holds the nodes that could serve it.
    #[must_use]
    pub fn new(
        demand: Demand,
        base: Arc<NodeSet>,
        licenses: Vec<(usize, u32)>,
        closures: Vec<Closure>,
        eligible_at: Timestamp,
        ground: &Ground<'_>,
    ) -> Self {
        let axes = ground.axes.len();
        let mut smallest: SmallVec<[u32; 8]> = smallvec![0; axes];
        let mut uneven = false;
        if demand.follows_node() && !base.is_empty() {
            smallest.fill(u32::MAX);
            let mut first: Option<&[u32]> = None;
            for node in base.iter() {
                let whole = ground.whole_of(node);
                uneven |= *first.get_or_insert(whole) != whole;
                smallest.iter_mut().zip(whole).for_each(|(least, n)| *least = (*least).min(*n));
            }
        }
        let uniform = demand.uniform().map(|uniform| {
            let mut need = Amounts::new();
            demand.amounts(uniform.tasks, &uniform.shares, &smallest, &mut need);
            (uniform, ground.calendar.want(need))
        });
        let even = uniform.as_ref().is_some_and(|(uniform, _)| uniform.only);
        let least = if even { Amounts::new() } else { least(&demand, &smallest) };
        let least = ground.calendar.want(least);
        Query {
            demand,
            base,
            uniform,
            least,
            uneven,
            licenses,
            fails_now: None,
            not_before: None,
            kept_licenses: Vec::new(),
            eligible_at,
            possible: None,
            closures,
        }
    }
}

/// What a node must have to take any part; `whole`: what the smallest one has.
fn least(demand: &Demand, whole: &[u32]) -> Amounts {
    let ones = vec![1; demand.ask.job_gres.len()];
    let tasks = match (demand.ask.tasks, demand.ask.tasks_per_node) {
        (None, Some(per_node)) => per_node,
        (Some(_), _) | (None, None) => 1,
    };
    let mut least = Amounts::new();
    demand.amounts(tasks, &ones, whole, &mut least);
    least
}

impl Query {
    /// What must be unused for a run in this window: its own licences, and those kept for others.
    #[must_use]
    pub fn licenses_needed(
        &self,
        start: Timestamp,
        until: Option<Timestamp>,
    ) -> Cow<'_, [(usize, u32)]> {
        if self.kept_licenses.is_empty() {
            return Cow::Borrowed(&self.licenses);
        }
        let meets = |k: &&KeptLicenses| until.is_none_or(|u| k.from < u) && k.until > start;
        let kept = |license: usize| -> u32 {
            let of = self.kept_licenses.iter().filter(meets).filter(|k| k.license == license);
            of.map(|k| k.count).fold(0, u32::saturating_add)
        };
        let need = |(license, n): &(usize, u32)| (*license, n.saturating_add(kept(*license)));
        self.licenses.iter().map(need).collect()
    }
}

//! Finds nodes for one job: all of them or none.
//!
//! Works on rows (what is free, or at submission what there is at all), through [`Pool`]. A
//! [`Search`] belongs to one shape in one partition and remembers how far its nodes are used up:
//! within a pass free only shrinks, so a burst of starts looks at every node about once.

use muster_model::{CpuSet, GresKind, GresMask, NodeId, Placement, Slice};

use crate::state::{Facts, Row};

use super::ask::{Ask, Need};

/// Where rows come from.
pub trait Pool {
    fn free(&self, node: NodeId) -> &Row;
    fn facts(&self, node: NodeId) -> &Facts;
    /// Whether this pass may give the node to anybody further down the queue.
    fn open(&self, node: NodeId) -> bool;
}

/// How much of a job one node could take.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cap {
    node: NodeId,
    tasks: u32,
    /// Parallel to `Ask::job_gres`.
    shares: Vec<u64>,
}

/// One list of candidate nodes, lightest first.
#[derive(Debug, Clone, Default)]
struct Candidates {
    nodes: Vec<NodeId>,
    /// Nodes before this one cannot take a whole job.
    single_from: usize,
    /// Nodes before this one cannot take any part of a job.
    any_from: usize,
}

/// The search for one shape in one partition.
#[derive(Debug, Clone)]
pub struct Search {
    ask: Ask,
    lists: Vec<Candidates>,
    required: Vec<NodeId>,
    /// A node that the job must have is not among the candidates.
    missing: bool,
}

impl Search {
    /// `members`: the nodes of the partition that may be used, ascending.
    #[must_use]
    pub fn new(ask: Ask, members: impl Iterator<Item = NodeId>, pool: &impl Pool) -> Self {
        let mut nodes: Vec<NodeId> =
            members.filter(|node| admits(&ask, pool.facts(*node))).collect();
        // Stable: nodes of one weight stay in the order of the config.
        nodes.sort_by_key(|node| pool.facts(*node).weight);
        let named = |name: &str| nodes.iter().find(|n| *pool.facts(**n).name == *name).copied();
        let required: Vec<NodeId> = ask.required.iter().filter_map(|name| named(name)).collect();
        let missing = required.len() < ask.required.len();
        let list = |nodes| Candidates { nodes, ..Candidates::default() };
        let lists = if ask.alternatives.is_empty() {
            vec![list(nodes)]
        } else {
            let having = |option: &muster_model::Constraint| {
                let fits = |node: &&NodeId| {
                    let facts = pool.facts(**node);
                    option.admits(&|name| facts.has_feature(name))
                };
                list(nodes.iter().filter(fits).copied().collect())
            };
            ask.alternatives.iter().map(having).collect()
        };
        Search { ask, lists, required, missing }
    }

    #[must_use]
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The same search as if nothing had been looked at.
    #[must_use]
    pub fn clone_afresh(&self) -> Search {
        let mut fresh = self.clone();
        for list in &mut fresh.lists {
            (list.single_from, list.any_from) = (0, 0);
        }
        fresh
    }

    /// Every node that could be part of the job.
    pub fn candidates(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.lists.iter().flat_map(|list| list.nodes.iter().copied())
    }

    /// Whether a node that the job asks for by name cannot be had at all.
    #[must_use]
    pub fn lacks_required(&self) -> bool {
        self.missing
    }

    /// A placement for one more job of this shape. Every node looked at costs a unit of `fuel`;
    /// when it runs out, nothing is found.
    pub fn place(&mut self, pool: &impl Pool, fuel: &mut u64) -> Option<Placement> {
        if self.missing {
            return None;
        }
        let Search { ask, lists, required, .. } = self;
        lists.iter_mut().find_map(|list| {
            let caps = choose(ask, list, required, pool, fuel)?;
            build(ask, caps, pool)
        })
    }
}

/// Whether a node may be part of the job as far as its nature goes.
fn admits(ask: &Ask, facts: &Facts) -> bool {
    let has = |name: &str| facts.has_feature(name);
    !ask.excluded.iter().any(|name| **name == *facts.name)
        && ask.constraint.as_ref().is_none_or(|c| c.admits(&has))
        && ask.threads_per_core.is_none_or(|n| facts.threads_per_core >= n)
        && ask.sockets_per_node.is_none_or(|n| facts.sockets >= n)
}

fn choose(
    ask: &Ask,
    list: &mut Candidates,
    required: &[NodeId],
    pool: &impl Pool,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let plain = required.is_empty() && ask.counts.is_empty() && !ask.contiguous;
    if plain && ask.min_nodes == 1 && (ask.max_nodes == Some(1) || !ask.takes_more_nodes()) {
        if let Some(cap) = single(ask, list, pool, fuel) {
            return Some(vec![cap]);
        }
        if ask.max_nodes == Some(1) {
            return None;
        }
    }
    let fixed = musts(ask, list, required, pool, fuel)?;
    let mut caps = Vec::new();
    let mut front = true;
    for at in list.any_from..list.nodes.len() {
        let cap = cap_of(ask, list.nodes[at], pool, fuel);
        if front && cap.is_none() {
            list.any_from = at + 1;
        }
        front = front && cap.is_none();
        caps.extend(cap.filter(|cap| fixed.iter().all(|f| f.node != cap.node)));
        // Nodes in order that are enough, and no more than the least number, cannot be beaten.
        let least = fixed.len() + caps.len() == ask.min_nodes as usize;
        if least && !ask.contiguous && satisfied(ask, fixed.iter().chain(&caps)) && !wants_more(ask)
        {
            return Some(fixed.into_iter().chain(caps).collect());
        }
        if wants_more(ask)
            && !ask.contiguous
            && Some(fixed.len() + caps.len()) == ask.max_nodes.map(|n| n as usize)
        {
            break;
        }
    }
    if ask.contiguous {
        return window(ask, &fixed, &caps);
    }
    gather(ask, fixed, caps)
}

fn wants_more(ask: &Ask) -> bool {
    ask.takes_more_nodes() && ask.max_nodes.is_some_and(|max| max > ask.min_nodes)
}

/// The first node that can take the whole job.
fn single(ask: &Ask, list: &mut Candidates, pool: &impl Pool, fuel: &mut u64) -> Option<Cap> {
    while let Some(node) = list.nodes.get(list.single_from) {
        if *fuel == 0 {
            return None;
        }
        if let Some(cap) = cap_of(ask, *node, pool, fuel)
            && satisfied(ask, std::iter::once(&cap))
        {
            return Some(cap);
        }
        list.single_from += 1;
    }
    None
}

/// Nodes that must be part: those asked for by name, and those that counts ask for.
fn musts(
    ask: &Ask,
    list: &Candidates,
    required: &[NodeId],
    pool: &impl Pool,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let mut fixed: Vec<Cap> = Vec::new();
    for node in required {
        if !list.nodes.contains(node) {
            return None;
        }
        fixed.push(cap_of(ask, *node, pool, fuel)?);
    }
    // Each node serves one count. Those asked for by name serve the first that they can.
    let mut free: Vec<bool> = vec![true; fixed.len()];
    for (what, count) in &ask.counts {
        let fits = |node: NodeId| {
            let facts = pool.facts(node);
            what.admits(&|name| facts.has_feature(name))
        };
        let mut left = *count;
        for (cap, unused) in fixed.iter().zip(&mut free) {
            if left > 0 && *unused && fits(cap.node) {
                *unused = false;
                left -= 1;
            }
        }
        for node in &list.nodes {
            if left == 0 {
                break;
            }
            if !fits(*node) || fixed.iter().any(|cap| cap.node == *node) {
                continue;
            }
            if let Some(cap) = cap_of(ask, *node, pool, fuel) {
                fixed.push(cap);
                free.push(false);
                left -= 1;
            }
        }
        if left > 0 {
            return None;
        }
    }
    Some(fixed)
}

/// Fixed nodes and as few others as will do, the roomiest first.
fn gather(ask: &Ask, fixed: Vec<Cap>, mut caps: Vec<Cap>) -> Option<Vec<Cap>> {
    let most = ask.max_nodes.map_or(usize::MAX, |n| n as usize);
    let least = ask.min_nodes as usize;
    if !ask.takes_more_nodes() {
        caps.sort_by(|a, b| (&b.shares, b.tasks).cmp(&(&a.shares, a.tasks)));
    }
    let mut chosen = fixed;
    let mut caps = caps.into_iter();
    while chosen.len() < least || !satisfied(ask, chosen.iter()) {
        if chosen.len() >= most {
            return None;
        }
        chosen.push(caps.next()?);
    }
    if wants_more(ask) {
        chosen.extend(caps.take(most.saturating_sub(chosen.len())));
    }
    (chosen.len() <= most).then_some(chosen)
}

/// The first run of neighbours, in the order of the config, that is enough.
fn window(ask: &Ask, fixed: &[Cap], caps: &[Cap]) -> Option<Vec<Cap>> {
    let mut all: Vec<&Cap> = fixed.iter().chain(caps).collect();
    all.sort_by_key(|cap| cap.node);
    let most = ask.max_nodes.map_or(usize::MAX, |n| n as usize);
    for from in 0..all.len() {
        let run: usize =
            all[from..].windows(2).take_while(|pair| pair[1].node.0 == pair[0].node.0 + 1).count()
                + 1;
        for len in (ask.min_nodes as usize)..=run.min(most) {
            let part = &all[from..from + len];
            let has_fixed = fixed.iter().all(|f| part.iter().any(|cap| cap.node == f.node));
            if has_fixed && satisfied(ask, part.iter().copied()) {
                return Some(part.iter().map(|cap| (*cap).clone()).collect());
            }
        }
    }
    None
}

/// Whether these nodes together can take the job.
fn satisfied<'a>(ask: &Ask, caps: impl Iterator<Item = &'a Cap> + Clone) -> bool {
    let nodes = caps.clone().count() as u64;
    let tasks: u64 = caps.clone().map(|cap| u64::from(cap.tasks)).sum();
    let enough_tasks = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks_wanted), _) => tasks >= u64::from(tasks_wanted),
        (None, Some(per_node)) => caps.clone().all(|cap| cap.tasks >= per_node),
        (None, None) => true,
    };
    enough_tasks
        && ask.job_gres.iter().enumerate().all(|(i, (_, wanted))| {
            nodes <= *wanted && caps.clone().map(|cap| cap.shares[i]).sum::<u64>() >= *wanted
        })
}

/// What one node can take; `None`: not even one task.
fn cap_of(ask: &Ask, node: NodeId, pool: &impl Pool, fuel: &mut u64) -> Option<Cap> {
    if *fuel == 0 {
        return None;
    }
    *fuel -= 1;
    if !pool.open(node) {
        return None;
    }
    let (free, facts) = (pool.free(node), pool.facts(node));
    if ask.exclusive && free != &facts.whole {
        return None;
    }
    let (all_cpus, all_memory) = (facts.whole.cpus.len(), facts.whole.memory_mib);
    let fits = |tasks: u32, shares: &[u64]| {
        fits(&ask.need(tasks, shares, all_cpus, all_memory), free, facts)
    };
    let ones: Vec<u64> = ask.job_gres.iter().map(|_| 1).collect();
    let most = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks), Some(per_node)) => tasks.min(per_node),
        (Some(tasks), None) => tasks,
        (None, Some(per_node)) => per_node,
        (None, None) => 1,
    };
    let most = most.min(free.cpus.len() / ask.cpus_per_task.max(1));
    let tasks = largest(u64::from(most), |n| fits(u32::try_from(n).unwrap_or(u32::MAX), &ones))?;
    let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
    let mut shares = ones;
    for i in 0..shares.len() {
        let wanted = ask.job_gres[i].1;
        let mut probe = shares.clone();
        shares[i] = largest(wanted, |n| {
            probe[i] = n;
            fits(1, &probe)
        })?;
    }
    Some(Cap { node, tasks, shares })
}

/// The largest `n` in `1..=most` that holds, where holding is downward closed.
fn largest(most: u64, mut holds: impl FnMut(u64) -> bool) -> Option<u64> {
    if most == 0 || !holds(1) {
        return None;
    }
    if holds(most) {
        return Some(most);
    }
    let (mut good, mut bad) = (1, most);
    while good + 1 < bad {
        let middle = good + (bad - good) / 2;
        if holds(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(good)
}

fn fits(need: &Need, free: &Row, facts: &Facts) -> bool {
    need.cpus <= free.cpus.len()
        && need.memory_mib <= free.memory_mib
        && (need.gres.is_empty() || pick_units(&need.gres, free, facts).is_some())
}

/// Spreads tasks and shares over the chosen nodes, one each in turn, and takes exact CPUs and
/// units. Slices are in the order of the config, so ranks follow node names.
fn build(ask: &Ask, mut caps: Vec<Cap>, pool: &impl Pool) -> Option<Placement> {
    caps.sort_by_key(|cap| cap.node);
    let tasks = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks), _) => {
            let tops: Vec<u64> = caps.iter().map(|cap| u64::from(cap.tasks)).collect();
            spread(u64::from(tasks), &tops)
        }
        (None, per_node) => vec![u64::from(per_node.unwrap_or(1)); caps.len()],
    };
    let mut shares: Vec<Vec<u64>> = vec![Vec::new(); caps.len()];
    for (i, (_, wanted)) in ask.job_gres.iter().enumerate() {
        let tops: Vec<u64> = caps.iter().map(|cap| cap.shares[i]).collect();
        for (share, n) in shares.iter_mut().zip(spread(*wanted, &tops)) {
            share.push(n);
        }
    }
    let mut slices = Vec::with_capacity(caps.len());
    for ((cap, tasks), shares) in caps.iter().zip(tasks).zip(&shares) {
        let (free, facts) = (pool.free(cap.node), pool.facts(cap.node));
        let tasks = u32::try_from(tasks).ok()?;
        let whole = &facts.whole;
        let need = ask.need(tasks, shares, whole.cpus.len(), whole.memory_mib);
        if !fits(&need, free, facts) {
            return None;
        }
        let gres = match ask.exclusive {
            true => everything(facts),
            false => pick_units(&need.gres, free, facts)?,
        };
        slices.push(Slice {
            node: cap.node,
            cpus: pick_cpus(&free.cpus, need.cpus),
            memory_mib: need.memory_mib,
            gres,
            tasks,
        });
    }
    Some(Placement { slices })
}

/// `total` over places with these tops: one each in turn, at least one everywhere.
fn spread(total: u64, tops: &[u64]) -> Vec<u64> {
    let mut out = vec![1; tops.len()];
    let mut left = total.saturating_sub(tops.len() as u64);
    while left > 0 {
        let open: Vec<usize> = (0..tops.len()).filter(|i| out[*i] < tops[*i]).collect();
        if open.is_empty() {
            break;
        }
        // Whole rounds at once, so that the cost does not follow the number of tasks.
        let room = open.iter().map(|i| tops[*i] - out[*i]).min().unwrap_or(1);
        let rounds = (left / open.len() as u64).min(room);
        if rounds > 0 {
            open.iter().for_each(|i| out[*i] += rounds);
            left -= rounds * open.len() as u64;
        } else {
            open.iter().take(usize::try_from(left).unwrap_or(0)).for_each(|i| out[*i] += 1);
            left = 0;
        }
    }
    out
}

/// The first run of free CPUs that is long enough, or else the lowest free ones.
fn pick_cpus(free: &CpuSet, count: u32) -> CpuSet {
    let mut run: Option<(u32, u32)> = None;
    for cpu in free.iter() {
        run = match run {
            Some((from, to)) if to + 1 == cpu => Some((from, cpu)),
            Some(_) | None => Some((cpu, cpu)),
        };
        if let Some((from, to)) = run.filter(|(from, to)| to - from + 1 >= count) {
            return (from..=to).collect();
        }
    }
    free.iter().take(count as usize).collect()
}

fn everything(facts: &Facts) -> Vec<GresMask> {
    let units = facts.slots.iter().zip(&facts.whole.gres).filter(|(_, u)| u.count > 0);
    units.map(|(s, u)| GresMask { kind: s.kind.clone(), mask: u.mask, count: u.count }).collect()
}

/// The lowest free units that serve these wishes; wishes for a type choose before those for any.
fn pick_units(wants: &[(GresKind, u64)], free: &Row, facts: &Facts) -> Option<Vec<GresMask>> {
    let mut left = free.gres.clone();
    let mut taken: Vec<(u64, u64)> = vec![(0, 0); left.len()];
    let typed = wants.iter().filter(|(kind, _)| kind.of.is_some());
    let untyped = wants.iter().filter(|(kind, _)| kind.of.is_none());
    for (kind, count) in typed.chain(untyped) {
        let serving: Vec<usize> =
            (0..left.len()).filter(|i| facts.slots[*i].kind.satisfies(kind)).collect();
        let mut wanted = *count;
        // One type that has enough is better than a mixture.
        let alone = serving.iter().copied().find(|i| left[*i].count >= wanted);
        for i in alone.into_iter().chain(serving) {
            let n = wanted.min(left[i].count);
            if n == 0 {
                continue;
            }
            let mask = if facts.slots[i].named { lowest(left[i].mask, n) } else { 0 };
            left[i].mask &= !mask;
            left[i].count -= n;
            taken[i].0 |= mask;
            taken[i].1 += n;
            wanted -= n;
        }
        if wanted > 0 {
            return None;
        }
    }
    let held = facts.slots.iter().zip(taken).filter(|(_, (_, count))| *count > 0);
    Some(held.map(|(s, (mask, count))| GresMask { kind: s.kind.clone(), mask, count }).collect())
}

/// The `n` lowest bits of a mask.
fn lowest(mut mask: u64, n: u64) -> u64 {
    let mut out = 0;
    for _ in 0..n {
        let bit = mask & mask.wrapping_neg();
        out |= bit;
        mask &= !bit;
    }
    out
}

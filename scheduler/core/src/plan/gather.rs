//! Nodes for requests that may be served unevenly: tasks spread as they fit, nodes asked for by
//! name, counts of features, alternatives, neighbours, as many nodes as can be had.
//!
//! Works on what each candidate could take at most ([`Cap`]); all nodes are found or none.

use muster_model::NodeId;

use crate::state::Facts;

use super::ask::Ask;
use super::axes::{Amounts, CPUS, amount_on};
use super::demand::Demand;

/// Where amounts come from.
pub(super) trait Rooms {
    /// What a node has free, by axis; `None`: it may not be used.
    fn free(&mut self, node: NodeId) -> Option<&[u32]>;
    fn whole(&self, node: NodeId) -> &[u32];
    fn facts(&self, node: NodeId) -> &Facts;
    /// The most GPUs of a node that the job can have together.
    fn most_joined(&self, demand: &Demand, node: NodeId) -> u32 {
        demand.most_joined(self.facts(node), None)
    }
    /// The most CPUs of a node that could be near the job's GPUs there.
    fn most_near(&self, demand: &Demand, node: NodeId) -> u32;
}

/// How much of a job one node could take, and later how much it does take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cap {
    pub(super) node: NodeId,
    pub(super) tasks: u32,
    /// Parallel to `Ask::job_gres`.
    pub(super) shares: Vec<u64>,
}

/// The nodes of one job with what each takes, in the order of their numbers. Candidates come
/// lightest first. Every one looked at costs a unit of `fuel`; without fuel nothing is found.
pub(super) fn gather(
    demand: &Demand,
    candidates: &[NodeId],
    rooms: &mut impl Rooms,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let ask = &demand.ask;
    let mut required = Vec::with_capacity(ask.required.len());
    for name in &ask.required {
        let is = |node: &NodeId| *rooms.facts(*node).name == **name;
        required.push(candidates.iter().copied().find(is)?);
    }
    if ask.alternatives.is_empty() {
        return choose(demand, candidates, &required, rooms, fuel).map(|caps| spread(ask, caps));
    }
    for option in &ask.alternatives {
        let having = |node: &NodeId| {
            let facts = rooms.facts(*node);
            ask.finds(option, facts)
        };
        let nodes: Vec<NodeId> = candidates.iter().copied().filter(having).collect();
        if let Some(caps) = choose(demand, &nodes, &required, rooms, fuel) {
            return Some(spread(ask, caps));
        }
    }
    None
}

fn choose(
    demand: &Demand,
    nodes: &[NodeId],
    required: &[NodeId],
    rooms: &mut impl Rooms,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let ask = &demand.ask;
    let fixed = musts(demand, nodes, required, rooms, fuel)?;
    let mut caps = Vec::new();
    for node in nodes {
        let cap = cap_of(demand, *node, rooms, fuel);
        caps.extend(cap.filter(|cap| fixed.iter().all(|f| f.node != cap.node)));
        if ask.contiguous {
            continue;
        }
        let found = fixed.len() + caps.len();
        // Nodes in order that are enough, and no more than the least number, cannot be beaten.
        let least = found == ask.min_nodes as usize && !wants_more(ask);
        if least && satisfied(ask, fixed.iter().chain(&caps)) {
            return Some(fixed.into_iter().chain(caps).collect());
        }
        if wants_more(ask) && Some(found) == ask.max_nodes.map(|n| n as usize) {
            break;
        }
    }
    if ask.contiguous { window(ask, &fixed, &caps) } else { complete(ask, fixed, caps) }
}

fn wants_more(ask: &Ask) -> bool {
    ask.takes_more_nodes() && ask.max_nodes.is_some_and(|max| max > ask.min_nodes)
}

/// Nodes that must be part: those asked for by name, and those that counts ask for.
fn musts(
    demand: &Demand,
    nodes: &[NodeId],
    required: &[NodeId],
    rooms: &mut impl Rooms,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let mut fixed: Vec<Cap> = Vec::new();
    for node in required {
        if !nodes.contains(node) {
            return None;
        }
        fixed.push(cap_of(demand, *node, rooms, fuel)?);
    }
    // Each node serves one count. Those asked for by name serve the first that they can.
    let mut free: Vec<bool> = vec![true; fixed.len()];
    for (what, count) in &demand.ask.counts {
        let mut left = *count;
        for (cap, unused) in fixed.iter().zip(&mut free) {
            if left > 0 && *unused && demand.ask.finds(what, rooms.facts(cap.node)) {
                *unused = false;
                left -= 1;
            }
        }
        for node in nodes {
            if left == 0 {
                break;
            }
            let serves = demand.ask.finds(what, rooms.facts(*node));
            if !serves || fixed.iter().any(|cap| cap.node == *node) {
                continue;
            }
            if let Some(cap) = cap_of(demand, *node, rooms, fuel) {
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
fn complete(ask: &Ask, fixed: Vec<Cap>, mut caps: Vec<Cap>) -> Option<Vec<Cap>> {
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
        let neighbours = |pair: &&[&Cap]| pair[1].node.0 == pair[0].node.0 + 1;
        let run = all[from..].windows(2).take_while(neighbours).count() + 1;
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
fn cap_of(demand: &Demand, node: NodeId, rooms: &mut impl Rooms, fuel: &mut u64) -> Option<Cap> {
    if *fuel == 0 {
        return None;
    }
    *fuel -= 1;
    let ask = &demand.ask;
    let whole: Vec<u32> = rooms.whole(node).to_vec();
    let joined = rooms.most_joined(demand, node);
    let near = rooms.most_near(demand, node);
    let free = rooms.free(node)?;
    let mut amounts = Amounts::new();
    let mut fits = |tasks: u32, shares: &[u64]| {
        demand.amounts(tasks, shares, &whole, &mut amounts);
        let cpus = amount_on(&amounts, CPUS);
        cpus <= near
            && demand.gpus(&amounts) <= joined
            && amounts.iter().all(|(axis, n)| free[*axis] >= *n)
    };
    let ones: Vec<u64> = ask.job_gres.iter().map(|_| 1).collect();
    let most = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks), Some(per_node)) => tasks.min(per_node),
        (Some(tasks), None) => tasks,
        (None, Some(per_node)) => per_node,
        (None, None) => 1,
    };
    let most = most.min(free[CPUS] / ask.cpus_per_task.max(1));
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

/// Spreads tasks and shares over the chosen nodes, one each in turn.
fn spread(ask: &Ask, mut caps: Vec<Cap>) -> Vec<Cap> {
    caps.sort_by_key(|cap| cap.node);
    let tasks = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks), _) => {
            let tops: Vec<u64> = caps.iter().map(|cap| u64::from(cap.tasks)).collect();
            in_turn(u64::from(tasks), &tops)
        }
        (None, per_node) => vec![u64::from(per_node.unwrap_or(1)); caps.len()],
    };
    for i in 0..ask.job_gres.len() {
        let tops: Vec<u64> = caps.iter().map(|cap| cap.shares[i]).collect();
        for (cap, n) in caps.iter_mut().zip(in_turn(ask.job_gres[i].1, &tops)) {
            cap.shares[i] = n;
        }
    }
    for (cap, tasks) in caps.iter_mut().zip(tasks) {
        cap.tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
    }
    caps
}

/// `total` over places with these tops: one each in turn, at least one everywhere.
fn in_turn(total: u64, tops: &[u64]) -> Vec<u64> {
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

//! Nodes for requests that may be served unevenly: tasks spread as they fit, nodes asked for by
//! name, counts of features, alternatives, neighbours, as many nodes as can be had.
//!
//! Works on what each candidate could take at most ([`Cap`]); all nodes are found or none.
//!
//! - `weigh`: which nodes and how much of each, where the roomiest are not simply the best

mod weigh;

use muster_model::{CpuBinding, NodeId};

use crate::state::Facts;

use super::ask::Ask;
use super::axes::{Amounts, CPUS, amount_on};
use super::binding::{Answers, Inside};
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
    /// What binding looks at.
    fn inside(&self, node: NodeId) -> Inside<'_>;
}

/// How much of a job one node could take, and later how much it does take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cap {
    pub(super) node: NodeId,
    pub(super) tasks: u32,
    /// Parallel to `Ask::job_gres`.
    pub(super) shares: Vec<u64>,
    /// Where more GPUs let more tasks have CPUs near them: the most tasks with one unit, two units
    /// and so on of the job's GRES; 0: that many units cannot be had.
    near: Vec<u32>,
}

impl Cap {
    /// The most tasks with so many units of the job's GRES.
    fn tasks_with(&self, units: u64) -> u32 {
        if self.near.is_empty() {
            return self.tasks;
        }
        let at = usize::try_from(units).unwrap_or(usize::MAX).saturating_sub(1);
        self.near.get(at).copied().unwrap_or(0)
    }
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
    let mut answers = Answers::default();
    let mut required = Vec::with_capacity(ask.required.len());
    for name in &ask.required {
        let is = |node: &NodeId| *rooms.facts(*node).name == **name;
        required.push(candidates.iter().copied().find(is)?);
    }
    if ask.alternatives.is_empty() {
        let found = choose(demand, candidates, &required, rooms, &mut answers, fuel);
        return found.map(|caps| spread(ask, caps));
    }
    for option in &ask.alternatives {
        let having = |node: &NodeId| {
            let facts = rooms.facts(*node);
            ask.finds(option, facts)
        };
        let nodes: Vec<NodeId> = candidates.iter().copied().filter(having).collect();
        if let Some(caps) = choose(demand, &nodes, &required, rooms, &mut answers, fuel) {
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
    answers: &mut Answers,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let ask = &demand.ask;
    let fixed = musts(demand, nodes, required, rooms, answers, fuel)?;
    let mut caps = Vec::new();
    for node in nodes {
        let cap = cap_of(demand, *node, rooms, answers, fuel);
        caps.extend(cap.filter(|cap| fixed.iter().all(|f| f.node != cap.node)));
        if ask.contiguous {
            continue;
        }
        let found = fixed.len() + caps.len();
        // Nodes in order that are enough, and no more than the least number, cannot be beaten.
        let least = found == ask.min_nodes as usize && !wants_more(ask);
        if least && satisfied(ask, fixed.iter().chain(&caps), fuel) {
            return Some(together(ask, fixed.into_iter().chain(caps).collect(), fuel));
        }
        if wants_more(ask) && Some(found) == ask.max_nodes.map(|n| n as usize) {
            break;
        }
    }
    let found = match ask.contiguous {
        true => window(ask, &fixed, &caps, fuel),
        false => complete(ask, &fixed, &mut caps, fuel)
            .or_else(|| weigh::nodes(ask, &fixed, &caps, fuel)),
    };
    found.map(|caps| together(ask, caps, fuel))
}

/// Of nodes that are enough, how many units of the job's GRES each has: any that it can have, or
/// those that let all tasks have CPUs near them.
fn together(ask: &Ask, caps: Vec<Cap>, fuel: &mut u64) -> Vec<Cap> {
    let bound = caps.iter().any(|cap| !cap.near.is_empty());
    let weighed = bound.then(|| weigh::nodes(ask, &caps, &[], fuel)).flatten();
    weighed.unwrap_or(caps)
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
    answers: &mut Answers,
    fuel: &mut u64,
) -> Option<Vec<Cap>> {
    let mut fixed: Vec<Cap> = Vec::new();
    for node in required {
        if !nodes.contains(node) {
            return None;
        }
        fixed.push(cap_of(demand, *node, rooms, answers, fuel)?);
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
            if let Some(cap) = cap_of(demand, *node, rooms, answers, fuel) {
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
fn complete(ask: &Ask, fixed: &[Cap], caps: &mut [Cap], fuel: &mut u64) -> Option<Vec<Cap>> {
    let most = ask.max_nodes.map_or(usize::MAX, |n| n as usize);
    let least = ask.min_nodes as usize;
    if !ask.takes_more_nodes() {
        caps.sort_by(|a, b| (&b.shares, b.tasks).cmp(&(&a.shares, a.tasks)));
    }
    let mut chosen = fixed.to_vec();
    let mut caps = caps.iter().cloned();
    while chosen.len() < least || !satisfied(ask, chosen.iter(), fuel) {
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
fn window(ask: &Ask, fixed: &[Cap], caps: &[Cap], fuel: &mut u64) -> Option<Vec<Cap>> {
    let mut all: Vec<&Cap> = fixed.iter().chain(caps).collect();
    all.sort_by_key(|cap| cap.node);
    let most = ask.max_nodes.map_or(usize::MAX, |n| n as usize);
    for from in 0..all.len() {
        let neighbours = |pair: &&[&Cap]| pair[1].node.0 == pair[0].node.0 + 1;
        let run = all[from..].windows(2).take_while(neighbours).count() + 1;
        for len in (ask.min_nodes as usize)..=run.min(most) {
            let part = &all[from..from + len];
            let has_fixed = fixed.iter().all(|f| part.iter().any(|cap| cap.node == f.node));
            if has_fixed && satisfied(ask, part.iter().copied(), fuel) {
                return Some(part.iter().map(|cap| (*cap).clone()).collect());
            }
        }
    }
    None
}

/// Whether these nodes together can take the job.
fn satisfied<'a>(ask: &Ask, caps: impl Iterator<Item = &'a Cap> + Clone, fuel: &mut u64) -> bool {
    let nodes = caps.clone().count() as u64;
    let tasks: u64 = caps.clone().map(|cap| u64::from(cap.tasks)).sum();
    let enough_tasks = match (ask.tasks, ask.tasks_per_node) {
        (Some(tasks_wanted), _) => tasks >= u64::from(tasks_wanted),
        (None, Some(per_node)) => caps.clone().all(|cap| cap.tasks >= per_node),
        (None, None) => true,
    };
    let enough = enough_tasks
        && ask.job_gres.iter().enumerate().all(|(i, (_, wanted))| {
            nodes <= *wanted && caps.clone().map(|cap| cap.shares[i]).sum::<u64>() >= *wanted
        });
    let mut bound = |caps: &[Cap]| weigh::nodes(ask, caps, &[], fuel).is_some();
    enough
        && (caps.clone().all(|cap| cap.near.is_empty())
            || bound(&caps.cloned().collect::<Vec<_>>()))
}

/// What one node can take; `None`: not even one task.
fn cap_of(
    demand: &Demand,
    node: NodeId,
    rooms: &mut impl Rooms,
    answers: &mut Answers,
    fuel: &mut u64,
) -> Option<Cap> {
    if *fuel == 0 {
        return None;
    }
    *fuel -= 1;
    let ask = &demand.ask;
    let whole: Vec<u32> = rooms.whole(node).to_vec();
    let joined = rooms.most_joined(demand, node);
    let (facts, row, wiring) = rooms.inside(node);
    let near = demand.most_near(facts, row, wiring.map(|wiring| &**wiring));
    let free: Vec<u32> = rooms.free(node)?.to_vec();
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
    let cap = Cap { node, tasks, shares, near: Vec::new() };
    if ask.binding != CpuBinding::Enforced {
        return Some(cap);
    }
    let inside = rooms.inside(node);
    let mut binds = |tasks: u64, shares: &[u64]| {
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        fits(tasks, shares) && answers.binds(demand, (tasks, shares), inside)
    };
    near_gpus(cap, &mut binds)
}

/// Less than a node could take if all of its GPUs were had, and which of it with how many.
fn near_gpus(mut cap: Cap, binds: &mut dyn FnMut(u64, &[u64]) -> bool) -> Option<Cap> {
    let most = u64::from(cap.tasks);
    let tasks = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    match cap.shares.as_mut_slice() {
        [] => cap.tasks = tasks(largest(most, |n| binds(n, &[]))?),
        [units] if *units <= 64 => {
            let with = |units| largest(most, |n| binds(n, &[units])).map_or(0, tasks);
            cap.near = (1..=*units).map(with).collect();
            let last = cap.near.iter().rposition(|tasks| *tasks > 0)?;
            *units = last as u64 + 1;
            cap.tasks = cap.near.iter().copied().max()?;
        }
        // GPUs of several kinds over the whole job: what is found is looked at once more.
        _ => {}
    }
    Some(cap)
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

#[cfg(test)]
mod tests;

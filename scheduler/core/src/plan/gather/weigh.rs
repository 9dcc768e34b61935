//! Nodes of which none is simply the roomiest: one has more GPUs, another more CPUs; or the CPUs that
//! count on a node are those near the GPUs that the job has there.
//!
//! For one kind of GRES over the whole job: all ways are weighed at once, node after node, by the most tasks
//! that so many nodes with so many units can have.

use super::super::ask::Ask;
use super::Cap;

/// Places of the table, nodes x nodes x units, beyond which nothing is weighed.
const MOST_PLACES: usize = 1 << 20;

/// So many places cost as much as a look at a node.
const PLACES_A_LOOK: usize = 4;

/// All of `musts` and as few of `others` as will do, each with the units that it has to have and
/// the most tasks with them.
pub(super) fn nodes(ask: &Ask, musts: &[Cap], others: &[Cap], fuel: &mut u64) -> Option<Vec<Cap>> {
    let [(_, units)] = ask.job_gres.as_slice() else { return None };
    let units = usize::try_from(*units).ok()?;
    let most = ask.max_nodes.map_or(usize::MAX, |n| n as usize).min(units);
    let least = (ask.min_nodes as usize).max(musts.len());
    if most < least || !could(ask, musts, others, most) {
        return None;
    }
    let others = unlike(others, most - musts.len());
    let items: Vec<(&Cap, bool)> =
        musts.iter().map(|cap| (cap, true)).chain(others.into_iter().map(|c| (c, false))).collect();
    let most = most.min(items.len());
    let row = units + 1;
    let places = items.len().checked_mul(most + 1)?.checked_mul(row)?;
    if places > MOST_PLACES {
        return None;
    }
    let left = fuel.checked_sub((places / PLACES_A_LOOK) as u64);
    *fuel = left.unwrap_or(0);
    left?;
    // By number of nodes and units: the most tasks; and for each node how much it gives to that.
    let mut best: Vec<Option<u64>> = vec![None; (most + 1) * row];
    let mut given: Vec<u16> = vec![0; places];
    best[0] = Some(0);
    for (at, (cap, must)) in items.iter().enumerate() {
        for count in (0..=most).rev() {
            for sum in (0..row).rev() {
                let to = count * row + sum;
                let without = best[to].filter(|_| !must);
                let (found, units) = with(ask, cap, &best, (count, sum, row));
                (best[to], given[at * best.len() + to]) = match found > without {
                    true => (found, units),
                    false => (without, 0),
                };
            }
        }
    }
    let wanted = ask.tasks.map_or(0, u64::from);
    let mut count = (least..=most).find(|n| best[n * row + units].is_some_and(|t| t >= wanted))?;
    let (mut sum, mut out) = (units, Vec::with_capacity(count));
    for (at, (cap, _)) in items.iter().enumerate().rev() {
        let units = given[at * best.len() + count * row + sum];
        if units > 0 {
            let (shares, tasks) = (vec![units.into()], cap.tasks_with(units.into()));
            out.push(Cap { node: cap.node, tasks, shares, near: Vec::new() });
            (count, sum) = (count - 1, sum - usize::from(units));
        }
    }
    Some(out)
}

/// The most tasks with this node as the last of `count` that have `sum` units together, and its units.
fn with(
    ask: &Ask,
    cap: &Cap,
    best: &[Option<u64>],
    (count, sum, row): (usize, usize, usize),
) -> (Option<u64>, u16) {
    let mut found = (None, 0);
    if count == 0 {
        return found;
    }
    let most = cap.shares[0].min(u64::from(u16::MAX)) as u16;
    for units in 1..=most {
        let Some(rest) = sum.checked_sub(units.into()) else { break };
        let tasks = cap.tasks_with(units.into());
        // A fixed number on every node is all that counts.
        let tasks = match (ask.tasks, ask.tasks_per_node) {
            (Some(_), _) => Some(u64::from(tasks)).filter(|n| *n > 0),
            (None, each) => (tasks >= each.unwrap_or(1)).then_some(0),
        };
        let before = best[(count - 1) * row + rest];
        if let (Some(before), Some(tasks)) = (before, tasks)
            && found.0.is_none_or(|best| before + tasks > best)
        {
            found = (Some(before + tasks), units);
        }
    }
    found
}

/// Whether these nodes could be enough if each had the most units and the most tasks.
fn could(ask: &Ask, musts: &[Cap], others: &[Cap], most: usize) -> bool {
    let enough = |of: fn(&Cap) -> u64, wanted: u64| {
        let mut sizes: Vec<u64> = others.iter().map(of).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let more = sizes.into_iter().take(most - musts.len()).sum::<u64>();
        musts.iter().map(of).sum::<u64>() + more >= wanted
    };
    let wanted = ask.tasks.map_or(0, u64::from);
    enough(|cap| cap.shares[0], ask.job_gres[0].1) && enough(|cap| cap.tasks.into(), wanted)
}

/// Of nodes that are alike no more than could be had together.
fn unlike(caps: &[Cap], most: usize) -> Vec<&Cap> {
    let mut kinds: Vec<(&Cap, usize)> = Vec::new();
    let mut out = Vec::new();
    for cap in caps {
        let same =
            |of: &Cap| (of.tasks, &of.shares, &of.near) == (cap.tasks, &cap.shares, &cap.near);
        let at = kinds.iter().position(|(of, _)| same(of)).unwrap_or_else(|| {
            kinds.push((cap, 0));
            kinds.len() - 1
        });
        kinds[at].1 += 1;
        if kinds[at].1 <= most {
            out.push(cap);
        }
    }
    out
}

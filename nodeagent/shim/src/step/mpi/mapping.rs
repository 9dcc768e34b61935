//! Which rank is on which node, as PMI tells it: `(vector,(first node,nodes,tasks on each),...)`.

use muster_proto::v1::NodeRanks;

/// Longer ones are not told: clients then compare host names.
pub(super) const LONGEST: usize = 1024;

/// So many tasks on each of so many nodes, from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    node: u32,
    nodes: u32,
    each: u32,
}

/// The text for `PMI_process_mapping`; `None` where it is too long.
pub(super) fn text(nodes: &[NodeRanks]) -> Option<String> {
    let blocks = blocks(nodes);
    let shown: Vec<String> =
        short(&blocks).iter().map(|b| format!("({},{},{})", b.node, b.nodes, b.each)).collect();
    let text = format!("(vector,{})", shown.join(","));
    (text.len() < LONGEST).then_some(text)
}

fn blocks(nodes: &[NodeRanks]) -> Vec<Block> {
    let mut by_rank: Vec<(u32, u32)> = (0u32..)
        .zip(nodes)
        .flat_map(|(index, node)| node.tasks.iter().map(move |rank| (*rank, index)))
        .collect();
    by_rank.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (_, node) in by_rank {
        match runs.last_mut() {
            Some((last, count)) if *last == node => *count += 1,
            _ => runs.push((node, 1)),
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for (node, each) in runs {
        match blocks.last_mut() {
            Some(last) if last.each == each && last.node + last.nodes == node => last.nodes += 1,
            _ => blocks.push(Block { node, nodes: 1, each }),
        }
    }
    blocks
}

/// Readers begin again at the front until they have every rank.
fn short(blocks: &[Block]) -> &[Block] {
    let all = blocks.len();
    let repeats = |period: &usize| {
        all.is_multiple_of(*period)
            && blocks.chunks(*period).all(|chunk| chunk == &blocks[..*period])
    };
    let period = (1..=all).find(repeats).unwrap_or(all);
    &blocks[..period]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ranks: &[&[u32]]) -> Vec<NodeRanks> {
        ranks.iter().map(|r| NodeRanks { node: String::new(), tasks: r.to_vec() }).collect()
    }

    #[track_caller]
    fn check(ranks: &[&[u32]], expected: &str) {
        assert_eq!(text(&nodes(ranks)).as_deref(), Some(expected));
    }

    #[test]
    fn a_mapping_is_as_short_as_the_ranks_allow() {
        check(&[&[0, 1, 2]], "(vector,(0,1,3))");
        check(&[&[0, 1], &[2, 3]], "(vector,(0,2,2))");
        check(&[&[0, 1], &[2, 3], &[4]], "(vector,(0,2,2),(2,1,1))");
        check(&[&[0, 2, 4], &[1, 3, 5]], "(vector,(0,2,1))");
        check(&[&[0, 1, 4, 5], &[2, 3, 6, 7]], "(vector,(0,2,2))");
        check(&[&[0, 2, 4], &[1, 3]], "(vector,(0,2,1),(0,2,1),(0,1,1))");
    }

    #[test]
    fn one_that_is_too_long_is_none() {
        // Node n has n tasks: no two blocks are alike.
        let mut next = 0..;
        let ranks: Vec<NodeRanks> = (1..200)
            .map(|n| NodeRanks { node: String::new(), tasks: next.by_ref().take(n).collect() })
            .collect();
        assert_eq!(text(&ranks), None);
    }
}

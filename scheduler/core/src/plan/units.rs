//! Chooses GPUs inside a node, and CPUs near them.
//!
//! Of all subsets of the free GPUs the best has the strongest weakest link, then the strongest
//! links in sum, then the most pairs on one NUMA node; of equals the one that leaves the rest with
//! the strongest links, so that islands that are whole stay whole; then the lowest numbers.
//!
//! A node's table answers for up to 8 GPUs by one look (256 free masks, 9 counts). Up to 16 free
//! GPUs every subset is tried, of GPUs that can be exchanged for each other only the lowest;
//! beyond that the set grows greedily from each free GPU. The sum left to the rest needs no second
//! count: `links(rest) = links(free) - degrees(chosen) + links(chosen)`.

use std::cmp::Reverse;

use muster_model::{CpuSet, GpuLinks};

use super::nodeset::Ones;

/// Most GPUs that the table has every answer for.
const DENSE: u32 = 8;
/// Most free GPUs of which every subset is tried: 12,870 of 8 out of 16.
const EXHAUSTIVE: u32 = 16;

/// The order of a node's GPUs, made once for nodes with equal links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTable {
    links: GpuLinks,
    /// `[free mask * (DENSE + 1) + count]`; empty for more than [`DENSE`] GPUs.
    dense: Vec<u8>,
}

impl UnitTable {
    #[must_use]
    pub fn new(links: GpuLinks) -> Self {
        let mut dense = Vec::new();
        if u32::from(links.count) <= DENSE {
            let masks = 1u64 << links.count;
            dense.reserve_exact(usize::try_from(masks).unwrap_or(0) * (DENSE as usize + 1));
            for free in 0..masks {
                for count in 0..=DENSE {
                    let best =
                        if count <= free.count_ones() { best(&links, free, count) } else { 0 };
                    dense.push(u8::try_from(best).expect("at most 8 GPUs have bits"));
                }
            }
        }
        UnitTable { links, dense }
    }

    #[must_use]
    pub fn links(&self) -> &GpuLinks {
        &self.links
    }

    /// `count` of the free GPUs; `None` when there are not so many.
    #[must_use]
    pub fn choose(&self, free: u64, count: u32) -> Option<u64> {
        if count > free.count_ones() {
            return None;
        }
        let known = usize::try_from(free).ok().filter(|_| !self.dense.is_empty());
        let at = known.and_then(|free| free.checked_mul(DENSE as usize + 1));
        match at.and_then(|at| self.dense.get(at + count as usize)) {
            Some(best) if count <= DENSE => Some(u64::from(*best)),
            Some(_) | None => Some(best(&self.links, free, count)),
        }
    }
}

/// `count` of the free units: by the table if there is one, else the lowest; `None` when there are
/// not so many.
#[must_use]
pub fn choose(table: Option<&UnitTable>, free: u64, count: u32) -> Option<u64> {
    match table {
        Some(table) => table.choose(free, count),
        None => (count <= free.count_ones()).then(|| lowest(free, count)),
    }
}

/// As [`choose`], of GPUs that NVLink joins, directly or over one another; `None`: no so many are.
#[must_use]
pub fn choose_joined(table: Option<&UnitTable>, free: u64, count: u32) -> Option<u64> {
    let best = choose(table, free, count)?;
    let Some(table) = table else { return (count <= 1).then_some(best) };
    if count <= 1 || islands(&table.links, best) == [best] {
        return Some(best);
    }
    let fits = islands(&table.links, free).into_iter().filter(|set| set.count_ones() >= count);
    let grown = fits.map(|set| Field::new(&table.links, set).grow_joined(count as usize));
    grown.max().map(|grade| grade.lowest.0)
}

/// Sets of two and more of these GPUs that NVLink joins, directly or over one another.
#[must_use]
pub fn islands(links: &GpuLinks, among: u64) -> Vec<u64> {
    let all = if links.count >= 64 { u64::MAX } else { (1 << links.count) - 1 };
    let mut left = among & all;
    let mut out = Vec::new();
    while let Some(first) = Ones(left).next() {
        let mut island = 1u64 << first;
        let mut edge = island;
        left &= !island;
        while let Some(gpu) = Ones(edge).next() {
            edge &= !(1 << gpu);
            let joined = |other: &u32| {
                links.score(gpu as u8, *other as u8) >= muster_model::LinkClass::ISLAND
            };
            let new = Ones(left).filter(joined).fold(0, |mask, other| mask | 1u64 << other);
            left &= !new;
            (island, edge) = (island | new, edge | new);
        }
        if island.count_ones() > 1 {
            out.push(island);
        }
    }
    out
}

/// The `count` lowest bits of a mask.
fn lowest(mask: u64, count: u32) -> u64 {
    Ones(mask).take(count as usize).fold(0, |out, bit| out | 1 << bit)
}

/// How good a choice is; the greatest is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    weakest: u8,
    sum: i64,
    /// Pairs on one NUMA node.
    together: i64,
    /// Sum of the links that are left among the rest, and its pairs on one NUMA node.
    rest: i64,
    rest_together: i64,
    lowest: Reverse<u64>,
}

/// The best subset. `count` is at most the number of free GPUs.
fn best(links: &GpuLinks, free: u64, count: u32) -> u64 {
    let all = free.count_ones();
    if count == 0 || count == all {
        return if count == 0 { 0 } else { free };
    }
    let field = Field::new(links, free);
    if all <= EXHAUSTIVE { field.try_all(count as usize) } else { field.grow(count as usize) }
}

/// The free GPUs and what joins them.
struct Field {
    gpus: Vec<u32>,
    /// Scores and whether on one NUMA node, `gpus.len()` squared.
    pairs: Vec<(u8, bool)>,
    /// Sum of scores and NUMA neighbours of each GPU among the free ones.
    degrees: Vec<(i64, i64)>,
    /// Of all pairs of free GPUs.
    total: (i64, i64),
}

/// A choice in the making, as places in `Field::gpus`.
#[derive(Debug, Clone)]
struct Draft {
    chosen: Vec<usize>,
    weakest: u8,
    sum: (i64, i64),
    degrees: (i64, i64),
}

impl Field {
    fn new(links: &GpuLinks, free: u64) -> Self {
        let gpus: Vec<u32> = Ones(free).collect();
        let n = gpus.len();
        let mut pairs = Vec::with_capacity(n * n);
        for a in &gpus {
            for b in &gpus {
                let (a, b) = (*a as u8, *b as u8);
                let numa = links.numa_of(a).is_some() && links.numa_of(a) == links.numa_of(b);
                pairs.push((links.score(a, b), numa));
            }
        }
        let mut degrees = vec![(0i64, 0i64); n];
        for a in 0..n {
            for b in (0..n).filter(|b| *b != a) {
                let (score, numa) = pairs[a * n + b];
                degrees[a].0 += i64::from(score);
                degrees[a].1 += i64::from(numa);
            }
        }
        let twice = degrees.iter().fold((0, 0), |t, d| (t.0 + d.0, t.1 + d.1));
        Field { gpus, pairs, degrees, total: (twice.0 / 2, twice.1 / 2) }
    }

    fn pair(&self, a: usize, b: usize) -> (u8, bool) {
        self.pairs[a * self.gpus.len() + b]
    }

    fn empty() -> Draft {
        Draft { chosen: Vec::new(), weakest: u8::MAX, sum: (0, 0), degrees: (0, 0) }
    }

    /// What the draft is with one more GPU, but for the list itself.
    fn with(&self, draft: &Draft, gpu: usize) -> (u8, (i64, i64), (i64, i64)) {
        let (mut weakest, mut sum) = (draft.weakest, draft.sum);
        for other in &draft.chosen {
            let (score, numa) = self.pair(gpu, *other);
            weakest = weakest.min(score);
            sum.0 += i64::from(score);
            sum.1 += i64::from(numa);
        }
        let degree = self.degrees[gpu];
        (weakest, sum, (draft.degrees.0 + degree.0, draft.degrees.1 + degree.1))
    }

    fn grade(&self, draft: &Draft) -> Grade {
        Grade {
            weakest: draft.weakest,
            sum: draft.sum.0,
            together: draft.sum.1,
            rest: self.total.0 - draft.degrees.0 + draft.sum.0,
            rest_together: self.total.1 - draft.degrees.1 + draft.sum.1,
            lowest: Reverse(self.mask(&draft.chosen)),
        }
    }

    fn mask(&self, chosen: &[usize]) -> u64 {
        chosen.iter().fold(0, |mask, at| mask | 1 << self.gpus[*at])
    }

    /// GPUs before this one that can be exchanged for it: the last of them, if there is one.
    fn twins(&self) -> Vec<Option<usize>> {
        let n = self.gpus.len();
        let alike = |a: usize, b: usize| {
            self.pair(a, a).1 == self.pair(a, b).1
                && (0..n).all(|x| x == a || x == b || self.pair(a, x) == self.pair(b, x))
        };
        (0..n).map(|b| (0..b).rev().find(|a| alike(*a, b))).collect()
    }

    fn try_all(&self, count: usize) -> u64 {
        let twins = self.twins();
        let mut draft = Self::empty();
        let mut best: Option<Grade> = None;
        self.descend(&twins, &mut draft, 0, count, &mut best);
        best.map_or(0, |grade| grade.lowest.0)
    }

    fn descend(
        &self,
        twins: &[Option<usize>],
        draft: &mut Draft,
        from: usize,
        count: usize,
        best: &mut Option<Grade>,
    ) {
        let missing = count - draft.chosen.len();
        if missing == 0 {
            let grade = self.grade(draft);
            if best.as_ref().is_none_or(|known| grade > *known) {
                *best = Some(grade);
            }
            return;
        }
        for gpu in from..=self.gpus.len() - missing {
            // Of GPUs that are alike the lowest are taken first.
            if twins[gpu].is_some_and(|twin| !draft.chosen.contains(&twin)) {
                continue;
            }
            let (weakest, sum, degrees) = self.with(draft, gpu);
            if best.as_ref().is_some_and(|known| weakest < known.weakest) {
                continue;
            }
            let before = (draft.weakest, draft.sum, draft.degrees);
            (draft.weakest, draft.sum, draft.degrees) = (weakest, sum, degrees);
            draft.chosen.push(gpu);
            self.descend(twins, draft, gpu + 1, count, best);
            draft.chosen.pop();
            (draft.weakest, draft.sum, draft.degrees) = before;
        }
    }

    /// From every GPU the nearest ones, one by one; the best of these sets.
    fn grow(&self, count: usize) -> u64 {
        self.grown(count, false).map_or(0, |grade| grade.lowest.0)
    }

    /// The same over NVLinks alone. All of these GPUs are one island, and `count` is no more.
    fn grow_joined(&self, count: usize) -> Grade {
        self.grown(count, true).expect("an island has GPUs")
    }

    fn grown(&self, count: usize, joined: bool) -> Option<Grade> {
        let linked = |draft: &Draft, gpu: usize| {
            let to = |other: &usize| self.pair(gpu, *other).0 >= muster_model::LinkClass::ISLAND;
            !joined || draft.chosen.iter().any(to)
        };
        let grown = (0..self.gpus.len()).map(|seed| {
            let mut draft = Self::empty();
            let mut next = Some(seed);
            while let Some(gpu) = next {
                (draft.weakest, draft.sum, draft.degrees) = self.with(&draft, gpu);
                draft.chosen.push(gpu);
                if draft.chosen.len() == count {
                    break;
                }
                let new = |gpu: &usize| !draft.chosen.contains(gpu) && linked(&draft, *gpu);
                let others = (0..self.gpus.len()).filter(new);
                next = others.max_by_key(|gpu| {
                    let (weakest, sum, degrees) = self.with(&draft, *gpu);
                    (weakest, sum, Reverse(degrees), Reverse(*gpu))
                });
            }
            self.grade(&draft)
        });
        grown.max()
    }
}

/// The CPUs of the NUMA nodes that these GPUs are on, by NUMA node; `numa`: the CPUs of each.
#[must_use]
pub fn near(links: &GpuLinks, gpus: u64, numa: &[CpuSet]) -> Vec<CpuSet> {
    let mut at: Vec<u8> =
        Ones(gpus).filter_map(|gpu| links.numa_of(u8::try_from(gpu).ok()?)).collect();
    at.sort_unstable();
    at.dedup();
    at.into_iter().filter_map(|numa_node| numa.get(usize::from(numa_node)).cloned()).collect()
}

/// `count` of the free CPUs, or all when there are fewer: equal shares of each set in `near`, what
/// they lack from anywhere; in whole cores (CPUs numbered side by side, `threads` to a core) and
/// side by side where that can be had.
#[must_use]
pub fn pick_cpus(free: &CpuSet, count: u32, near: &[CpuSet], threads: u32) -> CpuSet {
    let mut left = free.clone();
    let mut out = CpuSet::default();
    let threads = threads.max(1);
    for (at, set) in near.iter().enumerate() {
        let sets = u32::try_from(near.len() - at).unwrap_or(1);
        let cores = (count - out.len()).div_ceil(threads).div_ceil(sets);
        let share = cores.saturating_mul(threads).min(count - out.len());
        let here = left.intersection(set);
        let taken = take(&here, share, threads);
        left.remove(&taken);
        out.add(&taken);
    }
    if out.len() < count {
        // A set that had less than its share leaves more to the others before strangers are asked.
        for set in near {
            let here = left.intersection(set);
            let taken = take(&here, count - out.len(), threads);
            left.remove(&taken);
            out.add(&taken);
        }
        out.add(&take(&left, count - out.len(), threads));
    }
    out
}

/// Out of one set: the tightest run of whole cores that is long enough, else the lowest whole cores,
/// then single CPUs, those of broken cores first.
fn take(free: &CpuSet, count: u32, threads: u32) -> CpuSet {
    let mut out = CpuSet::default();
    if count == 0 {
        return out;
    }
    if threads == 1 {
        return take_single(free, count);
    }
    let (whole, broken) = cores(free, threads);
    let wanted = count / threads;
    let cores = match run(&whole, wanted as usize) {
        Some(run) => run,
        None => &whole[..whole.len().min(wanted as usize)],
    };
    for core in cores {
        (core * threads..(core + 1) * threads).for_each(|cpu| out.insert(cpu));
    }
    let next_to = cores.last().map(|core| (core + 1) * threads);
    // The neighbour of the run, if it is free as a whole, keeps a rest side by side.
    let neighbour = next_to.filter(|cpu| whole.binary_search(&(cpu / threads)).is_ok());
    let neighbour = neighbour.into_iter().flat_map(|cpu| cpu..cpu + threads);
    for cpu in broken.iter().chain(neighbour.collect::<Vec<_>>().iter()).copied().chain(free.iter())
    {
        if out.len() >= count {
            break;
        }
        out.insert(cpu);
    }
    out
}

/// The same where every CPU is a core.
fn take_single(free: &CpuSet, count: u32) -> CpuSet {
    let long = free.runs().filter(|(_, length)| *length >= count);
    match long.min_by_key(|(first, length)| (*length, *first)) {
        Some((first, _)) => {
            let mut out = CpuSet::default();
            out.insert_range(first, first + count);
            out
        }
        None => free.lowest(count),
    }
}

/// Cores that are free as a whole, ascending, and the free CPUs of the others.
fn cores(free: &CpuSet, threads: u32) -> (Vec<u32>, Vec<u32>) {
    let (mut whole, mut broken, mut part) = (Vec::new(), Vec::new(), Vec::new());
    let mut close = |core: u32, part: &mut Vec<u32>| match part.len() == threads as usize {
        true => {
            whole.push(core);
            part.clear();
        }
        false => broken.append(part),
    };
    let mut core = 0;
    for cpu in free.iter() {
        if cpu / threads != core {
            close(core, &mut part);
            core = cpu / threads;
        }
        part.push(cpu);
    }
    close(core, &mut part);
    (whole, broken)
}

/// `count` cores of the shortest run of neighbours that has so many; of equals the first.
fn run(cores: &[u32], count: usize) -> Option<&[u32]> {
    let mut best: Option<&[u32]> = None;
    for run in cores.chunk_by(|a, b| a + 1 == *b) {
        if run.len() >= count && best.is_none_or(|known| run.len() < known.len()) {
            best = Some(run);
        }
    }
    best.map(|run| &run[..count])
}

#[cfg(test)]
mod tests;

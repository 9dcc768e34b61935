//! How the GPUs of one node hang together: a score for every pair, and the NUMA node of each.
//!
//! Scores order the ways between two GPUs by what they carry; only their order and rough ratio
//! matter. They follow the levels of NVML's `nvmlDeviceGetTopologyCommonAncestor` and the count of
//! NVLinks between the pair. A pair that nobody knows anything about scores 0. GPUs that reach each other's
//! memory over PCIe (peer to peer) score [`LinkClass::PEER`] more than others of their class.

/// The best way between two GPUs of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkClass {
    /// Nothing is known.
    Unknown,
    /// Across the interconnect between NUMA nodes (`SYS`).
    System,
    /// Between host bridges of one NUMA node (`NODE`).
    Numa,
    /// Through one PCIe host bridge (`PHB`).
    HostBridge,
    /// Through PCIe switches alone (`PXB`, `PIX`).
    PciSwitch,
    /// This many NVLinks (`NV1` .. `NV18`), direct or through NVSwitches.
    NvLink(u8),
    /// One and the same device.
    Same,
}

impl LinkClass {
    /// Scores of this and more are NVLink: GPUs joined by such pairs are an island.
    pub const ISLAND: u8 = 100;
    /// What a pair over PCIe scores more where each GPU reads the other's memory: less than a class.
    pub const PEER: u8 = 5;
    /// More links than this score no higher (an H100 has 18).
    pub const MAX_WIDTH: u8 = 18;

    /// 0 to 255: unknown 0, system 10, NUMA node 20, host bridge 30, PCIe switch 40, NVLink 100 and
    /// 8 for each of up to 18 links, the device itself 255.
    #[must_use]
    pub const fn score(self) -> u8 {
        match self {
            LinkClass::Unknown => 0,
            LinkClass::System => 10,
            LinkClass::Numa => 20,
            LinkClass::HostBridge => 30,
            LinkClass::PciSwitch => 40,
            LinkClass::NvLink(width) => {
                let width = if width > Self::MAX_WIDTH { Self::MAX_WIDTH } else { width };
                Self::ISLAND + 8 * width
            }
            LinkClass::Same => 255,
        }
    }

    /// The class of a score; in between, the class below.
    #[must_use]
    pub const fn of_score(score: u8) -> LinkClass {
        match score {
            0..=9 => LinkClass::Unknown,
            10..=19 => LinkClass::System,
            20..=29 => LinkClass::Numa,
            30..=39 => LinkClass::HostBridge,
            40..=99 => LinkClass::PciSwitch,
            100..=254 => {
                let width = (score - Self::ISLAND) / 8;
                LinkClass::NvLink(if width > Self::MAX_WIDTH { Self::MAX_WIDTH } else { width })
            }
            255 => LinkClass::Same,
        }
    }
}

/// The links among the GPUs of one node. GPU `i` here is unit `i` of the name `gpu` on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuLinks {
    /// GPUs, at most 64.
    pub count: u8,
    /// `count * count` scores ([`LinkClass::score`]), row by row, symmetric, 255 on the diagonal.
    pub class: Vec<u8>,
    /// The NUMA node of each GPU, `count` of them; 0 where the host does not tell.
    pub numa: Vec<u8>,
}

impl GpuLinks {
    /// The most GPUs that are described one by one.
    pub const MAX_GPUS: u8 = 64;

    /// From received parts; `None` when they are not `count` GPUs' symmetric scores.
    #[must_use]
    pub fn from_parts(count: u8, class: Vec<u8>, numa: Vec<u8>) -> Option<Self> {
        let links = GpuLinks { count, class, numa };
        links.is_sound().then_some(links)
    }

    /// `numa.len()` GPUs (64 at most), every pair at `rest`, then the pairs given, both ways. Pairs
    /// of unknown GPUs and of a GPU with itself are passed over.
    #[must_use]
    pub fn from_pairs(numa: &[u8], rest: LinkClass, pairs: &[(u8, u8, LinkClass)]) -> Self {
        let numa = &numa[..numa.len().min(usize::from(Self::MAX_GPUS))];
        let n = numa.len();
        let mut class = vec![rest.score(); n * n];
        for &(a, b, link) in pairs {
            let (a, b) = (usize::from(a), usize::from(b));
            if a < n && b < n {
                class[a * n + b] = link.score();
                class[b * n + a] = link.score();
            }
        }
        for i in 0..n {
            class[i * n + i] = LinkClass::Same.score();
        }
        let count = u8::try_from(n).unwrap_or(Self::MAX_GPUS);
        GpuLinks { count, class, numa: numa.to_vec() }
    }

    /// The same with these pairs, both ways, as peers. Pairs that NVLink joins are in any case, and
    /// pairs of which nothing else is known stay unknown.
    #[must_use]
    pub fn with_peers(mut self, pairs: &[(u8, u8)]) -> Self {
        let n = usize::from(self.count);
        for &(a, b) in pairs {
            let pcie = match self.class_of(a, b) {
                LinkClass::System
                | LinkClass::Numa
                | LinkClass::HostBridge
                | LinkClass::PciSwitch => true,
                LinkClass::Unknown | LinkClass::NvLink(_) | LinkClass::Same => false,
            };
            if pcie {
                let score = self.class_of(a, b).score() + LinkClass::PEER;
                self.class[usize::from(a) * n + usize::from(b)] = score;
                self.class[usize::from(b) * n + usize::from(a)] = score;
            }
        }
        self
    }

    /// Whether two GPUs are known to reach each other's memory.
    #[must_use]
    pub fn are_peers(&self, a: u8, b: u8) -> bool {
        let score = self.score(a, b);
        match LinkClass::of_score(score) {
            LinkClass::NvLink(_) => true,
            LinkClass::Unknown | LinkClass::Same => false,
            LinkClass::System | LinkClass::Numa | LinkClass::HostBridge | LinkClass::PciSwitch => {
                score % 10 >= LinkClass::PEER
            }
        }
    }

    /// `n` GPUs (64 at most) on NVSwitches: every pair alike, 18 links wide.
    #[must_use]
    pub fn full(n: u8) -> Self {
        let numa = vec![0; usize::from(n.min(Self::MAX_GPUS))];
        Self::from_pairs(&numa, LinkClass::NvLink(LinkClass::MAX_WIDTH), &[])
    }

    /// Whether sizes fit together, both directions agree and each GPU is itself.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let n = usize::from(self.count);
        self.count <= Self::MAX_GPUS
            && self.class.len() == n * n
            && self.numa.len() == n
            && (0..n).all(|a| {
                self.class[a * n + a] == LinkClass::Same.score()
                    && (0..a).all(|b| self.class[a * n + b] == self.class[b * n + a])
            })
    }

    /// The score of a pair; 0 for GPUs that are not described.
    #[must_use]
    pub fn score(&self, a: u8, b: u8) -> u8 {
        if a >= self.count || b >= self.count {
            return 0;
        }
        let at = usize::from(a) * usize::from(self.count) + usize::from(b);
        self.class.get(at).copied().unwrap_or(0)
    }

    /// The class of a pair.
    #[must_use]
    pub fn class_of(&self, a: u8, b: u8) -> LinkClass {
        LinkClass::of_score(self.score(a, b))
    }

    /// The NUMA node of a GPU, if it is described.
    #[must_use]
    pub fn numa_of(&self, gpu: u8) -> Option<u8> {
        self.numa.get(usize::from(gpu)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_way_scores_higher_and_a_score_tells_its_class() {
        let mut all = vec![
            LinkClass::Unknown,
            LinkClass::System,
            LinkClass::Numa,
            LinkClass::HostBridge,
            LinkClass::PciSwitch,
        ];
        all.extend((0..=LinkClass::MAX_WIDTH).map(LinkClass::NvLink));
        all.push(LinkClass::Same);
        assert!(all.windows(2).all(|pair| pair[0].score() < pair[1].score()));
        assert!(all.iter().all(|class| LinkClass::of_score(class.score()) == *class));
        assert_eq!(LinkClass::of_score(250), LinkClass::NvLink(18));
        assert_eq!(LinkClass::NvLink(255).score(), LinkClass::NvLink(18).score());
    }

    #[test]
    fn pairs_hold_both_ways_and_each_gpu_is_itself() {
        let links =
            GpuLinks::from_pairs(&[0, 0, 1], LinkClass::System, &[(1, 0, LinkClass::NvLink(2))]);
        assert!(links.is_sound());
        assert_eq!(links.class_of(0, 1), LinkClass::NvLink(2));
        assert_eq!(links.class_of(2, 1), LinkClass::System);
        assert_eq!(links.class_of(2, 2), LinkClass::Same);
        assert_eq!((links.score(0, 3), links.numa_of(2), links.numa_of(3)), (0, Some(1), None));
        let outside = GpuLinks::from_pairs(&[0], LinkClass::System, &[(0, 9, LinkClass::Numa)]);
        assert!(outside.is_sound());
        assert!(GpuLinks::full(200).is_sound() && GpuLinks::full(0).is_sound());
    }

    #[test]
    fn peers_are_nearer_than_others_of_their_class_and_farther_than_the_next() {
        use LinkClass::{HostBridge, Numa, NvLink, Unknown};
        let pairs = [(0, 1, Numa), (0, 2, Numa), (0, 3, HostBridge), (1, 2, NvLink(1))];
        let plain = GpuLinks::from_pairs(&[0; 4], Unknown, &pairs);
        let links = plain.clone().with_peers(&[(1, 0), (1, 2), (2, 3), (0, 0), (0, 9)]);
        assert!(links.is_sound());
        assert!(links.score(0, 2) < links.score(0, 1) && links.score(0, 1) < links.score(0, 3));
        assert_eq!(links.class_of(0, 1), Numa);
        let peers = |a, b| (plain.are_peers(a, b), links.are_peers(a, b));
        assert_eq!(peers(0, 1), (false, true));
        assert_eq!(peers(0, 2), (false, false));
        assert_eq!(peers(1, 2), (true, true), "NVLink");
        assert_eq!((peers(2, 3), peers(0, 0)), ((false, false), (false, false)), "nothing known");
    }

    #[test]
    fn received_links_that_contradict_themselves_are_refused() {
        let good = GpuLinks::full(2);
        assert_eq!(
            GpuLinks::from_parts(2, good.class.clone(), good.numa.clone()),
            Some(good.clone())
        );
        assert_eq!(GpuLinks::from_parts(2, vec![255, 10, 20, 255], vec![0, 0]), None);
        assert_eq!(GpuLinks::from_parts(2, vec![255, 10, 10, 0], vec![0, 0]), None);
        assert_eq!(GpuLinks::from_parts(2, good.class.clone(), vec![0]), None);
        assert_eq!(GpuLinks::from_parts(3, good.class, vec![0, 0, 0]), None);
    }
}

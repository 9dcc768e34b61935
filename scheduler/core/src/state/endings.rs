//! What running jobs will give back, by the time at which they must.
//!
//! A view of every pass that promises starts has all of it, 40,000 jobs on a large cluster. So the
//! list lies in small shared pieces: a view takes the pieces as they are, and a change copies the
//! one piece that it is in, if a view still has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{JobId, NodeId, Slice, Timestamp};

use crate::apply::GPU;
use crate::lifecycle::Phase;
use crate::plan::axes::{Amounts, Axes};

use super::index::remaining_slices;
use super::job::Job;

/// What one job gives back.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The end of its limit; [`LEAVES`]: it is on its way out.
    pub end: Timestamp,
    pub job: JobId,
    pub nodes: Box<[(NodeId, Amounts)]>,
    /// The same to the unit, for those to whom it matters which.
    pub slices: Box<[Slice]>,
    pub licenses: Box<[(Box<str>, u32)]>,
}

/// Before every time.
pub const LEAVES: Timestamp = Timestamp(i64::MIN);

/// Releases, earliest first, equals by job.
#[derive(Debug, Clone, Default)]
pub struct Endings {
    /// None is empty; each comes before the next.
    pieces: Vec<Arc<Vec<Arc<Release>>>>,
}

/// A piece that becomes longer is cut in two.
const LONGEST: usize = 128;

type Key = (Timestamp, JobId);

impl Release {
    /// `None`: it holds nothing, or for ever. `kept_back`: drained GPUs, by node.
    pub(super) fn of(job: &Job, axes: &Axes, kept_back: &BTreeMap<NodeId, u64>) -> Option<Self> {
        let end = end_of(job)?;
        let given = |slice: &Slice| match kept_back.get(&slice.node) {
            Some(drained) => without(slice, *drained),
            None => slice.clone(),
        };
        let slices: Box<[Slice]> = remaining_slices(job).map(given).collect();
        let nodes = slices.iter().map(|slice| (slice.node, axes.taken(slice))).collect();
        let licenses = job.spec.licenses.clone().into();
        Some(Release { end, job: job.id, nodes, slices, licenses })
    }

    fn key(&self) -> Key {
        (self.end, self.job)
    }
}

/// A slice but for these GPUs.
fn without(slice: &Slice, drained: u64) -> Slice {
    let mut rest = slice.clone();
    for gres in rest.gres.iter_mut().filter(|gres| &*gres.kind.name == GPU) {
        gres.count = gres.count.saturating_sub((gres.mask & drained).count_ones().into());
        gres.mask &= !drained;
    }
    rest
}

/// When a job gives back what it holds.
pub(super) fn end_of(job: &Job) -> Option<Timestamp> {
    let held = job.phase.allocation()?;
    match job.phase {
        Phase::Completing { .. } => Some(LEAVES),
        Phase::Pending { .. }
        | Phase::Launching { .. }
        | Phase::Running { .. }
        | Phase::Ended { .. } => held.end_at,
    }
}

impl Endings {
    /// Earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &Release> + Clone {
        self.pieces.iter().flat_map(|piece| piece.iter()).map(|release| &**release)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn put(&mut self, release: Release) {
        let key = release.key();
        let release = Arc::new(release);
        let at = self.piece_of(key);
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(Arc::new(vec![release]));
            return;
        };
        let piece = Arc::make_mut(piece);
        match piece.binary_search_by_key(&key, |r| r.key()) {
            Ok(known) => piece[known] = release,
            Err(place) => piece.insert(place, release),
        }
        if piece.len() > LONGEST {
            let rest = piece.split_off(LONGEST / 2);
            self.pieces.insert(at + 1, Arc::new(rest));
        }
    }

    pub(super) fn take(&mut self, end: Timestamp, job: JobId) {
        let at = self.piece_of((end, job));
        let Some(shared) = self.pieces.get_mut(at) else { return };
        let Ok(place) = shared.binary_search_by_key(&(end, job), |r| r.key()) else { return };
        let piece = Arc::make_mut(shared);
        piece.remove(place);
        if piece.is_empty() {
            self.pieces.remove(at);
        }
    }

    /// The piece that has this key, or would: the last one if all end before.
    fn piece_of(&self, key: Key) -> usize {
        let before = |piece: &Arc<Vec<Arc<Release>>>| piece.last().is_some_and(|r| r.key() < key);
        let at = self.pieces.partition_point(before);
        at.min(self.pieces.len().saturating_sub(1))
    }
}

impl PartialEq for Endings {
    /// However they are cut into pieces.
    fn eq(&self, other: &Endings) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn release(end: i64, job: u32) -> Release {
        let (end, job) = (Timestamp(end), JobId(job));
        let (nodes, slices, licenses) = (Box::default(), Box::default(), Box::default());
        Release { end, job, nodes, slices, licenses }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_list_and_what_was_taken_of_it_stays(
            steps in prop::collection::vec((any::<bool>(), 0i64..40, 0u32..40), 0..1500),
        ) {
            let (mut list, mut plain) = (Endings::default(), BTreeMap::new());
            let mut seen: Vec<(Endings, Vec<Key>)> = Vec::new();
            for (at, (put, end, job)) in steps.into_iter().enumerate() {
                if put {
                    list.put(release(end, job));
                    plain.insert((Timestamp(end), JobId(job)), ());
                } else {
                    list.take(Timestamp(end), JobId(job));
                    plain.remove(&(Timestamp(end), JobId(job)));
                }
                if at % 100 == 0 {
                    seen.push((list.clone(), plain.keys().copied().collect()));
                }
            }
            seen.push((list.clone(), plain.keys().copied().collect()));
            for (list, keys) in seen {
                prop_assert_eq!(list.iter().map(Release::key).collect::<Vec<_>>(), keys);
                prop_assert_eq!(list.len(), list.iter().count());
                prop_assert!(list.pieces.iter().all(|p| !p.is_empty() && p.len() <= LONGEST));
            }
        }
    }
}

//! Everything the controller wants of this node against everything the node holds. Pure, as `job`.
//!
//! - a wish about an attempt older than one held here is ignored
//! - a wish to stop what is not here is answered with the end: nothing of it is left
//! - a full list ends what is not in it, unless this node holds a newer attempt than the list does

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::agent::v1::Want;
use muster_proto::shim::v1::StopCause;

use super::job::{Action, End, Event, Job, Key, Phase, Wish};

/// The slices of this node.
#[derive(Debug, Default)]
pub struct Held {
    jobs: BTreeMap<Key, Job>,
}

/// Of a slice that is not here yet: whether it may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launchable {
    /// The credential is good; whether it has a process here and can be started in one go, and
    /// until when.
    Yes { batch: bool, straight: bool, end_at: i64 },
    /// Why not; the controller is told.
    No { reason: String },
}

/// A wish and, where it wants a start, whether that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desire {
    pub key: Key,
    pub wish: Wish,
    pub launchable: Launchable,
}

impl Held {
    /// Takes over what a spool held.
    pub fn adopt(&mut self, key: Key, job: Job) {
        self.jobs.insert(key, job);
    }

    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Job> {
        self.jobs.get(&key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Job)> {
        self.jobs.iter().map(|(key, job)| (*key, job))
    }

    /// Drops a slice whose spool entry is gone.
    pub fn erase(&mut self, key: Key) {
        self.jobs.remove(&key);
    }

    /// Something happened to a slice; nothing follows for one that is not held.
    pub fn step(&mut self, key: Key, event: Event) -> Vec<Action> {
        self.jobs.get_mut(&key).map_or_else(Vec::new, |job| job.step(event))
    }

    /// The controller's wishes. `full`: these are all that it has.
    pub fn desire(&mut self, desires: Vec<Desire>, full: bool) -> Vec<(Key, Action)> {
        let mut actions = Vec::new();
        if full {
            self.end_unlisted(&desires, &mut actions);
        }
        for desire in desires {
            let key = desire.key;
            if !self.jobs.contains_key(&key) {
                if !self.meet(&desire) {
                    continue;
                }
                if matches!(self.jobs[&key].phase, Phase::Over(_)) {
                    actions.push((key, Action::Report));
                }
            }
            let follow = self.step(key, Event::Wished(desire.wish));
            actions.extend(follow.into_iter().map(|action| (key, action)));
        }
        actions
    }

    /// Enters a slice that is not held yet; false when there is nothing to do about it.
    fn meet(&mut self, desire: &Desire) -> bool {
        let Key { job, attempt } = desire.key;
        let newer =
            Key { job, attempt: attempt.saturating_add(1) }..=Key { job, attempt: u32::MAX };
        let stale = self.jobs.range(newer).next().is_some();
        let new = match desire.wish.want {
            Want::Forget => return false,
            Want::Stop => Job::new(false, 0, Phase::Over(End::bare())),
            Want::Prepare | Want::Run if stale => return false,
            Want::Prepare | Want::Run => match &desire.launchable {
                Launchable::Yes { batch, straight, end_at } => {
                    let phase = Phase::Preparing { begun: false, cancelled: false };
                    Job::new(*batch, *end_at, phase).straight(*straight)
                }
                Launchable::No { reason } => {
                    let end = End::LaunchFailed { reason: reason.clone(), node_fault: false };
                    Job::new(false, 0, Phase::Over(end))
                }
            },
        };
        self.jobs.insert(desire.key, new);
        true
    }

    fn end_unlisted(&mut self, desires: &[Desire], actions: &mut Vec<(Key, Action)>) {
        let mut listed: BTreeMap<u32, u32> = BTreeMap::new();
        for Key { job, attempt } in desires.iter().map(|d| d.key) {
            let newest = listed.entry(job).or_insert(attempt);
            *newest = attempt.max(*newest);
        }
        let named: BTreeSet<Key> = desires.iter().map(|d| d.key).collect();
        let unknown = |key: &Key| {
            !named.contains(key) && listed.get(&key.job).is_none_or(|newest| key.attempt <= *newest)
        };
        let keys: Vec<Key> = self.jobs.keys().copied().filter(unknown).collect();
        let wish = Wish {
            want: Want::Forget,
            suspended: false,
            cause: StopCause::UnknownToController,
            end_at: 0,
        };
        for key in keys {
            let follow = self.step(key, Event::Wished(wish));
            actions.extend(follow.into_iter().map(|action| (key, action)));
        }
    }
}

#[cfg(test)]
mod tests;

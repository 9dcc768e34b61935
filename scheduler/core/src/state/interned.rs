//! Parts of specs that many jobs have in common, kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::{JobSpec, LaunchSpec, Request};

/// Parts of specs by value, so that equal ones are kept once. A cache: two states are equal
/// whatever theirs hold.
#[derive(Debug, Clone, Default)]
pub struct Interned {
    requests: BTreeSet<Arc<Request>>,
    launches: BTreeSet<Arc<LaunchSpec>>,
    rlimits: BTreeSet<Rlimits>,
    /// Jobs purged since the last look at what is still in use.
    purged: usize,
}

type Rlimits = Arc<[(Box<str>, u64)]>;

impl Interned {
    /// An equal request that is kept already.
    pub(super) fn request(&self, request: &Arc<Request>) -> Option<Arc<Request>> {
        self.requests.get(request).cloned()
    }

    /// Takes note that so many jobs are gone, and drops what no job has any more once that is
    /// worth the look: there may be as many launches as jobs.
    pub(crate) fn prune(&mut self, gone: usize) {
        self.purged += gone;
        if self.purged < self.launches.len() / 2 {
            return;
        }
        self.purged = 0;
        self.launches.retain(|launch| Arc::strong_count(launch) > 1);
        self.requests.retain(|request| Arc::strong_count(request) > 1);
        self.rlimits.retain(|limits| Arc::strong_count(limits) > 1);
    }

    /// The spec with every part that is known already taken from here.
    pub(super) fn share(&self, spec: &mut JobSpec) {
        if let Some(known) = self.requests.get(&spec.request) {
            spec.request = Arc::clone(known);
        }
        if let Some(known) = self.launches.get(&spec.launch) {
            spec.launch = Arc::clone(known);
        } else if let Some(known) = self.rlimits.get(&spec.launch.rlimits)
            && !Arc::ptr_eq(known, &spec.launch.rlimits)
        {
            Arc::make_mut(&mut spec.launch).rlimits = Arc::clone(known);
        }
    }

    /// Shares the spec's parts and keeps those that are new. Copies the spec only if it has to
    /// change and is not the caller's alone; a fact that was decided here never needs it.
    pub fn keep(&mut self, spec: &mut Arc<JobSpec>) {
        self.requests.insert_new(&spec.request);
        self.rlimits.insert_new(&spec.launch.rlimits);
        if !self.has_parts_of(spec) {
            self.share(Arc::make_mut(spec));
        }
        self.launches.insert_new(&spec.launch);
    }

    /// Whether the spec's parts are the ones kept here, or new.
    fn has_parts_of(&self, spec: &JobSpec) -> bool {
        fn same<T: ?Sized>(known: Option<&Arc<T>>, own: &Arc<T>) -> bool {
            known.is_none_or(|known| Arc::ptr_eq(known, own))
        }
        same(self.requests.get(&spec.request), &spec.request)
            && same(self.launches.get(&spec.launch), &spec.launch)
            && same(self.rlimits.get(&spec.launch.rlimits), &spec.launch.rlimits)
    }
}

trait InsertNew<T> {
    fn insert_new(&mut self, value: &T);
}

impl<T: Ord + Clone> InsertNew<T> for BTreeSet<T> {
    fn insert_new(&mut self, value: &T) {
        if !self.contains(value) {
            self.insert(value.clone());
        }
    }
}

impl PartialEq for Interned {
    fn eq(&self, _: &Interned) -> bool {
        true
    }
}

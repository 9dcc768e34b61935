//! Parts of specs that many jobs have in common, kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::{JobSpec, Request};

/// Parts of specs by value, so that equal ones are kept once. A cache: two states are equal
/// whatever theirs hold.
#[derive(Debug, Clone, Default)]
pub struct Interned {
    requests: BTreeSet<Arc<Request>>,
    rlimits: BTreeSet<Rlimits>,
}

type Rlimits = Arc<[(Box<str>, u64)]>;

impl Interned {
    /// An equal request that is kept already.
    pub(super) fn request(&self, request: &Arc<Request>) -> Option<Arc<Request>> {
        self.requests.get(request).cloned()
    }

    /// Drops what no job has any more.
    pub(crate) fn prune(&mut self) {
        self.requests.retain(|request| Arc::strong_count(request) > 1);
        self.rlimits.retain(|limits| Arc::strong_count(limits) > 1);
    }

    /// The spec with every part that is known already taken from here.
    pub(super) fn share(&self, spec: &mut JobSpec) {
        if let Some(known) = self.requests.get(&spec.request) {
            spec.request = Arc::clone(known);
        }
        if let Some(known) = self.rlimits.get(&spec.launch.rlimits) {
            spec.launch.rlimits = Arc::clone(known);
        }
    }

    /// Shares the spec's parts and keeps those that are new. Copies the spec only if it has to
    /// change, which a fact that was decided here never needs.
    pub(crate) fn keep(&mut self, spec: &Arc<JobSpec>) -> Arc<JobSpec> {
        self.requests.insert_new(&spec.request);
        self.rlimits.insert_new(&spec.launch.rlimits);
        let same = |known: Option<&Arc<Request>>| {
            known.is_some_and(|known| Arc::ptr_eq(known, &spec.request))
        };
        let same_limits = |known: Option<&Rlimits>| {
            known.is_some_and(|known| Arc::ptr_eq(known, &spec.launch.rlimits))
        };
        if same(self.requests.get(&spec.request))
            && same_limits(self.rlimits.get(&spec.launch.rlimits))
        {
            return Arc::clone(spec);
        }
        let mut own = JobSpec::clone(spec);
        self.share(&mut own);
        Arc::new(own)
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

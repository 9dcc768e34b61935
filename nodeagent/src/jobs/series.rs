//! What the tasks of one array share on this node.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use muster_proto::shim::v1::Launch;
use muster_shim::SliceDir;

use super::job::Key;

/// Tasks of one array, which can share what is the same for all of them: the script's file, and
/// the shim that serves one after another. Lost with the agent, which costs time and no more.
#[derive(Debug, Default)]
pub struct Series {
    /// Of slices that are written and not launched yet.
    names: Mutex<HashMap<Key, String>>,
    /// Of slices whose shim and group are shared.
    shared: Mutex<HashSet<Key>>,
    /// The slice that was written last, and its series.
    last: Mutex<Option<(String, SliceDir)>>,
}

impl Series {
    /// Notes a slice that is about to be written; the answer is one whose script may be the same.
    pub(super) fn begin(&self, key: Key, launch: &Launch, dir: &SliceDir) -> Option<SliceDir> {
        if launch.array_job == 0 || !launch.batch {
            return None;
        }
        let uid = launch.user.as_ref().map_or(0, |user| user.uid);
        let name = format!("{}.{uid}", launch.array_job);
        self.names.lock().expect("no panic inside").insert(key, name.clone());
        let mut last = self.last.lock().expect("no panic inside");
        let before = last.replace((name.clone(), dir.clone()));
        before.filter(|(of, _)| *of == name).map(|(_, dir)| dir)
    }

    /// The series of a slice that is being launched; empty: none.
    pub(super) fn launch(&self, key: Key) -> String {
        let name = self.names.lock().expect("no panic inside").remove(&key).unwrap_or_default();
        if !name.is_empty() {
            self.shared.lock().expect("no panic inside").insert(key);
        }
        name
    }

    /// Whether this agent launched the slice in a series: there is no group of its name then.
    pub(super) fn has_launched(&self, key: Key) -> bool {
        self.shared.lock().expect("no panic inside").contains(&key)
    }

    /// Nothing is left of the slice.
    pub(super) fn forget(&self, key: Key) {
        self.names.lock().expect("no panic inside").remove(&key);
        self.shared.lock().expect("no panic inside").remove(&key);
    }
}

//! Dumps of scheduling passes: all that a pass saw, and what it chose, in a file that
//! `muster sim plan` runs again.
//!
//! Copying the state costs more than the pass itself on a large cluster, so it is copied only for
//! passes that somebody asked for, and for the next few after one that was slow or whose plan was
//! turned down: if one of those goes wrong again, it is written. What a pass does not look at is
//! left out before anything is written: scripts and environments are not part of the state at all,
//! and paths, arguments, comments and the names of users go too.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use muster_core::plan::{self, Backfill, Order, Packing, Plan, Policy, View};
use muster_core::rejection::Rejection;
use muster_core::state::{Habits, Parts, State};
use muster_model::{JobId, JobSpec, Timestamp, User};
use muster_proto::store::v1 as rec;
use muster_store::frame;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::engine::codec::BadRecord;
use crate::engine::snapshot;

/// Passes that are watched after one that went wrong.
const WATCHED: u32 = 16;
/// Some starts are always turned down: a job was cancelled or a node drained meanwhile. More than
/// this many, and more than a tenth of the plan, are too many.
const REFUSED_MOST: usize = 4;
/// Who may wait for a dump at once: each costs one copy of the state.
const ASKING_MOST: usize = 16;

const FOLDER: &str = "passes";
const SUFFIX: &str = ".dump";

/// Why a pass is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Asked,
    Slow,
    Refused,
}

impl Cause {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Cause::Asked => "asked",
            Cause::Slow => "slow",
            Cause::Refused => "refused",
        }
    }
}

/// What went wrong with a dump.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: not the dump of a pass: {why}")]
    Damaged { path: PathBuf, why: String },
}

type Answer = Result<PathBuf, String>;

/// Which passes are to be copied.
#[derive(Debug, Default)]
pub struct Dumps {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Passes that are still watched.
    watched: u32,
    asking: Vec<oneshot::Sender<Answer>>,
}

/// What is copied for one pass, and who waits for it.
#[derive(Debug)]
pub struct Watch {
    asking: Vec<oneshot::Sender<Answer>>,
}

impl Dumps {
    /// A dump of the next pass; `None`: too many wait for one.
    pub fn ask(&self) -> Option<oneshot::Receiver<Answer>> {
        let mut inner = self.inner.lock().expect("nothing panics while it is held");
        let (answer, file) = oneshot::channel();
        (inner.asking.len() < ASKING_MOST).then(|| {
            inner.asking.push(answer);
            file
        })
    }

    /// Whether the pass that begins now is to be copied.
    pub fn begin(&self) -> Option<Watch> {
        let mut inner = self.inner.lock().expect("nothing panics while it is held");
        if inner.watched == 0 && inner.asking.is_empty() {
            return None;
        }
        inner.watched = inner.watched.saturating_sub(1);
        Some(Watch { asking: std::mem::take(&mut inner.asking) })
    }

    /// A pass went wrong: the next ones are copied.
    pub fn watch(&self) {
        self.inner.lock().expect("nothing panics while it is held").watched = WATCHED;
    }
}

impl Watch {
    #[must_use]
    pub fn asked(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Tells those who asked.
    pub fn answer(self, answer: &Answer) {
        for asking in self.asking {
            // Whoever is gone needs no answer.
            let _ = asking.send(answer.clone());
        }
    }
}

/// Whether a pass went wrong. `took` is what it took to look and to plan.
#[must_use]
pub fn symptom(
    took: Duration,
    target: Duration,
    wished: usize,
    refused: &[(JobId, Rejection)],
) -> Option<Cause> {
    // A job that was cancelled meanwhile says nothing about the plan.
    let turned = refused.iter().filter(|(_, why)| !matches!(why, Rejection::NotPending(_)));
    let turned = turned.count();
    if turned > REFUSED_MOST && turned * 10 > wished {
        return Some(Cause::Refused);
    }
    (took > target * 2).then_some(Cause::Slow)
}

/// A pass: all that it saw and chose.
#[derive(Debug)]
pub struct Dump {
    pub now: Timestamp,
    pub fuel: u64,
    pub policy: Policy,
    /// By their place in the state's nodes.
    pub silent: Vec<u32>,
    /// What was chosen, as [`plan::listing`] has it.
    pub chosen: Vec<String>,
    pub cause: String,
    pub took: Duration,
    pub refused: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// A snapshot of the state, without what a pass does not look at.
    pub state: Bytes,
}

impl Dump {
    /// The very view that the pass had.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn view(&self) -> Result<View, BadRecord> {
        let state = snapshot::decode(self.state.clone())?;
        Ok(self.view_of(&state))
    }

    fn view_of(&self, state: &State) -> View {
        let mut view = plan::view(state, self.now, &self.policy);
        for node in &self.silent {
            if let Some(node) = view.nodes.get_mut(*node as usize) {
                node.usable = false;
            }
        }
        view
    }

    /// Plans once more.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn plan(&self) -> Result<(View, Plan), BadRecord> {
        let view = self.view()?;
        let plan = plan::plan(&view, &self.policy, self.now, self.fuel);
        Ok((view, plan))
    }

    /// Writes it beside the others of its folder, of which the newest `kept` stay.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, state_dir: &Path, kept: u32) -> Result<PathBuf, Fault> {
        let folder = state_dir.join(FOLDER);
        // Times sort as names do.
        let name = format!("{:015}-{}{SUFFIX}", self.now.0.max(0), self.cause);
        let path = folder.join(name);
        let fault = |source| Fault::Write { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(fault)?;
        let draft = folder.join("draft");
        let _ = fs::remove_file(&draft);
        let mut options = fs::OpenOptions::new();
        // Who runs what is not for everybody.
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(&draft).map_err(fault)?;
        file.write_all(&self.encode()).map_err(fault)?;
        drop(file);
        fs::rename(&draft, &path).map_err(fault)?;
        prune(&folder, kept as usize);
        Ok(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no dump.
    pub fn read(path: &Path) -> Result<Dump, Fault> {
        let bytes = fs::read(path);
        let bytes = bytes.map_err(|source| Fault::Read { path: path.to_owned(), source })?;
        let damaged = |why: String| Fault::Damaged { path: path.to_owned(), why };
        Self::decode(&Bytes::from(bytes)).map_err(damaged)
    }

    fn encode(&self) -> Bytes {
        let record = rec::PassDump {
            now: self.now.0,
            fuel: self.fuel,
            policy: Some(store_policy(&self.policy)),
            state: self.state.clone(),
            silent: self.silent.clone(),
            plan: self.chosen.clone(),
            cause: self.cause.clone(),
            took_micros: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            refused: self.refused,
            version: self.version.clone(),
        };
        frame::encode(1, 0, false, &record.encode_to_vec())
    }

    fn decode(bytes: &Bytes) -> Result<Dump, String> {
        let frame = frame::decode(bytes)?;
        let record = rec::PassDump::decode(frame.payload).map_err(|fault| fault.to_string())?;
        let policy = load_policy(&record.policy.unwrap_or_default())?;
        let dump = Dump {
            now: Timestamp(record.now),
            fuel: record.fuel,
            policy,
            silent: record.silent,
            chosen: record.plan,
            cause: record.cause,
            took: Duration::from_micros(record.took_micros),
            refused: record.refused,
            version: record.version,
            state: record.state,
        };
        Ok(dump)
    }
}

/// Takes the oldest away.
fn prune(folder: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut dumps: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).collect();
    dumps.sort_unstable();
    let surplus = dumps.len().saturating_sub(kept);
    for old in &dumps[..surplus] {
        // One that stays is tried again with the next dump.
        let _ = fs::remove_file(old);
    }
}

/// The bytes of a state without what a pass does not look at.
#[must_use]
pub fn stripped(mut parts: Parts) -> Bytes {
    let mut known: HashMap<*const JobSpec, Arc<JobSpec>> = HashMap::new();
    // The old ones live until the end, so that no address is used again meanwhile.
    let mut old = Vec::with_capacity(parts.jobs.len() + parts.arrays.len());
    let mut strip = |spec: &mut Arc<JobSpec>| {
        let plain = known.entry(Arc::as_ptr(spec)).or_insert_with(|| Arc::new(plain(spec)));
        old.push(std::mem::replace(spec, Arc::clone(plain)));
    };
    for job in &mut parts.jobs {
        strip(&mut job.spec);
        (job.request_id, job.last) = ([0; 16], None);
    }
    for array in &mut parts.arrays {
        strip(&mut array.spec);
        array.request_id = [0; 16];
    }
    for node in &mut parts.nodes {
        node.comment = Box::default();
    }
    // Jobs carry how long they are expected to run; how long jobs wait here is of no user.
    parts.habits = Habits { users: Default::default(), ..parts.habits };
    snapshot::encode(&parts)
}

/// What a pass looks at, field by field, so that nothing new gets in by itself. Names stay: jobs of
/// one name may wait for each other.
fn plain(spec: &JobSpec) -> JobSpec {
    let User { uid, gid, .. } = spec.user;
    let user = User { uid, gid, name: format!("u{}", uid.0).into() };
    JobSpec {
        name: spec.name.clone(),
        account: spec.account.clone(),
        qos: spec.qos.clone(),
        partitions: spec.partitions.clone(),
        time_limit: spec.time_limit,
        time_min: spec.time_min,
        begin: spec.begin,
        deadline: spec.deadline,
        dependency: spec.dependency.clone(),
        kill_on_invalid_dependency: spec.kill_on_invalid_dependency,
        array: spec.array.clone(),
        het: spec.het,
        held: spec.held,
        nice: spec.nice,
        priority: spec.priority,
        requeue: spec.requeue,
        licenses: spec.licenses.clone(),
        reservation: spec.reservation.clone(),
        ..JobSpec::plain(user, Arc::clone(&spec.request))
    }
}

const ORDERS: &[(&str, Order)] = &[
    ("balanced", Order::Balanced),
    ("priority", Order::Priority),
    ("fcfs", Order::Fcfs),
    ("sjf", Order::Sjf),
    ("f1", Order::F1),
    ("wfp3", Order::Wfp3),
];
const BACKFILLS: &[(&str, Backfill)] = &[
    ("off", Backfill::Off),
    ("in-order", Backfill::InOrder),
    ("shortest-first", Backfill::ShortestFirst),
];
const PACKINGS: &[(&str, Packing)] = &[
    ("best-fit", Packing::BestFit),
    ("first-fit", Packing::FirstFit),
    ("spread", Packing::Spread),
    ("fgd", Packing::Fgd),
    ("least-fragments", Packing::LeastFragments),
];

fn word<T: PartialEq>(all: &[(&str, T)], of: &T) -> String {
    let found = all.iter().find(|(_, one)| one == of);
    found.map_or_else(String::new, |(word, _)| (*word).to_owned())
}

fn of_word<T: Copy>(all: &[(&str, T)], word: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == word);
    found.map(|(_, one)| *one).ok_or_else(|| format!("it has the unknown policy word {word:?}"))
}

fn store_policy(policy: &Policy) -> rec::PassPolicy {
    let Policy { order, backfill, shadows, packing, max_starts, max_heads } = policy;
    rec::PassPolicy {
        order: word(ORDERS, order),
        backfill: word(BACKFILLS, backfill),
        shadows: *shadows,
        packing: word(PACKINGS, packing),
        max_starts: *max_starts as u64,
        max_heads: *max_heads as u64,
    }
}

fn load_policy(record: &rec::PassPolicy) -> Result<Policy, String> {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(Policy {
        order: of_word(ORDERS, &record.order)?,
        backfill: of_word(BACKFILLS, &record.backfill)?,
        shadows: record.shadows,
        packing: of_word(PACKINGS, &record.packing)?,
        max_starts: count(record.max_starts),
        max_heads: count(record.max_heads),
    })
}

#[cfg(test)]
mod tests;

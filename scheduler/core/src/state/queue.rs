//! The queue: what could start, in groups whose inner order never changes.
//!
//! A group is one (partition, shape, base priority, expected run time). Inside it every job ranks
//! alike but for age, and age orders as `eligible_at` does, so the order is static and nothing is
//! ever sorted again. A pass merges the heads of the groups: it costs starts and groups, not the
//! length of the queue.
//!
//! A pending job (or array rest) stands in one place: ready in its groups, waiting for a time, or
//! nowhere (held, dependency, beyond a partition's limits).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::{
    Hold, JobId, JobSpec, Partition, Reason, Request, Reservation, ReservationFlags, TimeLimit,
    Timestamp, Uid,
};

use crate::lifecycle::Phase;
use crate::priority::Base;

use super::dependency::{Standing, array_standing, standing};
use super::habits::Asked;
use super::job::{Array, Entry, Job};
use super::{Derived, PartitionRow};

/// What decides where a job fits. Jobs of one shape are settled together by a pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub request: Arc<Request>,
    pub licenses: Box<[(Box<str>, u32)]>,
    /// It may use what this reservation keeps, and nothing else.
    pub reservation: Option<Box<str>>,
    /// How long it may run, and with how little it would make do (`--time-min`).
    pub limit: Option<TimeLimit>,
    pub least_limit: Option<TimeLimit>,
    /// How much the request asks for, and of how many nodes at least: every pass ranks by it.
    pub asked: Asked,
    pub min_nodes: u32,
}

impl Shape {
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Shape {
            request: Arc::clone(&spec.request),
            licenses: spec.licenses.clone().into(),
            reservation: spec.reservation.clone(),
            limit: spec.time_limit,
            least_limit: spec.time_min,
            asked: Asked::of(&spec.request),
            min_nodes: spec.request.nodes.min,
        }
    }
}

/// Names a group of the queue; higher tiers come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    pub tier: Reverse<u16>,
    /// Place in `State::partitions`.
    pub partition: u32,
    pub base: Base,
    pub shape: Arc<Shape>,
    /// As in [`Job`].
    pub expected: u32,
}

/// Where a pending job stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Nowhere,
    /// In its groups, at this time.
    Ready(Timestamp),
    /// Becomes ready then.
    Until(Timestamp),
}

/// Ready and waiting jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queue {
    pub groups: BTreeMap<GroupKey, BTreeSet<(Timestamp, Entry)>>,
    pub until: BTreeSet<(Timestamp, Entry)>,
}

/// Whether a pending job may start as far as itself is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    From { at: Timestamp, why_not_yet: Reason },
    Blocked(Reason),
}

impl Queue {
    /// Whether a job waits that is like this but for what is expected of it.
    #[must_use]
    pub fn has_kind(&self, of: &GroupKey) -> bool {
        let first = GroupKey { expected: 0, ..of.clone() };
        let next = self.groups.range(first..).next();
        next.is_some_and(|(key, _)| GroupKey { expected: of.expected, ..key.clone() } == *of)
    }

    pub(crate) fn put(
        &mut self,
        partitions: &[PartitionRow],
        entry: Entry,
        (spec, expected): (&JobSpec, u32),
        place: Place,
    ) {
        match place {
            Place::Nowhere => {}
            Place::Until(at) => {
                self.until.insert((at, entry));
            }
            Place::Ready(at) => {
                let shape = Arc::new(Shape::of(spec));
                for (partition, row) in admitting(partitions, spec) {
                    let key = group_key(partition, row, (spec, expected), &shape);
                    self.groups.entry(key).or_default().insert((at, entry));
                }
            }
        }
    }

    pub(crate) fn take(
        &mut self,
        partitions: &[PartitionRow],
        entry: Entry,
        (spec, expected): (&JobSpec, u32),
        place: Place,
    ) {
        match place {
            Place::Nowhere => {}
            Place::Until(at) => {
                self.until.remove(&(at, entry));
            }
            Place::Ready(at) => {
                let shape = Arc::new(Shape::of(spec));
                for (partition, row) in admitting(partitions, spec) {
                    let key = group_key(partition, row, (spec, expected), &shape);
                    if let Some(group) = self.groups.get_mut(&key) {
                        group.remove(&(at, entry));
                        if group.is_empty() {
                            self.groups.remove(&key);
                        }
                    }
                }
            }
        }
    }
}

impl GroupKey {
    /// The groups that a job belongs to: one per partition whose limits it keeps.
    #[must_use]
    pub fn all_of(partitions: &[PartitionRow], spec: &JobSpec, expected: u32) -> Vec<GroupKey> {
        let shape = Arc::new(Shape::of(spec));
        let key = |(at, row)| group_key(at, row, (spec, expected), &shape);
        admitting(partitions, spec).map(key).collect()
    }
}

fn group_key(
    partition: u32,
    row: &PartitionRow,
    (spec, expected): (&JobSpec, u32),
    shape: &Arc<Shape>,
) -> GroupKey {
    GroupKey {
        tier: Reverse(row.partition.priority_tier),
        partition,
        base: Base::of(spec),
        shape: Arc::clone(shape),
        expected,
    }
}

/// The partitions of a job whose limits it keeps.
fn admitting<'a>(
    partitions: &'a [PartitionRow],
    spec: &'a JobSpec,
) -> impl Iterator<Item = (u32, &'a PartitionRow)> {
    (0u32..)
        .zip(partitions)
        .filter(|(_, row)| spec.partitions.contains(&row.partition.name))
        .filter(|(_, row)| beyond_limits(row, spec).is_none())
}

/// Which limit of a partition a job is beyond, if any.
#[must_use]
pub fn beyond_limits(row: &PartitionRow, spec: &JobSpec) -> Option<Reason> {
    beyond(&row.partition, spec)
}

/// The same of a partition's row.
#[must_use]
pub fn beyond(partition: &Partition, spec: &JobSpec) -> Option<Reason> {
    let too_long = match (spec.time_limit, partition.max_time) {
        (_, TimeLimit::Unlimited) | (None, TimeLimit::Limited(_)) => false,
        (Some(TimeLimit::Unlimited), TimeLimit::Limited(_)) => true,
        (Some(TimeLimit::Limited(asked)), TimeLimit::Limited(max)) => asked > max,
    };
    let nodes = spec.request.nodes;
    if too_long {
        return Some(Reason::PartitionTimeLimit);
    }
    let too_many = partition.max_nodes.is_some_and(|max| nodes.min > max);
    let too_few = nodes.max.is_some_and(|max| max < partition.min_nodes);
    (too_many || too_few).then_some(Reason::PartitionNodeLimit)
}

/// What the queue knows besides the job itself.
pub(crate) struct Surroundings<'a> {
    pub(crate) reservations: &'a BTreeMap<Box<str>, Reservation>,
    pub(crate) partitions: &'a [PartitionRow],
    pub(crate) derived: &'a Derived,
}

impl Surroundings<'_> {
    pub(crate) fn job(&self, job: &Job) -> Verdict {
        let Phase::Pending { eligible_at, hold } = &job.phase else {
            return Verdict::Blocked(Reason::None);
        };
        if let Some(hold) = hold {
            return Verdict::Blocked(hold_reason(*hold));
        }
        // It is its leader that stands in the queue.
        if job.follows() {
            return Verdict::Blocked(Reason::None);
        }
        let index = job.array.map(|(_, index)| index);
        let met = standing(&job.spec.dependency, &job.terms, index);
        self.verdict(job.array.map_or(job.id, |(array, _)| array), &job.spec, *eligible_at, met)
    }

    pub(crate) fn array(&self, array: &Array) -> Verdict {
        let standing = array_standing(&array.spec.dependency, &array.terms);
        let unheld = array.unheld();
        if unheld.is_empty() {
            let by_admin = array.held_user.is_empty();
            return Verdict::Blocked(if array.pending.is_empty() {
                Reason::None
            } else if by_admin {
                Reason::JobHeldAdmin
            } else {
                Reason::JobHeldUser
            });
        }
        if let Some(only) = &standing.only
            && unheld.intersection(only).is_empty()
        {
            let dead = unheld.difference(&standing.never).is_empty();
            return Verdict::Blocked(if dead {
                Reason::DependencyNeverSatisfied
            } else {
                Reason::Dependency
            });
        }
        self.verdict(array.id, &array.spec, array.eligible_at, standing.standing)
    }

    fn verdict(&self, id: JobId, spec: &JobSpec, eligible_at: Timestamp, met: Standing) -> Verdict {
        let from = match met {
            Standing::Met { from } => from,
            Standing::Waiting => return Verdict::Blocked(Reason::Dependency),
            Standing::Never => return Verdict::Blocked(Reason::DependencyNeverSatisfied),
        };
        if spec.dependency.singleton && !self.derived.names.is_first(spec, id) {
            return Verdict::Blocked(Reason::Dependency);
        }
        let rows =
            || self.partitions.iter().filter(|r| spec.partitions.contains(&r.partition.name));
        if rows().all(|row| beyond_limits(row, spec).is_some()) {
            let limit = rows().find_map(|row| beyond_limits(row, spec));
            return Verdict::Blocked(limit.unwrap_or(Reason::PartitionDown));
        }
        let why_not_yet = if from > eligible_at { Reason::Dependency } else { Reason::BeginTime };
        let at = eligible_at.max(from);
        let Some(name) = &spec.reservation else { return Verdict::From { at, why_not_yet } };
        let Some(reservation) = self.reservations.get(name) else {
            return Verdict::Blocked(Reason::ReservationDeleted);
        };
        if !reservation.admits(&spec.user.name, &spec.account) {
            return Verdict::Blocked(Reason::Reservation);
        }
        if reservation.has(ReservationFlags::FLEX) || reservation.start <= at {
            return Verdict::From { at, why_not_yet };
        }
        Verdict::From { at: reservation.start, why_not_yet: Reason::Reservation }
    }
}

impl Verdict {
    pub(crate) fn place(self, clock: Timestamp) -> Place {
        match self {
            Verdict::From { at, .. } if at <= clock => Place::Ready(at),
            Verdict::From { at, .. } => Place::Until(at),
            Verdict::Blocked(_) => Place::Nowhere,
        }
    }
}

pub(crate) fn hold_reason(hold: Hold) -> Reason {
    match hold {
        Hold::User => Reason::JobHeldUser,
        Hold::Admin => Reason::JobHeldAdmin,
        Hold::MaxRequeue => Reason::JobHoldMaxRequeue,
        Hold::LaunchFailed => Reason::JobLaunchFailure,
    }
}

/// Who has a job of which name, for `singleton`. Names are kept as hashes: a collision could only
/// make two jobs of one user wait for each other in turn, and a user may name jobs alike anyway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names {
    /// Not ended; an array counts once, under its own id.
    live: BTreeSet<(Uid, u64, JobId)>,
    /// How many hold resources; tasks count each.
    active: BTreeMap<(Uid, u64), u32>,
    /// How many wait and are `singleton`: of a name without any there is nobody to look at when
    /// one starts or ends.
    singletons: BTreeMap<(Uid, u64), u32>,
}

impl Names {
    fn key(spec: &JobSpec) -> (Uid, u64) {
        // FNV-1a: fixed for ever, unlike the standard library's hasher.
        let hash = spec.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (spec.user.uid, hash)
    }

    pub(crate) fn add_live(&mut self, spec: &JobSpec, id: JobId) {
        let (uid, hash) = Names::key(spec);
        self.live.insert((uid, hash, id));
    }

    pub(crate) fn remove_live(&mut self, spec: &JobSpec, id: JobId) {
        let (uid, hash) = Names::key(spec);
        self.live.remove(&(uid, hash, id));
    }

    pub(crate) fn count_active(&mut self, spec: &JobSpec, more: bool) {
        tally(&mut self.active, Names::key(spec), more);
    }

    /// Takes note of one that waits, a job or the rest of an array.
    pub(crate) fn count_waiting(&mut self, spec: &JobSpec, more: bool) {
        if spec.dependency.singleton {
            tally(&mut self.singletons, Names::key(spec), more);
        }
    }

    pub(crate) fn has_singletons(&self, spec: &JobSpec) -> bool {
        self.singletons.contains_key(&Names::key(spec))
    }

    /// Whether this job is the first of its name and none of the name runs.
    pub(crate) fn is_first(&self, spec: &JobSpec, id: JobId) -> bool {
        let key = Names::key(spec);
        !self.active.contains_key(&key) && self.first(spec).next() == Some(id)
    }

    /// Jobs of this name and user that have not ended, lowest id first.
    pub(crate) fn first(&self, spec: &JobSpec) -> impl Iterator<Item = JobId> + '_ {
        let (uid, hash) = Names::key(spec);
        self.live.range((uid, hash, JobId(0))..=(uid, hash, JobId(u32::MAX))).map(|(_, _, id)| *id)
    }
}

fn tally(counts: &mut BTreeMap<(Uid, u64), u32>, key: (Uid, u64), more: bool) {
    let count = counts.entry(key).or_default();
    super::index::count(count, more);
    if *count == 0 {
        counts.remove(&key);
    }
}

//! What is derived from one job or array: put in, taken out, built anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::{JobId, NodeId, Reservation, Timestamp};

use crate::lifecycle::Phase;
use crate::plan::axes::Axes;
use crate::plan::units::UnitTable;

use super::dependency::{Standing, TermState, array_standing, standing};
use super::endings::{Release, end_of};
use super::job::{Array, Entry, Job};
use super::queue::{Place, Surroundings};
use super::topology::Topology;
use super::{Derived, Node, PartitionRow, Portion, State, Wiring};

/// Nodes before one that it may share its wiring with.
const SHARED_WITH: usize = 16;

impl State {
    /// Builds everything derived from the primary fields.
    pub fn rebuild_indices(&mut self) {
        let interned = std::mem::take(&mut self.derived.interned);
        self.derived = Derived { interned, ..Derived::default() };
        for node in &mut self.nodes {
            node.reset();
            self.derived.node_names.insert(node.config.name.clone(), node.id);
        }
        let names = &self.derived.node_names;
        let topology = Topology::new(&self.config.topology, self.nodes.len(), names);
        self.derived.topology = Arc::new(topology);
        for row in &mut self.partitions {
            let names = row.partition.nodes.iter();
            row.members = names.filter_map(|n| self.derived.node_names.get(n).copied()).collect();
            row.members.retain(|id| self.nodes[id.0 as usize].configured);
            row.members.sort_unstable();
            row.members.dedup();
        }
        self.derived.lay_axes(&self.nodes);
        (0..self.nodes.len()).for_each(|at| {
            self.rewire(NodeId(u32::try_from(at).expect("node numbers are 32 bits")));
        });
        let drained = self.nodes.iter().map(|node| node.health.drained_gpus());
        let by_node = (0..).map(NodeId).zip(drained);
        self.derived.kept_back = by_node.filter(|(_, drained)| *drained != 0).collect();
        for job in self.jobs.values_mut() {
            self.derived.interned.keep(&mut job.spec);
            job.place = Place::Nowhere;
            self.derived.add_job(job);
            self.derived.move_ending(None, job);
            for slice in remaining_slices(job) {
                self.nodes[slice.node.0 as usize].hold(job.id, slice);
            }
        }
        for array in self.arrays.values_mut() {
            self.derived.interned.keep(&mut array.spec);
            array.place = Place::Nowhere;
            self.derived.add_array(array);
        }
        // Places depend on the names of all jobs, so they come last.
        let State { jobs, arrays, derived, partitions, reservations, clock, .. } = self;
        let rows = Rows { partitions, reservations };
        for job in jobs.values_mut() {
            derived.place_job(rows, *clock, job);
        }
        for array in arrays.values_mut() {
            derived.place_array(rows, *clock, array);
        }
    }

    /// Takes what a node's agent said about its GPUs for the planner. Nodes side by side are mostly
    /// alike: what one of the last few has is shared.
    pub(crate) fn rewire(&mut self, id: NodeId) {
        let at = id.0 as usize;
        let inventory = self.nodes[at].inventory.clone();
        let told = inventory.as_ref().filter(|i| i.links.is_some());
        let numa = told.map(|inventory| Wiring::numa_of(inventory));
        let said = told.and_then(|i| Some((i.links.as_deref()?, numa.as_ref()?)));
        self.nodes[at].wiring = said.filter(|(links, _)| links.is_sound()).map(|(links, numa)| {
            let beside = self.nodes[at.saturating_sub(SHARED_WITH)..=at].iter().rev();
            let same = |w: &&Arc<Wiring>| w.table.links() == links && w.numa == **numa;
            let known = beside.filter_map(|node| node.wiring.as_ref()).find(same).cloned();
            known.unwrap_or_else(|| {
                Arc::new(Wiring { table: UnitTable::new(links.clone()), numa: numa.to_vec() })
            })
        });
    }

    /// After GPUs of a node were drained or came back.
    pub(crate) fn keep_back(&mut self, id: NodeId) {
        let State { nodes, jobs, derived, .. } = self;
        let node = &nodes[id.0 as usize];
        match node.health.drained_gpus() {
            0 => _ = derived.kept_back.remove(&id),
            drained => _ = derived.kept_back.insert(id, drained),
        }
        for job in node.jobs.iter().filter_map(|id| jobs.get(id)) {
            derived.move_ending(end_of(job), job);
        }
    }

    /// Changes a job and everything derived from it.
    pub(crate) fn change_job(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let State { jobs, derived, partitions, reservations, clock, .. } = self;
        let rows = Rows { partitions, reservations };
        let job = jobs.get_mut(&id).expect("facts name jobs that exist");
        derived.unplace(partitions, Entry::job(id), (&job.spec, job.expected), &mut job.place);
        derived.remove_job(job);
        let names_changed = (job.phase.is_active(), job.phase.is_ended(), job.spec.name.clone());
        let before = Arc::clone(&job.spec);
        let held = (end_of(job), remaining_slices(job).count());
        change(job);
        derived.add_job(job);
        let holds = (end_of(job), remaining_slices(job).count());
        if held != holds || before.licenses != job.spec.licenses {
            derived.move_ending(held.0, job);
        }
        derived.place_job(rows, *clock, job);
        let now = (job.phase.is_active(), job.phase.is_ended(), job.spec.name.clone());
        if names_changed != now {
            let after = Arc::clone(&job.spec);
            self.replace_first_of_name(&before);
            self.replace_first_of_name(&after);
        }
    }

    /// Changes an array and everything derived from it.
    pub(crate) fn change_array(&mut self, id: JobId, change: impl FnOnce(&mut Array)) {
        let State { arrays, derived, partitions, reservations, clock, .. } = self;
        let rows = Rows { partitions, reservations };
        let array = arrays.get_mut(&id).expect("facts name arrays that exist");
        let of = (&*array.spec, array.expected);
        derived.unplace(partitions, Entry::rest(id), of, &mut array.place);
        derived.remove_array(array);
        let over = array.is_over();
        let before = Arc::clone(&array.spec);
        change(array);
        derived.add_array(array);
        derived.place_array(rows, *clock, array);
        if over != array.is_over() || before.name != array.spec.name {
            let after = Arc::clone(&array.spec);
            self.replace_first_of_name(&before);
            self.replace_first_of_name(&after);
        }
    }

    pub(crate) fn insert_job(&mut self, mut job: Job) {
        self.derived.add_job(&job);
        self.derived.move_ending(None, &job);
        let rows = Rows { partitions: &self.partitions, reservations: &self.reservations };
        self.derived.place_job(rows, self.clock, &mut job);
        let spec = Arc::clone(&job.spec);
        self.jobs.insert(job.id, job);
        self.replace_first_of_name(&spec);
    }

    pub(crate) fn insert_array(&mut self, mut array: Array) {
        self.derived.add_array(&array);
        let rows = Rows { partitions: &self.partitions, reservations: &self.reservations };
        self.derived.place_array(rows, self.clock, &mut array);
        let spec = Arc::clone(&array.spec);
        self.arrays.insert(array.id, array);
        self.replace_first_of_name(&spec);
    }

    pub(crate) fn remove_job(&mut self, id: JobId) {
        if let Some(mut job) = self.jobs.remove(&id) {
            let entry = Entry::job(id);
            let of = (&*job.spec, job.expected);
            self.derived.unplace(&self.partitions, entry, of, &mut job.place);
            self.derived.remove_job(&job);
            if let Some(end) = end_of(&job) {
                self.derived.endings.take(end, id);
            }
        }
    }

    pub(crate) fn remove_array(&mut self, id: JobId) {
        if let Some(mut array) = self.arrays.remove(&id) {
            let entry = Entry::rest(id);
            let of = (&*array.spec, array.expected);
            self.derived.unplace(&self.partitions, entry, of, &mut array.place);
            self.derived.remove_array(&array);
            self.derived.tasks.remove(&id);
        }
    }

    /// Moves the clock on: whoever waited for a time up to it becomes ready.
    pub(crate) fn advance_clock(&mut self, at: Timestamp) {
        if at <= self.clock {
            return;
        }
        self.clock = at;
        while let Some((due, entry)) = self.derived.queue.until.first().copied() {
            if due > at {
                break;
            }
            self.replace(entry);
        }
    }

    /// Finds an entry's place anew.
    pub(crate) fn replace(&mut self, entry: Entry) {
        let State { jobs, arrays, derived, partitions, reservations, clock, .. } = self;
        let rows = Rows { partitions, reservations };
        if entry.is_job {
            if let Some(job) = jobs.get_mut(&entry.id) {
                derived.unplace(partitions, entry, (&job.spec, job.expected), &mut job.place);
                derived.place_job(rows, *clock, job);
            }
        } else if let Some(array) = arrays.get_mut(&entry.id) {
            derived.unplace(partitions, entry, (&array.spec, array.expected), &mut array.place);
            derived.place_array(rows, *clock, array);
        }
    }

    /// Finds places anew for those who name a reservation.
    pub(crate) fn replace_reserving(&mut self, name: &str) {
        let waiting = self.derived.reserving.get(name).cloned().unwrap_or_default();
        waiting.into_iter().for_each(|entry| self.replace(entry));
    }

    /// Of the jobs that wait as `singleton`, only the first of a name can be ready; the second
    /// may just have ceased to be it.
    fn replace_first_of_name(&mut self, spec: &muster_model::JobSpec) {
        if !self.derived.names.has_singletons(spec) {
            return;
        }
        let first: Vec<JobId> = self.derived.names.first(spec).take(2).collect();
        for id in first {
            if self.arrays.contains_key(&id) {
                self.replace(Entry::rest(id));
                let count = self.arrays[&id].count();
                let own: Vec<JobId> = self
                    .jobs
                    .range(id..JobId(id.0.saturating_add(count)))
                    .filter(|(_, j)| j.phase.is_pending() && j.spec.dependency.singleton)
                    .map(|(id, _)| *id)
                    .collect();
                for task in own {
                    self.replace(Entry::job(task));
                }
            } else {
                self.replace(Entry::job(id));
            }
        }
    }
}

/// Slices that a job still holds.
pub(crate) fn remaining_slices(job: &Job) -> impl Iterator<Item = &muster_model::Slice> {
    job.phase.allocation().into_iter().flat_map(|held| {
        let on = |node: &NodeId| held.placement.slice(*node);
        held.remaining.iter().filter_map(on)
    })
}

/// What places depend on besides the jobs.
#[derive(Clone, Copy)]
struct Rows<'a> {
    partitions: &'a [PartitionRow],
    reservations: &'a BTreeMap<Box<str>, Reservation>,
}

impl Derived {
    /// Counts anew what kinds of resources there are.
    pub(crate) fn lay_axes(&mut self, nodes: &[Node]) {
        self.axes = Arc::new(Axes::of(nodes.iter().map(|node| &*node.facts)));
    }

    fn around<'a>(&'a self, rows: Rows<'a>) -> Surroundings<'a> {
        let Rows { partitions, reservations } = rows;
        Surroundings { partitions, reservations, derived: self }
    }

    fn place_job(&mut self, rows: Rows<'_>, clock: Timestamp, job: &mut Job) {
        if !job.phase.is_pending() {
            return;
        }
        job.place = self.around(rows).job(job).place(clock);
        let of = (&*job.spec, job.expected);
        self.queue.put(rows.partitions, Entry::job(job.id), of, job.place);
    }

    fn place_array(&mut self, rows: Rows<'_>, clock: Timestamp, array: &mut Array) {
        if array.pending.is_empty() {
            return;
        }
        array.place = self.around(rows).array(array).place(clock);
        let of = (&*array.spec, array.expected);
        self.queue.put(rows.partitions, Entry::rest(array.id), of, array.place);
    }

    fn unplace(
        &mut self,
        partitions: &[PartitionRow],
        entry: Entry,
        of: (&muster_model::JobSpec, u32),
        place: &mut Place,
    ) {
        self.queue.take(partitions, entry, of, *place);
        *place = Place::Nowhere;
    }

    /// After what a job holds, or until when, changed.
    fn move_ending(&mut self, before: Option<Timestamp>, job: &Job) {
        if let Some(end) = before {
            self.endings.take(end, job.id);
        }
        if let Some(release) = Release::of(job, &self.axes, &self.kept_back) {
            self.endings.put(release);
        }
    }

    fn add_job(&mut self, job: &Job) {
        self.index_job(job, true);
    }

    fn remove_job(&mut self, job: &Job) {
        self.index_job(job, false);
    }

    /// Everything but the place. `add` puts in, otherwise it is taken out.
    fn index_job(&mut self, job: &Job, add: bool) {
        let entry = Entry::job(job.id);
        let active = job.phase.is_active();
        match job.array {
            None => {
                let key = (job.uid(), job.request_id);
                set_if(&mut self.requests, key, job.id, add && job.request_id != [0; 16]);
                if !job.phase.is_ended() {
                    match add {
                        true => self.names.add_live(&job.spec, job.id),
                        false => self.names.remove_live(&job.spec, job.id),
                    }
                }
            }
            Some((array, _)) => {
                let counts = self.tasks.entry(array).or_default();
                count(&mut counts.jobs, add);
                if active {
                    count(&mut counts.active, add);
                }
                if *counts == super::TaskCounts::default() {
                    self.tasks.remove(&array);
                }
            }
        }
        if !job.phase.is_ended() {
            self.live = if add { self.live + 1 } else { self.live - 1 };
            self.index_reserving(&job.spec, entry, add);
        }
        if active {
            self.active = if add { self.active + 1 } else { self.active - 1 };
            set(&mut self.holding, job.id, add);
            self.names.count_active(&job.spec, add);
            self.use_licenses(&job.spec.licenses, add);
            self.count_portions(job, add);
        }
        match &job.phase {
            Phase::Pending { .. } => {
                let index = job.array.map(|(_, index)| index);
                let met = standing(&job.spec.dependency, &job.terms, index);
                self.names.count_waiting(&job.spec, add);
                self.index_waiting(entry, &job.spec, &job.terms, met == Standing::Never, add);
                let leads = add && job.spec.het.is_some_and(|het| het.index == 0);
                set(&mut self.leaders, job.id, leads);
            }
            Phase::Running { held, suspended: None } => {
                if let Some(end) = held.end_at {
                    set(&mut self.ends, (end, job.id), add);
                }
            }
            Phase::Ended { at, .. } => set(&mut self.ended, (*at, job.id), add),
            Phase::Launching { .. } | Phase::Running { .. } | Phase::Completing { .. } => {}
        }
    }

    fn add_array(&mut self, array: &Array) {
        self.index_array(array, true);
    }

    fn remove_array(&mut self, array: &Array) {
        self.index_array(array, false);
    }

    fn index_array(&mut self, array: &Array, add: bool) {
        let key = (array.uid(), array.request_id);
        set_if(&mut self.requests, key, array.id, add && array.request_id != [0; 16]);
        let pending = array.pending.len();
        self.live = if add { self.live + pending } else { self.live - pending };
        if array.is_over() {
            // An array with tasks of its own goes when the last of those does.
            if self.tasks.get(&array.id).is_none_or(|c| c.jobs == 0) {
                set(&mut self.ended, (array.last_end, array.id), add);
            }
            return;
        }
        match add {
            true => self.names.add_live(&array.spec, array.id),
            false => self.names.remove_live(&array.spec, array.id),
        }
        self.index_reserving(&array.spec, Entry::rest(array.id), add);
        if !array.pending.is_empty() {
            self.names.count_waiting(&array.spec, add);
            let standing = array_standing(&array.spec.dependency, &array.terms);
            let never = standing.standing == Standing::Never
                || !array.pending.intersection(&standing.never).is_empty();
            self.index_waiting(Entry::rest(array.id), &array.spec, &array.terms, never, add);
        }
    }

    fn index_reserving(&mut self, spec: &muster_model::JobSpec, entry: Entry, add: bool) {
        let Some(name) = &spec.reservation else { return };
        let of_name = self.reserving.entry(name.clone()).or_default();
        set(of_name, entry, add);
        if of_name.is_empty() {
            self.reserving.remove(name);
        }
    }

    fn index_waiting(
        &mut self,
        entry: Entry,
        spec: &muster_model::JobSpec,
        terms: &[TermState],
        never: bool,
        add: bool,
    ) {
        for (term, state) in spec.dependency.terms.iter().zip(terms) {
            if matches!(state, TermState::Waiting | TermState::Each { .. }) {
                let waiting = self.dependents.entry(term.job).or_default();
                set(waiting, entry, add);
                if waiting.is_empty() {
                    self.dependents.remove(&term.job);
                }
            }
        }
        if never && spec.kill_on_invalid_dependency {
            set(&mut self.doomed, entry, add);
        }
        if let Some(at) = last_start(spec) {
            set(&mut self.deadlines, (at, entry), add);
        }
    }

    fn count_portions(&mut self, job: &Job, add: bool) {
        let slices = job.phase.allocation().into_iter().flat_map(|held| &held.placement.slices);
        for portion in slices.map(Portion::of).filter(|portion| portion.gpus > 0) {
            let seen = self.mix.entry(portion).or_default();
            count(seen, add);
            if *seen == 0 {
                self.mix.remove(&portion);
            }
        }
    }

    fn use_licenses(&mut self, licenses: &[(Box<str>, u32)], add: bool) {
        for (name, n) in licenses {
            let used = self.licenses_used.entry(name.clone()).or_default();
            *used = if add { *used + n } else { used.saturating_sub(*n) };
            if *used == 0 {
                self.licenses_used.remove(name);
            }
        }
    }
}

/// The latest start with which a job can still end before its deadline.
pub(crate) fn last_start(spec: &muster_model::JobSpec) -> Option<Timestamp> {
    let deadline = spec.deadline?;
    let least = spec.time_min.or(spec.time_limit).and_then(|limit| limit.seconds());
    Some(deadline.plus_seconds(-least.unwrap_or(0)))
}

fn set<T: Ord>(to: &mut std::collections::BTreeSet<T>, item: T, add: bool) {
    if add {
        to.insert(item);
    } else {
        to.remove(&item);
    }
}

fn set_if<K: Ord>(to: &mut std::collections::BTreeMap<K, JobId>, key: K, id: JobId, add: bool) {
    if add {
        to.insert(key, id);
    } else {
        to.remove(&key);
    }
}

pub(super) fn count(number: &mut u32, add: bool) {
    *number = if add { *number + 1 } else { *number - 1 };
}

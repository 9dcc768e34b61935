//! Which jobs a listing or a verb means: by number, and by what they are.

use std::collections::BTreeSet;

use muster_core::command::Target;
use muster_core::state::State;
use muster_model::array::ArraySpec;
use muster_model::{Hostlist, IndexSet, JobId};
use muster_proto::convert::BadField;
use muster_proto::convert::job::MAX_ARRAY_SIZE;
use muster_proto::v1;

use super::job::Line;
use super::node_name;
use crate::users::uid_of;

/// A filter, ready to be asked. `None` admits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    users: Option<BTreeSet<u32>>,
    names: Option<BTreeSet<String>>,
    partitions: Option<BTreeSet<String>>,
    states: Option<BTreeSet<i32>>,
    nodes: Option<BTreeSet<String>>,
    accounts: Option<BTreeSet<String>>,
    qos: Option<BTreeSet<String>>,
    reservations: Option<BTreeSet<String>>,
}

impl Filter {
    /// Reads a filter. Looks names up, so it may block.
    ///
    /// # Errors
    /// An unknown state or an invalid hostlist. An unknown user is nobody's.
    pub fn new(wire: &v1::JobFilter) -> Result<Self, BadField> {
        let texts = |list: &[String]| {
            (!list.is_empty()).then(|| list.iter().cloned().collect::<BTreeSet<_>>())
        };
        let states = wire.states.iter().map(|s| state_of(s)).collect::<Result<BTreeSet<_>, _>>()?;
        let mut nodes = BTreeSet::new();
        for list in &wire.nodes {
            nodes.extend(Hostlist::parse(list).map_err(|f| BadField::new("node list", f))?.0);
        }
        let users = wire.users.iter().filter_map(|u| uid_of(u)).collect::<BTreeSet<_>>();
        Ok(Filter {
            users: (!wire.users.is_empty()).then_some(users),
            names: texts(&wire.names),
            partitions: texts(&wire.partitions),
            states: (!states.is_empty()).then_some(states),
            nodes: (!nodes.is_empty()).then_some(nodes),
            accounts: texts(&wire.accounts),
            qos: texts(&wire.qos),
            reservations: texts(&wire.reservations),
        })
    }

    /// Whether it admits everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether it names states.
    #[must_use]
    pub fn names_states(&self) -> bool {
        self.states.is_some()
    }

    /// Whether this line of the queue passes.
    #[must_use]
    pub fn admits(&self, state: &State, line: &Line<'_>) -> bool {
        let spec = line.spec();
        let within = |set: &Option<BTreeSet<String>>, value: &str| {
            set.as_ref().is_none_or(|set| set.contains(value))
        };
        self.users.as_ref().is_none_or(|users| users.contains(&spec.user.uid.0))
            && within(&self.names, &spec.name)
            && within(&self.accounts, &spec.account)
            && within(&self.qos, &spec.qos)
            && within(&self.reservations, spec.reservation.as_deref().unwrap_or_default())
            && self.in_partition(line)
            && self.states.as_ref().is_none_or(|states| states.contains(&(line.state() as i32)))
            && self.on_node(state, line)
    }

    fn in_partition(&self, line: &Line<'_>) -> bool {
        let Some(wanted) = &self.partitions else { return true };
        let runs_in = match line {
            Line::Job(job) => job.phase.allocation().map(|held| &held.partition),
            Line::Pending(_) | Line::Unstarted(..) => None,
        };
        match runs_in {
            Some(partition) => wanted.contains(&**partition),
            None => line.spec().partitions.iter().any(|p| wanted.contains(&**p)),
        }
    }

    fn on_node(&self, state: &State, line: &Line<'_>) -> bool {
        let Some(wanted) = &self.nodes else { return true };
        let Line::Job(job) = line else { return false };
        let held = job.phase.allocation().map(|held| &held.placement);
        let placement = held.or(job.last.as_ref().map(|last| &last.placement));
        placement.is_some_and(|p| p.nodes().any(|node| wanted.contains(node_name(state, node))))
    }
}

/// A state by Slurm's long name.
///
/// # Errors
/// When there is none of that name.
pub fn state_of(text: &str) -> Result<i32, BadField> {
    let name = format!("JOB_STATE_{}", text.to_ascii_uppercase());
    v1::JobState::from_str_name(&name)
        .map(|state| state as i32)
        .ok_or_else(|| BadField::new("state", format!("unknown job state {text:?}")))
}

/// The target that a reference names.
///
/// # Errors
/// A task list that is none.
pub fn target(reference: &v1::JobRef) -> Result<Target, BadField> {
    let job = JobId(reference.job);
    Ok(match tasks(reference)? {
        Some(tasks) => Target::Tasks(job, tasks),
        None => Target::Job(job),
    })
}

/// The tasks that a reference names; `None`: all, or no array.
///
/// # Errors
/// A task list that is none.
pub fn tasks(reference: &v1::JobRef) -> Result<Option<IndexSet>, BadField> {
    let text = reference.tasks.trim();
    let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if text.is_empty() {
        return Ok(None);
    }
    let spec = ArraySpec::parse(text, MAX_ARRAY_SIZE).map_err(|f| BadField::new("array", f))?;
    Ok(Some(spec.indices))
}

/// As a user would write the target: `12`, `12_[1-5]`, `12_4`.
#[must_use]
pub fn target_text(target: &Target) -> String {
    match target {
        Target::Job(job) => job.to_string(),
        Target::Tasks(job, tasks) if tasks.len() == 1 => format!("{job}_{tasks}"),
        Target::Tasks(job, tasks) => format!("{job}_[{tasks}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_jobs_and_tasks() {
        let read = |tasks: &str| {
            target(&v1::JobRef { job: 12, tasks: tasks.into() }).map(|t| target_text(&t))
        };
        assert_eq!(read("").unwrap(), "12");
        assert_eq!(read("4").unwrap(), "12_4");
        assert_eq!(read("[1-5,7]").unwrap(), "12_[1-5,7]");
        for bad in ["x", "[5-1]", "[1", "0-99999999"] {
            assert_eq!(read(bad).unwrap_err().field, "array", "{bad}");
        }
    }

    #[test]
    fn a_filter_names_what_it_does_not_know() {
        let wire = v1::JobFilter { states: vec!["FOO".into()], ..Default::default() };
        assert_eq!(Filter::new(&wire).unwrap_err().field, "state");
        let wire = v1::JobFilter { nodes: vec!["n[1-".into()], ..Default::default() };
        assert_eq!(Filter::new(&wire).unwrap_err().field, "node list");
        let wire = v1::JobFilter { users: vec!["no-such-user".into()], ..Default::default() };
        assert!(!Filter::new(&wire).unwrap().is_open(), "an unknown user is not everybody");
    }
}

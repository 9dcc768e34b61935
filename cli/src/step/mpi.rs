//! How the tasks of a step find each other: `--mpi`.

use std::collections::HashSet;

use muster_config::MpiDefault;
use muster_proto::v1::{Mpi, MpiKind, NodeRanks, StepGrant};

use super::wish::Wish;
use crate::submit::Fault;

/// What `--mpi=list` says.
pub(super) const LIST: &str = "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix";

/// The kind of a word, as Slurm's plugins are called.
pub(super) fn kind(word: &str) -> Result<MpiKind, Fault> {
    match word {
        // The launcher of such programs brings what they need.
        "none" | "openmpi" => Ok(MpiKind::None),
        "pmi1" | "pmi2" => Ok(MpiKind::Pmi),
        "pmix" => Ok(MpiKind::Pmix),
        other if other.strip_prefix("pmix_v").is_some_and(is_number) => Ok(MpiKind::Pmix),
        other => Err(Fault::Refused(format!(
            "Invalid MPI type '{other}', --mpi=list for acceptable types"
        ))),
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

/// The word for a kind, in the tasks' environment.
pub(super) fn word(kind: MpiKind) -> &'static str {
    match kind {
        MpiKind::None => "none",
        MpiKind::Pmi => "pmi2",
        MpiKind::Pmix => "pmix",
    }
}

/// Where nobody says.
pub(super) fn usual(default: MpiDefault) -> MpiKind {
    match default {
        MpiDefault::None => MpiKind::None,
        MpiDefault::Pmi2 => MpiKind::Pmi,
        MpiDefault::Pmix => MpiKind::Pmix,
    }
}

/// What every node of the step is to know; nothing where the tasks need not find each other.
pub(super) fn layout(wish: &Wish, grant: &StepGrant) -> Option<Mpi> {
    let kind = wish.mpi.filter(|kind| *kind != MpiKind::None)?;
    let (nodes, world) = match &wish.mpi_world {
        Some(world) => (world.nodes.clone(), world.name.clone()),
        None => (ranks(grant, 0).collect(), String::new()),
    };
    Some(Mpi { kind: kind.into(), nodes, first_node: wish.first_node, world })
}

/// The nodes of a step, whose ranks count from `first` on.
fn ranks(grant: &StepGrant, first: u32) -> impl Iterator<Item = NodeRanks> {
    grant.nodes.iter().map(move |part| NodeRanks {
        node: part.node.clone(),
        tasks: part.tasks.iter().map(|rank| rank + first).collect(),
    })
}

/// The world of the tasks of several steps.
#[derive(Debug, Default, PartialEq)]
pub(super) struct World {
    nodes: Vec<NodeRanks>,
    /// The first step's.
    name: String,
}

impl World {
    /// Of steps in this order.
    pub(super) fn of<'a>(grants: impl Iterator<Item = &'a StepGrant>) -> World {
        let (mut world, mut first) = (World::default(), 0);
        for grant in grants {
            if world.nodes.is_empty() {
                world.name = format!("{}.{}", grant.job, grant.step);
            }
            world.nodes.extend(ranks(grant, first));
            first += grant.tasks;
        }
        world
    }

    /// A node that has tasks of two of the steps: PMIx takes it for one, with all of them.
    pub(super) fn shared_node(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.nodes.iter().map(|node| node.node.as_str()).find(|name| !seen.insert(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_steps_are_one_world_in_their_order() {
        let part = |node: &str, tasks: &[u32]| muster_proto::v1::NodePart {
            node: node.into(),
            tasks: tasks.to_vec(),
            ..Default::default()
        };
        let grant = |job, nodes: Vec<_>, tasks| StepGrant {
            job,
            step: 3,
            nodes,
            tasks,
            ..StepGrant::default()
        };
        let one = grant(7, vec![part("n1", &[0])], 1);
        let two = grant(8, vec![part("n2", &[0, 2]), part("n3", &[1])], 3);
        let world = World::of([&one, &two].into_iter());
        let shown: Vec<(&str, &[u32])> =
            world.nodes.iter().map(|n| (n.node.as_str(), n.tasks.as_slice())).collect();
        assert_eq!(shown, [("n1", &[0][..]), ("n2", &[1, 3]), ("n3", &[2])]);
        assert_eq!((world.name.as_str(), world.shared_node()), ("7.3", None));
        let wish = Wish {
            mpi: Some(MpiKind::Pmi),
            mpi_world: Some(world.into()),
            first_node: 1,
            ..Wish::default()
        };
        let told = layout(&wish, &two).unwrap();
        assert_eq!((told.nodes.len(), told.first_node, told.world.as_str()), (3, 1, "7.3"));
        let shared = World::of([&one, &grant(8, vec![part("n1", &[0])], 1)].into_iter());
        assert_eq!(shared.shared_node(), Some("n1"));
    }

    #[test]
    fn kinds_are_known_by_slurms_names() {
        assert_eq!(kind("pmi2").unwrap(), MpiKind::Pmi);
        assert_eq!(kind("pmix_v4").unwrap(), MpiKind::Pmix);
        assert_eq!(kind("none").unwrap(), MpiKind::None);
        let Err(Fault::Refused(text)) = kind("pmix_vx") else { panic!("taken") };
        assert_eq!(text, "Invalid MPI type 'pmix_vx', --mpi=list for acceptable types");
    }
}

//! How the tasks of a step find each other: `--mpi`.

use muster_config::MpiDefault;
use muster_proto::v1::{Mpi, MpiKind, NodeRanks, StepGrant};

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
pub(super) fn layout(kind: MpiKind, grant: &StepGrant) -> Option<Mpi> {
    let ranks = |part: &muster_proto::v1::NodePart| NodeRanks {
        node: part.node.clone(),
        tasks: part.tasks.clone(),
    };
    (kind != MpiKind::None)
        .then(|| Mpi { kind: kind.into(), nodes: grant.nodes.iter().map(ranks).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_slurms_names() {
        assert_eq!(kind("pmi2").unwrap(), MpiKind::Pmi);
        assert_eq!(kind("pmix_v4").unwrap(), MpiKind::Pmix);
        assert_eq!(kind("none").unwrap(), MpiKind::None);
        let Err(Fault::Refused(text)) = kind("pmix_vx") else { panic!("taken") };
        assert_eq!(text, "Invalid MPI type 'pmix_vx', --mpi=list for acceptable types");
    }
}

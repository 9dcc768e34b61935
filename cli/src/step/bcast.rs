//! `srun --bcast`: the program is copied to the step's nodes first, by a step beside it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use muster_proto::v1::{OpenStepRequest, StepGrant};
use tokio::sync::mpsc;

use super::agents::Agents;
use super::sbcast::copying;
use super::srun::{Stop, unable};
use super::wish::Wish;
use super::{run, variables};

/// Copies the program to each node of the step; the wish then names the copy.
pub(crate) async fn send(
    agents: &Agents,
    head: &str,
    grant: &StepGrant,
    wish: &mut Wish,
    request: &OpenStepRequest,
    signals: &mut mpsc::UnboundedReceiver<i32>,
) -> Result<(), Stop> {
    let Some(place) = wish.bcast.clone() else { return Ok(()) };
    let source = find(&wish.command[0], &wish.workdir)
        .ok_or_else(|| refused(&format!("{}: no such program", wish.command[0])))?;
    let meta =
        std::fs::metadata(&source).map_err(|e| refused(&format!("{}: {e}", source.display())))?;
    let (dest, by_node) = dest(&place, &wish.workdir, grant.job, grant.step);
    let nodes: Vec<String> = grant.nodes.iter().map(|part| part.node.clone()).collect();
    let mode = meta.mode() & 0o7777;
    let mut copy = copying(&source, &dest, mode, true, None, &wish.workdir);
    if by_node {
        copy.command.push("by-node".to_owned());
    }
    copy.shape.tasks = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    copy.shape.nodes = nodes;
    let request = OpenStepRequest {
        shape: Some(copy.shape.clone()),
        name: copy.name.clone(),
        ..request.clone()
    };
    let step = run::open(agents, head, request, true, None)
        .await
        .map_err(|error| unable(grant.job, &error))?;
    let environment = variables::of_step(&variables::own(), &copy, &step.grant);
    let ended = run::run(agents, step, &copy, environment, signals, run::alone())
        .await
        .map_err(|text| Stop::refused(None, text))?;
    if ended.code != 0 {
        return Err(refused(&format!("{dest} could not be written on every node")));
    }
    wish.command[0] = dest;
    wish.command_by_node = by_node;
    Ok(())
}

fn refused(text: &str) -> Stop {
    Stop::refused(None, format!("--bcast: {text}"))
}

/// Where the copy goes, and whether its name ends with the node's.
fn dest(place: &str, workdir: &Path, job: u32, step: u32) -> (String, bool) {
    let name = format!("slurm_bcast_{job}.{step}");
    match place {
        "" => (workdir.join(name).to_string_lossy().into_owned(), true),
        folder if folder.ends_with('/') => {
            (workdir.join(folder).join(name).to_string_lossy().into_owned(), true)
        }
        file => (workdir.join(file).to_string_lossy().into_owned(), false),
    }
}

/// As a shell finds it.
fn find(command: &str, workdir: &Path) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(workdir.join(command)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(command)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_without_a_name_of_its_own_bears_its_nodes() {
        let check = |place: &str| dest(place, Path::new("/w"), 7, 2);
        assert_eq!(check(""), ("/w/slurm_bcast_7.2".to_owned(), true));
        assert_eq!(check("/tmp/"), ("/tmp/slurm_bcast_7.2".to_owned(), true));
        assert_eq!(check("/tmp/app"), ("/tmp/app".to_owned(), false));
    }
}

//! A node's order: everything that it needs to run its part.

use bytes::Bytes;
use muster_proto::v1::{NodePart, Program, StartStep, StepGrant};

use crate::step::mpi;
use crate::step::terminal;
use crate::step::wish::{Sink, Source, Wish};

pub(super) fn order(
    wish: &Wish,
    grant: &StepGrant,
    part: &NodePart,
    programs: Vec<Program>,
    environment: Bytes,
) -> StartStep {
    let there = |sink: Option<&Sink>| match sink {
        Some(Sink::There(pattern)) => Some(pattern.clone()),
        Some(Sink::Nowhere) => Some("/dev/null".to_owned()),
        _ => None,
    };
    StartStep {
        job: grant.job,
        attempt: grant.attempt,
        step: grant.step,
        part: Some(part.clone()),
        programs,
        environment,
        workdir: wish.workdir.to_string_lossy().into_owned(),
        umask: crate::submit::env::umask(),
        rlimits: wish.rlimits.clone(),
        stdin: match &wish.stdin {
            Source::There(pattern) => Some(pattern.clone()),
            _ => None,
        },
        stdout: there(Some(&wish.stdout)),
        stderr: there(wish.stderr.as_ref()),
        append: wish.append,
        stdin_task: match wish.stdin {
            Source::Task(task) => Some(task),
            _ if wish.pty => Some(0),
            _ => None,
        },
        no_stdin: wish.stdin == Source::Nowhere,
        terminal: wish.pty.then(|| terminal::size().unwrap_or_default()),
        cpu_bind: wish.cpu_bind.into(),
        cpu_lists: wish.cpu_lists.clone(),
        cpu_bind_verbose: wish.cpu_bind_verbose,
        sample_seconds: wish.sample_seconds,
        cpus_per_task: wish.shape.cpus_per_task,
        gpu_bind: Some(wish.gpu_bind.clone()),
        join_stderr: wish.stderr.is_none() && matches!(wish.stdout, Sink::There(_) | Sink::Nowhere),
        total_tasks: grant.tasks,
        name: wish.name.clone(),
        container: wish.container.clone(),
        mpi: mpi::layout(wish, grant),
        first_rank: wish.first_rank,
    }
}

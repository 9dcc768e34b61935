//! What all tasks of a step find in their environment. What differs by node or task is set there.

use muster_model::Hostlist;
use muster_proto::v1::{MpiKind, StepGrant};

use super::wish::Wish;

type Variable = (Vec<u8>, Vec<u8>);

/// What a login would set in any case.
const LOGIN: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "MUSTER_CONF"];

/// This process's environment.
pub(crate) fn own() -> Vec<Variable> {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::vars_os().map(|(n, v)| (n.into_vec(), v.into_vec())).collect()
}

/// `4(x2),3`: runs of equal numbers.
pub(crate) fn repeated(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((last, times)) if *last == number => *times += 1,
            _ => runs.push((number, 1)),
        }
    }
    let show = |(number, times)| match times {
        1u32 => format!("{number}"),
        _ => format!("{number}(x{times})"),
    };
    runs.into_iter().map(show).collect::<Vec<String>>().join(",")
}

/// Puts the names of a job's own description into an environment.
pub(crate) fn describe(into: &mut Vec<Variable>, about: &[u8]) {
    for pair in about.split(|b| *b == 0).filter(|pair| !pair.is_empty()) {
        let Some(at) = pair.iter().position(|b| *b == b'=') else { continue };
        set(into, &pair[..at], &pair[at + 1..]);
    }
}

pub(crate) fn set(into: &mut Vec<Variable>, name: &[u8], value: &[u8]) {
    match into.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_vec(),
        None => into.push((name.to_vec(), value.to_vec())),
    }
}

/// `--export`: of this process's environment.
fn exported(export: Option<&str>, own: &[Variable]) -> Vec<Variable> {
    let words: Vec<&str> =
        export.unwrap_or("ALL").split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    let all = words.iter().any(|w| w.eq_ignore_ascii_case("ALL"));
    let always = |name: &[u8]| {
        name.starts_with(b"SLURM_") || LOGIN.iter().any(|login| login.as_bytes() == name)
    };
    let mut out: Vec<Variable> =
        own.iter().filter(|(name, _)| all || always(name)).cloned().collect();
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => set(&mut out, name.as_bytes(), value.as_bytes()),
            None => {
                if let Some((name, value)) = own.iter().find(|(n, _)| n == word.as_bytes()) {
                    set(&mut out, name, value);
                }
            }
        }
    }
    out
}

/// NUL-separated `NAME=VALUE`.
pub(crate) fn of_step(own: &[Variable], wish: &Wish, grant: &StepGrant) -> Vec<u8> {
    let mut env = exported(wish.export.as_deref(), own);
    let about = grant.about.clone().unwrap_or_default();
    let sizes = |env: &[Variable]| -> Vec<Variable> {
        env.iter().filter(|(n, _)| KEPT.contains(&n.as_slice())).cloned().collect()
    };
    let before = sizes(&env);
    describe(&mut env, &about.environment);
    let kept = match (wish.preserve_env, wish.in_the_job) {
        (true, _) => before,
        (false, true) => sizes(&env),
        (false, false) => Vec::new(),
    };
    let mut say = |name: &str, value: String| set(&mut env, name.as_bytes(), value.as_bytes());
    let nodes: Hostlist = grant.nodes.iter().map(|n| n.node.as_str()).collect();
    let (nodes, count) = (nodes.to_string(), grant.nodes.len().to_string());
    let per_node = repeated(grant.nodes.iter().map(|n| n.tasks.len() as u32));
    let tasks = if wish.world > 0 { wish.world } else { grant.tasks }.to_string();
    for (name, value) in [
        ("SLURM_STEP_ID", &grant.step.to_string()),
        ("SLURM_STEPID", &grant.step.to_string()),
        ("SLURM_STEP_NODELIST", &nodes),
        ("SLURM_NODELIST", &nodes),
        ("SLURM_STEP_NUM_NODES", &count),
        ("SLURM_NNODES", &count),
        ("SLURM_STEP_NUM_TASKS", &tasks),
        ("SLURM_NTASKS", &tasks),
        ("SLURM_NPROCS", &tasks),
        ("SLURM_STEP_TASKS_PER_NODE", &per_node),
        ("SLURM_TASKS_PER_NODE", &per_node),
        ("SLURM_DISTRIBUTION", &wish.distribution),
        ("SLURM_LAUNCH_NODE_IPADDR", &"127.0.0.1".to_owned()),
        ("SLURM_SRUN_COMM_HOST", &"127.0.0.1".to_owned()),
        ("SLURM_SRUN_COMM_PORT", &"0".to_owned()),
        ("SLURM_STEP_LAUNCHER_PORT", &"0".to_owned()),
        ("SLURMD_DEBUG", &"2".to_owned()),
    ] {
        say(name, value.clone());
    }
    if let Some(each) = wish.cpus_per_task {
        say("SLURM_CPUS_PER_TASK", each.to_string());
    }
    if let Some(each) = wish.tasks_per_node {
        say("SLURM_NTASKS_PER_NODE", each.to_string());
    }
    if wish.gpus_per_task > 0 {
        say("SLURM_GPUS_PER_TASK", wish.gpus_per_task.to_string());
    }
    if let Some(kind) = wish.mpi.filter(|kind| *kind != MpiKind::None) {
        say("SLURM_MPI_TYPE", super::mpi::word(kind).to_owned());
    }
    say("SLURM_UMASK", format!("{:04o}", crate::submit::env::umask()));
    // As a shell: frameworks take a job of this name for none of theirs.
    if wish.pty && grant.tasks == 1 {
        say("SLURM_JOB_NAME", wish.name.clone());
    }
    for (name, value) in kept {
        set(&mut env, &name, &value);
    }
    join(&env)
}

/// `--preserve-env` leaves these as they are.
const KEPT: [&[u8]; 3] = [b"SLURM_NNODES", b"SLURM_NTASKS", b"SLURM_TASKS_PER_NODE"];

pub(crate) fn join(env: &[Variable]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in env {
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::{DescribeReply, NodePart};

    fn own(text: &str) -> Vec<Variable> {
        let pair = |p: &str| p.split_once('=').map(|(n, v)| (n.into(), v.into())).unwrap();
        text.split(' ').map(pair).collect()
    }

    fn env(own_text: &str, wish: &Wish) -> String {
        let part = |node: &str, tasks: &[u32]| NodePart {
            node: node.into(),
            tasks: tasks.to_vec(),
            ..NodePart::default()
        };
        let about = DescribeReply {
            environment: "SLURM_JOB_ID=7\0SLURM_NTASKS=9\0SLURM_JOB_NUM_NODES=3\0".into(),
            ..DescribeReply::default()
        };
        let grant = StepGrant {
            job: 7,
            step: 2,
            tasks: 3,
            nodes: vec![part("n1", &[0, 1]), part("n2", &[2])],
            about: Some(about),
            ..StepGrant::default()
        };
        let bytes = of_step(&own(own_text), wish, &grant);
        String::from_utf8(bytes).unwrap().replace('\0', "\n")
    }

    #[test]
    fn tasks_find_their_step_and_their_job() {
        let text = env("HOME=/h SLURM_JOB_ID=99 A=b", &Wish::default());
        for line in [
            "A=b",
            "SLURM_JOB_ID=7",
            "SLURM_JOB_NUM_NODES=3",
            "SLURM_STEP_ID=2",
            "SLURM_NNODES=2",
            "SLURM_NTASKS=3",
            "SLURM_STEP_NODELIST=n[1-2]",
            "SLURM_TASKS_PER_NODE=2,1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn export_chooses() {
        let wish = |export: &str| Wish { export: Some(export.into()), ..Wish::default() };
        assert!(!env("HOME=/h A=b", &wish("NONE")).contains("A=b"));
        let some = env("HOME=/h A=b C=d", &wish("A,X=y"));
        assert!(some.contains("A=b") && some.contains("X=y") && !some.contains("C=d"));
        let all = env("A=b C=d", &wish("ALL,C=e"));
        assert!(all.contains("A=b") && all.contains("C=e"));
    }

    #[test]
    fn equal_numbers_are_counted() {
        assert_eq!(repeated([4, 4, 3]), "4(x2),3");
        assert_eq!(repeated([1]), "1");
        assert_eq!(repeated([]), "");
    }
}

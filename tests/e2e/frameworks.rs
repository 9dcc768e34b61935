//! What the launchers of frameworks conclude from a step's environment.

use std::path::Path;

use crate::harness::{Cluster, root, sorted};

const PYTHON: &str = "/usr/bin/python3";
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/launchers/slurm_environment.py");

#[test]
fn frameworks_find_ranks_and_a_coordinator_that_resolves() {
    if !root("names for the nodes of a cluster") || !Path::new(PYTHON).exists() {
        return;
    }
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4", "--mem-per-node=4G"]);
    let shape = ["-N2", "--ntasks-per-node=2"];
    let places: Vec<String> = ["jax", "lightning", "torch"]
        .iter()
        .flat_map(|name| {
            let port = match *name {
                "jax" => 61_441,
                "lightning" => 15_001,
                _ => 10_001,
            };
            (0..4).map(move |rank| {
                format!("{name} {rank} 4 {} {} 127.0.0.1:{port}", rank % 2, rank / 2)
            })
        })
        .collect();
    let out = cluster.batch(&shape, &format!("srun {PYTHON} {RULES} --resolve"));
    assert_eq!(sorted(&out), places);

    let out = cluster.batch(&shape, &format!("srun bash -c '{PYTHON} {RULES}' | cut -d: -f1"));
    assert_eq!(
        out.matches("n1\n").count(),
        12,
        "a shell around the program changes nothing: {out}"
    );
    let out = cluster.batch(&shape, &format!("srun -w n2 -N1 -n2 {PYTHON} {RULES} | grep jax"));
    assert_eq!(sorted(&out), ["jax 0 2 0 0 n2:61443", "jax 1 2 1 0 n2:61443"], "the step's nodes");
}

#[test]
fn a_shell_that_somebody_types_into_is_told_from_a_job() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let cluster = Cluster::start();
    let look = format!("{PYTHON} {RULES} | head -n1; echo $SLURM_JOB_NAME");
    for command in ["srun", "salloc"] {
        let said = cluster.run(&[command, "-N2", "-n2", "bash", "-c", &look]);
        assert!(said.out.starts_with("lightning none\n"), "{command}: {said:?}");
        assert!(said.out.ends_with("bash\n"), "{command}: {said:?}");
    }
    let mut shell = cluster.command(&["salloc", "-n1"]);
    shell.env("SHELL", "/bin/sh");
    let said = crate::harness::finish_with(shell, format!("{look}\n").as_bytes());
    assert!(said.out.contains("lightning none\ninteractive\n"), "{said:?}");
}

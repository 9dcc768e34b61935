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
fn deepspeeds_own_launcher_has_its_ranks_and_what_it_exports() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let cluster = Cluster::with(&[
        "--nodes=2",
        "--cpus-per-node=4",
        "--mem-per-node=4G",
        "--gpus-per-node=4",
    ]);
    let train = "import os\nplace = [os.environ[k] for k in ('SLURM_PROCID', 'SLURM_LOCALID', \
                 'SLURM_NTASKS', 'NCCL_DEBUG', 'CUDA_VISIBLE_DEVICES')]\n\
                 os.write(1, (' '.join(place) + '\\n').encode())\n";
    cluster.script("train.py", train);
    // The hostfile as its users make it, and the command that its --launcher slurm makes of it.
    let out = cluster.batch(
        &["-N2", "--ntasks-per-node=4", "--gres=gpu:4"],
        &format!(
            "scontrol show hostnames | sed \"s/$/ slots=$SLURM_GPUS_ON_NODE/\" > hostfile\n\
             total=$(awk -F= '{{n += $2}} END {{print n}}' hostfile)\n\
             which sinfo > /dev/null && srun -n $total --comment run --nodes 2 --gpus 8 \
             --export=ALL,PYTHONPATH=$PWD,NCCL_DEBUG=WARN {PYTHON} -u train.py"
        ),
    );
    assert_eq!(cluster.text("hostfile"), "n1 slots=4\nn2 slots=4\n");
    let line = |rank| format!("{rank} {} 8 WARN 0,1,2,3", rank % 4);
    let expected: Vec<String> = (0..8).map(line).collect();
    assert_eq!(sorted(&out), expected);
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

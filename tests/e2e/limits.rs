//! What a job may not exceed.

use std::path::Path;

use crate::harness::{Cluster, lives, root};

/// One minute is the shortest limit there is: everything about time limits happens in one test.
#[test]
fn a_time_limit_ends_a_job_after_its_warning_even_if_the_agent_died_meanwhile() {
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4", "--mem-per-node=4G"]);
    let warned = cluster.submit(&[
        "-w",
        "n1",
        "--time=1",
        "--signal=B:USR1@50",
        "-o",
        "warned.out",
        "--wrap=trap 'echo warned at $SECONDS' USR1; while :; do sleep 1; done",
    ]);
    let orphan = cluster.submit(&[
        "-w",
        "n2",
        "--time=1",
        "-o",
        "orphan.out",
        "--wrap=echo ran >> runs; sleep 1000 & echo $! > pid; wait",
    ]);
    let step = ["-w", "n1", "--time=1", "-o", "step.out", "--wrap=srun sleep 300; echo after"];
    let step = cluster.submit(&step);
    let alone = cluster
        .command(&["srun", "-w", "n1", "--time=1", "sleep", "300"])
        .stderr(std::fs::File::create(cluster.work().join("alone.err")).unwrap())
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let in_time = cluster.submit(&["-w", "n2", "--time=1", "-o", "in_time.out", "--wrap=true"]);
    assert_eq!(cluster.outcome(in_time).0, "COMPLETED");
    cluster.until_written("pid", "\n");
    cluster.crash("n2");
    let pid: i32 = cluster.text("pid").trim().parse().unwrap();
    // Its limit comes while no agent is there: the shim alone keeps it.
    std::thread::sleep(std::time::Duration::from_secs(63));
    assert!(!lives(pid), "the job outlived its limit");
    cluster.up(&[]);
    assert_eq!(cluster.outcome(warned).0, "TIMEOUT");
    assert_eq!(cluster.outcome(orphan).0, "TIMEOUT");
    assert_eq!(cluster.text("runs"), "ran\n");
    assert!(cluster.text("warned.out").contains("warned at"), "{}", cluster.text("warned.out"));
    assert!(cluster.text("warned.out").contains("DUE TO TIME LIMIT"));
    assert_eq!(cluster.outcome(step).0, "TIMEOUT");
    let out = cluster.text("step.out");
    assert!(says_limit(&out, &format!("JOB {step}")), "{out}");
    assert!(says_limit(&out, &format!("STEP {step}.0")), "{out}");
    let said = alone.wait_with_output().unwrap();
    let err = cluster.text("alone.err");
    assert!(!said.status.success() && says_limit(&err, "STEP "), "{err}");
}

/// As Slurm says who was cancelled and why.
fn says_limit(text: &str, what: &str) -> bool {
    let begin = format!("slurmstepd: error: *** {what}");
    let mut lines = text.lines().filter(|line| line.starts_with(&begin));
    lines.any(|l| l.contains(" ON n1 CANCELLED AT 2") && l.ends_with(" DUE TO TIME LIMIT ***"))
}

/// Whether jobs here can be confined at all, by what the node says that it cannot enforce.
fn enforced(cluster: &Cluster, what: &str) -> bool {
    let here = root(what) && {
        let shown = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]).to_lowercase();
        !shown.lines().any(|line| line.contains("unenforced") && line.contains(what))
    };
    if !here {
        println!("skipped: this machine does not enforce {what}");
    }
    here
}

#[test]
fn a_job_over_its_memory_is_out_of_memory_and_its_neighbour_is_not() {
    let cluster = Cluster::start();
    if !enforced(&cluster, "memory") {
        return;
    }
    let hog = cluster.submit(&[
        "--mem=64M",
        "-o",
        "hog.out",
        "--wrap=head -c 400M /dev/zero | tail > /dev/null; sleep 1; exit 0",
    ]);
    let modest = cluster.submit(&[
        "--mem=256M",
        "-o",
        "modest.out",
        "--wrap=head -c 20M /dev/zero | tail | wc -c",
    ]);
    assert_eq!(cluster.outcome(modest).0, "COMPLETED");
    assert_eq!(cluster.outcome(hog).0, "OUT_OF_MEMORY");
    let text = cluster.text("hog.out");
    assert!(text.contains("oom_kill event"), "{text}");
}

#[test]
fn nothing_of_a_job_outlives_it_however_it_hides() {
    let cluster = Cluster::start();
    if !root("processes") {
        return;
    }
    // Its own session, its own parent: only the cgroup still knows it.
    let job = cluster.submit(&[
        "-o",
        "h.out",
        "--wrap=setsid sh -c 'sleep 1000 & echo $! > hidden' & sleep 1; exit 0",
    ]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    let pid: i32 = cluster.text("hidden").trim().parse().unwrap();
    assert!(!lives(pid), "process {pid} outlived its job");
}

#[test]
fn a_job_sees_its_own_cpus() {
    // As many CPUs as the machine has: only then binding has a meaning.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cluster = Cluster::with(&["--nodes=1", &format!("--cpus-per-node={cpus}")]);
    if cpus < 2 || !Path::new("/sys/fs/cgroup/cpuset").exists() || !enforced(&cluster, "cpu") {
        println!("skipped: binding CPUs needs two of them and a cpuset");
        return;
    }
    let job = cluster.submit(&["-c", "1", "-o", "c.out", "--wrap=nproc"]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    assert_eq!(cluster.text("c.out"), "1\n");
}

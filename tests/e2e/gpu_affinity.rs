//! Where a job with GPUs really runs: the CPUs that the kernel names from inside it.
//!
//! The agent of these stories sees each of two CPUs as a NUMA node of its own: it has a mount
//! namespace in which other files lie over the kernel's. All the rest is this machine's.

use std::fs;
use std::process::Command;

use nvidia_ml::kit::Double;

use crate::gpus::until;
use crate::harness::{Cluster, root, wait};

/// Two CPUs and four GPUs: 0 and 1 are near CPU 0, 2 and 3 near CPU 1. `None`: this machine cannot.
fn two_numa_nodes() -> Option<(Cluster, Double)> {
    if !root("a mount namespace and CPU sets") {
        return None;
    }
    let nvml = std::cell::RefCell::new(None);
    let shape = ["--nodes=1", "--cpus-per-node=2", "--mem-per-node=4G"];
    let cluster = Cluster::edited(&shape, |cluster, text| {
        let folder = cluster.dir().join("nvml/n1");
        *nvml.borrow_mut() = Some(Double::new(&folder, "l40s-x4"));
        let library = format!("nvml_library = \"{}/libnvidia-ml.so\"", folder.display());
        let text = text.replace("nvml_library = \"none\"", &library);
        text.replace("cpus = 2\n", "cpus = 2\ngres = \"auto\"\n")
    });
    let numa = cluster.dir().join("numa");
    for (node, cpu) in [("node0", "0\n"), ("node1", "1\n")] {
        fs::create_dir_all(numa.join(node)).unwrap();
        fs::write(numa.join(node).join("cpulist"), cpu).unwrap();
    }
    let lie = format!("mount --bind {} /sys/devices/system/node", numa.display());
    let mut possible = Command::new("unshare");
    possible.args(["-m", "sh", "-c", &lie]);
    if !possible.status().is_ok_and(|status| status.success()) {
        println!("skipped: no file can be laid over /sys here");
        return None;
    }
    cluster.crash("n1");
    start_agent(&cluster, &lie);
    wait("the new agent", || cluster.log("n1").matches("the agent is up").count() == 3);
    until(&cluster, &["-n"], " ok", true);
    let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    let free = ["jobs_are_not_bound_to_CPUs", "jobs_may_run_on_any_CPU", "control_groups:"];
    if free.iter().any(|word| node.contains(word)) {
        println!("skipped: nobody is held to CPUs 0 and 1 here: {node}");
        return None;
    }
    Some((cluster, nvml.into_inner().expect("made above")))
}

/// The agent as `muster up` starts it, after `before` in a mount namespace of its own.
pub(crate) fn start_agent(cluster: &Cluster, before: &str) {
    let (muster, place) = (cluster.program(), cluster.dir());
    let (muster, place) = (muster.display(), place.display());
    let agent = format!("exec {muster} agent --config {place}/muster.toml --node n1");
    let line = format!(
        "unshare -m sh -c '{before} && {agent}' < /dev/null >> {place}/log/n1.log 2>&1 &\n\
         echo $! > {place}/run/n1.pid"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir("/");
    assert!(shell.status().unwrap().success());
}

/// What a job finds: its GPU, the CPUs of its script, of a step, and of itself once it has asked for
/// all of them.
const TELL: &str = "#!/bin/bash\n\
    cpus() { sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status; }\n\
    script=$(cpus)\n\
    step=$(srun -n1 --overlap sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)\n\
    taskset -pc 0,1 $$ > /dev/null 2>&1\n\
    echo \"GPU $SLURM_JOB_GPUS, CPUs $script, step $step, wide $(cpus)\"\n";

/// A job that stays, if it is to, and what it found.
#[track_caller]
fn found(cluster: &Cluster, stays: bool, words: &[&str]) -> (u32, String) {
    let script = match stays {
        true => cluster.script("stays.sh", &format!("{TELL}exec sleep 600\n")),
        false => cluster.script("tells.sh", TELL),
    };
    let mut line = vec!["-c1", "--mem=100M", "--gres=gpu:1", "-o", "%j.out"];
    line.extend(words);
    line.push(&script);
    let job = cluster.submit(&line);
    cluster.until_written(&format!("{job}.out"), "wide");
    (job, cluster.text(&format!("{job}.out")).trim().to_owned())
}

#[test]
fn a_job_runs_on_the_cpus_near_its_gpu_and_the_kernel_says_so() {
    let Some((cluster, _double)) = two_numa_nodes() else { return };
    let near = |cpu: u32, gpu: u32| format!("GPU {gpu}, CPUs {cpu}, step {cpu}, wide {cpu}");
    // CPU 0 is free as well, and has the lower number.
    let take = ["scontrol", "update", "NodeName=n1", "Gpu=0-1", "State=DRAIN", "Reason=story"];
    cluster.ok(&take);
    assert_eq!(found(&cluster, false, &[]).1, near(1, 2), "whoever asks for nothing");
    cluster.ok(&["scontrol", "update", "NodeName=n1", "Gpu=0-1", "State=RESUME"]);
    // Bound jobs: each has the CPU of its own GPU's NUMA node, and no third finds one.
    let bound = "--gres-flags=enforce-binding";
    let (first, told) = found(&cluster, true, &[bound]);
    assert_eq!(told, near(0, 0));
    let (second, told) = found(&cluster, true, &[bound]);
    assert_eq!(told, near(1, 2));
    let third = cluster.submit(&["-c1", "--mem=100M", "--gres=gpu:1", bound, "--wrap=true"]);
    cluster.until(third, "PD");
    cluster.ok(&["scancel", &third.to_string(), &second.to_string()]);
    cluster.ended(second);
    // With the near CPU taken, a job that need not have it takes the other.
    let take = ["scontrol", "update", "NodeName=n1", "Gpu=2-3", "State=DRAIN", "Reason=story"];
    cluster.ok(&take);
    assert_eq!(found(&cluster, false, &[]).1, near(1, 1), "far from its GPU, but at once");
    let waits = cluster.submit(&["-c1", "--mem=100M", "--gres=gpu:1", bound, "--wrap=true"]);
    cluster.until(waits, "PD");
    cluster.ok(&["scancel", &first.to_string()]);
    assert_eq!(cluster.outcome(waits).0, "COMPLETED");
}

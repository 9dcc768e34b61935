//! GPUs that agents find through NVIDIA's library (a double of it), use, lose and get back.

use std::process::Command;

use nvidia_ml::file::{Happening, Process};
use nvidia_ml::kit::Double;

use crate::harness::{Cluster, finish, wait_or};

/// One node for each machine, n1 first; each takes the GPUs that it finds.
pub(crate) fn machines(layouts: &[&str]) -> (Cluster, Vec<Double>) {
    machines_with(layouts, "")
}

/// The same, with more lines for the agents in the config.
pub(crate) fn machines_with(layouts: &[&str], more: &str) -> (Cluster, Vec<Double>) {
    let nodes = format!("--nodes={}", layouts.len());
    let doubles = std::cell::RefCell::new(Vec::new());
    let shape = [nodes.as_str(), "--cpus-per-node=8", "--mem-per-node=8G"];
    let cluster = Cluster::edited(&shape, |cluster, text| {
        let folder = cluster.dir().join("nvml");
        let of = |(layout, n): (&&str, usize)| Double::new(&folder.join(format!("n{n}")), layout);
        *doubles.borrow_mut() = layouts.iter().zip(1..).map(of).collect::<Vec<_>>();
        let library = format!(
            "nvml_library = \"{}/%n/libnvidia-ml.so\"\ngpu_check_seconds = 1\n{more}",
            folder.display()
        );
        let text = text.replace("nvml_library = \"none\"", &library);
        text.replace("cpus = 8\n", "cpus = 8\ngres = \"auto\"\n")
    });
    // A node that was idle before is idle at once; what its new agent finds comes a moment later.
    for n in 1..=layouts.len() {
        until(&cluster, &["-n", &format!("n{n}")], " ok", true);
    }
    (cluster, doubles.into_inner())
}

pub(crate) fn gpus(cluster: &Cluster, words: &[&str]) -> String {
    let mut command = Command::new(cluster.program());
    command.arg("gpu").args(words).env("MUSTER_CONF", cluster.dir().join("muster.toml"));
    let said = finish(command);
    assert_eq!(said.code, 0, "muster gpu: {}{}", said.out, said.err);
    said.out
}

/// Waits until `muster gpu WORDS` has this in it, or has it no more.
#[track_caller]
pub(crate) fn until(cluster: &Cluster, words: &[&str], part: &str, there: bool) {
    let seen = || gpus(cluster, words);
    wait_or(&format!("{part:?} in muster gpu"), seen, || seen().contains(part) == there);
}

#[test]
fn nodes_have_the_gpus_that_are_found_and_jobs_get_them() {
    let (cluster, mut doubles) = machines(&["dgx-h100", "l40s-x4"]);
    let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    assert!(node.contains("Gres=gpu:h100:8") && node.contains("gpu:h100:0(IDX:N/A)"), "{node}");
    assert!(cluster.ok(&["scontrol", "show", "node", "n2"]).contains("Gres=gpu:l40s:4"));
    let script = cluster.script(
        "two.sh",
        "#!/bin/sh\necho gpus=$SLURM_JOB_GPUS cuda=$CUDA_VISIBLE_DEVICES\nsleep 600\n",
    );
    let job = cluster.submit(&["--gres=gpu:h100:2", "-c1", "-o", "two.out", &script]);
    cluster.until(job, "R");
    cluster.until_written("two.out", "cuda=");
    let text = cluster.text("two.out");
    assert!(text.starts_with("gpus=0,1 cuda="), "{text}");
    until(&cluster, &["-n", "n1"], &format!("n1 0 h100 {job} "), true);
    doubles[0].change(|scene| {
        let trouble = scene.trouble_mut(0);
        (trouble.utilization, trouble.watts) = (80, Some(400));
        trouble.processes.push(Process { pid: 1, memory_mib: 30_000 });
    });
    until(&cluster, &["-n", "n1"], "80% 30000", true);
    let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    assert!(node.contains("GresUsed=gpu:h100:2(IDX:0-1)"), "{node}");
    cluster.ok(&["scancel", &job.to_string()]);
    cluster.ended(job);
    // Its process did not let go of the GPU.
    until(&cluster, &["-b", "-n"], &format!("job {job} left process 1"), true);
    doubles[0].change(|scene| scene.trouble_mut(0).processes.clear());
    until(&cluster, &["-b", "-n"], "left", false);
}

#[test]
fn a_bad_gpu_is_taken_out_and_the_others_go_on() {
    let (cluster, mut doubles) = machines(&["dgx-h100"]);
    let script = cluster.script("sleep.sh", "#!/bin/sh\nsleep 600\n");
    let five = cluster.submit(&["--gres=gpu:5", "-c1", &script]);
    cluster.until(five, "R");
    doubles[0].change(|scene| scene.event.push(Happening { gpu: 7, xid: 31 }));
    doubles[0].change(|scene| scene.event.push(Happening { gpu: 6, xid: 79 }));
    until(&cluster, &["-b", "-n"], "Xid 79", true);
    assert!(!gpus(&cluster, &["-b"]).contains("Xid 31"), "an error of a program is none of a GPU");
    let three = cluster.submit(&["--gres=gpu:3", "-c1", &script]);
    let two = cluster.submit(&["--gres=gpu:2", "-c1", &script]);
    cluster.until(two, "R");
    cluster.until(three, "PD");
    cluster.ok(&["scontrol", "update", "NodeName=n1", "Gpu=6", "State=RESUME"]);
    until(&cluster, &["-b", "-n"], "Xid", false);
    let one = cluster.submit(&["--gres=gpu:1", "-c1", &script]);
    cluster.ok(&["scancel", &three.to_string()]);
    cluster.until(one, "R");
    // What a running job holds is told to it, and a second loss speaks against the node.
    doubles[0].change(|scene| scene.trouble_mut(0).lost = true);
    doubles[0].change(|scene| scene.trouble_mut(1).ecc_uncorrected = 3);
    until(&cluster, &["-b", "-n"], "fell off the bus", true);
    until(&cluster, &["-b", "-n"], "3 uncorrected memory (ECC) errors", true);
    let node = || cluster.ok(&["scontrol", "show", "node", "n1"]);
    wait_or("the node to drain", node, || node().contains("Reason=2 GPUs failed"));
    let job = cluster.ok(&["scontrol", "show", "job", &five.to_string()]);
    assert!(job.contains("JobState=RUNNING") && job.contains("GPU 0 of n1"), "{job}");
}

#[test]
fn operators_take_gpus_out_and_what_is_declared_must_be_there() {
    let (cluster, _doubles) = machines(&["l40s-x4"]);
    let drain = ["scontrol", "update", "NodeName=n1", "Gpu=1-2", "State=DRAIN", "Reason=fan"];
    cluster.ok(&drain);
    assert_eq!(gpus(&cluster, &["-b", "-n"]).lines().count(), 2);
    let said = cluster.run(&["scontrol", "update", "NodeName=n1", "Gpu=9", "State=RESUME"]);
    assert!(said.code != 0 && said.err.contains("has no GPU 9"), "{said:?}");
    let path = cluster.dir().join("muster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    cluster.down();
    std::fs::write(&path, text.replace("\"auto\"", "[\"gpu:a100:4\"]")).unwrap();
    // Not every node comes up idle: this one is drained, as it should be.
    cluster.try_up(&[]);
    let node = || cluster.ok(&["scontrol", "show", "node", "n1"]);
    wait_or("the node to drain", node, || node().contains("0 gpu:a100 of 4 (found: 4 gpu:l40s)"));
}

#[test]
fn the_acceptance_script_passes_against_the_double() {
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/gpu-acceptance.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg("--self-test").arg(env!("CARGO_BIN_EXE_muster"));
    command.env("MUSTER_NVML_DOUBLE", nvidia_ml::kit::library());
    let said = finish(command);
    println!("{}", said.out);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for part in
        ["ok    uuid, device file", "ok    two jobs at once", "ok    its energy", "all is well"]
    {
        assert!(said.out.contains(part), "{part:?} is missing in {}", said.out);
    }
}

//! Faults of GPUs, seen through commands: what each comes to, and how it ends.

use nvidia_ml::file::{Happening, Process, Scene, Trouble};
use nvidia_ml::kit::Double;

use crate::gpus::{gpus, machines, until};
use crate::harness::{Cluster, wait_or};

/// Changes what is wrong with a GPU.
type Change = fn(&mut Trouble);
/// Changes what is wrong with one GPU of a machine.
type Damage = fn(&mut Scene, usize);

fn trouble(scene: &mut Scene, gpu: usize, change: impl FnOnce(&mut Trouble)) {
    change(scene.trouble_mut(gpu));
}

/// Waits until a GPU of n1 is out, for this.
#[track_caller]
fn until_out(cluster: &Cluster, gpu: usize, words: &str) {
    let seen = || gpus(cluster, &["-b", "-n"]);
    let of = format!("n1 {gpu} ");
    wait_or(&format!("GPU {gpu} to be out: {words}"), seen, || {
        seen().lines().any(|line| line.starts_with(&of) && line.contains(words))
    });
}

/// Waits for a look of the agent that began after this was called.
#[track_caller]
fn until_looked(cluster: &Cluster, double: &mut Double) {
    let watts = double.scene.trouble(7).watts.unwrap_or(100) + 1;
    double.change(|scene| trouble(scene, 7, |t| t.watts = Some(watts)));
    until(cluster, &["-n", "n1"], &format!(" {watts} "), true);
}

fn sleeping(cluster: &Cluster, words: &[&str]) -> u32 {
    let script = cluster.script("sleep.sh", "#!/bin/sh\nsleep 600\n");
    let line = [&["-c1", "--mem=10M", "-o", "/dev/null"], words, &[&script]].concat();
    cluster.submit(&line)
}

#[test]
fn a_state_takes_a_gpu_out_for_as_long_as_it_lasts() {
    let (cluster, mut doubles) = machines(&["dgx-h100"]);
    let states: [(usize, &str, Change); 5] = [
        (1, "NVLink 2,5 is down", |t| t.links_down = vec![2, 5]),
        (2, "waits to be remapped: reset the GPU", |t| t.remap_pending = true),
        (3, "it does not answer", |t| t.mute = true),
        (4, "it is slowed down by heat (96 C)", |t| {
            (t.overheated, t.temperature) = (true, Some(96));
        }),
        (5, "no job holds it, and there is process 77 on it (900 MiB)", |t| {
            t.processes.push(Process { pid: 77, memory_mib: 900 });
        }),
    ];
    doubles[0].change(|scene| {
        for (gpu, _, change) in states {
            trouble(scene, gpu, change);
        }
    });
    for (gpu, words, _) in states {
        until_out(&cluster, gpu, words);
    }
    // None of it is damage: the node is not blamed, and its other GPUs go on.
    let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    assert!(node.contains("GresDrain=gpu:h100:5(IDX:1-5)"), "{node}");
    assert!(!node.contains("DRAIN "), "{node}");
    let three = sleeping(&cluster, &["--gres=gpu:3"]);
    cluster.until(three, "R");
    let waits = sleeping(&cluster, &["--gres=gpu:5"]);
    cluster.until(waits, "PD");
    doubles[0].change(|scene| scene.gpu.clear());
    cluster.until(waits, "R");
    assert_eq!(gpus(&cluster, &["-b", "-n"]), "", "nobody had to do anything");
}

#[test]
fn links_that_count_errors_again_and_again_take_a_gpu_out() {
    let (cluster, mut doubles) = machines(&["dgx-h100"]);
    // Once is nothing.
    doubles[0].change(|scene| trouble(scene, 6, |t| t.link_errors = 1000));
    until_looked(&cluster, &mut doubles[0]);
    until_looked(&cluster, &mut doubles[0]);
    assert_eq!(gpus(&cluster, &["-b", "-n"]), "");
    let seen = || gpus(&cluster, &["-b", "-n"]);
    wait_or("the GPU to be out", seen, || {
        doubles[0].change(|scene| trouble(scene, 6, |t| t.link_errors += 1));
        seen().contains("NVLink errors since the last look")
    });
    until(&cluster, &["-b", "-n"], "NVLink", false);
}

#[test]
fn damage_keeps_a_gpu_out_until_an_operator_speaks() {
    let (cluster, mut doubles) = machines(&["dgx-h100"]);
    let damage: [(usize, &str, Damage); 4] = [
        (0, "it fell off the bus", |scene, gpu| trouble(scene, gpu, |t| t.lost = true)),
        (1, "Xid 48 (double bit ECC error)", |scene, gpu| {
            scene.event.push(Happening { gpu, xid: 48 });
        }),
        (2, "4 uncorrected memory (ECC) errors", |scene, gpu| {
            trouble(scene, gpu, |t| t.ecc_uncorrected = 4);
        }),
        (3, "a broken memory row could not be remapped", |scene, gpu| {
            trouble(scene, gpu, |t| t.remap_failed = true);
        }),
    ];
    for (gpu, words, change) in damage {
        doubles[0].change(|scene| change(scene, gpu));
        until_out(&cluster, gpu, words);
        // What was wrong is not to be seen any more, and the agent that saw it is gone.
        doubles[0].change(|scene| scene.gpu.clear());
        cluster.crash("n1");
        cluster.up(&[]);
        until_looked(&cluster, &mut doubles[0]);
        until_looked(&cluster, &mut doubles[0]);
        let all = sleeping(&cluster, &["--gres=gpu:8"]);
        cluster.until(all, "PD");
        until_out(&cluster, gpu, words);
        let unit = format!("Gpu={gpu}");
        cluster.ok(&["scontrol", "update", "NodeName=n1", &unit, "State=RESUME"]);
        cluster.until(all, "R");
        cluster.ok(&["scancel", &all.to_string()]);
        cluster.ended(all);
    }
}

#[test]
fn a_slow_library_is_no_fault_and_one_that_hangs_keeps_back_what_it_does_not_tell_of() {
    let (cluster, mut doubles) = machines(&["dgx-h100"]);
    doubles[0].change(|scene| scene.slow_ms = 10);
    until_looked(&cluster, &mut doubles[0]);
    let quick = cluster.submit(&["-c1", "--mem=10M", "--gres=gpu:1", "--wrap=true"]);
    assert_eq!(cluster.outcome(quick).0, "COMPLETED");
    until_looked(&cluster, &mut doubles[0]);
    assert_eq!(gpus(&cluster, &["-b", "-n"]), "");
    let holds = sleeping(&cluster, &["--gres=gpu:2"]);
    cluster.until(holds, "R");
    doubles[0].change(|scene| scene.slow_ms = 3_600_000);
    cluster.ok(&["scancel", &holds.to_string()]);
    // Jobs end and begin all the same; GPUs that may not be empty are given to nobody.
    assert_eq!(cluster.outcome(holds).0, "CANCELLED");
    let words = format!("job {holds} ended, and the driver did not say within 15 s what is left");
    until_out(&cluster, 0, &words);
    until_out(&cluster, 1, &words);
    let other = sleeping(&cluster, &["--gres=gpu:6"]);
    cluster.until(other, "R");
    doubles[0].change(|scene| scene.slow_ms = 0);
    until(&cluster, &["-b", "-n"], "n1", false);
}

#[test]
fn a_library_that_does_not_start_drains_the_node_until_its_gpus_are_back() {
    let doubles = std::cell::RefCell::new(Vec::new());
    let cluster = Cluster::edited(
        &["--nodes=2", "--cpus-per-node=4", "--mem-per-node=4G"],
        |cluster, text| {
            let folder = cluster.dir().join("nvml");
            let of = |node| Double::new(&folder.join(node), "l40s-x4");
            *doubles.borrow_mut() = ["n1", "n2"].map(of).into();
            let library = format!("nvml_library = \"{}/%n/libnvidia-ml.so\"", folder.display());
            let text = text.replace("nvml_library = \"none\"", &library);
            let (before, node) = text.split_once("[[node]]").unwrap();
            let (node, after) = node.split_once("[[partition]]").unwrap();
            let of = |name: &str, gres: &str| {
                let node = node.replace("n[1-2]", name);
                format!("[[node]]{}gres = {gres}\n\n", node.trim_end().to_owned() + "\n")
            };
            let nodes = of("n1", "[\"gpu:l40s:4\"]") + &of("n2", "\"auto\"");
            format!("{before}{nodes}[[partition]]{after}")
        },
    );
    let mut doubles = doubles.into_inner();
    for node in ["n1", "n2"] {
        until(&cluster, &["-n", node], " ok", true);
    }
    let again = |fails: u32, doubles: &mut [Double]| {
        for (node, double) in ["n1", "n2"].iter().zip(doubles) {
            double.change(|scene| scene.init_fails = fails);
            cluster.crash(node);
        }
        // Nodes that come up drained are not idle, and `muster up` says so.
        cluster.try_up(&[]);
    };
    let shown = |node: &str| cluster.ok(&["scontrol", "-d", "show", "node", node]);
    // NVML_ERROR_DRIVER_NOT_LOADED
    again(9, &mut doubles);
    for node in ["n1", "n2"] {
        wait_or(
            &format!("{node} to drain"),
            || shown(node),
            || {
                let text = shown(node);
                text.contains("DRAIN") && text.contains("0 gpu:l40s of 4")
            },
        );
        assert!(shown(node).contains("NVIDIA's_library_does_not_work"), "{}", shown(node));
    }
    again(0, &mut doubles);
    for node in ["n1", "n2"] {
        wait_or(&format!("{node} to be back"), || shown(node), || !shown(node).contains("DRAIN"));
    }
    let both = sleeping(&cluster, &["-N2", "--gres=gpu:l40s:4"]);
    cluster.until(both, "R");
}

#[test]
fn an_agent_comes_up_while_the_library_hangs_and_takes_the_gpus_when_it_answers() {
    let double = std::cell::RefCell::new(None);
    let shape = ["--nodes=1", "--cpus-per-node=4", "--mem-per-node=4G"];
    let cluster = Cluster::edited(&shape, |cluster, text| {
        let folder = cluster.dir().join("nvml/n1");
        *double.borrow_mut() = Some(Double::new(&folder, "l40s-x4"));
        let library = format!("nvml_library = \"{}/libnvidia-ml.so\"", folder.display());
        let text = text.replace("nvml_library = \"none\"", &library);
        // A start waits for a quarter of it.
        let text = text.replace("node_timeout_seconds = 120", "node_timeout_seconds = 20");
        text.replace("cpus = 4\n", "cpus = 4\ngres = \"auto\"\n")
    });
    let mut double = double.into_inner().expect("made above");
    until(&cluster, &["-n"], " ok", true);
    let holds = sleeping(&cluster, &["--gres=gpu:2"]);
    cluster.until(holds, "R");
    let shown = || cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    double.change(|scene| scene.init_slow_ms = 3_600_000);
    cluster.crash("n1");
    cluster.try_up(&[]);
    wait_or("the node to drain", shown, || {
        let text = shown();
        text.contains("DRAIN") && text.contains("0 gpu:l40s of 4")
    });
    assert!(shown().contains("library_does_not_work:_no_answer_within_5_s"), "{}", shown());
    // What it is for goes on: jobs are looked after, and end.
    cluster.until(holds, "R");
    let agent = cluster.pid("n1");
    let other = sleeping(&cluster, &["--gres=gpu:1"]);
    cluster.ok(&["scancel", &holds.to_string()]);
    assert_eq!(cluster.outcome(holds).0, "CANCELLED");
    cluster.until(other, "PD");
    double.change(|scene| scene.init_slow_ms = 0);
    wait_or("the node to be back", shown, || !shown().contains("DRAIN"));
    until(&cluster, &["-n"], " ok", true);
    cluster.until(other, "R");
    assert_eq!(cluster.pid("n1"), agent, "the same process, under the same eyes");
}

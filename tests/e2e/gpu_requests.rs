//! Requests for GPUs in all their spellings, on machines that are wired as real ones are.

use crate::gpus::{machines, machines_with};
use crate::harness::{Cluster, wait_or};

/// What a job says of itself; it stays until the test is over.
const TELL: &str = "#!/bin/sh\necho \"$SLURMD_NODENAME $SLURM_JOB_GPUS\"\nsleep 600\n";

/// Submits a job that stays, and returns its node and its GPUs as the node counts them.
#[track_caller]
fn place(cluster: &Cluster, words: &[&str]) -> (u32, String) {
    let script = cluster.script("tell.sh", TELL);
    let mut line = vec!["-o", "%j.out"];
    line.extend(words);
    line.push(&script);
    let job = cluster.submit(&line);
    cluster.until_written(&format!("{job}.out"), "\n");
    (job, cluster.text(&format!("{job}.out")).trim().to_owned())
}

/// A submission that can never be served: the sentence it is refused with.
#[track_caller]
fn refused(cluster: &Cluster, words: &[&str], part: &str) {
    let mut line = vec!["sbatch"];
    line.extend(words);
    line.push("--wrap=true");
    let said = cluster.run(&line);
    assert!(said.code == 1 && said.err.contains(part), "{words:?}: {said:?}");
}

#[test]
fn jobs_get_gpus_that_hang_together() {
    let layouts = ["dgx1-v100", "pcie-a100", "dgx-h100", "nvl72-tray"];
    let (cluster, _doubles) = machines(&layouts);
    let on = |node: &str, words: &[&str]| {
        let mut line = vec!["-w", node, "-c1", "--mem=100M"];
        line.extend(words);
        place(&cluster, &line).1
    };
    // Two of the cube mesh have a double link, and leave one whole quad.
    let mesh = on("n1", &["--gres=gpu:2"]);
    let pairs = ["0,3", "0,4", "1,2", "1,5", "2,3", "4,7", "5,6", "6,7"];
    assert!(pairs.iter().any(|pair| mesh == format!("n1 {pair}")), "{mesh}");
    let quad = on("n1", &["--gres=gpu:4", "--nvlink=required"]);
    assert!(quad == "n1 0,1,2,3" || quad == "n1 4,5,6,7", "{quad}");
    // Four in one NUMA node, then the four of the other.
    assert_eq!(on("n2", &["--gres=gpu:4"]), "n2 0,1,2,3");
    assert_eq!(on("n2", &["--gres=gpu:2"]), "n2 4,5");
    // A whole node on switches, and a tray.
    assert_eq!(on("n3", &["--gres=gpu:8", "--nvlink=required"]), "n3 0,1,2,3,4,5,6,7");
    assert_eq!(on("n4", &["--gres=gpu:gb200:4"]), "n4 0,1,2,3");
    let never = ["-w", "n2", "--gres=gpu:2", "--nvlink=required"];
    refused(
        &cluster,
        &never,
        "it needs 2 GPUs joined by NVLink on a node and at most 1 are on any",
    );
    let said = cluster.run(&["sbatch", "--nvlink=maybe", "--wrap=true"]);
    assert!(said.code == 255 && said.err.contains("Invalid --nvlink"), "{said:?}");
}

#[test]
fn gpus_are_asked_for_by_number_by_type_and_by_memory() {
    let (cluster, _doubles) = machines(&["dgx-h100", "mig-a100"]);
    let mine = |words: &[&str]| {
        let mut line = words.to_vec();
        if !words.iter().any(|word| word.starts_with("--mem")) {
            line.push("--mem=100M");
        }
        let (job, place) = place(&cluster, &line);
        let show = cluster.ok(&["scontrol", "-d", "show", "job", &job.to_string()]);
        cluster.ok(&["scancel", &job.to_string()]);
        cluster.ended(job);
        (place, show)
    };
    assert_eq!(mine(&["-w", "n1", "-c1", "--gpus=2"]).0, "n1 0,1");
    assert_eq!(mine(&["-n2", "--gpus-per-task=h100:2"]).0, "n1 0,1,2,3");
    let (place, show) = mine(&["--gpus=h100:3", "--cpus-per-gpu=2", "--mem-per-gpu=200M"]);
    assert_eq!(place, "n1 0,1,2");
    assert!(show.contains("NumCPUs=6") && show.contains("mem=600M"), "{show}");
    let (place, show) = mine(&["--gpus=h100:2", "--ntasks-per-gpu=2"]);
    assert!(place == "n1 0,1" && show.contains("NumTasks=4"), "{show}");
    // Instances are types of their own; several types in one job.
    let types = "--gres=gpu:a100_1g.5gb:2,gpu:a100_3g.20gb:1";
    assert_eq!(mine(&["-c1", types]).0, "n2 1,2,4");
    assert_eq!(mine(&["-c1", "--gpus=a100_2g.10gb:1"]).0, "n2 3");
    // By memory: an instance is as large as it is.
    assert_eq!(mine(&["-c1", "--gres=gpu:1", "--constraint=gpu_mem>=80G"]).0, "n1 0");
    let a100 = ["-c1", "--gpus=a100:1", "--constraint=gpu_mem>=40G"];
    assert_eq!(mine(&a100).0, "n2 0");
    // Who names no type gets whole GPUs, though the node of instances is the fuller one.
    self::place(&cluster, &["-c1", "--mem=100M", "--gpus=a100:1"]);
    assert_eq!(mine(&["-c1", "--gpus=1"]).0, "n1 0");
    assert_eq!(mine(&["-c1", "--gpus=2"]).0, "n1 0,1");
    refused(&cluster, &["--gres=gpu:1", "--constraint=gpu_mem>=141G"], "gpu_mem>=141G");
    refused(&cluster, &["--gres=gpu:1", "--constraint=gpu_mem>80G"], "gpu_mem>=80G");
    refused(&cluster, &["--gres=gpu:h100:9"], "it needs 9 gpu:h100 on a node");
    refused(&cluster, &["--gres=gpu:b200:1"], "gpu:b200");
}

#[test]
fn gpus_are_named_as_the_driver_does_where_the_config_says_so() {
    let (cluster, _doubles) = machines_with(&["mig-a100"], "gpu_numbering = \"uuid\"");
    let tell = "#!/bin/sh\necho $SLURM_JOB_GPUS $CUDA_VISIBLE_DEVICES\n\
        srun -n1 sh -c 'echo step $CUDA_VISIBLE_DEVICES'\n";
    let script = cluster.script("names.sh", tell);
    for (gpus, expected) in [
        ("a100:1", "0 GPU-00000001-1111-4222-8333-444455556666"),
        ("a100_3g.20gb:1", "4 MIG-00000000-0000-4000-8000-000000000000"),
    ] {
        let wish = format!("--gpus={gpus}");
        let job = cluster.submit(&["-c1", "--mem=100M", &wish, "-o", "names.out", &script]);
        assert_eq!(cluster.outcome(job).0, "COMPLETED");
        let name = expected.split(' ').nth(1).expect("two words");
        assert_eq!(cluster.text("names.out"), format!("{expected}\nstep {name}\n"));
    }
}

#[test]
fn sockets_shares_and_cpus_near_the_gpus() {
    let nvml = std::cell::RefCell::new(None);
    let shape = ["--nodes=1", "--cpus-per-node=8", "--mem-per-node=8G"];
    let cluster = Cluster::edited(&shape, |cluster, text| {
        let folder = cluster.dir().join("nvml/n1");
        *nvml.borrow_mut() = Some(nvidia_ml::kit::Double::new(&folder, "l40s-x4"));
        let library = format!("nvml_library = \"{}/libnvidia-ml.so\"", folder.display());
        let text = text.replace("nvml_library = \"none\"", &library);
        text.replace("cpus = 8\n", "cpus = 8\nsockets = 2\ngres = [\"auto\", \"shard:16\"]\n")
    });
    crate::gpus::until(&cluster, &["-n"], " ok", true);
    let sockets = ["-c1", "--mem=100M", "--gpus-per-socket=1", "--sockets-per-node=2"];
    let (job, place_of) = place(&cluster, &sockets);
    assert_eq!(place_of.split(' ').nth(1).map(|list| list.split(',').count()), Some(2));
    cluster.ok(&["scancel", &job.to_string()]);
    refused(&cluster, &["--gpus-per-socket=1"], "--sockets-per-node");
    let script = cluster.script("shards.sh", "#!/bin/sh\nenv | grep -E 'SHARD|CUDA' | sort\n");
    let shards = cluster.submit(&["--mem=100M", "--gres=shard:4", "-o", "s.out", &script]);
    assert_eq!(cluster.outcome(shards).0, "COMPLETED");
    assert_eq!(cluster.text("s.out"), "SLURM_SHARDS_ON_NODE=4\n", "counted, and nothing fenced");
    refused(&cluster, &["--gres=shard:17"], "shard");
}

#[test]
fn cpus_that_must_be_near_the_gpus_are_waited_for() {
    let nvml = std::cell::RefCell::new(None);
    let shape = ["--nodes=1", "--cpus-per-node=32", "--mem-per-node=8G"];
    let cluster = Cluster::edited(&shape, |cluster, text| {
        let folder = cluster.dir().join("nvml/n1");
        *nvml.borrow_mut() = Some(nvidia_ml::kit::Double::new(&folder, "l40s-x4"));
        let library = format!("nvml_library = \"{}/libnvidia-ml.so\"", folder.display());
        let text = text.replace("nvml_library = \"none\"", &library);
        text.replace("cpus = 32\n", "cpus = 32\ngres = \"auto\"\n")
    });
    crate::gpus::until(&cluster, &["-n"], " ok", true);
    // GPUs 0 and 1 are near CPUs 0 to 15, the others near 16 to 31.
    let held = |job: u32| {
        let show = cluster.ok(&["scontrol", "-d", "show", "job", &job.to_string()]);
        let line = show.lines().find(|line| line.contains("CPU_IDs=")).unwrap_or_default();
        line.trim().replace(" Mem=100", "")
    };
    let near = ["-c12", "--mem=100M", "--gres=gpu:1", "--gres-flags=enforce-binding"];
    let first = place(&cluster, &near).0;
    assert_eq!(held(first), "Nodes=n1 CPU_IDs=0-11 GRES=gpu:l40s:1(IDX:0)");
    let show = cluster.ok(&["scontrol", "show", "job", &first.to_string()]);
    assert!(show.contains("\n   GresEnforceBind=Yes\n"), "{show}");
    let json = cluster.ok(&["squeue", "--json"]);
    assert!(json.contains("GRES_BINDING_ENFORCED"), "{json}");
    let second = place(&cluster, &near).0;
    assert_eq!(held(second), "Nodes=n1 CPU_IDs=16-27 GRES=gpu:l40s:1(IDX:2)");
    // Eight CPUs and two GPUs are free, but four near each.
    let script = cluster.script("tell.sh", TELL);
    let few = ["-c5", "--mem=100M", "--gres=gpu:1", "--gres-flags=enforce-binding", &script];
    let third = cluster.submit(&few);
    let why = || cluster.ok(&["muster", "why", &third.to_string()]);
    wait_or("the reason", why, || why().contains("too few CPUs free near GPUs"));
    cluster.until(third, "PD");
    let node = cluster.ok(&["scontrol", "show", "node", "n1"]);
    assert!(node.contains("CPUAlloc=24 "), "{node}");
    cluster.ok(&["scancel", &second.to_string()]);
    cluster.until(third, "R");
    assert_eq!(held(third), "Nodes=n1 CPU_IDs=16-20 GRES=gpu:l40s:1(IDX:2)");
    refused(&cluster, &["-c17", "--gres=gpu:1", "--gres-flags=enforce-binding"], "17 CPUs near");
    let said = cluster.run(&["sbatch", "--gres-flags=perhaps", "--wrap=true"]);
    assert!(said.code == 255 && said.err.contains("Invalid --gres-flags"), "{said:?}");
}

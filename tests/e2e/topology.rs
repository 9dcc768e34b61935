//! A network between the nodes: gangs lie together, wishes about switches are kept, what rejected a
//! job is said; and a pass over such a cluster, written down and run again.

use std::fs;

use crate::harness::{Cluster, STRANGER, Said, root};

/// Four nodes below two leaves, so that the order of names is not that of the network.
fn start() -> Cluster {
    let shape = ["--nodes=4", "--cpus-per-node=2", "--mem-per-node=4G"];
    Cluster::edited(&shape, |_, text| {
        text + "\n[[switch]]\nname = \"leaf1\"\nnodes = \"n[1,3]\"\n\
                [[switch]]\nname = \"leaf2\"\nnodes = \"n[2,4]\"\n\
                [[switch]]\nname = \"spine\"\nswitches = \"leaf[1-2]\"\n"
    })
}

fn nodes(cluster: &Cluster, job: u32) -> String {
    cluster.ok(&["squeue", "-h", "-j", &job.to_string(), "-o", "%N"])
}

fn cancel(cluster: &Cluster, jobs: &[u32]) {
    for job in jobs {
        cluster.ok(&["scancel", &job.to_string()]);
    }
    for job in jobs {
        cluster.ended(*job);
    }
}

#[test]
fn gangs_lie_below_one_leaf_and_their_ranks_follow_the_network() {
    let cluster = start();
    let shown = cluster.ok(&["scontrol", "show", "topology"]);
    for line in [
        "SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[1,3]",
        "SwitchName=leaf2 Level=0 LinkSpeed=1 Nodes=n[2,4]",
        "SwitchName=spine Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=leaf[1-2]",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in {shown}");
    }
    let dot = cluster.ok(&["muster", "topology", "--dot"]);
    assert!(dot.contains("graph") && dot.contains("leaf1") && dot.contains("spine"), "{dot}");

    // By name n2 and n3 would be next; one leaf has both of the gang's nodes.
    let first = cluster.submit(&["-w", "n1", "-c2", "--mem=1G", "--wrap=sleep 600"]);
    cluster.until(first, "R");
    let script =
        "--wrap=echo $SLURM_JOB_NODELIST $SLURM_TOPOLOGY_ADDR $SLURM_TOPOLOGY_ADDR_PATTERN";
    let gang = cluster.submit(&["-N2", "-c2", "--mem=1G", "-o", "gang.out", script]);
    assert_eq!(cluster.outcome(gang).0, "COMPLETED");
    assert_eq!(cluster.text("gang.out"), "n[2,4] spine.leaf2.n2 switch.switch.node\n");
    cancel(&cluster, &[first]);

    // All four: leaf by leaf.
    let ranks = "srun sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_TOPOLOGY_ADDR' | sort";
    let script = cluster.script("ranks.sh", &format!("#!/bin/sh\n{ranks}\n"));
    let all = cluster.submit(&["-N4", "-n4", "--mem=1G", "-o", "ranks.out", &script]);
    assert_eq!(cluster.outcome(all).0, "COMPLETED");
    assert_eq!(
        cluster.text("ranks.out"),
        "0 n1 spine.leaf1.n1\n1 n3 spine.leaf1.n3\n2 n2 spine.leaf2.n2\n3 n4 spine.leaf2.n4\n"
    );
    let cut = ["-N4", "-n4", "--segment=2", "--mem=1G", "-o", "cut.out", &script];
    let segments = cluster.submit(&cut);
    assert_eq!(cluster.outcome(segments).0, "COMPLETED");
    assert_eq!(cluster.text("cut.out"), cluster.text("ranks.out"));
}

#[test]
fn wishes_about_switches_are_kept_and_what_rejects_is_named() {
    let cluster = start();
    let hold = |node: &str| {
        let job = cluster.submit(&["-w", node, "-c2", "--mem=1G", "-t30", "--wrap=sleep 600"]);
        cluster.until(job, "R");
        job
    };
    // One node is free below each leaf.
    let (one, two) = (hold("n1"), hold("n2"));
    let gang = |more: &[&str]| {
        let plain = ["-N2", "-c2", "--mem=1G", "-t10", "--wrap=sleep 600"];
        cluster.submit(&[more, &plain[..]].concat())
    };
    let near = gang(&["--switches=1@60"]);
    cluster.until(near, "PD");
    let why = cluster.ok(&["muster", "why", &near.to_string()]);
    println!("{why}");
    let level = "2 fitting nodes take 2 leaf switches and at most 1 are asked for";
    assert!(why.contains(level), "{why}");
    let cut = gang(&["--segment=2"]);
    let why = cluster.ok(&["muster", "why", &cut.to_string()]);
    assert!(why.contains("segments of 2 nodes"), "{why}");
    cancel(&cluster, &[near, cut]);
    // Whoever insists for no time takes what there is.
    let far = gang(&["--switches=1@0"]);
    cluster.until(far, "R");
    assert_eq!(nodes(&cluster, far), "n[3-4]");
    cancel(&cluster, &[far, one, two]);

    // A leaf without anybody else in it.
    let alone =
        cluster.submit(&["--exclusive=topo", "-N1", "--mem=1G", "-t30", "--wrap=sleep 600"]);
    cluster.until(alone, "R");
    let (mate, others) = match &*nodes(&cluster, alone) {
        "n1" => ("n3", ["n2", "n4"]),
        "n2" => ("n4", ["n1", "n3"]),
        "n3" => ("n1", ["n2", "n4"]),
        "n4" => ("n2", ["n1", "n3"]),
        other => panic!("{other}"),
    };
    let beside = cluster.submit(&["-w", mate, "-c1", "--mem=1G", "-t10", "--wrap=true"]);
    let elsewhere = cluster.submit(&[
        "-c1",
        "--mem=1G",
        "-t10",
        "-o",
        "where.out",
        "--wrap=hostname; echo $SLURMD_NODENAME",
    ]);
    assert_eq!(cluster.outcome(elsewhere).0, "COMPLETED");
    let ran = cluster.text("where.out");
    assert!(others.iter().any(|node| ran.ends_with(&format!("{node}\n"))), "{ran} {others:?}");
    cluster.until(beside, "PD");
    cancel(&cluster, &[alone]);
    assert_eq!(cluster.outcome(beside).0, "COMPLETED");
}

#[test]
fn a_pass_is_written_down_and_chooses_the_same_when_run_again() {
    let cluster = start();
    let full = cluster.submit(&["-N4", "-c2", "--mem=1G", "-t30", "--wrap=sleep 600"]);
    cluster.until(full, "R");
    let mut waiting = Vec::new();
    for n in 1..=6u32 {
        let (minutes, name) = (format!("-t{}", 5 + n), format!("-Jjob{n}"));
        let gang = format!("-N{}", 1 + n % 3);
        let secret =
            ["--comment=SECRET", "--export=ALL,KEY=SECRET", "--mem=1G", "--wrap=sleep 600"];
        waiting.push(cluster.submit(&[&[&*minutes, &name, &gang], &secret[..]].concat()));
    }
    cluster.ok(&["scontrol", "update", "NodeName=n4", "State=DRAIN", "Reason=look"]);

    let path = cluster.ok(&["muster", "dump-pass"]);
    assert!(path.starts_with(&*cluster.dir().to_string_lossy()), "{path}");
    let again = cluster.run(&["muster", "sim", "plan", &path]);
    println!("{}{}", again.out, again.err);
    assert_eq!(again.code, 0);
    assert!(again.out.ends_with("equal: the same plan as was dumped\n"));
    let promised = |job: &u32| again.out.contains(&format!("job {job} is promised "));
    assert_eq!(waiting.iter().filter(|job| promised(job)).count(), 1, "{}", again.out);
    let json = cluster.ok(&["muster", "sim", "plan", "--json", &path]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    assert_eq!((&json["equal"], &json["cause"]), (&true.into(), &"asked".into()));
    assert_eq!((&json["nodes"], &json["running"]), (&4.into(), &1.into()));

    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"SECRET"));
    // Damaged, or none: one line each.
    let broken = cluster.work().join("broken.dump");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let one_line = |said: &Said, what: &str| {
        assert_eq!(said.code, 1, "{}", said.out);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(said.err.contains(what), "{}", said.err);
    };
    for bytes in [&damaged[..], &bytes[..bytes.len() - 1], b"hello", b""] {
        fs::write(&broken, bytes).unwrap();
        let said = cluster.run(&["muster", "sim", "plan", "broken.dump"]);
        one_line(&said, "broken.dump: not the dump of a pass: ");
    }
    one_line(&cluster.run(&["muster", "sim", "plan", "none.dump"]), "none.dump: cannot be read");

    if root("a stranger has no pass dumped") {
        let said = cluster.run_as(STRANGER, &["muster", "dump-pass"]);
        assert_eq!((said.code, &*said.out), (1, ""), "{}", said.err);
    }
}

#[test]
fn a_network_that_is_none_keeps_the_controller_from_starting() {
    let cluster = start();
    let text = fs::read_to_string(cluster.dir().join("muster.toml")).unwrap();
    let bad = cluster.work().join("bad.toml");
    for (from, to, why) in [
        ("nodes = \"n[2,4]\"", "nodes = \"n2\"", "node \"n4\" is in no switch"),
        ("nodes = \"n[2,4]\"", "nodes = \"n[2-4]\"", "node \"n3\" is in two switches"),
        ("switches = \"leaf[1-2]\"", "switches = \"leaf[1-2],spine\"", "the switches form a loop"),
    ] {
        assert!(text.contains(from));
        fs::write(&bad, text.replace(from, to)).unwrap();
        let said = cluster.run(&["muster", "controller", "--config", &bad.to_string_lossy()]);
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("bad.toml") && said.err.contains(why), "{}", said.err);
    }
}

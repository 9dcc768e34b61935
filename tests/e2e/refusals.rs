//! Bad input: each fault is named, the exit code says so, and the daemons live on.

use std::fs;
use std::process::Command;

use crate::harness::{Cluster, Said, finish, finish_with};

/// A refusal: exit code 1, or 255 for a faulty command line as Slurm has it, and the fault named.
#[track_caller]
fn check(what: &str, said: &Said, codes: &[i32], part: &str) {
    assert!(codes.contains(&said.code), "{what}: exit code {} of {said:?}", said.code);
    let err = said.err.to_lowercase();
    assert!(err.contains(&part.to_lowercase()), "{what}: {part:?} is not in {said:?}");
    assert!(!err.contains("panicked"), "{what}: {said:?}");
    assert!(said.out.is_empty(), "{what}: it also printed {:?}", said.out);
}

#[test]
fn faulty_scripts_are_refused_where_they_are_submitted() {
    let cluster = Cluster::start();
    let huge = [b"#!/bin/sh\n".to_vec(), vec![b'#'; 5 << 20], b"\n".to_vec()].concat();
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty", b"", "empty"),
        ("blank", b" \n\t\n", "whitespace"),
        ("no shebang", b"echo hello\n", "does not look like a batch script"),
        ("CRLF", b"#!/bin/sh\r\necho hello\r\n", "DOS line breaks"),
        ("NUL", b"#!/bin/sh\necho \0\n", "NULL character"),
        ("5 MiB", &huge, "script"),
    ];
    for (what, script, part) in cases {
        let said = finish_with(cluster.command(&["sbatch"]), script);
        check(what, &said, &[1], part);
        fs::write(cluster.work().join("faulty.sh"), script).unwrap();
        check(what, &cluster.run(&["sbatch", "faulty.sh"]), &[1], part);
    }
    check("missing", &cluster.run(&["sbatch", "nowhere.sh"]), &[1], "nowhere.sh");
    cluster.assert_alive();
}

#[test]
fn faulty_options_are_refused_and_named() {
    let cluster = Cluster::start();
    let cases: [(&[&str], &str); 21] = [
        (&["--nonsense"], "nonsense"),
        (&["--time=abc"], "--time"),
        (&["--mem=-1"], "--mem"),
        (&["--mem=abc"], "--mem"),
        (&["-N", "0"], "node"),
        (&["-N", "5-2"], "node count"),
        (&["-n", "0"], "ntasks"),
        (&["--array=5-1"], "Invalid job array specification"),
        (&["--array=0-99999999"], "Invalid job array specification"),
        (&["-p", "nowhere"], "Invalid partition name specified"),
        (&["-C", "nosuchfeature"], "Invalid feature specification"),
        (&["-d", "afterok:nonsense"], "dependency"),
        (&["-d", "nonsense"], "dependency"),
        (&["-w", "n99"], "Invalid node name specified"),
        (&["-w", "n[1-999999999]"], "n[1-999999999]"),
        (&["-n", "99999"], "Requested node configuration is not available"),
        (&["-N", "3"], "Requested node configuration is not available"),
        (&["--mem=999T"], "available"),
        (&["--gres=gpu:nosuch:1"], "gres"),
        (&["-D", "/nowhere/at/all"], "/nowhere/at/all"),
        (&["-o", "/tmp"], "/tmp"),
    ];
    for (words, part) in cases {
        let mut line = vec!["sbatch", "--wrap=true"];
        line.extend(words);
        check(&words.join(" "), &cluster.run(&line), &[1, 255], part);
    }
    for (what, name) in [("newline", "two\nlines"), ("escape", "\u{1b}[31mred")] {
        let said = cluster.run(&["sbatch", "--wrap=true", "-J", name]);
        check(what, &said, &[1, 255], "name");
        assert!(!said.err.contains('\u{1b}'), "the message repeats the escape: {said:?}");
    }
    assert_eq!(cluster.ok(&["squeue", "-h", "-t", "all"]), "", "something was submitted after all");
    cluster.assert_alive();
}

#[test]
fn a_huge_environment_is_refused() {
    let cluster = Cluster::start();
    let mut command = cluster.command(&["sbatch", "--wrap=true"]);
    // The kernel takes no single string above 128 KiB.
    for i in 0..14 {
        command.env(format!("HUGE_{i}"), "x".repeat(120 << 10));
    }
    let said = finish(command);
    if said.code == 0 {
        // Below the limit: allowed. What the kernel cannot carry comes from a program.
        println!("1.7 MB of environment are accepted");
    }
    let pairs = (0..100).map(|i| format!("HUGE_{i}={}\0", "x".repeat(100 << 10)));
    fs::write(cluster.work().join("env"), pairs.collect::<String>()).unwrap();
    let said = cluster.run(&["sbatch", "--export-file=env", "--wrap=true"]);
    check("10 MB of environment", &said, &[1, 255], "environment");
    cluster.assert_alive();
}

#[test]
fn a_job_cannot_depend_on_itself() {
    let cluster = Cluster::start();
    let job = cluster.submit(&["--hold", "--wrap=true"]);
    let said = cluster.run(&[
        "scontrol",
        "update",
        &format!("jobid={job}"),
        &format!("dependency=afterok:{job}"),
    ]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.to_lowercase().contains("dependency"), "{said:?}");
    cluster.assert_alive();
}

#[test]
fn unknown_words_and_jobs_are_said_to_be_unknown() {
    let cluster = Cluster::start();
    let cases: [(&[&str], &str); 5] = [
        (&["scontrol", "shutdown", "n1"], "invalid shutdown argument:n1"),
        (&["squeue", "-j", "4711"], "Invalid job id specified"),
        (&["scontrol", "show", "job", "4711"], "Invalid job id specified"),
        (&["scontrol", "hold", "4711"], "Invalid job id specified"),
        (&["scancel", "abc"], "Invalid job id abc"),
    ];
    for (words, part) in cases {
        check(&words.join(" "), &cluster.run(words), &[1], part);
    }
    cluster.assert_alive();
}

#[test]
fn a_config_with_an_unknown_key_is_refused_with_the_nearest_one() {
    let cluster = Cluster::start();
    cluster.down();
    let path = cluster.dir().join("muster.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("heartbeat_seconds", "heartbeet_seconds")).unwrap();
    for words in [vec!["controller"], vec!["agent", "--node", "n1"]] {
        let mut command = Command::new(cluster.program());
        command.args(&words[..1]).arg("--config").arg(&path).args(&words[1..]);
        let said = finish(command);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert!(said.err.contains("heartbeet_seconds"), "{words:?}: {said:?}");
        assert!(said.err.contains("heartbeat_seconds"), "{words:?}: {said:?}");
    }
    let said = cluster.try_up(&[]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("did you mean"), "{said:?}");
    fs::write(&path, good).unwrap();
    cluster.up(&[]);
    cluster.assert_alive();
}

#[test]
fn a_reconfigure_with_a_faulty_file_changes_nothing() {
    let cluster = Cluster::start();
    let path = cluster.dir().join("muster.toml");
    let good = fs::read_to_string(&path).unwrap();
    // The command has a config of its own: the faulty one is the controller's alone.
    let own = cluster.work().join("own.toml");
    fs::write(&own, &good).unwrap();
    fs::write(&path, good.replace("[[partition]]", "[[partitoin]]")).unwrap();
    let mut command = cluster.command(&["scontrol", "reconfigure"]);
    command.env("MUSTER_CONF", &own);
    let said = finish(command);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("partitoin"), "{said:?}");
    fs::write(&path, &good).unwrap();
    cluster.assert_alive();
    fs::write(&path, good.replace("name = \"main\"", "name = \"renamed\"")).unwrap();
    cluster.ok(&["scontrol", "reconfigure"]);
    assert!(cluster.ok(&["sinfo", "-h", "-o", "%P"]).contains("renamed*"));
}

#[test]
fn starting_a_cluster_in_another_shape_is_refused() {
    let cluster = Cluster::start();
    let said = cluster.try_up(&["--nodes=5"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("--nodes 5: the cluster in this directory has 2"), "{said:?}");
    cluster.assert_alive();
}

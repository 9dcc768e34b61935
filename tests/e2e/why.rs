//! Why a job waits, when it will start, and what would start it now: said, and then true.

use crate::harness::Cluster;

#[test]
fn a_waiting_job_learns_whom_it_waits_for_until_when_and_what_would_start_it() {
    let cluster = Cluster::start();
    // Both nodes are full but for one CPU of the second.
    let long = cluster.submit(&["-w", "n1", "-N1", "-c4", "-t30", "--mem=1G", "--wrap=sleep 600"]);
    let part = cluster.submit(&["-w", "n2", "-N1", "-c3", "-t60", "--mem=1G", "--wrap=sleep 600"]);
    cluster.until(long, "R");
    cluster.until(part, "R");
    let waiting =
        ["-N1", "-c4", "-t10", "--mem=1G", "-o", "small.out", "--wrap=echo $SLURM_CPUS_ON_NODE"];
    let job = cluster.submit(&waiting);
    cluster.until(job, "PD");

    let id = job.to_string();
    let told = cluster.ok(&["muster", "why", &id]);
    println!("{told}");
    for line in [
        format!("job {job} waits: "),
        "  main has 2 nodes, it needs 1:".to_owned(),
        "    2 have too few CPUs free (n[1-2])".to_owned(),
        format!("  must end first: {long} (at its limit "),
    ] {
        assert!(told.contains(&line), "{line:?} is not in {told}");
    }
    let end = cluster.ok(&["squeue", "-h", "-j", &long.to_string(), "-o", "%e"]);
    assert!(told.contains(&format!("expected to start: {end} on n1 (main)")), "{end}: {told}");
    assert_eq!(
        cluster.ok(&["squeue", "-h", "--start", "-j", &id, "-o", "%S %Y"]),
        format!("{end} n1")
    );
    let shown = cluster.ok(&["scontrol", "show", "job", &id]);
    assert!(shown.contains(&format!("StartTime={end}")), "{shown}");
    assert!(shown.contains("SchedNodeList=n1"), "{shown}");

    let json = cluster.ok(&["muster", "why", "--json", &id]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    let said = &json["jobs"][0];
    assert_eq!(said["waits_for"][0]["job_id"], long);
    assert_eq!(said["waits_for"][0]["end"], said["expected_start"]);
    let changes = said["would_start_now_with"].as_array().expect("a list");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["option"], "--cpus-per-task=1");

    // As told: another one so, and this one changed so.
    let option = changes[0]["option"].as_str().expect("a text");
    let again =
        [&["-N1", "-c4", "-t10", "--mem=1G", "-o", "other.out"], &[option, "--wrap=true"][..]];
    let other = cluster.submit(&again.concat());
    assert_eq!(cluster.outcome(other).0, "COMPLETED");
    let update = changes[0]["update"].as_str().expect("a text");
    cluster.ok(&["scontrol", "update", &format!("JobId={job}"), update]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    assert_eq!(cluster.text("small.out"), "1\n");

    let ended = cluster.ok(&["muster", "why", &id]);
    assert!(ended.starts_with(&format!("job {job} is COMPLETED")), "{ended}");
    let unknown = cluster.run(&["muster", "why", "9999"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.err.contains("Invalid job id specified"), "{unknown:?}");
}

#[test]
fn a_job_that_fits_before_what_is_promised_starts_when_it_is_made_that_short() {
    let cluster = Cluster::start();
    let half = cluster.submit(&["-w", "n1", "-N1", "-c2", "-t20", "--mem=1G", "--wrap=sleep 600"]);
    cluster.until(half, "R");
    // It wants both nodes whole, and is promised them.
    let wide = cluster.submit(&["-N2", "--exclusive", "-t30", "--mem=1G", "--wrap=true"]);
    cluster.until(wide, "PD");
    let job = cluster.submit(&["-N1", "-c4", "-t60", "--mem=1G", "--wrap=true"]);
    cluster.until(job, "PD");
    let json = cluster.ok(&["muster", "why", "--json", &job.to_string()]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    let said = &json["jobs"][0];
    assert_eq!(said["ahead"][0], wide, "{said}");
    assert_eq!(said["partitions"][0]["removed"][1]["filter"], "promised", "{said}");
    let change = &said["would_start_now_with"][0];
    assert_eq!(change["nodes"], "n2", "{said}");
    let update = change["update"].as_str().expect("a text");
    assert!(update.starts_with("TimeLimit=00:1"), "{update}");
    cluster.ok(&["scontrol", "update", &format!("JobId={job}"), update]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    cluster.until(wide, "PD");
}

#[test]
fn the_config_says_how_a_pass_chooses_and_a_change_needs_no_restart() {
    let cluster = Cluster::start();
    let pid = cluster.pid("controller");
    let path = cluster.dir().join("muster.toml");
    let text = std::fs::read_to_string(&path).expect("there is a config");
    let with = |line: &str| match text.contains("[scheduler]") {
        true => text.replace("[scheduler]", &format!("[scheduler]\n{line}")),
        false => format!("{text}\n[scheduler]\n{line}\n"),
    };
    std::fs::write(&path, with("backfill = \"of\"")).expect("written");
    let refused = cluster.run(&["scontrol", "reconfigure"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    std::fs::write(&path, with("order = \"fcfs\"\nbackfill = \"off\"")).expect("written");
    cluster.ok(&["scontrol", "reconfigure"]);
    assert!(cluster.ok(&["scontrol", "show", "config"]).contains("order=fcfs,backfill=off"));

    let half = cluster.submit(&["-w", "n1", "-N1", "-c2", "-t20", "--mem=1G", "--wrap=sleep 600"]);
    cluster.until(half, "R");
    let wide = cluster.submit(&["-N2", "--exclusive", "-t30", "--mem=1G", "--wrap=true"]);
    cluster.until(wide, "PD");
    let short = cluster.submit(&["-N1", "-c1", "-t1", "--mem=1G", "--wrap=true"]);
    cluster.until(short, "PD");
    std::fs::write(&path, with("order = \"fcfs\"\nbackfill = \"on\"")).expect("written");
    cluster.ok(&["scontrol", "reconfigure"]);
    assert_eq!(cluster.outcome(short).0, "COMPLETED");
    assert_eq!(cluster.pid("controller"), pid);
}

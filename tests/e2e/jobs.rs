//! What users do all day.

use crate::harness::{Cluster, Row, finish_with, lives};

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn a_script_runs_and_leaves_output_exit_code_and_history() {
    let cluster = Cluster::start();
    let script = cluster.script(
        "hello.sh",
        "#!/bin/bash\n#SBATCH --job-name=hello\n#SBATCH -c 2\n\
         echo \"$SLURM_JOB_NAME $SLURM_CPUS_PER_TASK $1 $2\"\necho oops >&2\npwd\nexit 3\n",
    );
    let said = cluster.run(&["sbatch", &script, "one", "two words"]);
    let id: u32 = said
        .out
        .strip_prefix("Submitted batch job ")
        .and_then(|rest| rest.trim_end().parse().ok())
        .unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(cluster.outcome(id), ("FAILED".to_owned(), "3:0".to_owned()));
    let text = cluster.text(&format!("slurm-{id}.out"));
    let expected = format!("hello 2 one two words\noops\n{}\n", cluster.work().display());
    assert_eq!(text, expected);
    // Finished jobs stay visible for a while, and every step has its row.
    assert_eq!(
        cluster.ok(&["squeue", "-h", "-t", "all", "-j", &id.to_string(), "-o", "%i %T"]),
        format!("{id} FAILED")
    );
    let steps = cluster.ok(&["sacct", "-n", "-P", "-j", &id.to_string(), "-o", "JobID,ExitCode"]);
    assert!(steps.lines().any(|line| line == format!("{id}.batch|3:0")), "{steps}");
}

#[test]
fn counters_tell_of_jobs_passes_and_calls() {
    let cluster = Cluster::start();
    let good = cluster.submit(&["--wrap=true"]);
    let bad = cluster.submit(&["--wrap=exit 3"]);
    let held = cluster.submit(&["--hold", "--array=1-3", "--wrap=true"]);
    cluster.outcome(good);
    cluster.outcome(bad);
    cluster.ok(&["scancel", &held.to_string()]);
    let said = cluster.ok(&["sdiag"]);
    let count = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("{name} in {said}"))
    };
    assert_eq!([count("Jobs submitted:"), count("Jobs started:")], [5, 2]);
    assert_eq!([count("Jobs completed:"), count("Jobs failed:")], [1, 1]);
    assert_eq!([count("Jobs canceled:"), count("Jobs pending:")], [3, 0]);
    assert!(count("Total cycles:") > 0 && count("Server thread count:") > 0);
    let submits = said.lines().find(|line| line.trim().starts_with("Submit "));
    assert!(submits.is_some_and(|line| line.contains("count:3 ")), "{said}");
    let said = cluster.run(&["muster", "strigger", "--set"]);
    assert!(said.code == 1 && said.err.starts_with("strigger: error: "), "{said:?}");
}

#[test]
fn a_script_may_come_from_stdin_or_from_the_command_line() {
    let cluster = Cluster::start();
    let said = finish_with(
        cluster.command(&["sbatch", "--parsable", "-o", "in.out"]),
        b"#!/bin/sh\necho from stdin\n",
    );
    let piped: u32 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
    let wrapped = cluster.submit(&["-o", "wrap-%j-%x.out", "-J", "w", "--wrap=echo from wrap"]);
    let exported = cluster.submit(&[
        "-o",
        "env.out",
        // Cargo gives this variable to every test, and so to the command.
        "--export=COLOUR=red",
        "--wrap=echo $COLOUR ${CARGO_MANIFEST_DIR:-unset}",
    ]);
    for id in [piped, wrapped, exported] {
        assert_eq!(cluster.outcome(id), ("COMPLETED".to_owned(), "0:0".to_owned()));
    }
    assert_eq!(cluster.text("in.out"), "from stdin\n");
    assert_eq!(cluster.text(&format!("wrap-{wrapped}-w.out")), "from wrap\n");
    assert_eq!(cluster.text("env.out"), "red unset\n");
}

#[test]
fn waiting_submissions_end_with_the_jobs_exit_code() {
    let cluster = Cluster::start();
    let said = cluster.run(&["sbatch", "--wait", "--wrap=exit 5"]);
    assert_eq!(said.code, 5, "{said:?}");
    let said = cluster.run(&["sbatch", "--wait", "--wrap=true"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn an_array_runs_each_of_its_tasks_once_and_never_more_than_its_throttle() {
    let cluster = Cluster::start();
    let array = cluster.submit(&[
        "--array=1-5:2,9%2",
        "-o",
        "a-%A-%a.out",
        "--wrap=echo start >> trace; sleep 0.5; echo end >> trace; \
         echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT; exit $SLURM_ARRAY_TASK_ID",
    ]);
    let rows = cluster.ended(array);
    let expected: Vec<String> = [1, 3, 5, 9].iter().map(|task| format!("{array}_{task}")).collect();
    assert_eq!(ids(&rows), expected);
    for (row, task) in rows.iter().zip([1, 3, 5, 9]) {
        assert_eq!((row.state(), row.exit.as_str()), ("FAILED", format!("{task}:0").as_str()));
        let text = cluster.text(&format!("a-{array}-{task}.out"));
        assert_eq!(text, format!("{array} {task} 4\n"));
    }
    let (mut running, mut most) = (0, 0);
    for line in cluster.text("trace").lines() {
        running += if line == "start" { 1 } else { -1 };
        most = most.max(running);
    }
    assert_eq!((running, most), (0, 2));
}

#[test]
fn dependencies_decide_what_starts_and_when() {
    let cluster = Cluster::start();
    let good = cluster.submit(&["-o", "good.out", "--wrap=sleep 1; echo good > order"]);
    let bad = cluster.submit(&["-o", "bad.out", "--wrap=exit 1"]);
    let on = |kind: &str, job: u32| format!("--dependency={kind}:{job}");
    let after_good =
        cluster.submit(&["-o", "ag.out", &on("afterok", good), "--wrap=echo after >> order"]);
    let never = cluster.submit(&["-o", "nv.out", &on("afterok", bad), "--wrap=true"]);
    let after_bad = cluster.submit(&["-o", "ab.out", &on("afternotok", bad), "--wrap=true"]);
    let anyway = cluster.submit(&["-o", "aw.out", &on("afterany", bad), "--wrap=true"]);
    for id in [after_good, after_bad, anyway] {
        assert_eq!(cluster.outcome(id).0, "COMPLETED");
    }
    assert_eq!(cluster.text("order"), "good\nafter\n");
    let shown = cluster.ok(&["squeue", "-h", "-j", &never.to_string(), "-o", "%T %r"]);
    assert_eq!(shown, "PENDING DependencyNeverSatisfied");
}

#[test]
fn a_gang_gets_all_its_nodes_and_gpus_or_waits() {
    let cluster = Cluster::with(&[
        "--nodes=2",
        "--cpus-per-node=4",
        "--mem-per-node=4G",
        "--gpus-per-node=4",
    ]);
    let one = cluster.submit(&[
        "--gpus=3",
        "-o",
        "one.out",
        "--wrap=echo $CUDA_VISIBLE_DEVICES; sleep 3",
    ]);
    cluster.until(one, "R");
    let gang = cluster.submit(&[
        "-N",
        "2",
        "--gpus-per-node=4",
        "-o",
        "gang.out",
        "--wrap=echo $SLURM_JOB_NODELIST $SLURM_NNODES $CUDA_VISIBLE_DEVICES",
    ]);
    // Beside the first, on the GPU it left free on the same node or on the other node.
    let small = cluster.submit(&[
        "--gpus=1",
        "-w",
        "n1",
        "-o",
        "small.out",
        "--wrap=echo $CUDA_VISIBLE_DEVICES",
    ]);
    assert_eq!(cluster.outcome(gang).0, "COMPLETED");
    assert_eq!(cluster.outcome(small).0, "COMPLETED");
    assert_eq!(cluster.outcome(one).0, "COMPLETED");
    assert_eq!(cluster.text("gang.out"), "n[1-2] 2 0,1,2,3\n");
    assert_eq!(cluster.text("one.out").split(',').count(), 3);
}

#[test]
fn cancelled_jobs_end_and_leave_no_process() {
    let cluster = Cluster::start();
    let running = cluster.submit(&["-o", "r.out", "--wrap=sleep 1000 & echo $! > pid; wait"]);
    let waiting = cluster.submit(&["-o", "w.out", "--hold", "--wrap=echo never"]);
    cluster.until_written("pid", "\n");
    let pid: i32 = cluster.text("pid").trim().parse().unwrap();
    assert!(lives(pid));
    cluster.ok(&["scancel", &running.to_string(), &waiting.to_string()]);
    assert_eq!(cluster.outcome(running).0, "CANCELLED");
    assert_eq!(cluster.outcome(waiting).0, "CANCELLED");
    assert!(!lives(pid), "the job's process {pid} is still there");
    assert!(!cluster.work().join("w.out").exists());
    assert!(
        cluster.text("r.out").contains(&format!("*** JOB {running} ON n")),
        "{}",
        cluster.text("r.out")
    );
}

#[test]
fn held_jobs_wait_until_they_are_released() {
    let cluster = Cluster::start();
    let job = cluster.submit(&["--hold", "-o", "h.out", "--wrap=echo ran"]);
    let id = job.to_string();
    cluster.until(job, "PD");
    assert_eq!(cluster.ok(&["squeue", "-h", "-j", &id, "-o", "%r"]), "JobHeldUser");
    cluster.ok(&["scontrol", "release", &id]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    assert_eq!(cluster.text("h.out"), "ran\n");
}

#[test]
fn a_requeued_job_runs_again_under_its_number() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "--requeue",
        "--open-mode=append",
        "-o",
        "q.out",
        "--wrap=echo try ${SLURM_RESTART_COUNT:-0}; test -n \"$SLURM_RESTART_COUNT\" || sleep 1000",
    ]);
    cluster.until_written("q.out", "try 0");
    cluster.ok(&["scontrol", "requeue", &job.to_string()]);
    assert_eq!(cluster.outcome(job), ("COMPLETED".to_owned(), "0:0".to_owned()));
    let text = cluster.text("q.out");
    assert!(text.starts_with("try 0\n") && text.ends_with("try 1\n"), "{text:?}");
    let all = cluster.rows(&["-D", "-j", &job.to_string()]);
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn a_suspended_job_stands_still_until_it_is_resumed() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-o",
        "s.out",
        "--wrap=for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done",
    ]);
    let id = job.to_string();
    cluster.until_written("s.out", "2\n");
    cluster.ok(&["scontrol", "suspend", &id]);
    cluster.until(job, "S");
    let before = cluster.text("s.out");
    std::thread::sleep(std::time::Duration::from_millis(900));
    let after = cluster.text("s.out");
    assert!(after.len() <= before.len() + 2, "it went on: {before:?} {after:?}");
    cluster.ok(&["scontrol", "resume", &id]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    assert_eq!(cluster.text("s.out"), "1\n2\n3\n4\n5\n6\n");
}

#[test]
fn a_drained_node_finishes_its_job_and_takes_no_other() {
    let cluster = Cluster::start();
    let first = cluster.submit(&["-w", "n1", "-o", "f.out", "--wrap=sleep 1"]);
    cluster.until(first, "R");
    cluster.ok(&["scontrol", "update", "nodename=n1", "state=drain", "reason=fan broken"]);
    let second = cluster.submit(&["-w", "n1", "-o", "s.out", "--wrap=true"]);
    let third = cluster.submit(&["-o", "t.out", "--wrap=echo $SLURMD_NODENAME"]);
    assert_eq!(cluster.outcome(first).0, "COMPLETED");
    assert_eq!(cluster.outcome(third).0, "COMPLETED");
    assert_eq!(cluster.text("t.out"), "n2\n");
    cluster.until(second, "PD");
    assert!(cluster.ok(&["sinfo", "-R"]).contains("fan broken"));
    cluster.ok(&["scontrol", "update", "nodename=n1", "state=resume"]);
    assert_eq!(cluster.outcome(second).0, "COMPLETED");
}

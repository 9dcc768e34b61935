//! Steps: `srun` and its kin, with real processes on every node.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Cluster, STRANGER, finish, finish_with, lives, root, sorted, wait};

#[test]
fn tasks_run_on_every_node_and_each_knows_its_place() {
    let cluster = Cluster::start();
    let out = cluster.batch(
        &["-N2", "--ntasks-per-node=2"],
        "srun bash -c 'echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NODEID $SLURM_GTIDS \
         $SLURMD_NODENAME $SLURM_NTASKS $SLURM_NNODES $SLURM_STEP_ID $SLURM_STEP_NODELIST \
         $SLURM_TASKS_PER_NODE'",
    );
    let expected = [
        "0 0 0 0,1 n1 4 2 0 n[1-2] 2(x2)",
        "1 1 0 0,1 n1 4 2 0 n[1-2] 2(x2)",
        "2 0 1 2,3 n2 4 2 0 n[1-2] 2(x2)",
        "3 1 1 2,3 n2 4 2 0 n[1-2] 2(x2)",
    ];
    assert_eq!(sorted(&out), expected);
    let out = cluster.batch(&["-N2", "-n4"], "srun -m cyclic -l bash -c 'echo $SLURMD_NODENAME'");
    assert_eq!(sorted(&out), ["0: n1", "1: n2", "2: n1", "3: n2"]);
    let out = cluster.batch(
        &["-N2", "-n2"],
        "srun -w n2 -n1 printenv SLURMD_NODENAME\nsrun -r1 -n1 printenv SLURMD_NODENAME\n\
         srun -x n1 -n1 printenv SLURMD_NODENAME\nsrun -N1 -n1 printenv SLURM_STEP_ID",
    );
    assert_eq!(out, "n2\nn2\nn2\n3\n");
}

#[test]
fn ends_of_tasks_are_told_and_the_highest_code_is_sruns() {
    let cluster = Cluster::start();
    let out = cluster.batch(
        &["-N2", "-n4"],
        "srun bash -c 'exit $SLURM_PROCID'; echo code $?\n\
         srun -n1 bash -c 'kill -9 $$'; echo code $?\n\
         srun -n1 nosuchprogram; echo code $?\n\
         srun -n1 /etc/passwd; echo code $?\n\
         srun -n99 true; echo code $?\n\
         srun -n1 -w n9 true; echo code $?\n\
         srun --nosuch true; echo code $?\n\
         srun --x11 true; echo code $?",
    );
    for line in [
        "srun: error: n1: task 1: Exited with exit code 1",
        "srun: error: n2: task 3: Exited with exit code 3",
        "code 3",
        "srun: error: n1: task 0: Killed",
        "code 137",
        "slurmstepd: error: execve(): nosuchprogram: No such file or directory",
        "srun: error: n1: task 0: Exited with exit code 2",
        "slurmstepd: error: execve(): /etc/passwd: Permission denied",
        "code 13",
        "More processors requested than permitted",
        "srun: unrecognized option '--nosuch'",
        "srun: error: --x11 is not supported: X11 is not forwarded",
    ] {
        assert!(out.contains(line), "{line:?} is missing in\n{out}");
    }
    assert_eq!(out.matches("code 255").count(), 2, "{out}");
}

#[test]
fn steps_of_one_job_share_what_it_has_and_the_next_starts_when_one_ends() {
    let cluster = Cluster::start();
    let out = cluster.batch(
        &["-N1", "-n2"],
        // Each step notes how many run beside it.
        "step() { srun -n1 --exact -Q bash -c 'mkdir run.$SLURM_STEP_ID; sleep 0.3; \
         ls -d run.* | wc -l; rmdir run.$SLURM_STEP_ID'; }\n\
         for i in 1 2 3 4 5 6; do step & done; wait\necho all\n\
         srun -n1 -I0 --exact sleep 2 & sleep 0.5; srun -n2 --immediate=0 true; echo code $?\n\
         srun --overlap -n1 echo beside; wait",
    );
    let beside: Vec<u32> = out.lines().filter_map(|l| l.parse().ok()).collect();
    assert_eq!(beside.len(), 6, "{out}");
    assert!(beside.iter().all(|n| (1..=2).contains(n)), "never more than two: {out}");
    assert!(out.contains("Requested nodes are busy") && out.contains("code 1"), "{out}");
    assert!(out.contains("beside"), "{out}");
}

#[test]
fn a_step_that_waits_begins_as_soon_as_there_is_room() {
    let cluster = Cluster::start();
    let out = cluster.batch(
        &["-N1", "-n2"],
        "task='echo from $(date +%s%3N); sleep 1.5; echo to $(date +%s%3N)'\n\
         for i in 1 2 3 4; do srun -n1 --exact -Q bash -c \"$task\" & done; wait",
    );
    let times = |word: &str| -> Vec<i64> {
        let mut all: Vec<i64> =
            out.lines().filter_map(|l| l.strip_prefix(word)?.trim().parse().ok()).collect();
        all.sort_unstable();
        assert_eq!(all.len(), 4, "{out}");
        all
    };
    let (from, to) = (times("from"), times("to"));
    // Milliseconds from the end of one to the beginning of who waited for it.
    let gaps = [from[2] - to[0], from[3] - to[1]];
    println!("gaps of {gaps:?} ms");
    assert!(gaps.iter().all(|gap| (0..1000).contains(gap)), "{gaps:?} ms:\n{out}");
}

#[test]
fn gpus_are_given_to_one_step_at_a_time() {
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4", "--gpus-per-node=4"]);
    let out = cluster.batch(&["-n4", "--gres=gpu:4"],
        "srun -n4 --gpus-per-task=1 bash -c 'echo task $CUDA_VISIBLE_DEVICES' | sort\n\
         srun -n1 --gres=none bash -c 'echo none [$CUDA_VISIBLE_DEVICES]'\n\
         srun -n1 bash -c 'echo all $SLURM_STEP_GPUS $SLURM_GPUS_ON_NODE'\n\
         for i in 1 2; do srun -n1 --exact --gres=gpu:2 bash -c 'sleep 0.5; echo two $SLURM_STEP_GPUS' & done\n\
         wait",
    );
    for line in ["task 0", "task 3", "none []", "all 0,1,2,3 4", "two 0,1", "two 2,3"] {
        assert!(out.lines().any(|l| l == line), "{line:?} is missing in\n{out}");
    }
}

#[test]
fn input_and_output_go_where_they_are_sent() {
    let cluster = Cluster::start();
    cluster.script("mp.conf", "0 echo zero\n1-2 echo other %t %o\n* echo rest %t\n");
    let out = cluster.batch(
        &["-N2", "-n4"],
        "echo all | srun -Q cat\n\
         echo one | srun -Q --input=2 cat\n\
         echo none | srun -Q -i none cat\n\
         srun -Q -o file_%j_%t.txt bash -c 'echo out $SLURM_PROCID; echo err >&2'\n\
         srun -Q -o whole.txt -e whole.err bash -c 'echo out $SLURM_PROCID; echo err >&2'\n\
         srun -Q --multi-prog mp.conf | sort\n\
         srun -Q -n1 -D /tmp --export=ALL,COLOUR=red bash -c 'pwd; echo $COLOUR'\n\
         srun -Q -n1 bash -c 'head -c 3000000 /dev/zero' | wc -c\n\
         head -c 3000000 /dev/zero | srun -Q cat | wc -c",
    );
    let expected = "all\nall\nall\nall\none\nother 1 0\nother 2 1\nrest 3\nzero\n/tmp\nred\n\
                    3000000\n12000000\n";
    assert_eq!(out, expected);
    let job = cluster.ok(&["sacct", "-X", "-n", "-P", "-o", "JobID"]);
    for task in 0..4 {
        let text = cluster.text(&format!("file_{job}_{task}.txt"));
        assert_eq!(text, format!("out {task}\nerr\n"));
    }
    assert_eq!(sorted(&cluster.text("whole.txt")), ["out 0", "out 1", "out 2", "out 3"]);
    assert_eq!(cluster.text("whole.err").lines().count(), 4);
}

#[test]
fn a_bad_end_or_a_late_one_ends_the_others() {
    let cluster = Cluster::start();
    let out = cluster.batch(
        &["-N2", "-n2"],
        "srun -K bash -c '[ $SLURM_PROCID = 0 ] && exit 4; exec sleep 300'; echo killed $?\n\
         srun -W1 bash -c '[ $SLURM_PROCID = 0 ] && exit 0; exec sleep 300'; echo late $?\n\
         srun -t 0:01 sleep 300; echo limit $?\n\
         srun -n1 bash -c 'sleep 300 & echo started'; echo left $?",
    );
    for line in ["killed 143", "late 143", "limit 143", "started", "left 0"] {
        assert!(out.lines().any(|l| l == line), "{line:?} is missing in\n{out}");
    }
    assert!(out.contains("First task exited 1s ago"), "{out}");
    let told = |step: u32, why: &str| {
        let begin = format!("slurmstepd: error: *** STEP 1.{step} ON n1 CANCELLED AT 2");
        let end = format!("{why} ***");
        out.lines().any(|line| line.starts_with(&begin) && line.ends_with(&end))
    };
    assert!(told(2, " DUE TO TIME LIMIT"), "{out}");
}

#[test]
fn srun_by_itself_makes_an_allocation_and_salloc_lends_one() {
    let cluster = Cluster::start();
    let said =
        cluster.run(&["srun", "-N2", "-J", "alone", "bash", "-c", "echo $SLURMD_NODENAME; exit 6"]);
    assert_eq!((said.code, sorted(&said.out)), (6, vec!["n1", "n2"]), "{said:?}");
    let rows = cluster.ended(1);
    assert_eq!((rows[0].state(), rows[0].exit.as_str()), ("FAILED", "6:0"));
    let said = cluster.run(&[
        "salloc",
        "-N2",
        "-n3",
        "bash",
        "-c",
        "echo $SLURM_JOB_ID $SLURM_NTASKS $SLURM_JOB_NODELIST; srun -l echo hi | sort; exit 4",
    ]);
    assert_eq!(said.code, 4, "{said:?}");
    assert_eq!(said.out, "2 3 n[1-2]\n0: hi\n1: hi\n2: hi\n");
    assert!(said.err.contains("salloc: Granted job allocation 2\n"), "{said:?}");
    assert!(said.err.contains("salloc: Relinquishing job allocation 2\n"), "{said:?}");
    cluster.ended(2);
    let said = cluster.run(&["salloc", "-N9", "true"]);
    assert!(
        said.code == 1 && said.err.contains("salloc: error: Job submit/allocate failed: "),
        "{said:?}"
    );
    // What cannot start at once is taken back.
    let holds = cluster.submit(&["-N2", "--exclusive", "--wrap=sleep 300"]);
    cluster.until(holds, "R");
    let said = cluster.run(&["srun", "--immediate=1", "-N2", "true"]);
    assert!(said.code != 0 && said.err.contains("Requested nodes are busy"), "{said:?}");
    assert_eq!(cluster.ok(&["squeue", "-h", "-o", "%i"]), holds.to_string());
}

#[test]
fn a_step_joins_a_running_job_by_its_number_and_others_may_not() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2",
        "-n2",
        "-o",
        "job.out",
        "--wrap=srun bash -c 'echo ready; sleep 300'",
    ]);
    cluster.until_written("job.out", "ready");
    let id = format!("--jobid={job}");
    let said = cluster.run(&[
        "srun",
        &id,
        "--overlap",
        "-Q",
        "-n1",
        "printenv",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
    ]);
    assert_eq!((said.code, said.out.as_str()), (0, format!("{job}\n1\n").as_str()), "{said:?}");
    if root("another user's srun") {
        let said = cluster.run_as(STRANGER, &["srun", &id, "--overlap", "-n1", "id"]);
        assert!(said.code != 0 && said.out.is_empty(), "{said:?}");
        assert!(said.err.contains("Access/permission denied"), "{said:?}");
    }
    let said = cluster.run(&["srun", "--jobid=999", "true"]);
    assert!(said.code == 1 && said.err.contains("Invalid job id specified"), "{said:?}");
    cluster.ok(&["scancel", &job.to_string()]);
    cluster.ended(job);
    let said = cluster.run(&["srun", &id, "true"]);
    assert!(said.code == 1 && said.err.contains("already completing or completed"), "{said:?}");
}

#[test]
fn a_task_of_an_array_is_entered_and_looked_at_by_its_index() {
    let cluster = Cluster::start();
    let text = "srun bash -c 'touch up.$SLURM_ARRAY_TASK_ID; sleep 300'";
    let array = cluster.submit(&["--array=3,7%1", "-o", "array.out", "--wrap", text]);
    let (runs, waits) = (format!("{array}_3"), format!("{array}_7"));
    wait("the step", || cluster.work().join("up.3").exists());
    let jobid = |of: &str| format!("--jobid={of}");
    let show = ["--overlap", "printenv", "SLURM_ARRAY_TASK_ID"];
    let said = cluster.run(&[&["srun", &jobid(&runs)], &show[..]].concat());
    assert_eq!((said.code, said.out.as_str()), (0, "3\n"), "{said:?}");
    let said = cluster.run(&["muster", "ssh", &runs, "echo $SLURM_ARRAY_TASK_ID"]);
    assert_eq!((said.code, said.out.as_str()), (0, "3\n"), "{said:?}");
    let layout = cluster.ok(&["sattach", "--layout", &format!("{runs}.0")]);
    assert!(layout.contains("1 tasks, 1 nodes"), "{layout}");
    for (name, why) in [
        (&waits, "Job is pending execution"),
        (&format!("{array}_4"), "Invalid job id specified"),
        (&format!("{array}_[3,7]"), "Invalid job id specified"),
    ] {
        let said = cluster.run(&["srun", &jobid(name), "true"]);
        assert!(said.code == 1 && said.err.contains(why), "{name}: {said:?}");
    }
    cluster.ok(&["scancel", &format!("{runs}.0")]);
    cluster.ok(&["scancel", &array.to_string()]);
    cluster.ended(array);
}

#[test]
fn a_users_tasks_are_the_users_and_nothing_more() {
    if !root("jobs of another user") {
        return;
    }
    let cluster = Cluster::start();
    let said = cluster.run_as(STRANGER, &["srun", "-N2", "bash", "-c", "id -u; id -g; id -G; grep CapEff /proc/self/status; sleep 0.2; ls /proc/self/fd | wc -l"]);
    assert_eq!(said.code, 0, "{said:?}");
    let ids = said.out.lines().filter(|l| *l == STRANGER.to_string()).count();
    assert_eq!(ids, 6, "uid, gid and groups on two nodes: {said:?}");
    assert_eq!(said.out.matches("0000000000000000").count(), 2, "no capability: {said:?}");
    // Three files, and the one that ls itself reads the list by.
    assert_eq!(said.out.lines().filter(|l| *l == "4").count(), 2, "{said:?}");
}

#[test]
fn signals_reach_the_tasks_and_two_interrupts_end_them() {
    let cluster = Cluster::start();
    let mut command = cluster.command(&[
        "srun",
        "-N2",
        "bash",
        "-c",
        "trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.1; done",
    ]);
    let child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(cluster.work().join("sig.out")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    wait("both tasks", || cluster.text("sig.out").matches("ready").count() == 2);
    kill(pid, Signal::SIGINT).unwrap();
    kill(pid, Signal::SIGUSR1).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(5));
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(err.contains("srun: interrupt (one more within 1 sec to abort)"), "{err}");
    assert_eq!(cluster.text("sig.out").matches("usr").count(), 2);
    let mut command = cluster.command(&["srun", "bash", "-c", "echo ready; exec sleep 300"]);
    let child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(cluster.work().join("two.out")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    cluster.until_written("two.out", "ready");
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    kill(pid, Signal::SIGINT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{out:?}");
    wait("an empty queue", || cluster.ok(&["squeue", "-h"]).is_empty());
}

#[test]
fn a_terminal_has_its_size_and_its_end() {
    let cluster = Cluster::start();
    let line =
        "stty rows 33 cols 77; srun --pty bash -c 'tty; stty size; echo $SLURM_JOB_NAME; exit 3'";
    let mut command = Command::new("script");
    command
        .args(["-qec", line, "/dev/null"])
        .current_dir(cluster.work())
        .env("MUSTER_CONF", cluster.dir().join("muster.toml"))
        .env("PATH", format!("{}:/usr/bin:/bin", cluster.dir().join("bin").display()));
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no script(1) to make a terminal");
        return;
    }
    let said = finish(command);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.out.contains("/dev/pts/") && said.out.contains("33 77") && said.out.contains("bash"),
        "{said:?}"
    );
}

#[test]
fn files_are_broadcast_and_running_steps_are_looked_at() {
    let cluster = Cluster::start();
    fs::write(cluster.work().join("source"), "x".repeat(300_000)).unwrap();
    let out = cluster.batch(
        &["-N2", "-n2"],
        // By force: two nodes of one host have one folder, where the later finds the earlier's file.
        "chmod 750 source\nsbcast -f source copy.$SLURM_JOB_ID; echo $?\n\
         cmp source copy.$SLURM_JOB_ID && stat -c %a copy.$SLURM_JOB_ID\n\
         sbcast source copy.$SLURM_JOB_ID; echo $?\nsbcast -f source copy.$SLURM_JOB_ID; echo $?",
    );
    assert!(
        out.starts_with("0\n750\n") && out.contains("File exists") && out.ends_with("0\n"),
        "{out}"
    );
    let job = cluster.submit(&[
        "-N2", "-n2", "-o", "look.out",
        "--wrap=srun bash -c 'echo ready; while [ ! -e go ]; do sleep 0.1; done; echo seen $SLURM_PROCID; exit 2'",
    ]);
    wait("both tasks", || cluster.text("look.out").matches("ready").count() == 2);
    let child = cluster
        .command(&["sattach", "-l", &format!("{job}.0")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.script("go", "");
    let out = child.wait_with_output().unwrap();
    assert_eq!(sorted(&String::from_utf8_lossy(&out.stdout)), ["0: seen 0", "1: seen 1"]);
    assert_eq!(out.status.code(), Some(2));
    cluster.ended(job);
}

#[test]
fn a_step_outlives_its_agents_and_loses_nothing() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2", "-n2", "-o", "crash.out",
        "--wrap=srun bash -c 'for i in $(seq 40); do echo line $SLURM_PROCID $i; sleep 0.1; done; exit 3'; echo code $?",
    ]);
    cluster.until_written("crash.out", "line 1 5");
    cluster.crash("n1");
    cluster.crash("n2");
    cluster.up(&[]);
    cluster.until_written("crash.out", "code");
    let text = cluster.text("crash.out");
    for task in 0..2 {
        let lines: Vec<&str> =
            text.lines().filter(|l| l.starts_with(&format!("line {task} "))).collect();
        let expected: Vec<String> = (1..=40).map(|i| format!("line {task} {i}")).collect();
        assert_eq!(lines, expected, "every line of task {task} once and in order");
    }
    assert!(text.contains("code 3"), "{text}");
    cluster.ended(job);
}

#[test]
fn a_job_that_ends_takes_its_steps_along() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2",
        "-n2",
        "-o",
        "end.out",
        "--wrap=srun bash -c 'echo pid $$; trap : TERM; while :; do sleep 0.1; done'",
    ]);
    wait("both tasks", || cluster.text("end.out").matches("pid").count() == 2);
    let pids: Vec<i32> = cluster
        .text("end.out")
        .lines()
        .filter_map(|l| l.strip_prefix("pid ")?.parse().ok())
        .collect();
    assert!(pids.iter().all(|pid| lives(*pid)), "tasks of two nodes of this host");
    cluster.ok(&["scancel", "-s", "KILL", "-f", &job.to_string()]);
    cluster.ok(&["scancel", &job.to_string()]);
    cluster.ended(job);
    wait("the end of the tasks", || !pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_reader_that_leaves_ends_the_step() {
    let cluster = Cluster::start();
    let out = cluster.batch(&["-N1"], "srun yes 2>/dev/null | head -n 2; echo over");
    assert_eq!(out, "y\ny\nover\n");
    let said = finish_with(cluster.command(&["srun", "-Q", "cat"]), b"typed\n");
    assert_eq!((said.code, said.out.as_str()), (0, "typed\n"), "{said:?}");
}

#[test]
fn listings_show_steps_while_they_run_and_afterwards() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2", "-n2", "-o", "list.out",
        "--wrap=srun -J first bash -c 'echo ready; while [ ! -e go ]; do sleep 0.1; done'; srun -n1 -J second bash -c 'exit 3'; true",
    ]);
    wait("both tasks", || cluster.text("list.out").matches("ready").count() == 2);
    let queue = || cluster.ok(&["squeue", "-s", "-h", "-j", &job.to_string(), "-o", "%i %j %N %A"]);
    let expected =
        format!("{job}.0 first n[1-2] 2\n{job}.batch batch n1 1\n{job}.extern extern n[1-2] 2");
    wait("the step in squeue -s", || queue() == expected);
    let step = cluster.ok(&["scontrol", "-o", "show", "step", &job.to_string()]);
    assert!(
        step.contains(&format!("StepId={job}.0 ")) && step.contains("Tasks=2 Name=first"),
        "{step}"
    );
    cluster.script("go", "");
    cluster.ended(job);
    let rows = cluster.ok(&[
        "sacct",
        "-n",
        "-P",
        "-j",
        &job.to_string(),
        "-o",
        "JobID,JobName,State,ExitCode,NNodes",
    ]);
    for row in ["0|first|COMPLETED|0:0|2", "1|second|FAILED|3:0|1"] {
        assert!(rows.lines().any(|l| l == format!("{job}.{row}")), "{row} is missing in\n{rows}");
    }
}

#[test]
fn a_step_is_cancelled_alone() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2", "-n2", "-o", "cancel.out",
        "--wrap=srun bash -c 'echo ready; exec sleep 300'; echo code $?; \
         srun bash -c 'trap \"echo usr; exit 4\" USR1; echo again; while :; do sleep 0.1; done'; echo code $?",
    ]);
    wait("both tasks", || cluster.text("cancel.out").matches("ready").count() == 2);
    cluster.ok(&["scancel", &format!("{job}.0")]);
    wait("the second step", || cluster.text("cancel.out").matches("again").count() == 2);
    cluster.ok(&["scancel", "-s", "USR1", &format!("{job}.1")]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    let text = cluster.text("cancel.out");
    assert!(text.contains("code 143") && text.contains("code 4"), "{text}");
    let said = cluster.run(&["scancel", &format!("{job}.7")]);
    assert_ne!(said.code, 0, "{said:?}");
}

#[test]
fn a_step_whose_shim_is_killed_is_told_and_its_tasks_go() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2",
        "-n2",
        "-o",
        "shim.out",
        "--wrap=srun bash -c 'echo shim $PPID task $$; exec sleep 300'; echo code $?; \
         until [ -e go ]; do sleep 0.1; done",
    ]);
    wait("both tasks", || cluster.text("shim.out").matches("shim").count() == 2);
    let text = cluster.text("shim.out");
    let numbers =
        |line: &str| -> Vec<i32> { line.split(' ').filter_map(|word| word.parse().ok()).collect() };
    let all: Vec<Vec<i32>> = text.lines().map(numbers).collect();
    kill(Pid::from_raw(all[0][0]), Signal::SIGKILL).unwrap();
    cluster.until_written("shim.out", "code");
    let text = cluster.text("shim.out");
    assert!(text.contains("does not run on n") && !text.contains("code 0"), "{text}");
    let gone = || !all.iter().any(|pair| lives(pair[1]));
    if root("control groups of steps") {
        // While the job goes on: what they held is free for the next step.
        wait("the end of the tasks", gone);
    }
    cluster.script("go", "");
    cluster.ended(job);
    wait("the end of the tasks", gone);
}

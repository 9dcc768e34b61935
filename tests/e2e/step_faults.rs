//! Steps in a world that fails: daemons that die, output that nobody reads, wishes that cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Cluster, STRANGER, Said, finish, lives, processes_of, root, wait, wait_or};

/// A batch job's script; its number.
#[track_caller]
fn batch(cluster: &Cluster, options: &[&str], text: &str) -> u32 {
    let file = cluster.script("faults.sh", &format!("#!/bin/bash\n{text}\n"));
    let mut words = options.to_vec();
    words.extend(["-o", "faults.out", &file]);
    cluster.submit(&words)
}

#[track_caller]
fn step_row(cluster: &Cluster, step: &str) -> String {
    let job = step.split('.').next().unwrap();
    let rows = cluster.ok(&["sacct", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode"]);
    let found = rows.lines().find_map(|row| row.strip_prefix(&format!("{step}|")));
    found.unwrap_or_else(|| panic!("step {step} has no row in\n{rows}")).to_owned()
}

#[test]
fn a_step_outlives_the_controller() {
    let cluster = Cluster::start();
    let task = "for i in $(seq 30); do echo line $SLURM_PROCID $i; sleep 0.1; done; exit 3";
    let job = batch(&cluster, &["-N2", "-n2"], &format!("srun bash -c '{task}'; echo code $?"));
    cluster.until_written("faults.out", "line 1 5");
    // Another one that has no job around it: its allocation ends with its code all the same.
    let alone = cluster
        .command(&[
            "srun",
            "-N1",
            "bash",
            "-c",
            "echo up; while [ ! -e go ]; do sleep 0.1; done; exit 9",
        ])
        .stdin(Stdio::null())
        .stdout(fs::File::create(cluster.work().join("alone.out")).unwrap())
        .spawn()
        .unwrap();
    cluster.until_written("alone.out", "up");
    cluster.crash("controller");
    fs::write(cluster.work().join("go"), "").unwrap();
    let out = alone.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(9), "srun needs no controller to end");
    cluster.until_written("faults.out", "code");
    cluster.up(&[]);
    let text = cluster.text("faults.out");
    for task in 0..2 {
        let lines: Vec<&str> =
            text.lines().filter(|l| l.starts_with(&format!("line {task} "))).collect();
        assert_eq!(lines.len(), 30, "every line of task {task} once:\n{text}");
    }
    assert!(text.contains("code 3"), "{text}");
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    let rows = cluster.ended(job + 1);
    assert_eq!((rows[0].state(), rows[0].exit.as_str()), ("FAILED", "9:0"));
    assert_eq!(step_row(&cluster, &format!("{job}.0")), "FAILED|3:0");
    assert_eq!(step_row(&cluster, &format!("{}.0", job + 1)), "FAILED|9:0");
}

#[test]
fn the_step_of_an_srun_that_was_killed_ends_and_its_row_says_what_it_used() {
    let cluster = Cluster::start();
    let burn = "echo $$ >> pids\ntimeout 1 sh -c 'while :; do :; done'\nexec sleep 300";
    cluster.script("burn.sh", &format!("#!/bin/bash\n{burn}\n"));
    let text = "srun --exact -N1 -n1 bash burn.sh & one=$!\n\
                srun --exact -N2 -n2 bash burn.sh & two=$!\n\
                sleep 5; kill -9 $one $two; while [ ! -e go ]; do sleep 0.2; done";
    let job = batch(&cluster, &["-N2", "--ntasks-per-node=2"], text);
    wait("three tasks", || cluster.text("pids").lines().count() == 3);
    let pids: Vec<i32> = cluster.text("pids").lines().map(|pid| pid.parse().unwrap()).collect();
    wait("their end", || !pids.iter().any(|pid| lives(*pid)));
    let row = |step: u32| {
        let id = format!("{job}.{step}");
        let words = ["sacct", "-n", "-P", "-j", &id, "-o", "State,ExitCode,NTasks,TotalCPU"];
        cluster.ok(&words)
    };
    for step in 0..2 {
        wait_or("its row", || row(step), || row(step).starts_with("CANCELLED"));
    }
    let rows = [row(0), row(1)];
    fs::write(cluster.work().join("go"), "").unwrap();
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    let mut cpu = Vec::new();
    for row in &rows {
        let fields: Vec<&str> = row.split('|').collect();
        assert_eq!(fields[1], "0:15", "{rows:?}");
        let seconds = fields[3].rsplit(':').next().and_then(|s| s.parse::<f64>().ok());
        cpu.push((fields[2].to_owned(), seconds.unwrap_or_default()));
    }
    cpu.sort_by(|a, b| a.0.cmp(&b.0));
    println!("CPU seconds by tasks: {cpu:?}");
    // Both tasks of the wide one count, on whichever node they were.
    assert!(cpu[0].0 == "1" && cpu[0].1 > 0.1, "{rows:?}");
    assert!(cpu[1].0 == "2" && cpu[1].1 > 0.2, "{rows:?}");
    assert_eq!([row(0), row(1)], rows, "as in the history");
}

#[test]
fn a_step_that_is_stopped_says_why_as_its_job_does() {
    let cluster = Cluster::start();
    let text = "[ ${SLURM_RESTART_COUNT:-0} = 0 ] || exec echo again\n\
                srun bash -c 'echo ready; exec sleep 300'";
    let begin = |out: &str, more: &[&str]| {
        let file = cluster.script("why.sh", &format!("#!/bin/bash\n{text}\n"));
        let shape = ["-N2", "-n2", "--requeue", "--open-mode=append", "-o", out];
        let job = cluster.submit(&[&shape[..], more, &[&file]].concat());
        wait("both tasks", || cluster.text(out).matches("ready").count() == 2);
        job
    };
    let told = |out: &str, what: &str, why: &str| {
        let (begin, end) = (format!("slurmstepd: error: *** {what} ON n1 CANCELLED AT 2"), why);
        let is = |line: &&str| line.starts_with(&begin) && line.ends_with(&format!("{end} ***"));
        let text = cluster.text(out);
        assert_eq!(text.lines().filter(is).count(), 1, "{what}{why}:\n{text}");
    };
    let job = begin("requeue.out", &[]);
    cluster.ok(&["scontrol", "requeue", &job.to_string()]);
    cluster.until_written("requeue.out", "again");
    told("requeue.out", &format!("STEP {job}.0"), " DUE TO JOB REQUEUE");
    told("requeue.out", &format!("JOB {job}"), " DUE TO JOB REQUEUE");
    cluster.ended(job);

    let job = begin("lost.out", &["--no-requeue"]);
    cluster.ok(&["scontrol", "update", "nodename=n2", "state=down", "reason=gone"]);
    let why = " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS";
    assert_eq!(cluster.outcome(job).0, "NODE_FAIL");
    told("lost.out", &format!("STEP {job}.0"), why);
    told("lost.out", &format!("JOB {job}"), why);
    cluster.ok(&["scontrol", "update", "nodename=n2", "state=resume"]);

    let job = begin("cancel.out", &[]);
    cluster.ok(&["scancel", &job.to_string()]);
    assert_eq!(cluster.outcome(job).0, "CANCELLED");
    let text = cluster.text("cancel.out");
    assert!(text.contains(&format!("*** STEP {job}.0 ON n1 CANCELLED AT 2")), "{text}");
    assert!(!text.contains("DUE TO"), "nobody's fault but the user's: {text}");
}

/// The log's length, as a controller says when it reads it back.
fn log_length(cluster: &Cluster) -> u64 {
    let log = cluster.log("controller");
    let line = log.lines().rev().find(|line| line.contains("state recovered"));
    let word = line.and_then(|line| line.split_whitespace().find_map(|w| w.strip_prefix("index=")));
    word.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no length in\n{log}"))
}

#[test]
fn steps_cost_the_controllers_log_nothing() {
    let cluster = Cluster::start();
    let length = |steps: u32| {
        let text = format!("for i in $(seq {steps}); do srun -Q -n1 true || exit 1; done");
        let job = batch(&cluster, &["-N1", "-n1"], &text);
        assert_eq!(cluster.outcome(job).0, "COMPLETED");
        assert!(step_row(&cluster, &format!("{job}.{}", steps - 1)).starts_with("COMPLETED"));
        cluster.crash("controller");
        cluster.up(&[]);
        log_length(&cluster)
    };
    let (first, one, many) = (length(1), length(1), length(60));
    // A commit more or less: reports of agents share them as it comes.
    assert!(many - one <= one - first + 8, "1 step: {first} to {one}, 60 steps: {one} to {many}");
}

/// Resident memory, KiB.
fn resident(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// What a process of the cluster is: srun, the agent, a shim; what else there is is not ours.
fn role(pid: Pid) -> Option<&'static str> {
    let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&str> = text.split('\0').collect();
    match words.first().map(|first| first.rsplit('/').next().unwrap_or_default()) {
        Some("srun") => Some("srun"),
        _ if words.get(1) == Some(&"agent") => Some("agent"),
        _ if words.get(1) == Some(&"shim") => Some("shim"),
        _ => None,
    }
}

#[test]
fn much_output_passes_without_growth() {
    let cluster = Cluster::start();
    // A reader that sleeps first: what is under way must stay within the windows.
    let text = "srun -N1 -n1 bash -c 'head -c 300000000 /dev/zero' | (sleep 2; wc -c); echo over";
    let job = batch(&cluster, &["-N1"], text);
    let mut peaks: BTreeMap<&str, u64> = BTreeMap::new();
    wait_or(
        "all of the output",
        || cluster.text("faults.out"),
        || {
            for pid in processes_of(cluster.dir().parent().unwrap()) {
                if let Some(role) = role(pid) {
                    let peak = peaks.entry(role).or_default();
                    *peak = resident(pid).max(*peak);
                }
            }
            cluster.text("faults.out").contains("over")
        },
    );
    assert!(
        cluster.text("faults.out").starts_with("300000000\n"),
        "{}",
        cluster.text("faults.out")
    );
    assert_eq!(peaks.len(), 3, "seen: {peaks:?}");
    for (role, peak) in peaks {
        assert!(peak < 100_000, "{role} grew to {peak} KiB");
    }
    cluster.ended(job);
}

#[test]
fn steps_that_want_the_same_gpus_take_turns_or_are_refused() {
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4", "--gpus-per-node=2"]);
    let task = "echo gpus $CUDA_VISIBLE_DEVICES; mkdir here.$SLURM_STEP_ID; ls -d here.* | wc -l; \
                sleep 0.5; rmdir here.$SLURM_STEP_ID";
    let both = "srun -n1 --exact --gres=gpu:2";
    let text = format!(
        "{both} bash -c '{task}' & sleep 0.2\n{both} --immediate=0 true; echo refused $?\n\
         {both} bash -c '{task}'; wait; echo over"
    );
    let job = batch(&cluster, &["-n2", "--gres=gpu:2"], &text);
    cluster.ended(job);
    let out = cluster.text("faults.out");
    assert_eq!(out.matches("gpus 0,1").count(), 2, "{out}");
    assert_eq!(out.lines().filter(|line| *line == "1").count(), 2, "never both at once: {out}");
    assert!(out.contains("refused 1") && out.contains("Requested nodes are busy"), "{out}");
    assert!(out.contains("step creation temporarily disabled, retrying"), "{out}");
}

#[test]
fn wishes_that_cannot_be_are_refused_in_slurms_words() {
    let cluster = Cluster::with(&["--nodes=3", "--cpus-per-node=2"]);
    let text = "srun -n99 true; echo code $?\nsrun -N5 -n5 true; echo code $?\n\
                srun -w n9 true; echo code $?\nsrun -w n3 true; echo code $?\n\
                srun --gres=gpu:1 true; echo code $?\nsrun --mem=64G true; echo code $?\n\
                srun -c99 true; echo code $?\nsrun; echo code $?\n\
                srun ./there; echo code $?\nsrun ./nothere; echo code $?\n\
                srun -n2 -o nowhere/out sleep 60; echo code $?";
    cluster.script("there", "not executable");
    let job = batch(&cluster, &["-N2", "-w", "n[1-2]", "-n2"], text);
    cluster.ended(job);
    let out = cluster.text("faults.out");
    let create = format!("srun: error: Unable to create step for job {job}: ");
    let nowhere = cluster.work().join("nowhere/out").display().to_string();
    let mut rest = out.as_str();
    for (said, code) in [
        (format!("{create}More processors requested than permitted"), 1),
        (format!("{create}Invalid node count specified"), 1),
        (format!("{create}Invalid node name specified"), 1),
        (format!("{create}Requested node configuration is not available"), 1),
        (format!("{create}Invalid generic resource (gres) specification"), 1),
        (format!("{create}Memory required by task is not available"), 1),
        (format!("{create}More processors requested than permitted"), 1),
        ("No command given to execute.".to_owned(), 1),
        ("slurmstepd: error: execve(): ./there: Permission denied".to_owned(), 13),
        ("slurmstepd: error: execve(): ./nothere: No such file or directory".to_owned(), 2),
        (format!("srun: error: Could not open file {nowhere}: No such file or directory"), 143),
    ] {
        let end = format!("code {code}\n");
        let Some((part, after)) = rest.split_once("\ncode ") else { panic!("{said}:\n{out}") };
        assert!(part.contains(&said), "{said:?} is missing in\n{part}\nof\n{out}");
        assert!(format!("code {after}").starts_with(&end), "{said}: not {end:?} but {after:?}");
        rest = after.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

#[test]
fn a_command_that_cannot_be_run_is_named_with_the_code_of_who_tried() {
    let cluster = Cluster::start();
    cluster.script("there", "not executable");
    // A shell's codes are the script's own; srun's are the system's numbers, as Slurm's.
    for (command, code, said) in [
        ("./nothere", "127:0", "not found"),
        ("./there", "126:0", "Permission denied"),
        ("srun ./nothere", "2:0", "execve(): ./nothere: No such file or directory"),
        ("srun ./there", "13:0", "execve(): ./there: Permission denied"),
        ("srun sh -c ./nothere", "127:0", "Exited with exit code 127"),
    ] {
        let job = cluster.submit(&["-o", "run.out", "--wrap", command]);
        let (state, exit) = cluster.outcome(job);
        assert_eq!((state.as_str(), exit.as_str()), ("FAILED", code), "{command}");
        let text = cluster.text("run.out");
        assert!(text.contains(said), "{command}: {text}");
    }
}

#[test]
fn jobs_that_are_not_there_or_not_ones_own_are_refused_by_each_way_into_them() {
    let cluster = Cluster::start();
    cluster.script("file", "some text");
    let ways = |job: &str| -> Vec<Vec<String>> {
        let lines = [
            format!("srun --jobid={job} --overlap id"),
            format!("sattach {job}.0"),
            format!("sbcast -j {job} /etc/hostname /tmp/nobody-writes-this"),
            format!("muster ssh {job} id"),
            format!("scancel {job}.0"),
        ];
        lines.map(|line| line.split(' ').map(str::to_owned).collect()).to_vec()
    };
    #[track_caller]
    fn check(said: &Said, words: &[&str], why: &str) {
        assert!(said.code == 1 && said.out.is_empty(), "{words:?}: {said:?}");
        assert!(said.err.contains(why), "{words:?}: {why:?} is not in {said:?}");
    }
    for line in ways("4711") {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        check(&cluster.run(&words), &words, "Invalid job id specified");
    }
    let job = batch(&cluster, &["-n1"], "srun bash -c 'echo up; exec sleep 300'");
    cluster.until_written("faults.out", "up");
    if root("another user's commands") {
        for line in ways(&job.to_string()) {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let said = cluster.run_as(STRANGER, &words);
            check(&said, &words, "Access/permission denied");
        }
    }
    let queue = || cluster.ok(&["squeue", "-s", "-h", "-o", "%i"]);
    let goes_on = || queue().lines().any(|step| step == format!("{job}.0"));
    wait_or("the step, which goes on", queue, goes_on);
    cluster.ok(&["scancel", &job.to_string()]);
    cluster.ended(job);
    for line in ways(&job.to_string()) {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        check(&cluster.run(&words), &words, "already completing or completed");
    }
}

#[test]
fn a_terminal_that_is_closed_ends_the_step() {
    let cluster = Cluster::start();
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no script(1) to make a terminal");
        return;
    }
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", "srun --pty bash -c 'echo $$ > pid; sleep 300'", "/dev/null"])
        .current_dir(cluster.work())
        .env("MUSTER_CONF", cluster.dir().join("muster.toml"))
        .env("PATH", format!("{}:/usr/bin:/bin", cluster.dir().join("bin").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut terminal = terminal.spawn().unwrap();
    wait("the task", || cluster.text("pid").trim().parse::<i32>().is_ok());
    let task: i32 = cluster.text("pid").trim().parse().unwrap();
    assert!(lives(task));
    kill(Pid::from_raw(terminal.id().cast_signed()), Signal::SIGKILL).unwrap();
    terminal.wait().unwrap();
    wait("the end of the task", || !lives(task));
    wait("an empty queue", || cluster.ok(&["squeue", "-h"]).is_empty());
    let said = finish(cluster.command(&["srun", "-n1", "true"]));
    assert_eq!(said.code, 0, "{said:?}");
}

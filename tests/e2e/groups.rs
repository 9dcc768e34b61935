//! Steps apart: what each is held to, what it used, what reaches it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{Cluster, finish, finish_with, lives, root, wait, wait_or};

/// Runs a batch script, and returns its number and what it wrote.
#[track_caller]
fn script(cluster: &Cluster, options: &[&str], text: &str) -> (u32, String) {
    let file = cluster.script("groups.sh", &format!("#!/bin/bash\n{text}\n"));
    let mut words = options.to_vec();
    words.extend(["-o", "groups.out", &file]);
    let job = cluster.submit(&words);
    cluster.ended(job);
    (job, cluster.text("groups.out"))
}

/// Columns of `sacct` for one step of a job.
fn accounted(cluster: &Cluster, id: &str, columns: &str) -> String {
    cluster.ok(&["sacct", "-n", "-P", "-j", id, "-o", columns])
}

/// `0:01.250` and its longer forms, in milliseconds.
fn milliseconds(time: &str) -> u64 {
    let (whole, rest) = time.split_once('.').unwrap_or((time, "0"));
    let seconds = whole.split([':', '-']).fold(0, |sum, n| sum * 60 + n.parse::<u64>().unwrap());
    seconds * 1000 + format!("{rest:0<3}")[..3].parse::<u64>().unwrap()
}

/// Where the control groups of a process are, by its /proc/self/cgroup.
fn folders(text: &str) -> Vec<PathBuf> {
    let folder = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let root = Path::new("/sys/fs/cgroup");
        let mount = match controllers {
            "" if root.join("unified").is_dir() => root.join("unified"),
            "" => root.to_owned(),
            names => root.join(names.split(',').next()?),
        };
        Some(mount.join(path.trim_start_matches('/')))
    };
    text.lines().filter_map(folder).filter(|f| f.ends_with("step_0")).collect()
}

#[test]
fn a_step_opens_the_gpus_that_it_was_given_and_leaves_nothing_behind() {
    if !root("device files") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4", "--gpus-per-node=4"]);
    let shown = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    if shown.contains("devices:") {
        println!("skipped: this machine cannot withhold devices: {shown}");
        return;
    }
    for minor in 0..3 {
        let mode = Mode::from_bits_truncate(0o666);
        let path = cluster.work().join(format!("gpu{minor}"));
        mknod(&path, SFlag::S_IFCHR, mode, makedev(195, minor)).unwrap();
    }
    let open =
        "for g in 0 1 2; do (: <gpu$g) 2>&1 | sed \"s/.*gpu$g: /$SLURM_STEP_ID: $g /\"; done";
    let (_, text) = script(
        &cluster,
        &["-n2", "--gres=gpu:2"],
        &format!(
            "export SLURM_STEP_ID=batch\n{open}\n\
             srun -n1 --gres=gpu:1 bash -c 'cat /proc/self/cgroup > where; \
             echo see $SLURM_STEP_GPUS $CUDA_VISIBLE_DEVICES; {open}'\n\
             srun -n1 --exact --gres=gpu:1 bash -c 'touch held; until [ -e go ]; do sleep 0.1; done' &\n\
             until [ -e held ]; do sleep 0.1; done\n\
             srun -n1 --exact --gres=gpu:1 bash -c 'echo see $SLURM_STEP_GPUS $CUDA_VISIBLE_DEVICES; {open}'\n\
             touch go; wait",
            open = open.replace('\'', "'\\''"),
        ),
    );
    for line in [
        // Allowed, and there is no driver: with one it would open.
        "batch: 0 No such device or address",
        "batch: 1 No such device or address",
        "batch: 2 Operation not permitted",
        "see 0 0",
        "0: 0 No such device or address",
        "0: 1 Operation not permitted",
        "0: 2 Operation not permitted",
        // The driver shows the step's own alone, counted from 0.
        "see 1 0",
        "2: 0 Operation not permitted",
        "2: 1 No such device or address",
        "2: 2 Operation not permitted",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
    }
    let places = folders(&cluster.text("where"));
    assert!(!places.is_empty(), "{}", cluster.text("where"));
    let left: Vec<_> =
        places.iter().filter(|p| p.exists() || p.parent().unwrap().exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_step_over_its_memory_is_out_of_memory_and_the_others_are_not() {
    let cluster = Cluster::start();
    let shown = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    if !root("memory") || shown.contains("memory:") {
        println!("skipped: this machine does not enforce memory");
        return;
    }
    let (job, text) = script(
        &cluster,
        &["-n1", "--mem=512M"],
        "srun -J hog --mem=32M bash -c 'head -c 300M /dev/zero | tail > /dev/null'; echo code $?\n\
         srun -J modest bash -c 'head -c 40M /dev/zero | tail | wc -c'",
    );
    assert!(text.contains(&format!("oom_kill event in StepId={job}.0.")), "{text}");
    assert!(text.contains("srun: error: n1: task 0: Out Of Memory"), "{text}");
    assert!(text.contains("code 1\n") && text.ends_with("41943040\n"), "{text}");
    let rows = accounted(&cluster, &job.to_string(), "JobID,State,ExitCode");
    let expected = format!(
        "{job}|COMPLETED|0:0\n{job}.batch|COMPLETED|0:0\n{job}.extern|COMPLETED|0:0\n\
         {job}.0|OUT_OF_MEMORY|0:125\n{job}.1|COMPLETED|0:0"
    );
    assert_eq!(rows, expected);
}

#[test]
fn what_each_step_used_is_its_own() {
    let cluster = Cluster::start();
    // Until so many ticks of its own CPU time are used.
    let burn = "burn() { local line; while :; do for ((i = 0; i < 5000; i++)); do :; done; \
                read -r line < /proc/$BASHPID/stat; set -- $1 ${line##*) }; \
                [ $((${13} + ${14})) -lt $1 ] || break; done; }; ";
    cluster.script("burn.sh", burn);
    let file = cluster.script(
        "use.sh",
        "#!/bin/bash\n. ./burn.sh\n\
         srun -N2 -n2 -J busy bash -c '. ./burn.sh; burn $((SLURM_PROCID * 60 + 30)); \
         head -c $((SLURM_PROCID * 30000000 + 1000)) /dev/zero | tail | wc -c > size.$SLURM_PROCID; \
         touch ready.$SLURM_PROCID; until [ -e go ]; do sleep 0.1; done'\n\
         srun -n1 -J idle true\n",
    );
    let job = cluster.submit(&["-N2", "-n2", "-o", "use.out", &file]);
    wait("both tasks", || (0..2).all(|t| cluster.work().join(format!("ready.{t}")).exists()));
    let id = job.to_string();
    let live =
        |pick: &str, columns: &str| cluster.ok(&["sstat", "-n", "-P", "-j", pick, "-o", columns]);
    assert_eq!(live(&id, "JobID,NTasks,Nodelist"), format!("{id}.0|2|n[1-2]"));
    let all = cluster.ok(&["sstat", "-a", "-n", "-P", "-j", &id, "-o", "JobID"]);
    assert_eq!(all, format!("{id}.batch\n{id}.0"));
    assert_eq!(live(&format!("{id}.batch"), "JobID,NTasks"), format!("{id}.batch|1"));
    let pids = live(&format!("{id}.0"), "Pids");
    assert!(pids.split(',').count() >= 2, "{pids}");
    let said = cluster.run(&["sstat", "-j", &format!("{id}.7")]);
    assert_eq!(said.code, 1, "{said:?}");
    cluster.script("go", "");
    cluster.ended(job);
    let columns =
        "JobID,JobName,NTasks,AllocCPUS,MaxRSSTask,MaxRSSNode,MinCPUTask,MinCPUNode,AllocTRES";
    let rows = accounted(&cluster, &id, columns);
    let of = |step: &str| {
        let row = rows.lines().find(|l| l.starts_with(&format!("{id}.{step}|")));
        row.unwrap_or_else(|| panic!("no {step} in {rows}")).split('|').skip(1).collect::<Vec<_>>()
    };
    let busy = of("0");
    assert_eq!(&busy[..7], ["busy", "2", "2", "1", "n2", "0", "n1"], "{rows}");
    assert!(busy[7].starts_with("cpu=2,") && busy[7].contains("node=2"), "{rows}");
    assert_eq!(of("extern")[..3], ["extern", "2", "2"], "{rows}");
    let cpu = |step: &str, column: &str| {
        milliseconds(&accounted(&cluster, &format!("{id}.{step}"), column))
    };
    let (busy, idle, batch) =
        (cpu("0", "TotalCPU"), cpu("1", "TotalCPU"), cpu("batch", "TotalCPU"));
    assert!(
        busy > 400 && idle < busy && batch < busy,
        "busy {busy}, idle {idle}, batch {batch} ms"
    );
    let total =
        milliseconds(&cluster.ok(&["sacct", "-X", "-n", "-P", "-j", &id, "-o", "TotalCPU"]));
    let sum = busy + idle + batch;
    assert!(total.abs_diff(sum) <= 4, "a job's line has the sum, {total} of {sum} ms");
    let rss = accounted(&cluster, &format!("{id}.0"), "MaxRSS,AveRSS");
    let kib: Vec<u64> = rss.split('|').map(|t| t.trim_end_matches('K').parse().unwrap()).collect();
    assert!(kib[0] > 20_000 && kib[1] < kib[0], "{rss}");
}

#[test]
fn a_suspended_job_has_its_steps_stand_still_on_every_node() {
    let cluster = Cluster::start();
    let job = cluster.submit(&[
        "-N2", "-n2", "-o", "still.out",
        "--wrap=srun bash -c 'while [ ! -e go ]; do echo x >> count.$SLURM_PROCID; sleep 0.05; done'",
    ]);
    let counts = || [0, 1].map(|t| cluster.text(&format!("count.{t}")).lines().count());
    wait("both tasks", || counts().iter().all(|n| *n > 2));
    cluster.ok(&["scontrol", "suspend", &job.to_string()]);
    cluster.until(job, "S");
    let still = || {
        let before = counts();
        std::thread::sleep(std::time::Duration::from_millis(400));
        counts() == before
    };
    wait_or("tasks that stand still", || format!("{:?}", counts()), still);
    // An agent that starts anew finds it so.
    cluster.crash("n2");
    cluster.up(&[]);
    assert!(still(), "{:?}", counts());
    let before = counts();
    cluster.ok(&["scontrol", "resume", &job.to_string()]);
    wait_or(
        "tasks that go on",
        || format!("{:?}", counts()),
        || (0..2).all(|t| counts()[t] > before[t]),
    );
    cluster.script("go", "");
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
}

#[test]
fn a_signal_for_a_job_reaches_each_task_once_wherever_its_srun_is() {
    let cluster = Cluster::start();
    let task = "n=0; trap 'n=$((n+1)); echo got $n >> $NAME.$SLURM_PROCID' USR1; \
                echo ready >> $NAME.$SLURM_PROCID; while [ ! -e go ]; do sleep 0.05; done";
    cluster.script("task.sh", task);
    let job = cluster.submit(&[
        "-N2",
        "-n2",
        "-o",
        "sig.out",
        "--wrap=trap : USR1; NAME=inside srun bash task.sh & wait; wait; echo over",
    ]);
    let text = |name: &str, task: u32| cluster.text(&format!("{name}.{task}"));
    wait("the tasks inside", || (0..2).all(|t| text("inside", t).contains("ready")));
    let outside = cluster
        .command(&["srun", &format!("--jobid={job}"), "--overlap", "-N2", "-n2", "bash", "task.sh"])
        .env("NAME", "outside")
        .spawn()
        .unwrap();
    wait("the tasks outside", || (0..2).all(|t| text("outside", t).contains("ready")));
    for count in 1..=2 {
        cluster.ok(&["scancel", "-s", "USR1", &job.to_string()]);
        for name in ["inside", "outside"] {
            for task in 0..2 {
                let got = format!("got {count}");
                let seen = || text(name, task);
                wait_or(&format!("{got} of {name}"), seen, || seen().contains(&got));
            }
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for name in ["inside", "outside"] {
        for task in 0..2 {
            assert_eq!(text(name, task), "ready\ngot 1\ngot 2\n", "{name} {task}");
        }
    }
    cluster.script("go", "");
    cluster.ended(job);
    assert!(outside.wait_with_output().unwrap().status.success());
}

#[test]
fn a_shell_joins_a_running_job_with_what_the_job_has() {
    let cluster = Cluster::start();
    let job = cluster.submit(&["-N2", "-n2", "-J", "host", "-o", "ssh.out", "--wrap=sleep 300"]);
    cluster.until(job, "R");
    let ssh = |words: &[&str]| {
        let mut command = Command::new(cluster.program());
        command.arg("ssh").args(words).env("MUSTER_CONF", cluster.dir().join("muster.toml"));
        command
    };
    let id = job.to_string();
    let said = finish(ssh(&[&id, "echo $SLURM_JOB_NAME $SLURMD_NODENAME | tr a-z A-Z; exit 3"]));
    assert_eq!((said.code, said.out.as_str()), (3, "HOST N1\n"), "{said:?}");
    let said = finish_with(ssh(&["--node=n2", &id]), b"echo on $SLURMD_NODENAME; pwd\n");
    let work = fs::canonicalize(cluster.work()).unwrap();
    assert_eq!(said.out, format!("on n2\n{}\n", work.display()), "{said:?}");
    let said = finish(ssh(&["999", "true"]));
    assert!(said.code == 1 && said.err.contains("Invalid job id specified"), "{said:?}");
    let said = finish(ssh(&["--node=n9", &id, "true"]));
    assert!(said.code == 1 && said.err.contains("node n9 is not in"), "{said:?}");
    cluster.ok(&["scancel", &id]);
    cluster.ended(job);
    let said = finish(ssh(&[&id, "true"]));
    assert!(said.code == 1 && said.err.contains("has ended"), "{said:?}");
}

#[test]
fn a_program_is_copied_to_the_nodes_before_it_runs() {
    let cluster = Cluster::start();
    cluster.script("own.sh", "#!/bin/sh\necho $0 on $SLURMD_NODENAME\n");
    let dir = cluster.work().join("copies");
    fs::create_dir(&dir).unwrap();
    let (job, text) = script(
        &cluster,
        &["-N2", "-n2"],
        &format!(
            "chmod 755 own.sh\nsrun -Q --bcast={dir}/ ./own.sh | sort\nsrun -Q --bcast={dir}/one --compress ./own.sh\n\
             ls {dir}\nsrun --bcast ./nosuch; echo code $?\nsrun --bcast --send-libs ./own.sh; echo code $?",
            dir = dir.display()
        ),
    );
    let dir = dir.display();
    for node in ["n1", "n2"] {
        let line = format!("{dir}/slurm_bcast_{job}.0_{node} on {node}");
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
        assert!(text.contains(&format!("{dir}/one on {node}\n")), "{text}");
    }
    assert!(text.contains("./nosuch: no such program") && text.contains("code 1"), "{text}");
    assert!(text.contains("--send-libs is not supported: copy them") && text.contains("code 255"));
}

#[test]
fn without_control_groups_steps_are_suspended_signalled_and_ended_all_the_same() {
    let cluster = Cluster::edited(&["--nodes=2", "--cpus-per-node=4"], |_, text| {
        let line = "cgroup = \"none\"";
        match text.contains("[agent]\n") {
            true => text.replace("[agent]\n", &format!("[agent]\n{line}\n")),
            false => format!("{text}\n[agent]\n{line}\n"),
        }
    });
    let task = "trap 'echo got >> signals.$SLURM_PROCID' USR1; echo $$ > pid.$SLURM_PROCID; \
                while [ ! -e go ]; do echo x >> count.$SLURM_PROCID; sleep 0.05; done";
    cluster.script("task.sh", task);
    let job =
        cluster.submit(&["-N2", "-n2", "-o", "bare.out", "--wrap=srun bash task.sh; echo $?"]);
    let counts = || [0, 1].map(|t| cluster.text(&format!("count.{t}")).lines().count());
    wait("both tasks", || counts().iter().all(|n| *n > 2));
    let id = job.to_string();
    assert_eq!(
        cluster.ok(&["sstat", "-n", "-P", "-j", &id, "-o", "JobID,NTasks"]),
        format!("{id}.0|2")
    );
    cluster.ok(&["scontrol", "suspend", &id]);
    cluster.until(job, "S");
    let still = || {
        let before = counts();
        std::thread::sleep(std::time::Duration::from_millis(400));
        counts() == before
    };
    wait_or("tasks that stand still", || format!("{:?}", counts()), still);
    let before = counts();
    cluster.ok(&["scontrol", "resume", &id]);
    wait_or(
        "tasks that go on",
        || format!("{:?}", counts()),
        || (0..2).all(|t| counts()[t] > before[t]),
    );
    cluster.ok(&["scancel", "-s", "USR1", &id]);
    wait("the signals", || (0..2).all(|t| cluster.text(&format!("signals.{t}")) == "got\n"));
    cluster.ok(&["scancel", &id]);
    assert_eq!(cluster.outcome(job).0, "CANCELLED");
    let pids: Vec<i32> =
        (0..2).map(|t| cluster.text(&format!("pid.{t}")).trim().parse().unwrap()).collect();
    wait("the end of the tasks", || !pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn sallocs_shell_is_on_the_first_node_where_the_site_has_it_so() {
    let cluster = Cluster::edited(&["--nodes=2", "--cpus-per-node=4"], |_, text| {
        text.replace("[scheduler]\n", "[scheduler]\ninteractive_step = true\n")
    });
    // A login shell has the site's PATH.
    let typed = format!(
        "echo at $SLURMD_NODENAME of $SLURM_JOB_NODELIST\n\
         {}/srun -l -u printenv SLURMD_NODENAME </dev/null | sort\nexit 5\n",
        cluster.dir().join("bin").display()
    );
    let said = finish_with(cluster.command(&["salloc", "-N2", "-n2"]), typed.as_bytes());
    assert_eq!((said.code, said.out.as_str()), (5, "at n1 of n[1-2]\n0: n1\n1: n2\n"), "{said:?}");
    assert!(said.err.contains("salloc: Relinquishing job allocation 1"), "{said:?}");
    cluster.ended(1);
    let (job, _) = script(
        &cluster,
        &["-N2", "-n2"],
        "srun -Q -u -o 'file.%J.%n.%3t.%s' sh -c 'echo $SLURM_PROCID'; srun -Q -o 'one.%x.%j.%s' true",
    );
    for task in 0..2 {
        assert_eq!(cluster.text(&format!("file.{job}.0.{task}.00{task}.0")), format!("{task}\n"));
    }
    assert_eq!(cluster.text(&format!("one.groups.sh.{job}.1")), "");
}

/// Names recorded of a batch script of two nodes with GPUs, behind SLURM_. Not among them: what tells of
/// ids and modes that are not here (JOB_SLUID, JOB_EXCLUSIVE, JOB_OVERSUBSCRIBE), and STEP_ID of a batch
/// script, by which a program would take itself for a task of srun's.
const OF_A_JOB: &str = "CLUSTER_NAME CONF CPUS_ON_NODE CPUS_PER_TASK GPUS_ON_NODE GTIDS JOBID \
    JOB_CPUS_PER_NODE JOB_END_TIME JOB_GID JOB_GPUS JOB_ID JOB_NAME JOB_NODELIST \
    JOB_NUM_NODES JOB_PARTITION JOB_START_TIME JOB_UID JOB_USER LOCALID NNODES NODEID \
    NODELIST NPROCS NTASKS NTASKS_PER_NODE OOM_KILL_STEP PRIO_PROCESS PROCID SUBMIT_DIR \
    SUBMIT_HOST TASKS_PER_NODE TASK_PID TOPOLOGY_ADDR TOPOLOGY_ADDR_PATTERN TRES_PER_TASK MEM_PER_CPU";
/// And of a task, beside those.
const OF_A_TASK: &str = "DISTRIBUTION JOB_GROUP LAUNCH_NODE_IPADDR SRUN_COMM_HOST SRUN_COMM_PORT \
    STEP_GPUS STEP_LAUNCHER_PORT STEP_NODELIST STEP_NUM_NODES STEP_NUM_TASKS STEP_TASKS_PER_NODE \
    UMASK STEPID STEP_ID";
const OF_DEVICES: &str =
    "CUDA_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK";

#[test]
fn scripts_and_tasks_find_every_name_that_others_find_elsewhere() {
    let shape = ["--nodes=2", "--cpus-per-node=4", "--gpus-per-node=2", "--mem-per-node=4G"];
    let cluster = Cluster::with(&shape);
    let (job, _) = script(
        &cluster,
        &["-N2", "--ntasks-per-node=2", "-c1", "--gres=gpu:2", "--mem-per-cpu=100M", "-t", "5"],
        "env > batch.env\nsrun bash -c 'env > task.$SLURM_PROCID.env'",
    );
    let names = |file: &str| -> Vec<String> {
        let text = cluster.text(file);
        text.lines().filter_map(|l| Some(l.split_once('=')?.0.to_owned())).collect()
    };
    let missing = |file: &str, wanted: &[&str]| -> Vec<String> {
        let there = names(file);
        let all = wanted.iter().flat_map(|list| list.split_whitespace());
        let full = all.map(|name| match OF_DEVICES.contains(name) || name.starts_with("SLURM") {
            true => name.to_owned(),
            false => format!("SLURM_{name}"),
        });
        full.filter(|name| !there.contains(name)).collect()
    };
    let own = ["SLURMD_NODENAME", OF_DEVICES];
    assert_eq!(missing("batch.env", &[OF_A_JOB, own[0], own[1]]), Vec::<String>::new());
    let tasks = [OF_A_JOB, OF_A_TASK, own[0], own[1], "SLURMD_DEBUG"];
    for task in 0..4 {
        assert_eq!(missing(&format!("task.{task}.env"), &tasks), Vec::<String>::new());
    }
    let value = |file: &str, name: &str| -> String {
        let text = cluster.text(file);
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name} in {file}")).to_owned()
    };
    // What differs by task, and what is the job's and the step's.
    for (task, node) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        let file = format!("task.{task}.env");
        for (name, expected) in [
            ("SLURM_PROCID", task.to_string()),
            ("SLURM_NODEID", node.to_string()),
            ("SLURM_LOCALID", (task % 2).to_string()),
            ("SLURM_GTIDS", format!("{},{}", node * 2, node * 2 + 1)),
            ("SLURMD_NODENAME", format!("n{}", node + 1)),
            ("CUDA_VISIBLE_DEVICES", "0,1".to_owned()),
            ("SLURM_JOB_ID", job.to_string()),
            ("SLURM_STEP_ID", "0".to_owned()),
            ("SLURM_NTASKS", "4".to_owned()),
            ("SLURM_TASKS_PER_NODE", "2(x2)".to_owned()),
            ("SLURM_JOB_CPUS_PER_NODE", "2(x2)".to_owned()),
        ] {
            assert_eq!(value(&file, name), expected, "{name} of task {task}");
        }
    }
}

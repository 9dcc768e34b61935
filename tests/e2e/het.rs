//! Heterogeneous jobs: components that are asked for, start, run steps and end as one.

use crate::harness::{Cluster, finish, wait_or};

fn pair(cluster: &Cluster, body: &str) -> u32 {
    let text = format!(
        "#!/bin/bash\n#SBATCH -J pair -N1 -c2 -o pair.out\n#SBATCH hetjob\n\
         #SBATCH -N2 --ntasks-per-node=2\n{body}\n"
    );
    let file = cluster.script("pair.sh", &text);
    cluster.submit(&[&file])
}

fn ids(rows: &[crate::harness::Row]) -> Vec<(String, String)> {
    rows.iter().map(|row| (row.id.clone(), row.state().to_owned())).collect()
}

#[test]
fn a_script_runs_steps_on_each_of_its_components() {
    let cluster = Cluster::with(&["--nodes=3", "--cpus-per-node=4"]);
    let show = "bash -c 'echo $SLURM_PROCID/$SLURM_NTASKS $SLURM_JOB_ID'";
    let job = pair(
        &cluster,
        &format!(
            "echo $SLURM_HET_SIZE $SLURM_JOB_ID_HET_GROUP_1 $SLURM_JOB_NUM_NODES_HET_GROUP_1 \
             $SLURM_NTASKS_HET_GROUP_1\n\
             srun {show} | sort\necho group 1\nsrun --het-group=1 {show} | sort\n\
             echo colon\nsrun -n1 {show} : -n2 {show} | sort\n\
             srun --het-group=2 true; echo code $?\n\
             srun true : -n99 true; echo code $?\n\
             srun : -n1 true; echo after $?\nexit 3"
        ),
    );
    let rows = cluster.ended(job);
    assert_eq!(
        ids(&rows),
        [("1+0".to_owned(), "FAILED".to_owned()), ("1+1".to_owned(), "FAILED".to_owned())]
    );
    let out = cluster.text("pair.out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "2 2 2 4", "{out}");
    assert_eq!(
        lines[1..8],
        ["0/1 1", "group 1", "0/4 2", "1/4 2", "2/4 2", "3/4 2", "colon"],
        "{out}"
    );
    assert_eq!(lines[8..11], ["0/3 1", "1/3 2", "2/3 2"], "{out}");
    assert!(out.contains("--het-group=2: this job has the components 0 to 1"), "{out}");
    assert!(out.contains("More processors requested than permitted"), "{out}");
    let batch = cluster.ok(&["sacct", "-n", "-P", "-o", "JobID,JobIDRaw", "-j", "1"]);
    assert!(batch.contains("1+0.batch|1.batch") && !batch.contains("1+1.batch"), "{batch}");
}

#[test]
fn components_wait_start_and_are_cancelled_together() {
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4"]);
    let busy = cluster.submit(&["-N1", "-c4", "--wrap", "sleep 600"]);
    cluster.until(busy, "R");
    let text = "#!/bin/sh\nsleep 600\n";
    let file = cluster.script("long.sh", text);
    let job = cluster.submit(&["-N1", "-c4", ":", "-N1", "-c4", &file]);
    assert_eq!(job, 2);
    let squeue = || cluster.ok(&["squeue", "-h", "-o", "%i %t %r", "-j", "2"]);
    wait_or("a reason", squeue, || squeue() == "2+0 PD Resources\n2+1 PD Resources");
    let why = cluster.ok(&["muster", "why", "2"]);
    assert!(why.contains("job 2+0 waits") && why.contains("job 2+1 waits"), "{why}");
    let shown = cluster.ok(&["scontrol", "show", "job", "2+1"]);
    assert!(shown.contains("JobId=3 HetJobId=2 HetJobOffset=1"), "{shown}");
    assert!(shown.contains("HetJobIdSet=2-3"), "{shown}");
    // One node is free all the time: half a job does not start on it.
    cluster.ok(&["scancel", &busy.to_string()]);
    wait_or("both run", squeue, || squeue() == "2+0 R None\n2+1 R None");
    // The controller learns of it anew from its log.
    cluster.crash("controller");
    cluster.up(&[]);
    assert_eq!(squeue(), "2+0 R None\n2+1 R None");
    // The number of another job is no component of the one before it.
    let said = cluster.run(&["scancel", "1+1"]);
    let text = "scancel: error: Kill job error on job id 1+1: Invalid job id specified\n";
    assert_eq!((said.code, said.err.as_str()), (1, text));
    assert_eq!(cluster.ok(&["squeue", "-h", "-j", "1+1"]), "");
    assert_eq!(squeue(), "2+0 R None\n2+1 R None");
    // Nor is it for those who would enter it or look at it.
    for words in [
        &["srun", "--jobid=1+1", "true"][..],
        &["muster", "ssh", "1+1", "true"],
        &["sattach", "1+1.0"],
        &["sbcast", "-j", "1+1", &file, "copy"],
        &["scancel", "1+1.0"],
    ] {
        let said = cluster.run(words);
        assert!(said.code == 1 && said.out.is_empty(), "{words:?}: {said:?}");
        assert!(said.err.contains("job 1+1: Invalid job id specified"), "{words:?}: {said:?}");
    }
    let said = cluster.run(&["srun", "--jobid=2+1", "--overlap", "printenv", "SLURM_JOB_ID"]);
    assert_eq!((said.code, said.out.as_str()), (0, "3\n"), "{said:?}");
    assert_eq!(cluster.ok(&["squeue", "-h", "-o", "%i", "-j", "2+0"]), "2+0");
    cluster.ok(&["scancel", "2+1"]);
    let rows = cluster.ended(2);
    assert!(rows.len() == 2 && rows.iter().all(|row| row.state() == "CANCELLED"), "{rows:?}");
    let said = cluster.run(&["sbatch", "--test-only", "-N1", "-c4", ":", "-N1", "-c2", &file]);
    assert!(said.err.contains("using 6 processors on nodes n["), "{said:?}");
}

#[test]
fn a_component_is_looked_at_signalled_and_entered_by_its_own_name() {
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4"]);
    let task = "trap 'echo usr in $SLURM_JOB_ID >> usr' USR1; touch up.$SLURM_JOB_ID; \
                while :; do sleep 0.1; done";
    cluster.script("task.sh", &format!("#!/bin/bash\n{task}\n"));
    let text = "#!/bin/bash\nsrun --het-group=0,1 bash task.sh\n";
    let file = cluster.script("both.sh", text);
    let job = cluster.submit(&["-N1", "-n1", "-o", "both.out", ":", "-N1", "-n1", &file]);
    let (second, named) = (job + 1, format!("{job}+1"));
    cluster.until_written(&format!("up.{second}"), "");
    crate::harness::wait("both components", || {
        (job..=second).all(|id| cluster.work().join(format!("up.{id}")).exists())
    });
    let shown = cluster.ok(&["sstat", "-n", "-P", "-j", &named, "-o", "JobID,NTasks", "-a"]);
    assert!(shown.lines().any(|line| line == format!("{named}.0|1")), "{shown}");
    assert!(!shown.contains(&format!("{job}+0")), "{shown}");
    let said = cluster.run(&["muster", "ssh", &named, "echo $SLURM_JOB_ID on $SLURMD_NODENAME"]);
    assert!(said.out.starts_with(&format!("{second} on n")), "{said:?}");
    let layout = cluster.ok(&["sattach", "--layout", &format!("{named}.0")]);
    assert!(layout.contains("1 tasks, 1 nodes"), "{layout}");
    let usr = || cluster.text("usr");
    cluster.ok(&["scancel", "--signal=USR1", &named]);
    wait_or("its signal", usr, || usr() == format!("usr in {second}\n"));
    cluster.ok(&["scancel", "--signal=USR1", &format!("{named}.0")]);
    wait_or("the step's", usr, || usr().lines().count() == 2);
    // The number of the whole means every component.
    cluster.ok(&["scancel", "--signal=USR1", &job.to_string()]);
    wait_or("everybody's", usr, || usr().contains(&format!("usr in {job}\n")));
    wait_or("everybody's", usr, || usr().matches(&format!("in {second}\n")).count() == 3);
    cluster.ok(&["scancel", &named]);
    assert!(cluster.ended(job).iter().all(|row| row.state() == "CANCELLED"));
}

#[test]
fn srun_and_salloc_ask_for_components() {
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4"]);
    let show = "echo $SLURM_PROCID/$SLURM_NTASKS";
    let words = ["srun", "-N1", "-c4", "sh", "-c", show, ":", "-N1", "-n2", "sh", "-c", show];
    let said = finish(cluster.command(&words));
    let mut lines: Vec<&str> = said.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0/3", "1/3", "2/3"], "{said:?}");
    assert_eq!(said.code, 0);
    let words = [
        "salloc",
        "-Q",
        "-N1",
        ":",
        "-N1",
        "-n2",
        "sh",
        "-c",
        "srun --het-group=1 sh -c 'echo $SLURM_JOB_ID'",
    ];
    let said = finish(cluster.command(&words));
    assert_eq!((said.code, said.out.as_str()), (0, "4\n4\n"), "{said:?}");
    let out = cluster.batch(&[], "srun --het-group=0 echo here\nsrun --het-group=1 true\necho $?");
    assert!(out.starts_with("here\n") && out.ends_with("\n1\n"), "{out}");
    assert!(out.contains("--het-group=1: this job has one component, number 0"), "{out}");
}

//! Whose GPU is whose: the tasks of a step, the device files of a job, and nobody else's, whatever is
//! killed meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nvidia_ml::file::Happening;

use crate::gpu_affinity::start_agent;
use crate::gpus::{machines, until};
use crate::harness::{Cluster, STRANGER, root, wait, wait_or};

#[test]
fn tasks_see_the_gpus_that_they_are_bound_to() {
    let (cluster, _doubles) = machines(&["dgx-h100"]);
    // Without control groups GPUs keep the node's numbers; the job has four of them either way.
    let see = "bash -c 'echo $SLURM_PROCID:$CUDA_VISIBLE_DEVICES' | sort | xargs";
    let lines = [
        ("", "0:0,1,2,3 1:0,1,2,3 2:0,1,2,3 3:0,1,2,3"),
        ("--gpu-bind=single:1", "0:0 1:1 2:2 3:3"),
        ("--gpu-bind=single:2", "0:0 1:0 2:1 3:1"),
        ("--gpu-bind=per_task:1", "0:0 1:1 2:2 3:3"),
        ("--gpu-bind=map:3,2,1,0", "0:3 1:2 2:1 3:0"),
        ("--gpu-bind=map_gpu:1*2,0", "0:1 1:1 2:0 3:1"),
        ("--gpu-bind=mask:0x3,c", "0:0,1 1:2,3 2:0,1 3:2,3"),
        ("--gpu-bind=mask_gpu:8", "0:3 1:3 2:3 3:3"),
        ("--gpus-per-task=1", "0:0 1:1 2:2 3:3"),
        ("--tres-per-task=cpu=1,gres/gpu:h100=1", "0:0 1:1 2:2 3:3"),
        ("--gpus-per-task=1 --gpu-bind=none", "0:0,1,2,3 1:0,1,2,3 2:0,1,2,3 3:0,1,2,3"),
        ("--tres-bind=gres/gpu:single:1", "0:0 1:1 2:2 3:3"),
        // All four are near the same CPUs.
        ("--gpu-bind=closest", "0:0,1,2,3 1:0,1,2,3 2:0,1,2,3 3:0,1,2,3"),
    ];
    let steps: Vec<String> =
        lines.iter().map(|(bind, _)| format!("srun -n4 {bind} {see}")).collect();
    let out = cluster.batch(&["-n4", "--gres=gpu:4", "--mem=1G"], &steps.join("\n"));
    let expected: Vec<&str> = lines.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    // By itself srun asks for a job of that size.
    let tell = "echo $SLURM_PROCID:$CUDA_VISIBLE_DEVICES $SLURM_CPUS_PER_TASK $SLURM_CPUS_ON_NODE";
    let each = "--tres-per-task=cpu=2,gres/gpu:h100=1";
    let said = cluster.ok(&["srun", "-n2", "--mem=1G", each, "bash", "-c", tell]);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0:0 2 4", "1:1 2 4"]);
}

#[test]
fn a_binding_given_to_the_job_holds_for_its_steps_and_a_wrong_one_is_said() {
    let (cluster, _doubles) = machines(&["dgx-h100"]);
    let options = ["-n2", "--gres=gpu:2", "--mem=1G", "--gpu-bind=map:1,0"];
    let out = cluster.batch(
        &options,
        "echo $SLURM_GPU_BIND\nsrun bash -c 'echo $SLURM_PROCID:$CUDA_VISIBLE_DEVICES' | sort\n\
         srun --gpu-bind=map:7 true; echo code $?\n\
         srun --gpu-bind=per_task:2 true; echo code $?\n\
         srun --gpu-bind=perhaps true; echo code $?\n\
         srun -n1 --gpu-bind=v,single:1 true",
    );
    assert!(out.starts_with("map:1,0\n0:1\n1:0\n"), "{out}");
    for part in [
        "--gpu-bind=map: the step has no GPU 7 on n1, it has 0,1",
        "--gpu-bind=per_task:2: 2 tasks on n1 would need 4 GPUs, the step has 2 there",
        "Invalid --gpu-bind argument: gpu:perhaps",
        "gpu-bind: usable_gres=0x1; bit_alloc=0x3; local_inst=1; global_list=0; local_list=0",
    ] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    assert_eq!(out.matches("code 0").count(), 0, "{out}");
    let words = ["--gres=gpu:2", "--nvlink=required", "--gpu-bind=single:1", "-H", "--wrap=true"];
    let job = cluster.submit(&[&["-n2", "--mem=1G"], &words[..]].concat()).to_string();
    let show = cluster.ok(&["scontrol", "show", "job", &job]);
    for line in ["\n   NvLink=required\n", "\n   TresBind=gres/gpu:single:1\n"] {
        assert!(show.contains(line), "{line:?} is missing in\n{show}");
    }
    let json = cluster.ok(&["scontrol", "show", "job", &job, "--json"]);
    for field in ["\"nvlink\": \"required\"", "\"tres_bind\": \"gres/gpu:single:1\""] {
        assert!(json.contains(field), "{field} is missing in\n{json}");
    }
}

/// Device files as NVIDIA's driver makes them, and no driver behind them.
fn device_files(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for minor in 0..8 {
        let path = folder.join(format!("nvidia{minor}"));
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(195, minor)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    }
}

/// What a job finds when it opens every device file: the minor numbers that reach the driver.
/// Control groups that it is in stand in the last line.
const PROBE: &str = "#!/bin/bash\n\
    for m in 0 1 2 3 4 5 6 7; do\n\
      head -c1 FILES/nvidia$m 2>&1 | sed -n \"s/.*: No such device or address/open $m/p;\
      s/.*: Operation not permitted/denied $m/p\"\n\
    done\n\
    echo groups $(cut -d: -f2,3 /proc/self/cgroup)\n";

#[test]
fn a_job_reaches_its_own_gpus_and_no_others_whoever_it_is() {
    if root("device files") {
        reaches_its_own(&machines(&["dgx-h100"]).0);
    }
}

#[test]
fn a_filter_program_holds_jobs_as_the_list_of_the_first_version_does() {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    if !root("device files") || !Path::new(UNIFIED).is_dir() {
        println!("skipped: there is but one version of control groups");
        return;
    }
    let (cluster, _doubles) = machines(&["dgx-h100"]);
    cluster.crash("n1");
    // For this agent there is the second version alone.
    start_agent(&cluster, &format!("mount --bind {UNIFIED} /sys/fs/cgroup"));
    wait("the new agent", || cluster.log("n1").matches("the agent is up").count() == 3);
    wait("its word", || {
        let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
        node.contains("jobs_may_run_on_any_CPU") && !node.contains("jobs_may_open_any_GPU")
    });
    reaches_its_own(&cluster);
}

/// Jobs of two users at once on one node.
#[track_caller]
fn reaches_its_own(cluster: &Cluster) {
    let node = cluster.ok(&["scontrol", "-d", "show", "node", "n1"]);
    if node.contains("jobs_may_open_any_GPU") || node.contains("control_groups:") {
        println!("skipped: devices cannot be held here");
        return;
    }
    let files = cluster.work().join("dev");
    device_files(&files);
    let text = PROBE.replace("FILES", &files.display().to_string());
    let theirs = cluster.work().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    fs::write(theirs.join("probe.sh"), text).unwrap();
    let place = theirs.display().to_string();
    // Both run at once; units 0 and 1 have the device files 2 and 3, unit 2 has 0 on this machine.
    let submit = |gres: &str, out: &str| -> u32 {
        let line = ["sbatch", "--parsable", "-D", &place, "-c1", "--mem=100M", gres, "-o", out];
        let said = cluster.run_as(STRANGER, &[&line[..], &[&format!("{place}/probe.sh")]].concat());
        said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"))
    };
    let jobs = [submit("--gres=gpu:2", "two.out"), submit("--gres=none", "none.out")];
    let probe = format!("{place}/probe.sh");
    let own = cluster.submit(&["-c1", "--mem=100M", "--gres=gpu:1", "-o", "one.out", &probe]);
    for job in jobs.into_iter().chain([own]) {
        assert_eq!(cluster.outcome(job).0, "COMPLETED");
    }
    let opened = |file: &str| -> (Vec<u32>, usize) {
        let text = cluster.text(file);
        let minors = text.lines().filter_map(|l| l.strip_prefix("open ")?.parse().ok());
        (minors.collect(), text.lines().filter(|l| l.starts_with("denied ")).count())
    };
    let minor_of: [u32; 8] = [2, 3, 0, 1, 6, 7, 4, 5];
    let expected = |job: u32, file: &str| {
        let show = cluster.ok(&["sacct", "-n", "-P", "-j", &job.to_string(), "-o", "AllocTRES"]);
        let count =
            usize::from(show.contains("gres/gpu=1")) + 2 * usize::from(show.contains("gpu=2"));
        let (minors, denied) = opened(file);
        assert_eq!((minors.len(), denied), (count, 8 - count), "{file}: {}", cluster.text(file));
        minors
    };
    assert_eq!(expected(jobs[0], "theirs/two.out"), [2, 3], "{minor_of:?}");
    assert!(expected(jobs[1], "theirs/none.out").is_empty());
    expected(own, "one.out");
    // Nothing of it is left: neither the groups nor, with them, their filters.
    for file in ["theirs/two.out", "one.out"] {
        let text = cluster.text(file);
        let groups = text.lines().find_map(|l| l.strip_prefix("groups ")).expect("told");
        let paths = groups.split(' ').filter_map(|entry| entry.split_once(':'));
        for (controller, path) in paths.filter(|(_, path)| path.contains("muster")) {
            let mount = if controller.is_empty() { "unified" } else { controller };
            let path = format!("/sys/fs/cgroup/{mount}{path}");
            wait(&format!("the end of {path}"), || !Path::new(&path).exists());
        }
    }
}

#[test]
fn a_job_that_asks_for_it_runs_elsewhere_when_its_gpu_fails() {
    let (cluster, mut doubles) = machines(&["l40s-x4", "l40s-x4"]);
    let text = "#!/bin/sh\necho $SLURMD_NODENAME >> places\nsleep 600\n";
    let file = cluster.script("long.sh", text);
    let stays = cluster.submit(&["-w", "n1", "-c1", "--mem=100M", "--gres=gpu:1", &file]);
    cluster.until(stays, "R");
    let moves = cluster.submit(&["--requeue", "-c1", "--mem=100M", "--gres=gpu:2", &file]);
    cluster.until(moves, "R");
    let show = |job: u32| cluster.ok(&["scontrol", "-d", "show", "job", &job.to_string()]);
    let node = if show(moves).contains("NodeList=n1") { 1 } else { 2 };
    let gpus: Vec<usize> = if node == 1 { vec![0, 1, 2, 3] } else { vec![0, 1] };
    let broken = gpus.into_iter().find(|gpu| {
        let line = crate::gpus::gpus(&cluster, &["-n"]);
        line.lines().any(|l| l.starts_with(&format!("n{node} {gpu} l40s {moves} ")))
    });
    let gpu = broken.expect("it holds one");
    doubles[node - 1].change(|scene| scene.event.push(Happening { gpu, xid: 79 }));
    let other = format!("NodeList=n{}", 3 - node);
    wait_or(
        "its second run",
        || show(moves),
        || {
            let text = show(moves);
            text.contains(&other) && text.contains("JobState=RUNNING")
        },
    );
    let text = show(moves);
    assert!(
        text.contains("Restarts=1") && text.contains(&format!("ExcNodeList=n{node}")),
        "{text}"
    );
    let drained = cluster.ok(&["scontrol", "-d", "show", "node", &format!("n{node}")]);
    assert!(drained.contains(&format!("GresDrain=gpu:l40s:1(IDX:{gpu})")), "{drained}");
    assert!(show(stays).contains("JobState=RUNNING"), "nobody asked for the other one");
}

/// From when until when a GPU (node, number) was held, and by whom.
type Spans = BTreeMap<(String, String), Vec<(u128, u128, String)>>;

/// Jobs of this story, and how often a daemon is killed meanwhile.
const JOBS: usize = 36;
const KILLS: usize = 8;

#[test]
fn no_gpu_is_held_twice_whatever_is_killed_when() {
    let (cluster, _doubles) = machines(&["dgx-h100", "l40s-x4"]);
    // Each says what it holds, when it began, and when it was about to end.
    let text = "#!/bin/bash\n\
        at() { for g in ${SLURM_JOB_GPUS//,/ }; do echo $1 $(date +%s%N) $SLURMD_NODENAME $g \
        $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} >> held; done; }\n\
        at begin; sleep 0.$((RANDOM % 9 + 1)); at end\n";
    let file = cluster.script("hold.sh", text);
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        let gres = format!("--gres=gpu:{}", [1, 1, 2, 4][n % 4]);
        jobs.push(cluster.submit(&["-c1", "--mem=10M", "-o", "/dev/null", &gres, &file]));
    }
    let begun = Instant::now();
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(150 + 130 * (kill as u64 % 4)));
        cluster.crash(["n1", "controller", "n2", "controller"][kill % 4]);
        let said = cluster.try_up(&[]);
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    }
    println!("{KILLS} kills in {:?}", begun.elapsed());
    for job in &jobs {
        cluster.ended(*job);
    }
    let mut spans: Spans = BTreeMap::new();
    let mut open: BTreeMap<(String, String, String), u128> = BTreeMap::new();
    let text = cluster.text("held");
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, at, node, gpu, job] = words.as_slice() else { panic!("{line:?}") };
        let at: u128 = at.parse().unwrap();
        let key = ((*node).to_owned(), (*gpu).to_owned(), (*job).to_owned());
        match *what {
            "begin" => assert_eq!(open.insert(key, at), None, "{line} began twice"),
            _ => {
                let from = open.remove(&key).unwrap_or_else(|| panic!("{line} never began"));
                spans.entry((key.0, key.1)).or_default().push((from, at, key.2));
            }
        }
    }
    let ended: usize = spans.values().map(Vec::len).sum();
    assert!(ended >= JOBS, "each of {JOBS} jobs held a GPU: {ended}");
    for ((node, gpu), mut held) in spans {
        held.sort();
        for pair in held.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "GPU {gpu} of {node} was held twice: {pair:?}");
        }
    }
    until(&cluster, &["-b", "-n"], "n", false);
}

//! kill -9, at any moment, of anything that is ours: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE, Said, finish, wait_or};

const SUBMITTERS: usize = 8;
const KILLS: usize = 20;

/// Moments that differ from run to run and are printed, so that a failure can be told.
struct Moments(u64);

impl Moments {
    fn new() -> Moments {
        use std::hash::{BuildHasher as _, RandomState};
        let seed = RandomState::new().hash_one(0);
        println!("moments from seed {seed}");
        Moments(seed | 1)
    }

    fn next(&mut self, least: u64, span: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(least + self.0 % span)
    }
}

/// Submits one after another until told to stop; returns the numbers that were acknowledged.
fn submitter(cluster: &Cluster, stop: &AtomicBool) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let line = ["sbatch", "--parsable", "-o", "/dev/null", "--wrap=echo $SLURM_JOB_ID >> ran"];
        let Said { code, out, err } = cluster.run(&line);
        // A command meets restarting controllers and must outlast them.
        assert_eq!(code, 0, "{out}{err}");
        acknowledged.push(out.trim().parse().unwrap_or_else(|_| panic!("{out:?} {err:?}")));
        std::thread::sleep(Duration::from_millis(60));
    }
    acknowledged
}

#[test]
fn what_was_acknowledged_runs_exactly_once_though_the_controller_is_killed_twenty_times() {
    let cluster = Cluster::with(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=64G"]);
    let stop = AtomicBool::new(false);
    let acknowledged: Vec<u32> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..SUBMITTERS).map(|_| scope.spawn(|| submitter(&cluster, &stop))).collect();
        let mut moments = Moments::new();
        for _ in 0..KILLS {
            std::thread::sleep(moments.next(50, 500));
            cluster.crash("controller");
            start_controller(&cluster);
        }
        stop.store(true, Ordering::Relaxed);
        all.into_iter().flat_map(|thread| thread.join().expect("no submitter failed")).collect()
    });
    println!("{} submissions were acknowledged", acknowledged.len());
    assert!(acknowledged.len() > KILLS, "too few submissions to mean anything");
    let mut distinct = acknowledged.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), acknowledged.len(), "a job number was given twice");
    wait_or(
        "an empty queue",
        || cluster.ok(&["squeue"]),
        || cluster.ok(&["squeue", "-h"]).is_empty(),
    );
    let mut runs: BTreeMap<u32, u32> = BTreeMap::new();
    for line in cluster.text("ran").lines() {
        *runs.entry(line.parse().unwrap()).or_default() += 1;
    }
    let lost: Vec<&u32> = distinct.iter().filter(|id| !runs.contains_key(id)).collect();
    assert!(lost.is_empty(), "acknowledged and never ran: {lost:?}");
    let twice: Vec<_> = runs.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "ran more than once: {twice:?}");
    let rows = cluster.rows(&["-s", "COMPLETED", "-E", "now"]);
    for id in &distinct {
        assert!(rows.iter().any(|row| row.id == id.to_string()), "job {id} has no row COMPLETED");
    }
}

/// Starts the controller as `muster up` would, without waiting for it.
fn start_controller(cluster: &Cluster) {
    let said = cluster.try_up(&[]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
}

#[test]
fn jobs_go_on_while_their_agents_are_killed_and_their_ends_are_known() {
    let cluster = Cluster::start();
    let jobs: Vec<u32> = (0..6)
        .map(|i| {
            let script = format!("--wrap=sleep 3; echo {i} >> ends; exit {i}");
            cluster.submit(&["-o", &format!("j{i}.out"), &script])
        })
        .collect();
    for job in &jobs {
        cluster.until(*job, "R");
    }
    cluster.crash("n1");
    cluster.crash("n2");
    // Half of their time nobody looks after them; their ends may come before or after the return.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.up(&[]);
    for (i, job) in jobs.iter().enumerate() {
        let state = if i == 0 { "COMPLETED" } else { "FAILED" };
        assert_eq!(cluster.outcome(*job), (state.to_owned(), format!("{i}:0")));
    }
    let mut ends: Vec<String> = cluster.text("ends").lines().map(str::to_owned).collect();
    ends.sort();
    assert_eq!(ends, ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn everything_may_be_killed_at_once_and_the_jobs_still_end_well() {
    let cluster = Cluster::start();
    let long =
        cluster.submit(&["-o", "l.out", "--wrap=echo start >> l; sleep 4; echo end >> l; exit 9"]);
    let short =
        cluster.submit(&["-o", "s.out", "--wrap=echo start >> s; sleep 1; echo end >> s; exit 8"]);
    cluster.until_written("l", "start");
    cluster.until_written("s", "start");
    for daemon in ["controller", "n1", "n2"] {
        cluster.crash(daemon);
    }
    // The short one ends while nothing of ours runs but its shim.
    std::thread::sleep(Duration::from_secs(2));
    cluster.up(&[]);
    assert_eq!(cluster.outcome(short), ("FAILED".to_owned(), "8:0".to_owned()));
    assert_eq!(cluster.outcome(long), ("FAILED".to_owned(), "9:0".to_owned()));
    assert_eq!(cluster.text("l"), "start\nend\n");
    assert_eq!(cluster.text("s"), "start\nend\n");
}

#[test]
fn a_stopped_cluster_goes_on_with_its_queue_and_its_history() {
    let cluster = Cluster::start();
    let ended = cluster.submit(&["-o", "e.out", "--wrap=exit 4"]);
    assert_eq!(cluster.outcome(ended).0, "FAILED");
    let held = cluster.submit(&["--hold", "-o", "h.out", "--wrap=true"]);
    cluster.down();
    assert!(cluster.pid("controller").is_none() && cluster.pid("n1").is_none());
    cluster.up(&[]);
    assert_eq!(cluster.row(ended).exit, "4:0");
    cluster.until(held, "PD");
    cluster.ok(&["scontrol", "release", &held.to_string()]);
    assert_eq!(cluster.outcome(held).0, "COMPLETED");
}

#[test]
fn a_command_that_finds_no_controller_gives_up_in_slurms_words() {
    let cluster = Cluster::start();
    cluster.down();
    let begin = Instant::now();
    let mut command = cluster.command(&["squeue"]);
    command.env("MUSTER_RETRY_SECONDS", "1");
    let said = finish(command);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("Unable to contact slurm controller (connect failure)"), "{said:?}");
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn a_log_spoilt_in_the_middle_stops_the_start_instead_of_losing_jobs_in_silence() {
    let cluster = Cluster::with(&["--nodes=1"]);
    let jobs: Vec<u32> = (0..20)
        .map(|i| cluster.submit(&["--hold", "-J", &format!("marked-{i}-job"), "--wrap=true"]))
        .collect();
    cluster.down();
    let file = cluster.dir().join("state/log/sled/db");
    let good = fs::read(&file).unwrap();
    let part = b"marked-7-job";
    let at = good.windows(part.len()).position(|w| w == part).expect("the name is in the log");
    let mut spoilt = good.clone();
    spoilt[at] ^= 1;
    fs::write(&file, &spoilt).unwrap();
    let said = cluster.try_up(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("damaged at frame") && said.err.contains("offset"), "{said:?}");
    // With the file from a backup everything is there again.
    cluster.down();
    fs::write(&file, &good).unwrap();
    cluster.up(&[]);
    let queue = cluster.ok(&["squeue", "-h", "-o", "%i"]);
    assert_eq!(queue.lines().count(), jobs.len(), "{queue}");
}

//! A full disk under the spool or under the log: work is refused with a reason, nothing dies that
//! need not, and once there is room the cluster goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Said, finish, root, wait_or};

/// Mounts a small file system over a directory of the cluster; it goes when the cluster goes.
fn mount_small(cluster: &Cluster, name: &str, size: &str) -> PathBuf {
    let path = cluster.dir().join(name);
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]).arg(&path);
    let said = finish(command);
    assert_eq!(said.code, 0, "{said:?}");
    cluster.unmount_at_end(&path);
    path
}

fn fill(disk: &Path) {
    let file = disk.join("filler");
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", file.display()));
    // It ends because the disk is full.
    finish(command);
    assert!(fs::metadata(&file).is_ok());
}

fn make_room(disk: &Path) {
    fs::remove_file(disk.join("filler")).unwrap();
}

#[test]
fn a_full_spool_keeps_jobs_off_the_node_until_there_is_room() {
    if !root("a small disk under a spool") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4", "--mem-per-node=4G"]);
    cluster.down();
    let disk = mount_small(&cluster, "spool", "1M");
    cluster.up(&[]);
    fill(&disk);
    let job = cluster.submit(&["-o", "j.out", "--wrap=echo ran"]);
    let shown = || cluster.run(&["sinfo", "-R", "-h", "-o", "%E"]).out;
    wait_or("the node to say what ails it", shown, || {
        let text = shown().to_lowercase();
        text.contains("space") || text.contains("spool")
    });
    assert!(!cluster.work().join("j.out").exists());
    cluster.assert_alive();
    make_room(&disk);
    cluster.ok(&["scontrol", "update", "nodename=n1", "state=resume"]);
    // Failed starts may have put it on hold.
    cluster.run(&["scontrol", "release", &job.to_string()]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
    assert_eq!(cluster.text("j.out"), "ran\n");
}

#[test]
fn a_full_log_acknowledges_nothing_and_loses_nothing() {
    if !root("a small disk under the log") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4", "--mem-per-node=4G"]);
    cluster.down();
    let disk = mount_small(&cluster, "state", "64M");
    cluster.up(&[]);
    let before = cluster.submit(&["--hold", "-o", "b.out", "--wrap=echo before"]);
    fill(&disk);
    let mut acknowledged = vec![before];
    let refused = (0..200).find_map(|_| {
        let mut command =
            cluster.command(&["sbatch", "--parsable", "--hold", "-o", "b.out", "--wrap=true"]);
        command.env("MUSTER_RETRY_SECONDS", "1");
        let said = finish(command);
        match said.code {
            0 => {
                acknowledged.push(said.out.trim().parse().unwrap());
                None
            }
            _ => Some(said),
        }
    });
    let Said { code, err, .. } = refused.expect("a full disk refuses within 200 submissions");
    assert!(code != 0 && !err.trim().is_empty());
    make_room(&disk);
    cluster.up(&[]);
    let queue = cluster.ok(&["squeue", "-h", "-o", "%i"]);
    for job in &acknowledged {
        assert!(queue.lines().any(|line| line.trim() == job.to_string()), "job {job} is lost");
    }
    let after = cluster.submit(&["-o", "a.out", "--wrap=echo after"]);
    assert_eq!(cluster.outcome(after).0, "COMPLETED");
}

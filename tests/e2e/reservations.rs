//! What an admin keeps back, and who gets it.

use crate::harness::{Cluster, STRANGER, root};

#[test]
fn a_maintenance_keeps_its_node_from_all_jobs_but_its_own() {
    if !root("reservations: another user must be refused") {
        return;
    }
    let cluster = Cluster::start();
    let made = cluster.ok(&[
        "scontrol",
        "create",
        "reservation",
        "ReservationName=fans",
        "StartTime=now",
        "Duration=60",
        "Users=root",
        "Flags=MAINT",
        "Nodes=n1",
    ]);
    assert_eq!(made, "Reservation created: fans");
    let shown = cluster.ok(&["scontrol", "-o", "show", "reservation", "fans"]);
    for part in ["Nodes=n1 NodeCnt=1", "Flags=MAINT,SPEC_NODES", "Users=root", "State=ACTIVE"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert_eq!(cluster.ok(&["sinfo", "-h", "-N", "-n", "n1", "-o", "%t"]), "maint");
    assert!(cluster.ok(&["sinfo", "-T", "-h"]).starts_with("fans "));
    let json = cluster.ok(&["scontrol", "--json", "show", "reservation"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    assert_eq!(json["reservations"][0]["node_list"], "n1");

    let soon = |nodes: &str| {
        let nodes = format!("Nodes={nodes}");
        let when = ["StartTime=now+1hour", "Duration=10", "Users=root", &nodes];
        cluster.run(&[&["scontrol", "create", "reservation"][..], &when].concat())
    };
    assert_eq!(soon("n2").out, "Reservation created: root_1\n");
    let twice = soon("n[1-2]");
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.err.contains("overlaps with another reservation"), "{twice:?}");
    assert!(twice.err.contains("\"root_1\""), "{twice:?}");

    // The whole of a node each, so that each job's node is clear.
    let other =
        cluster.submit(&["-c4", "-t5", "-o", "other.out", "--wrap=echo $SLURM_JOB_NODELIST"]);
    let kept = cluster.submit(&["-c4", "-t5", "-w", "n1", "--wrap=true"]);
    let own = cluster.submit(&[
        "-c4",
        "-t5",
        "--reservation=fans",
        "-o",
        "own.out",
        "--wrap=echo $SLURM_JOB_NODELIST $SLURM_JOB_RESERVATION",
    ]);
    for job in [other, own] {
        assert_eq!(cluster.outcome(job).0, "COMPLETED");
    }
    assert_eq!(cluster.text("other.out"), "n2\n");
    assert_eq!(cluster.text("own.out"), "n1 fans\n");
    cluster.until(kept, "PD");

    let strange = cluster.run_as(STRANGER, &["sbatch", "--reservation=fans", "--wrap=true"]);
    assert_eq!(strange.code, 1, "{strange:?}");
    assert!(strange.err.contains("Access denied to requested reservation"), "{strange:?}");
    let unknown = cluster.run(&["sbatch", "--reservation=nosuch", "--wrap=true"]);
    assert!(unknown.err.contains("Requested reservation is invalid"), "{unknown:?}");
    let denied = cluster.run_as(STRANGER, &["scontrol", "delete", "ReservationName=fans"]);
    assert!(denied.err.contains("Access/permission denied"), "{denied:?}");

    cluster.down();
    cluster.up(&[]);
    assert!(cluster.ok(&["sinfo", "-T", "-h"]).starts_with("fans "), "they outlive a restart");
    cluster.ok(&["scontrol", "delete", "ReservationName=fans"]);
    cluster.ok(&["scontrol", "delete", "reservation", "root_1"]);
    assert_eq!(cluster.outcome(kept).0, "COMPLETED");
    assert_eq!(cluster.ok(&["scontrol", "show", "reservation"]), "No reservations in the system");
    cluster.assert_alive();
}

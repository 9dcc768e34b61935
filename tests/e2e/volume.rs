//! Many jobs: every one has the right end, output and row.

use crate::harness::{Cluster, wait_or};

const TASKS: u32 = 1_000;
const SINGLES: u32 = 200;

#[test]
fn an_array_of_a_thousand_and_two_hundred_single_jobs_all_end_right() {
    let cluster = Cluster::with(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=64G"]);
    let array = cluster.submit(&[
        &format!("--array=0-{}", TASKS - 1),
        "--mem=16M",
        "-o",
        "task-%a.out",
        "--wrap=echo task $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID % 7))",
    ]);
    let singles: Vec<u32> = (0..SINGLES)
        .map(|i| {
            let script = format!("--wrap=echo single {i}; exit {}", i % 5);
            cluster.submit(&["--mem=16M", "-o", &format!("single-{i}.out"), &script])
        })
        .collect();
    wait_or(
        "an empty queue",
        || cluster.ok(&["squeue"]),
        || cluster.ok(&["squeue", "-h"]).is_empty(),
    );
    let rows = cluster.rows(&[]);
    assert_eq!(rows.len(), (TASKS + SINGLES) as usize);
    let check = |id: &str, code: u32, file: &str, text: &str| {
        let row = rows.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("no row of {id}"));
        let state = if code == 0 { "COMPLETED" } else { "FAILED" };
        assert_eq!((row.state(), row.exit.as_str()), (state, format!("{code}:0").as_str()), "{id}");
        assert_eq!(cluster.text(file), text, "{id}");
    };
    for task in 0..TASKS {
        check(
            &format!("{array}_{task}"),
            task % 7,
            &format!("task-{task}.out"),
            &format!("task {task}\n"),
        );
    }
    for (i, id) in (0..).zip(&singles) {
        check(&id.to_string(), i % 5, &format!("single-{i}.out"), &format!("single {i}\n"));
    }
}

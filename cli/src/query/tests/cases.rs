//! What a golden file cannot say: documents, every column at once, a controller that is gone.

use proptest::prelude::*;
use serde_json::Value;

use super::super::json;
use super::world::{Fixed, desk, run};

fn ask(words: &[&str]) -> super::super::Output {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    run(&words, &mut Fixed::new(), &desk(&[]))
}

fn document(words: &[&str]) -> Value {
    let output = ask(words);
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    serde_json::from_str(&output.out).expect("a JSON document")
}

#[track_caller]
fn check(document: &Value, path: &str, expected: &Value) {
    let found = document.pointer(path).unwrap_or_else(|| panic!("nothing at {path}"));
    assert_eq!(found, expected, "{path}");
}

#[test]
fn the_queue_is_a_document_that_clients_index() {
    let queue = document(&["squeue", "-u", "alice", "--json"]);
    let number = |n: i64| serde_json::json!({ "set": true, "infinite": false, "number": n });
    check(&queue, "/jobs/0/job_id", &12.into());
    check(&queue, "/jobs/0/job_state", &serde_json::json!(["RUNNING"]));
    check(&queue, "/jobs/0/time_limit", &number(60));
    check(&queue, "/jobs/0/start_time", &number(1_795_449_149));
    check(&queue, "/jobs/0/memory_per_node", &number(32_768));
    check(&queue, "/jobs/0/tres_per_node", &"gres/gpu:h100:2".into());
    check(&queue, "/jobs/0/standard_output", &"/home/alice/slurm-12.out".into());
    check(&queue, "/jobs/0/exit_code/status/0", &"PENDING".into());
    check(&queue, "/jobs/1/hold", &true.into());
    check(&queue, "/jobs/1/time_limit/infinite", &true.into());
    check(&queue, "/jobs/3/array_task_string", &"1-3".into());
    check(&queue, "/meta/slurm/cluster", &"demo".into());
    check(&queue, "/meta/slurm/version/major", &"26".into());
    check(&queue, "/errors", &serde_json::json!([]));
    let nobody = document(&["squeue", "-u", "4711", "--json"]);
    check(&nobody, "/jobs", &serde_json::json!([]));
}

#[test]
fn nodes_are_a_document_grouped_by_partition_and_state() {
    let sinfo = document(&["sinfo", "--json"]);
    check(&sinfo, "/sinfo/0/partition/name", &"main".into());
    check(&sinfo, "/sinfo/0/nodes/nodes", &serde_json::json!(["n1", "n2"]));
    check(&sinfo, "/sinfo/0/nodes/allocated", &2.into());
    check(&sinfo, "/sinfo/0/node/state", &serde_json::json!(["MIXED"]));
    check(&sinfo, "/sinfo/0/cpus/idle", &112.into());
    check(&sinfo, "/sinfo/0/gres/used", &"gpu:h100:2(IDX:0-1)".into());
    check(&sinfo, "/sinfo/0/memory/maximum", &262_144.into());
    let states: Vec<&Value> =
        sinfo["sinfo"].as_array().unwrap().iter().map(|g| &g["node"]["state"]).collect();
    assert!(states.contains(&&serde_json::json!(["IDLE", "DRAIN"])));
    assert!(states.contains(&&serde_json::json!(["DOWN", "NOT_RESPONDING"])));
}

#[test]
fn the_history_is_a_document_with_steps() {
    let history = document(&["sacct", "--json", "--starttime", "now-7days", "--endtime", "now"]);
    check(&history, "/jobs/1/job_id", &9.into());
    check(&history, "/jobs/1/state/current/0", &"CANCELLED".into());
    check(&history, "/jobs/1/kill_request_user", &"bob".into());
    check(&history, "/jobs/1/time/elapsed", &1800.into());
    check(&history, "/jobs/1/steps/0/step/name", &"batch".into());
    check(&history, "/jobs/1/exit_code/signal/name", &"TERM".into());
    check(&history, "/jobs/2/state/reason", &"OutOfMemory".into());
    let allocated = serde_json::json!({ "type": "gres", "name": "gpu", "id": 1001, "count": 4 });
    let list = history["jobs"][3]["tres"]["allocated"].as_array().unwrap();
    assert!(list.contains(&allocated));
}

#[test]
fn nodes_and_partitions_have_documents_for_scontrol() {
    let mut source = Fixed::new();
    let here = desk(&[]);
    let about = json::About { command: "scontrol", cluster: "demo", here: &here };
    use super::super::source::Source as _;
    let read = |text: String| -> Value { serde_json::from_str(&text).expect("a JSON document") };
    let nodes = read(json::nodes(&source.nodes().unwrap(), &about));
    check(&nodes, "/nodes/3/state", &serde_json::json!(["IDLE", "DRAIN"]));
    check(&nodes, "/nodes/3/reason", &"bad fan".into());
    check(&nodes, "/nodes/0/gres_used", &"gpu:h100:2(IDX:0-1)".into());
    let partitions = read(json::partitions(&source.partitions().unwrap(), &about));
    check(&partitions, "/partitions/0/partition/state/0", &"UP".into());
    check(&partitions, "/partitions/0/maximums/time/number", &1440.into());
    check(&partitions, "/partitions/1/maximums/time/infinite", &true.into());
}

#[test]
fn every_advertised_column_can_be_printed() {
    let help = ask(&["sacct", "--helpformat"]).out;
    let names: Vec<&str> = help.split_whitespace().collect();
    assert!(names.len() > 100);
    let format = format!("--format={}", names.join(","));
    let output = ask(&["sacct", &format, "--parsable", "--jobs=12,20"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    for line in output.out.lines() {
        assert_eq!(line.matches('|').count(), names.len(), "{line}");
    }
    let all = ask(&["squeue", "-o", "%all", "-t", "all"]);
    let mut lines = all.out.lines();
    let columns = lines.next().unwrap().matches('|').count();
    assert!(columns > 40);
    assert_eq!(lines.clone().count(), 7);
    assert!(lines.all(|line| line.matches('|').count() == columns));
    assert!(ask(&["sinfo", "-o", "%all"]).out.lines().count() > 4);
    assert_eq!(ask(&["sstat", "-j", "12", "-P", "-o", "all"]).code, 0);
}

#[test]
fn a_controller_that_is_gone_is_said_in_slurms_words() {
    for (words, lead) in [
        (vec!["squeue", "-h", "-j", "1", "-o", "%T"], "slurm_load_jobs error: "),
        (vec!["sinfo"], "slurm_load_partitions: "),
        (vec!["sacct", "-j", "1"], "sacct: error: "),
    ] {
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let mut source = Fixed { down: true, ..Fixed::new() };
        let output = run(&words, &mut source, &desk(&[]));
        let text = format!("{lead}Unable to contact slurm controller (connect failure)\n");
        assert!(output.err.starts_with(&text), "{}", output.err);
        assert!(output.err.contains("/run/c.sock"), "{}", output.err);
        assert_eq!((output.code, output.out.as_str()), (1, ""));
    }
}

#[test]
fn watching_asks_to_be_run_again() {
    assert_eq!(ask(&["squeue", "-i", "2"]).again, Some(2));
    assert_eq!(ask(&["sinfo", "-i5"]).again, Some(5));
    assert_eq!(ask(&["squeue"]).again, None);
}

proptest! {
    #[test]
    fn no_format_makes_it_panic(text in "[%.:a-zA-Z0-9|,_-]{0,24}") {
        for option in ["-o", "-O"] {
            ask(&["squeue", option, &text, "-t", "all"]);
            ask(&["sinfo", option, &text]);
        }
        ask(&["sacct", "-o", &text, "-j", "12"]);
        ask(&["sacct", "-S", &text]);
        ask(&["squeue", "-j", &text]);
    }
}

#[test]
fn every_gpu_has_a_line_with_its_job_its_use_and_its_health() {
    let output = ask(&["gpu"]);
    let lines: Vec<&str> = output.out.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "NODE GPU TYPE JOB  USER UTIL MEM_MIB TOTAL WATTS TEMP HEALTH",
            "n1   0   h100 10_2 ann  97%  40000   81559 650   61C  ok",
        ]
    );
    let bad =
        "n1   1   h100 -    -    -    -       -     -     -    drained: Xid 79 (GPU has fallen";
    assert!(lines[2].starts_with(bad) && lines[2].contains("[muster@"), "{}", lines[2]);
    assert!(lines[3].ends_with(" ok"));
    assert_eq!(ask(&["gpu", "-n", "--bad"]).out.lines().count(), 1);
    let free = document(&["gpu", "--free", "--json"]);
    check(&free, "/gpus/0/index", &2.into());
    check(&free, "/gpus/0/use", &Value::Null);
    assert_eq!(free["gpus"].as_array().map(Vec::len), Some(1));
}

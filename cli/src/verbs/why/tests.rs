//! Explanations as they are read.

use jiff::tz::TimeZone;
use muster_proto::v1::why_reply::{Funnel, Removed};

use super::*;

/// 2026-03-01 12:00:00 UTC.
const NOON: i64 = 1_772_366_400_000;

fn here() -> Surroundings {
    let style = crate::query::times::Style::default();
    Surroundings { now: NOON, zone: TimeZone::UTC, style, ..Surroundings::here() }
}

fn removed(filter: &str, detail: &str, count: u32, nodes: &str) -> Removed {
    Removed { filter: filter.into(), detail: detail.into(), count, nodes: nodes.into() }
}

fn reply() -> WhyReply {
    WhyReply {
        job: Some(v1::Job {
            id: 12,
            partition: "main".into(),
            reason: "None".into(),
            ..v1::Job::default()
        }),
        reason: "Priority".into(),
        funnels: vec![Funnel {
            partition: "main".into(),
            starts: true,
            members: 12,
            wanted: 2,
            removed: vec![
                removed("out-of-service", "", 1, "n12"),
                removed("free-gres", "gpu", 9, "n[1-9]"),
            ],
            left: 2,
            network: "no switch has 2 fitting nodes below it: the best has 1".into(),
        }],
        waits_for: vec![
            Ending { job: 7, shown: "7".into(), end: NOON + 600_000 },
            Ending { job: 9, shown: "8_1".into(), end: NOON + 900_000 },
        ],
        waits_for_more: 3,
        ahead: vec![10, 11],
        ahead_more: 0,
        start: NOON + 900_000,
        partition: "main".into(),
        nodes: "n[1-2]".into(),
        changes: vec![
            Change {
                option: "--time=00:14:00".into(),
                update: "TimeLimit=00:14:00".into(),
                partition: "main".into(),
                nodes: "n[10-11]".into(),
            },
            Change { option: "--gpus=2".into(), nodes: "n10".into(), ..Change::default() },
        ],
    }
}

#[test]
fn everything_known_is_told_in_order() {
    let expected = "\
job 12 waits: jobs of higher priority come first [Priority]
  main has 12 nodes, it needs 2:
    1 is down, drained or silent (n12)
    9 have too few gpu free (n[1-9])
    2 could take their part now, but do not lie together as they must:
      no switch has 2 fitting nodes below it: the best has 1
  must end first: 7 (at its limit 2026-03-01T12:10:00), 8_1 (at its limit 2026-03-01T12:15:00) and 3 more
  waits behind: 10, 11
  expected to start: 2026-03-01T12:15:00 on n[1-2] (main)
  would start now with
    --time=00:14:00  on n[10-11]: scontrol update JobId=12 TimeLimit=00:14:00
    --gpus=2         on n10: submit it so
";
    assert_eq!(told(&reply(), &here()), expected);
}

#[test]
fn without_a_limit_in_the_way_there_is_no_promise() {
    let reply = WhyReply {
        reason: "Resources".into(),
        waits_for: vec![Ending { job: 7, shown: "7".into(), end: 0 }],
        job: reply().job,
        ..WhyReply::default()
    };
    let text = told(&reply, &here());
    assert!(text.contains("no start can be promised: 7 runs there without a limit"), "{text}");
}

#[test]
fn programs_get_the_same_as_a_document() {
    let whole: serde_json::Value =
        serde_json::from_str(&json::document(&[reply()])).expect("a document");
    let job = &whole["jobs"][0];
    assert_eq!(job["job_id"], 12);
    assert_eq!(job["state_reason"], "Priority");
    assert_eq!(job["partitions"][0]["removed"][1]["nodes"], "n[1-9]");
    assert_eq!(job["waits_for"][1]["job"], "8_1");
    assert_eq!(job["expected_start"], (NOON + 900_000) / 1000);
    assert_eq!(job["would_start_now_with"][1]["update"], serde_json::Value::Null);
}

#[test]
fn a_waiting_job_says_what_would_help() {
    let job = v1::Job { id: 12, reason: "JobHeldUser".into(), ..v1::Job::default() };
    let reply = WhyReply { job: Some(job), ..WhyReply::default() };
    let text = "job 12 waits: it is held; 'scontrol release 12' lets it go [JobHeldUser]\n";
    assert_eq!(told(&reply, &here()), text);
}

#[test]
fn every_reason_code_has_a_sentence() {
    for reason in muster_model::Reason::ALL {
        let job = v1::Job { reason: reason.text().into(), ..v1::Job::default() };
        assert!(!waits(&job, &Surroundings::here()).is_empty(), "{reason}");
    }
}

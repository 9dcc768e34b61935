//! The explanation as a document: `{"jobs": [...]}`. Times are seconds since the epoch; what is
//! unknown is null.

use muster_proto::v1::why_reply::{Change, Ending, Funnel, Removed};
use muster_proto::v1::{self, WhyReply};
use serde_json::{Value, json};

use crate::query::{shown, states};

pub(super) fn document(replies: &[WhyReply]) -> String {
    let jobs: Vec<Value> = replies.iter().map(one).collect();
    let whole = json!({ "jobs": jobs });
    serde_json::to_string_pretty(&whole).expect("names are texts and numbers are finite") + "\n"
}

fn one(reply: &WhyReply) -> Value {
    let default = v1::Job::default();
    let job = reply.job.as_ref().unwrap_or(&default);
    let reason = if reply.reason.is_empty() { shown::reason(job) } else { &reply.reason };
    json!({
        "job_id": job.id,
        "job": shown::id(job),
        "job_state": states::long(job.state()),
        "state_reason": reason,
        "partitions": reply.funnels.iter().map(funnel).collect::<Vec<_>>(),
        "waits_for": reply.waits_for.iter().map(ending).collect::<Vec<_>>(),
        "waits_for_more": reply.waits_for_more,
        "ahead": reply.ahead,
        "ahead_more": reply.ahead_more,
        "expected_start": seconds(reply.start),
        "expected_partition": text(&reply.partition),
        "expected_nodes": text(&reply.nodes),
        "would_start_now_with": reply.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn funnel(of: &Funnel) -> Value {
    json!({
        "partition": of.partition,
        "starts_jobs": of.starts,
        "nodes": of.members,
        "nodes_needed": of.wanted,
        "removed": of.removed.iter().map(removed).collect::<Vec<_>>(),
        "left": of.left,
        "network": text(&of.network),
    })
}

fn removed(of: &Removed) -> Value {
    json!({
        "filter": of.filter,
        "detail": text(&of.detail),
        "count": of.count,
        "nodes": of.nodes,
    })
}

fn ending(of: &Ending) -> Value {
    json!({ "job_id": of.job, "job": of.shown, "end": seconds(of.end) })
}

fn change(of: &Change) -> Value {
    json!({
        "option": of.option,
        "update": text(&of.update),
        "partition": of.partition,
        "nodes": of.nodes,
    })
}

fn text(of: &str) -> Value {
    if of.is_empty() { Value::Null } else { of.into() }
}

fn seconds(ms: i64) -> Value {
    if ms == 0 { Value::Null } else { (ms / 1000).into() }
}

//! `sdiag`: what the controller did since its start, in the layout that exporters read.
//!
//! A pass of ours starts jobs in order and lets others overtake at once, so that both of Slurm's
//! parts tell of the same passes. What does not exist here (agent threads, a database daemon) is 0.

use muster_proto::v1::DiagReply;
use serde_json::json;

use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, json, times};
use crate::getopt::{Opt, Spec, Takes, both, long};

const PROGRAM: &str = "sdiag";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("all", 'a', Takes::Nothing),
        both("cluster", 'M', Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("reset", 'r', Takes::Nothing),
        both("sort-by-id", 'i', Takes::Nothing),
        both("sort-by-time", 't', Takes::Nothing),
        both("sort-by-time2", 'T', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        long("json", Takes::MaybeValue),
        long("yaml", Takes::MaybeValue),
        Opt { id: "cluster", long: "clusters", short: None, takes: Takes::Value },
        Opt { id: "help", long: "usage", short: None, takes: Takes::Nothing },
    ],
};

const HELP: &str = "\
Usage: sdiag [OPTIONS]
  -a, --all            all statistics (the default)
  -i, --sort-by-id     calls by name
  -t, --sort-by-time   calls by total time
  -T, --sort-by-time2  calls by average time
      --json           a document
  -V, --version        the version
";

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let parsed = match super::opened(&SPEC, HELP, args) {
        Ok(parsed) => parsed,
        Err(said) => return said,
    };
    if parsed.has("reset") {
        let text = "--reset is not supported: the numbers count from the controller's start";
        return Output::error(PROGRAM, text);
    }
    if parsed.has("yaml") {
        return Output::error(PROGRAM, "--yaml is not supported: use --json");
    }
    let failed = |fault| Output::failed(PROGRAM, "slurm_get_statistics: ", &fault);
    let cluster = match source.cluster() {
        Ok(cluster) => cluster,
        Err(fault) => return failed(fault),
    };
    let wanted = parsed.last("cluster").unwrap_or("all");
    if wanted != "all" && wanted != cluster {
        return Output::error(PROGRAM, &super::unknown_cluster(wanted));
    }
    let mut told = match source.diag() {
        Ok(told) => told,
        Err(fault) => return failed(fault),
    };
    match () {
        () if parsed.has("sort-by-id") => {}
        () if parsed.has("sort-by-time") => told.calls.sort_by_key(|c| u64::MAX - c.total_us),
        () if parsed.has("sort-by-time2") => {
            told.calls.sort_by_key(|c| u64::MAX - each(c.total_us, c.count));
        }
        () => told.calls.sort_by_key(|call| u64::MAX - call.count),
    }
    if parsed.has("json") {
        let about = json::About { command: PROGRAM, cluster: &cluster, here };
        return Output::text(json::statistics(&document(&told), &about));
    }
    Output::text(text(&told, here))
}

fn each(total: u64, count: u64) -> u64 {
    total.checked_div(count).unwrap_or(0)
}

fn per_minute(told: &DiagReply) -> u64 {
    let minutes = u64::try_from((told.now - told.started_at) / 60_000).unwrap_or(0);
    each(told.passes, minutes)
}

fn text(told: &DiagReply, here: &Surroundings) -> String {
    let at = |ms: i64| format!("{} ({})", times::headline(ms, &here.zone), ms / 1000);
    let rule = "*".repeat(55);
    let mean = each(told.pass_total_us, told.passes);
    let depth = each(told.considered, told.passes);
    let (last, longest, passes) = (told.pass_last_us, told.pass_max_us, told.passes);
    let mut out = format!(
        "{rule}\nsdiag output at {}\nData since      {}\n{rule}\n\
         Server thread count:  {}\nAgent queue size:     0\nAgent count:          0\n\
         Agent thread count:   0\nDBD Agent queue size: 0\n\n",
        at(told.now),
        at(told.started_at),
        told.threads,
    );
    out.push_str(&format!(
        "Jobs submitted: {}\nJobs started:   {}\nJobs completed: {}\nJobs canceled:  {}\n\
         Jobs failed:    {}\n\nJob states ts:  {}\nJobs pending:   {}\nJobs running:   {}\n\n",
        told.submitted,
        told.started,
        told.completed,
        told.cancelled,
        told.failed,
        at(told.now),
        told.pending,
        told.running,
    ));
    out.push_str(&format!(
        "Main schedule statistics (microseconds):\n\tLast cycle:   {last}\n\
         \tMax cycle:    {longest}\n\tTotal cycles: {passes}\n\tMean cycle:   {mean}\n\
         \tMean depth cycle:  {depth}\n\tCycles per minute: {}\n\tLast queue length: {}\n\n",
        per_minute(told),
        told.last_considered,
    ));
    out.push_str(&format!(
        "Backfilling stats\n\tTotal backfilled jobs (since last slurm start): 0\n\
         \tTotal backfilled jobs (since last stats cycle start): 0\n\
         \tTotal backfilled heterogeneous job components: 0\n\tTotal cycles: {passes}\n\
         \tLast cycle when: {}\n\tLast cycle: {last}\n\tMax cycle:  {longest}\n\
         \tMean cycle: {mean}\n\tLast depth cycle: {considered}\n\
         \tLast depth cycle (try sched): {considered}\n\tDepth Mean: {depth}\n\
         \tDepth Mean (try depth): {depth}\n\tLast queue length: {considered}\n\
         \tQueue length mean: {depth}\n\n",
        at(told.last_pass_at),
        considered = told.last_considered,
    ));
    out.push_str("Remote Procedure Call statistics by message type\n");
    for call in &told.calls {
        out.push_str(&format!(
            "\t{:<40}(    0) count:{:<6} ave_time:{:<6} total_time:{}\n",
            call.method,
            call.count,
            each(call.total_us, call.count),
            call.total_us
        ));
    }
    out.push_str(
        "\nRemote Procedure Call statistics by user\n\nPending RPC statistics\n\tNo pending RPCs\n",
    );
    out
}

fn document(told: &DiagReply) -> serde_json::Value {
    let call = |call: &muster_proto::v1::CallCount| {
        json!({
            "message_type": call.method, "type_id": 0, "count": call.count, "queued": 0,
            "dropped": 0, "cycle_last": 0, "cycle_max": 0, "total_time": call.total_us,
            "average_time": { "set": true, "infinite": false,
                "number": each(call.total_us, call.count) },
        })
    };
    let seconds = |ms: i64| json!({ "set": true, "infinite": false, "number": ms / 1000 });
    let (mean, depth) = (each(told.pass_total_us, told.passes), each(told.considered, told.passes));
    let whole = json!({
        "req_time": seconds(told.now), "req_time_start": seconds(told.started_at),
        "server_thread_count": told.threads, "agent_queue_size": 0, "agent_count": 0,
        "agent_thread_count": 0, "dbd_agent_queue_size": 0,
        "jobs_submitted": told.submitted, "jobs_started": told.started,
        "jobs_completed": told.completed, "jobs_canceled": told.cancelled,
        "jobs_failed": told.failed, "jobs_pending": told.pending, "jobs_running": told.running,
        "job_states_ts": seconds(told.now),
        "rpcs_by_message_type": told.calls.iter().map(call).collect::<Vec<_>>(),
        "rpcs_by_user": [], "pending_rpcs": [],
    });
    let cycles = json!({
        "schedule_cycle_last": told.pass_last_us, "schedule_cycle_max": told.pass_max_us,
        "schedule_cycle_total": told.passes, "schedule_cycle_sum": told.pass_total_us,
        "schedule_cycle_mean": mean, "schedule_cycle_mean_depth": depth,
        "schedule_cycle_per_minute": per_minute(told),
        "schedule_cycle_depth": told.considered,
        "schedule_queue_length": told.last_considered,
        "bf_backfilled_jobs": 0, "bf_last_backfilled_jobs": 0, "bf_backfilled_het_jobs": 0,
        "bf_cycle_counter": told.passes, "bf_cycle_last": told.pass_last_us,
        "bf_cycle_max": told.pass_max_us, "bf_cycle_mean": mean,
        "bf_last_depth": told.last_considered, "bf_last_depth_try": told.last_considered,
        "bf_depth_mean": depth, "bf_depth_mean_try": depth,
        "bf_queue_len": told.last_considered, "bf_queue_len_mean": depth,
        "bf_when_last_cycle": seconds(told.last_pass_at), "bf_active": false,
    });
    json::merged([whole, cycles])
}

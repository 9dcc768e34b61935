//! `--test-only`: when and where the job would start.

use jiff::tz::TimeZone;
use muster_proto::v1;
use tonic::Response;

use super::{PROGRAM, Submission};
use crate::connect::Client;
use crate::exit;

/// Asks, and says it on stderr as Slurm does; the exit code.
pub(super) fn run(client: &mut Client, submission: &Submission, zone: TimeZone) -> i32 {
    let request = super::request(submission);
    let answer = client
        .call(async |mut api| api.jobs.test_only(request.clone()).await.map(Response::into_inner));
    match answer {
        Ok(reply) => {
            exit::say(PROGRAM, &sentence(&reply, zone));
            exit::OK
        }
        Err(error) => {
            if let Some(detail) = error.detail() {
                exit::error(PROGRAM, &detail);
            }
            eprintln!("allocation failure: {}", error.slurm_text());
            exit::failed()
        }
    }
}

fn sentence(reply: &v1::TestOnlyReply, zone: TimeZone) -> String {
    if reply.start == 0 {
        return format!(
            "Job {} would wait in partition {}, nobody knows for how long: what has its nodes has no end",
            reply.job, reply.partition
        );
    }
    let start = jiff::Timestamp::from_millisecond(reply.start)
        .map(|at| at.to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S").to_string())
        .unwrap_or_default();
    format!(
        "Job {} to start at {start} using {} processors on nodes {} in partition {}",
        reply.job, reply.cpus, reply.nodes, reply.partition
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_is_slurms() {
        let reply = v1::TestOnlyReply {
            job: 40,
            start: 1_795_450_888_000,
            cpus: 1,
            nodes: "n1".to_owned(),
            partition: "debug".to_owned(),
        };
        assert_eq!(
            sentence(&reply, TimeZone::UTC),
            "Job 40 to start at 2026-11-23T16:21:28 using 1 processors on nodes n1 in partition debug"
        );
        let unknown = v1::TestOnlyReply { start: 0, ..reply };
        assert_eq!(
            sentence(&unknown, TimeZone::UTC),
            "Job 40 would wait in partition debug, nobody knows for how long: what has its nodes has no end"
        );
    }
}

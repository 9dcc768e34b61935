//! Which attempts fit the filters and the window in time.

use muster_proto::v1::{Job, JobState};

use super::super::shown;
use super::super::states::{self, JOB_STATES, Wanted};
use super::options::Options;

/// Whether the attempt is to be shown.
pub(super) fn keeps(options: &Options, job: &Job) -> bool {
    let spec = shown::spec(job);
    let among = |list: &Option<Vec<String>>, value: &str| {
        list.as_ref().is_none_or(|list| list.iter().any(|v| v == value))
    };
    let within = |range: Option<(u32, u32)>, value: u32| {
        range.is_none_or(|(least, most)| (least..=most).contains(&value))
    };
    let minutes = shown::limit_minutes(job.time_limit.as_ref()).flatten();
    options.jobs.as_ref().is_none_or(|picks| picks.iter().any(|p| p.names(job)))
        && options.users.as_ref().is_none_or(|uids| uids.contains(&shown::uid(job)))
        && options.groups.as_ref().is_none_or(|gids| gids.contains(&shown::gid(job)))
        && among(&options.names, &spec.name)
        && among(&options.accounts, &spec.account)
        && among(&options.qos, &spec.qos)
        && among(&options.wckeys, &spec.wckey)
        && among(&options.reasons, shown::reason(job))
        && options.partitions.as_ref().is_none_or(|wanted| {
            shown::partition(job).split(',').any(|p| wanted.iter().any(|w| w == p))
        })
        && options.nodes.as_ref().is_none_or(|wanted| shown::on_nodes(job, wanted))
        && within(options.node_range, job.node_count)
        && within(options.cpu_range, job.cpu_count)
        && (options.limit_range.is_none()
            || minutes.is_some_and(|m| within(options.limit_range, m)))
        && in_time(options, job)
}

/// Whether it was there, or in one of the states asked for, at some time in the window.
fn in_time(options: &Options, job: &Job) -> bool {
    let end = options.end.unwrap_or(i64::MAX);
    let start = options.start;
    let over = states::ended(job.state());
    let until = if over { job.ended_at } else { i64::MAX };
    match &options.states {
        None | Some(Wanted::All) => job.submitted_at <= end && until >= start,
        Some(Wanted::These(words)) => words.iter().any(|word| match *word {
            "PENDING" => {
                let waited_until = if job.started_at > 0 && job.state() != JobState::Pending {
                    job.started_at
                } else {
                    until
                };
                job.submitted_at <= end && waited_until >= start
            }
            "RUNNING" => {
                let ran = job.started_at > 0 && job.state() != JobState::Pending;
                ran && job.started_at <= end && until >= start
            }
            // The present state: its beginning is not kept.
            word if !over => states::long(job.state()) == word,
            word => {
                let known = JOB_STATES.iter().any(|(long, _)| *long == word);
                let same = known && states::long(job.state()) == word;
                same && (start..=end).contains(&job.ended_at)
            }
        }),
    }
}

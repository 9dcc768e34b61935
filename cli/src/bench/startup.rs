//! From nothing to a ready cluster, and from a submission to a running and to an ended job.

use std::time::{Duration, Instant};

use muster_proto::v1::JobState;

use super::Plan;
use super::load::{Kind, Load};
use super::report::{Figure, Latencies, Report};

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut ready = Latencies::new();
    for _ in 0..plan.amount(5, 1) {
        let begin = Instant::now();
        let stand = plan.cluster(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=64G"])?;
        ready.record(begin.elapsed());
        drop(stand);
    }
    report.add(
        Figure::new("muster up, 4 nodes, all idle: p50", ready.ms(50.0), "ms")
            .aim("< 3000")
            .note(ready.text()),
    );
    let stand = plan.cluster(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=64G"])?;
    let load = Load::new(stand.cluster())?;
    let kind = Kind::new("bench", stand.dir());
    let mut ended = Latencies::new();
    for _ in 0..plan.amount(50, 3) {
        let begin = Instant::now();
        let done = load.submit(&kind, 1, 1)?;
        load.wait_for(done.last, JobState::Completed)?;
        ended.record(begin.elapsed());
        // The next one comes to a cluster that is at rest.
        std::thread::sleep(Duration::from_millis(20));
    }
    report.add(
        Figure::new(
            "one `true` job on an idle cluster, submitted to COMPLETED: p50",
            ended.ms(50.0),
            "ms",
        )
        .note(ended.text()),
    );
    Ok(())
}

//! kill -9 of the controller with a long queue: how soon it answers, and whether all is there.

use std::time::Instant;

use anyhow::ensure;
use muster_proto::v1::JobState;

use super::Plan;
use super::load::{Kind, Load};
use super::report::{Figure, Latencies, Report};

const NODES: u32 = 4;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let count = plan.amount(100_000, 500);
    let stand = plan.cluster(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=256G"])?;
    let load = Load::new(stand.cluster())?;
    let block = load.submit(&Kind::new("blocker", stand.dir()).blocker(NODES), 1, 1)?;
    load.wait_for(block.last, JobState::Running)?;
    let kind = Kind::new("bench", stand.dir());
    load.stream(&kind, 8, count)?;
    let (mut answers, mut accepts) = (Latencies::new(), Latencies::new());
    for round in 0..plan.amount(3, 1) {
        stand.cluster().crash_controller()?;
        let begin = Instant::now();
        stand.cluster().start_controller()?;
        let pending = loop {
            if let Ok(ping) = load.ping() {
                break usize::try_from(ping.pending_jobs)?;
            }
            ensure!(stand.cluster().controller().is_some(), "the controller does not start again");
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        answers.record(begin.elapsed());
        ensure!(
            pending == count + round,
            "{} jobs were acknowledged and {pending} are pending after the restart",
            count + round
        );
        load.submit(&kind, 1, 1)?;
        accepts.record(begin.elapsed());
    }
    report.add(
        Figure::new(
            format!("restart with {count} pending, until it answers: p50"),
            answers.ms(50.0),
            "ms",
        )
        .aim("< 1000")
        .note(answers.text()),
    );
    report.add(
        Figure::new("  until the next submission is accepted: p50", accepts.ms(50.0), "ms")
            .note(accepts.text()),
    );
    Ok(())
}

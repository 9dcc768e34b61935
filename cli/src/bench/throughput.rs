//! Jobs from submission to their end, and where the CPU time goes.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use muster_proto::v1::JobState;

use super::load::{Kind, Load};
use super::machine::{cpu_ms, f64_of};
use super::report::{Figure, Report, rate};
use super::{Plan, Stand};

/// Above this the benchmark is stuck, not slow.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let stand = plan.cluster(&["--nodes=4", "--cpus-per-node=16", "--mem-per-node=64G"])?;
    let kind = Kind::new("bench", stand.dir());
    let singles = plan.amount(2_000, 50);
    let what = "`true` jobs end to end, submitted singly by 8 clients";
    run(report, &stand, what, ">= 200", singles, |load| load.submit(&kind, 8, singles).map(drop))?;
    let tasks = plan.amount(5_000, 50);
    let array = kind.clone().array(tasks);
    let what = "`true` jobs end to end, as one array";
    run(report, &stand, what, ">= 750", tasks, |load| load.submit(&array, 1, 1).map(drop))
}

fn run(
    report: &mut Report,
    stand: &Stand,
    what: &str,
    aim: &'static str,
    count: usize,
    submit: impl Fn(&Load<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let load = Load::new(stand.cluster())?;
    let completed = |load: &Load<'_>| -> anyhow::Result<usize> {
        Ok(load.list(true)?.iter().filter(|job| job.state() == JobState::Completed).count())
    };
    let agents = stand.cluster().agents();
    let agents_ms = || agents.iter().map(|pid| cpu_ms(*pid)).sum::<anyhow::Result<u64>>();
    let before = completed(&load)?;
    let (controller, nodes) = (cpu_ms(stand.controller()?)?, agents_ms()?);
    let begin = Instant::now();
    submit(&load)?;
    let accepted = begin.elapsed();
    load.wait_until_empty(PATIENCE)?;
    let took = begin.elapsed();
    let ended = completed(&load)? - before;
    if ended != count {
        bail!("{ended} of {count} jobs completed");
    }
    ensure!(!agents.is_empty(), "no agent runs");
    let each = |now: u64, then: u64| -> anyhow::Result<f64> {
        Ok(f64_of(usize::try_from(now.saturating_sub(then))?) / f64_of(count))
    };
    report.add(Figure::new(format!("{what} ({count})"), rate(count, took), "/s").aim(aim).note(
        format!(
            "accepted after {:.2} s, ended after {:.2} s",
            accepted.as_secs_f64(),
            took.as_secs_f64()
        ),
    ));
    let controller = each(cpu_ms(stand.controller()?)?, controller)?;
    report.add(Figure::new("  of it CPU time of the controller, a job", controller, "ms"));
    report.add(Figure::new(
        "  of it CPU time of the agents and what they waited for, a job",
        each(agents_ms()?, nodes)?,
        "ms",
    ));
    Ok(())
}

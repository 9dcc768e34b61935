//! Submissions, and what a long queue does to them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::JobState;

use super::load::{Kind, Load, Submitted};
use super::machine::{f64_of, resident};
use super::report::{Figure, Latencies, Report, rate};
use super::{Plan, Stand};

const NODES: u32 = 4;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let stand = plan.cluster(&["--nodes=4", "--cpus-per-node=64", "--mem-per-node=256G"])?;
    let load = Load::new(stand.cluster())?;
    // Full nodes: what is submitted waits, and every pass looks at it.
    let block = load.submit(&Kind::new("blocker", stand.dir()).blocker(NODES), 1, 1)?;
    load.wait_for(block.last, JobState::Running)?;
    let kind = Kind::new("bench", stand.dir());
    rates(plan, report, &load, &kind, "")?;
    commands(plan, report, &stand)?;
    arrays(plan, report, &stand, &load)?;
    long_queue(plan, report, &stand, &load, &kind)
}

fn show(report: &mut Report, what: String, done: &Submitted, aim: Option<&'static str>) {
    let mut figure =
        Figure::new(what, rate(done.count, done.took), "/s").note(done.latencies.text());
    if let Some(aim) = aim {
        figure = figure.aim(aim);
    }
    report.add(figure);
}

fn rates(
    plan: &Plan,
    report: &mut Report,
    load: &Load<'_>,
    kind: &Kind,
    when: &str,
) -> anyhow::Result<()> {
    for (clients, count, aim) in
        [(1, 2_000, Some("the disk's")), (8, 8_000, None), (64, 30_000, Some(">= 5000"))]
    {
        let done = load.submit(kind, clients, plan.amount(count, 100))?;
        show(report, format!("durable submissions by API, {clients} clients{when}"), &done, aim);
    }
    Ok(())
}

/// One run of a Slurm-named command, its output thrown away.
fn run(stand: &Stand, words: &[&str]) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let status = Command::new(stand.cluster().layout.bin().join(words[0]))
        .args(&words[1..])
        .current_dir(stand.dir())
        .env(muster_config::CONFIG_VARIABLE, stand.cluster().layout.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("run {}", words[0]))?;
    ensure!(status.success(), "`{}` ended with {status}", words.join(" "));
    Ok(begin.elapsed())
}

fn script(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("bench.sh");
    std::fs::write(&path, "#!/bin/sh\n#SBATCH -o /dev/null\ntrue\n")
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn commands(plan: &Plan, report: &mut Report, stand: &Stand) -> anyhow::Result<()> {
    let script = script(stand.dir())?;
    let mut latencies = Latencies::new();
    for _ in 0..plan.amount(300, 10) {
        latencies.record(run(stand, &["sbatch", &script])?);
    }
    report.add(
        Figure::new("sbatch, one after another: p50", latencies.ms(50.0), "ms")
            .aim("< 5")
            .note(latencies.text()),
    );
    let (threads, each) = (16, plan.amount(60, 2));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    (0..each).try_for_each(|_| run(stand, &["sbatch", &script]).map(drop))
                })
            })
            .collect();
        all.into_iter().try_for_each(|thread| thread.join().expect("no panic inside"))
    })?;
    let per_second = rate(threads * each, begin.elapsed());
    report.add(Figure::new("sbatch, 16 at once", per_second, "/s"));
    Ok(())
}

fn arrays(plan: &Plan, report: &mut Report, stand: &Stand, load: &Load<'_>) -> anyhow::Result<()> {
    let size = plan.amount(10_000, 100);
    let kind = Kind::new("array", stand.dir()).held().array(size);
    let done = load.submit(&kind, 1, plan.amount(20, 2))?;
    report.add(
        Figure::new(format!("array of {size} tasks accepted: p50"), done.latencies.ms(50.0), "ms")
            .aim("< 20")
            .note(done.latencies.text()),
    );
    Ok(())
}

/// 100,000 pending jobs: what they cost, and whether anything became slower.
fn long_queue(
    plan: &Plan,
    report: &mut Report,
    stand: &Stand,
    load: &Load<'_>,
    kind: &Kind,
) -> anyhow::Result<()> {
    let count = plan.amount(100_000, 500);
    let before = resident(stand.controller()?)?;
    let done = load.stream(kind, 8, count)?;
    show(report, format!("durable submissions on 8 streams, up to {count} pending"), &done, None);
    let grown = resident(stand.controller()?)?.saturating_sub(before);
    let each = f64_of(usize::try_from(grown)?) / f64_of(count) / 1024.0;
    report.add(Figure::new("controller memory a pending job", each, "KiB").aim("<= 2"));
    squeue(plan, report, stand, load, "no pass")?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Submissions wake the pass: while they come, passes run one after another.
        let submitter = scope.spawn(|| -> anyhow::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                load.submit(kind, 2, 20)?;
            }
            Ok(())
        });
        let first = load.ping().map(|ping| ping.passes);
        let shown = squeue(plan, report, stand, load, "passes running");
        stop.store(true, Ordering::Relaxed);
        submitter.join().expect("no panic inside")?;
        shown?;
        let passes = load.ping()?.passes.saturating_sub(first?);
        ensure!(passes > 0, "no pass ran while squeue was measured");
        Ok::<_, anyhow::Error>(())
    })?;
    rates(plan, report, load, kind, &format!(", {count} pending"))
}

fn squeue(
    plan: &Plan,
    report: &mut Report,
    stand: &Stand,
    load: &Load<'_>,
    when: &str,
) -> anyhow::Result<()> {
    let count = load.list(false)?.len();
    let mut by_api = Latencies::new();
    let mut by_command = Latencies::new();
    for _ in 0..plan.amount(7, 2) {
        let begin = Instant::now();
        load.list(false)?;
        by_api.record(begin.elapsed());
        by_command.record(run(stand, &["squeue"])?);
    }
    let figure = |what: &str, latencies: &Latencies| {
        Figure::new(format!("{what} of {count} jobs, {when}: p50"), latencies.ms(50.0), "ms")
            .note(latencies.text())
    };
    report.add(figure("ListJobs", &by_api));
    report.add(figure("squeue", &by_command));
    Ok(())
}

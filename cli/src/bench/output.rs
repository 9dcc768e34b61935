//! Output of a step through one `srun`: how fast it comes, and whether anybody keeps it meanwhile.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::launch::{hold, srun};
use super::machine::most_resident;
use super::report::{Figure, Report};
use super::{Plan, Stand};

const NODES: u32 = 1;
/// What memory grows to without much output.
const LITTLE: u64 = 1 << 20;
/// A reader is away for so long, so that everything that may be under way is.
const AWAY: Duration = Duration::from_secs(1);
/// Between looks at memory. What is read is the most there ever was.
const LOOK: Duration = Duration::from_millis(20);

/// Peaks of resident memory, bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Peaks {
    srun: u64,
    agent: u64,
    shim: u64,
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let stand = plan.cluster(&["--nodes=1", "--cpus-per-node=8", "--mem-per-node=4G"])?;
    let job = hold(&stand, NODES)?;
    let little = pass(&stand, job, LITTLE)?.0;
    let bytes = plan.amount(1_000_000_000, 100_000_000);
    let (much, took) = pass(&stand, job, bytes)?;
    let megabytes = mega(bytes);
    report.add(
        Figure::new(
            format!("{megabytes:.0} MB of output through one srun"),
            megabytes / took.as_secs_f64(),
            "MB/s",
        )
        .note(format!("after {} s in which nobody read", AWAY.as_secs())),
    );
    for (who, before, peak) in [
        ("srun", little.srun, much.srun),
        ("the node's agent", little.agent, much.agent),
        ("the step's shim", little.shim, much.shim),
    ] {
        report.add(
            Figure::new(
                format!("{who}: peak memory beyond that with 1 MiB of output"),
                mega(peak.saturating_sub(before)),
                "MB",
            )
            .note(format!("from {:.1} to {:.1} MB", mega(before), mega(peak))),
        );
    }
    Ok(())
}

fn mega(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes of a benchmark")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// A step that writes so many bytes to a reader who is away at first.
fn pass(stand: &Stand, job: u32, bytes: u64) -> anyhow::Result<(Peaks, Duration)> {
    // The parent of a task is the shim that keeps what it writes.
    let task = format!("echo $PPID >&2; exec head -c {bytes} /dev/zero");
    let mut step = srun(stand, job, NODES)
        .args(["-N1", "-n1", "sh", "-c", &task])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run srun")?;
    let passed = watched(stand, &mut step, bytes);
    if passed.is_err() {
        // It may be what failed, or may have ended.
        let _ = step.kill();
    }
    let status = step.wait().context("wait for srun")?;
    let passed = passed?;
    ensure!(status.success(), "srun of {bytes} bytes ended with {status}");
    Ok(passed)
}

fn watched(stand: &Stand, step: &mut Child, bytes: u64) -> anyhow::Result<(Peaks, Duration)> {
    let agent = *stand.cluster().agents().first().context("the agent does not run")?;
    let srun = step.id().cast_signed();
    let mut line = String::new();
    let mut stderr = BufReader::new(step.stderr.take().context("srun has no stderr")?);
    stderr.read_line(&mut line).context("read what srun says")?;
    let shim: i32 = line.trim().parse().with_context(|| format!("srun says: {}", line.trim()))?;
    let mut stdout = step.stdout.take().context("srun has no stdout")?;
    let reader = std::thread::spawn(move || -> std::io::Result<(u64, Duration)> {
        std::thread::sleep(AWAY);
        let (mut buffer, mut total, begin) = (vec![0u8; 1 << 20], 0, Instant::now());
        loop {
            match stdout.read(&mut buffer)? {
                0 => return Ok((total, begin.elapsed())),
                length => total += length as u64,
            }
        }
    });
    let mut peaks = Peaks::default();
    while !reader.is_finished() {
        // One that has ended said its last before.
        let seen = |pid: i32, before: u64| most_resident(pid).unwrap_or(0).max(before);
        peaks = Peaks {
            srun: seen(srun, peaks.srun),
            agent: seen(agent, peaks.agent),
            shim: seen(shim, peaks.shim),
        };
        std::thread::sleep(LOOK);
    }
    let (total, took) = reader.join().expect("no panic inside").context("read from srun")?;
    ensure!(total == bytes, "{total} of {bytes} bytes came through srun");
    ensure!(peaks.srun > 0 && peaks.agent > 0 && peaks.shim > 0, "memory not seen: {peaks:?}");
    Ok((peaks, took))
}

//! The machine's own limits: no scheduler is faster than its disk syncs and its kernel spawns.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::Plan;
use super::report::{Figure, Latencies, Report, rate};

/// What a submission adds to a log: about so much.
const RECORD: usize = 1024;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    report.add(Figure::new("machine: CPUs", f64_of(cpus), ""));
    let sync = fdatasync(plan)?;
    report.add(
        Figure::new(
            "machine: append 1 KiB and fdatasync, one after another",
            1000.0 / sync.ms(50.0),
            "/s",
        )
        .note(sync.text()),
    );
    let count = plan.amount(500, 20);
    let one = spawn(count)?;
    report.add(Figure::new(
        "machine: posix_spawn and wait of `true`, one after another",
        one,
        "/s",
    ));
    let begin = Instant::now();
    let threads: Vec<_> = (0..cpus).map(|_| std::thread::spawn(move || spawn(count))).collect();
    for thread in threads {
        thread.join().expect("no panic inside")?;
    }
    report.add(Figure::new(
        format!("machine: the same, {cpus} at once"),
        rate(count * cpus, begin.elapsed()),
        "/s",
    ));
    Ok(())
}

fn fdatasync(plan: &Plan) -> anyhow::Result<Latencies> {
    let path = plan.dir.join(format!("muster-bench-sync-{}", std::process::id()));
    let mut file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    // Removed at once: a benchmark that is interrupted leaves nothing.
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    let mut latencies = Latencies::new();
    for _ in 0..plan.amount(500, 20) {
        let begin = Instant::now();
        file.write_all(&[7u8; RECORD])?;
        file.sync_data()?;
        latencies.record(begin.elapsed());
    }
    Ok(latencies)
}

/// The standard library spawns a plain command by posix_spawn.
fn spawn(count: usize) -> anyhow::Result<f64> {
    let begin = Instant::now();
    for _ in 0..count {
        Command::new("/bin/true").stdin(Stdio::null()).status().context("run /bin/true")?;
    }
    Ok(rate(count, begin.elapsed()))
}

/// Resident memory of a process, bytes.
pub(super) fn resident(pid: i32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it ever was, bytes.
pub(super) fn most_resident(pid: i32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: i32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("no {name} in {path}"))
}

/// CPU time of a process and of its children that have been waited for, ms.
pub(super) fn cpu_ms(pid: i32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name in brackets may hold spaces: fields are counted behind it, from the state (3).
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 =
        (11..15).filter_map(|i| fields.get(i)).filter_map(|f| f.parse::<u64>().ok()).sum();
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .unwrap_or(100);
    Ok(ticks * 1000 / second)
}

pub(super) fn f64_of(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let value = count as f64;
    value
}

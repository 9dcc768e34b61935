//! Steps inside an allocation: from `srun` on the command line to its end, and how soon a step that
//! waits for another begins.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::JobState;

use super::load::{Kind, Load};
use super::machine::{cpu_ms, f64_of};
use super::report::{Figure, Latencies, Report};
use super::{Plan, Stand};

/// Nodes of the cluster, all of this machine.
const NODES: u32 = 16;
/// How long a step of the line of waiting ones lasts.
const TURN: Duration = Duration::from_secs(1);

pub(super) fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let nodes = format!("--nodes={NODES}");
    let stand = plan.cluster(&[&nodes, "--cpus-per-node=64", "--mem-per-node=64G"])?;
    let job = hold(&stand, NODES)?;
    // What only the first step of an agent does (its launcher starts) is no part of the rest.
    run(&stand, job, &["-N16", "-n16"])?;
    let rows: [(&str, &[&str], &'static str, usize); 3] = [
        ("srun of 1 task", &["-N1", "-n1"], "< 20", 200),
        ("srun of 16 tasks on 16 nodes", &["-N16", "-n16"], "< 60", 50),
        ("srun of 512 tasks on 16 nodes", &["-N16", "-n512"], "< 400", 10),
    ];
    for (what, words, aim, count) in rows {
        let agents = stand.cluster().agents();
        let agents_ms = || agents.iter().map(|pid| cpu_ms(*pid)).sum::<anyhow::Result<u64>>();
        let (before, own) = (agents_ms()?, children_ms()?);
        let mut took = Latencies::new();
        let count = plan.amount(count, 3);
        for _ in 0..count {
            took.record(run(&stand, job, words)?);
        }
        let agents = f64_of(usize::try_from(agents_ms()?.saturating_sub(before))?) / f64_of(count);
        let own = (children_ms()? - own) / f64_of(count);
        report.add(
            Figure::new(format!("{what}, from start to end: p50"), took.ms(50.0), "ms")
                .aim(aim)
                .note(format!(
                    "{}; CPU of srun {own:.1} ms, of agents {agents:.1} ms",
                    took.text()
                )),
        );
    }
    turns(report, &stand, job)
}

/// A job that holds all of so many nodes, and runs.
pub(super) fn hold(stand: &Stand, nodes: u32) -> anyhow::Result<u32> {
    let load = Load::new(stand.cluster())?;
    let held = load.submit(&Kind::new("hold", stand.dir()).blocker(nodes), 1, 1)?;
    load.wait_for(held.last, JobState::Running)?;
    Ok(held.last)
}

/// Four steps of one second that fit two at a time: with nothing lost between them they take two.
fn turns(report: &mut Report, stand: &Stand, job: u32) -> anyhow::Result<()> {
    let seconds = TURN.as_secs().to_string();
    let half = ["-N1", "-n1", "-c32", "--exact", "-w", "n1"];
    let begin = Instant::now();
    let steps: Vec<Child> = (0..4)
        .map(|_| srun(stand, job, NODES).args(half).args(["sleep", &seconds]).spawn())
        .collect::<Result<_, _>>()
        .context("run srun")?;
    for mut step in steps {
        let status = step.wait().context("wait for srun")?;
        ensure!(status.success(), "a step that waited ended with {status}");
    }
    let beyond = begin.elapsed().saturating_sub(TURN * 2);
    report.add(
        Figure::new("four steps of 1 s, two at a time: beyond the 2 s", ms(beyond), "ms")
            .note("what start, wait and change cost together"),
    );
    Ok(())
}

/// CPU time of the commands that were run and waited for, ms.
fn children_ms() -> anyhow::Result<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).context("read the CPU time of commands")?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a benchmark")]
    let ms = |time: nix::sys::time::TimeVal| {
        (time.tv_sec() * 1_000_000 + time.tv_usec()) as f64 / 1000.0
    };
    Ok(ms(used.user_time()) + ms(used.system_time()))
}

fn ms(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

/// `srun` as a script of the job would call it.
pub(super) fn srun(stand: &Stand, job: u32, nodes: u32) -> Command {
    let mut command = Command::new(stand.cluster().layout.bin().join("srun"));
    command
        .current_dir(stand.dir())
        .env(muster_config::CONFIG_VARIABLE, stand.cluster().layout.config())
        .env("SLURM_JOB_ID", job.to_string())
        .env("SLURM_JOB_NODELIST", format!("n[1-{nodes}]"))
        .env("SLURM_NNODES", nodes.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn run(stand: &Stand, job: u32, words: &[&str]) -> anyhow::Result<Duration> {
    let mut command = srun(stand, job, NODES);
    command.args(words).arg("/bin/true");
    let begin = Instant::now();
    let status = command.status().context("run srun")?;
    ensure!(status.success(), "srun {} ended with {status}", words.join(" "));
    Ok(begin.elapsed())
}

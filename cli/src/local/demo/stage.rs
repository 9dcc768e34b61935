//! Where the demo plays: a cluster, Slurm's commands on it, and the progress shown meanwhile.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::v1::{Job, JobState};

use super::super::ask::Ask;
use super::super::cluster::Cluster;

/// How often the state is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// The cluster of the demo.
pub(super) struct Stage {
    cluster: Cluster,
    ask: Ask,
    /// Where the jobs' output goes.
    pub(super) output: PathBuf,
}

impl Stage {
    /// Starts the cluster.
    pub(super) fn build(dir: &Path) -> anyhow::Result<Stage> {
        let begin = Instant::now();
        say("A cluster of 4 nodes on this machine, each declaring 8 CPUs and 4 GPUs:");
        let options =
            "--nodes=4 --cpus-per-node=8 --mem-per-node=8G --gpus-per-node=4 --gpu-type=demo";
        typed(&format!("muster up {options}"));
        let words: Vec<&str> = options.split(' ').collect();
        let cluster = Cluster::start(dir, &words)?;
        say(&format!("ready after {:.2} s", begin.elapsed().as_secs_f64()));
        let output = cluster.layout.dir().join("output");
        std::fs::create_dir(&output).with_context(|| format!("create {}", output.display()))?;
        let ask = Ask::new(&cluster.config)?;
        Ok(Stage { cluster, ask, output })
    }

    /// Runs one of Slurm's commands as a user would, and returns what it printed.
    pub(super) fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let (name, rest) = words.split_first().context("a command has a name")?;
        let mut command = Command::new(self.cluster.layout.bin().join(name));
        command
            .args(rest)
            .current_dir(&self.output)
            .env(muster_config::CONFIG_VARIABLE, self.cluster.layout.config());
        let out = command.output().with_context(|| format!("run {name}"))?;
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        if !out.status.success() {
            bail!("`{}` ended with {}: {said}", words.join(" "), out.status);
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Submits a job, shown as a user would type it; returns its number.
    pub(super) fn submit(&self, words: &[&str]) -> anyhow::Result<u32> {
        let shown: Vec<String> =
            words.iter().map(|word| super::super::links::quoted(word)).collect();
        typed(&format!("sbatch {}", shown.join(" ")));
        let mut line = vec!["sbatch"];
        line.extend(words);
        let answer = self.command(&line)?;
        say(&answer);
        answer
            .rsplit(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no job number in {answer:?}"))
    }

    /// Waits until `done` says so of the jobs; false if it does not within `patience`.
    pub(super) fn wait(
        &self,
        what: &str,
        patience: Duration,
        done: impl Fn(&[Job]) -> bool,
    ) -> anyhow::Result<bool> {
        let progress = Progress::new(what);
        let deadline = Instant::now() + patience;
        loop {
            let jobs = self.ask.jobs(true)?;
            progress.show(&jobs);
            if done(&jobs) {
                progress.end(&jobs);
                return Ok(true);
            }
            if Instant::now() > deadline {
                progress.end(&jobs);
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// kill -9 of the controller, and its restart.
    pub(super) fn crash_controller(&self) -> anyhow::Result<Duration> {
        self.cluster.crash_controller()?;
        let begin = Instant::now();
        self.cluster.start_controller()?;
        self.cluster.wait_until_ready()?;
        Ok(begin.elapsed())
    }

    /// Takes everything down.
    pub(super) fn strike(self) -> anyhow::Result<()> {
        self.cluster.stop()
    }
}

/// A line of the story.
pub(super) fn say(text: &str) {
    println!("  {text}");
}

/// A line as a user would type it.
pub(super) fn typed(text: &str) {
    println!("\n$ {text}");
}

/// A bar on a terminal; elsewhere one line at the end.
struct Progress {
    bar: Option<ProgressBar>,
    what: String,
}

impl Progress {
    fn new(what: &str) -> Progress {
        let bar = std::io::stdout().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {msg} [{bar:30}] {pos}/{len}");
            let bar = ProgressBar::new(0);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress { bar, what: what.to_owned() }
    }

    fn show(&self, jobs: &[Job]) {
        let Some(bar) = &self.bar else { return };
        let count = Count::of(jobs);
        bar.set_length(count.all);
        bar.set_position(count.ended);
        bar.set_message(format!("{}: {}", self.what, count.text()));
        bar.tick();
    }

    fn end(&self, jobs: &[Job]) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{}: {}", self.what, Count::of(jobs).text()));
    }
}

#[derive(Default)]
struct Count {
    all: u64,
    waiting: u64,
    running: u64,
    ended: u64,
}

impl Count {
    fn of(jobs: &[Job]) -> Count {
        let mut count = Count::default();
        for job in jobs {
            let weight = tasks(job);
            count.all += weight;
            match job.state() {
                JobState::Pending | JobState::Requeued => count.waiting += weight,
                JobState::Configuring
                | JobState::Running
                | JobState::Suspended
                | JobState::Completing => count.running += weight,
                _ => count.ended += weight,
            }
        }
        count
    }

    fn text(&self) -> String {
        format!("{} waiting, {} running, {} ended", self.waiting, self.running, self.ended)
    }
}

/// How many tasks a row stands for: the pending rest of an array is one row.
fn tasks(job: &Job) -> u64 {
    let spec = muster_model::ArraySpec::parse(&job.array_tasks, u32::MAX);
    spec.map_or(1, |spec| spec.indices.len().max(1))
}

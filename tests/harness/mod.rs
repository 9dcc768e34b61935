//! A cluster of real daemons for a test: started by the real binary in a directory of its own,
//! used through Slurm's names as a user would, and taken down when it is dropped, however the
//! test ends.

pub(crate) mod lab;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything takes that is not stuck, on a machine busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(30);

/// A user who is neither root nor the owner of anything.
pub(crate) const STRANGER: u32 = 65_534;

/// What a command left behind.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A row of `sacct -X`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) exit: String,
}

impl Row {
    /// The first word: `CANCELLED by 0` is CANCELLED.
    pub(crate) fn state(&self) -> &str {
        self.state.split(' ').next().unwrap_or_default()
    }
}

/// Words that mean that a job is not over.
const UNFINISHED: [&str; 6] =
    ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED"];

/// A running cluster.
pub(crate) struct Cluster {
    place: tempfile::TempDir,
    /// File systems mounted for the test.
    mounts: Mutex<Vec<PathBuf>>,
}

/// Whether the tests may do what only root can; says so when they may not.
pub(crate) fn root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped without root: {what}");
    }
    root
}

impl Cluster {
    /// Two nodes of four CPUs.
    pub(crate) fn start() -> Cluster {
        Cluster::with(&["--nodes=2", "--cpus-per-node=4", "--mem-per-node=4G"])
    }

    /// A cluster of this shape.
    pub(crate) fn with(shape: &[&str]) -> Cluster {
        let cluster = Cluster::unstarted();
        cluster.up(shape);
        cluster
    }

    /// A cluster whose config is `edit`ed before its daemons read it.
    pub(crate) fn edited(shape: &[&str], edit: impl Fn(&Cluster, String) -> String) -> Cluster {
        let cluster = Cluster::with(shape);
        cluster.down();
        let path = cluster.dir().join("muster.toml");
        let text = edit(&cluster, fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        cluster.up(&[]);
        cluster
    }

    fn unstarted() -> Cluster {
        let place = tempfile::Builder::new().prefix("muster-e2e-").tempdir().unwrap();
        // Other users must get through to the sockets and the commands.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = Cluster { place, mounts: Mutex::default() };
        for dir in [cluster.dir(), cluster.work()] {
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_muster"));
        // The build directory may be closed to other users.
        if fs::hard_link(built, cluster.program()).is_err() {
            fs::copy(built, cluster.program()).unwrap();
        }
        cluster
    }

    /// Where the cluster lives.
    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path().join("c")
    }

    /// Where commands run, and so where jobs leave their output.
    pub(crate) fn work(&self) -> PathBuf {
        self.place.path().join("work")
    }

    /// The binary under test.
    pub(crate) fn program(&self) -> PathBuf {
        self.place.path().join("muster")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("run/controller.sock")
    }

    /// Unmounts this when the daemons are gone.
    pub(crate) fn unmount_at_end(&self, path: &Path) {
        self.mounts.lock().unwrap().push(path.to_owned());
    }

    /// Starts what does not run.
    pub(crate) fn up(&self, shape: &[&str]) {
        let said = self.try_up(shape);
        assert_eq!(said.code, 0, "muster up: {}{}", said.out, said.err);
    }

    pub(crate) fn try_up(&self, shape: &[&str]) -> Said {
        let mut command = Command::new(self.program());
        command.arg("up").arg("--dir").arg(self.dir()).args(shape);
        finish(command)
    }

    /// Stops the daemons; jobs go on.
    pub(crate) fn down(&self) {
        let mut command = Command::new(self.program());
        command.arg("down").arg("--dir").arg(self.dir());
        let said = finish(command);
        assert_eq!(said.code, 0, "muster down: {}{}", said.out, said.err);
    }

    /// Pid of a daemon: `controller` or a node's name.
    pub(crate) fn pid(&self, daemon: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.dir().join(format!("run/{daemon}.pid"))).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?);
        kill(pid, None).is_ok().then_some(pid)
    }

    /// kill -9.
    pub(crate) fn crash(&self, daemon: &str) {
        let pid = self.pid(daemon).unwrap_or_else(|| panic!("the {daemon} does not run"));
        kill(pid, Signal::SIGKILL).unwrap();
        // Gone, or a corpse that its parent has not buried yet.
        wait(&format!("the end of the {daemon}"), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }

    /// Every daemon runs and the controller answers.
    pub(crate) fn assert_alive(&self) {
        let said = self.run(&["scontrol", "ping"]);
        assert!(said.code == 0 && said.out.contains("UP"), "{said:?}");
        for entry in fs::read_dir(self.dir().join("run")).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(daemon) = name.strip_suffix(".pid") {
                assert!(self.pid(daemon).is_some(), "{daemon} is dead: {}", self.log(daemon));
            }
        }
    }

    pub(crate) fn log(&self, daemon: &str) -> String {
        fs::read_to_string(self.dir().join(format!("log/{daemon}.log"))).unwrap_or_default()
    }

    /// A command by its Slurm name, not yet run.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.dir().join("bin").join(words[0]));
        command
            .args(&words[1..])
            .current_dir(self.work())
            .env("PATH", self.path())
            .env("MUSTER_CONF", self.dir().join("muster.toml"));
        command
    }

    /// Where the commands are found by scripts: as `muster env` has it.
    fn path(&self) -> String {
        let own = std::env::var("PATH").unwrap_or_default();
        format!("{}:{own}", self.dir().join("bin").display())
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        finish(self.command(words))
    }

    /// The same, as another user.
    pub(crate) fn run_as(&self, uid: u32, words: &[&str]) -> Said {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"])
            .arg(self.dir().join("bin").join(words[0]))
            .args(&words[1..])
            .current_dir("/tmp")
            .env("MUSTER_CONF", self.dir().join("muster.toml"));
        finish(command)
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "{words:?}: {}{}", said.out, said.err);
        said.out.trim_end().to_owned()
    }

    /// Submits, and returns the job's number.
    #[track_caller]
    pub(crate) fn submit(&self, words: &[&str]) -> u32 {
        let mut line = vec!["sbatch", "--parsable"];
        line.extend(words);
        let out = self.ok(&line);
        out.parse().unwrap_or_else(|_| panic!("{words:?}: no job number in {out:?}"))
    }

    /// A script in the directory where commands run.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        fs::write(self.work().join(name), text).unwrap();
        name.to_owned()
    }

    /// What a job wrote.
    pub(crate) fn text(&self, file: &str) -> String {
        let path = self.work().join(file);
        fs::read_to_string(&path).unwrap_or_else(|fault| format!("<{}: {fault}>", path.display()))
    }

    /// Runs a batch script to its end; what it wrote.
    #[track_caller]
    pub(crate) fn batch(&self, options: &[&str], text: &str) -> String {
        let file = self.script("steps.sh", &format!("#!/bin/bash\n{text}\n"));
        let mut words = options.to_vec();
        words.extend(["-o", "steps.out", &file]);
        let job = self.submit(&words);
        self.ended(job);
        self.text("steps.out")
    }

    /// Rows of `sacct`, all of them with `-D` in `more`.
    #[track_caller]
    pub(crate) fn rows(&self, more: &[&str]) -> Vec<Row> {
        let mut line =
            vec!["sacct", "-X", "-n", "-P", "-S", "now-1days", "-o", "JobID,State,ExitCode"];
        line.extend(more);
        let table = self.ok(&line);
        table
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split('|').collect();
                assert_eq!(fields.len(), 3, "sacct printed {line:?}");
                let field = |i: usize| fields[i].to_owned();
                Row { id: field(0), state: field(1), exit: field(2) }
            })
            .collect()
    }

    /// The row of one job.
    #[track_caller]
    pub(crate) fn row(&self, job: u32) -> Row {
        let rows = self.rows(&["-j", &job.to_string()]);
        let found = rows.iter().find(|row| row.id == job.to_string());
        found.unwrap_or_else(|| panic!("job {job} has no row: {rows:?}")).clone()
    }

    /// Waits for the end of a job or of all tasks of an array; returns its rows.
    #[track_caller]
    pub(crate) fn ended(&self, job: u32) -> Vec<Row> {
        let id = job.to_string();
        let mut rows = Vec::new();
        wait_or(
            &format!("the end of job {job}"),
            || format!("{rows:?}", rows = self.rows(&["-j", &id])),
            || {
                rows = self.rows(&["-j", &id]);
                !rows.is_empty() && rows.iter().all(|row| !UNFINISHED.contains(&row.state()))
            },
        );
        rows
    }

    /// Waits for the end of a single job; returns its state and exit code.
    #[track_caller]
    pub(crate) fn outcome(&self, job: u32) -> (String, String) {
        let rows = self.ended(job);
        assert_eq!(rows.len(), 1, "{rows:?}");
        (rows[0].state().to_owned(), rows[0].exit.clone())
    }

    /// Waits until squeue shows a job in a state (`R`, `PD`, ...).
    #[track_caller]
    pub(crate) fn until(&self, job: u32, state: &str) {
        let id = job.to_string();
        let shown = || self.run(&["squeue", "-h", "-t", "all", "-j", &id, "-o", "%t %r"]).out;
        wait_or(&format!("job {job} to be {state}"), shown, || {
            shown().split_whitespace().next() == Some(state)
        });
    }

    /// Waits until a job has written this to a file.
    #[track_caller]
    pub(crate) fn until_written(&self, file: &str, part: &str) {
        wait_or(
            &format!("{part:?} in {file}"),
            || self.text(file),
            || self.text(file).contains(part),
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(self.dir().join("log")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                println!("--- {}\n{tail}", entry.path().display());
            }
        }
        let mut down = Command::new(self.program());
        down.arg("down").arg("--kill-jobs").arg("--dir").arg(self.dir());
        finish(down);
        // A test may have left the cluster in a state in which nobody obeys.
        for pid in processes_of(self.place.path()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for mount in self.mounts.lock().unwrap().iter() {
            let mut umount = Command::new("umount");
            umount.arg("-l").arg(mount);
            finish(umount);
        }
    }
}

/// Processes that execute or work in this directory: daemons, shims, and jobs left without them.
pub(crate) fn processes_of(place: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = |pid: i32, link: &str| {
        fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|path| path.starts_with(place))
    };
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| inside(*pid, "exe") || inside(*pid, "cwd"))
        .map(Pid::from_raw)
        .collect()
}

/// Runs a command without input.
pub(crate) fn finish(mut command: Command) -> Said {
    let out = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|fault| panic!("run {:?}: {fault}", command.get_program()));
    said(&out)
}

/// Runs a command with this input.
pub(crate) fn finish_with(mut command: Command, input: &[u8]) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().expect("piped");
    // A command that refuses its arguments need not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    said(&child.wait_with_output().unwrap())
}

fn said(out: &std::process::Output) -> Said {
    Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait(what: &str, holds: impl FnMut() -> bool) {
    wait_or(what, String::new, holds);
}

/// Waits until something holds; a test that waits in vain says what it saw last.
#[track_caller]
pub(crate) fn wait_or(what: &str, seen: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}: {}", seen());
        std::thread::sleep(LOOK);
    }
}

/// Lines in an order of their own.
pub(crate) fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Whether a process is there and not just unburied.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Who owns a file.
pub(crate) fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display())).uid()
}

//! One slice's group: its processes as one thing, to join, signal, freeze, kill and wait for.
//!
//! The kernel owns the state; a `Group` is only paths, so that an agent started anew opens the
//! group by its name and goes on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::detect::{Control, Hierarchies, Version};
use crate::kept::Kept;
use crate::usage::{self, Usage};
use crate::{Error, Limits, cpuset, device_program, devices, files, freezer, memory, pids};

/// The members of a group, one to a line; a number written joins.
const PROCS: &str = "cgroup.procs";
/// Rounds of a v1 kill: a fork bomb that outruns one frozen round cannot outrun the freezer twice,
/// the rest is slack for tasks that could not freeze.
const KILL_ROUNDS: u32 = 8;
/// Charged to a group that is as new: the kernel's own small change.
const MEMORY_LEFT_BYTES: u64 = 4 << 20;
/// Between looks at a v1 group that is emptying.
const EMPTY_PAUSE: Duration = Duration::from_millis(2);

/// The group of one slice, in every hierarchy it needs, or one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub(crate) name: String,
    pub(crate) cpuset: Option<PathBuf>,
    pub(crate) memory: Option<Control>,
    pub(crate) pids: Option<PathBuf>,
    pub(crate) devices: Option<PathBuf>,
    pub(crate) usage: Option<Control>,
    pub(crate) tracker: Control,
    /// Where a group inside another has nothing of its own, its members are the other's there.
    pub(crate) outer: Vec<PathBuf>,
    pub(crate) kept: Kept,
}

impl Group {
    pub(crate) fn create(all: &Hierarchies, name: &str, limits: &Limits) -> Result<Self, Error> {
        let group = Self::within(all, name, limits)?;
        match group.make(all, limits) {
            Ok(()) => Ok(group),
            Err(e) => {
                // What was made before the failure; the failure is the news.
                let _ = group.remove();
                Err(e)
            }
        }
    }

    /// The paths of a group with these limits; touches nothing.
    fn within(all: &Hierarchies, name: &str, limits: &Limits) -> Result<Self, Error> {
        check_name(name)?;
        let place = |c: &Option<Control>, wanted: bool| {
            c.as_ref()
                .filter(|_| wanted)
                .map(|c| Control { version: c.version, dir: c.dir.join(name) })
        };
        let dir = |c: &Option<Control>, wanted: bool| place(c, wanted).map(|c| c.dir);
        let tracker = place(&all.tracker, true).expect("detection demands a tracker");
        Ok(Self {
            name: name.to_owned(),
            cpuset: dir(&all.cpuset, limits.cpus.is_some() || limits.mems.is_some()),
            memory: place(&all.memory, limits.memory_bytes.is_some()),
            pids: dir(&all.pids, limits.pids_max.is_some()),
            devices: dir(&all.devices, limits.devices.is_some()),
            usage: place(&all.usage, true),
            tracker,
            outer: Vec::new(),
            kept: Kept::default(),
        })
    }

    pub(crate) fn make(&self, all: &Hierarchies, limits: &Limits) -> Result<(), Error> {
        for dir in self.dirs() {
            files::make_dir(dir)?;
        }
        if let Some(dir) = &self.cpuset {
            cpuset::limit(dir, limits.cpus.as_deref(), limits.mems.as_deref())?;
        }
        if let (Some(control), Some(bytes)) = (&self.memory, limits.memory_bytes) {
            memory::limit(control.version, &control.dir, bytes)?;
        }
        if let (Some(dir), Some(max)) = (&self.pids, limits.pids_max) {
            pids::limit(dir, max)?;
        }
        if let (Some(dir), Some(rules)) = (&self.devices, &limits.devices) {
            match all.devices.as_ref().map(|c| c.version) {
                Some(Version::V1) => devices::limit_v1(dir, rules)?,
                _ => device_program::attach(dir, rules)?,
            }
        }
        Ok(())
    }

    /// The group as found on disk, in whichever hierarchies it is.
    pub(crate) fn open(all: &Hierarchies, name: &str) -> Result<Option<Self>, Error> {
        Ok(Self::within(all, name, &everywhere())?.if_there())
    }

    /// What of it is on disk; none: nothing is.
    pub(crate) fn if_there(mut self) -> Option<Self> {
        let gone = |dir: &PathBuf| !dir.is_dir();
        for part in [&mut self.cpuset, &mut self.pids, &mut self.devices] {
            if part.as_ref().is_some_and(gone) {
                *part = None;
            }
        }
        for part in [&mut self.memory, &mut self.usage] {
            if part.as_ref().is_some_and(|c| gone(&c.dir)) {
                *part = None;
            }
        }
        let there = self.tracker.dir.is_dir() || self.dirs().any(Path::is_dir);
        there.then_some(self)
    }

    /// The group's name in the node's tree.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Each of the group's directories once: in v2 all controllers share one.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        let all = [
            self.cpuset.as_deref(),
            self.memory.as_ref().map(|c| c.dir.as_path()),
            self.pids.as_deref(),
            self.devices.as_deref(),
            self.usage.as_ref().map(|c| c.dir.as_path()),
        ];
        let first = Some(self.tracker.dir.as_path());
        let mut seen: Vec<&Path> = Vec::with_capacity(all.len() + 1);
        for dir in std::iter::once(first).chain(all).flatten() {
            if !seen.contains(&dir) {
                seen.push(dir);
            }
        }
        seen.into_iter()
    }

    /// Keeps its control files open, for a group that is joined and looked at many times.
    pub fn keep_open(&mut self) {
        let dirs: Vec<PathBuf> = self.dirs().map(Path::to_owned).collect();
        let procs = dirs.iter().map(|dir| dir.join(PROCS));
        let memory = self.memory.iter().flat_map(|c| {
            [memory::oom_file(c.version, &c.dir), memory::charged_file(c.version, &c.dir)]
        });
        let cpu = self.usage.iter().flat_map(|c| usage::cpu_files(c.version, &c.dir));
        self.kept = Kept::open(procs.chain(memory).chain(cpu).collect(), dirs);
    }

    /// Moves a process in; its later children are born there.
    pub fn join(&self, pid: Pid) -> Result<(), Error> {
        self.add(&pid.to_string())
    }

    /// Moves the calling process in. Before an exec, so that nothing of the job runs outside.
    pub fn join_self(&self) -> Result<(), Error> {
        self.add("0")
    }

    fn add(&self, pid: &str) -> Result<(), Error> {
        self.joined().try_for_each(|dir| self.kept.write(&dir.join(PROCS), pid))
    }

    /// Where a member is entered.
    fn joined(&self) -> impl Iterator<Item = &Path> {
        self.dirs().chain(self.outer.iter().map(PathBuf::as_path))
    }

    /// Files at whose beginning a process writes `0` to move in, as [`Group::join_self`] does: all
    /// of them, for one that can neither open files nor name errors meanwhile.
    pub fn doors(&self) -> Result<Vec<OwnedFd>, Error> {
        self.joined().map(|dir| self.kept.door(&dir.join(PROCS))).collect()
    }

    /// The processes of the group and of those inside it; none when the group is gone.
    pub fn procs(&self) -> Result<Vec<Pid>, Error> {
        let mut found = self.members()?;
        if self.has_inner() {
            inner_procs(&self.tracker.dir, &mut found)?;
        }
        Ok(found)
    }

    /// The processes of the group itself.
    pub(crate) fn members(&self) -> Result<Vec<Pid>, Error> {
        listed(self.kept.read(&self.tracker.dir.join(PROCS)))
    }

    /// Whether there are groups inside: a directory of control groups has a link for each beside
    /// its own two.
    pub(crate) fn has_inner(&self) -> bool {
        self.kept.metadata(&self.tracker.dir).is_ok_and(|m| m.nlink() > 2)
    }

    /// Whether no process is left, in it and inside it.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.procs()?.is_empty())
    }

    /// Sends a signal to every process but those excepted; says how many got it.
    pub fn signal(&self, signal: Signal, except: &[Pid]) -> Result<usize, Error> {
        let procs = self.procs()?;
        let wanted = procs.iter().filter(|pid| !except.contains(pid));
        Ok(wanted.filter(|pid| kill(**pid, signal).is_ok()).count())
    }

    /// Kills every process, those that fork meanwhile too; does not wait for their end.
    pub fn kill_all(&self) -> Result<(), Error> {
        if self.tracker.version == Version::V2 {
            match files::write(&self.tracker.dir.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // Before Linux 5.14 the file is not there: by freezing, as in v1.
                Err(_) if !self.tracker.dir.is_dir() => return Ok(()),
                Err(_) => {}
            }
        }
        for _ in 0..KILL_ROUNDS {
            if self.is_empty()? {
                return Ok(());
            }
            self.kill_frozen()?;
            sleep(EMPTY_PAUSE);
        }
        Ok(())
    }

    /// One round: stand still, kill all, and thaw, since v1 delivers SIGKILL at the thaw.
    fn kill_frozen(&self) -> Result<(), Error> {
        self.freeze()?;
        let settled = freezer::settle(self.tracker.version, &self.tracker.dir);
        let killed = self.signal(Signal::SIGKILL, &[]);
        self.thaw()?;
        settled?;
        killed.map(drop)
    }

    /// Waits until no process is left; says whether that came true in time.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool, Error> {
        let until = Instant::now() + timeout;
        // v2 wakes the watcher; v1 has only the list to look at.
        let events = match self.tracker.version {
            Version::V2 => File::open(self.tracker.dir.join("cgroup.events")).ok(),
            Version::V1 => None,
        };
        loop {
            // Re-armed before the look, so that an end between the look and the poll wakes.
            events.as_ref().map(rearm);
            if self.is_empty()? {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match &events {
                Some(file) => wait_event(file, left),
                None => sleep(EMPTY_PAUSE.min(left)),
            }
        }
    }

    /// Stops every process where it stands; complete a moment later.
    pub fn freeze(&self) -> Result<(), Error> {
        freezer::set(self.tracker.version, &self.tracker.dir, true)
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<(), Error> {
        freezer::set(self.tracker.version, &self.tracker.dir, false)
    }

    /// Whether all of the group stands still.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        freezer::is_frozen(self.tracker.version, &self.tracker.dir)
    }

    /// How many of its processes the kernel killed for memory; 0 where memory is not held.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        match &self.memory {
            Some(c) => {
                let text = self.kept.read(&memory::oom_file(c.version, &c.dir))?;
                Ok(memory::oom_kills(&text))
            }
            None => Ok(0),
        }
    }

    /// The most bytes that were charged to the group at once, page cache included; `None` where
    /// nothing counts that.
    #[must_use]
    pub fn peak_bytes(&self) -> Option<u64> {
        let control = self.memory.as_ref()?;
        let text = files::read(&memory::peak_file(control.version, &control.dir)).ok()?;
        text.trim().parse().ok()
    }

    /// What the group has used; `None` where nothing counts it.
    pub fn usage(&self) -> Result<Option<Usage>, Error> {
        let Some(control) = &self.usage else { return Ok(None) };
        let read = |path: &Path| self.kept.read(path);
        let (user, system) = usage::cpu(control.version, &control.dir, read)?;
        let resident_bytes = match &self.memory {
            Some(control) => memory::resident(control.version, &control.dir)?,
            None => 0,
        };
        Ok(Some(Usage { user, system, resident_bytes }))
    }

    /// Whether a group that has served one slice may serve another of the same limits: no process
    /// and no sub-group is left in it, and next to no memory is charged to it.
    pub fn is_as_new(&self) -> Result<bool, Error> {
        let alone = |dir: &Path| {
            // A directory of control groups has a link per sub-group beside its own two.
            self.kept.metadata(dir).is_ok_and(|m| m.nlink() <= 2)
        };
        if !self.is_empty()? || !self.dirs().all(alone) {
            return Ok(false);
        }
        match &self.memory {
            Some(control) => {
                let file = memory::charged_file(control.version, &control.dir);
                let charged = self.kept.read(&file)?.trim().parse().unwrap_or(u64::MAX);
                Ok(charged <= MEMORY_LEFT_BYTES)
            }
            None => Ok(true),
        }
    }

    /// CPU time in user mode and in the kernel since the group was made; `None` where nothing
    /// counts it.
    pub fn cpu_time(&self) -> Result<Option<(Duration, Duration)>, Error> {
        let read = |path: &Path| self.kept.read(path);
        self.usage.as_ref().map(|c| usage::cpu(c.version, &c.dir, read)).transpose()
    }

    /// Removes the empty group everywhere. Groups that the job made inside go too.
    pub fn remove(&self) -> Result<(), Error> {
        let mut first_failure = Ok(());
        for dir in self.dirs() {
            let removed = remove_tree(dir);
            first_failure = first_failure.and(removed);
        }
        match first_failure {
            Err(e) => match self.procs() {
                Ok(procs) if !procs.is_empty() => {
                    Err(Error::Busy { name: self.name.clone(), left: procs.len() })
                }
                _ => Err(e),
            },
            done => done,
        }
    }
}

/// Limits by which a group is looked for in every hierarchy.
pub(crate) fn everywhere() -> Limits {
    Limits {
        cpus: Some(String::new()),
        mems: None,
        memory_bytes: Some(0),
        pids_max: Some(0),
        devices: Some(devices::DeviceRules::default()),
    }
}

/// Adds the processes of the groups inside one.
fn inner_procs(dir: &Path, found: &mut Vec<Pid>) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let inner = entry.path();
            found.extend(listed(files::read(&inner.join(PROCS)))?);
            inner_procs(&inner, found)?;
        }
    }
    Ok(())
}

/// A list of members; a group that is gone has none.
fn listed(read: Result<String, Error>) -> Result<Vec<Pid>, Error> {
    match read {
        Ok(text) => {
            let numbers = text.lines().filter_map(|line| line.trim().parse().ok());
            Ok(numbers.filter(|pid| *pid > 0).map(Pid::from_raw).collect())
        }
        Err(Error::File { source, .. })
            if source.kind() == io::ErrorKind::NotFound
                || source.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

/// Removes a group; descends only when it is refused, which is where sub-groups are.
fn remove_tree(dir: &Path) -> Result<(), Error> {
    match std::fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    files::remove_dir(dir)
}

/// Reading the file makes poll wait for the next change.
fn rearm(mut events: &File) {
    let mut text = [0u8; 128];
    // A group that is gone answers ENODEV; the look at its members says so too.
    let _ = events.seek(SeekFrom::Start(0)).and_then(|_| events.read(&mut text));
}

/// Sleeps until the group's populated or frozen state changes.
fn wait_event(events: &File, timeout: Duration) {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(_) => sleep(EMPTY_PAUSE),
    }
}

/// One step of a path, with nothing that could leave the tree.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fine = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0', '\n']);
    if fine { Ok(()) } else { Err(Error::Name(name.to_owned())) }
}

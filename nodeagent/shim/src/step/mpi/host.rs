//! The process that hosts PMIx for the tasks of this node. The library has threads, and code of
//! others: it runs as the user, in the job's group, in a program executed anew.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use muster_proto::shim::v1::pmix_input::Kind as Tell;
use muster_proto::shim::v1::pmix_output::Kind as Told;
use muster_proto::shim::v1::{PmixInput, PmixOrder, PmixOutput, PmixTask};
use muster_proto::v1::{Aborted, Answer, Gathered, Question, User};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use prost::Message as _;

use super::super::child::Common;
use super::framed::Framed;
use super::{Layout, News};
use crate::child::default_signals;
use crate::identity;

/// Until it has to be ready: it looks at the machine, which is slow where the machine is busy.
const READY: Duration = Duration::from_secs(60);
/// For removing its files when no task is left.
const CLOSING: Duration = Duration::from_secs(5);
/// The answer to the order is this long at most, in bytes: the environments of its tasks.
const LONGEST: usize = 32 << 20;

/// This end of it.
#[derive(Debug)]
pub(super) struct Host {
    pid: Pid,
    /// `None`: closed, so that it ends.
    speech: Option<Framed>,
    tasks: Vec<PmixTask>,
    directory: String,
    user: User,
    ranks: Vec<u32>,
    closing_until: Option<Instant>,
    buried: bool,
    news: Vec<News>,
}

impl Host {
    /// Starts it and waits until it is ready for the tasks.
    pub(super) fn start(common: &Common<'_>, job: String, layout: Layout) -> Result<Self, String> {
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let (ours, theirs) = UnixStream::pair().map_err(|e| failed("make a socket pair", &e))?;
        let user = common.order.user.clone().unwrap_or_default();
        // SAFETY: the shim has one thread, so the child may do anything after the fork.
        let pid = match unsafe { fork() }.map_err(|e| failed("fork", &e))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(ours);
                let Err(text) = become_host(common, &theirs);
                let failed = PmixOutput { kind: Some(Told::Failed(text)) };
                let _ = write(&theirs, &failed.encode_to_vec());
                // SAFETY: ends this process at once; the shim's destructors are not for it.
                unsafe { libc::_exit(1) }
            }
        };
        drop(theirs);
        let ranks = layout.own().to_vec();
        let order = PmixOrder {
            namespace: format!("muster.{job}"),
            job,
            index: u32::try_from(layout.index).unwrap_or(u32::MAX),
            nodes: layout.nodes,
            library: common.order.pmix_library.clone(),
        };
        let order = PmixInput { kind: Some(Tell::Order(order)) };
        write(&ours, &order.encode_to_vec()).map_err(|e| failed("tell the PMIx host", &e))?;
        let ready = match first(&ours) {
            Ok(PmixOutput { kind: Some(Told::Ready(ready)) }) => ready,
            Ok(PmixOutput { kind: Some(Told::Failed(text)) }) => return Err(text),
            Ok(_) => return Err("the PMIx host speaks out of turn".to_owned()),
            Err(e) => return Err(failed("the PMIx host does not get ready", &e)),
        };
        if ready.tasks.len() != ranks.len() {
            return Err("the PMIx host has not prepared every task".to_owned());
        }
        let speech = Framed::new(ours).map_err(|e| failed("hear the PMIx host", &e))?;
        Ok(Self {
            pid,
            speech: Some(speech),
            tasks: ready.tasks,
            directory: ready.directory,
            user,
            ranks,
            closing_until: None,
            buried: false,
            news: Vec::new(),
        })
    }

    pub(super) fn environment(&self, local: usize) -> Vec<Vec<u8>> {
        let own = self.tasks.get(local).map(|task| task.environment.as_slice());
        own.unwrap_or_default().iter().map(|pair| pair.to_vec()).collect()
    }

    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let speech = self.speech.as_ref().filter(|speech| !speech.is_gone())?;
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, speech.wants_to_write());
        Some((speech.fd(), flags))
    }

    pub(super) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn local(&self, rank: u32) -> Option<usize> {
        self.ranks.iter().position(|own| *own == rank)
    }

    pub(super) fn hear(&mut self) {
        let Some(speech) = &mut self.speech else { return };
        speech.write();
        let heard: Vec<PmixOutput> = speech.hear();
        for message in heard {
            let news = match message.kind {
                Some(Told::Gather(gather)) => News::Gather(gather),
                Some(Told::Question(question)) => News::Question(question),
                Some(Told::Answer(answer)) => News::Answer(answer),
                Some(Told::Aborted(aborted)) => News::Aborted(aborted),
                Some(Told::Joined(rank)) => match self.local(rank) {
                    Some(local) => News::Joined(local),
                    None => continue,
                },
                Some(Told::Left(rank)) => match self.local(rank) {
                    Some(local) => News::Left(local),
                    None => continue,
                },
                Some(Told::Failed(text)) => self.lost(&text),
                Some(Told::Ready(_)) | None => continue,
            };
            self.news.push(news);
        }
    }

    /// The tasks cannot reach each other any more.
    fn lost(&self, text: &str) -> News {
        let task = self.ranks.first().copied().unwrap_or(0);
        News::Aborted(Aborted { task, code: Some(1), text: format!("has lost PMIx: {text}") })
    }

    fn say(&mut self, kind: Tell) {
        if let Some(speech) = &mut self.speech {
            speech.say(&PmixInput { kind: Some(kind) });
        }
    }

    pub(super) fn gathered(&mut self, gathered: Gathered) {
        self.say(Tell::Gathered(gathered));
    }

    pub(super) fn question(&mut self, question: Question) {
        self.say(Tell::Question(question));
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.say(Tell::Answer(answer));
    }

    /// A child has ended; whether it was this one.
    pub(super) fn buried(&mut self, pid: i32) -> bool {
        if pid != self.pid.as_raw() {
            return false;
        }
        self.buried = true;
        self.hear();
        let expected = self.closing_until.is_some();
        self.speech = None;
        if !expected {
            let lost = self.lost("its process has ended");
            self.news.push(lost);
        }
        true
    }

    /// Tells it to end; true when it has, or does not.
    pub(super) fn close(&mut self) -> bool {
        self.speech = None;
        let until = *self.closing_until.get_or_insert_with(|| Instant::now() + CLOSING);
        if !self.buried && Instant::now() < until {
            return false;
        }
        if !self.directory.is_empty() {
            remove(&std::mem::take(&mut self.directory), &self.user);
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closing_until.filter(|_| !self.buried)
    }
}

fn write(mut to: &UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(message)
}

fn first(from: &UnixStream) -> io::Result<PmixOutput> {
    let mut from = from;
    from.set_read_timeout(Some(READY))?;
    let mut head = [0u8; 4];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0u8; length];
    from.read_exact(&mut body)?;
    PmixOutput::decode(body.as_slice()).map_err(io::Error::other)
}

/// Executes this program anew as the user; comes back only with the reason why not.
fn become_host(common: &Common<'_>, speech: &UnixStream) -> Result<Infallible, String> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    setsid().map_err(|e| failed("start a session", &e))?;
    // Opened before the change of identity: where it lies may be closed to the user.
    let program = File::open("/proc/self/exe").map_err(|e| failed("open the program", &e))?;
    let program = OwnedFd::from(program);
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| failed("open /dev/null", &e))?;
    if let Some(group) = common.group {
        group.join_self().map_err(|e| failed("join the job", &e))?;
    }
    default_signals();
    umask(Mode::from_bits_truncate(0o077));
    let user = common.order.user.clone().unwrap_or_default();
    identity::become_user(&user, None).map_err(|r| r.text)?;
    nix::unistd::chdir("/").map_err(|e| failed("change to /", &e))?;
    for (fd, place) in [(speech.as_raw_fd(), 0), (null.as_raw_fd(), 1), (null.as_raw_fd(), 2)] {
        // SAFETY: plain descriptors of open files; 0 to 2 are owned by nothing else here.
        if unsafe { libc::dup2(fd, place) } == -1 {
            return Err(failed("files", &io::Error::last_os_error()));
        }
    }
    // SAFETY: marks descriptors from 3 on; none is closed before the exec.
    unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    let word = |text: &str| CString::new(text).expect("no NUL in a literal");
    let argv = [word("muster"), word("pmix-host")];
    let env: Vec<CString> = common
        .environment
        .iter()
        .filter(|pair| HANDED.iter().any(|name| pair.starts_with(name)))
        .filter_map(|pair| CString::new(pair.as_slice()).ok())
        .collect();
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    let Err(e) = nix::unistd::execveat(&program, c"", &argv, &env, flags);
    Err(failed("execute the PMIx host", &e))
}

/// Of the user's environment: where files go, and what the library is to be told.
const HANDED: [&[u8]; 6] =
    [b"TMPDIR=", b"HOME=", b"PATH=", b"LD_LIBRARY_PATH=", b"PMIX_MCA_", b"PMIX_DEBUG="];

/// Removes what a host that was killed has left, as the user whose it is.
fn remove(directory: &str, user: &User) {
    // SAFETY: as in `start`.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            while nix::sys::wait::waitpid(child, None) == Err(Errno::EINTR) {}
        }
        Ok(ForkResult::Child) => {
            if identity::become_user(user, None).is_ok() {
                let _ = std::fs::remove_dir_all(directory);
            }
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
        // It stays.
        Err(_) => {}
    }
}

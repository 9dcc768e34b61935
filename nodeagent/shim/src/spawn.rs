//! A process that is started without a copy of this one. From the clone to the exec it shares the
//! shim's memory and does nothing but a list of system calls that was written beforehand: a fork
//! copies page tables and takes them apart again page by page, which was the largest part of what
//! a short task cost.
//!
//! Between the clone and the exec nothing allocates, locks or uses thread-local memory, errno
//! included: the C library's wrappers are left out. So the shim goes on meanwhile, unlike after a
//! vfork, and a child that hangs in a file system holds nobody up. A call that does not do what it
//! should ends the list; whoever started it goes the long way then, by fork, which finds the words
//! for what is wrong.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};

use libc::{c_int, c_long, c_void};
use nix::unistd::Pid;

/// Enough for one loop over the list, without a handler of ours that could run on it.
const STACK_WORDS: usize = 1024;
/// What a child that could not go on tells first; the call's place in the list and its error follow.
pub(crate) const FAILED: u8 = b'F';
/// The first descriptor that is none of stdin, stdout and stderr.
const FIRST_OTHER: isize = 3;
/// Room for a process's number.
pub(crate) const DIGITS: usize = 10;

/// What a call must give for the list to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// No error.
    Good,
    /// Whatever it gives.
    Any,
    /// This.
    Is(isize),
    /// An error.
    Fails,
    /// A descriptor, which is put at this place.
    Place(RawFd),
    /// A number, whose digits are written there: [`DIGITS`] bytes and a NUL after them.
    Digits(usize),
    /// Nothing, or the kind of error after which execvp(3) looks further.
    Lookup,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    number: c_long,
    args: [usize; 6],
    then: Then,
}

/// A list of calls and all that they point to. Must live until the child has executed or ended.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    list: Vec<Call>,
    bytes: Vec<Box<[u8]>>,
    words: Vec<Box<[usize]>>,
    fds: Vec<OwnedFd>,
    stack: Vec<MaybeUninit<u128>>,
    begin: Option<Box<Begin>>,
}

/// What the child is handed.
#[derive(Debug)]
struct Begin {
    list: *const Call,
    end: *const Call,
    tell: RawFd,
}

impl Calls {
    pub(crate) fn call(&mut self, number: c_long, args: &[usize], then: Then) {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.list.push(Call { number, args: all, then });
    }

    /// Where the text is, with a NUL after it; none for one that has a NUL inside.
    pub(crate) fn text(&mut self, text: impl Into<Vec<u8>>) -> Option<usize> {
        let mut text = text.into();
        if text.contains(&0) {
            return None;
        }
        text.push(0);
        Some(self.bytes(text))
    }

    pub(crate) fn bytes(&mut self, bytes: Vec<u8>) -> usize {
        let mut bytes = bytes.into_boxed_slice();
        let at = bytes.as_mut_ptr() as usize;
        self.bytes.push(bytes);
        at
    }

    pub(crate) fn words(&mut self, words: Vec<usize>) -> usize {
        let words = words.into_boxed_slice();
        let at = words.as_ptr() as usize;
        self.words.push(words);
        at
    }

    /// Keeps descriptors open as long as this list lives.
    pub(crate) fn keep(&mut self, fds: Vec<OwnedFd>) {
        self.fds.extend(fds);
    }

    /// Where the texts are, one after another, and a null at the end.
    pub(crate) fn texts(&mut self, texts: Vec<Vec<u8>>) -> Option<usize> {
        let mut all = Vec::with_capacity(texts.len() + 1);
        for text in texts {
            all.push(self.text(text)?);
        }
        all.push(0);
        Some(self.words(all))
    }

    /// Starts the child. It tells at `tell`, which must be closed by an exec, when it cannot go on.
    pub(crate) fn start(&mut self, tell: RawFd) -> io::Result<Pid> {
        if !KNOWN_MACHINE {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = self.list.as_ptr_range();
        let begin = Box::new(Begin { list: range.start, end: range.end, tell });
        let begin = std::ptr::from_ref::<Begin>(self.begin.insert(begin));
        self.stack = Vec::with_capacity(STACK_WORDS);
        let top = self.stack.as_mut_ptr().wrapping_add(STACK_WORDS);
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: the stack, the list and all that it points to live in `self`, whose owner keeps
        // it until the child is another program; the child changes nothing of this process but the
        // bytes of `Then::Digits`, which are its own.
        match unsafe { libc::clone(child, top.cast(), flags, begin.cast_mut().cast()) } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(Pid::from_raw(pid)),
        }
    }
}

extern "C" fn child(begin: *mut c_void) -> c_int {
    // SAFETY: what `start` made, and nobody changes.
    let Begin { list, end, tell } = unsafe { begin.cast::<Begin>().read() };
    let (mut at, mut place) = (list, 0u8);
    while at != end {
        // SAFETY: between the list's ends.
        let call = unsafe { at.read() };
        // SAFETY: its arguments were made for it.
        let got = unsafe { system_call(call.number, call.args) };
        if !follow(call.then, got) {
            let error = u8::try_from(got.wrapping_neg()).unwrap_or(0);
            let told = [FAILED, place, error];
            let (tell, flags) = (tell.cast_unsigned() as usize, libc::MSG_NOSIGNAL as usize);
            let args = [tell, told.as_ptr() as usize, told.len(), flags, 0, 0];
            // SAFETY: a packet of three bytes; and the end, without anything of the shim's.
            unsafe {
                system_call(libc::SYS_sendto, args);
                system_call(libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]);
            }
        }
        at = at.wrapping_add(1);
        place = place.wrapping_add(1);
    }
    0
}

/// Whether the list goes on.
fn follow(then: Then, got: isize) -> bool {
    match then {
        Then::Good => got >= 0,
        Then::Any => true,
        Then::Is(value) => got == value,
        Then::Fails => got < 0,
        Then::Place(place) => {
            let args = [got.cast_unsigned(), place.cast_unsigned() as usize, 0, 0, 0, 0];
            // SAFETY: descriptors of this process alone.
            got >= FIRST_OTHER && unsafe { system_call(libc::SYS_dup3, args) } >= 0
        }
        Then::Digits(at) => {
            let (mut rest, mut count) = (got, 1usize);
            while rest >= 10 {
                rest /= 10;
                count = count.wrapping_add(1);
            }
            if count > DIGITS {
                return false;
            }
            let to = at as *mut u8;
            // SAFETY: `DIGITS` bytes and one more are there, and this process's own.
            unsafe { to.wrapping_add(count).write(0) };
            rest = got;
            while count > 0 {
                count = count.wrapping_sub(1);
                let digit = b'0'.wrapping_add((rest % 10) as u8);
                // SAFETY: as above.
                unsafe { to.wrapping_add(count).write(digit) };
                rest /= 10;
            }
            true
        }
        Then::Lookup => {
            let error = got.wrapping_neg() as i32;
            matches!(error, libc::ENOENT | libc::ENOTDIR | libc::EACCES)
        }
    }
}

/// Whether [`system_call`] knows this machine's way into the kernel.
const KNOWN_MACHINE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// A system call, as the kernel answers: a negative number is an error's.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: c_long, args: [usize; 6]) -> isize {
    let got: isize;
    // SAFETY: the kernel's convention (man 2 syscall); the rest is the caller's.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => got,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    got
}

#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: c_long, args: [usize; 6]) -> isize {
    let got: isize;
    // SAFETY: the kernel's convention (man 2 syscall); the rest is the caller's.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => got,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    got
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn system_call(_: c_long, _: [usize; 6]) -> isize {
    isize::MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;

    /// Runs the list: what it tells, and its exit code.
    fn run(mut calls: Calls) -> (Vec<u8>, i32) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let pid = calls.start(theirs.as_raw_fd()).unwrap();
        drop(theirs);
        let mut told = Vec::new();
        std::fs::File::from(ours).take(3).read_to_end(&mut told).unwrap();
        let WaitStatus::Exited(_, code) = waitpid(pid, None).unwrap() else { panic!("no exit") };
        (told, code)
    }

    fn shell(calls: &mut Calls, script: &str) {
        let path = calls.text("/bin/sh").unwrap();
        let argv = ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec();
        let argv = calls.texts(argv).unwrap();
        let own = calls.text("OWN=??????????").unwrap();
        calls.call(libc::SYS_getpid, &[], Then::Digits(own + "OWN=".len()));
        let envp = calls.words(vec![own, 0]);
        calls.call(libc::SYS_execve, &[path, argv, envp], Then::Good);
    }

    #[test]
    fn a_list_ends_in_a_program_that_knows_its_number() {
        let mut calls = Calls::default();
        shell(&mut calls, "test $OWN = $$ && exit 7");
        assert_eq!(run(calls), (vec![], 7));
    }

    #[test]
    fn a_file_is_opened_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut calls = Calls::default();
        let name = calls.text(path.to_str().unwrap()).unwrap();
        let (here, flags) = (libc::AT_FDCWD as usize, (libc::O_WRONLY | libc::O_CREAT) as usize);
        calls.call(libc::SYS_openat, &[here, name, flags, 0o600], Then::Place(1));
        shell(&mut calls, "echo there");
        assert_eq!(run(calls), (vec![], 0));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "there\n");
    }

    #[test]
    fn a_call_that_fails_ends_the_list_and_is_told() {
        let mut calls = Calls::default();
        calls.call(libc::SYS_getpid, &[], Then::Any);
        let nowhere = calls.text("/nowhere").unwrap();
        calls.call(libc::SYS_chdir, &[nowhere], Then::Good);
        shell(&mut calls, "exit 7");
        assert_eq!(run(calls), (vec![FAILED, 1, libc::ENOENT as u8], 1));
    }

    #[test]
    fn what_must_fail_or_be_something_is_held_to_it() {
        for (then, goes_on) in [
            (Then::Fails, false),
            (Then::Is(-1), false),
            (Then::Good, true),
            (Then::Place(1), false),
            (Then::Lookup, false),
        ] {
            let mut calls = Calls::default();
            calls.call(libc::SYS_getuid, &[], Then::Any);
            // Anything else is not a number that this gives.
            calls.call(libc::SYS_umask, &[0o22], then);
            calls.call(libc::SYS_umask, &[0o22], Then::Is(0o22));
            shell(&mut calls, "exit 7");
            let (told, code) = run(calls);
            let ended_there = told.get(1) == Some(&1);
            assert_eq!((ended_there, code == 7), (!goes_on, goes_on), "{then:?}: {told:?}");
        }
    }
}

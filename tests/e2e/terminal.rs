//! `srun --pty` at a real terminal: size, keys, job control, and the terminal as it was afterwards.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::harness::{Cluster, wait, wait_or};

/// A terminal with a program in it.
struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(mut command: Command, rows: u16, columns: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
        // SAFETY: both calls are async-signal-safe; stdin is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().unwrap();
        drop(pair.slave);
        drop(command);
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut from, into) = (master.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0u8; 4096];
            while let Ok(length) = from.read(&mut bytes) {
                if length == 0 {
                    return;
                }
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Terminal { master, child, seen }
    }

    fn keys(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    fn until(&self, part: &str) {
        wait_or(&format!("{part:?}"), || self.seen(), || self.seen().contains(part));
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is a terminal's, and the kernel reads one struct.
        assert_eq!(
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) },
            0
        );
    }

    fn echoes(&self) -> bool {
        let flags = tcgetattr(self.master.as_fd()).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    fn end(&mut self) -> i32 {
        let mut code = None;
        wait("the end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell at a terminal through the cluster: each line is typed, each answer cannot be the echo of
/// what was typed.
fn converse(mut terminal: Terminal) {
    terminal.keys("PS1='$ '; echo rea''dy\n");
    terminal.until("ready");
    assert!(!terminal.echoes(), "keys go through as they are");
    terminal.keys("stty size\n");
    terminal.until("24 80");
    terminal.resize(40, 132);
    wait_or(
        "the new size",
        || terminal.seen(),
        || {
            terminal.keys("stty size\n");
            std::thread::sleep(std::time::Duration::from_millis(100));
            terminal.seen().contains("40 132")
        },
    );
    // One interrupt is the command's, and neither the shell's nor srun's.
    terminal.keys("sh -c 'echo be''gan; sleep 300'\n");
    terminal.until("began");
    terminal.keys("\u{3}");
    terminal.keys("echo inter''rupted $?\n");
    terminal.until("interrupted 130");
    terminal.keys("sh -c 'echo go''ing; sleep 300'\n");
    terminal.until("going");
    // A shell that is stopped between its fork and the child's exec would never be told of as stopped.
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.keys("\u{1a}");
    terminal.until("Stopped");
    terminal.keys("kill -9 %1; wait 2>/dev/null; echo gone''now; cat\n");
    terminal.until("gonenow");
    terminal.keys("typed\n\u{4}echo af''ter cat\n");
    terminal.until("after cat");
    terminal.keys("exit 7\n");
    assert_eq!(terminal.end(), 7, "{}", terminal.seen());
    assert!(terminal.echoes(), "the terminal is as it was");
}

#[test]
fn a_shell_of_srun_has_the_terminal_with_size_keys_and_job_control() {
    let cluster = Cluster::start();
    let command = cluster.command(&["srun", "--pty", "bash", "--norc", "--noprofile", "-i"]);
    converse(Terminal::start(command, 24, 80));
}

#[test]
fn a_shell_in_a_running_job_has_the_terminal_too() {
    let cluster = Cluster::start();
    let job = cluster.submit(&["-o", "held.out", "--wrap=sleep 300"]);
    cluster.until(job, "R");
    let mut command = Command::new(cluster.program());
    command
        .args(["ssh", "-t", &job.to_string(), "bash", "--norc", "--noprofile", "-i"])
        .env("MUSTER_CONF", cluster.dir().join("muster.toml"));
    converse(Terminal::start(command, 24, 80));
    cluster.ok(&["scancel", &job.to_string()]);
    cluster.ended(job);
}

//! What the tasks are fed with.

use muster_proto::v1::StdinTaken;
use muster_proto::v1::step_output::Kind as Said;
use nix::errno::Errno;

use super::Course;

impl Course<'_> {
    pub(super) fn write_stdin(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        let Some(fd) = &task.stdin else { return };
        match nix::unistd::write(fd, self.feed.at(task.fed)) {
            Ok(length) => task.fed += length as u64,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => task.stdin = None,
        }
    }

    /// Ends the input of tasks that had all of it, and tells how far the slowest is.
    pub(super) fn close_feed(&mut self) {
        let mut slowest: Option<u64> = None;
        for task in &mut self.tasks {
            if task.stdin.is_some() && (task.exit.is_some() || self.feed.is_over(task.fed)) {
                if let (true, Some(fd), None) = (task.terminal, &task.stdin, &task.exit) {
                    // The end of a terminal's input is a character.
                    let _ = nix::unistd::write(fd, &[4]);
                }
                task.stdin = None;
            }
            if task.stdin.is_some() {
                slowest = Some(slowest.map_or(task.fed, |least| least.min(task.fed)));
            }
        }
        let told = match slowest {
            Some(offset) => {
                self.feed.pass(offset).map(|offset| StdinTaken { offset, closed: false })
            }
            None => {
                self.feed.drop_all();
                let first = !std::mem::replace(&mut self.feed_closed, true);
                first.then_some(StdinTaken { offset: 0, closed: true })
            }
        };
        if let (Some(taken), Some(asker)) = (told, self.asker()) {
            asker.say(Said::StdinTaken(taken));
        }
    }
}

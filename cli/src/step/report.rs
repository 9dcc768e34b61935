//! How the tasks ended, in Slurm's words, and what that makes of srun's own exit code.

use std::collections::BTreeMap;

use muster_proto::v1::{ExitStatus, TaskExit};

/// What is known of the ends.
#[derive(Debug, Default)]
pub(crate) struct Report {
    ends: BTreeMap<u32, TaskExit>,
    /// To be told: by node and words, the tasks.
    news: BTreeMap<(String, String), Vec<u32>>,
    /// Something went wrong that no task's end tells.
    fault: bool,
    /// The kernel has killed for memory.
    oom: bool,
    /// The task that has ended the step for all, and the code that it gave.
    because: Option<(u32, Option<u32>)>,
}

/// Slurm's words for a signal.
fn signal_words(number: u32) -> String {
    // SAFETY: the C library's text, copied at once.
    let text = unsafe {
        let text = libc_strsignal(number.cast_signed());
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    text.unwrap_or_else(|| format!("Signal {number}"))
}

unsafe extern "C" {
    #[link_name = "strsignal"]
    fn libc_strsignal(number: std::ffi::c_int) -> *const std::ffi::c_char;
}

impl Report {
    /// A task has ended.
    pub(crate) fn end(&mut self, node: &str, exit: TaskExit) {
        if self.ends.insert(exit.task, exit).is_some() {
            return;
        }
        let status = exit.status.unwrap_or_default();
        let words = match status {
            _ if exit.oom => "Out Of Memory".to_owned(),
            ExitStatus { code: 0, signal: 0 } => return,
            ExitStatus { code, signal: 0 } => format!("Exited with exit code {code}"),
            ExitStatus { signal, .. } => {
                let core = if exit.core { " (core dumped)" } else { "" };
                format!("{}{core}", signal_words(signal))
            }
        };
        self.news.entry((node.to_owned(), words)).or_default().push(exit.task);
    }

    /// The kernel has killed for memory, though perhaps no task itself.
    pub(crate) fn oom_kills(&mut self, kills: u32) {
        self.oom |= kills > 0;
    }

    /// Something failed beside the tasks.
    pub(crate) fn fault(&mut self) {
        self.fault = true;
    }

    /// A task ends the step for all; what the others are ended with does not count.
    pub(crate) fn end_by(&mut self, task: u32, code: Option<u32>) {
        self.because = self.because.or(Some((task, code)));
    }

    /// A task of another step ends this one, and says the code for both.
    pub(crate) fn end_elsewhere(&mut self) {
        self.end_by(u32::MAX, Some(0));
    }

    /// Whether a task has not ended well.
    pub(crate) fn is_bad(&self) -> bool {
        self.fault || self.ends.values().any(is_bad)
    }

    pub(crate) fn ended(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn has_ended(&self, task: u32) -> bool {
        self.ends.contains_key(&task)
    }

    /// The lines that were not told yet.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let line = |((node, words), tasks): ((String, String), Vec<u32>)| {
            let word = if tasks.len() == 1 { "task" } else { "tasks" };
            format!("{node}: {word} {}: {words}", ranges(tasks))
        };
        std::mem::take(&mut self.news).into_iter().map(line).collect()
    }

    /// As the step is to be known.
    pub(crate) fn status(&self) -> ExitStatus {
        if let Some((task, code)) = self.because {
            let own = self.ends.get(&task).and_then(|end| end.status).unwrap_or_default();
            let said = code.map(|code| ExitStatus { code, signal: 0 });
            return match said.unwrap_or(own) {
                // However well it ended itself: the others counted on it.
                ExitStatus { code: 0, signal: 0 } => ExitStatus { code: 1, signal: 0 },
                status => status,
            };
        }
        let all = || self.ends.values().filter_map(|e| e.status);
        let signal = all().map(|s| s.signal).max().unwrap_or(0);
        let code = all().map(|s| s.code).max().unwrap_or(0).max(u32::from(self.fault));
        if signal > 0 { ExitStatus { code: 0, signal } } else { ExitStatus { code, signal: 0 } }
    }

    pub(crate) fn oom(&self) -> bool {
        self.oom || self.task_oom()
    }

    fn task_oom(&self) -> bool {
        self.ends.values().any(|e| e.oom)
    }

    /// The exit code: the highest of the tasks; a signal outranks codes, and memory both.
    pub(crate) fn code(&self) -> i32 {
        let status = self.status();
        let code = match status {
            _ if self.task_oom() => 1,
            ExitStatus { signal: 0, code } => code,
            ExitStatus { signal, .. } => 128 + signal,
        };
        i32::try_from(code).unwrap_or(1)
    }
}

fn is_bad(exit: &TaskExit) -> bool {
    let status = exit.status.unwrap_or_default();
    exit.oom || status.code != 0 || status.signal != 0
}

/// `0-3,5`.
pub(crate) fn ranges(mut tasks: Vec<u32>) -> String {
    tasks.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for task in tasks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == task => *last = task,
            _ => runs.push((task, task)),
        }
    }
    let show = |(from, to): (u32, u32)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    runs.into_iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(ends: &[(u32, u32, u32)]) -> Report {
        let mut report = Report::default();
        for (task, code, signal) in ends {
            let status = Some(ExitStatus { code: *code, signal: *signal });
            let core = *signal == 11;
            report.end("n1", TaskExit { task: *task, status, core, ..TaskExit::default() });
        }
        report
    }

    #[track_caller]
    fn check(ends: &[(u32, u32, u32)], lines: &[&str], code: i32) {
        let mut report = ended(ends);
        assert_eq!(report.lines(), lines);
        assert_eq!(report.code(), code);
    }

    #[test]
    fn ends_are_told_in_slurms_words() {
        check(&[(0, 0, 0)], &[], 0);
        check(&[(0, 2, 0), (1, 2, 0), (3, 2, 0)], &["n1: tasks 0-1,3: Exited with exit code 2"], 2);
        check(
            &[(0, 0, 9), (1, 7, 0)],
            &["n1: task 1: Exited with exit code 7", "n1: task 0: Killed"],
            137,
        );
        check(&[(0, 0, 11)], &["n1: task 0: Segmentation fault (core dumped)"], 139);
    }

    #[test]
    fn a_task_that_ends_the_step_for_all_says_its_code() {
        let mut report = ended(&[(0, 0, 15), (1, 7, 0)]);
        report.end_by(1, None);
        report.end_by(0, Some(9));
        assert_eq!(report.code(), 7, "the first one counts");
        let mut report = ended(&[(0, 0, 15), (1, 0, 0)]);
        report.end_by(1, None);
        assert_eq!(report.code(), 1, "it has left the others alone");
        let mut report = ended(&[(0, 0, 15)]);
        report.end_by(1, Some(3));
        assert_eq!(report.code(), 3);
    }

    #[test]
    fn memory_outranks_all() {
        let mut report = ended(&[(0, 3, 0)]);
        let status = Some(ExitStatus { code: 0, signal: 9 });
        report.end("n2", TaskExit { task: 1, status, oom: true, ..TaskExit::default() });
        assert_eq!(report.code(), 1);
        assert!(report.lines().contains(&"n2: task 1: Out Of Memory".to_owned()));
    }
}

//! `muster ssh`: a shell, or a command, on a node of a running job, with what the job has there. It is
//! a step beside the others, so it is in their control groups, and it ends with the job.

use std::io::IsTerminal as _;

use muster_proto::v1::StepShape;

use super::agents::Agents;
use super::options::Bad;
use super::srun::{Stop, config, described, first, runtime, step, unable, with_limits};
use super::wish::{Sink, Source, Wish};
use super::{job, signals};
use crate::exit;
use crate::getopt::{self, Spec, Takes, both};

const PROGRAM: &str = "muster ssh";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: true,
    options: &[
        both("help", 'h', Takes::Nothing),
        both("node", 'w', Takes::Value),
        both("tty", 't', Takes::Nothing),
        both("no-tty", 'T', Takes::Nothing),
    ],
};

const HELP: &str = "\
Usage: muster ssh [OPTIONS] JOB [COMMAND [ARGS]]
A shell (or COMMAND) on the first node of a running job, inside its limits.
  -w, --node=NODE     on this node of the job
  -t, --tty           with a terminal for a COMMAND too
  -T, --no-tty        without a terminal
";

/// As a login does; the words of a command are one line for the shell, as ssh has it.
const SHELL: &str = "exec \"${SHELL:-/bin/sh}\" -l";
const COMMAND: &str = "exec \"${SHELL:-/bin/sh}\" -c \"$1\"";

/// The command.
#[must_use]
pub fn ssh(words: &[String]) -> i32 {
    match begin(words) {
        Ok(code) => code,
        Err(stop) => stop.say(PROGRAM),
    }
}

fn begin(words: &[String]) -> Result<i32, Stop> {
    let parsed = getopt::parse(&SPEC, words).map_err(|usage| Stop::Bad(Bad::Usage(usage)))?;
    if parsed.has("help") {
        exit::print(HELP);
        return Ok(exit::OK);
    }
    let Some((id, command)) = parsed.operands.split_first() else {
        return Err(Stop::refused(None, "which job? Usage: muster ssh JOB [COMMAND]"));
    };
    let pick = job::named(id)
        .ok_or_else(|| Stop::refused(None, format!("Invalid job id specified: {id}")))?;
    let config = config()?;
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let job::Home { job, head } = job::home(&config, &pick, false).await?;
        let agents = Agents::new(config);
        let about = described(&agents, &head, job).await.map_err(|e| unable(job, &e))?;
        let node = parsed.last("node").map(str::to_owned).or_else(|| first(&about.nodes));
        let pty = !parsed.has("no-tty") && (command.is_empty() || parsed.has("tty"));
        let node = node.unwrap_or_else(|| head.clone());
        let wish = shell(command, node, &about.environment, pty);
        step(&agents, job, &head, with_limits(wish), words, &mut signals).await
    });
    // A thread may still wait for the terminal.
    runtime.shutdown_background();
    code
}

/// A shell on a node of a job, or a command by it; with a terminal only where there is one.
pub(super) fn shell(command: &[String], node: String, about: &[u8], pty: bool) -> Wish {
    let words = match command {
        [] => vec!["/bin/sh".to_owned(), "-c".to_owned(), SHELL.to_owned()],
        words => ["/bin/sh", "-c", COMMAND, "ssh", &words.join(" ")].map(str::to_owned).to_vec(),
    };
    Wish {
        shape: StepShape {
            nodes: vec![node],
            min_nodes: 1,
            max_nodes: 1,
            tasks: 1,
            cpus_per_task: 1,
            overlap: true,
            ..StepShape::default()
        },
        name: "ssh".to_owned(),
        command: words,
        stdin: Source::Own,
        stdout: Sink::Own,
        unbuffered: true,
        // The job's own description and what a login has; the terminal's kind is this one's.
        export: Some("TERM,COLORTERM,LANG,LC_ALL".to_owned()),
        workdir: submit_dir(about).into(),
        pty: pty && std::io::stdin().is_terminal(),
        quiet: true,
        in_the_job: true,
        distribution: "block".to_owned(),
        ..Wish::default()
    }
}

fn submit_dir(about: &[u8]) -> String {
    const NAME: &[u8] = b"SLURM_SUBMIT_DIR=";
    let dir = about.split(|b| *b == 0).find_map(|pair| pair.strip_prefix(NAME));
    dir.map_or("/".to_owned(), |dir| String::from_utf8_lossy(dir).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Wish {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let parsed = getopt::parse(&SPEC, &words).unwrap();
        let command = parsed.operands[1..].to_vec();
        shell(&command, "n2".into(), b"A=b\0SLURM_SUBMIT_DIR=/work\0", false)
    }

    #[test]
    fn a_command_is_one_line_for_the_shell_and_has_the_jobs_folder() {
        let wish = asked("7 ls -l | wc");
        assert_eq!(wish.command.last().map(String::as_str), Some("ls -l | wc"));
        assert_eq!(wish.workdir.to_str(), Some("/work"));
        assert!(wish.shape.overlap && !wish.shape.exact && wish.shape.nodes == ["n2"]);
        assert_eq!(asked("7").command.last().map(String::as_str), Some(SHELL));
    }
}

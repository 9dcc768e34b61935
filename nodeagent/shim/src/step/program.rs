//! What a task executes: its words, its environment, and the search for the file.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve, getpid};

use super::child::{Common, Refusal};
use super::mpi::Mpi;
use super::{gpus, variables};
use crate::container::{self, Around};
use crate::quick::TASK_PID;

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a task executes.
pub(super) struct Program {
    pub(super) line: Vec<String>,
    /// Without [`TASK_PID`].
    pub(super) env: Vec<Vec<u8>>,
}

pub(super) fn program(common: &Common<'_>, mpi: &Mpi, local: usize) -> Result<Program, Refusal> {
    let start = common.start;
    let programs = &start.programs;
    let Some(program) = programs.get(local).or(programs.first()) else {
        return Err(Refusal::of(1, "no command was given"));
    };
    let mut env = common.environment.clone();
    let own = variables::of_task(common.order, start, local, gpus_of(common, local));
    env.extend(own.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()));
    env.extend(mpi.environment(local));
    let mut line = program.argv.clone();
    if let Some(wish) = &start.container {
        let around = Around {
            node: &common.order.node,
            home: None,
            tmp: "",
            workdir: &start.workdir,
            gres: start.part.as_ref().map_or(&[], |part| &part.gres),
            devices_held: common.order.devices_held,
            script: None,
        };
        let words = container::words(wish, &around.at_home(&env));
        drop(line.splice(0..0, words.map_err(|text| Refusal::of(1, text))?));
    }
    Ok(Program { line, env })
}

fn gpus_of(common: &Common<'_>, local: usize) -> u64 {
    common.gpus.get(local).copied().unwrap_or_default()
}

pub(super) fn path_of(env: &[Vec<u8>]) -> Vec<u8> {
    let path = env.iter().find_map(|pair| pair.strip_prefix(b"PATH="));
    path.unwrap_or(PATH.as_bytes()).to_vec()
}

/// Executes the program; comes back only with the reason why not.
pub(super) fn exec(common: &Common<'_>, mpi: &Mpi, local: usize) -> Refusal {
    let start = common.start;
    if start.gpu_bind.as_ref().is_some_and(|bind| bind.verbose) {
        let line = gpus::verbose_line(common.order, start, gpus_of(common, local));
        let _ = nix::unistd::write(io::stderr(), line.as_bytes());
    }
    let Program { line, mut env } = match program(common, mpi, local) {
        Ok(program) => program,
        Err(refusal) => return refusal,
    };
    env.push(format!("{TASK_PID}={}", getpid()).into_bytes());
    let path = path_of(&env);
    let command = line.first().map_or("", String::as_str);
    let argv: Result<Vec<_>, _> = line.iter().map(|a| CString::new(a.as_bytes())).collect();
    let env: Result<Vec<_>, _> = env.into_iter().map(CString::new).collect();
    let (Ok(argv), Ok(env)) = (argv, env) else {
        return Refusal::of(1, "an argument holds a NUL character");
    };
    let mut fault = Errno::ENOENT;
    let files = candidates(command, &path).into_iter().filter_map(|file| CString::new(file).ok());
    let there = |file: &CString| access(file.as_c_str(), AccessFlags::F_OK).is_ok();
    for file in files.filter(|file| command.contains('/') || there(file)) {
        // As execvp(3): a file that may not be executed does not end the search.
        let Err(e) = execve(&file, &argv, &env);
        match e {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => fault = e,
            other => {
                fault = other;
                break;
            }
        }
    }
    // As Slurm does: the error's number is the exit code.
    Refusal::of(fault as i32, format!("execve(): {command}: {}", fault.desc()))
}

/// Where a command may be, in the order of the search.
pub(super) fn candidates(command: &str, path: &[u8]) -> Vec<Vec<u8>> {
    if command.contains('/') {
        return vec![command.as_bytes().to_vec()];
    }
    let places = path.split(|byte| *byte == b':').map(|place| match place {
        [] => b".".to_vec(),
        place => place.to_vec(),
    });
    places.map(|place| [place.as_slice(), b"/", command.as_bytes()].concat()).collect()
}

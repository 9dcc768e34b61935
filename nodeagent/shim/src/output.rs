//! The job's stdin, stdout and stderr: where they are, and opening them. Called when the process
//! is already the user's, in the job's working directory: these are the user's paths, and nothing
//! but the user's own rights opens them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use muster_proto::shim::v1::Launch;
use muster_proto::v1::{ExitStatus, LaunchSpec};

use crate::lines;
use crate::pattern::{Names, default_output, expand};
use crate::slice::Refusal;

/// What Slurm reports as the signal of a job whose files could not be opened: ExitCode 0:53.
const IO_SETUP_SIGNAL: u32 = 53;
/// Before the umask.
pub(crate) const FILE_MODE: u32 = 0o666;

/// The opened three.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) stdin: File,
    pub(crate) stdout: File,
    /// `None`: it joins stdout.
    pub(crate) stderr: Option<File>,
}

/// The names that patterns of this launch may use.
pub(crate) fn names(launch: &Launch) -> Names<'_> {
    Names {
        job: launch.job,
        array: launch.array_task.map(|index| (launch.array_job, index)),
        node: &launch.node,
        node_index: launch.node_index,
        restarts: launch.restarts,
        user: launch.user.as_ref().map_or("", |u| u.name.as_str()),
        job_name: &launch.job_name,
        task: None,
    }
}

/// Where the three are.
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    /// `None`: it joins stdout.
    pub(crate) stderr: Option<String>,
    /// Output goes behind what is there.
    pub(crate) append: bool,
}

/// Where the three of this launch are, relative to its working directory.
pub(crate) fn paths(launch: &Launch) -> Paths {
    let names = names(launch);
    let none = LaunchSpec::default();
    let spec = launch.spec.as_ref().unwrap_or(&none);
    let given = |p: &Option<String>| {
        p.as_deref().filter(|p| !p.is_empty()).map(|pattern| expand(pattern, &names))
    };
    let stdout = given(&spec.stdout).unwrap_or_else(|| expand(default_output(&names), &names));
    Paths {
        stdin: given(&spec.stdin).unwrap_or_else(|| "/dev/null".to_owned()),
        // Opened twice, one would overwrite the other.
        stderr: given(&spec.stderr).filter(|path| *path != stdout),
        stdout,
        append: spec.append,
    }
}

/// Opens the three, relative to the current directory.
pub(crate) fn open(launch: &Launch) -> Result<Files, Refusal> {
    let Paths { stdin, stdout, stderr, append } = paths(launch);
    let file = |which: &str, path: &str| create(path, append).map_err(|e| refused(which, path, &e));
    Ok(Files {
        stdin: File::open(&stdin).map_err(|e| refused("stdin", &stdin, &e))?,
        stdout: file("stdout", &stdout)?,
        stderr: stderr.map(|path| file("stderr", &path)).transpose()?,
    })
}

fn create(path: &str, append: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(FILE_MODE).custom_flags(libc::O_NOCTTY);
    match append {
        true => options.append(true),
        false => options.write(true).truncate(true),
    };
    options.open(path)
}

fn refused(which: &str, path: &str, error: &std::io::Error) -> Refusal {
    Refusal {
        status: ExitStatus { code: 0, signal: IO_SETUP_SIGNAL },
        text: format!("Could not open {which} file {path}: {}", lines::reason(error)),
        node_fault: false,
    }
}

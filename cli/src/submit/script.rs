//! The script: where it is found and what it must look like.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Fault, Surroundings};

/// Reading stops here: above any cluster's bound, below any harm.
const READ_MAX: u64 = 512 << 20;

/// A script as it will be submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    pub content: Vec<u8>,
    /// Its name in messages: as the user wrote it.
    pub shown: String,
    /// Its path, shown as Command; empty for `--wrap` and stdin.
    pub path: String,
    pub args: Vec<String>,
    /// The name that the job gets when none is given.
    pub job_name: String,
    /// Made from `--wrap`: there are no directives.
    pub wrapped: bool,
}

impl Script {
    /// From `--wrap`.
    #[must_use]
    pub fn wrap(command: &str) -> Script {
        Script {
            content: format!("#!/bin/sh\n# sbatch --wrap\n\n{command}\n").into_bytes(),
            shown: "--wrap".to_owned(),
            job_name: "wrap".to_owned(),
            wrapped: true,
            ..Script::default()
        }
    }

    /// From stdin.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stdin(input: &mut dyn Read) -> Result<Script, Fault> {
        let content =
            read(input).map_err(|e| Fault::Refused(format!("Unable to read stdin: {e}")))?;
        let name = "sbatch".to_owned();
        Ok(Script { content, shown: "stdin".to_owned(), job_name: name, ..Script::default() })
    }

    /// From a file: `./x` and `x` by the working directory, then `x` by PATH.
    ///
    /// # Errors
    /// When there is none or it cannot be read.
    pub fn open(
        name: &str,
        args: &[String],
        chdir: Option<&str>,
        around: &Surroundings,
    ) -> Result<Script, Fault> {
        let path = find(name, chdir, around);
        let unable = || Fault::Refused(format!("Unable to open file {name}"));
        let path = path.ok_or_else(unable)?;
        let mut file = std::fs::File::open(&path).map_err(|_| unable())?;
        let content = read(&mut file).map_err(|_| unable())?;
        let job_name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(Script {
            content,
            shown: name.to_owned(),
            path: path.to_string_lossy().into_owned(),
            args: args.to_vec(),
            job_name: job_name.unwrap_or_default(),
            wrapped: false,
        })
    }

    /// Whether it is a script that a shell could run. The texts are Slurm's.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn check(&self, max_bytes: usize) -> Result<(), Fault> {
        let refuse = |text: &str| Err(Fault::Refused(text.to_owned()));
        let content = &self.content;
        if content.is_empty() {
            return refuse("Batch script is empty!");
        }
        if content.iter().all(u8::is_ascii_whitespace) {
            return refuse("Batch script contains only whitespace!");
        }
        if !content.starts_with(b"#!") {
            return refuse(
                "This does not look like a batch script.  The first\n\
                 line must start with #! followed by the path to an interpreter.\n\
                 For instance: #!/bin/sh",
            );
        }
        if content.contains(&0) {
            return refuse(
                "The Slurm controller does not allow scripts that\n\
                 contain a NULL character '\\0'.",
            );
        }
        if content.windows(2).any(|pair| pair == b"\r\n") {
            return refuse(
                "Batch script contains DOS line breaks (\\r\\n)\n\
                 instead of expected UNIX line breaks (\\n).",
            );
        }
        if content.len() > max_bytes {
            let size = content.len();
            return refuse(&format!(
                "Batch script is too large: {size} bytes, this cluster takes at most {max_bytes}"
            ));
        }
        Ok(())
    }
}

fn read(input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    input.take(READ_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn find(name: &str, chdir: Option<&str>, around: &Surroundings) -> Option<PathBuf> {
    let base = match chdir {
        Some(dir) => around.cwd.join(dir),
        None => around.cwd.clone(),
    };
    if name.starts_with('/') {
        return Some(PathBuf::from(name));
    }
    let here = tidy(&base.join(name));
    if name.starts_with('.') || here.is_file() {
        return Some(here);
    }
    // Slurm looks in the directory of submission too.
    let there = around.cwd.join(name);
    if there.is_file() {
        return Some(there);
    }
    let path = around.variable("PATH").unwrap_or_default();
    path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|p| p.is_file())
}

/// Drops `.` parts, so that `./job.sh` is shown as `/home/ann/job.sh`.
fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

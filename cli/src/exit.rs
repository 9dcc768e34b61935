//! Exit codes, and how a command says what went wrong.

use std::io::Write as _;

/// All went well.
pub const OK: i32 = 0;
/// The request was refused, or the controller could not be reached.
pub const FAILED: i32 = 1;
/// `sbatch`, `srun` and `salloc`: the command line itself is wrong (Slurm exits with -1).
pub const USAGE: i32 = 255;

/// The exit code after a refused or failed request of `sbatch`, `salloc` and `srun`: users may
/// choose it, to tell it from their program's own.
#[must_use]
pub fn failed() -> i32 {
    std::env::var("SLURM_EXIT_ERROR")
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .filter(|code| (1..=255).contains(code))
        .unwrap_or(FAILED)
}

/// What the system says of an error, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

/// Writes `PROGRAM: error: TEXT` for each line of `text`, as Slurm's tools do.
pub fn error(program: &str, text: &str) {
    let mut out = std::io::stderr().lock();
    for line in text.lines() {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(out, "{program}: error: {line}");
    }
}

/// Writes `PROGRAM: TEXT` for each line of `text`.
pub fn say(program: &str, text: &str) {
    let mut out = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "{program}: {line}");
    }
}

/// A line of somebody else's on stderr, as it is.
pub fn note(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes to stdout; a reader that has gone away (`| head`) is no fault.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

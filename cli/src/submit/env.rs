//! What travels with the job from the submitting process: environment, umask, resource limits.

use super::args::Settings;
use super::{Fault, Surroundings};

/// Variables of the job that `sbatch` itself runs in. Inherited, they would tell the new job lies
/// about itself: real frameworks read `SLURM_NTASKS` or `SLURM_ARRAY_TASK_ID` and believe them.
const OUTER_JOB: &[&str] = &[
    "SLURM_ARRAY_",
    "SLURM_CPUS_",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_EXPORT_ENV",
    "SLURM_GPUS",
    "SLURM_GTIDS",
    "SLURM_HET_",
    "SLURM_HINT",
    "SLURM_JOBID",
    "SLURM_JOB_",
    "SLURM_LAUNCH_",
    "SLURM_LOCALID",
    "SLURM_MEM_PER_",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_NODELIST",
    "SLURM_NPROCS",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_SRUN_",
    "SLURM_STEP",
    "SLURM_SUBMIT_",
    "SLURM_TASKS_PER_NODE",
    "SLURM_TASK_PID",
    "SLURM_THREADS_PER_CORE",
    "SLURM_TOPOLOGY_",
    "SLURM_TRES_",
    "SLURMD_NODENAME",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
];

/// What a login would set in any case; the values are the submitter's.
const LOGIN: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL"];
const LOGIN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Variable = (Vec<u8>, Vec<u8>);

/// The job's environment as NUL-separated `NAME=VALUE`.
///
/// # Errors
/// An `--export-file` that cannot be read, or more than the cluster takes.
pub fn job_environment(settings: &Settings, around: &Surroundings) -> Result<Vec<u8>, Fault> {
    let mut chosen = match settings.value("export-file") {
        Some(path) => from_file(path, around)?,
        None => exported(settings.value("export"), around),
    };
    if let Some(export) = settings.value("export") {
        set(&mut chosen, b"SLURM_EXPORT_ENV", export.as_bytes());
    }
    let mut out = Vec::new();
    for (name, value) in &chosen {
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(0);
    }
    let (size, most) = (out.len(), around.max_environment_bytes);
    if size > most {
        return Err(Fault::Refused(format!(
            "The environment is too large: {size} bytes, this cluster takes at most {most} \
             (use --export=NONE or a list)"
        )));
    }
    Ok(out)
}

fn exported(export: Option<&str>, around: &Surroundings) -> Vec<Variable> {
    let export = export.unwrap_or("ALL");
    let words = split(export);
    let is = |word: &str| words.len() == 1 && words[0].eq_ignore_ascii_case(word);
    let all = words.iter().any(|w| w.eq_ignore_ascii_case("ALL"));
    let mut out: Vec<Variable> =
        inherited(around).filter(|(name, _)| all || always(name)).cloned().collect();
    if all && words.len() == 1 || is("NIL") {
        return out;
    }
    if !all {
        for name in LOGIN {
            if let Some(value) = around.variable(name) {
                set(&mut out, name.as_bytes(), value.as_bytes());
            }
        }
        set(&mut out, b"PATH", LOGIN_PATH.as_bytes());
    }
    if is("NONE") {
        return out;
    }
    for word in words.iter().filter(|w| !w.eq_ignore_ascii_case("ALL")) {
        match word.split_once('=') {
            Some((name, value)) => set(&mut out, name.as_bytes(), value.as_bytes()),
            None => {
                let found = around.environment.iter().find(|(name, _)| name == word.as_bytes());
                if let Some((name, value)) = found {
                    set(&mut out, name, value);
                }
            }
        }
    }
    out
}

/// The submitter's variables, without those of a job around it.
fn inherited(around: &Surroundings) -> impl Iterator<Item = &Variable> {
    let inside = around.variable("SLURM_JOB_ID").is_some();
    let stale = move |name: &[u8]| {
        inside && OUTER_JOB.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    around.environment.iter().filter(move |(name, _)| !name.is_empty() && !stale(name))
}

/// What no `--export` holds back.
fn always(name: &[u8]) -> bool {
    name.starts_with(b"SLURM_") || name.starts_with(b"SPANK_") || name.starts_with(b"_SLURM_")
}

fn set(list: &mut Vec<Variable>, name: &[u8], value: &[u8]) {
    match list.iter_mut().find(|(n, _)| n == name) {
        Some(found) => found.1 = value.to_vec(),
        None => list.push((name.to_vec(), value.to_vec())),
    }
}

/// Splits at commas outside quotes; the quotes go.
fn split(text: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ',') => out.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    out.push(word);
    out.retain(|w| !w.is_empty());
    out
}

fn from_file(path: &str, around: &Surroundings) -> Result<Vec<Variable>, Fault> {
    let content = std::fs::read(around.cwd.join(path))
        .map_err(|e| Fault::Refused(format!("Unable to read --export-file {path}: {e}")))?;
    let mut out: Vec<Variable> = inherited(around).filter(|(n, _)| always(n)).cloned().collect();
    for entry in content.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        if let Some(at) = entry.iter().position(|b| *b == b'=').filter(|at| *at > 0) {
            set(&mut out, &entry[..at], &entry[at + 1..]);
        }
    }
    Ok(out)
}

/// This process's umask. The kernel tells it only by setting it.
#[must_use]
pub fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

/// The soft limits that travel by default, by their short names.
#[must_use]
pub fn soft_limits() -> Vec<(&'static str, u64)> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let all = [
        ("cpu", Resource::RLIMIT_CPU),
        ("fsize", Resource::RLIMIT_FSIZE),
        ("data", Resource::RLIMIT_DATA),
        ("stack", Resource::RLIMIT_STACK),
        ("core", Resource::RLIMIT_CORE),
        ("rss", Resource::RLIMIT_RSS),
        ("nproc", Resource::RLIMIT_NPROC),
        ("nofile", Resource::RLIMIT_NOFILE),
        ("memlock", Resource::RLIMIT_MEMLOCK),
        ("as", Resource::RLIMIT_AS),
    ];
    let limit = |resource| {
        let soft = getrlimit(resource).ok()?.0;
        Some(if soft == RLIM_INFINITY { u64::MAX } else { soft })
    };
    all.into_iter().filter_map(|(name, resource)| Some((name, limit(resource)?))).collect()
}

/// The limits that `--propagate` chooses.
///
/// # Errors
/// A name that is no limit.
pub fn propagated(
    settings: &Settings,
    around: &Surroundings,
) -> Result<Vec<(&'static str, u64)>, Fault> {
    let chosen = settings.value("propagate").unwrap_or("ALL");
    if chosen.eq_ignore_ascii_case("ALL") {
        return Ok(around.rlimits.clone());
    }
    if chosen.eq_ignore_ascii_case("NONE") {
        return Ok(Vec::new());
    }
    let find = |word: &str| {
        let word = word.trim().to_ascii_lowercase();
        let word = word.strip_prefix("rlimit_").unwrap_or(&word);
        around.rlimits.iter().find(|(name, _)| *name == word).copied()
    };
    chosen
        .split(',')
        .map(|w| {
            find(w).ok_or_else(|| Fault::Option(format!("Invalid --propagate specification: {w}")))
        })
        .collect()
}

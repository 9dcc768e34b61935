//! Job traces: what was asked of a cluster and when, read from files of several formats.
//!
//! The format is told by the file's header or columns, never by its name; gzip by its first bytes.
//! Whatever is wrong with a file is named with the file and the line.
//!
//! - `swf`: the Standard Workload Format; `csv`: a table with a header line
//! - `philly`, `openb`, `cerit`: three published tables; `muster`: our own table
//! - `synthetic`: limits for traces whose users gave none

mod cerit;
mod csv;
mod muster;
mod openb;
mod philly;
mod swf;
mod synthetic;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

pub(crate) use muster::HEADER as MUSTER_HEADER;
pub(crate) use synthetic::limit as synthetic_limit;

/// Text of a file at most, so that a small gzip file cannot fill the memory.
const MAX_TEXT: u64 = 2 << 30;

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{file}: cannot be read: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("{file}: not a trace: {why}")]
    Unknown { file: String, why: String },
    #[error("{file}, line {line}: {what}")]
    Line { file: String, line: usize, what: String },
    #[error("{file}: no usable job (each needs a positive run time, size and time limit)")]
    Empty { file: String },
}

/// What one job asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// Exactly so many nodes; 0: as many as the tasks need.
    pub nodes: u32,
    pub tasks: u32,
    pub cpus_per_task: u32,
    pub gpus_per_task: u32,
    /// Thousandths of its one GPU, where the trace shares GPUs; 0: whole ones. A replay gives a whole
    /// one all the same.
    pub gpu_share: u32,
    /// Thousandths of CPUs, where the trace counts so; 0: whole ones.
    pub cpu_milli: u32,
    /// On each node; 0: memory does not count.
    pub memory_mib: u64,
    pub exclusive: bool,
    /// Each node has one feature of every group.
    pub features: Vec<Vec<Box<str>>>,
}

/// One job of a trace. Times are seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    /// Where it stands in its file.
    pub line: usize,
    /// Since the trace's own zero, not negative.
    pub submit: i64,
    /// Positive, and not above `limit`.
    pub run: i64,
    /// What the user estimated; the job is killed there.
    pub limit: i64,
    pub user: u32,
    pub wish: Wish,
}

impl Entry {
    /// CPUs over all nodes.
    #[must_use]
    pub fn cpus(&self) -> u64 {
        u64::from(self.wish.tasks) * u64::from(self.wish.cpus_per_task)
    }

    /// GPUs over all nodes.
    #[must_use]
    pub fn gpus(&self) -> u64 {
        u64::from(self.wish.tasks) * u64::from(self.wish.gpus_per_task)
    }
}

/// Nodes that are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeKind {
    pub cpus: u32,
    /// 0: memory does not count.
    pub memory_mib: u64,
    pub gpus: u32,
    pub gpu_type: Option<Box<str>>,
    pub features: Vec<Box<str>>,
}

/// The cluster that a trace was taken from, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub nodes: Vec<(u32, NodeKind)>,
}

impl Machine {
    /// One node that is a pool of processors.
    #[must_use]
    pub fn pool(processors: u32) -> Self {
        Machine { nodes: vec![(1, NodeKind { cpus: processors, ..NodeKind::default() })] }
    }

    #[must_use]
    pub fn cpus(&self) -> u64 {
        self.nodes.iter().map(|(n, kind)| u64::from(*n) * u64::from(kind.cpus)).sum()
    }

    #[must_use]
    pub fn gpus(&self) -> u64 {
        self.nodes.iter().map(|(n, kind)| u64::from(*n) * u64::from(kind.gpus)).sum()
    }
}

/// What the sizes of a trace's jobs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Processors,
    Gpus,
}

/// Jobs in the order of (submit, id).
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The file, for messages.
    pub file: String,
    pub jobs: Vec<Entry>,
    pub unit: Unit,
    pub machine: Option<Machine>,
    /// Jobs without positive run time, size or limit.
    pub dropped: usize,
    /// Nobody's estimates: the limits were made up.
    pub synthetic_limits: bool,
}

/// What a file turned out to be.
#[derive(Debug)]
pub enum File {
    Jobs(Trace),
    Nodes(Machine),
}

/// Reads a file of any known format.
///
/// # Errors
/// The first fault of the file.
pub fn open(path: &Path) -> Result<File, Fault> {
    let file = path.display().to_string();
    let text = read(path).map_err(|source| Fault::Read { file: file.clone(), source })?;
    parse(&file, &text)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(&*bytes).take(MAX_TEXT).read_to_end(&mut text)?;
    Ok(text)
}

/// Reads text of any known format; `file` is for messages.
///
/// # Errors
/// The first fault of the text.
pub fn parse(file: &str, text: &[u8]) -> Result<File, Fault> {
    let text = std::str::from_utf8(text).map_err(|fault| {
        let line = 1 + text[..fault.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Fault::Line { file: file.to_owned(), line, what: "is not UTF-8".to_owned() }
    })?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let Some(first) = first else {
        return Err(Fault::Unknown { file: file.to_owned(), why: "it is empty".to_owned() });
    };
    let digit = first.starts_with(|c: char| c.is_ascii_digit());
    let out = if first.starts_with(';') || (digit && !first.contains(',')) {
        File::Jobs(swf::read(file, text)?)
    } else {
        let columns: Vec<&str> = first.split(',').map(str::trim).collect();
        let has = |names: &[&str]| names.iter().all(|name| columns.contains(name));
        if has(philly::COLUMNS) {
            File::Jobs(philly::read(file, text)?)
        } else if has(openb::TASK_COLUMNS) {
            File::Jobs(openb::read_tasks(file, text)?)
        } else if has(openb::NODE_COLUMNS) {
            return Ok(File::Nodes(openb::read_nodes(file, text)?));
        } else if has(cerit::COLUMNS) {
            File::Jobs(cerit::read(file, text)?)
        } else if has(muster::COLUMNS) {
            File::Jobs(muster::read(file, text)?)
        } else {
            let shown: String = first.chars().take(60).collect();
            let why = format!("no format begins with {shown:?}");
            return Err(Fault::Unknown { file: file.to_owned(), why });
        }
    };
    match out {
        File::Jobs(trace) => sound(trace).map(File::Jobs),
        nodes @ File::Nodes(_) => Ok(nodes),
    }
}

/// Puts the jobs in order; every number is there once.
fn sound(mut trace: Trace) -> Result<Trace, Fault> {
    if trace.jobs.is_empty() {
        return Err(Fault::Empty { file: trace.file });
    }
    let mut lines = BTreeMap::new();
    for job in &trace.jobs {
        if let Some(before) = lines.insert(job.id, job.line) {
            let what = format!("job {} stands in line {before} already", job.id);
            return Err(Fault::Line { file: trace.file, line: job.line, what });
        }
    }
    trace.jobs.sort_by_key(|job| (job.submit, job.id));
    Ok(trace)
}

/// Times are kept in seconds and computed with in milliseconds; this is more than any log spans.
const MAX_SECONDS: i64 = 1 << 40;

/// A job as a file has it, before the rules that all formats share.
struct Found {
    id: u64,
    line: usize,
    submit: i64,
    run: i64,
    limit: i64,
    user: u32,
    wish: Wish,
}

/// The rules that all formats share: the run time is clipped to the limit, and a job without
/// positive run time, size or limit is dropped (`None`).
fn usable(found: Found) -> Result<Option<Entry>, String> {
    let Found { id, line, submit, run, limit, user, wish } = found;
    if submit < 0 {
        return Err(format!("job {id} has the negative submit time {submit}"));
    }
    if [submit, run, limit].iter().any(|t| *t > MAX_SECONDS) {
        return Err(format!("job {id} has a time beyond {MAX_SECONDS} seconds"));
    }
    if run <= 0 || limit <= 0 || wish.tasks == 0 || wish.cpus_per_task == 0 {
        return Ok(None);
    }
    // A time limit has 32 bits of seconds, which are 136 years.
    let limit = limit.min(u32::MAX.into());
    Ok(Some(Entry { id, line, submit, run: run.min(limit), limit, user, wish }))
}

//! The Standard Workload Format (Chapin et al. 1999): eighteen numbers a line, `;` before comments
//! and header fields, -1 for what is not known.
//!
//! Fields read (from 1): 1 job, 2 submit, 4 run time, 8 requested processors (else 5 allocated
//! ones), 9 estimate, 12 user.

use super::{Fault, Found, Machine, Trace, Unit, Wish, usable};

const FIELDS: usize = 18;

/// What the standard calls them.
const NAMES: [&str; FIELDS] = [
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
];

pub(super) fn read(file: &str, text: &str) -> Result<Trace, Fault> {
    let mut trace = Trace {
        file: file.to_owned(),
        jobs: Vec::new(),
        unit: Unit::Processors,
        machine: None,
        dropped: 0,
        synthetic_limits: false,
    };
    for (line, words) in (1..).zip(text.lines()) {
        let words = words.trim();
        let fault = |what| Fault::Line { file: file.to_owned(), line, what };
        if let Some(comment) = words.strip_prefix(';') {
            trace.machine = header(comment).map_err(fault)?.or(trace.machine);
        } else if !words.is_empty() {
            match job(words, line).map_err(fault)? {
                Some(job) => trace.jobs.push(job),
                None => trace.dropped += 1,
            }
        }
    }
    Ok(trace)
}

/// The machine's size, if this line of the header tells it.
fn header(comment: &str) -> Result<Option<Machine>, String> {
    let Some((name, value)) = comment.split_once(':') else { return Ok(None) };
    if name.trim() != "MaxProcs" {
        return Ok(None);
    }
    let value = value.split_whitespace().next().unwrap_or_default();
    match value.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(n) if n > 0 => {
            let n = u32::try_from(n).map_err(|_| format!("MaxProcs {n} is too many"))?;
            Ok(Some(Machine::pool(n)))
        }
        Ok(_) | Err(_) => Err(format!("MaxProcs {value:?} is no number of processors")),
    }
}

fn job(words: &str, line: usize) -> Result<Option<super::Entry>, String> {
    let mut fields = [0i64; FIELDS];
    let mut count = 0;
    for word in words.split_whitespace() {
        let value = number(word).ok_or_else(|| {
            let name = NAMES.get(count).map_or_else(String::new, |name| format!(" ({name})"));
            format!("field {}{name} is {word:?}, which is no number", count + 1)
        })?;
        if let Some(field) = fields.get_mut(count) {
            *field = value;
        }
        count += 1;
    }
    if count != FIELDS {
        return Err(format!(
            "{count} fields instead of the {FIELDS} of the Standard Workload Format"
        ));
    }
    let id = u64::try_from(fields[0])
        .map_err(|_| format!("the job number {} is negative", fields[0]))?;
    let size = if fields[7] > 0 { fields[7] } else { fields[4] };
    let tasks = match u32::try_from(size.max(0)) {
        Ok(tasks) => tasks,
        Err(_) => return Err(format!("job {id} wants {size} processors")),
    };
    let wish = Wish { tasks, cpus_per_task: 1, ..Wish::default() };
    let user = u32::try_from(fields[11].max(0)).unwrap_or(0);
    let (submit, run, limit) = (fields[1], fields[3], fields[8]);
    usable(Found { id, line, submit, run, limit, user, wish })
}

/// A whole number; some logs write averages and times with decimals, which are cut off.
fn number(word: &str) -> Option<i64> {
    if let Ok(n) = word.parse::<i64>() {
        return Some(n);
    }
    let plain = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+'));
    let value = word.parse::<f64>().ok().filter(|v| plain && v.abs() < 9e15)?;
    Some(value.trunc() as i64)
}

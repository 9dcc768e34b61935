//! File name patterns of `--output`, `--error` and `--input`, as Slurm expands them for a batch
//! script.

/// What a pattern may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) job: u32,
    /// (the array's id, this task's index)
    pub(crate) array: Option<(u32, u32)>,
    pub(crate) node: &'a str,
    pub(crate) node_index: u32,
    pub(crate) restarts: u32,
    pub(crate) user: &'a str,
    pub(crate) job_name: &'a str,
    /// (the step's number, the task's rank); none: the batch script
    pub(crate) task: Option<(u32, u32)>,
}

/// Slurm's index of a job that is no array task.
const NO_INDEX: u32 = 0xffff_fffe;
/// Wider zero padding is not given.
const MAX_WIDTH: usize = 10;
/// The step id of a batch script.
const BATCH_STEP: &str = "batch";

/// The default output file.
pub(crate) fn default_output(names: &Names<'_>) -> &'static str {
    if names.array.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" }
}

/// Expands `pattern`. A backslash anywhere switches expansion off and goes; a conversion that is
/// not known stays as it is written.
pub(crate) fn expand(pattern: &str, names: &Names<'_>) -> String {
    if pattern.contains('\\') {
        return pattern.replace('\\', "");
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let width = after[..digits].parse().unwrap_or(usize::MAX * usize::from(digits > 0));
        let mut tail = after[digits..].chars();
        match tail.next().and_then(|c| conversion(c, width.min(MAX_WIDTH), names)) {
            Some(text) => {
                out.push_str(&text);
                rest = tail.as_str();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

fn conversion(letter: char, width: usize, names: &Names<'_>) -> Option<String> {
    let number = |n: u32| format!("{n:0width$}");
    let step = |width: usize| match names.task {
        Some((step, _)) => format!("{step:0width$}"),
        None => BATCH_STEP.to_owned(),
    };
    let index = names.array.map_or(NO_INDEX, |(_, index)| index);
    Some(match letter {
        '%' => "%".to_owned(),
        'A' => number(names.array.map_or(names.job, |(array, _)| array)),
        'a' => number(index),
        'b' => number(index % 10),
        'J' => format!("{}.{}", number(names.job), step(0)),
        'j' => number(names.job),
        'N' => names.node.split('.').next().unwrap_or_default().to_owned(),
        'n' => number(names.node_index),
        'r' => number(names.restarts),
        's' => step(width),
        // A batch script is the one task of its step.
        't' => number(names.task.map_or(0, |(_, rank)| rank)),
        'u' => names.user.to_owned(),
        'x' => names.job_name.to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &str) {
        let names = Names {
            job: 43,
            array: Some((40, 13)),
            node: "n1.example.org",
            node_index: 0,
            restarts: 2,
            user: "alice",
            job_name: "train",
            task: None,
        };
        assert_eq!(expand(pattern, &names), expected, "{pattern}");
    }

    #[test]
    fn every_conversion_is_expanded() {
        check("%A_%a", "40_13");
        check("%b %j %J", "3 43 43.batch");
        check("%N-%n-%r-%s-%t", "n1-0-2-batch-0");
        check("%u/%x.log", "alice/train.log");
        check("100%%", "100%");
    }

    #[test]
    fn numbers_are_padded_to_the_width_and_ten_at_most() {
        check("%4j", "0043");
        check("%1j", "43");
        check("%3a", "013");
        check("%99j", "0000000043");
        check("%99999999999999999999999j", "0000000043");
    }

    #[test]
    fn what_is_not_known_stays() {
        check("%y %", "%y %");
        check("%4", "%4");
        check("50%é", "50%é");
    }

    #[test]
    fn a_backslash_switches_expansion_off() {
        check("\\%j.out", "%j.out");
        check("a\\%A", "a%A");
    }

    #[test]
    fn a_plain_job_is_its_own_array() {
        let names = Names { job: 7, ..Names::default() };
        assert_eq!(expand("%A_%a", &names), "7_4294967294");
        assert_eq!(default_output(&names), "slurm-%j.out");
    }
}

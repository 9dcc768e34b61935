//! `%j` and friends in the names of output files, for display. The node that opens the files
//! expands them itself; both follow the same grammar.

use std::fmt::Write as _;

/// What the letters stand for.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub job: u32,
    /// The array's id and the task's index.
    pub array: Option<(u32, u32)>,
    pub user: &'a str,
    pub job_name: &'a str,
    /// The first node; empty while it waits.
    pub node: &'a str,
    pub restarts: u32,
}

/// What `%a` shows for a job that is of no array, or for several tasks together.
pub const NO_TASK: u32 = u32::MAX - 1;

/// The file that `pattern` means, absolute in `workdir`; without one the default name.
#[must_use]
pub fn file(pattern: Option<&str>, workdir: &str, names: &Names<'_>) -> String {
    let default = if names.array.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" };
    let expanded = expand(pattern.unwrap_or(default), names);
    if expanded.starts_with('/') {
        expanded
    } else {
        format!("{}/{expanded}", workdir.trim_end_matches('/'))
    }
}

fn expand(pattern: &str, names: &Names<'_>) -> String {
    // A leading backslash switches expansion off.
    if let Some(plain) = pattern.strip_prefix('\\') {
        return plain.to_owned();
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let width = after[..digits].parse::<usize>().unwrap_or(0).min(10);
        let Some(letter) = after[digits..].chars().next() else {
            out.push_str(&rest[at..]);
            return out;
        };
        if !one(&mut out, letter, width, names) {
            out.push_str(&rest[at..=at + digits + letter.len_utf8()]);
        }
        rest = &after[digits + letter.len_utf8()..];
    }
    out.push_str(rest);
    out
}

/// Writes one letter's value; `false`: the letter means nothing.
fn one(out: &mut String, letter: char, width: usize, names: &Names<'_>) -> bool {
    let (array, task) = names.array.unwrap_or((names.job, NO_TASK));
    let number = match letter {
        'A' => array,
        'a' => task,
        'b' => task % 10,
        'j' | 'J' => names.job,
        'n' | 't' | 's' => 0,
        'r' => names.restarts,
        _ => {
            match letter {
                '%' => out.push('%'),
                'N' => out.push_str(names.node.split('.').next().unwrap_or_default()),
                'u' => out.push_str(names.user),
                'x' => out.push_str(names.job_name),
                _ => return false,
            }
            return true;
        }
    };
    write!(out, "{number:0width$}").expect("a String takes every write");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: Option<&str>, array: Option<(u32, u32)>, expected: &str) {
        let names =
            Names { job: 12, array, user: "ann", job_name: "train", node: "n1.x", restarts: 2 };
        assert_eq!(file(pattern, "/w/", &names), expected, "{pattern:?}");
    }

    #[test]
    fn names_are_shown_as_the_node_opens_them() {
        check(None, None, "/w/slurm-12.out");
        check(None, Some((10, 2)), "/w/slurm-10_2.out");
        check(Some("/x/%x-%5j.%a.out"), None, "/x/train-00012.4294967294.out");
        check(Some("%A_%a_%b_%u_%N_%r_%n%%"), Some((10, 12)), "/w/10_12_2_ann_n1_2_0%");
        check(Some("\\%j"), None, "/w/%j");
        check(Some("%q%"), None, "/w/%q%");
    }
}

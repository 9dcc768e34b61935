//! File name patterns of `-o`, `-e` and `-i`, where they are the same for all tasks.

/// What a pattern may name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) job: u32,
    pub(crate) step: u32,
    pub(crate) array: Option<(u32, u32)>,
    pub(crate) restarts: u32,
    pub(crate) user: String,
    pub(crate) job_name: String,
}

/// Wider zero padding is not given.
const MAX_WIDTH: usize = 10;
/// Slurm's index of a job that is no array task.
const NO_INDEX: u32 = 0xffff_fffe;

/// Each conversion: text before it, its width, its letter.
fn pieces(pattern: &str) -> impl Iterator<Item = (&str, Option<(usize, char)>, &str)> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(at) = rest.find('%') else {
            return Some((std::mem::take(&mut rest), None, ""));
        };
        let (before, from) = rest.split_at(at);
        let after = &from[1..];
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let width = after[..digits].parse().unwrap_or(0usize).min(MAX_WIDTH);
        match after[digits..].chars().next() {
            Some(letter) => {
                let whole = &from[..1 + digits + letter.len_utf8()];
                rest = &from[whole.len()..];
                Some((before, Some((width, letter)), whole))
            }
            None => {
                rest = "";
                Some((before, None, from))
            }
        }
    })
}

/// Whether each task or node has a file of its own: then it is opened there.
pub(crate) fn is_per_task(pattern: &str) -> bool {
    !pattern.contains('\\')
        && pieces(pattern).any(|(_, c, _)| c.is_some_and(|(_, letter)| "tnN".contains(letter)))
}

/// Expands a pattern that is not per task.
pub(crate) fn expand(pattern: &str, names: &Names) -> String {
    if pattern.contains('\\') {
        return pattern.replace('\\', "");
    }
    let mut out = String::new();
    for (before, conversion, whole) in pieces(pattern) {
        out.push_str(before);
        let Some((width, letter)) = conversion else {
            out.push_str(whole);
            continue;
        };
        let number = |n: u32| format!("{n:0width$}");
        let index = names.array.map_or(NO_INDEX, |(_, index)| index);
        out.push_str(&match letter {
            '%' => "%".to_owned(),
            'A' => number(names.array.map_or(names.job, |(array, _)| array)),
            'a' => number(index),
            'b' => number(index % 10),
            'J' => format!("{}.{}", number(names.job), names.step),
            'j' => number(names.job),
            'r' => number(names.restarts),
            's' => number(names.step),
            'u' => names.user.clone(),
            'x' => names.job_name.clone(),
            _ => whole.to_owned(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_for_all_is_named_here_and_files_of_tasks_there() {
        let names = Names {
            job: 12,
            step: 3,
            job_name: "train".into(),
            user: "ann".into(),
            ..Names::default()
        };
        for (pattern, expected) in [
            ("out-%j.%s", "out-12.3"),
            ("%x/%u-%J-%4s", "train/ann-12.3-0003"),
            ("100%%", "100%"),
            ("%y%", "%y%"),
            ("\\%j", "%j"),
        ] {
            assert_eq!(expand(pattern, &names), expected);
            assert!(!is_per_task(pattern), "{pattern}");
        }
        for pattern in ["%j_%t_log.out", "%2n", "x%N"] {
            assert!(is_per_task(pattern), "{pattern}");
        }
        assert!(!is_per_task("100%%t"));
    }
}

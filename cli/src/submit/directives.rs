//! `#SBATCH` lines: where they may stand and how their words are split.

use super::Fault;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// (line number, words) of each directive line, by component: `#SBATCH hetjob` begins the next.
    pub components: Vec<Vec<(usize, Vec<String>)>>,
    /// Lines of other schedulers were seen.
    pub foreign: bool,
}

/// Reads the directives of a script; `shown` is its name in messages. The scan ends at the first
/// line that is neither blank nor a comment.
///
/// # Errors
/// An unmatched quote, or a leading `:`.
pub fn scan(content: &[u8], shown: &str) -> Result<Found, Fault> {
    let mut found = Found { components: vec![Vec::new()], foreign: false };
    for (number, line) in (1..).zip(content.split(|b| *b == b'\n')) {
        let line = String::from_utf8_lossy(line);
        let Some(comment) = line.strip_prefix('#') else {
            if line.trim().is_empty() {
                continue;
            }
            break;
        };
        let directive = ["SBATCH", "SLURM"].iter().find_map(|word| comment.strip_prefix(word));
        let Some(text) = directive.filter(|t| t.is_empty() || t.starts_with([' ', '\t'])) else {
            found.foreign |= ["PBS ", "BSUB "].iter().any(|word| comment.starts_with(word));
            continue;
        };
        let words = split(text).map_err(|fault| {
            Fault::Fatal(format!("{shown}: line {number}: {fault} in [{}]", text.trim_start()))
        })?;
        if matches!(words.first().map(String::as_str), Some("hetjob" | "packjob")) {
            found.components.push(Vec::new());
            continue;
        }
        if !words.is_empty() {
            let lines = found.components.last_mut().expect("there is a first component");
            lines.push((number, words));
        }
    }
    Ok(found)
}

/// Splits one line as a shell would, without expanding anything.
fn split(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with(':') {
        return Err("Unexpected `:`".to_owned());
    }
    let (mut words, mut word, mut inside) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, inside) = (Some(c), true),
            (Some('\''), c) => word.push(c),
            (_, '\\') => {
                if let Some(next) = chars.next() {
                    word.push(next);
                    inside = true;
                }
            }
            (Some(_), c) => word.push(c),
            (None, '#') => break,
            (None, c) if c.is_whitespace() => {
                if inside {
                    words.push(std::mem::take(&mut word));
                    inside = false;
                }
            }
            (None, c) => {
                word.push(c);
                inside = true;
            }
        }
    }
    if let Some(open) = quote {
        return Err(format!("Unmatched `{open}`"));
    }
    if inside {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, lines: &[(usize, &[&str])]) {
        let found = scan(script.as_bytes(), "job.sh").expect(script).components;
        let got: Vec<(usize, Vec<&str>)> = found
            .iter()
            .flatten()
            .map(|(n, w)| (*n, w.iter().map(String::as_str).collect()))
            .collect();
        let wanted: Vec<(usize, Vec<&str>)> = lines.iter().map(|(n, w)| (*n, w.to_vec())).collect();
        assert_eq!(got, wanted, "{script}");
    }

    #[track_caller]
    fn refuse(script: &str, fault: &Fault) {
        assert_eq!(&scan(script.as_bytes(), "job.sh").expect_err(script), fault);
    }

    #[test]
    fn lines_split_as_a_shell_splits_them() {
        check(
            "#!/bin/sh\n#SBATCH -p gpu --gres=gpu:h100-96:1",
            &[(2, &["-p", "gpu", "--gres=gpu:h100-96:1"])],
        );
        check("#SBATCH\t--mail-type=END\t# when?", &[(1, &["--mail-type=END"])]);
        check(
            "#SBATCH --comment='hi there' -J \"a b\"",
            &[(1, &["--comment=hi there", "-J", "a b"])],
        );
        check("#SBATCH -J a\\ b\\c", &[(1, &["-J", "a bc"])]);
        check("#SBATCH -J ''", &[(1, &["-J", ""])]);
        check("#SBATCH --time 14:20:00", &[(1, &["--time", "14:20:00"])]);
        check("#SBATCH", &[]);
    }

    #[test]
    fn other_comments_are_skipped_and_the_first_command_ends_the_scan() {
        check(
            "#!/bin/sh\n##SBATCH -n1\n# #SBATCH -n2\n#BSATCH -n3\n\n  \n#SBATCH -n4\nls\n#SBATCH -n5",
            &[(7, &["-n4"])],
        );
        check(" #SBATCH -n1", &[]);
        check("#sbatch -n1\n#SBATCHX -n2", &[]);
    }

    #[test]
    fn other_schedulers_lines_are_seen() {
        assert!(scan(b"#!/bin/sh\n#PBS -l nodes=1\n", "x").expect("a script").foreign);
        assert!(!scan(b"#!/bin/sh\n#SBATCH -n1\n", "x").expect("a script").foreign);
    }

    #[test]
    fn a_line_that_cannot_be_split_is_named() {
        let unmatched = "job.sh: line 2: Unmatched `\"` in [--job-name=\"x]";
        refuse("#!/bin/sh\n#SBATCH --job-name=\"x\n", &Fault::Fatal(unmatched.to_owned()));
        let colon = "job.sh: line 1: Unexpected `:` in [: -n2]";
        refuse("#SBATCH : -n2", &Fault::Fatal(colon.to_owned()));
    }

    #[test]
    fn hetjob_begins_the_next_component() {
        let script = "#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n2\n#SBATCH packjob\n";
        let found = scan(script.as_bytes(), "job.sh").expect("a script").components;
        let lines: Vec<Vec<usize>> =
            found.iter().map(|lines| lines.iter().map(|(n, _)| *n).collect()).collect();
        assert_eq!(lines, [vec![2], vec![4], vec![]]);
    }
}

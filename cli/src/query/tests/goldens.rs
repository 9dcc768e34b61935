//! Golden sessions: each `$ command` of a `*.txt` file beside this one is run over the fixed
//! world, and must give exactly the lines below it. A line on stderr stands after `! `, a code
//! that is not 0 after `= `. With `GOLDENS=write` in the environment the files are written anew,
//! to be read before they are kept.

use std::path::PathBuf;

use super::world::{Fixed, desk, run};

/// Words as a POSIX shell splits them: quotes group, nothing is expanded.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn session(command: &str) -> String {
    let mut words = words(command);
    let mut variables = Vec::new();
    while let Some((name, value)) =
        words[0].split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))
    {
        variables.push((name, value));
        words.remove(0);
    }
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let output = run(&words, &mut Fixed::new(), &desk(&variables));
    let mut text = format!("$ {command}\n{}", output.out);
    for line in output.err.lines() {
        text.push_str(&format!("! {line}\n"));
    }
    if output.code != 0 {
        text.push_str(&format!("= {}\n", output.code));
    }
    text
}

#[track_caller]
fn check(name: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src/query/tests", name].iter().collect();
    let golden = std::fs::read_to_string(&path).expect("the golden file is beside this one");
    let commands: Vec<&str> = golden.lines().filter_map(|l| l.strip_prefix("$ ")).collect();
    assert!(commands.len() > 5, "{name} has lost its commands");
    let got: String = commands.iter().map(|c| session(c)).collect();
    if std::env::var_os("GOLDENS").is_some_and(|v| v == "write") {
        std::fs::write(&path, &got).expect("the golden file can be written");
    }
    for (at, (want, got)) in golden.lines().zip(got.lines()).enumerate() {
        assert_eq!(want, got, "{name}, line {}", at + 1);
    }
    assert_eq!(golden.lines().count(), got.lines().count(), "{name}");
}

#[test]
fn clients_get_the_queue_they_parse() {
    check("squeue.txt");
}

#[test]
fn exporters_get_the_counters_they_parse() {
    check("sdiag.txt");
}

#[test]
fn clients_get_the_nodes_they_parse() {
    check("sinfo.txt");
}

#[test]
fn clients_get_the_history_they_parse() {
    check("sacct.txt");
}

#[test]
fn clients_are_told_that_there_are_no_accounts() {
    check("accounts.txt");
}

//! Command lines as `getopt_long` reads them: unique abbreviations of long options, bundled short
//! ones, `--name=value` and `--name value`, optional values, options after operands, `--`.
//!
//! Knows no command. Each command brings a table of [`Opt`] and gets back what it was given, in
//! the order given, under the table's own names.

use std::fmt;

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `-h`, `--noheader`.
    Nothing,
    /// `-n 4`, `-n4`, `--ntasks 4`, `--ntasks=4`.
    Value,
    /// `--exclusive`, `--exclusive=user`, `-kfoo`; never the next word.
    MaybeValue,
}

/// One row of a command's option table.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// The name under which [`parse`] reports it. Spellings of one option share it.
    pub id: &'static str,
    /// Without dashes; empty for an option that has a letter alone.
    pub long: &'static str,
    /// The letter, if it has one.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub takes: Takes,
}

/// A long option reported under its own name.
#[must_use]
pub const fn long(name: &'static str, takes: Takes) -> Opt {
    Opt { id: name, long: name, short: None, takes }
}

/// A long option with a letter, reported under the long name.
#[must_use]
pub const fn both(name: &'static str, short: char, takes: Takes) -> Opt {
    Opt { id: name, long: name, short: Some(short), takes }
}

/// Another spelling of the option `id`.
#[must_use]
pub const fn alias(id: &'static str, name: &'static str, takes: Takes) -> Opt {
    Opt { id, long: name, short: None, takes }
}

/// What a command accepts.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Named in messages.
    pub program: &'static str,
    /// Every option.
    pub options: &'static [Opt],
    /// The first operand ends the options, as for commands that run another command.
    pub stop_at_operand: bool,
}

/// One option as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// [`Opt::id`].
    pub id: &'static str,
    /// Its value, if it was given one.
    pub value: Option<String>,
}

/// A command line, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// In the order given.
    pub options: Vec<Given>,
    /// Words that are no options, in order.
    pub operands: Vec<String>,
}

impl Parsed {
    /// Whether the option was given at all.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.options.iter().any(|o| o.id == id)
    }

    /// The last value given for the option.
    #[must_use]
    pub fn last(&self, id: &str) -> Option<&str> {
        self.options.iter().rev().find(|o| o.id == id).and_then(|o| o.value.as_deref())
    }

    /// Every value given for the option, in order.
    pub fn all<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |o| o.id == id).filter_map(|o| o.value.as_deref())
    }
}

/// A command line that cannot be read. Displays as the two lines users know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadUsage {
    /// The command.
    pub program: &'static str,
    /// What is wrong, without the command's name.
    pub fault: String,
}

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadUsage { program, fault } = self;
        write!(f, "{program}: {fault}\nTry \"{program} --help\" for more information")
    }
}

/// Takes a command line apart; `args` is without the command's own name.
///
/// # Errors
/// An unknown or ambiguous option, a missing or an unwanted value.
pub fn parse<S: AsRef<str>>(spec: &Spec, args: &[S]) -> Result<Parsed, BadUsage> {
    let mut parsed = Parsed::default();
    let mut words = args.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.operands.extend(words.map(str::to_owned));
            break;
        }
        if let Some(text) = word.strip_prefix("--") {
            parsed.options.push(read_long(spec, text, &mut words)?);
        } else if word.len() > 1 && word.starts_with('-') {
            read_letters(spec, &word[1..], &mut words, &mut parsed.options)?;
        } else {
            parsed.operands.push(word.to_owned());
            if spec.stop_at_operand {
                parsed.operands.extend(words.map(str::to_owned));
                break;
            }
        }
    }
    Ok(parsed)
}

fn read_long<'a>(
    spec: &Spec,
    text: &str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<Given, BadUsage> {
    let bad = |fault| BadUsage { program: spec.program, fault };
    let (name, inline) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let opt = find_long(spec, name)?;
    let long = opt.long;
    let value = match (opt.takes, inline) {
        (Takes::Nothing, Some(_)) => {
            return Err(bad(format!("option '--{long}' doesn't allow an argument")));
        }
        (Takes::Value, None) => match words.next() {
            Some(value) => Some(value.to_owned()),
            None => return Err(bad(format!("option '--{long}' requires an argument"))),
        },
        (_, inline) => inline,
    };
    Ok(Given { id: opt.id, value })
}

fn find_long(spec: &Spec, name: &str) -> Result<&'static Opt, BadUsage> {
    let bad = |fault| BadUsage { program: spec.program, fault };
    let known = || spec.options.iter().filter(|o| !o.long.is_empty());
    if let Some(exact) = known().find(|o| o.long == name) {
        return Ok(exact);
    }
    let candidates: Vec<&Opt> =
        known().filter(|o| !name.is_empty() && o.long.starts_with(name)).collect();
    match candidates.as_slice() {
        [] => Err(bad(format!("unrecognized option '--{name}'"))),
        // Spellings of one and the same option do not compete.
        [first, rest @ ..] if rest.iter().all(|o| o.id == first.id && o.takes == first.takes) => {
            Ok(first)
        }
        many => {
            let list: Vec<String> = many.iter().map(|o| format!("'--{}'", o.long)).collect();
            let list = list.join(" ");
            Err(bad(format!("option '--{name}' is ambiguous; possibilities: {list}")))
        }
    }
}

fn read_letters<'a>(
    spec: &Spec,
    bundle: &str,
    words: &mut impl Iterator<Item = &'a str>,
    into: &mut Vec<Given>,
) -> Result<(), BadUsage> {
    let bad = |fault| BadUsage { program: spec.program, fault };
    for (at, letter) in bundle.char_indices() {
        let Some(opt) = spec.options.iter().find(|o| o.short == Some(letter)) else {
            return Err(bad(format!("invalid option -- '{letter}'")));
        };
        let rest = &bundle[at + letter.len_utf8()..];
        let value = match (opt.takes, rest) {
            (Takes::Nothing, _) => {
                into.push(Given { id: opt.id, value: None });
                continue;
            }
            (Takes::MaybeValue, "") => None,
            (Takes::Value, "") => match words.next() {
                Some(value) => Some(value.to_owned()),
                None => return Err(bad(format!("option requires an argument -- '{letter}'"))),
            },
            (_, rest) => Some(rest.to_owned()),
        };
        into.push(Given { id: opt.id, value });
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        program: "squeue",
        options: &[
            both("jobs", 'j', Takes::Value),
            both("noheader", 'h', Takes::Nothing),
            both("states", 't', Takes::Value),
            alias("states", "state", Takes::Value),
            both("steps", 's', Takes::MaybeValue),
            long("start", Takes::Nothing),
            Opt { id: "hide", long: "", short: Some('H'), takes: Takes::Nothing },
        ],
        stop_at_operand: false,
    };

    #[track_caller]
    fn check(line: &str, options: &[(&'static str, Option<&str>)], operands: &[&str]) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = parse(&SPEC, &words).expect(line);
        let got: Vec<_> = parsed.options.iter().map(|o| (o.id, o.value.as_deref())).collect();
        assert_eq!(got, options, "{line}");
        assert_eq!(parsed.operands, operands, "{line}");
    }

    #[track_caller]
    fn refuse(line: &str, fault: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(parse(&SPEC, &words).expect_err(line).fault, fault);
    }

    #[test]
    fn every_way_to_give_an_option_is_read() {
        let jobs = ["1", "2", "3", "4"].map(|id| ("jobs", Some(id)));
        check("-j 1 --jobs 2 --jobs=3 -j4", &jobs, &[]);
        check("-hHj 7", &[("noheader", None), ("hide", None), ("jobs", Some("7"))], &[]);
        check("--job 7", &[("jobs", Some("7"))], &[]);
        check("-s 5 -h", &[("steps", None), ("noheader", None)], &["5"]);
        check("-s5 --steps=6", &[("steps", Some("5")), ("steps", Some("6"))], &[]);
        check("a -h -- -j b", &[("noheader", None)], &["a", "-j", "b"]);
        check("--stat=R -t=", &[("states", Some("R")), ("states", Some("="))], &[]);
    }

    #[test]
    fn the_first_operand_can_end_the_options() {
        let spec = Spec { stop_at_operand: true, ..SPEC };
        let parsed = parse(&spec, &["-h", "cmd", "-j", "x"]).unwrap();
        assert_eq!(parsed.operands, ["cmd", "-j", "x"]);
    }

    #[test]
    fn nonsense_is_named_as_getopt_names_it() {
        refuse("--nosuch", "unrecognized option '--nosuch'");
        refuse("--nosuch=4", "unrecognized option '--nosuch'");
        refuse("-hZ", "invalid option -- 'Z'");
        refuse("--jobs", "option '--jobs' requires an argument");
        refuse("-j", "option requires an argument -- 'j'");
        refuse("--nohead=x", "option '--noheader' doesn't allow an argument");
        refuse(
            "--ste --st",
            "option '--st' is ambiguous; possibilities: '--states' '--state' '--steps' '--start'",
        );
        let shown = parse(&SPEC, &["--nosuch"]).unwrap_err().to_string();
        let lines = "squeue: unrecognized option '--nosuch'\n\
                     Try \"squeue --help\" for more information";
        assert_eq!(shown, lines);
    }
}

//! Settings: what was asked for, where it was asked, and which request wins.
//!
//! Command line > `SBATCH_*` > `#SBATCH`. Within one source the later one wins. Options that
//! exclude each other are compared by the same strength, so that `--mem` on the command line
//! silences `--mem-per-cpu` in the script.

use std::fmt;

use super::options::{self, Support};
use super::{Fault, Surroundings};
use crate::getopt::{self, Given, Takes};

/// Where a setting comes from; the later variants win.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A `#SBATCH` line, by its number.
    Script(usize),
    /// A variable.
    Environment(&'static str),
    CommandLine,
}

impl Source {
    /// How strong it is: lines of one script are equally strong.
    fn strength(&self) -> u8 {
        match self {
            Source::Script(_) => 0,
            Source::Environment(_) => 1,
            Source::CommandLine => 2,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Script(line) => write!(f, "line {line} of the script"),
            Source::Environment(name) => write!(f, "{name}"),
            Source::CommandLine => write!(f, "the command line"),
        }
    }
}

/// One option as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub id: &'static str,
    /// `None`: a flag, or no value was given.
    pub value: Option<String>,
    pub source: Source,
}

/// What a heterogeneous job's first component says for all: whose the job is, and where it stands.
const SHARED: [&str; 8] =
    ["account", "chdir", "clusters", "comment", "export", "job-name", "qos", "wckey"];

/// All of them, the strongest of each option only.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// In the order of their winning occurrence.
    all: Vec<Setting>,
    /// Whether `#PBS` or `#BSUB` lines were seen.
    pub foreign_directives: bool,
}

impl Settings {
    /// Reads the command line and hands back the script and its arguments.
    ///
    /// # Errors
    /// What getopt cannot read, and options that are refused by name.
    pub fn add_command_line(&mut self, words: &[String]) -> Result<Vec<String>, Fault> {
        let parsed = getopt::parse(&options::COMMAND_LINE, words)?;
        for given in parsed.options {
            self.add(given, Source::CommandLine)?;
        }
        Ok(parsed.operands)
    }

    /// Reads the `SBATCH_*` variables.
    ///
    /// # Errors
    /// Options that are refused by name.
    pub fn add_environment(&mut self, around: &Surroundings) -> Result<(), Fault> {
        for row in options::ROWS.iter().filter(|r| !r.variable.is_empty()) {
            let Some(value) = around.variable(row.variable) else { continue };
            let value = match row.opt.takes {
                // A flag's variable asks for it with any value but these.
                Takes::Nothing if matches!(value, "0" | "no" | "false") => continue,
                Takes::Nothing => None,
                Takes::MaybeValue if value.is_empty() => None,
                // `SBATCH_REQUEUE=1` and the like mean the bare option.
                Takes::MaybeValue if matches!(value, "1" | "yes" | "true") => None,
                Takes::MaybeValue | Takes::Value => Some(value.to_owned()),
            };
            self.add(Given { id: row.opt.id, value }, Source::Environment(row.variable))?;
        }
        Ok(())
    }

    /// Reads the `#SBATCH` lines of one component.
    ///
    /// # Errors
    /// Lines that cannot be read, and options that are refused by name.
    pub fn add_directives(&mut self, lines: Vec<(usize, Vec<String>)>) -> Result<(), Fault> {
        for (line, words) in lines {
            let parsed = getopt::parse(&options::DIRECTIVE, &words)?;
            if let Some(word) = parsed.operands.first() {
                let text = format!("Invalid directive found in batch script: {word}");
                return Err(Fault::Option(text));
            }
            for given in parsed.options {
                self.add(given, Source::Script(line))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, given: Given, source: Source) -> Result<(), Fault> {
        let row = options::find(given.id).expect("getopt reports ids of the table");
        if row.support == Support::Refused {
            let (name, note) = (row.opt.long, row.note);
            let from = match &source {
                Source::CommandLine => String::new(),
                other => format!(" ({other})"),
            };
            return Err(Fault::Refused(format!("--{name} is not supported{from}: {note}")));
        }
        refuse_control_characters(&given)?;
        if let Some(at) = self.all.iter().position(|s| s.id == given.id) {
            if self.all[at].source.strength() > source.strength() {
                return Ok(());
            }
            self.all.remove(at);
        }
        self.all.push(Setting { id: given.id, value: given.value, source });
        Ok(())
    }

    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Setting> {
        self.all.iter().find(|s| s.id == id)
    }

    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// The option's value; `None` when it was not given or has none.
    #[must_use]
    pub fn value(&self, id: &str) -> Option<&str> {
        self.get(id).and_then(|s| s.value.as_deref())
    }

    /// Takes from the first component what was not said of this one.
    pub fn inherit(&mut self, first: &Settings) {
        let names = first.all.iter().filter(|s| SHARED.contains(&s.id) && !self.has(s.id));
        let names: Vec<Setting> = names.cloned().collect();
        self.all.extend(names);
    }

    /// All that were asked for.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.all.iter()
    }

    /// Which of these options that exclude each other was asked for most strongly.
    ///
    /// # Errors
    /// Two of them from equally strong sources: their ids.
    pub fn one_of<'a>(
        &'a self,
        ids: &[&str],
    ) -> Result<Option<&'a Setting>, (&'static str, &'static str)> {
        let mut best: Option<&Setting> = None;
        for setting in self.all.iter().filter(|s| ids.contains(&s.id)) {
            match best {
                Some(b) if b.source.strength() > setting.source.strength() => {}
                Some(b) if b.source.strength() == setting.source.strength() => {
                    return Err((b.id, setting.id));
                }
                _ => best = Some(setting),
            }
        }
        Ok(best)
    }

    /// Which of two opposite flags was asked for last or most strongly.
    #[must_use]
    pub fn latest<'a>(&'a self, ids: &[&str]) -> Option<&'a Setting> {
        // `max_by_key` keeps the last of equals, and the list is in the order of asking.
        self.all.iter().filter(|s| ids.contains(&s.id)).max_by_key(|s| s.source.strength())
    }

    /// Drops what a stronger option silences.
    pub fn drop(&mut self, id: &str) {
        self.all.retain(|s| s.id != id);
    }

    /// Whether `a` comes from a stronger source than `b`.
    #[must_use]
    pub fn stronger(&self, a: &str, b: &str) -> bool {
        let strength = |id| self.get(id).map(|s| s.source.strength());
        strength(a) > strength(b)
    }
}

/// Names with a newline or an escape would forge lines and colours in everybody's listings.
fn refuse_control_characters(given: &Given) -> Result<(), Fault> {
    let Some(value) = given.value.as_deref() else { return Ok(()) };
    // A wrapped command and exported values are nobody's display.
    if matches!(given.id, "wrap" | "export") || !value.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = value.chars().flat_map(char::escape_default).collect();
    let id = given.id;
    Err(Fault::Refused(format!("Invalid --{id} specification: control characters in \"{shown}\"")))
}

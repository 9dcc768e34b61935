//! `--dependency`: what must have happened before a job may start.

use std::fmt;

use crate::ids::JobId;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyKind {
    /// Started (or cancelled) at least this many minutes ago.
    After { minutes: u32 },
    /// Ended, however.
    AfterAny,
    /// Ended with exit code 0.
    AfterOk,
    /// Ended badly.
    AfterNotOk,
    /// Array task `i` waits for task `i` of the other array to end with exit code 0.
    AfterCorr,
}

/// One condition on one job. An array's id means all its tasks, unless a task is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DependencyTerm {
    pub kind: DependencyKind,
    pub job: JobId,
    /// `id_7`: this array task alone.
    pub task: Option<u32>,
}

/// A whole `--dependency`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependency {
    pub terms: Vec<DependencyTerm>,
    /// `?` between terms: one is enough. Otherwise all must hold.
    pub any: bool,
    /// Only one job of this name and user at a time.
    pub singleton: bool,
}

/// Why a dependency could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid dependency {text:?}: {fault}")]
pub struct BadDependency {
    pub text: String,
    pub fault: &'static str,
}

impl Dependency {
    /// Reads `afterok:1:2,afterany:3_4?...` and `singleton`. Ids after a kind are separated by
    /// `:`; a bare id after `,` continues the kind before it (real tools write `afterok:1,2`).
    ///
    /// # Errors
    /// An unknown kind, an id that is no number, or `,` and `?` mixed.
    pub fn parse(text: &str) -> Result<Self, BadDependency> {
        let bad = |fault| BadDependency { text: text.to_owned(), fault };
        if text.contains(',') && text.contains('?') {
            return Err(bad("',' (all) and '?' (any) cannot be mixed"));
        }
        let mut out = Dependency { any: text.contains('?'), ..Dependency::default() };
        let mut kind = None;
        for item in text.split([',', '?']) {
            let mut words = item.split(':');
            let first = words.next().unwrap_or_default();
            if first == "singleton" {
                out.singleton = true;
                if words.next().is_some() {
                    return Err(bad("singleton takes no job id"));
                }
                continue;
            }
            let ids: Vec<&str> = match kind_of(first) {
                Some(new) => {
                    kind = Some(new);
                    words.collect()
                }
                None => std::iter::once(first).chain(words).collect(),
            };
            let kind = kind.ok_or_else(|| {
                bad("the kinds are after, afterany, afterok, afternotok, aftercorr and singleton")
            })?;
            if ids.is_empty() {
                return Err(bad("a kind needs a job id, as in afterok:123"));
            }
            for id in ids {
                out.terms.push(term(kind, id).ok_or_else(|| {
                    bad("a job id is a number, 123 or 123_4 (after: also 123+MINUTES)")
                })?);
            }
        }
        Ok(out)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && !self.singleton
    }
}

fn kind_of(word: &str) -> Option<DependencyKind> {
    Some(match word {
        "after" => DependencyKind::After { minutes: 0 },
        "afterany" => DependencyKind::AfterAny,
        "afterok" => DependencyKind::AfterOk,
        "afternotok" => DependencyKind::AfterNotOk,
        "aftercorr" => DependencyKind::AfterCorr,
        _ => return None,
    })
}

fn term(kind: DependencyKind, id: &str) -> Option<DependencyTerm> {
    let (id, kind) = match (kind, id.split_once('+')) {
        (DependencyKind::After { .. }, Some((id, minutes))) => {
            (id, DependencyKind::After { minutes: minutes.parse().ok()? })
        }
        (_, Some(_)) => return None,
        (kind, None) => (id, kind),
    };
    let (job, task) = match id.split_once('_') {
        Some((job, task)) => (job, Some(task.parse().ok()?)),
        None => (id, None),
    };
    let job = job.parse().ok().filter(|n| *n > 0)?;
    Some(DependencyTerm { kind, job: JobId(job), task })
}

impl fmt::Display for DependencyTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            DependencyKind::After { .. } => "after",
            DependencyKind::AfterAny => "afterany",
            DependencyKind::AfterOk => "afterok",
            DependencyKind::AfterNotOk => "afternotok",
            DependencyKind::AfterCorr => "aftercorr",
        };
        write!(f, "{word}:{}", self.job)?;
        if let Some(task) = self.task {
            write!(f, "_{task}")?;
        }
        match self.kind {
            DependencyKind::After { minutes } if minutes > 0 => write!(f, "+{minutes}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_tools_write_are_read() {
        let d = Dependency::parse("afterok:12:13,afterany:4_2").unwrap();
        let shown: Vec<String> = d.terms.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["afterok:12", "afterok:13", "afterany:4_2"]);
        assert!(!d.any);
        assert!(Dependency::parse("afterok:1?afternotok:2").unwrap().any);
        assert_eq!(Dependency::parse("afterok:1,2").unwrap().terms.len(), 2);
        assert!(Dependency::parse("singleton").unwrap().singleton);
        assert_eq!(Dependency::parse("after:3+10").unwrap().terms[0].to_string(), "after:3+10");
    }

    #[test]
    fn nonsense_is_named() {
        for text in [
            "foo",
            "foo:1",
            "afterok",
            "afterok:x",
            "afterok:0",
            "afterok:1,afterany:2?afterok:3",
            "afterok:1+2",
            "",
        ] {
            assert!(Dependency::parse(text).is_err(), "{text}");
        }
    }
}

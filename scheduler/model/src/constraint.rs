//! `--constraint`: which features a job's nodes must have.
//!
//! `a&b`, `a|b`, `(a|b)&c`, `a*4&b*2` (counts of nodes), `[a|b]` (all nodes the same
//! alternative). `&` and `,` both mean "and" and bind tighter than `|`. Beyond Slurm's grammar:
//! `gpu_mem>=80G` for the memory of the GPUs that the job gets.

use std::fmt;

/// A constraint on node features.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Constraint {
    Feature(Box<str>),
    /// GPUs have at least so many megabytes (of 10^6 bytes, as product names count).
    GpuMemory(u64),
    /// All must hold on every node.
    And(Vec<Constraint>),
    /// One must hold on each node, not necessarily the same.
    Or(Vec<Constraint>),
    /// One must hold, the same on all nodes.
    SameOf(Vec<Constraint>),
    /// At least this many nodes must satisfy the inner constraint.
    Count(Box<Constraint>, u32),
}

/// What one node is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term<'a> {
    Feature(&'a str),
    /// Megabytes of each GPU at least.
    GpuMemory(u64),
}

/// Why a constraint could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid feature constraint {text:?}: {fault}")]
pub struct BadConstraint {
    pub text: String,
    pub fault: &'static str,
}

/// Nesting beyond this is refused: no real constraint comes near, and the parser recurses.
const MAX_DEPTH: u32 = 16;
/// What the memory of GPUs is called in constraints.
const GPU_MEMORY: &str = "gpu_mem";

impl Constraint {
    /// Reads a constraint.
    ///
    /// # Errors
    /// Unbalanced or mixed brackets, a missing feature name, or a count that is no number >= 1.
    pub fn parse(text: &str) -> Result<Self, BadConstraint> {
        let mut parser = Parser { text, rest: text, depth: 0 };
        let out = parser.or()?;
        if parser.rest.is_empty() { Ok(out) } else { Err(parser.bad("unexpected text at the end")) }
    }

    /// Whether one node that `has` these things may be part of an allocation. Counts and
    /// same-alternative groups are questions about the whole allocation: here they ask only
    /// whether the node could serve as one of it.
    #[must_use]
    pub fn admits(&self, has: &dyn Fn(Term<'_>) -> bool) -> bool {
        match self {
            Constraint::Feature(name) => has(Term::Feature(name)),
            Constraint::GpuMemory(megabytes) => has(Term::GpuMemory(*megabytes)),
            // With a count among the parts, each node serves one part.
            Constraint::And(parts) if parts.iter().any(|p| matches!(p, Constraint::Count(..))) => {
                let (counted, plain): (Vec<_>, Vec<_>) =
                    parts.iter().partition(|p| matches!(p, Constraint::Count(..)));
                plain.iter().all(|p| p.admits(has)) && counted.iter().any(|p| p.admits(has))
            }
            Constraint::And(parts) => parts.iter().all(|p| p.admits(has)),
            Constraint::Or(parts) | Constraint::SameOf(parts) => {
                parts.iter().any(|p| p.admits(has))
            }
            Constraint::Count(inner, _) => inner.admits(has),
        }
    }

    /// Every feature named.
    #[must_use]
    pub fn features(&self) -> Vec<&str> {
        match self {
            Constraint::Feature(name) => vec![name],
            Constraint::GpuMemory(_) => Vec::new(),
            Constraint::And(parts) | Constraint::Or(parts) | Constraint::SameOf(parts) => {
                parts.iter().flat_map(Constraint::features).collect()
            }
            Constraint::Count(inner, _) => inner.features(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn bad(&self, fault: &'static str) -> BadConstraint {
        BadConstraint { text: self.text.to_owned(), fault }
    }

    fn eat(&mut self, any_of: &[char]) -> bool {
        let Some(rest) = self.rest.strip_prefix(any_of) else { return false };
        self.rest = rest;
        true
    }

    fn or(&mut self) -> Result<Constraint, BadConstraint> {
        let mut parts = vec![self.and()?];
        while self.eat(&['|']) {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Constraint::Or(parts) })
    }

    fn and(&mut self) -> Result<Constraint, BadConstraint> {
        let mut parts = vec![self.counted()?];
        while self.eat(&['&', ',']) {
            parts.push(self.counted()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Constraint::And(parts) })
    }

    fn counted(&mut self) -> Result<Constraint, BadConstraint> {
        let inner = self.atom()?;
        if !self.eat(&['*']) {
            return Ok(inner);
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let count = self.rest[..end].parse().ok().filter(|n| *n > 0);
        let count = count.ok_or_else(|| self.bad("a count after '*' must be 1 or more"))?;
        self.rest = &self.rest[end..];
        Ok(Constraint::Count(Box::new(inner), count))
    }

    fn atom(&mut self) -> Result<Constraint, BadConstraint> {
        if self.eat(&['(']) {
            return self.bracketed(')');
        }
        if self.eat(&['[']) {
            return Ok(match self.bracketed(']')? {
                Constraint::Or(parts) => Constraint::SameOf(parts),
                other => other,
            });
        }
        let name = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=' | ':' | '/' | '+')
        };
        let end = self.rest.find(|c| !name(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.bad("a feature name is missing"));
        }
        let name = &self.rest[..end];
        self.rest = &self.rest[end..];
        if self.rest.starts_with(['>', '<']) {
            if name != GPU_MEMORY || !self.eat(&['>']) || !self.eat(&['=']) {
                return Err(self.bad("only gpu_mem>=SIZE is compared, as gpu_mem>=80G"));
            }
            return self.gpu_memory();
        }
        Ok(Constraint::Feature(name.into()))
    }

    /// `80G`: 10^9 bytes, since that is what products are named by.
    fn gpu_memory(&mut self) -> Result<Constraint, BadConstraint> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let text = self.rest[..end].to_ascii_uppercase();
        self.rest = &self.rest[end..];
        let text = text.strip_suffix('B').unwrap_or(&text);
        let (number, times) = match text.strip_suffix(['M', 'G', 'T']) {
            Some(number) if text.ends_with('G') => (number, 1000),
            Some(number) if text.ends_with('T') => (number, 1_000_000),
            Some(number) => (number, 1),
            None => (text, 1),
        };
        let megabytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(times));
        let megabytes = megabytes.filter(|n| *n > 0);
        let bad = || self.bad("gpu_mem>= needs a size, as 80G");
        megabytes.map(Constraint::GpuMemory).ok_or_else(bad)
    }

    fn bracketed(&mut self, close: char) -> Result<Constraint, BadConstraint> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.bad("too deeply nested"));
        }
        let inner = self.or()?;
        self.depth -= 1;
        if self.eat(&[close]) { Ok(inner) } else { Err(self.bad("a bracket is not closed")) }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: &[Constraint], sep: &str| {
            parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(sep)
        };
        match self {
            Constraint::Feature(name) => f.write_str(name),
            Constraint::GpuMemory(mb) if mb.is_multiple_of(1000) => {
                write!(f, "{GPU_MEMORY}>={}G", mb / 1000)
            }
            Constraint::GpuMemory(mb) => write!(f, "{GPU_MEMORY}>={mb}M"),
            Constraint::And(parts) => f.write_str(&join(parts, "&")),
            Constraint::Or(parts) => write!(f, "({})", join(parts, "|")),
            Constraint::SameOf(parts) => write!(f, "[{}]", join(parts, "|")),
            Constraint::Count(inner, n) => write!(f, "{inner}*{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, node: &[&str], admitted: bool) {
        let c = Constraint::parse(text).expect(text);
        let has = |term: Term<'_>| match term {
            Term::Feature(name) => node.contains(&name),
            // Nodes of these tests have GPUs of 80 GB.
            Term::GpuMemory(megabytes) => megabytes <= 80_000,
        };
        assert_eq!(c.admits(&has), admitted, "{text} on {node:?}");
        assert_eq!(Constraint::parse(&c.to_string()).expect("its own print"), c, "{text}");
    }

    #[test]
    fn nodes_are_admitted_by_their_features() {
        check("a100", &["a100"], true);
        check("a100&ib", &["a100"], false);
        check("a100|v100", &["v100"], true);
        check("(a|b)&c", &["b", "c"], true);
        check("(a|b)&c", &["b"], false);
        check("[opt|wsm]", &["wsm"], true);
        check("a*4&b*2", &["b"], true);
        check("a*4&b*2", &["c"], false);
        check("gpu_mem>=80G", &[], true);
        check("gpu_mem>=80GB&ib", &["ib"], true);
        check("ib,gpu_mem>=141g", &["ib"], false);
        check("(gpu_mem>=80500M|a)&b", &["a", "b"], true);
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["gpu_mem>80G", "gpu_mem>=", "gpu_mem>=x", "gpu_mem<=4G", "gpu_mem>=0", "a>=1"]
        {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
        for text in ["", "a&", "|a", "(a", "a)", "[a|b", "a*0", "a*x", "a b"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
        assert!(Constraint::parse(&"(".repeat(9999)).is_err());
    }
}

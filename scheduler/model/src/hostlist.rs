//! Hostlists: `node[01-04,07],gpu-[1-2]r[0-3]`.
//!
//! The width of a range's low bound gives zero padding; several brackets multiply out, the last
//! one fastest. Expansion is bounded by [`MAX_HOSTS`], so no text can make it eat the memory.

use std::collections::BTreeMap;
use std::fmt;

/// The most names one expression may expand to: above any cluster, below any harm (65,536 nodes
/// is also Slurm's table size).
pub const MAX_HOSTS: usize = 65_536;

/// Why a hostlist could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHostlist {
    #[error("invalid hostlist {text:?}: {fault}")]
    Syntax { text: String, fault: &'static str },
    #[error("invalid hostlist {text:?}: it names more than {MAX_HOSTS} hosts")]
    TooMany { text: String },
}

/// Host names in the order written, duplicates kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hostlist(pub Vec<String>);

impl Hostlist {
    /// Expands an expression. The empty text is the empty list.
    ///
    /// # Errors
    /// Unbalanced brackets, empty or descending ranges, characters no host name has, or more
    /// than [`MAX_HOSTS`] names.
    pub fn parse(text: &str) -> Result<Self, BadHostlist> {
        let mut hosts = Vec::new();
        for part in split_outside_brackets(text)? {
            expand(text, part, &mut hosts)?;
        }
        Ok(Hostlist(hosts))
    }

    /// The same names, sorted (numbers by value) and without duplicates.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| natural_key(a).cmp(&natural_key(b)));
        self.0.dedup();
        self
    }
}

impl<S: Into<String>> FromIterator<S> for Hostlist {
    fn from_iter<T: IntoIterator<Item = S>>(hosts: T) -> Self {
        Hostlist(hosts.into_iter().map(Into::into).collect())
    }
}

fn syntax(text: &str, fault: &'static str) -> BadHostlist {
    BadHostlist::Syntax { text: text.to_owned(), fault }
}

fn split_outside_brackets(text: &str) -> Result<Vec<&str>, BadHostlist> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '[' if inside => return Err(syntax(text, "a bracket inside a bracket")),
            '[' => inside = true,
            ']' if !inside => return Err(syntax(text, "']' without '['")),
            ']' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',') => {}
            _ => return Err(syntax(text, "only letters, digits, '-', '_' and '.' name a host")),
        }
    }
    if inside {
        return Err(syntax(text, "'[' without ']'"));
    }
    parts.push(&text[start..]);
    parts.retain(|p| !p.is_empty());
    Ok(parts)
}

fn expand(whole: &str, part: &str, hosts: &mut Vec<String>) -> Result<(), BadHostlist> {
    let mut names = vec![String::new()];
    let mut rest = part;
    while let Some(open) = rest.find('[') {
        let close = rest.find(']').expect("brackets were balanced by the split");
        let suffixes = ranges(whole, &rest[open + 1..close])?;
        if names.len().saturating_mul(suffixes.len()) + hosts.len() > MAX_HOSTS {
            return Err(BadHostlist::TooMany { text: whole.to_owned() });
        }
        names = names
            .iter()
            .flat_map(|n| suffixes.iter().map(move |s| format!("{n}{}{s}", &rest[..open])))
            .collect();
        rest = &rest[close + 1..];
    }
    for name in &mut names {
        name.push_str(rest);
    }
    hosts.append(&mut names);
    if hosts.len() > MAX_HOSTS {
        return Err(BadHostlist::TooMany { text: whole.to_owned() });
    }
    Ok(())
}

fn ranges(whole: &str, inner: &str) -> Result<Vec<String>, BadHostlist> {
    let mut out = Vec::new();
    for item in inner.split(',') {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let read = |text: &str| -> Result<u64, BadHostlist> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits
                .then(|| text.parse().ok())
                .flatten()
                .ok_or_else(|| syntax(whole, "a range needs numbers, as in [1-4,7]"))
        };
        let (from, to) = (read(low)?, read(high)?);
        if from > to {
            return Err(syntax(whole, "a range runs backwards"));
        }
        if to - from >= (MAX_HOSTS - out.len()) as u64 {
            return Err(BadHostlist::TooMany { text: whole.to_owned() });
        }
        out.extend((from..=to).map(|n| format!("{n:0width$}", width = low.len())));
    }
    Ok(out)
}

/// Splits a name before its last run of digits: `("n", "07", "")`.
fn split_number(name: &str) -> Option<(&str, &str, &str)> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
    Some((&name[..start], &name[start..end], &name[end..]))
}

fn natural_key(name: &str) -> (&str, &str, u64, usize, &str) {
    match split_number(name) {
        Some((prefix, digits, suffix)) => {
            (prefix, suffix, digits.parse().unwrap_or(u64::MAX), digits.len(), name)
        }
        None => (name, "", 0, 0, name),
    }
}

/// Compressed form: names that differ in their last number alone share a bracket. Names keep the
/// order of their group's first member; numbers within a bracket keep their order too.
impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<(&str, &str, Vec<&str>)> = Vec::new();
        let mut at: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for name in &self.0 {
            let (prefix, digits, suffix) = split_number(name).unwrap_or((name, "", ""));
            // Numbers beyond u64 cannot be put into a range: such a name stands alone.
            let alone = digits.is_empty() || digits.parse::<u64>().is_err();
            if alone {
                groups.push((name, "", Vec::new()));
                continue;
            }
            let slot = *at.entry((prefix, suffix)).or_insert(groups.len());
            if slot == groups.len() {
                groups.push((prefix, suffix, Vec::new()));
            }
            groups[slot].2.push(digits);
        }
        for (i, (prefix, suffix, digits)) in groups.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match digits.as_slice() {
                [] => write!(f, "{comma}{prefix}")?,
                [one] => write!(f, "{comma}{prefix}{one}{suffix}")?,
                many => write!(f, "{comma}{prefix}[{}]{suffix}", join_ranges(many))?,
            }
        }
        Ok(())
    }
}

fn join_ranges(digits: &[&str]) -> String {
    let mut ranges: Vec<(&str, &str)> = Vec::new();
    for &d in digits {
        let value = |t: &str| t.parse::<u64>().expect("only u64 numbers are grouped");
        match ranges.last_mut() {
            // A range keeps the width of its low bound, so the next must print that way.
            Some((low, high))
                if value(high).checked_add(1) == Some(value(d))
                    && d == format!("{:0w$}", value(d), w = low.len()) =>
            {
                *high = d;
            }
            _ => ranges.push((d, d)),
        }
    }
    let show = |(a, b): &(&str, &str)| if a == b { (*a).to_owned() } else { format!("{a}-{b}") };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, hosts: &[&str], back: &str) {
        let list = Hostlist::parse(text).expect(text);
        assert_eq!(list.0, hosts);
        assert_eq!(list.to_string(), back);
    }

    #[test]
    fn expressions_expand_and_compress() {
        check("n[01-03,7]", &["n01", "n02", "n03", "n7"], "n[01-03,7]");
        check("a[1-2]b[3-4]", &["a1b3", "a1b4", "a2b3", "a2b4"], "a1b[3-4],a2b[3-4]");
        check("login", &["login"], "login");
        check("n9,n10", &["n9", "n10"], "n[9-10]");
        check("gpu-[1-2].x", &["gpu-1.x", "gpu-2.x"], "gpu-[1-2].x");
        check("", &[], "");
    }

    #[test]
    fn faults_are_named_and_bounded() {
        for text in ["n[1-", "n]", "n[3-1]", "n[a]", "n[[1]]", "n 1", "n[]", "é[1]"] {
            assert!(matches!(Hostlist::parse(text), Err(BadHostlist::Syntax { .. })), "{text}");
        }
        for text in ["n[1-999999999]", "a[1-999]b[1-999]"] {
            assert!(matches!(Hostlist::parse(text), Err(BadHostlist::TooMany { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn compressing_loses_nothing(numbers in proptest::collection::vec(0u32..300, 1..40)) {
            let names: Vec<String> = numbers
                .iter()
                .map(|n| if n % 3 == 0 { format!("n{n:03}") } else { format!("g{n}") })
                .collect();
            let mut back = Hostlist::parse(&Hostlist(names.clone()).to_string()).unwrap().0;
            let mut names = names;
            back.sort();
            names.sort();
            prop_assert_eq!(back, names);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[n1-9,\\[\\]]{0,24}") {
            let _ = Hostlist::parse(&text);
        }
    }
}

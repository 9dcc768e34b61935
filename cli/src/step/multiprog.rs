//! `--multi-prog`: a file that says which ranks run what.

/// The command line of each rank.
pub(crate) fn read(text: &str, tasks: u32) -> Result<Vec<Vec<String>>, String> {
    let mut out: Vec<Option<Vec<String>>> = vec![None; tasks as usize];
    let joined = text.replace("\\\n", " ");
    for (number, line) in joined.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: String| format!("line {} of the configuration file: {what}", number + 1);
        let (ranks, command) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| bad(format!("no command for task {line}")))?;
        let listed = ranks_of(ranks, tasks)
            .ok_or_else(|| bad(format!("\"{ranks}\" is no list of tasks")))?;
        let words = words(command).ok_or_else(|| bad("a quote is not closed".to_owned()))?;
        for (offset, rank) in listed.iter().enumerate() {
            let filled = |word: &String| {
                word.replace("%t", &rank.to_string()).replace("%o", &offset.to_string())
            };
            if let Some(slot) = out.get_mut(*rank as usize).filter(|slot| slot.is_none()) {
                *slot = Some(words.iter().map(filled).collect());
            }
        }
    }
    out.into_iter()
        .enumerate()
        .map(|(rank, argv)| {
            argv.ok_or_else(|| format!("Configuration file invalid, no record for task id {rank}"))
        })
        .collect()
}

/// `0-2,5` or `*`.
fn ranks_of(text: &str, tasks: u32) -> Option<Vec<u32>> {
    if text == "*" {
        return Some((0..tasks).collect());
    }
    let mut out = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.parse::<u32>().ok()?, to.parse::<u32>().ok()?);
        out.extend(from..=to.min(tasks));
    }
    Some(out)
}

/// Words as a shell without expansions splits them.
fn words(text: &str) -> Option<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    let (mut word, mut quote): (Option<String>, Option<char>) = (None, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    quote.is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_finds_its_command() {
        let text =
            "# comment\n4-5 hostname\n1,3 echo task:%t 'a b'\n0 echo \\\n  offset:%o\n* true\n";
        let all = read(text, 6).unwrap();
        assert_eq!(all[0], ["echo", "offset:0"]);
        assert_eq!(all[1], ["echo", "task:1", "a b"]);
        assert_eq!(all[2], ["true"]);
        assert_eq!(all[3], ["echo", "task:3", "a b"]);
        assert_eq!(all[5], ["hostname"]);
    }

    #[test]
    fn a_rank_without_a_command_is_named() {
        let fault = read("0 true\n", 2).unwrap_err();
        assert!(fault.ends_with("no record for task id 1"), "{fault}");
        assert!(read("x true\n", 1).is_err());
        assert!(read("0 'true\n", 1).is_err());
    }
}

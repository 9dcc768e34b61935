//! The words of PMI-1 (lines) and PMI-2 (counted frames), as text and back.

/// A line of PMI-1 or a frame of PMI-2 beyond this is a fault, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// The decimal count before a frame.
const COUNT: usize = 6;

/// What a client says, in order; the command's own name is under `cmd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(Vec<(String, String)>);

impl Words {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn command(&self) -> &str {
        self.get("cmd").or_else(|| self.get("mcmd")).unwrap_or_default()
    }
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speech {
    #[default]
    Lines,
    Frames,
}

/// Not what a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// The next message at the front of what was heard, and its length; `None`: more is to come.
pub(super) fn next(speech: Speech, heard: &[u8]) -> Result<Option<(Words, usize)>, Garbled> {
    let found = match speech {
        Speech::Lines => line(heard),
        Speech::Frames => frame(heard)?,
    };
    match found {
        None if heard.len() > LONGEST => Err(Garbled),
        found => Ok(found),
    }
}

fn line(heard: &[u8]) -> Option<(Words, usize)> {
    // A command of several lines ends with a word of its own.
    let (end, length) = match heard.starts_with(b"mcmd=") {
        false => heard.iter().position(|b| *b == b'\n').map(|at| (at, at + 1))?,
        true => {
            let mark = b"endcmd\n";
            let at = heard.windows(mark.len()).position(|part| part == mark)?;
            (at, at + mark.len())
        }
    };
    let text = String::from_utf8_lossy(&heard[..end]).into_owned();
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while let Some((name, after)) = rest.trim_start().split_once('=') {
        // A value may hold spaces: it is the last.
        let length = match name {
            "value" | "msg" | "message" => after.len(),
            _ => after.find([' ', '\n']).unwrap_or(after.len()),
        };
        words.push((name.to_owned(), after[..length].to_owned()));
        rest = &after[length..];
    }
    Some((Words(words), length))
}

fn frame(heard: &[u8]) -> Result<Option<(Words, usize)>, Garbled> {
    let Some(count) = heard.get(..COUNT) else { return Ok(None) };
    let count = std::str::from_utf8(count).map_err(|_| Garbled)?;
    let length: usize = count.trim().parse().map_err(|_| Garbled)?;
    if length > LONGEST {
        return Err(Garbled);
    }
    let Some(body) = heard.get(COUNT..COUNT + length) else { return Ok(None) };
    let text = String::from_utf8_lossy(body);
    let mut words = Vec::new();
    let mut part = String::new();
    let mut letters = text.chars().peekable();
    let mut add = |part: &mut String| {
        if let Some((name, value)) = part.split_once('=') {
            words.push((name.to_owned(), value.to_owned()));
        }
        part.clear();
    };
    while let Some(letter) = letters.next() {
        match letter {
            // Doubled, it is one of the text.
            ';' if letters.next_if_eq(&';').is_some() => part.push(';'),
            ';' => add(&mut part),
            other => part.push(other),
        }
    }
    add(&mut part);
    Ok(Some((Words(words), COUNT + length)))
}

/// An answer in a client's speech.
pub(super) fn answer(speech: Speech, words: &[(&str, &str)]) -> Vec<u8> {
    match speech {
        Speech::Lines => {
            let text: Vec<String> = words.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{}\n", text.join(" ")).into_bytes()
        }
        Speech::Frames => {
            let word = |(n, v): &(&str, &str)| format!("{n}={};", v.replace(';', ";;"));
            let text: String = words.iter().map(word).collect();
            format!("{:>COUNT$}{text}", text.len()).into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Words {
        Words(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn lines_are_read_one_by_one() {
        let text = b"cmd=put kvsname=7.0 key=P0 value=a b=c\ncmd=barr";
        let (read, length) = next(Speech::Lines, text).unwrap().unwrap();
        let put = [("cmd", "put"), ("kvsname", "7.0"), ("key", "P0"), ("value", "a b=c")];
        assert_eq!(read, words(&put));
        assert_eq!(next(Speech::Lines, &text[length..]), Ok(None));
        let spawn = b"mcmd=spawn\nnprocs=2\nexecname=x\nendcmd\nrest";
        let (read, length) = next(Speech::Lines, spawn).unwrap().unwrap();
        assert_eq!(
            (read.command(), read.get("nprocs"), &spawn[length..]),
            ("spawn", Some("2"), &b"rest"[..])
        );
    }

    #[test]
    fn frames_are_counted_and_a_doubled_semicolon_is_one() {
        let said = answer(Speech::Frames, &[("cmd", "kvs-put"), ("value", "a;b")]);
        assert_eq!(said, b"    23cmd=kvs-put;value=a;;b;");
        let expected = words(&[("cmd", "kvs-put"), ("value", "a;b")]);
        assert_eq!(next(Speech::Frames, &said), Ok(Some((expected, said.len()))));
        for cut in 0..said.len() {
            assert_eq!(next(Speech::Frames, &said[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_and_nothing_grows_without_bound() {
        assert_eq!(next(Speech::Frames, b"abcdefgh"), Err(Garbled));
        assert_eq!(next(Speech::Frames, b"999999x"), Err(Garbled));
        assert_eq!(next(Speech::Lines, &vec![b'x'; LONGEST + 1]), Err(Garbled));
    }
}

//! The grammars of single options. The texts of their faults are Slurm's.

use std::str::FromStr as _;

use muster_proto::v1;

use super::Fault;

/// Slurm's default warning time of `--signal`, seconds.
const SIGNAL_SECONDS: u32 = 60;

/// `Invalid --NAME specification`: the command line is wrong, exit 255.
#[must_use]
pub fn invalid(name: &str) -> Fault {
    Fault::Option(format!("Invalid --{name} specification"))
}

/// A count of 1 and more, as `--ntasks` takes it.
///
/// # Errors
/// Anything else, with exit 1 as Slurm has it.
pub fn count(name: &str, text: &str) -> Result<u32, Fault> {
    let number = text.trim().parse::<u32>().ok().filter(|n| (1..=i32::MAX as u32).contains(n));
    number.ok_or_else(|| Fault::Refused(format!("Invalid numeric value \"{text}\" for --{name}.")))
}

/// `--mem`: MiB; a unit of K, M, G or T may follow, with or without a B.
#[must_use]
pub fn mebibytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].to_ascii_lowercase();
    match unit.strip_suffix('b').filter(|u| !u.is_empty()).unwrap_or(&unit) {
        "" | "m" => Some(number),
        "k" => Some(number.div_ceil(1024)),
        "g" => number.checked_mul(1 << 10),
        "t" => number.checked_mul(1 << 20),
        "p" => number.checked_mul(1 << 30),
        _ => None,
    }
}

/// `--nodes`: `2` or `2-4`.
///
/// # Errors
/// 0, a range that runs backwards, a list of sizes.
pub fn nodes(text: &str) -> Result<(u32, u32), Fault> {
    if text.contains([',', ':']) {
        let text = format!("--nodes={text} is not supported: give one count or a range");
        return Err(Fault::Refused(text));
    }
    let bad = || {
        Fault::Option(format!(
            "\"{text}\" is not a valid node count\nInvalid --nodes specification"
        ))
    };
    let read = |part: &str| {
        let (part, factor) = match part.strip_suffix(['k', 'K']) {
            Some(part) => (part, 1024),
            None => (part, 1),
        };
        let number = part.parse::<u32>().ok().filter(|_| !part.starts_with('+'));
        number.and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(bad)
    };
    let (min, max) = match text.trim().split_once('-') {
        Some((min, max)) => (read(min)?, read(max)?),
        None => (read(text.trim())?, read(text.trim())?),
    };
    if max < min {
        let text = format!("Maximum node count {max} is less than minimum node count {min}");
        return Err(Fault::Option(text));
    }
    Ok((min, max))
}

/// A signal by name (`USR1`, `SIGUSR1`) or number.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok().map(|s| s as i32)
}

/// `--signal=[B:]SIG[@SECONDS]`.
///
/// # Errors
/// No signal, no number of seconds, or `R:`.
pub fn signal(text: &str) -> Result<v1::SignalRequest, Fault> {
    let bad = || invalid("signal");
    let (flags, rest) = match text.split_once(':') {
        Some((flags, rest)) => (flags.to_ascii_uppercase(), rest),
        None => (String::new(), text),
    };
    if flags.contains('R') {
        let text = format!(
            "--signal={text} is not supported: R: (reservations that end early) is not done"
        );
        return Err(Fault::Refused(text));
    }
    if !matches!(flags.as_str(), "" | "B") {
        return Err(bad());
    }
    let (name, seconds) = match rest.split_once('@') {
        // Slurm's own field is 16 bits wide.
        Some((name, seconds)) => (name, seconds.parse::<u16>().map_err(|_| bad())?.into()),
        None => (rest, SIGNAL_SECONDS),
    };
    let signal = signal_number(name).ok_or_else(bad)?;
    Ok(v1::SignalRequest { signal, before_seconds: seconds, batch_only: flags == "B" })
}

/// `--nice`, without a value 100.
///
/// # Errors
/// No number, or one that Slurm's range does not hold.
pub fn nice(text: Option<&str>) -> Result<i32, Fault> {
    const MOST: i64 = 2_147_483_645;
    let Some(text) = text else { return Ok(100) };
    let value: i64 = text.parse().map_err(|_| invalid("nice"))?;
    i32::try_from(value).ok().filter(|v| i64::from(*v).abs() <= MOST).ok_or_else(|| {
        Fault::Option(format!(
            "Invalid --nice value, out of range (+/- {MOST})\nInvalid --nice specification"
        ))
    })
}

const MAIL_TYPES: &[&str] = &[
    "NONE",
    "BEGIN",
    "END",
    "FAIL",
    "REQUEUE",
    "ALL",
    "INVALID_DEPEND",
    "STAGE_OUT",
    "TIME_LIMIT",
    "TIME_LIMIT_90",
    "TIME_LIMIT_80",
    "TIME_LIMIT_50",
    "ARRAY_TASKS",
];

/// `--mail-type`, in capitals.
///
/// # Errors
/// A word that is none of the types.
pub fn mail_type(text: &str) -> Result<String, Fault> {
    let words: Vec<String> = text.split(',').map(|w| w.trim().to_ascii_uppercase()).collect();
    let known = words.iter().all(|w| MAIL_TYPES.contains(&w.as_str()));
    known.then(|| words.join(",")).ok_or_else(|| invalid("mail-type"))
}

/// `--distribution`: checked here, read by steps.
#[must_use]
pub fn is_distribution(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split(',');
    let levels: Vec<&str> = parts.next().unwrap_or_default().split(':').collect();
    let first = |word: &str| {
        matches!(word, "*" | "block" | "cyclic" | "arbitrary")
            || word.strip_prefix("plane=").is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0))
    };
    let other = |word: &&str| matches!(*word, "*" | "block" | "cyclic" | "fcyclic");
    let flag = |word: &str| matches!(word, "pack" | "nopack");
    (1..=3).contains(&levels.len())
        && first(levels[0])
        && levels[1..].iter().all(other)
        && parts.all(flag)
}

/// `--licenses`: `ansys:2,matlab`.
///
/// # Errors
/// An empty name or a count that is none; the text is the server's, as in Slurm.
pub fn licenses(text: &str) -> Result<Vec<v1::License>, Fault> {
    let bad =
        || Fault::Refused("Batch job submission failed: Invalid license specification".into());
    text.split(',')
        .map(|item| {
            let (name, count) = item.split_once([':', '=']).unwrap_or((item, "1"));
            let count = count.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
            let name = name.trim();
            if name.is_empty() {
                Err(bad())
            } else {
                Ok(v1::License { name: name.to_owned(), count })
            }
        })
        .collect()
}

/// `yes` and `no` in their spellings.
#[must_use]
pub fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "1" | "true" => Some(true),
        "no" | "n" | "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_every_spelling_of_real_scripts() {
        let cases = [
            ("0", 0),
            ("16000", 16_000),
            ("200MB", 200),
            ("4G", 4096),
            ("48GB", 49_152),
            ("400g", 409_600),
            ("1T", 1 << 20),
            ("1k", 1),
            ("2049K", 3),
        ];
        for (text, mib) in cases {
            assert_eq!(mebibytes(text), Some(mib), "{text}");
        }
        for text in ["", "abc", "-1", "1.5G", "4Q", "G", "99999999999999999999", "4GBB"] {
            assert_eq!(mebibytes(text), None, "{text}");
        }
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        let read = |text| signal(text).map(|s| (s.signal, s.before_seconds, s.batch_only));
        assert_eq!(read("USR1"), Ok((10, 60, false)));
        assert_eq!(read("B:TERM@300"), Ok((15, 300, true)));
        assert_eq!(read("B:10@30"), Ok((10, 30, true)));
        assert_eq!(read("SIGINT@0"), Ok((2, 0, false)));
        for text in ["FOO", "X:USR1", "USR1@x", "USR1@-1", "", "0", "65"] {
            assert_eq!(read(text), Err(invalid("signal")), "{text}");
        }
    }

    #[test]
    fn step_options_are_checked_though_steps_read_them() {
        for text in ["block", "cyclic:block", "plane=4", "*:fcyclic:*", "block,Pack", "arbitrary"] {
            assert!(is_distribution(text), "{text}");
        }
        for text in ["foo", "", "plane=", "plane=0", "block:foo", "block,foo", "a:b:c:d"] {
            assert!(!is_distribution(text), "{text}");
        }
    }
}

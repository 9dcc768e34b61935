//! Sizes as users read them: `4G`, `500M`, `123456K`, `1.50G`.

/// Whether and into what a size is converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Units {
    /// To the largest unit in which it stays a whole number.
    #[default]
    Exact,
    /// Not at all (`--noconvert`).
    Keep,
    /// To this one (`--units=G`).
    Into(char),
}

const UNITS: [char; 6] = ['B', 'K', 'M', 'G', 'T', 'P'];

impl Units {
    /// Reads the letter of `--units`.
    pub(crate) fn parse(text: &str) -> Option<Units> {
        let mut letters = text.chars();
        let unit = letters.next()?.to_ascii_uppercase();
        let known = letters.next().is_none() && UNITS[1..].contains(&unit);
        known.then_some(Units::Into(unit))
    }

    fn show(self, size: u64, from: usize) -> String {
        if size == 0 {
            return "0".to_owned();
        }
        match self {
            Units::Keep => with_unit(size, from),
            Units::Exact => {
                let (mut size, mut unit) = (size, from);
                while size % 1024 == 0 && unit + 1 < UNITS.len() {
                    (size, unit) = (size / 1024, unit + 1);
                }
                with_unit(size, unit)
            }
            Units::Into(letter) => {
                let to = UNITS.iter().position(|u| *u == letter).unwrap_or(from);
                let factor = 1024f64.powi(i32::try_from(to).unwrap_or(0) - from as i32);
                let converted = size as f64 / factor;
                if converted.fract() == 0.0 {
                    format!("{converted:.0}{letter}")
                } else {
                    format!("{converted:.2}{letter}")
                }
            }
        }
    }

    /// A size given in KiB.
    pub(crate) fn kib(self, size: u64) -> String {
        self.show(size, 1)
    }

    /// A size given in MiB.
    pub(crate) fn mib(self, size: u64) -> String {
        self.show(size, 2)
    }
}

fn with_unit(size: u64, unit: usize) -> String {
    match unit {
        0 => size.to_string(),
        unit => format!("{size}{}", UNITS[unit]),
    }
}

/// Two decimals and the largest unit below 1024, as `seff` shows memory: `1.50 GB`.
pub(crate) fn rounded_kib(size: f64) -> String {
    let names = ["KB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (size, 0);
    while size >= 1024.0 && unit + 1 < names.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    format!("{size:.2} {}", names[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_exact_unless_a_unit_is_asked_for() {
        assert_eq!(Units::Exact.mib(4096), "4G");
        assert_eq!(Units::Exact.mib(500), "500M");
        assert_eq!(Units::Exact.mib(1536), "1536M");
        assert_eq!(Units::Exact.kib(123_457), "123457K");
        assert_eq!(Units::Keep.mib(4096), "4096M");
        assert_eq!(Units::Into('G').mib(1536), "1.50G");
        assert_eq!(Units::Into('G').mib(4096), "4G");
        assert_eq!(Units::Into('K').mib(1), "1024K");
        assert_eq!(Units::Exact.mib(0), "0");
        assert_eq!(rounded_kib(1_572_864.0), "1.50 GB");
    }

    #[test]
    fn unit_letters_are_read() {
        assert_eq!(Units::parse("g"), Some(Units::Into('G')));
        assert_eq!(Units::parse("B"), None);
        assert_eq!(Units::parse("GB"), None);
    }
}

//! Readers of what people and other programs write, fed with valid text that was damaged: whatever
//! comes, they answer or name the fault, and never panic.
//!
//! Damage is done to samples that are right, so that it gets past the first look of a reader:
//! bytes are changed, words repeated, cut, swapped with those of another sample, numbers blown up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use muster_model::{ArraySpec, Constraint, Dependency, Hostlist, time};

use crate::dice::Dice;
use crate::replay::trace;

/// A reader, and samples that it takes.
pub struct Reader {
    pub name: &'static str,
    samples: &'static [&'static str],
    /// Whether it took the text.
    read: fn(&str) -> bool,
}

/// Longer text only costs time.
const LONGEST: usize = 4096;

const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "00",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1e9",
    "0x10",
    "99999999999999999999999",
    "",
    "٣",
];
const PIECES: &[&str] = &[
    "[", "]", ",", "-", ":", "%", "*", "&", "|", "(", ")", "@", "=", "\"", "'", "\n", "\r\n", "\t",
    " ", "\0", "é", "[[", "]]", ";", "#", "/", "\\", "?", "+", ".", "~",
];

const TRACES: &[&str] = &[
    "; MaxProcs: 64\n1 0 -1 100 8 -1 -1 16 200 -1 1 3 -1 -1 -1 -1 -1 -1\n\
     2 10 -1 300 8 -1 -1 -1 200 -1 1 9 -1 -1 -1 -1 -1 -1\n",
    "job,submit_s,duration_s,gpus,vc,est_syn_s\n7,5,60,12,a,600\n8,6,61,1,b,600\n",
    "sn,cpu_milli,memory_mib,gpu,model\na,32000,5,2,T4\nb,32000,5,0,\n",
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,\
     scheduled_time\np-0,1500,100,1,460,A|B,LS,Running,5,100,20\np-1,1500,100,2,1000,,LS,Pending,5,,\n",
    "job,submit_s,run_s,nodes,ppn,mem_per_node_bytes,walltime_s,user,queue,exclusive,property\n\
     3,1,50,2,6,1048577,86400,62,q,1,x86_64:cl_zewura\n",
    "job,submit,run,limit,user,nodes,tasks,cpus_per_task,gpus_per_task,memory_mib,machine_nodes,\
     node_cpus,node_gpus\n1,0,60,600,3,2,16,12,1,,4,96,8\n2,5,60,600,3,1,1,12,1,100,4,96,8\n",
];

const CONFIGS: &[&str] = &[
    "cluster = \"c\"\nstate_dir = \"/x\"\n[scheduler]\norder = \"balanced\"\nshadows = \"all\"\n\
     packing = \"fgd\"\npass_fuel = 5\n[licenses]\nsolver = 3\n[[node]]\nname = \"n[1-4]\"\ncpus = 4\n\
     memory = \"4G\"\ngres = [\"gpu:a100:2\"]\nfeatures = [\"ib\"]\n[[partition]]\nname = \"p\"\n\
     nodes = \"n[1-4]\"\nmax_time = \"1-00:00:00\"\ndefault = true\n[[switch]]\nname = \"leaf1\"\n\
     nodes = \"n[1-2]\"\nrails = 8\n[[switch]]\nname = \"leaf2\"\nnodes = \"n[3-4]\"\n[[switch]]\n\
     name = \"spine\"\nswitches = \"leaf[1-2]\"\n[[block]]\nname = \"b1\"\nnodes = \"n[1-2]\"\n",
    "cluster = 'c'\n[security]\nadmins = ['root']\n[agent]\nprolog_timeout_seconds = 5\n[[node]]\n\
     name = 'a'\ncpus = 1\nmemory = 512\ngres = 'auto'\n[[partition]]\nname = 'p'\nnodes = 'a'\n",
];

/// Every reader of text from outside.
pub const READERS: &[Reader] = &[
    Reader { name: "trace", samples: TRACES, read: |t| trace::parse("t", t.as_bytes()).is_ok() },
    Reader {
        name: "config and topology",
        samples: CONFIGS,
        read: |text| muster_config::Config::parse(Path::new("/m.toml"), text).is_ok(),
    },
    Reader {
        name: "hostlist",
        samples: &["n[1-3,5,007-010]", "a,b[2-4]-x[1,3],c", "rack[1-2]n[01-16]"],
        read: |text| Hostlist::parse(text).is_ok(),
    },
    Reader {
        name: "time limit",
        samples: &["10", "10:30", "1:00:00", "2-03", "2-03:04", "2-03:04:05", "UNLIMITED"],
        read: |text| time::parse_limit(text).is_ok() | time::parse_seconds(text).is_ok(),
    },
    Reader {
        name: "array",
        samples: &["0-15:4%2", "1,3,5-7", "0-99%10"],
        read: |text| ArraySpec::parse(text, 4_000_001).is_ok(),
    },
    Reader {
        name: "dependency",
        samples: &[
            "afterok:12:13_4,afterany:5",
            "singleton",
            "after:7+10?afternotok:9",
            "aftercorr:3",
        ],
        read: |text| Dependency::parse(text).is_ok(),
    },
    Reader {
        name: "constraint",
        samples: &["a&b|c", "[a|b]", "a*2&b*1", "(a|b)&c", "[(a&b)*2|c]"],
        read: |text| Constraint::parse(text).is_ok(),
    },
];

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub tried: u64,
    /// Damaged, and right all the same.
    pub taken: u64,
}

/// Tries a reader; `Err`: the text that it panicked at.
///
/// # Errors
/// As said.
pub fn torment(reader: &Reader, seed: u64, tries: u64) -> Result<Tally, String> {
    let mut dice = Dice::new(seed);
    let mut tally = Tally::default();
    for _ in 0..tries {
        let text = damaged(&mut dice, reader.samples);
        let taken = catch_unwind(AssertUnwindSafe(|| (reader.read)(&text)));
        let Ok(taken) = taken else { return Err(text) };
        tally.tried += 1;
        tally.taken += u64::from(taken);
    }
    Ok(tally)
}

fn damaged(dice: &mut Dice, samples: &[&str]) -> String {
    let mut text = (*dice.pick(samples).expect("every reader has samples")).to_owned();
    for _ in 0..=dice.below(6) {
        text = hurt(dice, &text, samples);
        let end = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// One wound.
fn hurt(dice: &mut Dice, text: &str, samples: &[&str]) -> String {
    let (from, to) = two_places(dice, text);
    let (head, middle, tail) = (&text[..from], &text[from..to], &text[to..]);
    match dice.below(8) {
        0 => format!("{head}{tail}"),
        1 => format!("{head}{middle}{middle}{tail}"),
        2 => format!("{head}{}{tail}", dice.pick(PIECES).expect("there are some")),
        3 => format!("{head}{}{middle}{tail}", dice.pick(PIECES).expect("there are some")),
        4 => {
            let other = dice.pick(samples).expect("every reader has samples");
            let (a, b) = two_places(dice, other);
            format!("{head}{}{tail}", &other[a..b])
        }
        5 => {
            let byte = char::from((dice.next() % 128) as u8);
            format!("{head}{byte}{middle}{tail}")
        }
        6 => head.to_owned(),
        _ => with_number(dice, text),
    }
}

/// Another number in the place of one.
fn with_number(dice: &mut Dice, text: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let starts: Vec<usize> = text
        .char_indices()
        .filter(|(at, c)| digit(*c) && !text[..*at].ends_with(digit))
        .map(|(at, _)| at)
        .collect();
    let Some(from) = dice.pick(&starts).copied() else { return text.to_owned() };
    let length = text[from..].find(|c| !digit(c)).unwrap_or(text.len() - from);
    let number = dice.pick(NUMBERS).expect("there are some");
    format!("{}{number}{}", &text[..from], &text[from + length..])
}

/// Two boundaries of characters, in order; mostly near each other.
fn two_places(dice: &mut Dice, text: &str) -> (usize, usize) {
    let mut place = || {
        let at = dice.below(text.len() as u64 + 1) as usize;
        (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    };
    let (a, b) = (place(), place());
    let (from, to) = (a.min(b), a.max(b));
    if dice.permille(300) {
        return (from, to);
    }
    let near = (from + dice.below(8) as usize).min(to);
    (from, (from..=near).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_right() {
        for reader in READERS {
            for sample in reader.samples {
                assert!((reader.read)(sample), "{}: {sample}", reader.name);
            }
        }
    }

    #[test]
    fn damaged_text_makes_no_reader_panic() {
        for reader in READERS {
            let tally = torment(reader, 1, 1500).unwrap_or_else(|text| {
                panic!("{} panicked at {text:?}", reader.name);
            });
            // Neither too little damage to matter nor so much that only first looks are tried.
            let share = tally.taken * 100 / tally.tried;
            assert!((1..=95).contains(&share), "{}: {share} % were right", reader.name);
        }
    }
}

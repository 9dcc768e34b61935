//! What speaks against a GPU, and when it is believed. Pure: looks and times come in.
//!
//! A sign must be seen in several looks in a row before it counts, and be gone for as many before
//! it counts no more: one failed look changes nothing. Signs that tell of damage stay until an
//! operator says otherwise; signs that tell of a state go with it.

use std::collections::BTreeMap;

/// What speaks against a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// It fell off the bus.
    Lost,
    /// A fatal error of the driver's list.
    Xid(u64),
    /// Uncorrected memory errors since the watch began.
    Ecc,
    /// No spare row was left for a broken one.
    RemapFailed,
    /// A broken row waits for a reset to be replaced.
    RemapPending,
    /// Calls on it fail for another reason.
    Mute,
    /// A link that was up is down.
    LinkDown,
    /// Links count errors again and again.
    LinkErrors,
    /// The hardware slows it down because it is too hot.
    Hot,
    /// A process that belongs to no job uses it.
    Foreign,
    /// A job has ended and left something on it.
    Left,
}

impl Sign {
    /// Looks in a row that must show it, and as many without it until it is over.
    fn looks(self) -> u32 {
        match self {
            Sign::Xid(_) | Sign::Ecc | Sign::Left => 1,
            Sign::Lost | Sign::RemapFailed | Sign::RemapPending => 2,
            Sign::Mute | Sign::LinkDown | Sign::LinkErrors | Sign::Foreign => 3,
            Sign::Hot => 6,
        }
    }

    /// Whether it counts until an operator says otherwise.
    fn stays(self) -> bool {
        match self {
            Sign::Lost | Sign::Xid(_) | Sign::Ecc | Sign::RemapFailed => true,
            Sign::RemapPending
            | Sign::Mute
            | Sign::LinkDown
            | Sign::LinkErrors
            | Sign::Hot
            | Sign::Foreign
            | Sign::Left => false,
        }
    }
}

/// What a driver's error number means for the GPU; `None`: it tells of the program that used it, or
/// was mended.
///
/// These are the numbers for which NVIDIA's catalog names as the immediate action a reset of the GPU, a
/// restart of the host, or hands on the board
/// (<https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>, as of driver R575). 159 asks
/// for a reset where unified memory is in use, which every CUDA program does. Those of newer NVLinks
/// (144 to 150) mean both, by bits that stand in the kernel's log alone: a link that is down is seen by
/// the looks. From 162 on the catalog names no action.
#[must_use]
pub fn fatal_xid(number: u64) -> Option<&'static str> {
    Some(match number {
        46 => "GPU stopped processing",
        48 => "double bit ECC error",
        54 => "auxiliary power is not connected",
        62 => "internal micro-controller halt",
        64 => "row remapping failed",
        74 => "NVLink error",
        79 => "GPU has fallen off the bus",
        95 => "uncontained memory error",
        109 => "context switch timeout",
        110 => "security fault",
        119 => "GPU system processor does not answer",
        120 => "GPU system processor error",
        136 => "link training failed",
        140 => "unrecovered ECC error",
        143 => "GPU initialization error",
        151 => "key rotation failed: restart the host",
        155 => "NVLink went down by software",
        156 => "a resource was retired: reset the GPU",
        158 => "fatal timeout",
        159 => "error between GPU and CPU (C2C)",
        _ => return None,
    })
}

/// One look at a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What it shows now, in words for an admin.
    pub signs: BTreeMap<Sign, String>,
    /// Whether it answered: what was not asked is neither there nor gone.
    pub answered: bool,
}

/// What one GPU showed so far.
#[derive(Debug, Clone, Default)]
pub struct Record(BTreeMap<Sign, Seen>);

#[derive(Debug, Clone, Default)]
struct Seen {
    with: u32,
    without: u32,
    /// It counts: why, and since when (ms since the epoch).
    counts: Option<(String, i64)>,
}

/// What counts against a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: String,
    pub stays: bool,
    /// Since when the worst counts, ms since the epoch.
    pub at: i64,
}

impl Record {
    /// Takes in a look.
    pub fn take(&mut self, look: &Look, now_ms: i64) {
        for (sign, words) in &look.signs {
            self.shows(*sign, words, now_ms);
        }
        for (sign, seen) in &mut self.0 {
            // A GPU that does not answer shows only that.
            let asked = look.answered || matches!(sign, Sign::Lost | Sign::Mute);
            if look.signs.contains_key(sign) || !asked {
                continue;
            }
            (seen.with, seen.without) = (0, seen.without.saturating_add(1));
            if !sign.stays() && seen.without >= sign.looks().max(2) {
                seen.counts = None;
            }
        }
    }

    /// Takes in one sign that is seen now, by a look or because the driver told.
    pub fn shows(&mut self, sign: Sign, words: &str, now_ms: i64) {
        let seen = self.0.entry(sign).or_default();
        (seen.with, seen.without) = (seen.with.saturating_add(1), 0);
        if seen.with >= sign.looks() && seen.counts.is_none() {
            seen.counts = Some((words.to_owned(), now_ms));
        }
    }

    /// Whether this sign counts.
    #[must_use]
    pub fn counts(&self, sign: Sign) -> bool {
        self.0.get(&sign).is_some_and(|seen| seen.counts.is_some())
    }

    /// What counts against it, the worst first in words; `None`: it is well.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let counts = |(sign, seen): (&Sign, &Seen)| Some((sign.stays(), seen.counts.clone()?));
        let mut all: Vec<(bool, (String, i64))> = self.0.iter().filter_map(counts).collect();
        all.sort_by_key(|(stays, _)| !stays);
        let stays = all.first()?.0;
        let at = all.iter().filter(|(s, _)| *s == stays).map(|(_, (_, at))| *at).max()?;
        let words: Vec<&str> = all.iter().map(|(_, (words, _))| words.as_str()).collect();
        Some(Fault { reason: words.join("; "), stays, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(signs: &[Sign]) -> Look {
        let signs = signs.iter().map(|sign| (*sign, format!("{sign:?}"))).collect();
        Look { signs, answered: true }
    }

    /// Each look in turn, and what counts after it.
    #[track_caller]
    fn check(looks: &[(&[Sign], Option<&str>)]) {
        let mut record = Record::default();
        for (at, (signs, reason)) in looks.iter().enumerate() {
            record.take(&look(signs), at as i64);
            assert_eq!(record.fault().map(|f| f.reason).as_deref(), *reason, "look {at}");
        }
    }

    #[test]
    fn one_look_changes_nothing_in_either_direction() {
        check(&[
            (&[Sign::Lost], None),
            (&[], None),
            (&[Sign::LinkDown], None),
            (&[Sign::LinkDown], None),
            (&[], None),
            (&[Sign::LinkDown], None),
            (&[Sign::LinkDown], None),
            (&[Sign::LinkDown], Some("LinkDown")),
            (&[], Some("LinkDown")),
            (&[], Some("LinkDown")),
            (&[], None),
        ]);
    }

    #[test]
    fn damage_stays_and_a_state_goes() {
        check(&[
            (&[Sign::Lost], None),
            (&[Sign::Lost], Some("Lost")),
            (&[Sign::RemapPending], Some("Lost")),
            (&[Sign::RemapPending], Some("Lost; RemapPending")),
            (&[], Some("Lost; RemapPending")),
            (&[], Some("Lost")),
            (&[], Some("Lost")),
        ]);
    }

    #[test]
    fn what_a_mute_gpu_does_not_tell_is_neither_there_nor_gone() {
        let mut record = Record::default();
        record.take(&look(&[Sign::Left]), 1);
        let mute = Look { signs: [(Sign::Mute, "mute".into())].into(), answered: false };
        (0..5).for_each(|at| record.take(&mute, at));
        let fault = record.fault().expect("it counts");
        assert!(fault.reason.contains("Left") && fault.reason.contains("mute"), "{fault:?}");
        assert!(!fault.stays);
    }

    /// NVIDIA's catalog for Ampere and later, by the immediate action that it names, without the numbers
    /// that it calls unused.
    const CATALOG: [(&str, &[u64]); 13] = [
        ("RESET_GPU", &[46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158]),
        ("RESTART_BM", &[79]),
        ("RESTART_VM", &[151]),
        ("CHECK_MECHANICALS", &[54]),
        // A reset or a reboot clears it, says its text.
        ("WORKFLOW_XID_48", &[48]),
        ("WORKFLOW_NVLINK_ERR", &[74]),
        // A reset, if unified memory is in use.
        ("CHECK_UVM", &[159]),
        ("WORKFLOW_NVLINK5_ERR", &[144, 145, 146, 147, 148, 149, 150]),
        (
            "RESTART_APP",
            &[
                8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83,
                84, 85, 86, 88, 89, 94, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 126, 127,
                128, 129, 130, 131, 132, 133, 134, 135, 139,
            ],
        ),
        ("UPDATE_SWFW", &[78]),
        // Of an encoder alone.
        ("CONTACT_SUPPORT", &[142]),
        ("WORKFLOW_XID_45", &[45]),
        (
            "IGNORE",
            &[
                14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153,
                154, 157, 160, 161,
            ],
        ),
    ];

    #[test]
    fn what_the_catalog_asks_a_reset_for_is_fatal_and_errors_of_programs_are_not() {
        for (action, numbers) in CATALOG {
            let fatal = [
                "RESET_GPU",
                "RESTART_BM",
                "RESTART_VM",
                "CHECK_MECHANICALS",
                "WORKFLOW_XID_48",
                "WORKFLOW_NVLINK_ERR",
                "CHECK_UVM",
            ]
            .contains(&action);
            for xid in numbers {
                assert_eq!(fatal_xid(*xid).is_some(), fatal, "{xid} ({action})");
            }
        }
        let all = CATALOG.iter().flat_map(|(_, numbers)| *numbers);
        let known: std::collections::BTreeSet<u64> = all.copied().collect();
        let strangers = (0..1000).filter(|xid| fatal_xid(*xid).is_some() && !known.contains(xid));
        assert_eq!(strangers.collect::<Vec<u64>>(), [0u64; 0]);
        assert_eq!(fatal_xid(79), Some("GPU has fallen off the bus"));
    }

    #[test]
    fn the_page_names_the_very_numbers_that_are_fatal() {
        let page = include_str!("../../../docs/gpus.md");
        let line = page.lines().skip_while(|line| !line.starts_with("Fatal Xids:"));
        let sentence: String =
            line.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let list = sentence.split(['(', '.']).next().unwrap_or_default();
        let told: Vec<u64> = list.split([' ', ',']).filter_map(|w| w.parse().ok()).collect();
        let all: Vec<u64> = (0..1000).filter(|xid| fatal_xid(*xid).is_some()).collect();
        assert_eq!(told, all);
    }
}

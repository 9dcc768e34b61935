//! Records hold every fact whole, and those of version 1 are readable for ever.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_core::event::Event;
use muster_core::state::Habits;
use muster_model::Timestamp;
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::{Gen, KINDS};
use super::{BadRecord, Stored, decode, encode};

proptest! {
    #[test]
    fn a_fact_is_read_as_it_was_written(seed: u64, kind in 0..KINDS, at: i64) {
        let events = [Gen(seed).event(kind), Gen(!seed).event((kind + 1) % KINDS)];
        let (read_at, read) = decode(encode(Timestamp(at), &events)).unwrap();
        prop_assert_eq!((read_at, read), (Timestamp(at), events.to_vec()));
    }

    #[test]
    fn habits_are_read_as_they_were_written(seed: u64) {
        let habits = Gen(seed).habits();
        prop_assert_eq!(Habits::load(habits.store()).unwrap(), habits);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = decode(bytes.into());
    }
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Records are written once, by the first version that has their kinds, and never anew. The text
/// beside them says what they mean, one fact a line; a field that came later has its default.
/// After such a field came, `GOLDENS=write` in the environment writes the texts (never the
/// records) anew, to be read before they are kept.
#[track_caller]
fn check_golden(name: &str, at: i64, seen: &mut BTreeSet<u32>) {
    let bytes = std::fs::read(golden(&format!("{name}.bin"))).expect("the records stay");
    let (read_at, events) = decode(bytes.into()).unwrap();
    assert_eq!(read_at, Timestamp(at), "{name}");
    seen.extend(events.iter().map(kind));
    let read: String = events.iter().map(|event| format!("{event:?}\n")).collect();
    let path = golden(&format!("{name}.txt"));
    if std::env::var_os("GOLDENS").is_some_and(|v| v == "write") {
        std::fs::write(&path, &read).expect("the text can be written");
    }
    let meant = std::fs::read_to_string(&path).expect("their meaning stays");
    for (read, meant) in read.lines().zip(meant.lines()) {
        assert_eq!(read, meant, "{name}");
    }
    assert_eq!(read.lines().count(), meant.lines().count(), "{name}");
}

#[test]
fn records_of_every_version_still_read_as_the_same_facts() {
    let mut seen = BTreeSet::new();
    check_golden("records-v1", 1_700_000_000_123, &mut seen);
    assert_eq!(seen.len(), 21, "every kind of version 1 is there");
    check_golden("records-v2", 1_800_000_000_456, &mut seen);
    assert_eq!(seen.len(), KINDS as usize, "every kind is there");
}

/// A fact's field number in its record.
fn kind(event: &Event) -> u32 {
    let record = event.store().encode_to_vec();
    prost::encoding::decode_key(&mut record.as_slice()).expect("a record has a kind").0
}

#[test]
fn a_kind_from_the_future_is_refused_by_name() {
    // Commit{events: [Event{field 999: empty message}]}
    let payload: &[u8] = &[0x12, 0x03, 0xba, 0x3e, 0x00];
    assert_eq!(decode(payload.into()), Err(BadRecord::UnknownKind));
}

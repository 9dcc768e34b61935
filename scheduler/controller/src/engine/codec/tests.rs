//! Records hold every fact whole, and those of version 1 are readable for ever.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_core::event::Event;
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
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = decode(bytes.into());
    }
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The records were written once, by the first version, and are never written anew. The text
/// beside them says what they mean, one fact a line; a field that came later has its default.
#[test]
fn records_of_version_1_still_read_as_the_same_facts() {
    let bytes = std::fs::read(golden("records-v1.bin")).expect("the records of version 1 stay");
    let (at, events) = decode(bytes.into()).unwrap();
    let kinds: BTreeSet<u32> = events.iter().map(kind).collect();
    assert_eq!(kinds.len(), KINDS as usize, "every kind is there");
    let read: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
    let meant = std::fs::read_to_string(golden("records-v1.txt")).expect("their meaning stays");
    assert_eq!(at, Timestamp(1_700_000_000_123));
    for (read, meant) in read.iter().zip(meant.lines()) {
        assert_eq!(read, meant);
    }
    assert_eq!(read.len(), meant.lines().count());
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

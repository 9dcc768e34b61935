//! What every backend must do, as one suite that each is put through.

use bytes::Bytes;

use crate::fault::Damage;
use crate::{Batch, Fault, Frame, Log, LogError, Mem, MemDisk, SledLog, archive, frame};

/// Opens the same log again and again, as restarts do.
type Open<'a, L> = &'a dyn Fn() -> Result<L, LogError>;

fn check_all<L: Log + Damage>(fresh: &dyn Fn() -> Box<dyn Fn() -> Result<L, LogError>>) {
    let stories: &[fn(Open<'_, L>)] = &[
        frames_come_back_in_order,
        blobs_stand_with_their_frame,
        a_snapshot_takes_the_place_of_its_frames,
        one_opener_at_a_time,
        a_torn_last_frame_is_cut,
        damage_before_the_end_stops,
        a_newer_format_is_refused,
        an_export_holds_everything,
    ];
    for story in stories {
        story(&*fresh());
    }
}

fn batch(text: &str) -> Batch {
    Batch { payload: Bytes::copy_from_slice(text.as_bytes()), ..Batch::default() }
}

/// Opens, recovers and appends.
fn append<L: Log>(open: Open<'_, L>, texts: &[&str]) -> L {
    let mut log = open().unwrap();
    log.recover().unwrap();
    for text in texts {
        log.append(batch(text)).unwrap();
    }
    log
}

fn tail<L: Log>(open: Open<'_, L>) -> Vec<String> {
    let recovered = open().unwrap().recover().unwrap();
    recovered.tail.iter().map(|f| String::from_utf8_lossy(&f.payload).into_owned()).collect()
}

fn frames_come_back_in_order<L: Log>(open: Open<'_, L>) {
    let mut log = open().unwrap();
    assert!(log.recover().unwrap().tail.is_empty());
    let long = Bytes::from((0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let batches = [
        batch("one"),
        Batch { payload: long.clone(), ..Batch::default() },
        Batch { ignorable: true, ..Batch::default() },
    ];
    for (index, batch) in (1..).zip(batches) {
        assert_eq!(log.append(batch).unwrap(), index);
    }
    drop(log);
    let frame = |index, ignorable, payload: Bytes| Frame { index, term: 1, ignorable, payload };
    let expected =
        [frame(1, false, "one".into()), frame(2, false, long), frame(3, true, Bytes::new())];
    let mut log = open().unwrap();
    assert_eq!(log.recover().unwrap().tail, expected);
    assert_eq!(log.append(batch("four")).unwrap(), 4, "indices go on after a restart");
    assert!(log.size() > 0);
}

fn blobs_stand_with_their_frame<L: Log>(open: Open<'_, L>) {
    let mut log = append(open, &[]);
    let big = Bytes::from((0..100_001u32).map(|i| i as u8).collect::<Vec<_>>());
    let put = |items: &[(&[u8], Bytes)]| Batch {
        put: items.iter().map(|(k, v)| (k.to_vec(), v.clone())).collect(),
        ..Batch::default()
    };
    // Keys that begin alike, and one that looks like another with a chunk's number behind it.
    log.append(put(&[(b"k", big.clone()), (b"k\0\0\0\0", "x".into()), (b"kk", Bytes::new())]))
        .unwrap();
    log.append(put(&[(b"gone", big.clone()), (b"short", big.clone())])).unwrap();
    let delete = vec![b"gone".to_vec(), b"never".to_vec()];
    log.append(Batch { delete, ..put(&[(b"short", "s".into())]) }).unwrap();
    drop(log);
    let mut log = open().unwrap();
    log.recover().unwrap();
    let blobs = log.blobs();
    let expect = |key: &[u8], value: Option<Bytes>| assert_eq!(blobs.get(key).unwrap(), value);
    expect(b"k", Some(big));
    expect(b"k\0\0\0\0", Some("x".into()));
    expect(b"kk", Some(Bytes::new()));
    expect(b"short", Some("s".into()));
    expect(b"gone", None);
    expect(b"", None);
    let keys: [&[u8]; 4] = [b"k", b"kk", b"k\0\0\0\0", b"short"];
    assert_eq!(blobs.keys().unwrap(), keys);
}

fn a_snapshot_takes_the_place_of_its_frames<L: Log>(open: Open<'_, L>) {
    let mut log = append(open, &["one", "two", "three"]);
    assert!(matches!(log.forget(2), Err(LogError::NotCovered { index: 2, .. })));
    log.snapshot(2, "after two".into()).unwrap();
    drop(log);
    let mut log = open().unwrap();
    let recovered = log.recover().unwrap();
    assert_eq!(recovered.snapshot, Some((2, "after two".into())));
    assert_eq!(recovered.tail.len(), 1);
    // From another thread, as commits go on; then all frames are covered.
    let snapshots = log.snapshots();
    std::thread::spawn(move || snapshots.write(3, b"after three")).join().unwrap().unwrap();
    log.forget(3).unwrap();
    drop(log);
    let mut log = open().unwrap();
    assert!(log.recover().unwrap().tail.is_empty());
    assert_eq!(log.append(batch("four")).unwrap(), 4);
    log.snapshots().write(1, b"late").unwrap();
    drop(log);
    let recovered = open().unwrap().recover().unwrap();
    assert_eq!(recovered.snapshot, Some((3, "after three".into())));
    assert_eq!(recovered.tail.len(), 1);
}

fn one_opener_at_a_time<L: Log>(open: Open<'_, L>) {
    let log = open().unwrap();
    assert!(matches!(open(), Err(LogError::Locked { .. })));
    drop(log);
    assert!(open().is_ok());
}

fn a_torn_last_frame_is_cut<L: Log + Damage>(open: Open<'_, L>) {
    let long = "x".repeat(20_000);
    for keep in [1, 7, frame::HEADER, 6 * 1024, 15_000] {
        let mut log = append(open, &[&long]);
        let index = log.append(batch(&long)).unwrap();
        log.tear(index, keep);
        drop(log);
        let mut log = open().unwrap();
        let recovered = log.recover().unwrap();
        assert_eq!((recovered.tail.len() as u64, recovered.torn_bytes), (index - 1, keep as u64));
        assert_eq!(log.append(batch("again")).unwrap(), index, "its index is used anew");
        drop(log);
        assert_eq!(tail(open).last().unwrap(), "again");
    }
}

fn damage_before_the_end_stops<L: Log + Damage>(open: Open<'_, L>) {
    let first = frame::encode(1, 1, false, b"one").len() as u64;
    append(open, &["one", "two", "three"]).flip(2, frame::HEADER);
    let error = open().unwrap().recover().unwrap_err();
    assert!(
        matches!(error, LogError::Damaged { index: 2, offset, .. } if offset == first),
        "{error}"
    );
    // A hole is told from a bad frame, and found though its neighbours are sound.
    open().unwrap().remove(2);
    let error = open().unwrap().recover().unwrap_err();
    assert!(
        matches!(error, LogError::Damaged { index: 2, offset, .. } if offset == first),
        "{error}"
    );
    assert!(error.to_string().contains("hole"), "{error}");
}

fn a_newer_format_is_refused<L: Log + Damage>(open: Open<'_, L>) {
    append(open, &["one"]).mark_version(99);
    assert!(matches!(open(), Err(LogError::Version { found: 99, .. })));
}

fn an_export_holds_everything<L: Log + Damage>(open: Open<'_, L>) {
    let mut log = append(open, &["one", "two"]);
    let put = vec![(b"script".to_vec(), Bytes::from("#!/bin/sh"))];
    log.append(Batch { put, ..batch("three") }).unwrap();
    log.snapshot(2, "after two".into()).unwrap();
    drop(log);
    let mut log = open().unwrap();
    let before = log.recover().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export");
    archive::export(&before, &*log.blobs(), &file).unwrap();

    let refused = archive::import(&file, &mut log);
    assert!(matches!(refused, Err(LogError::NotEmpty { .. })));
    let disk = MemDisk::default();
    archive::import(&file, &mut Mem::open(&disk).unwrap()).unwrap();
    let new = dir.path().join("new");
    archive::import(&file, &mut SledLog::open(&new).unwrap()).unwrap();
    let copies: [Box<dyn Log>; 2] =
        [Box::new(Mem::open(&disk).unwrap()), Box::new(SledLog::open(&new).unwrap())];
    for mut copy in copies {
        let after = copy.recover().unwrap();
        assert_eq!((after.snapshot, after.tail), (before.snapshot.clone(), before.tail.clone()));
        assert_eq!(copy.blobs().get(b"script").unwrap(), Some("#!/bin/sh".into()));
        assert_eq!(copy.append(batch("four")).unwrap(), 4);
    }

    let whole = std::fs::read(&file).unwrap();
    for cut in [7, 12, 40, whole.len() - 17, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let mut empty = Mem::open(&MemDisk::default()).unwrap();
        assert!(archive::import(&file, &mut empty).is_err(), "cut at {cut}");
    }
}

#[test]
fn memory_conforms() {
    check_all(&|| {
        let disk = MemDisk::default();
        Box::new(move || Mem::open(&disk))
    });
}

#[test]
fn sled_conforms() {
    check_all(&|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || SledLog::open(dir.path()))
    });
}

#[test]
fn a_wrapper_without_a_planned_fault_conforms() {
    check_all(&|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || SledLog::open(dir.path()).map(Fault::new))
    });
}

//! Processes that die or run out of disk while they append. The child is this test binary itself,
//! told by an environment variable which part to play.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use muster_store::{Batch, Log, LogError, SledLog};

const DIR: &str = "MUSTER_STORE_TEST_DIR";
const FILE_LIMIT: &str = "MUSTER_STORE_TEST_FILE_LIMIT";

/// What frame `index` holds: sizes from one chunk to many.
fn payload(index: u64) -> Bytes {
    let length = 1 + (index * 7919) % 30_000;
    Bytes::from(vec![index as u8; length as usize])
}

fn blob_key(index: u64) -> Vec<u8> {
    format!("blob/{index}").into_bytes()
}

fn append_for_ever(dir: &Path) -> LogError {
    let mut log = SledLog::open(dir).expect("the log opens after a kill");
    let recovered = log.recover().expect("the log recovers after a kill");
    let mut index = recovered.tail.last().map_or(0, |f| f.index);
    loop {
        index += 1;
        let put = vec![(blob_key(index), payload(index))];
        match log.append(Batch { payload: payload(index), put, ..Batch::default() }) {
            Ok(appended) => {
                assert_eq!(appended, index);
                println!("acknowledged {index}");
            }
            Err(error) => return error,
        }
    }
}

/// Not a test by itself: plays the child when the variable is set.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    if let Ok(bytes) = std::env::var(FILE_LIMIT) {
        limit_file_size(bytes.parse().expect("a number"));
    }
    let error = append_for_ever(Path::new(&dir));
    println!("failed {error}");
}

fn limit_file_size(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: plain calls with valid arguments; the signal would kill us instead of failing a write.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

fn spawn(dir: &Path, file_limit: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(DIR, dir).stdout(Stdio::piped());
    if let Some(bytes) = file_limit {
        command.env(FILE_LIMIT, bytes.to_string()).stderr(Stdio::null());
    }
    command.spawn().unwrap()
}

#[test]
fn whatever_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = u64::from(std::process::id());
    let mut acknowledged = 0u64;
    for round in 0..8 {
        let mut child = spawn(dir.path(), None);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wanted = 1 + (seed >> 33) % 150;
        let mut seen = 0;
        for line in lines {
            // The child may acknowledge more between the kill and its death: read to the end.
            let line = line.unwrap();
            let Some(index) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged = index.parse().unwrap();
            seen += 1;
            if seen == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= wanted, "round {round}: the child died early, after {seen} of {wanted}");

        let mut log = SledLog::open(dir.path()).unwrap();
        let tail = log.recover().unwrap().tail;
        assert!(tail.len() as u64 >= acknowledged, "round {round}: {acknowledged} is lost");
        for frame in &tail {
            assert_eq!(frame.payload, payload(frame.index), "frame {}", frame.index);
            let blob = log.blobs().get(&blob_key(frame.index)).unwrap();
            assert_eq!(blob, Some(payload(frame.index)), "the blob of frame {}", frame.index);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(dir.path(), Some(4 << 20));
    let mut failure = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(text) = line.strip_prefix("failed ") {
            failure = Some(text.to_owned());
        }
    }
    child.wait().unwrap();
    let failure = failure.expect("the child reports its failed append and ends");
    assert!(failure.contains(dir.path().to_str().unwrap()), "{failure}");
}

//! A frame's bytes, and the judgement on a tail of them.
//!
//! Layout, little endian: length u32 of all that follows the checksum, crc32c u32 of it, index u64,
//! term u64, flags u8 (bit 0: ignorable), payload. Other flags are refused as damage: a newer
//! writer raises the log's version instead.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Frame, LogError};

/// Bytes before the payload.
pub const HEADER: usize = 4 + 4 + 8 + 8 + 1;
/// Bytes of index, term and flags.
const FIXED: usize = HEADER - 8;
const IGNORABLE: u8 = 1;

/// The bytes of a frame.
#[must_use]
pub fn encode(index: u64, term: u64, ignorable: bool, payload: &[u8]) -> Bytes {
    let length = u32::try_from(FIXED + payload.len()).expect("a commit is far below 4 GiB");
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.put_u32_le(length);
    out.put_u32_le(0);
    out.put_u64_le(index);
    out.put_u64_le(term);
    out.put_u8(if ignorable { IGNORABLE } else { 0 });
    out.put_slice(payload);
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

/// Reads one frame from exactly its bytes.
///
/// # Errors
/// What is wrong with them, in words.
pub fn decode(bytes: &Bytes) -> Result<Frame, &'static str> {
    if bytes.len() < HEADER {
        return Err("shorter than a frame's header");
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if word(0) as usize != bytes.len() - 8 {
        return Err("its length is not the one in its header");
    }
    if word(4) != crc32c::crc32c(&bytes[8..]) {
        return Err("its checksum does not match");
    }
    let flags = bytes[24];
    if flags & !IGNORABLE != 0 {
        return Err("it has unknown flags");
    }
    Ok(Frame {
        index: long(8),
        term: long(16),
        ignorable: flags & IGNORABLE != 0,
        payload: bytes.slice(HEADER..),
    })
}

/// What is left of a tail once it has been judged.
#[derive(Debug, Default)]
pub struct Judged {
    pub tail: Vec<Frame>,
    /// The torn last frame, to be removed by the backend: its index and how many bytes it had.
    pub torn: Option<(u64, u64)>,
}

/// Judges stored frames, given as (index it is stored under, bytes) in ascending order. The last
/// one may be torn: nobody was told of it, since `append` had not returned. Any other fault means
/// that a promise is broken, and stops.
///
/// # Errors
/// [`LogError::Damaged`] with the frame's index and its offset among the stored bytes.
pub fn judge(
    path: &str,
    after: u64,
    stored: impl Iterator<Item = Result<(u64, Bytes), LogError>>,
) -> Result<Judged, LogError> {
    let mut out = Judged::default();
    let (mut expected, mut offset) = (after + 1, 0);
    let mut stored = stored.peekable();
    while let Some(next) = stored.next() {
        let (index, bytes) = next?;
        let damaged = |index, fault: String| {
            Err(LogError::Damaged { path: path.to_owned(), index, offset, fault })
        };
        if index != expected {
            return damaged(expected, format!("a hole: the next one there is {index}"));
        }
        match decode(&bytes) {
            Ok(frame) if frame.index == index => out.tail.push(frame),
            Ok(frame) => {
                return damaged(index, format!("it says that it is frame {}", frame.index));
            }
            Err(_) if stored.peek().is_none() => out.torn = Some((index, bytes.len() as u64)),
            Err(fault) => return damaged(index, fault.to_owned()),
        }
        offset += bytes.len() as u64;
        expected += 1;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(
            index: u64, term: u64, ignorable: bool, payload: Vec<u8>,
        ) {
            let frame = decode(&encode(index, term, ignorable, &payload)).unwrap();
            prop_assert_eq!(frame, Frame { index, term, ignorable, payload: payload.into() });
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0u32..8) {
            let mut bytes = encode(7, 1, false, &payload).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes.into()).is_err());
        }

        #[test]
        fn no_cut_goes_unnoticed(payload: Vec<u8>, keep: prop::sample::Index) {
            let bytes = encode(7, 1, false, &payload);
            prop_assert!(decode(&bytes.slice(..keep.index(bytes.len()))).is_err());
        }
    }
}

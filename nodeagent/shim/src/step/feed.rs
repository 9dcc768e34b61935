//! Input for the tasks: one sequence of bytes that each task with an open stdin reads at its own
//! pace, kept until the slowest has it.

use std::collections::VecDeque;

use bytes::Bytes;
use muster_proto::v1::Stdin;

/// The bytes.
#[derive(Debug, Default)]
pub(super) struct Feed {
    kept: VecDeque<Bytes>,
    /// Offset of the first kept byte.
    start: u64,
    length: u64,
    end: bool,
    told: u64,
}

impl Feed {
    /// More of it. What was sent again after a break is known by its offset.
    pub(super) fn add(&mut self, input: Stdin) {
        let known = self.length.saturating_sub(input.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(input.data.len());
        let fresh = input.data.slice(known..);
        self.length += fresh.len() as u64;
        if !fresh.is_empty() {
            self.kept.push_back(fresh);
        }
        self.end |= input.end;
    }

    /// Bytes from `offset` on, as far as they are in one piece.
    pub(super) fn at(&self, offset: u64) -> &[u8] {
        let mut skip = offset.saturating_sub(self.start);
        for part in &self.kept {
            let length = part.len() as u64;
            if skip < length {
                return &part[usize::try_from(skip).expect("less than a part")..];
            }
            skip -= length;
        }
        &[]
    }

    /// Whether a reader at `offset` has had everything.
    pub(super) fn is_over(&self, offset: u64) -> bool {
        self.end && offset >= self.length
    }

    /// All readers are past `offset`: the offset to tell, if it is news.
    pub(super) fn pass(&mut self, offset: u64) -> Option<u64> {
        while self.kept.front().is_some_and(|part| self.start + part.len() as u64 <= offset) {
            self.start += self.kept.pop_front().map_or(0, |part| part.len() as u64);
        }
        (offset > self.told).then(|| {
            self.told = offset;
            offset
        })
    }

    /// Nobody reads any more.
    pub(super) fn drop_all(&mut self) {
        self.kept.clear();
        self.start = self.length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(offset: u64, data: &'static str, end: bool) -> Stdin {
        Stdin { offset, data: Bytes::from(data), end }
    }

    #[test]
    fn readers_at_their_own_pace_see_every_byte_once() {
        let mut feed = Feed::default();
        feed.add(input(0, "abc", false));
        feed.add(input(3, "def", false));
        assert_eq!((feed.at(0), feed.at(2), feed.at(4)), (&b"abc"[..], &b"c"[..], &b"ef"[..]));
        assert_eq!(feed.pass(4), Some(4));
        assert_eq!(feed.pass(4), None);
        feed.add(input(3, "defg", true));
        assert_eq!(feed.at(6), b"g", "what came twice is there once");
        assert!(feed.is_over(7) && !feed.is_over(6));
    }
}

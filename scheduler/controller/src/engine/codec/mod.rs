//! Facts as records on disk (`muster.store.v1`), both ways.
//!
//! The only place that names core and records together. A record that cannot be read as a fact
//! stops the recovery: nothing is guessed. An unknown kind reads as an event without one.
//!
//! - `values`: ids, times, sets, resources, outcomes
//! - `spec`: what a user asked for; `change`: what is changed later; `cluster`: config and inventory
//! - `reservation`: what admins keep; `habits`: what finished jobs taught; `event`: every fact; `job`: jobs, arrays and nodes as a snapshot keeps them

mod change;
mod cluster;
mod event;
mod gpu;
mod habits;
pub(super) mod job;
mod reservation;
pub(super) mod spec;
mod values;

use bytes::Bytes;
use muster_core::event::Event;
use muster_model::Timestamp;
use muster_proto::store::v1 as rec;
use prost::Message;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    #[error("a record that is no valid message: {0}")]
    Message(String),
    #[error("a record without its {0}")]
    Missing(&'static str),
    #[error("a record whose {field} is {value}")]
    Value { field: &'static str, value: i64 },
    #[error("an event of a kind that this version does not know")]
    UnknownKind,
}

impl From<prost::DecodeError> for BadRecord {
    fn from(error: prost::DecodeError) -> Self {
        BadRecord::Message(error.to_string())
    }
}

/// A value with a form on disk.
pub(super) trait Stored: Sized {
    type Record;
    fn store(&self) -> Self::Record;
    fn load(record: Self::Record) -> Result<Self, BadRecord>;
}

pub(super) fn list<T: Stored>(items: &[T]) -> Vec<T::Record> {
    items.iter().map(Stored::store).collect()
}

pub(super) fn load_list<T: Stored, C: FromIterator<T>>(
    records: Vec<T::Record>,
) -> Result<C, BadRecord> {
    records.into_iter().map(T::load).collect()
}

pub(super) fn need<T: Stored>(
    record: Option<T::Record>,
    field: &'static str,
) -> Result<T, BadRecord> {
    T::load(record.ok_or(BadRecord::Missing(field))?)
}

pub(super) fn maybe<T: Stored>(record: Option<T::Record>) -> Result<Option<T>, BadRecord> {
    record.map(T::load).transpose()
}

pub(super) fn texts(items: &[Box<str>]) -> Vec<String> {
    items.iter().map(|s| s.to_string()).collect()
}

pub(super) fn boxes(items: Vec<String>) -> Vec<Box<str>> {
    items.into_iter().map(Into::into).collect()
}

/// A number that a narrower field holds.
pub(super) fn narrow<T: TryFrom<u32>>(value: u32, field: &'static str) -> Result<T, BadRecord> {
    T::try_from(value).map_err(|_| BadRecord::Value { field, value: i64::from(value) })
}

/// The payload of one commit's frame.
#[must_use]
pub fn encode<'a>(at: Timestamp, events: impl IntoIterator<Item = &'a Event>) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    // Event by event, so that only one is held twice at a time.
    if at.0 != 0 {
        prost::encoding::int64::encode(1, &at.0, &mut out);
    }
    for event in events {
        prost::encoding::message::encode(2, &event.store(), &mut out);
    }
    out.into()
}

/// The events of one commit, and when it was.
///
/// # Errors
/// The payload is damaged, or holds a kind that this version does not know.
pub fn decode(payload: Bytes) -> Result<(Timestamp, Vec<Event>), BadRecord> {
    let commit = rec::Commit::decode(payload)?;
    Ok((Timestamp(commit.at), load_list(commit.events)?))
}

#[cfg(test)]
pub(super) mod arbitrary;
#[cfg(test)]
mod tests;

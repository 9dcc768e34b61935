//! Between wire and model, both ways.
//!
//! What comes in may be anything: each conversion inwards refuses what makes no sense and names
//! the field. What goes out cannot fail.
//!
//! - `values`: time limits, memory, generic resources, signals
//! - `job`: job specs and requests
//! - `check`: what texts of a submission may contain, and how long they may be
//! - `node`: inventories and placements

pub mod check;
pub mod job;
pub mod node;
pub mod values;

#[cfg(test)]
mod tests;

/// A field that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct BadField {
    /// The field as a user knows it: `time limit`, `gres`.
    pub field: &'static str,
    pub fault: String,
}

impl BadField {
    /// A fault of one field.
    pub fn new(field: &'static str, fault: impl ToString) -> Self {
        BadField { field, fault: fault.to_string() }
    }
}

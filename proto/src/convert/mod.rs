//! Between wire and model, both ways.

pub mod job;

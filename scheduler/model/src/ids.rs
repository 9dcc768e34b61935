//! Identifiers. Each is a newtype, so that a node cannot be passed where a job is meant.

use std::fmt;

/// A job's number, as users type it. Array tasks have numbers of their own: an array of `n` tasks
/// submitted as `A` owns `A..A+n`, and its task at position `i` is job `A + i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

/// The highest job number that Slurm's tools accept (0x03FF_0000); numbers wrap to 1 after it.
pub const MAX_JOB_ID: u32 = 0x03FF_0000;

/// Which try of a job a message speaks of; messages of older ones are ignored. The first is 1;
/// 0 means "never started".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Attempt(self.0 + 1)
    }
}

/// A node's number: given once, when its name is first configured, and kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A numeric user id, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u32);

/// Who a job runs as. The name is for people (and `%u`); the numbers decide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    pub uid: Uid,
    pub gid: u32,
    pub name: Box<str>,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

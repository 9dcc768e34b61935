//! A double of NVIDIA's management library: a shared library with the C interface of
//! `libnvidia-ml.so`, so that the agent loads it and calls it as it does the true one.
//!
//! It looks at a TOML file at every call: `NAME.toml` beside the library it was loaded as
//! (`NAME.so`), or the file that `MUSTER_FAKE_NVML` names. The file says which machine it is and
//! what is wrong with it, and may be rewritten at any time. It knows nothing of Muster.
//!
//! - `machine`: the machines it can be, as the real ones are wired
//! - `file`: the file, read anew when it changed
//! - `library`: the C functions
//! - `kit`: for tests: the library's path, a copy of it with a file of its own

#![allow(non_snake_case, reason = "the C interface gives the names")]

pub mod file;
pub mod kit;
mod library;
pub mod machine;

//! The commands end to end, over a fixed world: what clients type and what they get.
//!
//! - `world`: jobs, nodes, partitions and history, at a fixed instant
//! - `goldens`: `*.txt` beside this file: command lines and their exact output
//! - `cases`: what a golden file cannot say

mod cases;
mod goldens;
mod world;

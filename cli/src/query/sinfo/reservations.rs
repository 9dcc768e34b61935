//! `sinfo -T`: reservations instead of nodes.

use muster_model::time::Clock;
use muster_proto::v1::Reservation;

use super::super::surroundings::Surroundings;

const HEAD: &str = "RESV_NAME";

/// The table; names make room for themselves.
pub(super) fn table(all: &[Reservation], no_header: bool, here: &Surroundings) -> String {
    if all.is_empty() {
        return "No reservations in the system\n".to_owned();
    }
    let width = all.iter().map(|r| r.name.len()).max().unwrap_or(0).max(HEAD.len());
    let mut out = String::new();
    if !no_header {
        out.push_str(&format!(
            "{HEAD:<width$}  {:>8}  {:>19}  {:>19}  {:>11}  NODELIST\n",
            "STATE", "START_TIME", "END_TIME", "DURATION"
        ));
    }
    for one in all {
        let state = if one.active { "ACTIVE" } else { "INACTIVE" };
        let duration = Clock((one.end - one.start) / 1000).to_string();
        out.push_str(&format!(
            "{:<width$}  {state:>8}  {:>19}  {:>19}  {duration:>11}  {}\n",
            one.name,
            here.time(one.start, "N/A"),
            here.time(one.end, "N/A"),
            one.nodes
        ));
    }
    out
}

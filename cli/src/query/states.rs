//! State words of jobs and nodes, long and short, as Slurm writes them.

use muster_proto::v1::{Job, JobState, Node, NodeBase};

/// Long and short words; those that no job of ours reaches are here too, since users may ask for
/// them.
pub(crate) const JOB_STATES: [(&str, &str); 24] = [
    ("PENDING", "PD"),
    ("RUNNING", "R"),
    ("SUSPENDED", "S"),
    ("COMPLETED", "CD"),
    ("CANCELLED", "CA"),
    ("FAILED", "F"),
    ("TIMEOUT", "TO"),
    ("NODE_FAIL", "NF"),
    ("PREEMPTED", "PR"),
    ("BOOT_FAIL", "BF"),
    ("DEADLINE", "DL"),
    ("OUT_OF_MEMORY", "OOM"),
    ("COMPLETING", "CG"),
    ("CONFIGURING", "CF"),
    ("RESIZING", "RS"),
    ("REVOKED", "RV"),
    ("SPECIAL_EXIT", "SE"),
    ("REQUEUED", "RQ"),
    ("REQUEUE_HOLD", "RH"),
    ("REQUEUE_FED", "RF"),
    ("STAGE_OUT", "SO"),
    ("STOPPED", "ST"),
    ("SIGNALING", "SI"),
    ("RESV_DEL_HOLD", "RD"),
];

/// The long word.
pub(crate) fn long(state: JobState) -> &'static str {
    JOB_STATES[row(state)].0
}

/// The short word.
pub(crate) fn compact(state: JobState) -> &'static str {
    JOB_STATES[row(state)].1
}

/// The order of `-S t`.
pub(crate) fn rank(state: JobState) -> usize {
    match state {
        JobState::Configuring => 1,
        other => row(other),
    }
}

fn row(state: JobState) -> usize {
    match state {
        JobState::Pending => 0,
        JobState::Running => 1,
        JobState::Suspended => 2,
        JobState::Completed => 3,
        JobState::Cancelled => 4,
        JobState::Failed => 5,
        JobState::Timeout => 6,
        JobState::NodeFail => 7,
        JobState::Preempted => 8,
        JobState::BootFail => 9,
        JobState::Deadline => 10,
        JobState::OutOfMemory => 11,
        JobState::Completing => 12,
        JobState::Configuring => 13,
        JobState::Requeued => 17,
    }
}

/// Whether the job is over, its cleaning up included.
pub(crate) fn ended(state: JobState) -> bool {
    !matches!(
        state,
        JobState::Pending
            | JobState::Configuring
            | JobState::Running
            | JobState::Suspended
            | JobState::Completing
    )
}

/// Whether the job holds nodes and has not ended.
pub(crate) fn active(state: JobState) -> bool {
    !ended(state) && state != JobState::Pending
}

/// Which states a user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// Long words.
    These(Vec<&'static str>),
}

impl Wanted {
    /// Reads a comma list of long or short words, or `all`.
    ///
    /// # Errors
    /// The word that is no state.
    pub(crate) fn parse(text: &str) -> Result<Wanted, String> {
        let mut states = Vec::new();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            if word.eq_ignore_ascii_case("all") {
                return Ok(Wanted::All);
            }
            let found = JOB_STATES
                .iter()
                .find(|(l, s)| l.eq_ignore_ascii_case(word) || s.eq_ignore_ascii_case(word));
            states.push(found.ok_or_else(|| word.to_owned())?.0);
        }
        Ok(Wanted::These(states))
    }

    /// Whether a job in this state is wanted.
    pub(crate) fn takes(&self, state: JobState) -> bool {
        match self {
            Wanted::All => true,
            Wanted::These(words) => words.contains(&long(state)),
        }
    }

    /// Whether ended jobs are among those wanted.
    pub(crate) fn ended(&self) -> bool {
        match self {
            Wanted::All => true,
            Wanted::These(words) => {
                JOB_STATES.iter().filter(|(word, _)| words.contains(word)).any(|(word, _)| {
                    !["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING"].contains(word)
                })
            }
        }
    }
}

/// The list in the message about a word that is no state.
pub(crate) fn valid_job_states() -> String {
    JOB_STATES.iter().map(|(long, _)| *long).collect::<Vec<_>>().join(",")
}

/// `JOB_STATE` of a job in the words of sacct, which names who cancelled it.
pub(crate) fn accounted(job: &Job) -> String {
    match job.state() {
        JobState::Cancelled => format!("CANCELLED by {}", job.cancelled_by),
        state => long(state).to_owned(),
    }
}

/// A node's state in lower case, long or short, with its suffix.
pub(crate) fn node(node: &Node, short: bool) -> String {
    let (long, compact) = node_words(node);
    let word = if short { compact } else { long };
    let suffix = match (node.not_responding, node.maintenance && word != "maint") {
        (true, _) => "*",
        (false, true) => "$",
        (false, false) => "",
    };
    format!("{word}{suffix}")
}

fn node_words(node: &Node) -> (&'static str, &'static str) {
    let base = node.base();
    if base == NodeBase::Idle && !node.drain && !node.completing {
        return match (node.maintenance, node.reservation.is_empty()) {
            (true, _) => ("maint", "maint"),
            (false, false) => ("reserved", "resv"),
            (false, true) => ("idle", "idle"),
        };
    }
    match (base, node.drain) {
        (NodeBase::Down, false) => ("down", "down"),
        (NodeBase::Unknown, false) => ("unknown", "unk"),
        (NodeBase::Allocated | NodeBase::Mixed, true) => ("draining", "drng"),
        (_, true) if node.completing => ("draining", "drng"),
        (_, true) => ("drained", "drain"),
        (NodeBase::Idle, false) => ("completing", "comp"),
        (NodeBase::Mixed, false) => ("mixed", "mix"),
        (NodeBase::Allocated, false) if node.completing => ("allocated+", "alloc+"),
        (NodeBase::Allocated, false) => ("allocated", "alloc"),
    }
}

/// A node's base and flags, upper case: `["IDLE", "DRAIN", "NOT_RESPONDING"]`.
pub(crate) fn node_flags(node: &Node) -> Vec<&'static str> {
    let base = match node.base() {
        NodeBase::Idle => "IDLE",
        NodeBase::Mixed => "MIXED",
        NodeBase::Allocated => "ALLOCATED",
        NodeBase::Down => "DOWN",
        NodeBase::Unknown => "UNKNOWN",
    };
    let mut flags = vec![base];
    flags.extend(node.drain.then_some("DRAIN"));
    flags.extend(node.completing.then_some("COMPLETING"));
    flags.extend(node.maintenance.then_some("MAINTENANCE"));
    let reserved = !node.reservation.is_empty() && !node.maintenance;
    flags.extend(reserved.then_some("RESERVED"));
    flags.extend(node.not_responding.then_some("NOT_RESPONDING"));
    flags
}

/// The order of `sinfo -S t`: flags outweigh the base, as in Slurm's own numbers.
pub(crate) fn node_rank(node: &Node) -> u32 {
    let base = match node.base() {
        NodeBase::Unknown => 0,
        NodeBase::Down => 1,
        NodeBase::Idle => 2,
        NodeBase::Allocated => 3,
        NodeBase::Mixed => 5,
    };
    base + u32::from(!node.reservation.is_empty()) * 8
        + u32::from(node.drain) * 16
        + u32::from(node.completing) * 32
        + u32::from(node.not_responding) * 64
}

/// Words that `sinfo -t` takes.
pub(crate) const NODE_STATES: [&str; 32] = [
    "alloc",
    "allocated",
    "all",
    "comp",
    "completing",
    "down",
    "drain",
    "drained",
    "draining",
    "drng",
    "fail",
    "failing",
    "future",
    "idle",
    "maint",
    "mix",
    "mixed",
    "no_respond",
    "npc",
    "perfctrs",
    "planned",
    "power_down",
    "powered_down",
    "powering_down",
    "powering_up",
    "reboot",
    "reboot_issued",
    "resv",
    "reserved",
    "resume",
    "unk",
    "unknown",
];

/// Whether a node is in a state as `sinfo -t` names it; `None`: there is no such state.
pub(crate) fn node_is(node: &Node, word: &str) -> Option<bool> {
    let word = word.to_ascii_lowercase();
    if !NODE_STATES.contains(&word.as_str()) {
        return None;
    }
    let busy = matches!(node.base(), NodeBase::Allocated | NodeBase::Mixed) || node.completing;
    Some(match word.as_str() {
        "all" => true,
        "alloc" | "allocated" => node.base() == NodeBase::Allocated,
        "mix" | "mixed" => node.base() == NodeBase::Mixed,
        "idle" => node.base() == NodeBase::Idle && !node.drain && !node.completing,
        "down" => node.base() == NodeBase::Down,
        "comp" | "completing" => node.completing,
        "drain" => node.drain,
        "drained" => node.drain && !busy,
        "drng" | "draining" => node.drain && busy,
        "maint" => node.maintenance,
        "resv" | "reserved" => !node.reservation.is_empty() && !node.maintenance,
        "no_respond" => node.not_responding,
        "unk" | "unknown" => node.base() == NodeBase::Unknown,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_long_and_short() {
        let wanted = Wanted::parse("pd,RUNNING, oom").unwrap();
        assert!(wanted.takes(JobState::Pending) && wanted.takes(JobState::OutOfMemory));
        assert!(!wanted.takes(JobState::Completed) && wanted.ended());
        assert!(!Wanted::parse("R,CG").unwrap().ended());
        assert_eq!(Wanted::parse("R,all"), Ok(Wanted::All));
        assert_eq!(Wanted::parse("R,FOO"), Err("FOO".to_owned()));
    }

    #[track_caller]
    fn check(base: NodeBase, drain: bool, silent: bool, long: &str, short: &str) {
        let shown = Node { base: base.into(), drain, not_responding: silent, ..Node::default() };
        assert_eq!(node(&shown, false), long);
        assert_eq!(node(&shown, true), short);
    }

    #[test]
    fn a_node_says_base_and_flags_in_one_word() {
        check(NodeBase::Idle, false, false, "idle", "idle");
        check(NodeBase::Idle, true, false, "drained", "drain");
        check(NodeBase::Mixed, true, false, "draining", "drng");
        check(NodeBase::Down, false, true, "down*", "down*");
        check(NodeBase::Allocated, false, false, "allocated", "alloc");
        check(NodeBase::Unknown, false, true, "unknown*", "unk*");
    }

    #[track_caller]
    fn kept(base: NodeBase, maintenance: bool, word: &str, flags: &str) {
        let reservation = "r".to_owned();
        let shown = Node { base: base.into(), maintenance, reservation, ..Node::default() };
        assert_eq!(
            (node(&shown, true).as_str(), node_flags(&shown).join("+").as_str()),
            (word, flags)
        );
    }

    #[test]
    fn a_kept_node_says_so() {
        kept(NodeBase::Idle, true, "maint", "IDLE+MAINTENANCE");
        kept(NodeBase::Idle, false, "resv", "IDLE+RESERVED");
        kept(NodeBase::Mixed, true, "mix$", "MIXED+MAINTENANCE");
        kept(NodeBase::Allocated, false, "alloc", "ALLOCATED+RESERVED");
    }
}

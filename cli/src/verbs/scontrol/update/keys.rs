//! Which keys `scontrol update` knows, and why it does not do the others of Slurm's.

/// The keys of one kind of thing, in lower case.
pub(super) struct Keys {
    done: &'static [&'static str],
    /// With the reason.
    refused: &'static [(&'static str, &'static str)],
}

const SHARED: &str = "resources are never shared between jobs";
const CONFIG: &str = "change it in muster.toml, then run 'scontrol reconfigure'";
const NO_RULE: &str = "partitions have no such rule";
const CLOUD: &str = "nodes are not made in a cloud";
const REGISTERED: &str = "the node's agent tells it";

pub(super) const JOB: Keys = Keys {
    done: &[
        "account",
        "admincomment",
        "arraytaskthrottle",
        "comment",
        "contiguous",
        "cpus/task",
        "cpuspertask",
        "deadline",
        "dependency",
        "endtime",
        "excnodelist",
        "features",
        "gres",
        "jobid",
        "jobname",
        "licenses",
        "mailtype",
        "mailuser",
        "minmemorycpu",
        "minmemorynode",
        "name",
        "nice",
        "numcpus",
        "numnodes",
        "numtasks",
        "partition",
        "priority",
        "qos",
        "reqnodelist",
        "requeue",
        "reservation",
        "reservationname",
        "starttime",
        "stderr",
        "stdout",
        "switches",
        "timelimit",
        "tresperjob",
        "trespernode",
        "trespersocket",
        "trespertask",
        "wckey",
        "workdir",
    ],
    refused: &[
        ("burstbuffer", "there are no burst buffers"),
        ("clusterfeatures", "there are no federations"),
        ("clusters", "there are no federations"),
        ("corespec", "cores cannot be set aside for the system"),
        ("delayboot", "nodes are never booted for a job"),
        ("extra", "use Comment"),
        ("mcslabel", "there is no multi-category security"),
        ("mincpusnode", "use CPUsPerTask or NumTasks"),
        ("mintmpdisknode", "disk space of nodes is not tracked"),
        ("network", "networks are not configured for a job"),
        ("nodelist", "use ReqNodeList; what a running job holds is fixed"),
        ("oversubscribe", SHARED),
        ("prefer", "use Features, which must hold"),
        ("reboot", "nodes are never booted for a job"),
        ("reqcores", "nodes are not chosen by their cores per socket"),
        ("reqnodes", "use NumNodes"),
        ("reqprocs", "use NumCPUs"),
        ("reqsockets", "nodes are not chosen by their sockets"),
        ("reqthreads", "nodes are not chosen by their threads per core"),
        ("resetaccruetime", "a job's age counts from the moment it could start"),
        ("shared", SHARED),
        ("sitefactor", "priorities have no site factor"),
        ("stdin", "it is settled when the job is submitted"),
        ("systemcomment", "the controller alone writes it"),
        ("threadspec", "threads cannot be set aside for the system"),
        ("timemin", "it is settled when the job is submitted"),
        ("userid", "a job belongs to the user who submitted it"),
    ],
};

pub(super) const NODE: Keys = Keys {
    done: &[
        "activefeatures",
        "availablefeatures",
        "comment",
        "features",
        "gpu",
        "nodename",
        "reason",
        "state",
        "weight",
    ],
    refused: &[
        ("certtoken", "agents register with the cluster's key"),
        ("cpubind", "tasks are bound by srun's --cpu-bind"),
        ("extra", "use Comment"),
        ("gres", CONFIG),
        ("instanceid", CLOUD),
        ("instancetype", CLOUD),
        ("nodeaddr", REGISTERED),
        ("nodehostname", REGISTERED),
        ("resumeafter", "a drained node comes back with State=RESUME"),
        ("topology", CONFIG),
    ],
};

pub(super) const PARTITION: Keys = Keys {
    done: &["defaulttime", "maxnodes", "maxtime", "partitionname", "prioritytier", "state"],
    refused: &[
        ("allocnodes", "jobs may be submitted from every host"),
        ("allowaccounts", "no accounts are kept"),
        ("allowgroups", CONFIG),
        ("allowqos", "no QOS are kept"),
        ("alternate", "a job may name several partitions"),
        ("default", CONFIG),
        ("defmempercpu", CONFIG),
        ("defmempernode", CONFIG),
        ("denyaccounts", "no accounts are kept"),
        ("denyqos", "no QOS are kept"),
        ("disablerootjobs", "set allow_root_jobs in muster.toml"),
        ("exclusive", CONFIG),
        ("exclusiveuser", NO_RULE),
        ("gracetime", "there is no preemption"),
        ("hidden", "no partition is hidden"),
        ("jobdefaults", NO_RULE),
        ("lln", NO_RULE),
        ("maxcpuspernode", NO_RULE),
        ("maxcpuspersocket", NO_RULE),
        ("maxmempercpu", NO_RULE),
        ("maxmempernode", CONFIG),
        ("minnodes", CONFIG),
        ("nodes", CONFIG),
        ("oversubscribe", SHARED),
        ("overtimelimit", "limits hold to the second"),
        ("powerdownonidle", "nodes are never switched off"),
        ("preemptmode", "there is no preemption"),
        ("priority", "use PriorityTier"),
        ("priorityjobfactor", CONFIG),
        ("qos", "no QOS are kept"),
        ("reqresv", NO_RULE),
        ("resumetimeout", "nodes are never switched off"),
        ("rootonly", NO_RULE),
        ("shared", SHARED),
        ("suspendtime", "nodes are never switched off"),
        ("suspendtimeout", "nodes are never switched off"),
        ("topology", NO_RULE),
        ("tresbillingweights", "nothing is billed"),
    ],
};

/// A key by its name or a unique prefix of three letters and more.
pub(super) fn key(table: &Keys, text: &str) -> Option<&'static str> {
    if let Some(exact) = table.done.iter().find(|k| **k == text) {
        return Some(exact);
    }
    if table.refused.iter().any(|(k, _)| *k == text) {
        return None;
    }
    let mut starting = table.done.iter().filter(|k| text.len() >= 3 && k.starts_with(text));
    starting.next().filter(|_| starting.next().is_none()).copied()
}

/// What is said of a key that is not done.
pub(super) fn unsupported(table: &Keys, given: &str, value: &str) -> String {
    let name = given.trim_end_matches(['+', '-']);
    let why = table.refused.iter().find(|(k, _)| *k == name).map(|(_, why)| format!(": {why}"));
    meaningless(&format!("{given}={value}{}", why.unwrap_or_default()))
}

/// What is said of a word that is no key at all.
pub(super) fn meaningless(word: &str) -> String {
    format!("Update of this parameter is not supported: {word}\nRequest aborted")
}

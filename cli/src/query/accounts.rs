//! `sacctmgr` and `sshare`, as far as there is something true to say: this cluster keeps no
//! accounts, associations, shares or QOS, so listings of them are empty, and changing them is
//! refused. Clients ask both commands before they submit, and take an empty list for "any account".

use super::columns::{self, Columns, Style};
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, VERSION};
use crate::getopt::{Opt, Parsed, Spec, Takes, both, long};

const SACCTMGR: &str = "sacctmgr";
const SSHARE: &str = "sshare";

const MANAGE: Spec = Spec {
    program: SACCTMGR,
    stop_at_operand: false,
    options: &[
        both("associations", 's', Takes::Nothing),
        long("delimiter", Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("immediate", 'i', Takes::Nothing),
        both("noheader", 'n', Takes::Nothing),
        both("oneliner", 'o', Takes::Nothing),
        both("parsable", 'p', Takes::Nothing),
        both("parsable2", 'P', Takes::Nothing),
        both("quiet", 'Q', Takes::Nothing),
        both("readonly", 'r', Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "usage", short: None, takes: Takes::Nothing },
    ],
};

const MANAGE_HELP: &str = "\
Usage: sacctmgr [OPTIONS] show ENTITY [format=FIELD[%N],..] [where ...]
  -n, --noheader    no header line
  -p, --parsable    '|' after each column
  -P, --parsable2   '|' between columns
ENTITY is cluster, tres, or account, association, coordinator, event, federation, qos, resource,
reservation, runawayjobs, transaction, user, wckey. This cluster keeps no accounts: all but the
first two are empty, and nothing can be added or changed.
";

/// What is listed, and its columns when none are named.
const ENTITIES: &[(&str, &str)] = &[
    ("accounts", "Account,Description,Organization"),
    (
        "associations",
        "Cluster,Account,User,Partition,Share,Priority,GrpJobs,GrpTRES,GrpSubmit,\
        GrpWall,GrpTRESMins,MaxJobs,MaxTRES,MaxTRESPerNode,MaxSubmit,MaxWall,MaxTRESMins,QOS,\
        DefaultQOS,GrpTRESRunMins",
    ),
    (
        "clusters",
        "Cluster,ControlHost,ControlPort,RPC,Share,GrpJobs,GrpTRES,GrpSubmit,MaxJobs,\
        MaxTRES,MaxSubmit,MaxWall,QOS,DefaultQOS",
    ),
    ("coordinators", "Account,User"),
    ("events", "Cluster,NodeName,Start,End,State,Reason,User"),
    ("federations", "Name,Cluster"),
    ("problems", "Cluster,Account,User,Problem"),
    (
        "qos",
        "Name,Priority,GraceTime,Preempt,PreemptMode,Flags,UsageFactor,GrpTRES,GrpTRESMins,\
        GrpJobs,GrpSubmit,GrpWall,MaxTRES,MaxWall,MaxJobs,MaxSubmit",
    ),
    ("reservations", "Cluster,Name,Start,End"),
    ("resources", "Name,Server,Type,Count"),
    ("runawayjobs", "ID,Name,Partition,Cluster,State,Start,End"),
    ("transactions", "Time,Action,Actor,Where,Info"),
    ("tres", "Type,Name,ID"),
    ("users", "User,DefaultAccount,AdminLevel"),
    ("wckeys", "WCKey,Cluster,User"),
];

/// Verbs that would change what is not kept.
const CHANGES: &[&str] = &[
    "add",
    "archive",
    "clear",
    "create",
    "delete",
    "dump",
    "load",
    "modify",
    "reconfigure",
    "remove",
    "set",
    "shutdown",
    "update",
];

/// Column names, their headers and widths.
const FIELDS: &[(&str, &str, i32)] = &[
    ("Account", "Account", 10),
    ("Action", "Action", 20),
    ("Actor", "Actor", 10),
    ("AdminLevel", "Admin", 9),
    ("Cluster", "Cluster", 10),
    ("ControlHost", "ControlHost", 15),
    ("ControlPort", "ControlPort", 12),
    ("Coordinators", "Coord Accounts", 20),
    ("Count", "Count", 6),
    ("DefaultAccount", "Def Acct", 10),
    ("DefaultQOS", "Def QOS", 9),
    ("DefaultWCKey", "Def WCKey", 10),
    ("Description", "Descr", 20),
    ("End", "End", 19),
    ("Fairshare", "Share", 9),
    ("Flags", "Flags", 20),
    ("GraceTime", "GraceTime", 10),
    ("GrpCPU", "GrpCPUs", 8),
    ("GrpJobs", "GrpJobs", 7),
    ("GrpMem", "GrpMem", 7),
    ("GrpNodes", "GrpNodes", 8),
    ("GrpSubmit", "GrpSubmit", 9),
    ("GrpTRES", "GrpTRES", 13),
    ("GrpTRESMins", "GrpTRESMins", 13),
    ("GrpTRESRunMins", "GrpTRESRunMins", 13),
    ("GrpWall", "GrpWall", 11),
    ("ID", "ID", 6),
    ("Info", "Info", 20),
    ("MaxCPUs", "MaxCPUs", 8),
    ("MaxJobs", "MaxJobs", 7),
    ("MaxNodes", "MaxNodes", 8),
    ("MaxSubmit", "MaxSubmit", 9),
    ("MaxTRES", "MaxTRES", 13),
    ("MaxTRESMins", "MaxTRESMins", 13),
    ("MaxTRESPerNode", "MaxTRESPerNode", 14),
    ("MaxWall", "MaxWall", 11),
    ("Name", "Name", 15),
    ("NodeName", "NodeName", 15),
    ("Organization", "Org", 20),
    ("ParentName", "Par Name", 10),
    ("Partition", "Partition", 10),
    ("Preempt", "Preempt", 10),
    ("PreemptMode", "PreemptMode", 11),
    ("Priority", "Priority", 10),
    ("Problem", "Problem", 40),
    ("QOS", "QOS", 20),
    ("Reason", "Reason", 30),
    ("RPC", "RPC", 5),
    ("Server", "Server", 10),
    ("Share", "Share", 9),
    ("Start", "Start", 19),
    ("State", "State", 6),
    ("Time", "Time", 19),
    ("Type", "Type", 8),
    ("UsageFactor", "UsageFactor", 11),
    ("User", "User", 10),
    ("WCKey", "WCKey", 10),
    ("Where", "Where", 20),
];

/// `sacctmgr`, the whole command.
pub(super) fn manage(args: &[String], source: &mut dyn Source, _: &Surroundings) -> Output {
    let parsed = match super::opened(&MANAGE, MANAGE_HELP, args) {
        Ok(parsed) => parsed,
        Err(said) => return said,
    };
    let words: Vec<&str> = parsed.operands.iter().map(String::as_str).collect();
    let invalid = |word: &str| Output {
        err: format!("invalid keyword: {word}\n"),
        code: 1,
        ..Output::default()
    };
    match words.as_slice() {
        [] => Output { err: MANAGE_HELP.to_owned(), code: 1, ..Output::default() },
        ["version", ..] => Output::text(format!("{VERSION}\n")),
        [verb, rest @ ..] if short_for(verb, "show") || short_for(verb, "list") => match rest {
            [entity, rest @ ..] => {
                match ENTITIES.iter().find(|(name, _)| short_for(entity, name)) {
                    Some((name, default)) => list(&parsed, name, default, rest, source),
                    None => invalid(entity),
                }
            }
            [] => Output::error(SACCTMGR, "show what? Name an entity, as in 'show cluster'"),
        },
        [verb, ..] => match CHANGES.iter().find(|change| short_for(verb, change)) {
            Some(change) => Output::error(
                SACCTMGR,
                &format!("{change} is not supported: this cluster keeps no accounts"),
            ),
            None => invalid(verb),
        },
    }
}

/// Whether a word is the start of a keyword, two letters at least.
fn short_for(word: &str, keyword: &str) -> bool {
    let start = keyword.get(..word.len());
    word.len() > 1 && start.is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn list(
    parsed: &Parsed,
    entity: &str,
    default: &str,
    rest: &[&str],
    source: &mut dyn Source,
) -> Output {
    let named = rest.iter().find_map(|word| {
        let (key, value) = word.split_once('=')?;
        (short_for(key, "format") && key.len() > 2).then_some(value)
    });
    let names: Vec<(&str, i32)> = FIELDS.iter().map(|(name, _, width)| (*name, *width)).collect();
    let columns = match Columns::read(named.unwrap_or(default), &names, style(parsed)) {
        Ok(columns) => columns,
        Err(name) => return Output::error(SACCTMGR, &format!("Unknown field '{name}'")),
    };
    let rows = match entity {
        "clusters" => match source.cluster() {
            Ok(cluster) => vec![vec![("Cluster", cluster.clone()), ("Name", cluster)]],
            Err(fault) => return Output::failed(SACCTMGR, "sacctmgr: error: ", &fault),
        },
        "tres" => tres(),
        _ => Vec::new(),
    };
    let headers: Vec<(&str, i32)> = FIELDS.iter().map(|(_, head, width)| (*head, *width)).collect();
    let mut out = if parsed.has("noheader") { String::new() } else { columns.header(&headers) };
    for row in rows {
        let cell = |field: usize| {
            let found = row.iter().find(|(name, _)| *name == FIELDS[field].0);
            found.map_or_else(String::new, |(_, value)| value.clone())
        };
        out.push_str(&columns.line(cell));
    }
    Output::text(out)
}

/// What is counted on every cluster, with Slurm's numbers.
fn tres() -> Vec<Vec<(&'static str, String)>> {
    let kinds = ["cpu", "mem", "energy", "node", "billing", "fs/disk", "vmem", "pages"].into_iter();
    let row = |(id, kind): (usize, &str)| {
        let (kind, name) = kind.split_once('/').unwrap_or((kind, ""));
        vec![("Type", kind.to_owned()), ("Name", name.to_owned()), ("ID", id.to_string())]
    };
    (1..).zip(kinds).map(row).collect()
}

fn style(parsed: &Parsed) -> Style {
    let delimiter = || parsed.last("delimiter").unwrap_or("|").to_owned();
    match (parsed.has("parsable2"), parsed.has("parsable")) {
        (true, _) => Style::Between(delimiter()),
        (false, true) => Style::After(delimiter()),
        (false, false) => Style::Padded,
    }
}

const SHARE: Spec = Spec {
    program: SSHARE,
    stop_at_operand: false,
    options: &[
        both("accounts", 'A', Takes::Value),
        both("all", 'a', Takes::Nothing),
        both("clusters", 'M', Takes::Value),
        long("delimiter", Takes::Value),
        both("format", 'o', Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("helpformat", 'e', Takes::Nothing),
        both("long", 'l', Takes::Nothing),
        both("noheader", 'n', Takes::Nothing),
        both("parsable", 'p', Takes::Nothing),
        both("parsable2", 'P', Takes::Nothing),
        both("partition", 'm', Takes::Nothing),
        both("users", 'u', Takes::Value),
        both("Users", 'U', Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "usage", short: None, takes: Takes::Nothing },
    ],
};

const SHARE_HELP: &str = "\
Usage: sshare [OPTIONS]
  -e, --helpformat            the names of all columns
  -n, --noheader              no header line
  -o, --format=FIELD[%N],..   columns
  -p, --parsable              '|' after each column
  -P, --parsable2             '|' between columns
This cluster keeps no shares: the list is empty.
";

const SHARES: &[(&str, i32)] = &[
    ("Account", -20),
    ("User", 10),
    ("Partition", 12),
    ("RawShares", 10),
    ("NormShares", 11),
    ("RawUsage", 11),
    ("NormUsage", 11),
    ("EffectvUsage", 13),
    ("FairShare", 10),
    ("LevelFS", 10),
    ("GrpTRESMins", 30),
    ("TRESRunMins", 30),
];

/// `sshare`, the whole command.
pub(super) fn shares(args: &[String], _: &mut dyn Source, _: &Surroundings) -> Output {
    let parsed = match super::opened(&SHARE, SHARE_HELP, args) {
        Ok(parsed) => parsed,
        Err(said) => return said,
    };
    if parsed.has("helpformat") {
        return Output::text(columns::help_format(SHARES));
    }
    let default = match parsed.has("long") {
        true => {
            "Account,User,RawShares,NormShares,RawUsage,NormUsage,EffectvUsage,FairShare,LevelFS,\
             GrpTRESMins,TRESRunMins"
        }
        false => "Account,User,RawShares,NormShares,RawUsage,EffectvUsage,FairShare",
    };
    let text = parsed.last("format").unwrap_or(default);
    match Columns::read(text, SHARES, style(&parsed)) {
        Ok(_) if parsed.has("noheader") => Output::default(),
        Ok(columns) => Output::text(columns.header(SHARES)),
        Err(name) => Output::error(SSHARE, &format!("Invalid field requested: \"{name}\"")),
    }
}

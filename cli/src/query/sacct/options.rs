//! What was asked of `sacct`, and the window in time that follows from it.

use super::super::columns::{self, Columns, Style};
use super::super::pick::{self, Pick};
use super::super::sizes::Units;
use super::super::states::Wanted;
use super::super::surroundings::Surroundings;
use super::super::times;
use super::super::{Output, VERSION};
use super::{PROGRAM, fields};
use crate::getopt::{self, Opt, Parsed, Spec, Takes, alias, both, long};

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("accounts", 'A', Takes::Value),
        both("allclusters", 'L', Takes::Nothing),
        both("allocations", 'X', Takes::Nothing),
        both("allusers", 'a', Takes::Nothing),
        long("array", Takes::Nothing),
        both("associations", 'x', Takes::Value),
        both("batch-script", 'B', Takes::Nothing),
        both("brief", 'b', Takes::Nothing),
        both("clusters", 'M', Takes::Value),
        both("completion", 'c', Takes::Nothing),
        both("constraints", 'C', Takes::Value),
        long("delimiter", Takes::Value),
        both("duplicates", 'D', Takes::Nothing),
        both("endtime", 'E', Takes::Value),
        long("env-vars", Takes::Nothing),
        long("expand-patterns", Takes::Nothing),
        long("federation", Takes::Nothing),
        both("format", 'o', Takes::Value),
        both("group", 'g', Takes::Value),
        alias("group", "gid", Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("helpformat", 'e', Takes::Nothing),
        both("jobs", 'j', Takes::Value),
        long("json", Takes::MaybeValue),
        long("local", Takes::Nothing),
        both("long", 'l', Takes::Nothing),
        long("name", Takes::Value),
        both("ncpus", 'I', Takes::Value),
        both("nnodes", 'i', Takes::Value),
        long("noconvert", Takes::Nothing),
        both("nodelist", 'N', Takes::Value),
        both("noheader", 'n', Takes::Nothing),
        both("parsable", 'p', Takes::Nothing),
        both("parsable2", 'P', Takes::Nothing),
        both("partition", 'r', Takes::Value),
        both("qos", 'q', Takes::Value),
        both("reason", 'R', Takes::Value),
        both("starttime", 'S', Takes::Value),
        both("state", 's', Takes::Value),
        both("timelimit-max", 'K', Takes::Value),
        both("timelimit-min", 'k', Takes::Value),
        both("truncate", 'T', Takes::Nothing),
        long("units", Takes::Value),
        long("usage", Takes::Nothing),
        long("use-local-uid", Takes::Nothing),
        both("user", 'u', Takes::Value),
        alias("user", "uid", Takes::Value),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        both("wckeys", 'W', Takes::Value),
        long("whole-hetjob", Takes::MaybeValue),
        Opt { id: "help", long: "", short: Some('?'), takes: Takes::Nothing },
    ],
};

const USAGE: &str = "Usage: sacct [OPTIONS]\n    Use --help for help\n";

const HELP: &str = "\
Usage: sacct [OPTIONS]
  -A, --accounts=NAME,..      jobs of these accounts
  -a, --allusers              jobs of all users
  -X, --allocations           jobs without their steps
      --array                 one line per array task
  -B, --batch-script          the job's script (with -j)
  -b, --brief                 jobid, state, exitcode
      --delimiter=TEXT        between columns, with -p or -P
  -D, --duplicates            every attempt of a requeued job
  -E, --endtime=TIME          the window's end
      --env-vars              the job's environment (with -j)
  -g, --group=NAME,..         jobs of these groups
  -e, --helpformat            the names of all columns
  -j, --jobs=ID,..            these jobs or steps: 12, 12_4, 12.batch
      --json                  as a JSON document
  -l, --long                  many columns
  -M, --clusters=NAME         this cluster, or all
      --name=NAME,..          jobs of these names
  -i, --nnodes=N[-M]          jobs on that many nodes
  -I, --ncpus=N[-M]           jobs on that many CPUs
      --noconvert             sizes in the unit they are kept in
  -N, --nodelist=HOSTLIST     jobs on these nodes
  -n, --noheader              no header line
  -o, --format=FIELD[%N],..   columns; N: width, negative: text on the left
  -p, --parsable              '|' after each column
  -P, --parsable2             '|' between columns
  -q, --qos=NAME,..           jobs of these QOS
  -r, --partition=NAME,..     jobs of these partitions
  -S, --starttime=TIME        the window's start
  -s, --state=STATE,..        jobs that were in these states within the window
  -k, --timelimit-min=TIME    jobs with this time limit; with -K, at least this
  -K, --timelimit-max=TIME    at most this time limit
  -T, --truncate              times cut to the window
      --units=[KMGTP]         sizes in this unit
  -u, --user=NAME,..          jobs of these users
  -V, --version               the version
  -W, --wckeys=NAME,..        jobs of these wckeys
Times: 2026-11-21T17:00, 112126, 08:30, now, now-7days, today, midnight, noon.
";

const DEFAULT: &str = "jobid,jobname,partition,account,alloccpus,state,exitcode";
const BRIEF: &str = "jobid,state,exitcode";
const COMPLETION: &str = "jobid,uid,jobname,partition,nnodes,nodelist,state,end";
const LONG: &str = "jobid,jobidraw,jobname,partition,maxvmsize,maxvmsizenode,maxvmsizetask,\
    avevmsize,maxrss,maxrssnode,maxrsstask,averss,maxpages,maxpagesnode,maxpagestask,avepages,\
    mincpu,mincpunode,mincputask,avecpu,ntasks,alloccpus,elapsed,state,exitcode,avecpufreq,\
    reqcpufreqmin,reqcpufreqmax,reqcpufreqgov,reqmem,consumedenergy,maxdiskread,maxdiskreadnode,\
    maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,maxdiskwritetask,avediskwrite,\
    reqtres,alloctres,tresusageinave,tresusageinmax,tresusageinmaxnode,tresusageinmaxtask,\
    tresusageinmin,tresusageinminnode,tresusageinmintask,tresusageintot,tresusageoutmax,\
    tresusageoutmaxnode,tresusageoutmaxtask,tresusageoutave,tresusageouttot";

/// What to do with the attempts found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Table,
    Json,
    Script,
    Environment,
}

/// What is to be shown.
pub(super) struct Options {
    pub(super) action: Action,
    pub(super) columns: Columns,
    pub(super) no_header: bool,
    pub(super) units: Units,
    pub(super) allocations_only: bool,
    pub(super) one_line_per_task: bool,
    pub(super) duplicates: bool,
    pub(super) truncate: bool,
    /// The window, in milliseconds; no end: now.
    pub(super) start: i64,
    pub(super) end: Option<i64>,
    pub(super) jobs: Option<Vec<Pick>>,
    /// None: everybody.
    pub(super) users: Option<Vec<u32>>,
    pub(super) groups: Option<Vec<u32>>,
    pub(super) states: Option<Wanted>,
    pub(super) names: Option<Vec<String>>,
    pub(super) partitions: Option<Vec<String>>,
    pub(super) accounts: Option<Vec<String>>,
    pub(super) qos: Option<Vec<String>>,
    pub(super) wckeys: Option<Vec<String>>,
    pub(super) reasons: Option<Vec<String>>,
    pub(super) nodes: Option<Vec<String>>,
    pub(super) node_range: Option<(u32, u32)>,
    pub(super) cpu_range: Option<(u32, u32)>,
    /// Minutes.
    pub(super) limit_range: Option<(u32, u32)>,
    clusters: Option<Vec<String>>,
}

impl Options {
    /// Whether the cluster's name is shown or must be checked.
    pub(super) fn needs_cluster(&self) -> bool {
        let field = fields::FIELDS.iter().position(|f| f.name == "Cluster");
        self.action == Action::Json
            || self.clusters.is_some()
            || self.columns.list.iter().any(|c| Some(c.field) == field)
    }

    /// A cluster that was asked for and is not this one.
    pub(super) fn foreign_cluster(&self, own: &str) -> Option<&str> {
        let own_or_all = |name: &&String| *name != own && !name.eq_ignore_ascii_case("all");
        self.clusters.iter().flatten().find(own_or_all).map(String::as_str)
    }
}

/// Either what to show, or a text that answers by itself.
pub(super) enum Ask {
    Text(String),
    History(Box<Options>),
}

fn fatal(text: String) -> Output {
    Output { err: format!("{PROGRAM}: fatal: {text}\n"), code: 1, ..Output::default() }
}

/// Reads the command line.
///
/// # Errors
/// What to say when it cannot be read.
pub(super) fn read(args: &[String], here: &Surroundings) -> Result<Ask, Output> {
    let parsed = getopt::parse(&SPEC, args).map_err(|fault| Output::usage(&fault))?;
    for (id, text) in [("help", HELP), ("usage", USAGE)] {
        if parsed.has(id) {
            return Ok(Ask::Text(text.to_owned()));
        }
    }
    if parsed.has("version") {
        return Ok(Ask::Text(format!("{VERSION}\n")));
    }
    if parsed.has("helpformat") {
        return Ok(Ask::Text(columns::help_format(&fields::names())));
    }
    let error = |text: String| Output::error(PROGRAM, &text);
    if let Some(word) = parsed.operands.first() {
        return Err(error(format!("Unrecognized option: {word}")));
    }
    let jobs = job_list(&parsed).map_err(|text| error(format!("Invalid job id: {text}")))?;
    let states = match parsed.last("state") {
        Some(text) => Some(
            Wanted::parse(text)
                .map_err(|word| fatal(format!("unrecognized job state value '{word}'")))?,
        ),
        None => None,
    };
    let (start, end) = window(&parsed, here, jobs.is_some(), states.is_some())
        .map_err(|fault| error(fault.to_string()))?;
    let list = |id: &'static str| {
        parsed.has(id).then(|| parsed.all(id).flat_map(pick::words).collect::<Vec<_>>())
    };
    Ok(Ask::History(Box::new(Options {
        action: action(&parsed),
        columns: table(&parsed, here)?,
        no_header: parsed.has("noheader"),
        units: units(&parsed)?,
        allocations_only: parsed.has("allocations") || parsed.has("completion"),
        one_line_per_task: parsed.has("array"),
        duplicates: parsed.has("duplicates"),
        truncate: parsed.has("truncate"),
        start,
        end,
        users: user_list(&parsed, here, jobs.is_some())?,
        groups: group_list(&parsed, here)?,
        jobs,
        states,
        names: list("name"),
        partitions: list("partition"),
        accounts: list("accounts"),
        qos: list("qos"),
        wckeys: list("wckeys"),
        reasons: list("reason"),
        nodes: hosts(&parsed)?,
        node_range: range(&parsed, "nnodes")?,
        cpu_range: range(&parsed, "ncpus")?,
        limit_range: limit_range(&parsed)?,
        clusters: list("clusters").or_else(|| here.variable("SLURM_CLUSTERS").map(pick::words)),
    })))
}

fn action(parsed: &Parsed) -> Action {
    if parsed.has("json") {
        Action::Json
    } else if parsed.has("batch-script") {
        Action::Script
    } else if parsed.has("env-vars") {
        Action::Environment
    } else {
        Action::Table
    }
}

fn job_list(parsed: &Parsed) -> Result<Option<Vec<Pick>>, String> {
    let mut jobs: Option<Vec<Pick>> = None;
    for text in parsed.all("jobs") {
        jobs.get_or_insert_default().extend(Pick::list(text)?);
    }
    Ok(jobs)
}

/// Without -j or -s: since midnight. With -j: since ever. With -s alone: now; its end is then
/// its start, unless told otherwise.
fn window(
    parsed: &Parsed,
    here: &Surroundings,
    jobs: bool,
    states: bool,
) -> Result<(i64, Option<i64>), times::BadTime> {
    let read = |id: &'static str| {
        parsed.last(id).map(|text| times::parse(text, &here.zone, here.now)).transpose()
    };
    let (start, end) = (read("starttime")?, read("endtime")?);
    let default_start = match (jobs, states) {
        (true, _) => 0,
        (false, true) => here.now,
        (false, false) => times::midnight(&here.zone, here.now),
    };
    let end = match (end, start) {
        (Some(end), _) => Some(end),
        (None, Some(start)) if states => Some(start),
        (None, _) => None,
    };
    Ok((start.unwrap_or(default_start), end))
}

fn user_list(parsed: &Parsed, here: &Surroundings, jobs: bool) -> Result<Option<Vec<u32>>, Output> {
    if parsed.has("user") {
        let mut uids = Vec::new();
        for text in parsed.all("user") {
            let (known, unknown) = pick::users(text, here);
            if let Some(name) = unknown.first() {
                return Err(fatal(format!("Invalid user id: {name}")));
            }
            uids.extend(known);
        }
        return Ok(Some(uids));
    }
    // Whoever names a job means that job; root sees everybody's.
    let everybody = parsed.has("allusers") || jobs || here.uid == 0;
    Ok((!everybody).then(|| vec![here.uid]))
}

fn group_list(parsed: &Parsed, here: &Surroundings) -> Result<Option<Vec<u32>>, Output> {
    let Some(text) = parsed.last("group") else { return Ok(None) };
    let gid = |name: &String| {
        let gid = (here.gid_of)(name).or_else(|| name.parse().ok());
        gid.ok_or_else(|| fatal(format!("Invalid group id: {name}")))
    };
    pick::words(text).iter().map(gid).collect::<Result<_, _>>().map(Some)
}

fn hosts(parsed: &Parsed) -> Result<Option<Vec<String>>, Output> {
    let Some(text) = parsed.last("nodelist") else { return Ok(None) };
    let list = muster_model::hostlist::Hostlist::parse(text);
    list.map(|list| Some(list.0)).map_err(|fault| Output::error(PROGRAM, &fault.to_string()))
}

fn range(parsed: &Parsed, id: &'static str) -> Result<Option<(u32, u32)>, Output> {
    let Some(text) = parsed.last(id) else { return Ok(None) };
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) => Ok(Some((least, most))),
        _ => Err(Output::error(PROGRAM, &format!("Invalid --{id} specification: {text}"))),
    }
}

fn limit_range(parsed: &Parsed) -> Result<Option<(u32, u32)>, Output> {
    let read = |id: &'static str| match parsed.last(id).map(muster_model::time::parse_seconds) {
        None => Ok(None),
        Some(Ok(seconds)) => {
            let minutes = seconds.and_then(|s| u32::try_from(s / 60).ok());
            Ok(Some(minutes.unwrap_or(u32::MAX)))
        }
        Some(Err(fault)) => Err(Output::error(PROGRAM, &format!("--{id}: {fault}"))),
    };
    Ok(match (read("timelimit-min")?, read("timelimit-max")?) {
        (Some(least), Some(most)) => Some((least, most)),
        (Some(exact), None) => Some((exact, exact)),
        (None, Some(most)) => Some((0, most)),
        (None, None) => None,
    })
}

fn units(parsed: &Parsed) -> Result<Units, Output> {
    if parsed.has("noconvert") {
        return Ok(Units::Keep);
    }
    let Some(text) = parsed.last("units") else { return Ok(Units::Exact) };
    Units::parse(text)
        .ok_or_else(|| fatal(format!("Invalid unit type '{text}': use one of K, M, G, T, P")))
}

fn table(parsed: &Parsed, here: &Surroundings) -> Result<Columns, Output> {
    let delimiter = || parsed.last("delimiter").unwrap_or("|").to_owned();
    // The one that stands last wins.
    let last = parsed.options.iter().rev().find(|o| o.id.starts_with("parsable"));
    let style = match last.map(|o| o.id) {
        Some("parsable") => Style::After(delimiter()),
        Some(_) => Style::Between(delimiter()),
        None => Style::Padded,
    };
    let given: Vec<&str> = parsed.all("format").collect();
    let joined = given.join(",");
    let text = if !given.is_empty() {
        joined.as_str()
    } else if parsed.has("brief") {
        BRIEF
    } else if parsed.has("long") {
        LONG
    } else if parsed.has("completion") {
        COMPLETION
    } else {
        here.variable("SACCT_FORMAT").unwrap_or(DEFAULT)
    };
    Columns::read(text, &fields::names(), style)
        .map_err(|name| Output::error(PROGRAM, &format!("Invalid field requested: \"{name}\"")))
}

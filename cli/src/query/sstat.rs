//! `sstat`: what running jobs use now, one line per step; a batch job has the step `batch`.

use std::collections::BTreeMap;

use muster_model::hostlist::Hostlist;
use muster_model::time::Clock;
use muster_proto::v1::{JobUsage, ListUsageRequest, TaskFigures};

use super::columns::{self, Columns, Style};
use super::pick::Pick;
use super::sizes::Units;
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, VERSION, tres};
use crate::getopt::{self, Opt, Parsed, Spec, Takes, both, long};
use crate::step::figures::Figures;

const PROGRAM: &str = "sstat";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("allsteps", 'a', Takes::Nothing),
        long("delimiter", Takes::Value),
        both("format", 'o', Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("helpformat", 'e', Takes::Nothing),
        both("jobs", 'j', Takes::Value),
        long("noconvert", Takes::Nothing),
        both("noheader", 'n', Takes::Nothing),
        both("parsable", 'p', Takes::Nothing),
        both("parsable2", 'P', Takes::Nothing),
        both("pidformat", 'i', Takes::Nothing),
        long("usage", Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "", short: Some('?'), takes: Takes::Nothing },
    ],
};

const HELP: &str = "\
Usage: sstat -j ID[.STEP],.. [OPTIONS]
  -a, --allsteps              every step of the jobs
      --delimiter=TEXT        between columns, with -p or -P
  -e, --helpformat            the names of all columns
  -j, --jobs=ID,..            these jobs or steps
      --noconvert             sizes in the unit they are kept in
  -n, --noheader              no header line
  -o, --format=FIELD[%N],..   columns; N: width, negative: text on the left
  -p, --parsable              '|' after each column
  -P, --parsable2             '|' between columns
  -i, --pidformat             the step's node
  -V, --version               the version
";

const DEFAULT: &str = "jobid,maxvmsize,maxvmsizenode,maxvmsizetask,avevmsize,maxrss,maxrssnode,\
    maxrsstask,averss,maxpages,maxpagesnode,maxpagestask,avepages,mincpu,mincpunode,mincputask,\
    avecpu,ntasks,avecpufreq,reqcpufreqmin,reqcpufreqmax,reqcpufreqgov,consumedenergy,\
    maxdiskread,maxdiskreadnode,maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,\
    maxdiskwritetask,avediskwrite";
const PIDS: &str = "jobid,nodelist,pids";

/// A line.
struct Row {
    id: String,
    used: Figures,
}

type Value = fn(&Row, Units) -> String;

const NONE: Value = |_, _| String::new();

fn clock(ms: u64) -> String {
    Clock(i64::try_from(ms / 1000).unwrap_or(i64::MAX)).to_string()
}

impl Row {
    fn tasks(&self) -> u64 {
        u64::from(self.used.tasks.tasks.max(1))
    }

    fn cpu_ms(&self) -> u64 {
        self.used.usage.user_cpu_ms + self.used.usage.system_cpu_ms
    }

    fn average_kib(&self) -> u64 {
        self.used.tasks.sum_rss_kib / self.tasks()
    }

    fn nodes(&self) -> String {
        let names: Hostlist = self.used.nodes.iter().map(String::as_str).collect();
        names.to_string()
    }

    fn tres(&self, cpu_ms: u64, rss_kib: u64, units: Units) -> String {
        let gpus = tres::of_gpus(&self.used.usage);
        format!("cpu={}{gpus},mem={}", clock(cpu_ms), units.kib(rss_kib))
    }
}

/// Of what its agents did not tell: the last that the controller heard of its script.
fn heard(job: &JobUsage) -> Figures {
    let usage = job.usage.unwrap_or_default();
    let node = Hostlist::parse(&job.nodes).unwrap_or_default().0.into_iter().next();
    let node = node.unwrap_or_default();
    let tasks = TaskFigures {
        tasks: 1,
        max_rss_kib: usage.max_rss_kib,
        max_rss_node: node.clone(),
        sum_rss_kib: usage.max_rss_kib,
        min_cpu_ms: usage.user_cpu_ms + usage.system_cpu_ms,
        min_cpu_node: node.clone(),
        ..TaskFigures::default()
    };
    Figures { usage, tasks, nodes: vec![node], pids: Vec::new() }
}

const FIELDS: &[(&str, i32, Value)] = &[
    ("AveCPU", 10, |r, _| clock(r.cpu_ms() / r.tasks())),
    ("AveCPUFreq", 10, NONE),
    ("AveDiskRead", 12, NONE),
    ("AveDiskWrite", 12, NONE),
    ("AvePages", 10, NONE),
    ("AveRSS", 10, |r, u| u.kib(r.average_kib())),
    ("AveVMSize", 10, NONE),
    ("ConsumedEnergy", 14, |r, _| tres::energy(Some(&r.used.usage))),
    ("ConsumedEnergyRaw", 17, |r, _| tres::energy_joules(Some(&r.used.usage))),
    ("JobID", -12, |r, _| r.id.clone()),
    ("MaxDiskRead", 12, NONE),
    ("MaxDiskReadNode", 15, NONE),
    ("MaxDiskReadTask", 15, NONE),
    ("MaxDiskWrite", 12, NONE),
    ("MaxDiskWriteNode", 16, NONE),
    ("MaxDiskWriteTask", 16, NONE),
    ("MaxPages", 8, NONE),
    ("MaxPagesNode", 12, NONE),
    ("MaxPagesTask", 12, NONE),
    ("MaxRSS", 10, |r, u| u.kib(r.used.tasks.max_rss_kib)),
    ("MaxRSSNode", 10, |r, _| r.used.tasks.max_rss_node.clone()),
    ("MaxRSSTask", 10, |r, _| r.used.tasks.max_rss_task.to_string()),
    ("MaxVMSize", 10, NONE),
    ("MaxVMSizeNode", 14, NONE),
    ("MaxVMSizeTask", 14, NONE),
    ("MinCPU", 10, |r, _| clock(r.used.tasks.min_cpu_ms)),
    ("MinCPUNode", 10, |r, _| r.used.tasks.min_cpu_node.clone()),
    ("MinCPUTask", 10, |r, _| r.used.tasks.min_cpu_task.to_string()),
    ("Nodelist", 20, |r, _| r.nodes()),
    ("NTasks", 8, |r, _| r.tasks().to_string()),
    ("Pids", 20, |r, _| r.used.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ("ReqCPUFreq", 10, NONE),
    ("ReqCPUFreqMin", 13, NONE),
    ("ReqCPUFreqMax", 13, NONE),
    ("ReqCPUFreqGov", 13, NONE),
    ("TRESUsageInAve", 14, |r, u| r.tres(r.cpu_ms() / r.tasks(), r.average_kib(), u)),
    ("TRESUsageInMax", 14, |r, u| r.tres(r.cpu_ms(), r.used.tasks.max_rss_kib, u)),
    ("TRESUsageInMaxNode", 18, NONE),
    ("TRESUsageInMaxTask", 18, NONE),
    ("TRESUsageInMin", 14, |r, u| r.tres(r.used.tasks.min_cpu_ms, r.average_kib(), u)),
    ("TRESUsageInMinNode", 18, NONE),
    ("TRESUsageInMinTask", 18, NONE),
    ("TRESUsageInTot", 14, |r, u| r.tres(r.cpu_ms(), r.used.tasks.sum_rss_kib, u)),
    ("TRESUsageOutAve", 15, NONE),
    ("TRESUsageOutMax", 15, NONE),
    ("TRESUsageOutMaxNode", 19, NONE),
    ("TRESUsageOutMaxTask", 19, NONE),
    ("TRESUsageOutMin", 15, NONE),
    ("TRESUsageOutMinNode", 19, NONE),
    ("TRESUsageOutMinTask", 19, NONE),
    ("TRESUsageOutTot", 15, NONE),
];

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let parsed = match getopt::parse(&SPEC, args) {
        Ok(parsed) => parsed,
        Err(fault) => return Output::usage(&fault),
    };
    let names: Vec<(&str, i32)> = FIELDS.iter().map(|(name, width, _)| (*name, *width)).collect();
    if parsed.has("help") {
        return Output::text(HELP);
    }
    if parsed.has("usage") {
        return Output::text("Usage: sstat -j ID[.STEP],.. [OPTIONS]\n");
    }
    if parsed.has("version") {
        return Output::text(format!("{VERSION}\n"));
    }
    if parsed.has("helpformat") {
        return Output::text(columns::help_format(&names));
    }
    match table(&parsed, &names, here) {
        Ok((columns, picks)) => show(&parsed, &columns, &picks, &names, source),
        Err(output) => output,
    }
}

fn table(
    parsed: &Parsed,
    names: &[(&str, i32)],
    here: &Surroundings,
) -> Result<(Columns, Vec<Pick>), Output> {
    let mut picks = Vec::new();
    for text in parsed.all("jobs").chain(parsed.operands.iter().map(String::as_str)) {
        let list = Pick::list(text)
            .map_err(|text| Output::error(PROGRAM, &format!("Invalid job id: {text}")))?;
        picks.extend(list);
    }
    if picks.is_empty() {
        return Err(Output::error(PROGRAM, "You didn't give me any jobs to stat."));
    }
    let delimiter = || parsed.last("delimiter").unwrap_or("|").to_owned();
    let style = if parsed.has("parsable2") {
        Style::Between(delimiter())
    } else if parsed.has("parsable") {
        Style::After(delimiter())
    } else {
        Style::Padded
    };
    let default = if parsed.has("pidformat") { PIDS } else { DEFAULT };
    let text = parsed.last("format").or_else(|| here.variable("SSTAT_FORMAT")).unwrap_or(default);
    let columns = Columns::read(text, names, style)
        .map_err(|name| Output::error(PROGRAM, &format!("Invalid field requested: \"{name}\"")))?;
    Ok((columns, picks))
}

fn show(
    parsed: &Parsed,
    columns: &Columns,
    picks: &[Pick],
    names: &[(&str, i32)],
    source: &mut dyn Source,
) -> Output {
    let request = ListUsageRequest { jobs: picks.iter().map(Pick::reference).collect() };
    let jobs = match source.usage(&request) {
        Ok(jobs) => jobs,
        Err(fault) => return Output::failed(PROGRAM, "sstat: error: ", &fault),
    };
    let units = if parsed.has("noconvert") { Units::Keep } else { Units::Exact };
    let mut output = Output::default();
    if !parsed.has("noheader") {
        output.out.push_str(&columns.header(names));
    }
    let mut shown = 0;
    for job in &jobs {
        let mut known = source.figures(job.job, &job.nodes);
        known.entry("batch".to_owned()).or_insert_with(|| heard(job));
        for (step, used) in wanted(known, picks, parsed.has("allsteps")) {
            let row = Row { id: format!("{}.{step}", job.shown), used };
            output.out.push_str(&columns.line(|field| (FIELDS[field].2)(&row, units)));
            shown += 1;
        }
    }
    if shown == 0 {
        for pick in picks {
            let text = format!("no steps running for job {}", pick.job);
            output.err.push_str(&format!("{PROGRAM}: error: {text}\n"));
        }
        output.code = 1;
    }
    output
}

/// The steps that are named, all, or the lowest; the batch script comes first as it began.
fn wanted(known: BTreeMap<String, Figures>, picks: &[Pick], all: bool) -> Vec<(String, Figures)> {
    let mut list: Vec<(Option<u32>, String, Figures)> =
        known.into_iter().map(|(step, used)| (step.parse().ok(), step, used)).collect();
    list.sort_by_key(|(number, _, _)| *number);
    let named = |step: &String| picks.iter().any(|p| p.step.as_ref() == Some(step));
    let open = all || picks.iter().any(|p| p.step.is_none());
    let lowest = list.iter().filter_map(|(number, _, _)| *number).min();
    let keep = |(number, step, _): &(Option<u32>, String, Figures)| {
        named(step) || open && (all || *number == lowest)
    };
    list.into_iter().filter(keep).map(|(_, step, used)| (step, used)).collect()
}

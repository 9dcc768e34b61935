//! `sstat`: what running jobs use. One line per step; a batch job has the step `batch`.

use muster_model::time::Clock;
use muster_proto::v1::{JobUsage, ListUsageRequest};

use super::columns::{self, Columns, Style};
use super::pick::Pick;
use super::sizes::Units;
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, VERSION, tres};
use crate::getopt::{self, Opt, Parsed, Spec, Takes, both, long};

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

type Value = fn(&JobUsage, Units) -> String;

const NONE: Value = |_, _| String::new();

fn cpu(job: &JobUsage) -> String {
    let usage = job.usage.unwrap_or_default();
    let seconds = (usage.user_cpu_ms + usage.system_cpu_ms) / 1000;
    Clock(i64::try_from(seconds).unwrap_or(i64::MAX)).to_string()
}

fn rss(job: &JobUsage, units: Units) -> String {
    units.kib(job.usage.unwrap_or_default().max_rss_kib)
}

fn average(job: &JobUsage, of: String) -> String {
    // Only the sum over all processes is known, so an average needs a single task.
    if job.tasks > 1 { String::new() } else { of }
}

fn node(job: &JobUsage) -> String {
    let list = muster_model::hostlist::Hostlist::parse(&job.nodes).unwrap_or_default();
    list.0.into_iter().next().unwrap_or_default()
}

fn used(job: &JobUsage, units: Units) -> String {
    let gpus = tres::of_gpus(&job.usage.unwrap_or_default());
    format!("cpu={}{gpus},mem={}", cpu(job), rss(job, units))
}

const FIELDS: &[(&str, i32, Value)] = &[
    ("AveCPU", 10, |j, _| average(j, cpu(j))),
    ("AveCPUFreq", 10, NONE),
    ("AveDiskRead", 12, NONE),
    ("AveDiskWrite", 12, NONE),
    ("AvePages", 10, NONE),
    ("AveRSS", 10, |j, u| average(j, rss(j, u))),
    ("AveVMSize", 10, NONE),
    ("ConsumedEnergy", 14, |j, _| tres::energy(j.usage.as_ref())),
    ("ConsumedEnergyRaw", 17, |j, _| tres::energy_joules(j.usage.as_ref())),
    ("JobID", -12, |j, _| format!("{}.batch", j.shown)),
    ("MaxDiskRead", 12, NONE),
    ("MaxDiskReadNode", 15, NONE),
    ("MaxDiskReadTask", 15, NONE),
    ("MaxDiskWrite", 12, NONE),
    ("MaxDiskWriteNode", 16, NONE),
    ("MaxDiskWriteTask", 16, NONE),
    ("MaxPages", 8, NONE),
    ("MaxPagesNode", 12, NONE),
    ("MaxPagesTask", 12, NONE),
    ("MaxRSS", 10, rss),
    ("MaxRSSNode", 10, |j, _| node(j)),
    ("MaxRSSTask", 10, |_, _| "0".to_owned()),
    ("MaxVMSize", 10, NONE),
    ("MaxVMSizeNode", 14, NONE),
    ("MaxVMSizeTask", 14, NONE),
    ("MinCPU", 10, |j, _| average(j, cpu(j))),
    ("MinCPUNode", 10, |j, _| node(j)),
    ("MinCPUTask", 10, |_, _| "0".to_owned()),
    ("Nodelist", 20, |j, _| j.nodes.clone()),
    ("NTasks", 8, |j, _| j.tasks.to_string()),
    ("Pids", 20, |j, _| j.pids.to_string()),
    ("ReqCPUFreq", 10, NONE),
    ("ReqCPUFreqMin", 13, NONE),
    ("ReqCPUFreqMax", 13, NONE),
    ("ReqCPUFreqGov", 13, NONE),
    ("TRESUsageInAve", 14, |j, u| average(j, used(j, u))),
    ("TRESUsageInMax", 14, used),
    ("TRESUsageInMaxNode", 18, NONE),
    ("TRESUsageInMaxTask", 18, NONE),
    ("TRESUsageInMin", 14, |j, u| average(j, used(j, u))),
    ("TRESUsageInMinNode", 18, NONE),
    ("TRESUsageInMinTask", 18, NONE),
    ("TRESUsageInTot", 14, used),
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
    let batch = |pick: &&Pick| pick.step.as_deref().is_none_or(|step| step == "batch");
    let wanted = picks.iter().any(|pick| batch(&pick));
    for job in jobs.iter().filter(|_| wanted) {
        output.out.push_str(&columns.line(|field| (FIELDS[field].2)(job, units)));
    }
    if jobs.is_empty() || !wanted {
        for pick in picks {
            let text = format!("no steps running for job {}", pick.job);
            output.err.push_str(&format!("{PROGRAM}: error: {text}\n"));
        }
        output.code = 1;
    }
    output
}

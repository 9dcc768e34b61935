//! Settings to a job: every option's value is read and checked here, and what two of them say
//! together is decided. The controller checks again; what only it can know (partitions, features,
//! nodes) is left to it.

use std::path::Path;

use muster_model::{ArraySpec, Constraint, CpuBinding, Dependency, Hostlist};
use muster_proto::v1;

use super::args::Settings;
use super::gpu_bind;
use super::gpus::{self, Sizes};
use super::options::{self, Support};
use super::script::Script;
use super::topology;
use super::values::{self, invalid};
use super::{Fault, Manner, Submission, Surroundings, env};
use crate::query::times;
use crate::step::container;

/// Options that job environments echo as they were written.
const ECHOED: &[&str] = &[
    "cpus-per-gpu",
    "cpus-per-task",
    "gpus",
    "gpus-per-node",
    "gpus-per-socket",
    "gpus-per-task",
    "gres",
    "mem-per-gpu",
    "ntasks",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "overcommit",
    "threads-per-core",
    "tres-per-task",
];

/// Makes the submission of a job with these components; mostly one.
///
/// # Errors
/// The first thing that is wrong with it.
///
/// # Panics
/// Without a component.
pub fn all(
    components: &[Settings],
    script: &Script,
    around: &Surroundings,
) -> Result<Submission, Fault> {
    let (first, others) = components.split_first().expect("a job has a component");
    let mut submission = resolve(first, script.clone(), around)?;
    for settings in others {
        let mut settings = settings.clone();
        settings.inherit(first);
        let component = resolve(&settings, script.clone(), around)?;
        submission.components.push(component.spec);
        let new = |notice: &String| !submission.notices.contains(notice);
        let notices: Vec<String> = component.notices.into_iter().filter(new).collect();
        submission.notices.extend(notices);
    }
    Ok(submission)
}

/// Makes the submission of a job of one component.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn resolve(
    settings: &Settings,
    script: Script,
    around: &Surroundings,
) -> Result<Submission, Fault> {
    script.check(around.max_script_bytes)?;
    let manner = manner(settings, around)?;
    let mut notices = notices(settings);
    let request = request(settings, around, &mut notices)?;
    let launch = launch(settings, &script, around)?;
    let spec = v1::JobSpec {
        name: name(settings, &script),
        account: text(settings, "account"),
        qos: text(settings, "qos"),
        partitions: partitions(settings),
        request: Some(request),
        time_limit: limit(settings, "time")?,
        time_min: limit(settings, "time-min")?,
        begin: begin(settings, around)?,
        deadline: moment(settings, "deadline", around)?.unwrap_or(0),
        dependency: dependency(settings)?,
        kill_on_invalid_dependency: match settings.value("kill-on-invalid-dep") {
            Some(word) => values::yes_or_no(word).ok_or_else(|| invalid("kill-on-invalid-dep"))?,
            None => false,
        },
        array: array(settings)?,
        held: settings.has("hold"),
        nice: match settings.get("nice") {
            Some(setting) => values::nice(setting.value.as_deref())?,
            None => 0,
        },
        priority: priority(settings)?,
        requeue: requeue(settings)?,
        licenses: settings.value("licenses").map(values::licenses).transpose()?.unwrap_or_default(),
        reservation: text(settings, "reservation"),
        comment: text(settings, "comment"),
        wckey: text(settings, "wckey"),
        launch: Some(launch),
        user: None,
        het: None,
    };
    let environment = env::job_environment(settings, around)?;
    let components = Vec::new();
    Ok(Submission { spec, components, script: script.content, environment, manner, notices })
}

fn text(settings: &Settings, id: &str) -> String {
    settings.value(id).unwrap_or_default().to_owned()
}

fn name(settings: &Settings, script: &Script) -> String {
    match settings.value("job-name") {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => script.job_name.clone(),
    }
}

fn manner(settings: &Settings, around: &Surroundings) -> Result<Manner, Fault> {
    let cluster = match settings.value("clusters") {
        None => None,
        Some(name) if name.eq_ignore_ascii_case("all") || name == around.cluster => {
            Some(around.cluster.clone())
        }
        Some(name) => {
            let text = format!("No cluster '{name}' known: this one is '{}'", around.cluster);
            return Err(Fault::Refused(text));
        }
    };
    let mut verbose = Vec::new();
    if settings.has("verbose") {
        for setting in settings.iter().filter(|s| s.id != "verbose") {
            let value = setting.value.as_deref().unwrap_or("set");
            verbose.push(format!("{:<20} : {value} ({})", setting.id, setting.source));
        }
    }
    Ok(Manner {
        parsable: settings.has("parsable"),
        quiet: settings.has("quiet"),
        wait: settings.has("wait"),
        test_only: settings.has("test-only"),
        cluster,
        verbose,
    })
}

/// What the user should know before the job is sent.
fn notices(settings: &Settings) -> Vec<String> {
    let noted = |id: &str| options::find(id).filter(|r| r.support == Support::Noted);
    let mut out: Vec<String> = settings
        .iter()
        .filter_map(|s| noted(s.id))
        .map(|row| format!("--{}: {}", row.opt.long, row.note))
        .collect();
    if settings.foreign_directives && !settings.has("ignore-pbs") {
        out.push("#PBS and #BSUB lines are not translated; use #SBATCH".to_owned());
    }
    out
}

fn partitions(settings: &Settings) -> Vec<String> {
    let list = settings.value("partition").unwrap_or_default();
    list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

fn counted(settings: &Settings, id: &'static str) -> Result<Option<u32>, Fault> {
    settings.value(id).map(|text| values::count(id, text)).transpose()
}

/// As [`counted`], where 0 asks for nothing.
fn counted_or_none(settings: &Settings, id: &'static str) -> Result<Option<u32>, Fault> {
    if settings.value(id).is_some_and(|text| text.trim() == "0") {
        return Ok(None);
    }
    counted(settings, id)
}

fn request(
    settings: &Settings,
    around: &Surroundings,
    notices: &mut Vec<String>,
) -> Result<v1::Request, Fault> {
    let mut sizes = Sizes {
        nodes: settings.value("nodes").map(values::nodes).transpose()?,
        tasks: counted(settings, "ntasks")?,
        tasks_per_node: counted_or_none(settings, "ntasks-per-node")?,
        cpus_per_task: counted(settings, "cpus-per-task")?,
    };
    let gres = gpus::resolve(settings, &mut sizes)?;
    let cpus_per_gpu = counted_or_none(settings, "cpus-per-gpu")?;
    if let (Some(_), Some(_)) = (cpus_per_gpu, sizes.cpus_per_task)
        && settings.one_of(&["cpus-per-gpu", "cpus-per-task"]).is_err()
    {
        let text = "--cpus-per-gpu is mutually exclusive with --cpus-per-task";
        return Err(Fault::Refused(text.to_owned()));
    }
    let (min_nodes, max_nodes) = node_counts(&mut sizes, notices);
    let tasks = match (sizes.tasks, sizes.tasks_per_node) {
        (Some(tasks), _) => tasks,
        (None, Some(each)) => min_nodes.saturating_mul(each),
        (None, None) => min_nodes,
    };
    let constraint = constraint(settings)?;
    let threads = match settings.value("hint") {
        Some("nomultithread") if !settings.has("threads-per-core") => Some(1),
        _ => counted(settings, "threads-per-core")?,
    };
    let near = topology::wish(settings, around, (min_nodes, max_nodes))?;
    Ok(v1::Request {
        min_nodes,
        max_nodes,
        tasks,
        tasks_given: sizes.tasks.is_some(),
        tasks_per_node: sizes.tasks_per_node,
        cpus_per_task: sizes.cpus_per_task.unwrap_or(1),
        min_cpus_per_node: counted(settings, "mincpus")?.unwrap_or(0),
        memory: memory(settings)?,
        gres,
        cpus_per_gpu,
        constraint,
        required_nodes: required_nodes(settings, around)?,
        excluded_nodes: hosts(settings.value("exclude"), around)?,
        exclusive: topology::exclusive(settings)?.0,
        contiguous: settings.has("contiguous"),
        threads_per_core: threads,
        sockets_per_node: counted(settings, "sockets-per-node")?,
        max_switches: near.switches.map(|wish| wish.count),
        switch_wait_seconds: near.switches.map_or(0, |wish| wish.max_wait_seconds),
        segment: near.segment,
        topology_alone: near.alone,
        nvlink_required: near.nvlink,
        cpu_binding: match near.binding {
            CpuBinding::Preferred => v1::CpuBinding::Unspecified.into(),
            CpuBinding::Enforced => v1::CpuBinding::Enforced.into(),
            CpuBinding::Disabled => v1::CpuBinding::Disabled.into(),
        },
    })
}

/// The least and most nodes; a plain `-N 2` is both.
fn node_counts(sizes: &mut Sizes, notices: &mut Vec<String>) -> (u32, Option<u32>) {
    match (sizes.nodes, sizes.tasks) {
        (Some((min, max)), Some(tasks)) if tasks < min => {
            // As Slurm before 26.05, which refuses it: a node without a task is never wanted.
            notices.push(format!(
                "warning: can't run {tasks} processes on {min} nodes, setting nnodes to {tasks}"
            ));
            sizes.nodes = Some((tasks, tasks.max(max.min(tasks))));
            (tasks, Some(tasks))
        }
        (Some((min, max)), _) => (min, Some(max)),
        (None, Some(tasks)) => match sizes.tasks_per_node {
            Some(each) => (tasks.div_ceil(each), None),
            None => (1, None),
        },
        (None, None) => (1, None),
    }
}

fn memory(settings: &Settings) -> Result<Option<v1::Memory>, Fault> {
    use v1::memory::Request;
    let ids = ["mem", "mem-per-cpu", "mem-per-gpu"];
    let chosen = settings.one_of(&ids).map_err(|_| {
        let text = "--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.";
        Fault::Fatal(text.to_owned())
    })?;
    let Some(setting) = chosen else { return Ok(None) };
    let value = setting.value.as_deref().unwrap_or_default();
    let mib = values::mebibytes(value).ok_or_else(|| invalid(setting.id))?;
    let request = match setting.id {
        "mem" => Request::PerNodeMib(mib),
        "mem-per-cpu" => Request::PerCpuMib(mib),
        _ => Request::PerGpuMib(mib),
    };
    Ok(Some(v1::Memory { request: Some(request) }))
}

/// Faults of values that Slurm's controller would judge keep its text.
fn server_fault(detail: &dyn ToString, text: &str) -> Fault {
    Fault::Refused(format!("{}\nBatch job submission failed: {text}", detail.to_string()))
}

fn constraint(settings: &Settings) -> Result<String, Fault> {
    let Some(text) = settings.value("constraint").filter(|t| !t.is_empty()) else {
        return Ok(String::new());
    };
    match Constraint::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(server_fault(&fault, "Invalid feature specification")),
    }
}

fn dependency(settings: &Settings) -> Result<String, Fault> {
    let Some(text) = settings.value("dependency").filter(|t| !t.is_empty()) else {
        return Ok(String::new());
    };
    match Dependency::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(server_fault(&fault, "Job dependency problem")),
    }
}

fn array(settings: &Settings) -> Result<String, Fault> {
    let Some(text) = settings.value("array") else { return Ok(String::new()) };
    // The cluster's own bound is the controller's to know; this one keeps a range of 2^32 from
    // being written out here.
    match ArraySpec::parse(text, muster_model::ids::MAX_JOB_ID) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(server_fault(&fault, "Invalid job array specification")),
    }
}

fn required_nodes(settings: &Settings, around: &Surroundings) -> Result<Vec<String>, Fault> {
    match settings.latest(&["nodelist", "nodefile"]) {
        Some(setting) if setting.id == "nodefile" => {
            let path = setting.value.as_deref().unwrap_or_default();
            hosts_of_file(path, around)
        }
        Some(setting) => hosts(setting.value.as_deref(), around),
        None => Ok(Vec::new()),
    }
}

/// A hostlist, or the path of a file that has one.
fn hosts(text: Option<&str>, around: &Surroundings) -> Result<Vec<String>, Fault> {
    let Some(text) = text else { return Ok(Vec::new()) };
    if text.contains('/') {
        return hosts_of_file(text, around);
    }
    let bad = |fault| server_fault(&fault, "Invalid node name specified");
    Ok(Hostlist::parse(text).map_err(bad)?.0)
}

fn hosts_of_file(path: &str, around: &Surroundings) -> Result<Vec<String>, Fault> {
    let content = std::fs::read_to_string(around.cwd.join(path))
        .map_err(|e| Fault::Refused(format!("Unable to read node list file {path}: {e}")))?;
    let names: Vec<&str> = content.split_whitespace().collect();
    hosts(Some(&names.join(",")).filter(|list| !list.contains('/')).map(String::as_str), around)
}

fn limit(settings: &Settings, id: &'static str) -> Result<Option<v1::TimeLimit>, Fault> {
    let Some(text) = settings.value(id) else { return Ok(None) };
    let limit = muster_model::time::parse_limit(text).map_err(|_| invalid(id))?;
    Ok(Some(muster_proto::convert::values::limit_out(limit)))
}

fn moment(
    settings: &Settings,
    id: &'static str,
    around: &Surroundings,
) -> Result<Option<i64>, Fault> {
    let Some(text) = settings.value(id) else { return Ok(None) };
    let at = times::parse(text, &around.zone(), around.now_ms)
        .map_err(|fault| Fault::Option(format!("{fault}\nInvalid --{id} specification")))?;
    // A time of day that has passed means tomorrow's.
    let of_day = text.contains(':') && !text.contains(['-', '/', '+']);
    let word = matches!(text, "midnight" | "noon" | "elevenses" | "fika" | "teatime");
    const DAY_MS: i64 = 86_400_000;
    Ok(Some(if (of_day || word) && at < around.now_ms { at + DAY_MS } else { at }))
}

fn begin(settings: &Settings, around: &Surroundings) -> Result<i64, Fault> {
    // Begin times in the past mean now.
    Ok(moment(settings, "begin", around)?.filter(|at| *at > around.now_ms).unwrap_or(0))
}

fn priority(settings: &Settings) -> Result<Option<u32>, Fault> {
    match settings.value("priority") {
        None => Ok(None),
        Some(word) if word.eq_ignore_ascii_case("TOP") => Ok(Some(u32::MAX - 1)),
        Some(text) => match text.parse::<u32>() {
            Ok(value) if value < u32::MAX => Ok(Some(value)),
            _ => Err(invalid("priority")),
        },
    }
}

fn requeue(settings: &Settings) -> Result<Option<bool>, Fault> {
    match settings.latest(&["requeue", "no-requeue"]) {
        None => Ok(None),
        Some(setting) if setting.id == "no-requeue" => Ok(Some(false)),
        Some(setting) => match setting.value.as_deref() {
            None => Ok(Some(true)),
            Some("expedite") => Err(Fault::Refused(
                "--requeue=expedite is not supported: requeued jobs keep their place".to_owned(),
            )),
            Some(_) => Err(invalid("requeue")),
        },
    }
}

fn launch(
    settings: &Settings,
    script: &Script,
    around: &Surroundings,
) -> Result<v1::LaunchSpec, Fault> {
    let workdir = workdir(settings, around)?;
    let file = |id: &str| settings.value(id).map(str::to_owned);
    for id in ["output", "error"] {
        refuse_directory(settings, id, &workdir)?;
    }
    let append = match settings.value("open-mode") {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("append") || word == "a" => true,
        Some(word) if word.eq_ignore_ascii_case("truncate") || word == "t" => false,
        Some(_) => return Err(invalid("open-mode")),
    };
    let no_kill = match settings.get("no-kill") {
        None => false,
        Some(setting) => match setting.value.as_deref() {
            None => true,
            Some("off" | "no") => false,
            Some(_) => return Err(invalid("no-kill")),
        },
    };
    let rlimits = env::propagated(settings, around)?
        .into_iter()
        .map(|(name, soft)| v1::Rlimit { name: name.to_owned(), soft })
        .collect();
    Ok(v1::LaunchSpec {
        stdout: file("output"),
        stderr: file("error"),
        stdin: file("input"),
        append,
        umask: umask(around)?,
        rlimits,
        args: script.args.clone(),
        command: script.path.clone(),
        submit_line: around.submit_line.clone(),
        submit_dir: around.cwd.to_string_lossy().into_owned(),
        submit_host: around.hostname.clone(),
        signal: settings.value("signal").map(values::signal).transpose()?,
        no_kill,
        overcommit: settings.has("overcommit"),
        mail_type: settings
            .value("mail-type")
            .map(values::mail_type)
            .transpose()?
            .unwrap_or_default(),
        mail_user: text(settings, "mail-user"),
        admin_comment: String::new(),
        extras: extras(settings, &around.cwd)?,
        workdir,
    })
}

fn workdir(settings: &Settings, around: &Surroundings) -> Result<String, Fault> {
    let Some(dir) = settings.value("chdir") else {
        return Ok(around.cwd.to_string_lossy().into_owned());
    };
    let path = around.cwd.join(dir);
    if !path.is_dir() {
        return Err(Fault::Refused(format!(
            "Invalid --chdir specification: {dir} is no directory"
        )));
    }
    Ok(path.to_string_lossy().into_owned())
}

/// The job would only find out when nobody looks any more.
fn refuse_directory(settings: &Settings, id: &str, workdir: &str) -> Result<(), Fault> {
    let Some(name) = settings.value(id).filter(|n| !n.contains('%')) else { return Ok(()) };
    if name.is_empty() || name.ends_with('/') || Path::new(workdir).join(name).is_dir() {
        let text = format!("Invalid --{id} specification: \"{name}\" is a directory, not a file");
        return Err(Fault::Refused(text));
    }
    Ok(())
}

fn umask(around: &Surroundings) -> Result<u32, Fault> {
    match around.variable("SLURM_UMASK") {
        None => Ok(around.umask),
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mask| *mask <= 0o777)
            .ok_or_else(|| Fault::Refused(format!("Invalid SLURM_UMASK \"{text}\""))),
    }
}

/// Everything that the job should read back, as (option, value).
fn extras(settings: &Settings, cwd: &Path) -> Result<Vec<v1::Pair>, Fault> {
    if settings.value("distribution").is_some_and(|text| !values::is_distribution(text)) {
        return Err(invalid("distribution"));
    }
    settings.value("gpu-bind").map(gpu_bind::read).transpose()?;
    settings.value("tres-bind").map(gpu_bind::read_tres).transpose()?;
    let mut out: Vec<v1::Pair> = settings
        .iter()
        .filter(|s| !matches!(s.id, "mail-type" | "mail-user"))
        .filter(|s| {
            let support = options::find(s.id).map(|r| r.support);
            ECHOED.contains(&s.id) || matches!(support, Some(Support::Kept | Support::Noted))
        })
        .map(|s| v1::Pair { name: s.id.to_owned(), value: s.value.clone().unwrap_or_default() })
        .collect();
    let container = container::read(settings, cwd)?;
    out.extend(container.iter().flat_map(v1::Container::extras));
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

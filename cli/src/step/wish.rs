//! From options to a step: its shape for the table, and how srun goes about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_model::Hostlist;
use muster_proto::v1::{
    Container, CpuBind, Distribution, GpuBind, GpuBindKind, GresRequest, GresScope, MpiKind,
    Rlimit, StepShape,
};

use super::options::Asked;
use super::per_task;
use crate::submit::{Fault, gpu_bind, gpus, values};

/// How a stream of the tasks is handled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Sink {
    /// srun's own.
    #[default]
    Own,
    /// This task's to srun's own, the others' nowhere.
    Task(u32),
    Nowhere,
    /// A file for all, opened here; a pattern.
    File(String),
    /// A file for each task or node, opened there; a pattern.
    There(String),
}

/// Where input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Source {
    #[default]
    Own,
    Task(u32),
    Nowhere,
    File(String),
    There(String),
}

/// A step as asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) shape: StepShape,
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) multi_prog: bool,
    /// Where the program is copied first; empty: into the working directory.
    pub(crate) bcast: Option<String>,
    /// The program's name on a node ends with the node's.
    pub(crate) command_by_node: bool,
    pub(crate) stdin: Source,
    pub(crate) stdout: Sink,
    /// `None`: as stdout, by itself.
    pub(crate) stderr: Option<Sink>,
    pub(crate) append: bool,
    pub(crate) label: bool,
    pub(crate) unbuffered: bool,
    pub(crate) kill_on_bad_exit: bool,
    /// After the first end, how long the others may take.
    pub(crate) wait: Option<Duration>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) export: Option<String>,
    pub(crate) workdir: PathBuf,
    pub(crate) pty: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    pub(crate) quit_on_interrupt: bool,
    pub(crate) silent_on_interrupt: bool,
    pub(crate) no_kill: bool,
    /// How long to wait for resources; zero: not at all.
    pub(crate) immediate: Option<Duration>,
    pub(crate) cpu_bind: CpuBind,
    pub(crate) cpu_lists: Vec<String>,
    pub(crate) cpu_bind_verbose: bool,
    pub(crate) gpus_per_task: u32,
    /// Between looks at memory, at most; zero: none. `None`: as the nodes have it.
    pub(crate) sample_seconds: Option<u32>,
    pub(crate) gpu_bind: GpuBind,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) distribution: String,
    /// As given, for the tasks' environment.
    pub(crate) cpus_per_task: Option<u32>,
    pub(crate) tasks_per_node: Option<u32>,
    pub(crate) preserve_env: bool,
    /// Commands of its shell take the whole job for theirs, not this step.
    pub(crate) in_the_job: bool,
    /// `None`: as the cluster has it.
    pub(crate) mpi: Option<MpiKind>,
    /// Of several steps that count their ranks through: this one's first, and how many ranks there
    /// are in all; 0: it is alone.
    pub(crate) first_rank: u32,
    pub(crate) world: u32,
    /// Of those: where its nodes begin, and what the tasks of all find each other by.
    pub(crate) first_node: u32,
    pub(super) mpi_world: Option<Arc<super::mpi::World>>,
    pub(crate) container: Option<Container>,
}

/// What of the job srun knows before it asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around {
    pub(crate) nodes: Option<u32>,
    pub(crate) tasks: Option<u32>,
    pub(crate) tasks_per_node: Option<u32>,
}

fn bad(id: &str) -> Fault {
    values::invalid(id)
}

fn count(asked: &Asked, id: &'static str) -> Result<Option<u32>, Fault> {
    asked.value(id).map(|text| values::count(id, text)).transpose()
}

fn hosts(text: &str, cwd: &Path) -> Result<Vec<String>, Fault> {
    let text = match text.contains('/') {
        false => text.to_owned(),
        true => std::fs::read_to_string(cwd.join(text))
            .map_err(|e| Fault::Refused(format!("Unable to read node list file {text}: {e}")))?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(","),
    };
    let list = Hostlist::parse(&text)
        .map_err(|fault| Fault::Refused(format!("{fault}\nInvalid node name specified")))?;
    Ok(list.0)
}

/// Seconds of `--immediate`, `--wait`, and such.
fn seconds(asked: &Asked, id: &str) -> Result<Option<Duration>, Fault> {
    let read = |text: &str| text.trim().parse::<u32>().map_err(|_| bad(id));
    let number = asked.value(id).map(read).transpose()?;
    Ok(number.map(|n| Duration::from_secs(n.into())))
}

fn sink(text: &str) -> Sink {
    match text {
        "all" => Sink::Own,
        "none" => Sink::Nowhere,
        text => match text.parse::<u32>() {
            Ok(task) => Sink::Task(task),
            Err(_) if super::names::is_per_task(text) => Sink::There(text.to_owned()),
            Err(_) => Sink::File(text.to_owned()),
        },
    }
}

fn source(text: &str) -> Source {
    match sink(text) {
        Sink::Own => Source::Own,
        Sink::Nowhere => Source::Nowhere,
        Sink::Task(task) => Source::Task(task),
        Sink::File(path) => Source::File(path),
        Sink::There(path) => Source::There(path),
    }
}

/// Reads everything that concerns the step. `around` is the job's own size, for what was not given.
pub(crate) fn read(asked: &Asked, around: Around, cwd: &Path) -> Result<Wish, Fault> {
    let mut wish = Wish { shape: shape(asked, around, cwd)?, ..Wish::default() };
    if asked.operands.is_empty() && !asked.has("usage") {
        return Err(Fault::Refused("No command given to execute.".to_owned()));
    }
    wish.command = asked.operands.clone();
    wish.multi_prog = asked.has("multi-prog");
    wish.bcast = asked.has("bcast").then(|| asked.value("bcast").unwrap_or_default().to_owned());
    if wish.bcast.is_some() && wish.multi_prog {
        let text = "--bcast copies one program, --multi-prog has several: use sbcast for each";
        return Err(Fault::Refused(text.to_owned()));
    }
    let base = asked.operands.first().map_or("", |c| c.rsplit('/').next().unwrap_or_default());
    wish.name = asked.said_value("job-name").unwrap_or(base).to_owned();
    files(asked, &mut wish)?;
    wish.sample_seconds = match asked.value("acctg-freq") {
        Some(text) => sampling(text)?,
        None => None,
    };
    wish.label = asked.has("label");
    wish.unbuffered = asked.has("unbuffered");
    wish.kill_on_bad_exit = match asked.value("kill-on-bad-exit") {
        None => asked.has("kill-on-bad-exit"),
        Some(text) => text.trim() != "0",
    };
    wish.wait = seconds(asked, "wait")?.filter(|w| !w.is_zero());
    wish.time_limit = match asked.said_value("time") {
        None => None,
        Some(text) => Some(time_limit(text).ok_or_else(|| bad("time"))?).filter(|t| !t.is_zero()),
    };
    wish.export = asked.value("export").map(str::to_owned);
    wish.workdir = match asked.value("chdir") {
        Some(dir) => cwd.join(dir),
        None => cwd.to_owned(),
    };
    wish.pty = asked.has("pty");
    wish.quiet = asked.has("quiet");
    wish.verbose = asked.has("verbose");
    wish.quit_on_interrupt = asked.has("quit-on-interrupt");
    wish.silent_on_interrupt = asked.has("disable-status");
    wish.no_kill = asked.has("no-kill");
    wish.preserve_env = asked.has("preserve-env");
    wish.immediate = match asked.value("immediate") {
        Some(_) => seconds(asked, "immediate")?,
        None => asked.has("immediate").then_some(Duration::ZERO),
    };
    bindings(asked, &mut wish)?;
    wish.container = super::container::read(asked, cwd)?;
    wish.cpus_per_task = per_task::cpus(asked)?;
    wish.tasks_per_node = (wish.shape.tasks_per_node > 0).then_some(wish.shape.tasks_per_node);
    Ok(wish)
}

fn files(asked: &Asked, wish: &mut Wish) -> Result<(), Fault> {
    wish.stdin = asked.value("input").map(source).unwrap_or_default();
    wish.stdout = asked.value("output").map(sink).unwrap_or_default();
    wish.stderr = asked.value("error").map(sink);
    wish.append = match asked.value("open-mode") {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("append") || word == "a" => true,
        Some(word) if word.eq_ignore_ascii_case("truncate") || word == "t" => false,
        Some(_) => return Err(bad("open-mode")),
    };
    Ok(())
}

/// `--acctg-freq`: `30`, or `task=30` among others.
fn sampling(text: &str) -> Result<Option<u32>, Fault> {
    let mut seconds = None;
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (kind, number) = item.split_once('=').unwrap_or(("task", item));
        let number = number.trim().parse().map_err(|_| bad("acctg-freq"))?;
        if kind.trim().eq_ignore_ascii_case("task") {
            seconds = Some(number);
        }
    }
    Ok(seconds)
}

/// As `--time` of a job, in seconds.
fn time_limit(text: &str) -> Option<Duration> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (days.parse::<u64>().ok()?, rest),
        None => (0, text),
    };
    let parts: Option<Vec<u64>> = rest.split(':').map(|p| p.parse().ok()).collect();
    let seconds = match (parts?.as_slice(), text.contains('-')) {
        ([m], false) => m * 60,
        ([m, s], false) => m * 60 + s,
        ([h], true) => h * 3600,
        ([h, m], true) => h * 3600 + m * 60,
        ([h, m, s], _) => h * 3600 + m * 60 + s,
        _ => return None,
    };
    Some(Duration::from_secs(days.checked_mul(86_400)?.checked_add(seconds)?))
}

fn shape(asked: &Asked, around: Around, cwd: &Path) -> Result<StepShape, Fault> {
    let nodes = asked.value("nodes").map(values::nodes).transpose()?;
    let mut tasks = count(asked, "ntasks")?;
    let mut per_node = count(asked, "ntasks-per-node")?;
    let named = match (asked.value("nodelist"), asked.value("nodefile")) {
        (Some(list), _) => hosts(list, cwd)?,
        (None, Some(file)) => hosts(&format!("./{file}"), cwd)?,
        (None, None) => Vec::new(),
    };
    // What the job's own options said holds where the command line says nothing of the kind.
    if tasks.is_none() && per_node.is_none() {
        tasks = around.tasks;
        if tasks.is_none() {
            per_node = around.tasks_per_node;
        }
    }
    let gres = gres(asked)?;
    if let Some(each) = asked.said_value("ntasks-per-gpu")
        && !asked.said("ntasks")
    {
        let gpus = gpus_said(gres.as_deref());
        let each = values::count("ntasks-per-gpu", each)?;
        let times = gpus.and_then(|gpus| gpus.checked_mul(each));
        tasks = Some(times.ok_or_else(|| {
            let text = "--ntasks-per-gpu needs --ntasks or --gpus beside it";
            Fault::Refused(text.to_owned())
        })?);
    }
    let relative = asked
        .value("relative")
        .map(|text| text.trim().parse::<u32>().map_err(|_| bad("relative")))
        .transpose()?;
    let placed = relative.is_some() || !named.is_empty() || asked.has("exclude");
    let (min_nodes, max_nodes) = match nodes {
        Some(range) => range,
        None if placed => (0, 0),
        None => around.nodes.map_or((0, 0), |n| (n, n)),
    };
    let distribution = asked.value("distribution").unwrap_or("block");
    if !values::is_distribution(distribution) {
        return Err(bad("distribution"));
    }
    let (distribution, plane) = spread(distribution)?;
    let memory = match asked.said_value("mem") {
        Some(text) => values::mebibytes(text).ok_or_else(|| bad("mem"))?,
        None => 0,
    };
    let overlap = asked.has("overlap") && !asked.said("exclusive");
    let cpus = per_task::cpus(asked)?;
    Ok(StepShape {
        min_nodes,
        max_nodes,
        tasks: tasks.unwrap_or(0),
        tasks_per_node: per_node.unwrap_or(0),
        cpus_per_task: cpus.unwrap_or(1),
        excluded: asked
            .said_value("exclude")
            .map(|x| hosts(x, cwd))
            .transpose()?
            .unwrap_or_default(),
        relative,
        exact: !asked.said("whole")
            && (asked.has("exact") || asked.said("exclusive") || cpus.is_some()),
        overlap,
        overcommit: asked.has("overcommit"),
        gres_given: gres.is_some(),
        gres: gres.unwrap_or_default(),
        memory_mib: memory,
        distribution: distribution.into(),
        plane,
        nodes: named,
    })
}

/// The generic resources asked for; `None`: all that the job has.
fn gres(asked: &Asked) -> Result<Option<Vec<GresRequest>>, Fault> {
    let gpus_of = |id: &'static str, scope: GresScope| -> Result<Option<Vec<GresRequest>>, Fault> {
        let Some(text) = asked.said_value(id) else { return Ok(None) };
        let text = if text.starts_with("gpu") { text.to_owned() } else { format!("gpu:{text}") };
        let mut list = gpus::per_node(&text)?;
        list.iter_mut().for_each(|g| g.scope = scope.into());
        Ok(Some(list))
    };
    let mut all: Option<Vec<GresRequest>> = None;
    let mut add = |list: Option<Vec<GresRequest>>| {
        if let Some(list) = list {
            all.get_or_insert_default().extend(list);
        }
    };
    add(asked.value("gres").map(gpus::per_node).transpose()?);
    add(gpus_of("gpus-per-node", GresScope::Node)?);
    add(gpus_of("gpus-per-task", GresScope::Task)?);
    add(per_task::gres(asked)?);
    add(gpus_of("gpus", GresScope::Job)?);
    Ok(all)
}

/// The GPUs of the whole step, where they were given so.
fn gpus_said(gres: Option<&[GresRequest]>) -> Option<u32> {
    let gpu = |g: &&GresRequest| g.kind.as_ref().is_some_and(|k| k.name == "gpu");
    let all = gres?.iter().filter(gpu).filter(|g| g.scope() == GresScope::Job);
    u32::try_from(all.map(|g| g.count).sum::<u64>()).ok().filter(|n| *n > 0)
}

fn spread(text: &str) -> Result<(Distribution, u32), Fault> {
    let first = text.split([':', ',']).next().unwrap_or_default().to_ascii_lowercase();
    match first.as_str() {
        "*" | "block" => Ok((Distribution::Block, 0)),
        "cyclic" => Ok((Distribution::Cyclic, 0)),
        "arbitrary" => Err(Fault::Refused(
            "--distribution=arbitrary is not supported: name the nodes of each srun".to_owned(),
        )),
        plane => {
            let size = plane.strip_prefix("plane=").and_then(|n| n.parse().ok());
            Ok((Distribution::Plane, size.ok_or_else(|| bad("distribution"))?))
        }
    }
}

fn bindings(asked: &Asked, wish: &mut Wish) -> Result<(), Fault> {
    wish.distribution = asked.value("distribution").unwrap_or("block").to_owned();
    let said = asked.said("cpu-bind");
    // What an outer step was bound to is in its tasks' environment, and no wish of this one's.
    let inherited = asked.value("cpu-bind").filter(|text| said || !text.contains("mask_cpu"));
    if let Some(text) = inherited {
        cpu_bind(text, wish)?;
    }
    wish.gpus_per_task = per_task::gpus(asked)?;
    wish.gpu_bind = gpu_binding(asked, wish.gpus_per_task)?;
    wish.mpi = asked.value("mpi").map(super::mpi::kind).transpose()?;
    Ok(())
}

/// As asked; else as the numbers of GPUs or of tasks say.
fn gpu_binding(asked: &Asked, gpus_per_task: u32) -> Result<GpuBind, Fault> {
    let of = |kind: GpuBindKind, count| GpuBind { kind: kind.into(), count, ..GpuBind::default() };
    if let Some(text) = asked.value("gpu-bind") {
        return gpu_bind::read(text);
    }
    if let Some(text) = asked.value("tres-bind") {
        return gpu_bind::read_tres(text);
    }
    if gpus_per_task > 0 {
        return Ok(of(GpuBindKind::PerTask, gpus_per_task));
    }
    let tasks_per_gpu = count(asked, "ntasks-per-gpu")?;
    Ok(tasks_per_gpu.map_or_else(GpuBind::default, |n| of(GpuBindKind::Single, n)))
}

fn cpu_bind(text: &str, wish: &mut Wish) -> Result<(), Fault> {
    let mut rest = text;
    loop {
        let lower = rest.to_ascii_lowercase();
        let word = lower.split(',').next().unwrap_or_default().to_owned();
        let tail = rest.get(word.len() + 1..).unwrap_or_default();
        match word.as_str() {
            "" => return Ok(()),
            "q" | "quiet" => {}
            "v" | "verbose" => wish.cpu_bind_verbose = true,
            "none" | "no" => wish.cpu_bind = CpuBind::None,
            "cores" | "threads" | "sockets" | "ldoms" | "rank_ldom" => {
                wish.cpu_bind = CpuBind::Cpus
            }
            "rank" => wish.cpu_bind = CpuBind::Rank,
            other => {
                let (kind, first) = other.split_once(':').unwrap_or((other, ""));
                wish.cpu_bind = match kind {
                    "map_cpu" => CpuBind::Map,
                    "mask_cpu" => CpuBind::Mask,
                    _ => {
                        let text = format!("--cpu-bind={text} is not supported");
                        return Err(Fault::Refused(text));
                    }
                };
                let all = std::iter::once(first).chain(tail.split(','));
                wish.cpu_lists = all.filter(|w| !w.is_empty()).map(str::to_owned).collect();
                return Ok(());
            }
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &str, around: Around) -> Wish {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let asked = Asked::read("srun", &words).unwrap();
        read(&asked, around, Path::new("/w")).unwrap()
    }

    #[track_caller]
    fn sizes(line: &str, around: Around, expected: (u32, u32, u32, u32)) {
        let s = wish(line, around).shape;
        assert_eq!((s.min_nodes, s.max_nodes, s.tasks, s.tasks_per_node), expected, "{line}");
    }

    #[test]
    fn sizes_come_from_the_command_line_and_then_from_the_job() {
        let job = Around { nodes: Some(2), tasks: Some(4), tasks_per_node: Some(2) };
        sizes("hostname", job, (2, 2, 4, 0));
        sizes("-n1 hostname", job, (2, 2, 1, 0));
        sizes("-N1 hostname", job, (1, 1, 4, 0));
        sizes("-w n1 -n 1 hostname", job, (0, 0, 1, 0));
        sizes("--ntasks-per-node=1 hostname", job, (2, 2, 0, 1));
        let plain = Around { nodes: Some(2), tasks: None, tasks_per_node: Some(3) };
        sizes("hostname", plain, (2, 2, 0, 3));
    }

    #[test]
    fn files_go_by_pattern_to_srun_or_to_the_nodes() {
        let job = Around::default();
        let w = wish("-o %j_%t_log.out -e all.err -i none hostname", job);
        assert_eq!(w.stdout, Sink::There("%j_%t_log.out".into()));
        assert_eq!(w.stderr, Some(Sink::File("all.err".into())));
        assert_eq!(w.stdin, Source::Nowhere);
        let w = wish("-o 3 -i 2 hostname", job);
        assert_eq!((w.stdout, w.stdin), (Sink::Task(3), Source::Task(2)));
    }

    #[test]
    fn bindings_are_read_in_their_spellings() {
        let job = Around::default();
        assert_eq!(wish("--cpu-bind=q hostname", job).cpu_bind, CpuBind::Auto);
        assert_eq!(wish("--cpu-bind=none x", job).cpu_bind, CpuBind::None);
        assert_eq!(wish("--cpu_bind=v,cores x", job).cpu_bind, CpuBind::Cpus);
        let map = wish("--cpu-bind=map_cpu:0,2,0x3 x", job);
        assert_eq!((map.cpu_bind, map.cpu_lists.len()), (CpuBind::Map, 3));
        let bind = |line| {
            let bind = wish(line, job).gpu_bind;
            (bind.kind(), bind.count)
        };
        assert_eq!(wish("--gpus-per-task=h100:2 -n1 x", job).gpus_per_task, 2);
        assert_eq!(bind("--gpus-per-task=h100:2 -n1 x"), (GpuBindKind::PerTask, 2));
        assert_eq!(bind("--gpus-per-task=1 --gpu-bind=none -n1 x"), (GpuBindKind::All, 0));
        assert_eq!(bind("--gpu-bind=single:2 x"), (GpuBindKind::Single, 2));
        assert_eq!(bind("--tres-bind=gres/gpu:closest x"), (GpuBindKind::Closest, 0));
        let spread = wish("--gpus=4 --ntasks-per-gpu=2 x", job);
        assert_eq!((spread.shape.tasks, spread.gpu_bind.kind()), (8, GpuBindKind::Single));
        assert!(wish("-c2 x", job).shape.exact && !wish("x", job).shape.exact);
    }

    #[test]
    fn looks_at_memory_are_asked_for_by_kind() {
        let read = |text: &str| sampling(text).ok().flatten();
        assert_eq!(
            (read("10"), read("energy=3,task=5"), read("energy=3")),
            (Some(10), Some(5), None)
        );
        assert!(sampling("task=often").is_err());
    }

    #[test]
    fn the_way_to_find_each_other_is_the_steps_own_or_left_open() {
        let job = Around::default();
        assert_eq!(wish("--mpi=pmix x", job).mpi, Some(MpiKind::Pmix));
        assert_eq!(wish("x", job).mpi, None);
        let words = ["--mpi=pmi9", "x"].map(str::to_owned);
        let asked = Asked::read("srun", &words).unwrap();
        assert!(read(&asked, job, Path::new("/w")).is_err());
    }

    #[test]
    fn step_limits_are_read_as_jobs() {
        let minutes = |n: u64| Some(Duration::from_secs(n * 60));
        assert_eq!(time_limit("5"), minutes(5));
        assert_eq!(time_limit("1:30"), Some(Duration::from_secs(90)));
        assert_eq!(time_limit("1-2"), minutes(26 * 60));
        assert_eq!(time_limit("00:00:05"), Some(Duration::from_secs(5)));
        assert_eq!(time_limit("x"), None);
    }
}

//! Heterogeneous steps: one `srun` over several components of a job. Each component runs a step of
//! its own, with its own options; they begin when all are granted, ranks are counted through, and
//! they share signals and the exit code.

use std::path::Path;
use std::sync::Arc;

use muster_config::Config;
use muster_proto::v1::MpiKind;
use tokio::sync::mpsc;

use super::agents::Agents;
use super::alloc::{self, Allocation};
use super::mpi::World;
use super::options::Asked;
use super::srun::{Stop, asked, ended_step, ending, first, open_step, runtime, settled};
use super::wish::{self, Around, Wish};
use super::{exchange, run, signals};
use crate::connect::Client;
use crate::exit;
use crate::submit::Fault;

const PROGRAM: &str = "srun";

/// Components on a command line: parted by words that are `:`. A last one is an argument, as in
/// `bash -c :`.
pub(super) fn split(words: &[String]) -> Vec<Vec<String>> {
    let mut out = vec![Vec::new()];
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            ":" if at + 1 < words.len() => out.push(Vec::new()),
            _ => out.last_mut().expect("there is a first").push(word.clone()),
        }
    }
    out
}

/// `--het-group=0,2-3`: numbers of components. One that the job lacks ends `srun` with 1, as it
/// does in Slurm.
fn groups(text: &str, size: u32) -> Result<Vec<u32>, Fault> {
    let bad = || {
        let last = size.saturating_sub(1);
        Fault::Refused(match size {
            0 | 1 => format!("--het-group={text}: this job has one component, number 0"),
            _ => format!("--het-group={text}: this job has the components 0 to {last}"),
        })
    };
    let mut out = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let read = |n: &str| n.trim().parse::<u32>().ok().filter(|n| *n < size.max(1));
        let (from, to) = (read(from).ok_or_else(bad)?, read(to).ok_or_else(bad)?);
        out.extend(from..=to);
    }
    Ok(out)
}

/// What is known of a job's components: from this process's environment, or from a new allocation.
trait Job {
    fn value(&self, name: &str) -> Option<String>;

    fn number(&self, name: &str) -> Option<u32> {
        self.value(name)?.trim().parse().ok()
    }

    /// How many components it has.
    fn size(&self) -> u32 {
        self.number("SLURM_HET_SIZE").unwrap_or(1)
    }

    fn of_group(&self, group: u32) -> Option<(u32, String, Around)> {
        let own = |name: &str| self.value(&format!("{name}_HET_GROUP_{group}"));
        let number = |name: &str| own(name)?.trim().parse().ok();
        let around = Around {
            nodes: number("SLURM_JOB_NUM_NODES"),
            tasks: number("SLURM_NTASKS"),
            tasks_per_node: number("SLURM_NTASKS_PER_NODE"),
        };
        Some((number("SLURM_JOB_ID")?, first(&own("SLURM_JOB_NODELIST")?)?, around))
    }
}

struct Here;

impl Job for Here {
    fn value(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Job for Allocation {
    fn value(&self, name: &str) -> Option<String> {
        self.text(name)
    }
}

/// A step on one component.
struct Part {
    job: u32,
    head: String,
    wish: Wish,
}

/// Whether a plain command line is meant for components. A job of one has the number 0.
pub(super) fn is_meant(asked: &Asked) -> bool {
    asked.said_value("het-group").is_some_and(|groups| groups != "0" || Here.size() > 1)
}

/// Inside a job: `srun --het-group=0,1 CMD`, or `srun A : B`.
pub(super) fn inside(
    config: Config,
    words: &[String],
    components: &[Vec<String>],
) -> Result<i32, Stop> {
    let parts = parts(&config, &Here, components, true)?;
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        run_all(&Agents::new(config), parts, words, &mut signals).await
    });
    runtime.shutdown_background();
    code
}

/// Outside of any job: the allocation first.
pub(super) fn outside(
    config: Config,
    words: &[String],
    components: &[Vec<String>],
) -> Result<i32, Stop> {
    let asked = all(components)?;
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    // What is wrong with a step is said before there is a job.
    let wishes = asked.iter().map(|asked| wish::read(asked, Around::default(), &cwd));
    let wishes = wishes.collect::<Result<Vec<_>, _>>()?;
    let mut client = Client::open(&config, PROGRAM).map_err(|e| alloc::refusal(PROGRAM, &e))?;
    let name = wishes[0].name.clone();
    let job = alloc::submit(&mut client, &config, PROGRAM, &asked, &name, words)?;
    let agents = Agents::new(config.clone());
    let api = client.api();
    client.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let (quiet, patience) = (wishes[0].quiet, wishes[0].immediate);
        let held =
            alloc::wait(api.clone(), &agents, PROGRAM, job, quiet, patience, &mut signals).await?;
        let ended = match parts(&config, &held, components, false) {
            Ok(parts) => run_all(&agents, parts, words, &mut signals).await,
            Err(stop) => Err(stop),
        };
        let code = match &ended {
            Ok(code) => *code,
            Err(_) => exit::FAILED,
        };
        alloc::release(api, &agents, &held, code).await;
        ended
    })
}

fn all(components: &[Vec<String>]) -> Result<Vec<Asked>, Stop> {
    components.iter().map(|words| asked(PROGRAM, words)).collect()
}

/// A variable as one component has it: what describes a job describes the script's own otherwise.
fn variable(name: &str, group: u32) -> Option<String> {
    const OWN: [&str; 4] =
        ["SLURM_CPUS_PER_TASK", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_STEP_GRES"];
    match std::env::var(format!("{name}_HET_GROUP_{group}")) {
        Ok(value) => Some(value),
        Err(_) if group > 0 && OWN.contains(&name) => None,
        Err(_) => std::env::var(name).ok(),
    }
}

/// The steps that components of a command line come to. `within`: of the job's resources, as said.
fn parts(
    config: &Config,
    job: &impl Job,
    components: &[Vec<String>],
    within: bool,
) -> Result<Vec<Part>, Stop> {
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let mut out: Vec<Part> = Vec::new();
    for (place, asked) in (0u32..).zip(all(components)?) {
        let place = place.to_string();
        let text = asked.said_value("het-group").unwrap_or(&place).to_owned();
        for group in groups(&text, job.size())? {
            let unknown = || {
                let text = format!("the environment names no component {group} of this job");
                Stop::refused(Some(text), "Invalid job id specified")
            };
            let (id, head, around) = job.of_group(group).ok_or_else(unknown)?;
            let mut asked = asked.clone();
            if within {
                asked.add_variables(|name| variable(name, group));
            }
            let mut wish = wish::read(&asked, around, &cwd)?;
            if wish.pty && (components.len() > 1 || !out.is_empty()) {
                let text = "--pty: a terminal is for one component".to_owned();
                return Err(Stop::Fault(Fault::Refused(text)));
            }
            if !within {
                wish = of_all(wish, &asked);
            }
            if out.iter().any(|part| part.job == id) {
                let text = format!("--het-group: component {group} is named twice");
                return Err(Stop::Fault(Fault::Refused(text)));
            }
            out.push(Part { job: id, head, wish: settled(wish, config) });
        }
    }
    if out.iter().any(|part| part.wish.mpi != out[0].wish.mpi) {
        let text = "--mpi: programs of all components find each other in the same way, or in none";
        return Err(Stop::Fault(Fault::Refused(text.to_owned())));
    }
    Ok(out)
}

/// A step that an allocation was made for takes all of it, for as long.
pub(super) fn of_all(mut wish: Wish, asked: &Asked) -> Wish {
    wish.time_limit = None;
    wish.immediate = None;
    wish.shape.gres_given = false;
    wish.shape.gres.clear();
    wish.shape.memory_mib = 0;
    wish.shape.exact = asked.said("exact");
    wish
}

/// All steps, or none is left open.
async fn all_or_none(
    agents: &Agents,
    opened: Vec<Result<run::Step, Stop>>,
) -> Result<Vec<run::Step>, Stop> {
    let (mut steps, mut fault) = (Vec::new(), None);
    for one in opened {
        match one {
            Ok(step) => steps.push(step),
            Err(stop) => fault = fault.or(Some(stop)),
        }
    }
    let Some(fault) = fault else { return Ok(steps) };
    for step in steps {
        run::give_up(agents, &step).await;
    }
    Err(fault)
}

/// Gives each step its place in the world of all.
fn place(parts: &mut [Part], opened: &[run::Step]) -> Result<(), Stop> {
    let size = opened.iter().map(|step| step.grant.tasks).sum();
    let world = Arc::new(World::of(opened.iter().map(|step| &step.grant)));
    if parts.first().is_some_and(|part| part.wish.mpi == Some(MpiKind::Pmix))
        && let Some(node) = world.shared_node()
    {
        let text = format!(
            "--mpi=pmix: node {node} has tasks of two components; one that needs PMIx on several \
             components needs nodes of its own for each"
        );
        return Err(Stop::Fault(Fault::Refused(text)));
    }
    let (mut first_rank, mut first_node) = (0, 0);
    for (part, step) in parts.iter_mut().zip(opened) {
        (part.wish.first_rank, part.wish.world) = (first_rank, size);
        (part.wish.first_node, part.wish.mpi_world) = (first_node, Some(world.clone()));
        first_rank += step.grant.tasks;
        first_node += u32::try_from(step.grant.nodes.len()).expect("fewer nodes than u32");
    }
    Ok(())
}

/// Opens all steps, then runs them beside each other; the highest exit code.
async fn run_all(
    agents: &Agents,
    mut parts: Vec<Part>,
    words: &[String],
    signals: &mut mpsc::UnboundedReceiver<i32>,
) -> Result<i32, Stop> {
    let opening = parts.iter().map(|p| open_step(agents, p.job, &p.head, &p.wish, words));
    let opened = tokio::select! {
        opened = futures::future::join_all(opening) => all_or_none(agents, opened).await?,
        signal = ending(signals) => return Err(Stop::Said(128 + signal)),
    };
    if let Err(stop) = place(&mut parts, &opened) {
        for step in opened {
            run::give_up(agents, &step).await;
        }
        return Err(stop);
    }
    let (mut tell, mut running) = (Vec::new(), Vec::new());
    let nodes: Vec<usize> = opened.iter().map(|step| step.grant.nodes.len()).collect();
    for ((part, step), company) in parts.iter().zip(opened).zip(exchange::company(&nodes)) {
        let (own, mut heard) = mpsc::unbounded_channel();
        tell.push(own);
        let wish = &part.wish;
        running.push(async move { ended_step(agents, step, wish, &mut heard, company).await });
    }
    let all = futures::future::join_all(running);
    tokio::pin!(all);
    loop {
        tokio::select! {
            ended = &mut all => {
                return ended.into_iter().try_fold(0, |most, code| Ok(most.max(code?)));
            }
            Some(signal) = signals.recv() => {
                for own in &tell {
                    // One whose step is over hears nothing any more.
                    let _ = own.send(signal);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[&str]) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let found: Vec<String> = split(&words).iter().map(|part| part.join(" ")).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn components_are_parted_by_colons() {
        check("-n1 a b", &["-n1 a b"]);
        check("-n1 a : -n2 b c", &["-n1 a", "-n2 b c"]);
        check("bash -c :", &["bash -c :"]);
    }

    #[test]
    fn groups_are_numbers_of_components() {
        assert_eq!(groups("0,2-3", 4).unwrap(), [0, 2, 3]);
        for bad in ["4", "x", "1-", ""] {
            let Err(Fault::Refused(text)) = groups(bad, 4) else { panic!("{bad}") };
            assert!(text.contains("0 to 3"), "{text}");
        }
    }
}

//! `muster up`: a cluster on this machine, ready when the command returns.
//!
//! Started again on the same directory it starts what does not run and goes on with the same
//! queue. The shape lies in the directory's config: options that contradict it are refused, for a
//! rewritten config would throw away what its owner has edited.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use muster_config::Config;
use muster_proto::v1::NodeBase;
use nix::fcntl::{Flock, FlockArg};

use super::ask::Ask;
use super::daemons::{self, Daemon};
use super::hosts;
use super::layout::{Layout, Shape};

/// Nodes of a new cluster.
const NODES: u32 = 4;
/// How long the daemons may take to find each other. A store of a million jobs is read within it.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// Start a cluster on this machine, or what is not running of it
#[derive(Debug, Clone, Parser)]
#[command(
    name = "muster up",
    after_help = "Jobs and their history stay in DIR when the cluster is stopped; the next `muster up --dir DIR` goes on with them."
)]
pub(super) struct UpOptions {
    /// The cluster's directory: config, queue, history, logs
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Nodes, named n1, n2, ... [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) nodes: Option<u32>,
    /// CPUs that each node declares; more than the machine has is allowed [default: all of the machine's]
    #[arg(long, value_name = "C")]
    pub(super) cpus_per_node: Option<u32>,
    /// Memory that each node declares, as 512M or 64G [default: all of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = read_size)]
    pub(super) mem_per_node: Option<u64>,
    /// GPUs that each node declares [default: 0]
    #[arg(long, value_name = "G")]
    pub(super) gpus_per_node: Option<u32>,
    /// Type of the GPUs, as in --gres=gpu:TYPE:1
    #[arg(long, value_name = "T")]
    pub(super) gpu_type: Option<String>,
}

fn read_size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_suffix('B').unwrap_or(&upper);
    let bare = bare.strip_suffix('I').unwrap_or(bare);
    let (digits, unit) =
        bare.split_at(bare.find(|c: char| !c.is_ascii_digit()).unwrap_or(bare.len()));
    let number: Option<u64> = digits.parse().ok();
    let mib = match unit {
        "" | "M" => number,
        "K" => number.map(|n| n.div_ceil(1024)),
        "G" => number.and_then(|n| n.checked_mul(1024)),
        "T" => number.and_then(|n| n.checked_mul(1024 * 1024)),
        _ => None,
    };
    mib.filter(|mib| *mib > 0).ok_or_else(|| "use a size above 0, as 512M or 64G".to_owned())
}

/// The command.
#[must_use]
pub fn up(words: &[String]) -> i32 {
    match super::read::<UpOptions>("up", words) {
        Ok(options) => super::finish("up", run(&options)),
        Err(code) => code,
    }
}

fn run(options: &UpOptions) -> anyhow::Result<()> {
    let start = Instant::now();
    let layout = Layout::create(&options.dir)?;
    let (config, started) = start_cluster(&layout, options)?;
    let nodes = &config.nodes;
    let took = start.elapsed().as_secs_f64();
    let dir = quoted(&options.dir.display().to_string());
    let what = if started == 0 {
        "was running already".to_owned()
    } else {
        format!("is ready after {took:.1} s ({started} daemons started)")
    };
    let (first, capacity) = (&nodes[0], &nodes[0].capacity);
    let gpus: u64 = capacity.gres.values().sum();
    let gpus = if gpus > 0 { format!(", {gpus} GPUs") } else { String::new() };
    println!(
        "The cluster in {} {what}: {} nodes ({} CPUs, {} MiB{gpus} each on {}).\n\
         \n\
         Use it:   eval \"$(muster env --dir {dir})\"\n\
         \x20         sbatch --wrap hostname; squeue; sinfo\n\
         Stop it:  muster down --dir {dir}",
        layout.dir().display(),
        nodes.len(),
        capacity.cpus,
        capacity.memory_mib,
        first.name,
    );
    Ok(())
}

/// Brings the cluster up; returns its config and how many daemons had to be started.
pub(super) fn start_cluster(
    layout: &Layout,
    options: &UpOptions,
) -> anyhow::Result<(Config, usize)> {
    // Two starts at once would start everything twice.
    let lock_path = layout.dir().join("run/up.lock");
    let file = std::fs::File::create(&lock_path)
        .with_context(|| format!("create {}", lock_path.display()))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, fault)| fault)
        .with_context(|| format!("lock {}", lock_path.display()))?;
    let config = if layout.config().exists() {
        let config = Config::load(&layout.config())?;
        contradict(options, &config, layout)?;
        config
    } else {
        layout.write(&shape(options))?
    };
    ensure!(!config.nodes.is_empty(), "{} has no nodes", layout.config().display());
    super::links::make(&layout.bin())?;
    let hosts = hosts::prepare(layout, &config)?;
    let mut started = 0;
    for daemon in all_daemons(&config) {
        if daemons::running(layout, &daemon).is_none() {
            daemons::start(layout, &daemon, hosts.as_ref())?;
            started += 1;
        }
    }
    wait_until_ready(layout, &config)?;
    Ok((config, started))
}

/// The controller and an agent for each node.
pub(super) fn all_daemons(config: &Config) -> Vec<Daemon> {
    let agents = config.nodes.iter().map(|node| Daemon::Agent(node.name.to_string()));
    std::iter::once(Daemon::Controller).chain(agents).collect()
}

fn shape(options: &UpOptions) -> Shape {
    let machine = Shape::of_machine(options.nodes.unwrap_or(NODES));
    Shape {
        cpus: options.cpus_per_node.unwrap_or(machine.cpus),
        memory_mib: options.mem_per_node.unwrap_or(machine.memory_mib),
        gpus: options.gpus_per_node.unwrap_or(0),
        gpu_type: options.gpu_type.clone(),
        ..machine
    }
}

/// Refuses options that say something else than the config that is there.
fn contradict(options: &UpOptions, config: &Config, layout: &Layout) -> anyhow::Result<()> {
    let Some(node) = config.nodes.first() else { return Ok(()) };
    let gpus: u64 =
        node.capacity.gres.iter().filter(|(kind, _)| &*kind.name == "gpu").map(|(_, n)| n).sum();
    let of = node.capacity.gres.keys().find_map(|kind| kind.of.as_deref());
    let number = |value: Option<u32>| value.map(u64::from);
    let have = u64::try_from(config.nodes.len()).unwrap_or(u64::MAX);
    let pairs = [
        ("--nodes", number(options.nodes), have),
        ("--cpus-per-node", number(options.cpus_per_node), u64::from(node.capacity.cpus)),
        ("--mem-per-node", options.mem_per_node, node.capacity.memory_mib),
        ("--gpus-per-node", number(options.gpus_per_node), gpus),
    ];
    let advice = format!("edit {} or take another --dir", layout.config().display());
    for (option, asked, is) in pairs {
        if let Some(asked) = asked.filter(|asked| *asked != is) {
            bail!("{option} {asked}: the cluster in this directory has {is}; {advice}");
        }
    }
    if let Some(asked) = options.gpu_type.as_deref().filter(|asked| Some(*asked) != of) {
        let is = of.unwrap_or("none");
        bail!("--gpu-type {asked}: the cluster in this directory has {is}; {advice}");
    }
    Ok(())
}

/// Returns when every node is registered; a daemon that ends instead is named with its last words.
pub(super) fn wait_until_ready(layout: &Layout, config: &Config) -> anyhow::Result<()> {
    let ask = Ask::new(config)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = match ask.nodes() {
            Ok(nodes) => {
                let missing = unready(&nodes);
                if missing.is_empty() && nodes.len() >= config.nodes.len() {
                    return Ok(());
                }
                format!("not ready: {}", missing.join(", "))
            }
            Err(fault) => format!("{fault:#}"),
        };
        for daemon in all_daemons(config) {
            if daemons::running(layout, &daemon).is_none() {
                bail!(
                    "the {} ended at its start: {} (log: {})",
                    daemon.name(),
                    daemons::last_words(layout, &daemon),
                    layout.log(daemon.name()).display()
                );
            }
        }
        ensure!(
            Instant::now() < deadline,
            "the cluster is not ready after {} s: {missing}; see {}",
            PATIENCE.as_secs(),
            layout.dir().join("log").display()
        );
        std::thread::sleep(PAUSE);
    }
}

/// Nodes whose agent is not there, with why. A node that somebody drained counts as there.
fn unready(nodes: &[muster_proto::v1::Node]) -> Vec<String> {
    let absent = |node: &&muster_proto::v1::Node| {
        node.not_responding || matches!(node.base(), NodeBase::Down | NodeBase::Unknown)
    };
    nodes
        .iter()
        .filter(absent)
        .map(|node| {
            let reason = if node.reason.is_empty() { "no agent yet" } else { &node.reason };
            format!("{} ({reason})", node.name)
        })
        .collect()
}

fn quoted(text: &str) -> String {
    super::links::quoted(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], fault: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let text = |word: &&str| (*word).to_owned();
        let line = |words: &[&str]| {
            let mut line = vec!["muster up".to_owned(), "--dir".to_owned(), "/x".to_owned()];
            line.extend(words.iter().map(text));
            UpOptions::try_parse_from(line).unwrap()
        };
        let first =
            line(&["--nodes=2", "--cpus-per-node=8", "--mem-per-node=1G", "--gpus-per-node=2"]);
        let config = layout.write(&shape(&first)).unwrap();
        let answer = contradict(&line(words), &config, &layout);
        match (answer, fault) {
            (Ok(()), None) => {}
            (Err(found), Some(part)) => assert!(found.to_string().contains(part), "{found}"),
            (answer, _) => panic!("{words:?}: {answer:?}"),
        }
    }

    #[test]
    fn the_same_shape_again_is_welcome_and_another_is_refused() {
        check(&[], None);
        check(&["--nodes=2", "--mem-per-node=1024"], None);
        check(&["--nodes=3"], Some("--nodes 3: the cluster in this directory has 2"));
        check(&["--mem-per-node=2G"], Some("has 1024"));
        check(&["--gpus-per-node=1"], Some("--gpus-per-node"));
        check(&["--gpu-type=h100"], Some("has none"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(read_size("64G"), Ok(65_536));
        assert_eq!(read_size("512"), Ok(512));
        assert_eq!(read_size("1500K"), Ok(2));
        assert_eq!(read_size("1GiB"), Ok(1024));
        for bad in ["", "0", "12X", "-5", "1.5G"] {
            assert!(read_size(bad).is_err(), "{bad}");
        }
    }
}

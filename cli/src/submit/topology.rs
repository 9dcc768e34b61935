//! `--switches`, `--segment`, `--exclusive`, `--nvlink` and `--gres-flags`: how near the job's nodes,
//! GPUs and CPUs are, and how alone.

use muster_model::{CpuBinding, SwitchWish, TopologyWish};

use super::args::Settings;
use super::values::{self, invalid};
use super::{Fault, Surroundings};

/// What the job wishes of the network; `nodes` is the least and the most of them.
///
/// # Errors
/// A value that cannot be read, and segments that do not divide the nodes.
pub fn wish(
    settings: &Settings,
    around: &Surroundings,
    nodes: (u32, Option<u32>),
) -> Result<TopologyWish, Fault> {
    let wait = around.variable("SBATCH_WAIT4SWITCH").filter(|wait| !wait.is_empty());
    let switches = settings.value("switches").map(|text| switches(text, wait)).transpose()?;
    let segment = settings.value("segment").map(segment).transpose()?;
    if let Some(size) = segment
        && !(nodes.0.is_multiple_of(size) && nodes.1.is_none_or(|max| max.is_multiple_of(size)))
    {
        let nodes = match nodes.1 {
            Some(max) if max != nodes.0 => format!("{}-{max}", nodes.0),
            _ => nodes.0.to_string(),
        };
        return Err(Fault::Refused(format!(
            "--segment={size}: {nodes} nodes cannot be cut into groups of {size}; give --nodes"
        )));
    }
    let nvlink = settings.value("nvlink").map(nvlink).transpose()?.unwrap_or(false);
    let binding = settings.value("gres-flags").map(binding).transpose()?.unwrap_or_default();
    Ok(TopologyWish { switches, segment, alone: exclusive(settings)?.1, nvlink, binding })
}

/// Whether the job waits for GPUs that NVLink joins. They are preferred in any case.
fn nvlink(word: &str) -> Result<bool, Fault> {
    match word.trim() {
        "required" => Ok(true),
        "preferred" => Ok(false),
        _ => Err(invalid("nvlink")),
    }
}

/// `--gres-flags`; flags about tasks that share a GPU change nothing here.
fn binding(text: &str) -> Result<CpuBinding, Fault> {
    let mut out = CpuBinding::default();
    for word in text.split(',') {
        out = match &*word.trim().to_ascii_lowercase() {
            "enforce-binding" => CpuBinding::Enforced,
            "disable-binding" => CpuBinding::Disabled,
            "one-task-per-sharing" | "multiple-tasks-per-sharing" | "allow-task-sharing" => out,
            _ => return Err(invalid("gres-flags")),
        };
    }
    Ok(out)
}

fn segment(text: &str) -> Result<u32, Fault> {
    text.trim().parse().ok().filter(|size| *size > 0).ok_or_else(|| invalid("segment"))
}

/// `COUNT[@TIME]`; `wait` is the time where the text tells none.
///
/// # Errors
/// What is neither a count nor a time.
pub fn switches(text: &str, wait: Option<&str>) -> Result<SwitchWish, Fault> {
    let (count, wait) = match text.split_once('@') {
        Some((count, wait)) => (count, Some(wait)),
        None => (text, wait),
    };
    let count = values::count("switches", count)?;
    let max_wait_seconds = match wait.map(muster_model::time::parse_seconds) {
        None => SwitchWish::DEFAULT_WAIT_SECONDS,
        Some(Ok(Some(seconds))) => u32::try_from(seconds).unwrap_or(u32::MAX),
        // Without limit: the wish never lapses.
        Some(Ok(None)) => u32::MAX,
        Some(Err(_)) => return Err(invalid("switches")),
    };
    Ok(SwitchWish { count, max_wait_seconds })
}

/// Whether `--exclusive` asks for whole nodes, and whether for whole parts of the network.
///
/// # Errors
/// Words that mean nothing, and those that are not supported.
pub fn exclusive(settings: &Settings) -> Result<(bool, bool), Fault> {
    let Some(setting) = settings.get("exclusive") else { return Ok((false, false)) };
    match setting.value.as_deref() {
        None => Ok((true, false)),
        Some("topo") => Ok((false, true)),
        Some(word @ ("user" | "mcs")) => Err(Fault::Refused(format!(
            "--exclusive={word} is not supported: nodes are shared by all jobs or held whole by one"
        ))),
        Some(_) => Err(invalid("exclusive")),
    }
}

/// `1@00:05:00`, as `scontrol show job` has it.
#[must_use]
pub fn shown(count: u32, wait_seconds: u32) -> String {
    format!("{count}@{}", muster_model::time::Clock(i64::from(wait_seconds)))
}

//! Generic resources, GPUs above all, in their many spellings.
//!
//! `--gres=gpu:h100:2`, `--gpus-per-node=2`, `--gpus=8`, `--gpus-per-task=1`,
//! `--gpus-per-socket=1`, `--ntasks-per-gpu=2`, `--tres-per-task=gres/gpu=1`. What two of them say
//! together is worked out here, so that the controller sees each kind in one scope.

use muster_proto::v1::{self, GresScope};

use super::Fault;
use super::args::Settings;
use super::values;

/// Slurm's text for anything wrong with generic resources.
pub const INVALID: &str = "Invalid generic resource (gres) specification";

fn bad(detail: &str) -> Fault {
    Fault::Refused(if detail.is_empty() {
        INVALID.to_owned()
    } else {
        format!("{detail}\n{INVALID}")
    })
}

/// One item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    name: String,
    of: String,
    count: u64,
}

/// Reads `gpu:h100:2,nvme` (`bare`: `h100:2` or `2` of this name). Items of 0 are left out.
fn list(text: &str, bare: Option<&str>) -> Result<Vec<Item>, Fault> {
    // An empty --gres asks for nothing; an empty number of GPUs is a variable that was not set.
    if text.eq_ignore_ascii_case("none") || (text.is_empty() && bare.is_none()) {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for item in text.split(',') {
        let item = item.trim().replace('=', ":");
        let plain = item.strip_prefix("gres/").or(item.strip_prefix("gres:")).unwrap_or(&item);
        let mut words: Vec<&str> = bare.into_iter().chain(plain.split(':')).collect();
        // `--gpus-per-node=gpu:2` is seen in the wild.
        if bare.is_some() && words.get(1) == bare.as_ref() {
            words.remove(0);
        }
        let number = |word: &str| scaled(word);
        let read = match words.as_slice() {
            [name] => Some((*name, "", 1)),
            [name, word] => match number(word) {
                Some(count) => Some((*name, "", count)),
                None => Some((*name, *word, 1)),
            },
            [name, of, word] => number(word).map(|count| (*name, *of, count)),
            _ => None,
        };
        let (name, of, count) = read.ok_or_else(|| bad(""))?;
        let typed = words.len() > 2 || (words.len() == 2 && number(words[1]).is_none());
        if !is_word(name) || (typed && !is_word(of)) {
            return Err(bad(""));
        }
        if count > 0 {
            out.push(Item { name: name.to_owned(), of: of.to_owned(), count });
        }
    }
    Ok(out)
}

fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
}

/// A count with a power of 1024: `100G`.
fn scaled(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok()).flatten()?;
    number.checked_mul(1024u64.pow(power))
}

fn requests(items: Vec<Item>, scope: GresScope) -> Vec<v1::GresRequest> {
    items
        .into_iter()
        .map(|item| v1::GresRequest {
            kind: Some(v1::GresKind { name: item.name, of: item.of }),
            count: item.count,
            scope: scope as i32,
        })
        .collect()
}

fn total(items: &[Item]) -> u64 {
    items.iter().map(|i| i.count).sum()
}

/// Sizes that GPU options may add to, as given so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub nodes: Option<(u32, u32)>,
    pub tasks: Option<u32>,
    pub tasks_per_node: Option<u32>,
    pub cpus_per_task: Option<u32>,
}

/// Works out all generic resources, and what they say about nodes and tasks.
///
/// # Errors
/// What cannot be read, and combinations that contradict each other.
pub fn resolve(settings: &Settings, sizes: &mut Sizes) -> Result<Vec<v1::GresRequest>, Fault> {
    let read = |id: &str| settings.value(id).map(|text| list(text, Some("gpu"))).transpose();
    let mut gres =
        settings.value("gres").map(|text| list(text, None)).transpose()?.unwrap_or_default();
    let per_node = node_gpus(settings, &mut gres, read("gpus-per-node")?)?;
    let (all, mut per_task, per_socket) =
        (read("gpus")?, read("gpus-per-task")?, read("gpus-per-socket")?);
    let mut of_tasks = Vec::new();
    if let Some(text) = settings.value("tres-per-task") {
        let gpus = tres_per_task(text, sizes, &mut of_tasks)?;
        if !gpus.is_empty() {
            if per_task.is_some() {
                return Err(bad("--gpus-per-task and --tres-per-task=gres/gpu exclude each other"));
            }
            per_task = Some(gpus);
        }
    }
    if let Some(text) = settings.value("ntasks-per-gpu") {
        let each = values::count("ntasks-per-gpu", text)?;
        let gpus = tasks_per_gpu(settings, sizes, each, all.as_deref(), per_node.as_deref())?;
        let mut out = requests(gres, GresScope::Node);
        out.extend(gpus);
        return Ok(out);
    }
    if per_socket.is_some() && !settings.has("sockets-per-node") {
        return Err(bad("--gpus-per-socket needs --sockets-per-node"));
    }
    let scopes = combine(sizes, all, per_node, per_task, settings.has("gpus-per-task"))?;
    let mut out = requests(gres, GresScope::Node);
    out.extend(scopes);
    out.extend(requests(per_socket.unwrap_or_default(), GresScope::Socket));
    out.extend(requests(of_tasks, GresScope::Task));
    Ok(out)
}

/// `gpu:2,nvme:1` or `gres/gpu:2`, on each node.
///
/// # Errors
/// What cannot be read.
pub fn per_node(text: &str) -> Result<Vec<v1::GresRequest>, Fault> {
    Ok(requests(list(text, None)?, GresScope::Node))
}

/// `--gres=gpu` and `--gpus-per-node` say the same thing; the stronger one is taken.
fn node_gpus(
    settings: &Settings,
    gres: &mut Vec<Item>,
    per_node: Option<Vec<Item>>,
) -> Result<Option<Vec<Item>>, Fault> {
    let here: Vec<Item> = gres.iter().filter(|i| i.name == "gpu").cloned().collect();
    if here.is_empty() {
        return Ok(per_node);
    }
    gres.retain(|i| i.name != "gpu");
    match per_node {
        None => Ok(Some(here)),
        Some(items) if settings.stronger("gpus-per-node", "gres") => Ok(Some(items)),
        Some(_) if settings.stronger("gres", "gpus-per-node") => Ok(Some(here)),
        Some(items) if items == here => Ok(Some(here)),
        Some(_) => Err(bad("--gpus-per-node and --gres=gpu ask for the same thing: give one")),
    }
}

/// `--tres-per-task=cpu=4,gres/gpu:h100=1`: hands back the GPUs; the rest goes where it belongs.
fn tres_per_task(
    text: &str,
    sizes: &mut Sizes,
    others: &mut Vec<Item>,
) -> Result<Vec<Item>, Fault> {
    let (cpus, items) = each_task(text)?;
    if sizes.cpus_per_task.is_some() && cpus.is_some() && sizes.cpus_per_task != cpus {
        return Err(bad("--cpus-per-task and --tres-per-task=cpu disagree"));
    }
    sizes.cpus_per_task = sizes.cpus_per_task.or(cpus);
    let (gpus, mut rest) = items.into_iter().partition(|item| item.name == "gpu");
    others.append(&mut rest);
    Ok(gpus)
}

/// The CPUs and the generic resources of one task.
fn each_task(text: &str) -> Result<(Option<u32>, Vec<Item>), Fault> {
    let (mut cpus, mut items) = (None, Vec::new());
    for item in text.split(',') {
        if let Some(count) = item.strip_prefix("cpu=").or(item.strip_prefix("cpu:")) {
            cpus = Some(values::count("tres-per-task", count)?);
        } else if item.starts_with("gres/") {
            items.extend(list(item, None)?);
        } else {
            return Err(Fault::Refused(format!(
                "--tres-per-task={item} is not supported: give cpu=N or gres/NAME=N"
            )));
        }
    }
    Ok((cpus, items))
}

/// What `--tres-per-task` says to a step: the CPUs and the generic resources of each of its tasks.
///
/// # Errors
/// What cannot be read.
pub fn per_task(text: &str) -> Result<(Option<u32>, Vec<v1::GresRequest>), Fault> {
    let (cpus, items) = each_task(text)?;
    Ok((cpus, requests(items, GresScope::Task)))
}

fn tasks_per_gpu(
    settings: &Settings,
    sizes: &mut Sizes,
    each: u32,
    all: Option<&[Item]>,
    per_node: Option<&[Item]>,
) -> Result<Vec<v1::GresRequest>, Fault> {
    for other in ["gpus-per-task", "gpus-per-socket", "ntasks-per-node", "tres-per-task"] {
        if settings.has(other) {
            return Err(bad(&format!("--ntasks-per-gpu and --{other} exclude each other")));
        }
    }
    if sizes.nodes.is_some_and(|(min, max)| min != max) {
        return Err(bad("--ntasks-per-gpu needs one node count, not a range"));
    }
    let times = |gpus: u64| u32::try_from(gpus).ok().and_then(|g| g.checked_mul(each));
    if let Some(items) = all {
        let tasks = times(total(items)).filter(|t| *t > 0).ok_or_else(|| bad(""))?;
        if sizes.tasks.is_some_and(|given| given != tasks) {
            return Err(bad("--ntasks, --gpus and --ntasks-per-gpu disagree"));
        }
        sizes.tasks = Some(tasks);
        return Ok(requests(items.to_vec(), GresScope::Job));
    }
    if let Some(items) = per_node {
        let on_node = times(total(items)).filter(|t| *t > 0).ok_or_else(|| bad(""))?;
        sizes.tasks_per_node = Some(on_node);
        return Ok(requests(items.to_vec(), GresScope::Node));
    }
    let Some(tasks) = sizes.tasks else {
        return Err(bad("--ntasks-per-gpu needs --ntasks or a number of GPUs"));
    };
    let gpus = u64::from(tasks.div_ceil(each));
    let item = Item { name: "gpu".to_owned(), of: String::new(), count: gpus };
    Ok(requests(vec![item], GresScope::Job))
}

/// Reduces what was asked in several scopes to one.
fn combine(
    sizes: &mut Sizes,
    all: Option<Vec<Item>>,
    per_node: Option<Vec<Item>>,
    per_task: Option<Vec<Item>>,
    by_name: bool,
) -> Result<Vec<v1::GresRequest>, Fault> {
    let share = |whole: u64, part: u64, what: &str| -> Result<u32, Fault> {
        if part == 0 || !whole.is_multiple_of(part) {
            return Err(bad(&format!("{whole} GPUs cannot be shared out by {what} of {part}")));
        }
        u32::try_from(whole / part).map_err(|_| bad(""))
    };
    match (all, per_node, per_task) {
        (all, None, Some(items)) => {
            if let Some(all) = all {
                let tasks = share(total(&all), total(&items), "--gpus-per-task")?;
                if *sizes.tasks.get_or_insert(tasks) != tasks {
                    return Err(bad("--ntasks, --gpus and --gpus-per-task disagree"));
                }
            } else if sizes.tasks.is_none() && sizes.tasks_per_node.is_none() && by_name {
                return Err(bad(
                    "Failed to validate job spec. --gpus-per-task used without either --gpus or \
                     -n/--ntasks is not allowed.",
                ));
            }
            Ok(requests(items, GresScope::Task))
        }
        (all, Some(items), per_task) => {
            if let Some(all) = all {
                let nodes = share(total(&all), total(&items), "--gpus-per-node")?;
                match sizes.nodes {
                    Some((min, max)) if !(min..=max).contains(&nodes) => {
                        return Err(bad("--nodes, --gpus and --gpus-per-node disagree"));
                    }
                    _ => sizes.nodes = Some((nodes, nodes)),
                }
            }
            if let Some(per_task) = per_task {
                let tasks = share(total(&items), total(&per_task), "--gpus-per-task")?;
                if sizes.tasks_per_node.is_some_and(|given| given > tasks) {
                    return Err(bad(
                        "--ntasks-per-node, --gpus-per-node and --gpus-per-task disagree",
                    ));
                }
                sizes.tasks_per_node.get_or_insert(tasks);
            }
            Ok(requests(items, GresScope::Node))
        }
        (Some(items), None, None) => Ok(requests(items, GresScope::Job)),
        (None, None, None) => Ok(Vec::new()),
    }
}

//! Trackable resources as text: `cpu=4,mem=16G,node=1,billing=4,gres/gpu=2,gres/gpu:h100=2`.

use std::collections::BTreeMap;

use muster_proto::v1::{GresCount, GresMask, GresRequest, GresScope, Job, Node, Usage};

use super::sizes::Units;

/// One resource: its type, its name within the type and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tres {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// Memory in MiB, all else in units.
    pub(crate) count: u64,
}

impl Tres {
    fn new(kind: &'static str, name: &str, count: u64) -> Tres {
        Tres { kind, name: name.to_owned(), count }
    }

    /// Slurm's number of the built-in ones; of the site's own it is given out by a database that
    /// we do not have, so gres count from 1001 in this list.
    pub(crate) fn id(&self) -> u32 {
        match self.kind {
            "cpu" => 1,
            "mem" => 2,
            "node" => 4,
            "billing" => 5,
            _ => 1001,
        }
    }

    fn show(&self, units: Units) -> String {
        let Tres { kind, name, count } = self;
        match (*kind, name.as_str()) {
            ("mem", _) => format!("mem={}", units.mib(*count)),
            (kind, "") => format!("{kind}={count}"),
            (kind, name) => format!("{kind}/{name}={count}"),
        }
    }
}

fn gres(counts: &[GresCount]) -> Vec<Tres> {
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut typed: BTreeMap<String, u64> = BTreeMap::new();
    for count in counts {
        let Some(kind) = &count.kind else { continue };
        *totals.entry(kind.name.clone()).or_default() += count.count;
        if !kind.of.is_empty() {
            *typed.entry(format!("{}:{}", kind.name, kind.of)).or_default() += count.count;
        }
    }
    totals.append(&mut typed);
    totals.iter().map(|(name, count)| Tres::new("gres", name, *count)).collect()
}

/// What a job holds, or asks for while it waits.
pub(crate) fn of_job(job: &Job) -> Vec<Tres> {
    let mut list = vec![Tres::new("cpu", "", job.cpu_count.into())];
    if job.memory_mib > 0 {
        list.push(Tres::new("mem", "", job.memory_mib));
    }
    list.push(Tres::new("node", "", job.node_count.into()));
    list.push(Tres::new("billing", "", job.cpu_count.into()));
    list.extend(gres(&job.gres));
    list
}

/// What a step holds of its job.
pub(crate) fn of_step(cpus: u32, memory_mib: u64, nodes: u32, counts: &[GresCount]) -> Vec<Tres> {
    let mut list = vec![Tres::new("cpu", "", cpus.into())];
    if memory_mib > 0 {
        list.push(Tres::new("mem", "", memory_mib));
    }
    list.push(Tres::new("node", "", nodes.into()));
    list.extend(gres(counts));
    list
}

/// What a node has.
pub(crate) fn of_node(node: &Node) -> Vec<Tres> {
    let mut list = vec![
        Tres::new("cpu", "", node.cpus.into()),
        Tres::new("mem", "", node.memory_mib),
        Tres::new("billing", "", node.cpus.into()),
    ];
    list.extend(gres(&node.gres));
    list
}

/// What jobs hold of a node.
pub(crate) fn used_of_node(node: &Node) -> Vec<Tres> {
    let used: Vec<GresCount> =
        node.gres_used.iter().map(|g| GresCount { kind: g.kind.clone(), count: g.count }).collect();
    let mut list = vec![
        Tres::new("cpu", "", node.cpus_allocated.into()),
        Tres::new("mem", "", node.memory_allocated_mib),
    ];
    list.extend(gres(&used));
    list.retain(|t| t.count > 0);
    list
}

/// What a partition has in all.
pub(crate) fn of_partition(partition: &muster_proto::v1::Partition) -> Vec<Tres> {
    let mut list = vec![
        Tres::new("cpu", "", partition.total_cpus.into()),
        Tres::new("mem", "", partition.total_memory_mib),
        Tres::new("node", "", partition.total_nodes.into()),
        Tres::new("billing", "", partition.total_cpus.into()),
    ];
    list.extend(gres(&partition.total_gres));
    list
}

/// In the order of their numbers: squeue and scontrol.
pub(crate) fn text(list: &[Tres], units: Units) -> String {
    list.iter().map(|t| t.show(units)).collect::<Vec<_>>().join(",")
}

/// In the order of their names: sacct.
pub(crate) fn sorted_text(list: &[Tres], units: Units) -> String {
    let mut shown: Vec<String> = list.iter().map(|t| t.show(units)).collect();
    shown.sort();
    shown.join(",")
}

/// What was asked per node, job, task or socket: `gres/gpu:h100:2`.
pub(crate) fn asked(gres: &[GresRequest], scope: GresScope) -> String {
    let items = gres.iter().filter(|g| g.scope() == scope).filter_map(|g| {
        let kind = g.kind.as_ref()?;
        let of = if kind.of.is_empty() { String::new() } else { format!(":{}", kind.of) };
        Some(format!("gres/{}{of}:{}", kind.name, g.count))
    });
    items.collect::<Vec<_>>().join(",")
}

/// Which GPUs the tasks of a job see, as asked (`--gpu-bind`) or as numbers of GPUs or tasks imply:
/// `gres/gpu:single:1`; empty: all of their step's.
pub(crate) fn bind(job: &Job) -> String {
    let spec = job.spec.as_ref();
    let extras = spec.and_then(|s| s.launch.as_ref()).map_or(&[][..], |l| &l.extras);
    let said = |name: &str| extras.iter().find(|e| e.name == name).map(|e| e.value.trim());
    if let Some(text) = said("gpu-bind") {
        return format!("gres/gpu:{}", text.to_ascii_lowercase());
    }
    if let Some(text) = said("tres-bind") {
        return text.to_ascii_lowercase().replacen("gres:gpu:", "gres/gpu:", 1);
    }
    let gres = spec.and_then(|s| s.request.as_ref()).map_or(&[][..], |r| &r.gres);
    let of_tasks = gres.iter().filter(|g| g.scope() == GresScope::Task);
    let gpus = of_tasks.filter(|g| g.kind.as_ref().is_some_and(|kind| kind.name == "gpu"));
    let of_task = |text: &str| text.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let gpus = said("gpus-per-task").map_or_else(|| gpus.map(|g| g.count).sum::<u64>(), of_task);
    match (gpus, said("ntasks-per-gpu")) {
        (0, None) => String::new(),
        (0, Some(tasks)) => format!("gres/gpu:single:{tasks}"),
        (gpus, _) => format!("gres/gpu:per_task:{gpus}"),
    }
}

/// What a node declares: `gpu:h100:8`.
pub(crate) fn declared(gres: &[GresCount]) -> String {
    let items = gres.iter().filter_map(|g| {
        let kind = g.kind.as_ref()?;
        let of = if kind.of.is_empty() { String::new() } else { format!(":{}", kind.of) };
        Some(format!("{}{of}:{}", kind.name, g.count))
    });
    items.collect::<Vec<_>>().join(",")
}

/// What is in use of it, with the indices: `gpu:h100:2(IDX:0-1)`. Kinds that nobody uses are
/// shown with nothing.
pub(crate) fn used(declared: &[GresCount], used: &[GresMask]) -> String {
    let items = declared.iter().filter_map(|g| {
        let kind = g.kind.as_ref()?;
        let of = if kind.of.is_empty() { String::new() } else { format!(":{}", kind.of) };
        let mine = used.iter().filter(|u| u.kind.as_ref() == Some(kind));
        let (mask, count) = mine.fold((0, 0), |(m, c), u| (m | u.mask, c + u.count));
        Some(format!("{}{of}:{count}(IDX:{})", kind.name, indices(mask)))
    });
    items.collect::<Vec<_>>().join(",")
}

/// What is out of service of it, in the same form; `N/A`: nothing.
pub(crate) fn drained(declared: &[GresCount], drained: &[GresMask]) -> String {
    let has = |g: &&GresCount| drained.iter().any(|d| d.kind == g.kind);
    let some: Vec<GresCount> = declared.iter().filter(has).cloned().collect();
    if some.is_empty() { "N/A".to_owned() } else { used(&some, drained) }
}

/// The set bits as ranges, or `N/A`.
pub(crate) fn indices(mask: u64) -> String {
    if mask == 0 {
        return "N/A".to_owned();
    }
    muster_model::resources::CpuSet::from_words(vec![mask]).to_string()
}

/// What was used of GPUs, in the order of the names: `,energy=..,gres/gpumem=..,gres/gpuutil=..`;
/// nothing where nobody measured. Utilisation is per cent, averaged over the GPUs of a job.
pub(crate) fn of_gpus(usage: &Usage) -> String {
    let Some(gpu) = usage.gpu.filter(|gpu| gpu.seen_ms > 0) else { return String::new() };
    // To the nearest: every look has rounded down already.
    let utilization = (gpu.busy_ms * 100 + gpu.seen_ms / 2) / gpu.seen_ms;
    let memory = gpu.memory_mib;
    let energy = gpu.energy_mj / 1000;
    format!(",energy={energy},gres/gpumem={memory}M,gres/gpuutil={utilization}")
}

/// Joules; empty where nobody measured.
pub(crate) fn energy_joules(usage: Option<&Usage>) -> String {
    let gpu = usage.and_then(|usage| usage.gpu);
    gpu.map_or_else(String::new, |gpu| (gpu.energy_mj / 1000).to_string())
}

/// Joules with a unit: `1.50K`.
pub(crate) fn energy(usage: Option<&Usage>) -> String {
    let Some(gpu) = usage.and_then(|usage| usage.gpu) else { return String::new() };
    let joules = gpu.energy_mj as f64 / 1000.0;
    match joules {
        j if j >= 1e9 => format!("{:.2}G", j / 1e9),
        j if j >= 1e6 => format!("{:.2}M", j / 1e6),
        j if j >= 1e3 => format!("{:.2}K", j / 1e3),
        j => format!("{j:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::{self, GresKind};

    fn h100(count: u64) -> GresCount {
        let kind = Some(GresKind { name: "gpu".into(), of: "h100".into() });
        GresCount { kind, count }
    }

    #[test]
    fn bindings_are_shown_as_asked_or_as_implied() {
        let check = |extras: &[(&str, &str)], of_tasks: u64, expected: &str| {
            let pair = |(name, value): &(&str, &str)| v1::Pair {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            };
            let extras = extras.iter().map(pair).collect();
            let launch = Some(v1::LaunchSpec { extras, ..v1::LaunchSpec::default() });
            let kind = Some(GresKind { name: "gpu".into(), of: String::new() });
            let gres = vec![GresRequest { kind, count: of_tasks, scope: GresScope::Task.into() }];
            let request = Some(v1::Request { gres, ..v1::Request::default() });
            let spec = Some(v1::JobSpec { launch, request, ..v1::JobSpec::default() });
            assert_eq!(bind(&Job { spec, ..Job::default() }), expected);
        };
        check(&[], 0, "");
        check(&[("gpu-bind", "Verbose,closest")], 2, "gres/gpu:verbose,closest");
        check(&[("tres-bind", "gres:gpu:map:1,0")], 0, "gres/gpu:map:1,0");
        check(&[("ntasks-per-gpu", "4")], 0, "gres/gpu:single:4");
        check(&[], 2, "gres/gpu:per_task:2");
        check(&[("gpus-per-task", "h100:3")], 0, "gres/gpu:per_task:3");
    }

    #[test]
    fn a_typed_gres_counts_for_its_name_too() {
        let job = Job {
            cpu_count: 4,
            memory_mib: 16_384,
            node_count: 1,
            gres: vec![h100(2)],
            ..Job::default()
        };
        let list = of_job(&job);
        let by_number = "cpu=4,mem=16G,node=1,billing=4,gres/gpu=2,gres/gpu:h100=2";
        assert_eq!(text(&list, Units::Exact), by_number);
        let by_name = "billing=4,cpu=4,gres/gpu:h100=2,gres/gpu=2,mem=16G,node=1";
        assert_eq!(sorted_text(&list, Units::Exact), by_name);
    }

    #[test]
    fn a_node_shows_what_is_used_by_index() {
        let mask = GresMask { kind: h100(0).kind, mask: 0b1011, count: 3 };
        assert_eq!(used(&[h100(8)], std::slice::from_ref(&mask)), "gpu:h100:3(IDX:0-1,3)");
        assert_eq!(used(&[h100(8)], &[]), "gpu:h100:0(IDX:N/A)");
        assert_eq!(drained(&[h100(8)], &[mask]), "gpu:h100:3(IDX:0-1,3)");
        assert_eq!(drained(&[h100(8)], &[]), "N/A");
        assert_eq!(declared(&[h100(8)]), "gpu:h100:8");
    }
}

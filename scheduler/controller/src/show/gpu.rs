//! GPUs of a node, one by one: what they are, who has them, what they do, what is wrong.

use muster_core::state::{Job, Node, State};
use muster_model::Gpu;
use muster_proto::agent::v1::GpuReading;
use muster_proto::v1;

/// Every unit of `gpu` that can be told from the others.
#[must_use]
pub fn gpus(state: &State, node: &Node, readings: &[GpuReading]) -> Vec<v1::Gpu> {
    let whole = &node.facts.whole;
    let slots = node.facts.slots.iter().zip(&whole.gres);
    let gpus = slots.filter(|(slot, _)| &*slot.kind.name == "gpu" && slot.named);
    let mut out: Vec<v1::Gpu> = Vec::new();
    for (slot, units) in gpus {
        for unit in (0..64u8).filter(|unit| units.mask >> unit & 1 == 1) {
            let mut gpu = v1::Gpu {
                node: node.config.name.to_string(),
                index: unit.into(),
                r#type: slot.kind.of.as_deref().unwrap_or_default().to_owned(),
                node_usable: node.usable(),
                ..v1::Gpu::default()
            };
            let found = node.inventory.as_ref().and_then(|i| i.gpus.get(usize::from(unit)));
            if let Some(found) = found {
                describe(&mut gpu, found);
            }
            if let Some(job) = holder(state, node, unit) {
                gpu.job = job.id.0;
                gpu.job_shown = match job.array {
                    Some((array, index)) => format!("{array}_{index}"),
                    None => job.id.to_string(),
                };
                gpu.job_user = job.spec.user.name.to_string();
            }
            if let Some(mark) = node.health.gpus.get(&unit) {
                gpu.reason = mark.mark.reason.to_string();
                gpu.reason_by = mark.mark.by.map_or_else(String::new, |uid| uid.0.to_string());
                gpu.reason_at = mark.mark.at.0;
                gpu.reason_lifts = mark.lifts;
            }
            let reading = readings.iter().find(|reading| reading.gpu == u32::from(unit));
            gpu.r#use = reading.map(|reading| v1::GpuUse {
                utilization: reading.utilization,
                memory_used_mib: reading.memory_used_mib,
                watts: reading.watts,
                celsius: reading.celsius,
                processes: reading.processes,
            });
            out.push(gpu);
        }
    }
    out.sort_by_key(|gpu| gpu.index);
    out
}

fn describe(out: &mut v1::Gpu, found: &Gpu) {
    if out.r#type.is_empty() {
        out.r#type = found.of.to_string();
    }
    out.uuid = found.uuid.to_string();
    out.minor = found.minor;
    out.pci = found.pci.to_string();
    out.numa = found.numa;
    out.memory_mib = found.memory_mib;
    out.parent = found.mig.as_ref().map_or_else(String::new, |mig| mig.parent.to_string());
}

fn holder<'a>(state: &'a State, node: &Node, unit: u8) -> Option<&'a Job> {
    state.jobs_on(node.id).find(|job| {
        let slice = job.phase.allocation().and_then(|held| held.placement.slice(node.id));
        let gpus = slice.into_iter().flat_map(|slice| &slice.gres);
        gpus.filter(|held| &*held.kind.name == "gpu").any(|held| held.mask >> unit & 1 == 1)
    })
}

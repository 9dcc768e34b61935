//! Alibaba's openb cluster (Weng et al., ATC'23): a table of nodes and one of single-node tasks.
//!
//! Tasks that asked for a share of a GPU get a whole one in a replay: Muster gives a GPU to one job
//! at a time. The share is kept for `muster sim fill`. Tasks without an end still ran when the trace was taken; they are dropped from a replay.

use std::collections::BTreeMap;

use super::csv::{Row, Table};
use super::{Fault, Found, Machine, NodeKind, Trace, Unit, Wish, synthetic, usable};

pub(super) const NODE_COLUMNS: &[&str] = &["sn", "cpu_milli", "memory_mib", "gpu", "model"];
pub(super) const TASK_COLUMNS: &[&str] = &[
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "creation_time",
    "deletion_time",
    "scheduled_time",
];

pub(super) fn read_nodes(file: &str, text: &str) -> Result<Machine, Fault> {
    let mut kinds: BTreeMap<NodeKind, u32> = BTreeMap::new();
    Table::new(file, text).each(|row| {
        let model = Some(row.text("model")).filter(|model| !model.is_empty());
        let kind = NodeKind {
            cpus: cpus(&row)?,
            memory_mib: row.size("memory_mib")?,
            gpus: row.count("gpu")?,
            gpu_type: model.map(Into::into),
            features: model.into_iter().map(Into::into).collect(),
        };
        *kinds.entry(kind).or_default() += 1;
        Ok(())
    })?;
    Ok(Machine { nodes: kinds.into_iter().map(|(kind, count)| (count, kind)).collect() })
}

pub(super) fn read_tasks(file: &str, text: &str) -> Result<Trace, Fault> {
    let (mut jobs, mut dropped, mut id) = (Vec::new(), 0, 0);
    Table::new(file, text).each(|row| {
        id += 1;
        let (submit, end) = (row.number("creation_time")?, row.maybe("deletion_time")?);
        let run = match (row.maybe("scheduled_time")?, end) {
            (Some(start), Some(end)) => end - start,
            (_, None) | (None, _) => 0,
        };
        let limit = synthetic::limit(id, run);
        let (line, wish) = (row.line, wish(&row)?);
        let found = Found { id, line, submit, run, limit, user: 0, wish };
        match usable(found).map_err(|what| row.fault(what))? {
            Some(job) => jobs.push(job),
            None => dropped += 1,
        }
        Ok(())
    })?;
    Ok(Trace {
        file: file.to_owned(),
        jobs,
        unit: Unit::Processors,
        machine: None,
        dropped,
        synthetic_limits: true,
    })
}

fn wish(row: &Row<'_, '_>) -> Result<Wish, Fault> {
    let models = row.text("gpu_spec").split('|').filter(|model| !model.is_empty());
    let models: Vec<Box<str>> = models.map(Into::into).collect();
    let gpus = row.count("num_gpu")?;
    Ok(Wish {
        nodes: 1,
        tasks: 1,
        cpus_per_task: cpus(row)?.max(1),
        gpus_per_task: gpus,
        gpu_share: if gpus == 1 { share(row)? } else { 0 },
        cpu_milli: row.count("cpu_milli")?,
        memory_mib: row.size("memory_mib")?.max(1),
        exclusive: false,
        features: if models.is_empty() { Vec::new() } else { vec![models] },
    })
}

/// Thousandths of the one GPU; 0: all of it.
fn share(row: &Row<'_, '_>) -> Result<u32, Fault> {
    let share = row.count("gpu_milli")?;
    Ok(if (1..1000).contains(&share) { share } else { 0 })
}

/// Whole CPUs that hold these thousandths.
fn cpus(row: &Row<'_, '_>) -> Result<u32, Fault> {
    Ok(row.count("cpu_milli")?.div_ceil(1000))
}

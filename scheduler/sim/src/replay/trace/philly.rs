//! Microsoft's Philly cluster (Jeon et al., ATC'19) as one table: GPUs and times, no nodes. Jobs of
//! up to eight GPUs take them on one node, larger ones on as few nodes as can hold them.

use std::collections::BTreeMap;

use super::csv::Table;
use super::{Fault, Found, Machine, NodeKind, Trace, Unit, Wish, usable};

pub(super) const COLUMNS: &[&str] = &["job", "submit_s", "duration_s", "gpus", "vc", "est_syn_s"];

const GPUS_PER_NODE: u32 = 8;
/// The table holds less demand than the real 2,490 GPUs served; 640 are loaded by it.
const NODES: u32 = 80;

pub(super) fn read(file: &str, text: &str) -> Result<Trace, Fault> {
    let mut vcs: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut jobs, mut dropped) = (Vec::new(), 0);
    Table::new(file, text).each(|row| {
        let count = u32::try_from(vcs.len()).unwrap_or(u32::MAX);
        let user = *vcs.entry(row.text("vc")).or_insert(count);
        let gpus = row.count("gpus")?;
        let wish = Wish {
            nodes: gpus.div_ceil(GPUS_PER_NODE),
            tasks: gpus,
            cpus_per_task: 1,
            gpus_per_task: 1,
            ..Wish::default()
        };
        let found = Found {
            id: row.size("job")?,
            line: row.line,
            submit: row.number("submit_s")?,
            run: row.number("duration_s")?,
            limit: row.number("est_syn_s")?,
            user,
            wish,
        };
        match usable(found).map_err(|what| row.fault(what))? {
            Some(job) => jobs.push(job),
            None => dropped += 1,
        }
        Ok(())
    })?;
    let gpus = GPUS_PER_NODE;
    let kind = NodeKind { cpus: gpus, gpus, ..NodeKind::default() };
    Ok(Trace {
        file: file.to_owned(),
        jobs,
        unit: Unit::Gpus,
        machine: Some(Machine { nodes: vec![(NODES, kind)] }),
        dropped,
        synthetic_limits: true,
    })
}

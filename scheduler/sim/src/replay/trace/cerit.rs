//! CERIT-SC (MetaCentrum) as one table: nodes, CPUs per node and memory, two kinds of nodes.
//!
//! Of the properties asked for only those that tell the two kinds apart are kept; single hosts are
//! taken as "one of its kind".

use super::csv::Table;
use super::{Fault, Found, Machine, NodeKind, Trace, Unit, Wish, usable};

pub(super) const COLUMNS: &[&str] = &[
    "job",
    "submit_s",
    "run_s",
    "nodes",
    "ppn",
    "mem_per_node_bytes",
    "walltime_s",
    "user",
    "exclusive",
    "property",
];

pub(super) fn read(file: &str, text: &str) -> Result<Trace, Fault> {
    let (mut jobs, mut dropped) = (Vec::new(), 0);
    Table::new(file, text).each(|row| {
        let (nodes, ppn) = (row.count("nodes")?, row.count("ppn")?);
        let tasks = nodes.checked_mul(ppn);
        let wish = Wish {
            nodes,
            tasks: tasks.ok_or_else(|| row.fault(format!("{nodes} nodes of {ppn} CPUs")))?,
            cpus_per_task: 1,
            gpus_per_task: 0,
            memory_mib: row.size("mem_per_node_bytes")?.div_ceil(1 << 20).max(1),
            exclusive: row.text("exclusive") == "1",
            features: features(row.text("property")),
            ..Wish::default()
        };
        let found = Found {
            id: row.size("job")?,
            line: row.line,
            submit: row.number("submit_s")?,
            run: row.number("run_s")?,
            limit: row.number("walltime_s")?,
            user: row.count("user")?,
            wish,
        };
        match usable(found).map_err(|what| row.fault(what))? {
            Some(job) => jobs.push(job),
            None => dropped += 1,
        }
        Ok(())
    })?;
    let kind = |cpus, gib: u64, name: &str| NodeKind {
        cpus,
        memory_mib: gib << 10,
        features: vec![name.into()],
        ..NodeKind::default()
    };
    let nodes = vec![(20, kind(80, 505, "zewura")), (48, kind(12, 90, "zegox"))];
    Ok(Trace {
        file: file.to_owned(),
        jobs,
        unit: Unit::Processors,
        machine: Some(Machine { nodes }),
        dropped,
        synthetic_limits: false,
    })
}

/// The kind of node that the properties lead to, if they lead to one.
fn features(properties: &str) -> Vec<Vec<Box<str>>> {
    let wanted = |word: &str, name: &str| !word.starts_with('^') && word.contains(name);
    let any = |names: &[&str]| {
        properties.split(':').any(|word| names.iter().any(|name| wanted(word, name)))
    };
    let large = any(&["zewura", "nodecpus80"]).then(|| vec!["zewura".into()]);
    let small = any(&["zegox", "nodecpus12"]).then(|| vec!["zegox".into()]);
    large.into_iter().chain(small).collect()
}

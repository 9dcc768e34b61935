//! Our own table: what `muster sim generate gpu-mix` writes.

use super::csv::Table;
use super::{Fault, Found, Machine, NodeKind, Trace, Unit, Wish, usable};

pub(super) const COLUMNS: &[&str] =
    &["job", "submit", "run", "limit", "user", "nodes", "tasks", "cpus_per_task", "gpus_per_task"];

/// The header line. The last three columns say what the machine is, in every line the same.
pub(crate) const HEADER: &str = "job,submit,run,limit,user,nodes,tasks,cpus_per_task,gpus_per_task,\
                          memory_mib,machine_nodes,node_cpus,node_gpus";

pub(super) fn read(file: &str, text: &str) -> Result<Trace, Fault> {
    let (mut jobs, mut dropped, mut machine) = (Vec::new(), 0, None);
    Table::new(file, text).each(|row| {
        let wish = Wish {
            nodes: row.count("nodes")?,
            tasks: row.count("tasks")?,
            cpus_per_task: row.count("cpus_per_task")?,
            gpus_per_task: row.count("gpus_per_task")?,
            memory_mib: match row.text("memory_mib") {
                "" => 0,
                _ => row.size("memory_mib")?,
            },
            ..Wish::default()
        };
        if !row.text("machine_nodes").is_empty() {
            let kind = NodeKind {
                cpus: row.count("node_cpus")?,
                gpus: row.count("node_gpus")?,
                ..NodeKind::default()
            };
            let told = Machine { nodes: vec![(row.count("machine_nodes")?, kind)] };
            if machine.as_ref().is_some_and(|before| *before != told) {
                return Err(row.fault("it names another machine than the lines before".to_owned()));
            }
            machine = Some(told);
        }
        let found = Found {
            id: row.size("job")?,
            line: row.line,
            submit: row.number("submit")?,
            run: row.number("run")?,
            limit: row.number("limit")?,
            user: row.count("user")?,
            wish,
        };
        match usable(found).map_err(|what| row.fault(what))? {
            Some(job) => jobs.push(job),
            None => dropped += 1,
        }
        Ok(())
    })?;
    let gpus = jobs.iter().any(|job: &super::Entry| job.gpus() > 0);
    let unit = if gpus { Unit::Gpus } else { Unit::Processors };
    Ok(Trace { file: file.to_owned(), jobs, unit, machine, dropped, synthetic_limits: false })
}

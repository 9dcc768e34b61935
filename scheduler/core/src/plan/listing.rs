//! A plan as lines of text, one for each choice: to be read, and to tell two plans apart.

use muster_model::{NodeId, Slice};

use super::ground::FOREVER;
use super::view::View;
use super::{Plan, Shadow};
use crate::command::StartWish;

/// Starts, promised starts and reasons, each in the order of the plan. Equal plans of one view give
/// equal lines, unequal ones unequal lines.
#[must_use]
pub fn lines(view: &View, plan: &Plan) -> Vec<String> {
    let mut out: Vec<String> = plan.starts.iter().map(|wish| start(view, wish)).collect();
    out.extend(plan.shadows.iter().map(|promised| shadow(view, promised)));
    let jobs = plan.reasons.jobs.iter();
    out.extend(jobs.map(|(job, reason)| format!("job {job} waits: {}", reason.text())));
    // Shapes have no names; they stand in the order of the view's groups.
    for (partition, shapes) in &plan.reasons.shapes {
        let told = shapes.told().iter().enumerate();
        out.extend(told.map(|(at, (_, reason))| {
            format!("shape {at} waits in {partition}: {}", reason.text())
        }));
    }
    out.push(format!("fuel {}{}", plan.fuel_used, if plan.more { ", more to do" } else { "" }));
    out
}

fn name(view: &View, node: NodeId) -> &str {
    view.nodes.get(node.0 as usize).map_or("?", |node| &*node.facts.name)
}

fn start(view: &View, wish: &StartWish) -> String {
    let limit = wish.time_limit.map_or_else(String::new, |s| format!(" for {} s", s.0));
    let slices: Vec<String> =
        wish.placement.slices.iter().map(|slice| self::slice(view, slice)).collect();
    format!("job {} starts in {}{limit} on {}", wish.job, wish.partition, slices.join(" "))
}

fn slice(view: &View, slice: &Slice) -> String {
    let gres = slice.gres.iter().map(|held| {
        let of = held.kind.of.as_deref().map_or_else(String::new, |of| format!(":{of}"));
        format!(",{}{of}:{}={:#x}", held.kind.name, held.count, held.mask)
    });
    format!(
        "{}(cpus={},mem={},tasks={}{})",
        name(view, slice.node),
        slice.cpus,
        slice.memory_mib,
        slice.tasks,
        gres.collect::<String>()
    )
}

fn shadow(view: &View, shadow: &Shadow) -> String {
    let length = match shadow.length {
        FOREVER => "ever".to_owned(),
        ms => format!("{ms} ms"),
    };
    let part = |part: &super::Part| {
        let amounts: Vec<String> =
            part.amounts.iter().map(|(axis, n)| format!("{axis}:{n}")).collect();
        format!("{}({} tasks,{})", name(view, part.node), part.tasks, amounts.join(","))
    };
    let parts: Vec<String> = shadow.parts.iter().map(part).collect();
    let partition = &view.partitions[shadow.partition as usize].partition.name;
    let Shadow { job, start, .. } = shadow;
    format!(
        "job {job} is promised {} ms in {partition} for {length} on {}",
        start.0,
        parts.join(" ")
    )
}

//! Which of its step's GPUs a task sees. Units are the node's; a task near a GPU is one whose CPUs are
//! among those that the driver names for it.

use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{GpuBind, GpuBindKind, StartStep};

use super::cpus;

pub(super) fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..64u32).filter(move |bit| mask >> bit & 1 == 1)
}

/// The step's GPUs on this node.
pub(super) fn of_step(start: &StartStep) -> u64 {
    let gres = start.part.iter().flat_map(|p| p.gres.iter());
    gres.filter(|g| g.kind.as_ref().is_some_and(|k| k.name == "gpu")).fold(0, |m, g| m | g.mask)
}

/// The GPUs of each task, by local id.
///
/// # Errors
/// A binding that names GPUs which the step does not have, or more than it has.
pub(super) fn of_tasks(order: &StepOrder, start: &StartStep) -> Result<Vec<u64>, String> {
    let all = of_step(start);
    let tasks = start.part.as_ref().map_or(0, |part| part.tasks.len());
    let bind = start.gpu_bind.clone().unwrap_or_default();
    let near = || (0..tasks).map(|local| near(order, start, all, local)).collect::<Vec<u64>>();
    Ok(match bind.kind() {
        _ if all == 0 => vec![0; tasks],
        GpuBindKind::All => vec![all; tasks],
        GpuBindKind::Closest => near(),
        GpuBindKind::Single => single(&near(), bind.count.max(1) as usize),
        GpuBindKind::PerTask => per_task(&near(), all, &bind, &order.node)?,
        GpuBindKind::Map | GpuBindKind::Mask => named(order, all, &bind, tasks)?,
    })
}

/// The step's GPUs that are near a task; all of them where none is, or nobody knows.
fn near(order: &StepOrder, start: &StartStep, all: u64, local: usize) -> u64 {
    let Some(mine) = cpus::of_task(start, local).filter(|_| order.bind) else { return all };
    let is_near = |gpu: &u32| {
        let theirs = order.gpu_cpus.get(*gpu as usize).map_or("", String::as_str);
        theirs.is_empty() || cpus::list(theirs).iter().any(|cpu| mine.contains(cpu))
    };
    match bits(all).filter(is_near).fold(0, |mask, gpu| mask | 1 << gpu) {
        0 => all,
        near => near,
    }
}

/// Of the tasks with the same GPUs near them the first `each` get the first of these, the next the
/// second, and so round.
fn single(near: &[u64], each: usize) -> Vec<u64> {
    let of = |(local, mask): (usize, &u64)| {
        let before = near[..local].iter().filter(|other| *other == mask).count();
        let place = before / each % (mask.count_ones().max(1) as usize);
        bits(*mask).nth(place).map_or(0, |gpu| 1 << gpu)
    };
    near.iter().enumerate().map(of).collect()
}

/// Each task its own: first all take from what is near, then those who lack take what is left.
fn per_task(near: &[u64], all: u64, bind: &GpuBind, node: &str) -> Result<Vec<u64>, String> {
    let (tasks, has) = (near.len() as u64, u64::from(all.count_ones()));
    if tasks * u64::from(bind.count) > has {
        return Err(format!(
            "--gpu-bind=per_task:{}: {tasks} tasks on {node} would need {} GPUs, the step has \
             {has} there",
            bind.count,
            tasks * u64::from(bind.count)
        ));
    }
    let mut left = all;
    let mut out = vec![0u64; near.len()];
    let mut take = |mine: &mut u64, from: u64| {
        let lacking = bind.count.saturating_sub(mine.count_ones()) as usize;
        let taken = bits(from & left).take(lacking).fold(0, |mask, gpu| mask | 1 << gpu);
        left &= !taken;
        *mine |= taken;
    };
    out.iter_mut().zip(near).for_each(|(mine, near)| take(mine, *near));
    out.iter_mut().for_each(|mine| take(mine, all));
    Ok(out)
}

/// By lists, which begin anew at their end.
fn named(order: &StepOrder, all: u64, bind: &GpuBind, tasks: usize) -> Result<Vec<u64>, String> {
    let map = bind.kind() == GpuBindKind::Map;
    let count = all.count_ones() as usize;
    let mut out = Vec::new();
    for local in 0..tasks {
        let item = bind.list.get(local % bind.list.len().max(1)).copied().unwrap_or_default();
        let asked = match map {
            true => u32::try_from(item).ok().and_then(|gpu| 1u64.checked_shl(gpu)).unwrap_or(0),
            false => item,
        };
        let mut mask = 0;
        for gpu in bits(asked) {
            let unit = match order.devices_held {
                true => bits(all).nth(gpu as usize),
                false => Some(gpu).filter(|gpu| all >> gpu & 1 == 1),
            };
            let Some(unit) = unit else {
                let has: Vec<String> = match order.devices_held {
                    true => (0..count).map(|n| n.to_string()).collect(),
                    false => bits(all).map(|n| n.to_string()).collect(),
                };
                return Err(format!(
                    "--gpu-bind={}: the step has no GPU {gpu} on {}, it has {}",
                    if map { "map" } else { "mask" },
                    order.node,
                    has.join(",")
                ));
            };
            mask |= 1 << unit;
        }
        out.push(mask);
    }
    Ok(out)
}

/// What a task with `--gpu-bind=verbose,...` is told, in Slurm's form.
pub(super) fn verbose_line(order: &StepOrder, start: &StartStep, mine: u64) -> String {
    let all = of_step(start);
    let list = |local: bool| {
        let number = |gpu: u32| if local { position(all, gpu) } else { gpu };
        bits(mine).map(|gpu| number(gpu).to_string()).collect::<Vec<_>>().join(",")
    };
    format!(
        "gpu-bind: usable_gres=0x{mine:X}; bit_alloc=0x{all:X}; local_inst={}; global_list={}; \
         local_list={}\n",
        mine.count_ones(),
        list(false),
        list(order.devices_held)
    )
}

/// Which one of some units this is.
pub(super) fn position(among: u64, unit: u32) -> u32 {
    bits(among).position(|other| other == unit).map_or(unit, |at| at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::{CpuBind, GresKind, GresMask, NodePart};

    /// Four GPUs, two near each half of eight CPUs; the step has `gpus` and as many tasks as said,
    /// each with its own CPUs.
    fn world(gpus: u64, tasks: u32, cpus: &str, held: bool) -> (StepOrder, StartStep) {
        let near = ["0-3", "0-3", "4-7", "4-7"].map(str::to_owned).to_vec();
        let order = StepOrder {
            bind: true,
            node: "n1".into(),
            gpus_of_slice: 0b1111,
            gpu_cpus: near,
            devices_held: held,
            ..StepOrder::default()
        };
        let kind = Some(GresKind { name: "gpu".into(), of: String::new() });
        let gres = vec![GresMask { kind, mask: gpus, count: gpus.count_ones().into() }];
        let tasks = (0..tasks).collect();
        let part = NodePart { cpus: cpus.into(), tasks, gres, ..NodePart::default() };
        let start = StartStep {
            part: Some(part),
            cpus_per_task: 1,
            cpu_bind: CpuBind::Auto.into(),
            ..StartStep::default()
        };
        (order, start)
    }

    fn bind(kind: GpuBindKind, count: u32, list: &[u64]) -> Option<GpuBind> {
        Some(GpuBind { kind: kind.into(), count, list: list.to_vec(), verbose: false })
    }

    #[track_caller]
    fn check(world: (StepOrder, StartStep), bind: Option<GpuBind>, expected: &[u64]) {
        let (order, mut start) = world;
        start.gpu_bind = bind;
        assert_eq!(of_tasks(&order, &start).unwrap(), expected);
    }

    #[test]
    fn every_task_sees_all_unless_it_is_bound() {
        check(world(0b1110, 2, "0-1", false), None, &[0b1110, 0b1110]);
        check(world(0, 2, "0-1", false), bind(GpuBindKind::PerTask, 1, &[]), &[0, 0]);
    }

    #[test]
    fn the_closest_are_those_of_the_tasks_numa_node() {
        let closest = || bind(GpuBindKind::Closest, 0, &[]);
        check(world(0b1111, 2, "3-4", false), closest(), &[0b0011, 0b1100]);
        check(world(0b0011, 2, "3-4", false), closest(), &[0b0011, 0b0011]);
        let (mut order, start) = world(0b1111, 2, "3-4", false);
        order.gpu_cpus.clear();
        check((order, start), closest(), &[0b1111, 0b1111]);
    }

    #[test]
    fn single_deals_out_what_is_near_in_blocks() {
        let single = |each| bind(GpuBindKind::Single, each, &[]);
        check(world(0b1111, 4, "2-5", false), single(1), &[1, 2, 4, 8]);
        check(world(0b1111, 8, "0-7", false), single(2), &[1, 1, 2, 2, 4, 4, 8, 8]);
        check(world(0b1111, 3, "0-2", false), single(1), &[1, 2, 1]);
        check(world(0b1111, 4, "0-2,4", false), single(1), &[1, 2, 1, 4]);
    }

    #[test]
    fn per_task_shares_none_and_prefers_what_is_near() {
        let each = |n| bind(GpuBindKind::PerTask, n, &[]);
        check(world(0b1111, 2, "4-5", false), each(1), &[4, 8]);
        check(world(0b1111, 3, "4-6", false), each(1), &[4, 8, 1]);
        check(world(0b1111, 2, "0,4", false), each(2), &[0b0011, 0b1100]);
        let (order, mut start) = world(0b0110, 3, "0-2", false);
        start.gpu_bind = each(1);
        assert_eq!(
            of_tasks(&order, &start).unwrap_err(),
            "--gpu-bind=per_task:1: 3 tasks on n1 would need 3 GPUs, the step has 2 there"
        );
    }

    #[test]
    fn lists_count_as_the_tasks_do() {
        let map = |list: &[u64]| bind(GpuBindKind::Map, 0, list);
        let mask = |list: &[u64]| bind(GpuBindKind::Mask, 0, list);
        check(world(0b1100, 3, "0-2", true), map(&[1, 0]), &[8, 4, 8]);
        check(world(0b1100, 3, "0-2", false), map(&[3, 2]), &[8, 4, 8]);
        check(world(0b1100, 2, "0-1", true), mask(&[3, 1]), &[0b1100, 0b0100]);
        check(world(0b1100, 1, "0", false), mask(&[0b1100]), &[0b1100]);
        for (held, said) in [
            (true, "--gpu-bind=map: the step has no GPU 4 on n1, it has 0,1"),
            (false, "--gpu-bind=map: the step has no GPU 4 on n1, it has 2,3"),
        ] {
            let (order, mut start) = world(0b1100, 1, "0", held);
            start.gpu_bind = map(&[4]);
            assert_eq!(of_tasks(&order, &start).unwrap_err(), said);
        }
    }

    #[test]
    fn a_verbose_binding_is_told_in_both_countings() {
        let (order, start) = world(0b1100, 1, "0", true);
        assert_eq!(
            verbose_line(&order, &start, 0b1000),
            "gpu-bind: usable_gres=0x8; bit_alloc=0xC; local_inst=1; global_list=3; local_list=1\n"
        );
    }
}

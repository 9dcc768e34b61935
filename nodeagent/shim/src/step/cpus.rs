//! Which CPUs a task runs on.

use muster_proto::v1::{CpuBind, StartStep};

/// `0-3,8` in numbers; what makes no sense is left out.
pub(super) fn list(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) {
            out.extend(from..=to.min(from + 4095));
        }
    }
    out
}

/// The CPUs of the task with this local id; `None`: wherever the job may run.
pub(super) fn of_task(start: &StartStep, local: usize) -> Option<Vec<usize>> {
    let part = start.part.clone().unwrap_or_default();
    let mine = list(&part.cpus);
    let each = start.cpus_per_task.max(1) as usize;
    let tasks = part.tasks.len();
    let own = || (local + 1) * each <= mine.len();
    let block = || mine[local * each..(local + 1) * each].to_vec();
    let step = || (!mine.is_empty()).then(|| mine.clone());
    match start.cpu_bind() {
        CpuBind::None => None,
        // Where the CPUs go up exactly in tasks, each has its own; else they share the step's.
        CpuBind::Auto if tasks * each == mine.len() && own() => Some(block()),
        CpuBind::Auto => step(),
        CpuBind::Cpus | CpuBind::Rank if own() => Some(block()),
        CpuBind::Cpus | CpuBind::Rank => step(),
        CpuBind::Map => {
            let list = &start.cpu_lists;
            let cpu = list.get(local % list.len().max(1))?.parse().ok()?;
            Some(vec![cpu])
        }
        CpuBind::Mask => {
            let list = &start.cpu_lists;
            let text = list.get(local % list.len().max(1))?;
            let mask = u128::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
            Some((0..128).filter(|cpu| mask >> cpu & 1 == 1).collect())
        }
    }
}

/// The mask as Slurm writes it.
pub(super) fn mask(cpus: &[usize]) -> String {
    let digits = cpus.iter().max().map_or(1, |most| most / 4 + 1);
    let mut nibbles = vec![0u8; digits];
    for cpu in cpus {
        nibbles[cpu / 4] |= 1 << (cpu % 4);
    }
    nibbles.iter().rev().fold("0x".to_owned(), |text, nibble| format!("{text}{nibble:x}"))
}

const WORDS: usize = 64;

/// The CPUs as the kernel wants them.
pub(super) fn bits(cpus: &[usize]) -> [u64; WORDS] {
    let mut bits = [0u64; WORDS];
    for cpu in cpus.iter().filter(|cpu| **cpu < WORDS * 64) {
        bits[cpu / 64] |= 1 << (cpu % 64);
    }
    bits
}

/// Binds the calling process. CPUs that the job does not have are the kernel's to refuse.
pub(super) fn bind(cpus: &[usize]) -> std::io::Result<()> {
    let bits = bits(cpus);
    // SAFETY: the kernel reads as many bytes as it is told are there.
    let done =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&bits), bits.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::NodePart;

    #[track_caller]
    fn check(cpus: &str, tasks: u32, each: u32, bind: CpuBind, local: usize, expected: &[usize]) {
        let part =
            NodePart { cpus: cpus.into(), tasks: (0..tasks).collect(), ..NodePart::default() };
        let start = StartStep {
            part: Some(part),
            cpus_per_task: each,
            cpu_bind: bind.into(),
            cpu_lists: vec!["3".into(), "0".into()],
            ..StartStep::default()
        };
        assert_eq!(of_task(&start, local).unwrap_or_default(), expected);
    }

    #[test]
    fn tasks_get_their_own_cpus_where_they_go_up_exactly() {
        check("0-3", 2, 2, CpuBind::Auto, 1, &[2, 3]);
        check("4,6-7", 3, 1, CpuBind::Auto, 2, &[7]);
        check("0-3", 3, 1, CpuBind::Auto, 1, &[0, 1, 2, 3]);
        check("0-3", 3, 1, CpuBind::Cpus, 1, &[1]);
        check("0-3", 2, 2, CpuBind::None, 1, &[]);
        check("0-3", 4, 1, CpuBind::Map, 3, &[0]);
        check("", 1, 1, CpuBind::Auto, 0, &[]);
    }

    #[test]
    fn masks_are_written_in_hex() {
        assert_eq!(mask(&[0, 1]), "0x3");
        assert_eq!(mask(&[4, 65]), "0x20000000000000010");
        assert_eq!(mask(&[]), "0x0");
    }
}

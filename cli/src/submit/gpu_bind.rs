//! `--gpu-bind`: which of its step's GPUs each task sees. Jobs are checked at submission; steps follow
//! it.

use muster_proto::v1::{GpuBind, GpuBindKind};

use super::Fault;

/// So many items a list may have once its repetitions (`0*4`) are written out: more tasks than any
/// node starts.
const MAX_ITEMS: usize = 4096;

/// Reads `[verbose,]closest`, `none`, `single:N`, `per_task:N`, `map[_gpu]:LIST`, `mask[_gpu]:LIST`.
/// Masks are hexadecimal; `item*n` stands for `n` times the item.
///
/// # Errors
/// Anything else, in Slurm's words.
pub fn read(text: &str) -> Result<GpuBind, Fault> {
    parse(text)
        .ok_or_else(|| Fault::Option(format!("Invalid --gpu-bind argument: gpu:{}", text.trim())))
}

/// `--tres-bind=gres/gpu:closest`, another spelling of it; other kinds of GRES are not bound.
///
/// # Errors
/// What cannot be read.
pub fn read_tres(text: &str) -> Result<GpuBind, Fault> {
    let bind = text.strip_prefix("gres/gpu:").or(text.strip_prefix("gres:gpu:"));
    bind.and_then(parse)
        .ok_or_else(|| Fault::Option(format!("Invalid --tres-bind argument: {}", text.trim())))
}

fn parse(text: &str) -> Option<GpuBind> {
    let lower = text.trim().to_ascii_lowercase();
    let plain = lower.strip_prefix("verbose,").or(lower.strip_prefix("v,"));
    let (verbose, plain) = (plain.is_some(), plain.unwrap_or(&lower));
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0);
    let (kind, count, list) = match plain.split_once(':') {
        None if plain == "closest" => (GpuBindKind::Closest, 0, Vec::new()),
        None if plain == "none" => (GpuBindKind::All, 0, Vec::new()),
        None => return None,
        Some(("single", n)) => (GpuBindKind::Single, number(n)?, Vec::new()),
        Some(("per_task", n)) => (GpuBindKind::PerTask, number(n)?, Vec::new()),
        Some(("map" | "map_gpu", list)) => {
            let gpu = |item: &str| item.parse().ok().filter(|gpu| *gpu < 64);
            (GpuBindKind::Map, 0, items(list, gpu)?)
        }
        Some(("mask" | "mask_gpu", list)) => {
            let hex = |item: &str| item.strip_prefix("0x").unwrap_or(item).to_owned();
            let mask = |item: &str| u64::from_str_radix(&hex(item), 16).ok().filter(|m| *m != 0);
            (GpuBindKind::Mask, 0, items(list, mask)?)
        }
        Some(_) => return None,
    };
    Some(GpuBind { kind: kind.into(), count, list, verbose })
}

fn items(list: &str, read: impl Fn(&str) -> Option<u64>) -> Option<Vec<u64>> {
    let mut out = Vec::new();
    for item in list.split(',') {
        let (item, times) = item.split_once('*').unwrap_or((item, "1"));
        let times = times.parse::<usize>().ok().filter(|n| (1..=MAX_ITEMS).contains(n))?;
        out.extend(std::iter::repeat_n(read(item)?, times));
        if out.len() > MAX_ITEMS {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kind: GpuBindKind, count: u32, list: &[u64]) {
        let bind = read(text).unwrap();
        assert_eq!((bind.kind(), bind.count, bind.list.as_slice()), (kind, count, list), "{text}");
        assert_eq!(bind.verbose, text.starts_with('v'), "{text}");
    }

    #[test]
    fn bindings_are_read_in_their_spellings() {
        check("closest", GpuBindKind::Closest, 0, &[]);
        check("v,closest", GpuBindKind::Closest, 0, &[]);
        check("verbose,none", GpuBindKind::All, 0, &[]);
        check("single:2", GpuBindKind::Single, 2, &[]);
        check("per_task:1", GpuBindKind::PerTask, 1, &[]);
        check("map:3,0*2", GpuBindKind::Map, 0, &[3, 0, 0]);
        check("map_gpu:1", GpuBindKind::Map, 0, &[1]);
        check("mask_gpu:0x3,C", GpuBindKind::Mask, 0, &[3, 12]);
        let bad = [
            "",
            "foo",
            "single",
            "single:0",
            "single:x",
            "map:",
            "map:64",
            "map:-1",
            "map:0*0",
            "mask:0",
            "mask:g",
            "mask:0x",
            "map:0*9999",
            "map:0*4000,1*4000",
            "per_task:",
        ];
        for text in bad {
            assert!(matches!(read(text), Err(Fault::Option(_))), "{text}");
        }
    }

    #[test]
    fn the_other_spelling_names_the_kind() {
        assert_eq!(read_tres("gres/gpu:single:2").unwrap(), read("single:2").unwrap());
        assert!(read_tres("gres/shard:single:2").is_err() && read_tres("closest").is_err());
    }
}

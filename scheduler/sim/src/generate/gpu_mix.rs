//! A GPU cluster's jobs: many small ones that try something out, few large ones that take most of
//! the GPUs, as published traces of such clusters have it (most jobs ask for one GPU; jobs of a
//! node and more take most GPU hours). The numbers are our own, below.
//!
//! Jobs of up to 8 GPUs fit on a node, larger ones are gangs of whole nodes. Run times are
//! log-normal, longer for larger jobs. Arrivals are a Poisson stream, three times as dense at the
//! top of the day as at night.

use std::f64::consts::TAU;

use crate::dice::Dice;
use crate::replay::trace::{MUSTER_HEADER, synthetic_limit};

use super::chance::{exponential, normal, unit};
use super::{Made, stretch};

const GPUS_PER_NODE: u32 = 8;
const CPUS_PER_GPU: u32 = 12;
const USERS: u64 = 40;

/// GPUs, how many of a thousand jobs ask for so many, and the median of their run times in minutes.
const SIZES: &[(u32, u64, f64)] = &[
    (1, 560, 12.0),
    (2, 120, 20.0),
    (4, 120, 40.0),
    (8, 130, 75.0),
    (16, 35, 120.0),
    (32, 20, 180.0),
    (64, 10, 240.0),
    (128, 5, 300.0),
];

/// Standard deviation of the logarithm of the run time: the mean is 4.5 medians.
const SPREAD: f64 = 1.73;
/// Runs are between ten seconds and a week.
const RUN: (f64, f64) = (10.0, 604_800.0);

pub(super) fn trace(seed: u64, count: u32, nodes: u32, load: f64) -> String {
    let mut dice = Dice::new(seed);
    let gpus = nodes.saturating_mul(GPUS_PER_NODE);
    let mut now = 0.0;
    let mut jobs: Vec<Made> = Vec::new();
    for number in 0..count {
        now = next(&mut dice, now);
        let (size, median) = kind(&mut dice, gpus);
        let run = (median * 60.0 * (SPREAD * normal(&mut dice)).exp()).clamp(RUN.0, RUN.1) as i64;
        let limit = synthetic_limit(u64::from(number) + 1, run);
        let user = dice.below(USERS) as u32 + 1;
        jobs.push(Made { submit: now, run, size, limit, user });
    }
    stretch(&mut jobs, f64::from(gpus), load);
    let mut out = format!("{MUSTER_HEADER}\n");
    for (number, job) in (1..).zip(&jobs) {
        let Made { submit, run, size, limit, user } = *job;
        let (submit, gang) = (submit as i64, size.div_ceil(GPUS_PER_NODE));
        let node = CPUS_PER_GPU * GPUS_PER_NODE;
        out.push_str(&format!(
            "{number},{submit},{run},{limit},{user},{gang},{size},{CPUS_PER_GPU},1,,{nodes},{node},\
             {GPUS_PER_NODE}\n"
        ));
    }
    out
}

/// GPUs and the median run time in minutes; never more than a quarter of the machine, or a node.
fn kind(dice: &mut Dice, gpus: u32) -> (u32, f64) {
    let most = (gpus / 4).max(GPUS_PER_NODE.min(gpus));
    let sizes = SIZES.iter().filter(|(size, _, _)| *size <= most);
    let all: u64 = sizes.clone().map(|(_, share, _)| share).sum();
    let mut drawn = dice.below(all.max(1));
    for (size, share, median) in sizes {
        if drawn < *share {
            return (*size, *median);
        }
        drawn -= share;
    }
    (1, SIZES[0].2)
}

/// The next arrival, by thinning a stream of one a minute.
fn next(dice: &mut Dice, mut now: f64) -> f64 {
    loop {
        now += exponential(dice, 60.0);
        let hour = (now / 3600.0) % 24.0;
        // Three times as many at 15 h as at 3 h.
        let density = (2.0 + ((hour - 15.0) / 24.0 * TAU).cos()) / 3.0;
        if unit(dice) < density {
            return now;
        }
    }
}

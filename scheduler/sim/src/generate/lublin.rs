//! The model of Lublin and Feitelson, "The workload on parallel supercomputers: modeling the
//! characteristics of rigid jobs", JPDC 63(11), 2003, with its parameters for all jobs together
//! (the program `lublin99` published with it has the same).
//!
//! Sizes: a share is serial; the logarithm of the others is two-stage uniform, and a share of those
//! is rounded to a power of two. Run times: the logarithm is a mixture of two gammas whose weight
//! depends on the size. Arrivals: the logarithm of the gaps is gamma, and time runs faster in the
//! hours in which more jobs come.
//!
//! The model has no estimates: limits are made up as for traces without any.

use crate::dice::Dice;
use crate::replay::trace::synthetic_limit;

use super::chance::{between, gamma, unit};
use super::{Made, stretch};

const SERIAL: f64 = 0.244;
const POWER_OF_TWO: f64 = 0.576;
/// Logarithms to base 2: of the smallest parallel job, and how far the knee lies below the largest
/// (the paper: 1.5 to 3.5).
const SIZE_LOW: f64 = 0.8;
const KNEE_BELOW: f64 = 2.5;
/// Of parallel jobs, below the knee.
const SMALL: f64 = 0.86;

/// Shape and scale of the two gammas of the logarithm of the run time.
const SHORT: (f64, f64) = (4.2, 0.94);
const LONG: (f64, f64) = (312.0, 0.03);
/// The weight of the short ones: a slope by size, and what it starts from.
const WEIGHT: (f64, f64) = (-0.0054, 0.78);
/// Longer runs are thrown again, as a logarithm: 46 hours.
const MOST_RUN: f64 = 12.0;

/// Shape and scale of the logarithm of the gap at rush hour, and what the shape is multiplied by
/// for all hours.
const GAP: (f64, f64) = (10.2303, 0.4871);
const ALL_HOURS: f64 = 1.0225;
/// Longer gaps are thrown again, as a logarithm: five days.
const MOST_GAP: f64 = 13.0;
/// Shape and scale of how arrivals spread over the day, in half hours from half past five on.
const DAY: (f64, f64) = (8.1737, 3.9631);
const BUCKETS: usize = 48;
const FIRST_BUCKET: usize = 11;
const BUCKET_SECONDS: f64 = 1800.0;

pub(super) fn trace(seed: u64, count: u32, processors: u32, load: Option<f64>) -> String {
    let mut dice = Dice::new(seed);
    let weights = weights();
    let mut points = 0.0;
    let mut jobs: Vec<Made> = Vec::new();
    for number in 0..count {
        points += gap(&mut dice) / BUCKET_SECONDS;
        let size = size(&mut dice, processors);
        let run = run(&mut dice, size);
        let limit = synthetic_limit(u64::from(number) + 1, run);
        let user = dice.below(50) as u32 + 1;
        jobs.push(Made { submit: when(&weights, points), run, size, limit, user });
    }
    if let Some(load) = load {
        stretch(&mut jobs, f64::from(processors), load);
    }
    text(seed, processors, &jobs)
}

fn text(seed: u64, processors: u32, jobs: &[Made]) -> String {
    let mut out = format!(
        "; Version: 2.2\n; Computer: made up by muster sim generate lublin --seed {seed}\n\
         ; MaxJobs: {}\n; MaxProcs: {processors}\n; Note: field 9 is made up\n",
        jobs.len()
    );
    for (number, job) in (1..).zip(jobs) {
        let Made { submit, run, size, limit, user } = *job;
        let submit = submit as i64;
        out.push_str(&format!(
            "{number} {submit} -1 {run} {size} -1 -1 {size} {limit} -1 1 {user} -1 -1 -1 -1 -1 -1\n"
        ));
    }
    out
}

fn size(dice: &mut Dice, processors: u32) -> u32 {
    let kind = unit(dice);
    if kind <= SERIAL || processors == 1 {
        return 1;
    }
    let high = f64::from(processors).log2();
    let low = SIZE_LOW.min(high);
    let knee = (high - KNEE_BELOW).max(low);
    let exponent = match unit(dice) <= SMALL {
        true => between(dice, low, knee),
        false => between(dice, knee, high),
    };
    let exponent = if kind <= SERIAL + POWER_OF_TWO { exponent.round() } else { exponent };
    (exponent.exp2().round() as u32).clamp(1, processors)
}

/// Seconds.
fn run(dice: &mut Dice, size: u32) -> i64 {
    let short = (WEIGHT.0 * f64::from(size) + WEIGHT.1).clamp(0.0, 1.0);
    loop {
        let (shape, scale) = if unit(dice) <= short { SHORT } else { LONG };
        let logarithm = gamma(dice, shape, scale);
        if logarithm <= MOST_RUN {
            return (logarithm.exp() as i64).max(1);
        }
    }
}

/// Seconds, at an hour like the average one.
fn gap(dice: &mut Dice) -> f64 {
    loop {
        let logarithm = gamma(dice, GAP.0 * ALL_HOURS, GAP.1);
        if logarithm <= MOST_GAP {
            return logarithm.exp();
        }
    }
}

/// How many more jobs than on average come in each half hour from midnight on; 1 on average.
fn weights() -> [f64; BUCKETS] {
    let (shape, scale) = DAY;
    let density = |x: f64| x.powf(shape - 1.0) * (-x / scale).exp();
    let mut weights = [0.0; BUCKETS];
    for i in FIRST_BUCKET..FIRST_BUCKET + BUCKETS {
        // The area under the density, which is smooth, by ten midpoints.
        let middles = (0..10).map(|n| i as f64 - 0.5 + (f64::from(n) + 0.5) / 10.0);
        weights[(i - 1) % BUCKETS] = middles.map(density).sum::<f64>();
    }
    let mean = weights.iter().sum::<f64>() / BUCKETS as f64;
    weights.map(|weight| weight / mean)
}

/// The second by which so many points of weight have passed since a midnight.
fn when(weights: &[f64; BUCKETS], points: f64) -> f64 {
    let days = (points / BUCKETS as f64).floor();
    let mut left = points - days * BUCKETS as f64;
    let mut buckets = days * BUCKETS as f64;
    for weight in weights {
        if left < *weight {
            buckets += left / weight;
            break;
        }
        left -= weight;
        buckets += 1.0;
    }
    buckets * BUCKET_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_run_times_have_the_shares_of_the_paper() {
        let mut dice = Dice::new(5);
        let sizes: Vec<u32> = (0..20_000).map(|_| size(&mut dice, 128)).collect();
        let share = |holds: fn(&&u32) -> bool| sizes.iter().filter(holds).count() as f64 / 2e4;
        // Some that are no powers of two by choice round to 1.
        assert!((0.235..0.265).contains(&share(|s| **s == 1)));
        assert!(share(|s| s.is_power_of_two()) > SERIAL + POWER_OF_TWO - 0.02);
        assert!(sizes.iter().all(|s| *s <= 128) && sizes.contains(&128));
        let mean = |dice: &mut Dice, size| {
            (0..20_000).map(|_| (run(dice, size) as f64).ln()).sum::<f64>() / 2e4
        };
        // Means of the gammas: 3.95 and 9.36, by a weight of 0.78 for small jobs, 0.43 for 64.
        let (small, large) = (mean(&mut dice, 1), mean(&mut dice, 64));
        assert!((4.7..5.5).contains(&small), "{small}");
        assert!((6.5..7.4).contains(&large), "{large}");
    }

    #[test]
    fn most_jobs_come_by_day() {
        let weights = weights();
        let (night, noon) = (weights[2 * 4], weights[2 * 14]);
        assert!(noon > 3.0 * night, "{noon} {night}");
        assert!((when(&weights, 48.0) - 86_400.0).abs() < 1.0);
    }
}

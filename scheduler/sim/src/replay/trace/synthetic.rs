//! Time limits for traces whose users gave none.
//!
//! A made-up user asks for 1.05, 1.5, 3 or 10 times the run time (by a hash of the job's number),
//! rounded up to a limit that people type: most jobs end long before their limit, as in every log
//! that has real ones.

/// Limits that people type, seconds: 10 min to 60 d.
const LADDER: &[i64] = &[
    600, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800, 259_200, 604_800, 1_209_600,
    2_592_000, 5_184_000,
];

/// The limit that the user of this job asked for.
pub(crate) fn limit(id: u64, run: i64) -> i64 {
    // Hundredths.
    let factor = [105, 150, 300, 1000][(mixed(id) % 4) as usize];
    let wanted = run.saturating_mul(factor) / 100;
    let step = LADDER.iter().copied().find(|step| *step >= wanted);
    step.unwrap_or(wanted).max(run)
}

/// The finaliser of splitmix64.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

//! The key of the default order, in numbers.

use super::*;

/// How many milliseconds `of` times the run time weigh on a cluster of such long waits.
fn worth(long_wait: u64, of: u64) -> i64 {
    let octaves = i128::from(log2(of)) * LN_2 / i128::from(OCTAVE);
    i64::try_from(i128::from(fold_ms(long_wait)) * octaves / i128::from(OCTAVE)).expect("small")
}

#[test]
fn the_fold_follows_the_waits_between_80_minutes_and_400() {
    assert_eq!(fold_ms(0), 4_800_000);
    assert_eq!(fold_ms(60_000), 12_000_000);
    assert_eq!(fold_ms(u64::MAX), 24_000_000);
}

#[test]
fn e_times_the_run_time_weighs_one_fold() {
    // 2.718^10 = 22,026.
    let (ten_folds, fold) = (worth(60_000, 22_026), fold_ms(60_000));
    assert!((ten_folds - 10 * fold).abs() < fold / 100, "{ten_folds}");
}

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

#[test]
fn heads_come_in_their_order_whenever_they_were_added() {
    let turn = |priority: u32| Turn {
        tier: 1,
        priority,
        score: Score(0),
        first: Reverse((Timestamp(0), JobId(priority))),
        group: Reverse(0),
    };
    let mut turns: Turns = [5, 9, 1, 7].map(turn).into_iter().collect();
    let mut seen = Vec::new();
    // Behind each head comes one that is three less; the group's next head is never before it.
    while let Some(next) = turns.pop() {
        seen.push(next.priority);
        if next.priority > 3 {
            turns.push(turn(next.priority - 3));
        }
    }
    assert_eq!(seen, [9, 7, 6, 5, 4, 3, 2, 1, 1]);
}

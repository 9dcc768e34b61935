//! Utilisation and demand over time, and waits by size.

use std::fmt::Write;

use super::svg::{WIDTH, area, frame};
use super::{Bar, CLASSES, class_of};

/// Averages over this many columns.
const COLUMNS: usize = WIDTH / 2;
const HEIGHT: usize = 150;

/// The average of what the intervals (from, to, amount) add up to, in each column.
fn averages(
    intervals: impl Iterator<Item = (i64, i64, u64)>,
    from: i64,
    to: i64,
    columns: usize,
) -> Vec<f64> {
    let span = (to - from).max(1) as f64;
    // Amounts in the columns that are covered whole, as differences; parts apart.
    let (mut whole, mut parts) = (vec![0.0; columns + 1], vec![0.0; columns + 1]);
    let place = |at: i64| (at.clamp(from, to) - from) as f64 / span * columns as f64;
    for (begin, end, amount) in intervals {
        let (begin, end, amount) = (place(begin), place(end), amount as f64);
        let (first, last) = (begin as usize, end as usize);
        if first == last {
            parts[first] += amount * (end - begin);
            continue;
        }
        parts[first] += amount * (first as f64 + 1.0 - begin);
        parts[last] += amount * (end - last as f64);
        whole[first + 1] += amount;
        whole[last] -= amount;
    }
    let mut level = 0.0;
    let sum = |(difference, part): (&f64, &f64)| {
        level += difference;
        level + part
    };
    whole.iter().zip(&parts).take(columns).map(sum).collect()
}

pub(super) fn utilisation(bars: &[Bar], capacity: u64, from: i64, to: i64) -> String {
    let held = bars.iter().map(|bar| (bar.start, bar.end, bar.size));
    let mut shares = averages(held, from, to, COLUMNS);
    shares.iter_mut().for_each(|share| *share /= capacity.max(1) as f64);
    let labels: Vec<(f64, String)> =
        (0..=4).map(|n| (f64::from(n) / 4.0, format!("{} %", n * 25))).collect();
    frame(HEIGHT, from, to, &labels, &area(&shares, HEIGHT, "#6baed6"))
}

pub(super) fn waiting(bars: &[Bar], from: i64, to: i64) -> String {
    let waits = bars.iter().map(|bar| (bar.submit, bar.start, bar.size));
    let mut demand = averages(waits, from, to, COLUMNS);
    let most = demand.iter().copied().fold(1.0, f64::max);
    demand.iter_mut().for_each(|amount| *amount /= most);
    let label = |n: i32| (f64::from(n) / 4.0, format!("{:.0}", most * f64::from(n) / 4.0));
    let labels: Vec<(f64, String)> = (0..=4).map(label).collect();
    frame(HEIGHT, from, to, &labels, &area(&demand, HEIGHT, "#fd8d3c"))
}

/// The day in which waiting jobs ask for most.
pub(super) fn fullest_day(bars: &[Bar], from: i64, to: i64) -> (i64, i64) {
    const DAY: i64 = 86_400;
    let days = usize::try_from((to - from) / DAY + 1).unwrap_or(1).min(100_000);
    let until = from.saturating_add(DAY.saturating_mul(days as i64));
    let waits = bars.iter().map(|bar| (bar.submit, bar.start, bar.size));
    let demand = averages(waits, from, until, days);
    let fullest = (0..days).max_by(|a, b| demand[*a].total_cmp(&demand[*b]).then(b.cmp(a)));
    let begin = from + DAY * fullest.unwrap_or(0) as i64;
    (begin, (begin + DAY).min(to.max(begin + 1)))
}

/// A table: for each class of sizes how long half, 95 % and the unluckiest waited, with bars on a
/// logarithmic scale.
pub(super) fn waits(bars: &[Bar], what: &str) -> String {
    let mut of: Vec<Vec<i64>> = vec![Vec::new(); CLASSES.len()];
    for bar in bars {
        of[class_of(bar.size)].push(bar.start - bar.submit);
    }
    let mut inner = String::new();
    let most = of.iter().flatten().copied().max().unwrap_or(0).max(10) as f64;
    let x = |wait: i64| (1.0 + wait.max(0) as f64).ln() / (1.0 + most).ln() * 640.0;
    for (at, (class, waits)) in CLASSES.iter().zip(&mut of).enumerate() {
        waits.sort_unstable();
        let rank = |percent: usize| -> i64 {
            let at = (waits.len() * percent).div_ceil(100).max(1) - 1;
            waits.get(at).copied().unwrap_or(0)
        };
        let (half, most_of, all, y) = (rank(50), rank(95), rank(100), at * 30);
        let _ = write!(
            inner,
            "<text x=\"0\" y=\"{t}\">{name} {what}, {n} jobs</text>\
             <rect x=\"220\" y=\"{y}\" width=\"{w100:.1}\" height=\"18\" fill=\"#fee6ce\"/>\
             <rect x=\"220\" y=\"{y}\" width=\"{w95:.1}\" height=\"18\" fill=\"#fdae6b\"/>\
             <rect x=\"220\" y=\"{y}\" width=\"{w50:.1}\" height=\"18\" fill=\"#e6550d\"/>\
             <text x=\"870\" y=\"{t}\">{half} s / {most_of} s / {all} s</text>",
            t = y + 13,
            name = class.1,
            n = waits.len(),
            w50 = x(half),
            w95 = x(most_of),
            w100 = x(all),
        );
    }
    format!(
        "<p>Half of the jobs, 95 % and all waited at most (logarithmic scale).</p>\
         <svg viewBox=\"0 0 1060 {}\" role=\"img\">{inner}</svg>",
        CLASSES.len() * 30
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_keep_the_area() {
        let intervals = [(0, 100, 3), (15, 17, 10), (40, 100, 1)];
        let columns = averages(intervals.into_iter(), 0, 100, 10);
        let area: f64 = columns.iter().sum::<f64>() * 10.0;
        assert!((area - (300.0 + 20.0 + 60.0)).abs() < 1e-9, "{columns:?}");
        assert!((columns[1] - 5.0).abs() < 1e-9 && (columns[9] - 4.0).abs() < 1e-9, "{columns:?}");
    }

    #[test]
    fn the_fullest_day_is_the_one_with_most_waiting() {
        let bar = |submit, start| Bar { submit, start, end: start + 5, size: 4 };
        let bars = [bar(0, 10), bar(90_000, 150_000), bar(400_000, 400_000)];
        assert_eq!(fullest_day(&bars, 0, 400_005), (86_400, 172_800));
    }
}

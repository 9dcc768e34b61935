//! The Gantt chart: time from left to right, processors from top to bottom, a job's colour by its
//! size.
//!
//! Jobs are laid on the lowest free processors, one job after the other as they start. A drawing
//! has at most [`ROWS`] rows and [`super::svg::WIDTH`] columns: each cell shows who sits on the
//! row's middle processor in the column's middle second.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::svg::{WIDTH, cells, frame};
use super::{Bar, CLASSES, class_of};

/// Rows at most, and the height of the drawing.
const ROWS: u64 = 120;
const HEIGHT: usize = 360;
/// Processors at most that are laid out one by one; larger machines are laid out in bundles.
const LANES: u64 = 4096;

pub(super) fn chart(bars: &[Bar], capacity: u64, from: i64, to: i64) -> String {
    let capacity = capacity.max(1);
    let bundle = capacity.div_ceil(LANES);
    let lanes = capacity.div_ceil(bundle);
    let rows = lanes.min(ROWS);
    // The lane that each row shows, and back.
    let shown: Vec<u64> = (0..rows).map(|row| (2 * row + 1) * lanes / (2 * rows)).collect();
    let row_of = |lane: u64| shown.binary_search(&lane).ok();
    let mut grid = vec![vec![None; WIDTH]; rows as usize];
    let span = (to - from).max(1);
    let column = |at: i64| -> usize {
        // The first column whose middle is not before `at`.
        let at = (at.clamp(from, to) - from) as f64 / span as f64 * WIDTH as f64;
        ((at - 0.5).ceil().max(0.0) as usize).min(WIDTH)
    };
    let mut order: Vec<usize> = (0..bars.len()).collect();
    order.sort_unstable_by_key(|at| (bars[*at].start, *at));
    let mut free: BTreeSet<u64> = (0..lanes).collect();
    let mut ends: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut held: Vec<Vec<u64>> = vec![Vec::new(); bars.len()];
    for at in order {
        let bar = bars[at];
        while let Some(Reverse((end, job))) = ends.peek().copied()
            && end <= bar.start
        {
            free.extend(held[job].drain(..));
            ends.pop();
        }
        let wanted = usize::try_from(bar.size.div_ceil(bundle)).unwrap_or(usize::MAX);
        let taken: Vec<u64> = free.iter().copied().take(wanted).collect();
        let (first, last) = (column(bar.start), column(bar.end));
        for lane in &taken {
            free.remove(lane);
            if let Some(row) = row_of(*lane) {
                grid[row][first..last.max(first)].fill(Some(class_of(bar.size)));
            }
        }
        held[at] = taken;
        ends.push(Reverse((bar.end, at)));
    }
    draw(&grid, lanes * bundle, from, to)
}

fn draw(grid: &[Vec<Option<usize>>], capacity: u64, from: i64, to: i64) -> String {
    let row_height = (HEIGHT / grid.len().max(1)).max(1);
    let height = row_height * grid.len();
    let mut found = Vec::new();
    for (row, line) in grid.iter().enumerate() {
        let mut at = 0;
        for run in line.chunk_by(|a, b| a == b) {
            if let Some(class) = run[0] {
                found.push((class, at, row * row_height, run.len()));
            }
            at += run.len();
        }
    }
    let colours: Vec<&str> = CLASSES.iter().map(|(_, _, colour)| *colour).collect();
    let labels = [(1.0, "1".to_owned()), (0.0, capacity.to_string())];
    frame(height, from, to, &labels, &cells(&found, row_height, &colours))
}

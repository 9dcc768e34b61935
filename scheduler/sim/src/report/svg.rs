//! Drawing: a frame with axes, areas under steps, cells.

use std::fmt::Write;

/// The inner size of every plot in units of the drawing, and its margins.
pub(super) const WIDTH: usize = 1000;
const LEFT: usize = 52;
const TOP: usize = 8;
const BOTTOM: usize = 22;

/// A plot of this height around `inner`, whose coordinates begin at the frame's upper left corner.
/// `y`: labels at heights from 0 (bottom) to 1.
pub(super) fn frame(height: usize, from: i64, to: i64, y: &[(f64, String)], inner: &str) -> String {
    let (all_width, all_height) = (WIDTH + LEFT + 8, height + TOP + BOTTOM);
    let mut out = format!(
        "<svg viewBox=\"0 0 {all_width} {all_height}\" role=\"img\"><g transform=\"translate({LEFT} {TOP})\">"
    );
    for (at, label) in y {
        let y = height as f64 * (1.0 - at);
        let _ = write!(
            out,
            "<path d=\"M0 {y:.1}H{WIDTH}\" stroke=\"#ddd\"/>\
             <text x=\"-5\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            y + 4.0
        );
    }
    out.push_str(inner);
    for (x, label) in times(from, to) {
        let _ = write!(
            out,
            "<path d=\"M{x:.1} {height}v4\" stroke=\"#888\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            height + 16
        );
    }
    let _ =
        write!(out, "<path d=\"M0 0V{height}H{WIDTH}\" fill=\"none\" stroke=\"#888\"/></g></svg>");
    out
}

/// Where round times stand, and how they read.
fn times(from: i64, to: i64) -> Vec<(f64, String)> {
    const STEPS: &[i64] = &[60, 600, 3600, 10_800, 86_400, 604_800, 2_592_000, 31_536_000];
    let span = (to - from).max(1);
    let step = STEPS.iter().copied().find(|step| span / step <= 12).unwrap_or(span / 10 + 1);
    let first = from.div_euclid(step) + i64::from(from.rem_euclid(step) > 0);
    let mut out = Vec::new();
    for at in (first..).map(|n| n * step).take_while(|at| *at <= to) {
        let x = (at - from) as f64 / span as f64 * WIDTH as f64;
        let label = match step {
            86_400.. => format!("day {}", at / 86_400),
            _ => format!("{}:{:02}", at / 3600, at / 60 % 60),
        };
        out.push((x, label));
    }
    out
}

/// The area under values from 0 to 1, one a column.
pub(super) fn area(values: &[f64], height: usize, colour: &str) -> String {
    let mut path = format!("M0 {height}");
    let width = WIDTH as f64 / values.len().max(1) as f64;
    for (at, value) in values.iter().enumerate() {
        let y = height as f64 * (1.0 - value.clamp(0.0, 1.0));
        let _ = write!(path, "L{:.1} {y:.1}H{:.1}", at as f64 * width, (at + 1) as f64 * width);
    }
    format!("<path d=\"{path}V{height}Z\" fill=\"{colour}\"/>")
}

/// Cells of one colour each, as one path a colour: (colour, x, y, width).
pub(super) fn cells(
    cells: &[(usize, usize, usize, usize)],
    row: usize,
    colours: &[&str],
) -> String {
    let mut paths = vec![String::new(); colours.len()];
    for (colour, x, y, width) in cells {
        let _ = write!(paths[*colour], "M{x} {y}h{width}v{row}h-{width}z");
    }
    let mut out = String::new();
    for (path, colour) in paths.iter().zip(colours).filter(|(path, _)| !path.is_empty()) {
        let _ = write!(out, "<path d=\"{path}\" fill=\"{colour}\"/>");
    }
    out
}

//! Logarithms in whole numbers, the same on every machine: binary, in 65536ths, and steps of an
//! eighth of an octave.

/// One octave, in the units of [`log2`].
pub(crate) const OCTAVE: u64 = 1 << 16;

/// 2 to the power of 0/8 ..= 7/8, in 65536ths.
const EIGHTHS: [u64; 8] = [65_536, 71_468, 77_936, 84_990, 92_682, 101_070, 110_218, 120_194];

/// The binary logarithm in 65536ths, by repeated squaring; 0 counts as 1.
pub(crate) fn log2(n: u64) -> u64 {
    let whole = n.max(1).ilog2();
    // The mantissa in 1..2, with 31 bits behind the point.
    let mut mantissa = u64::try_from((u128::from(n.max(1)) << 31) >> whole).unwrap_or(1 << 31);
    let mut out = u64::from(whole);
    // Without branches: no processor could foresee them, and every pass asks for thousands.
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        let bit = mantissa >> 32;
        mantissa >>= bit;
        out = out << 1 | bit;
    }
    out
}

/// 2 to the power of `eighths / 8`, rounded down; at most 2^40.
pub(crate) fn exp2(eighths: u64) -> u64 {
    let octaves = (eighths / 8).min(40);
    (EIGHTHS[usize::try_from(eighths % 8).expect("below 8")] << octaves) >> 16
}

/// The nearest quarter of an octave: values within some 9 % of each other become equal.
pub(crate) fn quarter(n: u64) -> u64 {
    exp2((4 * log2(n) + OCTAVE / 2) / OCTAVE * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_its_last_place() {
        for n in [1u64, 2, 3, 10, 600, 86_400, 1 << 40, u64::MAX] {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            let exact = ((n as f64).log2() * 65_536.0).floor();
            #[allow(clippy::cast_precision_loss)]
            let ours = log2(n) as f64;
            assert!((ours - exact).abs() <= 1.0, "{n}: {ours} for {exact}");
        }
    }

    #[test]
    fn a_quarter_of_an_octave_is_near_and_stays_where_it_is() {
        for n in (60..4_000).chain([86_400, 604_800, 31_536_000, u64::from(u32::MAX)]) {
            let near = quarter(n);
            assert!(near.abs_diff(n) * 100 <= n * 10, "{n}: {near}");
            assert_eq!(quarter(near), near, "{n}");
        }
    }
}

//! Distributions over the simulator's dice.

use crate::dice::Dice;

/// From 0 to below 1.
pub(super) fn unit(dice: &mut Dice) -> f64 {
    (dice.next() >> 11) as f64 / (1u64 << 53) as f64
}

pub(super) fn between(dice: &mut Dice, from: f64, to: f64) -> f64 {
    from + unit(dice) * (to - from)
}

/// Standard normal (Box and Muller 1958).
pub(super) fn normal(dice: &mut Dice) -> f64 {
    let radius = (-2.0 * (1.0 - unit(dice)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(dice)).cos()
}

pub(super) fn exponential(dice: &mut Dice, mean: f64) -> f64 {
    -mean * (1.0 - unit(dice)).ln()
}

/// Gamma with this shape, at least 1, and scale (Marsaglia and Tsang 2000).
pub(super) fn gamma(dice: &mut Dice, shape: f64, scale: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(dice);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - unit(dice)).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return scale * d * v;
        }
    }
}

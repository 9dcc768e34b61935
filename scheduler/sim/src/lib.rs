//! muster-sim.

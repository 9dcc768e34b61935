//! muster-shim.

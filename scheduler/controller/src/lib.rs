//! muster-controller.

//! Promised starts from pass to pass: what the driver carries over for policies that promise a
//! start to everybody. With fewer shadows every pass promises anew.

use muster_core::plan::{ALL, Plan, Policy, Shadow, View};

/// The promises of the last pass.
#[derive(Debug, Default)]
pub(super) struct Promises {
    kept: bool,
    shadows: Vec<Shadow>,
    released: bool,
}

impl Promises {
    pub(super) fn new(policy: Policy) -> Self {
        Promises { kept: policy.shadows == ALL, ..Promises::default() }
    }

    /// A job ended: promises may be bettered.
    pub(super) fn released(&mut self) {
        self.released = true;
    }

    pub(super) fn put(&mut self, view: &mut View) {
        if self.kept {
            view.promised = std::mem::take(&mut self.shadows);
            view.released = std::mem::take(&mut self.released);
        }
    }

    pub(super) fn take(&mut self, plan: &Plan) {
        if self.kept {
            self.shadows.clone_from(&plan.shadows);
        }
    }
}

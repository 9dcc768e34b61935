//! `scancel JOB.STEP`: a step alone is signalled by way of its srun.

use muster_proto::v1::SignalStepRequest;

use super::agents::Agents;
use super::job;
use super::srun::{Stop, config, runtime};
use crate::exit;
use crate::query::pick::Pick;

/// A step that is named.
pub(crate) type Named = (Pick, u32);

/// The steps among what `scancel` was given (`12.0`), and the rest.
#[must_use]
pub(crate) fn among(operands: &[String]) -> (Vec<Named>, Vec<String>) {
    let (mut steps, mut rest) = (Vec::new(), Vec::new());
    for word in operands {
        match job::step(word) {
            Some(named) => steps.push(named),
            None => rest.push(word.clone()),
        }
    }
    (steps, rest)
}

/// Signals these steps; 0 ends them.
#[must_use]
pub(crate) fn cancel(program: &str, steps: &[Named], signal: i32) -> i32 {
    let mut code = exit::OK;
    for (pick, step) in steps {
        if let Err(stop) = one(pick, *step, signal) {
            code = code.max(stop.say(program));
        }
    }
    code
}

fn one(pick: &Pick, step: u32, signal: i32) -> Result<(), Stop> {
    let config = config()?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let home = job::home(&config, pick, false).await?;
        let agents = Agents::new(config);
        let request = SignalStepRequest { job: home.job, step, signal };
        let told = agents.call(&home.head, async |mut client| client.signal(request).await);
        told.await.map(drop).map_err(|error| {
            let (job, why) = (pick.text(), error.slurm_text());
            Stop::refused(
                error.detail(),
                format!("Kill job error on job step id {job}.{step}: {why}"),
            )
        })
    });
    runtime.shutdown_background();
    done
}

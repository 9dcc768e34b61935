//! `scancel JOB.STEP`: a step alone is signalled by way of its srun.

use muster_proto::v1::SignalStepRequest;

use super::agents::Agents;
use super::job;
use super::srun::{Stop, config, runtime};
use crate::exit;

/// The steps among what `scancel` was given (`12.0`), and the rest.
#[must_use]
pub fn among(operands: &[String]) -> (Vec<(u32, u32)>, Vec<String>) {
    let (mut steps, mut rest) = (Vec::new(), Vec::new());
    for word in operands {
        let ids = word
            .split_once('.')
            .and_then(|(job, step)| Some((job::id(job)?, step.parse::<u32>().ok()?)));
        match ids {
            Some(ids) => steps.push(ids),
            None => rest.push(word.clone()),
        }
    }
    (steps, rest)
}

/// Signals these steps; 0 ends them.
#[must_use]
pub fn cancel(program: &str, steps: &[(u32, u32)], signal: i32) -> i32 {
    let mut code = exit::OK;
    for (job, step) in steps {
        if let Err(stop) = one(*job, *step, signal) {
            code = code.max(stop.say(program));
        }
    }
    code
}

fn one(job: u32, step: u32, signal: i32) -> Result<(), Stop> {
    let config = config()?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let head = job::head(&config, job, false).await?;
        let agents = Agents::new(config);
        let request = SignalStepRequest { job, step, signal };
        let told = agents.call(&head, async |mut client| client.signal(request).await);
        told.await.map(drop).map_err(|error| {
            let text =
                format!("Kill job error on job step id {job}.{step}: {}", error.slurm_text());
            Stop::refused(error.detail(), text)
        })
    });
    runtime.shutdown_background();
    done
}

//! What each task of a step has: `--cpus-per-task`, `--gpus-per-task`, and `--tres-per-task`, which says
//! the same as both (`cpu=4,gres/gpu:h100=1`).
//!
//! What the command line says goes before what the job was submitted with, in whatever words.

use muster_proto::v1::GresRequest;

use crate::submit::{Fault, gpus, values};

use super::options::Asked;

const TRES: &str = "tres-per-task";

/// The CPUs of each task; `None`: nobody says.
pub(super) fn cpus(asked: &Asked) -> Result<Option<u32>, Fault> {
    const OWN: &str = "cpus-per-task";
    let own = asked.value(OWN).map(|text| values::count(OWN, text)).transpose()?;
    let (tres, _) = tres(asked)?;
    stronger(asked, (OWN, own), tres, |a, b| a != b)
}

/// The GPUs that each task has for itself; 0: nobody says.
pub(super) fn gpus(asked: &Asked) -> Result<u32, Fault> {
    const OWN: &str = "gpus-per-task";
    let number = |text: &str| text.rsplit(':').next().unwrap_or_default().parse::<u32>();
    let own = asked.value(OWN).map(number).transpose().map_err(|_| values::invalid(OWN))?;
    let (_, gres) = tres(asked)?;
    let gpus = gres.iter().filter(|g| g.kind.as_ref().is_some_and(|kind| kind.name == "gpu"));
    let count = gpus.map(|g| g.count).sum::<u64>();
    let tres = u32::try_from(count).ok().filter(|gpus| *gpus > 0);
    Ok(stronger(asked, (OWN, own), tres, |_, _| true)?.unwrap_or(0))
}

/// The generic resources that the command line names with `--tres-per-task`.
pub(super) fn gres(asked: &Asked) -> Result<Option<Vec<GresRequest>>, Fault> {
    let Some(text) = asked.said_value(TRES) else { return Ok(None) };
    let (_, gres) = gpus::per_task(text)?;
    Ok((!gres.is_empty()).then_some(gres))
}

fn tres(asked: &Asked) -> Result<(Option<u32>, Vec<GresRequest>), Fault> {
    asked.value(TRES).map_or(Ok((None, Vec::new())), gpus::per_task)
}

/// Of two ways to say a number the one of the command line. Both may stand there if they do not
/// contradict each other.
fn stronger(
    asked: &Asked,
    (id, own): (&str, Option<u32>),
    tres: Option<u32>,
    contradict: impl Fn(u32, u32) -> bool,
) -> Result<Option<u32>, Fault> {
    match (own, tres) {
        (Some(a), Some(b)) if asked.said(id) && asked.said(TRES) && contradict(a, b) => {
            Err(Fault::Refused(format!("--{id} and --{TRES} say different things: give one")))
        }
        (own, Some(tres)) if asked.said(TRES) && !asked.said(id) => Ok(Some(tres).or(own)),
        (own, tres) => Ok(own.or(tres)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPUs and GPUs of each task, or what is wrong.
    #[track_caller]
    fn check(line: &str, job: &[(&str, &str)], expected: Result<(Option<u32>, u32), &str>) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let variable =
            |name: &str| job.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let mut asked = Asked::read("srun", &words).unwrap();
        asked.add_variables(variable);
        let read = cpus(&asked).and_then(|cpus| Ok((cpus, gpus(&asked)?)));
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{line}"),
            (Err(fault), Err(part)) => {
                assert!(format!("{fault:?}").contains(part), "{line}: {fault:?}");
            }
            (read, expected) => panic!("{line}: {read:?}, not {expected:?}"),
        }
    }

    #[test]
    fn one_option_says_what_two_do() {
        check("x", &[], Ok((None, 0)));
        check("--tres-per-task=cpu=4,gres/gpu:h100=1 x", &[], Ok((Some(4), 1)));
        check("--tres-per-task=cpu:2 -c2 --gpus-per-task=1 x", &[], Ok((Some(2), 1)));
        check("--tres-per-task=gres/gpu=2,gres/shard=1 x", &[], Ok((None, 2)));
        check("--tres-per-task=cpu=2 -c3 x", &[], Err("different things"));
        check("--tres-per-task=gres/gpu=2 --gpus-per-task=2 x", &[], Err("different things"));
        check("--tres-per-task=license/x=1 x", &[], Err("is not supported"));
    }

    #[test]
    fn the_command_line_goes_before_the_job() {
        let job = [("SLURM_TRES_PER_TASK", "cpu=4,gres/gpu=1"), ("SLURM_CPUS_PER_TASK", "4")];
        check("x", &job, Ok((Some(4), 1)));
        check("-c2 x", &job, Ok((Some(2), 1)));
        check("--tres-per-task=cpu=3 x", &job, Ok((Some(3), 0)));
    }
}

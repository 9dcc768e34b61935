//! The site's scripts around a job on this node: prolog before, epilog after.
//!
//! They run as the agent does (root on a cluster), so nothing of the job's environment reaches
//! them: what they see is built here from nothing, without a PATH. Their output is the admin's
//! concern; its last line is kept for the message when they fail.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use muster_proto::shim::v1::Launch;
use muster_proto::v1::ExitStatus;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Of a script's complaint this much is kept, in bytes: one line for a drain reason.
const COMPLAINT_BYTES: usize = 200;
/// Of a script's stderr this much is read to find that line, in bytes.
const STDERR_BYTES: u64 = 64 * 1024;

/// Which script, and what it may know beyond the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Prolog,
    /// With how the batch script ended, where one ran here.
    Epilog(Option<ExitStatus>),
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Prolog => "prolog",
            Stage::Epilog(_) => "epilog",
        }
    }
}

/// Runs a script to its end. Everything it started in its process group is killed when it takes
/// too long or when the future is dropped.
///
/// # Errors
/// One sentence: which script, for which job, and what it did.
pub async fn run(
    script: &Path,
    stage: Stage,
    launch: &Launch,
    config: &Path,
    timeout: Duration,
) -> Result<(), String> {
    let what = || format!("{} {} of job {}", stage.name(), script.display(), launch.job);
    let mut child = Command::new(script)
        .env_clear()
        .envs(environment(stage, launch, config))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|fault| format!("{}: {fault}", what()))?;
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
    let stderr = child.stderr.take().expect("stderr is piped");
    let reading = tokio::spawn(async move {
        let mut text = Vec::new();
        let mut bounded = stderr.take(STDERR_BYTES);
        // A script that closed its stderr early has said what it had to say.
        let _ = bounded.read_to_end(&mut text).await;
        text
    });
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    let status = match ended {
        Err(_) => {
            drop(group);
            reading.abort();
            return Err(format!("{}: no end within {} s", what(), timeout.as_secs()));
        }
        Ok(Err(fault)) => return Err(format!("{}: {fault}", what())),
        Ok(Ok(status)) => status,
    };
    if status.success() {
        group.release();
        reading.abort();
        return Ok(());
    }
    // A process left behind may hold the pipe open: it goes first.
    drop(group);
    let text = reading.await.unwrap_or_default();
    Err(format!("{}: {status}{}", what(), complaint(&text)))
}

/// A script's process group, killed when dropped: a prolog's children do not outlive its failure.
struct Group(Option<i32>);

impl Group {
    /// The script went well: what it left running on purpose stays.
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is as good as killed.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// `: ` and the last line that says anything.
fn complaint(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) else {
        return String::new();
    };
    let line: String = line.chars().filter(|c| !c.is_control()).take(COMPLAINT_BYTES).collect();
    format!(": {line}")
}

/// What a script sees, under Slurm's names.
fn environment(stage: Stage, launch: &Launch, config: &Path) -> Vec<(&'static str, String)> {
    let spec = launch.spec.clone().unwrap_or_default();
    let mut out = vec![
        ("SLURM_JOB_ID", launch.job.to_string()),
        ("SLURM_JOBID", launch.job.to_string()),
        ("SLURM_JOB_NAME", launch.job_name.clone()),
        ("SLURM_JOB_NODELIST", launch.nodes.clone()),
        ("SLURM_JOB_PARTITION", launch.partition.clone()),
        ("SLURM_JOB_ACCOUNT", launch.account.clone()),
        ("SLURM_JOB_QOS", launch.qos.clone()),
        ("SLURM_JOB_COMMENT", launch.comment.clone()),
        ("SLURM_JOB_RESTART_COUNT", launch.restarts.to_string()),
        ("SLURM_JOB_WORK_DIR", spec.workdir),
        ("SLURM_CLUSTER_NAME", launch.cluster.clone()),
        ("SLURM_CONF", config.display().to_string()),
        ("SLURMD_NODENAME", launch.node.clone()),
        ("SLURM_SCRIPT_CONTEXT", format!("{}_slurmd", stage.name())),
    ];
    if let Some(user) = &launch.user {
        out.push(("SLURM_JOB_UID", user.uid.to_string()));
        out.push(("SLURM_JOB_GID", user.gid.to_string()));
        out.push(("SLURM_JOB_USER", user.name.clone()));
    }
    if let Some(task) = launch.array_task {
        out.push(("SLURM_ARRAY_JOB_ID", launch.array_job.to_string()));
        out.push(("SLURM_ARRAY_TASK_ID", task.to_string()));
    }
    if launch.end_at > 0 {
        out.push(("SLURM_JOB_END_TIME", (launch.end_at / 1000).to_string()));
    }
    let gpus = gpus(launch);
    if !gpus.is_empty() {
        out.push(("SLURM_JOB_GPUS", gpus.clone()));
        out.push(("CUDA_VISIBLE_DEVICES", gpus));
    }
    if let Stage::Epilog(Some(exit)) = stage {
        let wait_status = exit.code << 8 | exit.signal;
        out.push(("SLURM_JOB_EXIT_CODE", wait_status.to_string()));
        out.push(("SLURM_JOB_EXIT_CODE2", format!("{}:{}", exit.code, exit.signal)));
    }
    out
}

/// The numbers of the slice's GPUs on this node, `0,3`.
fn gpus(launch: &Launch) -> String {
    let of_gpu = |m: &&muster_proto::v1::GresMask| m.kind.as_ref().is_some_and(|k| k.name == "gpu");
    let mask = launch.gres.iter().filter(of_gpu).fold(0, |mask, gres| mask | gres.mask);
    let units = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit.to_string());
    units.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::v1::{GresKind, GresMask, User};
    use std::os::unix::fs::PermissionsExt;

    fn launch() -> Launch {
        let kind = Some(GresKind { name: "gpu".into(), of: "h100".into() });
        Launch {
            job: 7,
            attempt: 1,
            user: Some(User { uid: 1000, gid: 100, name: "ann".into() }),
            environment: "LD_PRELOAD=/tmp/evil.so\0".into(),
            gres: vec![GresMask { kind, mask: 0b1001, count: 2 }],
            ..Launch::default()
        }
    }

    async fn check(body: &str, stage: Stage, timeout: Duration, expected: Result<(), &str>) {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let body = body.replace("%OUT%", &dir.path().join("out").display().to_string());
        // Written under another name and renamed: a sibling thread that forks meanwhile would
        // hold the descriptor and make the exec fail with ETXTBSY.
        let status = std::process::Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\"", "sh", &body])
            .arg(&script)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let result = run(&script, stage, &launch(), Path::new("/etc/m.toml"), timeout).await;
        match (result, expected) {
            (Ok(()), Ok(())) => (),
            (Err(found), Err(expected)) => assert!(found.ends_with(expected), "{found}"),
            (found, _) => panic!("{found:?} where {expected:?} was expected"),
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_script_sees_the_job_and_nothing_of_its_environment() {
        let body = "[ -z \"$LD_PRELOAD$HOME\" ] || exit 9\n\
            [ \"$SLURM_JOB_ID $SLURM_JOB_USER $SLURM_JOB_GPUS\" = '7 ann 0,3' ] || exit 8\n\
            [ \"$SLURM_SCRIPT_CONTEXT\" = prolog_slurmd ] || exit 7";
        check(body, Stage::Prolog, LONG, Ok(())).await;
        let body = "[ \"$SLURM_JOB_EXIT_CODE $SLURM_JOB_EXIT_CODE2\" = '256 1:0' ]";
        let exit = ExitStatus { code: 1, signal: 0 };
        check(body, Stage::Epilog(Some(exit)), LONG, Ok(())).await;
    }

    #[tokio::test]
    async fn a_failure_says_what_the_script_said_last() {
        let body = "echo first >&2; echo 'gpu 3 is sick' >&2; exit 3";
        check(body, Stage::Prolog, LONG, Err("exit status: 3: gpu 3 is sick")).await;
    }

    #[tokio::test]
    async fn a_script_that_hangs_is_killed_with_its_children() {
        let brief = Duration::from_millis(50);
        check("sleep 600 & sleep 600", Stage::Prolog, brief, Err("no end within 0 s")).await;
    }

    #[tokio::test]
    async fn a_script_that_is_not_there_is_named() {
        let missing = Path::new("/nonexistent/prolog");
        let fault = run(missing, Stage::Prolog, &launch(), missing, LONG).await.unwrap_err();
        assert!(fault.starts_with("prolog /nonexistent/prolog of job 7: "), "{fault}");
    }
}

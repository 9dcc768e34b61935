//! An agent process with real shims, told what to do by a controller in this test: what it runs,
//! what it refuses, and what it finds again after a kill -9.
//!
//! This binary is the agent and the shim as well, so that the tests need no other.

mod cluster;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster::{Cluster, KEY, appears, code_and_signal, signed, signed_with, slice, vanishes};
use muster_proto::agent::v1::slice_report::Phase;
use muster_proto::agent::v1::{
    Desired, DesiredSlice, Signal, Signals, Want, agent_message, controller_message,
};
use muster_proto::shim::v1::StopCause;
use muster_proto::token::ClusterKey;
use muster_proto::v1::IssueTokenRequest;
use muster_proto::v1::query_client::QueryClient;

fn main() -> std::process::ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let code = match args.first().and_then(|arg| arg.to_str()) {
        Some("shim") => muster_shim::main(&args[1..]),
        Some("agent") => {
            let node = args[1].to_str().expect("a node's name").to_owned();
            muster_agent::main(PathBuf::from(&args[2]), node)
        }
        _ => stories(&args),
    };
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Runs every story whose name holds the first argument that is no option.
fn stories(args: &[OsString]) -> i32 {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    if words.contains(&"--list") {
        return 0;
    }
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    macro_rules! tell {
        ($($name:ident),* $(,)?) => {$(
            if stringify!($name).contains(filter) {
                runtime.block_on($name());
                println!("test {} ... ok", stringify!($name));
            }
        )*};
    }
    tell!(
        a_job_runs_and_its_exit_code_is_told_until_it_is_forgotten,
        a_job_survives_its_agent_and_ends_with_the_right_code,
        a_job_that_ends_without_an_agent_is_found_by_the_next,
        a_job_whose_shim_is_killed_is_lost_and_leaves_no_process,
        a_launch_that_is_not_the_controllers_leaves_no_trace,
        a_stop_ends_even_a_job_that_ignores_it,
        a_slice_of_a_gang_holds_its_place_without_a_process,
        a_prolog_that_fails_makes_the_node_unfit,
        an_epilog_that_fails_is_told_with_the_end,
        signals_and_suspension_reach_the_job,
        a_full_list_ends_strangers_and_samples_come,
        a_local_user_gets_a_token_for_their_own_uid,
        a_second_agent_of_the_node_is_refused,
        a_full_disk_is_the_nodes_fault_and_not_the_agents_end,
        many_short_jobs_all_end,
    );
    0
}

async fn a_job_runs_and_its_exit_code_is_told_until_it_is_forgotten() {
    let mut cluster = Cluster::new("").await;
    let hello = cluster.start().await;
    assert!(hello.slices.is_empty() && hello.measured);
    assert_eq!(hello.inventory.unwrap().cpus, 64, "as declared, whatever the host has");
    cluster.want(vec![cluster.run(1, "echo out; exit 3")]).await;
    assert_eq!(code_and_signal(&cluster.end(1).await), (3, 0));
    assert_eq!(std::fs::read_to_string(cluster.path("slurm-1.out")).unwrap(), "out\n");
    assert!(cluster.spooled(1));
    // Nobody said FORGET: it is said again.
    assert_eq!(code_and_signal(&cluster.end(1).await), (3, 0));
    cluster.want(vec![Cluster::wish(1, Want::Forget)]).await;
    vanishes(&cluster.path("spool/n1/jobs/1.1")).await;
}

async fn a_job_survives_its_agent_and_ends_with_the_right_code() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let script = "echo ran >> runs; while [ ! -e go ]; do sleep 0.05; done; exit 7";
    let run = cluster.run(1, script);
    cluster.want(vec![run.clone()]).await;
    appears(&cluster.path("runs")).await;
    cluster.kill();
    let hello = cluster.start().await;
    let found = slice(&hello, 1).and_then(|s| s.phase.as_ref());
    assert!(matches!(found, Some(Phase::Running(_))), "{found:?}");
    // The controller repeats itself, with and without the launch.
    let known = DesiredSlice { launch: None, credential: String::new(), ..run.clone() };
    let full = Desired { full: true, slices: vec![known] };
    cluster.say(controller_message::Kind::Desired(full)).await;
    cluster.want(vec![run]).await;
    std::fs::write(cluster.path("go"), "").unwrap();
    assert_eq!(code_and_signal(&cluster.end(1).await), (7, 0));
    assert_eq!(std::fs::read_to_string(cluster.path("runs")).unwrap(), "ran\n", "once");
}

async fn a_job_that_ends_without_an_agent_is_found_by_the_next() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let script = "touch began; while [ ! -e go ]; do sleep 0.05; done; kill -9 $$";
    cluster.want(vec![cluster.run(1, script)]).await;
    appears(&cluster.path("began")).await;
    cluster.kill();
    std::fs::write(cluster.path("go"), "").unwrap();
    let dir = muster_shim::SliceDir::of(&cluster.path("spool/n1"), 1, 1);
    while dir.read_exit().unwrap().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let hello = cluster.start().await;
    let phase = match slice(&hello, 1).unwrap().phase.clone().unwrap() {
        Phase::Stopping(_) => cluster.end(1).await,
        over => over,
    };
    assert_eq!(code_and_signal(&phase), (0, 9));
}

async fn a_job_whose_shim_is_killed_is_lost_and_leaves_no_process() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    cluster.want(vec![cluster.run(1, "echo $$ > pid; setsid sleep 600 & sleep 600")]).await;
    appears(&cluster.path("pid")).await;
    cluster.until(1, |p| matches!(p, Phase::Running(_))).await;
    let dir = muster_shim::SliceDir::of(&cluster.path("spool/n1"), 1, 1);
    let shim = i32::try_from(dir.read_record().unwrap().unwrap().pid).unwrap();
    let kill = |pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
    };
    // Once with the agent looking on, and what is left is dead when the loss is told.
    kill(shim).unwrap();
    assert!(matches!(cluster.end(1).await, Phase::Lost(_)));
    let batch = std::fs::read_to_string(cluster.path("pid")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", batch.trim())).unwrap_or_default();
    // Whoever is its parent now may not have reaped it yet.
    assert!(stat.is_empty() || stat.contains(") Z "), "the batch process is gone: {stat}");
}

async fn a_launch_that_is_not_the_controllers_leaves_no_trace() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let launch = |job| cluster.launch(job, "touch ran");
    let mut tampered = signed(launch(1), Want::Run);
    tampered.launch.as_mut().unwrap().script = "#!/bin/sh\ntouch ran\n".into();
    tampered.launch.as_mut().unwrap().environment = "LD_PRELOAD=x\0".into();
    let mut other_user = signed(launch(2), Want::Run);
    other_user.launch.as_mut().unwrap().user.as_mut().unwrap().uid = 12345;
    let mut other_node = launch(3);
    other_node.node = "n2".into();
    let other_node = signed(other_node, Want::Run);
    let stranger = signed_with(&[1; 32], launch(4), Want::Run);
    let mut reused = signed(launch(5), Want::Run);
    reused.credential = signed(launch(6), Want::Run).credential;
    let bare = DesiredSlice { credential: String::new(), ..signed(launch(7), Want::Run) };
    let mut other_slice = signed(launch(9), Want::Run);
    other_slice.job = 8;
    let missing = Cluster::wish(10, Want::Run);
    let refusals = [
        (tampered, "digest"),
        (other_user, "uid"),
        (other_node, "n2"),
        (stranger, "refused"),
        (reused, "job"),
        (bare, "refused"),
        (other_slice, "9.1"),
        (missing, "no launch"),
    ];
    for (wish, word) in refusals {
        let job = wish.job;
        cluster.want(vec![wish]).await;
        match cluster.end(job).await {
            Phase::LaunchFailed(failed) => {
                assert!(failed.reason.contains(word), "{} names {word}", failed.reason);
                assert!(!failed.node_fault, "a refusal does not drain the node");
            }
            other => panic!("job {job}: {other:?}"),
        }
        assert!(!cluster.spooled(job));
    }
    if !nix::unistd::geteuid().is_root() {
        let mut stranger = cluster.launch(11, "touch ran");
        stranger.user.as_mut().unwrap().uid = 12345;
        cluster.want(vec![signed(stranger, Want::Run)]).await;
        let Phase::LaunchFailed(failed) = cluster.end(11).await else { panic!("not served") };
        assert!(failed.reason.contains("serves that user alone, not uid 12345"));
    }
    assert!(!cluster.path("ran").exists());
}

async fn a_stop_ends_even_a_job_that_ignores_it() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let script = "trap '' TERM; touch began; while true; do sleep 0.1; done";
    cluster.want(vec![cluster.run(1, script)]).await;
    appears(&cluster.path("began")).await;
    let mut stop = Cluster::wish(1, Want::Stop);
    stop.stop_cause = StopCause::Cancelled.into();
    cluster.want(vec![stop.clone(), stop]).await;
    let end = cluster.end(1).await;
    assert_eq!(code_and_signal(&end), (0, 9), "SIGTERM was ignored, SIGKILL was not");
    let Phase::Finished(finished) = end else { unreachable!("it has a code") };
    assert_eq!(finished.exit.unwrap().stopped, i32::from(StopCause::Cancelled));
    // What was never here has ended, too.
    cluster.want(vec![Cluster::wish(77, Want::Stop)]).await;
    let Phase::Finished(finished) = cluster.end(77).await else { panic!("nothing is left") };
    assert_eq!(finished.exit, None);
}

async fn a_slice_of_a_gang_holds_its_place_without_a_process() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let mut launch = cluster.launch(1, "touch never");
    (launch.batch, launch.node_index) = (false, 1);
    launch.script = Default::default();
    cluster.want(vec![signed(launch, Want::Prepare)]).await;
    cluster.until(1, |p| matches!(p, Phase::Ready(_))).await;
    cluster.want(vec![Cluster::wish(1, Want::Run)]).await;
    cluster.until(1, |p| matches!(p, Phase::Running(_))).await;
    cluster.kill();
    let hello = cluster.start().await;
    let found = slice(&hello, 1).and_then(|s| s.phase.clone());
    assert!(matches!(found, Some(Phase::Running(_))), "{found:?}");
    cluster.want(vec![Cluster::wish(1, Want::Stop)]).await;
    let Phase::Finished(finished) = cluster.end(1).await else { panic!("it finished") };
    assert_eq!(finished.exit, None);
    assert!(!cluster.path("never").exists());
    // Its end survives an agent as well.
    cluster.kill();
    let hello = cluster.start().await;
    let found = slice(&hello, 1).and_then(|s| s.phase.clone());
    assert!(matches!(found, Some(Phase::Finished(_))), "{found:?}");
}

fn script(cluster: &Cluster, name: &str, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = cluster.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn a_prolog_that_fails_makes_the_node_unfit() {
    let mut cluster = Cluster::new("prolog = \"%DIR%/prolog\"\nepilog = \"%DIR%/epilog\"").await;
    let at = cluster.dir.path().display().to_string();
    script(&cluster, "prolog", "[ $SLURM_JOB_ID = 1 ] && { echo no gpu >&2; exit 1; }; exit 0");
    script(
        &cluster,
        "epilog",
        &format!("echo $SLURM_JOB_ID $SLURM_JOB_EXIT_CODE2 >> {at}/epilogs"),
    );
    cluster.start().await;
    cluster.want(vec![cluster.run(1, "touch ran"), cluster.run(2, "exit 4")]).await;
    let Phase::LaunchFailed(failed) = cluster.end(1).await else { panic!("it does not start") };
    assert!(failed.node_fault && failed.reason.ends_with("no gpu"), "{}", failed.reason);
    assert!(!cluster.path("ran").exists());
    cluster.want(vec![Cluster::wish(1, Want::Forget)]).await;
    assert_eq!(code_and_signal(&cluster.end(2).await), (4, 0));
    let epilogs = std::fs::read_to_string(cluster.path("epilogs")).unwrap();
    let mut epilogs: Vec<_> = epilogs.lines().collect();
    epilogs.sort_unstable();
    assert_eq!(epilogs, ["1", "2 4:0"], "each job's epilog ran once");
}

async fn an_epilog_that_fails_is_told_with_the_end() {
    let mut cluster = Cluster::new("epilog = \"%DIR%/epilog\"").await;
    script(&cluster, "epilog", "echo scratch is full >&2; exit 1");
    cluster.start().await;
    cluster.want(vec![cluster.run(1, "exit 0")]).await;
    let mut fault = None;
    let mut end = None;
    while fault.is_none() || end.is_none() {
        match cluster.hear().await {
            agent_message::Kind::Fault(told) => fault = Some(told.reason),
            agent_message::Kind::Reports(reports) => {
                let phases = reports.slices.into_iter().filter_map(|s| s.phase);
                end = end.or(phases.into_iter().find(|p| matches!(p, Phase::Finished(_))));
            }
            _ => (),
        }
    }
    let Some(Phase::Finished(finished)) = end else { unreachable!("found above") };
    assert!(finished.epilog_fault.ends_with("scratch is full"), "{}", finished.epilog_fault);
    assert_eq!(fault, Some(finished.epilog_fault));
}

async fn signals_and_suspension_reach_the_job() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let script = "trap 'touch usr1' USR1; touch began; while [ ! -e go ]; do sleep 0.05; done";
    let run = cluster.run(1, script);
    cluster.want(vec![run.clone()]).await;
    appears(&cluster.path("began")).await;
    cluster.until(1, |p| matches!(p, Phase::Running(_))).await;
    let signal = Signal { job: 1, attempt: 1, signal: 10, batch_only: true, full: false };
    cluster.say(controller_message::Kind::Signals(Signals { signals: vec![signal] })).await;
    appears(&cluster.path("usr1")).await;
    cluster.want(vec![DesiredSlice { suspended: true, ..run.clone() }]).await;
    cluster.until(1, |p| matches!(p, Phase::Running(running) if running.suspended)).await;
    cluster.want(vec![run]).await;
    cluster.until(1, |p| matches!(p, Phase::Running(running) if !running.suspended)).await;
    std::fs::write(cluster.path("go"), "").unwrap();
    assert_eq!(code_and_signal(&cluster.end(1).await), (0, 0));
}

async fn a_full_list_ends_strangers_and_samples_come() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    cluster.want(vec![cluster.run(1, "touch began; sleep 600")]).await;
    appears(&cluster.path("began")).await;
    loop {
        if let agent_message::Kind::Samples(samples) = cluster.hear().await {
            assert_eq!(samples.samples[0].job, 1);
            assert!(samples.samples[0].pids >= 1, "{:?}", samples.samples[0]);
            break;
        }
    }
    cluster.kill();
    cluster.start().await;
    let full = Desired { full: true, slices: Vec::new() };
    cluster.say(controller_message::Kind::Desired(full)).await;
    vanishes(&cluster.path("spool/n1/jobs/1.1")).await;
}

async fn a_local_user_gets_a_token_for_their_own_uid() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let socket = cluster.path("run/agent-n1.sock");
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://agent")
        .connect_with_connector(connect)
        .await
        .unwrap();
    let mut client = QueryClient::new(channel);
    let reply = client.issue_token(IssueTokenRequest {}).await.unwrap().into_inner();
    let claims = ClusterKey::new(&KEY).unwrap().check_user(&reply.token).unwrap();
    assert_eq!(claims.uid, nix::unistd::geteuid().as_raw());
    let refused = client.show_config(muster_proto::v1::ShowConfigRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

async fn a_second_agent_of_the_node_is_refused() {
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let second = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["agent", "n1"])
        .arg(cluster.path("muster.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another agent"), "{said}");
    cluster.want(vec![cluster.run(1, "exit 0")]).await;
    assert_eq!(code_and_signal(&cluster.end(1).await), (0, 0), "the first one is unharmed");
}

async fn a_full_disk_is_the_nodes_fault_and_not_the_agents_end() {
    let mut cluster = Cluster::new("").await;
    let spool = cluster.path("spool/n1");
    std::fs::create_dir_all(&spool).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&spool)
        .stderr(std::process::Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("    skipped: a small file system cannot be mounted here");
        return;
    }
    cluster.start().await;
    let long = format!("exit 0\n# {}", "x".repeat(1 << 20));
    cluster.want(vec![cluster.run(1, &long)]).await;
    let Phase::LaunchFailed(failed) = cluster.end(1).await else { panic!("it does not fit") };
    assert!(failed.node_fault && failed.reason.contains("No space left"), "{}", failed.reason);
    assert!(!cluster.spooled(1), "half an entry is none");
    cluster.want(vec![cluster.run(2, "exit 6")]).await;
    assert_eq!(code_and_signal(&cluster.end(2).await), (6, 0));
    drop(cluster);
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&spool).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

async fn many_short_jobs_all_end() {
    const JOBS: u32 = 300;
    let mut cluster = Cluster::new("").await;
    cluster.start().await;
    let begun = Instant::now();
    let runs = (1..=JOBS).map(|job| cluster.run(job, "exit $((SLURM_JOB_ID % 5))"));
    let runs: Vec<_> = runs
        .map(|mut run| {
            let launch = run.launch.take().unwrap();
            let job = launch.job;
            let environment = format!("PATH=/usr/bin:/bin\0SLURM_JOB_ID={job}\0").into();
            signed(muster_proto::shim::v1::Launch { environment, ..launch }, Want::Run)
        })
        .collect();
    cluster.want(runs).await;
    let mut left: std::collections::BTreeSet<u32> = (1..=JOBS).collect();
    while !left.is_empty() {
        let agent_message::Kind::Reports(reports) = cluster.hear().await else { continue };
        for report in reports.slices {
            let Some(phase @ Phase::Finished(_)) = &report.phase else { continue };
            if left.remove(&report.job) {
                assert_eq!(code_and_signal(phase), (report.job % 5, 0), "job {}", report.job);
            }
        }
    }
    let took = begun.elapsed();
    let rate = f64::from(JOBS) / took.as_secs_f64().max(Duration::from_millis(1).as_secs_f64());
    println!("    {JOBS} jobs in {took:?}: {rate:.0}/s");
}

//! Who may do what: users see and touch what is theirs, strangers nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use muster_proto::v1;
use muster_proto::v1::jobs_client::JobsClient;
use muster_proto::v1::query_client::QueryClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::harness::{Cluster, STRANGER, owner, root, wait_or};

#[test]
fn a_user_cannot_read_or_touch_the_jobs_of_another() {
    if !root("a second user") {
        return;
    }
    let cluster = Cluster::start();
    let job = cluster.submit(&["-o", "r.out", "--wrap=echo secret; sleep 1000"]);
    let id = job.to_string();
    cluster.until(job, "R");
    let cases: [&[&str]; 8] = [
        &["scontrol", "write", "batch_script", &id, "-"],
        &["scancel", &id],
        &["scancel", "-s", "USR1", &id],
        &["scontrol", "hold", &id],
        &["scontrol", "requeue", &id],
        &["scontrol", "suspend", &id],
        &["scontrol", "update", &format!("jobid={id}"), "timelimit=1"],
        &["scontrol", "update", "nodename=n1", "state=down", "reason=mine"],
    ];
    for words in cases {
        let said = cluster.run_as(STRANGER, words);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert!(!said.out.contains("secret"), "{words:?}: {said:?}");
        assert!(!said.err.trim().is_empty(), "{words:?} was refused without a word");
    }
    for words in [["scontrol", "shutdown"], ["scontrol", "reconfigure"]] {
        assert_ne!(cluster.run_as(STRANGER, &words).code, 0, "{words:?}");
    }
    cluster.assert_alive();
    cluster.until(job, "R");
    // The owner may.
    assert!(cluster.ok(&["scontrol", "write", "batch_script", &id, "-"]).contains("secret"));
}

#[test]
fn another_users_job_runs_as_that_user() {
    if !root("a second user") {
        return;
    }
    let cluster = Cluster::start();
    let place = cluster.work().join("theirs");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(STRANGER), Some(STRANGER)).unwrap();
    let place = place.display().to_string();
    let said = cluster.run_as(
        STRANGER,
        &[
            "sbatch",
            "--parsable",
            "-D",
            &place,
            "-o",
            "u.out",
            "--wrap=id -u; id -g; id -G; cat /etc/shadow",
        ],
    );
    let job: u32 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
    let rows = cluster.ended(job);
    assert_eq!(rows[0].state(), "FAILED", "{rows:?}");
    let text = cluster.text("theirs/u.out");
    assert!(text.starts_with("65534\n65534\n65534\n"), "{text}");
    assert!(text.contains("denied"), "{text}");
    assert_eq!(owner(Path::new(&place).join("u.out").as_path()), STRANGER);
    // What is not theirs they cannot write, though the daemon could.
    let said = cluster.run_as(
        STRANGER,
        &["sbatch", "--parsable", "-D", "/tmp", "-o", "/root/muster-was-here", "--wrap=true"],
    );
    if let Ok(job) = said.out.trim().parse::<u32>() {
        assert_eq!(cluster.ended(job)[0].state(), "FAILED");
    }
    assert!(!Path::new("/root/muster-was-here").exists());
}

fn uds(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    Endpoint::from_static("http://muster.test").connect_with_connector_lazy(tower::service_fn(
        move |_: tonic::transport::Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        },
    ))
}

/// Runs a conversation in a thread that is another user: the kernel keeps ids per thread.
fn as_stranger<T: Send>(talk: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: plain system calls on numbers; they change this thread alone, which ends
                // with the conversation.
                let changed = unsafe {
                    libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) == 0
                        && libc::syscall(libc::SYS_setresgid, STRANGER, STRANGER, STRANGER) == 0
                        && libc::syscall(libc::SYS_setresuid, STRANGER, STRANGER, STRANGER) == 0
                };
                assert!(changed, "cannot become user {STRANGER}");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(talk())
            })
            .join()
            .unwrap()
    })
}

fn forged() -> v1::SubmitRequest {
    let request = v1::Request { min_nodes: 1, tasks: 1, cpus_per_task: 1, ..Default::default() };
    let launch = v1::LaunchSpec {
        workdir: "/tmp".into(),
        stdout: Some("/dev/null".into()),
        submit_dir: "/tmp".into(),
        ..Default::default()
    };
    v1::SubmitRequest {
        request_id: vec![7; 16].into(),
        spec: Some(v1::JobSpec {
            name: "forged".into(),
            user: Some(v1::User { uid: 0, gid: 0, name: "root".into() }),
            request: Some(request),
            launch: Some(launch),
            ..Default::default()
        }),
        script: b"#!/bin/sh\nsleep 60\n".to_vec().into(),
        environment: Vec::new().into(),
        components: Vec::new(),
    }
}

#[test]
fn a_message_that_claims_to_be_root_is_the_callers_own() {
    if !root("a second user") {
        return;
    }
    let cluster = Cluster::start();
    let socket = cluster.socket();
    let job = as_stranger(async || {
        let reply = JobsClient::new(uds(&socket)).submit(forged()).await;
        reply.map(|reply| reply.into_inner().job)
    });
    let job = job.expect("users may submit");
    cluster.until(job, "R");
    let id = job.to_string();
    assert_eq!(cluster.ok(&["squeue", "-h", "-j", &id, "-o", "%U"]), STRANGER.to_string());
}

#[test]
fn no_socket_of_ours_tells_a_stranger_a_script_or_signs_them_in_as_another() {
    if !root("a second user") {
        return;
    }
    let cluster = Cluster::start();
    let job = cluster.submit(&["-o", "r.out", "--wrap=echo secret; sleep 1000"]);
    cluster.until(job, "R");
    let run = cluster.dir().join("run");
    let sockets: Vec<_> = fs::read_dir(&run)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
        .collect();
    assert!(sockets.len() >= 3, "controller and two agents: {sockets:?}");
    for socket in &sockets {
        let answer = as_stranger(async || {
            let request = v1::GetScriptRequest { job, environment: false };
            QueryClient::new(uds(socket)).get_script(request).await
        });
        let refused = answer.expect_err(&format!("{} told a stranger", socket.display()));
        assert!(
            matches!(refused.code(), Code::PermissionDenied | Code::Unimplemented | Code::NotFound),
            "{}: {refused}",
            socket.display()
        );
        // A token is for the one who asks, whatever the message says.
        let token = as_stranger(async || {
            QueryClient::new(uds(socket)).issue_token(v1::IssueTokenRequest {}).await
        });
        if let Ok(token) = token {
            assert_eq!(claims(&token.into_inner().token)["uid"], STRANGER);
        }
    }
    for entry in fs::read_dir(cluster.dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["state", "cluster.key"].contains(&name.as_str()) {
            let mode = std::os::unix::fs::MetadataExt::mode(&entry.metadata().unwrap());
            assert_eq!(mode & 0o077, 0, "{name} is open to others: {mode:o}");
        }
    }
}

/// What a token says, unchecked.
fn claims(token: &str) -> serde_json::Value {
    let middle = token.split('.').nth(1).expect("three parts");
    let mut bits = 0u32;
    let mut held = 0;
    let mut bytes = Vec::new();
    for c in middle.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            _ => 63,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).expect("eight bits"));
        }
    }
    serde_json::from_slice(&bytes).expect("claims are JSON")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A cluster whose controller and agent also listen on TCP; their ports and the CA.
fn with_tcp() -> (Cluster, [u16; 2], String) {
    let [port, agent] = [free_port(), free_port()];
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = key.cert.pem();
    let cluster = Cluster::edited(&["--nodes=1"], |cluster, text| {
        let dir = cluster.dir();
        fs::write(dir.join("cert.pem"), &pem).unwrap();
        fs::write(dir.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        let dir = dir.display();
        let tls = format!(
            "[security]\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\ntls_ca = \"{dir}/cert.pem\"\n"
        );
        let text = text
            .replace("[security]\n", &tls)
            .replace("[agent]\n", &format!("[agent]\nlisten = \"127.0.0.1:{agent}\"\n"));
        format!("{text}\n[controller]\nlisten = \"127.0.0.1:{port}\"\n")
    });
    (cluster, [port, agent], pem)
}

fn tls(port: u16, ca: &str) -> Channel {
    let tls =
        ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect_lazy()
}

async fn ask(channel: Channel, token: Option<&str>) -> Result<u64, Status> {
    let mut request = Request::new(v1::ListJobsRequest { all_states: true, ..Default::default() });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let mut pages = QueryClient::new(channel).list_jobs(request).await?.into_inner();
    let mut count = 0;
    while let Some(page) = pages.message().await? {
        count += page.jobs.len() as u64;
    }
    Ok(count)
}

#[test]
fn strangers_on_tcp_are_not_answered_and_tokens_are() {
    let (cluster, [port, _], ca) = with_tcp();
    let job = cluster.submit(&["--hold", "--wrap=true"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = QueryClient::new(uds(&cluster.socket()))
            .issue_token(v1::IssueTokenRequest {})
            .await
            .expect("a token for the socket's peer")
            .into_inner()
            .token;
        assert_eq!(ask(tls(port, &ca), Some(&token)).await.expect("signed in"), 1);
        let (head, _) = token.rsplit_once('.').unwrap();
        let resigned = format!("{head}.{}", "A".repeat(43));
        for wrong in [None, Some(""), Some("nonsense"), Some(resigned.as_str())] {
            let refused = ask(tls(port, &ca), wrong).await.expect_err("a stranger was answered");
            assert_eq!(refused.code(), Code::Unauthenticated, "{wrong:?}: {refused}");
        }
        let refused = JobsClient::new(tls(port, &ca)).submit(forged()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    });
    cluster.until(job, "PD");
}

#[test]
fn an_agent_on_tcp_serves_steps_to_their_user_and_nothing_to_others() {
    let (cluster, [_, port], ca) = with_tcp();
    let job = cluster.submit(&["-o", "r.out", "--wrap=sleep 1000"]);
    cluster.until(job, "R");
    let key = fs::read(cluster.dir().join("cluster.key")).unwrap();
    let key = muster_proto::token::ClusterKey::new(&key).unwrap();
    let strange = muster_proto::token::ClusterKey::new(&[3; 48]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let own = nix::unistd::geteuid().as_raw();
    let token = |uid| key.sign_user(uid, uid, now).unwrap().0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let list = async |token: Option<&str>| {
            let mut request = Request::new(v1::ListStepsRequest { job, ended: true });
            if let Some(token) = token {
                let value = format!("Bearer {token}").parse().unwrap();
                request.metadata_mut().insert("authorization", value);
            }
            let mut client = v1::steps_client::StepsClient::new(tls(port, &ca));
            client.list(request).await.map(tonic::Response::into_inner)
        };
        list(Some(&token(own))).await.expect("the job's own user");
        let expired = key.sign_user(own, own, now - 3600).unwrap().0;
        let forged = strange.sign_user(own, own, now).unwrap().0;
        let agents = key.sign_agent("n1", now).unwrap();
        for wrong in [None, Some("nonsense"), Some(&*expired), Some(&*forged), Some(&*agents)] {
            let refused = list(wrong).await.expect_err("a stranger was answered");
            assert_eq!(refused.code(), Code::Unauthenticated, "{wrong:?}: {refused}");
        }
        let refused = list(Some(&token(STRANGER))).await.expect_err("another user was answered");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        // A step of another user's job is neither begun nor looked at.
        let mut client = v1::steps_client::StepsClient::new(tls(port, &ca));
        let attach = v1::AttachStep { job, step: 0, resume: true, ..Default::default() };
        let first = v1::StepInput { kind: Some(v1::step_input::Kind::Attach(attach)) };
        let mut request = Request::new(tokio_stream::once(first));
        let value = format!("Bearer {}", token(STRANGER)).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut stream = client.run(request).await.expect("it is heard").into_inner();
        let refused = stream.message().await.expect_err("another user's step");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        // Nothing but steps is served there: no tokens above all.
        let mut query = QueryClient::new(tls(port, &ca));
        let refused = query.issue_token(v1::IssueTokenRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    });
}

#[test]
fn an_agent_without_the_clusters_key_is_refused() {
    let cluster = Cluster::with(&["--nodes=2", "--cpus-per-node=4", "--mem-per-node=4G"]);
    // n2's own agent goes; an impostor with another key takes its place.
    cluster.crash("n2");
    let dir = cluster.dir();
    let text = fs::read_to_string(dir.join("muster.toml")).unwrap();
    let key = cluster.work().join("other.key");
    fs::write(&key, [9u8; 48]).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let other = cluster.work().join("other.toml");
    let own = dir.join("cluster.key").display().to_string();
    fs::write(&other, text.replace(&own, &key.display().to_string())).unwrap();
    let log = fs::File::create(cluster.work().join("impostor.log")).unwrap();
    let mut impostor = Command::new(cluster.program())
        .args(["agent", "--node", "n2", "--config"])
        .arg(&other)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let controller = || cluster.log("controller").to_lowercase();
    wait_or(
        "the controller to refuse the impostor",
        || cluster.text("impostor.log"),
        || {
            let said = cluster.text("impostor.log").to_lowercase();
            said.contains("unauthenticated")
                || said.contains("refused")
                || controller().contains("refused")
        },
    );
    let job = cluster.submit(&["-w", "n2", "-o", "n2.out", "--wrap=echo ran"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(!cluster.work().join("n2.out").exists(), "the impostor got a job");
    impostor.kill().unwrap();
    impostor.wait().unwrap();
    cluster.up(&[]);
    assert_eq!(cluster.outcome(job).0, "COMPLETED");
}

#[test]
fn root_jobs_are_refused_where_the_config_does_not_allow_them() {
    if !root("root") {
        return;
    }
    let cluster = Cluster::edited(&["--nodes=1"], |_, text| {
        text.replace("allow_root_jobs = true", "allow_root_jobs = false")
    });
    let said = cluster.run(&["sbatch", "--wrap=id"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("root"), "{said:?}");
}

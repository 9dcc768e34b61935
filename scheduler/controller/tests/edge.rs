//! The controller's edge, in process: who may come in, and what a job's way through it leaves.
//!
//! A real controller on a temporary directory, real sockets (unix and TLS), and an agent that is
//! only a stream: it says what an agent says and runs nothing.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use muster_config::Config;
use muster_controller::{Controller, serve};
use muster_proto::agent::v1 as agent;
use muster_proto::agent::v1::agents_client::AgentsClient;
use muster_proto::token::ClusterKey;
use muster_proto::v1;
use muster_proto::v1::jobs_client::JobsClient;
use muster_proto::v1::query_client::QueryClient;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};

const KEY: [u8; 32] = [7; 32];

/// A controller for one test; stops when dropped.
struct World {
    controller: Arc<Controller>,
    dir: tempfile::TempDir,
    port: u16,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn new() -> World {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let key = at.join("key");
        std::fs::write(&key, KEY).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(at.join("cert.pem"), cert.cert.pem()).unwrap();
        std::fs::write(at.join("key.pem"), cert.signing_key.serialize_pem()).unwrap();
        let text = format!(
            "cluster = 'test'\nstate_dir = '{0}/state'\nrun_dir = '{0}/run'\n\
             [security]\ncluster_key = '{0}/key'\ntls_cert = '{0}/cert.pem'\n\
             tls_key = '{0}/key.pem'\noperators = ['7777']\nallow_root_jobs = true\n\
             [[node]]\nname = 'n[1-2]'\ncpus = 4\nmemory = '4G'\n\
             [[partition]]\nname = 'main'\nnodes = 'ALL'\ndefault = true\n",
            at.display()
        );
        let config = Config::parse(&at.join("muster.toml"), &text).unwrap();
        let stop = CancellationToken::new();
        let controller = serve::start(config, stop.clone()).await.unwrap();
        serve::listen(&controller).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        serve::listen_tls(&controller, listener, &controller.config().security.tls).unwrap();
        World { controller, dir, port, stop }
    }

    /// Over the unix socket: the kernel says who we are.
    async fn local(&self) -> Channel {
        let path = self.controller.config().controller.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://muster.invalid");
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    /// Over TLS, with a token or without.
    async fn remote(
        &self,
        token: Option<String>,
    ) -> InterceptedService<Channel, impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone>
    {
        let pem = std::fs::read(self.dir.path().join("cert.pem")).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        InterceptedService::new(channel, move |mut request: Request<()>| {
            if let Some(token) = &token {
                let value = format!("Bearer {token}").parse().unwrap();
                request.metadata_mut().insert("authorization", value);
            }
            Ok(request)
        })
    }

    fn user(&self, uid: u32) -> Option<String> {
        let now = muster_controller::auth::now_seconds();
        Some(ClusterKey::new(&KEY).unwrap().sign_user(uid, 100, now).unwrap().0)
    }

    async fn jobs(&self, filter: v1::JobFilter) -> Vec<v1::Job> {
        let request = v1::ListJobsRequest {
            filter: Some(filter),
            all_states: true,
            with_details: true,
            ..Default::default()
        };
        let mut pages =
            QueryClient::new(self.local().await).list_jobs(request).await.unwrap().into_inner();
        let mut jobs = Vec::new();
        while let Some(page) = pages.next().await {
            jobs.extend(page.unwrap().jobs);
        }
        jobs
    }

    /// Waits until a job is in a state, as its changes are told.
    async fn until(&self, job: u32, state: v1::JobState) -> v1::Job {
        let jobs = vec![v1::JobRef { job, tasks: String::new() }];
        let watch = QueryClient::new(self.local().await).watch(v1::WatchRequest { jobs }).await;
        let mut events = watch.unwrap().into_inner();
        let mut last = v1::Job::default();
        while let Some(event) = events.next().await {
            last = event.unwrap().job.unwrap();
            if last.state == state as i32 {
                return last;
            }
        }
        panic!("job {job} never was {state:?}; last seen as {last:?}");
    }
}

fn submission(name: &str, change: impl FnOnce(&mut v1::JobSpec)) -> v1::SubmitRequest {
    let mut spec = v1::JobSpec {
        name: name.into(),
        request: Some(v1::Request {
            min_nodes: 1,
            tasks: 1,
            cpus_per_task: 1,
            ..Default::default()
        }),
        launch: Some(v1::LaunchSpec { workdir: "/tmp".into(), ..Default::default() }),
        ..Default::default()
    };
    change(&mut spec);
    v1::SubmitRequest {
        request_id: fresh_id().into(),
        spec: Some(spec),
        script: "#!/bin/sh\ntrue\n".into(),
        environment: "A=1\0".into(),
        components: Vec::new(),
    }
}

fn fresh_id() -> Vec<u8> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    [NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes(), [1; 8]].concat()
}

/// A stream that says it is an agent.
struct FakeAgent {
    say: mpsc::Sender<agent::AgentMessage>,
    hear: Streaming<agent::ControllerMessage>,
}

impl FakeAgent {
    async fn connect(world: &World, node: &str, token: Option<String>) -> Result<Self, Status> {
        let inventory = agent::Inventory {
            cpus: 4,
            memory_mib: 4096,
            boot_id: "b".into(),
            ..Default::default()
        };
        let hello = agent::Hello {
            node: node.into(),
            version: "test".into(),
            inventory: Some(inventory),
            measured: true,
            ..Default::default()
        };
        FakeAgent::greet(world, hello, token).await
    }

    async fn greet(
        world: &World,
        hello: agent::Hello,
        token: Option<String>,
    ) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(16);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(said));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let hear = AgentsClient::new(world.local().await).session(request).await?.into_inner();
        let agent = FakeAgent { say, hear };
        agent.tell(agent::agent_message::Kind::Hello(hello)).await;
        Ok(agent)
    }

    async fn tell(&self, kind: agent::agent_message::Kind) {
        self.say.send(agent::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    async fn report(&self, of: &agent::DesiredSlice, phase: agent::slice_report::Phase) {
        let slice = agent::SliceReport { job: of.job, attempt: of.attempt, phase: Some(phase) };
        let reports = agent::Reports { slices: vec![slice] };
        self.tell(agent::agent_message::Kind::Reports(reports)).await;
    }

    /// The next wish about a slice.
    async fn wish(&mut self) -> Result<agent::DesiredSlice, Status> {
        loop {
            let message = self.hear.message().await?.expect("the session stands");
            if let Some(agent::controller_message::Kind::Desired(desired)) = message.kind
                && let Some(slice) = desired.slices.into_iter().next()
            {
                return Ok(slice);
            }
        }
    }

    /// Runs whatever comes, with this exit code, until it may forget it.
    async fn run_one(&mut self, code: u32) -> agent::DesiredSlice {
        let launch = loop {
            let slice = self.wish().await.unwrap();
            if slice.want == agent::Want::Run as i32 {
                break slice;
            }
        };
        let started_at = muster_controller::now().0;
        let running = agent::Running { started_at, suspended: false };
        self.report(&launch, agent::slice_report::Phase::Running(running)).await;
        let exit = muster_proto::shim::v1::ExitRecord {
            job: launch.job,
            attempt: launch.attempt,
            status: Some(v1::ExitStatus { code, signal: 0 }),
            started_at,
            ended_at: started_at + 5,
            usage: Some(v1::Usage {
                user_cpu_ms: 3,
                system_cpu_ms: 1,
                max_rss_kib: 900,
                gpu: None,
            }),
            ..Default::default()
        };
        let finished = agent::Finished { exit: Some(exit), epilog_fault: String::new() };
        self.report(&launch, agent::slice_report::Phase::Finished(finished)).await;
        loop {
            let slice = self.wish().await.unwrap();
            if slice.want == agent::Want::Forget as i32 {
                return launch;
            }
        }
    }
}

fn agent_token(node: &str, key: [u8; 32]) -> Option<String> {
    let now = muster_controller::auth::now_seconds();
    Some(ClusterKey::new(&key).unwrap().sign_agent(node, now).unwrap())
}

#[tokio::test]
async fn a_stranger_on_tcp_is_nobody_and_a_token_holder_is_its_uid() {
    let world = World::new().await;
    let mut stranger = QueryClient::new(world.remote(None).await);
    assert_eq!(stranger.ping(v1::PingRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let forged = ClusterKey::new(&[8; 32]).unwrap();
    let now = muster_controller::auth::now_seconds();
    let forged = forged.sign_user(0, 0, now).unwrap().0;
    let mut liar = QueryClient::new(world.remote(Some(forged)).await);
    assert_eq!(liar.ping(v1::PingRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let mut user = QueryClient::new(world.remote(world.user(1000)).await);
    assert_eq!(user.ping(v1::PingRequest {}).await.unwrap().into_inner().cluster, "test");
    let traded = user.issue_token(v1::IssueTokenRequest {}).await.unwrap_err();
    assert_eq!(traded.code(), Code::PermissionDenied, "tokens are given out locally only");
    let mut local = QueryClient::new(world.local().await);
    let token = local.issue_token(v1::IssueTokenRequest {}).await.unwrap().into_inner().token;
    let mut back = QueryClient::new(world.remote(Some(token)).await);
    back.ping(v1::PingRequest {}).await.expect("a local token is good on TCP");
}

#[tokio::test]
async fn an_agent_without_the_key_is_refused_and_one_with_it_speaks_for_its_node() {
    let world = World::new().await;
    let refused = FakeAgent::connect(&world, "n1", None).await.err().expect("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let token = agent_token("n1", [8; 32]);
    let refused = FakeAgent::connect(&world, "n1", token).await.err().expect("wrong key");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = FakeAgent::connect(&world, "n1", world.user(1000)).await.err().expect("a user");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut other = FakeAgent::connect(&world, "n2", agent_token("n1", KEY)).await.unwrap();
    assert_eq!(other.wish().await.unwrap_err().code(), Code::PermissionDenied);
    let mut unknown = FakeAgent::connect(&world, "x9", agent_token("x9", KEY)).await.unwrap();
    assert_eq!(unknown.wish().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_user_neither_reads_nor_touches_what_is_anothers() {
    let world = World::new().await;
    let mut ann = JobsClient::new(world.remote(world.user(1000)).await);
    let held = submission("secret", |s| {
        s.held = true;
        // A message cannot say who sends it.
        s.user = Some(v1::User { uid: 0, gid: 0, name: "root".into() });
    });
    let job = ann.submit(held).await.unwrap().into_inner().job;
    let seen = world.jobs(v1::JobFilter::default()).await;
    assert_eq!(seen[0].spec.as_ref().unwrap().user.as_ref().unwrap().uid, 1000);

    let script = v1::GetScriptRequest { job, environment: false };
    let mut eve = QueryClient::new(world.remote(world.user(2000)).await);
    assert_eq!(eve.get_script(script).await.unwrap_err().code(), Code::PermissionDenied);
    let mut operator = QueryClient::new(world.remote(world.user(7777)).await);
    let read = operator.get_script(script).await.unwrap().into_inner().content;
    assert_eq!(&read[..], b"#!/bin/sh\ntrue\n");
    let mut own = QueryClient::new(world.remote(world.user(1000)).await);
    let env = v1::GetScriptRequest { job, environment: true };
    assert_eq!(&own.get_script(env).await.unwrap().into_inner().content[..], b"A=1\0");

    let jobs = vec![v1::JobRef { job, tasks: String::new() }];
    let cancel = v1::CancelRequest { jobs, ..Default::default() };
    let mut thief = JobsClient::new(world.remote(world.user(2000)).await);
    let results = thief.cancel(cancel.clone()).await.unwrap().into_inner().results;
    assert_eq!(results[0].error.as_ref().unwrap().slurm_errno, 2002);
    let results = ann.cancel(cancel).await.unwrap().into_inner().results;
    assert_eq!(results[0].error, None);
    let seen = world.jobs(v1::JobFilter::default()).await;
    assert_eq!(seen[0].state, v1::JobState::Cancelled as i32);
    assert_eq!(seen[0].cancelled_by, 1000);
}

#[tokio::test]
async fn a_job_is_launched_ends_and_is_in_the_history() {
    let world = World::new().await;
    let mut agent = FakeAgent::connect(&world, "n1", agent_token("n1", KEY)).await.unwrap();
    let mut jobs = JobsClient::new(world.local().await);
    let request = submission("train", |_| ());
    let job = jobs.submit(request.clone()).await.unwrap().into_inner().job;
    let again = jobs.submit(request).await.unwrap().into_inner().job;
    assert_eq!(job, again, "a request is granted once");

    let slice = agent.run_one(3).await;
    let launch = slice.launch.expect("a start comes with its launch");
    assert_eq!((launch.job, launch.node.as_str(), launch.batch), (job, "n1", true));
    assert_eq!(&launch.script[..], b"#!/bin/sh\ntrue\n");
    let env = String::from_utf8(launch.environment.to_vec()).unwrap();
    assert!(env.contains("A=1\0") && env.contains(&format!("SLURM_JOB_ID={job}\0")));
    ClusterKey::new(&KEY)
        .unwrap()
        .check_launch(&slice.credential, &launch, "n1")
        .expect("the credential is for this launch");

    let ended = world.until(job, v1::JobState::Failed).await;
    assert_eq!(ended.exit, Some(v1::ExitStatus { code: 3, signal: 0 }));
    assert_eq!((ended.nodes.as_str(), ended.reason.as_str()), ("n1", "NonZeroExitCode"));

    muster_controller::recorder::flush(&world.controller).await.unwrap();
    let refs = vec![v1::JobRef { job, tasks: String::new() }];
    let request = v1::HistoryRequest { jobs: refs, ..Default::default() };
    let pages = QueryClient::new(world.local().await).list_history(request).await.unwrap();
    let page = pages.into_inner().next().await.unwrap().unwrap();
    let row = &page.rows[0];
    assert_eq!(row.job.as_ref().unwrap().state, v1::JobState::Failed as i32);
    assert_eq!(row.steps[0].id, "batch");
    assert_eq!(row.steps[0].usage.as_ref().unwrap().max_rss_kib, 900);
}

#[tokio::test]
async fn what_an_agent_has_and_the_controller_does_not_know_is_stopped() {
    let world = World::new().await;
    let (say, said) = mpsc::channel(16);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(said));
    let value = format!("Bearer {}", agent_token("n1", KEY).unwrap()).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let phase = agent::slice_report::Phase::Running(agent::Running::default());
    let hello = agent::Hello {
        node: "n1".into(),
        inventory: Some(agent::Inventory { cpus: 4, memory_mib: 4096, ..Default::default() }),
        slices: vec![agent::SliceReport { job: 4242, attempt: 1, phase: Some(phase) }],
        ..Default::default()
    };
    let kind = Some(agent::agent_message::Kind::Hello(hello));
    say.send(agent::AgentMessage { kind }).await.unwrap();
    let hear = AgentsClient::new(world.local().await).session(request).await.unwrap().into_inner();
    let mut agent = FakeAgent { say, hear };
    let wish = agent.wish().await.unwrap();
    assert_eq!((wish.job, wish.want), (4242, agent::Want::Stop as i32));
}

#[tokio::test]
async fn a_bad_submission_is_refused_by_name_and_the_next_one_is_taken() {
    let world = World::new().await;
    let mut jobs = JobsClient::new(world.local().await);
    let mut check = async |spoil: fn(&mut v1::SubmitRequest), fault: &str| {
        let mut request = submission("x", |_| ());
        spoil(&mut request);
        let refused = jobs.submit(request).await.unwrap_err();
        assert!(refused.message().contains(fault), "{:?}, not {fault:?}", refused.message());
    };
    check(|r| r.script = "".into(), "script: is empty").await;
    check(|r| r.script = "echo".into(), "script: must begin with #!").await;
    check(|r| r.script = "#!/bin/sh\n\0".into(), "NUL").await;
    check(|r| r.script = vec![b'#'; 5 << 20].into(), "script: 5242880 bytes").await;
    check(|r| r.environment = vec![b'A'; 3 << 20].into(), "environment: 3145728 bytes").await;
    check(|r| r.spec.as_mut().unwrap().name = "a\nb".into(), "job name").await;
    check(|r| r.spec.as_mut().unwrap().array = "5-1".into(), "array").await;
    check(|r| r.spec.as_mut().unwrap().partitions = vec!["no".into()], "partition \"no\"").await;
    check(|r| r.request_id = "short".into(), "request id").await;
    jobs.submit(submission("good", |_| ())).await.expect("nothing else changed");
}

#[tokio::test]
async fn many_submissions_on_one_call_are_answered_in_order() {
    let world = World::new().await;
    let mut jobs = JobsClient::new(world.local().await);
    let requests: Vec<v1::SubmitRequest> = (0..300)
        .map(|i| {
            let bad = i % 100 == 99;
            submission("many", |s| {
                if bad {
                    s.array = "5-1".into()
                }
            })
        })
        .collect();
    let replies = jobs.submit_many(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let replies: Vec<v1::SubmitReply> = replies.map(Result::unwrap).collect().await;
    assert_eq!(replies.len(), 300);
    let refused: Vec<usize> = (0..300).filter(|i| replies[*i].error.is_some()).collect();
    assert_eq!(refused, [99, 199, 299]);
    let ids: Vec<u32> = replies.iter().filter(|r| r.error.is_none()).map(|r| r.job).collect();
    assert!(ids.is_sorted(), "in the order sent");
}

#[tokio::test]
async fn listings_are_filtered_and_show_an_array_as_one_line() {
    let world = World::new().await;
    let mut ann = JobsClient::new(world.remote(world.user(1000)).await);
    let array = ann.submit(submission("sweep", |s| s.array = "0-9%2".into())).await;
    let array = array.unwrap().into_inner().job;
    let mut bob = JobsClient::new(world.remote(world.user(2000)).await);
    let single = bob.submit(submission("one", |s| s.held = true)).await.unwrap().into_inner().job;
    let ids = |jobs: Vec<v1::Job>| jobs.iter().map(|j| j.id).collect::<Vec<_>>();

    let all = world.jobs(v1::JobFilter::default()).await;
    assert_eq!(all[0].array_tasks, "0-9");
    let file = |index: u32| format!("/slurm-{array}_{index}.out");
    assert!(all[0].stdout.ends_with(&file(u32::MAX - 1)), "{}", all[0].stdout);
    assert_eq!((all[0].stdin.as_str(), &all[0].stderr), ("/dev/null", &all[0].stdout));
    let fourth = vec![v1::JobRef { job: array, tasks: "4".into() }];
    let request = v1::ListJobsRequest { jobs: fourth, ..Default::default() };
    let mut query = QueryClient::new(world.local().await);
    let mut pages = query.list_jobs(request).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    assert_eq!(page.jobs[0].array_tasks, "4");
    assert!(page.jobs[0].stdout.ends_with(&file(4)), "{}", page.jobs[0].stdout);
    assert_eq!(all[1].reason, "JobHeldUser");
    assert_eq!(ids(all), [array, single]);
    let by = |change: fn(&mut v1::JobFilter)| {
        let mut filter = v1::JobFilter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(ids(world.jobs(by(|f| f.users = vec!["2000".into()])).await), [single]);
    assert_eq!(ids(world.jobs(by(|f| f.names = vec!["sweep".into()])).await), [array]);
    assert_eq!(ids(world.jobs(by(|f| f.partitions = vec!["no".into()])).await), [0u32; 0]);
    assert_eq!(ids(world.jobs(by(|f| f.states = vec!["RUNNING".into()])).await), [0u32; 0]);
    assert_eq!(ids(world.jobs(by(|f| f.nodes = vec!["n1".into()])).await), [0u32; 0]);

    let jobs = vec![v1::JobRef { job: array, tasks: "[1-5]".into() }];
    let cancel = v1::CancelRequest { jobs, ..Default::default() };
    let results = ann.cancel(cancel).await.unwrap().into_inner().results;
    assert!(results.iter().all(|r| r.error.is_none()), "{results:?}");
    let rest = world.jobs(by(|f| f.states = vec!["PENDING".into()])).await;
    assert_eq!(rest[0].array_tasks, "0,6-9");
    let gone = world.jobs(by(|f| f.states = vec!["CANCELLED".into()])).await;
    assert_eq!(gone[0].array_tasks, "1-5");

    let unknown = v1::ListJobsRequest {
        jobs: vec![v1::JobRef { job: 999_999, tasks: String::new() }],
        ..Default::default()
    };
    let refused = QueryClient::new(world.local().await).list_jobs(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn ten_thousand_steps_of_a_job_are_heard_and_commit_nothing() {
    let world = World::new().await;
    let mut agent = FakeAgent::connect(&world, "n1", agent_token("n1", KEY)).await.unwrap();
    let request = submission("steps", |_| ());
    let job = JobsClient::new(world.local().await).submit(request).await.unwrap().into_inner().job;
    let launch = loop {
        let slice = agent.wish().await.unwrap();
        if slice.want == agent::Want::Run as i32 {
            break slice;
        }
    };
    let started_at = muster_controller::now().0;
    let running = agent::Running { started_at, suspended: false };
    agent.report(&launch, agent::slice_report::Phase::Running(running)).await;
    world.until(job, v1::JobState::Running).await;
    let commits = || {
        let stats = world.controller.engine.stats();
        stats.commits.load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = commits();
    let (id, attempt) = (muster_model::JobId(job), launch.attempt);
    let step = |step| v1::Step { job, attempt, step, ..Default::default() };
    for hundred in 0..100 {
        let steps = (hundred * 100..hundred * 100 + 100).map(step).collect();
        agent
            .tell(agent::agent_message::Kind::Steps(agent::StepsTold { steps, parts: Vec::new() }))
            .await;
    }
    let heard = || world.controller.steps.of(id, attempt).last().map(|last| last.step);
    while heard() != Some(9_999) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(commits() - before, 0);
}

/// A gang's first node is told where the agents of all of them are, and queries show it.
#[tokio::test]
async fn agents_that_serve_other_hosts_are_named_in_launches_and_queries() {
    let world = World::new().await;
    let hello = |node: &str, port| agent::Hello {
        node: node.into(),
        inventory: Some(agent::Inventory {
            cpus: 4,
            memory_mib: 4096,
            address: format!("host-of-{node}"),
            ..Default::default()
        }),
        port,
        ..Default::default()
    };
    let (one, two) = (agent_token("n1", KEY), agent_token("n2", KEY));
    let mut n1 = FakeAgent::greet(&world, hello("n1", 6818), one).await.unwrap();
    let mut n2 = FakeAgent::greet(&world, hello("n2", 0), two).await.unwrap();
    let request = submission("gang", |spec| {
        let request = spec.request.get_or_insert_default();
        (request.min_nodes, request.max_nodes, request.tasks) = (2, Some(2), 2);
    });
    JobsClient::new(world.local().await).submit(request).await.unwrap();
    let launch = n1.wish().await.unwrap().launch.expect("a launch");
    assert!(n2.wish().await.unwrap().launch.expect("a launch").shares.is_empty());
    let places: Vec<_> = launch.shares.iter().map(|s| (&*s.node, &*s.address)).collect();
    assert_eq!(places, [("n1", "host-of-n1:6818"), ("n2", "")], "n2 serves its own host alone");
    let mut query = QueryClient::new(world.local().await);
    let pages = query.list_nodes(v1::ListNodesRequest::default()).await;
    let nodes = pages.unwrap().into_inner().next().await.unwrap().unwrap().nodes;
    let shown: Vec<_> = nodes.iter().map(|n| (&*n.address, n.port)).collect();
    assert_eq!(shown, [("host-of-n1", 6818), ("host-of-n2", 0)]);
}

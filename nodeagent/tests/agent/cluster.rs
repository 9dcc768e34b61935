//! A controller that says what a test tells it to, and an agent process to say it to.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use muster_proto::agent::v1::agents_server::{Agents, AgentsServer};
use muster_proto::agent::v1::slice_report::Phase;
use muster_proto::agent::v1::{
    AgentMessage, ControllerMessage, Desired, DesiredSlice, Hello, SliceReport, Want, Welcome,
    agent_message, controller_message,
};
use muster_proto::shim::v1::Launch;
use muster_proto::token::ClusterKey;
use muster_proto::v1::{LaunchSpec, User};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{StreamExt, once};
use tonic::{Request, Response, Status, Streaming};

/// A wait that only a broken agent exhausts.
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const KEY: [u8; 32] = [42; 32];

type Outgoing = mpsc::Sender<Result<ControllerMessage, Status>>;

#[derive(Clone)]
struct Fake {
    said: mpsc::UnboundedSender<agent_message::Kind>,
    session: Arc<Mutex<Option<Outgoing>>>,
}

#[tonic::async_trait]
impl Agents for Fake {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let bearer = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let token = bearer.and_then(|b| b.strip_prefix("Bearer ")).unwrap_or_default();
        let key = ClusterKey::new(&KEY).expect("32 bytes");
        let claims = key.check_agent(token).map_err(|f| Status::unauthenticated(f.to_string()))?;
        assert_eq!(claims.node, "n1");
        let (tx, rx) = mpsc::channel(64);
        *self.session.lock().unwrap() = Some(tx);
        let (said, mut incoming) = (self.said.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                let _ = said.send(message.kind.expect("a message says something"));
            }
        });
        let welcome = Welcome {
            cluster: "test".into(),
            heartbeat_seconds: 1,
            kill_wait_seconds: 1,
            unkillable_seconds: 10,
            sample_seconds: 1,
        };
        let welcome = message(controller_message::Kind::Welcome(welcome));
        Ok(Response::new(Box::pin(once(Ok(welcome)).chain(ReceiverStream::new(rx)))))
    }
}

fn message(kind: controller_message::Kind) -> ControllerMessage {
    ControllerMessage { kind: Some(kind) }
}

/// A folder with a config, a controller that answers there, and perhaps an agent.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    said: mpsc::UnboundedReceiver<agent_message::Kind>,
    session: Arc<Mutex<Option<Outgoing>>>,
    agent: Option<Child>,
}

impl Cluster {
    /// With these lines in the config's `[agent]`. No agent yet.
    pub(crate) async fn new(agent_config: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("muster-agent").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let at = dir.path().display();
        let agent_config = agent_config.replace("%DIR%", &at.to_string());
        let config = format!(
            "cluster = \"test\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n\
             [security]\ncluster_key = \"{at}/key\"\n\
             [scheduler]\nunkillable_seconds = 10\n\
             [agent]\nspool_dir = \"{at}/spool/%n\"\n{agent_config}\n\
             [[node]]\nname = \"n1\"\ncpus = 64\nmemory = \"64G\"\n"
        );
        std::fs::write(dir.path().join("muster.toml"), config).unwrap();
        std::fs::write(dir.path().join("key"), KEY).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("key"), private).unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let listener = UnixListener::bind(dir.path().join("run/controller.sock")).unwrap();
        let (tx, said) = mpsc::unbounded_channel();
        let session = Arc::new(Mutex::new(None));
        let fake = Fake { said: tx, session: session.clone() };
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentsServer::new(fake))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Cluster { dir, said, session, agent: None }
    }

    /// Starts an agent and hears its Hello. It is told that nothing is wanted only when a test
    /// says so.
    pub(crate) async fn start(&mut self) -> Hello {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["agent", "n1"])
            .arg(self.dir.path().join("muster.toml"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.dir.path().join("agent.log")).unwrap())
            .spawn()
            .unwrap();
        self.agent = Some(child);
        loop {
            if let agent_message::Kind::Hello(hello) = self.hear().await {
                return hello;
            }
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
        *self.session.lock().unwrap() = None;
    }

    pub(crate) async fn hear(&mut self) -> agent_message::Kind {
        match tokio::time::timeout(PATIENCE, self.said.recv()).await {
            Ok(Some(kind)) => kind,
            _ => panic!("the agent says nothing; its log:\n{}", self.log()),
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// Waits for a report of a job that satisfies `enough`.
    pub(crate) async fn until(&mut self, job: u32, enough: impl Fn(&Phase) -> bool) -> Phase {
        loop {
            let slices = match self.hear().await {
                agent_message::Kind::Reports(reports) => reports.slices,
                agent_message::Kind::Hello(hello) => hello.slices,
                _ => continue,
            };
            let mine = slices.into_iter().filter(|s| s.job == job).filter_map(|s| s.phase);
            if let Some(phase) = mine.into_iter().find(|phase| enough(phase)) {
                return phase;
            }
        }
    }

    /// Waits for the end of a job.
    pub(crate) async fn end(&mut self, job: u32) -> Phase {
        let over =
            |p: &Phase| matches!(p, Phase::Finished(_) | Phase::LaunchFailed(_) | Phase::Lost(_));
        self.until(job, over).await
    }

    pub(crate) async fn want(&self, slices: Vec<DesiredSlice>) {
        self.say(controller_message::Kind::Desired(Desired { full: false, slices })).await;
    }

    pub(crate) async fn say(&self, kind: controller_message::Kind) {
        let session = self.session.lock().unwrap().clone().expect("a session");
        session.send(Ok(message(kind))).await.expect("the session lasts");
    }

    /// A wish for one slice, without a launch.
    pub(crate) fn wish(job: u32, want: Want) -> DesiredSlice {
        DesiredSlice { job, attempt: 1, want: want.into(), ..DesiredSlice::default() }
    }

    /// A launch of a script, as this user, signed.
    pub(crate) fn run(&self, job: u32, script: &str) -> DesiredSlice {
        signed(self.launch(job, script), Want::Run)
    }

    pub(crate) fn launch(&self, job: u32, script: &str) -> Launch {
        let uid = nix::unistd::geteuid();
        let name = nix::unistd::User::from_uid(uid).unwrap().expect("this user has a name").name;
        let user = User { uid: uid.as_raw(), gid: nix::unistd::getegid().as_raw(), name };
        let workdir = self.dir.path().display().to_string();
        let spec = LaunchSpec { workdir, umask: 0o022, ..LaunchSpec::default() };
        Launch {
            job,
            attempt: 1,
            user: Some(user),
            node: "n1".into(),
            batch: true,
            script: format!("#!/bin/sh\n{script}\n").into(),
            environment: "PATH=/usr/bin:/bin\0".into(),
            spec: Some(spec),
            job_name: "story".into(),
            cpus: "0".into(),
            cpu_count: 1,
            nodes: "n1".into(),
            ..Launch::default()
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn spooled(&self, job: u32) -> bool {
        self.path(&format!("spool/n1/jobs/{job}.1")).exists()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Asked, not killed: it takes its control groups along.
        if let Some(mut agent) = self.agent.take() {
            let pid = nix::unistd::Pid::from_raw(agent.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = agent.wait();
        }
    }
}

pub(crate) fn signed(launch: Launch, want: Want) -> DesiredSlice {
    signed_with(&KEY, launch, want)
}

pub(crate) fn signed_with(key: &[u8], launch: Launch, want: Want) -> DesiredSlice {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let credential = ClusterKey::new(key).unwrap().sign_launch(&launch, now.as_secs()).unwrap();
    DesiredSlice {
        job: launch.job,
        attempt: launch.attempt,
        want: want.into(),
        launch: Some(launch),
        credential,
        ..DesiredSlice::default()
    }
}

/// Waits for a file that a job makes.
pub(crate) async fn appears(path: &Path) {
    let waiting = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the file appears");
}

/// Waits for a file that the agent removes.
pub(crate) async fn vanishes(path: &Path) {
    let waiting = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the file vanishes");
}

/// Of a report: the batch process's exit code and signal.
pub(crate) fn code_and_signal(phase: &Phase) -> (u32, u32) {
    let Phase::Finished(finished) = phase else { panic!("{phase:?} is no end by itself") };
    let status = finished.exit.as_ref().and_then(|exit| exit.status).expect("a process ran");
    (status.code, status.signal)
}

pub(crate) fn slice(hello: &Hello, job: u32) -> Option<&SliceReport> {
    hello.slices.iter().find(|s| s.job == job)
}

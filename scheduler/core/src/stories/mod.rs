//! Stories: wishes and reports against a small cluster, and what the queue looks like after them.
//!
//! After every fact all invariants are checked; at the end of every story the log is replayed, and
//! a snapshot restored, and both must give the very same state (and the same next plan).

mod arrays;
mod backfill;
mod binding;
mod dependencies;
mod gangs;
mod gpus;
mod het;
mod instances;
mod lives;
mod nodes;
mod planner;
mod random;
mod reservations;
mod submissions;
mod updates;
mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::*;

use crate::apply::apply;
use crate::check::check as violations;
use crate::command::{Command, SliceExit, SliceReport, Submit, Target};
use crate::config::{Actor, ClusterConfig, Limits, PriorityWeights, Role};
use crate::decide::{Reply, decide};
use crate::effect::Desired;
use crate::effects::{desired, effects, outstanding};
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::plan::{DEFAULT_FUEL, Packing, Plan, Policy, Reasons, plan, view};
use crate::rejection::Rejection;
use crate::state::{Entry, Job, JobView, Parts, State};

/// The first node that fits, so that stories are easy to follow.
const POLICY: Policy = Policy { packing: Packing::FirstFit, ..Policy::DEFAULT };

const ALICE: Actor = Actor { uid: Uid(1000), role: Role::User };
const BOB: Actor = Actor { uid: Uid(1001), role: Role::User };
const OP: Actor = Actor { uid: Uid(2000), role: Role::Operator };
const ADMIN: Actor = Actor { uid: Uid(3000), role: Role::Admin };

/// A cluster that remembers what happened to it.
#[derive(Clone)]
struct World {
    state: State,
    log: Vec<Event>,
    now: Timestamp,
    reasons: Reasons,
    last: JobId,
    requests: u8,
}

pub(crate) fn node(name: &str, cpus: u32, gpus: u64, features: &[&str]) -> NodeConfig {
    let gpus = (gpus > 0).then(|| (GresKind::new("gpu", Some("h100")), gpus));
    NodeConfig {
        name: name.into(),
        capacity: Capacity { cpus, memory_mib: 64_000, gres: gpus.into_iter().collect() },
        sockets: 1,
        cores_per_socket: cpus,
        threads_per_core: 1,
        features: features.iter().map(|f| (*f).into()).collect(),
        auto_gpus: false,
        weight: 1,
    }
}

pub(crate) fn partition(name: &str, nodes: &[&str], default: bool) -> Partition {
    Partition {
        name: name.into(),
        nodes: nodes.iter().map(|n| (*n).into()).collect(),
        default,
        state: PartitionState::Up,
        max_time: TimeLimit::minutes(1440),
        default_time: Some(TimeLimit::minutes(60)),
        min_nodes: 1,
        max_nodes: None,
        priority_tier: 1,
        priority_factor: 1,
        default_memory_per_node_mib: None,
        default_memory_per_cpu_mib: Some(100),
        max_memory_per_node_mib: Some(64_000),
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        exclusive: false,
    }
}

/// Four nodes: n1, n2 with 8 CPUs and 4 GPUs, n3, n4 with 4 CPUs and the feature `ib`.
fn config() -> ClusterConfig {
    ClusterConfig {
        cluster: "test".into(),
        nodes: vec![
            node("n1", 8, 4, &["gpu"]),
            node("n2", 8, 4, &["gpu"]),
            node("n3", 4, 0, &["ib"]),
            node("n4", 4, 0, &["ib"]),
        ],
        partitions: vec![
            partition("main", &["n1", "n2", "n3", "n4"], true),
            partition("small", &["n3", "n4"], false),
        ],
        licenses: vec![("matlab".into(), 2)],
        limits: Limits { max_jobs: 5000, max_requeues: 3, ..Limits::default() },
        priority: PriorityWeights::default(),
        topology: muster_model::TopologyConfig::default(),
    }
}

pub(crate) fn request() -> Request {
    Request { tasks_given: true, ..Request::default() }
}

fn gpus(count: u64, scope: GresScope) -> GresRequest {
    GresRequest { kind: GresKind::new("gpu", None), count, scope }
}

fn spec(actor: Actor, name: &str) -> JobSpec {
    JobSpec {
        name: name.into(),
        user: User { uid: actor.uid, gid: 100, name: format!("u{}", actor.uid).into() },
        account: "physics".into(),
        qos: "normal".into(),
        partitions: Vec::new(),
        request: Arc::new(request()),
        time_limit: None,
        time_min: None,
        begin: None,
        deadline: None,
        dependency: Dependency::default(),
        kill_on_invalid_dependency: false,
        array: None,
        het: None,
        held: false,
        nice: 0,
        priority: None,
        requeue: None,
        licenses: Vec::new(),
        reservation: None,
        comment: Box::default(),
        wckey: Box::default(),
        args: Box::default(),
        submit_line: Box::default(),
        launch: Arc::default(),
        script_bytes: 10,
        env_bytes: 10,
    }
}

impl World {
    /// The cluster of [`config`], all nodes registered.
    fn new() -> Self {
        World::with(config())
    }

    fn with(config: ClusterConfig) -> Self {
        let mut world = World {
            state: State::new(),
            log: Vec::new(),
            now: Timestamp(1_000_000_000),
            reasons: Reasons::default(),
            last: JobId(0),
            requests: 0,
        };
        world.wish(Command::Configure(Box::new(config.clone()))).expect("a sound config");
        for node in &config.nodes {
            world.register(&node.name);
        }
        world
    }

    fn wish(&mut self, command: Command) -> Result<Reply, Rejection> {
        let decision = decide(&self.state, &command, self.now)?;
        for event in decision.events {
            apply(&mut self.state, &event);
            let wrong = violations(&self.state);
            assert!(wrong.is_empty(), "after {event:?}: {wrong:?}");
            let _ = effects(&self.state, &event);
            self.log.push(event);
        }
        Ok(decision.reply)
    }

    fn node(&self, name: &str) -> NodeId {
        self.state.node_id(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    fn register(&mut self, name: &str) {
        let node = self.node(name);
        let capacity = self.state.nodes[node.0 as usize].config.capacity.clone();
        let inventory = Inventory { capacity, boot_id: "b1".into(), ..Inventory::default() };
        self.wish(Command::Register { node, inventory: Box::new(inventory) }).expect("registers");
    }

    fn submit_spec(&mut self, actor: Actor, spec: JobSpec) -> Result<JobId, Rejection> {
        self.requests = self.requests.wrapping_add(1);
        let mut request_id = [1; 16];
        request_id[0] = self.requests;
        let count = self.log.len().to_le_bytes();
        request_id[1..9].copy_from_slice(&count);
        let submit = Submit { actor, groups: Vec::new(), request_id, spec, components: Vec::new() };
        match self.wish(Command::Submit(Box::new(submit)))? {
            Reply::Submitted { job, .. } => {
                self.last = job;
                Ok(job)
            }
            other => panic!("a submission is answered with {other:?}"),
        }
    }

    /// Submits as Alice, with a change to the plainest job.
    fn submit(&mut self, change: impl FnOnce(&mut JobSpec, &mut Request)) -> JobId {
        self.try_submit(change).expect("admitted")
    }

    fn try_submit(
        &mut self,
        change: impl FnOnce(&mut JobSpec, &mut Request),
    ) -> Result<JobId, Rejection> {
        let mut spec = spec(ALICE, "job");
        let mut request = request();
        change(&mut spec, &mut request);
        spec.request = Arc::new(request);
        self.submit_spec(ALICE, spec)
    }

    fn after(&mut self, dependency: &str) -> JobId {
        self.submit(|spec, _| spec.dependency = Dependency::parse(dependency).expect("valid"))
    }

    fn array(&mut self, indices: &str) -> JobId {
        self.submit(|spec, _| spec.array = Some(ArraySpec::parse(indices, 100_000).expect("valid")))
    }

    fn wait(&mut self, seconds: i64) {
        self.now = self.now.plus_seconds(seconds);
    }

    fn plan(&self) -> Plan {
        plan(&view(&self.state, self.now, &POLICY), &POLICY, self.now, DEFAULT_FUEL)
    }

    /// One pass; everything it chose must be accepted.
    fn pass(&mut self) -> usize {
        let plan = self.plan();
        self.reasons = plan.reasons;
        let count = plan.starts.len();
        match self.wish(Command::Commit(plan.starts)).expect("a plan is never refused as a whole") {
            Reply::Starts { accepted, refused } => {
                // A singleton may lose its turn to another job of the same plan and name.
                let turn = |id: &JobId| match self.state.find(*id) {
                    Some(view) => view.spec().dependency.singleton,
                    None => false,
                };
                assert!(refused.iter().all(|(id, _)| turn(id)), "the plan fits: {refused:?}");
                assert_eq!(accepted + refused.len(), count);
            }
            other => panic!("a plan is answered with {other:?}"),
        }
        count
    }

    fn job(&self, id: u32) -> &Job {
        self.state.jobs.get(&JobId(id)).unwrap_or_else(|| panic!("no job {id}"))
    }

    fn report(&mut self, id: u32, node: &str, report: SliceReport) {
        let (job, attempt, node) = (JobId(id), self.job(id).attempt, self.node(node));
        self.wish(Command::Slice { job, attempt, node, report }).expect("reports are taken");
    }

    fn nodes_of(&self, id: u32) -> Vec<String> {
        let held = self.job(id).phase.allocation();
        let name = |n: &NodeId| self.state.nodes[n.0 as usize].config.name.to_string();
        held.map_or_else(Vec::new, |held| held.remaining.iter().map(name).collect())
    }

    /// Reports what agents would until the job runs.
    fn run(&mut self, id: u32) {
        let nodes = self.nodes_of(id);
        if nodes.len() > 1 {
            for node in &nodes {
                self.report(id, node, SliceReport::Ready);
            }
        }
        self.report(id, &nodes[0], SliceReport::Running { started_at: self.now });
    }

    /// The batch process ends with this code; all other slices are cleared.
    fn exit(&mut self, id: u32, code: u8) {
        let nodes = self.nodes_of(id);
        let exit = self.exit_of(code);
        self.report(id, &nodes[0], SliceReport::Finished { exit: Some(exit) });
        for node in &nodes[1..] {
            self.report(id, node, SliceReport::Finished { exit: None });
        }
    }

    fn exit_of(&self, code: u8) -> SliceExit {
        SliceExit {
            status: ExitStatus { code, signal: 0 },
            oom: false,
            timed_out: false,
            started_at: self.now,
            ended_at: self.now,
            usage: Usage { user_cpu_ms: 5, system_cpu_ms: 1, max_rss_kib: 100, gpu: None },
        }
    }

    /// Agents clear whatever is to be stopped.
    fn clear(&mut self) {
        for node in 0..self.state.nodes.len() {
            let name = self.state.nodes[node].config.name.to_string();
            for (job, _, want) in desired(&self.state, self.node(&name)) {
                if matches!(want, Desired::Stop(_)) {
                    self.report(job.0, &name, SliceReport::Finished { exit: None });
                }
            }
        }
    }

    fn run_all(&mut self) {
        let launching = |j: &&Job| matches!(j.phase, Phase::Launching { .. });
        let ids: Vec<u32> = self.state.jobs.values().filter(launching).map(|j| j.id.0).collect();
        ids.into_iter().for_each(|id| self.run(id));
    }

    fn verb(&mut self, command: Command) -> Vec<Result<(), Rejection>> {
        match self.wish(command) {
            Ok(Reply::Jobs(results)) => results.into_iter().map(|r| r.result).collect(),
            Ok(other) => panic!("a verb is answered with {other:?}"),
            Err(why) => vec![Err(why)],
        }
    }

    fn cancel(&mut self, id: u32) {
        let target = Target::Job(JobId(id));
        let results = self.verb(Command::Cancel { actor: ALICE, target });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// One line per job: id, phase, reason or outcome, nodes.
    fn describe(&self) -> String {
        let first = Entry::rest(JobId(0));
        let lines: Vec<String> =
            self.state.views_from(first).map(|v| self.describe_one(v)).collect();
        lines.join("\n")
    }

    fn describe_one(&self, view: JobView<'_>) -> String {
        let job = match view {
            JobView::ArrayRest(array) => {
                let reason = self.reasons.of(&self.state, view, self.now);
                return format!("{}_[{}] waits {reason}", array.id, array.pending);
            }
            JobView::Single(job) | JobView::Task(job) => job,
        };
        let what = match &job.phase {
            Phase::Pending { .. } => {
                format!("waits {}", self.reasons.of(&self.state, view, self.now))
            }
            Phase::Launching { .. } => format!("launches on {}", self.nodes_of(job.id.0).join(",")),
            Phase::Running { suspended: None, .. } => {
                format!("runs on {}", self.nodes_of(job.id.0).join(","))
            }
            Phase::Running { .. } => "is suspended".to_owned(),
            Phase::Completing { outcome, .. } => format!("completes {outcome:?}"),
            Phase::Ended { outcome, .. } => format!("ended {}", short(outcome)),
        };
        format!("{} {what}", job.id)
    }

    /// The log, replayed, gives this state; so does a snapshot; and both plan alike.
    fn proven(&self) {
        let mut replayed = State::new();
        self.log.iter().for_each(|event| apply(&mut replayed, event));
        assert_eq!(replayed, self.state, "replay");
        let parts: Parts = self.state.parts();
        let restored = State::from_parts(parts);
        assert_eq!(restored, self.state, "snapshot");
        let of =
            |state: &State| plan(&view(state, self.now, &POLICY), &POLICY, self.now, DEFAULT_FUEL);
        assert_eq!(of(&replayed), of(&restored), "the next plan");
        assert_eq!(outstanding(&replayed), outstanding(&self.state));
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(status) => format!("Failed({})", status.code),
        Outcome::Cancelled { by } => format!("Cancelled({by})"),
        Outcome::NodeFail { node } => format!("NodeFail({node})"),
        other => format!("{other:?}"),
    }
}

/// Tells a story and compares the queue after it, line by line.
#[track_caller]
fn check(mut world: World, story: impl FnOnce(&mut World), expected: &[&str]) {
    story(&mut world);
    world.proven();
    let shown = world.describe();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

/// A wish that must be refused, with this text.
#[track_caller]
fn refused(result: Result<impl std::fmt::Debug, Rejection>, text: &str) {
    let why = result.expect_err("refused").to_string();
    assert!(why.contains(text), "{why:?} does not say {text:?}");
}

/// Counts by some key, for terse expectations.
fn tally<K: Ord>(items: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    items.fold(BTreeMap::new(), |mut all, key| {
        *all.entry(key).or_default() += 1;
        all
    })
}

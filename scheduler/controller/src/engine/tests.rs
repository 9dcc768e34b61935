//! The engine as a whole: what it promises to callers, and what a restart finds.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use muster_core::check::check;
use muster_core::command::{
    Command, NodesWish, ReservationWish, SliceExit, SliceReport, StartWish, Submit, Target,
};
use muster_core::config::{Actor, ClusterConfig, Limits, PriorityWeights, Role};
use muster_core::effect::Effect;
use muster_core::event::Event;
use muster_core::plan::{self, Policy};
use muster_core::state::State;
use muster_model::*;
use muster_proto::store::v1 as rec;
use muster_store::{Fault, FaultKind, Log, Mem, MemDisk, SledLog};
use prost::Message as _;

use super::batch::{JobBlobs, Wish, environment_key, script_key, step};
use super::codec;
use super::recover::recover;
use super::snapshot;
use super::thread::{Clock, Engine, EngineError};
use crate::recorder::Recorder;

const ALICE: u32 = 1000;

fn config() -> ClusterConfig {
    let gpu = GresKind::new("gpu", Some("h100"));
    let node = |n: u32| NodeConfig {
        name: format!("n{n}").into(),
        capacity: Capacity {
            cpus: 8,
            memory_mib: 16_000,
            gres: [(gpu.clone(), 4)].into_iter().collect(),
        },
        sockets: 1,
        cores_per_socket: 8,
        threads_per_core: 1,
        features: Vec::new(),
        auto_gpus: false,
        weight: 1,
    };
    let nodes: Vec<NodeConfig> = (1..=4).map(node).collect();
    let partition = Partition {
        name: "main".into(),
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        default: true,
        state: PartitionState::Up,
        max_time: TimeLimit::Unlimited,
        default_time: None,
        min_nodes: 1,
        max_nodes: None,
        priority_tier: 1,
        priority_factor: 1,
        default_memory_per_node_mib: None,
        default_memory_per_cpu_mib: Some(100),
        max_memory_per_node_mib: None,
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        exclusive: false,
    };
    ClusterConfig {
        cluster: "test".into(),
        nodes,
        partitions: vec![partition],
        licenses: Vec::new(),
        limits: Limits::default(),
        priority: PriorityWeights::default(),
        topology: muster_model::TopologyConfig::default(),
    }
}

fn submit(request_id: u32) -> Submit {
    let user = User { uid: Uid(ALICE), gid: ALICE, name: "alice".into() };
    let request = Request { min_cpus_per_node: 1, ..Request::default() };
    let spec = JobSpec {
        name: "train".into(),
        user,
        account: "".into(),
        qos: "".into(),
        partitions: vec!["main".into()],
        request: Arc::new(request),
        time_limit: Some(TimeLimit::minutes(60)),
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
        comment: "".into(),
        wckey: "".into(),
        args: ["--case".into(), format!("{request_id}").into()].into(),
        submit_line: "sbatch job.sh".into(),
        launch: LaunchSpec { workdir: "/home/alice".into(), ..LaunchSpec::default() }.into(),
        script_bytes: 9,
        env_bytes: 5,
    };
    let mut id = [1; 16];
    id[..4].copy_from_slice(&request_id.to_le_bytes());
    Submit { actor: alice(), groups: Vec::new(), request_id: id, spec, components: Vec::new() }
}

fn alice() -> Actor {
    Actor { uid: Uid(ALICE), role: Role::User }
}

fn submission(request_id: u32) -> Command {
    Command::Submit(Box::new(submit(request_id)))
}

fn array(request_id: u32, indices: &str) -> Command {
    let mut submit = submit(request_id);
    submit.spec.array = Some(ArraySpec::parse(indices, 1000).unwrap());
    Command::Submit(Box::new(submit))
}

fn blobs() -> JobBlobs {
    JobBlobs { script: "#!/bin/sh".into(), environment: "A=1\0".into() }
}

/// A clock that moves a second at every look.
fn clock() -> Clock {
    let now = AtomicI64::new(1_000_000);
    Box::new(move || Timestamp(now.fetch_add(1000, Ordering::Relaxed)))
}

fn configured() -> Vec<Command> {
    let register = |node| Command::Register {
        node: NodeId(node),
        inventory: Box::new(Inventory {
            capacity: config().nodes[0].capacity.clone(),
            boot_id: "boot".into(),
            ..Inventory::default()
        }),
    };
    let mut out = vec![Command::Configure(Box::new(config()))];
    out.extend((0..4).map(register));
    out
}

/// Starts what the planner would start.
fn starts(state: &State, now: Timestamp) -> Vec<StartWish> {
    let view = plan::view(state, now, &Policy::default());
    plan::plan(&view, &Policy::default(), now, plan::DEFAULT_FUEL).starts
}

/// Brings everything that holds something to its end.
fn finish_all(state: &State, now: Timestamp) -> Vec<Command> {
    let finished = |job: &muster_core::state::Job, node| Command::Slice {
        job: job.id,
        attempt: job.attempt,
        node,
        report: SliceReport::Finished {
            exit: Some(SliceExit {
                status: ExitStatus::default(),
                oom: false,
                timed_out: false,
                started_at: now,
                ended_at: now,
                usage: Usage::default(),
            }),
        },
    };
    let held = state.jobs.values().filter_map(|job| Some((job, job.phase.allocation()?)));
    held.flat_map(|(job, held)| held.placement.nodes().map(move |node| finished(job, node)))
        .collect()
}

/// Commits batches one after the other; after each the log must tell the state again, from its
/// beginning and from the snapshot taken in the middle.
fn check_replay(story: &[fn(&State, Timestamp) -> Vec<Command>]) {
    let disk = MemDisk::default();
    let mut log = Mem::open(&disk).unwrap();
    log.recover().unwrap();
    let mut state = State::new();
    let mut early = None;
    let mut all = Vec::new();
    for (n, wishes) in story.iter().enumerate() {
        let now = Timestamp(1_000_000 + 10_000 * n as i64);
        let wishes = wishes(&state, now).into_iter().map(Wish::from).collect();
        let step = step(&mut state, wishes, now);
        assert_eq!(check(&state), [], "after batch {n}");
        let Some(batch) = step.commit else { continue };
        all.push(batch.payload.clone());
        let index = log.append(batch).unwrap();
        if n == story.len() / 2 {
            early = Some((index, snapshot::encode(&state.parts())));
        }
    }
    let mut replayed = State::new();
    for payload in all {
        for event in codec::decode(payload).unwrap().1 {
            muster_core::apply::apply(&mut replayed, &event);
        }
    }
    assert!(replayed == state, "a replay of all facts");
    let bytes = snapshot::encode(&state.parts());
    assert!(snapshot::decode(bytes.clone()).unwrap() == state, "a snapshot");
    assert!(snapshot::decode(with_launches_inside(bytes)).unwrap() == state, "an old snapshot");
    let (index, bytes) = early.expect("the middle batch was a commit");
    log.snapshot(index, bytes).unwrap();
    drop(log);
    let recovered = recover(&mut Mem::open(&disk).unwrap()).unwrap();
    assert!(recovered.state == state, "the early snapshot and the tail");
    let now = Timestamp(9_000_000);
    assert_eq!(starts(&recovered.state, now), starts(&state, now), "the next plan");
}

/// A snapshot as it was written before launches had a table of their own.
fn with_launches_inside(bytes: Bytes) -> Bytes {
    let mut snapshot = rec::Snapshot::decode(bytes).unwrap();
    for spec in &mut snapshot.specs {
        let launch = snapshot.launches[spec.launch_ref as usize - 1].clone();
        let (args, submit_line) = (take(&mut spec.args), take(&mut spec.submit_line));
        spec.launch = Some(rec::LaunchSpec { args, submit_line, ..launch });
        spec.launch_ref = 0;
    }
    snapshot.launches.clear();
    snapshot.encode_to_vec().into()
}

/// The first node in a week, for an hour.
fn reservation(name: &str, now: Timestamp, flags: ReservationFlags) -> Command {
    let start = now.plus_seconds(7 * 86_400);
    let operator = Actor { uid: Uid(0), role: Role::Admin };
    let wish = ReservationWish {
        name: Some(name.into()),
        nodes: NodesWish::Count(1),
        partition: None,
        start,
        end: start.plus_seconds(3600),
        users: Access { names: vec!["alice".into()], deny: false },
        accounts: Access::default(),
        flags,
        features: None,
        licenses: Vec::new(),
        comment: "a course".into(),
    };
    Command::CreateReservation { actor: operator, wish: Box::new(wish) }
}

#[test]
fn snapshot_and_tail_tell_the_same_as_all_facts() {
    check_replay(&[
        |_, _| configured(),
        |_, now| vec![reservation("course", now, ReservationFlags::DAILY)],
        |_, _| (0..30).map(submission).collect(),
        |_, _| vec![array(100, "0-9%3"), array(101, "1,5-7")],
        |state, now| vec![Command::Commit(starts(state, now))],
        |state, now| finish_all(state, now).into_iter().take(7).collect(),
        |_, _| {
            vec![
                Command::Cancel { actor: alice(), target: Target::Job(JobId(29)) },
                Command::Hold { actor: alice(), target: Target::Job(JobId(31)), by_user: true },
            ]
        },
        |state, now| vec![Command::Commit(starts(state, now))],
        |_, _| vec![Command::NodeLost { node: NodeId(1) }, Command::Tick],
        |state, now| finish_all(state, now),
        |state, now| vec![Command::Commit(starts(state, now)), submission(0), submission(200)],
        |state, now| vec![Command::Purge(state.purgeable(now.plus_seconds(100_000), 5))],
        |_, now| vec![reservation("late", now, ReservationFlags::MAINT)],
    ]);
}

/// An engine that runs on a thread of its own until its handles are gone.
fn start(log: impl Log + 'static) -> super::EngineHandle {
    Engine::start(Box::new(log), clock(), Box::new(|_| {})).unwrap()
}

async fn configure(engine: &super::EngineHandle) {
    for command in configured() {
        engine.tell(command).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_and_its_script_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(SledLog::open(dir.path()).unwrap());
    configure(&engine).await;
    let job = engine.submit(submission(1), Some(blobs())).await.unwrap().job.unwrap();
    let again = engine.submit(submission(1), Some(JobBlobs::default())).await.unwrap();
    assert_eq!((again.job, again.events.len()), (Some(job), 0), "a repeated request");
    let before = engine.look(Clone::clone).await.unwrap();
    stop(engine, || SledLog::open(dir.path()).is_ok());

    let engine = start(SledLog::open(dir.path()).unwrap());
    assert!(engine.look(Clone::clone).await.unwrap() == before);
    let kept = |key: Vec<u8>| engine.blobs().get(&key).unwrap();
    assert_eq!(kept(script_key(job)), Some("#!/bin/sh".into()));
    assert_eq!(kept(environment_key(job)), Some("A=1\0".into()));
}

/// Drops the handle and waits until the log is free again.
fn stop(engine: super::EngineHandle, free: impl Fn() -> bool) {
    drop(engine);
    while !free() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn duties_are_told_once_they_are_durable_and_not_before() {
    let disk = MemDisk::default();
    let engine = start(Mem::open(&disk).unwrap());
    let mut duties = engine.subscribe();
    configure(&engine).await;
    let job = engine.submit(submission(1), None).await.unwrap().job.unwrap();
    loop {
        let batch = duties.next().await.unwrap().unwrap();
        if batch.contains(&Effect::Notify { job }) {
            assert!(batch.contains(&Effect::WakePass));
            break;
        }
    }
}

/// A listing takes what lives from the state and what is over from the history: an end that the
/// state shows before the recorder knows of it would be in neither.
#[tokio::test]
async fn nobody_sees_an_end_before_its_witness_does() {
    let disk = MemDisk::default();
    let open = |seen: &Recorder| {
        Engine::start(Box::new(Mem::open(&disk).unwrap()), clock(), seen.witness()).unwrap()
    };
    let unnamed = |seen: Recorder| {
        move |state: &State| {
            let ended = state.jobs.values().filter(|job| job.phase.is_ended());
            let ids: Vec<JobId> = ended.map(|job| job.id).collect();
            (ids.len(), ids.into_iter().filter(|id| !seen.waits_for(*id)).count())
        }
    };
    let seen = Recorder::default();
    let engine = open(&seen);
    configure(&engine).await;
    for request in 1..=20 {
        engine.submit(submission(request), None).await.unwrap();
        let found = engine.look(|state| starts(state, Timestamp(3000))).await.unwrap();
        engine.tell(Command::Commit(found)).await.unwrap();
        let ends = engine.look(|state| finish_all(state, Timestamp(4000))).await.unwrap();
        for end in ends {
            engine.tell(end).await.unwrap();
        }
        assert_eq!(engine.look(unnamed(seen.clone())).await.unwrap(), (request as usize, 0));
    }
    stop(engine, || Mem::open(&disk).is_ok());
    // After a restart nobody knows which rows were written: all are named before the first look.
    let seen = Recorder::default();
    assert_eq!(open(&seen).look(unnamed(seen.clone())).await.unwrap(), (20, 0));
}

#[tokio::test]
async fn a_refusal_reaches_its_caller_alone() {
    let engine = start(Mem::open(&MemDisk::default()).unwrap());
    configure(&engine).await;
    let mut bad = submit(1);
    bad.spec.partitions = vec!["nowhere".into()];
    let (good, bad) = tokio::join!(
        engine.submit(submission(2), None),
        engine.submit(Command::Submit(Box::new(bad)), None)
    );
    assert!(good.is_ok());
    assert!(matches!(bad, Err(EngineError::Rejected(_))), "{bad:?}");
}

/// The engine's thread is not started, so nothing empties the inbox.
#[tokio::test]
async fn a_full_inbox_sheds_clients_and_keeps_room_for_agents() {
    let (engine, handle) =
        Engine::new(Box::new(Mem::open(&MemDisk::default()).unwrap()), clock(), Box::new(|_| {}))
            .unwrap();
    let mut waiting = Vec::new();
    let shed = loop {
        let handle = handle.clone();
        let mut call = Box::pin(async move { handle.submit(submission(1), None).await });
        match futures::poll!(&mut call) {
            std::task::Poll::Pending => waiting.push(call),
            std::task::Poll::Ready(answer) => break answer,
        }
    };
    assert_eq!(shed, Err(EngineError::Busy));
    let mut report = Box::pin(handle.tell(Command::Tick));
    assert!(futures::poll!(&mut report).is_pending(), "an agent's report is taken");
    drop(engine);
    assert_eq!(report.await, Err(EngineError::Stopped));
}

#[test]
fn a_failed_commit_ends_the_engine_without_an_answer() {
    let mut log = Fault::new(Mem::open(&MemDisk::default()).unwrap());
    log.plan(1, FaultKind::LoseReply);
    let (engine, handle) = Engine::new(Box::new(log), clock(), Box::new(|_| {})).unwrap();
    let running = std::thread::spawn(move || engine.run());
    handle.tell_blocking(Command::Configure(Box::new(config()))).unwrap();
    let answer = handle.tell_blocking(submission(1));
    assert_eq!(answer, Err(EngineError::Stopped), "nobody is told what may not be durable");
    assert!(running.join().unwrap().is_err());
}

#[test]
fn scripts_go_with_the_last_job_that_needs_them() {
    let mut state = State::new();
    let run = |state: &mut State, wishes: Vec<Wish>, now| step(state, wishes, Timestamp(now));
    run(&mut state, configured().into_iter().map(Wish::from).collect(), 1000);
    let wish = Wish { command: array(1, "0-1"), blobs: Some(blobs()) };
    let submitted = run(&mut state, vec![wish], 2000);
    let put = submitted.commit.unwrap().put;
    let id = submitted.replies[0].as_ref().unwrap().job.unwrap();
    assert_eq!(put[0], (script_key(id), Bytes::from("#!/bin/sh")));
    let commit = Command::Commit(starts(&state, Timestamp(3000)));
    run(&mut state, vec![commit.into()], 3000);
    let ends = finish_all(&state, Timestamp(4000)).into_iter().map(Wish::from).collect();
    run(&mut state, ends, 4000);

    // The first task shares the array's number: its script stays for the second one.
    let first = run(&mut state, vec![Command::Purge(vec![id]).into()], 5000);
    assert_eq!(first.commit.unwrap().delete, Vec::<Vec<u8>>::new());
    let second = run(&mut state, vec![Command::Purge(vec![JobId(id.0 + 1)]).into()], 6000);
    let deleted = second.commit.unwrap().delete;
    assert!(deleted.contains(&script_key(id)), "the array and its blobs are gone");
    assert!(deleted.contains(&environment_key(id)));
}

#[test]
fn a_clock_that_runs_backwards_moves_no_fact_back() {
    let mut state = State::new();
    let wishes = |command: Command| vec![Wish::from(command)];
    step(&mut state, wishes(Command::Configure(Box::new(config()))), Timestamp(5000));
    let late = step(&mut state, wishes(submission(1)), Timestamp(10));
    let events = &late.replies[0].as_ref().unwrap().events;
    let at = events.iter().find_map(|event| match event {
        Event::Submitted { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(at, Some(Timestamp(5000)));
}

#[tokio::test]
async fn snapshots_are_taken_as_the_tail_grows_and_a_restart_reads_them() {
    let disk = MemDisk::default();
    let engine = start(Mem::open(&disk).unwrap());
    configure(&engine).await;
    let mut big = submit(0);
    big.spec.args = ["x".repeat(100_000).into()].into();
    for n in 0..200u32 {
        big.request_id[..4].copy_from_slice(&n.to_le_bytes());
        engine.submit(Command::Submit(Box::new(big.clone())), None).await.unwrap();
    }
    let before = engine.look(Clone::clone).await.unwrap();
    stop(engine, || Mem::open(&disk).is_ok());
    let mut log = Mem::open(&disk).unwrap();
    let recovered = recover(&mut log).unwrap();
    assert!(recovered.snapshot_bytes > 0 && recovered.tail_frames < 200, "{recovered:?}");
    assert!(recovered.state == before);
}

//! What is dumped is run again, says no secrets, and is refused where it is damaged.

use muster_core::apply::apply;
use muster_core::command::{Command, Submit};
use muster_core::config::{Actor, Role};
use muster_core::decide::decide;
use muster_core::plan::listing::lines;
use muster_model::{
    GresKind, GresRequest, GresScope, Inventory, LaunchSpec, MemoryRequest, NodeCount, NodeId,
    Request, Seconds, TimeLimit, Uid,
};

use super::*;
use crate::cluster::cluster_config;

const CONFIG: &str = "cluster = 'c'\n\
    [licenses]\nsolver = 3\n\
    [[node]]\nname = 'n[1-4]'\ncpus = 16\nmemory = '64G'\ngres = ['gpu:a100:4']\n\
    [[node]]\nname = 'n5'\ncpus = 8\nmemory = '64G'\n\
    [[partition]]\nname = 'main'\nnodes = 'n[1-5]'\ndefault = true\n\
    [[switch]]\nname = 's1'\nnodes = 'n[1-2]'\n\
    [[switch]]\nname = 's2'\nnodes = 'n[3-5]'\n\
    [[switch]]\nname = 'top'\nswitches = 's[1-2]'\n";

fn now() -> Timestamp {
    Timestamp::from_seconds(1_000_000)
}

fn wish(state: &mut State, command: &Command) {
    let decision = decide(state, command, now()).unwrap();
    decision.events.iter().for_each(|event| apply(state, event));
}

fn submit(state: &mut State, number: u8, nodes: u32, gpus: u64) {
    let request = Request {
        nodes: NodeCount { min: nodes, max: Some(nodes) },
        tasks: nodes,
        tasks_given: true,
        cpus_per_task: 2,
        memory: MemoryRequest::PerNode(1024),
        gres: vec![GresRequest {
            kind: GresKind::new("gpu", None),
            count: gpus,
            scope: GresScope::Node,
        }],
        ..Request::default()
    };
    let user = User { uid: Uid(1000 + u32::from(number % 3)), gid: 100, name: "SECRETUSER".into() };
    let mut spec = JobSpec::plain(user, Arc::new(request));
    spec.time_limit = Some(TimeLimit::Limited(Seconds(600 + 60 * u32::from(number))));
    spec.comment = "SECRET comment".into();
    spec.args = vec!["--token=SECRET".into()].into();
    spec.submit_line = "sbatch SECRET.sh".into();
    spec.launch = Arc::new(LaunchSpec {
        workdir: "/home/SECRET".into(),
        extras: vec![("export".into(), "KEY=SECRET".into())],
        ..LaunchSpec::default()
    });
    if number.is_multiple_of(4) {
        spec.licenses = vec![("solver".into(), 1)];
    }
    let actor = Actor { uid: spec.user.uid, role: Role::User };
    let (groups, components) = (Vec::new(), Vec::new());
    let submit = Submit { actor, groups, request_id: [number; 16], spec, components };
    wish(state, &Command::Submit(Box::new(submit)));
}

/// Some jobs run, some wait.
fn state() -> State {
    let mut state = State::new();
    let config =
        muster_config::Config::parse(Path::new("/etc/muster/muster.toml"), CONFIG).unwrap();
    let cluster = cluster_config(&config);
    let nodes = cluster.nodes.clone();
    wish(&mut state, &Command::Configure(Box::new(cluster)));
    for (node, config) in (0u32..).map(NodeId).zip(nodes) {
        let inventory = Inventory { capacity: config.capacity, ..Inventory::default() };
        wish(&mut state, &Command::Register { node, inventory: Box::new(inventory) });
    }
    for number in 1..=6 {
        submit(&mut state, number, 1, 2);
    }
    let view = plan::view(&state, now(), &Policy::default());
    let first = plan::plan(&view, &Policy::default(), now(), 1_000_000);
    assert!(!first.starts.is_empty());
    wish(&mut state, &Command::Commit(first.starts));
    for number in 7..=14 {
        submit(&mut state, number, 1 + u32::from(number % 3), u64::from(number % 5).min(4));
    }
    state
}

fn dump_of(state: &State, policy: Policy) -> Dump {
    let mut dump = Dump {
        now: Timestamp(now().0 + 5000),
        fuel: 1_000_000,
        policy,
        silent: vec![1],
        chosen: Vec::new(),
        cause: Cause::Asked.word().to_owned(),
        took: Duration::from_micros(1500),
        refused: 0,
        version: "0".to_owned(),
        state: stripped(state.parts()),
    };
    let view = dump.view_of(state);
    let plan = plan::plan(&view, &policy, dump.now, dump.fuel);
    assert!(!plan.reasons.jobs.is_empty());
    dump.chosen = lines(&view, &plan);
    dump
}

#[test]
fn a_dumped_pass_chooses_the_same_when_it_is_run_again() {
    let state = state();
    let four = Policy { shadows: 4, ..Policy::default() };
    let least = Policy { packing: Packing::LeastFragments, ..Policy::default() };
    for policy in [Policy::default(), Policy::easy_sjbf(), Policy::fcfs(), four, least] {
        let dump = dump_of(&state, policy);
        let place = tempfile::tempdir().unwrap();
        let path = dump.write(place.path(), 3).unwrap();
        let read = Dump::read(&path).unwrap();
        let (view, plan) = read.plan().unwrap();
        assert_eq!(lines(&view, &plan), read.chosen);
        assert_eq!(view, dump.view_of(&state), "not the plan alone is the same");
        assert!(!view.nodes[1].usable, "a node that did not answer");
        // Where something is not the same, it is noticed.
        let other = Dump { silent: vec![0, 1, 2], ..read };
        let (view, plan) = other.plan().unwrap();
        assert_ne!(lines(&view, &plan), other.chosen);
    }
}

#[test]
fn nothing_that_a_pass_does_not_look_at_is_written() {
    let bytes = dump_of(&state(), Policy::default()).encode();
    let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    assert!(has(b"solver") && !has(b"SECRET"));
}

#[test]
fn a_damaged_dump_is_refused_in_one_line() {
    let bytes = dump_of(&state(), Policy::default()).encode();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.dump");
    let mut damaged: Vec<Vec<u8>> =
        (0..bytes.len()).step_by(97).map(|at| bytes[..at].to_vec()).collect();
    for at in (0..bytes.len()).step_by(61) {
        let mut copy = bytes.to_vec();
        copy[at] ^= 0x10;
        damaged.push(copy);
    }
    // A sound frame around something else.
    damaged.push(frame::encode(1, 0, false, b"hello").to_vec());
    damaged.push(frame::encode(1, 0, false, b"").to_vec());
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        let why = Dump::read(&path).unwrap_err().to_string();
        assert!(why.contains("x.dump: not the dump of a pass: ") && !why.contains('\n'), "{why}");
    }
    let missing = Dump::read(&place.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none: cannot be read"), "{missing}");
}

#[test]
fn only_the_newest_are_kept_and_only_for_their_owner() {
    let place = tempfile::tempdir().unwrap();
    let mut dump = dump_of(&state(), Policy::default());
    for _ in 0..5 {
        dump.now = Timestamp(dump.now.0 + 1);
        let path = dump.write(place.path(), 2).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let left = fs::read_dir(place.path().join(FOLDER)).unwrap().count();
    assert_eq!(left, 2);
}

#[test]
fn a_bad_pass_has_the_next_ones_watched() {
    let ms = Duration::from_millis;
    let no = |job: u32| (JobId(job), Rejection::BadValue("taken".into()));
    let gone = |job: u32| (JobId(job), Rejection::NotPending(JobId(job)));
    let many: Vec<_> = (1..=6).map(no).collect();
    let cancelled: Vec<_> = (1..=60).map(gone).collect();
    assert_eq!(symptom(ms(500), ms(250), 9, &[]), None);
    assert_eq!(symptom(ms(501), ms(250), 9, &[]), Some(Cause::Slow));
    assert_eq!(symptom(ms(1), ms(250), 20, &many), Some(Cause::Refused));
    assert_eq!(symptom(ms(1), ms(250), 2000, &many), None, "some always are");
    assert_eq!(symptom(ms(1), ms(250), 60, &cancelled), None, "nor is that the plan's fault");

    let dumps = Dumps::default();
    assert!(dumps.begin().is_none(), "nothing is copied as long as all is well");
    dumps.watch();
    let watched = (0..WATCHED).filter(|_| dumps.begin().is_some_and(|watch| !watch.asked()));
    assert_eq!(watched.count(), WATCHED as usize);
    assert!(dumps.begin().is_none());

    let mut asked: Vec<_> = (0..ASKING_MOST).map(|_| dumps.ask().unwrap()).collect();
    assert!(dumps.ask().is_none());
    let watch = dumps.begin().unwrap();
    assert!(watch.asked());
    watch.answer(&Ok(PathBuf::from("/x")));
    assert!(asked.iter_mut().all(|file| file.try_recv() == Ok(Ok(PathBuf::from("/x")))));
}

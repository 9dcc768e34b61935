//! Any wishes in any order: the invariants hold after every fact, and the log replays.

use proptest::prelude::*;

use super::*;
use crate::command::{
    AccessChange, DurationChange, JobChange, NodeChange, NodeVerb, NodesChange, NodesWish,
    ReservationChange, ReservationWish, TimeChange,
};

/// One thing that happens. Jobs and nodes are picked by number, modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Submit { nodes: u8, cpus: u8, gpus: u8, held: bool, dependency: u8, singleton: bool },
    SubmitTo { reservation: u8, minutes: u8 },
    Het { cpus: u8, nodes: u8, more: u8 },
    Array { tasks: u8, throttle: u8, dependency: u8 },
    Pass,
    Report { pick: u8, slice: u8, kind: u8 },
    Verb { pick: u8, kind: u8, task: u8 },
    Node { node: u8, kind: u8 },
    Reserve { name: u8, node: u8, flags: u8, hours: u8 },
    Wait { seconds: u16 },
    Purge,
}

fn act() -> impl Strategy<Value = Act> {
    let b = any::<u8>;
    prop_oneof![
        3 => (1u8..4, 1u8..9, 0u8..4, any::<bool>(), b(), prop::bool::weighted(0.2)).prop_map(
            |(nodes, cpus, gpus, held, dependency, singleton)| Act::Submit {
                nodes, cpus, gpus, held: held && gpus == 3, dependency, singleton,
            }
        ),
        1 => (1u8..9, 0u8..4, b()).prop_map(|(tasks, throttle, dependency)| Act::Array {
            tasks, throttle, dependency,
        }),
        1 => (1u8..5, 1u8..3, b()).prop_map(|(cpus, nodes, more)| Act::Het { cpus, nodes, more }),
        4 => Just(Act::Pass),
        10 => (b(), b(), b()).prop_map(|(pick, slice, kind)| Act::Report { pick, slice, kind }),
        4 => (b(), b(), b()).prop_map(|(pick, kind, task)| Act::Verb { pick, kind, task }),
        1 => (b(), b()).prop_map(|(node, kind)| Act::Node { node, kind }),
        1 => (b(), b()).prop_map(|(reservation, minutes)| Act::SubmitTo { reservation, minutes }),
        1 => (b(), b(), b(), b()).prop_map(|(name, node, flags, hours)| Act::Reserve {
            name, node, flags, hours,
        }),
        1 => (0u16..2000).prop_map(|seconds| Act::Wait { seconds }),
        1 => Just(Act::Purge),
    ]
}

impl World {
    fn any_job(&self, pick: u8) -> Option<JobId> {
        let ids: Vec<JobId> =
            self.state.jobs.keys().chain(self.state.arrays.keys()).copied().collect();
        (!ids.is_empty()).then(|| ids[pick as usize % ids.len()])
    }

    fn dependency(&self, seed: u8) -> Dependency {
        let kinds = ["afterok", "afterany", "afternotok", "aftercorr", "after"];
        match self.any_job(seed / 5) {
            Some(id) if seed < 100 => {
                let text = format!("{}:{id}", kinds[seed as usize % kinds.len()]);
                Dependency::parse(&text).expect("valid")
            }
            Some(_) | None => Dependency::default(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act.clone() {
            Act::Submit { nodes, cpus, gpus: g, held, dependency, singleton } => {
                let mut on = self.dependency(dependency);
                on.singleton = singleton;
                // Some do not fit any node; that is an answer too.
                let _ = self.try_submit(|spec, request| {
                    spec.held = held;
                    spec.name = format!("j{}", cpus % 2).into();
                    spec.kill_on_invalid_dependency = cpus == 1;
                    spec.dependency = on;
                    Arc::make_mut(&mut spec.launch).no_kill = cpus == 2;
                    request.nodes = NodeCount { min: nodes.into(), max: None };
                    request.tasks = nodes.into();
                    request.cpus_per_task = cpus.into();
                    request.gres = vec![gpus(g.into(), GresScope::Node)];
                });
            }
            Act::Array { tasks, throttle, dependency } => {
                let indices = IndexSet::from_ranges(vec![(1, u32::from(tasks))]);
                let throttle = (throttle > 0).then_some(u32::from(throttle));
                let on = self.dependency(dependency);
                let _ = self.try_submit(|spec, _| {
                    spec.array = Some(ArraySpec { indices, throttle });
                    spec.kill_on_invalid_dependency = tasks == 1;
                    spec.dependency = on;
                });
            }
            Act::Het { cpus, nodes, more } => {
                let one = |cpus: u8, nodes: u8| het::component("het", nodes.into(), cpus.into());
                let mut specs = vec![one(cpus, 1), one(4, nodes)];
                specs.extend((more % 3 == 0).then(|| one(1, 1)));
                specs[0].dependency = self.dependency(more);
                let _ = het::try_het(self, specs);
            }
            Act::SubmitTo { reservation, minutes } => {
                let _ = self.try_submit(|spec, _| {
                    spec.reservation = Some(format!("r{}", reservation % 3).into());
                    spec.time_limit = Some(TimeLimit::minutes(1 + u32::from(minutes)));
                });
            }
            Act::Reserve { name, node, flags, hours } => {
                self.any_reservation(name, node, flags, hours)
            }
            Act::Pass => {
                self.pass();
            }
            Act::Report { pick, slice, kind } => self.any_report(pick, slice, kind),
            Act::Verb { pick, kind, task } => self.any_verb(pick, kind, task),
            Act::Node { node, kind } => self.any_node(node, kind),
            Act::Wait { seconds } => {
                self.wait(seconds.into());
                self.wish(Command::Tick).expect("ticks");
            }
            Act::Purge => {
                let old = self.state.purgeable(self.now, 5);
                self.wish(Command::Purge(old)).expect("purges");
            }
        }
    }

    fn any_report(&mut self, pick: u8, slice: u8, kind: u8) {
        let active: Vec<&Job> = self.state.jobs.values().filter(|j| j.phase.is_active()).collect();
        if active.is_empty() {
            return;
        }
        let job = active[pick as usize % active.len()];
        let Some(held) = job.phase.allocation() else { return };
        let nodes: Vec<NodeId> = held.placement.nodes().collect();
        let node = nodes[slice as usize % nodes.len()];
        let report = match kind % 8 {
            0 | 1 => SliceReport::Ready,
            2 | 3 => SliceReport::Running { started_at: self.now },
            4 | 5 => SliceReport::Finished { exit: Some(self.exit_of(kind / 8 % 2)) },
            6 => SliceReport::Finished { exit: None },
            _ if kind % 16 == 7 => SliceReport::Lost { reason: "reboot".into() },
            _ => SliceReport::LaunchFailed { reason: "x".into(), node_fault: kind > 230 },
        };
        let (job, attempt) = (job.id, job.attempt);
        self.wish(Command::Slice { job, attempt, node, report }).expect("taken");
    }

    fn any_verb(&mut self, pick: u8, kind: u8, task: u8) {
        let Some(id) = self.any_job(pick) else { return };
        let target = match self.state.arrays.contains_key(&id) && task.is_multiple_of(2) {
            true => Target::Tasks(id, IndexSet::from_ranges(vec![(1, u32::from(task % 5))])),
            false => Target::Job(id),
        };
        let actor = if kind > 128 { OP } else { ALICE };
        let change = JobChange {
            nice: task.is_multiple_of(3).then_some(i32::from(task)),
            name: (task % 3 == 1).then(|| "j1".into()),
            time_limit: (task % 4 == 1).then_some(TimeChange::ByMinutes(-5)),
            dependency: (task % 5 == 4).then(|| self.dependency(task)),
            array_throttle: (task % 7 == 2).then_some(2),
            ..JobChange::default()
        };
        let command = match kind % 7 {
            0 => Command::Cancel { actor, target },
            1 => Command::Hold { actor, target, by_user: kind > 64 },
            2 => Command::Release { actor, target },
            3 => Command::Requeue { actor, target, hold: kind > 200 },
            4 => Command::Suspend { actor: OP, target },
            5 => Command::Resume { actor: OP, target },
            _ => Command::Update { actor, target, change: Box::new(change) },
        };
        // Whether it is refused is of no importance here.
        let _ = self.wish(command);
    }

    /// Made, changed or deleted; whether it is refused is of no importance.
    fn any_reservation(&mut self, name: u8, node: u8, flags: u8, hours: u8) {
        let called: Box<str> = format!("r{}", name % 3).into();
        let flags = ReservationFlags(u32::from(flags) & 0b111_1111);
        let start = self.now.plus_seconds(i64::from(hours % 8) * 600);
        let end = start.plus_seconds(i64::from(hours / 8) * 60);
        let nodes = match node % 4 {
            0 => NodesWish::Count(u32::from(node / 64)),
            1 => NodesWish::Cores(u32::from(node / 16)),
            2 => NodesWish::All,
            _ => NodesWish::Named(vec![format!("n{}", 1 + node / 64).into()]),
        };
        let users = Access { names: vec!["u1000".into()], deny: name > 240 };
        let command = match name / 3 % 4 {
            0 | 1 => Command::CreateReservation {
                actor: OP,
                wish: Box::new(ReservationWish {
                    name: Some(called),
                    nodes,
                    partition: None,
                    start,
                    end,
                    users,
                    accounts: Access::default(),
                    flags,
                    features: None,
                    licenses: vec![("matlab".into(), u32::from(node % 3))],
                    comment: Box::default(),
                }),
            },
            2 => Command::UpdateReservation {
                actor: OP,
                name: called,
                change: Box::new(ReservationChange {
                    start: (hours % 3 == 1).then_some(start),
                    duration: (hours % 3 == 2).then_some(DurationChange::By(600)),
                    users: Some(AccessChange::To(users)),
                    flags,
                    nodes: (node > 128).then_some(NodesChange::To(nodes)),
                    ..ReservationChange::default()
                }),
            },
            _ => Command::DeleteReservation { actor: OP, name: called },
        };
        let _ = self.wish(command);
    }

    fn any_node(&mut self, pick: u8, kind: u8) {
        let node = NodeId(u32::from(pick) % 4);
        let verb = match kind % 6 {
            0 | 1 => {
                self.wish(Command::NodeLost { node }).expect("lost");
                return;
            }
            2 => {
                let name = self.state.nodes[node.0 as usize].config.name.to_string();
                self.register(&name);
                return;
            }
            3 => NodeVerb::Drain { reason: "x".into() },
            4 => NodeVerb::Down { reason: "x".into() },
            _ => NodeVerb::Resume,
        };
        let change = NodeChange { verb: Some(verb), ..NodeChange::default() };
        self.wish(Command::UpdateNodes { actor: OP, nodes: vec![node], change }).expect("changed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_whatever_happens(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        let mut attempts: BTreeMap<JobId, Attempt> = BTreeMap::new();
        for act in &acts {
            world.act(act);
            for job in world.state.jobs.values() {
                let before = attempts.insert(job.id, job.attempt);
                prop_assert!(before.is_none_or(|a| a <= job.attempt), "attempts only grow");
            }
        }
        world.proven();
        let ended = world.log.iter().filter_map(|e| match e {
            Event::Ended { job, .. } => Some(*job),
            _ => None,
        });
        prop_assert!(tally(ended).values().all(|n| *n == 1), "a job ends once");
    }
}

/// One job for node n4, which holds one at a time: how long after the last it comes, its limit,
/// and how long it runs, seconds.
fn visitor() -> impl Strategy<Value = (u16, u32, u32)> {
    (0u16..20_000, 1u32..1400, 1u32..30_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// 400 minutes for each factor of e between a minute and the longest limit of the partition (a
    /// day) is the most that anybody can be passed by: later ones are behind for ever.
    #[test]
    fn nobody_is_passed_by_whoever_comes_a_bounded_time_later(
        visitors in prop::collection::vec(visitor(), 2..40)
    ) {
        let mut w = World::new();
        let mut runs: BTreeMap<JobId, i64> = BTreeMap::new();
        let mut coming = visitors.iter();
        let mut next = coming.next().map(|v| w.now.plus_seconds(i64::from(v.0)));
        let mut of = visitors.iter();
        let mut ends: Option<(Timestamp, JobId)> = None;
        let mut started: Vec<JobId> = Vec::new();
        while let Some(at) = next.into_iter().chain(ends.map(|(at, _)| at)).min() {
            w.now = at;
            if let Some((_, job)) = ends.filter(|(end, _)| *end == at) {
                let exit = SliceExit {
                    started_at: w.state.jobs[&job].started_at().expect("it ran"),
                    ..w.exit_of(0)
                };
                w.report(job.0, "n4", SliceReport::Finished { exit: Some(exit) });
                ends = None;
            }
            if next == Some(at) {
                let (_, minutes, run) = of.next().expect("as many as come");
                let job = w.submit(|s, r| {
                    (r.required_nodes, r.cpus_per_task) = (vec!["n4".into()], 4);
                    s.time_limit = Some(TimeLimit::minutes(*minutes));
                });
                runs.insert(job, i64::from((*run).min(minutes * 60)));
                next = coming.next().map(|v| at.plus_seconds(i64::from(v.0)));
            }
            if w.pass() > 0 {
                let launching = |job: &&Job| matches!(job.phase, Phase::Launching { .. });
                let job = w.state.jobs.values().find(launching).expect("it was started").id;
                w.run(job.0);
                started.push(job);
                ends = Some((at.plus_seconds(runs[&job]), job));
            }
        }
        prop_assert_eq!(started.len(), visitors.len(), "everybody had a turn");
        let came = |id: &JobId| w.state.jobs[id].submitted_at;
        // 400 min * ln(86,400 / 60), and a quarter of an octave of the forecast.
        let bound = 24_000_000 * 74 / 10;
        for (at, first) in started.iter().enumerate() {
            for later in &started[at..] {
                prop_assert!(came(first).since(came(later)) <= bound, "{first} before {later}");
            }
        }
        w.proven();
    }
}

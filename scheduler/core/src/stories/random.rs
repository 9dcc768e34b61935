//! Any wishes in any order: the invariants hold after every fact, and the log replays.

use proptest::prelude::*;

use super::*;
use crate::command::{JobChange, NodeChange, NodeVerb, TimeChange};

/// One thing that happens. Jobs and nodes are picked by number, modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Submit { nodes: u8, cpus: u8, gpus: u8, held: bool, dependency: u8, singleton: bool },
    Array { tasks: u8, throttle: u8, dependency: u8 },
    Pass,
    Report { pick: u8, slice: u8, kind: u8 },
    Verb { pick: u8, kind: u8, task: u8 },
    Node { node: u8, kind: u8 },
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
        4 => Just(Act::Pass),
        10 => (b(), b(), b()).prop_map(|(pick, slice, kind)| Act::Report { pick, slice, kind }),
        4 => (b(), b(), b()).prop_map(|(pick, kind, task)| Act::Verb { pick, kind, task }),
        1 => (b(), b()).prop_map(|(node, kind)| Act::Node { node, kind }),
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
                    spec.launch.no_kill = cpus == 2;
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

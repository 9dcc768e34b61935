//! What a pass promises: shadows that nobody delays, gangs that nobody starves, nobody forgotten.

use proptest::prelude::*;

use super::*;
use crate::plan::Backfill;

/// What happens next in a random story.
#[derive(Debug, Clone)]
enum Turn {
    Submit {
        nodes: u32,
        cpus: u32,
        gpus: u64,
        minutes: u32,
    },
    /// Minutes pass; jobs end at their limits meanwhile.
    Wait(u32),
    /// One of the running jobs ends before its limit.
    Finish(prop::sample::Index),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let submit =
        (1u32..=4, 1u32..=4, 0u64..=2, 1u32..=40).prop_map(|(nodes, cpus, gpus, minutes)| {
            // Only two of the nodes have GPUs.
            let gpus = if nodes > 2 { 0 } else { gpus };
            Turn::Submit { nodes, cpus, gpus, minutes }
        });
    let wait = (1u32..10).prop_map(Turn::Wait);
    let finish = any::<prop::sample::Index>().prop_map(Turn::Finish);
    prop::collection::vec(prop_oneof![4 => submit, 3 => wait, 1 => finish], 1..40)
}

fn policies() -> impl Strategy<Value = Policy> {
    let easy = Policy { packing: Packing::FirstFit, ..Policy::easy() };
    prop_oneof![
        Just(easy),
        Just(Policy { shadows: 3, ..easy }),
        Just(Policy { packing: Packing::BestFit, ..easy }),
        Just(Policy { backfill: Backfill::ShortestFirst, ..easy }),
        Just(Policy { shadows: 1000, ..easy }),
        Just(Policy::default()),
    ]
}

/// A world that is run under one policy, and what it promised to whom.
struct Promised {
    world: World,
    policy: Policy,
    /// The best start that each job was ever promised while it was first in the queue.
    best: BTreeMap<JobId, Timestamp>,
    /// How long waits were when those promises were made.
    fold_ms: i64,
}

impl Promised {
    fn new(policy: Policy) -> Self {
        Promised { world: World::new(), policy, best: BTreeMap::new(), fold_ms: 0 }
    }

    fn waiting(&self) -> Vec<JobId> {
        let jobs = self.world.state.jobs.values();
        jobs.filter(|job| job.phase.is_pending()).map(|job| job.id).collect()
    }

    fn running(&self) -> Vec<JobId> {
        self.world.state.derived.holding.iter().copied().collect()
    }

    fn pass(&mut self) {
        let now = self.world.now;
        let seen = view(&self.world.state, now, &self.policy);
        let planned = plan(&seen, &self.policy, now, DEFAULT_FUEL);
        assert_eq!(planned, plan(&seen, &self.policy, now, DEFAULT_FUEL), "equal plans");
        let first = self.waiting().first().copied();
        let started: Vec<JobId> = planned.starts.iter().map(|s| s.job).collect();
        if self.policy.gives_way() {
            self.keep_watch(&planned, seen.fold_ms);
        } else if let Some(first) = first
            && !started.contains(&first)
        {
            let promise = planned.shadows.iter().find(|s| s.job == first);
            let start =
                promise.unwrap_or_else(|| panic!("{first:?} is first and unpromised")).start;
            let best = self.best.entry(first).or_insert(start);
            assert!(start <= *best, "{first:?} was promised {best:?} and now {start:?}");
            *best = start;
            assert!(*best > now, "{first:?} was promised {best:?} and waits at {now:?}");
        }
        let reply = self.world.wish(Command::Commit(planned.starts)).expect("taken");
        let accepted = started.len();
        assert_eq!(reply, Reply::Starts { accepted, refused: Vec::new() });
        started.iter().for_each(|job| self.world.run(job.0));
    }

    /// While a job stays the first that cannot start, its promise only gets better, as long as the
    /// cluster's waits, and so the times at which jobs are due, stay what they are.
    fn keep_watch(&mut self, planned: &Plan, fold_ms: i64) {
        let watched = std::mem::take(&mut self.best);
        for shadow in &planned.shadows {
            assert!(shadow.start <= shadow.latest, "{shadow:?}");
            assert!(shadow.latest > self.world.now, "{shadow:?}");
            if let Some(best) = watched.get(&shadow.job)
                && fold_ms == self.fold_ms
            {
                assert!(shadow.latest <= *best, "{shadow:?} was promised {best:?}");
            }
            self.best.insert(shadow.job, shadow.latest);
        }
        for start in &planned.starts {
            let best = watched.get(&start.job).copied();
            assert!(best.is_none_or(|best| self.world.now <= best), "{start:?} after {best:?}");
        }
        self.fold_ms = fold_ms;
    }

    /// A minute, at whose end jobs end that are at their limit.
    fn minute(&mut self) {
        self.world.wait(60);
        let due = |job: &JobId| {
            let held = self.world.job(job.0).phase.allocation();
            held.and_then(|held| held.end_at).is_some_and(|end| end <= self.world.now)
        };
        let due: Vec<JobId> = self.running().into_iter().filter(due).collect();
        due.into_iter().for_each(|job| self.finish(job));
        self.pass();
    }

    fn finish(&mut self, job: JobId) {
        self.world.exit(job.0, 0);
        self.world.clear();
    }

    fn submit(&mut self, nodes: u32, cpus: u32, gpus: u64, minutes: u32) -> JobId {
        self.world.submit(|spec, request| {
            request.nodes = NodeCount { min: nodes, max: Some(nodes) };
            (request.tasks, request.tasks_given, request.cpus_per_task) = (nodes, false, cpus);
            let wish = GresRequest { count: gpus, ..super::gpus(gpus, GresScope::Node) };
            request.gres = (gpus > 0).then_some(wish).into_iter().collect();
            spec.time_limit = Some(TimeLimit::Limited(Seconds(minutes * 60)));
        })
    }

    fn play(&mut self, turn: &Turn) {
        match turn {
            Turn::Submit { nodes, cpus, gpus, minutes } => {
                self.submit(*nodes, *cpus, *gpus, *minutes);
                self.pass();
            }
            Turn::Wait(minutes) => (0..*minutes).for_each(|_| self.minute()),
            Turn::Finish(which) => {
                let running = self.running();
                if !running.is_empty() {
                    self.finish(*which.get(&running));
                    self.pass();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_first_in_the_queue_starts_no_later_than_it_was_ever_promised(
        policy in policies(),
        turns in turns(),
    ) {
        let mut told = Promised::new(policy);
        turns.iter().for_each(|turn| told.play(turn));
        // Nobody is forgotten: with every job at its limit of 40 minutes, one after the other.
        let jobs = turns.len();
        for _ in 0..=jobs * 41 {
            if !told.waiting().is_empty() || !told.running().is_empty() {
                told.minute();
            }
        }
        prop_assert_eq!((told.waiting(), told.running()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn a_stream_of_small_jobs_does_not_hold_up_a_gang() {
    for shadows in [1, 4, 1000] {
        let policy = Policy { packing: Packing::FirstFit, shadows, ..Policy::easy() };
        let mut told = Promised::new(policy);
        (0..8).for_each(|_| _ = told.submit(1, 2, 0, 30));
        told.pass();
        let gang = told.submit(4, 4, 0, 10);
        for minute in 0..30 {
            told.submit(1, 2, 0, 1 + minute % 7);
            told.minute();
        }
        let job = told.world.job(gang.0);
        assert!(job.started_at().is_some(), "{shadows} shadows: {:?}", job.phase);
    }
}

#[test]
fn a_gang_gives_way_to_a_stream_until_it_is_due_and_no_longer() {
    let mut told = Promised::new(Policy { packing: Packing::FirstFit, ..Policy::default() });
    (0..8).for_each(|_| _ = told.submit(1, 2, 0, 30));
    told.pass();
    let gang = told.submit(4, 4, 0, 10);
    let mut waited = 0;
    while told.world.job(gang.0).started_at().is_none() {
        told.submit(1, 2, 0, 31 + waited % 7);
        // Three of four are over at once, so nobody expects the fourth to run to its limit.
        let brief = told.running().into_iter().filter(|job| job.0 > gang.0 && job.0 % 4 > 0);
        brief.collect::<Vec<_>>().into_iter().for_each(|job| told.finish(job));
        told.minute();
        waited += 1;
        // Due 5 folds of 80 minutes after it came: ln(600) - 0.6 ln(16), and a quarter.
        assert!(waited <= 400 + 37, "those that run when it is due have 37 minutes at most");
    }
    assert!(waited > 37, "it let others pass");
}

#[test]
fn who_is_expected_to_be_over_before_the_earliest_start_may_pass_by_its_limit() {
    let starts = |policy: Policy| {
        let mut told = Promised::new(Policy { packing: Packing::FirstFit, ..policy });
        let on_n4 = |told: &mut Promised, actor: Actor, cpus: u32, minutes: u32| {
            let (mut job, mut asked) = (spec(actor, "job"), request());
            (asked.required_nodes, asked.cpus_per_task) = (vec!["n4".into()], cpus);
            job.time_limit = Some(TimeLimit::minutes(minutes));
            job.request = Arc::new(asked);
            told.world.submit_spec(actor, job).expect("admitted")
        };
        let known = on_n4(&mut told, ALICE, 1, 60);
        told.pass();
        told.world.wait(60);
        told.finish(known);
        on_n4(&mut told, ALICE, 2, 30);
        told.pass();
        let gang = told.submit(4, 4, 0, 10);
        // Alice's last job with this limit was over in a minute; Bob's are not known.
        let brief = on_n4(&mut told, ALICE, 1, 60);
        let unknown = on_n4(&mut told, BOB, 1, 90);
        told.pass();
        let started = |job: JobId| told.world.job(job.0).phase.allocation().is_some();
        [gang, brief, unknown].map(started)
    };
    assert_eq!(starts(Policy::easy()), [false, false, false]);
    assert_eq!(starts(Policy::default()), [false, true, false]);
}

#[test]
fn a_job_that_makes_do_with_less_time_starts_before_a_promised_one() {
    let policy = Policy { packing: Packing::FirstFit, ..Policy::easy() };
    let mut told = Promised::new(policy);
    told.submit(1, 8, 0, 30);
    told.pass();
    told.submit(4, 4, 0, 10);
    let short = told.world.submit(|spec, request| {
        request.cpus_per_task = 4;
        spec.time_limit = Some(TimeLimit::Limited(Seconds(7200)));
        spec.time_min = Some(TimeLimit::Limited(Seconds(600)));
        spec.name = "bends".into();
        request.required_nodes = vec!["n4".into()];
    });
    told.pass();
    let held = told.world.job(short.0).phase.allocation().expect("it starts at once");
    let minutes = held.end_at.map(|end| end.since(told.world.now) / 60_000);
    assert_eq!(minutes, Some(30), "until the gang's start, and no longer");
}

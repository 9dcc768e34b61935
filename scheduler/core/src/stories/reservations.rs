//! Reservations: who may make them, what stands in their way, whom they let in, and how they end.
//! Starts are wished by hand here, so that what is told is the core's own answer and not a plan's.

use super::*;
use crate::command::{
    AccessChange, DurationChange, NodesChange, NodesWish, ReservationChange, ReservationWish,
    StartWish,
};
use crate::state::reserved::{blocked_windows, fence, reserved_view};

const HOUR: i64 = 3600;

/// In an hour, for an hour, on n1, for Alice.
fn wish(now: Timestamp) -> ReservationWish {
    ReservationWish {
        name: Some("r".into()),
        nodes: NodesWish::Named(vec!["n1".into()]),
        partition: None,
        start: now.plus_seconds(HOUR),
        end: now.plus_seconds(2 * HOUR),
        users: Access { names: vec!["u1000".into()], deny: false },
        accounts: Access::default(),
        flags: ReservationFlags::default(),
        features: None,
        licenses: Vec::new(),
        comment: "".into(),
    }
}

impl World {
    fn reserve(&mut self, change: impl FnOnce(&mut ReservationWish)) -> Result<Reply, Rejection> {
        let mut wish = wish(self.now);
        change(&mut wish);
        self.wish(Command::CreateReservation { actor: OP, wish: Box::new(wish) })
    }

    fn change_reservation(
        &mut self,
        change: impl FnOnce(&mut ReservationChange),
    ) -> Result<Reply, Rejection> {
        let mut all = ReservationChange::default();
        change(&mut all);
        let (name, change) = ("r".into(), Box::new(all));
        self.wish(Command::UpdateReservation { actor: OP, name, change })
    }

    fn unreserve(&mut self) -> Result<Reply, Rejection> {
        self.wish(Command::DeleteReservation { actor: OP, name: "r".into() })
    }

    fn tick(&mut self) {
        self.wish(Command::Tick).expect("ticks");
    }

    /// Starts a job of one CPU on a node, if it may.
    fn start(&mut self, job: JobId, node: &str, limit: Option<Seconds>) -> Result<(), Rejection> {
        let node = self.node(node);
        let free = &self.state.nodes[node.0 as usize].free.cpus;
        let cpus = CpuSet::first(1);
        assert!(free.overlaps(&cpus), "the first CPU is free");
        let slice = Slice { node, cpus, memory_mib: 100, gres: Vec::new(), tasks: 1 };
        let placement = Placement { slices: vec![slice] };
        let wish = StartWish { job, partition: "main".into(), placement, time_limit: limit };
        match self.wish(Command::Commit(vec![wish]))? {
            Reply::Starts { mut refused, .. } => refused.pop().map_or(Ok(()), |(_, why)| Err(why)),
            other => panic!("a plan is answered with {other:?}"),
        }
    }

    fn nodes_of_reservation(&self, name: &str) -> String {
        let nodes = self.state.reservations[name].nodes.iter();
        let names = nodes.map(|id| self.state.nodes[id.0 as usize].config.name.to_string());
        names.collect::<Vec<_>>().join(",")
    }
}

#[track_caller]
fn no(change: impl FnOnce(&mut ReservationWish), text: &str) {
    let mut world = World::new();
    refused(world.reserve(change), text);
    assert!(world.state.reservations.is_empty());
}

fn flags(flag: ReservationFlags) -> impl Fn(&mut ReservationWish) {
    move |wish| wish.flags = flag
}

fn minutes(count: u32) -> Option<TimeLimit> {
    Some(TimeLimit::minutes(count))
}

#[test]
fn what_is_wrong_with_a_reservation_is_named() {
    no(|w| w.users = Access::default(), "Users= or Accounts=");
    no(|w| w.end = w.start, "end before it begins");
    no(|w| w.start = Timestamp(5), "begin in the past");
    no(|w| w.nodes = NodesWish::Nothing, "NodeCnt=");
    no(|w| w.nodes = NodesWish::Named(vec!["n9".into()]), "node \"n9\" does not exist");
    no(|w| w.nodes = NodesWish::Count(5), "5 nodes are asked for and 4 can be kept");
    no(|w| w.nodes = NodesWish::Cores(25), "25 cores are asked for and 24 can be kept");
    no(|w| w.partition = Some("gold".into()), "partition \"gold\" does not exist");
    no(|w| w.licenses = vec![("matlab".into(), 3)], "the cluster has 2");
    no(|w| w.features = Some(Constraint::Feature("tpu".into())), "feature \"tpu\"");
    no(|w| w.name = Some("a b".into()), "not one word");
    no(flags(ReservationFlags::DAILY.with(ReservationFlags::WEEKLY)), "exclude each other");
    no(|w| (w.flags, w.end) = (ReservationFlags::HOURLY, w.end.plus_seconds(60)), "comes back");
    let mut world = World::new();
    let wish = Box::new(wish(world.now));
    refused(world.wish(Command::CreateReservation { actor: ALICE, wish }), "operator");
}

#[test]
fn nodes_are_chosen_idle_ones_first() {
    let mut world = World::new();
    world.submit(|s, _| s.time_limit = minutes(30));
    world.pass();
    let busy = world.nodes_of(1);
    world.reserve(|w| w.nodes = NodesWish::Count(3)).expect("three are idle");
    assert!(!world.nodes_of_reservation("r").contains(&busy[0]));
    world.reserve(|w| (w.name, w.nodes) = (None, NodesWish::Count(1))).expect("one is left");
    assert_eq!(world.nodes_of_reservation("u1000_1"), busy[0], "its job ends before");
    let ib = Some(Constraint::Feature("ib".into()));
    world.unreserve().expect("nobody uses it");
    world.reserve(|w| (w.nodes, w.features) = (NodesWish::Cores(5), ib)).expect("two of four CPUs");
    assert_eq!(world.nodes_of_reservation("r"), "n3,n4");
    world.proven();
}

#[test]
fn two_reservations_do_not_share_a_node_unless_they_say_so() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    refused(world.reserve(|_| ()), "exists already");
    let second = |w: &mut ReservationWish| w.name = Some("s".into());
    refused(world.reserve(second), "node \"n1\" is in reservation \"r\"");
    let mut daily = world.clone();
    let begins = world.now.plus_seconds(HOUR);
    daily.wait(3 * HOUR);
    daily.tick();
    daily
        .reserve(|w| {
            w.flags = ReservationFlags::DAILY;
            (w.start, w.end) = (begins.plus_seconds(3 * HOUR), begins.plus_seconds(4 * HOUR));
        })
        .expect("the first is over");
    let tomorrow = |w: &mut ReservationWish| {
        second(w);
        (w.start, w.end) = (begins.plus_seconds(27 * HOUR), begins.plus_seconds(28 * HOUR));
    };
    refused(daily.reserve(tomorrow), "is in reservation \"r\"");
    let mut later = world.clone();
    later
        .reserve(|w| {
            second(w);
            (w.start, w.end) = (w.end, w.end.plus_seconds(5));
        })
        .expect("one after the other");
    for flag in [ReservationFlags::OVERLAP, ReservationFlags::MAINT] {
        let mut shared = world.clone();
        shared.reserve(|w| (w.name, w.flags) = (Some("s".into()), flag)).expect("it says so");
        shared.proven();
    }
}

#[test]
fn a_job_that_runs_into_it_stands_in_its_way() {
    let mut world = World::new();
    let job = world.submit(|s, _| s.time_limit = minutes(90));
    world.start(job, "n1", None).expect("starts");
    refused(world.reserve(|_| ()), "job 1 on node \"n1\" may run 30 min into the reservation");
    refused(world.reserve(|w| w.nodes = NodesWish::Count(4)), "3 can be kept");
    world.clone().reserve(flags(ReservationFlags::IGNORE_JOBS)).expect("jobs are ignored");
    world.clone().reserve(flags(ReservationFlags::MAINT)).expect("a maintenance ignores jobs");
    world.reserve(|w| w.start = w.start.plus_seconds(HOUR / 2)).expect("after the job");
}

#[test]
fn only_those_whom_it_admits_may_name_it() {
    let mut world = World::new();
    let named = |s: &mut JobSpec, _: &mut Request| s.reservation = Some("r".into());
    refused(world.try_submit(named), "reservation \"r\" does not exist");
    world.reserve(|_| ()).expect("made");
    world.submit(named);
    let mut bobs = spec(BOB, "b");
    bobs.reservation = Some("r".into());
    refused(world.submit_spec(BOB, bobs.clone()), "does not admit user \"u1001\"");
    world
        .change_reservation(|c| c.users = Some(AccessChange::Add(vec!["u1001".into()])))
        .expect("changed");
    world.submit_spec(BOB, bobs.clone()).expect("admitted now");
    let physics = Access { names: vec!["physics".into()], deny: true };
    world.change_reservation(|c| c.accounts = Some(AccessChange::To(physics))).expect("changed");
    refused(world.submit_spec(BOB, bobs), "account \"physics\"");
    assert_eq!(world.describe(), "1 waits Reservation\n2 waits Reservation");
    world.proven();
}

#[test]
fn its_jobs_wait_for_it_and_start_on_its_nodes_alone() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    let job = world.submit(|s, _| {
        s.reservation = Some("r".into());
        s.time_limit = minutes(30);
    });
    assert_eq!(world.describe(), "1 waits Reservation");
    refused(world.start(job, "n1", None), "not pending");
    world.wait(HOUR);
    world.tick();
    refused(world.start(job, "n2", None), "node \"n2\" is kept for reservation \"r\"");
    world.wait(HOUR / 2 + 1);
    refused(world.start(job, "n1", None), "is kept");
    world.wait(-1);
    world.start(job, "n1", None).expect("it ends with the reservation");
    refused(world.unreserve(), "named by 1 jobs");
    world.proven();
}

#[test]
fn others_keep_off_its_nodes_in_its_time() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    let long = world.submit(|s, _| s.time_limit = minutes(61));
    let short = world.submit(|s, _| s.time_limit = minutes(60));
    let endless = world.submit(|s, _| s.time_limit = minutes(1440));
    refused(world.start(long, "n1", None), "node \"n1\" is kept for reservation \"r\"");
    refused(world.start(endless, "n1", None), "is kept");
    world.start(long, "n2", None).expect("another node");
    world.start(short, "n1", None).expect("it ends before");
    world.proven();
}

#[test]
fn flex_lets_its_jobs_start_before_and_elsewhere() {
    let mut world = World::new();
    world.reserve(flags(ReservationFlags::FLEX)).expect("made");
    let job = |w: &mut World| w.submit(|s, _| s.reservation = Some("r".into()));
    let (a, b) = (job(&mut world), job(&mut world));
    world.start(a, "n1", None).expect("before it begins");
    world.start(b, "n3", None).expect("on another node");
}

#[test]
fn a_maintenance_shuts_out_the_jobs_of_other_reservations() {
    let mut world = World::new();
    world.reserve(|w| w.start = w.start.plus_seconds(-HOUR)).expect("from now on");
    world
        .reserve(|w| (w.name, w.flags) = (Some("m".into()), ReservationFlags::MAINT))
        .expect("in an hour");
    let asks = |w: &mut World, name: &str, limit| {
        w.submit(|s, _| (s.reservation, s.time_limit) = (Some(name.into()), minutes(limit)))
    };
    let (long, short) = (asks(&mut world, "r", 70), asks(&mut world, "r", 50));
    refused(world.start(long, "n1", None), "kept for reservation \"m\"");
    world.start(short, "n1", None).expect("done before it");
    world.cancel(2);
    world.clear();
    let test = asks(&mut world, "m", 10);
    world.wait(HOUR);
    world.tick();
    world.start(test, "n1", None).expect("its own jobs are shut out by nobody");
}

#[test]
fn licences_are_kept_for_its_jobs() {
    let mut world = World::new();
    world
        .reserve(|w| {
            w.nodes = NodesWish::Nothing;
            w.flags = ReservationFlags::ANY_NODES;
            w.licenses = vec![("matlab".into(), 2)];
            w.start = w.start.plus_seconds(-HOUR);
        })
        .expect("made");
    let asks = |w: &mut World, name: Option<&str>| {
        w.submit(|s, _| {
            s.reservation = name.map(Into::into);
            s.licenses = vec![("matlab".into(), 1)];
        })
    };
    let (other, own) = (asks(&mut world, None), asks(&mut world, Some("r")));
    refused(world.start(other, "n1", None), "licence \"matlab\"");
    world.start(own, "n1", None).expect("kept for it");
    world.wait(HOUR);
    world.tick();
    world.wait(HOUR);
    world.tick();
    world.start(other, "n2", None).expect("the reservation is over");
}

#[test]
fn a_pass_chooses_nobody_whose_licences_are_kept_for_others() {
    let mut world = World::new();
    world
        .reserve(|w| {
            w.nodes = NodesWish::Nothing;
            w.flags = ReservationFlags::ANY_NODES;
            w.licenses = vec![("matlab".into(), 2)];
        })
        .expect("made");
    let mut asks = |minutes: u32| {
        world.submit(|s, _| {
            s.licenses = vec![("matlab".into(), 1)];
            s.time_limit = Some(TimeLimit::minutes(minutes));
        })
    };
    // The reservation begins in an hour.
    let (short, long) = (asks(30), asks(90));
    world.pass();
    assert!(world.job(short.0).phase.is_active(), "gone before it begins");
    assert_eq!(world.job(long.0).attempt, Attempt(0));
    assert_eq!(world.describe(), "1 launches on n1\n2 waits Licenses");
}

#[test]
fn it_goes_when_its_time_is_over_and_its_jobs_are_told() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    world.submit(|s, _| s.reservation = Some("r".into()));
    world.wait(2 * HOUR);
    world.tick();
    assert!(world.state.reservations.is_empty());
    assert_eq!(world.describe(), "1 waits ReservationDeleted");
    world.reserve(|w| w.start = w.start.plus_seconds(-HOUR)).expect("made anew");
    let job = JobId(1);
    world.change_reservation(|c| c.duration = Some(DurationChange::By(HOUR))).expect("longer");
    world.start(job, "n1", None).expect("its name is known again");
    world.proven();
}

#[test]
fn a_daily_one_moves_to_the_next_day() {
    let mut world = World::new();
    world.reserve(flags(ReservationFlags::DAILY)).expect("made");
    let first = world.state.reservations["r"].start;
    let job = world.submit(|s, _| s.reservation = Some("r".into()));
    world.wait(2 * HOUR);
    world.tick();
    assert_eq!(world.state.reservations["r"].start, first.plus_seconds(24 * HOUR));
    assert_eq!(world.describe(), "1 waits Reservation");
    let reserved = reserved_view(&world.state, world.now);
    assert_eq!(reserved[0].windows.len(), 31);
    world.wait(23 * HOUR);
    world.start(job, "n1", None).expect("the next day");
    world.proven();
}

#[test]
fn what_is_closed_is_told_as_plain_data() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    let (n1, now) = (world.node("n1"), world.now);
    let reserved = reserved_view(&world.state, now);
    let window = (now.plus_seconds(HOUR), now.plus_seconds(2 * HOUR));
    let closed = blocked_windows(&reserved, None).expect("for jobs of none");
    assert_eq!(closed, vec![(&[n1][..], window.0, window.1)]);
    assert_eq!(blocked_windows(&reserved, Some("r")), Some(Vec::new()));
    assert_eq!(blocked_windows(&reserved, Some("x")), None);
    let own = fence(&reserved, Some("r")).expect("known");
    assert_eq!((own.only, own.within), (Some(&[n1][..]), Some(window)));
}

#[test]
fn nodes_come_and_go_by_update() {
    let mut world = World::new();
    world.reserve(|_| ()).expect("made");
    let set = |w: &mut World, change| w.change_reservation(|c| c.nodes = Some(change));
    set(&mut world, NodesChange::Add(vec!["n3".into()])).expect("added");
    assert_eq!(world.nodes_of_reservation("r"), "n1,n3");
    set(&mut world, NodesChange::Remove(vec!["n1".into()])).expect("removed");
    assert_eq!(world.nodes_of_reservation("r"), "n3");
    refused(set(&mut world, NodesChange::Remove(vec!["n3".into()])), "delete it instead");
    set(&mut world, NodesChange::To(NodesWish::All)).expect("all");
    assert_eq!(world.nodes_of_reservation("r"), "n1,n2,n3,n4");
    world.unreserve().expect("nobody uses it");
    refused(world.unreserve(), "reservation \"r\" does not exist");
    world.proven();
}

#[test]
fn a_start_may_be_shorter_down_to_the_least() {
    let mut world = World::new();
    let job =
        |w: &mut World, least| w.submit(|s, _| (s.time_limit, s.time_min) = (minutes(60), least));
    let (fixed, shrinks) = (job(&mut world, None), job(&mut world, minutes(10)));
    refused(world.start(fixed, "n1", Some(Seconds(1800))), "not asked for");
    refused(world.start(shrinks, "n1", Some(Seconds(599))), "not asked for");
    refused(world.start(shrinks, "n1", Some(Seconds(3601))), "not asked for");
    let began = world.now;
    world.start(shrinks, "n1", Some(Seconds(1800))).expect("between them");
    let end = |w: &World| w.job(2).phase.allocation().and_then(|held| held.end_at);
    assert_eq!(end(&world), Some(began.plus_seconds(1800)));
    world.wait(60);
    world.run(2);
    assert_eq!(end(&world), Some(began.plus_seconds(1860)), "counted from its true start");
    let change = crate::command::JobChange {
        time_limit: Some(crate::command::TimeChange::To(TimeLimit::minutes(50))),
        ..Default::default()
    };
    let (target, change) = (Target::Job(JobId(2)), Box::new(change));
    world.verb(Command::Update { actor: OP, target, change });
    assert_eq!(end(&world), Some(began.plus_seconds(60 + 3000)), "an update has the last word");
    world.proven();
}

#[test]
fn a_least_time_above_the_limit_is_refused() {
    let mut world = World::new();
    let asks = |w: &mut World, limit, least| {
        w.try_submit(|s, _| (s.time_limit, s.time_min) = (limit, Some(least)))
    };
    let hour = minutes(60);
    refused(asks(&mut world, hour, TimeLimit::minutes(61)), "the least (61 min) is above");
    refused(asks(&mut world, hour, TimeLimit::Unlimited), "the least is unlimited");
    asks(&mut world, hour, TimeLimit::minutes(60)).expect("equal is fine");
}

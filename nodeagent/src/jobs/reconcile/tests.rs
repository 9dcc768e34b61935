//! What follows from what, told as stories of one slice, and held as rules for any order of events.

use super::*;
use muster_proto::shim::v1::ExitRecord;
use proptest::prelude::*;

const KEY: Key = Key { job: 7, attempt: 2 };

fn wish(want: Want) -> Wish {
    Wish { want, suspended: false, cause: StopCause::None, end_at: 0 }
}

fn desire(key: Key, want: Want, batch: bool) -> Desire {
    let launchable = Launchable::Yes { batch, straight: false, end_at: 0 };
    Desire { key, wish: wish(want), launchable }
}

fn exited() -> End {
    End::Finished { exit: Some(ExitRecord::default()), epilog_fault: String::new() }
}

fn never_ran() -> End {
    End::Finished { exit: None, epilog_fault: String::new() }
}

fn lost() -> End {
    End::Lost { reason: "gone".into() }
}

fn cleaned() -> Event {
    Event::Cleaned { epilog_fault: String::new() }
}

/// One thing that happens in a story.
enum Then {
    /// The controller says so, with a launch.
    Says(Want),
    Happens(Event),
}
use Action::{
    Begin, CancelPrepare, Clean, Erase, KillShim, Launch, Prepare, Report, SetEnd, Stop, Suspend,
};
use Then::{Happens, Says};

/// Tells a story to an empty node and expects these actions after each part of it.
#[track_caller]
fn check(batch: bool, story: Vec<(Then, Vec<Action>)>) -> Held {
    let mut held = Held::default();
    for (number, (then, expected)) in story.into_iter().enumerate() {
        let actions: Vec<Action> = match then {
            Says(want) => {
                let actions = held.desire(vec![desire(KEY, want, batch)], false);
                actions.into_iter().map(|(_, action)| action).collect()
            }
            Happens(event) => held.step(KEY, event),
        };
        assert_eq!(actions, expected, "part {number}");
        if actions.contains(&Erase) {
            held.erase(KEY);
        }
    }
    held
}

#[test]
fn a_batch_slice_goes_from_a_wish_to_its_end() {
    let held = check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Happens(Event::Prepared), vec![Report, Launch]),
            (Happens(Event::Launched { started_at: 5 }), vec![Report]),
            (Happens(Event::Ended(exited())), vec![Clean]),
            (Happens(cleaned()), vec![Report]),
            (Says(Want::Forget), vec![Erase]),
        ],
    );
    assert_eq!(held.iter().count(), 0);
}

#[test]
fn a_gang_slice_waits_for_go_and_ends_when_told() {
    check(
        false,
        vec![
            (Says(Want::Prepare), vec![Prepare]),
            (Happens(Event::Prepared), vec![Report]),
            (Says(Want::Prepare), vec![]),
            (Says(Want::Run), vec![Launch]),
            (Happens(Event::Launched { started_at: 5 }), vec![Report]),
            (Says(Want::Stop), vec![Clean]),
            (Says(Want::Stop), vec![]),
            (Happens(cleaned()), vec![Report]),
            (Says(Want::Forget), vec![Erase]),
        ],
    );
}

#[test]
fn without_a_prolog_a_slice_that_is_to_run_is_begun_in_one_go() {
    let say = |held: &mut Held, want, gang| {
        let launchable = Launchable::Yes { batch: true, straight: true, end_at: 0 };
        let wants = if gang { vec![Want::Prepare, want] } else { vec![want] };
        let desire = |want| Desire { key: KEY, wish: wish(want), launchable: launchable.clone() };
        let actions = held.desire(wants.into_iter().map(desire).collect(), false);
        actions.into_iter().map(|(_, action)| action).collect::<Vec<_>>()
    };
    let mut held = Held::default();
    assert_eq!(say(&mut held, Want::Run, false), [Begin]);
    assert_eq!(say(&mut held, Want::Run, false), [], "a wish may be repeated");
    assert_eq!(say(&mut held, Want::Stop, false), [], "there is no shim to be told yet");
    let started = held.step(KEY, Event::Launched { started_at: 5 });
    assert_eq!(started, [Report, Stop(StopCause::None), Report]);
    // What waits for others is spooled before.
    assert_eq!(say(&mut Held::default(), Want::Run, true), [Prepare]);
    // What could not be begun is over.
    let mut held = Held::default();
    say(&mut held, Want::Run, false);
    assert_eq!(held.step(KEY, Event::Failed(lost())), [Clean]);
}

#[test]
fn a_repeated_launch_starts_nothing() {
    check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Says(Want::Run), vec![]),
            (Happens(Event::Prepared), vec![Report, Launch]),
            (Says(Want::Run), vec![]),
            (Happens(Event::Launched { started_at: 5 }), vec![Report]),
            (Says(Want::Run), vec![]),
            (Happens(Event::Ended(exited())), vec![Clean]),
            (Says(Want::Run), vec![]),
            (Happens(cleaned()), vec![Report]),
            (Says(Want::Run), vec![]),
        ],
    );
}

#[test]
fn a_stop_is_passed_on_when_there_is_somebody_to_stop() {
    let stop = Stop(StopCause::None);
    check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Happens(Event::Prepared), vec![Report, Launch]),
            (Says(Want::Stop), vec![]),
            (Happens(Event::Launched { started_at: 5 }), vec![Report, stop, Report]),
            (Says(Want::Run), vec![]),
            (Happens(Event::Overdue), vec![KillShim]),
            (Happens(Event::Ended(lost())), vec![Clean]),
            (Happens(Event::Overdue), vec![]),
            (Happens(cleaned()), vec![Report]),
        ],
    );
}

#[test]
fn a_stop_during_the_prolog_cancels_it() {
    check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Says(Want::Stop), vec![CancelPrepare]),
            (Says(Want::Stop), vec![]),
            (Happens(Event::Failed(never_ran())), vec![Clean]),
            (Happens(cleaned()), vec![Report]),
        ],
    );
    // The prolog was faster.
    check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Says(Want::Stop), vec![CancelPrepare]),
            (Happens(Event::Prepared), vec![Report, Clean]),
        ],
    );
}

#[test]
fn a_failed_start_is_undone_and_told() {
    let end = End::LaunchFailed { reason: "prolog".into(), node_fault: true };
    let held = check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Happens(Event::Failed(end.clone())), vec![Clean]),
            (Happens(Event::Prepared), vec![]),
            (Happens(cleaned()), vec![Report]),
        ],
    );
    assert_eq!(held.get(KEY).unwrap().phase, Phase::Over(end));
}

#[test]
fn changes_of_a_running_slice_reach_its_shim_once() {
    let mut held = Held::default();
    let mut say = |want, suspended, end_at| {
        let wish = Wish { want, suspended, cause: StopCause::None, end_at };
        let desire = Desire { wish, ..desire(KEY, want, true) };
        let actions = held.desire(vec![desire], false);
        let events = match actions.last() {
            Some((_, Prepare)) => vec![Event::Prepared, Event::Launched { started_at: 1 }],
            _ => vec![],
        };
        for event in events {
            held.step(KEY, event);
        }
        actions.into_iter().map(|(_, a)| a).filter(|a| *a != Report).collect::<Vec<_>>()
    };
    assert_eq!(say(Want::Run, false, 0), [Prepare]);
    assert_eq!(say(Want::Run, true, 900), [Suspend(true), SetEnd(900)]);
    assert_eq!(say(Want::Run, true, 900), []);
    assert_eq!(say(Want::Run, false, 0), [Suspend(false), SetEnd(0)]);
}

#[test]
fn an_epilog_that_fails_is_part_of_the_end() {
    let held = check(
        true,
        vec![
            (Says(Want::Run), vec![Prepare]),
            (Happens(Event::Prepared), vec![Report, Launch]),
            (Happens(Event::Ended(exited())), vec![Clean]),
            (Happens(Event::Cleaned { epilog_fault: "scratch is full".into() }), vec![Report]),
        ],
    );
    let Phase::Over(End::Finished { epilog_fault, .. }) = &held.get(KEY).unwrap().phase else {
        panic!("it finished");
    };
    assert_eq!(epilog_fault, "scratch is full");
}

#[test]
fn what_is_not_here_has_ended_and_is_forgotten_quietly() {
    check(
        true,
        vec![
            (Says(Want::Forget), vec![]),
            (Says(Want::Stop), vec![Report]),
            (Says(Want::Run), vec![]),
            (Says(Want::Forget), vec![Erase]),
        ],
    );
}

#[test]
fn a_wish_about_an_older_attempt_is_ignored() {
    let mut held = Held::default();
    held.desire(vec![desire(KEY, Want::Run, true)], false);
    let older = Key { attempt: 1, ..KEY };
    assert_eq!(held.desire(vec![desire(older, Want::Run, true)], false), []);
    assert!(held.get(older).is_none());
    let newer = Key { attempt: 3, ..KEY };
    assert!(!held.desire(vec![desire(newer, Want::Run, true)], false).is_empty());
}

#[test]
fn a_launch_that_is_refused_is_told_and_leaves_nothing() {
    let mut held = Held::default();
    let launchable = Launchable::No { reason: "not signed".into() };
    let refused = Desire { launchable, ..desire(KEY, Want::Run, true) };
    assert_eq!(held.desire(vec![refused], false), [(KEY, Report)]);
    let end = End::LaunchFailed { reason: "not signed".into(), node_fault: false };
    assert_eq!(held.get(KEY).unwrap().phase, Phase::Over(end));
}

#[test]
fn a_full_list_ends_what_the_controller_does_not_know() {
    let mut held = Held::default();
    let key = |job, attempt| Key { job, attempt };
    let running = |started_at| Job::new(true, 0, Phase::Running { started_at });
    held.adopt(key(1, 1), running(1));
    held.adopt(key(2, 1), running(1));
    held.adopt(key(3, 5), running(1));
    held.adopt(key(4, 1), running(1));
    held.adopt(key(5, 1), Job::new(true, 0, Phase::Over(exited())));
    let list = vec![
        desire(key(1, 1), Want::Run, true),
        desire(key(2, 2), Want::Run, true),
        desire(key(3, 4), Want::Stop, true),
    ];
    let actions = held.desire(list, true);
    let of = |job, attempt| {
        let mine = actions.iter().filter(|(k, _)| *k == key(job, attempt));
        mine.map(|(_, action)| *action).collect::<Vec<_>>()
    };
    let unknown = Stop(StopCause::UnknownToController);
    assert_eq!(of(1, 1), [], "known and wanted");
    assert_eq!(of(2, 1), [unknown, Report], "an attempt older than the controller's");
    assert_eq!(of(3, 5), [], "an attempt newer than the controller's is left alone");
    assert_eq!(of(4, 1), [unknown, Report], "not known at all");
    assert_eq!(of(5, 1), [Erase], "over and not known");
}

#[test]
fn an_adopted_slice_goes_on_where_it_was() {
    let adopt = |phase| {
        let mut held = Held::default();
        held.adopt(KEY, Job::new(true, 0, phase));
        let actions = held.desire(vec![desire(KEY, Want::Run, true)], true);
        actions.into_iter().map(|(_, action)| action).collect::<Vec<_>>()
    };
    let preparing = Phase::Preparing { begun: false, cancelled: false };
    assert_eq!(adopt(preparing), [Prepare]);
    assert_eq!(adopt(Phase::Ready), [Launch]);
    assert_eq!(adopt(Phase::Running { started_at: 3 }), []);
    assert_eq!(adopt(Phase::Cleaning(exited())), []);
    assert_eq!(adopt(Phase::Over(lost())), []);
}

#[test]
fn every_end_survives_the_spool() {
    let failed = End::LaunchFailed { reason: "r".into(), node_fault: true };
    for end in [exited(), never_ran(), lost(), failed] {
        let report = Job::new(true, 0, Phase::Over(end.clone())).hello(KEY);
        assert_eq!(End::from_report(report), Some(end));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let want = prop::sample::select(vec![Want::Prepare, Want::Run, Want::Stop, Want::Forget]);
    let wished = (want, any::<bool>(), 0..3i64).prop_map(|(want, suspended, end_at)| {
        Event::Wished(Wish { want, suspended, cause: StopCause::Cancelled, end_at })
    });
    let happened = prop::sample::select(vec![
        Event::Prepared,
        Event::Launched { started_at: 1 },
        Event::Failed(never_ran()),
        Event::Ended(exited()),
        Event::Overdue,
        cleaned(),
    ]);
    prop_oneof![wished, happened]
}

/// How far a phase is: no event takes a slice back.
fn rank(phase: &Phase) -> u8 {
    match phase {
        Phase::Preparing { .. } => 0,
        Phase::Ready => 1,
        Phase::Launching => 2,
        Phase::Running { .. } => 3,
        Phase::Stopping => 4,
        Phase::Cleaning(_) => 5,
        Phase::Over(_) => 6,
    }
}

proptest! {
    #[test]
    fn nothing_is_done_twice_and_nothing_goes_back(
        (batch, straight) in (any::<bool>(), any::<bool>()),
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut job = Job::new(batch, 0, Phase::Preparing { begun: false, cancelled: false })
            .straight(straight);
        let mut counts = BTreeMap::new();
        for event in events {
            let before = rank(&job.phase);
            let actions = job.step(event);
            prop_assert!(rank(&job.phase) >= before, "never back");
            for action in actions {
                let name = match action {
                    Prepare | Begin if counts.contains_key("launch") => {
                        return Err(TestCaseError::fail("spooled after it was launched"));
                    }
                    Prepare | Begin => "prepare",
                    CancelPrepare => "cancel",
                    Launch => "launch",
                    Stop(_) => "stop",
                    Clean => "clean",
                    SetEnd(_) => {
                        prop_assert!(batch, "only a shim can be told");
                        continue;
                    }
                    Suspend(_) | KillShim | Report | Erase => continue,
                };
                *counts.entry(name).or_insert(0) += 1;
            }
        }
        for (name, count) in &counts {
            prop_assert!(*count <= 1, "{} happened {} times", name, count);
        }
        if let Phase::Over(_) = job.phase {
            prop_assert_eq!(counts.get("clean"), Some(&1), "nothing is over before it is clean");
        }
        let stopped = counts.contains_key("stop");
        prop_assert!(!stopped || batch, "a slice without a process is not stopped, it is cleaned");
    }
}

//! Why a job waits: what falls out where, whom it waits for, and what would start it.

use super::het::component;
use super::*;
use crate::command::{JobChange, NodeChange, NodeVerb};
use crate::plan::why::{Change, Filter, Funnel, Survey, Why, survey, why};

fn surveyed(w: &World, job: JobId) -> Survey {
    survey(&w.state, w.now, &POLICY, job).expect("it waits")
}

/// What is said about a waiting job, a line for each fact. Times are seconds from now.
#[track_caller]
fn check(w: &World, job: JobId, expected: &[&str]) {
    let said = why(&surveyed(w, job), &POLICY, w.now, DEFAULT_FUEL);
    assert_eq!(lines(w, &said), expected);
}

fn names(w: &World, nodes: &[NodeId]) -> String {
    let name = |node: &NodeId| w.state.nodes[node.0 as usize].config.name.to_string();
    nodes.iter().map(name).collect::<Vec<_>>().join(",")
}

fn ids(jobs: impl Iterator<Item = JobId>) -> String {
    jobs.map(|job| job.to_string()).collect::<Vec<_>>().join(",")
}

fn lines(w: &World, said: &Why) -> Vec<String> {
    let mut out = vec![said.reason.to_string()];
    out.extend(said.funnels.iter().map(|funnel| line(w, funnel)));
    for (job, end) in &said.waits_for {
        let end = end.map_or("no end".to_owned(), |end| (end.since(w.now) / 1000).to_string());
        out.push(format!("waits for {job} ({end})"));
    }
    if !said.ahead.is_empty() {
        out.push(format!("behind {}", ids(said.ahead.iter().copied())));
    }
    out.extend(said.start.as_ref().map(|start| {
        let seconds = start.at.since(w.now) / 1000;
        format!("in {seconds} on {} ({})", names(w, &start.nodes), start.partition)
    }));
    for proposed in &said.changes {
        let change = match &proposed.change {
            Change::Partition(name) => format!("partition {name}"),
            Change::Limit(limit) => format!("limit {}", limit.0),
            Change::Gres { kind, count, .. } => format!("{kind}:{count}"),
            Change::Nodes { nodes, tasks, .. } => format!("nodes {nodes} tasks {tasks:?}"),
            Change::CpusPerTask(cpus) => format!("cpus {cpus}"),
        };
        out.push(format!("{change}: {} ({})", names(w, &proposed.nodes), proposed.partition));
    }
    out
}

fn line(w: &World, funnel: &Funnel) -> String {
    let Funnel { partition, members, wanted, removed, left, network, .. } = funnel;
    let mut out = format!("{partition} {members}");
    for step in removed {
        let by = match &step.by {
            Filter::OutOfService => "out".to_owned(),
            Filter::Features => "features".to_owned(),
            Filter::Build => "build".to_owned(),
            Filter::Named => "named".to_owned(),
            Filter::Reservation(name) => format!("reservation:{name}"),
            Filter::WholeCpus => "cpus".to_owned(),
            Filter::WholeMemory => "memory".to_owned(),
            Filter::WholeGres(kind) => kind.to_string(),
            Filter::WholeLinks => "links".to_owned(),
            Filter::WholeNear => "near".to_owned(),
            Filter::InUse => "in-use".to_owned(),
            Filter::FreeCpus => "free-cpus".to_owned(),
            Filter::FreeMemory => "free-memory".to_owned(),
            Filter::FreeGres(kind) => format!("free-{kind}"),
            Filter::FreeLinks => "free-links".to_owned(),
            Filter::FreeNear => "free-near".to_owned(),
            Filter::Promised => "promised".to_owned(),
        };
        out.push_str(&format!(" -{by}[{}]", names(w, &step.nodes)));
    }
    out.push_str(&format!(" ={left}/{wanted}"));
    if let Some(rejected) = network {
        out.push_str(&format!(" {}", rejected.level()));
    }
    out
}

/// A job on one node by name that takes this many of its CPUs for so many minutes.
fn runs(w: &mut World, node: &str, cpus: u32, minutes: u32) -> JobId {
    let job = w.submit(|spec, r| {
        spec.time_limit = Some(TimeLimit::minutes(minutes));
        r.required_nodes = vec![node.into()];
        r.nodes.max = Some(1);
        r.cpus_per_task = cpus;
    });
    assert_eq!(w.pass(), 1, "{node} has room");
    w.run(job.0);
    job
}

#[test]
fn a_job_learns_what_it_waits_for_and_what_would_do_instead() {
    let mut w = World::new();
    runs(&mut w, "n1", 8, 10);
    runs(&mut w, "n2", 6, 30);
    let job = w.submit(|_, r| {
        r.constraint = Some(Constraint::parse("gpu").expect("valid"));
        r.cpus_per_task = 8;
    });
    w.pass();
    check(
        &w,
        job,
        &[
            "Resources",
            "main 4 -features[n3,n4] -free-cpus[n1,n2] =0/1",
            "waits for 1 (600)",
            "in 600 on n1 (main)",
            "cpus 2: n2 (main)",
        ],
    );
}

#[test]
fn a_job_behind_others_learns_whom_they_are_and_how_short_it_must_be() {
    let mut w = World::new();
    runs(&mut w, "n1", 8, 60);
    runs(&mut w, "n2", 1, 60);
    let first = w.submit(|_, r| {
        (r.nodes, r.tasks, r.cpus_per_task) = (NodeCount { min: 2, max: Some(2) }, 2, 8);
        r.constraint = Some(Constraint::parse("gpu").expect("valid"));
    });
    let behind = w.submit(|spec, r| {
        spec.time_limit = Some(TimeLimit::minutes(120));
        r.cpus_per_task = 5;
        r.constraint = Some(Constraint::parse("gpu").expect("valid"));
    });
    w.pass();
    assert_eq!(first, JobId(3));
    check(
        &w,
        behind,
        &[
            "Priority",
            "main 4 -features[n3,n4] -free-cpus[n1] -promised[n2] =0/1",
            "waits for 1 (3600)",
            "behind 3",
            "in 7200 on n1 (main)",
            "limit 3420: n2 (main)",
        ],
    );
}

#[test]
fn fewer_gpus_or_nodes_or_another_partition_are_proposed_when_they_start() {
    let mut w = World::new();
    let held = w.submit(|_, r| r.gres = vec![gpus(3, GresScope::Node)]);
    let other = w.submit(|_, r| {
        r.required_nodes = vec!["n2".into()];
        r.gres = vec![gpus(2, GresScope::Node)];
    });
    w.pass();
    w.run_all();
    let gpu = w.submit(|_, r| r.gres = vec![gpus(4, GresScope::Node)]);
    check(
        &w,
        gpu,
        &[
            "Resources",
            "main 4 -gpu[n3,n4] -free-gpu[n1,n2] =0/1",
            "waits for 1 (3600)",
            "in 3600 on n1 (main)",
            "gpu:2: n2 (main)",
        ],
    );
    w.cancel(gpu.0);
    let gang = w.submit(|_, r| {
        r.nodes = NodeCount { min: 4, max: Some(4) };
        (r.tasks, r.exclusive) = (4, true);
    });
    check(
        &w,
        gang,
        &[
            "Resources",
            "main 4 -in-use[n1,n2] =2/4",
            "waits for 1 (3600)",
            "waits for 2 (3600)",
            "in 3600 on n1,n2,n3,n4 (main)",
            "nodes 2 tasks Some(2): n3,n4 (main)",
        ],
    );
    assert_eq!((held, other), (JobId(1), JobId(2)));
}

#[test]
fn another_partition_that_would_take_it_is_named() {
    let mut config = config();
    config.partitions[0].nodes = vec!["n1".into()];
    config.partitions[1].allow_users = vec!["nobody".into()];
    config.partitions.push(partition("spare", &["n4"], false));
    let mut w = World::with(config);
    runs(&mut w, "n1", 8, 60);
    let job = w.submit(|_, r| r.cpus_per_task = 4);
    check(
        &w,
        job,
        &[
            "Resources",
            "main 1 -free-cpus[n1] =0/1",
            "waits for 1 (3600)",
            "in 3600 on n1 (main)",
            "partition spare: n4 (spare)",
        ],
    );
}

#[test]
fn what_cannot_start_at_all_says_which_filter_leaves_nothing() {
    let mut w = World::new();
    let job = w.submit(|_, r| {
        r.gres = vec![gpus(1, GresScope::Node)];
        r.excluded_nodes = vec!["n1".into()];
    });
    let drain = w.node("n2");
    let verb = Some(NodeVerb::Drain { reason: "fans".into() });
    let change = NodeChange { verb, ..NodeChange::default() };
    w.wish(Command::UpdateNodes { actor: OP, nodes: vec![drain], change }).expect("drained");
    check(&w, job, &["ReqNodeNotAvail", "main 4 -out[n2] -named[n1] -gpu[n3,n4] =0/1"]);
}

#[test]
fn a_job_without_an_end_in_the_way_is_named() {
    let mut w = World::with({
        let mut config = config();
        config.partitions[0].max_time = TimeLimit::Unlimited;
        config
    });
    w.submit(|spec, r| {
        spec.time_limit = Some(TimeLimit::Unlimited);
        r.required_nodes = vec!["n1".into()];
        r.cpus_per_task = 8;
    });
    w.pass();
    let job = w.submit(|_, r| {
        r.required_nodes = vec!["n1".into()];
        r.nodes.max = Some(1);
    });
    check(
        &w,
        job,
        &["Resources", "main 4 -named[n2,n3,n4] -free-cpus[n1] =0/1", "waits for 1 (no end)"],
    );
}

#[test]
fn a_held_job_and_a_startable_one_say_so() {
    let mut w = World::new();
    let held = w.submit(|spec, _| spec.held = true);
    check(&w, held, &["JobHeldUser"]);
    let free = w.submit(|_, _| {});
    check(&w, free, &["None", "in 0 on n1 (main)"]);
    assert!(survey(&w.state, w.now, &POLICY, JobId(99)).is_none(), "nobody knows it");
    w.pass();
    assert!(survey(&w.state, w.now, &POLICY, free).is_none(), "it does not wait");
}

#[test]
fn licences_are_waited_for_like_nodes() {
    let mut w = World::new();
    let with = |count: u32| {
        move |spec: &mut JobSpec, _: &mut Request| {
            spec.licenses = vec![("matlab".into(), count)];
        }
    };
    w.submit(with(2));
    w.pass();
    let job = w.submit(with(1));
    check(&w, job, &["Licenses", "main 4 =4/1", "waits for 1 (3600)", "in 3600 on n1 (main)"]);
}

#[test]
fn what_a_change_promises_holds_once_it_is_made() {
    let mut w = World::new();
    runs(&mut w, "n1", 8, 60);
    runs(&mut w, "n2", 5, 60);
    for node in ["n3", "n4"] {
        runs(&mut w, node, 4, 60);
    }
    let job = w.submit(|_, r| r.cpus_per_task = 8);
    let said = why(&surveyed(&w, job), &POLICY, w.now, DEFAULT_FUEL);
    let [proposed] = &said.changes[..] else { panic!("{:?}", said.changes) };
    assert_eq!(proposed.change, Change::CpusPerTask(3));
    let change = JobChange { cpus_per_task: Some(3), ..JobChange::default() };
    let target = Target::Job(job);
    let done = w.verb(Command::Update { actor: ALICE, target, change: Box::new(change) });
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(w.pass(), 1);
    assert_eq!(w.nodes_of(job.0), ["n2"]);
    w.proven();
}

#[test]
fn each_component_tells_where_it_stands_and_the_first_what_would_help() {
    let mut w = World::new();
    w.submit(|spec, request| {
        spec.time_limit = TimeLimit::minutes(10).into();
        request.required_nodes = vec!["n2".into()];
        request.cpus_per_task = 8;
    });
    w.pass();
    w.run(1);
    let parts = vec![component("lead", 1, 8), component("work", 1, 8)];
    assert_eq!(super::het::try_het(&mut w, parts), Ok(JobId(2)));
    w.pass();
    let said = |id| why(&surveyed(&w, JobId(id)), &POLICY, w.now, DEFAULT_FUEL);
    let (lead, work) = (said(2), said(3));
    assert_eq!((lead.reason, work.reason), (Reason::Resources, Reason::Resources));
    let at = |said: &Why| said.start.as_ref().map(|start| start.at);
    assert!(at(&lead).is_some() && at(&lead) == at(&work), "{lead:?} {work:?}");
    assert!(work.changes.is_empty() && !work.funnels.is_empty());
}

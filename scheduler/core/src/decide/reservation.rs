//! Reservations: made, changed and deleted by operators, moved and ended by time.

use std::sync::Arc;

use muster_model::reservation::MAX_NAME;
use muster_model::{Access, NodeId, Reservation, ReservationFlags as Flags, Timestamp};

use crate::command::{
    AccessChange, DurationChange, NodesChange, NodesWish, ReservationChange, ReservationWish,
};
use crate::config::Actor;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::{Job, Node, State};

use super::target::needs_operator;
use super::{Decision, Reply};

/// A reservation may begin this long before now, so that "now" of a slow command is no fault;
/// seconds (Slurm allows as much).
const PAST_SECONDS: i64 = 600;

pub(super) fn create(
    state: &State,
    actor: Actor,
    wish: &ReservationWish,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "creating a reservation")?;
    let name = match &wish.name {
        Some(name) => sound_name(name)?,
        None => free_name(state, wish),
    };
    if state.reservations.contains_key(&name) {
        return Err(Rejection::ReservationExists(name.to_string()));
    }
    if wish.start < now.plus_seconds(-PAST_SECONDS) {
        let text = "it would begin in the past".to_owned();
        return Err(Rejection::BadReservationTime(text));
    }
    let mut new = Reservation {
        name: name.clone(),
        nodes: Vec::new(),
        partition: wish.partition.clone(),
        start: wish.start,
        end: wish.end,
        users: wish.users.clone(),
        accounts: wish.accounts.clone(),
        flags: wish.flags,
        features: wish.features.clone(),
        licenses: wish.licenses.clone(),
        comment: wish.comment.clone(),
        created_by: actor.uid,
        created_at: now,
    };
    sound(state, &new, now)?;
    choose(state, &mut new, &wish.nodes)?;
    conflicts(state, &new)?;
    let event = Event::ReservationSet { reservation: Arc::new(new), at: now };
    Ok(Decision { events: vec![event], reply: Reply::Reservation(name) })
}

pub(super) fn update(
    state: &State,
    actor: Actor,
    name: &str,
    change: &ReservationChange,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "changing a reservation")?;
    let old = state.reservations.get(name);
    let old = old.ok_or_else(|| Rejection::UnknownReservation(name.to_owned()))?;
    let mut new = old.clone();
    fields(&mut new, change)?;
    times(&mut new, old, change, now)?;
    sound(state, &new, now)?;
    match &change.nodes {
        None if new.nodes.is_empty() && !new.has(Flags::ANY_NODES) => {
            choose(state, &mut new, &NodesWish::Nothing)?;
        }
        None => {}
        Some(NodesChange::To(wish)) => choose(state, &mut new, wish)?,
        Some(NodesChange::Add(names)) => {
            new.nodes.extend(named(state, names)?);
            new.flags = new.flags.with(Flags::SPEC_NODES);
        }
        Some(NodesChange::Remove(names)) => {
            let gone = named(state, names)?;
            new.nodes.retain(|node| !gone.contains(node));
            let all = Flags::ALL_NODES.with(Flags::PART_NODES);
            new.flags = new.flags.without(all).with(Flags::SPEC_NODES);
        }
    }
    new.nodes.sort_unstable();
    new.nodes.dedup();
    if new.nodes.is_empty() && new.licenses.is_empty() {
        let text = format!("{name:?} would keep no node and no licence: delete it instead");
        return Err(Rejection::BadReservation(text));
    }
    conflicts(state, &new)?;
    if new == *old {
        return Ok(Decision::done(Vec::new()));
    }
    let event = Event::ReservationSet { reservation: Arc::new(new), at: now };
    Ok(Decision::done(vec![event]))
}

pub(super) fn delete(
    state: &State,
    actor: Actor,
    name: &str,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "deleting a reservation")?;
    if !state.reservations.contains_key(name) {
        return Err(Rejection::UnknownReservation(name.to_owned()));
    }
    if let Some(using) = state.derived.reserving.get(name)
        && let Some(first) = using.first()
    {
        return Err(Rejection::ReservationInUse {
            reservation: name.to_owned(),
            jobs: using.len(),
            first: first.id,
        });
    }
    let event = Event::ReservationGone { name: name.into(), at: now };
    Ok(Decision::done(vec![event]))
}

/// Reservations whose window has passed: those that come back move to their next one, the others
/// go.
pub(super) fn passed(state: &State, now: Timestamp) -> Vec<Event> {
    let over = state.reservations.values().filter(|r| r.end <= now);
    let event = |r: &Reservation| match r.window_at(now) {
        Some((start, end)) => {
            let reservation = Arc::new(Reservation { start, end, ..r.clone() });
            Event::ReservationSet { reservation, at: now }
        }
        None => Event::ReservationGone { name: r.name.clone(), at: now },
    };
    over.map(event).collect()
}

fn sound_name(name: &str) -> Result<Box<str>, Rejection> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '+' | ':');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fine) {
        let text = format!("the name {name:?} is not one word of at most {MAX_NAME} bytes");
        return Err(Rejection::BadReservation(text));
    }
    Ok(name.into())
}

/// `alice_1`: the first user (or account) and the first free number.
fn free_name(state: &State, wish: &ReservationWish) -> Box<str> {
    let first = wish.users.names.first().or(wish.accounts.names.first());
    let stem = first.map_or("resv", |name| &**name);
    let name = |n: u32| -> Box<str> { format!("{stem}_{n}").into() };
    let free = (1..).map(name).find(|name| !state.reservations.contains_key(name));
    free.expect("there are fewer reservations than numbers")
}

fn fields(new: &mut Reservation, change: &ReservationChange) -> Result<(), Rejection> {
    if let Some(users) = &change.users {
        new.users = access(&new.users, users, "Users")?;
    }
    if let Some(accounts) = &change.accounts {
        new.accounts = access(&new.accounts, accounts, "Accounts")?;
    }
    new.flags = new.flags.with(change.flags).without(change.no_flags);
    if let Some(partition) = &change.partition {
        new.partition = (!partition.is_empty()).then(|| partition.clone());
    }
    if let Some(features) = &change.features {
        new.features.clone_from(features);
    }
    if let Some(licenses) = &change.licenses {
        new.licenses.clone_from(licenses);
    }
    if let Some(comment) = &change.comment {
        new.comment.clone_from(comment);
    }
    Ok(())
}

fn access(old: &Access, change: &AccessChange, what: &str) -> Result<Access, Rejection> {
    let mut new = old.clone();
    match change {
        AccessChange::To(to) => return Ok(to.clone()),
        AccessChange::Add(names) => {
            new.names.extend(names.iter().filter(|n| !old.names.contains(n)).cloned());
        }
        AccessChange::Remove(names) => {
            if let Some(stray) = names.iter().find(|n| !old.names.contains(n)) {
                let text = format!("{what} does not name {stray:?}");
                return Err(Rejection::BadReservation(text));
            }
            new.names.retain(|n| !names.contains(n));
        }
    }
    Ok(new)
}

fn times(
    new: &mut Reservation,
    old: &Reservation,
    change: &ReservationChange,
    now: Timestamp,
) -> Result<(), Rejection> {
    if let Some(start) = change.start {
        if start < now.plus_seconds(-PAST_SECONDS) && start != old.start {
            let text = "it would begin in the past".to_owned();
            return Err(Rejection::BadReservationTime(text));
        }
        new.start = start;
        // Its length stays.
        new.end = Timestamp(start.0.saturating_add(old.end.since(old.start)));
    }
    if let Some(end) = change.end {
        new.end = end;
    }
    let length = new.end.since(new.start) / 1000;
    match change.duration {
        Some(DurationChange::To(seconds)) => new.end = new.start.plus_seconds(seconds),
        Some(DurationChange::By(seconds)) => {
            new.end = new.start.plus_seconds(length.saturating_add(seconds));
        }
        None => {}
    }
    Ok(())
}

/// What holds for every reservation, new or changed.
fn sound(state: &State, new: &Reservation, now: Timestamp) -> Result<(), Rejection> {
    let bad = |text: String| Err(Rejection::BadReservation(text));
    if new.end <= new.start {
        return Err(Rejection::BadReservationTime("it would end before it begins".to_owned()));
    }
    if new.end <= now && new.flags.period().is_none() {
        return Err(Rejection::BadReservationTime("its end has passed".to_owned()));
    }
    if new.flags.repeats_twice() {
        return bad("HOURLY, DAILY and WEEKLY exclude each other".to_owned());
    }
    if let Some(period) = new.flags.period()
        && new.end.since(new.start) > period * 1000
    {
        return bad("it would be longer than the time until it comes back".to_owned());
    }
    if new.users.is_open() && new.accounts.is_open() {
        return bad("it needs Users= or Accounts=, or nobody could use it".to_owned());
    }
    if new.comment.chars().any(char::is_control) || new.comment.len() > 1024 {
        return bad("the comment is too long or has control characters".to_owned());
    }
    if let Some(name) = &new.partition
        && state.partition(name).is_none()
    {
        return Err(Rejection::UnknownPartition(name.to_string()));
    }
    let configured = || state.nodes.iter().filter(|node| node.configured);
    for feature in new.features.iter().flat_map(|c| c.features()) {
        if !configured().any(|node| node.facts.has_feature(feature)) {
            return Err(Rejection::UnknownFeature(feature.to_owned()));
        }
    }
    licenses(state, new)
}

fn licenses(state: &State, new: &Reservation) -> Result<(), Rejection> {
    for (name, count) in &new.licenses {
        let all = state.config.licenses.iter().find(|(known, _)| known == name);
        let (_, all) = all.ok_or_else(|| Rejection::UnknownLicense(name.to_string()))?;
        let others = state.reservations.values().filter(|r| r.name != new.name && r.meets(new));
        let kept = others.flat_map(|r| &r.licenses).filter(|(n, _)| n == name).map(|(_, n)| *n);
        let kept = kept.fold(0, u32::saturating_add);
        if count.saturating_add(kept) > *all {
            let text = format!(
                "{count} licences {name:?} are asked for; the cluster has {all}, and other \
                 reservations keep {kept}"
            );
            return Err(Rejection::BadReservation(text));
        }
    }
    Ok(())
}

fn named(state: &State, names: &[Box<str>]) -> Result<Vec<NodeId>, Rejection> {
    let unknown = |name: &str| Rejection::UnknownNode(name.to_owned());
    names.iter().map(|name| state.node_id(name).ok_or_else(|| unknown(name))).collect()
}

/// Settles which nodes it has.
fn choose(state: &State, new: &mut Reservation, wish: &NodesWish) -> Result<(), Rejection> {
    let how = Flags::SPEC_NODES.with(Flags::ALL_NODES).with(Flags::PART_NODES);
    let whole_partition = new.has(Flags::PART_NODES);
    new.flags = new.flags.without(how);
    if !matches!(wish, NodesWish::Nothing) && new.has(Flags::ANY_NODES) {
        let text = "ANY_NODES keeps licences only, but nodes are asked for".to_owned();
        return Err(Rejection::BadReservation(text));
    }
    new.nodes = match wish {
        NodesWish::Nothing if new.has(Flags::ANY_NODES) && !new.licenses.is_empty() => Vec::new(),
        NodesWish::Nothing => {
            let text = "it needs Nodes=, NodeCnt= or CoreCnt= (or licences and ANY_NODES)";
            return Err(Rejection::BadReservation(text.to_owned()));
        }
        NodesWish::Named(names) => {
            new.flags = new.flags.with(Flags::SPEC_NODES);
            named(state, names)?
        }
        NodesWish::All if whole_partition => {
            new.flags = new.flags.with(Flags::PART_NODES);
            members(state, new)?
        }
        NodesWish::All => {
            new.flags = new.flags.with(Flags::ALL_NODES);
            state.nodes.iter().filter(|n| n.configured).map(|n| n.id).collect()
        }
        NodesWish::Count(count) => {
            let found = candidates(state, new)?;
            let enough = found.len() >= *count as usize && *count > 0;
            enough
                .then(|| found[..*count as usize].to_vec())
                .ok_or_else(|| too_few(*count, "nodes", found.len() as u64))?
        }
        NodesWish::Cores(cores) => {
            let found = candidates(state, new)?;
            let mut sum = 0;
            let mut taken = Vec::new();
            for id in found {
                if sum >= u64::from(*cores) {
                    break;
                }
                sum += state.node(id).map_or(0, cores_of);
                taken.push(id);
            }
            if sum < u64::from(*cores) || *cores == 0 {
                return Err(too_few(*cores, "cores", sum));
            }
            taken
        }
    };
    new.nodes.sort_unstable();
    new.nodes.dedup();
    Ok(())
}

fn too_few(asked: u32, what: &str, found: u64) -> Rejection {
    if asked == 0 {
        return Rejection::BadNodeCount("it must be 1 or more".to_owned());
    }
    Rejection::NodesBusy(format!(
        "{asked} {what} are asked for and {found} can be kept at that time (others are out of \
         service, in other reservations, or have jobs that end later)"
    ))
}

fn cores_of(node: &Node) -> u64 {
    let threads = node.config.threads_per_core.max(1);
    u64::from(node.config.capacity.cpus / threads)
}

fn members(state: &State, new: &Reservation) -> Result<Vec<NodeId>, Rejection> {
    let row = match &new.partition {
        Some(name) => state.partition(name),
        None => state.partitions.iter().find(|row| row.partition.default),
    };
    Ok(row.ok_or(Rejection::NoDefaultPartition)?.members.clone())
}

/// Nodes that it could have, idle ones first, then those with the fewest CPUs in use.
fn candidates(state: &State, new: &Reservation) -> Result<Vec<NodeId>, Rejection> {
    let fits = |node: &&Node| {
        let features = |c: &muster_model::Constraint| c.admits(&|term| node.facts.has(term, &[]));
        (node.usable() || new.has(Flags::MAINT))
            && new.features.as_ref().is_none_or(features)
            && overlap(state, new, node.id).is_none()
            && busy(state, new, node.id).is_none()
    };
    let nodes = members(state, new)?;
    let mut found: Vec<&Node> = nodes.iter().filter_map(|id| state.node(*id)).collect();
    found.retain(fits);
    found.sort_by_key(|n| (n.jobs.len(), n.allocated().cpus, n.config.weight, n.id));
    Ok(found.iter().map(|node| node.id).collect())
}

/// Another reservation that keeps this node at the same time and does not share it.
fn overlap<'a>(state: &'a State, new: &Reservation, node: NodeId) -> Option<&'a Reservation> {
    let closed =
        |r: &&Reservation| r.closes_to(new) && new.closes_to(r) && r.holds(node) && r.meets(new);
    state.reservations.values().find(closed)
}

/// A job of others that runs on this node into the reservation.
fn busy<'a>(state: &'a State, new: &Reservation, node: NodeId) -> Option<&'a Job> {
    if new.has(Flags::IGNORE_JOBS) || new.has(Flags::MAINT) {
        return None;
    }
    let into = |job: &&Job| {
        let own = job.spec.reservation.as_deref() == Some(&*new.name);
        let end = job.phase.allocation().and_then(|held| held.end_at);
        !own && end.is_none_or(|end| end > new.start)
    };
    state.jobs_on(node).find(into)
}

/// No node is kept twice, and none is busy.
fn conflicts(state: &State, new: &Reservation) -> Result<(), Rejection> {
    let known = state.reservations.get(&new.name);
    for id in &new.nodes {
        let node = state.node(*id).map_or_else(String::new, |n| n.config.name.to_string());
        if let Some(other) = overlap(state, new, *id) {
            return Err(Rejection::ReservationOverlap { node, other: other.name.to_string() });
        }
        // What it had already it keeps, unless it begins earlier now.
        if known.is_some_and(|old| old.holds(*id) && old.start <= new.start) {
            continue;
        }
        if let Some(job) = busy(state, new, *id) {
            return Err(Rejection::NodesBusy(format!(
                "job {} on node {node:?} may run {} (IGNORE_JOBS would allow it)",
                job.id,
                until(job, new.start)
            )));
        }
    }
    Ok(())
}

fn until(job: &Job, start: Timestamp) -> String {
    match job.phase.allocation().and_then(|held| held.end_at) {
        None => "without end".to_owned(),
        Some(end) => format!("{} min into the reservation", (end.since(start) + 59_999) / 60_000),
    }
}

//! Reservations: wishes from the wire, and records for it.

use muster_core::command::{
    AccessChange, DurationChange, NodesChange, NodesWish, ReservationChange, ReservationWish,
};
use muster_core::state::State;
use muster_model::{
    Access, Constraint, Hostlist, Reservation, ReservationFlags as Flags, Timestamp,
};
use muster_proto::convert::{BadField, check};
use muster_proto::v1;

use super::change::licenses;

/// `scontrol create reservation`.
///
/// # Errors
/// The first field that makes no sense.
pub fn wish(wire: &v1::CreateReservationRequest) -> Result<ReservationWish, BadField> {
    check::text("reservation", &wire.name)?;
    check::text("comment", &wire.comment)?;
    let nodes = match &wire.nodes {
        Some(nodes) => nodes_wish(nodes)?,
        None => NodesWish::Nothing,
    };
    Ok(ReservationWish {
        name: optional(&wire.name),
        nodes,
        partition: optional(&wire.partition),
        start: Timestamp(wire.start),
        end: Timestamp(wire.end),
        users: access("users", &wire.users)?,
        accounts: access("accounts", &wire.accounts)?,
        flags: flags(&wire.flags)?,
        features: features(&wire.features)?,
        licenses: licenses(&wire.licenses)?,
        comment: wire.comment.as_str().into(),
    })
}

/// `scontrol update reservation`.
///
/// # Errors
/// The first field that makes no sense, or two that exclude each other.
pub fn change(wire: &v1::UpdateReservationRequest) -> Result<ReservationChange, BadField> {
    if let Some(comment) = &wire.comment {
        check::text("comment", comment)?;
    }
    let duration = match (wire.duration_seconds, wire.duration_step_seconds) {
        (Some(seconds), _) => Some(DurationChange::To(seconds)),
        (None, Some(step)) => Some(DurationChange::By(step)),
        (None, None) => None,
    };
    Ok(ReservationChange {
        start: wire.start.map(Timestamp),
        end: wire.end.map(Timestamp),
        duration,
        nodes: nodes_change(wire)?,
        users: wire.users.as_ref().map(|c| list_change("users", c)).transpose()?.flatten(),
        accounts: wire.accounts.as_ref().map(|c| list_change("accounts", c)).transpose()?.flatten(),
        flags: flags(&wire.flags)?,
        no_flags: flags(&wire.no_flags)?,
        partition: wire.partition.as_deref().map(Into::into),
        features: wire.features.as_deref().map(features).transpose()?,
        licenses: wire.licenses.as_deref().map(licenses).transpose()?,
        comment: wire.comment.as_deref().map(Into::into),
    })
}

/// Users whom a change names and who must exist.
#[must_use]
pub fn new_users(change: &ReservationChange) -> &[Box<str>] {
    match &change.users {
        Some(AccessChange::To(access)) => &access.names,
        Some(AccessChange::Add(names)) => names,
        Some(AccessChange::Remove(_)) | None => &[],
    }
}

fn optional(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn access(field: &'static str, text: &str) -> Result<Access, BadField> {
    Access::parse(text).map_err(|fault| BadField::new(field, fault))
}

fn flags(names: &[String]) -> Result<Flags, BadField> {
    let one = |name: &String| {
        Flags::named(name).ok_or_else(|| BadField::new("flags", format!("{name:?} is unknown")))
    };
    names.iter().try_fold(Flags::default(), |all, name| Ok(all.with(one(name)?)))
}

fn features(text: &str) -> Result<Option<Constraint>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    Constraint::parse(text).map(Some).map_err(|fault| BadField::new("constraint", fault))
}

fn hosts(list: &str) -> Result<Vec<Box<str>>, BadField> {
    let hosts = Hostlist::parse(list).map_err(|fault| BadField::new("node list", fault))?;
    Ok(hosts.0.into_iter().map(Into::into).collect())
}

fn nodes_wish(wire: &v1::NodesWish) -> Result<NodesWish, BadField> {
    use v1::nodes_wish::Kind;
    Ok(match &wire.kind {
        None => NodesWish::Nothing,
        Some(Kind::Named(list)) => NodesWish::Named(hosts(list)?),
        Some(Kind::All(_)) => NodesWish::All,
        Some(Kind::Count(count)) => NodesWish::Count(*count),
        Some(Kind::Cores(cores)) => NodesWish::Cores(*cores),
    })
}

fn nodes_change(wire: &v1::UpdateReservationRequest) -> Result<Option<NodesChange>, BadField> {
    let given =
        [wire.nodes.is_some(), !wire.nodes_added.is_empty(), !wire.nodes_removed.is_empty()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(BadField::new("node list", "nodes are set, added or removed: one at a time"));
    }
    if let Some(nodes) = &wire.nodes {
        return Ok(Some(NodesChange::To(nodes_wish(nodes)?)));
    }
    if given[1] {
        return Ok(Some(NodesChange::Add(hosts(&wire.nodes_added)?)));
    }
    if given[2] {
        return Ok(Some(NodesChange::Remove(hosts(&wire.nodes_removed)?)));
    }
    Ok(None)
}

fn list_change(
    field: &'static str,
    wire: &v1::ListChange,
) -> Result<Option<AccessChange>, BadField> {
    use v1::list_change::Kind;
    let names = |text: &str| -> Result<Vec<Box<str>>, BadField> { Ok(access(field, text)?.names) };
    Ok(match &wire.kind {
        None => None,
        Some(Kind::To(text)) => Some(AccessChange::To(access(field, text)?)),
        Some(Kind::Add(text)) => Some(AccessChange::Add(names(text)?)),
        Some(Kind::Remove(text)) => Some(AccessChange::Remove(names(text)?)),
    })
}

/// One reservation, as queries show it.
#[must_use]
pub fn shown(state: &State, of: &Reservation, now: Timestamp) -> v1::Reservation {
    let nodes = || of.nodes.iter().filter_map(|id| state.node(*id)).map(|node| &node.config);
    let names: Hostlist = nodes().map(|config| config.name.to_string()).collect();
    let (start, end) = of.window_at(now).unwrap_or((of.start, of.end));
    v1::Reservation {
        name: of.name.to_string(),
        nodes: names.sorted().to_string(),
        node_count: u32::try_from(of.nodes.len()).unwrap_or(u32::MAX),
        core_count: nodes().map(|c| c.capacity.cpus / c.threads_per_core.max(1)).sum(),
        cpu_count: nodes().map(|c| c.capacity.cpus).sum(),
        partition: of.partition.as_deref().unwrap_or_default().to_owned(),
        start: start.0,
        end: end.0,
        active: of.active(now),
        users: of.users.to_string(),
        accounts: of.accounts.to_string(),
        flags: of.flags.names().map(Into::into).collect(),
        features: of.features.as_ref().map_or_else(String::new, ToString::to_string),
        licenses: of
            .licenses
            .iter()
            .map(|(name, count)| v1::License { name: name.to_string(), count: *count })
            .collect(),
        comment: of.comment.to_string(),
        created_by: of.created_by.0,
    }
}

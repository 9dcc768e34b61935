//! Reservations: `create`, `update`, `delete` and `show`.

use muster_model::time::Clock;
use muster_model::{Access, Constraint, Hostlist, ReservationFlags, time};
use muster_proto::v1::{self, list_change, nodes_wish};
use tonic::Response;

use super::{Manner, PROGRAM, record};
use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::query::shown::or_null;
use crate::query::surroundings::Surroundings;
use crate::query::times;

/// How long "for ever" is: a year, as in Slurm; seconds.
const FOR_EVER: i64 = 365 * 86_400;

const KEYS: &[&str] = &[
    "accounts",
    "comment",
    "corecnt",
    "duration",
    "endtime",
    "features",
    "flags",
    "licenses",
    "nodecnt",
    "nodecount",
    "nodes",
    "partitionname",
    "reservationname",
    "starttime",
    "users",
];

/// Slurm's other keys, each with the reason why not.
const REFUSED: &[(&str, &str)] = &[
    ("allowedpartitions", "use Users= and Accounts="),
    ("burstbuffer", "there are no burst buffers"),
    ("groups", "name the users, or an account"),
    ("maxstartdelay", "jobs start when their reservation does"),
    ("nodeset", "use Nodes= or Features="),
    ("qos", "use Users= and Accounts="),
    ("skip", "delete the reservation or change its StartTime"),
    ("tres", "use NodeCnt=, CoreCnt= or Licenses="),
    ("trespernode", "whole nodes are kept"),
    ("watts", "power is not scheduled"),
];

/// One `KEY=VALUE`, `KEY+=VALUE` or `KEY-=VALUE`.
struct Pair<'a> {
    key: &'static str,
    sign: Option<char>,
    value: &'a str,
}

fn pairs(words: &[String]) -> Result<Vec<Pair<'_>>, String> {
    words.iter().map(|word| pair(word)).collect()
}

fn pair(word: &str) -> Result<Pair<'_>, String> {
    let bad = || format!("{PROGRAM}: error: {word} is no KEY=VALUE of a reservation");
    let (given, value) = word.split_once('=').ok_or_else(bad)?;
    let sign = given.chars().last().filter(|c| matches!(c, '+' | '-'));
    let name = given.trim_end_matches(['+', '-']).to_ascii_lowercase();
    if let Some((key, why)) = REFUSED.iter().find(|(key, _)| *key == name) {
        return Err(format!("{PROGRAM}: error: {key} is not supported: {why}"));
    }
    // `reservation`, `node`, `user`, ...: what is clear from its beginning will do.
    let starts = |key: &&&str| name.len() >= 3 && key.starts_with(name.as_str());
    let exact = KEYS.iter().find(|key| **key == name);
    let key = exact.or_else(|| match name.as_str() {
        "node" => KEYS.iter().find(|key| **key == "nodes"),
        "partition" => KEYS.iter().find(|key| **key == "partitionname"),
        _ => {
            let mut found = KEYS.iter().filter(starts);
            found.next().filter(|_| found.next().is_none())
        }
    });
    Ok(Pair { key: key.ok_or_else(bad)?, sign, value })
}

fn invalid(key: &str, value: &str) -> String {
    format!("{PROGRAM}: error: invalid {key} value: {value}")
}

fn unsigned(pair: &Pair<'_>) -> Result<(), String> {
    match pair.sign {
        None => Ok(()),
        Some(sign) => Err(format!("{PROGRAM}: error: {}{sign}= is not supported: use =", pair.key)),
    }
}

fn instant(key: &str, value: &str, here: &Surroundings) -> Result<i64, String> {
    times::parse(value, &here.zone, here.now).map_err(|_| invalid(key, value))
}

/// Seconds; `infinite` is a year.
fn duration(value: &str) -> Result<i64, String> {
    match time::parse_seconds(value) {
        Ok(seconds) => Ok(seconds.unwrap_or(FOR_EVER)),
        Err(_) => Err(invalid("Duration", value)),
    }
}

fn count(key: &str, value: &str) -> Result<u32, String> {
    value.parse().ok().filter(|n| *n > 0).ok_or_else(|| invalid(key, value))
}

fn hosts(value: &str) -> Result<String, String> {
    let list = Hostlist::parse(value);
    list.map(|_| value.to_owned()).map_err(|fault| format!("{PROGRAM}: error: {fault}"))
}

fn names(value: &str) -> Result<String, String> {
    Access::parse(value)
        .map(|_| value.to_owned())
        .map_err(|fault| format!("{PROGRAM}: error: {fault}"))
}

/// Flags put on, and flags taken off (`NO_MAINT`).
fn flags(value: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for word in value.split([',', '+']).filter(|word| !word.is_empty()) {
        let upper = word.to_ascii_uppercase();
        let (name, list) = match upper.strip_prefix("NO_") {
            Some(name) => (name, &mut off),
            None => (upper.as_str(), &mut on),
        };
        if ReservationFlags::named(name).is_none() {
            let known: Vec<&str> = ReservationFlags::ALL.iter().map(|(_, name)| *name).collect();
            return Err(format!(
                "{PROGRAM}: error: the flag {word} is not supported (there are {})",
                known.join(", ")
            ));
        }
        list.push(name.to_owned());
    }
    Ok((on, off))
}

fn features(value: &str) -> Result<String, String> {
    if !value.is_empty() {
        Constraint::parse(value).map_err(|fault| format!("{PROGRAM}: error: {fault}"))?;
    }
    Ok(value.to_owned())
}

fn wish(pair: &Pair<'_>) -> Result<v1::NodesWish, String> {
    use nodes_wish::Kind;
    let kind = match pair.key {
        "corecnt" => Kind::Cores(count(pair.key, pair.value)?),
        "nodecnt" | "nodecount" => Kind::Count(count(pair.key, pair.value)?),
        _ if pair.value.eq_ignore_ascii_case("ALL") => Kind::All(true),
        _ => Kind::Named(hosts(pair.value)?),
    };
    Ok(v1::NodesWish { kind: Some(kind) })
}

/// `create reservation KEY=VALUE ...`.
fn read_create(
    words: &[String],
    here: &Surroundings,
) -> Result<v1::CreateReservationRequest, String> {
    let mut out = v1::CreateReservationRequest::default();
    let (mut start, mut end, mut length) = (None, None, None);
    for pair in pairs(words)? {
        unsigned(&pair)?;
        let value = pair.value;
        match pair.key {
            "reservationname" => out.name = value.to_owned(),
            "starttime" => start = Some(instant("StartTime", value, here)?),
            "endtime" => end = Some(instant("EndTime", value, here)?),
            "duration" => length = Some(duration(value)?),
            "nodes" | "nodecnt" | "nodecount" | "corecnt" => {
                if out.nodes.replace(wish(&pair)?).is_some() {
                    return Err(only_one());
                }
            }
            "partitionname" => out.partition = value.to_owned(),
            "users" => out.users = names(value)?,
            "accounts" => out.accounts = names(value)?,
            "flags" => (out.flags, _) = flags(value)?,
            "features" => out.features = features(value)?,
            "licenses" => out.licenses = value.to_owned(),
            _ => out.comment = value.to_owned(),
        }
    }
    out.start = start.ok_or_else(|| nothing("it needs StartTime= (or StartTime=now)"))?;
    out.end = match (end, length) {
        (Some(_), Some(_)) => return Err(nothing("EndTime= and Duration= exclude each other")),
        (Some(end), None) => end,
        (None, length) => out.start.saturating_add(length.unwrap_or(FOR_EVER).saturating_mul(1000)),
    };
    if out.end <= out.start {
        return Err(nothing("it would end before it begins"));
    }
    if out.users.is_empty() && out.accounts.is_empty() {
        return Err(nothing("it needs Users= or Accounts="));
    }
    if out.nodes.is_none() && !out.flags.iter().any(|flag| flag == "ANY_NODES") {
        return Err(nothing("it needs Nodes=, NodeCnt= or CoreCnt="));
    }
    Ok(out)
}

fn nothing(why: &str) -> String {
    format!("{PROGRAM}: error: no reservation was created: {why}")
}

fn only_one() -> String {
    format!("{PROGRAM}: error: Nodes=, NodeCnt= and CoreCnt= exclude each other")
}

/// `update ReservationName=... KEY=VALUE ...`.
pub(super) fn read_update(
    words: &[String],
    here: &Surroundings,
) -> Result<v1::UpdateReservationRequest, String> {
    let mut out = v1::UpdateReservationRequest::default();
    for pair in pairs(words)? {
        let value = pair.value;
        match (pair.key, pair.sign) {
            ("nodes", Some('+')) => out.nodes_added = hosts(value)?,
            ("nodes", Some(_)) => out.nodes_removed = hosts(value)?,
            ("users", sign) => out.users = Some(list_change(sign, value)?),
            ("accounts", sign) => out.accounts = Some(list_change(sign, value)?),
            ("flags", Some('-')) => (out.no_flags, _) = flags(value)?,
            ("flags", _) => (out.flags, out.no_flags) = flags(value)?,
            ("duration", Some('-')) => out.duration_step_seconds = Some(-duration(value)?),
            ("duration", Some(_)) => out.duration_step_seconds = Some(duration(value)?),
            _ => plain_change(&mut out, &pair, here)?,
        }
    }
    Ok(out)
}

fn plain_change(
    out: &mut v1::UpdateReservationRequest,
    pair: &Pair<'_>,
    here: &Surroundings,
) -> Result<(), String> {
    unsigned(pair)?;
    let value = pair.value;
    match pair.key {
        "reservationname" => out.name = value.to_owned(),
        "starttime" => out.start = Some(instant("StartTime", value, here)?),
        "endtime" => out.end = Some(instant("EndTime", value, here)?),
        "duration" => out.duration_seconds = Some(duration(value)?),
        "nodes" | "nodecnt" | "nodecount" | "corecnt" => {
            if out.nodes.replace(wish(pair)?).is_some() {
                return Err(only_one());
            }
        }
        "partitionname" => out.partition = Some(value.to_owned()),
        "features" => out.features = Some(features(value)?),
        "licenses" => out.licenses = Some(value.to_owned()),
        _ => out.comment = Some(value.to_owned()),
    }
    Ok(())
}

fn list_change(sign: Option<char>, value: &str) -> Result<v1::ListChange, String> {
    use list_change::Kind;
    let value = names(value)?;
    let kind = match sign {
        None => Kind::To(value),
        Some('+') => Kind::Add(value),
        Some(_) => Kind::Remove(value),
    };
    Ok(v1::ListChange { kind: Some(kind) })
}

fn client(lead: &str) -> Result<Client, i32> {
    super::super::open(PROGRAM, lead)
}

/// `LEAD: TEXT`, as Slurm says of reservations.
fn refused(lead: &str, error: &CallError) -> i32 {
    if let Some(detail) = error.detail() {
        exit::say(PROGRAM, &detail);
    }
    eprintln!("{lead}: {}", error.slurm_text());
    exit::FAILED
}

/// The verb `create`.
pub(super) fn create(words: &[String], here: &Surroundings) -> i32 {
    // `create reservation KEY=...` and `create ReservationName=NAME KEY=...`.
    let rest = match words.split_first() {
        Some((first, rest)) if "reservation".starts_with(&first.to_ascii_lowercase()) => rest,
        Some((first, _)) if first.to_ascii_lowercase().starts_with("res") => words,
        _ => {
            let text = "only reservations are created here; partitions and nodes stand in the \
                        config file";
            exit::error(PROGRAM, text);
            return exit::FAILED;
        }
    };
    let request = match read_create(rest, here) {
        Ok(request) => request,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    let lead = "Error creating the reservation";
    let mut client = match client(lead) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let answer = client.call(async |mut api: Api| {
        api.admin.create_reservation(request.clone()).await.map(Response::into_inner)
    });
    match answer {
        Ok(reply) => {
            exit::print(&format!("Reservation created: {}\n", reply.name));
            exit::OK
        }
        Err(error) => refused(lead, &error),
    }
}

/// `update` of a reservation.
pub(super) fn update(client: &mut Client, request: &v1::UpdateReservationRequest) -> i32 {
    let answer = client
        .call(async |mut api: Api| api.admin.update_reservation(request.clone()).await.map(|_| ()));
    match answer {
        Ok(()) => {
            exit::print("Reservation updated.\n");
            exit::OK
        }
        Err(error) => refused("Error updating the reservation", &error),
    }
}

/// The name in `delete reservation NAME`, `delete ReservationName=NAME`.
fn read_delete(words: &[String]) -> Result<String, String> {
    let what = |word: &str| {
        let lower = word.to_ascii_lowercase();
        lower.len() >= 3 && "reservationname".starts_with(&lower)
    };
    let name = match words {
        [word] => word.split_once('=').filter(|(key, _)| what(key)).map(|(_, name)| name),
        [word, name] if what(word) => {
            Some(name.split_once('=').filter(|(key, _)| what(key)).map_or(&**name, |(_, n)| n))
        }
        _ => None,
    };
    name.filter(|name| !name.is_empty()).map(Into::into).ok_or_else(|| {
        format!(
            "{PROGRAM}: error: delete what? (delete ReservationName=NAME; partitions and \
                 nodes are removed in the config file)"
        )
    })
}

/// The verb `delete`.
pub(super) fn delete(words: &[String]) -> i32 {
    let name = match read_delete(words) {
        Ok(name) => name,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    let lead = format!("delete_reservation {name}");
    let mut client = match client(&lead) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let request = v1::DeleteReservationRequest { name };
    let answer = client
        .call(async |mut api: Api| api.admin.delete_reservation(request.clone()).await.map(|_| ()));
    match answer {
        Ok(()) => exit::OK,
        Err(error) => refused(&lead, &error),
    }
}

/// One reservation.
pub(super) fn show(of: &v1::Reservation, manner: Manner, here: &Surroundings) -> String {
    let seconds = (of.end - of.start) / 1000;
    let licenses: Vec<String> =
        of.licenses.iter().map(|l| format!("{}:{}", l.name, l.count)).collect();
    let mut lines = vec![
        format!(
            "ReservationName={} StartTime={} EndTime={} Duration={}",
            of.name,
            here.time(of.start, "N/A"),
            here.time(of.end, "N/A"),
            Clock(seconds)
        ),
        format!(
            "Nodes={} NodeCnt={} CoreCnt={} Features={} PartitionName={} Flags={}",
            or_null(&of.nodes),
            of.node_count,
            of.core_count,
            or_null(&of.features),
            or_null(&of.partition),
            of.flags.join(",")
        ),
        format!("TRES={}", tres(of)),
        "AllowedPartitions=(null) QOS=(null)".to_owned(),
        format!(
            "Users={} Groups=(null) Accounts={} Licenses={} State={} BurstBuffer=(null)",
            or_null(&of.users),
            or_null(&of.accounts),
            or_null(&licenses.join(",")),
            if of.active { "ACTIVE" } else { "INACTIVE" }
        ),
        "MaxStartDelay=(null)".to_owned(),
    ];
    if !of.comment.is_empty() {
        lines.push(format!("Comment={}", of.comment));
    }
    record(&lines, manner.oneliner)
}

fn tres(of: &v1::Reservation) -> String {
    if of.cpu_count == 0 { "(null)".to_owned() } else { format!("cpu={}", of.cpu_count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::times::Style;

    /// 2026-11-23T16:02:29 UTC.
    const NOW: i64 = 1_795_449_749_000;

    fn here() -> Surroundings {
        let zone = jiff::tz::TimeZone::UTC;
        Surroundings { now: NOW, zone, style: Style::Standard, ..Surroundings::here() }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(Into::into).collect()
    }

    #[track_caller]
    fn refuse(line: &str, text: &str) {
        let fault = read_create(&words(line), &here()).expect_err("refused");
        assert!(fault.contains(text), "{fault:?} does not say {text:?}");
    }

    #[test]
    fn a_maintenance_is_read() {
        let line = "ReservationName=maint1 StartTime=now Duration=2:00:00 user=root \
                    flags=maint,ignore_jobs nodes=n[1-2]";
        let got = read_create(&words(line), &here()).expect("it is whole");
        let named = v1::NodesWish { kind: Some(nodes_wish::Kind::Named("n[1-2]".into())) };
        let expected = v1::CreateReservationRequest {
            name: "maint1".into(),
            nodes: Some(named),
            start: NOW,
            end: NOW + 7_200_000,
            users: "root".into(),
            flags: vec!["MAINT".into(), "IGNORE_JOBS".into()],
            ..v1::CreateReservationRequest::default()
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        refuse("Users=a Nodes=n1 Duration=1", "StartTime=");
        refuse("StartTime=now Nodes=n1", "Users= or Accounts=");
        refuse("StartTime=now Users=a", "NodeCnt=");
        refuse("StartTime=now Users=a Nodes=n1 NodeCnt=2", "exclude each other");
        refuse("StartTime=now EndTime=now Users=a Nodes=n1", "end before it begins");
        refuse("StartTime=now Users=a,-b Nodes=n1", "either all names have a '-' or none");
        refuse("StartTime=now Users=a Nodes=n1 Flags=MAGNETIC", "MAGNETIC is not supported");
        refuse("StartTime=now Users=a Nodes=n[1-", "invalid hostlist");
        refuse("StartTime=someday Users=a Nodes=n1", "StartTime value: someday");
        refuse("StartTime=now Groups=a Nodes=n1", "groups is not supported");
        refuse("Foo=1", "Foo=1 is no KEY=VALUE");
    }

    #[test]
    fn changes_are_read_with_their_signs() {
        let line = "ReservationName=m Nodes+=n3 Users-=bob Flags=NO_DAILY,MAINT Duration+=30";
        let got = read_update(&words(line), &here()).expect("sound");
        let expected = v1::UpdateReservationRequest {
            name: "m".into(),
            nodes_added: "n3".into(),
            users: Some(v1::ListChange { kind: Some(list_change::Kind::Remove("bob".into())) }),
            flags: vec!["MAINT".into()],
            no_flags: vec!["DAILY".into()],
            duration_step_seconds: Some(1800),
            ..v1::UpdateReservationRequest::default()
        };
        assert_eq!(got, expected);
        for line in ["ReservationName=m", "reservation m", "reservation=m"] {
            assert_eq!(read_delete(&words(line)).as_deref(), Ok("m"), "{line}");
        }
        assert!(read_delete(&words("PartitionName=main")).is_err());
    }

    #[test]
    fn the_record_has_slurms_layout() {
        let of = v1::Reservation {
            name: "maint1".into(),
            nodes: "n[1-2]".into(),
            node_count: 2,
            core_count: 16,
            cpu_count: 16,
            start: NOW,
            end: NOW + 7_200_000,
            active: true,
            users: "root".into(),
            flags: vec!["MAINT".into(), "SPEC_NODES".into()],
            ..v1::Reservation::default()
        };
        let expected = "\
ReservationName=maint1 StartTime=2026-11-23T16:02:29 EndTime=2026-11-23T18:02:29 Duration=02:00:00
   Nodes=n[1-2] NodeCnt=2 CoreCnt=16 Features=(null) PartitionName=(null) Flags=MAINT,SPEC_NODES
   TRES=cpu=16
   AllowedPartitions=(null) QOS=(null)
   Users=root Groups=(null) Accounts=(null) Licenses=(null) State=ACTIVE BurstBuffer=(null)
   MaxStartDelay=(null)

";
        assert_eq!(show(&of, Manner::default(), &here()), expected);
    }
}

//! What a query command takes from the machine it runs on, gathered once.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use nix::unistd::{Gid, Group, Uid, User};

use super::times::{self, Style};

/// Clock, zone, caller, users and environment. Commands read nothing else.
pub(crate) struct Surroundings {
    /// Milliseconds since the Unix epoch.
    pub(crate) now: i64,
    pub(crate) zone: TimeZone,
    pub(crate) style: Style,
    /// The caller.
    pub(crate) uid: u32,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) uid_of: fn(&str) -> Option<u32>,
    pub(crate) name_of: fn(u32) -> Option<String>,
    pub(crate) gid_of: fn(&str) -> Option<u32>,
    pub(crate) group_of: fn(u32) -> Option<String>,
}

impl Surroundings {
    /// Of this process, now.
    pub(crate) fn here() -> Self {
        // A variable that is no UTF-8 is none of ours.
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let style = variables.get("SLURM_TIME_FORMAT").map(|text| Style::parse(text));
        Surroundings {
            now: jiff::Timestamp::now().as_millisecond(),
            zone: TimeZone::system(),
            style: style.unwrap_or_default(),
            uid: Uid::current().as_raw(),
            variables,
            uid_of: |name| User::from_name(name).ok().flatten().map(|u| u.uid.as_raw()),
            name_of: |uid| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name),
            gid_of: |name| Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw()),
            group_of: |gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|g| g.name),
        }
    }

    /// A variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// An instant in the user's style, or `unset`.
    pub(crate) fn time(&self, at_ms: i64, unset: &str) -> String {
        times::show(at_ms, unset, &self.style, &self.zone, self.now)
    }

    /// A group's name, or its number where it has none.
    pub(crate) fn group(&self, gid: u32) -> String {
        (self.group_of)(gid).unwrap_or_else(|| gid.to_string())
    }

    /// A uid from a user's name or number; a number needs no entry in the user database.
    pub(crate) fn user(&self, text: &str) -> Option<u32> {
        (self.uid_of)(text).or_else(|| text.parse().ok())
    }
}

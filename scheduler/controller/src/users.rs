//! Users and groups as this host's name service knows them, looked up once a minute at most per
//! user: with a directory service behind it a lookup may take long.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(60);
/// Users kept; beyond it the oldest answers go, so that no stream of uids fills the memory.
const KEPT: usize = 4096;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    /// The primary group in the directory; a caller's own may differ.
    pub gid: u32,
    /// The number in digits, for a user whom the directory does not know.
    pub name: Box<str>,
    pub home: Box<str>,
    pub shell: Box<str>,
    /// Names of all groups, the primary one first.
    pub groups: Vec<Box<str>>,
}

/// The cache. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Users {
    known: Arc<Mutex<HashMap<u32, Known>>>,
}

/// An answer and when it was given.
type Known = (Instant, Arc<Account>);

impl Users {
    /// The account of a uid. May block on the directory service.
    #[must_use]
    pub fn by_uid(&self, uid: u32) -> Arc<Account> {
        if let Some(account) = self.cached(uid) {
            return account;
        }
        let account = Arc::new(look_up(uid));
        let mut known = self.known.lock().expect("no lookup panics while it holds the lock");
        if known.len() >= KEPT {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(uid, (Instant::now(), account.clone()));
        }
        account
    }

    /// The account of a uid, off the async threads when it must be looked up.
    pub async fn find(&self, uid: u32) -> Arc<Account> {
        if let Some(account) = self.cached(uid) {
            return account;
        }
        let this = self.clone();
        let looked_up = tokio::task::spawn_blocking(move || this.by_uid(uid)).await;
        looked_up.expect("a lookup does not panic")
    }

    fn cached(&self, uid: u32) -> Option<Arc<Account>> {
        let known = self.known.lock().expect("no lookup panics while it holds the lock");
        let (at, account) = known.get(&uid)?;
        (at.elapsed() < FRESH).then(|| account.clone())
    }
}

/// The uid of a name, or of a number in digits.
#[must_use]
pub fn uid_of(text: &str) -> Option<u32> {
    match User::from_name(text) {
        Ok(Some(user)) => Some(user.uid.as_raw()),
        _ => text.parse().ok(),
    }
}

fn look_up(uid: u32) -> Account {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        let name = uid.to_string().into();
        return Account {
            uid,
            gid: uid,
            name,
            home: "/".into(),
            shell: "/bin/sh".into(),
            groups: vec![],
        };
    };
    let groups = CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_else(|| vec![user.gid]);
    Account {
        uid,
        gid: user.gid.as_raw(),
        name: user.name.into(),
        home: user.dir.to_string_lossy().into(),
        shell: user.shell.to_string_lossy().into(),
        groups: groups.into_iter().filter_map(group_name).collect(),
    }
}

fn group_name(gid: Gid) -> Option<Box<str>> {
    Group::from_gid(gid).ok().flatten().map(|group| group.name.into())
}

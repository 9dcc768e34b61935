//! Becoming the user, for good: no way back, and verified.

use muster_proto::v1::User;
use nix::unistd::{
    Gid, Uid, User as Account, geteuid, getgrouplist, getresgid, getresuid, setgroups, setresgid,
    setresuid,
};
use std::ffi::CString;

use crate::slice::Refusal;

/// Groups of a user, by a look at this node's accounts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Groups {
    user: User,
    gids: Vec<Gid>,
}

impl Groups {
    pub(crate) fn new(user: User, gids: impl IntoIterator<Item = u32>) -> Self {
        Self { user, gids: gids.into_iter().map(Gid::from_raw).collect() }
    }

    pub(crate) fn gids(&self) -> impl Iterator<Item = u32> {
        self.gids.iter().map(|gid| gid.as_raw())
    }

    pub(crate) fn are_of(&self, user: &User) -> bool {
        self.user == *user
    }

    pub(crate) fn look_up(user: &User) -> Result<Self, Refusal> {
        let name = account_name(user)?;
        let gids = getgrouplist(&name, Gid::from_raw(user.gid))
            .map_err(|e| failed("find the groups", user.uid, e))?;
        Ok(Self { user: user.clone(), gids })
    }
}

fn failed(what: &str, uid: u32, e: nix::Error) -> Refusal {
    Refusal::node(format!("cannot {what} of user {uid}: {}", e.desc()))
}

/// Turns this process into one of the user's, supplementary groups included: those in `known`, if
/// they are this user's. Answers with groups that had to be looked up. An agent that is not root
/// serves its own user alone.
pub(crate) fn become_user(user: &User, known: Option<&Groups>) -> Result<Option<Groups>, Refusal> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if !geteuid().is_root() {
        return match geteuid() == uid {
            true => Ok(None),
            false => Err(Refusal::node(format!(
                "this node's agent runs as uid {} and cannot run jobs of uid {uid}",
                geteuid()
            ))),
        };
    }
    let found = match known.filter(|known| known.are_of(user)) {
        Some(_) => None,
        None => Some(Groups::look_up(user)?),
    };
    let groups = found.as_ref().or(known).expect("found where not known");
    setgroups(&groups.gids).map_err(|e| failed("set the groups", user.uid, e))?;
    setresgid(gid, gid, gid).map_err(|e| failed("take the group", user.uid, e))?;
    setresuid(uid, uid, uid).map_err(|e| failed("take the identity", user.uid, e))?;
    verify(uid, gid)?;
    Ok(found)
}

/// Has the C library load its name services, which every shim would do anew after its fork
/// otherwise: a tenth of a launch.
pub(crate) fn load_name_service() {
    let root = Account::from_uid(Uid::from_raw(0)).ok().flatten();
    let name = root.and_then(|account| CString::new(account.name).ok());
    // The answers do not matter here.
    let _ = name.map(|name| getgrouplist(&name, Gid::from_raw(0)));
}

/// The account on this node: its name decides the supplementary groups.
fn account_name(user: &User) -> Result<CString, Refusal> {
    let uid = Uid::from_raw(user.uid);
    let account = Account::from_uid(uid)
        .map_err(|e| Refusal::node(format!("cannot look up uid {uid}: {}", e.desc())))?;
    let unknown =
        || Refusal::code(1, format!("uid {uid} ({}) is not known on this node", user.name));
    CString::new(account.ok_or_else(unknown)?.name).map_err(|_| unknown())
}

fn verify(uid: Uid, gid: Gid) -> Result<(), Refusal> {
    let uids = getresuid().map_err(|e| Refusal::node(e.desc().to_owned()))?;
    let gids = getresgid().map_err(|e| Refusal::node(e.desc().to_owned()))?;
    let taken = [uids.real, uids.effective, uids.saved].iter().all(|id| *id == uid)
        && [gids.real, gids.effective, gids.saved].iter().all(|id| *id == gid);
    // A way back to root would be a hole, whatever the ids say.
    let root = Uid::from_raw(0);
    let way_back = uid != root && setresuid(root, root, root).is_ok();
    match taken && !way_back {
        true => Ok(()),
        false => Err(Refusal::node(format!("the identity of uid {uid} was not taken for good"))),
    }
}

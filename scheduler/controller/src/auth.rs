//! Who calls, and what they may do.
//!
//! A uid is believed from two sources only: the kernel (SO_PEERCRED on the unix socket) and a
//! token signed with the cluster key (TCP). Never from a message.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use muster_config::Security;
use muster_core::config::{Actor, Role};
use muster_model::Uid;
use muster_proto::token::{ClusterKey, TokenError};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Extensions, Request, Status};

use crate::users::uid_of;

/// An authenticated caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub role: Role,
    /// Over the unix socket: the kernel vouches.
    pub local: bool,
}

impl Caller {
    /// As the core wants it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { uid: Uid(self.uid), role: self.role }
    }

    /// Whether the caller may see what belongs to `owner` alone (scripts, environments).
    #[must_use]
    pub fn may_read(&self, owner: Uid) -> bool {
        self.uid == owner.0 || self.role >= Role::Operator
    }
}

/// Why the key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("read the cluster key {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the cluster key {path} is readable by others (mode {mode:o}); chmod 600 it")]
    Open { path: String, mode: u32 },
    #[error("the cluster key {path}")]
    Bad {
        path: String,
        #[source]
        source: TokenError,
    },
}

/// Roles and keys of one controller. Clones share them; roles change with a reconfigure.
#[derive(Debug, Clone)]
pub struct Auth {
    key: Option<ClusterKey>,
    roles: Arc<RwLock<Roles>>,
    /// Whoever runs the controller rules it anyway.
    own_uid: u32,
}

#[derive(Debug, Default)]
struct Roles {
    admins: BTreeSet<u32>,
    operators: BTreeSet<u32>,
}

impl Auth {
    /// Reads the key and resolves the names of operators and admins.
    ///
    /// # Errors
    /// A key file that cannot be read, is too short, or is open to others.
    pub fn new(security: &Security) -> Result<Self, KeyError> {
        let key = security.cluster_key.as_deref().map(read_key).transpose()?;
        let own_uid = nix::unistd::geteuid().as_raw();
        let auth = Auth { key, roles: Arc::default(), own_uid };
        auth.set_roles(security);
        Ok(auth)
    }

    /// Takes the roles of a config that was read again.
    pub fn set_roles(&self, security: &Security) {
        let uids = |names: &[String]| -> BTreeSet<u32> {
            let mut uids = BTreeSet::new();
            for name in names {
                match uid_of(name) {
                    Some(uid) => _ = uids.insert(uid),
                    None => tracing::warn!(user = %name, "role for a user who does not exist"),
                }
            }
            uids
        };
        let roles = Roles { admins: uids(&security.admins), operators: uids(&security.operators) };
        *self.roles.write().expect("roles are only replaced whole") = roles;
    }

    /// The cluster key, if the cluster has one.
    #[must_use]
    pub fn key(&self) -> Option<&ClusterKey> {
        self.key.as_ref()
    }

    /// Who sends this request.
    ///
    /// # Errors
    /// UNAUTHENTICATED: no kernel and no token vouches for anybody.
    pub fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(peer) = peer(request.extensions()) {
            return Ok(self.with_role(peer.0, peer.1, true));
        }
        let key = self.key.as_ref().ok_or_else(|| Status::unauthenticated("no cluster key"))?;
        let claims = key
            .check_user(bearer(request)?)
            .map_err(|refusal| Status::unauthenticated(refusal.to_string()))?;
        Ok(self.with_role(claims.uid, claims.gid, false))
    }

    /// Whether this request comes from the agent of `node`.
    ///
    /// # Errors
    /// UNAUTHENTICATED: no valid agent token. PERMISSION_DENIED: it is for another node.
    pub fn agent<T>(&self, request: &Request<T>) -> Result<AgentCaller, Status> {
        let Some(key) = &self.key else {
            // A cluster without a key lives on one host: its agents run as the controller or root.
            return match peer(request.extensions()) {
                Some((uid, _)) if uid == self.own_uid || uid == 0 => Ok(AgentCaller { node: None }),
                _ => Err(Status::unauthenticated("agents need the cluster key")),
            };
        };
        let claims = key
            .check_agent(bearer(request)?)
            .map_err(|refusal| Status::unauthenticated(refusal.to_string()))?;
        Ok(AgentCaller { node: Some(claims.node) })
    }

    fn with_role(&self, uid: u32, gid: u32, local: bool) -> Caller {
        let roles = self.roles.read().expect("roles are only replaced whole");
        let role = if roles.admins.contains(&uid) || (local && uid == self.own_uid) {
            Role::Admin
        } else if roles.operators.contains(&uid) {
            Role::Operator
        } else {
            Role::User
        };
        Caller { uid, gid, role, local }
    }
}

/// An authenticated agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCaller {
    /// The node that the token names; `None`: trusted by its uid alone.
    node: Option<String>,
}

impl AgentCaller {
    /// Whether it may speak for this node.
    ///
    /// # Errors
    /// PERMISSION_DENIED, naming both nodes.
    pub fn speaks_for(&self, node: &str) -> Result<(), Status> {
        match &self.node {
            Some(signed) if signed != node => Err(Status::permission_denied(format!(
                "the token is for node {signed:?}, the agent says it is {node:?}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Seconds since the epoch.
#[must_use]
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// uid and gid of the other end, if it is a unix socket.
fn peer(extensions: &Extensions) -> Option<(u32, u32)> {
    let peer = extensions.get::<UdsConnectInfo>()?.peer_cred?;
    Some((peer.uid(), peer.gid()))
}

fn bearer<T>(request: &Request<T>) -> Result<&str, Status> {
    let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| Status::unauthenticated("this connection needs a token"))
}

fn read_key(path: &Path) -> Result<ClusterKey, KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display().to_string();
    let read = |source| KeyError::Read { path: shown.clone(), source };
    let mode = std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: shown, mode });
    }
    let bytes = std::fs::read(path).map_err(read)?;
    ClusterKey::new(&bytes).map_err(|source| KeyError::Bad { path: shown, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(key: Option<u8>) -> Auth {
        let key = key.map(|byte| ClusterKey::new(&[byte; 32]).unwrap());
        let roles = Roles { admins: BTreeSet::from([0]), operators: BTreeSet::from([7]) };
        Auth { key, roles: Arc::new(RwLock::new(roles)), own_uid: 4242 }
    }

    fn with_token(token: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    #[test]
    fn a_stranger_without_a_token_is_nobody() {
        let refused = auth(Some(1)).caller(&Request::new(())).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let refused = auth(None).agent(&Request::new(())).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let (token, _) = auth(Some(2)).key().unwrap().sign_user(1000, 100, now_seconds()).unwrap();
        let refused = auth(Some(1)).caller(&with_token(&token)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let token = auth(Some(2)).key().unwrap().sign_agent("n1", now_seconds()).unwrap();
        assert_eq!(
            auth(Some(1)).agent(&with_token(&token)).unwrap_err().code(),
            tonic::Code::Unauthenticated
        );
    }

    #[test]
    fn a_good_token_names_its_user_and_the_config_their_role() {
        let auth = auth(Some(1));
        let role = |uid| {
            let (token, _) = auth.key().unwrap().sign_user(uid, 100, now_seconds()).unwrap();
            auth.caller(&with_token(&token)).unwrap().role
        };
        assert_eq!((role(0), role(7), role(1000)), (Role::Admin, Role::Operator, Role::User));
        assert_eq!(role(4242), Role::User, "the controller's uid rules on its own host only");
    }

    #[test]
    fn an_agent_speaks_for_its_own_node_only() {
        let auth = auth(Some(1));
        let token = auth.key().unwrap().sign_agent("n1", now_seconds()).unwrap();
        let agent = auth.agent(&with_token(&token)).unwrap();
        assert!(agent.speaks_for("n1").is_ok());
        assert_eq!(agent.speaks_for("n2").unwrap_err().code(), tonic::Code::PermissionDenied);
        let (user, _) = auth.key().unwrap().sign_user(1000, 100, now_seconds()).unwrap();
        assert!(auth.agent(&with_token(&user)).is_err(), "a user's token is no agent's");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [1; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_key(&path), Err(KeyError::Open { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_key(&path).is_ok());
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(read_key(&path), Err(KeyError::Bad { .. })));
    }
}

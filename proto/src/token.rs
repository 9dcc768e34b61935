//! Tokens signed with the cluster key (JWT, HS256): who a TCP caller is, which node an agent
//! speaks for, and which launch a controller stands by.
//!
//! Knows no files and no peers: who reads the key and whose uid is put into a token is the
//! caller's business. The `sub` claim tells the three kinds apart, so that a user's token can
//! never pass for an agent's.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shim::v1::Launch;

/// A key shorter than this is refused, in bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// A user's or agent's token is good for this long, in seconds: clients fetch a fresh one per
/// call or session from a local socket, so a leaked one is soon worthless.
pub const TOKEN_SECONDS: u64 = 300;
/// A launch may reach its agent this late (a node that was away), in seconds.
pub const LAUNCH_SECONDS: u64 = 86_400;

/// Why a token or key was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the cluster key has {0} bytes; it needs at least {KEY_BYTES_MIN}")]
    ShortKey(usize),
    #[error("the token was refused: {0}")]
    Refused(#[source] jsonwebtoken::errors::Error),
    #[error("the token is for {found:?}, not for {wanted:?}")]
    WrongKind { wanted: &'static str, found: String },
    #[error("the launch credential names {field} {found}, the launch says {launch}")]
    WrongLaunch { field: &'static str, found: String, launch: String },
}

/// A user as a local daemon's socket saw them (SO_PEERCRED).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserClaims {
    pub sub: String,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub exp: u64,
}

/// An agent that holds the cluster key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentClaims {
    pub sub: String,
    pub node: String,
    /// Seconds since the epoch.
    pub exp: u64,
}

/// What the controller stands by: this launch, on this node, as this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchClaims {
    pub sub: String,
    pub job: u32,
    pub attempt: u32,
    pub node: String,
    pub uid: u32,
    /// SHA-256 of the encoded launch, in hex.
    pub digest: String,
    /// Seconds since the epoch.
    pub exp: u64,
}

/// The cluster key, ready to sign and to check.
#[derive(Clone)]
pub struct ClusterKey {
    sign: EncodingKey,
    check: DecodingKey,
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

impl ClusterKey {
    /// The key from the bytes of its file, as they are.
    ///
    /// # Errors
    /// When it is shorter than [`KEY_BYTES_MIN`].
    pub fn new(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(TokenError::ShortKey(bytes.len()));
        }
        Ok(ClusterKey {
            sign: EncodingKey::from_secret(bytes),
            check: DecodingKey::from_secret(bytes),
        })
    }

    /// A token for the user whom a local socket saw; `now` in seconds. Also its expiry, seconds.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_user(&self, uid: u32, gid: u32, now: u64) -> Result<(String, u64), TokenError> {
        let exp = now + TOKEN_SECONDS;
        let token = self.sign(&UserClaims { sub: "user".into(), uid, gid, exp })?;
        Ok((token, exp))
    }

    /// A token for the agent of `node`; `now` in seconds.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_agent(&self, node: &str, now: u64) -> Result<String, TokenError> {
        self.sign(&AgentClaims { sub: "agent".into(), node: node.into(), exp: now + TOKEN_SECONDS })
    }

    /// The credential of a launch; `now` in seconds.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_launch(&self, launch: &Launch, now: u64) -> Result<String, TokenError> {
        self.sign(&LaunchClaims {
            sub: "launch".into(),
            job: launch.job,
            attempt: launch.attempt,
            node: launch.node.clone(),
            uid: launch_uid(launch),
            digest: digest(launch),
            exp: now + LAUNCH_SECONDS,
        })
    }

    /// The user whom a token names.
    ///
    /// # Errors
    /// When it is not ours, expired, or not a user's.
    pub fn check_user(&self, token: &str) -> Result<UserClaims, TokenError> {
        let claims: UserClaims = self.check(token, "user")?;
        Ok(claims)
    }

    /// The agent that a token names.
    ///
    /// # Errors
    /// When it is not ours, expired, or not an agent's.
    pub fn check_agent(&self, token: &str) -> Result<AgentClaims, TokenError> {
        let claims: AgentClaims = self.check(token, "agent")?;
        Ok(claims)
    }

    /// Whether the controller stands by this very launch on `node`.
    ///
    /// # Errors
    /// When the credential is not ours, expired, or names another job, attempt, node, user or
    /// content.
    pub fn check_launch(
        &self,
        credential: &str,
        launch: &Launch,
        node: &str,
    ) -> Result<(), TokenError> {
        let claims: LaunchClaims = self.check(credential, "launch")?;
        let same = |field, found: String, launch: String| {
            if found == launch {
                Ok(())
            } else {
                Err(TokenError::WrongLaunch { field, found, launch })
            }
        };
        same("job", claims.job.to_string(), launch.job.to_string())?;
        same("attempt", claims.attempt.to_string(), launch.attempt.to_string())?;
        same("node", claims.node.clone(), launch.node.clone())?;
        same("node", claims.node, node.to_owned())?;
        same("uid", claims.uid.to_string(), launch_uid(launch).to_string())?;
        same("digest", claims.digest, digest(launch))
    }

    fn sign<C: Serialize>(&self, claims: &C) -> Result<String, TokenError> {
        encode(&Header::new(Algorithm::HS256), claims, &self.sign).map_err(TokenError::Refused)
    }

    fn check<C: DeserializeOwned>(&self, token: &str, kind: &'static str) -> Result<C, TokenError> {
        #[derive(Deserialize)]
        struct Kind {
            sub: String,
        }
        let rules = Validation::new(Algorithm::HS256);
        let found: Kind = decode(token, &self.check, &rules).map_err(TokenError::Refused)?.claims;
        if found.sub != kind {
            return Err(TokenError::WrongKind { wanted: kind, found: found.sub });
        }
        Ok(decode(token, &self.check, &rules).map_err(TokenError::Refused)?.claims)
    }
}

/// SHA-256 of the encoded launch, in hex. prost writes fields in one order, so that both ends of
/// one version see the same bytes.
#[must_use]
pub fn digest(launch: &Launch) -> String {
    use std::fmt::Write;
    let hash = Sha256::digest(launch.encode_to_vec());
    hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes every write");
        hex
    })
}

/// A launch without a user is nobody's: no uid that could be root's by default.
fn launch_uid(launch: &Launch) -> u32 {
    launch.user.as_ref().map_or(u32::MAX, |u| u.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::User;

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn key() -> ClusterKey {
        ClusterKey::new(&[7; 32]).unwrap()
    }

    fn launch() -> Launch {
        let user = User { uid: 1000, gid: 100, name: "ann".into() };
        Launch { job: 7, attempt: 2, user: Some(user), node: "n1".into(), ..Launch::default() }
    }

    #[test]
    fn a_launch_is_good_only_as_it_was_signed() {
        let credential = key().sign_launch(&launch(), now()).unwrap();
        let check = |change: fn(&mut Launch), node: &str| {
            let mut launch = launch();
            change(&mut launch);
            key().check_launch(&credential, &launch, node).map_err(|e| e.to_string())
        };
        assert!(check(|_| (), "n1").is_ok());
        let refused = |change: fn(&mut Launch), node: &str, field: &str| {
            let error = check(change, node).unwrap_err();
            assert!(error.contains(field), "{error} names {field}");
        };
        refused(|l| l.job = 8, "n1", "job");
        refused(|l| l.attempt = 3, "n1", "attempt");
        refused(|l| l.node = "n2".into(), "n1", "node");
        refused(|_| (), "n2", "node");
        refused(|l| l.user.as_mut().unwrap().uid = 0, "n1", "uid");
        refused(|l| l.user = None, "n1", "uid");
        refused(|l| l.script = "rm -rf /".into(), "n1", "digest");
    }

    #[test]
    fn one_kind_never_passes_for_another_and_a_strange_key_for_none() {
        let (user, _) = key().sign_user(1000, 100, now()).unwrap();
        assert_eq!(key().check_user(&user).unwrap().uid, 1000);
        assert!(matches!(key().check_agent(&user), Err(TokenError::WrongKind { .. })));
        let agent = key().sign_agent("n1", now()).unwrap();
        assert_eq!(key().check_agent(&agent).unwrap().node, "n1");
        assert!(matches!(key().check_user(&agent), Err(TokenError::WrongKind { .. })));
        let other = ClusterKey::new(&[8; 32]).unwrap();
        assert!(matches!(other.check_user(&user), Err(TokenError::Refused(_))));
        let (old, _) = key().sign_user(1000, 100, now() - 3600).unwrap();
        assert!(matches!(key().check_user(&old), Err(TokenError::Refused(_))));
        assert!(matches!(ClusterKey::new(b"short"), Err(TokenError::ShortKey(5))));
    }
}

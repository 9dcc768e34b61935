//! Who asks: on the host's own socket the kernel says so (SO_PEERCRED), on TCP a token signed with
//! the cluster key does. Never a message.

use muster_proto::token::ClusterKey;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// By what callers are known.
#[derive(Debug, Clone)]
pub struct Callers {
    /// `None`: a cluster of one host, where nobody comes over TCP.
    pub key: Option<ClusterKey>,
    /// Whether root of another host counts as root here. Root of this host always does.
    pub remote_root: bool,
}

impl Callers {
    /// The caller's uid.
    ///
    /// # Errors
    /// UNAUTHENTICATED: neither kernel nor token vouches for anybody. PERMISSION_DENIED: root of
    /// another host, where only this host's counts.
    pub(super) fn uid<T>(&self, request: &Request<T>) -> Result<u32, Status> {
        if let Some(info) = request.extensions().get::<UdsConnectInfo>() {
            let peer = info.peer_cred.map(|peer| peer.uid());
            return peer.ok_or_else(|| Status::unauthenticated("the kernel names no peer"));
        }
        let key = self.key.as_ref().ok_or_else(|| Status::unauthenticated("no cluster key"))?;
        let value = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let token = value
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("this connection needs a token"))?;
        let claims = key.check_user(token).map_err(|no| Status::unauthenticated(no.to_string()))?;
        match claims.uid == 0 && !self.remote_root {
            true => Err(Status::permission_denied("root is not among security.admins")),
            false => Ok(claims.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn callers(remote_root: bool) -> Callers {
        Callers { key: Some(ClusterKey::new(&[1; 32]).unwrap()), remote_root }
    }

    fn now() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs()
    }

    fn asked(token: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    #[test]
    fn a_token_of_the_clusters_key_names_its_user() {
        let callers = callers(false);
        let (token, _) = callers.key.as_ref().unwrap().sign_user(1000, 100, now()).unwrap();
        assert_eq!(callers.uid(&asked(&token)).unwrap(), 1000);
    }

    #[test]
    fn whoever_shows_no_token_or_a_wrong_one_is_nobody() {
        let callers = callers(false);
        let key = callers.key.as_ref().unwrap();
        let expired = key.sign_user(1000, 100, now() - 3600).unwrap().0;
        let of_agent = key.sign_agent("n1", now()).unwrap();
        let strange = ClusterKey::new(&[2; 32]).unwrap().sign_user(0, 0, now()).unwrap().0;
        for request in [
            Request::new(()),
            asked(""),
            asked("nonsense"),
            asked(&expired),
            asked(&of_agent),
            asked(&strange),
        ] {
            assert_eq!(callers.uid(&request).unwrap_err().code(), Code::Unauthenticated);
        }
        let keyless = Callers { key: None, remote_root: true };
        let good = key.sign_user(1000, 100, now()).unwrap().0;
        assert_eq!(keyless.uid(&asked(&good)).unwrap_err().code(), Code::Unauthenticated);
    }

    #[test]
    fn root_of_another_host_counts_where_the_config_says_so() {
        let token =
            |callers: &Callers| callers.key.as_ref().unwrap().sign_user(0, 0, now()).unwrap().0;
        let (wary, open) = (callers(false), callers(true));
        let refused = wary.uid(&asked(&token(&wary))).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(open.uid(&asked(&token(&open))).unwrap(), 0);
    }
}

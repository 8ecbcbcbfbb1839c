//! Who asks: the subject of the connection's certificate, the bearer of a token (a service
//! account's, or one to join with), or nobody in particular. A token that is wrong is refused, so
//! that nobody is taken for no one by mistake (kubernetes
//! `pkg/kubeapiserver/authenticator/config.go`, apiserver
//! `pkg/authentication/request/bearertoken/bearertoken.go`).

use super::account_token::{self, ISSUER};
use super::bootstrap_token;
use super::user::User;
use crate::http::Inner;
use crate::http::read::initializing;
use crate::http::status::Failure;
use hyper::header::{AUTHORIZATION, HeaderMap};

impl Inner {
    /// `certificate` is whose certificate the connection was made with.
    pub fn authenticate(
        &self,
        certificate: Option<&User>,
        headers: &HeaderMap,
    ) -> Result<User, Failure> {
        if let Some(user) = certificate {
            return Ok(user.clone().recognised());
        }
        match bearer(headers) {
            None => Ok(User::anonymous()),
            Some(token) => {
                let known = self.bearer_of(token, &[ISSUER.to_owned()])?;
                known.map(|(user, _)| user).map_err(|_| unauthorized())
            }
        }
    }

    /// Whose token it is, and for which of these audiences; or why it is nobody's.
    pub fn bearer_of(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<(User, Vec<String>), String>, Failure> {
        let state = self.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        let now = self.now();
        let mut known = None;
        if audiences.iter().any(|audience| audience == ISSUER) {
            let user = bootstrap_token::bearer_of(cache, token, now);
            known = user.map(|user| Ok((user, vec![ISSUER.to_owned()])));
        }
        if known.is_none()
            && let Some(issuer) = self.auth.issuer()
        {
            known = account_token::bearer_of(cache, &issuer.keys, token, audiences, now);
        }
        Ok(match known {
            Some(Ok((user, audiences))) => Ok((user.recognised(), audiences)),
            Some(Err(why)) => Err(format!("[{WRONG}, {why}]")),
            None => Err(WRONG.to_owned()),
        })
    }
}

const WRONG: &str = "invalid bearer token";

/// Somebody says who they are, and it is not so.
pub fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized", "Unauthorized")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let mut words = header.trim().splitn(3, ' ');
    let scheme = words.next()?;
    let token = words.next()?.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearers() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, text.parse().expect("a value"))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer a.b"), Some("a.b".to_owned()));
        assert_eq!(of("bearer a.b c"), Some("a.b".to_owned()));
        for none in ["Bearer", "Bearer ", "Basic YTpi", ""] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}

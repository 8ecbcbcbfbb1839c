//! Who asks: the subject of the connection's certificate, the bearer of a token, or nobody in
//! particular. A token that is wrong is refused, so that nobody is taken for no one by mistake
//! (kubernetes `pkg/kubeapiserver/authenticator/config.go`, apiserver
//! `pkg/authentication/request/bearertoken/bearertoken.go`).

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
            Some(token) => self.bearer_of(token)?.ok_or_else(unauthorized),
        }
    }

    /// Whose token it is.
    pub fn bearer_of(&self, token: &str) -> Result<Option<User>, Failure> {
        let state = self.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        Ok(bootstrap_token::bearer_of(cache, token, crate::http::now()).map(User::recognised))
    }
}

fn unauthorized() -> Failure {
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

//! Tokens of service accounts, as the API server's front makes them. Nobody in a simulation forges
//! one, so that they say whose they are and are not signed.

use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Kind};
use kubesim_actors::ports::api::{Error, Reason, Reply, TokenRequest};
use kubesim_runtime::Wall;
use std::time::Duration;

/// The least and the most that a token is good for, in seconds
/// (kubernetes `pkg/apis/authentication/validation/validation.go`).
const LEAST: i64 = 600;
const MOST: i64 = 1 << 32;

/// Refused as upstream does if the account or the pod is not there.
pub fn issue(cache: &Cache, asked: &TokenRequest, now: Wall) -> Result<Reply, Error> {
    let TokenRequest { account, pod, uid, audience, seconds } = asked;
    let Reply::Object(of) = cache.get(Kind::ServiceAccount, account)? else {
        return Err(Error::new(Reason::InternalError, "an account is an object"));
    };
    let Reply::Object(bound) =
        cache.get(Kind::Pod, &Key::new(account.namespace.clone(), &**pod))?
    else {
        return Err(Error::new(Reason::InternalError, "a pod is an object"));
    };
    if bound.uid != *uid {
        let message = format!("the pod {pod} is another one by now: {}", bound.uid);
        return Err(Error::new(Reason::Conflict, message));
    }
    let Ok(life) = u64::try_from((*seconds).clamp(LEAST, MOST)) else {
        return Err(Error::new(Reason::Invalid, "a token lasts for some time"));
    };
    let ends = now + Duration::from_secs(life);
    let text = format!("{account}:{}:{uid}:{audience}:{}", of.uid, ends.unix_secs());
    Ok(Reply::Token { text: text.into(), ends })
}

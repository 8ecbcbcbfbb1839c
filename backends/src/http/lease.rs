//! Writes of one of several that take turns: a client that leads by a lease says so in a header of
//! each request, `Kubesim-Lease: NAMESPACE/NAME IDENTITY`, and what it writes after another one
//! took the lease is refused (409). The header is ours; who does not send it is not asked.

use super::status::Failure;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use kubesim_actors::apiserver::Hold;
use kubesim_actors::objects::Key;
use std::sync::Arc;

pub const HEADER: &str = "kubesim-lease";

tokio::task_local! {
    /// Of the request that this task serves: it is of all that the request writes.
    static HOLD: Option<Arc<Hold>>;
}

/// Serves a request whose writes are by this lease.
pub async fn by<T>(hold: Option<Arc<Hold>>, serving: impl Future<Output = T>) -> T {
    HOLD.scope(hold, serving).await
}

/// By what the request that is served writes.
pub fn current() -> Option<Arc<Hold>> {
    HOLD.try_with(Clone::clone).ok().flatten()
}

pub fn header(hold: &Hold) -> Result<HeaderValue, String> {
    let Hold { lease, holder } = hold;
    let text = format!("{}/{} {holder}", lease.namespace, lease.name);
    HeaderValue::from_str(&text).map_err(|error| format!("using {text:?} as a header: {error}"))
}

pub fn read(headers: &HeaderMap) -> Result<Option<Arc<Hold>>, Failure> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let read = || {
        let (lease, holder) = value.to_str().ok()?.split_once(' ')?;
        let (namespace, name) = lease.split_once('/')?;
        Some(Hold { lease: Key::new(namespace, name), holder: holder.into() })
    };
    let wrong = || Failure::bad_request(format!("{HEADER}: it is NAMESPACE/NAME IDENTITY"));
    read().map(|hold| Some(Arc::new(hold))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let lease = Key::new("kube-system", "kube-scheduler");
        let hold = Hold { lease, holder: "a_1".into() };
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers).map(|hold| hold.is_none()), Ok(true));
        headers.insert(HEADER, header(&hold).expect("a header"));
        assert_eq!(read(&headers).expect("a lease").as_deref(), Some(&hold));
        headers.insert(HEADER, HeaderValue::from_static("kube-scheduler"));
        assert_eq!(read(&headers).expect_err("half of it").code, 400);
    }
}

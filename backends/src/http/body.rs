//! Bodies: what a client may send, and what it gets.

use super::pace::Held;
use super::pieces::Pieces;
use super::protobuf;
use super::status::Failure;
use crate::port::Local;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WARNING,
};
use hyper::{Response, StatusCode};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The largest body of a request, as upstream's `MaxRequestBodyBytes`.
pub const LARGEST: usize = 3 << 20;
/// An answer goes out in pieces of this many bytes, so that the rest of it is in no other buffer.
pub const PIECE: usize = 64 << 10;

/// What a client gets: all of it, or as it comes.
pub enum Body {
    Whole(Pieces),
    Stream(Stream),
}

/// What comes piece by piece. Its source works when its client can take more, on the connection's
/// own task: an event wakes one task for each who watch, and not two.
pub struct Stream {
    /// Until it has ended.
    source: Option<Local<()>>,
    pieces: mpsc::Receiver<Bytes>,
}

impl Stream {
    /// `source` sends pieces there.
    pub fn new(source: Local<()>, pieces: mpsc::Receiver<Bytes>) -> Stream {
        Stream { source: Some(source), pieces }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Poll::Ready(Some(piece));
        }
        if let Some(source) = &mut self.source
            && source.as_mut().poll(context).is_ready()
        {
            self.source = None;
        }
        self.pieces.poll_recv(context)
    }
}

impl HttpBody for Body {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        match &mut *self {
            Body::Whole(pieces) if pieces.is_empty() => Poll::Ready(None),
            Body::Whole(pieces) => Poll::Ready(Some(Ok(Frame::data(pieces.split(PIECE))))),
            Body::Stream(stream) => {
                stream.poll(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(pieces) => pieces.is_empty(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(pieces) => SizeHint::with_exact(pieces.len() as u64),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// All of a request's body, if it is not too large and comes within the time. What is held of it is
/// counted until `held` goes, and all clients together may have `limit` bytes.
pub async fn read<B>(
    body: B,
    within: Duration,
    held: &mut Held,
    limit: usize,
) -> Result<Bytes, Failure>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let message = format!("Request entity too large: limit is {LARGEST}");
        Failure::new(413, "RequestEntityTooLarge", message)
    };
    if body.size_hint().lower() > LARGEST as u64 {
        return Err(too_large());
    }
    let mut body = pin!(Limited::new(body, LARGEST));
    let mut whole = BytesMut::new();
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => too_large(),
                false => Failure::bad_request(format!("reading the request's body: {error}")),
            })?;
            let Ok(piece) = frame.into_data() else { continue };
            if !held.more(piece.len(), limit) {
                return Err(Failure::too_many("too many bytes of requests are being read"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(())
    };
    match timeout(within, all).await {
        Ok(read) => read.map(|()| whole.freeze()),
        Err(_) => {
            let seconds = within.as_secs();
            let message = format!("the request's body did not come within {seconds} s");
            Err(Failure::new(408, "Timeout", message))
        }
    }
}

/// The media type without its parameters; JSON if it is not said.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => "application/json".to_owned(),
        plain => plain.to_lowercase(),
    }
}

/// What a body in JSON, YAML or protobuf says.
pub fn value(bytes: &[u8], content_type: &str) -> Result<Value, Failure> {
    let (read, language) = match content_type {
        protobuf::MEDIA_TYPE => (protobuf::read(bytes), "protobuf"),
        "application/json" => (serde_json::from_slice(bytes).map_err(|e| e.to_string()), "JSON"),
        "application/yaml" => {
            (serde_saphyr::from_slice::<Value>(bytes).map_err(|e| e.to_string()), "YAML")
        }
        other => {
            return Err(Failure::media_type(format!(
                "the body of the request was in an unknown format - accepted media types \
                 include: application/json, application/yaml, {}; found: {other}",
                protobuf::MEDIA_TYPE
            )));
        }
    };
    let value = read.map_err(|why| {
        let message = format!("the object provided is unrecognized: no {language}: {why}");
        Failure::bad_request(message)
    })?;
    if !value.is_object() {
        let message = "the object provided is unrecognized: it must be an object of fields";
        return Err(Failure::bad_request(message));
    }
    Ok(value)
}

/// What a request came to.
pub struct Answer {
    pub code: StatusCode,
    pub content_type: &'static str,
    pub body: Body,
    /// For the person at the client.
    pub warnings: Vec<String>,
    /// In place of those that every answer has, or beside them.
    pub headers: HeaderMap,
}

pub const JSON: &str = "application/json";

impl Answer {
    pub fn json(value: &Value) -> Answer {
        Answer::bytes(JSON, value.to_string())
    }

    pub fn bytes(content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
        Answer::of(content_type, Body::Whole(bytes.into().into()))
    }

    pub fn stream(stream: Stream) -> Answer {
        Answer::of(JSON, Body::Stream(stream))
    }

    pub fn pieces(pieces: Pieces) -> Answer {
        Answer::of(JSON, Body::Whole(pieces))
    }

    /// Of text that comes piece by piece.
    pub fn text(stream: Stream) -> Answer {
        Answer::of("text/plain", Body::Stream(stream))
    }

    fn of(content_type: &'static str, body: Body) -> Answer {
        let (warnings, headers) = (Vec::new(), HeaderMap::new());
        Answer { code: StatusCode::OK, content_type, body, warnings, headers }
    }

    /// With a header; a value that none can have is left out.
    pub fn with(mut self, name: HeaderName, value: &str) -> Answer {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn created(self) -> Answer {
        Answer { code: StatusCode::CREATED, ..self }
    }

    pub fn response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        headers.extend(self.headers);
        for warning in self.warnings {
            // RFC 7234, section 5.5: a code, an agent and a quoted text.
            let text = format!("299 - {warning:?}");
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.append(WARNING, value);
            }
        }
        response
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Answer {
        let code = StatusCode::from_u16(failure.code);
        Answer {
            code: code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ..Answer::json(&failure.status())
        }
    }
}

/// A refusal, with the header that tells clients when to try again.
pub fn refused(failure: Failure) -> Response<Body> {
    let retry_after = failure.retry_after;
    let mut response = Answer::from(failure).response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// On a stack as large as the program's first thread has: unoptimised, YAML's reader takes
    /// 30 KB for each of the 64 levels that it allows.
    #[test]
    fn a_body_that_is_nested_for_ever_is_refused() {
        let ask = || {
            for open in ["{\"a\":", "[", "{a: ", "- ", "? "] {
                for kind in [JSON, "application/yaml"] {
                    let refused = value(open.repeat(20_000).as_bytes(), kind).expect_err(open);
                    assert_eq!(refused.code, 400, "{open} as {kind}");
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(ask).expect("a thread");
        thread.join().expect("refused");
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let expected = json!({"a": [1, "b"], "c": {"d": null}});
        let yaml = b"a:\n- 1\n- b\nc:\n  d: null\n";
        assert_eq!(value(yaml, "application/yaml"), Ok(expected.clone()));
        assert_eq!(value(expected.to_string().as_bytes(), JSON), Ok(expected));
        let code = |bytes: &[u8], kind| value(bytes, kind).expect_err("refused").code;
        assert_eq!(code(b"{", JSON), 400);
        assert_eq!(code(b"[]", JSON), 400);
        assert_eq!(code(b"a: [", "application/yaml"), 400);
        assert_eq!(code(b"k8s\0", protobuf::MEDIA_TYPE), 400);
        assert_eq!(code(b"{}", "text/plain"), 415);
    }
}

//! Large answers in gzip, for clients that take it (apiserver
//! `pkg/endpoints/handlers/responsewriters/writers.go`).

use super::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Response;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use std::io::Write;

/// Shorter ones cost less as they are. Upstream's, as is the level.
const SHORTEST: usize = 128 << 10;
const LEVEL: Compression = Compression::new(1);

/// Whether a client takes gzip.
pub fn accepted(headers: &HeaderMap) -> bool {
    let text = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let mut codings = text.unwrap_or_default().split(',');
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

/// The same answer, smaller if it is large.
pub fn compressed(mut response: Response<Body>) -> Response<Body> {
    let Body::Whole(text) = response.body() else { return response };
    if text.len() < SHORTEST {
        return response;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), LEVEL);
    let written = text.clone().parts().try_for_each(|part| encoder.write_all(&part));
    let Ok(small) = written.and_then(|()| encoder.finish()) else { return response };
    *response.body_mut() = Body::Whole(Bytes::from(small).into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::Answer;
    use bytes::Buf;
    use flate2::read::GzDecoder;
    use std::io::Read;

    fn unpacked(response: Response<Body>) -> String {
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let Body::Whole(mut text) = response.into_body() else { panic!("it is whole") };
        let bytes = text.copy_to_bytes(text.len());
        let mut read = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut read).expect("gzip");
        read
    }

    #[test]
    fn only_what_is_large_is_compressed() {
        let text = "an answer ".repeat(20_000);
        let large = Answer::bytes("text/plain", text.clone()).response();
        assert_eq!(unpacked(compressed(large)), text);
        let parts = vec![Bytes::from_static(b"an answer "); 20_000];
        assert_eq!(unpacked(compressed(Answer::pieces(parts.into()).response())), text);
        let small = compressed(Answer::bytes("text/plain", "small").response());
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
    }

    #[test]
    fn who_does_not_take_it_does_not_get_it() {
        let takes = |text: &str| {
            let value = HeaderValue::from_str(text).expect("a value");
            accepted(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]))
        };
        assert!(takes("gzip") && takes("deflate, gzip;q=0.5"));
        assert!(!takes("") && !takes("deflate") && !takes("gzip;q=0") && !takes("xgzip"));
        assert!(!accepted(&HeaderMap::new()));
    }
}

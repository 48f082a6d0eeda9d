//! One GET and its whole answer, within bounds.

use super::{Address, Error, HttpCheck, wire};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

/// The most of a body that is read, in bytes. The largest page known (OpenClaw 2026.9.6) has 18 KB.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The most that status line and headers may take, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Does the content type, parameters aside, equal `expected`?
    pub(super) fn has_content_type(&self, expected: &str) -> bool {
        let found = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        found.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
    }
}

/// Sends one GET on a connection of its own and reads the answer to its end; `heard` is told the status as soon as there is
/// one. The caller bounds the time.
pub(super) async fn get(
    address: &Address,
    check: &HttpCheck,
    heard: impl FnOnce(StatusCode),
) -> Result<Answer, Error> {
    let stream = wire::connect(address).await?;
    let http_error = |source| Error::Http { source };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(http_error)?;
    // Ends with this function, also when the caller's limit ends it.
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request(address, check)).await.map_err(http_error)?;
    let (head, body) = response.into_parts();
    heard(head.status);
    if head.status.is_redirection() {
        let location = head.headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let location = location.unwrap_or_default().chars().take(200).collect();
        return Err(Error::Redirected { status: head.status.as_u16(), location });
    }
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|source| Error::Body { limit_bytes: BODY_BYTES_MAX, source })?
        .to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn request(address: &Address, check: &HttpCheck) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = check.path.clone().into();
    let headers = request.headers_mut();
    *headers = check.headers.clone();
    let host =
        || HeaderValue::from_str(&address.host()).expect("addresses and authorities are header values");
    headers.entry(HOST).or_insert_with(host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

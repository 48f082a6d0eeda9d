//! One POST of one message, on a connection of its own. No proxy of any environment, no redirect: what answers elsewhere
//! was not configured.

use super::endpoint::Scheme;
use super::{Endpoint, Error, Message, Secret, said, tls};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Names of the Standard Webhooks specification.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// So much of an answer's body is read (bytes).
const BODY_MAX: usize = 16 << 10;

/// Posts a message. The caller bounds the time. Answers with the status that it was taken with.
pub(super) async fn post(
    endpoint: &Endpoint,
    secret: Option<&Secret>,
    message: &Message,
) -> Result<String, Error> {
    let stream = TcpStream::connect((endpoint.host(), endpoint.port()))
        .await
        .map_err(|source| Error::Connect { host: endpoint.host().to_owned(), source })?;
    let request = request(endpoint, secret, message);
    match endpoint.scheme() {
        Scheme::Plain => exchange(stream, request).await,
        Scheme::Tls => exchange(tls::greet(endpoint, stream).await?, request).await,
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<String, Error> {
    let failed = |source| Error::Http { source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, also when the caller's limit ends it.
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status.is_success() {
        return Ok(status.as_u16().to_string());
    }
    // What is said with a refusal helps; without it the status has to do.
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    let said = body.map(|body| said(&body.to_bytes())).unwrap_or_default();
    Err(Error::Status { status: status.as_u16(), said })
}

fn request(endpoint: &Endpoint, secret: Option<&Secret>, message: &Message) -> Request<Full<Bytes>> {
    let value = |text: &str| HeaderValue::from_str(text).expect("ids, numbers and hosts are header values");
    let mut request = Request::post(endpoint.path())
        .body(Full::new(Bytes::from(message.body.clone())))
        .expect("a checked address has a path");
    let headers = request.headers_mut();
    headers.insert(HOST, value(endpoint.authority()));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cutover/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ID, value(&message.id));
    headers.insert(TIMESTAMP, value(&message.sent.to_string()));
    if let Some(secret) = secret {
        headers.insert(SIGNATURE, value(&secret.signature(message)));
    }
    request
}

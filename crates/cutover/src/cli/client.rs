//! The daemon, asked over its Unix socket.

use super::exit::{self, Failed};
use crate::api::Failure;
use crate::conductor::View;
use crate::config::Layout;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a daemon may take to answer: it takes connections before it has begun its services.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a daemon that is only beginning is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Nobody answers on the daemon's socket.
#[derive(Debug, thiserror::Error)]
#[error("no daemon answers at {path}; start it with `{start}`")]
pub(crate) struct NoDaemon {
    /// The socket.
    pub path: PathBuf,
    /// What a person types to start it there.
    pub start: String,
}

impl NoDaemon {
    /// None of these places.
    pub(crate) fn at(layout: &Layout) -> Self {
        Self { path: layout.control(), start: layout.command("serve") }
    }
}

/// The daemon.
#[derive(Clone, Debug)]
pub struct Client {
    layout: Layout,
}

impl Client {
    /// The daemon of these places. Nothing is connected yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone() }
    }

    /// Waits until a daemon takes connections, `limit` at most: one that was started just now needs a moment. Whether there is
    /// one is told by what is asked next.
    pub(super) async fn awaited(&self, limit: Duration) {
        let connected = async {
            while UnixStream::connect(self.layout.control()).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = timeout(limit, connected).await;
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`NoDaemon`], the daemon's own failure, or a broken conversation.
    pub async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let request = request(Method::POST, &format!("/api/rpc/{method}"), params.to_string())?;
        let asked = async {
            let response = self.send(request).await?;
            let good = response.status().is_success();
            anyhow::Ok((good, answer(response).await?))
        };
        // A plan fetches what it would install; everything else is answered at once.
        let (good, value) = match method {
            "update.plan" => asked.await?,
            _ => timeout(ANSWER, asked).await.map_err(|_| NoDaemon::at(&self.layout))??,
        };
        if good { Ok(value) } else { Err(failed(&value).into()) }
    }

    /// What can be seen of one service.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) async fn view(&self, params: Value) -> anyhow::Result<View> {
        let mut answer = self.call("status", params).await?;
        let only = match answer["services"].as_array() {
            Some(services) if services.len() == 1 => answer["services"][0].take(),
            Some(services) => {
                let names = services.iter().filter_map(|view| view["service"].as_str());
                return Err(exit::one_of(names).into());
            }
            None => answer,
        };
        serde_json::from_value(only).context("the daemon's view of a service is not understood")
    }

    /// Every change of a service's view, the present one first. Ends with the daemon.
    ///
    /// # Errors
    /// [`NoDaemon`], or the daemon's own failure: it has no such service, or could not begin it.
    pub async fn views(&self, service: Option<&str>) -> anyhow::Result<mpsc::Receiver<anyhow::Result<View>>> {
        let path = match service {
            Some(name) => format!("/api/events?service={name}"),
            None => "/api/events".to_owned(),
        };
        let response = timeout(ANSWER, self.send(request(Method::GET, &path, String::new())?))
            .await
            .map_err(|_| NoDaemon::at(&self.layout))??;
        if !response.status().is_success() {
            return Err(failed(&answer(response).await?).into());
        }
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let (mut body, mut text) = (response.into_body(), Vec::new());
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                text.extend_from_slice(&data);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    if let Some(view) = parsed(&event)
                        && sender.send(view).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<hyper::body::Incoming>> {
        let stream =
            UnixStream::connect(self.layout.control()).await.map_err(|_| NoDaemon::at(&self.layout))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("greeting the daemon")?;
        tokio::spawn(connection);
        sender.send_request(request).await.context("the daemon went away in the middle of the answer")
    }
}

async fn answer(response: Response<hyper::body::Incoming>) -> anyhow::Result<Value> {
    let body = response.into_body().collect().await.context("reading the daemon's answer")?.to_bytes();
    serde_json::from_slice(&body).context("the daemon's answer is not JSON")
}

fn failed(answer: &Value) -> Failed {
    let word = |name: &str| answer["error"][name].as_str().unwrap_or("unknown").to_owned();
    let refusal = serde_json::from_value(answer["error"]["refusal"].clone()).ok().flatten();
    Failed(Failure { code: word("code"), message: word("message"), refusal })
}

fn request(method: Method, path: &str, body: String) -> anyhow::Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(body.into()))
        .with_context(|| format!("`{path}` is not a request"))
}

/// The view in an event; `None` in one that only keeps the connection alive.
fn parsed(event: &[u8]) -> Option<anyhow::Result<View>> {
    let text = String::from_utf8_lossy(event);
    let data: String = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let view = serde_json::from_str(&data)
        .context("what the daemon tells is not understood: is it of the same version as this command?");
    (!data.is_empty()).then_some(view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_daemon_that_is_only_beginning_is_waited_for() {
        let home = tempfile::tempdir().expect("a directory");
        let client = Client::new(&Layout::at(home.path().to_owned(), home.path().to_owned()));
        client.awaited(Duration::ZERO).await;
        let waiting = client.awaited(Duration::from_secs(600));
        tokio::pin!(waiting);
        assert!(timeout(LOOK, &mut waiting).await.is_err(), "nobody is there yet");
        let _listener = UnixListener::bind(client.layout.control()).expect("bound");
        waiting.await;
    }
}

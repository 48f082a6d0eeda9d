//! The files of the Control UI, found the way a browser finds them, and whether a gateway still has them.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Endings of the files that a page refers to.
const ENDINGS: [&str; 9] =
    [".js", ".css", ".svg", ".png", ".ico", ".webmanifest", ".woff2", ".json", ".wasm"];

/// One whole answer to a GET.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// The content type, empty if there is none.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
}

/// Asks for one path over a connection of its own, with a bearer token if one is given.
///
/// # Errors
/// If the connection is refused or cut, the body is truncated, or all of it takes longer than `limit`.
pub async fn fetch(
    gateway: SocketAddr,
    path: &str,
    bearer: Option<&str>,
    limit: Duration,
) -> anyhow::Result<Reply> {
    let asked = async {
        let stream = TcpStream::connect(gateway).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let mut request = http::Request::get(path).header("host", gateway.to_string());
        if let Some(token) = bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = kind.unwrap_or_default().to_owned();
        let body = response.into_body().collect().await?.to_bytes();
        driving.abort();
        anyhow::Ok(Reply { status, content_type, body })
    };
    timeout(limit, asked)
        .await
        .with_context(|| format!("{gateway}{path} took longer than {limit:?}"))?
        .with_context(|| format!("GET {gateway}{path}"))
}

/// What a browser has loaded, or may still load lazily, of one version of the Control UI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Absolute paths, `/` among them.
    pub files: BTreeSet<String>,
}

impl Page {
    /// Reads the page of a healthy gateway: the index, and from there every reference to a file that exists. `limit`
    /// bounds each request.
    ///
    /// # Errors
    /// If the index is not a page, or a request fails.
    pub async fn read(gateway: SocketAddr, limit: Duration) -> anyhow::Result<Page> {
        let index = fetch(gateway, "/", None, limit).await?;
        ensure!(index.status == 200 && is_page(&index), "/ answers {} {}", index.status, index.content_type);
        let mut files = BTreeSet::from(["/".to_owned()]);
        let mut seen = files.clone();
        let mut unread = references("/", &index.body);
        while let Some(path) = unread.pop_first() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let reply = fetch(gateway, &path, None, limit).await?;
            // Unknown paths are answered with the index, and not every quoted word is a reference.
            if reply.status != 200 || is_page(&reply) {
                continue;
            }
            if [".js", ".css", ".webmanifest"].iter().any(|ending| path.ends_with(ending)) {
                unread.extend(references(&path, &reply.body));
            }
            files.insert(path);
        }
        Ok(Page { files })
    }

    /// Asks a gateway for every file, and tells those that it does not have (any more), with what was answered instead.
    pub async fn missing(&self, gateway: SocketAddr, limit: Duration) -> BTreeMap<String, String> {
        let mut missing = BTreeMap::new();
        for path in &self.files {
            let instead = match fetch(gateway, path, None, limit).await {
                Ok(reply) if reply.status != 200 => reply.status.to_string(),
                Ok(reply) if is_page(&reply) != (path == "/") => reply.content_type,
                Ok(_) => continue,
                Err(trouble) => format!("{trouble:#}"),
            };
            missing.insert(path.clone(), instead);
        }
        missing
    }
}

fn is_page(reply: &Reply) -> bool {
    reply.content_type.starts_with("text/html")
}

/// Every quoted word in a text that looks like the relative or absolute path of a file, resolved against the text's own
/// path.
fn references(own: &str, text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let is_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    text.split(|c: char| !is_path(c))
        .filter(|word| ENDINGS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending)))
        .flat_map(|word| [resolved(own, word), resolved("/", word)])
        .flatten()
        .collect()
}

/// A reference as seen from the file `own`; none if it leads above the root or to another host.
fn resolved(own: &str, reference: &str) -> Option<String> {
    if reference.starts_with("//") {
        return None;
    }
    let base =
        if reference.starts_with('/') { "" } else { own.rsplit_once('/').map_or("", |(base, _)| base) };
    let mut parts = Vec::new();
    for part in base.split('/').chain(reference.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, response::Html, routing::get};

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_reference_is_resolved_against_the_file_that_holds_it() {
        assert_eq!(resolved("/assets/a.js", "./b.js").as_deref(), Some("/assets/b.js"));
        assert_eq!(resolved("/assets/a.js", "../c.css").as_deref(), Some("/c.css"));
        assert_eq!(resolved("/assets/a.js", "/d.svg").as_deref(), Some("/d.svg"));
        assert_eq!(resolved("/a.js", "../../e.js"), None);
        assert_eq!(resolved("/a.js", "//elsewhere.example/e.js"), None);
    }

    async fn serving(router: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    fn version(index: &'static str) -> Router {
        Router::new().fallback(move || async move { Html(index) })
    }

    #[tokio::test]
    async fn lazily_loaded_files_are_found_and_their_loss_is_seen() {
        let script =
            ([("content-type", "text/javascript")], "const lazy=()=>import(\"./lazy-1.js\"); x(\"no.js\")");
        let lazy = ([("content-type", "text/javascript")], "");
        let old = version("<script src=\"./assets/main-1.js\"></script>")
            .route("/assets/main-1.js", get(move || async move { script }))
            .route("/assets/lazy-1.js", get(move || async move { lazy }));
        let old = serving(old).await;
        let new = serving(version("<script src=\"./assets/main-2.js\"></script>")).await;

        let page = Page::read(old, LIMIT).await.unwrap();
        let files: Vec<_> = page.files.iter().map(String::as_str).collect();
        assert_eq!(files, ["/", "/assets/lazy-1.js", "/assets/main-1.js"]);
        assert!(page.missing(old, LIMIT).await.is_empty());
        let missing = page.missing(new, LIMIT).await;
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["/assets/lazy-1.js", "/assets/main-1.js"]);
    }
}

//! The registry's HTTP face: packuments, tarballs, redirects, and the troubles on the way.

use super::{Shared, Shelf, Trouble};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

enum Wanted {
    Packument,
    Tarball { version: String },
}

enum Answer {
    Now(Response),
    Never,
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let answer = decide(&shared, &uri);
    shared.changed.notify_waiters();
    match answer {
        Answer::Now(response) => response,
        Answer::Never => std::future::pending().await,
    }
}

fn decide(shared: &Shared, uri: &Uri) -> Answer {
    let path = uri.path().replace("%2f", "/").replace("%2F", "/").replace("%40", "@");
    let mut world = shared.world();
    world.requests.push(path.clone());
    let upstream = world.upstream.clone();
    let (name, wanted) = parse(&path);
    let Some(shelf) = world.shelves.get_mut(&name) else {
        return Answer::Now(match (upstream, uri.path_and_query()) {
            (Some(upstream), Some(rest)) => {
                let place = format!("{upstream}{rest}");
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response()
            }
            _ => not_found(),
        });
    };
    if let Some(status) = shelf.failing() {
        return Answer::Now((status, "troubled").into_response());
    }
    match wanted {
        Wanted::Packument if shelf.troubles.contains(&Trouble::StalledPackument) => Answer::Never,
        Wanted::Packument if shelf.versions.is_empty() => Answer::Now(not_found()),
        Wanted::Packument => {
            let packument = shelf.packument(&name, &shared.origin);
            shelf.move_tags();
            Answer::Now(axum::Json(packument).into_response())
        }
        Wanted::Tarball { .. } if shelf.troubles.contains(&Trouble::StalledTarball) => Answer::Never,
        Wanted::Tarball { version } => Answer::Now(shelf.tarball(&version)),
    }
}

/// `/name`, `/@scope/name`, or either followed by `/-/base-VERSION.tgz`.
fn parse(path: &str) -> (String, Wanted) {
    let path = path.trim_start_matches('/');
    let Some((name, file)) = path.split_once("/-/") else {
        return (path.to_owned(), Wanted::Packument);
    };
    let base = name.rsplit('/').next().unwrap_or(name);
    let version = file.strip_prefix(base).and_then(|rest| rest.strip_prefix('-')).unwrap_or(file);
    let version = version.strip_suffix(".tgz").unwrap_or(version).to_owned();
    (name.to_owned(), Wanted::Tarball { version })
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, axum::Json(json!({"error": "Not found"}))).into_response()
}

impl Shelf {
    /// The status that a trouble answers instead of the truth; counts the counted ones down.
    fn failing(&mut self) -> Option<StatusCode> {
        if self.troubles.contains(&Trouble::Missing) {
            return Some(StatusCode::NOT_FOUND);
        }
        let failing = self.troubles.iter_mut().find_map(|trouble| match trouble {
            Trouble::Status { status, times } if *times > 0 => {
                *times -= 1;
                Some(*status)
            }
            _ => None,
        })?;
        Some(StatusCode::from_u16(failing).expect("a trouble names a valid HTTP status"))
    }

    fn move_tags(&mut self) {
        for trouble in std::mem::take(&mut self.troubles) {
            match trouble {
                Trouble::TagMoves { tag, to } => drop(self.tags.insert(tag, to)),
                other => self.troubles.push(other),
            }
        }
    }

    fn packument(&self, name: &str, origin: &str) -> Value {
        let base = name.rsplit('/').next().unwrap_or(name);
        let mut versions = Map::new();
        let mut time = Map::new();
        for (version, published) in &self.versions {
            let mut dist = json!({
                "tarball": format!("{origin}/{name}/-/{base}-{version}.tgz"),
                "integrity": published.integrity,
                "shasum": published.shasum,
                "unpackedSize": published.unpacked_bytes,
                "fileCount": published.files,
            });
            if self.troubles.contains(&Trouble::WrongIntegrity) {
                dist["integrity"] = json!(format!("sha512-{}==", "A".repeat(86)));
            }
            if self.troubles.contains(&Trouble::NoIntegrity) {
                dist.as_object_mut().expect("dist was written as an object").remove("integrity");
            }
            let mut manifest = published.manifest.clone();
            manifest.insert("_id".into(), json!(format!("{name}@{version}")));
            manifest.insert("dist".into(), dist);
            versions.insert(version.clone(), Value::Object(manifest));
            time.insert(version.clone(), json!(published.at));
        }
        json!({"_id": name, "name": name, "dist-tags": self.tags, "versions": versions, "time": time})
    }

    fn tarball(&self, version: &str) -> Response {
        let Some(published) = self.versions.get(version) else { return not_found() };
        let mut bytes = published.tarball.clone();
        if self.troubles.contains(&Trouble::TruncatedTarball) {
            bytes.truncate(bytes.len() / 2);
        }
        ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from(bytes)).into_response()
    }
}

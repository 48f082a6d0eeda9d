//! A package registry on loopback that can be told to misbehave. It knows packuments, tarballs and tags; it must not
//! know who installs from it, nor judge what an installer does with a broken answer.

mod package;
mod serve;

pub use package::{Package, PackageFile};

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// One way in which the registry misbehaves for one package. Counted troubles end by themselves, the others last
/// until [`Registry::behave`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The packument and the tarballs answer 404, as for a package that was never published.
    Missing,
    /// The next `times` requests for the package answer `status`.
    Status {
        /// HTTP status code to answer.
        status: u16,
        /// How many requests answer so before the package is well again.
        times: u32,
    },
    /// The packument request is accepted and never answered.
    StalledPackument,
    /// The tarball request is accepted and never answered.
    StalledTarball,
    /// The tarball ends after half of its bytes.
    TruncatedTarball,
    /// The packument states the integrity of other bytes than the tarball's.
    WrongIntegrity,
    /// The packument states no integrity at all.
    NoIntegrity,
    /// After the next packument has been answered, the tag names another version.
    TagMoves {
        /// Which dist-tag moves.
        tag: String,
        /// The version it names from then on.
        to: String,
    },
}

/// What one package is, as the registry tells it.
#[derive(Default)]
struct Shelf {
    versions: BTreeMap<String, Published>,
    tags: BTreeMap<String, String>,
    troubles: Vec<Trouble>,
}

/// One published version: its manifest and its tarball.
struct Published {
    manifest: serde_json::Map<String, serde_json::Value>,
    tarball: bytes::Bytes,
    integrity: String,
    shasum: String,
    at: String,
    unpacked_bytes: u64,
    files: usize,
}

#[derive(Default)]
struct World {
    shelves: BTreeMap<String, Shelf>,
    upstream: Option<String>,
    requests: Vec<String>,
}

/// A running registry. Dropping it closes the port.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    world: Mutex<World>,
    changed: Notify,
    origin: String,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no holder of the registry's lock panics")
    }
}

impl Registry {
    /// Starts an empty registry on a free loopback port; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> io::Result<Registry> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            changed: Notify::new(),
            origin: format!("http://{address}"),
        });
        let router = serve::router(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving loopback never ends in an error");
        });
        Ok(Registry { address, shared, serving })
    }

    /// The registry's address, as `npm_config_registry` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Publishes a version; the first of a package also becomes `latest`. Publishing a version again replaces it.
    pub fn publish(&self, package: &Package) {
        let published = package.pack();
        let mut world = self.shared.world();
        let shelf = world.shelves.entry(package.name.clone()).or_default();
        if !shelf.tags.contains_key("latest") {
            shelf.tags.insert("latest".into(), package.version.clone());
        }
        shelf.versions.insert(package.version.clone(), published);
    }

    /// Publishes the package that lies in a directory (one with a `package.json`), whatever state it is in.
    ///
    /// # Errors
    /// If the directory cannot be read or its `package.json` names no package and version.
    pub fn publish_directory(&self, dir: &Path) -> io::Result<Package> {
        let package = Package::from_directory(dir)?;
        self.publish(&package);
        Ok(package)
    }

    /// Lets a dist-tag name a version.
    pub fn tag(&self, package: &str, tag: &str, version: &str) {
        let mut world = self.shared.world();
        let shelf = world.shelves.entry(package.to_owned()).or_default();
        shelf.tags.insert(tag.to_owned(), version.to_owned());
    }

    /// Sends requests for packages that are not published here to another registry, by redirect.
    pub fn redirect_unknown_to(&self, upstream: &str) {
        self.shared.world().upstream = Some(upstream.trim_end_matches('/').to_owned());
    }

    /// Adds a trouble to a package.
    pub fn trouble(&self, package: &str, trouble: Trouble) {
        self.shared.world().shelves.entry(package.to_owned()).or_default().troubles.push(trouble);
    }

    /// Ends all troubles of a package. A request that is already stalled stays so.
    pub fn behave(&self, package: &str) {
        self.shared.world().shelves.entry(package.to_owned()).or_default().troubles.clear();
    }

    /// The paths requested so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.world().requests.clone()
    }

    /// Waits until a request whose path contains `part` has arrived. The caller bounds the wait.
    pub async fn requested(&self, part: &str) {
        loop {
            let changed = self.shared.changed.notified();
            if self.requests().iter().any(|path| path.contains(part)) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

//! What every test of real packages stands on.

use super::world::{CALL, World};
use cutover_testkit::openclaw::{self, Runtime};
use cutover_testkit::registry::Registry;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How long npm may take for one package.
pub(crate) const INSTALL: Duration = Duration::from_secs(600);
/// Two gateways at once, and what is built and checked beside them, are more than a small machine does in time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A runtime, and a registry that sends what was not published in it on to the real one; nobody else has a gateway.
pub(crate) struct Ground {
    pub runtime: Runtime,
    pub registry: Registry,
    cache: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Ground {
    pub(crate) async fn alone() -> Self {
        let _alone = ALONE.lock().await;
        let cache = openclaw::cache();
        let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
        let registry = Registry::start().await.unwrap();
        registry.redirect_unknown_to(&openclaw::registry(CALL).await.unwrap());
        Self { runtime, registry, cache, _alone }
    }

    /// A world in which the gateway is to be installed from the registry.
    pub(crate) fn world(&self) -> World {
        World::new(&self.runtime, &self.cache, &self.registry.url())
    }

    /// One of another service.
    pub(crate) fn world_of(&self, service: &str) -> World {
        World::of(service, &self.cache)
    }

    /// The gateway's package as npm installs it, outside of every world.
    pub(crate) async fn gateway(&self, version: &str) -> PathBuf {
        let place = self.cache.join("openclaw").join(version);
        self.runtime.gateway(version, &place, INSTALL).await.unwrap()
    }
}

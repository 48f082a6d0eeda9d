//! From a resolved release to a sealed generation.

use super::copy::{Course, copy_tree};
use super::manifest::Manifest;
use super::source::{Resolved, Source};
use super::space::Need;
use super::workspace::Workspace;
use super::{
    Error, GenerationRecord, Result, SourceRecord, Store, directory, host_link, lockfile, npm, seal,
};
use cutover_core::Generation;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where everything of a release lies in its generation.
pub(super) const CORE: &str = "core";

/// What a staging is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A directory is copied; counted in bytes.
    Copy,
    /// npm installs; counted in packages.
    Install,
    /// The staged tree is hashed; counted in bytes.
    Hash,
    /// The tree is made durable and numbered; not counted.
    Seal,
}

/// How far a staging has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// How much of it is done, in the phase's unit.
    pub done: u64,
    /// How much there is in all, where that is known yet.
    pub total: Option<u64>,
}

/// Who is told of progress.
pub(super) type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counts up and tells about every half percent.
pub(super) struct Meter {
    listener: Listener,
    phase: Phase,
    total: Option<u64>,
    done: AtomicU64,
    told: AtomicU64,
}

impl Meter {
    pub(super) fn new(listener: &Listener, phase: Phase, total: Option<u64>) -> Meter {
        listener(Progress { phase, done: 0, total });
        Meter {
            listener: Arc::clone(listener),
            phase,
            total,
            done: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    pub(super) fn advance(&self, amount: u64) {
        let done = self.done.fetch_add(amount, Ordering::Relaxed) + amount;
        let step = self.total.map_or(1 << 20, |total| (total / 200).max(1));
        let told = self.told.load(Ordering::Relaxed);
        let due = done >= told + step || Some(done) == self.total;
        // Of several threads that see it due, one tells.
        if due && self.told.compare_exchange(told, done, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            (self.listener)(Progress { phase: self.phase, done, total: self.total });
        }
    }
}

/// Tells blocking work to end when the future that waits for it is dropped.
pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that one staging works with.
#[derive(Clone)]
struct Staging {
    store: Store,
    source: Source,
    resolved: Resolved,
    need: Need,
    workspace: Arc<Workspace>,
    listener: Listener,
    stop: Arc<AtomicBool>,
}

impl Store {
    /// Brings a resolved release onto this disk and seals it. Nothing else is changed: the pointer stays. Staging
    /// the same release again gives another, equal generation; so a damaged one is replaced.
    ///
    /// May be dropped at any time: npm is killed, and what is left is reclaimed by the next staging.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Denied`] before the first byte, or when met later; [`Error::BadIntegrity`]
    /// if the bytes are not those that were resolved; else what the source or the file system said.
    pub async fn stage(
        &self,
        source: &Source,
        resolved: &Resolved,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Generation> {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let (store, wanted_source, wanted) = (self.clone(), source.clone(), resolved.clone());
        let (need, workspace) = blocking(move || store.prepare(&wanted_source, &wanted)).await?;
        let staging = Staging {
            store: self.clone(),
            source: source.clone(),
            resolved: resolved.clone(),
            need,
            workspace: Arc::new(workspace),
            listener: Arc::new(progress),
            stop,
        };
        let staged = staging.clone().fill_and_seal().await;
        let failed = staged.is_err();
        blocking(move || {
            if failed {
                staging.workspace.discard();
            }
            staged.map_err(|error| error.needing(staging.need))
        })
        .await
    }

    /// Everything that can be refused before the first byte.
    fn prepare(&self, source: &Source, resolved: &Resolved) -> Result<(Need, Workspace)> {
        self.check_access(source)?;
        if let Err(error) = self.reclaim() {
            tracing::debug!(store = %self.dir.display(), %error, "leftovers of dead runs stay");
        }
        let space = self.space(source, resolved)?;
        let need = space.need;
        space.check()?;
        Ok((need, Workspace::begin(self)?))
    }
}

impl Staging {
    async fn fill_and_seal(self) -> Result<Generation> {
        if let Source::Npm(npm) = &self.source {
            npm::install(npm, &self.resolved.release, &self.workspace, &self.listener).await?;
        }
        blocking(move || {
            if let Source::Directory(source) = &self.source {
                let from = directory::place(source, &self.resolved.release);
                let meter = Meter::new(&self.listener, Phase::Copy, self.resolved.unpacked_bytes);
                let course =
                    Course { stop: &self.stop, advance: &|bytes| meter.advance(bytes), without: &[] };
                copy_tree(&from, &self.core(), &course)?;
            }
            self.seal()
        })
        .await
    }

    fn core(&self) -> PathBuf {
        self.workspace.dir.join(CORE)
    }

    fn seal(&self) -> Result<Generation> {
        if let Source::Npm(npm) = &self.source {
            let release = &self.resolved.release;
            for plugin in release.plugins.iter().filter(|plugin| npm.linked.contains(&plugin.package)) {
                host_link::lay(
                    &self.core(),
                    &release.package,
                    &Path::new("node_modules").join(&plugin.package),
                )?;
            }
        }
        seal::take_over(&self.core())?;
        let meter = Meter::new(&self.listener, Phase::Hash, None);
        let course = Course { stop: &self.stop, advance: &|bytes| meter.advance(bytes), without: &[] };
        let manifest = seal::hash(&self.workspace, &course)?;
        let without_integrity = self.check_integrity(&manifest)?;
        (self.listener)(Progress { phase: Phase::Seal, done: 0, total: None });
        let (files, bytes) = manifest.size();
        seal::publish(&self.store, &self.workspace, &manifest, &course, |sealed| GenerationRecord {
            generation: sealed.generation,
            release: self.resolved.release.clone(),
            published: self.resolved.published.clone(),
            source: SourceRecord::of(&self.source),
            created_at: sealed.created_at,
            root: CORE.into(),
            package_root: self.package_root(),
            files,
            bytes,
            manifest_digest: sealed.manifest_digest,
            without_integrity,
        })
    }

    fn package_root(&self) -> PathBuf {
        match &self.source {
            Source::Directory(_) => CORE.into(),
            Source::Npm(npm) => PathBuf::from(CORE).join("node_modules").join(&npm.package),
        }
    }

    /// Holds the staged bytes against what was resolved; returns the packages that nobody vouched for.
    fn check_integrity(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let release = &self.resolved.release;
        match &self.source {
            Source::Npm(_) => lockfile::check(&self.core(), release),
            Source::Directory(_) if manifest.below(CORE).tree_digest() == release.digest => Ok(Vec::new()),
            Source::Directory(source) => Err(Error::BadIntegrity {
                package: directory::place(source, release).display().to_string(),
                said: "the directory changed after it was resolved".to_owned(),
            }),
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)?
}

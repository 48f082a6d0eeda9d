//! Where releases come from, and what a wish is resolved to.

use super::stage::blocking;
use super::{Identity, Result, Store, directory, npm};
use cutover_core::Release;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where the releases of one package come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory with one subdirectory per version.
    Directory(Directory),
    /// A package of an npm registry.
    Npm(Npm),
}

/// One subdirectory per version, its name is the version; a link is a channel. Names that begin with a dot are
/// neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The directory that holds the versions.
    pub dir: PathBuf,
}

/// A package of an npm registry, installed by the real npm.
#[derive(Clone, Debug)]
pub struct Npm {
    /// Package name, with its scope.
    pub package: String,
    /// Plugins that are installed beside it, in one tree: they find the package by its name.
    pub plugins: Vec<PluginSource>,
    /// Those of them that get a link to the package in their own `node_modules`, because their host looks for it there.
    pub linked: Vec<String>,
    /// Registry to use instead of the one that npm is configured with.
    pub registry: Option<String>,
    /// How npm is called: `["npm"]`, or node and `npm-cli.js`.
    pub npm: Vec<OsString>,
    /// The service's node. Its directory comes first on npm's `PATH`.
    pub node: Option<PathBuf>,
    /// The environment to choose from: npm's own variables, proxies, certificates, locale, `PATH` and `HOME` are
    /// passed on, everything else is not. Without `HOME` npm gets an empty one.
    pub env: Vec<(OsString, OsString)>,
    /// Who npm runs as, if not the caller. Must be root to differ.
    pub identity: Option<Identity>,
    /// Whether packages may run their lifecycle scripts.
    pub scripts: Scripts,
    /// npm's cache, shared by all stagings; must be writable by `identity`.
    pub cache: PathBuf,
    /// How long to wait, how often to try.
    pub limits: Limits,
}

/// A plugin of the same registry, to be resolved together with the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSource {
    /// Package name, with its scope.
    pub package: String,
    /// In a version, `{version}` stands for the package's own.
    pub wanted: Wanted,
    /// Whether the package may be installed without it if the registry does not have it.
    pub may_lack: bool,
}

/// Whether packages may run their lifecycle scripts while being installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scripts {
    /// They may not.
    #[default]
    Off,
    /// Those of the package itself may, as [`Npm::identity`]; nobody else's.
    Own,
    /// They may, as [`Npm::identity`].
    On,
}

/// Bounds on what npm may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often an unreachable registry is asked, at least 1.
    pub attempts: u32,
    /// Pause before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// Longest wait for one answer of the registry about a release.
    pub answer: Duration,
    /// Longest time an installation may show no sign of progress.
    pub idle: Duration,
    /// Longest time an installation may take in all.
    pub install: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            attempts: 3,
            backoff: Duration::from_secs(1),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            install: Duration::from_secs(1800),
        }
    }
}

/// What is asked of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One exact version.
    Version(String),
    /// Whatever a channel (a dist-tag, a link) names at this moment.
    Channel(String),
}

impl Wanted {
    /// The word that was asked with.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Wanted::Version(word) | Wanted::Channel(word) => word,
        }
    }
}

/// A wish made exact. A channel that moves later changes nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Package, exact version and the digest that freezes its bytes.
    pub release: Release,
    /// When it was published, RFC 3339; for a directory, its modification time.
    pub published: Option<String>,
    /// Where it says what it is, as the source tells: an `https` address.
    pub homepage: Option<String>,
    /// What it says is new in it, as far as its files are here.
    pub notes: Option<String>,
    /// Bytes of the release's own files once unpacked, where the source tells. Dependencies come on top.
    pub unpacked_bytes: Option<u64>,
    /// Number of the release's own files, where the source tells.
    pub files: Option<u64>,
}

impl Store {
    /// Makes a wish exact: version, digest, publish time. Nothing is staged.
    ///
    /// # Errors
    /// [`Error::NotExact`] for ranges and paths, [`Error::NotFound`], [`Error::Unreachable`] after
    /// [`Limits::attempts`], [`Error::BadIntegrity`] where the source states no sha512.
    pub async fn resolve(&self, source: &Source, wanted: &Wanted) -> Result<Resolved> {
        match source {
            Source::Npm(npm) => npm::resolve(self, npm, wanted).await,
            Source::Directory(directory) => {
                let (directory, wanted) = (directory.clone(), wanted.clone());
                blocking(move || directory::resolve(&directory, &wanted)).await
            }
        }
    }
}

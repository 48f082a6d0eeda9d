//! Generations on disk: resolve, stage, seal, switch, prune.
//!
//! This room knows where releases come from and what a sealed tree looks like. It must not know whether anything
//! runs from a generation, nor why a switch happens: who is protected from pruning is told by the caller.
//!
//! ```text
//! <dir>/generations/0007/{core/, generation.json, manifest, inodes}   sealed, read-only
//! <dir>/current -> generations/0007                                   one pointer
//! <dir>/staging/<unique>.partial/                                     never selectable
//! <dir>/looked/0007                                                   when it was last read whole
//! ```

mod access;
mod changelog;
mod copy;
mod difference;
mod directory;
mod error;
mod generation;
mod host_link;
mod identity;
mod import;
mod lockfile;
mod looked;
mod manifest;
mod npm;
mod package_json;
mod pointer;
mod prune;
mod seal;
pub mod snapshot;
mod source;
mod space;
mod stage;
mod tally;
mod workspace;

pub(crate) use access::existing;
pub use difference::{Difference, Moved};
pub use error::{Error, Unfit};
pub(crate) use generation::without_user;
pub use generation::{GenerationRecord, SourceRecord, plugin_directory};
pub use identity::Identity;
pub use import::{Import, ImportedPlugin};
pub(crate) use lockfile::{Locked, Lockfile};
pub use manifest::{Changed, Fingerprint, Named};
pub(crate) use npm::is_package_name;
pub(crate) use package_json::at as json_at;
pub use source::{Directory, Limits, Npm, PluginSource, Resolved, Scripts, Source, Wanted};
pub use space::{Need, Size, Space};
pub use stage::{Phase, Progress};
pub use tally::Tally;

use std::path::{Path, PathBuf};

/// What the operations of this room return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The generations of one service, in one directory. Cheap to clone; holds no descriptor and no lock.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Names the store of one service (`<state>/services/<name>`). Nothing is created or read: a directory that is
    /// not there is an empty store.
    #[must_use]
    pub fn open(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    /// The directory that was opened.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn generations_dir(&self) -> PathBuf {
        self.dir.join("generations")
    }

    /// The same by its real name, as links into it have it. There is none before the first is staged, and then no links either.
    pub(crate) fn real_generations_dir(&self) -> PathBuf {
        let generations = self.generations_dir();
        generations.canonicalize().unwrap_or(generations)
    }

    fn staging_dir(&self) -> PathBuf {
        self.dir.join("staging")
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join("current")
    }
}

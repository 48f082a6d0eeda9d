//! What can go wrong in the store, one variant per failed operation.

use super::Changed;
use super::space::{Need, Size};
use cutover_core::Generation;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A fault or refusal of the store. Display is a fragment without the cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something could not be written, for another reason than space or permission.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something could not be made durable. What was written before counts as not written.
    #[error("cannot make {} durable", path.display())]
    Sync {
        /// The file, directory or file system.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// What was to be removed.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory entry could not be renamed.
    #[error("cannot rename {} to {}", from.display(), to.display())]
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system is full, or too small for what is to come.
    #[error("not enough space at {}: {need} needed, {} free", path.display(), Size(*free))]
    NoSpace {
        /// A path on the file system.
        path: PathBuf,
        /// What the release needs.
        need: Need,
        /// Bytes free for the user that writes.
        free: u64,
    },
    /// The user that writes may not.
    #[error("uid {uid} may not write {}", path.display())]
    Denied {
        /// What was to be written.
        path: PathBuf,
        /// The user that would have written.
        uid: u32,
    },
    /// A version or channel that names no single release (a range, a path, an address).
    #[error("{wanted:?} is not {expected}")]
    NotExact {
        /// What was asked for.
        wanted: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The source has no such package, version or channel.
    #[error("{package} has no release {wanted}: {said}")]
    NotFound {
        /// Package, or directory of releases.
        package: String,
        /// The version or channel asked for.
        wanted: String,
        /// What the source said.
        said: String,
    },
    /// The source could not be reached, or did not answer properly, in any of the attempts.
    #[error("cannot reach the source of {package} ({attempts} attempts): {said}")]
    Unreachable {
        /// Package.
        package: String,
        /// How often it was tried.
        attempts: u32,
        /// What was said last.
        said: String,
    },
    /// The bytes, or what is said about them, are not those that were resolved.
    #[error("integrity of {package} does not hold: {said}")]
    BadIntegrity {
        /// Package and version.
        package: String,
        /// What differs.
        said: String,
    },
    /// npm failed for a reason of its own.
    #[error("npm {doing} failed ({code}): {tail}")]
    Npm {
        /// What npm was doing, with the package.
        doing: String,
        /// npm's error code, or the exit status.
        code: String,
        /// The last lines of its output.
        tail: String,
    },
    /// npm could not be started.
    #[error("cannot start {}", program.display())]
    NpmStart {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// npm made no progress, or reached its limit, and was killed.
    #[error("npm {doing} was stopped after {} s without {missing}: {tail}", limit.as_secs_f32())]
    TimedOut {
        /// What npm was doing, with the package.
        doing: String,
        /// What did not happen.
        missing: &'static str,
        /// For how long.
        limit: Duration,
        /// The last lines of its output.
        tail: String,
    },
    /// A tree holds something that may not be in a generation.
    #[error("{} cannot be part of a generation: it is {why}", path.display())]
    Unfit {
        /// The entry.
        path: PathBuf,
        /// What it is.
        why: Unfit,
    },
    /// What is installed in two places does not fit into one tree.
    #[error("{} and {} are one package twice, and one tree has a place for one of them", path.display(), other.display())]
    Doubled {
        /// The one.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// No sealed generation has this number.
    #[error("generation {generation} is not there or was never sealed")]
    Unsealed {
        /// The number asked for.
        generation: Generation,
    },
    /// The store's own records do not make sense.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A generation is not what was sealed.
    #[error("generation {generation} was changed after it was sealed: {changed}")]
    Changed {
        /// The generation.
        generation: Generation,
        /// What differs.
        changed: Changed,
    },
    /// The task was torn down with the program's runtime.
    #[error("the work was interrupted")]
    Interrupted,
}

/// Why an entry may not be part of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A device, socket or named pipe.
    Special,
    /// A set-user-id or set-group-id file.
    Setuid,
    /// A symbolic link to an absolute path.
    AbsoluteLink,
    /// A symbolic link that leads, or could lead, out of the tree.
    EscapingLink,
    /// A file with a second name, so that it can be changed from elsewhere.
    HardLink,
    /// Nested deeper than any package.
    TooDeep,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unfit::Special => "a device, socket or pipe",
            Unfit::Setuid => "a setuid or setgid file",
            Unfit::AbsoluteLink => "an absolute link",
            Unfit::EscapingLink => "a link out of the tree",
            Unfit::HardLink => "a file with more than one name",
            Unfit::TooDeep => "nested too deeply",
        })
    }
}

impl Error {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Read { path: path.to_owned(), source }
    }

    pub(super) fn sync(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Sync { path: path.to_owned(), source }
    }

    pub(super) fn remove(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Remove { path: path.to_owned(), source }
    }

    /// Tells a full disk and a missing permission apart from everything else.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    let free = super::space::free_bytes(&path).unwrap_or(0);
                    Error::NoSpace { path, need: Need::Unknown, free }
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Error::Denied { path, uid: rustix::process::geteuid().as_raw() }
                }
                _ => Error::Write { path, source },
            }
        }
    }

    /// States the need where a full disk was met in the middle of the work.
    pub(super) fn needing(self, needed: Need) -> Error {
        match self {
            Error::NoSpace { path, need: Need::Unknown, free } => Error::NoSpace { path, need: needed, free },
            other => other,
        }
    }
}

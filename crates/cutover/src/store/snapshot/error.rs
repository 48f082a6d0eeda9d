//! What can go wrong with copies of state: one variant per kind of trouble, each with its operation and path.

use std::io;
use std::path::{Path, PathBuf};

use super::Finding;

/// Why an operation on a snapshot did not happen, or did not finish. Every operation of this room may be run again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system is full (ENOSPC) or a quota is used up (EDQUOT).
    #[error("no space left to {operation} {}", path.display())]
    NoSpace {
        /// What was being done, as a verb.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon's user may not do this (EACCES, EPERM).
    #[error("not permitted to {operation} {}", path.display())]
    Denied {
        /// What was being done, as a verb.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Any other failed system call.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite refused an operation on a *copy* of a database.
    #[error("cannot {operation} the copy of database {}", path.display())]
    Sqlite {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The declared path of the database.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The copy of a database did not pass its integrity check.
    #[error("database {} is damaged: {report}; repair it or restore a backup before updating", path.display())]
    Damaged {
        /// The declared path of the database.
        path: PathBuf,
        /// The first line of SQLite's report.
        report: String,
    },
    /// Something wrote while the state was being copied, so the copy would be torn.
    #[error("{} changed while it was copied: something still writes to it", path.display())]
    Changing {
        /// What changed.
        path: PathBuf,
    },
    /// The paths cannot be covered by a snapshot; nothing was done.
    #[error("declared state cannot be covered: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Finding>),
    /// There is no complete snapshot in the directory.
    #[error("no complete snapshot in {}", dir.display())]
    Missing {
        /// The snapshot's directory.
        dir: PathBuf,
    },
    /// A record of a snapshot cannot be understood.
    #[error("cannot understand {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// The snapshot's own bytes are not what its record says; nothing live was touched.
    #[error("the snapshot's copy of {} is not what was recorded: {difference}", path.display())]
    SnapshotDiffers {
        /// The declared path.
        path: PathBuf,
        /// What differs first.
        difference: String,
    },
    /// After a restore, the live state is not what the snapshot recorded.
    #[error("{} is not as recorded after the restore: {difference}", path.display())]
    RestoreDiffers {
        /// The live path.
        path: PathBuf,
        /// What differs first.
        difference: String,
    },
    /// A name that an unfinished restore needs is taken by something it did not put there.
    #[error("{} is in the way of the unfinished restore; move it elsewhere and run the restore again", path.display())]
    InTheWay {
        /// What is in the way.
        path: PathBuf,
    },
    /// A prepared restore candidate has vanished or was replaced.
    #[error("the prepared copy {} is gone; the replaced state is kept beside it", path.display())]
    CandidateLost {
        /// Where the candidate should be.
        path: PathBuf,
    },
    /// A file to be mended is no plain text, is too large, or lies outside of declared state.
    #[error("{} is no plain text file of declared `state`", path.display())]
    Unmendable {
        /// The file.
        path: PathBuf,
    },
    /// A seat lies outside of declared state, or its way leads there.
    #[error("{} lies in no root of declared `state`", path.display())]
    Outside {
        /// The seat.
        path: PathBuf,
    },
    /// Somebody changed a file since it was mended on a copy; it is left as it is.
    #[error("{} was changed since it was mended on a copy: order the update again", path.display())]
    NotAsMended {
        /// The file.
        path: PathBuf,
    },
    /// A restore from this snapshot has begun to move live state and has not finished.
    #[error("a restore from {} is unfinished; finish it before discarding the snapshot", dir.display())]
    RestoreUnfinished {
        /// The snapshot's directory.
        dir: PathBuf,
    },
}

impl Error {
    /// Wraps a failed system call: full disks and missing permissions are told apart from all else.
    pub(super) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| {
            let source = source.into();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::NoSpace { operation, path, source }
                }
                io::ErrorKind::PermissionDenied => Self::Denied { operation, path, source },
                _ => Self::Io { operation, path, source },
            }
        }
    }

    /// Wraps SQLite's answer; a full disk stays a full disk.
    pub(super) fn sqlite(operation: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => {
                Self::NoSpace { operation, path, source: io::Error::new(io::ErrorKind::StorageFull, source) }
            }
            _ => Self::Sqlite { operation, path, source },
        }
    }
}

//! The journal: how to append an event durably and how to read all of them back. It must not know what an event means:
//! events and states are JSON text here, and a hash of a state is a string.
//!
//! One SQLite file (bundled library, write-ahead log, `synchronous=FULL`), one writer, any number of readers, also
//! while no daemon runs. SQLite calls block: an async caller gives the journal a thread of its own.

mod balloon;
mod entry;
mod reader;
mod schema;

pub use entry::{Checkpoint, Entry, NewEntry, RunSpan, Seq, Stamp};
pub use reader::Reader;

use balloon::Balloon;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, ffi, params};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the writer needs to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes kept back beside the journal, so that a run can be told to its end on a full disk.
    pub balloon_bytes: u64,
    /// How long a statement waits for another process's lock.
    pub busy_limit: Duration,
}

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file, or a daemon died before it wrote its first table.
    #[error("no journal at {path}; it is made when `cutover serve` starts for the first time")]
    Absent {
        /// The journal's path.
        path: PathBuf,
    },
    /// The file is not SQLite's, is damaged at its head, or belongs to another program.
    #[error(
        "{path} is not a journal of cutover; nothing was changed: look at it, move it (with its -wal) elsewhere and start again"
    )]
    NotAJournal {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer, where it refused the file.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// A later cutover has been here.
    #[error(
        "{path} has schema {found}, this cutover knows {known}; nothing was changed: install the newer cutover again, or move the journal (with its -wal) elsewhere to begin an empty history"
    )]
    Newer {
        /// The journal's path.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// SQLite would not keep a write-ahead log there.
    #[error(
        "{file_system} at {path} cannot hold the journal (journal mode: {mode}); put the state directory on a local file system"
    )]
    WalRefused {
        /// The journal's path.
        path: PathBuf,
        /// Name of the file system, or its magic number in hexadecimal.
        file_system: String,
        /// What SQLite fell back to.
        mode: String,
    },
    /// SQLite did not take `synchronous=FULL`.
    #[error("SQLite keeps {path} at synchronous={found} instead of 2 (FULL); an append would not be durable")]
    NotDurable {
        /// The journal's path.
        path: PathBuf,
        /// What it answered.
        found: i64,
    },
    /// Unread entries stand in the write-ahead log, and reading it takes write access to the directory.
    #[error(
        "{path} has entries in its -wal file that cannot be read without write access to its directory; read it as the directory's owner"
    )]
    WalUnreadable {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// The file could not be made or its mode could not be set.
    #[error("making {path}")]
    Make {
        /// The journal's path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file could not be opened or set up.
    #[error("opening {path}")]
    Open {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// The tables could not be brought up to date.
    #[error("bringing {path} to schema {to}")]
    Migrate {
        /// The journal's path.
        path: PathBuf,
        /// The schema aimed at.
        to: i64,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// The directory entry of the journal could not be made durable.
    #[error("syncing directory {path}")]
    SyncDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is no room, not even with the balloon freed. Nothing was appended.
    #[error("no room to append to {path}; free space on its file system")]
    Full {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// The append failed otherwise. Nothing was appended.
    #[error("appending to {path}")]
    Append {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// Entries could not be read.
    #[error("reading {path}")]
    Read {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite found its own file damaged.
    #[error("{path} is damaged ({finding}); keep a copy of it with its -wal, then move both elsewhere")]
    Damaged {
        /// The journal's path.
        path: PathBuf,
        /// SQLite's first finding.
        finding: String,
    },
    /// The balloon could not be kept, made or freed.
    #[error("keeping space back in {path}")]
    Balloon {
        /// The balloon's path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The one writer.
#[derive(Debug)]
pub struct Journal {
    rows: Reader,
    balloon: Balloon,
}

impl Journal {
    /// Opens the journal at `path` for the single writer, making it (mode 0600) where it is missing. The directory must
    /// exist. Whoever calls must hold the state directory's lock.
    ///
    /// A disk too full for the balloon does not keep the journal from opening (see [`Journal::has_room`]).
    ///
    /// # Errors
    /// Refuses what is not a journal, what a newer cutover wrote, and a file system without a write-ahead log; nothing is
    /// changed then, and nothing is ever put aside by itself.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, Error> {
        make_if_missing(path)?;
        let open_error = |source| Error::Open { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags).map_err(open_error)?;
        conn.busy_timeout(settings.busy_limit).map_err(open_error)?;
        schema::check(&conn, path)?;
        make_private(path)?;
        require_wal(&conn, path)?;
        require_full_sync(&conn, path)?;
        schema::migrate(&mut conn, path)?;
        sync_parent(path)?;
        let balloon = Balloon::beside(path, settings.balloon_bytes)?;
        Ok(Self { rows: Reader::over(conn, path.to_owned()), balloon })
    }

    /// Everything that can be read.
    #[must_use]
    pub fn read(&self) -> &Reader {
        &self.rows
    }

    /// Appends one entry. When this returns `Ok`, the entry survives a power cut.
    ///
    /// # Errors
    /// [`Error::Full`] when there was no room even after the balloon was freed; [`Error::Append`] otherwise. Nothing was
    /// appended then.
    pub fn append(&mut self, entry: &NewEntry) -> Result<Seq, Error> {
        self.append_with_room(entry, None)
    }

    /// Appends one entry and makes `state` (JSON), the state that it leads to, the service's checkpoint, both or neither.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_with_checkpoint(&mut self, entry: &NewEntry, state: &str) -> Result<Seq, Error> {
        self.append_with_room(entry, Some(state))
    }

    /// Makes the balloon whole again, with the size from the settings. Costs one `stat` where it is whole.
    ///
    /// # Errors
    /// [`Error::Balloon`] where the space cannot be had.
    pub fn reserve(&mut self) -> Result<(), Error> {
        self.balloon.inflate()
    }

    /// Is the whole reserve there? An act may start only if it is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.balloon.is_whole()
    }

    fn append_with_room(&mut self, entry: &NewEntry, state: Option<&str>) -> Result<Seq, Error> {
        let path = self.rows.path().to_owned();
        let first = match self.insert(entry, state) {
            Err(source) if lacks_room(&source) => source,
            other => return other.map_err(|source| Error::Append { path, source }),
        };
        if !self.balloon.free()? {
            return Err(Error::Full { path, source: first });
        }
        self.insert(entry, state).map_err(|source| match lacks_room(&source) {
            true => Error::Full { path, source },
            false => Error::Append { path, source },
        })
    }

    fn insert(&mut self, entry: &NewEntry, state: Option<&str>) -> rusqlite::Result<Seq> {
        let tx = self.rows.connection().transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute(
            "INSERT INTO entry (service, run, wall_ms, boot_id, boot_ms, event, step_version, state_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                entry.service,
                entry.run.as_ref().map(|run| run.0.as_str()),
                entry.at.wall_ms,
                entry.at.boot_id.0,
                i64::try_from(entry.at.boot_ms).expect("a boot lasts less than 2^63 ms"),
                entry.event,
                entry.step_version,
                entry.state_hash,
            ],
        )?;
        let seq = tx.last_insert_rowid();
        if let Some(state) = state {
            tx.execute(
                "INSERT INTO checkpoint (service, seq, state, step_version, state_hash) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (service) DO UPDATE SET seq = excluded.seq, state = excluded.state,
                 step_version = excluded.step_version, state_hash = excluded.state_hash",
                params![entry.service, seq, state, entry.step_version, entry.state_hash],
            )?;
        }
        tx.commit()?;
        Ok(Seq(seq))
    }
}

/// Makes the file with its mode if there is none. Never opens one that is there: closing it again would drop SQLite's
/// locks on it.
fn make_if_missing(path: &Path) -> Result<(), Error> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Make { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Takes other users' access away from the file and from what SQLite keeps beside it.
fn make_private(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let private = std::fs::set_permissions(&name, Permissions::from_mode(0o600));
        match private {
            Err(source) if suffix.is_empty() || source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Make { path: name.into(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn require_wal(conn: &Connection, path: &Path) -> Result<(), Error> {
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let kind = FileSystem::of(path);
    // A network file system may grant the log and still lose the shared index between two machines.
    if mode.eq_ignore_ascii_case("wal") && !kind.is_remote() {
        return Ok(());
    }
    Err(Error::WalRefused { path: path.to_owned(), file_system: kind.name(), mode })
}

fn require_full_sync(conn: &Connection, path: &Path) -> Result<(), Error> {
    let open_error = |source| Error::Open { path: path.to_owned(), source };
    conn.pragma_update(None, "synchronous", "FULL").map_err(open_error)?;
    conn.pragma_update(None, "mmap_size", 0).map_err(open_error)?;
    let found: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(open_error)?;
    if found == 2 { Ok(()) } else { Err(Error::NotDurable { path: path.to_owned(), found }) }
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Error::SyncDirectory { path: parent.to_owned(), source })
}

/// Does the error say that space ran out? A quota shows as a failed write, a full tmpfs also at the shared index.
fn lacks_room(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    failure.code == rusqlite::ErrorCode::DiskFull
        || matches!(failure.extended_code, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE)
}

/// A file system's kind by its magic number (`statfs(2)`).
struct FileSystem(Option<u32>);

impl FileSystem {
    fn of(path: &Path) -> Self {
        // The magic numbers fit 32 bits; the field's width differs between architectures.
        Self(rustix::fs::statfs(path).ok().map(|stat| stat.f_type as u32))
    }

    fn is_remote(&self) -> bool {
        matches!(self.0, Some(0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x5346_414f | 0x00c3_6400))
    }

    fn name(&self) -> String {
        let name = match self.0 {
            Some(0x6969) => "nfs",
            Some(0x517b | 0xff53_4d42 | 0xfe53_4d42) => "smb",
            Some(0x5346_414f) => "afs",
            Some(0x00c3_6400) => "ceph",
            Some(0x0102_1997) => "9p",
            Some(0x6573_5546) => "fuse",
            Some(0x0102_1994) => "tmpfs",
            Some(0xef53) => "ext4",
            Some(0x5846_5342) => "xfs",
            Some(0x9123_683e) => "btrfs",
            Some(0x2fc1_2fc1) => "zfs",
            Some(0x794c_7630) => "overlay",
            Some(other) => return format!("file system {other:#x}"),
            None => "an unknown file system",
        };
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_ahead_log_names_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        // This locking style has no shared memory, as a file system without mmap would have none.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let conn = Connection::open_with_flags_and_vfs(&path, flags, c"unix-dotfile").unwrap();
        let error = require_wal(&conn, &path).unwrap_err();
        let Error::WalRefused { mode, ref file_system, .. } = error else { panic!("{error}") };
        assert_ne!(mode, "wal");
        assert_eq!(*file_system, FileSystem::of(dir.path()).name());
        assert_ne!(file_system, "an unknown file system");
    }

    #[test]
    fn a_network_file_system_is_never_trusted_with_the_log() {
        for magic in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42] {
            assert!(FileSystem(Some(magic)).is_remote());
        }
        for magic in [0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e] {
            assert!(!FileSystem(Some(magic)).is_remote());
        }
    }

    #[test]
    fn an_open_journal_syncs_every_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let settings = Settings { balloon_bytes: 4096, busy_limit: Duration::from_secs(1) };
        let mut journal = Journal::open(&path, &settings).unwrap();
        let conn = journal.rows.connection();
        let sync: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((sync, mode.as_str()), (2, "wal"));
    }
}

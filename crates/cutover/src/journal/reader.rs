//! Reading: by the writer, and by other processes (the command line) while a daemon runs or none does.

use super::entry::{Checkpoint, Entry, RunSpan, Seq, Stamp};
use super::{Error, schema};
use cutover_core::{BootId, RunId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A view of the journal that cannot change it.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the journal at `path` read-only; a statement waits up to `busy_limit` for another process's lock.
    ///
    /// Where the directory is not writable, SQLite may be unable to make its shared index; then the file is read as
    /// immutable, but only while there is no write-ahead log that this would hide.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NotAJournal`], [`Error::Newer`], [`Error::WalUnreadable`], [`Error::Open`].
    pub fn open(path: &Path, busy_limit: Duration) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::Absent { path: path.to_owned() });
        }
        let source = match open_checked(path, path.as_os_str().as_bytes(), busy_limit) {
            Err(Error::Open { source, .. }) if needs_shared_index(&source) => source,
            other => return other,
        };
        if has_log(path) {
            return Err(Error::WalUnreadable { path: path.to_owned(), source });
        }
        open_checked(path, immutable_uri(path).as_bytes(), busy_limit)
    }

    /// A view over a connection that is set up already.
    pub(super) fn over(conn: Connection, path: PathBuf) -> Self {
        Self { conn, path }
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A service's entries behind `after`, oldest first.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn entries(&self, service: &str, after: Seq) -> Result<Vec<Entry>, Error> {
        self.rows(
            "SELECT seq, service, run, wall_ms, boot_id, boot_ms, event, step_version, state_hash
             FROM entry WHERE service = ?1 AND seq > ?2 ORDER BY seq",
            (service, after.0),
            entry_of,
        )
    }

    /// A run's entries, oldest first; none if the run is unknown.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn entries_of_run(&self, run: &RunId) -> Result<Vec<Entry>, Error> {
        self.rows(
            "SELECT seq, service, run, wall_ms, boot_id, boot_ms, event, step_version, state_hash
             FROM entry WHERE run = ?1 ORDER BY seq",
            [run.0.as_str()],
            entry_of,
        )
    }

    /// A service's newest runs, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn runs(&self, service: &str, limit: u32) -> Result<Vec<RunSpan>, Error> {
        self.rows(
            "SELECT span.run, span.first, span.last, a.wall_ms, b.wall_ms
             FROM (SELECT run, min(seq) AS first, max(seq) AS last FROM entry
                   WHERE service = ?1 AND run IS NOT NULL GROUP BY run ORDER BY first DESC LIMIT ?2) AS span
             JOIN entry AS a ON a.seq = span.first JOIN entry AS b ON b.seq = span.last ORDER BY span.first DESC",
            (service, limit),
            |row| {
                Ok(RunSpan {
                    run: RunId(row.get(0)?),
                    first: Seq(row.get(1)?),
                    last: Seq(row.get(2)?),
                    first_wall_ms: row.get(3)?,
                    last_wall_ms: row.get(4)?,
                })
            },
        )
    }

    /// A service's checkpoint, if it has one yet.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn checkpoint(&self, service: &str) -> Result<Option<Checkpoint>, Error> {
        let sql = "SELECT service, seq, state, step_version, state_hash FROM checkpoint WHERE service = ?1";
        self.conn
            .query_row(sql, [service], |row| {
                Ok(Checkpoint {
                    service: row.get(0)?,
                    seq: Seq(row.get(1)?),
                    state: row.get(2)?,
                    step_version: row.get(3)?,
                    state_hash: row.get(4)?,
                })
            })
            .optional()
            .map_err(|source| self.read_error(source))
    }

    /// The names of all services that ever had an entry, sorted.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn services(&self) -> Result<Vec<String>, Error> {
        self.rows("SELECT DISTINCT service FROM entry ORDER BY service", [], |row| row.get(0))
    }

    /// Reads the whole file and its indexes. Takes time in proportion to the journal's size.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first finding; [`Error::Read`].
    pub fn check_integrity(&self) -> Result<(), Error> {
        let finding: String = self
            .conn
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|source| self.read_error(source))?;
        if finding == "ok" { Ok(()) } else { Err(Error::Damaged { path: self.path.clone(), finding }) }
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        row_of: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let read = || self.conn.prepare(sql)?.query_map(params, row_of)?.collect::<rusqlite::Result<_>>();
        read().map_err(|source| self.read_error(source))
    }

    fn read_error(&self, source: rusqlite::Error) -> Error {
        Error::Read { path: self.path.clone(), source }
    }
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let boot_ms: i64 = row.get(5)?;
    Ok(Entry {
        seq: Seq(row.get(0)?),
        service: row.get(1)?,
        run: row.get::<_, Option<String>>(2)?.map(RunId),
        at: Stamp {
            wall_ms: row.get(3)?,
            boot_id: BootId(row.get(4)?),
            boot_ms: u64::try_from(boot_ms).expect("the table holds no negative boot_ms"),
        },
        event: row.get(6)?,
        step_version: row.get(7)?,
        state_hash: row.get(8)?,
    })
}

fn open_checked(path: &Path, name: &[u8], busy_limit: Duration) -> Result<Reader, Error> {
    let open_error = |source| Error::Open { path: path.to_owned(), source };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    let conn = Connection::open_with_flags(name, flags).map_err(open_error)?;
    conn.busy_timeout(busy_limit).map_err(open_error)?;
    match schema::check(&conn, path)? {
        schema::Found::Blank => Err(Error::Absent { path: path.to_owned() }),
        schema::Found::Journal => Ok(Reader::over(conn, path.to_owned())),
    }
}

/// Could the file be opened, but not the shared index beside it?
fn needs_shared_index(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // A log that cannot be looked at may hold entries.
    match std::fs::metadata(log) {
        Ok(found) => found.len() > 0,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => write!(uri, "%{byte:02x}").expect("writing to a String does not fail"),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

//! SQLite databases: the four files that are one unit, online backup, and what the bytes of a copy mean. Opens copies only,
//! except for the online backup of a running service; must never open a live database whose service is stopped, because
//! opening it replays and deletes `-wal`: evidence gone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use super::content::{self, Digest, Named};

/// The files of one database that hold state, by what follows the database's name. `-shm` holds none.
pub(super) const MEMBERS: [&str; 3] = ["", "-wal", "-journal"];
/// Every file of the unit: moved away together.
pub(super) const UNIT: [&str; 4] = ["", "-wal", "-journal", "-shm"];

/// How many bytes of values one database may contribute to content digests. Equality of bytes is decided by the digests of
/// the files; content digests only prove equality when the form differs (a checkpoint moved rows from `-wal` into the
/// database), and must not turn a large database into an outage. Tables beyond the budget have a row count alone.
const CONTENT_BUDGET: u64 = 64 << 20;
/// A migration ledger is short; a longer table of such a name is ordinary content.
const LEDGER_ROWS_MAX: u64 = 10_000;
const BACKUP_PAGES_PER_STEP: i32 = 512;
const BACKUP_PAUSE: Duration = Duration::from_millis(5);

/// What a database holds, independent of how its pages lie on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fingerprint {
    /// `PRAGMA user_version`. Proves nothing alone: many services keep their version elsewhere.
    pub user_version: i64,
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// Of every table, index, view and trigger as declared. SQLite's own tables (statistics) are not part of it.
    pub schema: Digest,
    /// Of the rows of tables in which services record their migrations, by name.
    pub ledger: Digest,
    /// Every table that is not virtual, by name.
    pub tables: Vec<Table>,
}

/// One table of a [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// As declared.
    pub name: String,
    /// Exact row count.
    pub rows: u64,
    /// Of all rows in storage order; absent if the database's tables before it used up the budget.
    pub content: Option<Digest>,
}

impl Fingerprint {
    /// Could the code that wrote one also have written the other, as far as a database tells?
    #[must_use]
    pub fn has_schema_of(&self, other: &Self) -> bool {
        (self.user_version, self.application_id, self.schema, self.ledger)
            == (other.user_version, other.application_id, other.schema, other.ledger)
    }

    /// Is every row proven to be the same? A table without a digest proves nothing.
    #[must_use]
    pub fn proves_same_rows_as(&self, other: &Self) -> bool {
        self == other && self.tables.iter().all(|table| table.content.is_some())
    }

    /// Rows in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// The name of one member of a unit.
pub(super) fn member(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies a running service's database with the backup API into `to`, which must not exist. `Err` is SQLite's or ours to
/// tell; the bytes at `to` are then worth nothing. `patience` bounds waiting for locks and starting over under writes.
pub(super) fn back_up(live: &Path, to: &Path, patience: Duration) -> Result<(), rusqlite::Error> {
    let deadline = Instant::now() + patience;
    let source = Connection::open_with_flags(
        live,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // If the service dies meanwhile, closing the last connection must not delete its -wal.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    source.busy_timeout(patience.min(Duration::from_secs(1)))?;
    let journal_mode: String = source.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    // One read transaction in WAL mode disturbs no writer; in the other modes it blocks them, so it is taken in bites.
    let pages = if journal_mode.eq_ignore_ascii_case("wal") { -1 } else { BACKUP_PAGES_PER_STEP };
    let mut target = Connection::open(to)?;
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let backup = Backup::new(&source, &mut target)?;
    loop {
        match backup.step(pages)? {
            StepResult::Done => return Ok(()),
            _ if Instant::now() >= deadline => {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(
                    busy,
                    Some("written to faster than it can be read".into()),
                ));
            }
            _ => std::thread::sleep(BACKUP_PAUSE),
        }
    }
}

/// What an update must not begin with, if a backup failed of it: damage, or a full disk. Anything else only means that the
/// database is copied later.
pub(super) fn fatal(live: &Path, error: &rusqlite::Error) -> Option<Error> {
    match error.sqlite_error_code()? {
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
            Some(Error::Damaged { path: live.to_owned(), report: error.to_string() })
        }
        ErrorCode::DiskFull => {
            let source = std::io::Error::new(std::io::ErrorKind::StorageFull, error.to_string());
            Some(Error::NoSpace { operation: "copy", path: live.to_owned(), source })
        }
        _ => None,
    }
}

/// What a look into the copy of a database came to.
pub(super) struct Inspected {
    /// What it holds, if there is one.
    pub(super) fingerprint: Option<Fingerprint>,
    /// Bytes that were written to look into it.
    pub(super) duplicated: u64,
}

/// Recovers, checks and fingerprints the database whose byte copy is `dir/name`, leaving the copy untouched: read where it
/// lies if nothing needs recovery, else on a duplicate in `scratch` (created and removed). `None` if there is no database
/// file. `declared` is what errors name.
pub(super) fn inspect(dir: &Path, name: &OsStr, scratch: &Path, declared: &Path) -> Result<Inspected, Error> {
    let copy = dir.join(name);
    if !copy.try_exists().map_err(Error::io("read", &copy))? {
        return Ok(Inspected { fingerprint: None, duplicated: 0 });
    }
    let needs_recovery =
        MEMBERS[1..].iter().any(|suffix| fs::metadata(member(&copy, suffix)).is_ok_and(|m| m.len() > 0));
    if !needs_recovery {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        return Connection::open_with_flags(immutable_uri(&copy), flags)
            .map_err(Error::sqlite("open", declared))
            .and_then(|connection| examine(&connection, declared))
            .map(|fingerprint| Inspected { fingerprint: Some(fingerprint), duplicated: 0 });
    }
    make_scratch(scratch)?;
    let mut duplicated = 0;
    for suffix in MEMBERS {
        duplicated += duplicate(&member(&copy, suffix), &member(&scratch.join(name), suffix))?;
    }
    crate::crash_point!("database duplicated");
    let found = recover(&scratch.join(name), declared);
    remove_scratch(scratch)?;
    Ok(Inspected { fingerprint: Some(found?), duplicated })
}

/// Recovers, checks and fingerprints a duplicate that nobody needs afterwards.
pub(super) fn recover(duplicate: &Path, declared: &Path) -> Result<Fingerprint, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(duplicate, flags).map_err(Error::sqlite("open", declared))?;
    connection
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF")
        .map_err(Error::sqlite("open", declared))?;
    examine(&connection, declared)
}

/// Makes an empty directory that only we can look into.
pub(super) fn make_scratch(scratch: &Path) -> Result<(), Error> {
    remove_scratch(scratch)?;
    fs::DirBuilder::new().mode(0o700).create(scratch).map_err(Error::io("create", scratch))
}

pub(super) fn remove_scratch(scratch: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", scratch)(error))
        }
        _ => Ok(()),
    }
}

fn duplicate(from: &Path, to: &Path) -> Result<u64, Error> {
    let source = match File::open(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        opened => opened.map_err(Error::io("open", from))?,
    };
    let target = File::options().read(true).write(true).create_new(true).mode(0o600).open(to);
    let target = target.map_err(Error::io("create", to))?;
    let copied =
        content::copy_into_empty(Named { file: &source, path: from }, Named { file: &target, path: to })?;
    Ok(copied.written)
}

/// A URI that makes SQLite read the file as it is: no locks, no journal, no recovery, no byte written.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                uri.push(char::from(*byte))
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?mode=ro&immutable=1"
}

fn examine(connection: &Connection, declared: &Path) -> Result<Fingerprint, Error> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::Damaged { path: declared.to_owned(), report: error.to_string() }
        }
        _ => Error::sqlite("check", declared)(error),
    };
    let report: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if report != "ok" {
        return Err(Error::Damaged { path: declared.to_owned(), report });
    }
    fingerprint(connection).map_err(failed)
}

fn fingerprint(connection: &Connection) -> Result<Fingerprint, rusqlite::Error> {
    let mut schema = Sha256::new();
    let mut names = Vec::new();
    let mut statement = connection.prepare(
        r"SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'
          ORDER BY type, name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        digest_row(&mut schema, row, 4)?;
        let (kind, name, sql): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(3)?);
        // A virtual table's rows are in its shadow tables, and its module may be unknown here.
        let is_virtual =
            sql.is_some_and(|sql| sql.trim_start().to_ascii_uppercase().starts_with("CREATE VIRTUAL"));
        if kind == "table" && !is_virtual {
            names.push(name);
        }
    }
    let mut ledger = Sha256::new();
    let mut tables = Vec::new();
    let mut budget = CONTENT_BUDGET;
    for name in names {
        let table = table(connection, name, &mut budget)?;
        if is_ledger(&table) {
            ledger.update(table.name.as_bytes());
            ledger.update(table.content.map_or([0; 32], |digest| digest.0));
        }
        tables.push(table);
    }
    Ok(Fingerprint {
        user_version: connection.query_row("PRAGMA user_version", [], |row| row.get(0))?,
        application_id: connection.query_row("PRAGMA application_id", [], |row| row.get(0))?,
        schema: Digest(schema.finalize().into()),
        ledger: Digest(ledger.finalize().into()),
        tables,
    })
}

/// Is this where a service writes down which migrations have run? By the names that migration tools use.
fn is_ledger(table: &Table) -> bool {
    let name = table.name.to_ascii_lowercase();
    let named_so = name.contains("migration")
        || name.contains("schema")
        || ["alembic_version", "db_version", "databasechangelog", "version"].contains(&name.as_str());
    named_so && table.rows <= LEDGER_ROWS_MAX
}

fn table(connection: &Connection, name: String, budget: &mut u64) -> Result<Table, rusqlite::Error> {
    let quoted = name.replace('"', "\"\"");
    if *budget > 0 {
        // NOT INDEXED: rows in the order of the table itself, never of a covering index.
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{quoted}\" NOT INDEXED"))?;
        let columns = statement.column_count();
        let mut content = Sha256::new();
        let mut count = 0;
        let mut rows = statement.query([])?;
        while *budget > 0 {
            let Some(row) = rows.next()? else {
                return Ok(Table { name, rows: count, content: Some(Digest(content.finalize().into())) });
            };
            count += 1;
            *budget = budget.saturating_sub(digest_row(&mut content, row, columns)?);
        }
    }
    let rows: i64 =
        connection.query_row(&format!("SELECT count(*) FROM \"{quoted}\""), [], |row| row.get(0))?;
    Ok(Table { name, rows: rows.unsigned_abs(), content: None })
}

/// Adds a row to a digest, every value with its type and length; returns how many bytes that were.
fn digest_row(into: &mut Sha256, row: &rusqlite::Row<'_>, columns: usize) -> Result<u64, rusqlite::Error> {
    let mut length = 0;
    for column in 0..columns {
        let number;
        let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(value) => {
                number = value.to_le_bytes();
                (1, &number)
            }
            ValueRef::Real(value) => {
                number = value.to_bits().to_le_bytes();
                (2, &number)
            }
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(blob) => (4, blob),
        };
        into.update([kind]);
        into.update((bytes.len() as u64).to_le_bytes());
        into.update(bytes);
        length += 9 + bytes.len() as u64;
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint_of(sql: &str) -> Fingerprint {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        fingerprint(&connection).unwrap()
    }

    #[test]
    fn rows_change_the_content_and_not_the_schema() {
        let empty = fingerprint_of("CREATE TABLE t(a); PRAGMA user_version = 17");
        let filled = fingerprint_of("CREATE TABLE t(a); PRAGMA user_version = 17; INSERT INTO t VALUES (1)");
        assert!(filled.has_schema_of(&empty));
        assert!(!filled.proves_same_rows_as(&empty));
        assert_eq!((empty.rows(), filled.rows()), (0, 1));
    }

    #[test]
    fn a_migration_shows_whether_or_not_it_tells_its_version() {
        let before = fingerprint_of("CREATE TABLE t(a)");
        for migrated in [
            "CREATE TABLE t(a, b)",
            "CREATE TABLE t(a); CREATE INDEX i ON t(a)",
            "CREATE TABLE t(a); PRAGMA user_version = 1",
            "CREATE TABLE t(a); PRAGMA application_id = 1",
        ] {
            assert!(!fingerprint_of(migrated).has_schema_of(&before), "{migrated}");
        }
        let ledger = "CREATE TABLE t(a); CREATE TABLE _prisma_migrations(id); INSERT INTO _prisma_migrations VALUES (1);";
        let more = format!("{ledger} INSERT INTO _prisma_migrations VALUES (2)");
        assert!(!fingerprint_of(ledger).has_schema_of(&fingerprint_of(&more)));
    }

    #[test]
    fn statistics_that_a_service_gathers_are_no_migration() {
        let sql = "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1)";
        assert!(fingerprint_of(&format!("{sql}; ANALYZE")).proves_same_rows_as(&fingerprint_of(sql)));
    }

    #[test]
    fn a_number_is_not_the_text_that_looks_like_it() {
        let number = fingerprint_of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
        let text = fingerprint_of("CREATE TABLE t(a); INSERT INTO t VALUES ('1')");
        assert!(!number.proves_same_rows_as(&text));
    }

    #[test]
    fn a_table_beyond_the_budget_is_counted_and_proves_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES (1), (2), (3)")
            .unwrap();
        let mut budget = 20;
        let first = table(&connection, "a".into(), &mut budget).unwrap();
        let second = table(&connection, "b".into(), &mut budget).unwrap();
        assert_eq!((first.rows, first.content, second.rows, second.content), (3, None, 0, None));
    }
}

//! The gateway's own data: rows in an SQLite file, with a schema version that a release may raise and never lower.

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The database's name below the state directory.
const FILE: &str = "state.db";

/// Why the state could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("make state directory {}", .path.display())]
    MakeDirectory { path: PathBuf, source: io::Error },
    #[error("open {}", .path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("state has schema {found}, this version knows up to {known}")]
    NewerSchema { found: u32, known: u32 },
    #[error("migrate state to schema {to}")]
    Migrate { to: u32, source: rusqlite::Error },
    #[error("add a row")]
    Add { source: rusqlite::Error },
    #[error("count the rows")]
    Count { source: rusqlite::Error },
    #[error("state is closed: the service stops")]
    Closed,
}

/// What `/state` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    schema: u32,
    rows: u64,
    last_id: i64,
    last_text: Option<String>,
}

/// An open state; closed once, by a stop.
#[derive(Debug)]
pub(crate) struct State(Mutex<Option<Connection>>);

impl State {
    /// Opens or makes the state below `directory` and brings it to the schema `known`.
    pub(crate) fn open(directory: &Path, known: u32) -> Result<Self, Error> {
        std::fs::create_dir_all(directory)
            .map_err(|source| Error::MakeDirectory { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        let mut connection = connect(&path).map_err(|source| Error::Open { path: path.clone(), source })?;
        let found = schema(&connection).map_err(|source| Error::Open { path, source })?;
        if found > known {
            return Err(Error::NewerSchema { found, known });
        }
        for to in found + 1..=known {
            migrate(&mut connection, to).map_err(|source| Error::Migrate { to, source })?;
        }
        Ok(Self(Mutex::new(Some(connection))))
    }

    /// Adds a row; it is durable when this returns.
    pub(crate) fn add(&self, text: &str) -> Result<Summary, Error> {
        self.with(|connection| {
            connection
                .execute("INSERT INTO entries (text) VALUES (?1)", [text])
                .map_err(|source| Error::Add { source })?;
            summarise(connection)
        })
    }

    pub(crate) fn summary(&self) -> Result<Summary, Error> {
        self.with(summarise)
    }

    /// Closes the database, which folds its log into the file.
    pub(crate) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn with<T>(&self, act: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(guard.as_ref().ok_or(Error::Closed)?)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn schema(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Schema 1 makes the table; each later one changes every row, so that old code on new state would be noticed.
fn migrate(connection: &mut Connection, to: u32) -> rusqlite::Result<()> {
    let change = match to {
        1 => "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);".to_owned(),
        _ => format!(
            "ALTER TABLE entries ADD COLUMN schema_{to} TEXT; UPDATE entries SET schema_{to} = text || ' ({to})';"
        ),
    };
    let transaction = connection.transaction()?;
    transaction.execute_batch(&change)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}

fn summarise(connection: &Connection) -> Result<Summary, Error> {
    let read = || -> rusqlite::Result<Summary> {
        let schema = schema(connection)?;
        let (rows, last_id): (i64, i64) =
            connection.query_row("SELECT count(*), coalesce(max(id), 0) FROM entries", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let last_text = connection
            .query_row("SELECT text FROM entries WHERE id = ?1", [last_id], |row| row.get(0))
            .map(Some)
            .or_else(
                |error| if error == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(error) },
            )?;
        Ok(Summary { schema, rows: rows.unsigned_abs(), last_id, last_text })
    };
    read().map_err(|source| Error::Count { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_a_migration_and_older_code_refuses_the_result() {
        let area = tempfile::tempdir().unwrap();
        let directory = area.path().join("deep/state");
        let first = State::open(&directory, 1).unwrap();
        first.add("one").unwrap();
        first.close();
        assert!(matches!(first.add("late"), Err(Error::Closed)));

        let second = State::open(&directory, 3).unwrap();
        let summary = second.add("two").unwrap();
        assert_eq!(summary, Summary { schema: 3, rows: 2, last_id: 2, last_text: Some("two".into()) });
        second.close();

        let refusal = State::open(&directory, 2).unwrap_err();
        assert!(matches!(refusal, Error::NewerSchema { found: 3, known: 2 }));
    }
}

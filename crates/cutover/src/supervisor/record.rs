//! What is written in the directory of one instance.
//!
//! `spec.json` what to start · `keeper.json` who keeps it · `instance.json` who it is and what was executed, durable before
//! that happens · `exit.json` how it ended. Each appears whole or not at all and is durable when the writing returns.
//! Knows the files. Must not know who writes them when.

use super::account::Identity;
use super::error::Error;
use cutover_core::{FileIdentity, Generation, Instance};
use rustix::fs::Mode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) const SPEC: &str = "spec.json";
pub(super) const KEEPER: &str = "keeper.json";
pub(super) const INSTANCE: &str = "instance.json";
pub(super) const EXIT: &str = "exit.json";
pub(super) const KEEPER_LOG: &str = "keeper.log";

/// What to start, and as whom. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Launch {
    /// The program; no search path is consulted.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its whole environment: nothing is inherited. `CUTOVER_NONCE` is added; what belongs to the daemon's own service
    /// manager (`NOTIFY_SOCKET`, `LISTEN_FDS` and the like) is left out.
    pub env: BTreeMap<String, String>,
    /// As whom; `None` as the daemon.
    pub identity: Option<Identity>,
    /// The file that makes this process the generation's: the script of an interpreter, else the program.
    pub entry: PathBuf,
    /// The generation that the entry file is in.
    pub generation: Generation,
    /// Marks the process and everything that it starts; must be new for each start.
    pub nonce: String,
    /// Where its output goes.
    pub log: LogFile,
}

/// A file that output goes to, with its older siblings `….1`, `….2`, ….
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFile {
    /// The newest file.
    pub path: PathBuf,
    /// Size of one file at most, in bytes.
    pub size_max: u64,
    /// How many files there are at most, the newest included.
    pub files_max: u32,
}

impl LogFile {
    /// The usual limits: 10 MiB in each of 5 files.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, size_max: 10 * 1024 * 1024, files_max: 5 }
    }
}

/// A point in time on both clocks: the wall's for people, the boot's for durations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Wall time.
    pub wall: jiff::Timestamp,
    /// Milliseconds on the boot-time clock.
    pub boot_ms: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { wall: jiff::Timestamp::now(), boot_ms: cutover_intent::boot_time_ms() }
    }
}

/// `spec.json`: the order to a keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) at: Moment,
    pub(super) launch: Launch,
}

/// `keeper.json`: who keeps the instance. Durable before the keeper says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeeperRecord {
    /// The keeper.
    pub keeper: Instance,
}

/// `instance.json`: who the service's process is and what it executes. Durable before it executes anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRecord {
    /// The process.
    pub instance: Instance,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory, free of links: what the process's own link must say.
    pub cwd: PathBuf,
    /// Path of the entry file.
    pub entry: PathBuf,
    /// The entry file as it was just before it was executed.
    pub entry_file: FileIdentity,
    /// The generation that it belongs to.
    pub generation: Generation,
    /// The mark on it and on all that it starts.
    pub nonce: String,
    /// When it was let go.
    pub at: Moment,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never began: the program could not be executed.
    ExecFailed {
        /// Why not.
        why: String,
    },
    /// Nobody saw it. A missing fact, not an exit without an error.
    Unknown {
        /// Why nobody did.
        why: String,
    },
}

/// `exit.json`: how the instance ended, as its keeper saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// The process.
    pub instance: Instance,
    /// Its end.
    pub exit: Exit,
    /// When it was seen.
    pub at: Moment,
    /// Bytes of output that the log could not take.
    pub log_bytes_dropped: u64,
}

/// Reads a record; `None` if it was never written.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, Error> {
    let path = directory.join(name);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| Error::Parse { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Reads a record that must be there.
pub(super) fn expect<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T, Error> {
    let missing = || Error::Read { path: directory.join(name), source: io::ErrorKind::NotFound.into() };
    read(directory, name)?.ok_or_else(missing)
}

/// Writes a record, 0600, durable on return.
pub(super) fn write(directory: &Path, name: &str, record: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(record).expect("a record is plain data");
    let failed = |source| Error::Write { path: directory.join(name), source };
    let unfinished = unfinished(directory, name).map_err(failed)?;
    (&unfinished).write_all(&text).map_err(failed)?;
    publish(directory, name, &unfinished).map_err(failed)
}

/// The room that an exit record needs, taken while there is some: a full disk must not cost the exit code.
#[derive(Debug)]
pub(super) struct Reserved {
    directory: PathBuf,
    file: File,
}

/// A record with the longest explanation that [`Reserved::fill`] lets through.
const RESERVED: usize = 4096;
const WHY_MAX: usize = 2048;

impl Reserved {
    pub(super) fn exit_in(directory: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: directory.join(EXIT), source };
        let file = unfinished(directory, EXIT).map_err(failed)?;
        (&file).write_all(&[b' '; RESERVED]).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), file })
    }

    /// Writes the record into its room. White space up to the end of the room is part of the file.
    pub(super) fn fill(self, mut record: ExitRecord) -> Result<(), Error> {
        if let Exit::ExecFailed { why } | Exit::Unknown { why } = &mut record.exit {
            why.truncate(why.floor_char_boundary(WHY_MAX));
        }
        let failed = |source| Error::Write { path: self.directory.join(EXIT), source };
        let text = serde_json::to_vec(&record).expect("a record is plain data");
        self.file.write_all_at(&text, 0).map_err(failed)?;
        publish(&self.directory, EXIT, &self.file).map_err(failed)
    }
}

fn unfinished(directory: &Path, name: &str) -> io::Result<File> {
    let mode = (Mode::RUSR | Mode::WUSR).bits();
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(new_name(directory, name))
}

fn publish(directory: &Path, name: &str, file: &File) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(new_name(directory, name), directory.join(name))?;
    sync_directory(directory)
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn new_name(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        cutover_intent::identity::instance(std::process::id()).unwrap()
    }

    #[test]
    fn a_record_that_was_never_written_is_told_from_one_that_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read::<KeeperRecord>(directory.path(), KEEPER).unwrap().is_none());
        std::fs::write(directory.path().join(KEEPER), "").unwrap();
        assert!(matches!(read::<KeeperRecord>(directory.path(), KEEPER), Err(Error::Parse { .. })));
        let record = KeeperRecord { keeper: instance() };
        write(directory.path(), KEEPER, &record).unwrap();
        assert_eq!(read(directory.path(), KEEPER).unwrap(), Some(record));
    }

    #[test]
    fn the_exit_record_fits_its_room_with_any_explanation() {
        let directory = tempfile::tempdir().unwrap();
        for why in ["", "\u{1f4a5}".repeat(3000).as_str(), "\"".repeat(3000).as_str()] {
            let reserved = Reserved::exit_in(directory.path()).unwrap();
            let exit = Exit::ExecFailed { why: why.into() };
            let record =
                ExitRecord { instance: instance(), exit, at: Moment::now(), log_bytes_dropped: u64::MAX };
            reserved.fill(record).unwrap();
            let found: ExitRecord = expect(directory.path(), EXIT).unwrap();
            assert_eq!(found.log_bytes_dropped, u64::MAX);
            assert!(matches!(found.exit, Exit::ExecFailed { why: told } if why.starts_with(&told)));
        }
    }
}

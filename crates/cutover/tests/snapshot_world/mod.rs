//! A service's state on a real disk, and an independent reading of it.

#![allow(dead_code, reason = "each test target uses its own part of this world")]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "this is test code, though not in a function marked as a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use cutover::store::snapshot::{Moment, StateKind, StatePath};
use cutover_core::BootId;
use rusqlite::Connection;

/// What lies at every path: kind and mode, then bytes or target. A database's `-shm` is nothing.
pub type Tree = BTreeMap<PathBuf, (u32, Bytes)>;

#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:?}", self.0.len(), String::from_utf8_lossy(&self.0[..self.0.len().min(24)]))
    }
}

pub struct World {
    pub base: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// An empty world in memory, where there is such a place: the death of a process is the same there, and syncing is
    /// not waited for.
    pub fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("live")).unwrap();
        Self { base, _dir: Some(dir) }
    }

    /// The world of another process.
    pub fn at(base: &Path) -> Self {
        Self { base: base.to_owned(), _dir: None }
    }

    pub fn live(&self, name: &str) -> PathBuf {
        self.base.join("live").join(name)
    }

    pub fn snapshot_dir(&self) -> PathBuf {
        self.base.join("service/snapshots/run-1")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.live(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Everything in the directory of live state.
    pub fn tree(&self) -> Tree {
        tree(&self.base.join("live"))
    }

    /// State of every kind: a directory with files, a link and a database inside, a database of its own, a single file,
    /// and a path at which nothing is.
    pub fn fill_as_version_17(&self) -> Vec<StatePath> {
        self.write("web/config.json", br#"{"version":17,"name":"caf\u00e9"}"#);
        self.write("web/sessions/one.jsonl", "{}\n");
        fs::set_permissions(self.live("web/sessions"), fs::Permissions::from_mode(0o2710)).unwrap();
        fs::set_permissions(self.live("web/config.json"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("sessions/one.jsonl", self.live("web/latest")).unwrap();
        create_17(&self.live("web/app.db"));
        create_17(&self.live("jobs.db"));
        // Half of what it holds is only in its -wal.
        write_and_die(&self.live("jobs.db"), "INSERT INTO job(name) VALUES ('third')");
        self.write("stamp", "17");
        self.state()
    }

    /// How that state is declared.
    pub fn state(&self) -> Vec<StatePath> {
        vec![
            files(&self.live("web")),
            sqlite(&self.live("web/app.db")),
            sqlite(&self.live("jobs.db")),
            files(&self.live("stamp")),
            files(&self.live("absent")),
        ]
    }

    /// What a target does that is never heard of again: it migrates, adds, deletes, and dies with its log unmerged.
    pub fn migrate_to_18(&self) {
        migrate_and_die(&self.live("web/app.db"));
        migrate_and_die(&self.live("jobs.db"));
        self.write("web/config.json", br#"{"version":18}"#);
        self.write("web/new/deep/file", "made by 18");
        fs::remove_file(self.live("web/latest")).unwrap();
        self.write("stamp", "18");
        self.write("absent/now/there", "18");
    }
}

pub fn files(path: &Path) -> StatePath {
    StatePath { path: path.to_owned(), kind: StateKind::Files }
}

pub fn sqlite(path: &Path) -> StatePath {
    StatePath { path: path.to_owned(), kind: StateKind::Sqlite }
}

/// Now: what was just written is not to be believed.
pub fn now() -> Moment {
    Moment { boot_id: BootId("boot-1".into()), at: jiff::Timestamp::now() }
}

/// A while after everything that was written so far.
pub fn later() -> Moment {
    let moment = now();
    Moment { at: moment.at + std::time::Duration::from_secs(60), ..moment }
}

pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let bytes = if meta.is_file() {
            fs::read(entry.path()).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if !entry.path().as_os_str().as_encoded_bytes().ends_with(b"-shm") {
            found.insert(entry.path().strip_prefix(root).unwrap().to_owned(), (meta.mode(), Bytes(bytes)));
        }
    }
    found
}

/// Those entries of a tree that are, or lie in, one of `names`.
pub fn only(tree: &Tree, names: &[&str]) -> Tree {
    tree.iter()
        .filter(|(path, _)| names.iter().any(|name| path.starts_with(name)))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn create_17(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA user_version = 17;
             CREATE TABLE job(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO job(name) VALUES ('first'), ('second');",
        )
        .unwrap();
}

/// Migrates and leaves a `-wal` behind, as a killed process does.
fn migrate_and_die(path: &Path) {
    write_and_die(
        path,
        "PRAGMA user_version = 18; ALTER TABLE job ADD COLUMN state TEXT; INSERT INTO job(name) VALUES ('of 18');",
    );
}

/// Runs `sql` and leaves the files as they are in the middle of things.
pub fn write_and_die(path: &Path, sql: &str) {
    let aside = tempfile::tempdir_in(path.parent().unwrap().ancestors().nth(1).unwrap()).unwrap();
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0;").unwrap();
    connection.execute_batch(sql).unwrap();
    let names: Vec<PathBuf> = ["", "-wal", "-journal"].iter().map(|suffix| with(path, suffix)).collect();
    for name in names.iter().filter(|name| name.exists()) {
        fs::copy(name, aside.path().join(name.file_name().unwrap())).unwrap();
    }
    drop(connection);
    for name in &names {
        let copy = aside.path().join(name.file_name().unwrap());
        match copy.exists() {
            true => drop(fs::copy(&copy, name).unwrap()),
            false => drop(fs::remove_file(name)),
        }
    }
}

pub fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads one number from a duplicate of a database, so that the database itself stays unopened.
pub fn query(path: &Path, sql: &str) -> i64 {
    let aside = tempfile::tempdir_in(path.parent().unwrap().ancestors().nth(1).unwrap()).unwrap();
    let copy = aside.path().join("db");
    for suffix in ["", "-wal", "-journal"] {
        if with(path, suffix).exists() {
            fs::copy(with(path, suffix), with(&copy, suffix)).unwrap();
        }
    }
    Connection::open(&copy).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A child process of this very test binary that runs its ignored test `child`; killed when dropped.
pub struct Running {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that begins with `prefix`; what follows it.
    pub fn line(&mut self, prefix: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "the child ended without saying {prefix}"
            );
            // The test harness may have begun the line.
            if let Some((_, rest)) = line.split_once(prefix) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Waits for its end; what it said, what it complained of, and how it ended.
    pub fn finish(mut self) -> (String, String, ExitStatus) {
        let output = std::io::read_to_string(&mut self.lines).unwrap();
        let errors = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        (output, errors, self.child.wait().unwrap())
    }

    /// Kills it; the last commit that it acknowledged since its last line was read, or 0.
    pub fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let lines = std::io::read_to_string(&mut self.lines).unwrap();
        let last = lines.lines().rev().find_map(|line| line.strip_prefix("committed ")?.parse().ok());
        last.unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

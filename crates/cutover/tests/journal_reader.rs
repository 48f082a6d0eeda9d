//! Reading the journal from outside of the daemon: while it runs, when it is dead, and without write access.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::journal::{Error, Journal, NewEntry, Reader, Seq, Settings, Stamp};
use cutover_core::BootId;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BUSY: Duration = Duration::from_secs(5);
const CHILD: &str = "CUTOVER_TEST_READ_JOURNAL";

fn open(path: &Path) -> Journal {
    Journal::open(path, &Settings { balloon_bytes: 4096, busy_limit: BUSY }).unwrap()
}

fn append(journal: &mut Journal, number: u64) {
    let entry = NewEntry {
        service: "web".to_owned(),
        run: None,
        at: Stamp { wall_ms: 0, boot_id: BootId("boot".to_owned()), boot_ms: number },
        event: "{}".to_owned(),
        step_version: 1,
        state_hash: String::new(),
    };
    journal.append(&entry).unwrap();
}

fn count(path: &Path) -> usize {
    Reader::open(path, BUSY).unwrap().entries("web", Seq::START).unwrap().len()
}

fn in_dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // An odd name, so that a reader's path is never taken for a pattern of something else.
    let path = dir.path().join("a ?b#c%20").join("journal.sqlite");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    (dir, path)
}

#[test]
fn a_reader_sees_each_append_while_the_writer_goes_on() {
    let (_dir, path) = in_dir();
    let mut journal = open(&path);
    append(&mut journal, 1);
    let reader = Reader::open(&path, BUSY).unwrap();
    assert_eq!(reader.entries("web", Seq::START).unwrap().len(), 1);
    append(&mut journal, 2);
    assert_eq!(reader.entries("web", Seq::START).unwrap().len(), 2);
    assert_eq!(count(&path), 2);
}

#[test]
fn a_reader_works_after_the_writer_closed_the_journal() {
    let (_dir, path) = in_dir();
    let mut journal = open(&path);
    append(&mut journal, 1);
    drop(journal);
    assert_eq!(count(&path), 1);
}

#[test]
fn a_missing_journal_and_one_without_tables_are_absent_and_stay_so() {
    let (_dir, path) = in_dir();
    let absent = Reader::open(&path, BUSY).map(drop).unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }), "{absent:?}");
    assert!(!path.exists());
    std::fs::write(&path, "").unwrap();
    let absent = Reader::open(&path, BUSY).map(drop).unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }), "{absent:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

/// Copies the files as a killed writer leaves them: everything acknowledged is in the log, nothing was checkpointed.
fn as_left_by_a_kill(from: &Path, to: &Path, suffixes: &[&str]) -> PathBuf {
    std::fs::create_dir(to).unwrap();
    let copy = to.join("journal.sqlite");
    for suffix in suffixes {
        let mut name = from.as_os_str().to_owned();
        name.push(suffix);
        let mut target = copy.as_os_str().to_owned();
        target.push(suffix);
        std::fs::copy(&name, &target).unwrap();
        // World-readable, as an operator may have made it, so that the account below may read at all.
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    copy
}

#[test]
fn a_log_without_its_shared_index_is_recovered_by_a_reader() {
    let (dir, path) = in_dir();
    let mut journal = open(&path);
    append(&mut journal, 1);
    append(&mut journal, 2);
    let copy = as_left_by_a_kill(&path, &dir.path().join("copy"), &["", "-wal"]);
    assert_eq!(count(&copy), 2);
}

/// What this test binary says about a journal when it runs as somebody who cannot write the directory.
fn read_without_write_access(path: &Path) -> String {
    let dir = path.parent().unwrap();
    let exe = std::env::current_exe().unwrap();
    let exe_copy = dir.parent().unwrap().join("reader");
    std::fs::copy(exe, &exe_copy).unwrap();
    std::fs::set_permissions(dir.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = Command::new(&exe_copy);
    command.args(["--exact", "without_write_access_a_reader_never_hides_entries", "--nocapture"]);
    command.env(CHILD, path);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let at = said.find("answer: ").unwrap_or_else(|| panic!("no answer in {said}"));
    said[at + 8..].lines().next().unwrap().to_owned()
}

#[test]
fn without_write_access_a_reader_never_hides_entries() {
    if let Some(path) = std::env::var_os(CHILD) {
        match Reader::open(Path::new(&path), BUSY).and_then(|reader| reader.entries("web", Seq::START)) {
            Ok(entries) => println!("answer: {} entries", entries.len()),
            Err(error) => println!("answer: {error:?}"),
        }
        return;
    }
    let (dir, path) = in_dir();
    let mut journal = open(&path);
    append(&mut journal, 1);
    append(&mut journal, 2);

    let live = as_left_by_a_kill(&path, &dir.path().join("live"), &["", "-wal", "-shm"]);
    assert_eq!(read_without_write_access(&live), "2 entries");

    let no_index = as_left_by_a_kill(&path, &dir.path().join("no-index"), &["", "-wal"]);
    let answer = read_without_write_access(&no_index);
    assert!(answer == "2 entries" || answer.starts_with("WalUnreadable"), "{answer}");

    drop(journal);
    let closed = as_left_by_a_kill(&path, &dir.path().join("closed"), &[""]);
    assert_eq!(read_without_write_access(&closed), "2 entries");
}

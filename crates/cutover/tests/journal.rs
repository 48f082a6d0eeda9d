//! The journal's promises on a real file.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::journal::{Error, Journal, NewEntry, Reader, Seq, Settings, Stamp};
use cutover_core::{BootId, RunId};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSY: Duration = Duration::from_secs(5);

fn settings() -> Settings {
    Settings { balloon_bytes: 64 * 1024, busy_limit: BUSY }
}

fn entry(service: &str, run: Option<&str>, number: u32) -> NewEntry {
    NewEntry {
        service: service.to_owned(),
        run: run.map(|run| RunId(run.to_owned())),
        at: Stamp {
            wall_ms: 1_700_000_000_000 + i64::from(number),
            boot_id: BootId("boot-a".to_owned()),
            boot_ms: u64::from(number),
        },
        event: format!(r#"{{"number":{number}}}"#),
        step_version: 3,
        state_hash: format!("hash-{number}"),
    }
}

fn in_dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.sqlite");
    (dir, path)
}

#[test]
fn what_was_appended_is_read_back_in_order_by_service_and_by_run() {
    let (_dir, path) = in_dir();
    let mut journal = Journal::open(&path, &settings()).unwrap();
    let first = journal.append(&entry("web", Some("r1"), 1)).unwrap();
    journal.append(&entry("mail", Some("r2"), 2)).unwrap();
    let third = journal.append(&entry("web", Some("r1"), 3)).unwrap();
    journal.append(&entry("web", None, 4)).unwrap();
    journal.append(&entry("web", Some("r3"), 5)).unwrap();
    drop(journal);

    let journal = Journal::open(&path, &settings()).unwrap();
    let web = journal.read().entries("web", Seq::START).unwrap();
    assert_eq!(web.iter().map(|entry| entry.at.boot_ms).collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(journal.read().entries("web", third).unwrap(), web[2..]);
    let expected = entry("web", Some("r1"), 1);
    assert_eq!(
        (web[0].seq, &web[0].service, &web[0].run, &web[0].at, &web[0].event, &web[0].state_hash),
        (first, &expected.service, &expected.run, &expected.at, &expected.event, &expected.state_hash)
    );
    assert_eq!(web[0].step_version, 3);
    assert_eq!(journal.read().entries_of_run(&RunId("r1".into())).unwrap(), web[..2]);
    assert_eq!(journal.read().entries_of_run(&RunId("r9".into())).unwrap(), []);
    assert_eq!(journal.read().services().unwrap(), ["mail", "web"]);
    let runs = journal.read().runs("web", 10).unwrap();
    assert_eq!(runs.iter().map(|span| span.run.0.as_str()).collect::<Vec<_>>(), ["r3", "r1"]);
    assert_eq!((runs[1].first, runs[1].last), (first, third));
    assert_eq!(runs[1].last_wall_ms - runs[1].first_wall_ms, 2);
    assert_eq!(journal.read().runs("web", 1).unwrap(), runs[..1]);
}

#[test]
fn a_checkpoint_stands_at_the_entry_it_was_appended_with_and_only_the_last_is_kept() {
    let (_dir, path) = in_dir();
    let mut journal = Journal::open(&path, &settings()).unwrap();
    assert_eq!(journal.read().checkpoint("web").unwrap(), None);
    journal.append_with_checkpoint(&entry("web", None, 1), r#"{"state":1}"#).unwrap();
    let second = journal.append_with_checkpoint(&entry("web", None, 2), r#"{"state":2}"#).unwrap();
    journal.append(&entry("web", None, 3)).unwrap();
    let found = journal.read().checkpoint("web").unwrap().unwrap();
    assert_eq!((found.seq, found.state.as_str()), (second, r#"{"state":2}"#));
    assert_eq!((found.step_version, found.state_hash.as_str()), (3, "hash-2"));
    assert_eq!(journal.read().entries("web", found.seq).unwrap().len(), 1);
    assert_eq!(journal.read().checkpoint("mail").unwrap(), None);
}

#[test]
fn an_entry_whose_checkpoint_is_refused_is_not_appended_either() {
    let (_dir, path) = in_dir();
    let mut journal = Journal::open(&path, &settings()).unwrap();
    let refused = journal.append_with_checkpoint(&entry("web", None, 1), "not json");
    assert!(matches!(refused, Err(Error::Append { .. })), "{refused:?}");
    let mut bad = entry("web", None, 2);
    bad.event = "{".to_owned();
    assert!(matches!(journal.append(&bad), Err(Error::Append { .. })));
    assert_eq!(journal.read().entries("web", Seq::START).unwrap(), []);
    assert_eq!(journal.read().checkpoint("web").unwrap(), None);
    journal.append(&entry("web", None, 3)).unwrap();
}

#[test]
fn the_files_are_the_owners_alone_even_if_they_were_not_before() {
    let (dir, path) = in_dir();
    drop(Journal::open(&path, &settings()).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut journal = Journal::open(&path, &settings()).unwrap();
    journal.append(&entry("web", None, 1)).unwrap();
    let mut names = Vec::new();
    for found in std::fs::read_dir(dir.path()).unwrap() {
        let found = found.unwrap();
        let mode = found.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", found.path().display());
        names.push(found.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["journal.balloon", "journal.sqlite", "journal.sqlite-shm", "journal.sqlite-wal"];
    assert_eq!(names, expected);
}

#[test]
fn the_balloon_is_kept_across_openings_and_made_again_on_demand() {
    let (dir, path) = in_dir();
    let balloon = dir.path().join("journal.balloon");
    let mut journal = Journal::open(&path, &settings()).unwrap();
    assert!(journal.has_room());
    std::fs::remove_file(&balloon).unwrap();
    assert!(!journal.has_room());
    journal.reserve().unwrap();
    assert!(journal.has_room());
    drop(journal);
    std::fs::write(&balloon, "shrunk").unwrap();
    let journal = Journal::open(&path, &settings()).unwrap();
    assert!(journal.has_room());
    assert_eq!(std::fs::metadata(&balloon).unwrap().len(), settings().balloon_bytes);
}

fn sql(path: &Path, statement: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(statement).unwrap();
}

#[test]
fn r28_a_newer_schema_is_refused_unchanged_and_says_what_to_do() {
    let (_dir, path) = in_dir();
    drop(Journal::open(&path, &settings()).unwrap());
    sql(&path, "PRAGMA user_version = 99");
    let before = std::fs::read(&path).unwrap();
    for error in [
        Journal::open(&path, &settings()).map(drop).unwrap_err(),
        Reader::open(&path, BUSY).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("install the newer cutover again"));
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn r28_a_file_that_is_no_journal_is_refused_unchanged() {
    let (dir, path) = in_dir();
    let text = "this is not a database, it is a letter to the operator\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let foreign = dir.path().join("foreign.sqlite");
    sql(&foreign, "CREATE TABLE accounts (name)");
    for path in [&path, &foreign] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let before = std::fs::read(path).unwrap();
        let refused = Journal::open(path, &settings()).map(drop).unwrap_err();
        assert!(matches!(refused, Error::NotAJournal { .. }), "{refused:?}");
        assert!(refused.to_string().contains("move it"), "{refused}");
        let refused = Reader::open(path, BUSY).map(drop).unwrap_err();
        assert!(matches!(refused, Error::NotAJournal { .. }), "{refused:?}");
        assert_eq!(std::fs::read(path).unwrap(), before);
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn a_damaged_journal_is_told_from_a_healthy_one() {
    let (_dir, path) = in_dir();
    let mut journal = Journal::open(&path, &settings()).unwrap();
    for number in 0..200 {
        journal.append(&entry("web", Some("r1"), number)).unwrap();
    }
    journal.read().check_integrity().unwrap();
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 64].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let damaged = Reader::open(&path, BUSY).and_then(|reader| reader.check_integrity());
    assert!(matches!(damaged, Err(Error::Damaged { .. } | Error::Read { .. })), "{damaged:?}");
}

#[test]
fn a_journal_in_a_directory_that_is_not_there_is_an_error_with_its_path() {
    let error = Journal::open(Path::new("/nonexistent/journal.sqlite"), &settings()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Make { .. }));
    assert!(error.to_string().contains("/nonexistent/journal.sqlite"));
}

#[test]
fn another_programs_lock_is_waited_for_only_within_the_limit() {
    let (_dir, path) = in_dir();
    let short = Settings { busy_limit: Duration::from_millis(50), ..settings() };
    let mut journal = Journal::open(&path, &short).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(journal.append(&entry("web", None, 1)), Err(Error::Append { .. })));
    other.execute_batch("ROLLBACK").unwrap();
    journal.append(&entry("web", None, 2)).unwrap();
    assert!(journal.has_room(), "waiting for a lock must not cost the reserve");
}

//! The intent file against a real directory.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use cutover_intent::{
    Instance, Intent, Owner, Receiver, Refusal, RunId, Withdrawal, boot_time_ms, consume, issue,
    prepare_directory, withdraw,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

struct Place {
    directory: tempfile::TempDir,
    file: PathBuf,
    receiver: Receiver,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("web");
        prepare_directory(&own, None).unwrap();
        Self { file: own.join("intent.json"), directory, receiver: Receiver::current().unwrap() }
    }

    fn intent(&self) -> Intent {
        let instance = self.receiver.instance.clone();
        Intent::from_now(RunId("run-1".into()), "nonce-1".into(), "web".into(), instance)
    }

    fn issue(&self, intent: &Intent) {
        issue(&self.file, intent, None).unwrap();
    }

    fn consume(&self) -> Result<Intent, Refusal> {
        consume(&self.file, &self.receiver)
    }

    /// Every refusal must leave an empty directory in which the next, legitimate intent is accepted.
    fn nothing_blocks_the_next(&self) {
        assert_eq!(left_in(self.file.parent().unwrap()), Vec::<String>::new());
        let good = self.intent();
        self.issue(&good);
        assert_eq!(self.consume().unwrap(), good);
    }

    fn write(&self, text: &str, mode: u32) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn left_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_intent_is_consumed_once_and_a_replay_is_refused() {
    let place = Place::new();
    let intent = place.intent();
    place.issue(&intent);
    assert_eq!(place.consume().unwrap(), intent);
    assert!(matches!(place.consume(), Err(Refusal::Absent { .. })));
    place.nothing_blocks_the_next();
}

#[test]
fn of_many_receivers_at_once_exactly_one_succeeds() {
    let place = Place::new();
    for _ in 0..50 {
        place.issue(&place.intent());
        let accepted: usize = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| usize::from(place.consume().is_ok()))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(accepted, 1);
    }
    assert_eq!(left_in(place.file.parent().unwrap()), Vec::<String>::new());
}

#[test]
fn a_stray_signal_without_an_intent_is_refused_and_a_following_restart_works() {
    let place = Place::new();
    assert!(matches!(place.consume(), Err(Refusal::Absent { .. })));
    place.nothing_blocks_the_next();
    let nowhere = place.directory.path().join("no/such/intent.json");
    assert!(matches!(consume(&nowhere, &place.receiver), Err(Refusal::Absent { .. })));
}

#[test]
fn an_issued_file_is_small_private_and_its_owners() {
    let place = Place::new();
    place.issue(&place.intent());
    let found = fs::symlink_metadata(&place.file).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o600);
    assert_eq!(found.uid(), place.receiver.uid);
    assert!(found.len() <= 1024);
    let directory = fs::symlink_metadata(place.file.parent().unwrap()).unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o700);
    let text = fs::read_to_string(&place.file).unwrap();
    for key in ["\"version\":1", "\"runId\":", "\"nonce\":", "\"service\":", "\"startTime\":", "\"bootId\":"]
    {
        assert!(text.contains(key), "{key} in {text}");
    }
}

#[test]
fn an_intent_for_another_process_is_refused() {
    let place = Place::new();
    let own = place.receiver.instance.clone();
    let others = [
        Instance { pid: own.pid + 1, ..own.clone() },
        Instance { start_time: own.start_time + 1, ..own.clone() },
        Instance { boot_id: cutover_intent::BootId("another".into()), ..own },
    ];
    for instance in others {
        place.issue(&Intent { instance: instance.clone(), ..place.intent() });
        match place.consume() {
            Err(Refusal::WrongInstance { named }) => assert_eq!(named, instance),
            other => panic!("{other:?}"),
        }
        place.nothing_blocks_the_next();
    }
}

#[test]
fn an_expired_intent_is_refused() {
    let place = Place::new();
    place.issue(&Intent { expires_at_ms: boot_time_ms(), ..place.intent() });
    assert!(matches!(place.consume(), Err(Refusal::Expired { .. })));
    place.nothing_blocks_the_next();
}

#[test]
fn an_intent_that_claims_more_than_its_lifetime_is_refused() {
    let place = Place::new();
    place.issue(&Intent { expires_at_ms: boot_time_ms() + 120_000, ..place.intent() });
    assert!(matches!(place.consume(), Err(Refusal::LivesTooLong { .. })));
    place.nothing_blocks_the_next();
}

#[test]
fn a_symbolic_link_is_refused_and_its_target_untouched() {
    let place = Place::new();
    let target = place.directory.path().join("target.json");
    issue(&target, &place.intent(), None).unwrap();
    symlink(&target, &place.file).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::Link)));
    assert!(target.exists());
    place.nothing_blocks_the_next();
}

#[test]
fn a_hard_linked_file_is_refused() {
    let place = Place::new();
    let other_name = place.directory.path().join("other.json");
    issue(&other_name, &place.intent(), None).unwrap();
    fs::hard_link(&other_name, &place.file).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::HardLinked { links: 2 })));
    place.nothing_blocks_the_next();
}

#[test]
fn every_mode_but_owner_only_is_refused() {
    let place = Place::new();
    let text = serde_json::to_string(&place.intent()).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o700, 0o400] {
        place.write(&text, mode);
        match place.consume() {
            Err(Refusal::WrongMode { mode: found }) => assert_eq!(found, mode),
            other => panic!("{mode:o}: {other:?}"),
        }
        place.nothing_blocks_the_next();
    }
}

#[test]
fn anything_but_a_regular_file_is_refused_without_waiting() {
    let place = Place::new();
    fs::create_dir(&place.file).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::NotRegular)));
    place.nothing_blocks_the_next();
    rustix::fs::mkfifoat(rustix::fs::CWD, &place.file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    assert!(matches!(place.consume(), Err(Refusal::NotRegular)));
    place.nothing_blocks_the_next();
    let socket = std::os::unix::net::UnixListener::bind(&place.file).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::NotRegular)));
    drop(socket);
    place.nothing_blocks_the_next();
}

#[test]
fn an_oversized_file_is_refused_and_never_issued() {
    let place = Place::new();
    let text = serde_json::to_string(&place.intent()).unwrap();
    place.write(&format!("{text}{}", " ".repeat(1025 - text.len())), 0o600);
    assert!(matches!(place.consume(), Err(Refusal::Oversized)));
    place.nothing_blocks_the_next();
    place.write(&format!("{text}{}", " ".repeat(1024 - text.len())), 0o600);
    assert!(place.consume().is_ok(), "1024 bytes are allowed");
    let large = Intent { service: "x".repeat(1024), ..place.intent() };
    assert!(matches!(issue(&place.file, &large, None), Err(cutover_intent::Error::Size { .. })));
    assert!(matches!(place.consume(), Err(Refusal::Absent { .. })));
}

#[test]
fn another_version_and_nonsense_are_refused() {
    let place = Place::new();
    for (text, version) in [("{\"version\":2,\"more\":1}", true), ("{}", false), ("", false), ("[1", false)] {
        place.write(text, 0o600);
        match place.consume() {
            Err(Refusal::WrongVersion { found: 2 }) => assert!(version, "{text}"),
            Err(Refusal::Malformed(_)) => assert!(!version, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
        place.nothing_blocks_the_next();
    }
}

#[test]
fn a_directory_that_others_can_write_in_is_refused() {
    let place = Place::new();
    let directory = place.file.parent().unwrap();
    place.issue(&place.intent());
    fs::set_permissions(directory, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::DirectoryNotPrivate { mode: 0o770, .. })));
    prepare_directory(directory, None).unwrap();
    assert!(place.consume().is_ok(), "preparing again repairs it");
}

#[test]
fn an_intent_of_another_owner_is_refused() {
    let place = Place::new();
    if place.receiver.uid != 0 {
        let other = Receiver { uid: 0, ..place.receiver.clone() };
        assert!(consume(&place.file, &other).is_err());
        eprintln!("skipped: only root can give a file to somebody else");
        return;
    }
    issue(&place.file, &place.intent(), Some(Owner { uid: 65534, gid: 65534 })).unwrap();
    assert!(matches!(place.consume(), Err(Refusal::WrongOwner { owner: 65534, receiver: 0 })));
    place.nothing_blocks_the_next();
    prepare_directory(place.file.parent().unwrap(), Some(Owner { uid: 65534, gid: 65534 })).unwrap();
    issue(&place.file, &place.intent(), Some(Owner { uid: 65534, gid: 65534 })).unwrap();
    let service = Receiver { uid: 65534, ..place.receiver.clone() };
    assert_eq!(consume(&place.file, &service).unwrap().run_id, RunId("run-1".into()));
}

#[test]
fn withdrawing_removes_only_what_names_the_instance() {
    let place = Place::new();
    let own = place.receiver.instance.clone();
    assert_eq!(withdraw(&place.file, &own).unwrap(), Withdrawal::Absent);
    place.issue(&place.intent());
    let another = Instance { start_time: own.start_time + 1, ..own.clone() };
    assert_eq!(withdraw(&place.file, &another).unwrap(), Withdrawal::NamesAnother);
    assert!(place.file.exists());
    assert_eq!(withdraw(&place.file, &own).unwrap(), Withdrawal::Removed);
    assert!(matches!(place.consume(), Err(Refusal::Absent { .. })));
    symlink("/nowhere", &place.file).unwrap();
    assert_eq!(withdraw(&place.file, &own).unwrap(), Withdrawal::Removed);
    place.nothing_blocks_the_next();
}

#[test]
fn a_later_intent_replaces_an_earlier_one() {
    let place = Place::new();
    place.issue(&place.intent());
    let later = Intent { run_id: RunId("run-2".into()), ..place.intent() };
    place.issue(&later);
    assert_eq!(place.consume().unwrap(), later);
    place.nothing_blocks_the_next();
}

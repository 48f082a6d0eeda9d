//! The journal when the writer is killed and when the disk is full.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::journal::{Error, Journal, NewEntry, Reader, Seq, Settings, Stamp};
use cutover_core::BootId;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const BUSY: Duration = Duration::from_secs(5);
const CHILD: &str = "CUTOVER_TEST_APPEND_TO_JOURNAL";

fn entry(number: u64, padding: usize) -> NewEntry {
    NewEntry {
        service: "web".to_owned(),
        run: None,
        at: Stamp { wall_ms: 0, boot_id: BootId("boot".to_owned()), boot_ms: number },
        event: format!(r#"{{"padding":"{}"}}"#, "x".repeat(padding)),
        step_version: 1,
        state_hash: String::new(),
    }
}

fn append_for_ever(path: &Path) -> ! {
    let mut journal = Journal::open(path, &Settings { balloon_bytes: 4096, busy_limit: BUSY }).unwrap();
    let mut out = std::io::stdout();
    for number in 0.. {
        let seq = match number % 5 {
            0 => journal.append_with_checkpoint(&entry(number, 700), &format!("[{number}]")).unwrap(),
            _ => journal.append(&entry(number, 700)).unwrap(),
        };
        writeln!(out, "acknowledged {}", seq.0).unwrap();
        out.flush().unwrap();
    }
    unreachable!("the numbers do not end");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(CHILD) {
        append_for_ever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.sqlite");
    let mut last = 0;
    // The second round opens what the first kill left; 400 entries of 700 bytes also cross a checkpoint of the log.
    for at_least in [150, 400] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            last = seq_in(&line.unwrap()).unwrap_or(last);
            if last >= at_least {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            last = seq_in(&line.unwrap()).unwrap_or(last);
        }
        assert!(last >= at_least, "the child ended by itself at {last}");

        let reader = Reader::open(&path, BUSY).unwrap();
        reader.check_integrity().unwrap();
        let found = reader.entries("web", Seq::START).unwrap();
        let seqs: Vec<i64> = found.iter().map(|entry| entry.seq.0).collect();
        let expected: Vec<i64> = (1..=i64::try_from(found.len()).unwrap()).collect();
        assert_eq!(seqs, expected, "no gap");
        assert!(seqs.len() as i64 >= last, "acknowledged {last}, found {}", seqs.len());
        assert!(seqs.len() as i64 <= last + 1, "acknowledged {last}, found {}", seqs.len());
        let checkpoint = reader.checkpoint("web").unwrap().unwrap();
        assert_eq!(checkpoint.state, format!("[{}]", found[checkpoint.seq.0 as usize - 1].at.boot_ms));
    }
}

fn seq_in(line: &str) -> Option<i64> {
    line.split("acknowledged ").nth(1)?.parse().ok()
}

/// A file system of one megabyte, gone at the end of the test.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "cutover-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fill(&self) {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("filler")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_the_reserve_first_and_never_an_acknowledged_entry() {
    let Some(disk) = TinyDisk::mount() else {
        println!("skipped: mounting a tmpfs takes root");
        return;
    };
    let path = disk.path("journal.sqlite");
    let settings = Settings { balloon_bytes: 256 * 1024, busy_limit: BUSY };
    let mut journal = Journal::open(&path, &settings).unwrap();
    journal.append(&entry(1, 100)).unwrap();
    assert!(journal.has_room());
    disk.fill();
    let mut acknowledged = 1;
    let full = loop {
        let before = journal.has_room();
        match journal.append(&entry(acknowledged + 1, 8000)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(before || !journal.has_room(), "nothing gives the reserve back by itself");
        assert!(acknowledged < 200, "the disk is not full");
    };
    assert!(matches!(full, Error::Full { .. }), "{full:?}");
    assert!(!journal.has_room());
    assert!(acknowledged >= 10, "256 KiB carried only {acknowledged} entries of 8 kB");
    assert!(journal.reserve().is_err());
    assert!(!journal.has_room());
    assert_eq!(journal.read().entries("web", Seq::START).unwrap().len() as u64, acknowledged);

    drop(journal);
    disk.fill();
    let mut journal =
        Journal::open(&path, &settings).expect("a full disk must not keep the journal from opening");
    assert!(!journal.has_room());
    assert_eq!(journal.read().entries("web", Seq::START).unwrap().len() as u64, acknowledged);
    std::fs::remove_file(disk.path("filler")).unwrap();
    journal.reserve().unwrap();
    assert!(journal.has_room());
    journal.append(&entry(acknowledged + 1, 8000)).unwrap();
    journal.read().check_integrity().unwrap();
}

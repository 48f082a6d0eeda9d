//! The record of a take-over: lines that are only ever added, each on disk before what it speaks of is begun.

use super::{Error, Predecessor};
use crate::probe::Places;
use crate::store::ImportedPlugin;
use cutover_core::{Generation, RunId};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the service's directory. It holds the old process's environment: readable by its owner only.
const NAME: &str = "predecessor.jsonl";

/// A step of a take-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// This is who serves; these files are about to be written. A take-over begins, after an earlier one anew.
    Found {
        /// Who.
        predecessor: Box<Predecessor>,
        /// What else is known when it begins.
        #[serde(flatten)]
        terms: Terms,
    },
    /// Its tree is a sealed generation.
    Imported {
        /// Which.
        generation: Generation,
    },
    /// It is about to be ended.
    Ending,
    /// It is gone: the address is ours.
    Gone,
    /// Somebody started it again, and it is not ended a second time. Before anything took its place it is in charge as before;
    /// after `taken` that is news, and changes nothing.
    Revived {
        /// Who.
        by: String,
    },
    /// What took its place has proven itself on its address.
    Taken {
        /// From the old one's end to the new one's proof (ms).
        gap_ms: u64,
    },
    /// It is about to be brought back.
    Returning {
        /// Why.
        why: String,
    },
    /// It serves again, and has proven so.
    Returned {
        /// From the decision to the proof (ms).
        gap_ms: u64,
    },
}

/// What is known when a take-over begins, beside who is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Files of ours.
    pub files: Vec<Written>,
    /// The newest run of the service then: whatever run came later is of this take-over. By its name, since clocks are set.
    #[serde(default)]
    pub after: Option<RunId>,
    /// Plugins that it has installed itself, as they lay then: they are taken over with it.
    #[serde(default)]
    pub along: Vec<ImportedPlugin>,
    /// Where its files lay, in its own words: what takes its place has to tell the same.
    #[serde(default)]
    pub told: Places,
    /// Its state directory, in its own words or by how it was started.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// What a person types about it, up to the flag that says what is to be done.
    #[serde(default = "usual_command")]
    pub command: String,
}

impl Terms {
    /// Where its state lies, as far as that is known.
    pub(super) fn state(&self) -> Option<&Path> {
        self.state.as_deref().or(self.told.state.as_deref())
    }
}

fn usual_command() -> String {
    "cutover adopt openclaw".into()
}

/// A file that a take-over writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Its whole content.
    pub text: String,
}

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was written.
    pub at: jiff::Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub step: Step,
}

/// The newest take-over of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    path: PathBuf,
    /// Who served.
    pub predecessor: Predecessor,
    /// What else was known when it began.
    pub terms: Terms,
    /// Its lines, the finding first.
    pub lines: Vec<Line>,
}

impl Record {
    /// Reads the record of a service, if there ever was a take-over.
    ///
    /// # Errors
    /// It cannot be read, or it makes no sense.
    pub fn read(service: &Path) -> Result<Option<Self>, Error> {
        let path = service.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let mut record: Option<Self> = None;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // What follows the last end of line was being written when the power went: it never was said.
        for (at, line) in whole.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|source| Error::Parse {
                path: path.clone(),
                line: at + 1,
                source,
            })?;
            match (&line.step, &mut record) {
                (Step::Found { predecessor, terms }, _) => {
                    let (predecessor, terms) = (*predecessor.clone(), terms.clone());
                    record = Some(Self { path: path.clone(), predecessor, terms, lines: vec![line] });
                }
                (_, Some(record)) => record.lines.push(line),
                (_, None) => {}
            }
        }
        Ok(record)
    }

    /// Begins a record: durable on return.
    ///
    /// # Errors
    /// It cannot be made durable; then nothing may be done.
    pub fn begin(service: &Path, predecessor: Predecessor, terms: Terms) -> Result<Self, Error> {
        let path = service.join(NAME);
        let failed = |source| Error::Write { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(service).map_err(failed)?;
        let found = Step::Found { predecessor: Box::new(predecessor.clone()), terms: terms.clone() };
        let mut record = Self { path: path.clone(), predecessor, terms, lines: Vec::new() };
        record.add(found)?;
        for directory in service.ancestors().take(3) {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        Ok(record)
    }

    /// Adds a line: durable on return. A torn line of a power cut is ended first, so that no two make one.
    ///
    /// # Errors
    /// It cannot be made durable; then what it speaks of may not be begun.
    pub fn add(&mut self, step: Step) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.clone(), source };
        let line = Line { at: jiff::Timestamp::now(), step };
        let mut text = serde_json::to_vec(&line).expect("a line holds nothing that JSON cannot");
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(failed)?;
        cut_torn(&mut file).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        crate::crash_point!("predecessor: recorded");
        self.lines.push(line);
        Ok(())
    }

    /// How far the take-over is.
    #[must_use]
    pub fn step(&self) -> &Step {
        let mut told = self.lines.iter().rev().map(|line| &line.step);
        match told.find(|step| !matches!(step, Step::Revived { .. })) {
            Some(taken @ Step::Taken { .. }) => taken,
            _ => &self.lines.last().expect("a record begins with its finding").step,
        }
    }

    /// Whether the predecessor has the address, as far as is known.
    #[must_use]
    pub fn is_in_charge(&self) -> bool {
        matches!(self.step(), Step::Found { .. } | Step::Imported { .. } | Step::Ending)
    }

    /// Whether its end was begun, so that something else may have taken its place.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        matches!(self.step(), Step::Ending | Step::Gone | Step::Revived { .. } | Step::Taken { .. })
    }

    /// Whether somebody started the predecessor again after it was ended, before it was settled that its place is taken.
    #[must_use]
    pub fn is_revived(&self) -> bool {
        matches!(self.step(), Step::Revived { .. })
    }

    /// Whether the predecessor has the address again, or is to have it.
    #[must_use]
    pub fn is_given_back(&self) -> bool {
        matches!(self.step(), Step::Returning { .. } | Step::Returned { .. })
    }

    /// When the last step of a kind was written (ms of Unix time): for figures that people read, since clocks are set.
    #[must_use]
    pub fn when(&self, is: impl Fn(&Step) -> bool) -> Option<u64> {
        let line = self.lines.iter().rev().find(|line| is(&line.step))?;
        u64::try_from(line.at.as_millisecond()).ok()
    }
}

impl Record {
    /// Removes the files of the take-over. Answers which are left: one that somebody changed is theirs. Must be idempotent: it
    /// may run again after a crash.
    #[must_use = "what is left is told"]
    pub fn remove_files(&self) -> Vec<PathBuf> {
        let is_left = |file: &&Written| match std::fs::read_to_string(&file.path) {
            Ok(text) => text != file.text || std::fs::remove_file(&file.path).is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        self.terms.files.iter().filter(is_left).map(|file| file.path.clone()).collect()
    }
}

/// Takes away what follows the last end of line.
fn cut_torn(file: &mut File) -> io::Result<()> {
    use std::io::Read;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        file.set_len(u64::try_from(whole).unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::predecessor::{Account, Package};
    use cutover_core::{BootId, Instance};

    pub(in super::super) fn predecessor() -> Predecessor {
        Predecessor {
            instance: Instance { pid: 1, start_time: 2, boot_id: BootId("b".into()) },
            program: "/usr/bin/node".into(),
            command: vec!["node".into(), "x.js".into()],
            shown: vec!["gateway".into()],
            cwd: "/".into(),
            env: [("TOKEN".to_owned(), "t".to_owned())].into(),
            account: Account { uid: 1, gid: 1, groups: vec![] },
            output: [None, None],
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            entry: "/x.js".into(),
            package: Package { name: "x".into(), version: "1.0.0".into(), root: "/".into() },
            unit: None,
            parent: None,
        }
    }

    fn terms() -> Terms {
        Terms {
            files: Vec::new(),
            after: None,
            along: Vec::new(),
            told: Places::default(),
            state: None,
            command: usual_command(),
        }
    }

    /// A record that has just begun.
    pub(in super::super) fn begun(ground: &Path) -> Record {
        Record::begin(ground, predecessor(), terms()).unwrap()
    }

    #[test]
    fn a_torn_line_was_never_said_and_the_next_one_is_whole() {
        let ground = tempfile::tempdir().unwrap();
        let service = ground.path().join("services/gate");
        assert_eq!(Record::read(&service).unwrap(), None);
        let mut record = Record::begin(&service, predecessor(), terms()).unwrap();
        record.add(Step::Ending).unwrap();
        let path = service.join(NAME);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"at\":\"2026-").unwrap();
        let read = Record::read(&service).unwrap().unwrap();
        assert_eq!((read.step(), read.is_in_charge()), (&Step::Ending, true));
        record.add(Step::Gone).unwrap();
        let read = Record::read(&service).unwrap().unwrap();
        assert_eq!((read.step(), read.is_in_charge()), (&Step::Gone, false));
        assert_eq!(read.lines.len(), 3);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn after_a_return_another_take_over_begins_anew() {
        let ground = tempfile::tempdir().unwrap();
        let mut record = Record::begin(ground.path(), predecessor(), terms()).unwrap();
        record.add(Step::Returned { gap_ms: 7 }).unwrap();
        assert!(Record::read(ground.path()).unwrap().unwrap().is_given_back());
        Record::begin(ground.path(), predecessor(), terms()).unwrap();
        let read = Record::read(ground.path()).unwrap().unwrap();
        assert!(read.is_in_charge() && read.lines.len() == 1);
    }

    #[test]
    fn who_starts_it_again_after_the_take_over_is_news_and_before_it_is_where_it_stands() {
        let ground = tempfile::tempdir().unwrap();
        let mut record = Record::begin(ground.path(), predecessor(), terms()).unwrap();
        let revived = || Step::Revived { by: "cron (pid 7)".into() };
        for step in [Step::Ending, Step::Gone, revived()] {
            record.add(step).unwrap();
        }
        assert!(record.is_revived() && *record.step() == revived());
        for step in [Step::Taken { gap_ms: 1 }, revived(), revived()] {
            record.add(step).unwrap();
        }
        let mut read = Record::read(ground.path()).unwrap().unwrap();
        assert!(!read.is_revived() && *read.step() == Step::Taken { gap_ms: 1 });
        read.add(Step::Returning { why: "asked".into() }).unwrap();
        assert!(read.is_given_back());
    }

    #[test]
    fn a_record_that_an_earlier_version_of_this_program_began_is_read() {
        let line = serde_json::json!({
            "at": "2026-01-01T00:00:00Z", "step": "found", "predecessor": predecessor(), "files": [],
        });
        let ground = tempfile::tempdir().unwrap();
        std::fs::write(ground.path().join(NAME), format!("{line}\n")).unwrap();
        assert_eq!(Record::read(ground.path()).unwrap().unwrap().terms, terms());
    }
}

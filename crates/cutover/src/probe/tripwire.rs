//! Tripwires: lines of a service's log which say that a module or an export of its own generation is gone.
//!
//! Logs hold users' text, so a line counts only if it begins with such a statement, after a prefix that logs put there,
//! and, where it names paths, if one of them is inside the generation.

mod statement;

use super::Error;
use crate::supervisor;
use cutover_core::Seen;
use statement::Saying;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much of a line is looked at, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// How many lines are kept.
const LINES_MAX: usize = 20;
/// How many rotated files (`.log.1` is the youngest) are looked for.
const ROTATIONS_MAX: u32 = 64;

/// Reads one service's log as it grows and remembers the lines that trip. Blocks on files.
#[derive(Debug)]
pub struct TripwireScanner {
    log: PathBuf,
    root: String,
    /// The file that was read last and how far; none before the first look at a whole log.
    position: Option<(FileId, u64)>,
    line: Line,
    /// A statement whose require stack has not been seen yet.
    suspect: Option<String>,
    tripped: Vec<String>,
}

impl TripwireScanner {
    /// Scans `log` from its beginning, which may already have been rotated to `<log>.1` and further. `root` is the
    /// generation's resolved directory.
    #[must_use]
    pub fn whole(log: PathBuf, root: &Path) -> Self {
        let root = format!("{}/", root.to_string_lossy().trim_end_matches('/'));
        Self { log, root, position: None, line: Line::default(), suspect: None, tripped: Vec::new() }
    }

    /// Scans `log` from `offset` (bytes) of the file that has the name now.
    ///
    /// # Errors
    /// [`Error::Log`] if there is no such file.
    pub fn from_offset(log: PathBuf, root: &Path, offset: u64) -> Result<Self, Error> {
        let id = File::open(&log).and_then(|file| FileId::of(&file));
        let id = id.map_err(|source| Error::Log { path: log.clone(), source })?;
        Ok(Self { position: Some((id, offset)), ..Self::whole(log, root) })
    }

    /// Reads what is new. Answers all lines that tripped so far; if there are none and something could not be read, the
    /// fact is missing, in this round.
    pub fn look(&mut self, at_ms: u64) -> Seen<Vec<String>> {
        let source = self.log.display().to_string();
        let read = self.read_on();
        if !self.tripped.is_empty() {
            return Seen::Yes { value: self.tripped.clone(), at_ms, source };
        }
        match read {
            Ok(Continuity::Whole) => Seen::Yes { value: Vec::new(), at_ms, source },
            Ok(Continuity::Broken) => {
                let why = "the log was rotated or cut faster than it was read".to_owned();
                Seen::Missing { why, at_ms, source }
            }
            Ok(Continuity::Lost) => {
                let why = "the service said more than its log could take: free space there".to_owned();
                Seen::Missing { why, at_ms, source }
            }
            Err(source_error) => {
                let error = Error::Log { path: self.log.clone(), source: source_error };
                Seen::Missing { why: error.why(), at_ms, source }
            }
        }
    }

    fn read_on(&mut self) -> io::Result<Continuity> {
        let files = self.open_newest_first()?;
        let known = self.position.map(|(id, _)| id);
        let resumed = files.iter().position(|(id, _)| Some(*id) == known);
        let mut continuity = Continuity::Whole;
        if known.is_some() && resumed.is_none() {
            continuity = Continuity::Broken;
            self.line = Line::default();
        }
        let lost = |(_, file): &(FileId, File)| {
            file.metadata().is_ok_and(|found| found.mode() & supervisor::OUTPUT_LOST != 0)
        };
        if files.iter().any(lost) {
            continuity = Continuity::Lost;
        }
        let unread = resumed.map_or(files.len(), |index| index + 1);
        for (id, mut file) in files.into_iter().take(unread).rev() {
            let mut from = match self.position {
                Some((last, offset)) if last == id => offset,
                _ => 0,
            };
            if from > file.metadata()?.len() {
                continuity = Continuity::Broken;
                self.line = Line::default();
                from = 0;
            }
            file.seek(SeekFrom::Start(from))?;
            self.position = Some((id, from));
            self.read_to_end(id, from, &mut file)?;
        }
        Ok(continuity)
    }

    /// All files of the log. Opened in the direction in which rotation moves them, so that none slips through.
    fn open_newest_first(&self) -> io::Result<Vec<(FileId, File)>> {
        let mut files: Vec<(FileId, File)> = Vec::new();
        for number in 0..=ROTATIONS_MAX {
            let mut name = self.log.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            match File::open(name) {
                Ok(file) => {
                    let id = FileId::of(&file)?;
                    if files.iter().all(|(known, _)| *known != id) {
                        files.push((id, file));
                    }
                }
                // Between the two renames of a rotation the newest name is free for a moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        if files.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(files) }
    }

    fn read_to_end(&mut self, id: FileId, from: u64, file: &mut File) -> io::Result<()> {
        let mut offset = from;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            offset += read as u64;
            self.position = Some((id, offset));
            self.take_in(&buffer[..read]);
        }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(head) = self.line.extend(part) {
                self.read_line(&String::from_utf8_lossy(&head));
            }
        }
    }

    fn read_line(&mut self, line: &str) {
        if let Some(suspect) = self.suspect.take() {
            if statement::opens_require_stack(line) {
                self.suspect = Some(suspect);
                return;
            }
            if statement::requires_from(line, &self.root) {
                self.trip(suspect);
                return;
            }
        }
        match statement::saying(line, &self.root) {
            Saying::Nothing => {}
            Saying::Gone => self.trip(line.trim().to_owned()),
            Saying::GoneSomewhere => self.suspect = Some(line.trim().to_owned()),
        }
    }

    fn trip(&mut self, line: String) {
        if self.tripped.len() < LINES_MAX {
            self.tripped.push(line);
        }
    }
}

/// Whether everything since the last look was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Continuity {
    Whole,
    Broken,
    /// Some of it never got here.
    Lost,
}

/// The beginning of a line whose end has not been seen yet.
#[derive(Debug, Default)]
struct Line {
    head: Vec<u8>,
}

impl Line {
    /// Takes up to one newline; answers the line's head once it is complete.
    fn extend(&mut self, part: &[u8]) -> Option<Vec<u8>> {
        let (text, ended) = match part.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (part, false),
        };
        let room = LINE_BYTES_MAX - self.head.len();
        self.head.extend_from_slice(&text[..text.len().min(room)]);
        ended.then(|| std::mem::take(&mut self.head))
    }
}

/// One file, told apart from a later one that got its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    /// Where the file system keeps it.
    born: Option<SystemTime>,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { device: found.dev(), inode: found.ino(), born: found.created().ok() })
    }
}

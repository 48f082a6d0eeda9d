//! Two-phase start: first a keeper that waits, then its word.
//!
//! Knows how a keeper is spawned and spoken to. Must not know why it is, nor what is journaled in between.

use super::error::Error;
use super::keeper::{GO, Word};
use super::live::Live;
use super::record::{self, EXIT, INSTANCE, KEEPER, KEEPER_LOG, Launch, Moment, SPEC, Spec};
use cutover_core::Instance;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A keeper that is ready and waits. Dropping it is end of file on its input: it goes, and nothing ever ran.
#[must_use = "a keeper that is not told to go runs nothing"]
#[derive(Debug)]
pub struct Prepared {
    /// Who the keeper is. To be journaled before [`Prepared::go`], so that no start is lost or doubled.
    pub keeper: Instance,
    /// The instance's directory, from which [`adopt`](super::adopt) learns what became of it.
    pub directory: PathBuf,
    voice: Voice,
}

/// Makes the instance's directory (0700, its parent must exist) and that of its log, writes what to start, and spawns a keeper from
/// `executable` (this program itself), all within `limit`. Nothing of the service runs.
///
/// # Errors
/// [`Error::Relative`], [`Error::Used`], [`Error::Directory`], [`Error::Write`], [`Error::Spawn`], [`Error::NotReady`].
pub async fn prepare(
    executable: &Path,
    directory: &Path,
    launch: &Launch,
    limit: Duration,
) -> Result<Prepared, Error> {
    for path in [executable, directory, &launch.program, &launch.cwd, &launch.entry, &launch.log.path] {
        if !path.is_absolute() {
            return Err(Error::Relative { path: path.to_owned() });
        }
    }
    lay_out(directory, launch)?;
    let mut voice = Voice::spawn(executable, directory)?;
    let said = match timeout(limit, voice.hear()).await {
        Ok(Heard::Word(Word::Ready(keeper))) => {
            return Ok(Prepared { keeper, directory: directory.to_owned(), voice });
        }
        Ok(other) => other.told(),
        Err(_) => "nothing".to_owned(),
    };
    Err(Error::NotReady { path: directory.to_owned(), limit, said })
}

impl Prepared {
    /// Gives the word and waits at most for `limit` until the service's program is executed.
    ///
    /// # Errors
    /// [`Error::NotExecuted`] and [`Error::NotStarted`] say that the program does not run. After any other error, and
    /// after dropping this future, it may: [`adopt`](super::adopt) tells.
    pub async fn go(self, limit: Duration) -> Result<Live, Error> {
        let Self { keeper, directory, mut voice } = self;
        let undecided = || Error::Undecided { path: directory.clone() };
        voice.input.write_all(&[GO]).await.map_err(|_| undecided())?;
        match timeout(limit, voice.hear()).await {
            Ok(Heard::Word(Word::Started(_))) => {
                let record = record::expect(&directory, INSTANCE)?;
                Ok(Live { keeper: Some(keeper), record, directory })
            }
            Ok(Heard::Word(Word::ExecFailed(why))) => Err(Error::NotExecuted { why }),
            Ok(Heard::Word(Word::Failed(why))) => Err(Error::NotStarted { why }),
            Ok(Heard::Word(Word::Ready(_)) | Heard::Nonsense(_) | Heard::End) | Err(_) => Err(undecided()),
        }
    }
}

fn lay_out(directory: &Path, launch: &Launch) -> Result<(), Error> {
    if let Some(logs) = launch.log.path.parent() {
        let failed = |source| Error::Directory { path: logs.to_owned(), source };
        DirBuilder::new().mode(0o700).recursive(true).create(logs).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Error::Directory { path: directory.to_owned(), source }),
    }
    // One directory, one start: the records of another would be taken for this one's.
    for name in [SPEC, KEEPER, INSTANCE, EXIT] {
        if directory.join(name).symlink_metadata().is_ok() {
            return Err(Error::Used { path: directory.to_owned() });
        }
    }
    if let Some(parent) = directory.parent() {
        let failed = |source| Error::Directory { path: parent.to_owned(), source };
        record::sync_directory(parent).map_err(failed)?;
    }
    record::write(directory, SPEC, &Spec { at: Moment::now(), launch: launch.clone() })
}

/// Both ends of the talk with a keeper.
#[derive(Debug)]
struct Voice {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Held so that the runtime reaps it.
    _keeper: Child,
}

enum Heard {
    Word(Word),
    Nonsense(String),
    End,
}

impl Heard {
    fn told(self) -> String {
        match self {
            Self::Word(Word::Failed(why) | Word::ExecFailed(why)) | Self::Nonsense(why) => why,
            Self::Word(Word::Ready(_) | Word::Started(_)) => "a word out of turn".to_owned(),
            Self::End => "it ended".to_owned(),
        }
    }
}

impl Voice {
    fn spawn(executable: &Path, directory: &Path) -> Result<Self, Error> {
        let path = directory.join(KEEPER_LOG);
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let log = log.map_err(|source| Error::Write { path, source })?;
        let failed = |source| Error::Spawn { path: executable.to_owned(), source };
        // It inherits nothing: least of all a nonce, which would make it one of its own service's.
        let mut keeper = Command::new(executable)
            .arg("keeper")
            .arg("--dir")
            .arg(directory)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let input = keeper.stdin.take().expect("its input is a pipe");
        let output = BufReader::new(keeper.stdout.take().expect("its output is a pipe"));
        Ok(Self { input, output, _keeper: keeper })
    }

    async fn hear(&mut self) -> Heard {
        let mut line = String::new();
        match self.output.read_line(&mut line).await {
            Ok(0) => Heard::End,
            Ok(_) => serde_json::from_str(&line).map_or_else(|_| Heard::Nonsense(line), Heard::Word),
            Err(error) => Heard::Nonsense(error.to_string()),
        }
    }
}

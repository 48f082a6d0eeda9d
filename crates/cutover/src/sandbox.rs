//! The sandbox: one command, run to its end in a copy of this machine that it can do no harm in.
//!
//! It sees the whole file system and can write to none of it but to what it was given; at the paths of live state it
//! sees copies. Its network is a loopback of its own, its processes are a space of their own that ends with it, `/dev`
//! has no device of the machine's, and no privilege can be gained. A socket in the file system is no file, and is talked
//! to whatever the mount: it can make none of that kind, but pairs. Where the kernel refuses that, nothing is run.
//!
//! What is left open: a FIFO outside of the private directories, to which its user may write, can be written to.
//!
//! ```text
//! the caller ── `sandbox outside` (new namespaces) ── `sandbox inside` (pid 1, furnishes the house) ── the command
//! ```
//!
//! Knows namespaces, mounts and one command. Must not know what the command is, nor what its end means.

mod calls;
mod error;
mod house;
mod inside;
mod limits;
mod loopback;
mod mounts;
mod outside;
mod rights;
mod said;
mod wire;

pub use error::Error;
pub(crate) use limits::confine;
pub use said::Said;

use crate::polling::poll_until;
use crate::store::Identity;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;
use wire::{Input, Order, Word};

/// The hidden word of the command line under which both halves are run.
pub const NAME: &str = "sandbox";

/// How much later than the limit an answer may come: ending a whole space of processes takes a moment.
const ENDING: Duration = Duration::from_secs(10);

/// One command and the house that it runs in. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What is executed.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory, as it is seen inside.
    pub cwd: PathBuf,
    /// Whom it runs as, if not the caller. The caller must be root to differ.
    pub identity: Option<Identity>,
    /// Directories that are empty inside and can be written to, and whose content ends with the command: `/tmp`, the
    /// home, where sockets are. Those that do not exist are passed over.
    pub private: Vec<PathBuf>,
    /// What is seen as it is, read-only, although it lies in one of `private`.
    pub visible: Vec<PathBuf>,
    /// Directories that the command writes to for real.
    pub writable: Vec<PathBuf>,
    /// Copies that are seen, and written to, in place of what they are copies of.
    pub covers: Vec<Cover>,
    /// Bytes that each of `private` can take.
    pub private_max: u64,
    /// Bytes that it can write to one file.
    pub file_max: u64,
    /// Bytes that are kept of each of its two outputs.
    pub said_max: usize,
}

/// A copy that is seen at the path of the original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// A directory or a file; the command writes to this one.
    pub copy: PathBuf,
    /// Where it is seen. Must exist, or lie in a private directory. Beside a file, everything else is seen read-only, and
    /// companions of a database (`-wal`, `-shm`, `-journal`) are not seen at all.
    pub live: PathBuf,
}

/// What became of a command.
#[derive(Debug)]
#[must_use = "a command that was not isolated was not run"]
pub enum Outcome {
    /// It was executed, and nothing of it is left.
    Ended(Ended),
    /// The kernel refuses such a house; nothing was executed.
    NoIsolation {
        /// What was refused, and how.
        why: String,
    },
}

/// A command that has run.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// What it said on its standard output; nothing, if that was talked with.
    pub stdout: Said,
    /// What it said on its standard error.
    pub stderr: Said,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It did not end within the limit and was killed, with everything that it had started.
    Limit,
}

impl Sandbox {
    /// Runs the command to its end, or to `limit`. Everything that it started ends with it, and with the caller.
    /// `executable` is this program, which is run for the sandbox's own two halves. As soon as `unwanted` is ready nobody
    /// wants to know any more, and it ends at once.
    ///
    /// # Errors
    /// [`Error`]: the house could not be made for another reason than the kernel's refusal, the command could not be
    /// executed, or it was given up. Nothing of it is left then either.
    pub fn run(
        &self,
        executable: &Path,
        limit: Duration,
        unwanted: Option<PollFd<'_>>,
    ) -> Result<Outcome, Error> {
        let (stdout, theirs) = io::pipe().map_err(spawning(executable))?;
        let call = Call { executable, limit, unwanted, input: Input::Nothing, stdout: theirs.into() };
        let (outcome, stdout) = self.carry_out(call, || said::listen(stdout, self.said_max))?;
        Ok(match outcome {
            Outcome::Ended(ended) => Outcome::Ended(Ended { stdout, ..ended }),
            refused @ Outcome::NoIsolation { .. } => refused,
        })
    }

    /// The same with a command that is talked with: its standard input and output are the other end of what `talk` gets,
    /// which is at its end when the command is. `talk` must come back then.
    ///
    /// # Errors
    /// As [`Sandbox::run`]; what `talk` answered is lost then.
    pub fn converse<T: Send>(
        &self,
        executable: &Path,
        limit: Duration,
        unwanted: Option<PollFd<'_>>,
        talk: impl FnOnce(UnixStream) -> T + Send,
    ) -> Result<(Outcome, T), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(spawning(executable))?;
        let call = Call { executable, limit, unwanted, input: Input::Caller, stdout: theirs.into() };
        self.carry_out(call, || talk(ours))
    }

    fn carry_out<T: Send>(
        &self,
        call: Call<'_>,
        listen: impl FnOnce() -> T + Send,
    ) -> Result<(Outcome, T), Error> {
        self.check()?;
        let Call { executable, limit, unwanted, input, stdout } = call;
        let (control, theirs) = UnixStream::pair().map_err(spawning(executable))?;
        // The command is dropped with this statement, and our copies of the child's ends with it.
        let mut child = Command::new(executable)
            .args([NAME, outside::NAME])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(spawning(executable))?;
        let stderr = child.stderr.take().expect("its errors are a pipe");
        let (answer, heard, stderr) = thread::scope(|scope| {
            let heard = scope.spawn(listen);
            let stderr = scope.spawn(|| said::listen(stderr, self.said_max));
            let answer = asked(&control, &Order { sandbox: self.clone(), limit, input }, unwanted);
            end(child, answer.is_err());
            (answer, of(heard), of(stderr))
        });
        let ended = |exit| Outcome::Ended(Ended { exit, stdout: Said::default(), stderr });
        let outcome = match answer? {
            Word::Code(code) => ended(Exit::Code(code)),
            Word::Signal(signal) => ended(Exit::Signal(signal)),
            Word::Limit => ended(Exit::Limit),
            Word::Refused(why) => Outcome::NoIsolation { why },
            Word::NotExecuted(number) => {
                let source = io::Error::from_raw_os_error(number);
                return Err(Error::NotExecuted { path: self.program.clone(), source });
            }
            Word::Failed(why) => return Err(Error::House { why }),
        };
        Ok((outcome, heard))
    }

    /// Who will own what is made for the command.
    fn owner(&self) -> (u32, u32) {
        match &self.identity {
            Some(identity) => (identity.uid, identity.gid),
            None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let covers = self.covers.iter().flat_map(|cover| [&cover.copy, &cover.live]);
        let lists = self.private.iter().chain(&self.visible).chain(&self.writable);
        for path in [&self.program, &self.cwd].into_iter().chain(lists).chain(covers) {
            if !path.is_absolute() {
                return Err(Error::Relative { path: path.clone() });
            }
        }
        // With an empty root there would be nothing to execute.
        match self.private.iter().find(|path| path.as_path() == Path::new("/")) {
            Some(path) => Err(Error::Root { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// One running of a command.
struct Call<'a> {
    executable: &'a Path,
    limit: Duration,
    unwanted: Option<PollFd<'a>>,
    input: Input,
    stdout: OwnedFd,
}

fn spawning(executable: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Spawn { path: executable.to_owned(), source }
}

fn of<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().expect("BUG: listening to a command panicked")
}

fn asked(mut control: &UnixStream, order: &Order, unwanted: Option<PollFd<'_>>) -> Result<Word, Error> {
    let line = serde_json::to_string(order).map_err(|source| Error::Talk(source.into()))?;
    control.write_all(format!("{line}\n").as_bytes()).map_err(Error::Talk)?;
    answered(control, order.limit + ENDING, unwanted)?;
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).map_err(Error::Talk)?;
    if answer.is_empty() {
        return Err(Error::Silent);
    }
    serde_json::from_str(&answer).map_err(|source| Error::Talk(source.into()))
}

/// Waits for the answer, or until nobody wants it any more.
fn answered(control: &UnixStream, limit: Duration, unwanted: Option<PollFd<'_>>) -> Result<(), Error> {
    let mut watched = vec![PollFd::new(control, PollFlags::IN)];
    watched.extend(unwanted);
    if !poll_until(&mut watched, limit).map_err(|errno| Error::Talk(errno.into()))? {
        return Err(Error::Talk(io::ErrorKind::TimedOut.into()));
    }
    match watched.get(1) {
        Some(unwanted) if !unwanted.revents().is_empty() => Err(Error::GivenUp),
        _ => Ok(()),
    }
}

/// Waits for the outer half, which goes when the space that it made is empty. One that did not answer is killed; the inner
/// one is of its group, and with the inner one everything ends.
fn end(mut child: Child, is_stuck: bool) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child is one");
    if is_stuck {
        // It may have gone by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    // A child of ours that was not reaped can be waited for.
    let _ = child.wait();
}

/// Runs one of the two halves. `args` are what follows `sandbox` on the command line.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    match args.first().and_then(|word| word.to_str()) {
        Some(outside::NAME) => outside::main(),
        Some(inside::NAME) => inside::main(),
        _ => {
            eprintln!(
                "usage: cutover {NAME} {}|{} (the daemon runs this, not people)",
                outside::NAME,
                inside::NAME
            );
            ExitCode::from(2)
        }
    }
}

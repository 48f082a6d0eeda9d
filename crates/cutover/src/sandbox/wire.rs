//! What the caller and the two halves say to each other: one line each way.

use super::Sandbox;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What the two halves are told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub sandbox: Sandbox,
    pub limit: Duration,
    pub input: Input,
}

/// What the command hears on its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Input {
    /// Nothing.
    Nothing,
    /// Its caller: the standard output is a socket, and the standard input is the same one.
    Caller,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    Code(i32),
    Signal(i32),
    Limit,
    /// By the kernel; nothing was executed.
    Refused(String),
    /// The error's number.
    NotExecuted(i32),
    Failed(String),
}

/// A step that did not succeed.
#[derive(Debug)]
pub(super) struct Obstacle {
    step: String,
    source: io::Error,
    /// What it is if the kernel said no.
    refused: fn(String) -> Word,
}

impl Obstacle {
    pub(super) fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self { step: step.into(), source: source.into(), refused: Word::Failed }
    }

    /// A step that not every kernel has, or allows.
    pub(super) fn refusal<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self { refused: Word::Refused, ..Self::at(step)(source) }
    }
}

impl From<Obstacle> for Word {
    /// What a kernel answers that does not have, or does not allow, such a house, and only where it is asked for that;
    /// everything else is a failure of ours.
    fn from(obstacle: Obstacle) -> Self {
        let why = format!("{}: {}", obstacle.step, obstacle.source);
        let refusals = [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::NOSPC, Errno::USERS, Errno::INVAL];
        match Errno::from_io_error(&obstacle.source) {
            Some(errno) if refusals.contains(&errno) => (obstacle.refused)(why),
            _ => Self::Failed(why),
        }
    }
}

/// Says a word. Who is not there any more need not hear it.
pub(super) fn say(mut control: &UnixStream, word: &Word) {
    let mut line = serde_json::to_vec(word).expect("a word is plain data");
    line.push(b'\n');
    let _ = control.write_all(&line);
}

/// The order, from the standard input, which is a socket.
pub(super) fn order() -> io::Result<(UnixStream, Order)> {
    use std::os::fd::AsFd as _;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = String::new();
    BufReader::new(&control).read_line(&mut line)?;
    let order = serde_json::from_str(&line)?;
    Ok((control, order))
}

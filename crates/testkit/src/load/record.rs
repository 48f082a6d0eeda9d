//! The raw log: one record per request and per event of a WebSocket client. All that is ever reported comes from here.

use super::{Error, Report};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// One line of the raw log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A request and what became of it.
    Request(RequestRecord),
    /// Something that happened to a WebSocket client.
    Socket(SocketRecord),
}

/// A request and what became of it. Times are microseconds since the load began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request's number.
    pub n: u64,
    /// What was sent.
    pub kind: Kind,
    /// Over what it was sent.
    pub connection: Connection,
    /// Where it was sent.
    pub target: SocketAddr,
    /// When it should have left: latencies count from here.
    pub scheduled_us: u64,
    /// When it was taken up; later than scheduled only if this machine was too busy.
    pub sent_us: u64,
    /// When its fate was known.
    pub done_us: u64,
    /// Its fate.
    pub outcome: Outcome,
    /// The HTTP status, if a head came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Bytes of the body (or of the RPC's answer) that came.
    pub bytes: u64,
    /// What a failure said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
}

impl RequestRecord {
    /// Microseconds from the scheduled instant to the end.
    #[must_use]
    pub fn wait_us(&self) -> u64 {
        self.done_us.saturating_sub(self.scheduled_us)
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`super::Entry::Get`].
    Get,
    /// See [`super::Entry::Echo`].
    Echo,
    /// See [`super::Entry::Stream`].
    Stream,
    /// See [`super::Entry::Rpc`].
    Rpc,
}

/// Over what a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// One that was kept from an earlier request, if there is an idle one.
    Kept,
    /// One of its own.
    Fresh,
}

/// A request's fate. Everything but `Ok` is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered, whole, right and in time.
    Ok,
    /// No connection could be made.
    Connect,
    /// The connection was lost before the head of an answer.
    Cut,
    /// The body ended too early, or is not of the length it must have.
    Truncated,
    /// The body of an echo is not the one sent.
    Mismatch,
    /// A status of 500 or more.
    ServerError,
    /// A status below 200 or from 400 to 499.
    UnexpectedStatus,
    /// An RPC answered with `ok: false`, or by something that is no answer.
    Refused,
    /// Answered well, but later than the hold limit.
    Slow,
    /// Not answered until the hold limit and the grace were over.
    Unanswered,
    /// Not sent: too many were under way, or the path is none.
    NotSent,
}

/// Something that happened to a WebSocket client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRecord {
    /// Which client.
    pub client: usize,
    /// Microseconds since the load began.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: SocketEvent,
}

/// What can happen to a WebSocket client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SocketEvent {
    /// The client's first WebSocket is open, its handshake done.
    Opened {
        /// Microseconds since the client began to try.
        wait_us: u64,
    },
    /// A lost WebSocket has its successor.
    Reopened {
        /// Microseconds since it was lost.
        gap_us: u64,
    },
    /// A try to open did not succeed.
    Refused {
        /// What it said.
        cause: String,
    },
    /// The server ended it. 1012 is a service restart; 1006 stands for no close frame at all, 1005 for one without a code.
    Closed {
        /// RFC 6455's close code.
        code: u16,
    },
    /// A sending was answered in time.
    Answered {
        /// Microseconds from its scheduled instant.
        wait_us: u64,
    },
    /// A sending was answered after the hold limit.
    AnsweredLate {
        /// Microseconds from its scheduled instant.
        wait_us: u64,
    },
    /// A sending was answered with something else.
    Wrong {
        /// What came.
        cause: String,
    },
    /// The WebSocket was lost before a sending was answered.
    Unanswered {
        /// Microseconds from its scheduled instant.
        wait_us: u64,
    },
}

/// A raw log that grows; clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    began: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Log {
    pub(super) fn started_now() -> Self {
        Self { began: Instant::now(), records: Arc::default() }
    }

    /// All records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().clone()
    }

    /// How many records there are so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Sums up what is there so far.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::of(self.lock().iter())
    }

    /// Microseconds since the load began, to mark a moment.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.at_us(Instant::now())
    }

    /// Writes one JSON line per record.
    ///
    /// # Errors
    /// If the file cannot be made or written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            for record in self.lock().iter() {
                serde_json::to_writer(&mut file, record)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        };
        write().map_err(|source| Error::WriteLog { path: path.to_owned(), source })
    }

    /// Reads what [`Log::write`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read or a line is no record.
    pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
        let failed = |source| Error::ReadLog { path: path.to_owned(), source };
        let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
        lines.map(|line| line.and_then(|line| Ok(serde_json::from_str(&line)?)).map_err(failed)).collect()
    }

    pub(super) fn push(&self, record: Record) {
        self.lock().push(record);
    }

    pub(super) fn at_us(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! The service's side: takes the one intent that is there, checks all of it, and leaves nothing behind.
//!
//! Knows who the receiver is. Must not know how a service restarts.

use crate::identity;
use crate::intent::{Intent, LIFETIME, SIZE_MAX, VERSION, boot_time_ms};
use cutover_core::Instance;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who wants to consume an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The process itself.
    pub instance: Instance,
    /// Its effective uid, to whom the file must belong.
    pub uid: u32,
}

impl Receiver {
    /// Reads who the calling process is.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        let instance = identity::instance(std::process::id())?;
        Ok(Self { instance, uid: rustix::process::geteuid().as_raw() })
    }
}

/// Why a restart without a valid intent is refused. Nothing happened, and nothing is left that blocks a later one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is none: a stray signal, one already consumed, or one withdrawn.
    #[error("no restart intent at {}", path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// The file or its directory could not be reached, taken or removed.
    #[error("restart intent {} cannot be taken", path.display())]
    Unreachable {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than the receiver or root could write in the directory.
    #[error("directory of the restart intent belongs to uid {owner} with mode {mode:04o}")]
    DirectoryNotPrivate {
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a symbolic link.
    #[error("restart intent is a symbolic link")]
    Link,
    /// It is a directory, pipe, socket or device.
    #[error("restart intent is not a regular file")]
    NotRegular,
    /// It belongs to somebody else.
    #[error("restart intent belongs to uid {owner}, the receiver is uid {receiver}")]
    WrongOwner {
        /// Owner of the file.
        owner: u32,
        /// Effective uid of the receiver.
        receiver: u32,
    },
    /// Its mode is not 0600.
    #[error("restart intent has mode {mode:04o}, not 0600")]
    WrongMode {
        /// Its permission bits.
        mode: u32,
    },
    /// It has another name besides this one.
    #[error("restart intent has {links} names")]
    HardLinked {
        /// How many names it has.
        links: u64,
    },
    /// It is larger than [`SIZE_MAX`].
    #[error("restart intent is larger than {SIZE_MAX} bytes")]
    Oversized,
    /// It is no intent.
    #[error("restart intent cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// It has another version.
    #[error("restart intent has version {found}, not {VERSION}")]
    WrongVersion {
        /// Its version.
        found: u64,
    },
    /// It is meant for another process: another pid, an earlier owner of this pid, or another boot.
    #[error("restart intent is meant for pid {} started at {}", named.pid, named.start_time)]
    WrongInstance {
        /// The process that it names.
        named: Instance,
    },
    /// Its time is over.
    #[error("restart intent expired {late_ms} ms ago")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: u64,
    },
    /// It claims to live longer than any intent may.
    #[error("restart intent claims to live for {left_ms} ms more")]
    LivesTooLong {
        /// What it claims to have left, in milliseconds.
        left_ms: u64,
    },
}

/// Takes the intent at `path` and answers it if it is valid, now, and meant for `receiver`. Whatever was there is gone
/// afterwards, so it can be consumed once, by one caller, and a bad file never stands in the way of a good one.
///
/// # Errors
/// A [`Refusal`] that says which check failed. The caller must not restart.
pub fn consume(path: &Path, receiver: &Receiver) -> Result<Intent, Refusal> {
    let unreachable = |errno: Errno| Refusal::Unreachable { path: path.to_owned(), source: errno.into() };
    let absent = || Refusal::Absent { path: path.to_owned() };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(absent()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Err(absent()),
        Err(errno) => return Err(unreachable(errno)),
    };
    let status = rustix::fs::fstat(&directory).map_err(unreachable)?;
    if (status.st_uid != receiver.uid && status.st_uid != 0) || status.st_mode & 0o022 != 0 {
        let (owner, mode) = (status.st_uid, permissions(&status));
        return Err(Refusal::DirectoryNotPrivate { owner, mode });
    }
    let taken = unique_name(receiver);
    match rustix::fs::renameat(&directory, name, &directory, &taken) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Err(absent()),
        Err(errno) => return Err(unreachable(errno)),
    }
    let answer = examine(&directory, &taken, receiver, unreachable);
    match remove(&directory, &taken) {
        Ok(()) => answer,
        // One that could not be removed was perhaps not consumed for the last time.
        Err(errno) => answer.and(Err(unreachable(errno))),
    }
}

fn examine(
    directory: &OwnedFd,
    name: &str,
    receiver: &Receiver,
    unreachable: impl Fn(Errno) -> Refusal,
) -> Result<Intent, Refusal> {
    // Non-blocking, because opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(Refusal::Link),
        Err(Errno::NXIO) => return Err(Refusal::NotRegular),
        Err(errno) => return Err(unreachable(errno)),
    };
    check_file(&rustix::fs::fstat(&file).map_err(&unreachable)?, receiver)?;
    let mut text = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|source| unreachable(Errno::from_io_error(&source).unwrap_or(Errno::IO)))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(Refusal::Oversized);
    }
    check_content(parse(&text)?, receiver, boot_time_ms())
}

fn check_file(status: &Stat, receiver: &Receiver) -> Result<(), Refusal> {
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Refusal::NotRegular);
    }
    if status.st_uid != receiver.uid {
        return Err(Refusal::WrongOwner { owner: status.st_uid, receiver: receiver.uid });
    }
    if permissions(status) != 0o600 {
        return Err(Refusal::WrongMode { mode: permissions(status) });
    }
    if status.st_nlink != 1 {
        return Err(Refusal::HardLinked { links: status.st_nlink });
    }
    Ok(())
}

fn parse(text: &[u8]) -> Result<Intent, Refusal> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(Refusal::Malformed)?;
    // The version is looked at before the fields, because another version may have others.
    if let Some(found) = value.get("version").and_then(serde_json::Value::as_u64)
        && found != u64::from(VERSION)
    {
        return Err(Refusal::WrongVersion { found });
    }
    serde_json::from_value(value).map_err(Refusal::Malformed)
}

fn check_content(intent: Intent, receiver: &Receiver, now_ms: u64) -> Result<Intent, Refusal> {
    if intent.instance != receiver.instance {
        return Err(Refusal::WrongInstance { named: intent.instance });
    }
    if now_ms >= intent.expires_at_ms {
        return Err(Refusal::Expired { late_ms: now_ms - intent.expires_at_ms });
    }
    let left_ms = intent.expires_at_ms - now_ms;
    if u128::from(left_ms) > LIFETIME.as_millis() {
        return Err(Refusal::LivesTooLong { left_ms });
    }
    Ok(intent)
}

fn permissions(status: &Stat) -> u32 {
    status.st_mode & 0o7777
}

fn unique_name(receiver: &Receiver) -> String {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let count = TAKEN.fetch_add(1, Ordering::Relaxed);
    format!(".taken.{}.{}.{count}", receiver.instance.pid, receiver.instance.start_time)
}

fn remove(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR),
        answer => answer,
    }
}

//! The daemon's side: makes the directory, puts an intent there, takes it back.
//!
//! Knows who the file must belong to. Must not know whether anybody consumes it.

use crate::intent::{Intent, SIZE_MAX};
use cutover_core::Instance;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What went wrong while issuing or withdrawing; no intent is in force that was not before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path has no file name or no directory.
    #[error("name an intent file by {}", path.display())]
    Name {
        /// The path that was given.
        path: PathBuf,
    },
    /// The service's intent directory could not be made private to its owner.
    #[error("prepare intent directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The intent is larger than a receiver reads.
    #[error("intent of {size} bytes exceeds {SIZE_MAX}")]
    Size {
        /// Its size in bytes.
        size: usize,
    },
    /// The file could not be written, given to its owner or put in place.
    #[error("write intent {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An intent could not be taken back: it may still be in force until it expires.
    #[error("withdraw intent {}", path.display())]
    Withdraw {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whom an intent is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The uid that the service runs as.
    pub uid: u32,
    /// Its primary gid.
    pub gid: u32,
}

/// What withdrawing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// No intent was there.
    Absent,
    /// One was there for the instance, or one that nobody could consume, and is gone.
    Removed,
    /// One was there for another process, and was left.
    NamesAnother,
}

/// Makes the directory of one service's intent file: 0700 and owned by `owner` (`None`: by us). Must be called before
/// the service starts; calling it again repairs owner and mode. The parent must exist and be searchable by the owner.
///
/// # Errors
/// [`Error::Directory`] if it cannot be made, is no directory or cannot be given away.
pub fn prepare_directory(directory: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let failed = |errno: Errno| Error::Directory { path: directory.to_owned(), source: errno.into() };
    match rustix::fs::mkdir(directory, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let opened = open_directory(directory).map_err(failed)?;
    rustix::fs::fchmod(&opened, Mode::RWXU).map_err(failed)?;
    give(&opened, owner).map_err(failed)
}

/// Puts an intent in force, replacing an earlier one. It belongs to `owner` (`None`: to us), mode 0600, and appears whole.
///
/// # Errors
/// [`Error::Size`] if it is too large to be read, [`Error::Write`] if the file system or the rights do not allow it.
pub fn issue(path: &Path, intent: &Intent, owner: Option<Owner>) -> Result<(), Error> {
    let place = Place::of(path)?;
    let text = serde_json::to_vec(intent).expect("an intent is plain data");
    if text.len() as u64 > SIZE_MAX {
        return Err(Error::Size { size: text.len() });
    }
    place.write(&text, owner).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Takes back an intent that names `instance`, so that its TERM means an end and no restart. A file that cannot be read
/// as an intent goes too: nobody may consume it. The issuer is the only writer, so what was read is what is removed.
///
/// # Errors
/// [`Error::Withdraw`] if something is there that can be neither read nor removed.
pub fn withdraw(path: &Path, instance: &Instance) -> Result<Withdrawal, Error> {
    let place = Place::of(path)?;
    place.withdraw(instance).map_err(|source| Error::Withdraw { path: path.to_owned(), source })
}

/// Where an intent file is: a directory and a name in it. Every step goes through the opened directory, so that nobody
/// can exchange the way there in between.
struct Place<'a> {
    directory: &'a Path,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path) -> Result<Self, Error> {
        let name = path.file_name().and_then(|name| name.to_str());
        match (path.parent(), name) {
            (Some(directory), Some(name)) if !directory.as_os_str().is_empty() => {
                Ok(Self { directory, name })
            }
            _ => Err(Error::Name { path: path.to_owned() }),
        }
    }

    fn write(&self, text: &[u8], owner: Option<Owner>) -> io::Result<()> {
        let directory = open_directory(self.directory)?;
        // One name for all attempts: what an interrupted one left is replaced, never collected.
        let unfinished = format!(".{}.new", self.name);
        remove(&directory, &unfinished)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&directory, &unfinished, flags, mode)?);
        file.write_all(text)?;
        rustix::fs::fchmod(&file, mode)?;
        give(&file, owner)?;
        file.sync_all()?;
        rustix::fs::renameat(&directory, &unfinished, &directory, self.name)?;
        Ok(())
    }

    fn withdraw(&self, instance: &Instance) -> io::Result<Withdrawal> {
        let directory = match open_directory(self.directory) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Withdrawal::Absent),
            Err(errno) => return Err(errno.into()),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let named = match rustix::fs::openat(&directory, self.name, flags, Mode::empty()) {
            Ok(file) => read(File::from(file)),
            Err(Errno::NOENT) => return Ok(Withdrawal::Absent),
            Err(Errno::LOOP) => None,
            Err(errno) => return Err(errno.into()),
        };
        if named.is_some_and(|intent| intent.instance != *instance) {
            return Ok(Withdrawal::NamesAnother);
        }
        remove(&directory, self.name)?;
        Ok(Withdrawal::Removed)
    }
}

fn read(file: File) -> Option<Intent> {
    let mut text = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn give(file: impl std::os::fd::AsFd, owner: Option<Owner>) -> Result<(), Errno> {
    match owner {
        Some(Owner { uid, gid }) => {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        }
        None => Ok(()),
    }
}

fn remove(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR),
        Err(errno) => Err(errno),
    }
}

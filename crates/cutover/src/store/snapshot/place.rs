//! Open directories: everything below them is reached by name and never through a symbolic link, because the service's user
//! may own what is walked.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::Error;

/// Beside the name of something that is being made.
const UNFINISHED: &str = "cutover-unfinished";

/// An open directory and its path for messages.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(Error::io("open", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a directory in this one; a link in its place is an error.
    pub(super) fn enter(&self, name: &OsStr) -> Result<Self, Error> {
        let path = self.path.join(name);
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(Error::io("open", &path))?;
        Ok(Self { fd, path })
    }

    /// Opens a directory whose names are about to change, whatever its mode was.
    pub(super) fn enter_to_change(&self, name: &OsStr) -> Result<Self, Error> {
        let inner = match self.enter(name) {
            // Only without root; a link put in its place in this moment leads nowhere that we could not go anyway.
            Err(Error::Denied { path, .. }) => {
                let changed = rustix::fs::chmodat(&self.fd, name, Mode::RWXU, AtFlags::empty());
                changed.map_err(Error::io("change the mode of", path))?;
                self.enter(name)?
            }
            entered => entered?,
        };
        rustix::fs::fchmod(&inner.fd, Mode::RWXU).map_err(Error::io("change the mode of", &inner.path))?;
        Ok(inner)
    }

    /// Opens the directory that holds `relative`; `None` if it, or one above it, is not there.
    pub(super) fn enter_parent_of(&self, relative: &Path) -> Result<Option<Self>, Error> {
        let mut here =
            Self { fd: self.fd.try_clone().map_err(Error::io("open", &self.path))?, path: self.path.clone() };
        for part in relative.parent().into_iter().flat_map(Path::components) {
            if !matches!(here.stat(part.as_os_str())?, Some(stat) if kind(&stat) == FileType::Directory) {
                return Ok(None);
            }
            here = here.enter(part.as_os_str())?;
        }
        Ok(Some(here))
    }

    /// What lies at a name, links not followed; `None` if nothing does.
    pub(super) fn stat(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("examine", self.path.join(name))(error)),
        }
    }

    pub(super) fn read_file(&self, name: &OsStr) -> Result<File, Error> {
        // NONBLOCK: a pipe that took the file's place must not hang the walk.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .map(File::from)
            .map_err(Error::io("open", self.path.join(name)))
    }

    pub(super) fn create_file(&self, name: &OsStr) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(Error::io("create", self.path.join(name)))
    }

    /// Where the link at a name points to.
    pub(super) fn read_link(&self, name: &OsStr) -> Result<PathBuf, Error> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
            .map_err(Error::io("read", self.path.join(name)))
    }

    /// Every name in this directory, sorted.
    pub(super) fn names(&self) -> Result<BTreeSet<OsString>, Error> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&self.fd).map_err(Error::io("read", &self.path))? {
            let name = entry.map_err(Error::io("read", &self.path))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.insert(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Removes whatever lies at a name, and all below it. Nothing if nothing does.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Error> {
        let Some(stat) = self.stat(name)? else { return Ok(()) };
        let flags = if kind(&stat) == FileType::Directory {
            let inner = self.enter_to_change(name)?;
            for child in inner.names()? {
                inner.remove(&child)?;
            }
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove", self.path.join(name))(error)),
        }
    }

    /// Makes a directory, durably, with the owner of this one and what its mode has of `mask`. It has its name when it is done.
    pub(super) fn make_directory(&self, name: &OsStr, mask: u32) -> Result<(), Error> {
        let new = hidden(name, UNFINISHED);
        self.remove(&new)?;
        let failed = || Error::io("create", self.path.join(name));
        rustix::fs::mkdirat(&self.fd, &new, Mode::RWXU).map_err(failed())?;
        let inner = rustix::fs::openat(&self.fd, &new, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let inner = inner.map_err(failed())?;
        // Whoever owns this directory may have put another one there in between.
        let own = rustix::fs::fstat(&inner).map_err(failed())?;
        if own.st_uid != rustix::process::geteuid().as_raw() {
            return Err(failed()(Errno::PERM));
        }
        self.liken(&inner, mask).map_err(failed())?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// Makes a file, durably, with the owner of this directory, for whoever may read that. It has its name when it is whole.
    pub(super) fn create(&self, name: &OsStr, bytes: &[u8]) -> Result<(), Error> {
        let (path, new) = (self.path.join(name), hidden(name, UNFINISHED));
        self.remove(&new)?;
        let mut file = self.create_file(&new)?;
        file.write_all(bytes).map_err(Error::io("write", &path))?;
        self.liken(&file, 0o666).map_err(Error::io("create", &path))?;
        file.sync_all().map_err(Error::io("sync", path))?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// Makes a link. Whose it is says nothing about it.
    pub(super) fn link(&self, name: &OsStr, target: &Path) -> Result<(), Error> {
        rustix::fs::symlinkat(target, &self.fd, name).map_err(Error::io("create", self.path.join(name)))
    }

    /// Removes a name that is no directory's.
    pub(super) fn unlink(&self, name: &OsStr) -> Result<(), Error> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
            .map_err(Error::io("remove", self.path.join(name)))
    }

    /// Removes a directory with nothing in it; whether it did.
    pub(super) fn remove_if_empty(&self, name: &OsStr) -> bool {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Gives what is open the owner of this directory, and of its mode what is in the mask. An ordinary user can make nothing
    /// for others.
    fn liken(&self, file: impl AsFd, mask: u32) -> rustix::io::Result<()> {
        let own = rustix::fs::fstat(&self.fd)?;
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchown(&file, Some(Uid::from_raw(own.st_uid)), Some(Gid::from_raw(own.st_gid)))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(own.st_mode & mask))
    }

    /// Gives another name to what lies at one; what has that name already is replaced.
    pub(super) fn rename(&self, name: &OsStr, new: &OsStr) -> Result<(), Error> {
        rustix::fs::renameat(&self.fd, name, &self.fd, new).map_err(Error::io("rename", self.path.join(name)))
    }

    /// Makes names in this directory durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(Error::io("sync", &self.path))
    }

    /// Makes everything on this directory's file system durable, and reports write errors since it was opened.
    pub(super) fn sync_file_system(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.fd).map_err(Error::io("sync the file system of", &self.path))
    }
}

/// A name beside this one for something of ours, hidden from who lists names.
pub(super) fn hidden(name: &OsStr, mark: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{mark}"));
    hidden
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

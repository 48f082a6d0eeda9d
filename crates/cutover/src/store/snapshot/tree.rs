//! Copying trees: what did not change since an earlier copy is left as it is. Knows nothing of records or why.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Error;
use super::content::{self, Copied, Named};
use super::place::{Place, kind};
use super::record::{Entry, Identity, Node};
use super::trust::{Known, Trust, entry, identity};

/// Whether the source may be written to while it is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The service runs: what changes or vanishes meanwhile is copied again later.
    Live,
    /// Nothing may write: what changes is an error.
    Still,
}

/// Copies trees; collects what it saw.
pub(super) struct Mirror<'a> {
    pub(super) source: Source,
    pub(super) known: Known<'a>,
    pub(super) trust: Trust,
    /// The files of declared databases. Of a live source they are left alone (the backup API copies them); of a still one
    /// they are copied as bytes, `-shm` is not.
    pub(super) unit_files: BTreeSet<PathBuf>,
    /// Which versions of unit files were copied: they must all be of one moment.
    pub(super) units_seen: Vec<(PathBuf, Identity)>,
    pub(super) entries: Vec<Entry>,
    pub(super) skipped: Vec<PathBuf>,
    /// Files whose bytes were read and written, and how many bytes were written.
    pub(super) copied_files: u64,
    pub(super) copied_bytes: u64,
}

impl<'a> Mirror<'a> {
    pub(super) fn new(source: Source, known: Known<'a>, trust: Trust, unit_files: BTreeSet<PathBuf>) -> Self {
        let (units_seen, entries, skipped) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            source,
            known,
            trust,
            unit_files,
            units_seen,
            entries,
            skipped,
            copied_files: 0,
            copied_bytes: 0,
        }
    }

    /// Makes `to/to_name` a copy of `from/from_name`: absent if that is. `path` is what entries call it.
    pub(super) fn copy(
        &mut self,
        (from, from_name): (&Place, &OsStr),
        (to, to_name): (&Place, &OsStr),
        path: &Path,
    ) -> Result<(), Error> {
        let is_unit_file = self.unit_files.contains(path);
        if is_unit_file && self.source == Source::Live {
            return Ok(());
        }
        let Some(stat) = from.stat(from_name)? else { return to.remove(to_name) };
        crate::crash_point!("entry reached");
        if is_unit_file && kind(&stat) == FileType::RegularFile {
            if path.as_os_str().as_encoded_bytes().ends_with(b"-shm") {
                return to.remove(to_name);
            }
            return self.copy_unit_file((from, from_name), (to, to_name), path, &stat);
        }
        let copied = match kind(&stat) {
            FileType::Directory => self.copy_directory((from, from_name), (to, to_name), path, &stat),
            FileType::RegularFile => self.copy_file((from, from_name), (to, to_name), path, &stat),
            FileType::Symlink => self.copy_link((from, from_name), (to, to_name), path, &stat),
            _ => {
                self.skipped.push(path.to_owned());
                to.remove(to_name)
            }
        };
        match copied {
            Err(error) if self.source == Source::Live && is_moving(&error, &from.path) => {
                self.entries.retain(|entry| !entry.path.starts_with(path));
                to.remove(to_name)
            }
            copied => copied,
        }
    }

    fn copy_directory(
        &mut self,
        (from, from_name): (&Place, &OsStr),
        (to, to_name): (&Place, &OsStr),
        path: &Path,
        stat: &Stat,
    ) -> Result<(), Error> {
        let inner = from.enter(from_name)?;
        let is_there = to.stat(to_name)?.is_some_and(|old| kind(&old) == FileType::Directory);
        if !is_there {
            to.remove(to_name)?;
            rustix::fs::mkdirat(&to.fd, to_name, Mode::RWXU)
                .map_err(Error::io("create", to.path.join(to_name)))?;
        }
        let target = to.enter_to_change(to_name)?;
        self.entries.push(entry(path, Node::Directory, stat, None));
        let names = inner.names()?;
        for name in target.names()?.difference(&names) {
            if self.source == Source::Still || !self.unit_files.contains(&path.join(name)) {
                target.remove(name)?;
            }
        }
        for name in &names {
            self.copy((&inner, name), (&target, name), &path.join(name))?;
        }
        if self.source == Source::Still && inner.names()? != names {
            return Err(Error::Changing { path: inner.path });
        }
        copy_attributes(&inner.fd, &target.fd, &target.path)?;
        keep_owner_mode_and_times(&target.fd, stat, &target.path)
    }

    fn copy_file(
        &mut self,
        (from, from_name): (&Place, &OsStr),
        (to, to_name): (&Place, &OsStr),
        path: &Path,
        stat: &Stat,
    ) -> Result<(), Error> {
        let now = identity(stat);
        if let Some(known) = self.known.same_version(path, now) {
            let is_whole = to.stat(to_name)?.is_some_and(|copy| {
                kind(&copy) == FileType::RegularFile && u64::try_from(copy.st_size) == Ok(known.size())
            });
            if is_whole {
                self.entries.push(entry(path, known.node.clone(), stat, self.trust.believe(now)));
                return Ok(());
            }
        }
        let file = from.read_file(from_name)?;
        let source = from.path.join(from_name);
        to.remove(to_name)?;
        let copy = to.create_file(to_name)?;
        let target = to.path.join(to_name);
        let copied = content::copy_into_empty(
            Named { file: &file, path: &source },
            Named { file: &copy, path: &target },
        )?;
        copy_attributes(&file, &copy, &target)?;
        keep_owner_mode_and_times(&copy, stat, &target)?;
        self.finish_file(&file, &source, path, stat, copied)
    }

    /// Writes only the blocks that differ, so that an online backup makes the copy cheap while the service is stopped.
    fn copy_unit_file(
        &mut self,
        (from, from_name): (&Place, &OsStr),
        (to, to_name): (&Place, &OsStr),
        path: &Path,
        stat: &Stat,
    ) -> Result<(), Error> {
        let (source, target) = (from.path.join(from_name), to.path.join(to_name));
        let file = from.read_file(from_name)?;
        let copy = match to.stat(to_name)? {
            Some(old) if kind(&old) == FileType::RegularFile => {
                rustix::fs::chmodat(&to.fd, to_name, Mode::RUSR | Mode::WUSR, AtFlags::empty())
                    .map_err(Error::io("change the mode of", &target))?;
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(&to.fd, to_name, flags, Mode::empty());
                opened.map(File::from).map_err(Error::io("open", &target))?
            }
            _ => {
                to.remove(to_name)?;
                to.create_file(to_name)?
            }
        };
        let (from, to) = (Named { file: &file, path: &source }, Named { file: &copy, path: &target });
        let is_new = copy.metadata().map_err(Error::io("examine", &target))?.len() == 0;
        let copied =
            if is_new { content::copy_into_empty(from, to) } else { content::copy_difference(from, to) }?;
        copy_attributes(&file, &copy, &target)?;
        keep_owner_mode_and_times(&copy, stat, &target)?;
        self.units_seen.push((path.to_owned(), identity(stat)));
        self.finish_file(&file, &source, path, stat, copied)
    }

    fn finish_file(
        &mut self,
        file: &File,
        source: &Path,
        path: &Path,
        stat: &Stat,
        copied: Copied,
    ) -> Result<(), Error> {
        let after =
            rustix::fs::fstat(file).map(|stat| identity(&stat)).map_err(Error::io("examine", source))?;
        let is_torn = identity(stat) != after || copied.size != after.size;
        if is_torn && self.source == Source::Still {
            return Err(Error::Changing { path: source.to_owned() });
        }
        let seen = if is_torn { None } else { self.trust.believe(after) };
        let node = Node::File { size: copied.size, digest: copied.digest };
        self.entries.push(entry(path, node, stat, seen));
        self.copied_files += 1;
        self.copied_bytes += copied.written;
        Ok(())
    }

    fn copy_link(
        &mut self,
        (from, from_name): (&Place, &OsStr),
        (to, to_name): (&Place, &OsStr),
        path: &Path,
        stat: &Stat,
    ) -> Result<(), Error> {
        let target = from.read_link(from_name)?;
        let copy = to.path.join(to_name);
        to.remove(to_name)?;
        rustix::fs::symlinkat(&target, &to.fd, to_name).map_err(Error::io("create", &copy))?;
        let made = to.stat(to_name)?.ok_or_else(|| Error::Changing { path: copy.clone() })?;
        if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(&to.fd, to_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::io("change the owner of", &copy))?;
        }
        rustix::fs::utimensat(&to.fd, to_name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("set the times of", &copy))?;
        self.entries.push(entry(path, Node::Link { target }, stat, None));
        Ok(())
    }
}

/// While the service runs, files come and go, and change their kind, between listing and reading.
fn is_moving(error: &Error, from: &Path) -> bool {
    let Error::Io { source, path, .. } = error else { return false };
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error);
    path.starts_with(from) && source.raw_os_error().is_some_and(|error| gone.contains(&error))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives a copied file to the owner of the original, with its mode.
pub(super) fn take_after(live: &Path, copy: &Path) -> Result<(), Error> {
    let stat = match rustix::fs::stat(live) {
        Ok(stat) => stat,
        // Gone since: the copy is nobody's any more.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::io("examine", live)(errno)),
    };
    let file = File::open(copy).map_err(Error::io("open", copy))?;
    keep_owner_mode_and_times(&file, &stat, copy)
}

fn keep_owner_mode_and_times(copy: impl rustix::fd::AsFd, stat: &Stat, path: &Path) -> Result<(), Error> {
    let copy = copy.as_fd();
    let made = rustix::fs::fstat(copy).map_err(Error::io("examine", path))?;
    if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(copy, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))?;
    }
    // After the owner: changing it clears setuid.
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(Error::io("change the mode of", path))?;
    rustix::fs::futimens(copy, &times(stat)).map_err(Error::io("set the times of", path))
}

/// Extended attributes that users and access lists keep. What the system manages itself (`security.`, `trusted.`) stays its.
fn copy_attributes(from: impl rustix::fd::AsFd, to: impl rustix::fd::AsFd, path: &Path) -> Result<(), Error> {
    let failed = || Error::io("copy the attributes of", path);
    let mut names = vec![0; 4096];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => length,
        Err(Errno::RANGE) => {
            names.resize(64 * 1024, 0);
            rustix::fs::flistxattr(&from, &mut names[..]).map_err(failed())?
        }
        Err(error) => return Err(failed()(error)),
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"user.") && !name.starts_with(b"system.posix_acl_") {
            continue;
        }
        value.resize(64 * 1024, 0);
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..]).map_err(failed())?;
        rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()).map_err(failed())?;
    }
    Ok(())
}

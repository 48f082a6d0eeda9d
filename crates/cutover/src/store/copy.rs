//! Copies a tree into a place of its own: no byte, inode or name is shared with the source afterwards.

use super::workspace::create_dir;
use super::{Error, Result, Unfit};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Deeper than any package, shallower than a thread's stack.
pub(super) const DEPTH_MAX: usize = 256;

/// How a copy is followed and ended.
pub(super) struct Course<'a> {
    pub stop: &'a AtomicBool,
    pub advance: &'a (dyn Fn(u64) + Sync),
    /// Paths in the source that are not copied.
    pub without: &'a [PathBuf],
}

/// Copies the content of `from` to `to`, which must not exist. Modes and modification times are kept, owners are
/// not, except the group where the caller may give it.
pub(super) fn copy_tree(from: &Path, to: &Path, course: &Course<'_>) -> Result<()> {
    let opened = open(from, from, OFlags::DIRECTORY)?;
    copy_dir(from, &opened, to, 0, course)
}

/// Whose tree it is may exchange a directory for a link at any moment: what was opened is what is read.
fn copy_dir(from: &Path, opened: &File, to: &Path, depth: usize, course: &Course<'_>) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::Unfit { path: from.to_owned(), why: Unfit::TooDeep });
    }
    let metadata = opened.metadata().map_err(Error::read(from))?;
    let here = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    create_dir(to, 0o700)?;
    for entry in fs::read_dir(&here).map_err(Error::read(from))? {
        if course.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let entry = entry.map_err(Error::read(from))?;
        let (at, from, to) = (entry.path(), from.join(entry.file_name()), to.join(entry.file_name()));
        if course.without.contains(&from) {
            continue;
        }
        let metadata = entry.metadata().map_err(Error::read(&from))?;
        if metadata.is_dir() {
            let opened = open(&at, &from, OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            copy_dir(&from, &opened, &to, depth + 1, course)?;
        } else if metadata.is_symlink() {
            copy_link(&from, &at, &to, depth, &metadata)?;
        } else {
            copy_bytes(&from, &at, &to, &metadata, course)?;
        }
    }
    let made = File::open(to).map_err(Error::read(to))?;
    keep_group(to, &metadata)?;
    made.set_times(times(&metadata)).map_err(Error::write(to))?;
    let mode = fs::Permissions::from_mode(kept_mode(&metadata) | 0o700);
    fs::set_permissions(to, mode).map_err(Error::write(to))
}

/// Opens what lies at a path, which is called `from`.
fn open(at: &Path, from: &Path, flags: OFlags) -> Result<File> {
    let opened = rustix::fs::open(at, flags | OFlags::CLOEXEC, Mode::empty());
    opened.map(File::from).map_err(|error| Error::read(from)(error.into()))
}

/// Copies a file.
pub(super) fn copy_file(from: &Path, to: &Path, course: &Course<'_>) -> Result<()> {
    let metadata = fs::symlink_metadata(from).map_err(Error::read(from))?;
    copy_bytes(from, from, to, &metadata, course)
}

fn copy_bytes(from: &Path, at: &Path, to: &Path, metadata: &Metadata, course: &Course<'_>) -> Result<()> {
    if let Some(why) = unfit(metadata) {
        return Err(Error::Unfit { path: from.to_owned(), why });
    }
    // What was looked at is what is opened: no link that somebody lays there meanwhile, and no pipe.
    let mut source = open(at, from, OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
    let now = source.metadata().map_err(Error::read(from))?;
    if (now.dev(), now.ino()) != (metadata.dev(), metadata.ino()) {
        let why = std::io::Error::other("another file was laid there while it was copied");
        return Err(Error::read(from)(why));
    }
    let mut copy = File::options().write(true).create_new(true).open(to).map_err(Error::write(to))?;
    let bytes = std::io::copy(&mut source, &mut copy).map_err(Error::write(to))?;
    keep_group(to, metadata)?;
    copy.set_permissions(fs::Permissions::from_mode(kept_mode(metadata))).map_err(Error::write(to))?;
    copy.set_times(times(metadata)).map_err(Error::write(to))?;
    (course.advance)(bytes);
    Ok(())
}

fn copy_link(from: &Path, at: &Path, to: &Path, depth: usize, metadata: &Metadata) -> Result<()> {
    let target = fs::read_link(at).map_err(Error::read(from))?;
    if let Some(why) = unfit_link(target.as_os_str(), depth) {
        return Err(Error::Unfit { path: from.to_owned(), why });
    }
    std::os::unix::fs::symlink(&target, to).map_err(Error::write(to))?;
    let stamp = |seconds, nanoseconds| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps {
        last_access: stamp(metadata.atime(), metadata.atime_nsec()),
        last_modification: stamp(metadata.mtime(), metadata.mtime_nsec()),
    };
    rustix::fs::utimensat(rustix::fs::CWD, to, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::write(to)(error.into()))
}

fn times(metadata: &Metadata) -> FileTimes {
    let times = FileTimes::new();
    metadata.modified().map_or(times, |modified| times.set_modified(modified))
}

/// A release that its group may read stays readable to its group; only root can give it.
fn keep_group(path: &Path, metadata: &Metadata) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, None, Some(metadata.gid())).map_err(Error::write(path))
}

/// Where root takes a file from its owner, what the owner might read and run the owner's group may now.
fn kept_mode(metadata: &Metadata) -> u32 {
    let (mode, us) = (metadata.mode() & 0o777, rustix::process::geteuid());
    if us.is_root() && metadata.uid() != us.as_raw() { mode | (mode & 0o500) >> 3 } else { mode }
}

/// Why an entry may not be part of a generation, judged by its type and mode.
pub(super) fn unfit(metadata: &Metadata) -> Option<Unfit> {
    let kind = metadata.file_type();
    if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
        return Some(Unfit::Special);
    }
    (kind.is_file() && metadata.mode() & 0o6000 != 0).then_some(Unfit::Setuid)
}

/// Why a link may not be part of a generation; `depth` is the number of directories between it and the top. `..` is
/// allowed only in front: behind a name that is itself a link it would lead anywhere.
pub(super) fn unfit_link(target: &OsStr, depth: usize) -> Option<Unfit> {
    if target.as_bytes().starts_with(b"/") {
        return Some(Unfit::AbsoluteLink);
    }
    let (mut ups, mut names) = (0, 0);
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir if names > 0 => return Some(Unfit::EscapingLink),
            Component::ParentDir => ups += 1,
            Component::Normal(_) => names += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => (),
        }
    }
    (ups > depth).then_some(Unfit::EscapingLink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_only_lead_down_or_up_to_the_top() {
        let verdict = |target: &str, depth| unfit_link(OsStr::new(target), depth);
        assert_eq!(verdict("a/b", 0), None);
        assert_eq!(verdict("../a", 1), None);
        assert_eq!(verdict("../../b", 2), None);
        assert_eq!(verdict("../a", 0), Some(Unfit::EscapingLink));
        assert_eq!(verdict("../../../a", 2), Some(Unfit::EscapingLink));
        assert_eq!(verdict("a/../b", 3), Some(Unfit::EscapingLink));
        assert_eq!(verdict("/a", 9), Some(Unfit::AbsoluteLink));
    }
}

//! From a staged tree to a generation: taken over, read-only, hashed, durable, numbered. In this order.

use super::copy::{Course, DEPTH_MAX, unfit_link};
use super::manifest::{Manifest, OWN_RECORDS};
use super::workspace::{Workspace, rename, sync_dir};
use super::{Error, GenerationRecord, Result, Store, Unfit};
use cutover_core::Generation;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Makes a staged tree the caller's own and read-only, and refuses what may not be in a generation.
///
/// The tree may belong to another user who is still writing (a service of the same uid as npm): every step is taken
/// from the directory above, by descriptor and without following links, and a directory is taken over before its
/// entries are looked at. After it nobody but the caller can change an entry.
pub(super) fn take_over(tree: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir =
        rustix::fs::open(tree, flags, Mode::empty()).map_err(|error| Error::read(tree)(error.into()))?;
    take_over_dir(dir, tree, 1)
}

fn take_over_dir(dir: OwnedFd, path: &Path, depth: usize) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::write(path)(error.into());
    if depth > DEPTH_MAX {
        return Err(Error::Unfit { path: path.to_owned(), why: Unfit::TooDeep });
    }
    lock_down(&dir, &rustix::fs::fstat(&dir).map_err(failed)?).map_err(failed)?;
    for entry in Dir::read_from(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        take_over_entry(&dir, name, &path.join(name), depth)?;
    }
    Ok(())
}

fn take_over_entry(dir: &OwnedFd, name: &OsStr, path: &Path, depth: usize) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::write(path)(error.into());
    let refused = |why| Error::Unfit { path: path.to_owned(), why };
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = flags | OFlags::DIRECTORY;
            let inner = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            take_over_dir(inner, path, depth + 1)
        }
        FileType::RegularFile => {
            if stat.st_mode & 0o6000 != 0 {
                return Err(refused(Unfit::Setuid));
            }
            if stat.st_nlink != 1 {
                return Err(refused(Unfit::HardLink));
            }
            let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            lock_down(&file, &stat).map_err(failed)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
            if let Some(why) = unfit_link(OsStr::from_bytes(target.as_bytes()), depth) {
                return Err(refused(why));
            }
            let owner = rustix::process::geteuid();
            if stat.st_uid == owner.as_raw() {
                return Ok(());
            }
            rustix::fs::chownat(dir, name, Some(owner), None, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
        }
        _ => Err(refused(Unfit::Special)),
    }
}

/// Takes ownership and all write permission. Where the owner changes, what it might read and run its group may now:
/// the service must still be able to.
fn lock_down(file: impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
    let owner = rustix::process::geteuid();
    let mut mode = stat.st_mode & 0o555;
    if stat.st_uid != owner.as_raw() {
        rustix::fs::fchown(&file, Some(Uid::from_raw(owner.as_raw())), None::<Gid>)?;
        mode |= (mode & 0o500) >> 3;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
}

/// Hashes a tree that was taken over, together with everything else that the workspace holds.
pub(super) fn hash(workspace: &Workspace, course: &Course<'_>) -> Result<Manifest> {
    Manifest::of_tree(&workspace.dir, &OWN_RECORDS, course.stop, course.advance)
}

/// What only sealing can tell of a generation.
pub(super) struct Sealed {
    pub generation: Generation,
    pub created_at: String,
    pub manifest_digest: String,
}

/// Writes the records, makes everything durable and gives it a number. Nothing is selectable before the rename, and
/// everything is on disk by then: without that a power cut leaves a complete tree of empty files.
pub(super) fn publish(
    store: &Store,
    workspace: &Workspace,
    manifest: &Manifest,
    course: &Course<'_>,
    record: impl FnOnce(Sealed) -> GenerationRecord,
) -> Result<Generation> {
    let dir = &workspace.dir;
    let entries = manifest.entries_text();
    write_sealed(&dir.join("manifest"), entries.as_bytes())?;
    write_sealed(&dir.join("inodes"), manifest.marks_text().as_bytes())?;
    let generation = store.take_number(workspace)?;
    let record = record(Sealed {
        generation,
        created_at: written_at(&dir.join("manifest"))?,
        manifest_digest: hex::encode(Sha256::digest(&entries)),
    });
    let text = serde_json::to_vec_pretty(&record).expect("a record holds nothing that JSON cannot");
    write_sealed(&dir.join("generation.json"), &text)?;
    sync_file_system(dir)?;
    if course.stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let to = store.generation_dir(generation);
    rename(dir.clone(), to.clone())?;
    sync_dir(&store.generations_dir())?;
    // Only now: moving a directory elsewhere asks for write permission on itself.
    fs::set_permissions(&to, fs::Permissions::from_mode(0o555)).map_err(Error::write(&to))?;
    workspace.end()?;
    Ok(generation)
}

fn write_sealed(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).open(path).map_err(Error::write(path))?;
    file.write_all(content).map_err(Error::write(path))?;
    file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(Error::write(path))
}

fn written_at(path: &Path) -> Result<String> {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(Error::read(path))?;
    let at = jiff::Timestamp::try_from(written)
        .map_err(|error| Error::read(path)(std::io::Error::other(error)))?;
    Ok(at.to_string())
}

fn sync_file_system(path: &Path) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::sync(path)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    rustix::fs::syncfs(dir).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_second_name_is_not_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        take_over(&tree).unwrap();
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
        fs::hard_link(tree.join("file"), dir.path().join("other")).unwrap();
        let error = take_over(&tree).unwrap_err();
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(error, Error::Unfit { why: Unfit::HardLink, .. }), "{error}");
    }

    #[test]
    fn what_was_taken_over_has_no_write_permission_and_keeps_its_execute_bits() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/run"), "x").unwrap();
        fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o754)).unwrap();
        take_over(&tree).unwrap();
        let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o7777;
        let modes = (mode("bin/run"), mode("bin"), mode("."));
        for path in [tree.join("bin"), tree.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(modes.0, 0o554);
        assert_eq!((modes.1 & 0o222, modes.2 & 0o222), (0, 0));
    }
}

//! A place to work in that nothing selects: `staging/<unique>.partial`, with a lock that says whether anybody still
//! works there. Names are never used twice, so nothing left over can stand in anybody's way.

use super::{Error, Result, Store};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A staging directory that is ours while this value, or a copy of its lock, lives. Dropping it leaves the
/// directory to the next [`Store::reclaim`].
#[derive(Debug)]
pub(super) struct Workspace {
    pub dir: PathBuf,
    lock: File,
}

impl Workspace {
    pub(super) fn begin(store: &Store) -> Result<Workspace> {
        let staging = store.staging_dir();
        create_dir_all(&staging)?;
        // The lock comes before the directory: a directory without a held lock is dead at every instant.
        let (path, lock) = loop {
            let path = staging.join(format!("{}.lock", uuid::Uuid::new_v4().simple()));
            let lock = File::options().read(true).write(true).create_new(true).open(&path);
            let lock = lock.map_err(Error::write(&path))?;
            let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
            // A reclaim that looked in between has it, or has removed it: that name is spent.
            if locked.is_ok() && lock.metadata().map_err(Error::read(&path))?.nlink() == 1 {
                break (path, lock);
            }
        };
        let dir = path.with_extension("partial");
        create_dir(&dir, 0o755)?;
        Ok(Workspace { dir, lock })
    }

    /// Removes the lock of a directory that has moved away.
    pub(super) fn end(&self) -> Result<()> {
        let lock = self.dir.with_extension("lock");
        fs::remove_file(&lock).or_else(gone_already).map_err(Error::remove(&lock))
    }

    /// The lock, for a child's standard input: as long as the child lives the directory is not reclaimed, even if
    /// the program that started it has died. Reads from it find the end of file.
    pub(super) fn lock_for_child(&self) -> Result<File> {
        self.lock.try_clone().map_err(Error::read(&self.dir))
    }

    /// Removes the directory now. What cannot be removed is left to [`Store::reclaim`].
    pub(super) fn discard(&self) {
        if let Err(error) = remove(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "staging directory left behind");
        }
    }
}

impl Store {
    /// Removes what dead runs left behind: staging directories that nobody works in. Returns how many were removed.
    ///
    /// # Errors
    /// If something is there that cannot be read or removed. It is never a reason not to stage: names are unique.
    pub fn reclaim(&self) -> Result<u32> {
        let mut removed = 0;
        let staging = self.staging_dir();
        let names = match fs::read_dir(&staging) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
            Err(error) => return Err(Error::read(&staging)(error)),
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
                .map_err(Error::read(&staging))?,
        };
        for path in names {
            let lock = path.with_extension("lock");
            let held = match File::open(&lock) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::read(&lock)(error)),
                Ok(file) => Some(file),
            };
            if let Some(file) = &held
                && rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err()
            {
                continue;
            }
            if path != lock {
                remove(&path)?;
                removed += 1;
            } else if !path.with_extension("partial").exists() {
                fs::remove_file(&lock).or_else(gone_already).map_err(Error::remove(&lock))?;
            }
        }
        Ok(removed)
    }
}

fn gone_already(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Creates a directory with exactly this mode, whatever the umask.
pub(super) fn create_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().mode(mode).create(path).map_err(Error::write(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::write(path))
}

pub(super) fn create_dir_all(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::write(path))
}

/// Removes a tree, sealed or not, and its lock.
pub(super) fn remove(dir: &Path) -> Result<()> {
    // Root ignores modes; changing them on the way would follow a link that the tree's owner put in place.
    if !rustix::process::geteuid().is_root() {
        open_up(dir).or_else(gone_already).map_err(Error::remove(dir))?;
    }
    let removed = match fs::symlink_metadata(dir) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(dir),
        Ok(_) => fs::remove_file(dir),
        Err(error) => Err(error),
    };
    removed.or_else(gone_already).map_err(Error::remove(dir))?;
    let lock = dir.with_extension("lock");
    fs::remove_file(&lock).or_else(gone_already).map_err(Error::remove(&lock))
}

fn open_up(dir: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(dir)?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn rename(from: PathBuf, to: PathBuf) -> Result<()> {
    fs::rename(&from, &to).map_err(|source| Error::Rename { from, to, source })
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let dir = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.map_err(|error| Error::sync(path)(error.into()))?;
    rustix::fs::fsync(dir).map_err(|error| Error::sync(path)(error.into()))
}

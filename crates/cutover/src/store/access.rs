//! Whether everything that a staging will touch can be written, asked before the first byte.

use super::source::Source;
use super::workspace::create_dir_all;
use super::{Error, Result, Store};
use rustix::fs::{Access, AtFlags, CWD};
use std::path::{Path, PathBuf};

impl Store {
    /// Proves that a staging may write everywhere it will have to: the store as the caller, and for npm the cache
    /// and the way into the staging directory as [`Npm::identity`](super::Npm::identity). Creates the store's
    /// directories and the cache where they are missing.
    ///
    /// # Errors
    /// [`Error::Denied`] names the path and the user.
    pub fn check_access(&self, source: &Source) -> Result<()> {
        let staging = self.staging_dir();
        for dir in [&staging, &self.generations_dir()] {
            create_dir_all(dir)?;
            writable(dir)?;
        }
        writable(&self.dir)?;
        let Source::Npm(npm) = source else { return Ok(()) };
        let created = !npm.cache.exists();
        create_dir_all(&npm.cache)?;
        let Some(identity) = &npm.identity else { return writable(&npm.cache) };
        if created {
            std::os::unix::fs::chown(&npm.cache, Some(identity.uid), Some(identity.gid))
                .map_err(Error::write(&npm.cache))?;
        }
        identity.may_write(&npm.cache)?;
        identity.run(|| Ok(rustix::fs::access(&staging, Access::EXEC_OK)?)).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    Error::Denied { path: staging.clone(), uid: identity.uid }
                }
                _ => Error::read(&staging)(error),
            }
        })
    }
}

fn writable(dir: &Path) -> Result<()> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, dir, wanted, AtFlags::EACCESS).map_err(|error| Error::write(dir)(error.into()))
}

/// The path itself, or its nearest ancestor that exists.
pub(crate) fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    there.unwrap_or_else(|| Path::new("/")).to_owned()
}

//! Directories that are ours alone, and ways through them.

use crate::config::{self, Misplaced};
use anyhow::Context;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes a directory that only its owner may enter. One that is there already must be ours, and nobody else may be able to
/// exchange what lies in it.
pub(crate) fn private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .with_context(|| format!("making {}; the state directory must be writable", path.display()))?;
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let (path, owner, own) = (path.to_owned(), found.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        return Err(config::Error::from(Misplaced::Foreign { path, owner, own }).into());
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(config::Error::from(Misplaced::Writable { path, mode }).into());
    }
    Ok(())
}

/// Lets other accounts pass through a directory whose names they know.
pub(crate) fn passage(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o711))
        .with_context(|| format!("opening a way through {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_could_write_to_is_refused_with_the_command_to_type() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("state");
        private_directory(&path).unwrap();
        // What `passage` and service managers leave is not writable for others.
        for mode in [0o700, 0o711, 0o755] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            private_directory(&path).unwrap();
        }
        for mode in [0o770, 0o702, 0o1777] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = private_directory(&path).unwrap_err();
            assert!(error.downcast_ref::<config::Error>().is_some(), "a matter of usage");
            let told = format!("`chmod go-w {}`", path.display());
            assert!(error.to_string().contains(&told), "{error}");
        }
    }

    #[test]
    fn a_directory_of_another_account_is_refused_with_the_command_to_type() {
        let ground = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        // Root gives one away; everybody else finds root's.
        let path = if own == 0 { ground.path() } else { Path::new("/usr") };
        if own == 0 {
            std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
        }
        let error = private_directory(path).unwrap_err();
        assert!(error.downcast_ref::<config::Error>().is_some(), "a matter of usage");
        let told = format!("`chown {own} {}`", path.display());
        assert!(error.to_string().contains(&told), "{error}");
    }
}

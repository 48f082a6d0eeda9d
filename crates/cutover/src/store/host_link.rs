//! A plugin's way to its host: a link in the plugin's own `node_modules` to the package beside it, where it names that. npm does
//! without, since both lie in one `node_modules`; some hosts look for the link and take no plugin that lacks it. Others write
//! their caches into a plugin's own `node_modules` where there is one, so that only those who need it get it.

use super::{Error, Result, package_json};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Lays the link of a plugin at `way` below `core` to its host in `node_modules` there. What lies at its place already stays. No
/// link is followed: the tree may still belong to somebody else.
///
/// # Errors
/// [`Error::Write`](super::Error) or [`Error::Read`](super::Error) where something else lies on the way.
pub(super) fn lay(core: &Path, host: &str, way: &Path) -> Result<()> {
    let unread = |error: io::Error| Error::read(&core.join(way).join("package.json"))(error);
    let directory = entered(core, way, false).map_err(|error| unread(error.into()))?;
    if !names_host(&directory, host).map_err(unread)? {
        return Ok(());
    }
    let link = way.join("node_modules").join(host);
    let parent = link.parent().expect("it has several parts");
    let failed = |error: Errno| Error::write(&core.join(&link))(error.into());
    let made = entered(core, parent, true).map_err(failed)?;
    let target = up_from(&link).join("node_modules").join(host);
    match rustix::fs::symlinkat(target, &made, link.file_name().expect("it ends in a name")) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The way from a link's own directory up to what its path begins at.
pub(super) fn up_from(link: &Path) -> PathBuf {
    std::iter::repeat_n("..", link.components().count() - 1).collect()
}

/// Whether the manifest in a directory names the host, as a peer or as a dependency. One that makes no sense names nobody.
fn names_host(directory: &OwnedFd, host: &str) -> io::Result<bool> {
    let manifest = package_json::of_package(directory)?;
    Ok(["peerDependencies", "dependencies"].iter().any(|field| manifest[field].get(host).is_some()))
}

/// The directory at a path below another, made where it is missing if it is to be.
fn entered(from: &Path, way: &Path, is_made: bool) -> rustix::io::Result<OwnedFd> {
    let mut here = rustix::fs::open(from, DIRECTORY, Mode::empty())?;
    for part in way {
        if is_made {
            match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        here = rustix::fs::openat(&here, part, DIRECTORY, Mode::empty())?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn installed(host: &str, plugin: &str, peer: &str) -> tempfile::TempDir {
        let core = tempfile::tempdir().unwrap();
        for package in [host, plugin] {
            let directory = core.path().join("node_modules").join(package);
            fs::create_dir_all(&directory).unwrap();
            let text = format!("{{\"name\": \"{package}\", \"peerDependencies\": {{\"{peer}\": \"*\"}}}}");
            fs::write(directory.join("package.json"), text).unwrap();
        }
        core
    }

    #[test]
    fn a_plugin_finds_its_host_in_its_own_directory_whatever_their_scopes() {
        for (host, plugin) in [("app", "extra"), ("app", "@toy/extra"), ("@toy/app", "@toy/extra")] {
            let core = installed(host, plugin, host);
            for _ in 0..2 {
                lay(core.path(), host, &Path::new("node_modules").join(plugin)).unwrap();
            }
            let modules = core.path().join("node_modules");
            let link = modules.join(plugin).join("node_modules").join(host);
            assert!(link.is_symlink());
            assert_eq!(link.canonicalize().unwrap(), modules.join(host).canonicalize().unwrap());
        }
    }

    #[test]
    fn a_plugin_of_somebody_else_gets_none_and_nothing_is_written_through_a_link() {
        let way = Path::new("node_modules/extra");
        let core = installed("app", "extra", "other");
        lay(core.path(), "app", way).unwrap();
        assert!(!core.path().join("node_modules/extra/node_modules").exists());
        let core = installed("app", "extra", "app");
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), core.path().join("node_modules/extra/node_modules")).unwrap();
        lay(core.path(), "app", way).unwrap_err();
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

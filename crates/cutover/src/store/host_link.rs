//! A plugin's way to its host: a link in the plugin's own `node_modules` to the package beside it, where it names that as a
//! peer. npm does without, since both lie in one `node_modules`; some hosts look for the link and take no plugin that lacks it.

use super::lockfile;
use super::{Error, Result};
use cutover_core::Release;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    peer_dependencies: BTreeMap<String, serde_json::Value>,
}

/// Lays the links of all plugins of a release that npm has installed into `core`. What lies there already stays. No link is
/// followed on the way: the tree may still belong to somebody else.
pub(super) fn lay(core: &Path, release: &Release) -> Result<()> {
    let host = release.package.as_str();
    for plugin in &release.plugins {
        let directory = core.join("node_modules").join(&plugin.package);
        let manifest: Manifest = lockfile::read(&directory.join("package.json"))?;
        if !manifest.peer_dependencies.contains_key(host) {
            continue;
        }
        let way = Path::new("node_modules").join(&plugin.package).join("node_modules").join(host);
        let parent = way.parent().expect("it has several parts");
        let failed = |error: Errno| Error::write(&core.join(&way))(error.into());
        let made = made(core, parent).map_err(failed)?;
        // From the link's own directory up to the one that holds both.
        let up: PathBuf = std::iter::repeat_n("..", parent.components().count() - 1).collect();
        match rustix::fs::symlinkat(up.join(host), &made, way.file_name().expect("it ends in a name")) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The directory at a path below another, made where it is missing.
fn made(from: &Path, way: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(from, flags, Mode::empty())?;
    for part in way {
        match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        here = rustix::fs::openat(&here, part, flags, Mode::empty())?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::Plugin;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn installed(host: &str, plugin: &str, peer: &str) -> (tempfile::TempDir, Release) {
        let core = tempfile::tempdir().unwrap();
        for package in [host, plugin] {
            let directory = core.path().join("node_modules").join(package);
            fs::create_dir_all(&directory).unwrap();
            let text = format!("{{\"name\": \"{package}\", \"peerDependencies\": {{\"{peer}\": \"*\"}}}}");
            fs::write(directory.join("package.json"), text).unwrap();
        }
        let plugin = Plugin { package: plugin.into(), version: "1.0.0".into(), digest: String::new() };
        let release = Release {
            package: host.into(),
            version: "1.0.0".into(),
            digest: String::new(),
            plugins: vec![plugin],
        };
        (core, release)
    }

    #[test]
    fn a_plugin_finds_its_host_in_its_own_directory_whatever_their_scopes() {
        for (host, plugin) in [("app", "extra"), ("app", "@toy/extra"), ("@toy/app", "@toy/extra")] {
            let (core, release) = installed(host, plugin, host);
            for _ in 0..2 {
                lay(core.path(), &release).unwrap();
            }
            let modules = core.path().join("node_modules");
            let link = modules.join(plugin).join("node_modules").join(host);
            assert!(link.is_symlink());
            assert_eq!(link.canonicalize().unwrap(), modules.join(host).canonicalize().unwrap());
        }
    }

    #[test]
    fn a_plugin_of_somebody_else_gets_none_and_nothing_is_written_through_a_link() {
        let (core, release) = installed("app", "extra", "other");
        lay(core.path(), &release).unwrap();
        let modules = core.path().join("node_modules/extra/node_modules");
        assert!(!modules.exists());
        let (core, release) = installed("app", "extra", "app");
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), core.path().join("node_modules/extra/node_modules")).unwrap();
        lay(core.path(), &release).unwrap_err();
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

//! Trees and programs that a measurement needs, from npm, kept in a cache directory.
//!
//! Knows how a host, a plugin and what they need are laid out so that every program finds them; must not know what is
//! measured.

use anyhow::{Context as _, Result};
use cutover_testkit::openclaw::{PLUGIN, Runtime};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(900);

/// What is compared with, as the registry gave it when this was written.
const RIVALS: [&str; 4] =
    ["oxlint@1.94.0", "rolldown@1.3.2", "eslint@9.39.5", "eslint-plugin-import-x@4.18.1"];

/// Larger files are not read by a check, so that nobody is given them.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// The check alone, as a program.
const MEASURE: &str = "target/release/examples/measure";

pub(super) struct Bed {
    cache: PathBuf,
    runtime: tokio::runtime::Runtime,
    node: Runtime,
    /// Where the programs that are compared with are installed.
    rivals: PathBuf,
    measure: PathBuf,
}

/// A host, and perhaps a plugin, in a directory of their own: `host`, `plugin`, and `node_modules` beside them.
pub(super) struct Tree {
    pub(super) name: String,
    directory: tempfile::TempDir,
    has_plugin: bool,
}

impl Bed {
    /// Builds and installs what is missing.
    pub(super) fn made(cache: &Path) -> Result<Bed> {
        fs::create_dir_all(cache).with_context(|| cache.display().to_string())?;
        let cache = cache.canonicalize().with_context(|| cache.display().to_string())?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
        let build =
            ["build", "--quiet", "--release", "--locked", "-p", "cutover-imports", "--example", "measure"];
        let status = Command::new(env!("CARGO")).args(build).current_dir(root).status().context("cargo")?;
        anyhow::ensure!(status.success(), "cargo {}: {status}", build.join(" "));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = runtime.block_on(Runtime::kept_in(&cache, INSTALL))?;
        let project = cache.join("rivals").join(RIVALS.join("+"));
        runtime.block_on(node.packages(&RIVALS, &project, INSTALL))?;
        for (name, text) in [
            ("bundle.mjs", include_str!("bundle.mjs")),
            ("eslint.config.mjs", include_str!("eslint.config.mjs")),
        ] {
            fs::write(project.join(name), text).with_context(|| name.to_owned())?;
        }
        Ok(Bed { cache, runtime, node, rivals: project, measure: root.join(MEASURE) })
    }

    /// Lays out a version of the gateway with its plugin of the same version, if one is published.
    pub(super) fn tree(&self, version: &str, has_plugin: bool) -> Result<Tree> {
        let directory = tempfile::tempdir_in(&self.cache).context("a directory for a tree")?;
        let modules = directory.path().join("node_modules");
        fs::create_dir(&modules)?;
        let project = self.cache.join("openclaw").join(version);
        let host = self.runtime.block_on(self.node.gateway(version, &project, INSTALL))?;
        share(&host, &directory.path().join("host"))?;
        symlink("../host", modules.join("openclaw"))?;
        for entry in fs::read_dir(project.join("node_modules"))? {
            let entry = entry?;
            if entry.file_name() != "openclaw" {
                symlink(entry.path(), modules.join(entry.file_name()))?;
            }
        }
        let mut name = format!("openclaw {version}");
        if has_plugin {
            let package = format!("{PLUGIN}@{version}");
            let project = self.cache.join("programs").join(package.replace('/', "+"));
            let installed = self.runtime.block_on(self.node.packages(&[&package], &project, INSTALL))?;
            share(&installed.join(PLUGIN), &directory.path().join("plugin"))?;
            name.push_str(&format!(" with {package}"));
        }
        Ok(Tree { name, directory, has_plugin })
    }

    /// Our part, in a tree.
    pub(super) fn measure(&self, tree: &Tree, words: &[&Path]) -> Command {
        let mut command = Command::new(&self.measure);
        command.args(words).current_dir(tree.directory.path());
        command
    }

    /// A program of another maker, in a tree, with its own node first on PATH.
    pub(super) fn rival(&self, tree: &Tree, name: &str) -> Result<Command> {
        let mut command = Command::new(self.node.node());
        command.arg(match name {
            "bundle" => self.rivals.join("bundle.mjs"),
            // The file behind npm's link: node is named, so that nothing depends on PATH.
            name => self.rivals.join("node_modules/.bin").join(name).canonicalize().context("npm's link")?,
        });
        command.current_dir(tree.directory.path());
        Ok(command)
    }

    pub(super) fn rivals(&self) -> &Path {
        &self.rivals
    }
}

impl Tree {
    /// The directories of packages, the host first.
    pub(super) fn packages(&self) -> &'static [&'static str] {
        if self.has_plugin { &["host", "plugin"] } else { &["host"] }
    }
}

/// A copy that shares its files.
fn share(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            share(&path, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path)?, target)?;
        } else if entry.metadata()?.len() <= FILE_BYTES_MAX {
            fs::hard_link(&path, target).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

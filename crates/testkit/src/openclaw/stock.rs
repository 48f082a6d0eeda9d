//! Somebody who uses the gateway by a program of their own, through the public client for Node.js.

use super::{Runtime, STOCK_CLIENT, STOCK_CLIENT_VERSION};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Presses, and follows what becomes of it.
const PROGRAM: &str = include_str!("stock.mjs");

/// The public client, installed, and the node that it is run with.
#[derive(Clone, Debug)]
pub struct StockClient {
    node: PathBuf,
    module: PathBuf,
}

impl StockClient {
    /// Finds the client in `cache`, or installs it there. `limit` bounds each of four tries.
    ///
    /// # Errors
    /// If npm is not there or fails.
    pub async fn kept_in(cache: &Path, runtime: &Runtime, limit: Duration) -> anyhow::Result<StockClient> {
        let package = format!("{STOCK_CLIENT}@{STOCK_CLIENT_VERSION}");
        let project = cache.join("programs").join(&package);
        let modules = runtime.packages(&[&package], &project, limit).await?;
        let module = modules.join(STOCK_CLIENT).join("dist/index.mjs");
        Ok(StockClient { node: runtime.node(), module: std::path::absolute(module)? })
    }

    /// Connects as an administrator, calls `update.run` and follows the run until it has ended: what the client was told,
    /// in order. Each is an object with one of `connected`, `disconnected`, `changed`, `pressed`, `refused`, `run` and, at
    /// the end, `status`. What the client keeps, it keeps in `home`.
    ///
    /// # Errors
    /// If it fails, or takes longer than `limit`.
    pub async fn press(
        &self,
        gateway: SocketAddr,
        token: &str,
        home: &Path,
        limit: Duration,
    ) -> anyhow::Result<Vec<Value>> {
        let mut node = Command::new(&self.node);
        node.args(["--no-warnings", "--input-type=module", "--eval", PROGRAM, "--"]);
        node.arg(&self.module).arg(format!("ws://{gateway}/")).arg(token).arg(home.join("identity.json"));
        node.env("HOME", home).stdin(Stdio::null()).kill_on_drop(true);
        let output =
            timeout(limit, node.output()).await.with_context(|| format!("not told in {limit:?}"))??;
        let said = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("the client ended with {}: {said}{}", output.status, errors.trim());
        }
        let told = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!(told.iter().any(|told| told.get("status").is_some()), "the client told no end: {said}");
        Ok(told)
    }
}

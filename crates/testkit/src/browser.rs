//! A headless Chromium, driven over its DevTools protocol: what a person sees of a page, and what a person does to it.
//!
//! This workshop knows pages and presses. It must not know whose page it is, nor what it should show.

mod tab;

pub use tab::{Scheme, Tab};

use anyhow::{Context as _, bail};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian and others put it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// What keeps it from talking to anybody but the page's own server, and from asking for anything that a container lacks.
const WORDS: [&str; 14] = [
    "--headless=new",
    "--remote-debugging-port=0",
    "--window-size=1280,900",
    "--no-sandbox",
    "--no-proxy-server",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--password-store=basic",
];
/// Between two looks at something that should come about.
const LOOK: Duration = Duration::from_millis(100);

/// A browser with a profile of its own. Dropping it kills it and removes the profile.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    profile: TempDir,
    devtools: SocketAddr,
    path: String,
}

/// The Chromium of this machine, if there is one on PATH.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES.iter().flat_map(|name| places.iter().map(move |place| place.join(name))).find(|file| file.is_file())
}

impl Browser {
    /// Starts `program` and waits at most `limit` until it can be driven.
    ///
    /// # Errors
    /// If it cannot be started, ends, or is not ready in time.
    pub async fn start(program: &Path, limit: Duration) -> anyhow::Result<Browser> {
        let profile = tempfile::Builder::new().prefix("browser-").tempdir().context("make a profile")?;
        let log = std::fs::File::create(profile.path().join("log")).context("make a log")?;
        let mut command = Command::new(program);
        command.args(WORDS).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.env("HOME", profile.path()).env_remove("DISPLAY").env_remove("DBUS_SESSION_BUS_ADDRESS");
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let devtools = (Ipv4Addr::LOCALHOST, 0).into();
        let mut browser = Browser { process, profile, devtools, path: String::new() };
        let begun = Instant::now();
        while !browser.has_told_its_port()? {
            if let Some(status) = browser.process.try_wait()? {
                bail!("{} ended with {status}: {}", program.display(), browser.said());
            }
            if begun.elapsed() > limit {
                bail!("{} is not ready within {limit:?}: {}", program.display(), browser.said());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(browser)
    }

    /// Opens an address in a tab of its own. `limit` bounds this, and each command to the tab later.
    ///
    /// # Errors
    /// If the browser does not answer in time, or refuses.
    pub async fn open(&self, url: &str, limit: Duration) -> anyhow::Result<Tab> {
        let mut whole = Tab::connect(self.devtools, &self.path, limit).await.context("the browser itself")?;
        let made = whole.command("Target.createTarget", json!({"url": "about:blank"})).await?;
        let target = made["targetId"].as_str().context("a new tab has no id")?;
        let mut tab = Tab::connect(self.devtools, &format!("/devtools/page/{target}"), limit).await?;
        for domain in ["Page", "Runtime", "Log"] {
            tab.command(&format!("{domain}.enable"), json!({})).await?;
        }
        tab.go(url).await?;
        Ok(tab)
    }

    /// Whether it has written where it listens; the second line is the last that it writes.
    fn has_told_its_port(&mut self) -> anyhow::Result<bool> {
        let written = std::fs::read_to_string(self.profile.path().join("DevToolsActivePort"));
        let Some((port, path)) = written.as_deref().ok().and_then(|text| text.split_once('\n')) else {
            return Ok(false);
        };
        if path.trim().is_empty() {
            return Ok(false);
        }
        self.devtools.set_port(port.trim().parse().with_context(|| format!("no port: {port}"))?);
        path.trim().clone_into(&mut self.path);
        Ok(true)
    }

    fn said(&self) -> String {
        let text = std::fs::read(self.profile.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Its helpers end by themselves when it is gone, and may write until then.
        for _ in 0..50 {
            match std::fs::remove_dir_all(self.profile.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(LOOK),
                _ => break,
            }
        }
    }
}
